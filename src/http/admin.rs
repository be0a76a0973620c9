//! What the people on call and their tools read: health, readiness, stats, metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::App;
use super::problem::Problem;
use crate::event::{now, timestamp};
use crate::hub::Condition;

/// How the node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// Events flow.
    Healthy,
    /// The process is well, but events do not flow, or not for long: the broker is away, or the node
    /// is stopping. Another process would do no better.
    Degraded,
    /// The process does not do its work.
    Unhealthy,
}

impl Status {
    async fn of(app: &App) -> Self {
        if !hub_answers(app).await {
            Self::Unhealthy
        } else if app.stop.is_requested()
            || !app.inlet.is_connected()
            || !app.inlet.publishing().is_up()
            || app.inlet.reading().is_some_and(|reading| !reading.is_up())
        {
            Self::Degraded
        } else {
            Self::Healthy
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The process answers.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// New clients are welcome: the source is connected and the node is not stopping.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.stop.is_requested() {
        return Err(crate::hub::Stopped.into());
    }
    let detail = if !app.inlet.is_connected() {
        "the event source is not connected"
    } else if !hub_answers(&app).await {
        "the hub does not answer"
    } else {
        return Ok("ok\n");
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
}

/// Whether the hub and every shard answer in time.
async fn hub_answers(app: &App) -> bool {
    timeout(Duration::from_secs(1), app.hub.is_alive()).await.unwrap_or_default()
}

pub(super) async fn health(State(app): State<Arc<App>>) -> Response {
    let asked = Instant::now();
    let status = Status::of(&app).await;
    let answered = asked.elapsed().as_secs_f64();
    let probe = app.metrics.source_probe_seconds.with_label_values(&[app.source]).get();
    let hub = match status {
        Status::Unhealthy => "unhealthy",
        Status::Healthy | Status::Degraded => "healthy",
    };
    let mut checks = vec![
        check("source", &app.inlet.listening(), Some(probe)),
        check("publishing", &app.inlet.publishing(), None),
        json!({"name": "hub", "status": hub, "latency": answered * 1e3}),
    ];
    checks.extend(app.inlet.reading().map(|reading| check("states", &reading, None)));
    let body = json!({
        "status": status.as_str(),
        "timestamp": now(),
        "uptime": app.started.elapsed().as_secs_f64(),
        "checks": checks,
        "version": env!("CARGO_PKG_VERSION"),
        "role": app.settings.server.role,
        "connectedClients": app.registry.open(),
    });
    let code = match status {
        Status::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        // Who is asked whether it lives is not to be killed because its broker is away.
        Status::Healthy | Status::Degraded => StatusCode::OK,
    };
    (code, Json(body)).into_response()
}

/// A link of the source, since when it is as it is, and why it is down. `seconds`: what a way through
/// it took last.
fn check(name: &str, condition: &Condition, seconds: Option<f64>) -> Value {
    let status = if condition.is_up() { "healthy" } else { "unhealthy" };
    let mut check = json!({"name": name, "status": status, "since": timestamp(condition.since)});
    if let Some(fields) = check.as_object_mut() {
        fields.extend(seconds.map(|seconds| ("latency".to_owned(), json!(seconds * 1e3))));
        let reason = condition.fault.as_deref();
        fields.extend(reason.map(|reason| ("reason".to_owned(), json!(reason))));
    }
    check
}

pub(super) async fn stats(State(app): State<Arc<App>>) -> Response {
    let frames = app.metrics.frames_sent_total.with_label_values(&["sse"]).get();
    let body = json!({
        "status": Status::of(&app).await.as_str(),
        "sse": {"totalConnections": app.registry.open(), "totalEvents": frames},
        "channels": {
            "isConnected": app.inlet.is_connected(),
            "activeChannels": app.metrics.subscribed_topics.get(),
            "totalSubscriptions": app.metrics.subscriptions.get(),
        },
        "timestamp": now(),
    });
    Json(body).into_response()
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let page = app
        .metrics
        .render()
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], page).into_response())
}
