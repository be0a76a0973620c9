//! Google's `streamGenerateContent`: every chunk is a whole response with the next piece of text.
//!
//! A chunk may say `STOP` with more to come, so nothing but the end of the stream is the end.

use serde_json::{Map, Value, json};

use super::fault::{Fault, FaultKind};
use super::json::{Tree, at, count, first_answer, list, object, text, unless_empty};
use super::{Ask, Finish, Said, Usage};

/// Of a schema, what Google's subset of `OpenAPI` has with the same meaning.
const SAME: [&str; 10] = [
    "title",
    "description",
    "nullable",
    "required",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
];

pub(super) fn body(ask: &Ask<'_>) -> Map<String, Value> {
    let config = object([
        ("maxOutputTokens", ask.max_tokens.map(Value::from)),
        ("responseMimeType", ask.schema.map(|_| json!("application/json"))),
        ("responseSchema", ask.schema.map(open_api)),
    ]);
    object([
        ("contents", Some(json!([{"role": "user", "parts": [{"text": ask.user}]}]))),
        (
            "systemInstruction",
            unless_empty(ask.system).map(|text| json!({"parts": [{"text": text}]})),
        ),
        ("generationConfig", Some(config).filter(|config| !config.is_empty()).map(Value::Object)),
    ])
}

/// The schema in Google's subset. The order of properties is named, because there it would be the
/// alphabet's, and a score before its reasons is a different score.
fn open_api(schema: &Value) -> Value {
    let mut open = Map::new();
    for (name, value) in schema.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("type", Value::String(kind)) => {
                open.insert(name.clone(), kind.to_uppercase().into());
            }
            ("type", Value::Array(kinds)) => {
                let kind = kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null");
                open.insert(name.clone(), kind.unwrap_or("null").to_uppercase().into());
                open.insert("nullable".to_owned(), kinds.contains(&json!("null")).into());
            }
            ("properties", Value::Object(properties)) => {
                let inner =
                    properties.iter().map(|(name, schema)| (name.clone(), open_api(schema)));
                open.insert(name.clone(), Value::Object(inner.collect()));
                open.insert("propertyOrdering".to_owned(), properties.keys().cloned().collect());
            }
            ("items", _) => {
                open.insert(name.clone(), open_api(value));
            }
            ("anyOf", Value::Array(choices)) => {
                open.insert(name.clone(), choices.iter().map(open_api).collect());
            }
            ("enum", Value::Array(values)) => {
                open.insert(
                    name.clone(),
                    values.iter().filter(|v| v.is_string()).cloned().collect(),
                );
            }
            (name, _) if SAME.contains(&name) => {
                open.insert(name.to_owned(), value.clone());
            }
            _ => {}
        }
    }
    Value::Object(open)
}

pub(super) fn read(chunk: &Tree<'_>, said: &mut Vec<Said>) {
    let candidate = first_answer(chunk, &["candidates"]);
    if let Some(candidate) = candidate {
        said.extend(list(candidate, &["content", "parts"]).iter().filter_map(words));
    }
    said.extend(usage(chunk).map(Said::Usage));
    if let Some(reason) = text(chunk, &["promptFeedback", "blockReason"])
        && reason != "BLOCK_REASON_UNSPECIFIED"
    {
        said.push(Said::Finished(Finish::Blocked));
    }
    if let Some(candidate) = candidate {
        said.extend(
            text(candidate, &["finishReason"]).and_then(|reason| finish(reason, candidate)),
        );
    }
}

/// What a part says, unless it is a thought.
fn words(part: &Tree<'_>) -> Option<Said> {
    let thought = at(part, &["thought"]) == Some(&Tree::Bool(true));
    text(part, &["text"]).filter(|_| !thought).map(|text| Said::Text(text.to_owned()))
}

fn finish(reason: &str, candidate: &Tree<'_>) -> Option<Said> {
    let finish = match reason {
        "FINISH_REASON_UNSPECIFIED" => return None,
        "STOP" => Finish::Complete,
        "MAX_TOKENS" => Finish::Truncated,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE" => {
            Finish::Blocked
        }
        _ if reason.starts_with("IMAGE_") => Finish::Blocked,
        _ => {
            let mut fault = Fault::ended(FaultKind::Upstream, reason);
            if let Some(message) = text(candidate, &["finishMessage"]) {
                fault = fault.saying(message);
            }
            return Some(Said::Failed(fault));
        }
    };
    Some(Said::Finished(finish))
}

/// Thoughts are counted apart from the answer and paid for like it.
fn usage(chunk: &Tree<'_>) -> Option<Usage> {
    let usage = at(chunk, &["usageMetadata"])?;
    let answer = count(usage, &["candidatesTokenCount"]);
    let thoughts = count(usage, &["thoughtsTokenCount"]);
    let output =
        answer.or(thoughts).map(|_| answer.unwrap_or(0).saturating_add(thoughts.unwrap_or(0)));
    Usage { input: count(usage, &["promptTokenCount"]), output, reasoning: thoughts }.if_any()
}

#[cfg(test)]
mod tests;
