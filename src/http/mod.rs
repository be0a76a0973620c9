//! The doors: which URL leads where, and who may knock.

mod admin;
mod client;
mod council;
mod options;
mod problem;
mod publish;
mod serve;
mod stream;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

pub use client::Proxies;
pub use serve::{serve, settle};
pub use stream::parse_query;
pub use tls::{Tls, TlsError, choose_cryptography};

use crate::council::Council;
use crate::event::ChannelPattern;
use crate::hub::{Hub, Inlet};
use crate::session::{Quota, Registry};
use crate::settings::{ServerSettings, Settings};
use crate::shutdown::Stop;
use crate::source::{Publisher, StoredStates};
use crate::streams::Streams;
use crate::telemetry::Metrics;
use crate::wire::Tuning;
use problem::Problem;
use stream::StreamDoor;

/// The prefixes every route of the contract is served under: clients use both.
pub const PREFIXES: [&str; 2] = ["/api", "/api/v1"];

/// What the doors need of the house.
#[expect(missing_docs, reason = "each is the part of that name")]
pub struct App {
    pub settings: Arc<Settings>,
    pub hub: Hub,
    /// How the source is doing.
    pub inlet: Inlet,
    /// The name of the source.
    pub source: &'static str,
    /// What the source listens to at all times.
    pub standing: Vec<ChannelPattern>,
    pub streams: Streams,
    pub council: Council,
    pub registry: Registry,
    pub quota: Quota,
    pub proxies: Proxies,
    pub publisher: Arc<dyn Publisher>,
    pub states: Option<Arc<dyn StoredStates>>,
    pub metrics: Arc<Metrics>,
    pub tuning: Arc<Tuning>,
    /// `None`: connections are not encrypted.
    pub tls: Option<Tls>,
    pub stop: Stop,
    pub started: Instant,
    /// Whether only this machine can reach the gateway.
    pub on_loopback: bool,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Every route.
pub fn routes(app: &Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/health", get(admin::health))
        .route("/livez", get(admin::live))
        .route("/health/live", get(admin::live))
        .route("/readyz", get(admin::ready))
        .route("/health/ready", get(admin::ready))
        .route("/metrics", get(admin::metrics));
    for prefix in PREFIXES {
        router = router.nest(prefix, api(app));
    }
    router
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not for this URL")
        })
        .layer(from_fn_with_state(Arc::clone(app), count))
        .layer(cors(&app.settings.server))
        .layer(map_response(no_cors_for_strangers))
        .layer(CatchPanicLayer::custom(|_| {
            let detail = "this should not have happened; the log says more";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
        }))
        .with_state(Arc::clone(app))
}

fn api(app: &Arc<App>) -> Router<Arc<App>> {
    let limit = DefaultBodyLimit::max(app.settings.publish.max_body_bytes);
    let mut router = Router::new()
        .route("/publish", post(publish::many))
        .route("/publish/{*channel}", post(publish::one))
        .layer(limit)
        .route("/realtime/stats", get(admin::stats));
    let mut council = Router::new()
        .route("/council", post(council::begin))
        .route("/council/{run}", get(council::state).delete(council::stop))
        .route("/council/{run}/members/{member}", delete(council::stop_member));
    for declared in app.streams.iter() {
        let (path, door) = (&declared.path, StreamDoor::new(app, declared));
        if declared.council.is_some() {
            let opened = get(stream::open).post(stream::open_with_body);
            council = council.route(path, opened.with_state(door));
        } else {
            router = router.route(path, get(stream::open).with_state(door));
        }
    }
    // A question in JSON is longer than its words.
    let limit = app.settings.council.max_input_bytes.saturating_mul(2);
    router.merge(council.layer(DefaultBodyLimit::max(limit)))
}

async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    app.metrics.http_responses_total.with_label_values(&[response.status().as_str()]).inc();
    response
}

/// The CORS layer leaves out only the one header that matters; a blocked origin gets none.
async fn no_cors_for_strangers(mut response: Response) -> Response {
    if !response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        let granted: Vec<_> = response.headers().keys().cloned().collect();
        for name in granted.iter().filter(|name| name.as_str().starts_with("access-control-")) {
            response.headers_mut().remove(name);
        }
    }
    response
}

fn cors(settings: &ServerSettings) -> CorsLayer {
    let cors = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CACHE_CONTROL,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("x-request-id"),
        ])
        .max_age(Duration::from_secs(86_400));
    if settings.cors_origins.iter().any(|origin| origin == "*") {
        return cors.allow_origin(Any);
    }
    let origins =
        settings.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    cors.allow_origin(AllowOrigin::list(origins)).allow_credentials(settings.cors_credentials)
}
