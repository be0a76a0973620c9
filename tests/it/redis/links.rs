//! The link to Redis: what ends it, what does not, and that it heals.

use std::time::Duration;

use serde_json::json;
use sluice::settings::Settings;

use super::gateway;
use crate::support::{EventSource, Redis, TestGateway, Witness, wait_for};

const RECONNECTS: &str = "sluice_source_reconnects_total{source=\"redis\"}";

/// A short look at everything, so that what is found is found soon.
fn attentive(settings: &mut Settings) {
    settings.redis.probe_interval = Duration::from_millis(100);
}

async fn ready(gateway: &TestGateway) -> bool {
    gateway.get("/readyz").send().await.unwrap().status() == 200
}

/// A gateway as a user that may use some channels.
async fn with_channels(redis: &Redis, channels: &[&str], patterns: &[&str]) -> TestGateway {
    let rights = ["resetchannels", "&sluice:*", "+@all", "allkeys"];
    redis.cli(&[&["ACL", "SETUSER", "sluice", "on", ">p"][..], &rights, channels].concat());
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = format!("redis://sluice:p@127.0.0.1:{}", redis.port);
        settings.redis.patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    })
    .await;
    gateway.ready().await;
    gateway
}

/// Takes the end of a stream whose channel is not available.
async fn is_refused(stream: EventSource, name: &str) {
    let rest = stream.rest().await;
    let last = rest.last().unwrap();
    assert_eq!(
        (last.name.as_str(), &last.data["error"]),
        ("error", &json!(format!("Channel not available: {name}")))
    );
}

#[tokio::test]
async fn a_replica_is_refused_from_the_start_and_when_it_becomes_one() {
    let (redis, other) = (Redis::start().await, Redis::start().await);
    let gateway = gateway(&redis, attentive).await;
    let mut stream = gateway.open("/api/stream?channel=alerts&envelope=false").await;
    redis.cli(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    wait_for("notice", async || !ready(&gateway).await).await;
    let late = TestGateway::start_with(|settings| settings.redis.url = redis.url()).await;
    for gateway in [&gateway, &late] {
        wait_for("the reason", async || {
            let health = gateway.json("/health").await;
            health["checks"].as_array().unwrap()[..2].iter().all(|check| {
                check["reason"].as_str().is_some_and(|reason| reason.contains("replica"))
            })
        })
        .await;
        let refused = gateway.post("/api/publish/alerts", "{}").send().await.unwrap();
        assert_eq!(refused.status(), 503);
    }
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    gateway.ready().await;
    gateway.publishes().await;
    gateway.publish("alerts", &json!({"n": 1})).await;
    assert_eq!(stream.event().await.data["reason"], "source_reconnected");
    assert_eq!(stream.data().await, json!({"n": 1}));
}

#[tokio::test]
async fn what_a_replica_takes_is_not_confirmed() {
    let redis = Redis::start().await;
    // Nobody looks at the role but who publishes.
    let gateway = gateway(&redis, |settings| settings.redis.probe_interval = Duration::ZERO).await;
    gateway.publishes().await;
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let two = r#"[{"channel":"alerts","data":{}},{"channel":"alerts","data":{}}]"#;
    for request in [
        gateway.post("/api/publish/alerts", "{}"),
        gateway.post("/api/publish", two),
        gateway.post("/api/publish/alerts?id=x", "{}"),
    ] {
        assert_eq!(request.send().await.unwrap().status(), 503);
    }
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    gateway.publishes().await;
    gateway.publish("alerts", &json!({})).await;
}

#[tokio::test]
async fn a_user_without_the_right_to_ask_for_the_role_is_told_it_all_the_same() {
    let (redis, other) = (Redis::start().await, Redis::start().await);
    let rights = ["allchannels", "allkeys", "+@all", "-role", "-info", "-client"];
    redis.cli(&[&["ACL", "SETUSER", "sluice", "on", ">p"][..], &rights].concat());
    redis.cli(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = format!("redis://sluice:p@127.0.0.1:{}", redis.port);
    })
    .await;
    wait_for("the reason", async || {
        let health = gateway.json("/health").await;
        health["checks"][0]["reason"].as_str().is_some_and(|reason| reason.contains("replica"))
    })
    .await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    gateway.ready().await;
}

#[tokio::test]
async fn a_subscription_that_is_ended_comes_back_with_a_gap() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let witness = Witness::start(&gateway, &redis).await;
    for lost in 1..=5 {
        redis.end_connections("pubsub");
        wait_for("loss", async || gateway.metric(RECONNECTS).await >= f64::from(lost)).await;
        gateway.ready().await;
    }
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 5), "{seen:?}");
}

