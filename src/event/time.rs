//! Timestamps as the wire contract writes them, and as workers do.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde_json::value::RawValue;

/// The present, written `2026-11-21T22:25:22.787Z`.
pub fn now() -> String {
    timestamp(SystemTime::now())
}

/// A moment, written `2026-11-21T22:25:22.787Z` (UTC, milliseconds).
pub fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// The moment that a worker's timestamp stands for: ISO 8601, in UTC if it says no zone, or seconds or
/// milliseconds since 1970. `None` if it is none of these.
pub fn moment(value: &RawValue) -> Option<Timestamp> {
    /// Seconds of this many are in the year 5138; milliseconds of as many are in 1973.
    const SECONDS: f64 = 1e11;
    if let Ok(number) = serde_json::from_str::<f64>(value.get()) {
        let seconds = if number.abs() < SECONDS { number } else { number / 1e3 };
        return jiff::SignedDuration::try_from_secs_f64(seconds)
            .and_then(Timestamp::from_duration)
            .ok();
    }
    let text: String = serde_json::from_str(value.get()).ok()?;
    let zoneless = || text.parse::<DateTime>().and_then(|time| Offset::UTC.to_timestamp(time));
    text.parse().or_else(|_| zoneless()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_write_moments_in_many_ways() {
        let read = |json: &str| {
            let value = RawValue::from_string(json.to_owned()).unwrap();
            moment(&value).map(|moment| moment.to_string())
        };
        for same in [
            r#""2026-11-27T10:00:00.25Z""#,
            r#""2026-11-27T10:00:00.250000""#,
            r#""2026-11-27 10:00:00.25""#,
            r#""2026-11-27T12:00:00.25+02:00""#,
            "1795773600.25",
            "1795773600250",
        ] {
            assert_eq!(read(same).as_deref(), Some("2026-11-27T10:00:00.25Z"), "{same}");
        }
        for other in ["\"soon\"", "\"\"", "null", "true", "[]", "1e300", "\"10:00\""] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
