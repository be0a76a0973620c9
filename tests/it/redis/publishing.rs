//! Publishing over HTTP to Redis: ids, what Redis refuses, and what the link for publishing costs.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::gateway;
use crate::support::{Redis, TestGateway, Witness, wait_for};

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn items(events: &[(&str, u64, Option<&str>)]) -> String {
    let item = |(channel, n, id): &(&str, u64, Option<&str>)| json!({"channel": channel, "data": {"n": n}, "id": id});
    Value::from(events.iter().map(item).collect::<Vec<_>>()).to_string()
}

/// A gateway whose user may use the channels of alerts and a few, and nothing besides.
async fn with_few_rights(redis: &Redis, more: &[&str]) -> TestGateway {
    let rights = ["resetchannels", "&alerts*", "&sluice:*", "+@all", "allkeys"];
    redis.cli(&[&["ACL", "SETUSER", "sluice", "on", ">p"][..], &rights, more].concat());
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = format!("redis://sluice:p@127.0.0.1:{}", redis.port);
        settings.redis.patterns = vec!["alerts*".to_owned()];
    })
    .await;
    gateway.ready().await;
    gateway.publishes().await;
    gateway
}

#[tokio::test]
async fn a_channel_that_redis_refuses_is_403_each_time_and_nothing_of_the_call_goes_out() {
    let redis = Redis::start().await;
    let gateway = with_few_rights(&redis, &[]).await;
    let mut stream = gateway.open("/api/stream?channel=alerts*&envelope=false").await;
    for ids in [[None, None], [Some("a"), Some("b")], [None, Some("b")]] {
        let body = items(&[("alerts", 1, ids[0]), ("secret", 2, ids[1])]);
        for _ in 0..2 {
            let (status, problem) = answer(gateway.post("/api/publish", body.clone())).await;
            assert_eq!(status, 403, "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains("secret"), "{problem}");
        }
    }
    for _ in 0..2 {
        let one = gateway.post("/api/publish/secret?id=x", "{}");
        assert_eq!(answer(one).await.0, 403);
    }
    // Neither an event nor an id was left behind.
    let rest = items(&[("alerts", 3, Some("a")), ("alerts:b", 4, Some("b"))]);
    let (status, accepted) = answer(gateway.post("/api/publish", rest)).await;
    assert_eq!((status, &accepted["duplicates"]), (202, &Value::Null));
    assert_eq!(stream.data().await["n"], 3);
    assert_eq!(stream.data().await["n"], 4);
    assert_eq!(gateway.metric("sluice_source_reconnects_total{source=\"redis\"}").await, 0.0);
}

#[tokio::test]
async fn a_command_that_redis_refuses_is_named_and_leaves_nothing_behind() {
    let redis = Redis::start().await;
    let gateway = with_few_rights(&redis, &["-multi", "-script"]).await;
    let mut stream = gateway.open("/api/stream?channel=alerts*&envelope=false").await;
    // Without a transaction Redis would run its commands one by one.
    for (body, command) in [
        (items(&[("alerts", 1, None), ("alerts", 2, None)]), "'multi'"),
        (items(&[("alerts", 1, Some("a"))]), "'script|load'"),
    ] {
        let (status, problem) = answer(gateway.post("/api/publish", body)).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(status, 403, "{detail}");
        assert!(detail.contains(command) && !detail.contains("channel alerts"), "{detail}");
    }
    gateway.publish("alerts", &json!({"n": 3})).await;
    assert_eq!(stream.data().await["n"], 3);
    let (status, accepted) = answer(gateway.post("/api/publish", "[]")).await;
    assert_eq!((status, &accepted["accepted"]), (202, &json!(0)));
}

#[tokio::test]
async fn the_key_of_a_call_is_that_of_each_of_its_events() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    let mut stream = gateway.open("/api/stream?channel=alerts:*&envelope=false").await;
    let body = items(&[("alerts:a", 1, None), ("alerts:a", 2, None), ("alerts:b", 3, None)]);
    let call = || gateway.post("/api/publish", body.clone()).header("idempotency-key", "call");
    assert_eq!(answer(call()).await.1["duplicates"], Value::Null);
    assert_eq!(answer(call()).await.1["duplicates"], 3);
    let by_query = gateway.post("/api/publish?id=call", body.clone());
    assert_eq!(answer(by_query).await.1["duplicates"], 3);
    gateway.publish("alerts:a", &json!({"n": 4})).await;
    for n in 1..=4 {
        assert_eq!(stream.data().await["n"], n);
    }
    // One that is a letter beyond ASCII cannot be honoured, so it is not ignored.
    let unreadable = reqwest::header::HeaderValue::from_bytes("clé".as_bytes()).unwrap();
    for path in ["/api/publish", "/api/publish/alerts:a"] {
        let request =
            gateway.post(path, body.clone()).header("idempotency-key", unreadable.clone());
        assert_eq!(answer(request).await.0, 400);
    }
}

