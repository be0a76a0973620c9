//! Publishing over HTTP: who may, what is taken, and that it is taken once.

use std::net::SocketAddr;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::TestGateway;

const ANY: &str = "/api/stream?channel=a:*&envelope=false";

/// Sends, and returns the status and the body, which is JSON whatever comes of it.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let problem = if status < 400 { "application/json" } else { "application/problem+json" };
    assert_eq!(kind, problem, "{status}");
    let body: Value = response.json().await.unwrap();
    if status >= 400 {
        assert_eq!(body["status"], status);
        assert!(!body["detail"].as_str().unwrap().is_empty());
    }
    (status, body)
}

/// What is said to events of channels that no stream declares and one client listens to.
fn accepted(count: u64, subscribers: u64) -> Value {
    json!({"accepted": count, "streams": 0, "subscribers": subscribers})
}

/// The same of events some of which were published before.
fn with_duplicates(mut answer: Value, count: u64) -> Value {
    answer["duplicates"] = count.into();
    answer
}

async fn with_key() -> TestGateway {
    TestGateway::start_with(|settings| settings.publish.api_key.push_str("secret")).await
}

#[tokio::test]
async fn one_event_and_several() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.open(ANY).await;
    for prefix in ["/api", "/api/v1"] {
        let one = gateway.post(&format!("{prefix}/publish/a:1"), r#" {"n": 1} "#);
        assert_eq!(answer(one).await, (202, accepted(1, 1)));
        let items = r#"[{"channel":"a:1","data":2},{"channel":"b:1","data":"other"},
            {"channel":"a:2","data":{"n":3},"id":null}]"#;
        let several = gateway.post(&format!("{prefix}/publish"), items);
        assert_eq!(answer(several).await, (202, accepted(3, 2)));
        for expected in [json!({"n": 1}), json!(2), json!({"n": 3})] {
            assert_eq!(stream.data().await, expected);
        }
    }
    assert_eq!(answer(gateway.post("/api/publish", "[]")).await, (202, accepted(0, 0)));
}

#[tokio::test]
async fn the_channel_may_hold_slashes_and_encoded_characters() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.open("/api/stream?channel=a/b:%C3%A4").await;
    gateway.publish("a/b:%C3%A4", &json!(1)).await;
    assert_eq!(stream.data().await["channel"], "a/b:ä");
}

#[tokio::test]
async fn digits_and_order_stay_as_they_were_written() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.raw(ANY).await;
    let payload = r#"{"z":1.10,"a":12345678901234567890123,"z2":"\u00e4"}"#;
    assert_eq!(answer(gateway.post("/api/publish/a:1", payload)).await.0, 202);
    stream.until(&format!("data: {payload}\nid: ")).await;
}

