//! The word after the last one: an end stands until an event contradicts it.

use std::time::Duration;

use serde_json::{Value, json};

use super::told;
use crate::support::TestGateway;

const JOB: &str = "job_progress:j";
const PATHS: [&str; 2] = ["/api/stream/jobs/j", "/api/stream/render-progress/j"];

fn job(status: &str, progress: f64) -> Value {
    json!({"job_id": "j", "status": status, "progress": progress})
}

/// What a page is told that comes now: the statuses, and whether it is told the end.
async fn late(gateway: &TestGateway, path: &str) -> (Vec<Value>, bool) {
    let mut stream = gateway.open(path).await;
    let mut statuses = Vec::new();
    // Something that is told after whatever else there is.
    gateway.publish(JOB, &json!({"mark": true})).await;
    loop {
        let message = stream.event().await;
        if message.name == "complete" {
            return (statuses, true);
        }
        if message.data["mark"] == json!(true) {
            return (statuses, false);
        }
        statuses.push(message.data["status"].clone());
    }
}

#[tokio::test]
async fn a_word_after_the_last_one_does_not_hide_it() {
    let gateway = TestGateway::start().await;
    gateway.publish(JOB, &job("processing", 0.5)).await;
    gateway.publish(JOB, &job("completed", 1.0)).await;
    let log_line = json!({"message": "temporary files removed"});
    for word in [log_line, json!({}), json!({"level": "info"}), json!({"status": null})] {
        gateway.publish(JOB, &word).await;
        for path in PATHS {
            assert_eq!(late(&gateway, path).await, (vec![json!("completed")], true), "{word}");
        }
    }
    // A stream that knows no ends tells what came last.
    let mut any = gateway.open(&format!("/api/stream?channel={JOB}")).await;
    assert_eq!(any.data().await["data"], json!({"mark": true}));
}

#[tokio::test]
async fn an_event_that_contradicts_the_end_begins_anew() {
    let gateway = TestGateway::start().await;
    gateway.publish(JOB, &job("completed", 1.0)).await;
    gateway.publish(JOB, &json!({"message": "again"})).await;
    gateway.publish(JOB, &job("processing", 0.1)).await;
    for path in PATHS {
        let mut stream = gateway.open(path).await;
        assert_eq!(stream.data().await["status"], "processing");
        gateway.publish(JOB, &json!({"message": "a word"})).await;
        assert_eq!(stream.data().await["message"], "a word", "it has not ended");
        gateway.publish(JOB, &job("processing", 0.2)).await;
        stream.data().await;
    }
    gateway.publish(JOB, &job("failed", 0.2)).await;
    let (statuses, ended) = late(&gateway, PATHS[0]).await;
    assert_eq!((statuses, ended), (vec![json!("failed")], true));
}

#[tokio::test]
async fn a_render_end_of_two_fields_is_contradicted_by_either_and_by_nothing_else() {
    let gateway = TestGateway::start().await;
    let render = |stage: &str, progress: f64| json!({"type": "video_render_progress", "jobId": "j", "stage": stage, "progress": progress});
    let channel = "video_render:j";
    gateway.publish(channel, &render("complete", 1.0)).await;
    gateway.publish(channel, &json!({"message": "cleaning up"})).await;
    let all = told(gateway.open(PATHS[1]).await).await;
    assert_eq!(all.last().unwrap().0, "complete", "what a shape adds contradicts nothing");
    gateway.publish(channel, &json!({"progress": 0.1})).await;
    let mut stream = gateway.open(PATHS[1]).await;
    assert_eq!(stream.data().await["progress"], 0.1);
}

#[tokio::test]
async fn a_failure_that_may_be_retried_is_not_taken_back_by_a_word() {
    let gateway = TestGateway::start_with(|settings| {
        for end in &mut settings.stream.get_mut("jobs").unwrap().end {
            end.grace = end.grace.min(Duration::from_millis(300));
        }
    })
    .await;
    let task = |status: &str| json!({"task_id": "j", "progress": 40, "status": status});
    let live = gateway.open(PATHS[0]).await;
    gateway.publish("task_progress:j", &task("failed")).await;
    gateway.publish("task_progress:j", &json!({"task_id": "j", "message": "a word"})).await;
    let live = told(live).await;
    assert_eq!((live.len(), live[2].0.as_str()), (3, "complete"));
    assert_eq!(live[2].1["data"]["status"], "failed");
    // Whoever comes after the word is told too.
    let late = told(gateway.open(PATHS[0]).await).await;
    assert_eq!((late[0].1["status"].as_str(), late[1].0.as_str()), (Some("failed"), "complete"));

    let mut retried = {
        gateway.publish("task_progress:j", &task("retrying")).await;
        gateway.open(PATHS[0]).await
    };
    assert_eq!(retried.data().await["stage"], "retrying");
}

#[tokio::test]
async fn a_latch_keeps_an_end_though_reports_overtake_each_other() {
    let latched = |latch: Duration| {
        TestGateway::start_with(move |settings| {
            for end in &mut settings.stream.get_mut("jobs").unwrap().end {
                end.latch = latch;
            }
        })
    };
    let gateway = latched(Duration::from_secs(600)).await;
    gateway.publish(JOB, &job("completed", 1.0)).await;
    gateway.publish(JOB, &job("processing", 0.9)).await;
    assert_eq!(late(&gateway, PATHS[0]).await, (vec![json!("completed")], true));
    let gateway = latched(Duration::from_nanos(1)).await;
    gateway.publish(JOB, &job("completed", 1.0)).await;
    gateway.publish(JOB, &job("processing", 0.9)).await;
    assert_eq!(late(&gateway, PATHS[0]).await, (vec![json!("processing")], false));
}

#[tokio::test]
async fn the_results_of_other_variants_do_not_take_a_winner_back() {
    let gateway = TestGateway::start().await;
    let result = |variant: &str, wins: bool| json!({"testId": "t", "variantId": variant, "isWinner": wins, "statisticalSignificance": 0.99});
    for (variant, wins) in [("A", false), ("B", true), ("A", false)] {
        gateway.publish("ab_test_results:t", &result(variant, wins)).await;
    }
    gateway.publish("ab_test_results:t", &json!({"note": "no variant"})).await;
    let all = told(gateway.open("/api/stream/ab-test-results/t").await).await;
    let (name, last) = all.last().unwrap();
    assert_eq!((name.as_str(), &last["data"]["winner"]), ("complete", &json!("B")));
}
