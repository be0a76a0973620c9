//! Redis Pub/Sub: patterns from the settings at all times, exact channels on demand, all
//! subscriptions on one connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{
    Client, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisResult, TlsCertificates,
    Value,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::redis_link::{CurrentLink, Item, Link};
use super::redis_publisher::RedisPublisher;
use super::redis_states::RedisStates;
use super::{Publisher, Source, SourceError, StateKeys, StoredStates};
use crate::event::{Channel, ChannelPattern, Epoch, Filter};
use crate::hub::{Changes, Demand, Inlet};

/// How to reach Redis and what to hear there.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://` or `rediss://`, with user, password and database.
    pub url: String,
    /// The ACL user, if it does not stand in the URL.
    pub username: Option<String>,
    /// The password, if it does not stand in the URL.
    pub password: Option<String>,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// What to listen to at all times.
    pub patterns: Vec<ChannelPattern>,
    /// Which key holds the last state of which channel.
    pub states: StateKeys,
    /// For connecting, and for the answer to a command.
    pub timeout: Duration,
    /// How often to see whether what is published arrives; zero: never.
    pub probe_interval: Duration,
    /// How long the id of something published is remembered.
    pub idempotency_window: Duration,
}

/// See the module.
pub struct RedisPubSub {
    client: Client,
    settings: Arc<RedisSettings>,
    link: CurrentLink,
    /// The pattern as Redis writes it, and its place in the settings.
    patterns: HashMap<String, usize>,
    /// A channel nobody else uses.
    probe: String,
}

impl std::fmt::Debug for RedisPubSub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the client: its URL holds the password.
        f.debug_struct("RedisPubSub").field("probe", &self.probe).finish_non_exhaustive()
    }
}

/// What the channels of probes start with, this gateway's and others'. They are no events.
const PROBES: &str = "sluice:probe:";

type Operation = BoxFuture<'static, Result<Done, SourceError>>;

/// Which operation is done.
#[derive(PartialEq, Eq)]
enum Done {
    /// One that follows the demand. They run one at a time, so that none overtakes another.
    Follow,
    Other,
}

impl RedisPubSub {
    /// The name in metrics and logs.
    pub const NAME: &'static str = "redis";

    /// Reads the settings; nothing is connected yet.
    ///
    /// # Errors
    /// When the URL or the certificates cannot be read.
    pub fn new(settings: RedisSettings) -> RedisResult<Self> {
        let info = settings.url.as_str().into_connection_info()?;
        let mut redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        if let Some(username) = &settings.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &settings.password {
            redis = redis.set_password(password);
        }
        let info = info.set_redis_settings(redis);
        let client = match &settings.ca {
            Some(ca) => {
                let tls = TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) };
                Client::build_with_tls(info, tls)?
            }
            None => Client::open(info)?,
        };
        let patterns = settings.patterns.iter().map(escaped).zip(0..).collect();
        let probe = format!("{PROBES}{}", Epoch::random());
        let link = CurrentLink::default();
        Ok(Self { client, settings: Arc::new(settings), link, patterns, probe })
    }

    fn states(&self) -> RedisStates {
        RedisStates { link: self.link.clone(), keys: self.settings.states.clone() }
    }

    async fn subscribe(&self, link: &Link) -> Result<(), SourceError> {
        let mut connection = link.connection.clone();
        if !self.patterns.is_empty() {
            let patterns: Vec<_> = self.patterns.keys().collect();
            connection.psubscribe(patterns).await?;
        }
        Ok(connection.subscribe(&self.probe).await?)
    }

    /// Hands on what has arrived. Returns whether it was our own probe.
    async fn hand_on(&self, item: Item, inlet: &Inlet) -> Result<bool, SourceError> {
        let PushInfo { kind, data } = match item {
            Item::Push(push) => push,
            Item::States { found, again, done } => {
                for (channel, payload) in found {
                    inlet.seed(channel, &payload, again).await?;
                }
                // Whoever asked may have gone away meanwhile.
                done.send(()).unwrap_or_default();
                return Ok(false);
            }
        };
        match (kind, data.as_slice()) {
            (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)]) => {
                if channel == self.probe.as_bytes() {
                    return Ok(true);
                }
                inlet.publish(&String::from_utf8_lossy(channel), payload).await?;
            }
            (
                PushKind::PMessage,
                [
                    Value::BulkString(pattern),
                    Value::BulkString(channel),
                    Value::BulkString(payload),
                ],
            ) => {
                let channel = String::from_utf8_lossy(channel);
                if !channel.starts_with(PROBES) && self.first_to_match(pattern, &channel) {
                    inlet.publish(&channel, payload).await?;
                }
            }
            (PushKind::Subscribe, [Value::BulkString(channel), ..]) => {
                if let Ok(channel) = Channel::new(&String::from_utf8_lossy(channel)) {
                    inlet.live(vec![Filter::Exact(channel)]).await?;
                }
            }
            (PushKind::Disconnection, _) => return Err(SourceError::Disconnected),
            _ => {}
        }
        Ok(false)
    }

    /// Redis delivers a message once per pattern that matches; only the first counts.
    fn first_to_match(&self, pattern: &[u8], channel: &str) -> bool {
        let Ok(channel) = Channel::new(channel) else { return true };
        let first = self.settings.patterns.iter().position(|known| known.matches(&channel));
        let this = str::from_utf8(pattern).ok().and_then(|pattern| self.patterns.get(pattern));
        first.as_ref() == this
    }
}

