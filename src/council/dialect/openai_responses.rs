//! `OpenAI`'s Responses: named events, the last of which holds the whole response again.

use serde_json::{Map, Value, json};

use super::fault;
use super::json::{Tree, at, count, object, text, unless_empty};
use super::{Ask, Finish, Said, Usage};

pub(super) fn body(ask: &Ask<'_>) -> Map<String, Value> {
    let format = ask.schema.map(|schema| {
        let format =
            json!({"type": "json_schema", "name": "answer", "strict": true, "schema": schema});
        json!({"format": format})
    });
    object([
        ("model", Some(json!(ask.model))),
        ("instructions", unless_empty(ask.system)),
        ("input", Some(json!(ask.user))),
        ("stream", Some(json!(true))),
        ("max_output_tokens", ask.max_tokens.map(Value::from)),
        ("text", format),
    ])
}

/// What of the answer so far tells how to read on.
#[derive(Debug, Default)]
pub(super) struct Responses {
    refused: bool,
}

impl Responses {
    pub(super) fn read(&mut self, event: &Tree<'_>, said: &mut Vec<Said>) {
        let delta = || text(event, &["delta"]).map(str::to_owned);
        match kind(event) {
            "response.output_text.delta" => said.extend(delta().map(Said::Text)),
            "response.refusal.delta" => {
                self.refused = true;
                said.extend(delta().map(Said::Refusal));
            }
            "response.completed" => {
                Self::end(
                    event,
                    if self.refused { Finish::Refused } else { Finish::Complete },
                    said,
                );
            }
            "response.incomplete" => {
                let reason = text(event, &["response", "incomplete_details", "reason"]);
                let filtered = reason == Some("content_filter");
                Self::end(event, if filtered { Finish::Blocked } else { Finish::Truncated }, said);
            }
            "response.failed" => {
                let error = at(event, &["response", "error"]).filter(|error| !error.is_null());
                said.extend(usage(event).map(Said::Usage));
                said.push(Said::Failed(fault::of_json(error.unwrap_or(event))));
            }
            _ => {}
        }
    }

    fn end(event: &Tree<'_>, finish: Finish, said: &mut Vec<Said>) {
        said.extend(usage(event).map(Said::Usage));
        said.extend([Said::Finished(finish), Said::Over]);
    }
}

/// Some servers complete every response, and only its status says that it is not whole.
fn kind<'a>(event: &'a Tree<'_>) -> &'a str {
    let status = text(event, &["response", "status"]);
    match (text(event, &["type"]).unwrap_or_default(), status) {
        ("response.completed", Some("incomplete")) => "response.incomplete",
        ("response.completed", Some("failed")) => "response.failed",
        (kind, _) => kind,
    }
}

fn usage(event: &Tree<'_>) -> Option<Usage> {
    let usage = at(event, &["response", "usage"])?;
    Usage {
        input: count(usage, &["input_tokens"]),
        output: count(usage, &["output_tokens"]),
        reasoning: count(usage, &["output_tokens_details", "reasoning_tokens"]),
    }
    .if_any()
}

#[cfg(test)]
mod tests;
