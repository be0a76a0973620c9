//! What the people on call and their tools read: health, readiness, stats, metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::App;
use super::problem::Problem;
use crate::event::now;

/// How the node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// Events flow.
    Healthy,
    /// It is stopping.
    Degraded,
    /// Its source is not connected.
    Unhealthy,
}

impl Status {
    fn of(app: &App) -> Self {
        if !app.inlet.is_connected() {
            Self::Unhealthy
        } else if app.stop.is_requested() {
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
    match Status::of(&app) {
        Status::Healthy if hub_answers(&app).await => Ok("ok\n"),
        Status::Healthy => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the hub does not answer"))
        }
        Status::Degraded => Err(crate::hub::Stopped.into()),
        Status::Unhealthy => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the event source is not connected"))
        }
    }
}

/// Whether the hub takes a question and answers it in time.
async fn hub_answers(app: &App) -> bool {
    let nothing = Arc::from([]);
    let asked = timeout(Duration::from_secs(1), app.hub.unheard(&nothing)).await;
    asked.is_ok_and(|answer| answer.is_ok())
}

pub(super) async fn health(State(app): State<Arc<App>>) -> Response {
    let status = Status::of(&app);
    let asked = Instant::now();
    let hub = hub_answers(&app).await;
    let probe = app.metrics.source_probe_seconds.with_label_values(&[app.source]).get();
    let word = |up: bool| if up { "healthy" } else { "unhealthy" };
    let body = json!({
        "status": status.as_str(),
        "timestamp": now(),
        "uptime": app.started.elapsed().as_secs_f64(),
        "checks": [
            {"name": "source", "status": word(app.inlet.is_connected()), "latency": probe * 1e3},
            {"name": "hub", "status": word(hub), "latency": asked.elapsed().as_secs_f64() * 1e3},
        ],
        "version": env!("CARGO_PKG_VERSION"),
        "role": app.settings.server.role,
        "connectedClients": app.registry.open(),
    });
    let code = match status {
        _ if !hub => StatusCode::SERVICE_UNAVAILABLE,
        Status::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        Status::Healthy | Status::Degraded => StatusCode::OK,
    };
    (code, Json(body)).into_response()
}

pub(super) async fn stats(State(app): State<Arc<App>>) -> Response {
    let frames = app.metrics.frames_sent_total.with_label_values(&["sse"]).get();
    let body = json!({
        "status": Status::of(&app).as_str(),
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
