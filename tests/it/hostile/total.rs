//! What waits for all clients together is bounded: those furthest behind go first.

use std::time::Duration;

use serde_json::json;

use super::slow::read;
use crate::support::{Connection, EventSource, TestGateway};

const TOTAL: u32 = 4_200_000;
const FRAME: u32 = 50_000;
const WAITING: &str = "sluice_outbox_bytes";
const SHED: &str = "sluice_sessions_closed_total{class=\"log\",reason=\"shed\"}";
/// More than the kernel's buffers hold, and the bound, in events of one size.
const MOST_EVENTS: usize = 400;

/// Several clients that do not read, each with a channel of its own, and two that do.
struct Crowd {
    gateway: TestGateway,
    stalled: Vec<Connection>,
    fast: [EventSource; 2],
    /// How many events each channel has had.
    said: Vec<usize>,
    /// The last one that each stalled client has read.
    ids: Vec<String>,
}

impl Crowd {
    /// Each shard gets every other client.
    async fn of(count: usize) -> Self {
        let gateway = TestGateway::start_with(|settings| {
            settings.server.shards = 2;
            settings.outbox.total_bytes = TOTAL.try_into().unwrap();
            settings.outbox.log_bytes = 1 << 30;
            settings.history.channel_bytes = 1 << 30;
            settings.history.bytes = 1 << 30;
        })
        .await;
        let all = "/api/stream?channel=a:*&envelope=false";
        let fast = [gateway.open(all).await, gateway.open(all).await];
        let mut stalled = Vec::new();
        for client in 0..count {
            stalled.push(gateway.socket(&path(client)).await);
        }
        Self { gateway, stalled, fast, said: vec![0; count], ids: Vec::new() }
    }

    async fn waiting(&self) -> f64 {
        let waiting = self.gateway.metric(WAITING).await;
        // Whoever has just fallen behind is spared up to twice as much.
        assert!(waiting <= f64::from(2 * TOTAL + FRAME + 1000), "{waiting}");
        waiting
    }

    /// One more event for a client, which those who read get at once.
    async fn publish(&mut self, client: usize) {
        let n = self.said[client];
        assert!(n < MOST_EVENTS, "nobody has to go");
        let event = json!({"n": n, "text": "x".repeat(FRAME.try_into().unwrap())});
        self.gateway.publish(&format!("a:{client}"), &event).await;
        for fast in &mut self.fast {
            assert_eq!(fast.data().await["n"], n);
        }
        self.said[client] += 1;
    }

    /// A client reads one event, and so many wait for it beyond what the kernel holds.
    async fn fall_behind(&mut self, client: usize, events: usize) {
        self.publish(client).await;
        let (first, id) = read(&self.stalled[client].event().await);
        assert_eq!(first, [0]);
        self.ids.push(id);
        let before = self.waiting().await;
        while self.waiting().await <= before {
            self.publish(client).await;
        }
        for _ in 0..events {
            self.publish(client).await;
        }
    }
}

fn path(client: usize) -> String {
    format!("/api/stream?channel=a:{client}&envelope=false")
}

#[tokio::test]
async fn the_furthest_behind_is_closed_and_resumes_while_the_others_stay() {
    let mut crowd = Crowd::of(4).await;
    for (client, events) in [4, 12, 20, 28].into_iter().enumerate() {
        crowd.fall_behind(client, events).await;
    }
    assert_eq!(crowd.gateway.metric(SHED).await, 0.0);
    // Behind for as long as makes a laggard.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // It is not for the one that gets the event that is too much, nor for its shard.
    while crowd.gateway.metric(SHED).await < 0.5 {
        crowd.waiting().await;
        crowd.publish(0).await;
    }
    assert_eq!(crowd.gateway.metric(SHED).await, 1.0);
    let (_, end) = crowd.stalled.pop().unwrap().rest().await;
    assert!(end.is_err(), "what the kernel holds for it is let go as well");
    for (client, stalled) in crowd.stalled.iter_mut().enumerate() {
        for n in 1..crowd.said[client] {
            let (seen, _) = read(&stalled.event().await);
            assert_eq!(seen, [u64::try_from(n).unwrap()], "client {client}");
        }
    }

    let mut back = crowd.gateway.resume(&path(3), &crowd.ids[3]).await;
    assert_eq!(back.connected.data["recovered"], true);
    for n in 1..crowd.said[3] {
        assert_eq!(back.data().await["n"], n);
    }
}
