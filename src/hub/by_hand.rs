//! For tests: the hub's state with one shard, in which every step is taken by hand.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::core::{Core, Delivery};
use super::{
    Arrival, Asker, Covered, Demand, Gap, HistoryBounds, HubSettings, Incoming, Lingering, NOBODY,
    Resume, Signal, SnapshotBounds, Start, Subscriber, Ticket,
};
use crate::event::{Channel, Filter, Payload};

/// See the module. Nothing is heard at all times.
pub(crate) struct ByHand {
    core: Core,
    pub(crate) demand: Demand,
    listeners: Vec<Option<Listener>>,
}

type Listener = (Box<dyn Subscriber>, Arc<[Filter]>);

impl ByHand {
    /// A hub that lets go of what nobody listens to after `linger`.
    pub(crate) fn new(linger: Duration) -> Self {
        let age = Duration::from_secs(3600);
        let (bytes, events) = (1 << 24, 10_000);
        let settings = HubSettings {
            shards: 1,
            backlog: usize::MAX,
            history: HistoryBounds { events, channel_bytes: bytes, bytes, age },
            snapshot: SnapshotBounds { bytes, age, pattern_bytes: bytes, keys: 256 },
            rules: Arc::from([]),
            linger: Lingering { time: linger, channels: 2, demand: usize::MAX },
            standing: Vec::new(),
            stale_after: age,
        };
        let demand = Demand::default();
        let core = Core::new(settings, demand.clone());
        Self { core, demand, listeners: Vec::new() }
    }

    pub(crate) fn publish(&mut self, channel: Channel, payload: Payload) {
        self.core.publish(Incoming::plain(channel, payload));
        self.deliver();
    }

    pub(crate) fn live(&mut self, channels: &[(Channel, Ticket)]) {
        self.core.live(channels);
        self.deliver();
    }

    pub(crate) fn connected(&mut self) {
        self.core.connected(&[]);
        self.deliver();
    }

    pub(crate) fn lost(&mut self) {
        self.core.lost();
    }

    pub(crate) fn expire(&mut self) {
        self.core.expire(Instant::now());
        while self.core.work() {}
        self.deliver();
    }

    pub(crate) fn cover(&mut self, filters: &Arc<[Filter]>) -> oneshot::Receiver<Covered> {
        let (reply, covered) = oneshot::channel();
        self.core.cover(filters, Asker::V4(std::net::Ipv4Addr::LOCALHOST), reply);
        covered
    }

    /// Returns the number of the listener.
    pub(crate) fn arrive(
        &mut self,
        subscriber: Box<dyn Subscriber>,
        filters: Arc<[Filter]>,
        resume: Resume,
    ) -> usize {
        let unreadable = Vec::new();
        self.core.arrive(Arrival {
            subscriber,
            filters,
            by: NOBODY,
            resume,
            snapshot: false,
            unreadable,
        });
        self.deliver();
        self.listeners.len() - 1
    }

    pub(crate) fn depart(&mut self, listener: usize) {
        if let Some((_, filters)) = self.listeners[listener].take() {
            self.core.depart(0, &filters);
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        for delivery in self.core.take().into_iter().flat_map(|(_, deliveries)| deliveries) {
            if let Delivery::Join(join) = delivery {
                let mut subscriber = join.subscriber;
                let waker = std::task::Waker::noop().clone();
                let (position, from, unreadable) = (join.position, join.from, join.unreadable);
                let start = Box::new(Start { position, from, unreadable, waker });
                subscriber.receive(Signal::Start(start), now);
                self.listeners.push(Some((subscriber, join.filters)));
                continue;
            }
            for (subscriber, filters) in self.listeners.iter_mut().flatten() {
                match &delivery {
                    Delivery::Event(event)
                        if filters.iter().any(|filter| filter.matches(&event.channel)) =>
                    {
                        subscriber.receive(Signal::Event(event), now);
                    }
                    Delivery::Gap { filters: missed, position } => {
                        let touched = missed.iter().filter(|filter| filters.contains(filter));
                        let channels: Vec<_> = touched.cloned().collect();
                        if !channels.is_empty() {
                            let gap = Gap::reconnected(channels, *position);
                            subscriber.receive(Signal::Gap(gap), now);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
