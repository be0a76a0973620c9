//! Keys with the last state: what of them counts, what cannot be read, and what reading costs others.

use std::time::Duration;

use serde_json::{Value, json};

use super::gateway;
use crate::support::{PATIENCE, Redis, Relay, TestGateway, Witness, wait_for};

const JOB: &str = "/api/stream/jobs/j";
const RECEIVED: &str = "sluice_events_received_total{source=\"redis\"}";

fn state(progress: f64, status: &str) -> String {
    json!({"job_id": "j", "status": status, "progress": progress}).to_string()
}

/// How many keys were read so far.
fn keys_read(redis: &Redis) -> u64 {
    let statistics = redis.cli(&["INFO", "commandstats"]);
    let calls = statistics.split_once("cmdstat_getrange:calls=").map(|(_, calls)| calls);
    calls.and_then(|calls| calls.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
}

/// A gateway that reads the key of a channel whenever a stream opens on it.
async fn always_reading(redis: &Redis) -> TestGateway {
    gateway(redis, |settings| settings.snapshot.reread_after = Duration::ZERO).await
}

#[tokio::test]
async fn an_end_that_only_the_key_knows_counts_if_it_is_no_older() {
    let redis = Redis::start().await;
    let gateway = always_reading(&redis).await;
    let mut live = gateway.open(JOB).await;
    redis.cli(&["PUBLISH", "job_progress:j", &state(0.5, "processing")]);
    assert_eq!(live.data().await["progress"], 0.5);
    // The last word was published while nobody of this node heard it.
    redis.cli(&["SET", "job_status:j", &state(1.0, "completed")]);
    let late = gateway.open(JOB).await.rest().await;
    assert_eq!(late[0].data["status"], "completed");
    assert_eq!(late[1].name, "complete");
    // Whoever listens already is told as well.
    assert_eq!(live.rest().await.last().unwrap().name, "complete");
}

#[tokio::test]
async fn an_end_in_a_key_older_than_the_last_event_does_not_count() {
    let redis = Redis::start().await;
    let gateway = always_reading(&redis).await;
    let at = |time: &str, progress: f64, status: &str| {
        json!({"job_id": "j", "status": status, "progress": progress, "timestamp": time})
            .to_string()
    };
    let _live = gateway.open(JOB).await;
    redis.cli(&["SET", "job_status:j", &at("2025-01-01T10:00:00Z", 1.0, "completed")]);
    // A restart, whose key comes after the word.
    redis.cli(&["PUBLISH", "job_progress:j", &at("2025-01-01T10:00:01Z", 0.1, "processing")]);
    wait_for("the event", async || gateway.metric(RECEIVED).await > 0.5).await;
    let mut late = gateway.open(JOB).await;
    assert_eq!(late.data().await["progress"], 0.1);
    redis.cli(&["PUBLISH", "job_progress:j", &at("2025-01-01T10:00:02Z", 0.2, "processing")]);
    assert_eq!(late.data().await["progress"], 0.2);
}

#[tokio::test]
async fn timestamps_are_compared_however_workers_write_them() {
    let redis = Redis::start().await;
    let gateway = always_reading(&redis).await;
    let (text, number) = ("2026-11-27 10:00:00 UTC", 1_795_773_600_u64);
    // When the restart was published, and the end of the run before was set; last: whether that end counts.
    let cases = [
        (json!(number + 100), json!(number), false),
        (json!(number + 100), json!(text), false),
        (json!((number + 100) * 1_000_000), json!(number * 1_000_000), false),
        (json!((number + 100).to_string()), json!(number.to_string()), false),
        // What cannot be read decides nothing.
        (json!("a little later"), json!("a while ago"), false),
        (json!(text), json!(number + 100), true),
        (json!(null), json!(number), true),
    ];
    for (job, (published, set, counts)) in cases.iter().enumerate() {
        let report =
            |status, timestamp| json!({"status": status, "timestamp": timestamp}).to_string();
        let channel = format!("job_progress:{job}");
        let mut live = gateway.open(&format!("/api/stream/jobs/{job}")).await;
        redis.publish(&channel, report("processing", published).as_bytes()).await;
        live.data().await;
        redis.cli(&["SET", &format!("job_status:{job}"), &report("completed", set)]);
        // A line of a log is no report, whenever it was written.
        let log = json!({"message": "m", "timestamp": number + 500}).to_string();
        redis.publish(&channel, log.as_bytes()).await;
        live.data().await;
        let mut late = gateway.open(&format!("/api/stream/jobs/{job}")).await;
        redis.publish(&channel, br#"{"mark":true}"#).await;
        let mut names = Vec::new();
        while let Some(message) = late.next().await {
            let is_mark = message.data["mark"] == json!(true);
            names.push(message.name);
            if is_mark {
                break;
            }
        }
        let ended = names.last().is_some_and(|name| name == "complete");
        assert_eq!(ended, *counts, "{published} after {set}: {names:?}");
    }
}

#[tokio::test]
async fn what_is_read_does_not_run_ahead_of_what_was_published_before() {
    let redis = Redis::start().await;
    let relay = Relay::to(redis.port).await;
    let gateway = TestGateway::start_with(|settings| settings.redis.url = relay.url()).await;
    gateway.ready().await;
    let mut live = gateway.open("/api/stream/alerts").await;
    relay.hold_subscribers(true);
    for progress in [0.1, 0.2, 0.3] {
        let report = state(progress, "processing");
        redis.cli(&["PUBLISH", "job_progress:j", &report]);
        redis.cli(&["SET", "job_status:j", &report]);
    }
    // The key is read at once; the messages are on the way still.
    let opening = gateway.open(JOB);
    let release = async {
        wait_for("the read", async || keys_read(&redis) > 0).await;
        relay.hold_subscribers(false);
    };
    let (mut stream, ()) = tokio::join!(opening, release);
    let mut told = vec![stream.data().await["progress"].as_f64().unwrap()];
    redis.cli(&["PUBLISH", "job_progress:j", &state(0.4, "processing")]);
    while told.last() != Some(&0.4) {
        told.push(stream.data().await["progress"].as_f64().unwrap());
    }
    assert!(told.is_sorted(), "an older event after a newer state: {told:?}");
    gateway.publish("alerts", &json!({"n": 1})).await;
    assert_eq!(live.data().await["n"], 1);
}

#[tokio::test]
async fn large_states_of_one_client_cost_the_others_nothing() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let filler = |bytes: usize| json!({"status": "processing", "x": "x".repeat(bytes)}).to_string();
    let mut connection = redis.connection().await;
    let mut keep = redis::pipe();
    for n in 0..100 {
        keep.set(format!("job_status:middle{n}"), filler(400_000)).ignore();
    }
    for n in 0..20 {
        keep.set(format!("job_status:large{n}"), filler(1_900_000)).ignore();
    }
    keep.query_async::<()>(&mut connection).await.unwrap();

    let witness = Witness::start(&gateway, &redis).await;
    let channels: Vec<_> = (0..100).map(|n| format!("channel=job_progress:middle{n}")).collect();
    let mut many =
        gateway.open(&format!("/api/stream?envelope=false&{}", channels.join("&"))).await;
    assert_eq!(many.data().await["status"], "processing");
    assert!(keys_read(&redis) >= 100);
    let mut large = Vec::new();
    for n in 0..20 {
        large.push(gateway.open(&format!("/api/stream/jobs/large{n}")).await);
    }
    for stream in &mut large {
        assert_eq!(stream.data().await["status"], "processing");
    }
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");

    // After a loss, all of them are read again: the link stays.
    let witness = Witness::start(&gateway, &redis).await;
    redis.end_connections("pubsub");
    for stream in &mut large {
        assert_eq!(stream.event().await.name, "gap");
        assert_eq!(stream.data().await["status"], "processing");
    }
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 1), "{seen:?}");
    assert!(
        (gateway.metric("sluice_source_reconnects_total{source=\"redis\"}").await - 1.0).abs()
            < 0.1
    );
}

