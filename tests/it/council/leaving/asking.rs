//! Who may begin, read and stop a run, and with which questions: what is refused asks nobody.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{Watcher, begun, council, gateway, halting, post, state_of};
use crate::council::{ASK, settings};
use crate::support::models::Replay;
use crate::support::models::chat::answer;
use crate::support::{EventSource, TestGateway};

async fn quick(more: &str) -> (Replay, TestGateway) {
    let replay = Replay::start(vec![answer(&["It sells.\nSCORE: 0.7"])]).await;
    let members = [("gpt4", replay.url("/v1")), ("claude", replay.url("/v1"))];
    let gateway = gateway(&council(more, &members)).await;
    (replay, gateway)
}

async fn is_refused(request: RequestBuilder, status: u16) -> String {
    let refused = request.send().await.unwrap();
    assert_eq!(refused.status(), status);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    let problem: Value = refused.json().await.unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_question_in_ones_own_words_is_begun_read_and_watched() {
    let (replay, gateway) = quick("").await;
    let inquiry = json!({"prompt": "Sells it?", "system": "Be brief.", "members": ["claude"],
        "weights": {"claude": 2.0}, "quorum": 1, "deadline": "1m", "unwatched": "continue",
        "runId": "mine"});
    let begun = gateway.post("/api/council", inquiry.to_string()).send().await.unwrap();
    assert_eq!(begun.status(), 201);
    assert_eq!(begun.headers()["location"], "/api/council/mine");
    let begun: Value = begun.json().await.unwrap();
    assert_eq!(begun["runId"], "mine");
    let watcher = Watcher::watch(&gateway, begun["url"].as_str().unwrap()).await;
    assert_eq!(watcher.run_id(), "mine");
    assert_eq!(
        watcher.notice("council_run")["members"],
        json!([{"model": "claude", "weight": 2.0}])
    );
    assert_eq!(watcher.complete.unwrap()["compositeScore"], 0.7);

    let again = gateway.post("/api/v1/council", inquiry.to_string()).send().await.unwrap();
    assert_eq!(again.status(), 200, "it has begun before");
    assert_eq!(again.json::<Value>().await.unwrap(), begun);
    let state = gateway.json(begun["state"].as_str().unwrap()).await;
    let member = &state["members"][0];
    for (known, value) in [
        (&state["runId"], json!("mine")),
        (&state["status"], json!("complete")),
        (&state["compositeScore"], json!(0.7)),
        (&state["scored"], json!(1)),
        (&state["quorum"], json!(1)),
        (&state["viewers"], json!(0)),
        (&member["stage"], json!("claude")),
        (&member["model"], json!("claude")),
        (&member["weight"], json!(2.0)),
        (&member["status"], json!("ok")),
        (&member["score"], json!(0.7)),
        (&member["text"], json!("It sells.\nSCORE: 0.7")),
        (&member["attempts"], json!(1)),
    ] {
        assert_eq!(*known, value, "{state}");
    }
    assert!(state["startedAt"].as_str().unwrap().ends_with('Z'));
    assert!(state["totals"]["usage"]["outputTokens"].is_u64(), "{state}");
    let asked = replay.requests();
    assert_eq!(asked.len(), 1);
    let messages = &asked[0].json()["messages"];
    assert_eq!(messages[0]["content"], "Be brief.");
    assert!(messages[1]["content"].as_str().unwrap().starts_with("Sells it?"), "{messages}");
}

#[tokio::test]
async fn an_idempotency_key_names_a_run() {
    let (replay, gateway) = quick("").await;
    let inquiry = json!({"prompt": "Sells it?", "members": ["gpt4"]}).to_string();
    for status in [201, 200] {
        let request =
            gateway.post("/api/council", inquiry.clone()).header("idempotency-key", "k-1");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.json::<Value>().await.unwrap()["runId"], "k-1");
    }
    Watcher::watch(&gateway, "/api/stream/council-score?runId=k-1").await;
    assert_eq!(replay.requests().len(), 1);
}

