//! Coming back: exactly what was missed, or a gap that says that something may be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Message, Protocol, TestGateway, over_each_protocol};

const BOTH: &str = "/api/stream?channel=a:1&channel=b:*&envelope=false";

over_each_protocol! {
    the_id_may_stand_in_the_query_and_the_header_wins
    an_unknown_id_is_a_gap_and_the_snapshot
    evicted_history_is_a_gap_and_the_snapshot
    an_id_stands_only_on_what_leaves_the_client_complete
    a_resumed_state_stream_gets_every_event_it_missed
}

/// What a stream that is cut and resumed again and again has said in all.
struct Traveller<'a> {
    gateway: &'a TestGateway,
    last_event_id: String,
    seen: Vec<u64>,
}

impl Traveller<'_> {
    /// Opens the stream again and reads until `enough`; the caller may cut it at any moment.
    async fn travel(&mut self, enough: impl Fn(&[u64]) -> bool) {
        let mut stream = self.gateway.resume(BOTH, &self.last_event_id).await;
        assert_eq!(stream.connected.data["recovered"], true, "{}", self.last_event_id);
        while !enough(&self.seen) {
            let message = stream.event().await;
            assert_eq!(message.name, "message", "no gap: {}", message.data);
            self.last_event_id = message.id;
            self.seen.push(message.data["n"].as_u64().unwrap());
        }
    }
}