#[tokio::test]
async fn a_key_that_cannot_be_read_costs_that_stream_its_snapshot_and_the_stream_says_so() {
    let redis = Redis::start().await;
    redis.cli(&["RPUSH", "job_status:list", "1"]);
    redis.cli(&["SET", "job_status:number", "7"]);
    redis.cli(&["SET", "job_status:j", &state(0.5, "processing")]);
    let gateway = gateway(&redis, |_| {}).await;
    for bad in ["list", "number"] {
        let job = gateway.open(&format!("/api/stream/jobs/{bad}")).await;
        assert_eq!(job.connected.data["unreadable"], json!([format!("job_progress:{bad}")]));
    }
    let mut good = gateway.open(JOB).await;
    assert_eq!(good.connected.data["unreadable"], Value::Null);
    assert_eq!(good.data().await["progress"], 0.5);
    assert_eq!(gateway.metric("sluice_states_unreadable_total").await, 2.0);
}

#[tokio::test]
async fn a_user_without_the_rights_to_look_first_is_served_all_the_same() {
    let redis = Redis::start().await;
    for n in 0..20 {
        redis.cli(&["SET", &format!("job_status:{n}"), &state(f64::from(n), "processing")]);
    }
    let rights = ["allchannels", "allkeys", "+@all", "-strlen", "-getrange", "-substr"];
    redis.cli(&[&["ACL", "SETUSER", "sluice", "on", ">p"][..], &rights].concat());
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = format!("redis://sluice:p@127.0.0.1:{}", redis.port);
    })
    .await;
    gateway.ready().await;
    for n in 0..20 {
        let mut stream = gateway.open(&format!("/api/stream/jobs/{n}")).await;
        assert_eq!(stream.data().await["progress"], f64::from(n));
    }
    // Without GET, the stream says that there is no snapshot.
    redis.cli(&["ACL", "SETUSER", "sluice", "-get"]);
    let without = gateway.open("/api/stream/jobs/new").await;
    assert_eq!(
        without.connected.data["unreadable"],
        json!(["job_progress:new", "task_progress:new"])
    );
}

