//! What a council is asked: by whom, of which members, and within which limits.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::seat::Seat;
use crate::settings::Unwatched;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// What makes the same question of somebody the same: a user, or an address.
    pub name: String,
    /// What is limited together: an address.
    pub address: String,
}

/// A question that has been understood.
#[derive(Debug, Clone)]
pub struct Question {
    pub(super) asked: Vec<Asked>,
    pub(super) quorum: usize,
    pub(super) deadline: Duration,
    pub(super) unwatched: Unwatched,
    pub(super) grace: Duration,
    /// 0: any cost.
    pub(super) budget: f64,
    pub(super) scored: bool,
    pub(super) deliberate: bool,
    pub(super) chairman: Option<Arc<Seat>>,
}

/// What one member is asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) seat: Arc<Seat>,
    pub(super) weight: f64,
    pub(super) system: Arc<str>,
    pub(super) user: Arc<str>,
}

/// Why a question is not taken. Clients are told the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Nobody can answer.
    #[error("{0}")]
    NoMembers(String),
    /// The question makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The question is too long.
    #[error("the question is longer than {0} bytes")]
    TooLong(usize),
    /// There are as many runs as the settings allow.
    #[error("too many runs of the council are under way")]
    Full,
    /// The caller has as many runs as the settings allow.
    #[error("too many runs of the council are under way for this address")]
    FullForClient,
    /// The run is not known, or no longer.
    #[error("this run of the council is not known here, or no longer")]
    Unknown,
    /// The name is that of a run that answers another question.
    #[error("a run of this name answers another question")]
    Taken,
    /// The source is away.
    #[error("the event source is not connected; nothing was asked")]
    Unavailable,
}

/// Tells questions apart. Two of the same value are the same question.
pub(super) type Digest = [u64; 2];

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash_into(None, state);
    }
}

impl Question {
    /// What makes it the same question, `who` asks it.
    pub(super) fn hash_into(&self, who: Option<&str>, state: &mut impl Hasher) {
        who.hash(state);
        (self.quorum, self.deadline, self.scored, self.deliberate).hash(state);
        for asked in &self.asked {
            (&asked.seat.name, asked.weight.to_bits(), &asked.system, &asked.user).hash(state);
        }
    }
}

/// The text with `{name}` filled in; every other brace stands for itself, as does all that is
/// filled in.
pub(super) fn fill<'a>(template: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let named = after.split_once('}').filter(|(name, _)| is_name(name));
        let Some((name, after)) = named else {
            text.push('{');
            rest = after;
            continue;
        };
        text.push_str(value(name).unwrap_or_default());
        rest = after;
    }
    text.push_str(rest);
    text
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_filled_in_and_only_once() {
        let value = |name: &str| match name {
            "a" => Some("{b} "),
            "b" => Some("never"),
            _ => None,
        };
        let filled = fill("{a}{missing}{\"a\": {a}} {not a name} {", value);
        assert_eq!(filled, "{b} {\"a\": {b} } {not a name} {");
    }
}
