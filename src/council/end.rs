//! Every way a member's answer can end, by name.

use std::time::Duration;

use super::dialect::{Fault, FaultKind, Finish};

/// How a member's answer has ended. The name is its label in metrics and its word on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// It said all it had to say.
    Ok,
    /// It was cut off: at its longest, or without its last word.
    Truncated,
    /// The model refused.
    Refused,
    /// The provider's filter blocked the question or the answer.
    Blocked,
    /// Its first word did not come in time.
    TimeoutFirstText,
    /// It fell silent.
    TimeoutIdle,
    /// It took too long, or the run did.
    TimeoutTotal,
    /// It was asked too often.
    RateLimited,
    /// Its provider has too much to do.
    Overloaded,
    /// The key is missing, wrong, or may not do this.
    Auth,
    /// Its provider failed in another way.
    UpstreamError,
    /// It was stopped by a caller, or because nobody watched.
    Cancelled,
    /// Its money is spent: the run's, its own, or what its provider had been paid.
    Budget,
}

/// The end of one member's answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ended {
    pub(super) kind: EndKind,
    /// For machines: the provider's code, or ours.
    pub(super) code: Option<String>,
    /// For people; empty if all went well.
    pub(super) message: String,
    /// When its provider said that it may be asked again.
    pub(super) retry_after: Option<Duration>,
}

impl EndKind {
    /// Every end.
    pub const ALL: [Self; 13] = [
        Self::Ok,
        Self::Truncated,
        Self::Refused,
        Self::Blocked,
        Self::TimeoutFirstText,
        Self::TimeoutIdle,
        Self::TimeoutTotal,
        Self::RateLimited,
        Self::Overloaded,
        Self::Auth,
        Self::UpstreamError,
        Self::Cancelled,
        Self::Budget,
    ];

    /// The name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Truncated => "truncated",
            Self::Refused => "refused",
            Self::Blocked => "blocked",
            Self::TimeoutFirstText => "timeout_first_text",
            Self::TimeoutIdle => "timeout_idle",
            Self::TimeoutTotal => "timeout_total",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Auth => "auth",
            Self::UpstreamError => "upstream_error",
            Self::Cancelled => "cancelled",
            Self::Budget => "budget",
        }
    }
}

/// The code of an answer that its provider has cut at the longest allowed.
const LENGTH: &str = "length";

impl Ended {
    pub(super) fn new(kind: EndKind, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into(), retry_after: None }
    }

    pub(super) fn with_code(self, code: &str) -> Self {
        Self { code: Some(code.to_owned()), ..self }
    }

    /// Whether what was said counts as an answer. One that was cut at the longest allowed does; it
    /// has a score only if that was said before. One without its last word does not.
    pub(super) fn has_answer(&self) -> bool {
        let at_length = || self.code.as_deref() == Some(LENGTH);
        self.kind == EndKind::Ok || self.kind == EndKind::Truncated && at_length()
    }
}

impl From<Finish> for Ended {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Complete => Self::new(EndKind::Ok, ""),
            Finish::Truncated => {
                Self::new(EndKind::Truncated, "the answer was cut off at its longest")
                    .with_code(LENGTH)
            }
            Finish::Refused => Self::new(EndKind::Refused, "the model refused to answer"),
            Finish::Blocked => Self::new(EndKind::Blocked, "the provider's filter blocked it"),
        }
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        let kind = match fault.kind {
            FaultKind::RateLimited => EndKind::RateLimited,
            FaultKind::Overloaded => EndKind::Overloaded,
            FaultKind::Auth => EndKind::Auth,
            FaultKind::Budget => EndKind::Budget,
            FaultKind::Blocked => EndKind::Blocked,
            FaultKind::Upstream => EndKind::UpstreamError,
        };
        let Fault { code, message, retry_after, .. } = fault;
        Self { kind, code, message, retry_after }
    }
}
