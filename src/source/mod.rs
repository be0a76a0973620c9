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
mod redis_arrivals;
mod redis_check;
mod redis_connect;
mod redis_publisher;
mod redis_publishing;
mod redis_pubsub;
mod redis_reading;
mod redis_settings;
mod redis_states;
mod redis_subscriptions;
mod redis_tls;
mod state_keys;
mod supervisor;
mod turns;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

pub use embedded::Embedded;
pub use redis_check::{ExamineError, Examined, examine};
pub use redis_connect::RedisSettingsError;
pub use redis_pubsub::RedisPubSub;
pub use redis_settings::RedisSettings;
pub use redis_tls::{RedisTls, RedisTlsError};
pub use state_keys::StateKeys;
pub use supervisor::{Backoff, supervise};

use crate::event::{Channel, ChannelPattern, Payload};
use crate::hub::{Demand, Inlet, Stopped};

/// Where events come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its name in metrics and logs.
    fn name(&self) -> &'static str;

    /// Where its events come from, for people; without secrets.
    fn address(&self) -> String;

    /// What it listens to at all times. Other channels it listens to on demand, one by one; other
    /// patterns not at all.
    fn standing(&self) -> Vec<ChannelPattern>;

    /// Connects and hands every event to `inlet`, in order. Returns when the connection is lost;
    /// dropped when the gateway stops.
    ///
    /// # Errors
    /// Why it has ended.
    async fn run(&self, inlet: &Inlet, demand: &Demand) -> Result<(), SourceError>;

    /// Keeps up what is not the hearing of events, such as a way out of its own. Runs beside
    /// [`Source::run`], for as long as the gateway.
    async fn maintain(&self, inlet: &Inlet) {
        inlet.publishes();
        std::future::pending::<()>().await;
    }

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
    /// Waits for a moment if there is no way out, but there was one a moment ago. For those whose
    /// publications have no order among them: two that wait may overtake each other.
    async fn ready(&self) {}

    /// Publishes all of `publications` or, on an error, none of them as far as is known. Those
    /// whose id was published before, within the window of the settings, are left out; their
    /// number is returned.
    ///
    /// # Errors
    /// When nothing was published, or only some, or when that is not known.
    async fn publish(&self, publications: Vec<Publication>) -> Result<usize, PublishError>;
}

/// Reads the last state of channels from where workers keep it.
#[async_trait]
pub trait StoredStates: Send + Sync {
    /// Reads the state of `channels` and hands to the hub what is news, before it returns. Returns the
    /// channels whose state cannot be read, or not `until` then. The reading goes on after that.
    async fn refresh(&self, channels: Vec<Channel>, until: Instant) -> Vec<Channel>;
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
    #[error("{}", redis_connect::in_words(.0))]
    Redis(#[from] redis::RedisError),
    /// There is no way to the broker.
    #[error("{0}")]
    Connect(std::io::Error),
    /// The broker does not answer.
    #[error("no answer in time")]
    Silent,
    /// Nobody answers a greeting of TLS.
    #[error("no answer to TLS in time: perhaps the port does not speak TLS")]
    SilentTls,
    /// What answers speaks another protocol.
    #[error("what answers is not Redis")]
    NoRedis,
    /// The broker wants a password, and none is set.
    #[error("Redis asks for a password: set redis.password or redis.password_file")]
    NoPassword,
    /// The broker does not take the password.
    #[error("Redis does not take the password of user {0} (WRONGPASS)")]
    WrongPassword(String),
    /// The connection was closed.
    #[error("the connection was closed")]
    Disconnected,
    /// It speaks no RESP3.
    #[error("this server does not speak RESP3: Redis 6 or later is needed")]
    NoResp3,
    /// It does not take what is published: a replica, for example.
    #[error("this server is a {0}: a gateway needs the master")]
    NoMaster(String),
    /// A right is missing without which nothing works.
    #[error("the user may not {right}: {error}")]
    Right {
        /// What the user may not do.
        right: String,
        /// What the broker says.
        error: String,
    },
    /// The file with the password cannot be read.
    #[error("redis.password_file: {0}")]
    PasswordFile(String),
    /// The connection is up, but what is published does not arrive.
    #[error("the subscription is wedged: a probe did not come back")]
    Wedged,
    /// What was published behind stored states does not arrive.
    #[error("a fence did not come back: subscriptions and keys may be those of different servers")]
    NoFence,
    /// Events came in faster than they could be taken; some are lost.
    #[error("events came in faster than they could be taken")]
    Overrun,
}

/// Why something was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker is away, or cannot publish for now.
    #[error("{0}; nothing was published")]
    Unavailable(String),
    /// The broker did not say yes; it may or may not have published.
    #[error("the event source did not confirm: {0}")]
    Unconfirmed(String),
    /// The broker does not allow it.
    #[error("{}: {message}; nothing was published", refused(.channel.as_ref()))]
    Refused {
        /// The channel, if it is known which.
        channel: Option<Channel>,
        /// What the broker says.
        message: String,
    },
    /// Another payload was published under an id.
    #[error("another payload was published under the id {id:?}; nothing was published")]
    Conflict {
        /// The id.
        id: String,
    },
    /// The first were published, the others were not.
    #[error("of {total} events the first {published} were published: {cause}")]
    Partly {
        /// How many were.
        published: usize,
        /// How many there are.
        total: usize,
        /// Why the others were not.
        cause: Box<Self>,
    },
    /// The gateway stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

fn refused(channel: Option<&Channel>) -> String {
    channel.map_or_else(|| "refused".to_owned(), |channel| format!("channel {channel} refused"))
}
