//! What many clients do at once, or one does without end, and what everybody else and the late joiner get
//! of it.

use serde_json::{Value, json};
use sluice::settings::{DeliveryClass, PatternKind, Settings};

use crate::support::{EventSource, Redis, TestGateway, Witness, wait_for};

const ANY: &str = "/api/stream?envelope=false&snapshot=false";

async fn over_redis(redis: &Redis, change: impl FnOnce(&mut Settings)) -> TestGateway {
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = redis.url();
        settings.limits.hold_most = std::time::Duration::ZERO;
        change(settings);
    })
    .await;
    gateway.ready().await;
    gateway
}

#[tokio::test]
async fn a_stream_may_allow_any_pattern() {
    let any = |settings: &mut Settings| {
        settings.stream.get_mut("any").unwrap().patterns = PatternKind::Any;
    };
    let gateway = TestGateway::start_with(any).await;
    let mut stream = gateway.open(&format!("{ANY}&channel=*:x:*")).await;
    gateway.publish_all(&[("a:y:1", json!(1)), ("a:x:1", json!(2))]).await;
    assert_eq!(stream.data().await, json!(2));
}

#[tokio::test]
async fn what_is_left_out_of_the_snapshot_of_a_pattern_is_said() {
    let gateway = TestGateway::start_with(|settings| settings.snapshot.pattern_bytes = 8_000).await;
    let events: Vec<_> = (0..50).map(|n| (format!("a:{n:02}"), json!(n))).collect();
    let events: Vec<_> = events.iter().map(|(name, n)| (name.as_str(), n.clone())).collect();
    gateway.publish_all(&events).await;
    let mut stream = gateway.open("/api/stream?channel=a:*&envelope=false").await;
    let left_out = stream.connected.data["truncated"].as_u64().unwrap();
    assert!((30..50).contains(&left_out), "{left_out}");
    for n in left_out..50 {
        assert_eq!(stream.data().await, json!(n), "the newest, oldest first");
    }
    // Channels that are named are all told.
    let named: Vec<_> = (0..50).map(|n| format!("channel=a:{n:02}")).collect();
    let path = format!("/api/stream?envelope=false&{}", named.join("&"));
    let mut stream = gateway.open(&path).await;
    assert_eq!(stream.connected.data["truncated"], Value::Null);
    for n in 0..50 {
        assert_eq!(stream.data().await, json!(n));
    }
}

/// Sixteen texts of 250 kB in one channel, as of a council.
#[tokio::test]
async fn a_late_joiner_gets_large_texts_whole() {
    let gateway = TestGateway::start_with(|settings| {
        let stream = settings.stream.get_mut("campaign_metrics").unwrap();
        stream.class = DeliveryClass::Text;
        stream.key = Some("member".to_owned());
        stream.text = Some("words".to_owned());
    })
    .await;
    let piece = "word ".repeat(10_000);
    for _ in 0..5 {
        for member in 0..16 {
            let said = json!({"member": member, "words": piece});
            gateway.publish("campaign_metrics:c", &said).await;
        }
    }
    let mut late = gateway.open("/api/stream/campaign-metrics/c").await;
    for member in 0..16 {
        let told = late.data().await;
        assert_eq!((&told["member"], &told["words"]), (&json!(member), &json!(piece.repeat(5))));
    }
    gateway.publish("campaign_metrics:c", &json!({"member": 0, "words": "live"})).await;
    assert_eq!(late.data().await["words"], "live");
}

#[tokio::test]
async fn more_things_in_a_channel_than_are_kept_are_a_gap_for_the_late_joiner() {
    let gateway = TestGateway::start_with(|settings| settings.snapshot.keys = 2).await;
    for variant in ["A", "B", "C"] {
        gateway.publish("ab_test_results:t", &json!({"variantId": variant})).await;
    }
    let mut late = gateway.open("/api/stream/ab-test-results/t").await;
    let gap = late.event().await;
    assert_eq!((gap.name.as_str(), &gap.data["reason"]), ("gap", &json!("history_evicted")));
    for variant in ["B", "C"] {
        assert_eq!(late.data().await["variantId"], variant);
    }
}

