//! What a provider says in the dialect `openai-chat`, and one that waits in the middle of it.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::Notify;

use super::{Piece, Replay, Script};

/// A piece of text.
pub(crate) fn word(text: &str) -> String {
    said(&json!({"choices": [{"index": 0, "delta": {"content": text}}]}).to_string())
}

/// The end of an answer that is whole.
pub(crate) fn last_words() -> String {
    let stop = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    [said(&stop.to_string()), said("[DONE]")].concat()
}

fn said(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// An answer that is whole, in these words.
pub(crate) fn answer(words: &[&str]) -> Script {
    let words = words.iter().map(|text| Piece::from(word(text)));
    Script::chunked(words.chain([Piece::from(last_words())]).collect())
}

/// A provider that says some words at once, and the others when it is told to go on.
pub(crate) struct Halting {
    pub(crate) upstream: Replay,
    go_on: Arc<Notify>,
}

impl Halting {
    /// Halts once.
    pub(crate) async fn start(before: &[&str], after: &[&str]) -> Self {
        Self::start_in(&[before, after]).await
    }

    /// Halts before each of the parts but the first.
    pub(crate) async fn start_in(parts: &[&[&str]]) -> Self {
        let go_on = Arc::new(Notify::new());
        let mut pieces = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            pieces.extend((n > 0).then(|| Piece::Wait(Arc::clone(&go_on))));
            pieces.extend(part.iter().map(|text| Piece::from(word(text))));
        }
        pieces.push(last_words().into());
        Self { upstream: Replay::start(vec![Script::chunked(pieces)]).await, go_on }
    }

    /// One of its answers goes on.
    pub(crate) fn go_on(&self) {
        self.go_on.notify_one();
    }

    pub(crate) fn url(&self) -> String {
        self.upstream.url("/v1")
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.upstream.requests().len()
    }
}
