//! The hub's state: one owner, no I/O, every decision in one place and testable without a runtime.
//!
//! Commands go in, deliveries for the shards come out. Because events and arrivals pass through
//! here in one order, and each shard's deliveries keep that order, a subscriber gets its history
//! up to a position and every live event after it: no gap, nothing twice.

use std::fmt;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::coverage::{Coverage, Lingering};
use super::demand::Demand;
use super::histories::Histories;
use super::history::{HistoryBounds, Missed};
use super::rule::ChannelRule;
use super::snapshot::{SnapshotBounds, Snapshots};
use super::subscriber::{Gap, GapReason, StartFrom, Subscriber};
use super::topics::Topics;
use crate::event::{Channel, ChannelPattern, Epoch, Event, Filter, Payload, Position};

/// How the hub is set up.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// How many shards share the subscribers.
    pub shards: usize,
    /// How many bytes may wait for all subscribers together; beyond it those furthest behind have
    /// to go.
    pub backlog: usize,
    /// How much is kept for those who come back.
    pub history: HistoryBounds,
    /// How much is kept for those who come late.
    pub snapshot: SnapshotBounds,
    /// What is special about some channels.
    pub rules: Arc<[ChannelRule]>,
    /// Until when a channel that nobody listens to any more is still listened to, so that a client
    /// that returns misses nothing.
    pub linger: Lingering,
    /// What the source listens to at all times.
    pub standing: Vec<ChannelPattern>,
}

/// Someone arrives.
pub struct Arrival {
    /// Who.
    pub subscriber: Box<dyn Subscriber>,
    /// What they listen to.
    pub filters: Arc<[Filter]>,
    /// Where they left off.
    pub resume: Resume,
    /// Whether they want the last events first.
    pub snapshot: bool,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").field("filters", &self.filters).finish_non_exhaustive()
    }
}

/// What a client says about where it left off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Nothing: it is here for the first time.
    Fresh,
    /// Here.
    At(Position),
    /// Something that is no position.
    Unknown,
}

/// For one shard.
pub(super) enum Delivery {
    Event(Arc<Event>),
    Join(Box<Join>),
    Gap { filters: Arc<[Filter]>, reason: GapReason, position: Position },
}

pub(super) struct Join {
    pub(super) subscriber: Box<dyn Subscriber>,
    pub(super) filters: Arc<[Filter]>,
    pub(super) position: Position,
    pub(super) from: StartFrom,
}

pub(super) struct Core {
    epoch: Epoch,
    sequence: u64,
    history: Histories,
    snapshots: Snapshots,
    coverage: Coverage,
    /// How many subscribers of each shard listen to each filter.
    interest: Topics<Vec<u32>>,
    /// How many subscribers each shard has.
    load: Vec<usize>,
    /// How many filters all subscribers have together.
    subscriptions: usize,
    out: Vec<Vec<Delivery>>,
}

impl Core {
    pub(super) fn new(settings: HubSettings, demand: Demand) -> Self {
        Self {
            epoch: Epoch::random(),
            sequence: 0,
            history: Histories::new(settings.history, &settings.rules),
            snapshots: Snapshots::new(settings.snapshot, settings.rules),
            coverage: Coverage::new(settings.standing, settings.linger, demand),
            interest: Topics::default(),
            load: vec![0; settings.shards.max(1)],
            subscriptions: 0,
            out: (0..settings.shards.max(1)).map(|_| Vec::new()).collect(),
        }
    }

    /// Takes in an event: gives it its place, keeps it, and sends it to the shards that want it.
    pub(super) fn publish(&mut self, channel: Channel, payload: Payload) {
        self.take_in(channel, payload, false);
    }

