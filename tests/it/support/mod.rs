//! What the tests share: a gateway on a free port, clients, a Redis of their own.

mod browser;
mod certificate;
mod client;
mod connection;
mod gateway;
pub(crate) mod models;
mod protocol;
mod redis;
mod relay;
mod witness;

use std::future::Future;
use std::time::Duration;

pub(crate) use browser::{Page, Proxy, Sighting, Source};
pub(crate) use certificate::Certificate;
pub(crate) use client::{EventSource, Message};
pub(crate) use connection::{Connection, get};
pub(crate) use gateway::TestGateway;
pub(crate) use protocol::{Protocol, over_each_protocol};
pub(crate) use redis::Redis;
pub(crate) use relay::Relay;
pub(crate) use witness::Witness;

/// How long anything may take before the test fails. Long: the machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `work`, and fails the test when it takes too long.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Asks again and again until `condition` holds, and fails the test when it does not come to.
pub(crate) async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
