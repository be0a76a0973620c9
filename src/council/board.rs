//! How a run stands: what each member has said, how it ended, and what it cost.
//!
//! The run's only state. Everything a client is told can be told again from here.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::answer::Given;
use super::dialect::Usage;
use super::end::Ended;
use super::question::Asked;
use super::seat::Seat;
use super::verdict::{Ballot, Verdict};
use crate::event::Payload;

/// One answer that is asked for: a member in a stage of the run.
#[derive(Debug)]
pub(super) struct Place {
    /// The stage on the wire: the member's name, in the first one.
    pub(super) stage: String,
    pub(super) asked: Asked,
    /// Whether a score is asked for.
    pub(super) scored: bool,
    /// What was shown of the answer.
    pub(super) text: String,
    /// The scores in it, if it counts.
    pub(super) given: Given,
    pub(super) ended: Option<Ended>,
    /// What it has used, as far as is known: said by its provider, or guessed from its words.
    pub(super) usage: Usage,
    /// Whether the output in it is guessed.
    pub(super) is_guess: bool,
    /// What attempts before this one have used.
    pub(super) used_before: Usage,
    pub(super) citations: Vec<String>,
    pub(super) attempts: u32,
    pub(super) first_text: Option<Duration>,
}

/// The state of a run.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) places: Vec<Place>,
    /// What was said when the run was over.
    pub(super) complete: Option<Payload>,
    pub(super) status: Status,
    /// The members of the first stage are the first so many places.
    pub(super) members: usize,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Status {
    #[default]
    Running,
    /// It is over, and somebody has answered.
    Complete,
    /// It is over, and nobody has.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// What answers have used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Totals {
    usage: Usage,
    /// Whether some of it is guessed.
    is_guess: bool,
    /// `None` if a price is not known.
    cost: Option<f64>,
}

impl Place {
    /// Takes in what its provider has counted, and where the answer comes from.
    pub(super) fn note(&mut self, usage: Option<Usage>, citations: Option<Vec<String>>) {
        if let Some(usage) = usage {
            // What an answer has used is not known before its output is counted.
            self.is_guess &= usage.output.is_none();
            self.usage = usage.over(Some(self.usage));
        }
        if let Some(citations) = citations {
            self.citations = citations;
        }
    }

    pub(super) fn new(stage: String, asked: Asked, scored: bool) -> Self {
        Self {
            stage,
            asked,
            scored,
            text: String::new(),
            given: Given::default(),
            ended: None,
            usage: Usage::default(),
            is_guess: true,
            used_before: Usage::default(),
            citations: Vec::new(),
            attempts: 0,
            first_text: None,
        }
    }

    /// Nothing was used after all, unless its provider says so.
    pub(super) fn forget_guess(&mut self) {
        if self.is_guess {
            self.usage = Usage::default();
        }
    }

    pub(super) fn has_answer(&self) -> bool {
        self.ended.as_ref().is_some_and(Ended::has_answer)
    }

    /// About how many bytes it holds in memory.
    fn weight(&self) -> usize {
        const OVERHEAD: usize = 1024;
        let asked = self.asked.system.len() + self.asked.user.len();
        let citations = self.citations.iter().map(String::len).sum::<usize>();
        OVERHEAD + asked + self.text.capacity() + citations
    }

    /// What all its attempts have cost.
    pub(super) fn cost(&self) -> Option<f64> {
        self.asked.seat.cost(add(self.used_before, self.usage))
    }

    /// What is known of its answer, beyond the words.
    pub(super) fn facts(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        let mut put = |name: &str, value: Value| facts.insert(name.to_owned(), value);
        if let Some(ended) = &self.ended {
            put("end", json!(ended.kind.as_str()));
            if let Some(code) = &ended.code {
                put("code", json!(code));
            }
            if let Some(after) = ended.retry_after {
                put("retryAfterMs", json!(after.as_millis()));
            }
        }
        if self.scored && self.has_answer() {
            put("scoreSource", json!(self.given.source.as_str()));
            let sub_scores = &self.given.sub_scores;
            let named = [
                ("psychology", sub_scores.psychology),
                ("hookStrength", sub_scores.hook_strength),
                ("novelty", sub_scores.novelty),
            ];
            let given = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
            let given: Map<_, _> = given.map(|(name, v)| (name.to_owned(), json!(v))).collect();
            if !given.is_empty() {
                put("subScores", Value::Object(given));
            }
        }
        put("attempts", json!(self.attempts));
        if let Some(first) = self.first_text {
            put("firstTextMs", json!(first.as_millis()));
        }
        let used = add(self.used_before, self.usage);
        if used != Usage::default() {
            put("usage", usage_json(used, self.is_guess));
        }
        if let Some(cost) = self.cost() {
            put("cost", json!(cost));
        }
        if !self.citations.is_empty() {
            put("citations", json!(self.citations));
        }
        facts
    }
}

