//! What a provider's error means: whose fault it is, and whether another try may help.
//!
//! Errors come as the status and body of an answer or inside its stream, in as many forms as there
//! are providers. This reads them all into one; when to try again, and how often, is decided
//! elsewhere.

use std::time::{Duration, SystemTime};

use super::json::{Tree, at, list, text};
use super::message::tidy;
use crate::council::upstream::sse::ReadFault;

/// Parts of labels in one spelling. The first that fits counts: no money is also a rate limit.
const LABELS: [(FaultKind, &[&str]); 5] = [
    (
        FaultKind::Budget,
        &[
            "insufficientquota",
            "insufficientcredits",
            "insufficientbalance",
            "spendlimit",
            "creditbalance",
            "billing",
            "paymentrequired",
        ],
    ),
    (FaultKind::Blocked, &["contentfilter", "contentpolicy", "moderation"]),
    (
        FaultKind::Auth,
        &["authentication", "unauthenticated", "unauthorized", "permission", "apikey"],
    ),
    (FaultKind::RateLimited, &["ratelimit", "resourceexhausted", "toomanyrequests"]),
    (FaultKind::Overloaded, &["overloaded", "unavailable"]),
];

/// Parts of the labels of what may be over soon.
const PASSING: [&str; 10] = [
    "ratelimit",
    "resourceexhausted",
    "toomanyrequests",
    "overloaded",
    "unavailable",
    "servererror",
    "apierror",
    "internal",
    "timeout",
    "deadlineexceeded",
];

/// The longest time to wait that is taken over from a provider.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::council) struct Fault {
    /// What to do about it.
    pub(in crate::council) kind: FaultKind,
    /// What the provider calls it, or the status.
    pub(in crate::council) code: Option<String>,
    /// For people: one line of at most 300 characters, without keys.
    pub(in crate::council) message: String,
    /// Whether the same request may succeed later.
    pub(in crate::council) retryable: bool,
    /// How long the provider wants to be left alone.
    pub(in crate::council) retry_after: Option<Duration>,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::council) enum FaultKind {
    /// We ask too much.
    RateLimited,
    /// Everybody asks too much.
    Overloaded,
    /// The key is wrong or may not do this.
    Auth,
    /// There is no money left at the provider.
    Budget,
    /// A filter of the provider did not let the question pass.
    Blocked,
    /// Anything else.
    Upstream,
}

impl Fault {
    /// Of an answer that is no stream, a 200 included, whose status then says nothing. A date to
    /// retry after is compared with `now`.
    pub(in crate::council) fn of_status<'h>(
        status: u16,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
        now: SystemTime,
    ) -> Self {
        let failed = Some(status).filter(|status| *status != 200);
        let plain = || Tree::Str(String::from_utf8_lossy(body));
        let json =
            serde_json::from_slice(body).ok().filter(|v: &Tree<'_>| v.is_object() || v.is_array());
        let mut fault = describe(&json.unwrap_or_else(plain), failed);
        if header("x-should-retry") == Some("false") {
            fault.retryable = false;
        }
        fault.retry_after = retry_after(header, now).or(fault.retry_after);
        fault
    }

    /// An answer that ended for a reason that is an error.
    pub(super) fn ended(kind: FaultKind, reason: &str) -> Self {
        Self::plain(kind, reason, &format!("the answer ended with {reason}"), true)
    }

    /// The same with other words.
    pub(super) fn saying(self, message: &str) -> Self {
        Self { message: tidy(message), ..self }
    }

    fn plain(kind: FaultKind, code: &str, message: &str, retryable: bool) -> Self {
        let (code, message) = (Some(code.to_owned()), tidy(message));
        Self { kind, code, message, retryable, retry_after: None }
    }
}

/// Whether the value is an error instead of a chunk.
pub(super) fn is_error(value: &Tree<'_>) -> bool {
    let value = unwrapped(value);
    at(value, &["error"]).is_some_and(|error| !error.is_null())
        || text(value, &["type"]) == Some("error")
}

/// Of an error inside a stream.
pub(super) fn of_json(value: &Tree<'_>) -> Fault {
    describe(value, None)
}

/// Of an error inside a stream that never became whole JSON.
pub(super) fn of_text(text: &str) -> Fault {
    Fault { code: None, ..Fault::plain(FaultKind::Upstream, "", text, false) }
}

/// Of data that is not JSON.
pub(super) fn malformed(data: &str) -> Fault {
    let message = format!("the provider sent something that is not JSON: {data}");
    Fault::plain(FaultKind::Upstream, "malformed", &message, true)
}

/// Of bytes that are no event.
pub(super) fn of_read(fault: ReadFault) -> Fault {
    let (code, message, retryable) = match fault {
        ReadFault::BadUtf8 => ("bad_utf8", "the provider sent something that is not UTF-8", true),
        ReadFault::TooLong => ("too_long", "the provider sent an event that is too long", false),
    };
    Fault::plain(FaultKind::Upstream, code, message, retryable)
}

