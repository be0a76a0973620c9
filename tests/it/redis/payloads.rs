//! What a message is: what is repaired, what is read as an object, what is dropped and told.

use serde_json::{Value, json};

use super::gateway;
use crate::support::{EventSource, Redis, TestGateway, Witness, wait_for};

const JOB: &str = "/api/stream/jobs/j";
const CHANNEL: &str = "job_progress:j";

async fn is_told_of_a_drop(stream: &mut EventSource) {
    let gap = stream.event().await;
    assert_eq!((gap.name.as_str(), &gap.data["reason"]), ("gap", &json!("dropped")));
    assert_eq!(gap.data["channels"], json!([CHANNEL]));
}

async fn dropped(gateway: &TestGateway, reason: &str) -> f64 {
    gateway.metric(&format!("sluice_events_dropped_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test]
async fn json_that_is_no_object_is_counted_and_told_and_hides_nothing() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let mut live = gateway.open(JOB).await;
    redis.publish(CHANNEL, br#"{"status":"processing","progress":0.5}"#).await;
    assert_eq!(live.data().await["progress"], 0.5);
    for payload in [&b"42"[..], b"[1]", b"true", b"null", br#""a text""#] {
        redis.publish(CHANNEL, payload).await;
    }
    is_told_of_a_drop(&mut live).await;
    assert_eq!(dropped(&gateway, "not_object").await, 5.0);
    let mut late = gateway.open(JOB).await;
    assert_eq!(late.data().await["progress"], 0.5, "the last good state");
    // On a channel of no declared stream, any JSON is an event.
    let mut any = gateway.open("/api/stream?channel=any:1&envelope=false").await;
    redis.publish("any:1", b"42").await;
    assert_eq!(any.data().await, json!(42));
}

#[tokio::test]
async fn an_object_in_a_text_is_read_as_that_object() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let live = gateway.open(JOB).await;
    let report = json!({"status": "completed", "progress": 1.0});
    redis.publish(CHANNEL, Value::from(report.to_string()).to_string().as_bytes()).await;
    let told = live.rest().await;
    assert_eq!((&told[0].data["status"], told[1].name.as_str()), (&json!("completed"), "complete"));
    // Where a text may be an event, it stays one.
    let mut any = gateway.open("/api/stream?channel=any:1&envelope=false").await;
    redis.publish("any:1", br#""{}""#).await;
    assert_eq!(any.data().await, json!("{}"));
}

#[tokio::test]
async fn numbers_that_json_has_not_become_null() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let mut any = gateway.raw("/api/stream?channel=any:1&envelope=false&snapshot=false").await;
    for (payload, expected) in [
        (r#"{"loss":NaN}"#, r#"{"loss":null}"#),
        (r#"[NaN, -Infinity,Infinity ,"NaN"]"#, r#"[null, null,null ,"NaN"]"#),
        (r#"{"Infinity":"-Infinity \" NaN"}"#, r#"{"Infinity":"-Infinity \" NaN"}"#),
    ] {
        redis.publish("any:1", payload.as_bytes()).await;
        any.until(&format!("data: {expected}\n")).await;
    }
    assert_eq!(gateway.metric("sluice_events_repaired_total").await, 2.0);
    assert_eq!(dropped(&gateway, "payload").await, 0.0);
    // As the last word of a job.
    let job = gateway.open(JOB).await;
    redis.publish(CHANNEL, br#"{"status":"completed","loss":NaN}"#).await;
    let told = job.rest().await;
    assert_eq!(
        (told[0].data["status"].as_str(), told[1].name.as_str()),
        (Some("completed"), "complete")
    );
    // In a key as well.
    redis.cli(&["SET", "job_status:k", r#"{"status":"completed","loss":NaN}"#]);
    assert_eq!(gateway.open("/api/stream/jobs/k").await.rest().await[1].name, "complete");
}

#[tokio::test]
async fn a_drop_is_told_to_who_comes_back_too() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let mut live = gateway.open(JOB).await;
    redis.publish(CHANNEL, br#"{"progress":0.1}"#).await;
    assert_eq!(live.data().await["progress"], 0.1);
    let id = live.last_event_id.clone();
    drop(live);
    redis.publish(CHANNEL, br#"{"progress":0.2"#).await;
    redis.publish(CHANNEL, br#"{"progress":0.3}"#).await;
    wait_for("the drop", async || dropped(&gateway, "payload").await > 0.5).await;
    let mut back = gateway.resume(JOB, &id).await;
    assert_eq!(back.connected.data["recovered"], true);
    is_told_of_a_drop(&mut back).await;
    assert_eq!(back.data().await["progress"], 0.3);
    // Whoever was told is not told again.
    let mut again = gateway.resume(JOB, &back.last_event_id).await;
    redis.publish(CHANNEL, br#"{"progress":0.4}"#).await;
    assert_eq!(again.data().await["progress"], 0.4);
}

#[tokio::test]
async fn a_flood_of_drops_is_told_once_and_costs_others_nothing() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let witness = Witness::start(&gateway, &redis).await;
    let mut live = gateway.open(JOB).await;
    let mut flood = redis::pipe();
    for _ in 0..5_000 {
        flood.publish(CHANNEL, "nonsense").ignore();
    }
    flood.query_async::<()>(&mut redis.connection().await).await.unwrap();
    is_told_of_a_drop(&mut live).await;
    wait_for("the flood", async || dropped(&gateway, "payload").await > 4_999.5).await;
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");
    assert!(gateway.metric("sluice_gaps_total{reason=\"dropped\"}").await < 100.0);
}

#[tokio::test]
async fn a_drop_on_a_channel_that_a_client_may_not_see_is_not_told() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    // The stream of one user shows those of another nothing, by way of a pattern neither.
    let mut alerts = gateway.open("/api/stream/alerts?userId=one").await;
    redis.publish("alerts:two", b"nonsense").await;
    redis.publish("alerts:one", br#"{"n":1}"#).await;
    assert_eq!(alerts.data().await["n"], 1);
}

#[tokio::test]
async fn names_that_are_no_channels_are_dropped_and_counted() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let witness = Witness::start(&gateway, &redis).await;
    let long = format!("alerts:{}", "x".repeat(250));
    for name in [&b"alerts:\xff\xfe"[..], long.as_bytes(), b"alerts:a b", b"alerts:*"] {
        let listeners: u64 = redis.run_command(&[b"PUBLISH", name, b"{}"]).await;
        assert_eq!(listeners, 1);
    }
    wait_for("the drops", async || dropped(&gateway, "channel").await > 3.5).await;
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");
    assert_eq!(gateway.metric("sluice_source_reconnects_total{source=\"redis\"}").await, 0.0);
}
