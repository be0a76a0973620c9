//! What only Redis can do: workers that publish as they do today, keys with the last state, and
//! a broker that goes away and comes back.

mod access;
mod links;
mod payloads;
mod publishing;
mod random;
mod states;
mod subscribing;

use std::time::Duration;

use serde_json::{Value, json};
use sluice::settings::Settings;

use crate::support::{Redis, TestGateway, wait_for};

async fn gateway(redis: &Redis, change: impl FnOnce(&mut Settings)) -> TestGateway {
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = redis.url();
        change(settings);
    })
    .await;
    gateway.ready().await;
    gateway
}

/// The messages a real worker's own test publishes, with `redis-cli`, as it published them.
#[tokio::test]
async fn a_workers_real_messages_come_out_in_the_shapes_of_the_contract() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let mut render = gateway.open("/api/stream/render-progress/test_job_001?userId=u").await;
    let job = gateway.open("/api/v1/stream/jobs/test_job_001").await;
    let failed = gateway.open("/api/stream/jobs/test_error_job").await;
    let messages: Vec<&str> = include_str!("../fixtures/worker-messages.txt").lines().collect();
    for message in messages.chunks(4) {
        let [kind, _pattern, channel, payload] = message else { panic!("four lines a message") };
        assert_eq!(*kind, "pmessage");
        redis.cli(&["PUBLISH", channel, payload]);
    }

    let mut progress = Vec::new();
    for _ in 0..7 {
        let event = render.event().await;
        assert_eq!(
            (event.name.as_str(), &event.data["type"]),
            ("message", &json!("video_render_progress"))
        );
        assert_eq!(event.data["jobId"], "test_job_001");
        assert!(event.data["timestamp"].as_str().unwrap().ends_with('Z'));
        progress.push(event.data["progress"].as_f64().unwrap());
    }
    assert_eq!(progress, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0]);
    let id = render.last_event_id.clone();
    let rest = render.rest().await;
    assert_eq!(rest.len(), 1);
    assert_eq!((rest[0].name.as_str(), &rest[0].data["type"]), ("complete", &json!("complete")));
    assert_eq!(rest[0].data["data"], json!({"jobId": "test_job_001", "status": "completed"}));

    let job = job.rest().await;
    let statuses: Vec<_> = job.iter().map(|event| event.data["status"].as_str()).collect();
    assert_eq!(job.len(), 8);
    assert_eq!(statuses[6], Some("completed"));
    assert_eq!(job[6].data["result"]["test_data"], "Test completed successfully");
    assert_eq!(job[6].data["type"], "job_progress");
    assert_eq!(job[7].name, "complete");

    let failed = failed.rest().await;
    assert_eq!(failed[0].data["error"], "Test error: Something went wrong");
    assert_eq!((failed[0].name.as_str(), failed[1].name.as_str()), ("message", "complete"));
    assert_eq!(failed[1].data["data"]["status"], "failed");

    for path in ["/api/stream/render-progress/test_job_001", "/api/stream/jobs/test_job_001"] {
        let again = gateway.get(path).header("last-event-id", &id).send().await.unwrap();
        assert_eq!(again.status(), 204);
    }
}

#[tokio::test]
async fn a_hundred_clients_outlive_redis() {
    let mut redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let mut clients = Vec::new();
    for n in 0..100 {
        // Half on a channel heard at all times, half on one subscribed to on demand.
        let channel = if n % 2 == 0 { "alerts" } else { "on:demand" };
        clients.push(gateway.open(&format!("/api/stream?channel={channel}&envelope=false")).await);
    }
    redis.kill();
    wait_for("loss", async || gateway.metric("sluice_source_up{source=\"redis\"}").await == 0.0)
        .await;
    assert_eq!(gateway.get("/readyz").send().await.unwrap().status(), 503);
    assert_eq!(gateway.get("/livez").send().await.unwrap().status(), 200);
    assert_eq!(gateway.get("/health").send().await.unwrap().status(), 200);
    assert_eq!(gateway.json("/health").await["status"], "degraded");
    let refused = gateway.post("/api/publish/alerts", "{}").send().await.unwrap();
    assert_eq!(refused.status(), 503);
    let problem: Value = refused.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("not connected"), "{problem}");

    redis.run().await;
    gateway.ready().await;
    for channel in ["alerts", "on:demand"] {
        gateway.publish(channel, &json!({"n": 1})).await;
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let gap = client.event().await;
        let channel = if n % 2 == 0 { "alerts" } else { "on:demand" };
        assert_eq!((gap.name.as_str(), &gap.data["reason"]), ("gap", &json!("source_reconnected")));
        assert_eq!(gap.data["channels"], json!([channel]));
        assert_eq!(client.data().await, json!({"n": 1}));
    }
    assert_eq!(gateway.metric("sluice_gaps_total{reason=\"source_reconnected\"}").await, 100.0);
    assert_eq!(gateway.metric("sluice_source_reconnects_total{source=\"redis\"}").await, 1.0);
}

