//! Anthropic's Messages: named events; blocks of content between the start and the stop of a
//! message. Events and deltas of kinds not known here are to be ignored.

use serde_json::{Map, Value, json};

use super::json::{Tree, at, count, object, text, unless_empty};
use super::{Ask, Finish, Said, Usage};

/// The interface insists on a number.
const MAX_TOKENS: u32 = 1024;

pub(super) fn body(ask: &Ask<'_>) -> Map<String, Value> {
    object([
        ("model", Some(json!(ask.model))),
        ("max_tokens", Some(json!(ask.max_tokens.unwrap_or(MAX_TOKENS)))),
        ("stream", Some(json!(true))),
        ("system", unless_empty(ask.system)),
        ("messages", Some(json!([{"role": "user", "content": ask.user}]))),
    ])
}

/// What of the answer so far tells how to read on.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Told when the message stops.
    finish: Option<Finish>,
}

impl Messages {
    pub(super) fn read(&mut self, event: &Tree<'_>, said: &mut Vec<Said>) {
        let words = |path: &[&str]| text(event, path).map(|text| Said::Text(text.to_owned()));
        match text(event, &["type"]).unwrap_or_default() {
            "message_start" => said.extend(usage(event, &["message", "usage"]).and_then(of_input)),
            "content_block_start" if text(event, &["content_block", "type"]) == Some("text") => {
                said.extend(words(&["content_block", "text"]));
            }
            "content_block_delta" if text(event, &["delta", "type"]) == Some("text_delta") => {
                said.extend(words(&["delta", "text"]));
            }
            "message_delta" => {
                self.finish = text(event, &["delta", "stop_reason"]).map(finish).or(self.finish);
                said.extend(usage(event, &["usage"]).map(Said::Usage));
            }
            "message_stop" => {
                said.extend([Said::Finished(self.finish.unwrap_or(Finish::Complete)), Said::Over]);
            }
            _ => {}
        }
    }
}

fn finish(stop_reason: &str) -> Finish {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => Finish::Truncated,
        "refusal" => Finish::Refused,
        _ => Finish::Complete,
    }
}

/// What was read from or put into a cache comes on top of the input tokens.
fn usage(event: &Tree<'_>, path: &[&str]) -> Option<Usage> {
    let usage = at(event, path)?;
    let cached = ["cache_read_input_tokens", "cache_creation_input_tokens"];
    let cached: u64 = cached.iter().filter_map(|cached| count(usage, &[cached])).sum();
    let input = count(usage, &["input_tokens"]).map(|input| input.saturating_add(cached));
    let output = count(usage, &["output_tokens"]);
    Usage { input, output, reasoning: None }.if_any()
}

/// The count of an output that has only begun says nothing.
fn of_input(usage: Usage) -> Option<Said> {
    Usage { output: None, ..usage }.if_any().map(Said::Usage)
}

#[cfg(test)]
mod tests;