/// More comes while the client is away, and while it catches up, than its outbox holds.
#[tokio::test]
async fn a_fast_stream_survives_its_cuts() {
    let gateway = TestGateway::start().await;
    let path = format!("{ANY}&channel=fast:1");
    let filler = "x".repeat(300);
    let mut said = 0_u64;
    let mut say = async |count: u64| {
        for _ in 0..count / 900 {
            let event = |n| json!({"channel": "fast:1", "data": {"n": n, "x": filler}});
            let body: Value = (said..said + 900).map(event).collect();
            let answer = gateway.post("/api/publish", body.to_string()).send().await.unwrap();
            assert_eq!(answer.status(), 202);
            said += 900;
        }
        said
    };
    let mut stream = gateway.open(&path).await;
    let mut heard = 0;
    for _ in 0..8 {
        let until = say(900).await;
        heard = read(&mut stream, heard, until).await;
        let id = stream.last_event_id.clone();
        drop(stream);
        // Three seconds at 1,200 a second.
        say(3600).await;
        stream = gateway.resume(&path, &id).await;
        assert_eq!(stream.connected.data["recovered"], true);
        let until = say(900).await;
        heard = read(&mut stream, heard, until).await;
    }
    assert!(gateway.metric("sluice_history_bytes").await < 70e6);
}

/// Reads the events from `from` on.
async fn read(stream: &mut EventSource, from: u64, to: u64) -> u64 {
    for n in from..to {
        assert_eq!(stream.data().await["n"], n);
    }
    to
}

#[tokio::test]
async fn dashboards_that_open_at_once_cost_nobody_an_event() {
    let redis = Redis::start().await;
    let gateway = over_redis(&redis, |_| {}).await;
    let mut connection = redis.connection().await;
    for chunk in 0..20 {
        let mut publish = redis::pipe();
        for n in 0..1000 {
            let report = r#"{"status":"processing","progress":0.5}"#;
            publish.publish(format!("job_progress:{chunk}-{n}"), report).ignore();
        }
        publish.query_async::<()>(&mut connection).await.unwrap();
    }
    let received = "sluice_events_received_total{source=\"redis\"}";
    wait_for("the jobs", async || gateway.metric(received).await > 19_999.5).await;
    let witness = Witness::start(&gateway, &redis).await;
    let open = (0..100).map(|_| gateway.open("/api/stream?channel=job_progress:*"));
    let mut all = futures_util::future::join_all(open).await;
    for dashboard in &mut all {
        let left_out = dashboard.connected.data["truncated"].as_u64().unwrap();
        assert!(left_out > 15_000, "{left_out}");
        assert_eq!(dashboard.data().await["data"]["progress"], 0.5);
    }
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");
}

/// A stream of 100 channels that nobody asked for before.
fn churn(n: u32) -> String {
    let channels: Vec<_> = (0..100).map(|k| format!("channel=churn:{n}:{k}")).collect();
    format!("{ANY}&{}", channels.join("&"))
}

#[tokio::test]
async fn whoever_asks_for_many_channels_keeps_nobody_else_waiting() {
    let redis = Redis::start().await;
    let gateway = over_redis(&redis, |_| {}).await;
    let witness = Witness::start(&gateway, &redis).await;
    let mut left = Vec::new();
    for n in 0..200 {
        left.push(gateway.open(&churn(n)).await);
    }
    let mut honest = gateway.open(&format!("{ANY}&channel=honest")).await;
    let id = honest.connected.id.clone();
    left.clear();
    for n in 200..400 {
        drop(gateway.open(&churn(n)).await);
    }
    redis.publish("honest", b"1").await;
    assert_eq!(honest.data().await, json!(1));
    drop(honest);
    let mut back = gateway.resume(&format!("{ANY}&channel=honest"), &id).await;
    assert_eq!(back.connected.data["recovered"], true);
    assert_eq!(back.data().await, json!(1));
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");
    assert_eq!(gateway.metric("sluice_source_reconnects_total{source=\"redis\"}").await, 0.0);
}
