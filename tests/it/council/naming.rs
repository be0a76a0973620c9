//! A run under a name of its client's own: what is wrong is said all the same, a name is that of one
//! question, and nobody is told the names of others.

use serde_json::{Value, json};

use super::watching::council;
use super::{ASK, Watcher, gateway};
use crate::support::models::chat::Halting;

const NAMED: &str = "/api/stream/council-score?runId=mine";

#[tokio::test]
async fn what_is_wrong_with_a_question_is_said_whatever_its_run_is_called() {
    let nobody = gateway("").await;
    let run = Watcher::watch(&nobody, &format!("{ASK}&runId=mine")).await;
    assert!(run.error.unwrap().as_str().unwrap().contains("council.members"));

    let gpt4 = Halting::start(&["First"], &[]).await;
    let more = "council.max_input_bytes = 1_000";
    let gateway = gateway(&council(more, &[("gpt4", gpt4.url())])).await;
    let run = Watcher::watch(&gateway, &format!("{NAMED}&videoUrl=v")).await;
    assert_eq!(run.error.unwrap(), "Missing required parameter: transcript");
    let long = "x".repeat(2000);
    let run = Watcher::watch(&gateway, &format!("{NAMED}&videoUrl=v&transcript={long}")).await;
    assert_eq!(run.error.unwrap(), "the question is longer than 1000 bytes");
    let unknown = gateway.get(NAMED).send().await.unwrap();
    assert_eq!(unknown.status(), 404, "it asks nothing");
    assert_eq!(gpt4.asked(), 0);
}

#[tokio::test]
async fn a_name_is_that_of_one_question() {
    let gpt4 = Halting::start(&["First"], &[]).await;
    let gateway = gateway(&council("", &[("gpt4", gpt4.url())])).await;
    let begin = async |prompt: &str| {
        let body = json!({"prompt": prompt, "runId": "mine"}).to_string();
        gateway.post("/api/council", body).send().await.unwrap().status()
    };
    assert_eq!(begin("Why?").await, 201);
    assert_eq!(begin("Why?").await, 200);
    assert_eq!(begin("How?").await, 409);
    gpt4.upstream.asked(1).await;
    assert_eq!(gpt4.asked(), 1);
}

#[tokio::test]
async fn nobody_is_told_the_runs_of_others() {
    let gpt4 = Halting::start(&["First"], &[]).await;
    let gateway = gateway(&council("", &[("gpt4", gpt4.url())])).await;
    let mut all = gateway.open("/api/stream?channel=*&snapshot=false").await;
    let mut run = gateway.open(&format!("{ASK}&runId=mine")).await;
    while run.data().await["thinking"] != "First" {}
    gateway.publish("other", &json!({"n": 1})).await;
    assert_eq!(all.data().await["channel"], "other", "and nothing of the run before it");

    let late = gateway.open("/api/stream?channel=*").await.data().await;
    assert_eq!(late["channel"], "other", "nor in the snapshot");
    for channel in ["council:mine", "council:*"] {
        let mut refused = gateway.open(&format!("/api/stream?channel={channel}")).await;
        let error: Value = refused.data().await["error"].clone();
        assert_eq!(error, format!("Channel not allowed: {channel}"));
    }
}
