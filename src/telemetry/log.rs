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

/// Keeps a fact that may come in floods to a few lines in a while.
#[derive(Debug)]
pub struct Flood {
    /// How many lines there are in one while.
    lines: u32,
    state: Mutex<FloodState>,
}

#[derive(Debug, Default)]
struct FloodState {
    began: Option<Instant>,
    logged: u32,
    /// How often the fact has come since the last line.
    count: u64,
}

impl Default for Flood {
    /// One line in a while.
    fn default() -> Self {
        Self::of(1)
    }
}

impl Flood {
    /// No more than so many lines in 10 s.
    pub fn of(lines: u32) -> Self {
        Self { lines, state: Mutex::default() }
    }

    /// The fact has come once more. If it is to be logged now: how often it has come since the last
    /// line.
    pub fn count(&self) -> Option<u64> {
        const WHILE: Duration = Duration::from_secs(10);
        let now = Instant::now();
        let mut state = self.state.lock();
        state.count += 1;
        if state.began.is_none_or(|began| now - began >= WHILE) {
            state.began = Some(now);
            state.logged = 0;
        }
        if state.logged == self.lines {
            return None;
        }
        state.logged += 1;
        Some(std::mem::take(&mut state.count))
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

        let flood = Flood::of(2);
        assert_eq!([(); 4].map(|()| flood.count()), [Some(1), Some(1), None, None]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!([(); 3].map(|()| flood.count()), [Some(3), Some(1), None]);
    }
}
