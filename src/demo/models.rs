//! Scripted models: they stream what is written here, word by word, in the format of chat
//! completions, and say that they are scripted. The council asks them over HTTP like any provider.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::settings::{CouncilSettings, Dialect, MemberSettings};

/// Below it each has a path of its own.
const PATH: &str = "/demo/models";

struct Model {
    name: &'static str,
    /// Milliseconds until its first word, and between two.
    first: u64,
    pause: u64,
    says: &'static str,
    score: f64,
}

/// In the order of the reference's council.
const MODELS: [Model; 4] = [
    Model {
        name: "gemini",
        first: 700,
        pause: 70,
        says: "I am scripted: no model was asked. If I were one, I would praise the first two \
               seconds, where a question is asked that only the end answers, and I would ask for \
               a shorter middle, because the curiosity it lives on fades there.",
        score: 0.78,
    },
    Model {
        name: "claude",
        first: 1100,
        pause: 95,
        says: "These words are scripted, like those of the other members. They would say that the \
               testimonial carries the message, that its urgency is subtle rather than loud, and \
               that the call to action comes before viewers have a reason to act.",
        score: 0.82,
    },
    Model {
        name: "gpt4",
        first: 400,
        pause: 60,
        says: "Scripted for this demo. The pattern interrupt in the opening is strong, the story \
               has an arc, and the product is seen in use. What is missing is one sentence that \
               says for whom it is.",
        score: 0.76,
    },
    Model {
        name: "perplexity",
        first: 1500,
        pause: 80,
        says: "Nothing was looked up, this is a script. It would compare the format with what is \
               watched this week, find it familiar but well made, and see the novelty in the \
               sound rather than in the pictures.",
        score: 0.79,
    },
];

/// Lets the scripted models sit on the council, unless others do. They are asked at `base`.
pub(super) fn sit(council: &mut CouncilSettings, base: &str) {
    if !council.members.is_empty() {
        return;
    }
    for model in &MODELS {
        let member = MemberSettings {
            schema: Some(false),
            ..MemberSettings::new(
                Dialect::OpenaiChat,
                &format!("{base}{PATH}/{}", model.name),
                "scripted",
            )
        };
        council.members.push(model.name.to_owned());
        council.member.insert(model.name.to_owned(), member);
    }
}

pub(super) fn router() -> Router {
    Router::new().route(&format!("{PATH}/{{model}}/chat/completions"), post(answer))
}

async fn answer(Path(name): Path<String>, body: Bytes) -> Response {
    let Some(model) = MODELS.iter().find(|model| model.name == name) else {
        let error = json!({"error": {"message": "no such scripted model"}});
        return (StatusCode::NOT_FOUND, Json(error)).into_response();
    };
    // Whoever does not ask for a score is not told one.
    let is_scored = body.windows(SCORE.len()).any(|window| window == SCORE.as_bytes());
    let score = is_scored.then(|| format!("\n{SCORE}: {}", model.score));
    let words = model.says.split_inclusive(' ').map(str::to_owned).chain(score);
    let texts = words.map(|word| chunk(&json!([{"index": 0, "delta": {"content": word}}])));
    let last = chunk(&json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]));
    let pauses = [model.first].into_iter().chain(std::iter::repeat(model.pause));
    let told = pauses.zip(texts).chain([(0, last), (0, "data: [DONE]\n\n".to_owned())]);
    let told = stream::iter(told).then(async |(pause, text)| {
        sleep(Duration::from_millis(pause)).await;
        Ok::<_, Infallible>(text)
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(told)).into_response()
}

/// The word with which a prompt demands a score, and an answer gives it.
const SCORE: &str = "SCORE";

fn chunk(choices: &Value) -> String {
    let chunk = json!({"object": "chat.completion.chunk", "model": "scripted", "choices": choices});
    format!("data: {chunk}\n\n")
}