#[tokio::test]
async fn a_channel_that_redis_refuses_ends_its_own_streams() {
    let redis = Redis::start().await;
    let channels = ["&alerts*", "&allowed"];
    let gateway = with_channels(&redis, &channels, &["alerts:*"]).await;
    let witness = Witness::start(&gateway, &redis).await;
    for _ in 0..2 {
        let path = "/api/stream?channel=alerts&channel=secret";
        is_refused(EventSource::open(&gateway.url(path)).await, "secret").await;
    }
    let mut allowed = gateway.open("/api/stream?channel=allowed&envelope=false").await;
    redis.publish("allowed", b"1").await;
    assert_eq!(allowed.data().await, json!(1));
    let refusals = "sluice_source_refusals_total{kind=\"channel\",source=\"redis\"}";
    assert!(gateway.metric(refusals).await > 0.5);
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");

    // A right that is taken back: Redis ends the connection, and then refuses this one of many.
    let others: Vec<_> = (0..50).map(|n| format!("channel=alerts.{n}")).collect();
    let mut others =
        gateway.open(&format!("/api/stream?envelope=false&{}", others.join("&"))).await;
    redis.cli(&["ACL", "SETUSER", "sluice", "resetchannels", "&sluice:*", "&alerts*"]);
    is_refused(allowed, "allowed").await;
    let mut told = 0;
    while told < 50 {
        told += others.event().await.data["channels"].as_array().unwrap().len();
    }
    redis.publish("alerts.49", b"1").await;
    assert_eq!(others.data().await, json!(1));
    // One that is given: asked for again, the channel is there.
    redis.cli(&["ACL", "SETUSER", "sluice", "&secret"]);
    gateway.ready().await;
    wait_for("the channel", async || {
        let mut stream = gateway.open("/api/stream?channel=secret&envelope=false").await;
        redis.cli(&["PUBLISH", "secret", "2"]);
        stream.data().await == json!(2)
    })
    .await;
}

#[tokio::test]
async fn a_pattern_that_redis_refuses_ends_its_own_streams() {
    let redis = Redis::start().await;
    let gateway = with_channels(&redis, &["&alerts:*"], &["alerts:*", "secret:*"]).await;
    let mut alerts = gateway.open("/api/stream?channel=alerts:*&envelope=false").await;
    for path in ["/api/stream?channel=secret:*", "/api/stream?channel=secret:*&channel=alerts:a"] {
        is_refused(EventSource::open(&gateway.url(path)).await, "secret:*").await;
    }
    // A channel of it is refused for itself.
    is_refused(gateway.open("/api/stream?channel=secret:a").await, "secret:a").await;
    redis.publish("alerts:a", b"1").await;
    assert_eq!(alerts.data().await, json!(1));
    let refusals = "sluice_source_refusals_total{kind=\"pattern\",source=\"redis\"}";
    assert!(gateway.metric(refusals).await > 0.5, "{refusals}");
    assert_eq!(gateway.metric(RECONNECTS).await, 0.0);
}

#[tokio::test]
async fn a_user_that_may_not_unsubscribe_keeps_its_link() {
    let redis = Redis::start().await;
    redis.cli(&[
        "ACL",
        "SETUSER",
        "sluice",
        "on",
        ">p",
        "allchannels",
        "allkeys",
        "+@all",
        "-unsubscribe",
    ]);
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = format!("redis://sluice:p@127.0.0.1:{}", redis.port);
        settings.events.linger = Duration::from_millis(1);
        settings.events.linger_channels = 0;
    })
    .await;
    gateway.ready().await;
    let witness = Witness::start(&gateway, &redis).await;
    for n in 0..20 {
        drop(gateway.open(&format!("/api/stream?channel=left:{n}")).await);
        let mut again =
            gateway.open("/api/stream?channel=left:0&envelope=false&snapshot=false").await;
        redis.cli(&["PUBLISH", "left:0", &n.to_string()]);
        assert_eq!(again.data().await, json!(n));
    }
    let refused = || redis.cli(&["ACL", "LOG"]).contains("unsubscribe");
    wait_for("a refusal", async || refused()).await;
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");
}

#[tokio::test]
async fn a_password_that_is_changed_needs_no_restart() {
    let redis = Redis::start_with(&["--requirepass", "first"]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    let gateway = gateway(&redis, |settings| {
        settings.redis.password_file = file.path().to_owned();
    })
    .await;
    let mut stream = gateway.open("/api/stream?channel=alerts&envelope=false").await;
    redis.cli(&["-a", "first", "CONFIG", "SET", "requirepass", "second"]);
    redis.cli(&["-a", "second", "CLIENT", "KILL", "TYPE", "pubsub"]);
    redis.cli(&["-a", "second", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    wait_for("loss", async || !ready(&gateway).await).await;
    let health = gateway.json("/health").await;
    assert!(!health.to_string().contains("first"), "{health}");
    std::fs::write(file.path(), "second\r\n").unwrap();
    gateway.ready().await;
    gateway.publishes().await;
    gateway.publish("alerts", &json!({"n": 1})).await;
    assert_eq!(stream.event().await.name, "gap");
    assert_eq!(stream.data().await, json!({"n": 1}));
}

#[tokio::test]
async fn redis_sees_which_node_a_connection_belongs_to() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    gateway.publishes().await;
    let list = redis.cli(&["CLIENT", "LIST"]);
    let named = list.lines().filter(|line| line.contains(" name=sluice:")).count();
    assert_eq!(named, 2, "one listens, one publishes: {list}");
}
