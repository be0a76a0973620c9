//! A stream of class "text" and a client that does not read: no word is missing, none comes twice.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice::settings::Settings;

use crate::support::{Protocol, TestGateway, over_each_protocol};

const CONFIG: &str = r#"
    [outbox]
    text_bytes = 100_000
    [history]
    events = 20_000
    channel_bytes = 500_000_000
    bytes = 500_000_000
    [stream.answers]
    path = "/stream/answers/{run}"
    channels = ["answer:{run}"]
    class = "text"
    text = "thinking"
    key = "model"
    [[stream.answers.end]]
    when = { done = [true] }
"#;
const PATH: &str = "/api/stream/answers/r";
const CHANNEL: &str = "answer:r";
const MERGED: &str = "sluice_events_merged_total";
const CLOSED: &str = "sluice_sessions_closed_total{class=\"text\",reason=\"slow_consumer\"}";

/// In events of two kilobytes, more than the kernel's buffers hold.
const MOST_EVENTS: u32 = 12_000;
const CALL: u32 = 200;

over_each_protocol! {
    words_are_merged_for_a_slow_client
    words_that_cannot_be_merged_are_told_when_the_client_is_back
}

async fn gateway(protocol: Protocol) -> TestGateway {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), CONFIG).unwrap();
    TestGateway::start_from(Settings::load(Some(file.path()), []).unwrap()).await.over(protocol)
}

/// What each member has said, and the id to go on from.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    texts: BTreeMap<String, String>,
    events: u32,
    done: bool,
    id: String,
}

impl Heard {
    fn hear(&mut self, said: &Value) {
        let Some(words) = said["thinking"].as_str() else { return };
        let member = said["model"].as_str().unwrap().to_owned();
        self.texts.entry(member).or_default().push_str(words);
        self.events += 1;
    }

    fn read(&mut self, text: &str) {
        for line in text.lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                id.clone_into(&mut self.id);
            } else if let Some(data) = line.strip_prefix("data: ") {
                self.hear(&serde_json::from_str(data).unwrap());
            }
            self.done |= line == "event: complete";
        }
    }
}

/// Publishes words of two members in turns of so many each.
struct Speakers {
    turn: u32,
    said: u32,
    texts: BTreeMap<String, String>,
}

impl Speakers {
    async fn speak(&mut self, gateway: &TestGateway) {
        assert!(self.said < MOST_EVENTS, "the client that does not read is not felt");
        // Most of an event says the same as the one before it, as with real ones.
        let rest = "x".repeat(2000);
        let mut events = Vec::new();
        for n in self.said..self.said + CALL {
            let model = if (n / self.turn).is_multiple_of(2) { "gpt4" } else { "claude" };
            let words = format!("{n} ");
            self.texts.entry(model.to_owned()).or_default().push_str(&words);
            let said = json!({"model": model, "thinking": words, "rest": rest, "timestamp": n});
            events.push((CHANNEL, said));
        }
        gateway.publish_all(&events).await;
        self.said += CALL;
    }

    async fn until(&mut self, gateway: &TestGateway, metric: &str) {
        while gateway.metric(metric).await < 0.5 {
            self.speak(gateway).await;
        }
    }
}

async fn words_are_merged_for_a_slow_client(protocol: Protocol) {
    let gateway = gateway(protocol).await;
    let slow = gateway.slow(PATH).await;
    let mut speakers = Speakers { turn: 50, said: 0, texts: BTreeMap::new() };
    speakers.until(&gateway, MERGED).await;
    for _ in 0..5 {
        speakers.speak(&gateway).await;
    }
    gateway.publish(CHANNEL, &json!({"model": "gpt4", "done": true})).await;
    assert!(gateway.metric("sluice_outbox_bytes").await <= 200_000.0);
    let mut heard = Heard::default();
    heard.read(&slow.rest().await);
    assert!(heard.done);
    assert_eq!(heard.texts, speakers.texts);
    let merged = speakers.said - heard.events;
    assert_eq!(gateway.metric(MERGED).await, f64::from(merged), "all were merged or told");
    assert!(gateway.metric(CLOSED).await < 0.5);
}

async fn words_that_cannot_be_merged_are_told_when_the_client_is_back(protocol: Protocol) {
    let gateway = gateway(protocol).await;
    let slow = gateway.slow(PATH).await;
    let mut speakers = Speakers { turn: 1, said: 0, texts: BTreeMap::new() };
    speakers.until(&gateway, CLOSED).await;
    gateway.publish(CHANNEL, &json!({"model": "gpt4", "done": true})).await;
    let mut heard = Heard::default();
    heard.read(&slow.rest().await);
    assert!(!heard.done && heard.events > 0);
    while !heard.done {
        let mut back = gateway.resume(PATH, &heard.id).await;
        assert_eq!(back.connected.data["recovered"], true);
        let before = heard.events;
        while let Some(message) = back.next().await {
            heard.hear(&message.data);
            heard.done |= message.name == "complete";
            heard.id = message.id;
        }
        assert!(heard.done || heard.events > before, "each return leads on");
    }
    assert_eq!(heard.texts, speakers.texts);
}
