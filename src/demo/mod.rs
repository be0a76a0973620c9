//! `sluice demo`: a gateway with simulated workers, and a page that shows their streams.
//!
//! The workers publish what real ones do, through the same way out; nothing else is simulated.

mod workers;

use axum::Router;
use axum::response::Html;
use axum::routing::get;

use crate::gateway::Gateway;
use crate::settings::Settings;

/// The same settings, without a broker.
pub fn settings(mut settings: Settings) -> Settings {
    settings.redis.url.clear();
    settings
}

/// The page.
pub fn pages() -> Router {
    Router::new().route("/", get(|| async { Html(include_str!("page.html")) }))
}

/// Starts the workers; they end with the gateway.
pub fn start(gateway: &Gateway) {
    let address = gateway.address();
    tracing::info!("the workers of this demo are simulated");
    tracing::info!(
        "see http://{address}/ or: curl -N http://{address}/api/stream/render-progress/job_1"
    );
    workers::start(&gateway.publisher(), gateway.stop());
}
