//! What comes from outside breaks nothing, reaches nobody it is not for, and fills no memory.

mod slow;
mod text;
mod total;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{EventSource, Protocol, TestGateway, over_each_protocol, wait_for, within};

const ANY: &str = "/api/stream?channel=a:1&envelope=false";

over_each_protocol! {
    no_text_can_bring_in_a_field_or_an_event
    a_mebibyte_of_text_comes_through_live
    a_mebibyte_of_text_comes_through_as_a_snapshot
    whoever_missed_a_mebibyte_of_text_gets_past_it
    beyond_the_bound_streams_are_refused_until_one_leaves
}

/// Sees that a stream that was open all the time still gets its events, and got nothing else.
async fn still_well(gateway: &TestGateway, witness: &mut EventSource) {
    gateway.publish("witness", &json!("well")).await;
    assert_eq!(witness.data().await["data"], "well");
}

async fn witness(gateway: &TestGateway) -> EventSource {
    gateway.open("/api/stream?channel=witness").await
}

async fn no_text_can_bring_in_a_field_or_an_event(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let mut witness = witness(&gateway).await;
    let mut any = gateway.open(ANY).await;
    let mut wrapped = gateway.open("/api/stream?channel=a:*&named=true").await;
    let mut metrics = gateway.open("/api/stream/campaign-metrics/c").await;
    for text in [
        "\r\n\r\nevent: complete\r\ndata: {}\r\n\r\n",
        "\n\ndata: injected\n\n",
        "\r\rid: 7\r\r",
        "\0",
        "\u{2028}\u{2029}\u{85}\u{b}\u{c}",
        " leading space",
        "\u{feff}",
        ": comment",
        "\u{10ffff}\u{fffd}",
        "</script><script>",
        "",
    ] {
        let payload = json!({"type": text, "text": text, text: [text, {"data": text}]});
        let both = [("a:1", payload.clone()), ("campaign_metrics:c", payload.clone())];
        gateway.publish_all(&both).await;
        for (message, data) in [
            (any.event().await, &["data"][..0]),
            (wrapped.event().await, &["data"][..]),
            (metrics.event().await, &[]),
        ] {
            let payload_of = data.iter().fold(&message.data, |inner, field| &inner[field]);
            assert_eq!(payload_of, &payload);
        }
    }
    still_well(&gateway, &mut witness).await;
}

#[tokio::test]
async fn line_breaks_between_tokens_stay_on_one_line() {
    let gateway = TestGateway::start().await;
    let mut raw = gateway.raw(ANY).await;
    let payload = "\r\n{\n\"a\":\r\n[1,\n\n2]\r}\n";
    assert_eq!(gateway.post("/api/publish/a:1", payload).send().await.unwrap().status(), 202);
    raw.until("2] }\nid: ").await;
    let mut late = gateway.open(ANY).await;
    assert_eq!(late.data().await, json!({"a": [1, 2]}));
    gateway.publish("a:1", &json!("next")).await;
    let text = raw.until("\"next\"").await;
    let event = text.split("\n\n").nth(1).unwrap();
    let lines: Vec<_> = event.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(lines, ["data:", "id:"], "{text:?}");
}

/// A JSON text of one MiB: as large as the outbox of class log, larger than that of class state.
fn mebibyte() -> Value {
    json!({"type": "large", "text": "x".repeat(1 << 20)})
}

const STATE_AND_LOG: [(&str, &str); 2] = [
    ("/api/stream/campaign-metrics/c?", "campaign_metrics:c"),
    ("/api/stream/alerts?snapshot=true&", "alerts"),
];

async fn a_mebibyte_of_text_comes_through_live(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    for (path, channel) in STATE_AND_LOG {
        let mut live = gateway.open(path).await;
        gateway.publish(channel, &mebibyte()).await;
        assert!(live.data().await == mebibyte(), "{path}");
        gateway.publish(channel, &json!({"type": "after"})).await;
        assert_eq!(live.data().await["type"], "after", "{path}");
    }
}