impl Board {
    /// What the scores of the members come to, so far.
    pub(super) fn verdict(&self, quorum: usize) -> Verdict {
        let ballot = |place: &Place| Ballot {
            weight: place.asked.weight,
            score: place.given.score,
            sub_scores: place.given.sub_scores,
        };
        let ballots: Vec<_> = self.members().iter().map(ballot).collect();
        Verdict::of(&ballots, quorum)
    }

    /// About how many bytes it holds in memory.
    pub(super) fn weight(&self) -> usize {
        let complete = self.complete.as_ref().map_or(0, |said| said.as_str().len());
        complete + self.places.iter().map(Place::weight).sum::<usize>()
    }

    /// The members in their first stage.
    pub(super) fn members(&self) -> &[Place] {
        self.places.get(..self.members).unwrap_or_default()
    }

    /// What everything has used.
    pub(super) fn totals(&self) -> Totals {
        let used = |place: &Place| add(place.used_before, place.usage);
        let costs: Option<Vec<f64>> = self.places.iter().map(Place::cost).collect();
        Totals {
            usage: self.places.iter().map(used).fold(Usage::default(), add),
            is_guess: self
                .places
                .iter()
                .any(|place| place.is_guess && used(place) != Usage::default()),
            cost: costs.map(|costs| costs.iter().sum()),
        }
    }

    /// What is known to have been spent; what has no price costs nothing.
    pub(super) fn spent(&self) -> f64 {
        self.places.iter().filter_map(Place::cost).sum()
    }

    /// The member who answers in a stage.
    pub(super) fn seat(&self, place: usize) -> Option<Arc<Seat>> {
        self.places.get(place).map(|place| Arc::clone(&place.asked.seat))
    }

    /// How it stands, for whoever asks over HTTP.
    pub(super) fn json(&self, quorum: usize) -> Value {
        let member = |place: &Place| {
            let status = place
                .ended
                .as_ref()
                .map_or(if place.text.is_empty() { "waiting" } else { "answering" }, |ended| {
                    ended.kind.as_str()
                });
            let mut member = Map::new();
            member.insert("stage".to_owned(), json!(place.stage));
            member.insert("model".to_owned(), json!(place.asked.seat.name));
            member.insert("weight".to_owned(), json!(place.asked.weight));
            member.insert("status".to_owned(), json!(status));
            member.insert("score".to_owned(), json!(place.given.score));
            member.insert("text".to_owned(), json!(place.text));
            if let Some(ended) = place.ended.as_ref().filter(|ended| !ended.message.is_empty()) {
                member.insert("error".to_owned(), json!(ended.message));
            }
            member.extend(place.facts());
            member
        };
        let verdict = self.verdict(quorum);
        let members: Vec<_> = self.places.iter().map(member).collect();
        json!({"status": self.status.as_str(), "compositeScore": verdict.composite,
            "scored": verdict.scored, "quorum": verdict.quorum, "members": members,
            "totals": self.totals().json()})
    }
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Every way a run can end.
    pub(super) const ENDS: [Self; 3] = [Self::Complete, Self::Failed, Self::Cancelled];
}

impl Totals {
    pub(super) fn json(&self) -> Value {
        let mut json = json!({"usage": usage_json(self.usage, self.is_guess)});
        if let (Value::Object(fields), Some(cost)) = (&mut json, self.cost) {
            fields.insert("cost".to_owned(), json!(cost));
        }
        json
    }
}

pub(super) fn add(one: Usage, other: Usage) -> Usage {
    let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (None, None) => None,
        (one, other) => Some(one.unwrap_or_default().saturating_add(other.unwrap_or_default())),
    };
    Usage {
        input: sum(one.input, other.input),
        output: sum(one.output, other.output),
        reasoning: sum(one.reasoning, other.reasoning),
    }
}

/// `estimated`: its provider has not said so (yet).
fn usage_json(usage: Usage, estimated: bool) -> Value {
    let named = [
        ("inputTokens", usage.input),
        ("outputTokens", usage.output),
        ("reasoningTokens", usage.reasoning),
    ];
    let known = named.into_iter().filter_map(|(name, tokens)| Some((name, tokens?)));
    let mut json: Map<_, _> = known.map(|(name, n)| (name.to_owned(), json!(n))).collect();
    if estimated {
        json.insert("estimated".to_owned(), json!(true));
    }
    Value::Object(json)
}
