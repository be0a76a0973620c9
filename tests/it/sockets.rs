//! Streams that have left hyper, byte by byte: what stands on the connection, and how it ends.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Connection, TestGateway, get};

const ANY: &str = "/api/stream?channel=a:*&envelope=false";
const JOB: &str = "/api/stream/jobs/j";
const WAITING: &str = "sluice_outbox_bytes";
const FOREVER: Duration = Duration::from_secs(3600);

/// A gateway that learns of a client that is gone from its connection, or never.
async fn patient() -> TestGateway {
    TestGateway::start_with(|settings| {
        settings.server.keep_alive = FOREVER;
        settings.server.dead_after = FOREVER;
        settings.server.stalled_after = FOREVER;
    })
    .await
}

async fn publish_job(gateway: &TestGateway, status: &str) {
    gateway.publish("job_progress:j", &json!({"job_id": "j", "status": status})).await;
}

/// Ends the stream of the job, and sees that the response ends with it: the last chunk, and the
/// connection's end.
async fn ends(gateway: &TestGateway, mut connection: Connection) {
    publish_job(gateway, "completed").await;
    assert!(connection.event().await.contains(r#""status":"completed""#));
    assert!(connection.event().await.starts_with("event: complete\n"));
    assert_eq!(connection.chunk().await, None);
    ends_well(connection).await;
}

/// Sees that the connection ends here, without a reset.
async fn ends_well(connection: Connection) {
    let (rest, end) = connection.rest().await;
    assert_eq!((&*rest, end.is_ok()), ("", true));
}

#[tokio::test]
async fn the_head_and_the_chunks() {
    let gateway = TestGateway::start().await;
    let mut connection = gateway.connect().await;
    connection.send(&get(JOB)).await.unwrap();
    let head = connection.until("\r\n\r\n").await;
    let lines = head.lines().filter(|line| !line.starts_with("date: "));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    HTTP/1.1 200 OK
    content-type: text/event-stream
    cache-control: no-cache, no-transform
    x-accel-buffering: no
    connection: close
    vary: origin, access-control-request-method, access-control-request-headers
    transfer-encoding: chunked
    ");
    assert!(connection.event().await.contains(r#""type":"connected""#));
    publish_job(&gateway, "processing").await;
    assert!(connection.event().await.contains(r#""status":"processing""#));
    ends(&gateway, connection).await;
}

#[tokio::test]
async fn what_a_client_says_on_its_stream_is_ignored() {
    let gateway = TestGateway::start().await;
    let mut connection = gateway.socket(JOB).await;
    for said in ["\r\n", "GET / HTTP/1.1\r\n\r\n", "\0\u{7f}", &"x".repeat(4000)] {
        connection.send(said).await.unwrap();
        publish_job(&gateway, "processing").await;
        assert!(connection.event().await.contains(r#""status":"processing""#));
    }
    ends(&gateway, connection).await;
}

#[tokio::test]
async fn who_talks_all_the_time_is_cut() {
    let gateway = patient().await;
    let mut connection = gateway.socket(ANY).await;
    let junk = "x".repeat(65_536);
    // More than any kernel keeps for a connection that nobody reads.
    let sent = async {
        for _ in 0..10_000 {
            connection.send(&junk).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    assert!(sent.await.is_err(), "the connection is cut");
    gateway.nothing_stays().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_let_go_at_once() {
    let gateway = patient().await;
    drop(gateway.socket(ANY).await);
    gateway.nothing_stays().await;
    let mut half = gateway.socket(ANY).await;
    half.half_close().await;
    gateway.nothing_stays().await;
    ends_well(half).await;
}

#[tokio::test]
async fn a_client_that_leaves_what_waits_for_it_is_let_go_at_once() {
    let gateway = patient().await;
    let stalled = gateway.socket(ANY).await;
    while gateway.metric(WAITING).await < 1.0 {
        gateway.publish("a:1", &json!("x".repeat(100_000))).await;
    }
    drop(stalled);
    gateway.nothing_stays().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_reset() {
    let gateway = TestGateway::start_with(|settings| {
        settings.server.keep_alive = FOREVER;
        settings.server.dead_after = FOREVER;
        settings.server.stalled_after = Duration::from_secs(1);
        settings.outbox.log_bytes = 1 << 30;
    })
    .await;
    let stalled = gateway.socket(ANY).await;
    while gateway.metric(WAITING).await < 1.0 {
        gateway.publish("a:1", &json!("x".repeat(100_000))).await;
    }
    gateway.nothing_stays().await;
    let (_, end) = stalled.rest().await;
    assert!(end.is_err(), "what the kernel holds for it is let go as well");
}

#[tokio::test]
async fn a_stream_may_follow_another_request_on_its_connection() {
    let gateway = TestGateway::start().await;
    let mut connection = gateway.connect().await;
    for _ in 0..2 {
        connection.send(&get("/livez")).await.unwrap();
        let head = connection.until("\r\n\r\n").await;
        assert!(!head.contains("connection: close"), "{head}");
        body(&mut connection, &head).await;
    }
    connection.send(&get(JOB)).await.unwrap();
    connection.begins().await;
    ends(&gateway, connection).await;
}

/// Reads past a body whose length the head says.
async fn body(connection: &mut Connection, head: &str) {
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    connection.take(length).await;
}

#[tokio::test]
async fn of_requests_sent_at_once_a_stream_is_the_last() {
    let gateway = TestGateway::start().await;
    let mut connection = gateway.connect().await;
    let requests = [get("/livez"), get(JOB), get("/livez"), get(JOB)];
    connection.send(&requests.concat()).await.unwrap();
    let head = connection.until("\r\n\r\n").await;
    body(&mut connection, &head).await;
    connection.begins().await;
    ends(&gateway, connection).await;
}

#[tokio::test]
async fn a_stream_that_was_over_before_keeps_the_connection() {
    let gateway = TestGateway::start().await;
    publish_job(&gateway, "completed").await;
    let id = gateway.open(JOB).await.rest().await.pop().unwrap().id;
    let mut connection = gateway.connect().await;
    for _ in 0..2 {
        connection.send(&get(&format!("{JOB}?lastEventId={id}"))).await.unwrap();
        let head = connection.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    }
    connection.send(&get(JOB)).await.unwrap();
    connection.begins().await;
}

#[tokio::test]
async fn the_head_of_a_stream_alone_opens_none() {
    let gateway = patient().await;
    let mut connection = gateway.connect().await;
    for _ in 0..2 {
        connection.send(&get(ANY).replace("GET", "HEAD")).await.unwrap();
        let head = connection.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
    }
    connection.send(&get("/livez")).await.unwrap();
    let head = connection.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "no body stands before it: {head}");
    drop(connection);
    gateway.nothing_stays().await;
}

/// Publishes some events, some of them large, with texts that are nowhere the same.
async fn publish_some(gateway: &TestGateway, published: &mut Vec<Value>) {
    const LARGE: usize = 300_000;
    let mut events = Vec::new();
    for _ in 0..fastrand::usize(1..80) {
        let n = published.len();
        let length = fastrand::usize(0..if n.is_multiple_of(30) { LARGE } else { 100 });
        let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(length).collect();
        published.push(json!({"n": n, "text": text}));
        events.push(("a:1", json!({"n": n, "text": text})));
    }
    gateway.publish_all(&events).await;
}

#[tokio::test]
async fn frames_cut_anywhere_arrive_whole() {
    let gateway = TestGateway::start_with(|settings| settings.outbox.log_bytes = 1 << 30).await;
    let mut connection = gateway.socket(ANY).await;
    let (mut published, mut read) = (Vec::new(), 0);
    for _ in 0..5 {
        // Until the kernel takes no more, and then some.
        while gateway.metric(WAITING).await < 1e6 {
            publish_some(&gateway, &mut published).await;
        }
        for expected in &published[read..] {
            connection.most = [100, 3000, 65_536][fastrand::usize(..3)];
            let event = connection.event().await;
            let (data, id) = event.split_once('\n').unwrap();
            assert!(id.starts_with("id: p"), "{id}");
            let data = data.strip_prefix("data: ").unwrap();
            assert!(serde_json::from_str::<Value>(data).unwrap() == *expected);
        }
        read = published.len();
        assert_eq!(gateway.metric(WAITING).await, 0.0);
    }
}