#[tokio::test]
async fn a_redis_that_is_absent_at_first_does_not_stop_the_gateway() {
    let mut redis = Redis::stopped(&[]);
    let gateway = TestGateway::start_with(|settings| settings.redis.url = redis.url()).await;
    assert_eq!(gateway.get("/readyz").send().await.unwrap().status(), 503);
    let mut early = gateway.open("/api/stream?channel=alerts&envelope=false").await;
    redis.run().await;
    gateway.ready().await;
    gateway.publish("alerts", &json!({"n": 1})).await;
    let gap = early.event().await;
    assert_eq!((gap.name.as_str(), &gap.data["type"]), ("gap", &json!("gap")));
    assert_eq!(early.data().await, json!({"n": 1}));
}

#[tokio::test]
async fn a_redis_that_hangs_is_noticed() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |settings| {
        settings.redis.timeout = Duration::from_millis(500);
        settings.redis.probe_interval = Duration::from_millis(200);
    })
    .await;
    let mut client = gateway.open("/api/stream?channel=alerts&envelope=false").await;
    redis.signal("STOP");
    wait_for("notice", async || gateway.metric("sluice_source_up{source=\"redis\"}").await == 0.0)
        .await;
    redis.signal("CONT");
    gateway.ready().await;
    assert_eq!(client.event().await.name, "gap");
    gateway.publish("alerts", &json!({"n": 1})).await;
    assert_eq!(client.data().await, json!({"n": 1}));
}