#[tokio::test]
async fn ids_of_different_channels_are_different() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |settings| settings.redis.patterns = vec!["*".to_owned()]).await;
    let mut stream = gateway.open("/api/stream?channel=*&envelope=false").await;
    let pairs = [("zz", "b:c"), ("zz:b", "c"), ("2:zz", "b:c"), ("2:zz:b", "c")];
    for (n, (channel, id)) in pairs.iter().enumerate() {
        let request = gateway.post(&format!("/api/publish/{channel}?id={id}"), n.to_string());
        let (status, accepted) = answer(request).await;
        assert_eq!((status, &accepted["duplicates"]), (202, &Value::Null), "{channel} {id}");
        assert_eq!(stream.data().await, json!(n));
    }
}

#[tokio::test]
async fn an_id_of_a_gateway_of_before_counts() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    redis.cli(&["SET", "sluice:published:alerts:old", "1", "PX", "60000"]);
    let (status, accepted) = answer(gateway.post("/api/publish/alerts?id=old", "{}")).await;
    assert_eq!((status, &accepted["duplicates"]), (202, &json!(1)));
}

#[tokio::test]
async fn another_payload_under_a_used_id_is_a_conflict_of_the_whole_call() {
    let redis = Redis::start().await;
    let on_redis = gateway(&redis, |_| {}).await;
    for gateway in [on_redis, TestGateway::start().await] {
        let mut stream = gateway.open("/api/stream?channel=alerts:*&envelope=false").await;
        let call = |n: u64, id: &str| {
            items(&[("alerts:new", n, Some("new")), ("alerts:used", n, Some(id))])
        };
        let first = gateway.post("/api/publish/alerts:used?id=used", r#"{"n":1}"#);
        assert_eq!(answer(first).await.0, 202);
        for _ in 0..2 {
            let (status, problem) = answer(gateway.post("/api/publish", call(2, "used"))).await;
            assert_eq!(status, 409);
            assert!(problem["detail"].as_str().unwrap().contains("used"), "{problem}");
        }
        let (status, accepted) = answer(gateway.post("/api/publish", call(3, "other"))).await;
        assert_eq!((status, &accepted["duplicates"]), (202, &Value::Null));
        for n in [1, 3, 3] {
            assert_eq!(stream.data().await["n"], n);
        }
    }
}

#[tokio::test]
async fn a_redis_without_memory_takes_all_of_a_call_or_nothing() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    gateway.publishes().await;
    let mut stream = gateway.open("/api/stream?channel=alerts&envelope=false").await;
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let with_ids = items(&[("alerts", 1, Some("a")), ("alerts", 2, Some("b"))]);
    for _ in 0..2 {
        let (status, problem) = answer(gateway.post("/api/publish", with_ids.clone())).await;
        assert_eq!(status, 503, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("memory"), "{problem}");
    }
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    gateway.publishes().await;
    let (status, accepted) = answer(gateway.post("/api/publish", with_ids)).await;
    assert_eq!((status, &accepted["duplicates"]), (202, &Value::Null));
    for n in [1, 2] {
        assert_eq!(stream.data().await["n"], n);
    }
}

