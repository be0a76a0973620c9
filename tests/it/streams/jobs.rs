//! Jobs: what workers really publish, in the shapes clients expect, and how their streams end.

use std::time::Duration;

use serde_json::{Value, json};

use super::told;
use crate::support::{Protocol, TestGateway, over_each_protocol};

/// What a worker of the reference system really published, as a pattern subscriber of Redis got it:
/// `pmessage`, the pattern, the channel and the payload, a line each.
const WORKER_MESSAGES: &str = include_str!("../../fixtures/worker-messages.txt");

over_each_protocol! {
    a_final_state_published_twice_is_delivered_once
    a_finished_stream_tells_its_end_to_whoever_comes_late
    whoever_has_had_the_end_is_told_to_stop
    a_client_that_missed_the_end_gets_it
}

/// Publishes the worker's messages, byte for byte, and returns them.
async fn replay(gateway: &TestGateway) -> Vec<Value> {
    let mut payloads = Vec::new();
    for message in WORKER_MESSAGES.lines().collect::<Vec<_>>().chunks(4) {
        let ["pmessage", _, channel, payload] = message else { panic!("{message:?}") };
        let path = format!("/api/publish/{channel}");
        assert_eq!(gateway.post(&path, *payload).send().await.unwrap().status(), 202);
        payloads.push(serde_json::from_str(payload).unwrap());
    }
    payloads
}

/// `complete` with the data of a job.
fn complete(message: &(String, Value), job: &str, status: &str) {
    assert_eq!(message.0, "complete");
    assert_eq!(message.1["type"], "complete");
    assert_eq!(message.1["data"], json!({"jobId": job, "status": status}));
    assert!(message.1["timestamp"].is_string());
}

fn task(status: &str, percent: u32) -> Value {
    json!({"task_id": "t1", "progress": percent, "status": status, "message": status,
        "timestamp": "2026-11-21T22:32:01.761250"})
}

fn job(status: &str, progress: f64) -> Value {
    json!({"job_id": "j1", "status": status, "stage": "x", "progress": progress, "message": "m"})
}

