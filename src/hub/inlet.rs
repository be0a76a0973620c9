//! The one way in: a source hands its events to the hub here, in its order.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGaugeVec};
use tokio::sync::{mpsc, oneshot, watch};

use super::demand::Ticket;
use super::rule::{ChannelRule, ObjectChannels};
use super::{Command, Stopped};
use crate::event::{Channel, ChannelPattern, Event, Payload, Position, Verdicts};
use crate::telemetry::{Flood, Metrics};

/// What is let in.
#[derive(Debug, Clone)]
pub struct InletSettings {
    /// The largest payload, in bytes.
    pub max_event_bytes: usize,
    /// Channels whose payloads have to be objects.
    pub objects: ObjectChannels,
    /// Channels with a stream that tells something else than the payload.
    pub reshaped: Vec<ChannelPattern>,
    /// The streams that are over at some time are among them.
    pub rules: Arc<[ChannelRule]>,
}

/// What a publisher said, ready to be let in.
#[derive(Debug)]
pub struct Incoming {
    /// Where.
    pub channel: Channel,
    payload: Payload,
    verdicts: Verdicts,
    is_reshaped: bool,
}

impl Incoming {
    /// One that means nothing to the end of any stream.
    #[cfg(test)]
    pub(super) fn plain(channel: Channel, payload: Payload) -> Self {
        Self { channel, payload, verdicts: Verdicts::default(), is_reshaped: true }
    }

    pub(super) fn at(self, position: Position) -> Event {
        let mut event = Event::new(self.channel, self.payload, position);
        event.verdicts = self.verdicts;
        event.is_reshaped = self.is_reshaped;
        event
    }
}

/// A source's way into the hub. Waits while the hub is busy; that is the back-pressure a broker
/// feels.
#[derive(Debug, Clone)]
pub struct Inlet {
    hub: mpsc::Sender<Command>,
    source: &'static str,
    settings: Arc<InletSettings>,
    received: IntCounter,
    metrics: Arc<Metrics>,
    logged: Arc<Logged>,
    listening: Arc<Mutex<Condition>>,
    publishing: Arc<Mutex<Condition>>,
    /// How the reading of stored states is doing; `None`: none have been read.
    reading: Arc<Mutex<Option<Condition>>>,
    /// How often the source has been connected.
    connections: Arc<watch::Sender<u64>>,
}

/// How a link of the source is doing.
#[derive(Debug, Clone)]
pub struct Condition {
    /// Since when it has been as it is.
    pub since: SystemTime,
    /// Why it is down; `None`: it is up.
    pub fault: Option<Arc<str>>,
}

/// See [`Inlet::room`].
#[derive(Debug)]
pub struct Room<'a> {
    permit: mpsc::Permit<'a, Command>,
    received: &'a IntCounter,
}

impl Room<'_> {
    /// Takes in all of `events`, in their order.
    pub fn publish(self, events: Vec<Incoming>) {
        self.received.inc_by(events.len() as u64);
        self.permit.send(Command::PublishAll(events));
    }
}

/// The faults that have been logged, each with the beginning of its channel's name.
#[derive(Debug)]
struct Logged {
    known: Mutex<HashSet<(&'static str, String)>>,
    flood: Flood,
}

/// Channels in one command, at most: the hub takes a command in one go.
const AT_ONCE: usize = 128;

/// Faults that are logged once for each channel. Beyond so many they begin anew.
const LOGGED: usize = 1000;
/// Lines about different channels in 10 s.
const LINES: u32 = 20;
/// Bytes of a channel's name in the log: one that cannot be a name may be of any length.
const LOGGED_BYTES: usize = 64;

/// Why something was not let in.
struct Bad {
    /// The label in the metrics.
    reason: &'static str,
    /// The channel, if it is one: it may have listeners.
    channel: Option<Channel>,
    error: String,
}

impl Condition {
    /// Not connected yet.
    fn new() -> Self {
        Self { since: SystemTime::now(), fault: Some("not connected yet".into()) }
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.fault.is_none()
    }

