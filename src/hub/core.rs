//! The hub's state: one owner, no I/O, every decision in one place and testable without a runtime.
//!
//! Commands go in, deliveries for the shards come out. Because events and arrivals pass through
//! here in one order, and each shard's deliveries keep that order, a subscriber gets its history
//! up to a position and every live event after it: no gap, nothing twice.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::chores::Chores;
use super::coverage::{Answered, Coverage, GaveWay, Lingering};
use super::demand::{Asker, Demand, NOBODY, Ticket};
use super::drops::Drops;
use super::histories::Histories;
use super::history::HistoryBounds;
use super::inlet::Incoming;
use super::openings::{Opening, Openings};
use super::rule::ChannelRule;
use super::snapshot::{SnapshotBounds, Snapshots};
use super::subscriber::{StartFrom, Subscriber};
use super::topics::Topics;
use crate::event::{Channel, ChannelPattern, Epoch, Event, Filter, Made, Origin, Position};

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
    /// The age from which on a key may know better whether a channel has come to its end.
    pub stale_after: Duration,
}

/// Someone arrives.
pub struct Arrival {
    /// Who.
    pub subscriber: Box<dyn Subscriber>,
    /// What they listen to.
    pub filters: Arc<[Filter]>,
    /// Who asks for it.
    pub by: Asker,
    /// Where they left off.
    pub resume: Resume,
    /// Whether they want the last events first.
    pub snapshot: bool,
    /// The channels whose stored state could not be read, so that what is known last of them may
    /// not be the last.
    pub unreadable: Vec<Channel>,
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
    /// The source listens to these again: whoever listened before may have missed something.
    Gap {
        filters: Arc<[Filter]>,
        position: Position,
    },
    /// The same of all that these let pass.
    Reconnected {
        heard: Arc<[ChannelPattern]>,
        position: Position,
    },
    Refused(Arc<[Filter]>),
    /// Somebody asks whether the shard lives.
    Alive(mpsc::Sender<()>),
}

pub(super) struct Join {
    pub(super) subscriber: Box<dyn Subscriber>,
    pub(super) filters: Arc<[Filter]>,
    pub(super) position: Position,
    pub(super) from: StartFrom,
    pub(super) unreadable: Vec<Channel>,
}

pub(super) struct Core {
    pub(super) epoch: Epoch,
    pub(super) sequence: u64,
    pub(super) history: Histories,
    pub(super) snapshots: Snapshots,
    pub(super) coverage: Coverage,
    pub(super) drops: Drops,
    stale_after: Duration,
    /// How many subscribers of each shard listen to each filter.
    pub(super) interest: Topics<Vec<u32>>,
    /// How many subscribers each shard has.
    pub(super) load: Vec<usize>,
    /// How many filters all subscribers have together.
    pub(super) subscriptions: usize,
    pub(super) openings: Openings,
    pub(super) chores: Chores,
    pub(super) out: Vec<Vec<Delivery>>,
}

impl Core {
    pub(super) fn new(settings: HubSettings, demand: Demand) -> Self {
        Self {
            epoch: Epoch::random(),
            sequence: 0,
            history: Histories::new(settings.history, &settings.rules, &settings.standing),
            snapshots: Snapshots::new(settings.snapshot, settings.rules, &settings.standing),
            coverage: Coverage::new(settings.standing, settings.linger, demand),
            drops: Drops::default(),
            stale_after: settings.stale_after,
            interest: Topics::default(),
            load: vec![0; settings.shards.max(1)],
            subscriptions: 0,
            openings: Openings::default(),
            chores: Chores::default(),
            out: (0..settings.shards.max(1)).map(|_| Vec::new()).collect(),
        }
    }

    /// Takes in an event: gives it its place, keeps it, and sends it to the shards that want it.
    ///
    /// What comes of a channel that is not heard from a known place on is left: something may be
    /// missing before it, of which nobody has been told yet.
    pub(super) fn publish(&mut self, incoming: Incoming) {
        if self.coverage.hears(&incoming.channel) {
            let event = incoming.at(self.next_position());
            self.take_in(event);
        }
    }

    /// Something of `channel` was not let in: whoever listens is told, at once or at the end of the
    /// second if it was told of another a moment ago.
    pub(super) fn dropped(&mut self, channel: Channel, now: Instant) {
        // Whoever has been here and comes back is told too.
        let concerns_somebody =
            self.interest.matching(&channel).next().is_some() || self.history.holds(&channel);
        if concerns_somebody && self.drops.is_due(&channel, now) {
            self.tell_drop(channel);
        }
    }

    pub(super) fn tell_drop(&mut self, channel: Channel) {
        let event = Event::dropped(channel, self.next_position());
        self.take_in(event);
    }

    fn next_position(&mut self) -> Position {
        self.sequence += 1;
        self.position()
    }

    fn take_in(&mut self, mut event: Event) {
        self.openings.forget_shared();
        if let Some(previous) = self.snapshots.newest(&event.channel) {
            event.previous = Arc::downgrade(previous);
        }
        let event = Arc::new(event);
        self.history.push(&event);
        if event.origin != Origin::Dropped {
            self.snapshots.push(&event);
        }
        let mut wanted: SmallVec<[bool; 64]> = smallvec![false; self.load.len()];
        for counts in self.interest.matching(&event.channel) {
            wanted.iter_mut().zip(counts).for_each(|(wanted, count)| *wanted |= *count > 0);
        }
        for (out, _) in self.out.iter_mut().zip(&wanted).filter(|(_, wanted)| **wanted) {
            out.push(Delivery::Event(Arc::clone(&event)));
        }
    }