#[tokio::test]
async fn the_last_state_comes_from_its_key_and_the_double_is_dropped() {
    let redis = Redis::start().await;
    let state = |progress: f64, status: &str| {
        json!({"job_id": "j", "status": status, "stage": "rendering", "progress": progress})
            .to_string()
    };
    redis.cli(&["SET", "job_status:j", &state(0.4, "processing")]);
    let gateway = gateway(&redis, |_| {}).await;
    let mut client = gateway.open("/api/stream/jobs/j").await;
    assert_eq!(client.data().await["progress"], 0.4);

    // A worker publishes first and sets the key after: whoever comes in between gets it once.
    for progress in [0.5, 0.6] {
        redis.cli(&["PUBLISH", "job_progress:j", &state(progress, "processing")]);
        redis.cli(&["SET", "job_status:j", &state(progress, "processing")]);
        assert_eq!(client.data().await["progress"], progress);
    }
    let mut late = gateway.open("/api/stream/jobs/j").await;
    assert_eq!(late.data().await["progress"], 0.6);
    redis.cli(&["PUBLISH", "job_progress:j", &state(0.7, "processing")]);
    assert_eq!(late.data().await["progress"], 0.7);
    assert_eq!(client.data().await["progress"], 0.7);

    // A job that finished before this gateway was started: complete, then 204.
    redis.cli(&["SET", "job_status:old", &state(1.0, "completed")]);
    let finished = gateway.open("/api/stream/render-progress/old").await.rest().await;
    assert_eq!(finished[0].data["progress"], 1.0);
    assert_eq!(finished[1].name, "complete");
    let id = &finished[1].id;
    let again = gateway.get("/api/stream/render-progress/old").header("last-event-id", id);
    assert_eq!(again.send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn after_a_loss_the_gap_is_followed_by_the_state_of_the_key() {
    let mut redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let mut client = gateway.open("/api/stream/jobs/j").await;
    let report = r#"{"job_id":"j","status":"processing","progress":0.1}"#;
    redis.cli(&["PUBLISH", "job_progress:j", report]);
    assert_eq!(client.data().await["progress"], 0.1);
    redis.kill();
    wait_for("loss", async || gateway.metric("sluice_source_up{source=\"redis\"}").await == 0.0)
        .await;
    // A state that is there before the gateway is back: as on a replica that took over.
    let state = json!({"job_id": "j", "status": "processing", "progress": 0.9}).to_string();
    redis.run_with_state("job_status:j", &state).await;
    gateway.ready().await;
    let gap = client.event().await;
    assert_eq!(gap.name, "gap");
    assert_eq!(client.data().await["progress"], 0.9);
    let id = client.last_event_id.clone();
    drop(client);
    redis.cli(&["PUBLISH", "job_progress:j", &state.replace("0.9", "0.95")]);
    let mut back = gateway.resume("/api/stream/jobs/j", &id).await;
    assert_eq!(back.connected.data["recovered"], true);
    assert_eq!(back.data().await["progress"], 0.95);
}

#[tokio::test]
async fn a_key_that_is_set_late_is_found_by_a_second_look() {
    let mut redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let mut client = gateway.open("/api/stream/jobs/j").await;
    redis.kill();
    wait_for("loss", async || gateway.metric("sluice_source_up{source=\"redis\"}").await == 0.0)
        .await;
    redis.run().await;
    // Published while nobody listened; the key comes when the gateway has looked already.
    assert_eq!(client.event().await.name, "gap");
    redis.cli(&["SET", "job_status:j", r#"{"job_id":"j","status":"completed","progress":1}"#]);
    assert_eq!(client.data().await["status"], "completed");
    assert_eq!(client.event().await.name, "complete");
}

#[tokio::test]
async fn overlapping_patterns_deliver_once() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |settings| {
        settings.redis.patterns = ["a:*", "*", "a:b[c]?*"].map(str::to_owned).to_vec();
    })
    .await;
    let mut client = gateway.open("/api/stream?channel=*&envelope=false").await;
    for n in 0..5 {
        redis.cli(&["PUBLISH", "a:b[c]?d", &json!({"n": n}).to_string()]);
    }
    for n in 0..5 {
        assert_eq!(client.data().await, json!({"n": n}));
    }
    redis.cli(&["PUBLISH", "end", "{}"]);
    assert_eq!(client.data().await, json!({}));
}

#[tokio::test]
async fn only_the_patterns_of_the_settings_can_be_asked_for() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let refused = gateway.open("/api/stream?channel=secret:*").await.rest().await;
    assert_eq!(refused[0].name, "error");
    assert_eq!(refused[0].data["error"], "Pattern not available: secret:*");
}

#[tokio::test]
async fn a_channel_nobody_asks_for_any_more_is_let_go() {
    let redis = Redis::start().await;
    let gateway =
        gateway(&redis, |settings| settings.events.linger = Duration::from_millis(1)).await;
    let subscribers = |count: &str| {
        let listening = redis.cli(&["PUBSUB", "NUMSUB", "on:demand"]);
        listening.split_whitespace().last() == Some(count)
    };
    let client = gateway.open("/api/stream?channel=on:demand").await;
    assert!(subscribers("1"), "subscribed before the client is told that it is connected");
    drop(client);
    wait_for("letting go", async || subscribers("0")).await;
}

#[tokio::test]
async fn gateways_that_share_a_redis_each_deliver_once() {
    let redis = Redis::start().await;
    let (one, two) = (gateway(&redis, |_| {}).await, gateway(&redis, |_| {}).await);
    let path = "/api/stream?channel=alerts&envelope=false";
    let (mut at_one, mut at_two) = (one.open(path).await, two.open(path).await);
    for gateway in [&one, &two] {
        let answer =
            gateway.post("/api/publish/alerts?id=same", r#"{"n":1}"#).send().await.unwrap();
        assert_eq!(answer.status(), 202);
    }
    one.publish("alerts", &json!({"n": 2})).await;
    for client in [&mut at_one, &mut at_two] {
        assert_eq!(client.data().await, json!({"n": 1}));
        assert_eq!(client.data().await, json!({"n": 2}));
    }
    // The other gateway's position is not taken for one of ours.
    let mut moved = two.resume(path, &at_one.last_event_id).await;
    assert_eq!(moved.connected.data["recovered"], false);
    assert_eq!(moved.data().await["reason"], "unknown_position");
    assert_eq!(moved.data().await, json!({"n": 2}));
}