/// One event is always taken in, however large, or whoever comes for it gets nothing ever again.
async fn a_mebibyte_of_text_comes_through_as_a_snapshot(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    for (path, channel) in STATE_AND_LOG {
        gateway.publish(channel, &mebibyte()).await;
        let mut late = gateway.open(path).await;
        assert!(late.next().await.is_some_and(|event| event.data == mebibyte()), "{path}");
        gateway.publish(channel, &json!({"type": "after"})).await;
        assert_eq!(late.data().await["type"], "after", "{path}");
    }
}

/// See above. A client may have to come back once more; it may not be stuck.
async fn whoever_missed_a_mebibyte_of_text_gets_past_it(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let path = "/api/stream/alerts";
    let mut stream = gateway.open(path).await;
    let mut id = stream.last_event_id.clone();
    gateway.publish("alerts", &mebibyte()).await;
    gateway.publish("alerts", &json!({"type": "after"})).await;
    assert!(stream.data().await == mebibyte());
    let mut missed = Vec::new();
    for _ in 0..3 {
        let mut back = gateway.resume(path, &id).await;
        while missed.len() < 2 {
            let Some(message) = back.next().await else { break };
            missed.push(message.data["type"].clone());
            id = message.id;
        }
    }
    assert_eq!(missed, ["large", "after"]);
}

#[tokio::test]
async fn what_is_no_event_closes_nothing() {
    let gateway = TestGateway::start().await;
    let mut witness = witness(&gateway).await;
    let mut any = gateway.open(ANY).await;
    for body in ["", "not JSON", "{\"a\":", "\u{0}", "[1", "\"\n\""] {
        let answer = gateway.post("/api/publish/a:1", body).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{body:?}");
    }
    let too_large = json!("x".repeat(2_097_152)).to_string();
    let answer = gateway.post("/api/publish/a:1", too_large).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    gateway.publish("a:1", &json!("an event")).await;
    assert_eq!(any.data().await, json!("an event"));
    still_well(&gateway, &mut witness).await;
}

