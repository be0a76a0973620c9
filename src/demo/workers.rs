//! Simulated workers: three render jobs, a campaign, an A/B test and now and then an alert.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::event::{Channel, Payload, now};
use crate::shutdown::Stop;
use crate::source::{Publication, Publisher};

type Out = Arc<dyn Publisher>;

/// Starts every worker; they end with the gateway.
pub(super) fn start(out: &Out, stop: &Stop) {
    for n in 1..=3 {
        spawn(stop, render(Arc::clone(out), format!("job_{n}"), n));
    }
    spawn(stop, campaign(Arc::clone(out)));
    spawn(stop, ab_test(Arc::clone(out)));
    spawn(stop, alerts(Arc::clone(out)));
}

fn spawn(stop: &Stop, worker: impl Future<Output = Option<()>> + Send + 'static) {
    let stopped = stop.requested();
    stop.spawn(async move {
        tokio::select! {
            _ = worker => {}
            () = stopped => {}
        }
    });
}

/// `None` when the gateway no longer takes events: the worker is then done.
async fn publish(out: &Out, channel: &str, payload: Value) -> Option<()> {
    let channel = Channel::new(channel).ok()?;
    let payload = Payload::parse(payload.to_string().as_bytes(), usize::MAX).ok()?;
    out.publish(vec![Publication { channel, payload, id: None }]).await.ok().map(drop)
}

/// A job as a Celery worker reports it: queued, rendered frame by frame, done; then again.
async fn render(out: Out, job: String, speed: u32) -> Option<()> {
    const FRAMES: u32 = 300;
    let channel = format!("job_progress:{job}");
    let report = |status: &str, stage: &str, frame: u32, message: String| {
        json!({"job_id": job, "status": status, "stage": stage,
            "progress": f64::from(frame) / f64::from(FRAMES), "message": message,
            "timestamp": now().trim_end_matches('Z'),
            "metadata": {"current_frame": frame, "total_frames": FRAMES, "fps": 10 * speed}})
    };
    loop {
        publish(&out, &channel, report("queued", "queued", 0, "Waiting for a worker".to_owned()))
            .await?;
        sleep(Duration::from_secs(2)).await;
        for frame in (0..FRAMES).step_by(3) {
            let stage = match frame {
                0..210 => "rendering",
                210..270 => "encoding",
                _ => "uploading",
            };
            let message = format!("Frame {frame} of {FRAMES}");
            publish(&out, &channel, report("processing", stage, frame, message)).await?;
            sleep(Duration::from_millis(u64::from(600 / speed))).await;
        }
        publish(&out, &channel, report("completed", "complete", FRAMES, "Done".to_owned())).await?;
        sleep(Duration::from_secs(10)).await;
    }
}

async fn campaign(out: Out) -> Option<()> {
    let (mut impressions, mut clicks) = (10_000_u64, 500_u64);
    loop {
        let (more, clicked) = (fastrand::u64(200..800), fastrand::u64(5..40));
        impressions += more;
        clicks += clicked;
        #[expect(clippy::cast_precision_loss, reason = "counts of a demo")]
        let ctr = clicks as f64 / impressions as f64;
        let event = json!({"type": "campaign_metrics", "campaignId": "camp_1",
            "metrics": {"impressions": impressions, "clicks": clicks, "ctr": ctr,
                "spend": clicks * 2, "conversions": clicks / 10, "roas": 3.5},
            "change": {"impressions": more, "clicks": clicked, "ctr": 0.0, "spend": clicked * 2},
            "timestamp": now()});
        publish(&out, "campaign_metrics:camp_1", event).await?;
        sleep(Duration::from_secs(2)).await;
    }
}

async fn ab_test(out: Out) -> Option<()> {
    loop {
        for round in 0..=25_u32 {
            let significance = (0.5 + f64::from(round) * 0.02).min(0.99);
            let over = significance >= 0.95;
            for (variant, clicks) in [("A", 250), ("B", 300 + round), ("C", 280)] {
                let event = json!({"type": "ab_test_result", "testId": "test_1", "variantId": variant,
                    "metrics": {"impressions": 5000 + 100 * round, "clicks": clicks + 5 * round,
                        "ctr": 0.05, "conversions": 25 + round, "confidence": significance},
                    "isWinner": over && variant == "B", "statisticalSignificance": significance,
                    "timestamp": now()});
                publish(&out, "ab_test_results:test_1", event).await?;
            }
            if over {
                break;
            }
            sleep(Duration::from_secs(2)).await;
        }
        sleep(Duration::from_secs(10)).await;
    }
}

async fn alerts(out: Out) -> Option<()> {
    const ALERTS: [(&str, &str, &str, &str); 3] = [
        ("info", "performance", "Click rate is up", "Campaign camp_1 does better than last week"),
        ("warning", "budget", "Budget nearly spent", "Campaign camp_1 has used 90 % of its budget"),
        ("critical", "technical", "Render worker restarted", "Worker 2 ran out of memory"),
    ];
    let mut n = 0_usize;
    loop {
        for (severity, category, title, message) in ALERTS {
            let event = json!({"type": "alert", "alertId": format!("alert_{n}"),
                "severity": severity, "category": category, "title": title, "message": message,
                "entityId": "camp_1", "entityType": "campaign",
                "actionRequired": severity == "critical", "timestamp": now()});
            publish(&out, "alerts", event).await?;
            n += 1;
            sleep(Duration::from_secs(7)).await;
        }
    }
}
