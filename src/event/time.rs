//! Timestamps as the wire contract writes them, and as workers do.

use std::iter::successors;
use std::time::SystemTime;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

/// The present, written `2026-11-21T22:25:22.787Z`.
pub fn now() -> String {
    timestamp(SystemTime::now())
}

/// A moment, written `2026-11-21T22:25:22.787Z` (UTC, milliseconds).
pub fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// When a report was made, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It does not say.
    Unsaid,
    /// It says something that is no moment.
    Unreadable,
    /// Then.
    At(Timestamp),
}

impl Made {
    /// Reads a worker's timestamp: ISO 8601, in UTC if it says no zone, or a number since 1970, which may
    /// be a text: seconds, milliseconds, microseconds or nanoseconds, as its size says.
    pub fn read(value: Option<&RawValue>) -> Self {
        let Some(value) = value.map(RawValue::get).filter(|value| *value != "null") else {
            return Self::Unsaid;
        };
        let text = serde_json::from_str::<String>(value).ok();
        let text = text.as_deref().unwrap_or(value);
        since_1970(text).or_else(|| iso_8601(text)).map_or(Self::Unreadable, Self::At)
    }

    /// Whether it was made before `other`; `None` if that cannot be told although both say.
    pub fn is_before(self, other: Self) -> Option<bool> {
        match (self, other) {
            (Self::Unsaid, _) | (_, Self::Unsaid) => Some(false),
            (Self::At(one), Self::At(other)) => Some(one < other),
            _ => None,
        }
    }
}

fn since_1970(text: &str) -> Option<Timestamp> {
    /// Seconds of this many are in the year 5138; milliseconds of as many are in 1973, and so on.
    const MOST: u128 = 100_000_000_000;
    if let Ok(number) = text.parse::<i128>() {
        let units = [1_000_000_000, 1_000_000, 1_000, 1].into_iter();
        let mut units = units.zip(successors(Some(MOST), |most| Some(most * 1_000)));
        let unit = units.find(|(_, most)| number.unsigned_abs() < *most).map(|(unit, _)| unit);
        return Timestamp::from_nanosecond(number.checked_mul(unit?)?).ok();
    }
    let number: f64 = text.parse().ok()?;
    let seconds = successors(Some(number), |number| Some(number / 1e3)).take(4);
    let seconds = seconds.into_iter().find(|number| number.abs() < 1e11)?;
    Timestamp::from_duration(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
}

fn iso_8601(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix(" UTC").unwrap_or(text);
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
            Made::read(Some(&value))
        };
        let then = Made::At("2026-11-27T10:00:00.25Z".parse().unwrap());
        for same in [
            r#""2026-11-27T10:00:00.25Z""#,
            r#""2026-11-27T10:00:00.250000""#,
            r#""2026-11-27 10:00:00.25""#,
            r#""2026-11-27 10:00:00.25 UTC""#,
            r#""2026-11-27T12:00:00.25+02:00""#,
            "1795773600.25",
            "1795773600250",
            "1795773600250000",
            "1795773600250000000",
            r#""1795773600.25""#,
        ] {
            assert_eq!(read(same), then, "{same}");
        }
        for other in ["\"soon\"", "\"\"", "true", "[]", "1e300", "\"10:00\"", "\"nan\""] {
            assert_eq!(read(other), Made::Unreadable, "{other}");
            assert_eq!((read(other).is_before(then), then.is_before(read(other))), (None, None));
        }
        assert_eq!((read("null"), Made::read(None)), (Made::Unsaid, Made::Unsaid));
        for (one, other) in [(Made::Unsaid, then), (then, Made::Unsaid), (then, then)] {
            assert_eq!(one.is_before(other), Some(false));
        }
    }
}
