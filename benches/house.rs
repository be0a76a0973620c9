//! What the benches share: a hub with one shard on one thread, and events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice::event::{Channel, Epoch, Event, Filter, Payload};
use sluice::hub::{
    Arrival, HistoryBounds, Hub, HubSettings, Inlet, InletSettings, Lingering, NOBODY,
    ObjectChannels, Resume, SnapshotBounds, Subscriber,
};
use sluice::settings::Settings;
use sluice::shutdown::Stop;
use sluice::telemetry::Metrics;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// A report of about 200 bytes that every shape takes.
const REPORT: &str = r#"{"job_id":"job_1","status":"processing","progress":0.5,"stage":"rendering",
    "message":"Half way","timestamp":"2026-01-01T00:00:00.000Z",
    "metadata":{"frame":150,"frames":300,"worker":"render-7"}}"#;

/// A hub with one shard, with the default settings. Everything runs on the thread that measures, so
/// that no thread has to be woken.
pub(crate) struct House {
    pub(crate) settings: Settings,
    pub(crate) metrics: Arc<Metrics>,
    runtime: Runtime,
    hub: Hub,
    inlet: Inlet,
    heard: Heard,
}

/// How many events all who listen have got together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<AtomicU64>);

impl Heard {
    pub(crate) fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl House {
    pub(crate) fn new() -> Self {
        let settings = Settings::load(None, []).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let (hub, _demand) = {
            let _entered = runtime.enter();
            Hub::start(hub_settings(&settings), settings.server.drain, &metrics, &Stop::new())
        };
        let objects = ObjectChannels::default();
        let max_event_bytes = settings.events.max_bytes;
        let inlet_settings =
            InletSettings { max_event_bytes, objects, reshaped: Vec::new(), rules: Arc::from([]) };
        let inlet = hub.inlet("bench", inlet_settings, &metrics);
        Self { settings, metrics, runtime, hub, inlet, heard: Heard::default() }
    }

    /// For those who listen to count in.
    pub(crate) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    pub(crate) fn wait_for<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Lets somebody in who listens to `filter`.
    pub(crate) fn arrive(&self, subscriber: impl Subscriber + 'static, filter: &Filter) {
        let arrival = Arrival {
            subscriber: Box::new(subscriber),
            by: NOBODY,
            filters: Arc::from([filter.clone()]),
            resume: Resume::Fresh,
            snapshot: false,
            unreadable: Vec::new(),
        };
        self.wait_for(self.hub.arrive(arrival)).unwrap();
    }

    /// Takes in `events` at once and runs until those who listen have got `deliveries`.
    pub(crate) fn deliver(&self, events: Vec<(Channel, Payload)>, deliveries: usize) {
        let all = self.heard.count() + deliveries as u64;
        self.wait_for(async {
            let events =
                events.into_iter().map(|(channel, payload)| self.inlet.incoming(channel, payload));
            self.inlet.room().await.unwrap().publish(events.collect());
            while self.heard.count() < all {
                yield_now().await;
            }
        });
    }
}

fn hub_settings(settings: &Settings) -> HubSettings {
    let (history, snapshot) = (&settings.history, &settings.snapshot);
    HubSettings {
        shards: 1,
        backlog: settings.outbox.total_bytes,
        history: HistoryBounds {
            events: history.events,
            channel_bytes: history.channel_bytes,
            bytes: history.bytes,
            age: history.age,
        },
        snapshot: SnapshotBounds {
            bytes: snapshot.bytes,
            age: snapshot.age,
            pattern_bytes: snapshot.pattern_bytes,
            keys: snapshot.keys,
        },
        rules: Arc::from([]),
        linger: Lingering {
            time: settings.events.linger,
            channels: settings.events.linger_channels,
            demand: settings.events.demand_channels,
        },
        standing: Vec::new(),
        stale_after: snapshot.reread_after,
    }
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

pub(crate) fn report() -> Payload {
    payload(REPORT)
}

pub(crate) fn payload(json: &str) -> Payload {
    Payload::parse(json.as_bytes(), usize::MAX).unwrap()
}

/// An event that nobody has looked at yet.
pub(crate) fn event(payload: Payload) -> Arc<Event> {
    Arc::new(Event::new(channel("job_progress:job_1"), payload, Epoch::random().at(1_000_000)))
}