    fn change(&mut self, fault: Option<Arc<str>>) {
        if self.fault.is_some() != fault.is_some() {
            self.since = SystemTime::now();
        }
        self.fault = fault;
    }
}

/// The labels of what is not let in.
pub(crate) const DROP_REASONS: [&str; 3] = ["channel", "payload", "not_object"];

impl Inlet {
    pub(super) fn new(
        hub: mpsc::Sender<Command>,
        source: &'static str,
        settings: InletSettings,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let received = metrics.events_received_total.with_label_values(&[source]);
        let metrics = Arc::clone(metrics);
        for gauge in [&metrics.source_up, &metrics.publishing_up] {
            gauge.with_label_values(&[source]).set(0);
        }
        Self {
            hub,
            source,
            settings: Arc::new(settings),
            received,
            metrics,
            logged: Arc::new(Logged { known: Mutex::default(), flood: Flood::of(LINES) }),
            listening: Arc::new(Mutex::new(Condition::new())),
            publishing: Arc::new(Mutex::new(Condition::new())),
            reading: Arc::default(),
            connections: Arc::default(),
        }
    }

    /// Takes in an event. What is not a channel name, not JSON, or not what the streams of its
    /// channel can show, is dropped, counted, and logged once per channel; whoever listens to the
    /// channel is told.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn publish(&self, channel: &[u8], payload: &[u8]) -> Result<(), Stopped> {
        self.received.inc();
        match self.check(channel, payload) {
            Ok(incoming) => self.send(Command::Publish(incoming)).await,
            Err(bad) => {
                self.metrics.events_dropped_total.with_label_values(&[bad.reason]).inc();
                self.log(channel, payload.len(), &bad);
                match bad.channel {
                    Some(channel) => self.send(Command::Dropped(channel)).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Waits until the hub can take in events that were checked before.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn room(&self) -> Result<Room<'_>, Stopped> {
        let permit = self.hub.reserve().await.map_err(|_| Stopped)?;
        Ok(Room { permit, received: &self.received })
    }

    /// The payload as the streams of `channel` read it; `None` if none of them can.
    pub fn read(&self, channel: &Channel, payload: Payload) -> Option<Payload> {
        self.settings.objects.read(channel, payload)
    }

    /// Finds out what the payload means to the streams of `channel`, so that the hub need not.
    pub fn incoming(&self, channel: Channel, payload: Payload) -> Incoming {
        let rules = self.settings.rules.iter();
        let shapes = rules.filter_map(|rule| Some((rule, rule.shape.as_ref()?)));
        let shapes = shapes.filter(|(rule, _)| rule.is_for(&channel));
        let verdicts = shapes.map(|(_, shape)| (shape.id(), shape.verdict(&channel, &payload)));
        let verdicts = verdicts.collect();
        let mut reshaped = self.settings.reshaped.iter();
        let is_reshaped = reshaped.any(|pattern| pattern.matches(&channel));
        Incoming { channel, payload, verdicts, is_reshaped }
    }

    /// Takes in the last state of a channel from where it is stored, if it is news. `again`: also
    /// if it is what was known before a gap. Returns why it cannot be read, if so.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn seed(
        &self,
        channel: &Channel,
        payload: &[u8],
        again: bool,
    ) -> Result<Option<String>, Stopped> {
        match self.payload(channel, payload) {
            Ok(payload) => {
                let incoming = self.incoming(channel.clone(), payload);
                self.send(Command::Seed { incoming, again }).await?;
                Ok(None)
            }
            Err((_, error)) => Ok(Some(error)),
        }
    }

    /// The source is connected: it hears all that stands but `refused` from here on.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn connected(&self, refused: Vec<ChannelPattern>) -> Result<(), Stopped> {
        self.change(&self.listening, &self.metrics.source_up, None);
        let told = self.send(Command::Connected { refused }).await;
        self.connections.send_modify(|connections| *connections += 1);
        told
    }

    /// The source hears these channels from here on.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn live(&self, channels: Vec<(Channel, Ticket)>) -> Result<(), Stopped> {
        for some in channels.chunks(AT_ONCE) {
            self.send(Command::Live(some.to_vec())).await?;
        }
        Ok(())
    }

