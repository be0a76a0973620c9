//! Timestamps as the wire contract writes them.

use std::time::SystemTime;

/// The present, written `2026-11-21T22:25:22.787Z`.
pub fn now() -> String {
    timestamp(SystemTime::now())
}

/// A moment, written `2026-11-21T22:25:22.787Z` (UTC, milliseconds).
pub fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