#[tokio::test]
async fn one_bad_item_publishes_none() {
    let gateway = TestGateway::start_with(|settings| settings.events.max_bytes = 100).await;
    let mut stream = gateway.open(ANY).await;
    let large = "x".repeat(200);
    for (bad, status) in [
        (json!({"channel": "a b", "data": 1}), 400),
        (json!({"channel": "a:*", "data": 1}), 400),
        (json!({"channel": "", "data": 1}), 400),
        (json!({"channel": "a:1"}), 400),
        (json!({"data": 1}), 400),
        (json!({"channel": "a:1", "data": 1, "id": ""}), 400),
        (json!({"channel": "a:1", "data": 1, "id": "x".repeat(257)}), 400),
        (json!({"channel": "a:1", "data": large}), 413),
        (json!("not an item"), 400),
    ] {
        let good = json!({"channel": "a:1", "data": "published although another was bad"});
        let body = json!([good, bad, good]).to_string();
        assert_eq!(answer(gateway.post("/api/publish", body)).await.0, status, "{bad}");
    }
    gateway.publish("a:1", &json!("last")).await;
    assert_eq!(stream.data().await, json!("last"), "nothing came before");
    assert!((gateway.metric("sluice_events_published_total").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn what_is_not_json_is_refused() {
    let gateway = TestGateway::start().await;
    for path in ["/api/publish/a:1", "/api/publish"] {
        for body in ["", "{", "{} {}", "nothing", "\"\u{0}\"", "{'a':1}"] {
            assert_eq!(answer(gateway.post(path, body)).await.0, 400, "{path}: {body:?}");
        }
    }
    assert_eq!(answer(gateway.post("/api/publish", "{}")).await.0, 400, "an object is no array");
    let latin = gateway.post("/api/publish/a:1", b"\"\xe4\"".to_vec());
    assert_eq!(answer(latin).await.0, 400);
}

#[tokio::test]
async fn numbers_that_json_has_not_become_null() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.raw(ANY).await;
    assert_eq!(answer(gateway.post("/api/publish/a:1", r#"{"loss":NaN}"#)).await.0, 202);
    stream.until("data: {\"loss\":null}\n").await;
    let items = r#"[{"channel":"a:1","data":[-Infinity,"NaN"]},{"channel":"a:2","data":1}]"#;
    assert_eq!(answer(gateway.post("/api/publish", items)).await.0, 202);
    stream.until("data: [null,\"NaN\"]\n").await;
    assert!((gateway.metric("sluice_events_repaired_total").await - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn a_refusal_says_where_the_fault_is() {
    let gateway = TestGateway::start().await;
    for (path, body, fault) in [
        ("/api/publish/a:1", "{'a':1}", "key must be a string at line 1 column 2"),
        (
            "/api/publish/sluice:probe:x",
            "1",
            "channels that begin with sluice:probe: are the gateway's own",
        ),
    ] {
        let (status, problem) = answer(gateway.post(path, body)).await;
        assert_eq!(status, 400);
        assert!(problem["detail"].as_str().unwrap().contains(fault), "{problem}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let gateway = TestGateway::start_with(|settings| {
        settings.events.max_bytes = 100;
        settings.publish.max_body_bytes = 1000;
        settings.publish.max_events = 3;
    })
    .await;
    let text = |bytes: usize| json!("x".repeat(bytes - 2)).to_string();
    assert_eq!(answer(gateway.post("/api/publish/a:1", text(100))).await.0, 202);
    assert_eq!(answer(gateway.post("/api/publish/a:1", text(101))).await.0, 413);
    assert_eq!(answer(gateway.post("/api/publish/a:1", text(2000))).await.0, 413);
    assert_eq!(answer(gateway.post("/api/publish", " ".repeat(1001))).await.0, 413);
    let items = |count: usize| Value::from(vec![json!({"channel": "a:1", "data": 1}); count]);
    assert_eq!(answer(gateway.post("/api/publish", items(3).to_string())).await.0, 202);
    assert_eq!(answer(gateway.post("/api/publish", items(4).to_string())).await.0, 413);
}

#[tokio::test]
async fn a_channel_name_has_rules() {
    let gateway = TestGateway::start().await;
    for name in ["a%0Ab", "a%0D", "a%00", "a%20b", "a*", "%2A", "a%E2%80%A8b", &"x".repeat(257)] {
        let path = format!("/api/publish/{name}");
        assert_eq!(answer(gateway.post(&path, "1")).await.0, 400, "{name}");
    }
}

#[tokio::test]
async fn an_id_that_somebody_decoded_wrongly_is_refused() {
    let gateway = TestGateway::start().await;
    for id in ["a%EF%BF%BD", "%FF"] {
        let path = format!("/api/publish/a:1?id={id}");
        assert_eq!(answer(gateway.post(&path, "1")).await.0, 400, "{id}");
    }
    assert_eq!(answer(gateway.post("/api/publish/a:1?id=%C3%A9", "1")).await.0, 202);
}

#[tokio::test]
async fn with_a_key_only_who_sends_it_may_publish() {
    let gateway = with_key().await;
    let post = || gateway.post("/api/publish/a:1", "1");
    let mut stream = gateway.open(ANY).await;
    for (request, status) in [
        (post(), 401),
        (post().header("authorization", "Bearer wrong!"), 401),
        (post().header("authorization", "secret"), 401),
        (post().header("authorization", "Basic secret"), 401),
        (post().header("x-api-key", "secre"), 401),
        (post().header("x-api-key", ""), 401),
        (post().header("authorization", "Bearer secret"), 202),
        (post().header("authorization", "bearer secret"), 202),
        (post().header("x-api-key", "secret"), 202),
        (post().header("x-api-key", "secret").header("origin", "https://any.example"), 202),
        (gateway.post("/api/publish", r#"[{"channel":"a:1","data":1}]"#), 401),
    ] {
        assert_eq!(answer(request).await.0, status);
    }
    let refused = post().send().await.unwrap();
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    for _ in 0..4 {
        assert_eq!(stream.data().await, json!(1));
    }
    let published = gateway.metric("sluice_events_published_total").await;
    assert!((published - 4.0).abs() < 0.1, "{published}");
}

#[tokio::test]
async fn without_a_key_only_this_machine_may_publish() {
    let open_to_all: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let open = TestGateway::start_with(|settings| settings.server.bind = open_to_all).await;
    assert_eq!(answer(open.post("/api/publish/a:1", "1")).await.0, 403);
    assert_eq!(answer(open.post("/api/publish", "[]")).await.0, 403);
    let keyed = TestGateway::start_with(|settings| {
        settings.server.bind = open_to_all;
        settings.publish.api_key = "secret".to_owned();
    })
    .await;
    let request = keyed.post("/api/publish/a:1", "1").header("x-api-key", "secret");
    assert_eq!(answer(request).await.0, 202);
}

#[tokio::test]
async fn publishing_can_be_switched_off() {
    let gateway = TestGateway::start_with(|settings| {
        settings.publish.enabled = false;
        settings.publish.api_key = "secret".to_owned();
    })
    .await;
    let request = gateway.post("/api/publish/a:1", "1").header("x-api-key", "secret");
    assert_eq!(answer(request).await.0, 403);
}

#[tokio::test]
async fn without_a_key_no_page_of_a_foreign_origin_may_publish() {
    let gateway = TestGateway::start_with(|settings| {
        settings.server.cors_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let from =
        |origin: &str| answer(gateway.post("/api/publish/a:1", "1").header("origin", origin));
    assert_eq!(from("https://evil.example").await.0, 403);
    assert_eq!(from("null").await.0, 403);
    assert_eq!(from("https://app.example").await.0, 202);
}

#[tokio::test]
async fn an_id_is_delivered_once() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.open(ANY).await;
    let new = accepted(1, 1);
    let again = with_duplicates(new.clone(), 1);
    let by_query = || gateway.post("/api/publish/a:1?id=query", "1");
    let by_header = || gateway.post("/api/publish/a:1", "2").header("idempotency-key", "head");
    let by_item = || {
        let items = json!([{"channel": "a:1", "data": 3, "id": "item"}]);
        gateway.post("/api/publish", items.to_string())
    };
    assert_eq!(answer(by_query()).await, (202, new.clone()));
    assert_eq!(answer(by_query()).await, (202, again.clone()));
    assert_eq!(answer(by_header()).await, (202, new.clone()));
    assert_eq!(answer(by_header()).await, (202, again.clone()));
    assert_eq!(answer(by_item()).await, (202, new));
    assert_eq!(answer(by_item()).await, (202, again));
    let within_one = json!([
        {"channel": "a:1", "data": 4, "id": "twice"},
        {"channel": "a:1", "data": 4, "id": "twice"},
        {"channel": "a:1", "data": 3, "id": "item"},
        {"channel": "a:1", "data": 5},
        {"channel": "a:1", "data": 5},
    ]);
    let within_one = answer(gateway.post("/api/publish", within_one.to_string())).await;
    assert_eq!(within_one, (202, with_duplicates(accepted(5, 1), 2)));
    for expected in [1, 2, 3, 4, 5, 5] {
        assert_eq!(stream.data().await, json!(expected));
    }
    gateway.publish("a:1", &json!("last")).await;
    assert_eq!(stream.data().await, json!("last"));
}

#[tokio::test]
async fn what_was_refused_has_not_used_up_its_id() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.open(ANY).await;
    let items = |bad: &str| {
        let items = json!([{"channel": "a:1", "data": 1, "id": "x"}, {"channel": bad, "data": 2}]);
        gateway.post("/api/publish", items.to_string())
    };
    assert_eq!(answer(items("not a channel")).await.0, 400);
    assert_eq!(answer(items("a:2")).await, (202, accepted(2, 2)));
    assert_eq!(stream.data().await, json!(1));
}

#[tokio::test]
async fn an_id_is_forgotten_after_its_window() {
    let gateway = TestGateway::start_with(|settings| {
        settings.publish.idempotency_window = std::time::Duration::ZERO;
    })
    .await;
    let mut stream = gateway.open(ANY).await;
    for n in 0..2 {
        let request = gateway.post("/api/publish/a:1?id=x", n.to_string());
        assert_eq!(answer(request).await, (202, accepted(1, 1)));
        assert_eq!(stream.data().await, json!(n));
    }
}
