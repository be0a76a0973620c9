//! Each dialect against `aimock`, which speaks them all.

use serde_json::json;

use super::{ASK, Watcher, gateway, member};
use crate::support::models::Aimock;

#[tokio::test]
async fn members_of_every_dialect_are_heard_on_one_stream() {
    let said = |model: &str, text: &str| {
        json!({"match": {"model": model}, "response": {"content": text,
            "usage": {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32}},
            "chunkSize": 7, "latency": 2})
    };
    let aimock = Aimock::start(&json!([
        said("gemini-1", "A strong hook.\nSCORE: 0.81"),
        said("claude-1", "It convinces.\nSCORE: 0.72"),
        said("gpt4-1", "{\"reasoning\":\"It interrupts.\",\"score\":0.9}"),
        said("responses-1", "Novel enough.\nSCORE: 0.6"),
        said("router-1", "Routed.\nSCORE: 0.5"),
    ]))
    .await;
    let config = [
        "council.members = [\"gemini\", \"claude\", \"gpt4\", \"responses\", \"router\"]\n"
            .to_owned(),
        member("gemini", "gemini", &aimock.url("/v1beta"), ""),
        member("claude", "anthropic", &aimock.url("/v1"), ""),
        member("gpt4", "openai-chat", &aimock.url("/v1"), "weight = 2"),
        member("responses", "openai-responses", &aimock.url("/v1"), ""),
        member("router", "openai-chat", &aimock.url("/api/v1"), ""),
    ];
    let gateway = gateway(&config.concat()).await;
    let run = Watcher::watch(&gateway, ASK).await;
    let complete = run.complete.as_ref().unwrap();
    assert_eq!(complete["scores"].as_array().unwrap().len(), 5, "{complete}");
    assert_eq!(run.texts["gemini"], "A strong hook.\nSCORE: 0.81");
    assert_eq!(run.texts["gpt4"], "It interrupts.");
    assert_eq!(run.ends["gpt4"]["scoreSource"], "json_schema");
    assert_eq!(run.ends["claude"]["scoreSource"], "pattern");
    assert_eq!(aimock.journal().await.len(), 5);
}