/// Publishes until `done`, a few events at a time, never far ahead of what was `seen`. Returns what
/// the traveller is to see.
async fn publisher(gateway: &TestGateway, seen: &AtomicUsize, done: &AtomicUsize) -> Vec<u64> {
    const AHEAD: usize = 150;
    let channels = ["a:1", "b:1", "b:2", "a:2", "c:1"];
    let (mut n, mut wanted) = (0_u64, Vec::new());
    while done.load(Ordering::Relaxed) == 0 {
        if wanted.len() > seen.load(Ordering::Relaxed) + AHEAD {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let mut events = Vec::new();
        for _ in 0..fastrand::usize(1..6) {
            let channel = channels[fastrand::usize(..channels.len())];
            if channel == "a:1" || channel.starts_with("b:") {
                wanted.push(n);
            }
            events.push((channel, json!({"n": n})));
            n += 1;
        }
        gateway.publish_all(&events).await;
    }
    wanted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_or_seen_twice_over_a_thousand_cuts() {
    over_cuts(Protocol::Http11, 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_or_seen_twice_over_cuts_of_a_body() {
    over_cuts(Protocol::Http2, 200).await;
    over_cuts(Protocol::Http10, 100).await;
}

async fn over_cuts(protocol: Protocol, cuts: usize) {
    // Whoever comes back a thousand times in a row would be held a thousand times.
    let gateway =
        TestGateway::start_with(|settings| settings.limits.hold_most = Duration::ZERO).await;
    let gateway = gateway.over(protocol);
    let first = gateway.open(BOTH).await;
    let last_event_id = first.last_event_id.clone();
    assert!(!last_event_id.is_empty(), "whoever has nothing to catch up with has a position");
    drop(first);

    let (seen, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut traveller = Traveller { gateway: &gateway, last_event_id, seen: Vec::new() };
    let travels = async {
        for cut in 0..cuts {
            // By count, so that the stream moves on; by time, so that it is cut anywhere: before
            // the head, within an event, between two.
            let more = traveller.seen.len() + fastrand::usize(0..6);
            if cut % 2 == 0 {
                traveller.travel(|seen| seen.len() >= more).await;
            } else {
                let moment = Duration::from_micros(fastrand::u64(0..4000));
                drop(tokio::time::timeout(moment, traveller.travel(|_| false)).await);
            }
            seen.store(traveller.seen.len(), Ordering::Relaxed);
        }
        done.store(1, Ordering::Relaxed);
        traveller
    };
    let (mut traveller, wanted) = tokio::join!(travels, publisher(&gateway, &seen, &done));
    traveller.travel(|seen| seen.len() >= wanted.len()).await;
    assert_eq!(traveller.seen, wanted);
    assert!(wanted.len() > cuts, "events flowed while the cuts were made");
    assert!(
        gateway.metric("sluice_sessions_closed_total{class=\"log\",reason=\"client_gone\"}").await
            > 0.0
    );
}

async fn the_id_may_stand_in_the_query_and_the_header_wins(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let mut stream = gateway.open(BOTH).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        gateway.publish("a:1", &json!(n)).await;
        ids.push(stream.event().await.id);
    }
    let queried = format!("{BOTH}&lastEventId={}", ids[1]);
    let mut by_query = gateway.open(&queried).await;
    assert_eq!(by_query.connected.data["recovered"], true);
    assert_eq!(by_query.data().await, json!(2));
    let mut by_both = gateway.resume(&queried, &ids[2]).await;
    assert_eq!(by_both.data().await, json!(3));
    let mut current = gateway.resume(BOTH, &ids[3]).await;
    assert_eq!(current.connected.data["recovered"], true);
    gateway.publish("b:9", &json!("next")).await;
    assert_eq!(current.data().await, json!("next"), "nothing was missed, so nothing is repeated");
}

#[tokio::test]
async fn an_id_resumes_other_streams_too() {
    let gateway = TestGateway::start().await;
    let mut one = gateway.open("/api/stream?channel=a:1&envelope=false").await;
    gateway.publish("a:1", &json!(1)).await;
    let id = one.event().await.id;
    gateway.publish_all(&[("b:1", json!(2)), ("a:1", json!(3)), ("b:1", json!(4))]).await;
    let mut other = gateway.resume("/api/stream?channel=b:*&envelope=false", &id).await;
    assert_eq!(other.data().await, json!(2));
    assert_eq!(other.data().await, json!(4));
}

fn is_gap(message: &Message, reason: &str) {
    assert_eq!((&*message.name, message.data["type"].as_str()), ("gap", Some("gap")));
    assert_eq!(message.data["reason"], reason);
    assert_eq!(message.data["channels"], json!(["a:1", "b:*"]));
    assert!(message.data["timestamp"].is_string());
}

/// Sees a stream begin with one gap of `reason` and then `snapshot`, and go on from there.
async fn begins_with_a_gap(
    gateway: &TestGateway,
    id: &str,
    reason: &str,
    snapshot: &[(&str, Value)],
) {
    let mut stream = gateway.resume(BOTH, id).await;
    assert_eq!(stream.connected.data["recovered"], false, "{id}");
    is_gap(&stream.event().await, reason);
    for (_, data) in snapshot {
        let message = stream.event().await;
        assert_eq!((&*message.name, &message.data), ("message", data), "{id}");
    }
    gateway.publish("b:1", &json!("live")).await;
    assert_eq!(stream.data().await, json!("live"), "one gap, then the snapshot, then live: {id}");
    let last = gateway.resume(BOTH, &stream.last_event_id).await;
    assert_eq!(last.connected.data["recovered"], true, "the position after a gap is good");
}

async fn an_unknown_id_is_a_gap_and_the_snapshot(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let other = TestGateway::start().await.over(protocol);
    let foreign = other.open(BOTH).await.last_event_id;
    let own = gateway.open(BOTH).await.last_event_id;
    let (run, _) = own.split_once('.').unwrap();
    for id in [
        "garbage",
        "7",
        "p.1",
        "p000000.-1",
        "?",
        &foreign,
        &format!("{run}.99999999"),
        &format!("{run}.99999999999999999999999"),
        "s1733392800000-5",
    ] {
        gateway.publish_all(&[("a:1", json!("old")), ("a:1", json!("last"))]).await;
        gateway.publish("b:1", &json!("other")).await;
        let snapshot = [("a:1", json!("last")), ("b:1", json!("other"))];
        begins_with_a_gap(&gateway, id, "unknown_position", &snapshot).await;
    }
}

#[tokio::test]
async fn an_unknown_id_without_a_snapshot_is_a_gap_with_a_position() {
    let gateway = TestGateway::start().await;
    begins_with_a_gap(&gateway, "garbage", "unknown_position", &[]).await;
    assert!(gateway.metric("sluice_gaps_total{reason=\"unknown_position\"}").await > 0.0);
}

async fn evicted_history_is_a_gap_and_the_snapshot(protocol: Protocol) {
    let gateway =
        TestGateway::start_with(|settings| settings.history.events = 5).await.over(protocol);
    let mut stream = gateway.open(BOTH).await;
    gateway.publish("a:1", &json!("seen")).await;
    let id = stream.event().await.id;
    for n in 0..5 {
        gateway.publish("a:1", &json!(n)).await;
    }
    let mut back = gateway.resume(BOTH, &id).await;
    for n in 0..5 {
        assert_eq!(back.data().await, json!(n), "what was missed is all there yet");
    }
    gateway.publish("a:1", &json!(5)).await;
    begins_with_a_gap(&gateway, &id, "history_evicted", &[("a:1", json!(5))]).await;
}

#[tokio::test]
async fn history_evicted_elsewhere_is_nobody_elses_gap() {
    let gateway = TestGateway::start_with(|settings| settings.history.events = 5).await;
    let mut stream = gateway.open(BOTH).await;
    gateway.publish("a:1", &json!("seen")).await;
    let id = stream.event().await.id;
    for n in 0..20 {
        gateway.publish("c:1", &json!(n)).await;
    }
    gateway.publish("a:1", &json!("missed")).await;
    let mut back = gateway.resume(BOTH, &id).await;
    assert_eq!(back.connected.data["recovered"], true);
    assert_eq!(back.data().await, json!("missed"));
}

/// The `id:` and `data:` lines of a stream's beginning: per event whether it has an id, and its
/// data.
fn ids(text: &str) -> Vec<(bool, String)> {
    let events = text.split_terminator("\n\n");
    let one = |event: &str| {
        let data = event.lines().find_map(|line| line.strip_prefix("data: "));
        (event.lines().any(|line| line.starts_with("id: ")), data.unwrap_or_default().to_owned())
    };
    events.map(one).collect()
}

async fn an_id_stands_only_on_what_leaves_the_client_complete(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let path = "/api/stream?channel=s:*&envelope=false";
    let fresh = gateway.raw(path).await.until("\n\n").await;
    assert!(ids(&fresh)[0].0, "with nothing to catch up with, `connected` leaves one complete");
    gateway.publish_all(&[("s:1", json!(1)), ("s:2", json!(2)), ("s:3", json!(3))]).await;

    let with_id = |text: &str| ids(text).iter().map(|(id, _)| *id).collect::<Vec<_>>();
    let snapshot = gateway.raw(path).await.until("data: 3\nid: ").await;
    assert_eq!(with_id(&snapshot), [false, false, false, true], "{snapshot}");

    let broken = format!("{path}&lastEventId=garbage");
    let broken = gateway.raw(&broken).await.until("data: 3\nid: ").await;
    assert_eq!(with_id(&broken), [false, false, false, false, true], "{broken}");

    let bare = gateway.raw(&format!("{path}&snapshot=false")).await.until("\n\n").await;
    assert_eq!(with_id(&bare), [true]);
}

#[tokio::test]
async fn a_client_cut_within_the_snapshot_begins_again() {
    let gateway = TestGateway::start().await;
    let path = "/api/stream?channel=s:*&envelope=false";
    let last = json!([1, 2, 3]);
    gateway.publish_all(&[("s:1", json!(1)), ("s:2", json!(2)), ("s:3", json!(3))]).await;
    for cut_after in 0..3 {
        let mut stream = gateway.open(path).await;
        for _ in 0..cut_after {
            stream.data().await;
        }
        // What a browser would send: nothing, because nothing with an id was read whole.
        assert_eq!(stream.last_event_id, "");
        let mut again = gateway.open(path).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(again.data().await);
        }
        assert_eq!(Value::from(seen), last);
    }
}

/// More than waits for a client that reads slowly: one that comes back is not slow.
async fn a_resumed_state_stream_gets_every_event_it_missed(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let path = "/api/stream/campaign-metrics/c";
    let mut stream = gateway.open(path).await;
    let event = |n: u32| {
        let text = "x".repeat(10_000);
        ("campaign_metrics:c", json!({"type": "m", "n": n, "text": text}))
    };
    gateway.publish_all(&[event(0)]).await;
    let id = stream.event().await.id;
    drop(stream);
    gateway.publish_all(&(1..=20).map(event).collect::<Vec<_>>()).await;
    let mut back = gateway.resume(path, &id).await;
    for n in 1..=20 {
        assert_eq!(back.data().await["n"], n);
    }
}
