//! What a stream of the council says instead of scores: a review in one member's words, or at once
//! what is missing.

use serde_json::{Value, json};

use super::{council, quick};
use crate::council::{ASK, Watcher, gateway, member};
use crate::support::models::chat::Halting;
use crate::support::models::{Replay, Script};
use crate::support::{EventSource, Message, TestGateway};

const REVIEW: &str = "/api/stream/evaluate-creative?content=Buy+it&type=headline";

/// What a review has said, and its last event.
async fn chunks(stream: EventSource) -> (Vec<String>, Message) {
    let mut messages = stream.rest().await;
    let last = messages.pop().unwrap();
    let chunk = |message: Message| {
        assert_eq!(message.name, "message");
        assert_eq!(message.data.as_object().unwrap().len(), 1, "{}", message.data);
        message.data["chunk"].as_str().unwrap().to_owned()
    };
    (messages.into_iter().map(chunk).filter(|chunk| !chunk.is_empty()).collect(), last)
}

#[tokio::test]
async fn a_review_is_the_words_of_one_member() {
    let gpt4 = Halting::start(&["It ", "is "], &["good."]).await;
    let members = [("gpt4", gpt4.url()), ("claude", "http://127.0.0.1:9/nobody".to_owned())];
    let gateway = gateway(&council("", &members)).await;
    let mut stream = gateway.open(REVIEW).await;
    let mut said = String::new();
    while said != "It is " {
        said.push_str(stream.data().await["chunk"].as_str().unwrap());
    }
    let late = gateway.open(REVIEW).await;
    // A late client has its place once it is answered; it has heard what there was.
    gpt4.go_on();
    let (rest, complete) = chunks(stream).await;
    assert_eq!(rest, ["good."]);
    assert_eq!((complete.name.as_str(), &complete.data["type"]), ("complete", &json!("complete")));
    let (late, _) = chunks(late).await;
    assert_eq!(late, ["It is ", "good."]);
    let (after, last) = chunks(gateway.open(REVIEW).await).await;
    assert_eq!((after, last.name.as_str()), (vec!["It is good.".to_owned()], "complete"));
    assert_eq!(gpt4.asked(), 1);
    let asked = gpt4.upstream.requests()[0].json();
    assert!(asked.get("response_format").is_none(), "no score is asked for: {asked}");
}

#[tokio::test]
async fn a_review_that_fails_is_an_error() {
    let body = r#"{"error":{"message":"No such key","code":"invalid_api_key"}}"#;
    let denied =
        Script::answer("401 Unauthorized", &["content-type: application/json"], vec![body.into()]);
    let replay = Replay::start(vec![denied]).await;
    let gateway = gateway(&council("", &[("gpt4", replay.url("/v1"))])).await;
    let (said, error) = chunks(gateway.open(REVIEW).await).await;
    assert!(said.is_empty());
    assert_eq!((error.name.as_str(), &error.data["type"]), ("error", &json!("error")));
    assert!(error.data["error"].as_str().unwrap().contains("No such key"), "{}", error.data);
}

/// What a stream says that begins with an error.
async fn error(gateway: &TestGateway, path: &str) -> Value {
    let rest = gateway.open(path).await.rest().await;
    let [error] = &*rest else { panic!("one error, not {rest:?}") };
    assert_eq!((error.name.as_str(), &error.data["type"]), ("error", &json!("error")));
    error.data["error"].clone()
}

#[tokio::test]
async fn what_is_missing_is_said_in_the_stream_at_once() {
    let (replay, with_member) = quick("").await;
    let score = "/api/stream/council-score";
    for (path, text) in [
        (score.to_owned(), "Missing required parameters: videoUrl, transcript"),
        (format!("{score}?videoUrl=v"), "Missing required parameter: transcript"),
        ("/api/v1/stream/evaluate-creative".to_owned(), "Missing required parameter: content"),
    ] {
        assert_eq!(error(&with_member, &path).await, text);
    }
    assert!(replay.requests().is_empty());

    let nobody = TestGateway::start().await;
    for path in [ASK, REVIEW] {
        let text = error(&nobody, path).await;
        assert!(text.as_str().unwrap().contains("council.members"), "{text}");
    }

    let key = "api_key_env = \"SLUICE_TESTS_HAVE_NO_SUCH_KEY\"";
    let without = member("claude", "openai-chat", &replay.url("/v1"), key);
    let keyless = gateway(&format!("council.members = [\"claude\"]\n{without}")).await;
    let text = error(&keyless, ASK).await;
    assert!(
        text.as_str().unwrap().contains("SLUICE_TESTS_HAVE_NO_SUCH_KEY is not set (claude)"),
        "{text}"
    );

    let other = member("gpt4", "openai-chat", &replay.url("/v1"), "");
    let both = format!("council.members = [\"claude\", \"gpt4\"]\n{without}{other}");
    let run = Watcher::watch(&gateway(&both).await, ASK).await;
    assert_eq!(
        (&run.ends["claude"]["end"], &run.ends["claude"]["code"]),
        (&json!("auth"), &json!("not_configured"))
    );
    assert_eq!(run.complete.unwrap()["scores"].as_array().unwrap().len(), 1);
    assert_eq!(replay.requests().len(), 1);
}
