//! What workers publish, and what becomes of it (contract, section 5).

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Streams;
use crate::event::{Channel, Epoch, Event, Outcome, Payload, Shaped};
use crate::settings::Settings;

fn event(channel: &str, payload: &Value) -> Event {
    let payload = Payload::parse(payload.to_string().as_bytes(), usize::MAX).unwrap();
    Event::new(Channel::new(channel).unwrap(), payload, Epoch::random().at(1))
}

/// The event in the shape of a declared stream of the default settings.
fn with_shaped<T>(stream: &str, event: &Event, look: impl FnOnce(&Shaped) -> T) -> T {
    let streams = Streams::compile(&Settings::load(None, []).unwrap().stream);
    let declared = streams.iter().find(|declared| declared.name == stream).unwrap();
    look(event.shaped(&*declared.shape).expect("the stream shows it"))
}

fn shaped(stream: &str, channel: &str, payload: &Value) -> Value {
    let event = event(channel, payload);
    with_shaped(stream, &event, |shaped| serde_json::from_str(&shaped.json).unwrap())
}

fn complete(data: &str) -> Outcome {
    Outcome::Complete(data.into())
}

#[test]
fn a_job_gets_a_type_an_id_and_a_zone_and_keeps_its_fields() {
    let payload = json!({"job_id": "j1", "status": "processing", "stage": "testing", "progress": 0.2,
        "message": "m", "timestamp": "2026-11-21T22:32:01.761250", "metadata": {"step": 1}});
    let event = event("job_progress:j1", &payload);
    let text = with_shaped("jobs", &event, |shaped| shaped.json.to_string());
    assert_eq!(
        text,
        r#"{"type":"job_progress","jobId":"j1","timestamp":"2026-11-21T22:32:01.761250Z","job_id":"j1","status":"processing","stage":"testing","progress":0.2,"message":"m","metadata":{"step":1}}"#
    );
}

