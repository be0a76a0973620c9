//! One suite over every source: what holds for one holds for all.

use serde_json::{Value, json};
use sluice::settings::Settings;

use crate::support::{EventSource, Redis, TestGateway, wait_for};

/// A gateway on each source, and what has to live as long as it.
async fn gateways(change: impl Fn(&mut Settings)) -> Vec<(TestGateway, Option<Redis>)> {
    let redis = Redis::start().await;
    let embedded = TestGateway::start_with(&change).await;
    let on_redis = TestGateway::start_with(|settings| {
        settings.redis.url = redis.url();
        change(settings);
    })
    .await;
    on_redis.ready().await;
    vec![(embedded, None), (on_redis, Some(redis))]
}

async fn numbers(stream: &mut EventSource, count: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(stream.data().await["n"].as_u64().unwrap());
    }
    seen
}

#[tokio::test]
async fn what_is_published_comes_back_once_and_in_order() {
    for (gateway, _redis) in gateways(|_| {}).await {
        // One channel that is heard at all times, one on demand.
        let path = "/api/stream?channel=alerts:u&channel=any:7&envelope=false";
        let (mut one, mut two) = (gateway.open(path).await, gateway.open(path).await);
        for n in 0..100 {
            let channel = if n % 2 == 0 { "alerts:u" } else { "any:7" };
            gateway.publish(channel, &json!({"n": n})).await;
        }
        let expected: Vec<_> = (0..100).collect();
        assert_eq!(numbers(&mut one, 100).await, expected);
        assert_eq!(numbers(&mut two, 100).await, expected);
    }
}

#[tokio::test]
async fn a_pattern_and_a_channel_of_it_see_an_event_once() {
    for (gateway, _redis) in gateways(|_| {}).await {
        let both = "/api/stream?channel=alerts:*&channel=alerts:u&envelope=false";
        let mut both = gateway.open(both).await;
        let mut pattern = gateway.open("/api/stream?channel=alerts:*&envelope=false").await;
        for n in 0..10 {
            gateway.publish("alerts:u", &json!({"n": n})).await;
        }
        let expected: Vec<_> = (0..10).collect();
        assert_eq!(numbers(&mut both, 10).await, expected);
        assert_eq!(numbers(&mut pattern, 10).await, expected);
    }
}

#[tokio::test]
async fn who_comes_late_gets_the_last_event_and_who_comes_back_what_it_missed() {
    for (gateway, _redis) in gateways(|_| {}).await {
        let path = "/api/stream/campaign-metrics/c1";
        let mut first = gateway.open(path).await;
        for n in 0..3 {
            gateway.publish("campaign_metrics:c1", &json!({"n": n})).await;
        }
        assert_eq!(numbers(&mut first, 3).await, [0, 1, 2]);
        let mut late = gateway.open(path).await;
        assert_eq!(numbers(&mut late, 1).await, [2]);
        let id = first.last_event_id.clone();
        drop(first);
        for n in 3..6 {
            gateway.publish("campaign_metrics:c1", &json!({"n": n})).await;
        }
        let mut back = gateway.resume(path, &id).await;
        assert_eq!(back.connected.data["recovered"], true);
        assert_eq!(numbers(&mut back, 3).await, [3, 4, 5]);
    }
}

#[tokio::test]
async fn everything_missed_is_replayed_even_if_it_is_more_than_an_outbox_holds() {
    let small = |settings: &mut Settings| {
        settings.outbox.state_bytes = 1000;
    };
    for (gateway, _redis) in gateways(small).await {
        let path = "/api/stream/campaign-metrics/c1";
        let mut first = gateway.open(path).await;
        gateway.publish("campaign_metrics:c1", &json!({"n": 0})).await;
        assert_eq!(numbers(&mut first, 1).await, [0]);
        let id = first.last_event_id.clone();
        drop(first);
        let missed: Vec<u64> = (1..=250).collect();
        let events =
            missed.iter().map(|n| json!({"channel": "campaign_metrics:c1", "data": {"n": n}}));
        let body = events.collect::<Value>().to_string();
        assert_eq!(gateway.post("/api/publish", body).send().await.unwrap().status(), 202);
        wait_for("events", async || gateway.metric("sluice_history_bytes").await > 250.0 * 256.0)
            .await;

        let mut back = gateway.resume(path, &id).await;
        assert_eq!(numbers(&mut back, 250).await, missed);
        let conflated = gateway.metric("sluice_events_conflated_total{class=\"state\"}").await;
        assert_eq!(conflated, 0.0);
    }
}