#[tokio::test]
async fn a_read_goes_on_when_the_opening_gave_up_on_a_slow_redis() {
    let redis = Redis::start().await;
    redis.cli(&["SET", "job_status:j", &state(1.0, "completed")]);
    let gateway = gateway(&redis, |settings| settings.redis.timeout = PATIENCE).await;
    redis.signal("STOP");
    // It begins without its state.
    let mut stream = gateway.open(JOB).await;
    redis.signal("CONT");
    assert_eq!(stream.data().await["status"], "completed");
    assert_eq!(stream.event().await.name, "complete");
}

#[tokio::test]
async fn a_reading_connection_that_is_refused_is_said_and_comes_back() {
    let redis = Redis::start().await;
    redis.cli(&["SET", "job_status:j", &state(0.5, "processing")]);
    let gateway = gateway(&redis, |_| {}).await;
    gateway.publishes().await;
    let witness = Witness::start(&gateway, &redis).await;
    let clients = redis.cli(&["INFO", "clients"]);
    let clients = clients.split_once("connected_clients:").unwrap().1.lines().next().unwrap();
    // One of them was that of this question.
    let mut connection = redis.connection().await;
    let limit = |most: &str| redis::cmd("CONFIG").arg(&["SET", "maxclients", most]).to_owned();
    limit(clients).query_async::<()>(&mut connection).await.unwrap();
    let without = gateway.open(JOB).await;
    assert_eq!(without.connected.data["unreadable"], json!(["job_progress:j", "task_progress:j"]));
    let states = async || {
        let health = gateway.json("/health").await;
        let checks = health["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == "states").unwrap_or_default()
    };
    let fault = states().await;
    assert_eq!(fault["status"], "unhealthy", "{fault}");
    assert_eq!(gateway.metric("sluice_states_up{source=\"redis\"}").await, 0.0);
    limit("100").query_async::<()>(&mut connection).await.unwrap();
    wait_for("the connection", async || states().await["status"] == "healthy").await;
    assert_eq!(gateway.open(JOB).await.data().await["progress"], 0.5);
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");
}

#[tokio::test]
async fn a_redis_that_loads_its_data_is_read_when_it_is_done() {
    let mut redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let mut waiting = gateway.open(JOB).await;
    redis.cli(&["SET", "job_status:j", &state(1.0, "completed")]);
    redis.run_loading().await;
    assert!(redis.cli(&["PING"]).contains("LOADING"));
    let gap = waiting.event().await;
    assert_eq!(gap.data["reason"], "source_reconnected");
    assert!(redis.cli(&["PING"]).contains("LOADING"), "it listens already");
    assert_eq!(waiting.data().await["status"], "completed");
    assert_eq!(waiting.event().await.name, "complete");
}