#[tokio::test]
async fn a_question_that_makes_no_sense_asks_nobody() {
    let (replay, gateway) = quick("council.max_input_bytes = 100").await;
    for (body, named) in [
        ("{", "expected"),
        ("[]", "expected"),
        (r#"{"system":"x"}"#, "prompt"),
        (r#"{"prompt":"  "}"#, "prompt"),
        (r#"{"prompt":"x","promt":"y"}"#, "promt"),
        (r#"{"prompt":"x","members":["nobody"]}"#, "nobody"),
        (r#"{"prompt":"x","members":["gpt4","claude","gpt4"]}"#, "gpt4"),
        (r#"{"prompt":"x","members":["gpt4"],"weights":{"claude":1}}"#, "claude"),
        (r#"{"prompt":"x","weights":{"gpt4":-1}}"#, "weights"),
        (r#"{"prompt":"x","budget":-1}"#, "budget"),
        (r#"{"prompt":"x","unwatched":"never"}"#, "unwatched"),
        (r#"{"prompt":"x","deadline":"soon"}"#, "expected"),
        (r#"{"prompt":"x","runId":"a b"}"#, "runId"),
    ] {
        let detail = is_refused(gateway.post("/api/council", body), 400).await;
        assert!(detail.contains(named), "{body}: {detail}");
    }
    let long = json!({"prompt": "x".repeat(101)}).to_string();
    is_refused(gateway.post("/api/council", long), 413).await;
    let huge = json!({"prompt": "x".repeat(201)}).to_string();
    is_refused(gateway.post("/api/council", huge), 413).await;
    is_refused(gateway.get("/api/council/unknown"), 404).await;
    is_refused(gateway.request("PUT", "/api/council"), 405).await;

    // Whatever was refused would have asked before this one does.
    let run = post(&gateway, &json!({"prompt": "x", "members": ["gpt4"]})).await;
    Watcher::watch(&gateway, run["url"].as_str().unwrap()).await;
    assert_eq!(replay.requests().len(), 1);
}

#[tokio::test]
async fn pages_of_foreign_origins_may_neither_begin_nor_stop_a_run() {
    const EVIL: (&str, &str) = ("origin", "http://evil.example");
    const GOOD: (&str, &str) = ("origin", "https://app.example");
    const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");
    let (gpt4, gateway) = halting("server.cors_origins = [\"https://app.example\"]").await;
    let question = json!({"videoUrl": "v", "transcript": "t"}).to_string();
    for (name, value) in [EVIL, CROSS, ("sec-fetch-site", "same-site"), ("origin", "null")] {
        is_refused(gateway.get(ASK).header(name, value), 403).await;
        let asked = gateway.post("/api/stream/council-score", question.clone());
        is_refused(asked.header(name, value), 403).await;
    }
    let inquiry = || gateway.post("/api/council", json!({"prompt": "x"}).to_string());
    is_refused(inquiry().header(EVIL.0, EVIL.1), 403).await;

    let (stream, watcher) = begun(&gateway, ASK).await;
    for (name, value) in [EVIL, CROSS] {
        for path in [state_of(&watcher), format!("{}/members/gpt4", state_of(&watcher))] {
            is_refused(gateway.request("DELETE", &path).header(name, value), 403).await;
        }
    }
    assert_eq!(gateway.json(&state_of(&watcher)).await["status"], "running");
    assert_eq!(gpt4.asked(), 1);

    let stop = gateway.request("DELETE", &state_of(&watcher));
    let stopped = stop.header(GOOD.0, GOOD.1).header(CROSS.0, CROSS.1).send().await.unwrap();
    assert_eq!(stopped.status(), 204);
    watcher.until_the_end(stream).await;
    let asked = gateway.get(ASK).header(GOOD.0, GOOD.1).header(CROSS.0, CROSS.1);
    let mut stream = EventSource::ask(asked, None).await;
    Watcher::default().until_said(&mut stream, &[("gpt4", "One, ")]).await;
    let own = gateway.get(&format!("{ASK}&userId=own")).header("sec-fetch-site", "same-origin");
    let mut stream = EventSource::ask(own, None).await;
    Watcher::default().until_said(&mut stream, &[("gpt4", "One, ")]).await;
    assert_eq!(gpt4.asked(), 3);
}

#[tokio::test]
async fn who_posts_a_question_needs_the_key_or_this_machine() {
    let (_replay, with_key) = quick("publish.api_key = \"secret\"").await;
    let inquiry =
        |gateway: &TestGateway| gateway.post("/api/council", json!({"prompt": "x"}).to_string());
    is_refused(inquiry(&with_key), 401).await;
    is_refused(inquiry(&with_key).header("x-api-key", "guessed"), 401).await;
    let keyed = inquiry(&with_key).header("authorization", "Bearer secret").send().await.unwrap();
    assert_eq!(keyed.status(), 201);

    let replay = Replay::start(vec![answer(&["It sells."])]).await;
    let mut open = settings(&council("", &[("gpt4", replay.url("/v1"))]));
    open.server.bind = "0.0.0.0:0".parse().unwrap();
    let open = TestGateway::start_from(open).await;
    is_refused(inquiry(&open), 403).await;
    assert!(replay.requests().is_empty());
    // Opening a stream is for everybody.
    Watcher::watch(&open, ASK).await;
    assert_eq!(replay.requests().len(), 1);
}

#[tokio::test]
async fn a_question_that_does_not_come_to_its_end_is_not_waited_for() {
    let (_replay, gateway) = quick("server.header_timeout = \"200ms\"").await;
    let mut connection = gateway.connect().await;
    let head = "POST /api/stream/council-score HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n";
    connection.send(&[head, "{\"transcript\":"].concat()).await.unwrap();
    assert!(connection.until("\r\n").await.starts_with("HTTP/1.1 408 "));
}
