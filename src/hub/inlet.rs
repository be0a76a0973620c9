//! The one way in: a source hands its events to the hub here, in its order.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Command, Stopped};
use crate::event::{Channel, Filter, Payload};
use crate::telemetry::Metrics;

/// What is let in.
#[derive(Debug, Clone, Copy)]
pub struct InletSettings {
    /// The largest payload, in bytes.
    pub max_event_bytes: usize,
}

/// A source's way into the hub. Waits while the hub is busy; that is the back-pressure a broker
/// feels.
#[derive(Debug, Clone)]
pub struct Inlet {
    hub: mpsc::Sender<Command>,
    source: &'static str,
    settings: InletSettings,
    received: IntCounter,
    metrics: Arc<Metrics>,
    /// Channels whose bad payloads have been logged. Bounded by [`LOGGED`].
    logged: Arc<Mutex<HashSet<String>>>,
    connected: Arc<AtomicBool>,
    /// How often the source has been connected.
    connections: Arc<watch::Sender<u64>>,
}

/// See [`Inlet::room`].
#[derive(Debug)]
pub struct Room<'a> {
    permit: mpsc::Permit<'a, Command>,
    received: &'a IntCounter,
}

impl Room<'_> {
    /// Takes in all of `events`, in their order.
    pub fn publish(self, events: Vec<(Channel, Payload)>) {
        self.received.inc_by(events.len() as u64);
        self.permit.send(Command::PublishAll(events));
    }
}

/// Channels that are logged once each; beyond that, bad payloads are counted only.
const LOGGED: usize = 1000;

impl Inlet {
    pub(super) fn new(
        hub: mpsc::Sender<Command>,
        source: &'static str,
        settings: InletSettings,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let received = metrics.events_received_total.with_label_values(&[source]);
        let metrics = Arc::clone(metrics);
        metrics.source_up.with_label_values(&[source]).set(0);
        Self {
            hub,
            source,
            settings,
            received,
            metrics,
            logged: Arc::default(),
            connected: Arc::default(),
            connections: Arc::default(),
        }
    }

    /// Takes in an event. What is not a channel name or not JSON is dropped, counted, and logged
    /// once per channel.
    pub async fn publish(&self, channel: &str, payload: &[u8]) -> Result<(), Stopped> {
        self.received.inc();
        match self.check(channel, payload) {
            Some((channel, payload)) => self.send(Command::Publish(channel, payload)).await,
            None => Ok(()),
        }
    }

    /// Waits until the hub can take in events that were checked before.
    pub async fn room(&self) -> Result<Room<'_>, Stopped> {
        let permit = self.hub.reserve().await.map_err(|_| Stopped)?;
        Ok(Room { permit, received: &self.received })
    }

    /// Takes in the last state of a channel from where it is stored, if it is news. `again`: also
    /// if it is what was known before a gap.
    pub async fn seed(&self, channel: Channel, payload: &[u8], again: bool) -> Result<(), Stopped> {
        match self.check(channel.as_str(), payload) {
            Some((channel, payload)) => self.send(Command::Seed { channel, payload, again }).await,
            None => Ok(()),
        }
    }

    /// The source is connected: it hears all that stands, and `filters`, from here on.
    pub async fn connected(&self, filters: Vec<Filter>) -> Result<(), Stopped> {
        self.metrics.source_up.with_label_values(&[self.source]).set(1);
        self.connected.store(true, Ordering::Relaxed);
        let told = self.send(Command::Connected(filters)).await;
        self.connections.send_modify(|connections| *connections += 1);
        told
    }

    /// The source hears `filters` from here on.
    pub async fn live(&self, filters: Vec<Filter>) -> Result<(), Stopped> {
        self.send(Command::Live(filters)).await
    }

    /// The source has lost its connection and hears nothing.
    pub async fn lost(&self) -> Result<(), Stopped> {
        self.metrics.source_up.with_label_values(&[self.source]).set(0);
        self.connected.store(false, Ordering::Relaxed);
        self.send(Command::Lost).await
    }

    /// A probe came back through the source after `took`.
    pub fn probed(&self, took: Duration) {
        let gauge = self.metrics.source_probe_seconds.with_label_values(&[self.source]);
        gauge.set(took.as_secs_f64());
    }

    /// Whether the source is connected.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Changes each time the source is connected and heard again: what was published before may
    /// not have been.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.subscribe()
    }

    /// The channels that somebody listens to by name.
    pub async fn subscribed(&self) -> Result<Vec<Channel>, Stopped> {
        let (reply, channels) = oneshot::channel();
        self.send(Command::Subscribed(reply)).await?;
        channels.await.map_err(|_| Stopped)
    }

    fn check(&self, channel: &str, payload: &[u8]) -> Option<(Channel, Payload)> {
        let (reason, error) = match Channel::new(channel) {
            Err(error) => ("channel", error.to_string()),
            Ok(name) => match Payload::parse(payload, self.settings.max_event_bytes) {
                Ok(payload) => return Some((name, payload)),
                Err(error) => ("payload", error.to_string()),
            },
        };
        self.metrics.events_dropped_total.with_label_values(&[reason]).inc();
        let mut logged = self.logged.lock();
        if logged.len() < LOGGED && logged.insert(channel.to_owned()) {
            tracing::warn!(source = self.source, channel, bytes = payload.len(), %error,
                "event dropped; further ones of this channel are only counted");
        }
        None
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.hub.send(command).await.map_err(|_| Stopped)
    }
}
