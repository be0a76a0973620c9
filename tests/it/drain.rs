//! How the gateway stops: everybody is told, nobody new is let in, and it ends.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{EventSource, Protocol, TestGateway, over_each_protocol, within};

over_each_protocol! {
    every_client_is_told_when_to_come_back
    what_was_published_before_the_stop_still_arrives
    a_client_that_does_not_read_holds_the_end_up_only_so_long
}

async fn draining_over(window: Duration) -> TestGateway {
    TestGateway::start_with(|settings| settings.server.drain = window).await
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    let mut gateway = draining_over(Duration::from_secs(3600)).await;
    gateway.publish("a", &json!(1)).await;
    drop(gateway.open("/api/stream/alerts").await);
    assert!(within("drain", gateway.drain()).await);
    assert!(gateway.get("/livez").send().await.is_err(), "nothing listens any more");
}

async fn every_client_is_told_when_to_come_back(protocol: Protocol) {
    const CLIENTS: usize = 20;
    let mut gateway = draining_over(Duration::from_millis(500)).await.over(protocol);
    let mut streams = Vec::new();
    for n in 0..CLIENTS {
        let path = ["/api/stream/alerts", "/api/stream/jobs/j", "/api/stream?channel=a:*"][n % 3];
        streams.push(gateway.raw(path).await);
    }
    let drained = within("drain", gateway.drain());
    let told = async {
        let mut retries = Vec::new();
        for stream in streams {
            let text = stream.rest().await;
            let (_, last) = text.trim_end().rsplit_once("\n\n").unwrap();
            let lines: Vec<_> = last.lines().collect();
            let [retry, data] = &*lines else { panic!("retry and data, not {last:?}") };
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["type"], "server_shutdown");
            assert_eq!(data["message"], "Server is shutting down");
            assert!(data["timestamp"].is_string());
            let milliseconds: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
            retries.push(milliseconds);
        }
        retries
    };
    let (drained, mut retries) = tokio::join!(drained, told);
    assert!(drained, "everybody has left");
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > CLIENTS / 2, "each has a delay of its own: {retries:?}");
    assert!(retries.iter().all(|retry| (500..=60_000).contains(retry)), "{retries:?}");
}

async fn what_was_published_before_the_stop_still_arrives(protocol: Protocol) {
    let mut gateway = draining_over(Duration::from_millis(100)).await.over(protocol);
    let path = "/api/stream/alerts?batch=10s";
    let mut stream = gateway.open(path).await;
    gateway.publish("alerts", &json!({"type": "alert", "n": 1})).await;
    let drained = gateway.drain();
    let (drained, ()) = tokio::join!(within("drain", drained), async {
        let batch = stream.data().await;
        assert_eq!(batch["events"][0]["n"], 1, "a window does not outlast its stream");
        assert_eq!(stream.data().await["type"], "server_shutdown");
        assert!(stream.next().await.is_none());
    });
    assert!(drained);
}

/// Each client is told at a moment of its own. With so many of them and so long a time, somebody
/// is still there when the test asks.
async fn held_open(gateway: &TestGateway) -> Vec<EventSource> {
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(gateway.open("/api/stream?channel=a&envelope=false").await);
    }
    streams
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_takes_nobody() {
    let mut gateway = draining_over(Duration::from_secs(600)).await;
    let mut streams = held_open(&gateway).await;
    assert_eq!(gateway.get("/readyz").send().await.unwrap().status(), 200);
    let drained = tokio::join!(within("drain", gateway.drain()), async {
        // Often: an answer that depends on who is faster does not do.
        for _ in 0..20 {
            for (path, status) in [("/readyz", 503), ("/health/ready", 503), ("/livez", 200)] {
                let answer = gateway.get(path).send().await.unwrap();
                assert_eq!(answer.status(), status, "{path}");
            }
        }
        let refused = gateway.get("/readyz").send().await.unwrap();
        assert_eq!(refused.headers()["content-type"], "application/problem+json");
        assert!(refused.headers().contains_key("retry-after"));
        // An EventSource gives up for good after any status but 200: it is told in the stream.
        for path in ["/api/stream/alerts", "/api/v1/stream/jobs/j"] {
            let told = gateway.get(path).send().await.unwrap();
            assert_eq!(told.status(), 200, "{path}");
            let text = told.text().await.unwrap();
            assert!(text.starts_with("retry: ") && text.contains("server_shutdown"), "{text}");
        }
        assert_eq!(gateway.json("/api/realtime/stats").await["status"], "degraded");
        let last = streams.last_mut().unwrap();
        gateway.publish("a", &json!("still there")).await;
        assert_eq!(last.data().await, json!("still there"));
        drop(streams);
    });
    assert!(drained.0, "the last client has left");
}

async fn a_client_that_does_not_read_holds_the_end_up_only_so_long(protocol: Protocol) {
    let mut gateway = draining_over(Duration::from_millis(100)).await.over(protocol);
    let stalled = gateway.slow("/api/stream?channel=a").await;
    for _ in 0..30 {
        gateway.publish("a", &json!("x".repeat(400_000))).await;
    }
    let drained = within("drain", gateway.drain()).await;
    assert!(!drained, "it says that somebody had not left");
    drop(stalled);
}