#[test]
fn without_an_id_the_channel_says_it_and_numbers_keep_their_digits() {
    let payload =
        Payload::parse(br#"{"status":"queued","big":12345678901234567890.10}"#, 99).unwrap();
    let event =
        Event::new(Channel::new("job_progress:j:2").unwrap(), payload, Epoch::random().at(1));
    let text = with_shaped("jobs", &event, |shaped| shaped.json.to_string());
    assert!(
        text.contains(r#""jobId":"j:2""#) && text.contains(r#""big":12345678901234567890.10"#),
        "{text}"
    );
}

#[test]
fn a_task_speaks_of_percent_and_of_retries() {
    let task =
        |status: &str| json!({"task_id": "t", "progress": 40, "status": status, "message": "m"});
    let retrying = shaped("jobs", "task_progress:t", &task("retrying"));
    assert_eq!(
        (&retrying["status"], &retrying["stage"]),
        (&json!("processing"), &json!("retrying"))
    );
    assert_eq!((&retrying["progress"], &retrying["jobId"]), (&json!(0.4), &json!("t")));
    assert_eq!(retrying["task_id"], "t");
    let started = shaped("jobs", "task_progress:t", &task("started"));
    assert_eq!(started["status"], "processing");
}

#[test]
fn a_render_takes_its_frames_from_the_metadata() {
    let payload = json!({"job_id": "j", "status": "processing", "stage": "rendering", "progress": 0.5,
        "metadata": {"current_frame": 50, "total_frames": 100, "fps": 24.5}});
    let render = shaped("render_progress", "job_progress:j", &payload);
    assert_eq!(render["type"], "video_render_progress");
    assert_eq!((&render["currentFrame"], &render["totalFrames"]), (&json!(50), &json!(100)));
    assert_eq!((&render["fps"], &render["progress"]), (&json!(24.5), &json!(0.5)));
    let without = shaped("render_progress", "job_progress:j", &json!({"status": "processing"}));
    assert_eq!((&without["currentFrame"], &without["fps"]), (&json!(0), &json!(0)));
    assert_eq!(without["estimatedTimeRemaining"], json!(0.0));
}

#[test]
fn stages_of_workers_become_those_of_the_contract() {
    let stages = [
        ("queued", "queued", "preparing"),
        ("processing", "started", "preparing"),
        ("processing", "rendering", "rendering"),
        ("processing", "testing", "rendering"),
        ("processing", "encoding", "encoding"),
        ("processing", "transcode", "encoding"),
        ("processing", "uploading", "uploading"),
        ("completed", "anything", "complete"),
    ];
    for (status, stage, expected) in stages {
        let payload = json!({"status": status, "stage": stage, "progress": 0.1});
        let render = shaped("render_progress", "job_progress:j", &payload);
        assert_eq!(render["stage"], expected, "{status}, {stage}");
    }
}

#[test]
fn a_render_event_stays_itself_and_ends_with_its_last_frame() {
    let payload = json!({"type": "video_render_progress", "jobId": "j", "currentFrame": 10,
        "totalFrames": 10, "progress": 1, "fps": 30, "estimatedTimeRemaining": 0,
        "stage": "complete", "timestamp": "2026-11-21T22:25:32.792Z"});
    let event = event("video_render:j", &payload);
    with_shaped("render_progress", &event, |shaped| {
        assert_eq!(*shaped.json, *payload.to_string());
        assert_eq!(
            shaped.end.as_ref().unwrap().outcome,
            complete(r#"{"jobId":"j","status":"completed"}"#)
        );
    });
    let not_yet = shaped(
        "render_progress",
        "video_render:j",
        &json!({"type": "video_render_progress",
        "jobId": "j", "progress": 0.95, "stage": "complete"}),
    );
    assert_eq!(not_yet["progress"], 0.95);
}

#[tokio::test(start_paused = true)]
async fn the_time_left_is_estimated_from_the_rate_of_the_present_run() {
    let mut previous: Option<Arc<Event>> = None;
    let mut left = Vec::new();
    for progress in [0.2, 0.4, 0.6, 0.1, 0.3, 1.0, 0.0, 0.1] {
        let mut next =
            event("job_progress:j", &json!({"status": "processing", "progress": progress}));
        next.previous = previous.as_ref().map(Arc::downgrade).unwrap_or_default();
        let next = Arc::new(next);
        let json = with_shaped("render_progress", &next, |shaped| shaped.json.to_string());
        let json: Value = serde_json::from_str(&json).unwrap();
        left.push(json["estimatedTimeRemaining"].as_f64().unwrap());
        // The one before is forgotten, as the snapshot does; it had its shape.
        previous = Some(next);
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
    }
    assert_eq!(left, [0.0, 30.0, 20.0, 0.0, 35.0, 0.0, 0.0, 90.0]);
}

#[test]
fn ends_are_those_of_the_settings() {
    let end = |stream: &str, channel: &str, payload: Value| {
        with_shaped(stream, &event(channel, &payload), |shaped| shaped.end.clone())
    };
    let job = |status: &str| json!({"job_id": "j", "status": status});
    assert!(end("jobs", "job_progress:j", job("processing")).is_none());
    assert!(end("jobs", "job_progress:j", job("failed")).unwrap().grace.is_zero());
    let task = end("jobs", "task_progress:j", job("failed")).unwrap();
    assert_eq!(task.grace.as_secs(), 60);
    assert_eq!(task.outcome, complete(r#"{"jobId":"j","status":"failed"}"#));
    let test = |significance: f64| json!({"variantId": "B", "isWinner": true, "statisticalSignificance": significance});
    assert!(end("ab_test_results", "ab_test_results:t", test(0.9)).is_none());
    let won = end("ab_test_results", "ab_test_results:t", test(0.95)).unwrap();
    assert_eq!(won.outcome, complete(r#"{"winner":"B"}"#));
}

#[test]
fn what_is_no_object_is_no_job_but_passes_elsewhere() {
    let streams = Streams::compile(&Settings::load(None, []).unwrap().stream);
    let jobs = streams.iter().find(|declared| declared.name == "jobs").unwrap();
    assert!(event("job_progress:j", &json!([1])).shaped(&*jobs.shape).is_none());
    assert_eq!(shaped("campaign_metrics", "campaign_metrics:c", &json!(7)), json!(7));
}

#[test]
fn a_payload_without_a_type_gets_that_of_its_stream() {
    let typed = shaped("campaign_metrics", "campaign_metrics:c", &json!({"campaignId": "c"}));
    assert_eq!(typed, json!({"type": "campaign_metrics", "campaignId": "c"}));
    let own = shaped("campaign_metrics", "campaign_metrics:c", &json!({"type": "x"}));
    assert_eq!(own, json!({"type": "x"}));
    let empty = shaped("alerts", "alerts", &json!({}));
    assert_eq!(empty, json!({"type": "alert"}));
}

#[test]
fn an_envelope_says_where_and_when() {
    let event = event("recipe:created", &json!({"recipeId": "r"}));
    let json =
        with_shaped("any", &event, |shaped| serde_json::from_str::<Value>(&shaped.json).unwrap());
    assert_eq!(
        (&json["channel"], &json["data"]),
        (&json!("recipe:created"), &json!({"recipeId": "r"}))
    );
    assert!(json["timestamp"].as_u64().unwrap() > 1_700_000_000_000);
}

const NAMES: [&str; 12] = [
    "status",
    "stage",
    "type",
    "isWinner",
    "isComplete",
    "statisticalSignificance",
    "progress",
    "current_frame",
    "total_frames",
    "metadata",
    "timestamp",
    "x",
];

/// A field that some end may hang on, with a value that may make it one.
fn a_field() -> impl Strategy<Value = (&'static str, Value)> {
    let words = ["completed", "failed", "cancelled", "processing", "error", "retrying"];
    let words = words.map(Value::from).into_iter().chain([json!("video_render_complete")]);
    let others = [json!(true), json!(false), json!(null), json!(0.95), json!(100), json!([])];
    let frames = json!({"current_frame": 9, "total_frames": 9, "status": "completed"});
    let values: Vec<_> = words.chain(others).chain([frames, json!(0.2)]).collect();
    (prop::sample::select(&NAMES[..]), prop::sample::select(values))
}

proptest! {
    #[test]
    fn a_verdict_is_what_the_shape_says(fields in prop::collection::vec(a_field(), 0..5)) {
        let streams = Streams::compile(&Settings::load(None, []).unwrap().stream);
        let payload = Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        for channel in ["job_progress:j", "task_progress:j", "video_render:j", "ab_test_results:t", "other"] {
            let event = event(channel, &payload);
            for stream in streams.iter() {
                let verdict = stream.shape.verdict(&event.channel, &event.payload);
                let shaped = event.shaped(&*stream.shape);
                prop_assert_eq!(verdict.is_shown, shaped.is_some(), "{} {}", stream.name, channel);
                let end = shaped.and_then(|shaped| shaped.end.as_ref());
                prop_assert_eq!(verdict.end, end.map(|end| (end.rule, end.latch)));
                let contradicts = shaped.map_or_else(Default::default, |shaped| shaped.contradicts);
                prop_assert_eq!(verdict.contradicts, contradicts, "{} {}", stream.name, channel);
            }
        }
    }
}