    fn take_in(&mut self, channel: Channel, payload: Payload, stored: bool) {
        self.sequence += 1;
        let mut event = Event::new(channel, payload, self.position());
        event.stored = stored;
        if let Some(previous) = self.snapshots.newest(&event.channel) {
            event.previous = Arc::downgrade(previous);
        }
        let event = Arc::new(event);
        self.history.push(&event);
        self.snapshots.push(&event);
        let mut wanted: SmallVec<[bool; 64]> = smallvec![false; self.load.len()];
        for counts in self.interest.matching(&event.channel) {
            wanted.iter_mut().zip(counts).for_each(|(wanted, count)| *wanted |= *count > 0);
        }
        for (out, _) in self.out.iter_mut().zip(&wanted).filter(|(_, wanted)| **wanted) {
            out.push(Delivery::Event(Arc::clone(&event)));
        }
    }

    /// Takes in what a key says about a channel, if it is news: workers publish first and set the
    /// key after, so a channel that was heard since it is listened to is at least as new.
    ///
    /// `again`: after a gap the last state is said again even if it is the one known before.
    pub(super) fn seed(&mut self, channel: Channel, payload: Payload, again: bool) {
        let news = self.snapshots.newest(&channel).is_none_or(|last| {
            !self.heard_since_covered(&channel, last) && (again || last.payload != payload)
        });
        if news {
            self.take_in(channel, payload, true);
        }
    }

    /// The channels among `filters` about which a key may know more than the hub.
    pub(super) fn unheard(&self, filters: &[Filter]) -> Vec<Channel> {
        let unheard = filters.iter().filter_map(Filter::exact).filter(|channel| {
            let last = self.snapshots.newest(channel);
            !last.is_some_and(|last| self.heard_since_covered(channel, last))
        });
        unheard.cloned().collect()
    }

    fn heard_since_covered(&self, channel: &Channel, last: &Event) -> bool {
        let since = self.coverage.since(&Filter::Exact(channel.clone()));
        !last.stored && since.is_some_and(|since| last.position.sequence > since)
    }

    /// Asks the source for `filters`; `reply` is told when it listens to all of them, or at once
    /// while there is no source.
    pub(super) fn cover(&mut self, filters: &[Filter], reply: oneshot::Sender<()>) {
        self.coverage.want(filters, Instant::now(), Some(reply));
    }

    /// Lets somebody in: interest, history and the start of live are one step.
    pub(super) fn arrive(&mut self, arrival: Arrival) {
        let Arrival { subscriber, filters, resume, snapshot } = arrival;
        self.subscriptions += filters.len();
        let shard = (0..self.load.len()).min_by_key(|&shard| self.load.get(shard)).unwrap_or(0);
        self.coverage.want(&filters, Instant::now(), None);
        for filter in &*filters {
            let counts = self.interest.entry(filter);
            counts.resize(self.load.len(), 0);
            if let Some(count) = counts.get_mut(shard) {
                *count += 1;
            }
            self.coverage.occupy(filter);
        }
        let from = self.start_from(&filters, resume, snapshot);
        let join = Join { subscriber, filters, position: self.position(), from };
        if let (Some(load), Some(out)) = (self.load.get_mut(shard), self.out.get_mut(shard)) {
            *load += 1;
            out.push(Delivery::Join(Box::new(join)));
        }
    }

    fn start_from(&self, filters: &[Filter], resume: Resume, snapshot: bool) -> StartFrom {
        let latest = || if snapshot { self.snapshots.of(filters) } else { Vec::new() };
        let reason = match resume {
            Resume::Fresh => return StartFrom::Snapshot(latest()),
            Resume::At(at) if at.epoch == self.epoch && at.sequence <= self.sequence => {
                if !filters.iter().all(|filter| self.coverage.unbroken(filter, at.sequence)) {
                    GapReason::SourceReconnected
                } else if let Missed::Events(missed) = self.history.after(at.sequence, filters) {
                    return StartFrom::Resumed { missed, had: self.had(at.sequence, filters) };
                } else {
                    GapReason::HistoryEvicted
                }
            }
            Resume::At(_) | Resume::Unknown => GapReason::UnknownPosition,
        };
        let gap = Gap { channels: filters.to_vec(), reason, position: self.position() };
        StartFrom::Broken(gap, latest())
    }

