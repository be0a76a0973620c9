//! Redis Pub/Sub: patterns from the settings at all times, exact channels on demand, all
//! subscriptions on one connection.
//!
//! ```text
//! subscriptions ──► arrivals ──► run ──► Inlet          redis_arrivals, redis_subscriptions
//! stored states ──► reading ───────────► Inlet          redis_states, redis_reading
//! Publisher ──────► publishing link ──► Redis           redis_publisher, redis_publishing
//! ```
//!
//! Each of the three has a connection of its own, which is made anew when it is lost. The loss of one
//! costs the others nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, Value, pipe};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::redis_arrivals::{self, Arrivals, Item};
use super::redis_connect::{Connector, RedisSettingsError};
use super::redis_publisher::RedisPublisher;
use super::redis_publishing::Publishing;
use super::redis_settings::RedisSettings;
use super::redis_states::RedisStates;
use super::redis_subscriptions::{Live, Step, Subscriptions};
use super::{Publisher, Source, SourceError, StoredStates};
use crate::event::{Channel, ChannelPattern, Epoch, OWN_CHANNELS};
use crate::hub::{Demand, Inlet};
use crate::shutdown::Stop;
use crate::telemetry::Flood;

/// See the module.
pub struct RedisPubSub {
    connector: Arc<Connector>,
    settings: RedisSettings,
    stop: Stop,
    subscriptions: Mutex<Subscriptions>,
    states: RedisStates,
    publishing: Publishing,
    /// A channel nobody else uses: for probes, and for the fences of stored states.
    own_channel: String,
    refusals: Flood,
}

impl fmt::Debug for RedisPubSub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without what holds the password.
        f.debug_struct("RedisPubSub").field("channel", &self.own_channel).finish_non_exhaustive()
    }
}

/// The connection of the subscriptions, as long as it lasts.
struct Link {
    connection: MultiplexedConnection,
    arrivals: Arrivals,
    /// The patterns that Redis allows, as it writes them, in the order of the settings.
    patterns: Vec<(String, ChannelPattern)>,
    probes: Probes,
    /// Ends what reads it.
    _lasting: DropGuard,
}

/// What finds a subscription that hangs on an open connection: the last that was published, and when.
struct Probes(Mutex<(u64, Instant)>);

/// A command that has been answered.
enum Done {
    Subscribed { refused: Vec<Channel> },
    Unsubscribed(Vec<Channel>),
}

impl RedisPubSub {
    /// The name in metrics and logs.
    pub const NAME: &'static str = "redis";

    /// Reads the settings; nothing is connected yet. Tasks are started on `stop`.
    ///
    /// # Errors
    /// When the URL or the certificates cannot be read.
    pub fn new(settings: RedisSettings, stop: &Stop) -> Result<Self, RedisSettingsError> {
        let connector = Arc::new(Connector::new(&settings)?);
        let own_channel = format!("{OWN_CHANNELS}{}", Epoch::random());
        let RedisSettings { backoff, probe_interval, timeout, max_event_bytes, .. } = settings;
        let states = RedisStates::new(
            Arc::clone(&connector),
            settings.states.clone(),
            own_channel.clone(),
            max_event_bytes,
            (timeout, backoff),
        );
        Ok(Self {
            publishing: Publishing::new(Arc::clone(&connector), backoff, probe_interval),
            connector,
            settings,
            stop: stop.clone(),
            subscriptions: Mutex::default(),
            states,
            own_channel,
            refusals: Flood::default(),
        })
    }