    /// Takes in what a key says about a channel, if it is news.
    ///
    /// `again`: after a gap the last state is said again even if it is the one known before.
    pub(super) fn seed(&mut self, incoming: Incoming, again: bool) {
        let mut event = incoming.at(self.epoch.at(self.sequence + 1));
        event.origin = Origin::Stored;
        if self.is_news(&event, again) {
            self.sequence += 1;
            self.take_in(event);
        }
    }

    /// Workers publish first and set the key after, so a channel that was heard since it is listened
    /// to is at least as new. But for an end: a report of it may have been lost on its way, and then
    /// nothing follows. What was made before the last report that was heard is of a run before, and so
    /// may be an end of which that cannot be told.
    fn is_news(&self, stored: &Event, again: bool) -> bool {
        let Some(last) = self.snapshots.newest(&stored.channel) else { return true };
        let made = stored.report().unwrap_or(Made::Unsaid);
        let is_before = made.is_before(self.snapshots.last_report(&stored.channel));
        if !self.heard_since_covered(&stored.channel, last) {
            let is_other = again || last.payload != stored.payload;
            return is_other && !is_before.unwrap_or(false);
        }
        self.may_have_ended(last, stored.received) && stored.is_end() && !is_before.unwrap_or(true)
    }

    /// Whether anything is known of `channel`.
    pub(super) fn knows(&self, channel: &Channel) -> bool {
        self.snapshots.newest(channel).is_some()
    }

    pub(super) fn heard_since_covered(&self, channel: &Channel, last: &Event) -> bool {
        let since = self.coverage.channel_since(channel);
        last.origin != Origin::Stored && since.is_some_and(|since| last.position.sequence > since)
    }

    /// Whether the channel of `last` has been silent for so long that its end may have been missed.
    pub(super) fn may_have_ended(&self, last: &Event, now: Instant) -> bool {
        now - last.received >= self.stale_after && self.snapshots.may_end(&last.channel)
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

    /// The source listens to these channels from here on; those who listened before may have missed
    /// something.
    pub(super) fn live(&mut self, channels: &[(Channel, Ticket)]) {
        self.take_a_place();
        let (begun, answered) = self.coverage.begin(channels, self.sequence, Instant::now());
        self.announce(begun);
        self.answer_later(answered);
    }

    fn answer_later(&mut self, answered: Vec<Answered>) {
        for answered in answered {
            self.openings.push(Opening::Answer(answered));
        }
    }

    /// The broker does not allow these channels: whoever listens to one of them hears nothing.
    pub(super) fn refuse(&mut self, channels: &[(Channel, Ticket)]) {
        let gave_way = self.coverage.refuse(channels);
        self.turn_out(gave_way);
    }

    pub(super) fn turn_out(&mut self, gave_way: GaveWay) {
        self.answer_later(gave_way.answered);
        self.turn_away(gave_way.occupied);
    }

    fn turn_away(&mut self, filters: Vec<Filter>) {
        let filters: Arc<[Filter]> = filters.into();
        if !filters.is_empty() {
            let all = self.out.iter_mut();
            all.for_each(|out| out.push(Delivery::Refused(Arc::clone(&filters))));
        }
    }

    /// Every shard is to answer.
    pub(super) fn ask_shards(&mut self, reply: &mpsc::Sender<()>) {
        for out in &mut self.out {
            out.push(Delivery::Alive(reply.clone()));
        }
    }

    /// The source is connected, and listens from here on to all that stands but `refused`.
    pub(super) fn connected(&mut self, refused: &[ChannelPattern]) {
        self.take_a_place();
        let changed = self.coverage.begin_standing(self.sequence, refused);
        let (heard, position) = (self.coverage.heard(), self.position());
        for out in &mut self.out {
            out.push(Delivery::Reconnected { heard: Arc::clone(&heard), position });
        }
        if changed {
            // The rights were changed, which is rare: all that is listened to is looked at.
            let occupied = self.interest.iter().map(|(filter, _)| filter);
            let other: Vec<_> = occupied.filter(|filter| !self.coverage.stands(filter)).collect();
            for filter in &other {
                self.coverage.occupy(filter, NOBODY);
            }
            let refused = other.into_iter().filter(|filter| self.coverage.is_refused(filter));
            self.turn_away(refused.collect());
        }
    }

    /// The source has lost its connection.
    pub(super) fn lost(&mut self) {
        let answered = self.coverage.lost();
        self.answer_later(answered);
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
            out.push(Delivery::Gap { filters: Arc::clone(&filters), position });
        }
    }

    /// What has come out for each shard since the last call.
    pub(super) fn take(&mut self) -> Vec<(usize, Vec<Delivery>)> {
        let out = self.out.iter_mut().map(std::mem::take).enumerate();
        out.filter(|(_, deliveries)| !deliveries.is_empty()).collect()
    }

    pub(super) fn position(&self) -> Position {
        self.epoch.at(self.sequence)
    }

    /// How many subscriptions hear `channel`.
    pub(super) fn listeners(&self, channel: &Channel) -> usize {
        let counts = self.interest.matching(channel).flatten();
        counts.map(|count| usize::try_from(*count).unwrap_or(usize::MAX)).sum()
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
