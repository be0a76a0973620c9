//! Streams that come and go, in every way a client can: nothing of them stays.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use serde_json::json;

use crate::cli::Process;
use crate::support::{Protocol, TestGateway, get, wait_for};

const ANY: &str = "/api/stream?channel=a:1&channel=b:*&envelope=false";
const STREAMS: usize = 1000;
const AT_ONCE: usize = 20;

/// Opens a stream and leaves it, in one of many ways.
async fn come_and_go(gateway: &TestGateway, n: usize) {
    let url = gateway.url(ANY);
    let moment = Duration::from_micros(fastrand::u64(0..3000));
    let mut connection = gateway.connect().await;
    match n % 9 {
        // Nothing is said on it.
        0 => {}
        1 => connection.send("GET /api/stream?channel=a:1 HTT").await.unwrap(),
        2 => connection.send(&get(ANY)).await.unwrap(),
        3 => {
            connection.send(&get(ANY)).await.unwrap();
            connection.begins().await;
        }
        4 => {
            connection.send(&get(ANY)).await.unwrap();
            connection.begins().await;
            connection.event().await;
        }
        5 => {
            connection.send(&get(ANY)).await.unwrap();
            connection.begins().await;
            connection.half_close().await;
            let (_, _) = connection.rest().await;
        }
        way => {
            let protocol = [Protocol::Http2, Protocol::Http2, Protocol::Http10][way - 6];
            let opening = async {
                let mut response = protocol.request("GET", &url).send().await.unwrap();
                while way % 2 == 0 && response.chunk().await.unwrap().is_some() {}
            };
            // Before the head, after it, while events flow.
            tokio::time::timeout(moment, opening).await.unwrap_or_default();
        }
    }
}

/// Many streams at a time, and events all the time.
async fn churn(gateway: &TestGateway) {
    let streams = iter(0..STREAMS).map(|n| come_and_go(gateway, n)).buffer_unordered(AT_ONCE);
    let events = async {
        for n in 0.. {
            let text = "x".repeat(fastrand::usize(0..5000));
            gateway.publish(["a:1", "b:1", "b:2"][n % 3], &json!({"n": n, "text": text})).await;
        }
    };
    tokio::select! {
        _ = streams.count() => {}
        () = events => {}
    }
    gateway.nothing_stays().await;
    let left = "sluice_sessions_closed_total{class=\"log\",reason=\"client_gone\"}";
    let left = gateway.metric(left).await;
    // A third waits for its first words; how many of the others get as far is a matter of chance.
    assert!(left > 300.0, "of {STREAMS}, only {left} had begun");
}

#[tokio::test]
async fn nothing_stays_of_streams_that_come_and_go() {
    let gateway =
        TestGateway::start_with(|settings| settings.limits.hold_most = Duration::ZERO).await;
    churn(&gateway).await;
    wait_for("tasks", async || gateway.tasks() == 0).await;
}

/// In a process of its own, whose files nobody else opens.
#[tokio::test]
async fn no_file_stays_open() {
    let process = Process::start(&[], &[("SLUICE__LIMITS__HOLD_MOST", "0s")]).await;
    let gateway = TestGateway::at(process.url(""));
    let open = async || gateway.metric("process_open_fds").await;
    gateway.publish("a:1", &json!("before")).await;
    gateway.nothing_stays().await;
    let before = open().await;
    churn(&gateway).await;
    wait_for("files", async || open().await <= before).await;
}