    /// Connects, and subscribes to our own channel and to the patterns. Returns the patterns that
    /// Redis does not allow.
    async fn open(&self) -> Result<(Link, Vec<ChannelPattern>), SourceError> {
        let arrivals = Arrivals::default();
        let (queue, own) = (arrivals.clone(), self.own_channel.clone());
        let config = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
            queue.push(push, &own);
            Ok::<(), ()>(())
        });
        let (connection, driver, server) = self.connector.connect(config).await?;
        // A task of its own: Redis is read whatever the hub is doing.
        let lasting = CancellationToken::new();
        let until = lasting.clone();
        self.stop.spawn(async move {
            until.run_until_cancelled(driver).await;
        });
        let (patterns, probes) = (Vec::new(), Probes(Mutex::new((0, Instant::now()))));
        let lasting = lasting.drop_guard();
        let mut link = Link { connection, arrivals, patterns, probes, _lasting: lasting };
        let refused = self.subscribe(&mut link).await?;
        tracing::info!(source = Self::NAME, address = %self.connector, user = self.connector.user(),
            role = server.role, version = server.version, "source connected");
        Ok((link, refused))
    }

    async fn subscribe(&self, link: &mut Link) -> Result<Vec<ChannelPattern>, SourceError> {
        let mut commands = pipe();
        commands.cmd("SUBSCRIBE").arg(&self.own_channel);
        commands.cmd("PUBLISH").arg(&self.own_channel).arg("");
        for pattern in &self.settings.patterns {
            commands.cmd("PSUBSCRIBE").arg(escaped(pattern));
        }
        let answers = link.connection.send_packed_commands(&commands, 0, commands.len()).await?;
        let mut answers = answers.into_iter();
        for command in ["subscribe to", "publish to"] {
            if let Some(Value::ServerError(error)) = answers.next() {
                let right = format!("{command} {OWN_CHANNELS}*");
                return Err(SourceError::Right { right, error: error.to_string() });
            }
        }
        let mut refused = Vec::new();
        for (pattern, answer) in self.settings.patterns.iter().zip(answers) {
            match answer {
                Value::ServerError(error) if error.code() == "NOPERM" => {
                    tracing::warn!(%pattern, %error, "pattern refused by Redis");
                    refused.push(pattern.clone());
                }
                Value::ServerError(error) => return Err(redis::RedisError::from(error).into()),
                _ => link.patterns.push((escaped(pattern), pattern.clone())),
            }
        }
        Ok(refused)
    }

    /// Hands on what has arrived.
    async fn hand_on(&self, item: Item, link: &Link, inlet: &Inlet) -> Result<(), SourceError> {
        match item {
            Item::Message { channel, payload } if channel == self.own_channel.as_bytes() => {
                let number = redis_arrivals::probe_number(&payload);
                if let Some(took) = number.and_then(|number| link.probes.took(number)) {
                    inlet.probed(took);
                }
                self.states.arrived(&payload);
            }
            // A pattern that has been allowed again hears it too.
            Item::Message { channel, payload } => {
                if link.first_pattern(&channel).is_none() {
                    inlet.publish(&channel, &payload).await?;
                }
            }
            Item::Matched { pattern, channel, payload } => {
                let first = link.first_pattern(&channel);
                if !channel.starts_with(OWN_CHANNELS.as_bytes())
                    && first.is_none_or(|p| p == pattern)
                {
                    inlet.publish(&channel, &payload).await?;
                }
            }
            Item::Subscribed(channels) => {
                let live = self.subscriptions.lock().subscribed(channels);
                self.tell_live(live, inlet).await?;
            }
        }
        Ok(())
    }

    async fn tell_live(&self, live: Vec<Live>, inlet: &Inlet) -> Result<(), SourceError> {
        if live.is_empty() {
            return Ok(());
        }
        let again = live.iter().filter(|live| live.again).map(|live| live.channel.clone());
        let again: Vec<_> = again.collect();
        let channels = live.iter().map(|live| live.channel.clone()).collect();
        let live = live.into_iter().map(|Live { channel, ticket, .. }| (channel, ticket));
        inlet.live(live.collect()).await?;
        self.states.look(&again, true);
        self.states.look_later(channels);
        Ok(())
    }

    async fn tell_refused(&self, channels: Vec<Channel>, inlet: &Inlet) -> Result<(), SourceError> {
        for channel in &channels {
            if let Some(times) = self.refusals.count() {
                tracing::warn!(%channel, times, "channels refused by Redis (NOPERM); this is the last");
            }
        }
        count_refusals(inlet, "channel", channels.len());
        let refused = self.subscriptions.lock().refused(channels);
        Ok(inlet.refused(refused).await?)
    }

    /// The next command, if there is one to send.
    fn next_command(
        &self,
        link: &Link,
    ) -> Option<impl Future<Output = Result<Done, SourceError>> + Send + use<>> {
        let step = self.subscriptions.lock().next()?;
        let connection = link.connection.clone();
        Some(async move {
            match step {
                Step::Subscribe(channels) => subscribe(connection, channels).await,
                Step::Unsubscribe(channels) => unsubscribe(connection, channels).await,
            }
        })
    }

    /// Publishes a probe now and then, and looks whether the one before has come back, and whether
    /// Redis is still the one that is written to. Returns when that is not so.
    async fn watch(&self, link: &Link) -> SourceError {
        let every = self.settings.probe_interval;
        if every.is_zero() {
            return std::future::pending().await;
        }
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if link.arrivals.last_probe() < link.probes.last() {
                return SourceError::Wedged;
            }
            let mut own = link.connection.clone();
            if let Err(error) = self.connector.master(&mut own).await {
                return error;
            }
            let mut probe = redis::cmd("PUBLISH");
            probe.arg(&self.own_channel).arg(redis_arrivals::probe(link.probes.next()));
            // On the way of what is published: that may lead to another server by now.
            let publishing = self.publishing.connection();
            let mut sent = publishing.is_some();
            if let Some(mut publishing) = publishing
                && let Err(error) = probe.query_async::<()>(&mut publishing).await
            {
                self.publishing.report(&error);
                sent = false;
            }
            if !sent && let Err(error) = probe.query_async::<()>(&mut own).await {
                return error.into();
            }
        }
    }
}

#[async_trait]
impl Source for RedisPubSub {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn address(&self) -> String {
        self.connector.to_string()
    }

    fn standing(&self) -> Vec<ChannelPattern> {
        self.settings.patterns.clone()
    }

