//! Logs: one line a fact, on standard error, as text or JSON.

use std::io::{IsTerminal, stderr};

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