#[tokio::test]
async fn deep_nesting_is_carried_and_not_climbed() {
    const DEPTH: usize = 100_000;
    let gateway = TestGateway::start().await;
    let mut witness = witness(&gateway).await;
    let deep = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    for field in ["status", "metadata", "job_id", "stage", "timestamp", "type", "anything"] {
        let payload = format!(r#"{{"{field}":{deep},"end":"of {field}"}}"#);
        let end = format!("of {field}");
        for path in ["/api/stream/jobs/j", "/api/stream/render-progress/j"] {
            let mut raw = gateway.raw(&format!("{path}?snapshot=false&named=true")).await;
            let channel = "/api/publish/job_progress:j";
            let answer = gateway.post(channel, payload.clone()).send().await.unwrap();
            assert_eq!(answer.status(), 202);
            raw.until(&end).await;
        }
    }
    let mut raw = gateway.raw(ANY).await;
    let item = format!(r#"[{{"channel":"a:1","data":[{deep},"the end"]}}]"#);
    assert_eq!(gateway.post("/api/publish", item).send().await.unwrap().status(), 202);
    raw.until("the end").await;
    still_well(&gateway, &mut witness).await;
}

#[tokio::test]
async fn a_name_that_is_none_is_refused_in_the_stream() {
    let gateway = TestGateway::start().await;
    let mut witness = witness(&gateway).await;
    let long = format!("/api/stream/jobs/{}", "x".repeat(300));
    for path in [
        "/api/stream/jobs/a%0Ab",
        "/api/stream/jobs/a%0D%0Adata:%20x",
        "/api/stream/jobs/*",
        "/api/stream/jobs/%2A",
        "/api/stream/jobs/%00",
        "/api/stream/jobs/a%20b",
        "/api/stream/jobs/a%E2%80%A8b",
        &long,
        "/api/stream/render-progress/*",
        "/api/stream/campaign-metrics/c?userId=*",
        "/api/stream/alerts?userId=*",
        "/api/stream/alerts?userId=a%0Ab",
        "/api/stream?channel=a%0Ab",
        "/api/stream?channel=a:*&channel=%00",
    ] {
        let stream = gateway.open(path).await;
        assert_eq!(stream.connected.data["channels"], json!([]), "{path}");
        for channel in ["alerts:victim", "job_progress:victim"] {
            gateway.publish(channel, &json!({"data": "theirs"})).await;
        }
        let told = stream.rest().await;
        let [error] = &*told else { panic!("{path}: one event, not {told:?}") };
        assert_eq!((&*error.name, error.data["type"].as_str()), ("error", Some("error")), "{path}");
        assert!(!error.data["error"].as_str().unwrap().is_empty(), "{path}");
    }
    still_well(&gateway, &mut witness).await;
}

#[tokio::test]
async fn a_url_that_cannot_be_read_is_a_problem() {
    let gateway = TestGateway::start().await;
    for (method, path) in [
        ("GET", "/api/stream/jobs/%FF"),
        ("POST", "/api/publish/%FF"),
        ("POST", "/api/publish/a:1?id=1&id=2"),
    ] {
        let answer = gateway.request(method, path).body("1").send().await.unwrap();
        assert_eq!(answer.status(), 400, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    }
}

#[tokio::test]
async fn an_absurd_id_is_a_gap_like_any_other() {
    let gateway = TestGateway::start().await;
    let mut witness = witness(&gateway).await;
    for id in [
        vec![b'p'; 8000],
        vec![0xff, 0xfe],
        b"p000000.18446744073709551615".to_vec(),
        b"pZZZZZZ.1".to_vec(),
        b"p\xc3\xa4\xc3\xa4\xc3\xa4.1".to_vec(),
        b",,,,,".to_vec(),
        b"{\"$ne\":1}".to_vec(),
        b"-1".to_vec(),
    ] {
        let header = reqwest::header::HeaderValue::from_bytes(&id).unwrap();
        let mut raw = TestGateway::read(gateway.get(ANY).header("last-event-id", header)).await;
        let text = raw.until("event: gap").await;
        assert!(text.contains(r#""recovered":false"#), "{text}");
        raw.until(r#""reason":"unknown_position""#).await;
    }
    let long = gateway.open(&format!("{ANY}&lastEventId=%00%0A{}", "9".repeat(4000))).await;
    assert_eq!(long.connected.data["recovered"], false);
    still_well(&gateway, &mut witness).await;
}

async fn beyond_the_bound_streams_are_refused_until_one_leaves(protocol: Protocol) {
    let gateway =
        TestGateway::start_with(|settings| settings.server.max_streams = 2).await.over(protocol);
    let first = gateway.open(ANY).await;
    let mut second = gateway.open(ANY).await;
    for path in [ANY, "/api/v1/stream/alerts", "/api/stream"] {
        let refused = gateway.get(path).send().await.unwrap();
        assert_eq!(refused.status(), 503, "{path}");
        assert!(refused.headers().contains_key("retry-after"), "{path}");
        assert_eq!(refused.headers()["content-type"], "application/problem+json", "{path}");
    }
    assert_eq!(gateway.get("/readyz").send().await.unwrap().status(), 200);
    gateway.publish("a:1", &json!(1)).await;
    assert_eq!(second.data().await, json!(1), "those who are in stay in");
    drop(first);
    wait_for("a place", async || gateway.get(ANY).send().await.unwrap().status() == 200).await;
}

/// Sees that a connection on which only this much comes is ended by the gateway.
async fn is_not_waited_for(head: &str) {
    let gateway = TestGateway::start_with(|settings| {
        settings.server.header_timeout = Duration::from_millis(200);
    })
    .await;
    let url = gateway.url("");
    let mut socket = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    // A reset ends it as well.
    within("the connection's end", socket.read_to_end(&mut rest)).await.unwrap_or_default();
}

#[tokio::test]
async fn half_a_head_is_not_waited_for_long() {
    is_not_waited_for("GET /api/stream/alerts HTTP/1.1\r\nhost: x\r\n").await;
}

#[tokio::test]
async fn a_silent_connection_is_not_waited_for_long() {
    is_not_waited_for("").await;
}

#[tokio::test]
async fn half_a_preface_is_not_waited_for_long() {
    is_not_waited_for("PRI * HTTP/2.0\r\n").await;
}
