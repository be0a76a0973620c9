//! A real browser with the `EventSource` it was built with, on a page that knows nothing of what we
//! have added: it sees the council of the reference, and a broken connection costs it nothing.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{ASK, member, settings};
use crate::support::models::{Piece, Replay, Script};
use crate::support::{Page, Proxy, Sighting, Source, TestGateway};

fn word(text: &str) -> Piece {
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    format!("data: {chunk}\n\n").into()
}

fn end() -> Piece {
    let chunk = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    format!("data: {chunk}\n\ndata: [DONE]\n\n").into()
}

/// The words of a stage, put together as the reference does: one after the other.
fn text(messages: &[Value], stage: &str) -> String {
    let of_stage = messages.iter().filter(|said| said["stage"] == stage);
    of_stage.filter_map(|said| said["thinking"].as_str()).collect()
}

fn has_ended(seen: &[Sighting]) -> bool {
    seen.iter().any(|sighting| sighting.what == "complete")
}

#[tokio::test]
async fn a_page_of_the_reference_sees_the_council_over_a_broken_connection() {
    let (cut, rest) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let script = Script::stream(vec![
        word("Strong "),
        word("hook. "),
        Piece::Wait(Arc::clone(&cut)),
        word("Said while nobody listened. "),
        Piece::Wait(Arc::clone(&rest)),
        word("\nSCORE: 0.8"),
        end(),
    ]);
    let replay = Replay::start(vec![script]).await;
    let mut page = Page::new().await;
    let config =
        ["council.members = [\"gpt4\"]\n", &member("gpt4", "openai-chat", &replay.url("/v1"), "")];
    let mut settings = settings(&config.concat());
    settings.server.cors_origins = vec![page.origin.clone()];
    let gateway = TestGateway::start_from(settings).await;
    let proxy = Proxy::start(&gateway.url("")).await;
    let source = Source::new("council", proxy.url(ASK)).listening_to(&["complete"]);
    let _browser = page.open(vec![source.closing_at(&["complete"])]);

    // Its start and two words.
    page.sees("council", |_| text(&page.messages("council"), "gpt4") == "Strong hook. ").await;
    proxy.cut();
    page.sees("council", |seen| seen.iter().any(Sighting::is_broken_connection)).await;
    cut.notify_one();
    let all = "Strong hook. Said while nobody listened. ";
    page.sees("council", |_| text(&page.messages("council"), "gpt4") == all).await;
    rest.notify_one();
    page.sees("council", has_ended).await;

    let messages = page.messages("council");
    assert_eq!(text(&messages, "gpt4"), format!("{all}\nSCORE: 0.8"));
    assert!(messages.iter().all(|said| said["type"] == "council_score_stream"), "{messages:?}");
    let complete = page.seen("council").last().unwrap().data();
    assert_eq!(complete["data"]["compositeScore"], 0.8);
    assert_eq!(replay.requests().len(), 1, "one run, one bill");
}