fn describe(value: &Tree<'_>, status: Option<u16>) -> Fault {
    let value = unwrapped(value);
    let error = at(value, &["error"]).filter(|error| !error.is_null()).unwrap_or(value);
    let labels = labels(value, error);
    let number = number(error);
    let shown = labels.first().map(|label| tidy(label));
    let message = message(value, error).unwrap_or_default();
    // One spelling for `rate_limit_error`, `RateLimitError` and `RATE_LIMIT`.
    let labels = labels.join(" ").replace(['_', '-'], "").to_ascii_lowercase();
    let numbers = [number, status].into_iter().flatten();
    let kind = misnamed(&message, error)
        .or_else(|| kind_of_labels(&labels))
        .or_else(|| numbers.clone().find_map(kind_of_number))
        .unwrap_or(FaultKind::Upstream);
    let final_kind = matches!(kind, FaultKind::Auth | FaultKind::Budget | FaultKind::Blocked);
    let passing = status.or(number).map_or_else(|| is_passing_label(&labels), is_passing);
    Fault {
        kind,
        code: shown.or_else(|| numbers.clone().next().map(|number| number.to_string())),
        message: if message.is_empty() { unexplained(status) } else { message },
        retryable: passing && !final_kind,
        retry_after: retry_delay(error),
    }
}

/// Gemini wraps errors into a list when it was not asked for events.
fn unwrapped<'a>(value: &'a Tree<'_>) -> &'a Tree<'a> {
    value.as_array().and_then(<[_]>::first).unwrap_or(value)
}

/// What the provider calls it, the most exact name first.
fn labels<'a>(value: &'a Tree<'_>, error: &'a Tree<'_>) -> Vec<&'a str> {
    let places = [
        text(error, &["code"]).filter(|code| code.parse::<u16>().is_err()),
        text(error, &["status"]).filter(|status| status.parse::<u16>().is_err()),
        text(error, &["type"]),
        text(value, &["code"]),
        text(value, &["error_type"]),
        text(value, &["type"]),
    ];
    let reasons = list(error, &["details"]).iter().map(|detail| text(detail, &["reason"]));
    places.into_iter().chain(reasons).flatten().filter(|label| *label != "error").collect()
}

/// The status in the error itself.
fn number(error: &Tree<'_>) -> Option<u16> {
    let of = |place: &Tree<'_>| match place {
        Tree::Str(text) => text.parse().ok(),
        place => place.as_u64().and_then(|number| number.try_into().ok()),
    };
    let is_status = |number: &u16| (400..600).contains(number);
    ["code", "status", "status_code"]
        .iter()
        .find_map(|name| of(at(error, &[name])?).filter(is_status))
}

/// `OpenRouter` has the words of the provider behind it in its metadata.
fn message(value: &Tree<'_>, error: &Tree<'_>) -> Option<String> {
    let places: [&[_]; 4] = [&["message"], &["detail"], &["detail", "0", "msg"], &["error"]];
    let words = error.as_str().or_else(|| {
        [error, value].into_iter().find_map(|value| places.iter().find_map(|at| text(value, at)))
    });
    let words =
        words.map(str::to_owned).or_else(|| error.is_object().then(|| error.to_string()))?;
    let raw = text(error, &["metadata", "raw"]).map(|raw| format!("{words}: {raw}"));
    Some(tidy(&raw.unwrap_or(words)))
}

fn unexplained(status: Option<u16>) -> String {
    match status {
        Some(status) => format!("the provider answered with status {status}"),
        None => "the provider gave an error without a message".to_owned(),
    }
}

/// What some providers call by a name that says something else.
fn misnamed(message: &str, error: &Tree<'_>) -> Option<FaultKind> {
    // To Anthropic this is an invalid request, to OpenRouter the next a lack of permission.
    let broke = message.contains("credit balance is too low");
    let flagged = at(error, &["metadata", "flagged_input"]).is_some();
    broke.then_some(FaultKind::Budget).or_else(|| flagged.then_some(FaultKind::Blocked))
}

fn kind_of_labels(labels: &str) -> Option<FaultKind> {
    let fits = |parts: &[&str]| parts.iter().any(|part| labels.contains(part));
    LABELS.iter().find(|(_, parts)| fits(parts)).map(|(kind, _)| *kind)
}

fn kind_of_number(number: u16) -> Option<FaultKind> {
    match number {
        401 | 403 => Some(FaultKind::Auth),
        402 => Some(FaultKind::Budget),
        429 => Some(FaultKind::RateLimited),
        503 | 529 => Some(FaultKind::Overloaded),
        _ => None,
    }
}

fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500..=599)
}

fn is_passing_label(labels: &str) -> bool {
    PASSING.iter().any(|part| labels.contains(part))
}

fn retry_after<'h>(header: impl Fn(&str) -> Option<&'h str>, now: SystemTime) -> Option<Duration> {
    let number = |name, unit: f64| seconds(header(name)?.trim().parse::<f64>().ok()? / unit);
    number("retry-after-ms", 1000.0).or_else(|| number("retry-after", 1.0)).or_else(|| {
        let date = httpdate::parse_http_date(header("retry-after")?.trim()).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    })
}

/// Gemini's, such as `"34.4s"`.
fn retry_delay(error: &Tree<'_>) -> Option<Duration> {
    let delay =
        list(error, &["details"]).iter().find_map(|detail| text(detail, &["retryDelay"]))?;
    seconds(delay.strip_suffix('s')?.parse().ok()?)
}

/// Nobody waits for longer than `LONGEST_WAIT`, and clocks need not be able to.
fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok().map(|wait| wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests;
