//! Clients that do not read: bounded memory, and the others do not notice.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Protocol, TestGateway, over_each_protocol, wait_for};

const WAITING: &str = "sluice_outbox_bytes";
const CLOSED: &str = "sluice_sessions_closed_total{class=\"log\",reason=\"slow_consumer\"}";

/// What waits beyond the outbox: the frame that is being written, and what the kernel holds.
const BEHIND: u32 = 64_100 + 16_384 + 32_768;
/// More than the kernel's buffers hold, in events of one size.
const MOST_EVENTS: u64 = 400;

over_each_protocol! {
    a_log_is_closed_and_resumes_while_others_get_everything
    a_state_is_conflated_while_others_get_everything
    a_state_goes_on_with_the_newest
    an_end_reaches_a_slow_client_too
    who_reads_nothing_is_cut_in_time
    who_reads_slowly_is_not_cut
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
    let mut sent = 0;
    while gateway.metric(CLOSED).await < 0.5 {
        assert!(sent < MOST_EVENTS, "the slow client was not closed");
        gateway.publish("alerts", &event(sent, BYTES)).await;
        assert_eq!(fast.data().await["n"], sent);
        let waiting = gateway.metric(WAITING).await;
        assert!(waiting <= f64::from(OUTBOX + BEHIND), "{waiting}");
        sent += 1;
    }
    for _ in 0..3 {
        gateway.publish("alerts", &event(sent, BYTES)).await;
        assert_eq!(fast.data().await["n"], sent);
        sent += 1;
    }
    assert!(gateway.metric(CLOSED).await < 1.5, "the fast one stays");

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
    wait_for("empty outboxes", async || gateway.metric(WAITING).await < 1.0).await;
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
        let waiting = gateway.metric(WAITING).await;
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

async fn a_state_goes_on_with_the_newest(protocol: Protocol) {
    const BYTES: usize = 50_000;
    // Room for one event.
    let gateway = TestGateway::start_with(|settings| settings.outbox.state_bytes = 2 * BYTES - 1);
    let gateway = gateway.await.over(protocol);
    let mut slow = gateway.slow("/api/stream/campaign-metrics/c").await;
    let conflated = "sluice_events_conflated_total{class=\"state\"}";
    let (mut sent, mut after) = (0, 0);
    while after < 5 {
        assert!(sent < MOST_EVENTS, "nothing was conflated");
        gateway.publish("campaign_metrics:c", &event(sent, BYTES)).await;
        after += u64::from(gateway.metric(conflated).await > 0.5);
        sent += 1;
    }
    let last = format!("\"n\":{},", sent - 1);
    let (seen, _) = read(slow.until(&last).await.rsplit_once("data: ").unwrap().0);
    let held = u64::try_from(seen.len()).unwrap();
    assert_eq!(seen, (0..held).collect::<Vec<_>>(), "what was on its way, and then the newest");
    assert!(held < sent - 1);
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

async fn cutting_after(time: Duration) -> TestGateway {
    TestGateway::start_with(|settings| {
        settings.server.stalled_after = time;
        settings.outbox.log_bytes = 1 << 30;
    })
    .await
}

async fn who_reads_nothing_is_cut_in_time(protocol: Protocol) {
    let gateway = cutting_after(Duration::from_secs(1)).await.over(protocol);
    let slow = gateway.slow("/api/stream/alerts").await;
    let mut fast = gateway.open("/api/stream/alerts").await;
    for n in 0..100 {
        gateway.publish("alerts", &event(n, 50_000)).await;
        assert_eq!(fast.data().await["n"], n);
    }
    wait_for("the cut", async || gateway.metric(CLOSED).await > 0.5).await;
    let sessions = "sluice_sessions{stream=\"alerts\",transport=\"sse\"}";
    wait_for("only the fast one", async || gateway.metric(sessions).await == 1.0).await;
    assert_eq!(gateway.metric(WAITING).await, 0.0);
    gateway.publish("alerts", &json!({"type": "after"})).await;
    assert_eq!(fast.data().await["type"], "after");
    drop(slow);
}

/// The measure is that a client may take longer than the gateway waits for it to take something, so
/// it does.
async fn who_reads_slowly_is_not_cut(protocol: Protocol) {
    const EVENTS: u64 = 200;
    let patience = Duration::from_secs(2);
    let gateway = cutting_after(patience).await.over(protocol);
    let mut slow = gateway.slow("/api/stream/alerts").await;
    let publisher = async {
        for n in 0..EVENTS {
            gateway.publish("alerts", &event(n, 50_000)).await;
        }
    };
    let reader = async {
        let begun = Instant::now();
        for n in 0..EVENTS / 2 {
            slow.until(&format!("\"n\":{n},")).await;
            tokio::time::sleep(patience / 50).await;
        }
        begun.elapsed()
    };
    let (taken, ()) = tokio::join!(reader, publisher);
    assert!(taken > patience);
    assert!(gateway.metric(WAITING).await > 0.0, "something waited all the time");
    assert_eq!(gateway.metric(CLOSED).await, 0.0);
}
