//! Campaign metrics, A/B results and alerts.

use serde_json::{Value, json};

use super::told;
use crate::support::TestGateway;

fn result(variant: &str, winner: bool, significance: f64) -> Value {
    json!({"type": "ab_test_result", "testId": "x", "variantId": variant,
        "metrics": {"impressions": 1000, "clicks": 50, "ctr": 0.05, "conversions": 5,
            "confidence": significance},
        "isWinner": winner, "statisticalSignificance": significance,
        "timestamp": "2026-11-21T22:25:22.787Z"})
}

#[tokio::test]
async fn an_ab_test_ends_with_its_winner() {
    let gateway = TestGateway::start().await;
    let stream = gateway.open("/api/stream/ab-test-results/x").await;
    let events = [
        result("A", false, 0.5),
        result("B", true, 0.6),
        result("A", false, 0.97),
        result("B", true, 0.97),
        result("C", false, 0.97),
    ];
    let channel = "ab_test_results:x";
    gateway.publish_all(&events.clone().map(|event| (channel, event))).await;
    let told = told(stream).await;
    let (results, end) = told.split_at(events.len());
    for ((name, data), event) in results.iter().zip(&events) {
        assert_eq!((&**name, data), ("message", event), "the round is told to its end");
    }
    assert_eq!(end.len(), 1, "{end:?}");
    assert_eq!(end[0].0, "complete");
    assert_eq!(end[0].1["data"], json!({"winner": "B"}));
}

#[tokio::test]
async fn a_late_client_gets_the_last_result_of_each_variant() {
    let gateway = TestGateway::start().await;
    for n in 0..3 {
        for variant in ["A", "B"] {
            let significance = f64::from(n) / 10.0;
            gateway.publish("ab_test_results:x", &result(variant, false, significance)).await;
        }
    }
    let mut stream = gateway.open("/api/stream/ab-test-results/x").await;
    assert_eq!(stream.data().await, result("A", false, 0.2));
    assert_eq!(stream.data().await, result("B", false, 0.2));
    gateway.publish("ab_test_results:x", &result("A", false, 0.3)).await;
    assert_eq!(stream.data().await, result("A", false, 0.3));
}

#[tokio::test]
async fn a_winner_that_is_taken_back_does_not_end_the_test() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.open("/api/stream/ab-test-results/x").await;
    let sentinel = gateway.open("/api/stream/ab-test-results/y").await;
    gateway
        .publish_all(&[
            ("ab_test_results:x", result("A", true, 0.96)),
            ("ab_test_results:x", result("A", false, 0.94)),
            ("ab_test_results:y", result("A", true, 0.96)),
        ])
        .await;
    // Its grace began later, so that of the first is over too.
    assert_eq!(told(sentinel).await.len(), 2);
    gateway.publish("ab_test_results:x", &result("B", false, 0.9)).await;
    for expected in [result("A", true, 0.96), result("A", false, 0.94), result("B", false, 0.9)] {
        assert_eq!(stream.data().await, expected);
    }
}

#[tokio::test]
async fn campaign_metrics_of_everybody_and_of_the_user() {
    let gateway = TestGateway::start().await;
    let mut of_user = gateway.open("/api/stream/campaign-metrics/c1?userId=u").await;
    let mut of_all = gateway.open("/api/stream/campaign-metrics/c1").await;
    let metrics = |clicks: u32| json!({"campaignId": "c1", "metrics": {"clicks": clicks}});
    for (n, channel) in
        ["campaign_metrics:c1:u", "campaign_metrics:c1:other", "campaign_metrics:c1"]
            .iter()
            .enumerate()
    {
        gateway.publish(channel, &metrics(u32::try_from(n).unwrap())).await;
    }
    let typed = |clicks: u32| {
        let mut event = metrics(clicks);
        event["type"] = json!("campaign_metrics");
        event
    };
    assert_eq!(of_user.data().await, typed(0));
    assert_eq!(of_user.data().await, typed(2));
    assert_eq!(of_all.data().await, typed(2));
    let mut late = gateway.open("/api/stream/campaign-metrics/c1").await;
    assert_eq!(late.data().await, typed(2), "the snapshot");
}

#[tokio::test]
async fn alerts_for_everybody_and_for_oneself() {
    let gateway = TestGateway::start().await;
    let alert = |id: &str| {
        json!({"type": "alert", "alertId": id, "severity": "info", "category": "budget",
            "title": "t", "message": "m", "actionRequired": false})
    };
    gateway.publish("alerts", &alert("before")).await;
    let mut mine = gateway.open("/api/stream/alerts?userId=u1").await;
    let mut bare = gateway.open("/api/stream/alerts").await;
    for (channel, id) in [("alerts:u2", "theirs"), ("alerts:u1", "mine"), ("alerts", "ours")] {
        gateway.publish(channel, &alert(id)).await;
    }
    assert_eq!(mine.connected.data["channels"], json!(["alerts", "alerts:u1"]));
    assert_eq!(mine.data().await, alert("mine"), "no snapshot, and nobody else's");
    let last = mine.event().await;
    assert_eq!(last.data, alert("ours"));
    assert_eq!(bare.data().await, alert("ours"));
    drop(mine);

    gateway.publish("alerts:u1", &alert("missed")).await;
    let mut back = gateway.resume("/api/stream/alerts?userId=u1", &last.id).await;
    assert_eq!(back.connected.data["recovered"], true);
    assert_eq!(back.data().await, alert("missed"), "history after the id");
}

#[tokio::test]
async fn whoever_comes_back_after_the_last_word_is_told_to_stop() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.open("/api/stream/ab-test-results/t").await;
    for (variant, winner) in [("A", false), ("B", true), ("C", false)] {
        let result =
            json!({"variantId": variant, "isWinner": winner, "statisticalSignificance": 0.95});
        gateway.publish("ab_test_results:t", &result).await;
        assert_eq!(stream.data().await["variantId"], variant);
    }
    let after_c = stream.last_event_id.clone();
    let complete = stream.event().await;
    assert_eq!((complete.name.as_str(), &complete.id), ("complete", &after_c));
    let path = "/api/stream/ab-test-results/t";
    let again = gateway.get(path).header("last-event-id", &complete.id).send().await.unwrap();
    assert_eq!(again.status(), 204);
}
