//! What a client may choose for its stream: windows, rates, names, compression, snapshots.

use std::io::Read;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::support::{EventSource, Protocol, TestGateway, over_each_protocol};

const ANY: &str = "/api/stream?channel=a:*&envelope=false";

over_each_protocol! {
    events_of_a_window_come_together
    an_end_does_not_wait_for_its_window
    a_rate_delays_a_log_and_loses_nothing
    large_data_is_compressed_for_whoever_asks
    a_batch_is_compressed_as_one
    silence_is_broken_by_a_comment
}

fn numbered(channel: &str, count: u32) -> Vec<(&str, Value)> {
    (0..count).map(|n| (channel, json!({"type": "numbered", "n": n}))).collect()
}

/// Reads batches until `count` events have come. Where windows begin and end is a matter of time.
async fn unbatched(stream: &mut EventSource, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = stream.data().await;
        assert_eq!(batch["type"], "batch");
        let more = batch["events"].as_array().unwrap();
        assert!(!more.is_empty(), "a batch holds something");
        events.extend_from_slice(more);
    }
    events
}

fn gunzip(data: &Value) -> Value {
    assert_eq!((&data["type"], &data["encoding"]), (&json!("compressed"), &json!("gzip")));
    let bytes = STANDARD.decode(data["data"].as_str().unwrap()).unwrap();
    let mut text = String::new();
    GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

async fn events_of_a_window_come_together(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let mut stream = gateway.open(&format!("{ANY}&batch=100ms")).await;
    for round in 0..3 {
        let events = numbered("a:1", 20);
        gateway.publish_all(&events).await;
        let expected: Vec<_> = events.into_iter().map(|(_, data)| data).collect();
        assert_eq!(unbatched(&mut stream, 20).await, expected, "round {round}");
    }
    let last = stream.last_event_id;
    gateway.publish("a:1", &json!("next")).await;
    let mut back = gateway.resume(ANY, &last).await;
    assert_eq!(back.data().await, json!("next"), "the id of a batch is that of its last event");
}

#[tokio::test]
async fn a_stream_may_be_declared_with_a_window_and_a_client_may_want_none() {
    let gateway = TestGateway::start_with(|settings| {
        settings.stream.get_mut("any").unwrap().batch = Duration::from_millis(50);
    })
    .await;
    let (mut declared, mut chosen) =
        (gateway.open(ANY).await, gateway.open(&format!("{ANY}&batch=0s")).await);
    gateway.publish_all(&numbered("a:1", 3)).await;
    assert_eq!(unbatched(&mut declared, 3).await.len(), 3);
    for n in 0..3 {
        assert_eq!(chosen.data().await["n"], n);
    }
}

async fn an_end_does_not_wait_for_its_window(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let stream = gateway.open("/api/stream/jobs/j?batch=10s").await;
    let report = |status: &str| ("job_progress:j", json!({"job_id": "j", "status": status}));
    gateway.publish_all(&[report("processing"), report("completed")]).await;
    let told = stream.rest().await;
    let names: Vec<_> = told.iter().map(|message| &*message.name).collect();
    assert_eq!(names, ["message", "complete"]);
    assert_eq!(told[0].data["events"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_rate_conflates_state() {
    let gateway = TestGateway::start().await;
    let path = "/api/stream/campaign-metrics/c?maxRate=2";
    let mut stream = gateway.open(path).await;
    gateway.publish_all(&numbered("campaign_metrics:c", 50)).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&49) {
        seen.push(stream.data().await["n"].as_u64().unwrap());
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "in order, none twice: {seen:?}");
    assert!(seen.len() < 50, "what is old when its turn comes is left out: {seen:?}");
    assert!(gateway.metric("sluice_events_conflated_total{class=\"state\"}").await > 0.0);
    let back = gateway.resume(path, &stream.last_event_id).await;
    assert_eq!(back.connected.data["recovered"], true);
}

async fn a_rate_delays_a_log_and_loses_nothing(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let mut stream = gateway.open("/api/stream/alerts?maxRate=50").await;
    gateway.publish_all(&numbered("alerts", 30)).await;
    for n in 0..30 {
        assert_eq!(stream.data().await["n"], n);
    }
    assert!(gateway.metric("sluice_events_conflated_total{class=\"log\"}").await < 1.0);
}

#[tokio::test]
async fn events_can_have_their_type_for_a_name() {
    let gateway = TestGateway::start().await;
    let mut named = gateway.open("/api/stream/jobs/j?named=true").await;
    let mut plain = gateway.open("/api/stream/jobs/j").await;
    let mut any = gateway.open("/api/stream?channel=job_progress:j&named=1").await;
    assert_eq!(named.connected.name, "message", "what old clients need stays as it is");
    let report = json!({"type": "report", "job_id": "j", "status": "processing"});
    gateway.publish("job_progress:j", &report).await;
    let shown = named.event().await;
    assert_eq!((&*shown.name, shown.data["type"].as_str()), ("job_progress", Some("job_progress")));
    assert_eq!(plain.event().await.name, "message");
    assert_eq!(any.event().await.name, "report", "of an envelope: the type of what is inside");
    gateway.publish("job_progress:j", &json!({})).await;
    assert_eq!(any.event().await.name, "message", "what has no type has no name");
}

#[tokio::test]
async fn a_name_cannot_bring_in_a_field() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.open(&format!("{ANY}&named=true")).await;
    for kind in ["x\ndata: injected", "x\r\rdata: {}\r\r", "\n\n"] {
        gateway.publish("a:1", &json!({"type": kind})).await;
        let message = stream.event().await;
        assert_eq!((&*message.name, message.data), ("message", json!({"type": kind})));
    }
}

#[tokio::test]
async fn a_client_may_want_no_snapshot() {
    let gateway = TestGateway::start().await;
    let path = "/api/stream/campaign-metrics/c";
    gateway.publish("campaign_metrics:c", &json!({"type": "m", "n": 1})).await;
    let mut without = gateway.open(&format!("{path}?snapshot=false")).await;
    let mut broken = gateway.resume(&format!("{path}?snapshot=false"), "garbage").await;
    let mut with = gateway.open(path).await;
    gateway.publish("campaign_metrics:c", &json!({"type": "m", "n": 2})).await;
    assert_eq!(without.data().await["n"], 2);
    assert_eq!(with.data().await["n"], 1);
    assert_eq!(with.data().await["n"], 2);
    assert_eq!(broken.data().await["type"], "gap");
    assert_eq!(broken.data().await["n"], 2);
}

#[tokio::test]
async fn a_log_gives_a_snapshot_to_whoever_asks() {
    let gateway = TestGateway::start().await;
    gateway.publish("alerts", &json!({"type": "alert", "n": 1})).await;
    let mut stream = gateway.open("/api/stream/alerts?snapshot=true").await;
    assert_eq!(stream.data().await["n"], 1);
}

async fn large_data_is_compressed_for_whoever_asks(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let large = json!({"type": "text", "text": "again and again ".repeat(1000)});
    let random: String = std::iter::repeat_with(fastrand::alphanumeric).take(2000).collect();
    gateway.publish("a:0", &large).await;
    let mut gzip = gateway.open(&format!("{ANY}&compress=gzip")).await;
    let mut plain = gateway.open(ANY).await;
    assert_eq!(gunzip(&gzip.data().await), large, "a snapshot too");
    assert_eq!(plain.data().await, large);
    for payload in [large.clone(), json!({"type": "text", "text": "small"}), json!(random)] {
        gateway.publish("a:1", &payload).await;
        let compressed = gzip.data().await;
        assert_eq!(compressed["type"] == "compressed", payload == large, "only if it is shorter");
        if payload == large {
            assert_eq!(gunzip(&compressed), payload);
        } else {
            assert_eq!(compressed, payload);
        }
        assert_eq!(plain.data().await, payload);
    }
}

async fn a_batch_is_compressed_as_one(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let mut stream = gateway.open(&format!("{ANY}&compress=gzip&batch=1s")).await;
    let mut events = numbered("a:1", 200);
    gateway.publish_all(&events).await;
    while !events.is_empty() {
        let data = stream.data().await;
        let batch = if data["type"] == "compressed" { gunzip(&data) } else { data };
        for event in batch["events"].as_array().unwrap() {
            assert_eq!(*event, events.remove(0).1);
        }
    }
}

async fn silence_is_broken_by_a_comment(protocol: Protocol) {
    let gateway =
        TestGateway::start_with(|settings| settings.server.keep_alive = Duration::from_secs(1))
            .await
            .over(protocol);
    let mut raw = gateway.raw(ANY).await;
    let text = raw.until(": keep-alive 2").await;
    let (before, _) = text.split_once(": keep-alive").unwrap();
    assert!(before.ends_with("\n\n"), "between events: {text}");
}

#[tokio::test]
async fn an_option_that_makes_no_sense_is_said_in_the_stream() {
    let gateway = TestGateway::start().await;
    for (query, about) in [
        ("batch=soon", "Invalid parameter batch: a time such as 100ms, at most 10s"),
        ("batch=-1s", "Invalid parameter batch: a time such as 100ms, at most 10s"),
        ("batch=11s", "Invalid parameter batch: a time such as 100ms, at most 10s"),
        ("batch=1us", "Invalid parameter batch: a time such as 100ms, at most 10s"),
        ("maxRate=0", "Invalid parameter maxRate: events per second, from 0.1 to 1000"),
        ("maxRate=-5", "Invalid parameter maxRate: events per second, from 0.1 to 1000"),
        ("maxRate=NaN", "Invalid parameter maxRate: events per second, from 0.1 to 1000"),
        ("maxRate=1e99", "Invalid parameter maxRate: events per second, from 0.1 to 1000"),
        ("batch=1s&maxRate=5", "Invalid parameter batch: not together with maxRate"),
        ("named=perhaps", "Invalid parameter named: true or false"),
        ("snapshot=2", "Invalid parameter snapshot: true or false"),
        ("envelope=x", "Invalid parameter envelope: true or false"),
        ("compress=zstd", "Invalid parameter compress: only gzip is known"),
    ] {
        let stream = gateway.open(&format!("/api/stream/alerts?{query}")).await;
        let told = stream.rest().await;
        let [error] = &*told else { panic!("{query}: one event, not {told:?}") };
        assert_eq!((&*error.name, error.data["type"].as_str()), ("error", Some("error")));
        assert_eq!(error.data["error"], about, "{query}");
    }
}
