//! What one member has answered so far.
//!
//! A member writes free text whose last line holds its score, or a JSON object whose `reasoning`
//! is the text. Which of the two it is shows at the first character that is not white space, so
//! text is shown without delay and an object never shows its braces. What has been shown is never
//! taken back. It does no I/O and knows no provider.

mod object;
#[cfg(test)]
mod tests;

use super::score::{Scores, SubScores};
use crate::settings::ScoreScale;
use object::ObjectReader;

/// Models like to put one around an object.
const FENCE: &str = "```json";

/// An answer that is still being written.
#[derive(Debug)]
pub(super) struct Answer {
    /// Everything the member wrote, as it wrote it.
    text: String,
    limit: usize,
    form: Form,
    /// Where in the text the object begins; while that is open, where it can begin.
    start: usize,
    /// A fence has been passed on the way to `start`.
    fenced: bool,
}

/// The member wrote more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// What a member's whole answer comes to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Judgement {
    /// All that was shown of the answer.
    pub(super) reasoning: String,
    /// The scores in it.
    pub(super) given: Given,
}

/// The scores a member gave.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Given {
    /// From 0 to 1; none if the member gave none that can be read without guessing.
    pub(super) score: Option<f64>,
    /// How the score was given.
    pub(super) source: ScoreSource,
    /// What the member gave besides its score.
    pub(super) sub_scores: SubScores,
}

/// How a member gave its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ScoreSource {
    /// As a field of the object that was asked for.
    JsonSchema,
    /// In the last line of its text.
    Pattern,
    /// It gave none.
    #[default]
    None,
}

#[derive(Debug)]
enum Form {
    /// Nothing but white space and perhaps a fence so far.
    Opening,
    Text,
    /// Shows its reasoning.
    Object(ObjectReader),
    /// An object without reasoning, shown as it is written.
    Bare,
}

impl ScoreSource {
    /// Its name on the wire.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::JsonSchema => "json_schema",
            Self::Pattern => "pattern",
            Self::None => "none",
        }
    }
}

impl Answer {
    /// An answer may have `limit` bytes, of which an object needs some for itself.
    pub(super) fn new(limit: usize) -> Self {
        Self { text: String::new(), limit, form: Form::Opening, start: 0, fenced: false }
    }

    /// Takes what the member wrote next, and gives what can be shown because of it, which is often
    /// more or less than the piece. A piece that is too much is not taken.
    pub(super) fn push(&mut self, piece: &str) -> Result<&str, TooLong> {
        if self.text.len().saturating_add(piece.len()) > self.limit {
            return Err(TooLong);
        }
        let shown = self.shown().len();
        self.text.push_str(piece);
        match &mut self.form {
            Form::Opening => self.open(),
            Form::Object(object) => object.push(piece),
            Form::Text | Form::Bare => {}
        }
        self.give_up_without_reasoning();
        Ok(self.shown_after(shown))
    }

    /// Ends the answer, and gives what was held back in case more would come.
    pub(super) fn rest(&mut self) -> &str {
        let shown = self.shown().len();
        match &self.form {
            Form::Opening => self.form = Form::Text,
            Form::Object(object) if object.reasoning().is_none() => self.form = Form::Bare,
            Form::Object(_) | Form::Text | Form::Bare => {}
        }
        self.shown_after(shown)
    }

    /// All that was shown so far: what `push` and `rest` gave, joined.
    pub(super) fn shown(&self) -> &str {
        match &self.form {
            Form::Opening => "",
            Form::Text | Form::Bare => &self.text,
            Form::Object(object) => object.reasoning().unwrap_or_default(),
        }
    }

    /// Reads the scores, on the scale that was asked for. Only what is text from the beginning can
    /// hold a score line: in an object it would be a quotation.
    pub(super) fn finish(mut self, scale: ScoreScale) -> Judgement {
        self.rest();
        let (scores, given) = match &self.form {
            Form::Text | Form::Opening => {
                (Scores::from_text(&self.text, scale), ScoreSource::Pattern)
            }
            Form::Object(_) | Form::Bare => {
                let object = self.text.get(self.start..).unwrap_or_default();
                (Scores::from_json(object, scale), ScoreSource::JsonSchema)
            }
        };
        let source = if scores.score.is_some() { given } else { ScoreSource::None };
        Judgement {
            given: Given { score: scores.score, source, sub_scores: scores.sub_scores },
            reasoning: match self.form {
                Form::Object(object) => object.into_reasoning().unwrap_or_default(),
                Form::Opening | Form::Text | Form::Bare => self.text,
            },
        }
    }

    fn shown_after(&self, shown: usize) -> &str {
        self.shown().get(shown..).unwrap_or_default()
    }

    /// Looks at what is new only, however much white space comes first.
    fn open(&mut self) {
        let mut rest = self.text.get(self.start..).unwrap_or_default().trim_start();
        let can_be_fence = FENCE.starts_with(rest);
        if !self.fenced && !can_be_fence {
            let inside = rest.strip_prefix(FENCE).or_else(|| rest.strip_prefix("```"));
            self.fenced = inside.is_some();
            rest = inside.unwrap_or(rest).trim_start();
        }
        self.start = self.text.len() - rest.len();
        if let Some(fields) = rest.strip_prefix('{') {
            let mut object = ObjectReader::default();
            object.push(fields);
            self.form = Form::Object(object);
        } else if !rest.is_empty() && !can_be_fence {
            self.form = Form::Text;
        }
    }

    fn give_up_without_reasoning(&mut self) {
        let Form::Object(object) = &self.form else { return };
        if object.reasoning().is_some() {
            return;
        }
        if object.is_broken() {
            self.form = Form::Text;
        } else if object.is_complete() {
            self.form = Form::Bare;
        }
    }
}