#[tokio::test]
async fn large_calls_at_once_cost_nobody_an_event() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    gateway.publishes().await;
    let witness = Witness::start(&gateway, &redis).await;
    let filler = "x".repeat(1_900_000);
    let items =
        [1, 2, 3, 4].map(|n| json!({"channel": "alerts:large", "data": {"n": n, "x": filler}}));
    let body = Value::from(items.to_vec()).to_string();
    // More than Redis lets wait for one subscriber: 32 MB.
    let calls = (0..8).map(|_| answer(gateway.post("/api/publish", body.clone())));
    for (status, accepted) in futures_util::future::join_all(calls).await {
        assert_eq!(status, 202, "{accepted}");
    }
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");
    assert_eq!(gateway.metric("sluice_source_reconnects_total{source=\"redis\"}").await, 0.0);
}

#[tokio::test]
async fn the_link_for_publishing_heals_alone_and_costs_nobody_a_gap() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |settings| {
        settings.redis.probe_interval = std::time::Duration::ZERO;
    })
    .await;
    gateway.publishes().await;
    let witness = Witness::start(&gateway, &redis).await;
    let mut stream = gateway.open("/api/stream?channel=alerts&envelope=false").await;
    for n in 0..5 {
        redis.end_connections("normal");
        gateway.publish("alerts", &json!({"n": n})).await;
        assert_eq!(stream.data().await["n"], n);
    }
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");
}

#[tokio::test]
async fn a_redis_that_cannot_write_is_said_in_health_and_listening_goes_on() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, |_| {}).await;
    gateway.publishes().await;
    let mut stream = gateway.open("/api/stream?channel=alerts&envelope=false").await;
    redis.cannot_save().await;
    let publish = || gateway.post("/api/publish/alerts?id=a", r#"{"n":2}"#);
    assert_eq!(answer(publish()).await.0, 503);
    wait_for("the fault", async || {
        let (status, health) = answer(gateway.get("/health")).await;
        assert_eq!(status, 200);
        health["checks"][1]["reason"].as_str().is_some_and(|reason| reason.contains("MISCONF"))
    })
    .await;
    let (_, health) = answer(gateway.get("/health")).await;
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["checks"][0]["status"], "healthy");
    assert_eq!(gateway.metric("sluice_publishing_up{source=\"redis\"}").await, 0.0);
    assert_eq!(gateway.get("/readyz").send().await.unwrap().status(), 200);
    redis.publish("alerts", br#"{"n":1}"#).await;
    assert_eq!(stream.data().await["n"], 1);
    redis.cli(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    gateway.publishes().await;
    assert_eq!(answer(publish()).await.0, 202);
    assert_eq!(stream.data().await["n"], 2);
}

#[tokio::test]
async fn the_answer_says_who_hears_it_and_unknown_channels_may_be_refused() {
    let redis = Redis::start().await;
    let lenient = gateway(&redis, |_| {}).await;
    let _two = [lenient.open("/api/stream/jobs/j").await, lenient.open("/api/stream/jobs/j").await];
    let known = answer(lenient.post("/api/publish/job_progress:j", "{}")).await;
    let expected = json!({"accepted": 1, "streams": 2, "subscribers": 2});
    assert_eq!(known, (202, expected), "jobs and render progress");
    let mistyped = answer(lenient.post("/api/publish/undefined", "{}")).await;
    assert_eq!(mistyped, (202, json!({"accepted": 1, "streams": 0, "subscribers": 0})));
    for path in ["alerts:x/", "/alerts:x", "%2Falerts:x", "alerts:x%2F"] {
        let (status, _) = answer(lenient.post(&format!("/api/publish/{path}"), "{}")).await;
        assert_eq!(status, 400, "{path}");
    }
    let strict = gateway(&redis, |settings| {
        settings.publish.unknown = sluice::settings::Unknown::Refuse;
    })
    .await;
    let (status, problem) = answer(strict.post("/api/publish/undefined", "{}")).await;
    assert_eq!(status, 404, "{problem}");
    assert_eq!(answer(strict.post("/api/publish/alerts", "{}")).await.0, 202);
    let one_of_two = items(&[("alerts", 1, None), ("nobodys", 2, None)]);
    assert_eq!(answer(strict.post("/api/publish", one_of_two)).await.0, 404);
}