    /// The newest known event of each channel that a client at `sequence` has had, of the channels
    /// it names: those are what can end a stream.
    fn had(&self, sequence: u64, filters: &[Filter]) -> Vec<Arc<Event>> {
        let exact: Vec<_> =
            filters.iter().filter(|filter| filter.exact().is_some()).cloned().collect();
        let mut had = self.history.at_or_before(sequence, &exact);
        had.extend(self.snapshots.of(&exact));
        had.retain(|event| event.position.sequence <= sequence);
        had
    }

    /// A subscriber of `shard` is gone.
    pub(super) fn depart(&mut self, shard: usize, filters: &[Filter]) {
        self.subscriptions = self.subscriptions.saturating_sub(filters.len());
        if let Some(load) = self.load.get_mut(shard) {
            *load = load.saturating_sub(1);
        }
        for filter in filters {
            let Some(counts) = self.interest.get_mut(filter) else { continue };
            if let Some(count) = counts.get_mut(shard) {
                *count = count.saturating_sub(1);
            }
            if counts.iter().all(|&count| count == 0) {
                self.interest.remove(filter);
                self.coverage.vacate(filter, Instant::now());
            }
        }
    }

    /// The source listens to `filters` from here on; those who listened before may have missed
    /// something.
    pub(super) fn live(&mut self, filters: &[Filter]) {
        self.take_a_place();
        let begun = self.coverage.begin(filters, self.sequence);
        self.announce(begun);
    }

    /// The source listens to all that stands and to `filters` from here on.
    pub(super) fn connected(&mut self, filters: &[Filter]) {
        self.take_a_place();
        self.coverage.begin_standing(self.sequence);
        let occupied = self.interest.iter().map(|(filter, _)| filter);
        let mut begun: Vec<_> = occupied.filter(|filter| self.coverage.stands(filter)).collect();
        begun.extend(self.coverage.begin(filters, self.sequence));
        self.announce(begun);
    }

    /// The source has lost its connection.
    pub(super) fn lost(&mut self) {
        self.coverage.lost();
    }

    /// The channels that somebody listens to by name.
    pub(super) fn subscribed(&self) -> Vec<Channel> {
        self.interest.iter().filter_map(|(filter, _)| filter.exact().cloned()).collect()
    }

    /// What was not heard has a place of its own in the order, so that a position from before it
    /// is told from one after it.
    fn take_a_place(&mut self) {
        self.sequence += 1;
    }

    fn announce(&mut self, mut filters: Vec<Filter>) {
        filters.retain(|filter| self.interest.get_mut(filter).is_some());
        if filters.is_empty() {
            return;
        }
        let (filters, position): (Arc<[Filter]>, _) = (filters.into(), self.position());
        for out in &mut self.out {
            let filters = Arc::clone(&filters);
            out.push(Delivery::Gap { filters, reason: GapReason::SourceReconnected, position });
        }
    }

    /// Lets go of what is too old.
    pub(super) fn expire(&mut self, now: Instant) {
        self.history.expire(now);
        self.snapshots.expire(now);
        self.coverage.expire(now);
    }

    /// What has come out for each shard since the last call.
    pub(super) fn take(&mut self) -> Vec<(usize, Vec<Delivery>)> {
        let out = self.out.iter_mut().map(std::mem::take).enumerate();
        out.filter(|(_, deliveries)| !deliveries.is_empty()).collect()
    }

    pub(super) fn position(&self) -> Position {
        self.epoch.at(self.sequence)
    }

    pub(super) fn subscribers(&self) -> usize {
        self.load.iter().sum()
    }

    pub(super) fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    pub(super) fn topics(&self) -> usize {
        self.interest.len()
    }

    pub(super) fn history(&self) -> &Histories {
        &self.history
    }

    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }
}
