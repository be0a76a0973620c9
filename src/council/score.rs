//! The scores a member gives, how they are asked for, and how they are read.
//!
//! A score is a number the member wrote as its score, on the scale it was asked for. Whatever is
//! not plainly that is no score: no scale is guessed, nothing is rounded into range, nothing
//! stands in for what is missing. Sub-scores count beside a score only.

mod line;
#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::settings::ScoreScale;
use line::Line;

/// What a member gave as its scores.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Scores {
    /// The score of the whole, from 0 to 1.
    pub(super) score: Option<f64>,
    /// Those of its sides.
    pub(super) sub_scores: SubScores,
}

/// Scores of single sides, from 0 to 1, where a member gave them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct SubScores {
    /// Psychological effect on the audience.
    pub(super) psychology: Option<f64>,
    /// How well the opening seizes attention.
    pub(super) hook_strength: Option<f64>,
    /// How new it is.
    pub(super) novelty: Option<f64>,
}

/// A field that is there twice makes the object unreadable: nobody knows which of them is meant.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Fields {
    score: Value,
    psychology: Value,
    hook_strength: Value,
    novelty: Value,
}

impl ScoreScale {
    fn most(self) -> f64 {
        match self {
            Self::One => 1.0,
            Self::Hundred => 100.0,
        }
    }

    /// From 0 to 1, if the number is on the scale. There is no negative zero.
    fn read(self, number: f64) -> Option<f64> {
        (0.0..=self.most()).contains(&number).then(|| (number / self.most()).abs())
    }
}

impl Scores {
    /// The scores in the object that `text` begins with; what follows it does not matter.
    pub(super) fn from_json(text: &str, scale: ScoreScale) -> Self {
        // Models break lines inside of strings, which JSON forbids; between tokens a break is as
        // good as a blank.
        let text = text.replace(char::is_control, " ");
        let mut json = serde_json::Deserializer::from_str(&text);
        let fields = Fields::deserialize(&mut json).unwrap_or_default();
        let number = |value: &Value| scale.read(number(value)?);
        Self {
            score: number(&fields.score),
            sub_scores: SubScores {
                psychology: number(&fields.psychology),
                hook_strength: number(&fields.hook_strength),
                novelty: number(&fields.novelty),
            },
        }
        .or_none()
    }

    /// The scores in the last line of `text` that says anything: `SCORE: 0.81 NOVELTY: 0.4`.
    pub(super) fn from_text(text: &str, scale: ScoreScale) -> Self {
        let Some(line) = Line::last_of(text) else { return Self::default() };
        let hook = ["HOOK STRENGTH", "HOOK_STRENGTH", "HOOKSTRENGTH", "HOOK"];
        Self {
            score: line.number("SCORE", scale),
            sub_scores: SubScores {
                psychology: line.number("PSYCHOLOGY", scale),
                hook_strength: hook.iter().find_map(|label| line.number(label, scale)),
                novelty: line.number("NOVELTY", scale),
            },
        }
        .or_none()
    }

    fn or_none(self) -> Self {
        if self.score.is_some() { self } else { Self::default() }
    }
}

/// Some models quote numbers.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match line::decimal(text.trim())? {
            (number, "") => Some(number),
            _ => None,
        },
        _ => None,
    }
}

/// The JSON schema of an answer, fit for the providers' strict modes: everything is required, and
/// a range can only be described. The reasoning comes first, so that it can be shown as it comes
/// and the score follows from it.
pub(super) fn schema(scale: ScoreScale) -> Value {
    let most = scale.most();
    let part = |what: &str| {
        let description = format!("{what}, from 0 to {most}; null if it cannot be judged");
        json!({ "type": ["number", "null"], "description": description })
    };
    json!({
        "type": "object",
        "properties": {
            "reasoning": { "type": "string", "description": "The assessment, in plain text" },
            "score": {
                "type": "number",
                "description": format!("The overall score, from 0 (worst) to {most} (best)"),
            },
            "psychology": part("Psychological effect"),
            "hookStrength": part("Strength of the hook"),
            "novelty": part("Novelty"),
        },
        "required": ["reasoning", "score", "psychology", "hookStrength", "novelty"],
        "additionalProperties": false,
    })
}

/// What a prompt ends with when no schema can be given.
pub(super) fn demand(scale: ScoreScale) -> String {
    let most = scale.most();
    format!(
        "End with one last line of exactly this form, each N being a plain number from 0 (worst) \
         to {most} (best):\n\
         SCORE: N PSYCHOLOGY: N HOOK: N NOVELTY: N\n\
         SCORE is the overall score and must be there. Leave out any of the others that you \
         cannot judge."
    )
}
