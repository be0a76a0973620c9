//! Clients that do not read: bounded memory, and the others do not notice.

use serde_json::{Value, json};

use crate::support::{Protocol, TestGateway, over_each_protocol, wait_for};

/// What waits beyond the outbox: the frame that is being written, and what the kernel holds.
const BEHIND: u32 = 64_100 + 16_384 + 32_768;
/// More than the kernel's buffers hold, in events of one size.
const MOST_EVENTS: u64 = 400;

over_each_protocol! {
    a_log_is_closed_and_resumes_while_others_get_everything
    a_state_is_conflated_while_others_get_everything
    an_end_reaches_a_slow_client_too
}

fn event(n: u64, bytes: usize) -> Value {
    json!({"type": "large", "n": n, "text": "x".repeat(bytes)})
}

/// The numbers and the last id of a stream's text.
pub(super) fn read(text: &str) -> (Vec<u64>, String) {
    let mut id = String::new();
    let mut numbers = Vec::new();
    for line in text.lines() {
        if let Some(position) = line.strip_prefix("id: ") {
            position.clone_into(&mut id);
        }
        if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).unwrap();
            numbers.extend(data["n"].as_u64());
        }
    }
    (numbers, id)
}

async fn a_log_is_closed_and_resumes_while_others_get_everything(protocol: Protocol) {
    const BYTES: usize = 64_000;
    const OUTBOX: u32 = 300_000;
    let gateway = TestGateway::start_with(|settings| {
        settings.outbox.log_bytes = OUTBOX.try_into().unwrap();
        settings.history.events = 1000;
    })
    .await
    .over(protocol);
    let path = "/api/stream/alerts";
    let mut fast = gateway.open(path).await;
    let slow = gateway.slow(path).await;
    let closed = "sluice_sessions_closed_total{class=\"log\",reason=\"slow_consumer\"}";
    let mut sent = 0;
    while gateway.metric(closed).await < 0.5 {
        assert!(sent < MOST_EVENTS, "the slow client was not closed");
        gateway.publish("alerts", &event(sent, BYTES)).await;
        assert_eq!(fast.data().await["n"], sent);
        let waiting = gateway.metric("sluice_outbox_bytes").await;
        assert!(waiting <= f64::from(OUTBOX + BEHIND), "{waiting}");
        sent += 1;
    }
    for _ in 0..3 {
        gateway.publish("alerts", &event(sent, BYTES)).await;
        assert_eq!(fast.data().await["n"], sent);
        sent += 1;
    }
    assert!(gateway.metric(closed).await < 1.5, "the fast one stays");

    let (mut seen, mut id) = read(&slow.rest().await);
    assert!(!seen.is_empty(), "what waited when it was closed is still told");
    while seen.len() < usize::try_from(sent).unwrap() {
        let mut back = gateway.resume(path, &id).await;
        assert_eq!(back.connected.data["recovered"], true);
        let before = seen.len();
        while seen.len() < usize::try_from(sent).unwrap() {
            let Some(message) = back.next().await else { break };
            seen.push(message.data["n"].as_u64().unwrap());
            id = message.id;
        }
        assert!(seen.len() > before, "each return leads on");
    }
    assert_eq!(seen, (0..sent).collect::<Vec<_>>(), "nothing missed, nothing twice");
    wait_for("empty outboxes", async || gateway.metric("sluice_outbox_bytes").await < 1.0).await;
}

async fn a_state_is_conflated_while_others_get_everything(protocol: Protocol) {
    const BYTES: usize = 50_000;
    const OUTBOX: u32 = 200_000;
    let gateway = TestGateway::start_with(|settings| {
        settings.outbox.state_bytes = OUTBOX.try_into().unwrap();
    })
    .await
    .over(protocol);
    let (path, channel) = ("/api/stream/campaign-metrics/c", "campaign_metrics:c");
    let mut fast = gateway.open(path).await;
    let mut slow = gateway.slow(path).await;
    let conflated = "sluice_events_conflated_total{class=\"state\"}";
    let mut sent = 0;
    // Until it is conflated, and then on: what waits stays as little as it was.
    let mut after = 0;
    while after < 30 {
        assert!(sent < MOST_EVENTS, "nothing was conflated");
        gateway.publish(channel, &event(sent, BYTES)).await;
        assert_eq!(fast.data().await["n"], sent, "conflation touches clients that lag only");
        let waiting = gateway.metric("sluice_outbox_bytes").await;
        assert!(waiting <= f64::from(OUTBOX + BEHIND), "{waiting}");
        after += u64::from(gateway.metric(conflated).await > 0.5);
        sent += 1;
    }
    let last = format!("\"n\":{},", sent - 1);
    let (seen, _) =
        read(slow.until(&format!("{last}\"text\":\"")).await.rsplit_once("data: ").unwrap().0);
    assert!(seen.is_sorted_by(|a, b| a < b), "in order, none twice: {seen:?}");
    assert!(seen.len() < usize::try_from(sent - 1).unwrap(), "{seen:?}");
    assert!(
        gateway
            .metric("sluice_sessions_closed_total{class=\"state\",reason=\"slow_consumer\"}")
            .await
            < 0.5
    );
    gateway.publish(channel, &json!({"type": "small", "n": "goes on"})).await;
    slow.until("goes on").await;
}

async fn an_end_reaches_a_slow_client_too(protocol: Protocol) {
    const BYTES: usize = 50_000;
    let gateway = TestGateway::start().await.over(protocol);
    let slow = gateway.slow("/api/stream/jobs/j").await;
    let report = |status: &str, text: usize| json!({"job_id": "j", "status": status, "text": "x".repeat(text)});
    let conflated = "sluice_events_conflated_total{class=\"state\"}";
    let mut sent = 0;
    while gateway.metric(conflated).await < 0.5 {
        assert!(sent < MOST_EVENTS, "nothing was conflated");
        gateway.publish("job_progress:j", &report("processing", BYTES)).await;
        sent += 1;
    }
    gateway.publish("job_progress:j", &report("completed", BYTES)).await;
    let text = slow.rest().await;
    assert_eq!(text.matches(r#""status":"completed","text""#).count(), 1, "it is not conflated");
    let (_, end) = text.trim_end().rsplit_once("\n\n").unwrap();
    assert!(end.starts_with("event: complete\n"), "{end}");
    assert!(end.contains(r#"{"jobId":"j","status":"completed"}"#), "{end}");
}
