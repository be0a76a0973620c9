//! Chat completions: `OpenAI`, Azure, Perplexity, `OpenRouter`, Mistral, vLLM, llama.cpp, Ollama.
//!
//! One reader for all: what one of them does differently does not disturb the others.

use serde_json::{Map, Value, json};

use super::fault::{self, Fault, FaultKind};
use super::json::{Tree, at, count, first_answer, list, object, text, unless_empty};
use super::{Ask, Finish, Said, Usage};

/// The last chunk of Perplexity, with or without a reason.
const DONE_OBJECT: &str = "chat.completion.done";

/// Sources that are told of one answer.
const MOST_CITATIONS: usize = 100;

pub(super) fn body(ask: &Ask<'_>) -> Map<String, Value> {
    let system = unless_empty(ask.system).map(|text| json!({"role": "system", "content": text}));
    let user = json!({"role": "user", "content": ask.user});
    let messages: Vec<_> = system.into_iter().chain([user]).collect();
    let format = ask.schema.map(|schema| {
        let named = json!({"name": "answer", "strict": true, "schema": schema});
        json!({"type": "json_schema", "json_schema": named})
    });
    // Newer models of OpenAI want this name for it and refuse both.
    let renamed = ask.extra.contains_key("max_completion_tokens");
    object([
        ("model", Some(json!(ask.model))),
        ("messages", Some(json!(messages))),
        ("stream", Some(json!(true))),
        ("stream_options", Some(json!({"include_usage": true}))),
        ("max_tokens", ask.max_tokens.filter(|_| !renamed).map(Value::from)),
        ("response_format", format),
    ])
}

/// What of the answer so far tells how to read on.
#[derive(Debug, Default)]
pub(super) struct Chat {
    refused: bool,
    /// How many citations have been told.
    citations: usize,
}

impl Chat {
    pub(super) fn read(&mut self, chunk: &Tree<'_>, said: &mut Vec<Said>) {
        let choice = first_answer(chunk, &["choices"]);
        if let Some(choice) = choice {
            self.read_delta(choice, said);
        }
        self.read_citations(chunk, said);
        said.extend(usage(chunk).map(Said::Usage));
        let done = text(chunk, &["object"]) == Some(DONE_OBJECT);
        let reason = choice.and_then(|choice| text(choice, &["finish_reason"]));
        if let Some(reason) = reason.or_else(|| done.then_some("stop")) {
            said.push(self.finish(reason, choice.unwrap_or(chunk)));
        }
    }

    fn read_delta(&mut self, choice: &Tree<'_>, said: &mut Vec<Said>) {
        let content = at(choice, &["delta", "content"]).map(written).unwrap_or_default();
        if !content.is_empty() {
            said.push(Said::Text(content));
        }
        if let Some(refusal) = text(choice, &["delta", "refusal"]) {
            self.refused = true;
            said.push(Said::Refusal(refusal.to_owned()));
        }
    }

    fn read_citations(&mut self, chunk: &Tree<'_>, said: &mut Vec<Said>) {
        let address = |source: &Tree<'_>| {
            text(source, &["url"]).or_else(|| source.as_str()).map(str::to_owned)
        };
        let sources = [list(chunk, &["citations"]), list(chunk, &["search_results"])];
        let sources = sources.into_iter().find(|list| !list.is_empty()).unwrap_or_default();
        if sources.len() > self.citations {
            self.citations = sources.len();
            let addresses = sources.iter().filter_map(address).take(MOST_CITATIONS);
            said.push(Said::Citations(addresses.collect()));
        }
    }

    fn finish(&self, reason: &str, choice: &Tree<'_>) -> Said {
        match reason {
            "length" | "model_length" => Said::Finished(Finish::Truncated),
            "content_filter" => Said::Finished(Finish::Blocked),
            "error" if fault::is_error(choice) => Said::Failed(fault::of_json(choice)),
            "error" | "abort" => Said::Failed(Fault::ended(FaultKind::Upstream, reason)),
            // DeepSeek
            "insufficient_system_resource" => {
                Said::Failed(Fault::ended(FaultKind::Overloaded, reason))
            }
            _ if self.refused => Said::Finished(Finish::Refused),
            _ => Said::Finished(Finish::Complete),
        }
    }
}

/// The text of a content that is one, or has parts some of which are.
fn written(content: &Tree<'_>) -> String {
    let part = |part: &Tree<'_>| {
        let is_text = at(part, &["type"]).is_none_or(|kind| kind.as_str() == Some("text"));
        text(part, &["text"])
            .filter(|_| is_text)
            .or_else(|| part.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    match content {
        Tree::Str(text) => text.to_string(),
        Tree::Array(parts) => parts.iter().map(part).collect(),
        _ => String::new(),
    }
}

fn usage(chunk: &Tree<'_>) -> Option<Usage> {
    let usage = at(chunk, &["usage"])?;
    let reasoning = count(usage, &["completion_tokens_details", "reasoning_tokens"]);
    Usage {
        input: count(usage, &["prompt_tokens"]),
        output: count(usage, &["completion_tokens"]),
        reasoning: reasoning.or_else(|| count(usage, &["reasoning_tokens"])),
    }
    .if_any()
}

#[cfg(test)]
mod tests;
