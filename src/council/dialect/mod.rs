//! The languages of AI providers: what to send them, and what their answers say.
//!
//! A [`Dialect`] turns an [`Ask`] into the parts of a request, and its [`Reader`] turns the items
//! of an answer's stream into [`Said`], whose words are the same for all. What goes wrong becomes a
//! [`Fault`]. Nothing here sends, waits or retries.

mod anthropic;
mod fault;
mod gemini;
mod json;
mod message;
mod openai_chat;
mod openai_responses;
mod reader;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub(super) use fault::{Fault, FaultKind};
pub(super) use message::tidy;
pub(super) use reader::{Finish, Reader, Said, Usage};

use crate::settings::Dialect;

/// What a provider is asked.
#[derive(Debug, Clone, Copy)]
pub(in crate::council) struct Ask<'a> {
    /// The provider's name of the model.
    pub(in crate::council) model: &'a str,
    /// What the model is told beforehand; may be empty.
    pub(in crate::council) system: &'a str,
    /// The question.
    pub(in crate::council) user: &'a str,
    /// How long the answer may get; the provider's default if there is none.
    pub(in crate::council) max_tokens: Option<u32>,
    /// The JSON schema of the answer, sent to those who can be held to one.
    pub(in crate::council) schema: Option<&'a Value>,
    /// Further fields of the body; where both have a field, these win.
    pub(in crate::council) extra: &'a Map<String, Value>,
}

impl Dialect {
    /// Where to post. `base_url` has the interface's version and may have a query, which stays.
    pub(in crate::council) fn url(self, base_url: &str, model: &str) -> String {
        let (base, query) = base_url.split_once('?').unwrap_or((base_url, ""));
        let base = base.trim_end_matches('/');
        let (path, own_query) = match self {
            Self::OpenaiChat => (format!("{base}/chat/completions"), ""),
            Self::OpenaiResponses => (format!("{base}/responses"), ""),
            Self::Anthropic => (format!("{base}/messages"), ""),
            Self::Gemini => (format!("{base}/models/{model}:streamGenerateContent"), "alt=sse"),
        };
        let queries: Vec<_> = [own_query, query].into_iter().filter(|q| !q.is_empty()).collect();
        if queries.is_empty() { path } else { format!("{path}?{}", queries.join("&")) }
    }

    /// The header that carries the key.
    pub(in crate::council) fn key_header(self, key: &str) -> (&'static str, String) {
        match self {
            Self::OpenaiChat | Self::OpenaiResponses => ("authorization", format!("Bearer {key}")),
            Self::Anthropic => ("x-api-key", key.to_owned()),
            Self::Gemini => ("x-goog-api-key", key.to_owned()),
        }
    }

    /// Headers that every request needs besides.
    pub(in crate::council) fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Anthropic => &[("anthropic-version", "2023-06-01")],
            Self::OpenaiChat | Self::OpenaiResponses | Self::Gemini => &[],
        }
    }

    /// Whether an answer can be held to a schema.
    pub(in crate::council) fn can_schema(self) -> bool {
        self != Self::Anthropic
    }

    /// The body of the request.
    pub(in crate::council) fn body(self, ask: &Ask<'_>) -> Value {
        let mut body = match self {
            Self::OpenaiChat => openai_chat::body(ask),
            Self::OpenaiResponses => openai_responses::body(ask),
            Self::Anthropic => anthropic::body(ask),
            Self::Gemini => gemini::body(ask),
        };
        merge(&mut body, ask.extra);
        Value::Object(body)
    }

    /// Reads one answer.
    pub(in crate::council) fn reader(self) -> Reader {
        Reader::new(self)
    }
}

/// An object is merged field by field, so that a temperature does not cost the schema beside it.
/// One that names its own `type` is another kind of thing and replaces what was there.
fn merge(body: &mut Map<String, Value>, extra: &Map<String, Value>) {
    for (name, value) in extra {
        match (body.get_mut(name), value) {
            (Some(Value::Object(ours)), Value::Object(theirs)) if !theirs.contains_key("type") => {
                ours.extend(theirs.clone());
            }
            _ => {
                body.insert(name.clone(), value.clone());
            }
        }
    }
}
