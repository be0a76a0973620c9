//! Reads one answer, in whichever dialect, and tells it in the words that all share.
//!
//! What the dialects have in common is here: comments, errors instead of chunks, errors in bare
//! JSON, `[DONE]`, what cannot be read. What a chunk means is the dialect's.

use super::anthropic::Messages;
use super::fault::{self, Fault};
use super::gemini;
use super::json::Tree;
use super::openai_chat::Chat;
use super::openai_responses::Responses;
use crate::council::upstream::sse::Item;
use crate::settings::Dialect;

/// Bytes of bare JSON that are kept until it is whole.
const MOST_STRAY: usize = 16 << 10;

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::council) enum Said {
    /// The next piece of the answer, never empty.
    Text(String),
    /// The next piece of why there is no answer.
    Refusal(String),
    /// Something with nothing to show, such as reasoning, a ping or a comment.
    Alive,
    /// What the answer has cost so far; a field that is here replaces the one told before.
    Usage(Usage),
    /// The addresses of all sources so far, told when there are more than before.
    Citations(Vec<String>),
    /// A terminal token. Text may still follow, and another one, which replaces this.
    Finished(Finish),
    /// Nothing more will come.
    Over,
    /// The answer is lost. Nothing more is told.
    Failed(Fault),
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::council) enum Finish {
    /// The model had no more to say.
    Complete,
    /// There were no tokens left.
    Truncated,
    /// The model declined.
    Refused,
    /// A filter of the provider stopped it.
    Blocked,
}

/// Tokens, as far as the provider has counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::council) struct Usage {
    /// Of what was asked, what came from a cache included.
    pub(in crate::council) input: Option<u64>,
    /// Of the answer, reasoning included.
    pub(in crate::council) output: Option<u64>,
    /// Of the output, what was reasoning.
    pub(in crate::council) reasoning: Option<u64>,
}

/// The place in one answer.
#[derive(Debug)]
pub(in crate::council) struct Reader {
    voice: Voice,
    /// Lines of bare JSON that is not whole yet.
    stray: String,
    over: bool,
}

#[derive(Debug)]
enum Voice {
    Chat(Chat),
    Responses(Responses),
    Messages(Messages),
    Gemini,
}

impl Usage {
    /// These counts in the place of earlier ones, field by field.
    #[must_use]
    pub(in crate::council) fn over(self, before: Option<Self>) -> Self {
        let before = before.unwrap_or_default();
        Self {
            input: self.input.or(before.input),
            output: self.output.or(before.output),
            reasoning: self.reasoning.or(before.reasoning),
        }
    }

    /// Itself, unless it says nothing.
    pub(super) fn if_any(self) -> Option<Self> {
        Some(self).filter(|usage| *usage != Self::default())
    }
}

impl Reader {
    pub(super) fn new(dialect: Dialect) -> Self {
        let voice = match dialect {
            Dialect::OpenaiChat => Voice::Chat(Chat::default()),
            Dialect::OpenaiResponses => Voice::Responses(Responses::default()),
            Dialect::Anthropic => Voice::Messages(Messages::default()),
            Dialect::Gemini => Voice::Gemini,
        };
        Self { voice, stray: String::new(), over: false }
    }

    /// Adds what the next item tells to `said`.
    pub(in crate::council) fn read(&mut self, item: Item, said: &mut Vec<Said>) {
        if self.over {
            return;
        }
        let told = said.len();
        match item {
            Item::Event { name, data } => self.read_event(name.as_deref(), &data, said),
            Item::Comment => said.push(Said::Alive),
            Item::Stray(line) => self.read_stray(&line, said),
            Item::Fault(fault) => said.push(Said::Failed(fault::of_read(fault))),
        }
        let is_last = |said: &Said| matches!(said, Said::Over | Said::Failed(_));
        self.over = said.iter().skip(told).any(is_last);
    }

    /// The stream has ended: adds what was still held to `said`.
    pub(in crate::council) fn end(&mut self, said: &mut Vec<Said>) {
        if !self.over && self.stray.contains("\"error\"") {
            said.push(Said::Failed(fault::of_text(&self.stray)));
        }
        self.over = true;
    }

    fn read_event(&mut self, name: Option<&str>, data: &str, said: &mut Vec<Said>) {
        match data.trim() {
            "" => return,
            "[DONE]" => return said.push(Said::Over),
            _ => {}
        }
        let Ok(value) = serde_json::from_str::<Tree<'_>>(data) else {
            return said.push(Said::Failed(fault::malformed(data)));
        };
        if name == Some("error") || fault::is_error(&value) {
            return said.push(Said::Failed(fault::of_json(&value)));
        }
        let told = said.len();
        match &mut self.voice {
            Voice::Chat(chat) => chat.read(&value, said),
            Voice::Responses(responses) => responses.read(&value, said),
            Voice::Messages(messages) => messages.read(&value, said),
            Voice::Gemini => gemini::read(&value, said),
        }
        if said.len() == told {
            said.push(Said::Alive);
        }
    }

    fn read_stray(&mut self, line: &str, said: &mut Vec<Said>) {
        // Older versions of llama.cpp have `error` for the name of a field.
        let named = line.strip_prefix("error:").map(serde_json::from_str);
        if let Some(Ok(error)) = named {
            return said.push(Said::Failed(fault::of_json(&error)));
        }
        let begins = line.trim_start().starts_with(['{', '[']);
        let fits = self.stray.len() + line.len() < MOST_STRAY;
        if (self.stray.is_empty() && !begins) || !fits {
            return;
        }
        self.stray.push_str(line);
        self.stray.push('\n');
        // Nothing that ends otherwise is whole.
        if !line.trim_end().ends_with(['}', ']']) {
            return;
        }
        if let Ok(value) = serde_json::from_str::<Tree<'_>>(&self.stray) {
            if fault::is_error(&value) {
                said.push(Said::Failed(fault::of_json(&value)));
            }
            self.stray.clear();
        }
    }
}
