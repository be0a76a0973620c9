//! What a run says, as events of its channel (contract, section 6), and what we add to it.
//!
//! An unmodified client of the reference shows `council_score_stream` and is told no more by it
//! than it knows: what is new stands in further fields, or in notices, which such a client does not
//! see. Every text begins with an empty piece; another empty piece begins it anew.

use serde::Serialize;
use serde_json::{Value, json};

use super::board::{Place, Totals};
use super::end::Ended;
use super::question::Asked;
use super::verdict::Verdict;
use crate::event::{Payload, now};

/// The type of all that clients of the reference know.
const SCORE: &str = "council_score_stream";
/// As many characters of an answer as are its `reasoning`.
const REASONING: usize = 500;

/// A piece of a member's text.
#[derive(Serialize)]
struct Piece<'a> {
    r#type: &'static str,
    stage: &'a str,
    model: &'a str,
    thinking: &'a str,
    #[serde(rename = "isComplete")]
    is_complete: bool,
    timestamp: String,
}

/// A piece of a text. An empty one begins the text (anew).
pub(super) fn piece(place: &Place, thinking: &str) -> Option<Payload> {
    let (stage, model) = (&*place.stage, &*place.asked.seat.name);
    let timestamp = now();
    Payload::of(&Piece { r#type: SCORE, stage, model, thinking, is_complete: false, timestamp })
}

/// A member has ended.
pub(super) fn end(place: &Place, ended: &Ended) -> Option<Payload> {
    let mut said = json!({"type": SCORE, "stage": place.stage, "model": place.asked.seat.name});
    let fields = said.as_object_mut()?;
    if ended.has_answer() {
        if let Some(score) = place.given.score {
            fields.insert("score".to_owned(), json!(score));
        }
        fields.insert("reasoning".to_owned(), json!(reasoning(place)));
    } else {
        fields.insert("thinking".to_owned(), json!(format!("Error: {}", ended.message)));
    }
    fields.insert("isComplete".to_owned(), json!(true));
    fields.insert("timestamp".to_owned(), json!(now()));
    fields.extend(place.facts());
    Payload::of(&said)
}

/// A notice at the beginning: the run, who sits on it, and its rules.
pub(super) fn run(id: &str, asked: &[Asked], rules: Value) -> Option<Payload> {
    let member = |asked: &Asked| json!({"model": asked.seat.name, "weight": asked.weight});
    let members: Vec<_> = asked.iter().map(member).collect();
    let mut said = json!({"type": "council_run", "stage": "run", "runId": id, "members": members});
    merge(&mut said, rules);
    merge(&mut said, json!({"timestamp": now()}));
    Payload::of(&said)
}

/// A notice after each score: what they come to so far.
pub(super) fn aggregate(verdict: &Verdict) -> Option<Payload> {
    let mut said = json!({"type": "council_aggregate", "stage": "aggregate", "provisional": true});
    merge(&mut said, sums(verdict));
    merge(&mut said, json!({"timestamp": now()}));
    Payload::of(&said)
}

/// All members have ended.
pub(super) fn aggregating() -> Option<Payload> {
    Payload::of(&json!({"type": SCORE, "stage": "aggregating",
        "thinking": "Aggregating scores from all models...", "isComplete": false,
        "timestamp": now()}))
}

/// The run is over. Ends its streams: what `complete` says is taken from here.
pub(super) fn complete(outcome: &Outcome<'_>) -> Option<Payload> {
    let Outcome { verdict, places, status, error, totals, extra } = outcome;
    let mut score = json!({"composite": verdict.composite});
    let named = [
        ("psychology", "composite", verdict.sub_scores.psychology),
        ("hookStrength", "strength", verdict.sub_scores.hook_strength),
        ("novelty", "composite", verdict.sub_scores.novelty),
    ];
    for (name, inside, value) in named {
        if let Some(value) = value {
            merge(&mut score, json!({name: {inside: value}}));
        }
    }
    let heard = places.iter().filter(|place| place.has_answer());
    let scores: Vec<_> = heard
        .map(|place| {
            let mut entry = json!({"model": place.asked.seat.name});
            if let Some(score) = place.given.score {
                merge(&mut entry, json!({"score": score}));
            }
            merge(&mut entry, json!({"reasoning": reasoning(place)}));
            entry
        })
        .collect();
    let mut said = json!({"type": SCORE, "stage": "complete", "isComplete": true,
        "finalScore": score, "timestamp": now(), "status": status, "scores": scores,
        "compositeScore": verdict.composite});
    if let Some(error) = error {
        merge(&mut said, json!({"error": error}));
    }
    merge(&mut said, sums(verdict));
    merge(&mut said, totals.json());
    merge(&mut said, extra.clone());
    Payload::of(&said)
}

/// How a run has ended.
pub(super) struct Outcome<'a> {
    pub(super) verdict: Verdict,
    /// The members in their first stage.
    pub(super) places: &'a [Place],
    pub(super) status: &'static str,
    /// What went wrong, if nobody has answered.
    pub(super) error: Option<String>,
    pub(super) totals: Totals,
    /// What the second stage adds.
    pub(super) extra: Value,
}

fn sums(verdict: &Verdict) -> Value {
    let mut sums = json!({"composite": verdict.composite, "scored": verdict.scored,
        "members": verdict.members, "quorum": verdict.quorum});
    if let Some(spread) = &verdict.spread {
        let spread = json!({"least": spread.least, "most": spread.most,
            "deviation": spread.deviation});
        merge(&mut sums, json!({"spread": spread}));
    }
    sums
}

fn reasoning(place: &Place) -> String {
    place.text.chars().take(REASONING).collect()
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
