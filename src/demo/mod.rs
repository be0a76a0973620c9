//! `sluice demo`: a gateway with simulated workers and scripted models, and a page that shows their
//! streams.
//!
//! The workers publish what real ones do, through the same way out, and the models are asked over
//! HTTP like real ones; nothing else is simulated.

mod models;
mod workers;

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::response::Html;
use axum::routing::get;

use crate::gateway::Gateway;
use crate::settings::Settings;

/// The same settings, without a broker, and with a council of scripted models if there is no other.
/// `address`: where the gateway listens.
pub fn settings(mut settings: Settings, address: SocketAddr) -> Settings {
    settings.redis.url.clear();
    let host = match address.ip() {
        ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(host, address.port());
    // A page that is loaded again and again leaves its runs to their grace.
    settings.council.max_runs_per_client = settings.council.max_runs;
    // Asked over TLS, the gateway would have to trust a certificate made for others.
    if !settings.server.has_tls() {
        models::sit(&mut settings.council, &format!("http://{address}"));
    }
    settings
}

/// The page, and the scripted models.
pub fn pages() -> Router {
    models::router().route("/", get(|| async { Html(include_str!("page.html")) }))
}

/// Starts the workers; they end with the gateway.
pub fn start(gateway: &Gateway) {
    let address = gateway.address();
    tracing::info!("the workers of this demo are simulated, and its models scripted");
    tracing::info!(
        "see http://{address}/ or: curl -N http://{address}/api/stream/render-progress/job_1"
    );
    workers::start(&gateway.publisher(), gateway.stop());
}
