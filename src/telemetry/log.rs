//! Logs: one line a fact, on standard error, as text or JSON.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::{SystemTime, uptime};

/// Sends the log of this process to standard error: one JSON object a line for machines, or text
/// for people. `level` is a filter such as `info` or `info,sluice::hub=debug`.
///
/// # Errors
/// When `level` is not a filter, or a log was set up before.
pub fn init(as_json: bool, level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("log.level: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let done = if as_json {
        log.json().flatten_event(true).with_timer(SystemTime).try_init()
    } else if stderr().is_terminal() {
        log.with_timer(uptime()).try_init()
    } else {
        log.with_ansi(false).with_timer(SystemTime).try_init()
    };
    done.map_err(|error| error.to_string())
}

/// Keeps a fact that may come in floods to one line in a while.
#[derive(Debug, Default)]
pub struct Flood(Mutex<(Option<Instant>, u64)>);

impl Flood {
    /// The fact has come once more. If it is to be logged now: how often it has come since the last
    /// time.
    pub fn count(&self) -> Option<u64> {
        const PAUSE: Duration = Duration::from_secs(10);
        let now = Instant::now();
        let (last, count) = &mut *self.0.lock();
        *count += 1;
        if last.is_some_and(|last| now - last < PAUSE) {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_one_line_with_a_count() {
        let flood = Flood::default();
        assert_eq!(flood.count(), Some(1));
        assert!((0..99).all(|_| flood.count().is_none()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(flood.count(), Some(100));
        assert_eq!(flood.count(), None);
    }
}