#[tokio::test]
async fn a_channel_on_demand_is_heard_for_a_while_after_its_last_client() {
    for (gateway, _redis) in gateways(|_| {}).await {
        let path = "/api/stream?channel=on:demand&envelope=false&snapshot=false";
        let mut first = gateway.open(path).await;
        gateway.publish("on:demand", &json!({"n": 1})).await;
        assert_eq!(numbers(&mut first, 1).await, [1]);
        let id = first.last_event_id.clone();
        drop(first);
        wait_for("departure", async || gateway.metric("sluice_subscribed_topics").await == 0.0)
            .await;
        gateway.publish("on:demand", &json!({"n": 2})).await;
        let mut back = gateway.resume(path, &id).await;
        assert_eq!(back.connected.data["recovered"], true);
        assert_eq!(numbers(&mut back, 1).await, [2]);
    }
}

#[tokio::test]
async fn of_channels_nobody_wants_any_more_only_so_many_are_heard() {
    let few = |settings: &mut Settings| settings.events.linger_channels = 2;
    for (gateway, redis) in gateways(few).await {
        for n in 0..5 {
            drop(gateway.open(&format!("/api/stream?channel=left:{n}")).await);
        }
        let Some(redis) = redis else { continue };
        let heard = || redis.cli(&["PUBSUB", "CHANNELS", "left:*"]).lines().count();
        wait_for("letting go", async || heard() <= 2).await;
    }
}

#[tokio::test]
async fn an_id_is_published_once() {
    for (gateway, _redis) in gateways(|_| {}).await {
        let mut stream = gateway.open("/api/stream?channel=alerts&envelope=false").await;
        let publish = async |body: Value| {
            let answer = gateway.post("/api/publish", body.to_string()).send().await.unwrap();
            assert_eq!(answer.status(), 202);
            answer.json::<Value>().await.unwrap()
        };
        let item = |n: u64, id: &str| json!({"channel": "alerts", "data": {"n": n}, "id": id});
        let new = publish(json!([item(1, "a"), item(2, "b")])).await;
        assert_eq!(new, json!({"accepted": 2, "streams": 1, "subscribers": 1}));
        let again = publish(json!([item(1, "a"), item(3, "c")])).await;
        let expected = json!({"accepted": 2, "streams": 1, "subscribers": 1, "duplicates": 1});
        assert_eq!(again, expected);
        assert_eq!(numbers(&mut stream, 3).await, [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_payload_that_is_no_event_reaches_nobody_and_breaks_nothing() {
    for (gateway, redis) in gateways(|settings| settings.events.max_bytes = 1000).await {
        let mut stream = gateway.open("/api/stream?channel=alerts&envelope=false").await;
        let bad: [&[u8]; 6] = [b"{", b"", b"\"\xff\xfe\"", b"nonsense", b"\0", &[b'1'; 1001]];
        for payload in bad {
            if let Some(redis) = &redis {
                redis.publish("alerts", payload).await;
            } else {
                let request = gateway.post("/api/publish/alerts", payload.to_vec());
                assert!(request.send().await.unwrap().status().is_client_error());
            }
        }
        let text = "a\r\n\r\ndata: x\n\0\u{2028}\u{feff} end";
        gateway.publish("alerts", &json!({"n": 7, "text": text})).await;
        let mut event = stream.event().await;
        if redis.is_some() {
            assert_eq!((event.name.as_str(), &event.data["reason"]), ("gap", &json!("dropped")));
            assert_eq!(event.data["channels"], json!(["alerts"]));
            event = stream.event().await;
        }
        assert_eq!((&event.data["n"], &event.data["text"]), (&json!(7), &json!(text)));
        if redis.is_some() {
            assert_eq!(
                gateway.metric("sluice_events_dropped_total{reason=\"payload\"}").await,
                6.0
            );
        }
    }
}
