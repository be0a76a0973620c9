//! What a client chooses for its stream, in the query or the `Last-Event-ID` header.

use std::time::Duration;

use axum::http::HeaderMap;

use crate::event::Variant;
use crate::hub::Resume;
use crate::session::Pace;
use crate::streams::{Declared, Params, RequestError};

/// The options every stream takes.
#[derive(Debug)]
pub(super) struct StreamOptions {
    pub(super) resume: Resume,
    pub(super) pace: Pace,
    pub(super) variant: Variant,
    pub(super) snapshot: bool,
    pub(super) envelope: bool,
}

const LEAST_WINDOW: Duration = Duration::from_millis(1);
const MOST_WINDOW: Duration = Duration::from_secs(10);
const MOST_RATE: f64 = 1000.0;
const LEAST_RATE: f64 = 0.1;

impl StreamOptions {
    pub(super) fn read(
        stream: &Declared,
        params: &Params,
        headers: &HeaderMap,
    ) -> Result<Self, RequestError> {
        let compressed = match params.get("compress") {
            None => false,
            Some("gzip") => true,
            Some(_) => return Err(RequestError::invalid("compress", "only gzip is known")),
        };
        Ok(Self {
            resume: resume(params, headers),
            pace: pace(stream, params)?,
            variant: Variant { named: flag(params, "named", false)?, compressed },
            snapshot: flag(params, "snapshot", stream.snapshot)?,
            envelope: flag(params, "envelope", true)?,
        })
    }
}

/// The header wins: it is newer than a URL that was written when the page was loaded.
fn resume(params: &Params, headers: &HeaderMap) -> Resume {
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    match header.filter(|id| !id.is_empty()).or_else(|| params.get("lastEventId")) {
        None => Resume::Fresh,
        Some(id) => id.parse().map_or(Resume::Unknown, Resume::At),
    }
}

fn pace(stream: &Declared, params: &Params) -> Result<Pace, RequestError> {
    match (params.get("batch"), params.get("maxRate")) {
        (Some(_), Some(_)) => Err(RequestError::invalid("batch", "not together with maxRate")),
        (Some(batch), None) => {
            let window = humantime::parse_duration(batch)
                .ok()
                .filter(|window| window.is_zero() || (LEAST_WINDOW..=MOST_WINDOW).contains(window));
            let window = window.ok_or_else(|| {
                RequestError::invalid("batch", "a time such as 100ms, at most 10s")
            })?;
            Ok(of_window(window))
        }
        (None, Some(rate)) => {
            let rate = rate.parse().ok().filter(|rate| (LEAST_RATE..=MOST_RATE).contains(rate));
            let rate = rate.ok_or_else(|| {
                RequestError::invalid("maxRate", "events per second, from 0.1 to 1000")
            })?;
            Ok(Pace::Rate(Duration::from_secs_f64(1.0 / rate)))
        }
        (None, None) => Ok(of_window(stream.batch)),
    }
}

fn of_window(window: Duration) -> Pace {
    if window.is_zero() { Pace::AsItComes } else { Pace::Window(window) }
}

fn flag(params: &Params, name: &str, default: bool) -> Result<bool, RequestError> {
    match params.get(name) {
        None => Ok(default),
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(RequestError::invalid(name, "true or false")),
    }
}
