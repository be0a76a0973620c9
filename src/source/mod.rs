//! Where events enter the gateway, and where what is published here goes out.
//!
//! ```text
//! Publisher ──► broker ──► Source ──► Inlet (hub)
//! ```
//!
//! A source knows no session. It runs until its connection is lost; [`supervise`] then starts it
//! again. What is published here comes back through the source like everybody else's events, so
//! each is delivered once, in the broker's order.

mod embedded;
mod redis_link;
mod redis_publisher;
mod redis_pubsub;
mod redis_states;
mod state_keys;
mod supervisor;

use std::sync::Arc;

use async_trait::async_trait;

pub use embedded::Embedded;
pub use redis_pubsub::{RedisPubSub, RedisSettings};
pub use state_keys::StateKeys;
pub use supervisor::{Backoff, supervise};

use crate::event::{Channel, ChannelPattern, Payload};
use crate::hub::{Demand, Inlet, Stopped};

/// Where events come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its name in metrics and logs.
    fn name(&self) -> &'static str;

    /// What it listens to at all times. Other channels it listens to on demand, one by one; other
    /// patterns not at all.
    fn standing(&self) -> Vec<ChannelPattern>;

    /// Connects and hands every event to `inlet`, in order. Returns when the connection is lost;
    /// dropped when the gateway stops.
    async fn run(&self, inlet: &Inlet, demand: &Demand) -> Result<(), SourceError>;

    /// The way out.
    fn publisher(&self) -> Arc<dyn Publisher>;

    /// The keys that hold the last state of channels, if the broker has such.
    fn stored_states(&self) -> Option<Arc<dyn StoredStates>> {
        None
    }
}

/// Where what is published through this gateway goes.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Publishes all of `publications` or, on an error, none of them as far as is known. Those
    /// whose id was published before, within the window of the settings, are left out; their
    /// number is returned.
    async fn publish(&self, publications: Vec<Publication>) -> Result<usize, PublishError>;
}

/// Reads the last state of channels from where workers keep it.
#[async_trait]
pub trait StoredStates: Send + Sync {
    /// Reads the state of `channels` and hands to the hub what is news, before it returns.
    async fn refresh(&self, channels: Vec<Channel>) -> Result<(), SourceError>;
}

/// Something to publish.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Where.
    pub channel: Channel,
    /// What.
    pub payload: Payload,
    /// Tells repetitions from news.
    pub id: Option<String>,
}

/// Why a source has ended.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The gateway stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The broker said no, or the connection broke.
    #[error("{0}")]
    Redis(#[from] redis::RedisError),
    /// The connection was closed.
    #[error("the connection was closed")]
    Disconnected,
    /// The connection is up, but what is published does not arrive.
    #[error("the subscription is wedged: a probe did not come back")]
    Wedged,
    /// Events came in faster than they could be taken; some are lost.
    #[error("events came in faster than they could be taken")]
    Overrun,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker is away.
    #[error("the event source is not connected; nothing was published")]
    Unavailable,
    /// The broker did not say yes; it may or may not have published.
    #[error("the event source did not confirm: {0}")]
    Unconfirmed(String),
    /// The gateway stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}