    /// Arms: what arrives; what is wanted; a command that is answered; the watch.
    async fn run(&self, inlet: &Inlet, demand: &Demand) -> Result<(), SourceError> {
        self.subscriptions.lock().lost();
        let (link, refused) = self.open().await?;
        count_refusals(inlet, "pattern", refused.len());
        inlet.connected(refused).await?;
        self.publishing.hurry();
        self.states.begin();
        let _ended = StatesGuard(&self.states);
        let standing = inlet.subscribed().await?;
        self.states.look(&standing, true);
        self.states.look_later(standing);

        let watch = self.watch(&link);
        // One at a time, so that none overtakes another.
        let mut command = FuturesUnordered::new();
        tokio::pin!(watch);
        loop {
            if command.is_empty() {
                command.extend(self.next_command(&link));
            }
            tokio::select! {
                items = link.arrivals.next() => {
                    for item in items? {
                        self.hand_on(item, &link, inlet).await?;
                    }
                }
                () = demand.changed() => {
                    let live = self.subscriptions.lock().follow(demand.changes());
                    self.tell_live(live, inlet).await?;
                }
                Some(done) = command.next() => match done? {
                    Done::Subscribed { refused } => self.tell_refused(refused, inlet).await?,
                    Done::Unsubscribed(channels) => self.subscriptions.lock().unsubscribed(channels),
                },
                error = &mut watch => return Err(error),
            }
        }
    }

    async fn maintain(&self, inlet: &Inlet) {
        tokio::select! {
            never = self.publishing.keep(inlet) => never,
            never = self.states.keep(inlet) => never,
        }
    }

    fn publisher(&self) -> Arc<dyn Publisher> {
        let window = self.settings.idempotency_window;
        Arc::new(RedisPublisher::new(self.publishing.clone(), window))
    }

    fn stored_states(&self) -> Option<Arc<dyn StoredStates>> {
        (!self.states.is_empty()).then(|| Arc::new(self.states.clone()) as Arc<dyn StoredStates>)
    }
}

impl Link {
    /// Redis delivers a message once for each pattern that matches; only the first counts.
    fn first_pattern(&self, channel: &[u8]) -> Option<&[u8]> {
        let name = str::from_utf8(channel).ok()?;
        let first = self.patterns.iter().find(|(_, pattern)| pattern.matches_name(name));
        first.map(|(escaped, _)| escaped.as_bytes())
    }
}

impl Probes {
    /// The number of the last that was sent.
    fn last(&self) -> u64 {
        self.0.lock().0
    }

    /// The number of one that is sent now.
    fn next(&self) -> u64 {
        let mut last = self.0.lock();
        *last = (last.0 + 1, Instant::now());
        last.0
    }

    /// How long the last took, if it is this one that has come back.
    fn took(&self, number: u64) -> Option<Duration> {
        let (last, sent) = *self.0.lock();
        (number == last).then(|| sent.elapsed())
    }
}

/// Nobody waits for stored states that cannot be put in order.
struct StatesGuard<'a>(&'a RedisStates);

impl Drop for StatesGuard<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn count_refusals(inlet: &Inlet, kind: &str, count: usize) {
    let refusals = &inlet.metrics().source_refusals_total;
    refusals.with_label_values(&[RedisPubSub::NAME, kind]).inc_by(count as u64);
}

/// Subscribes to `channels`. Redis confirms each of them among the messages, which is where the hub is
/// told, or refuses all because of one: then each is asked for by itself.
async fn subscribe(
    mut connection: MultiplexedConnection,
    channels: Vec<Channel>,
) -> Result<Done, SourceError> {
    match connection.subscribe(names(&channels)).await {
        Ok(()) => return Ok(Done::Subscribed { refused: Vec::new() }),
        Err(error) if error.code() == Some("NOPERM") => {}
        Err(error) => return Err(error.into()),
    }
    let mut commands = pipe();
    for channel in &channels {
        commands.cmd("SUBSCRIBE").arg(channel.as_str());
    }
    let answers = connection.send_packed_commands(&commands, 0, commands.len()).await?;
    let mut refused = Vec::new();
    for (channel, answer) in channels.into_iter().zip(answers) {
        match answer {
            Value::ServerError(error) if error.code() == "NOPERM" => refused.push(channel),
            Value::ServerError(error) => return Err(redis::RedisError::from(error).into()),
            _ => {}
        }
    }
    Ok(Done::Subscribed { refused })
}

async fn unsubscribe(
    mut connection: MultiplexedConnection,
    channels: Vec<Channel>,
) -> Result<Done, SourceError> {
    match connection.unsubscribe(names(&channels)).await {
        // What comes of channels that nobody wants is left.
        Err(error) if error.code() == Some("NOPERM") => {}
        done => done?,
    }
    Ok(Done::Unsubscribed(channels))
}

fn names(channels: &[Channel]) -> Vec<&str> {
    channels.iter().map(Channel::as_str).collect()
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