/// The default settings, but a failed task is given up after `grace`.
async fn with_grace(grace: Duration) -> TestGateway {
    TestGateway::start_with(|settings| {
        for name in ["jobs", "render_progress"] {
            for end in &mut settings.stream.get_mut(name).unwrap().end {
                if !end.grace.is_zero() {
                    end.grace = grace;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_workers_messages_as_job_progress() {
    let gateway = TestGateway::start().await;
    let stream = gateway.open("/api/stream/jobs/test_job_001").await;
    let payloads = replay(&gateway).await;
    let told = told(stream).await;
    assert_eq!(told.len(), 8, "seven events, each once, and the end");
    for ((name, data), payload) in told.iter().zip(&payloads[..7]) {
        let mut expected = payload.clone();
        expected["type"] = json!("job_progress");
        expected["jobId"] = json!("test_job_001");
        expected["timestamp"] = json!(format!("{}Z", payload["timestamp"].as_str().unwrap()));
        assert_eq!((&**name, data), ("message", &expected));
    }
    complete(&told[7], "test_job_001", "completed");
}

#[tokio::test]
async fn a_workers_messages_as_render_progress() {
    let gateway = TestGateway::start().await;
    let stream = gateway.open("/api/v1/stream/render-progress/test_job_001").await;
    let payloads = replay(&gateway).await;
    let told = told(stream).await;
    assert_eq!(told.len(), 8, "seven events, each once, and the end");
    for ((name, data), payload) in told.iter().zip(&payloads[..7]) {
        assert_eq!(name, "message");
        assert_eq!(data["type"], "video_render_progress");
        assert_eq!(data["jobId"], "test_job_001");
        assert_eq!(data["progress"], payload["progress"]);
        assert_eq!(data["message"], payload["message"]);
        for field in ["currentFrame", "totalFrames", "fps"] {
            assert_eq!(data[field], 0, "the worker did not say: {field}");
        }
        assert!(data["estimatedTimeRemaining"].as_f64().unwrap() >= 0.0);
        let done = payload["status"] == "completed";
        assert_eq!(data["stage"], if done { "complete" } else { "rendering" });
        let timestamp = format!("{}Z", payload["timestamp"].as_str().unwrap());
        assert_eq!(data["timestamp"], json!(timestamp));
    }
    complete(&told[7], "test_job_001", "completed");
}

#[tokio::test]
async fn a_failed_job_says_so_in_its_progress_and_in_its_end() {
    let gateway = TestGateway::start().await;
    for route in ["jobs", "render-progress"] {
        let stream = gateway.open(&format!("/api/stream/{route}/test_error_job")).await;
        replay(&gateway).await;
        let told = told(stream).await;
        // The second stream begins with the snapshot of the first replay, which is over already.
        let [(name, progress), end] = &*told else { panic!("{told:?}") };
        assert_eq!(name, "message", "`event: error` would make the hook discard the state");
        assert_eq!(progress["status"], "failed");
        assert_eq!(progress["error"], "Test error: Something went wrong");
        complete(end, "test_error_job", "failed");
    }
}

#[tokio::test]
async fn a_task_as_job_progress() {
    let gateway = TestGateway::start().await;
    let stream = gateway.open("/api/stream/jobs/t1").await;
    let said = [("started", 0), ("processing", 42), ("retrying", 42), ("completed", 100)];
    for (status, percent) in said {
        gateway.publish("task_progress:t1", &task(status, percent)).await;
    }
    let told = told(stream).await;
    let shown: Vec<_> = told[..4]
        .iter()
        .map(|(_, data)| {
            assert_eq!(data["type"], "job_progress");
            assert_eq!((&data["jobId"], &data["task_id"]), (&json!("t1"), &json!("t1")));
            assert_eq!(data["timestamp"], "2026-11-21T22:32:01.761250Z");
            json!([data["status"], data["progress"]])
        })
        .collect();
    let expected = json!([
        ["processing", 0.0],
        ["processing", 0.42],
        ["processing", 0.42],
        ["completed", 1.0]
    ]);
    assert_eq!(Value::from(shown), expected);
    assert_eq!(told[2].1["stage"], "retrying");
    assert_eq!(told.len(), 5);
    complete(&told[4], "t1", "completed");
}

#[tokio::test]
async fn render_events_pass_and_workers_metadata_counts_frames() {
    let gateway = TestGateway::start().await;
    let stream = gateway.open("/api/stream/render-progress/j1").await;
    let render = |progress: f64, stage: &str| {
        json!({"type": "video_render_progress", "jobId": "j1", "currentFrame": 5,
            "totalFrames": 10, "progress": progress, "fps": 30, "estimatedTimeRemaining": 1.5,
            "stage": stage, "timestamp": "2026-11-21T22:25:22.787Z", "unknown": [1]})
    };
    let mut report = job("processing", 0.6);
    report["stage"] = json!("transcode");
    report["metadata"] = json!({"current_frame": 6, "total_frames": 10, "fps": 24.5});
    gateway.publish("video_render:j1", &render(0.5, "rendering")).await;
    gateway.publish("job_progress:j1", &report).await;
    gateway.publish("video_render:j1", &render(1.0, "complete")).await;
    let told = told(stream).await;
    assert_eq!(told[0].1, render(0.5, "rendering"), "it has its shape already");
    let frames = ["currentFrame", "totalFrames", "fps", "stage"].map(|field| &told[1].1[field]);
    assert_eq!(json!(frames), json!([6, 10, 24.5, "encoding"]));
    assert_eq!(told[2].1, render(1.0, "complete"));
    assert_eq!(told.len(), 4);
    complete(&told[3], "j1", "completed");
}

#[tokio::test]
async fn a_failed_task_is_over_after_its_grace() {
    let gateway = with_grace(Duration::from_millis(200)).await;
    for route in ["jobs", "render-progress"] {
        let stream = gateway.open(&format!("/api/stream/{route}/{route}")).await;
        let mut failed = task("failed", 30);
        failed["task_id"] = json!(route);
        gateway.publish(&format!("task_progress:{route}"), &failed).await;
        let told = told(stream).await;
        assert_eq!(told[0].1["status"], "failed");
        assert_eq!(told.len(), 2);
        complete(&told[1], route, "failed");
    }
}

#[tokio::test]
async fn a_retry_takes_the_failure_back() {
    let gateway = with_grace(Duration::from_secs(1)).await;
    let retried = gateway.open("/api/stream/jobs/t1").await;
    let given_up = gateway.open("/api/stream/jobs/t2").await;
    let failures = [
        ("task_progress:t1", task("failed", 30)),
        ("task_progress:t1", task("retrying", 30)),
        ("task_progress:t2", task("failed", 30)),
    ];
    gateway.publish_all(&failures).await;
    // The other task failed later, so when its grace is over that of the first is over too.
    assert_eq!(told(given_up).await.len(), 2);
    gateway.publish("task_progress:t1", &task("completed", 100)).await;
    let told = told(retried).await;
    let statuses: Vec<_> = told.iter().map(|(_, data)| data["status"].as_str()).collect();
    assert_eq!(statuses, [Some("failed"), Some("processing"), Some("completed"), None]);
    complete(&told[3], "t1", "completed");
}

async fn a_final_state_published_twice_is_delivered_once(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    for option in ["", "?batch=1s", "?maxRate=4", "?compress=gzip", "?named=true"] {
        let name = format!("job{}", option.replace(['?', '='], "_"));
        let stream = gateway.open(&format!("/api/stream/jobs/{name}{option}")).await;
        let channel = format!("job_progress:{name}");
        let report = |status: &str| (&*channel, json!({"job_id": name, "status": status}));
        let events = [report("processing"), report("completed"), report("completed")];
        gateway.publish_all(&events).await;
        let told = told(stream).await;
        let count = |name: &str| told.iter().filter(|(known, _)| known == name).count();
        assert_eq!(count("complete"), 1, "{option}: {told:?}");
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(text.matches(r#""status":"completed""#).count(), 2, "{option}: {text}");
        complete(told.last().unwrap(), &name, "completed");
    }
}

async fn a_finished_stream_tells_its_end_to_whoever_comes_late(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    for (status, progress) in [("processing", 0.5), ("completed", 1.0), ("completed", 1.0)] {
        gateway.publish("job_progress:j1", &job(status, progress)).await;
    }
    for route in ["/api/stream/jobs/j1", "/api/v1/stream/render-progress/j1"] {
        let told = told(gateway.open(route).await).await;
        assert_eq!(told.len(), 2, "{route}: {told:?}");
        assert_eq!(told[0].0, "message");
        assert_eq!(told[0].1["status"], "completed");
        complete(&told[1], "j1", "completed");
    }
}

async fn whoever_has_had_the_end_is_told_to_stop(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let path = "/api/stream/jobs/j1";
    let live = gateway.open(path).await;
    for (status, progress) in [("processing", 0.5), ("completed", 1.0), ("completed", 1.0)] {
        gateway.publish("job_progress:j1", &job(status, progress)).await;
    }
    let from_live = live.rest().await.pop().unwrap();
    let from_snapshot = gateway.open(path).await.rest().await.pop().unwrap();
    gateway.publish("other", &json!(1)).await;
    let later = gateway.open("/api/stream?channel=other").await.event().await;
    for id in [from_live.id, from_snapshot.id, later.id] {
        let request = gateway.get(path).header("last-event-id", &id);
        assert_eq!(request.send().await.unwrap().status(), 204, "{id}");
        let response = gateway.get(&format!("{path}?lastEventId={id}")).send().await.unwrap();
        assert_eq!(response.status(), 204, "{id}");
        assert!(response.bytes().await.unwrap().is_empty());
    }
}

async fn a_client_that_missed_the_end_gets_it(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let mut live = gateway.open("/api/stream/jobs/j1").await;
    gateway.publish("job_progress:j1", &job("processing", 0.5)).await;
    let id = live.event().await.id;
    drop(live);
    gateway.publish("job_progress:j1", &job("completed", 1.0)).await;
    let back = gateway.resume("/api/stream/jobs/j1", &id).await;
    assert_eq!(back.connected.data["recovered"], true);
    let told = told(back).await;
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].1["status"], "completed");
    complete(&told[1], "j1", "completed");
}