#[async_trait]
impl Source for RedisPubSub {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn standing(&self) -> Vec<ChannelPattern> {
        self.settings.patterns.clone()
    }

    /// Arms: what arrives; what is wanted; operations under way; the probe.
    async fn run(&self, inlet: &Inlet, demand: &Demand) -> Result<(), SourceError> {
        let (link, mut arrivals) = Link::open(&self.client, &self.settings).await?;
        self.subscribe(&link).await?;
        let demanded = listen(link.connection.clone(), demand.all()).await?;
        let _current = self.link.hold(link.clone());
        inlet.connected(demanded).await?;
        tracing::info!(source = Self::NAME, "source connected");

        let states = self.states();
        let listened = inlet.subscribed().await?;
        let mut operations = FuturesUnordered::<Operation>::new();
        operations.push(other(states.clone().look(listened.clone(), true)));
        operations.push(other(states.clone().look_later(listened)));

        let probing = !self.settings.probe_interval.is_zero();
        let mut probe = interval(self.settings.probe_interval.max(Duration::from_millis(1)));
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probe_sent: Option<Instant> = None;
        let mut following = false;
        loop {
            tokio::select! {
                item = arrivals.next() => {
                    if self.hand_on(item?, inlet).await? && let Some(sent) = probe_sent.take() {
                        inlet.probed(sent.elapsed());
                    }
                }
                () = demand.changed(), if !following => {
                    following = true;
                    let changes = demand.changes();
                    let added = changes.added.iter().filter_map(Filter::exact).cloned().collect();
                    operations.push(other(states.clone().look_later(added)));
                    operations.push(Box::pin(follow(link.connection.clone(), changes)));
                }
                Some(done) = operations.next() => following &= done? != Done::Follow,
                _ = probe.tick(), if probing => {
                    if probe_sent.replace(Instant::now()).is_some() {
                        return Err(SourceError::Wedged);
                    }
                    operations.push(other(send_probe(link.publishing.clone(), self.probe.clone())));
                }
            }
        }
    }

    fn publisher(&self) -> Arc<dyn Publisher> {
        let window = self.settings.idempotency_window;
        Arc::new(RedisPublisher { link: self.link.clone(), window })
    }

    fn stored_states(&self) -> Option<Arc<dyn StoredStates>> {
        let states = self.states();
        (!states.keys.is_empty()).then(|| Arc::new(states) as Arc<dyn StoredStates>)
    }
}

/// Subscribes to what is newly wanted and lets go of the rest. Redis confirms each channel in the
/// stream of messages, which is where the hub is told.
async fn follow(
    mut connection: MultiplexedConnection,
    changes: Changes,
) -> Result<Done, SourceError> {
    listen(connection.clone(), changes.added).await?;
    if !changes.dropped.is_empty() {
        connection.unsubscribe(names(&changes.dropped)).await?;
    }
    Ok(Done::Follow)
}

/// Subscribes to `filters` and returns those that Redis lets us have. One that it refuses (an ACL)
/// is logged and left: it is no reason to lose the others.
async fn listen(
    mut connection: MultiplexedConnection,
    filters: Vec<Filter>,
) -> Result<Vec<Filter>, SourceError> {
    if filters.is_empty() || connection.subscribe(names(&filters)).await.is_ok() {
        return Ok(filters);
    }
    let mut heard = Vec::new();
    for filter in filters {
        match connection.subscribe(filter.as_str()).await {
            Ok(()) => heard.push(filter),
            Err(error) if error.code() == Some("NOPERM") => {
                tracing::warn!(channel = %filter, %error, "Redis refuses a channel");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(heard)
}

fn names(filters: &[Filter]) -> Vec<&str> {
    filters.iter().map(Filter::as_str).collect()
}

async fn send_probe(
    mut connection: MultiplexedConnection,
    probe: String,
) -> Result<(), SourceError> {
    Ok(redis::cmd("PUBLISH").arg(probe).arg("1").query_async::<()>(&mut connection).await?)
}

fn other(work: impl Future<Output = Result<(), SourceError>> + Send + 'static) -> Operation {
    Box::pin(async { work.await.map(|()| Done::Other) })
}

/// Our patterns know only `*`; Redis's glob has more special characters.
fn escaped(pattern: &ChannelPattern) -> String {
    let mut text = String::new();
    for c in pattern.as_str().chars() {
        if matches!(c, '?' | '[' | ']' | '\\' | '^') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}