    /// The broker does not allow the source to hear these channels.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn refused(&self, channels: Vec<(Channel, Ticket)>) -> Result<(), Stopped> {
        for some in channels.chunks(AT_ONCE) {
            self.send(Command::Refused(some.to_vec())).await?;
        }
        Ok(())
    }

    /// The source has lost its connection and hears nothing.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn lost(&self, fault: &str) -> Result<(), Stopped> {
        self.change(&self.listening, &self.metrics.source_up, Some(fault));
        self.send(Command::Lost).await
    }

    /// What is published here goes out.
    pub fn publishes(&self) {
        self.change(&self.publishing, &self.metrics.publishing_up, None);
    }

    /// What is published here does not go out.
    pub fn publishes_not(&self, fault: &str) {
        self.change(&self.publishing, &self.metrics.publishing_up, Some(fault));
    }

    /// Stored states can be read.
    pub fn reads(&self) {
        self.change_reading(None);
    }

    /// Stored states cannot be read.
    pub fn reads_not(&self, fault: &str) {
        self.change_reading(Some(fault));
    }

    /// A probe came back through the source after `took`.
    pub fn probed(&self, took: Duration) {
        let gauge = self.metrics.source_probe_seconds.with_label_values(&[self.source]);
        gauge.set(took.as_secs_f64());
    }

    /// Whether the source is connected.
    pub fn is_connected(&self) -> bool {
        self.listening.lock().is_up()
    }

    /// How listening is doing.
    pub fn listening(&self) -> Condition {
        self.listening.lock().clone()
    }

    /// How publishing is doing.
    pub fn publishing(&self) -> Condition {
        self.publishing.lock().clone()
    }

    /// How the reading of stored states is doing; `None`: none have been read.
    pub fn reading(&self) -> Option<Condition> {
        self.reading.lock().clone()
    }

    /// Changes each time the source is connected and heard again: what was published before may
    /// not have been.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.subscribe()
    }

    /// The channels that somebody listens to by name and that the source hears at all times.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn subscribed(&self) -> Result<Vec<Channel>, Stopped> {
        let (reply, channels) = oneshot::channel();
        self.send(Command::Subscribed(reply)).await?;
        channels.await.map_err(|_| Stopped)
    }

    /// The metrics of the gateway, for what a source counts itself.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn change(&self, condition: &Mutex<Condition>, gauge: &IntGaugeVec, fault: Option<&str>) {
        gauge.with_label_values(&[self.source]).set(i64::from(fault.is_none()));
        condition.lock().change(fault.map(Into::into));
    }

    fn change_reading(&self, fault: Option<&str>) {
        let up = self.metrics.states_up.with_label_values(&[self.source]);
        up.set(i64::from(fault.is_none()));
        let mut reading = self.reading.lock();
        reading.get_or_insert_with(Condition::new).change(fault.map(Into::into));
    }

    fn check(&self, channel: &[u8], payload: &[u8]) -> Result<Incoming, Bad> {
        let no_channel = |error| Bad { reason: "channel", channel: None, error };
        let name = str::from_utf8(channel).map_err(|_| "its name is not UTF-8".to_owned());
        let name = name.and_then(|name| Channel::new(name).map_err(|error| error.to_string()));
        let channel = name.map_err(no_channel)?;
        match self.payload(&channel, payload) {
            Ok(payload) => Ok(self.incoming(channel, payload)),
            Err((reason, error)) => Err(Bad { reason, channel: Some(channel), error }),
        }
    }

    /// The payload, or the label of what is wrong with it and what that is.
    fn payload(
        &self,
        channel: &Channel,
        payload: &[u8],
    ) -> Result<Payload, (&'static str, String)> {
        let parsed = Payload::parse_leniently(payload, self.settings.max_event_bytes);
        let (payload, repaired) = parsed.map_err(|error| ("payload", error.to_string()))?;
        self.metrics.events_repaired_total.inc_by(u64::from(repaired));
        let no_object = || ("not_object", "the payload is not an object".to_owned());
        self.read(channel, payload).ok_or_else(no_object)
    }

    fn log(&self, channel: &[u8], bytes: usize, bad: &Bad) {
        let beginning = channel.get(..LOGGED_BYTES).unwrap_or(channel);
        let beginning = String::from_utf8_lossy(beginning).into_owned();
        let fault = (bad.reason, beginning.clone());
        let mut known = self.logged.known.lock();
        if known.contains(&fault) {
            return;
        }
        let Some(faults) = self.logged.flood.count() else { return };
        if known.len() == LOGGED {
            known.clear();
        }
        known.insert(fault);
        drop(known);
        // Of other channels, since the line before.
        let others = faults - 1;
        tracing::warn!(
            source = self.source,
            channel = beginning,
            bytes,
            error = bad.error,
            others,
            "event dropped; further ones of this channel with this fault are only counted"
        );
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.hub.send(command).await.map_err(|_| Stopped)
    }
}
