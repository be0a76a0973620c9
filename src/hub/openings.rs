//! How somebody comes in: what the source is asked for, and where a subscriber starts.
//!
//! Openings wait in a line of their own behind the events, and are let in a few in each turn: however
//! many come at once, the events of everybody else go on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::core::{Arrival, Core, Delivery, Join, Resume};
use super::coverage::{Answered, Covered, Reply};
use super::demand::Asker;
use super::history::{Missed, in_order};
use super::known::Known;
use super::subscriber::{Gap, GapReason, StartFrom};
use crate::event::{Channel, Event, Filter};

/// What waits at the door.
#[derive(Default)]
pub(super) struct Openings {
    line: VecDeque<Opening>,
    /// What is known last, for openings that ask the same before anything else is published.
    shared: HashMap<Arc<[Filter]>, Arc<Known>>,
}

pub(super) enum Opening {
    /// Somebody asks the source to listen.
    Cover(Arc<[Filter]>, Asker, Reply),
    /// Somebody need not wait for the source any more.
    Answer(Answered),
    /// Somebody comes in.
    Arrive(Box<Arrival>),
}

/// Snapshots that are shared, at most.
const MOST_SHARED: usize = 16;
/// Client patterns of which each is the beginning of the next, at most: so many at most are looked at for
/// one event.
const MOST_IN_CHAIN: usize = 64;

impl Openings {
    pub(super) fn push(&mut self, opening: Opening) {
        self.line.push_back(opening);
    }

    pub(super) fn are_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Something was published: what was known last is no longer what is known last.
    pub(super) fn forget_shared(&mut self) {
        if !self.shared.is_empty() {
            self.shared.clear();
        }
    }
}

impl Core {
    /// Sees to whoever has waited longest. Returns whether there was somebody.
    pub(super) fn open_one(&mut self) -> bool {
        match self.openings.line.pop_front() {
            None => return false,
            // Nobody waits for it any more.
            Some(Opening::Cover(_, _, reply)) if reply.is_closed() => {}
            Some(Opening::Arrive(arrival)) if arrival.subscriber.is_gone() => {}
            Some(Opening::Cover(filters, by, reply)) => self.cover(&filters, by, reply),
            Some(Opening::Answer(answered)) => self.answer(answered),
            Some(Opening::Arrive(arrival)) => self.arrive(*arrival),
        }
        true
    }

    /// Asks the source for `filters`; `reply` is told when it listens to all of them, or at once
    /// while there is no source.
    pub(super) fn cover(&mut self, filters: &Arc<[Filter]>, by: Asker, reply: Reply) {
        let refused: Vec<_> =
            filters.iter().filter(|filter| self.coverage.is_refused(filter)).cloned().collect();
        if !refused.is_empty() {
            // Whoever asked may have gone away; then nobody waits for the answer.
            reply.send(Covered { refused, ..Covered::default() }).unwrap_or_default();
            return;
        }
        let now = Instant::now();
        let (gave_way, full) = self.coverage.make_room(filters, by, now);
        self.turn_out(gave_way);
        if let Some(full) = full {
            reply.send(Covered { refused: vec![full], ..Covered::default() }).unwrap_or_default();
            return;
        }
        if let Some(answered) = self.coverage.want(filters, by, now, reply) {
            self.answer(answered);
        }
    }

    fn answer(&mut self, answered: Answered) {
        self.coverage.leave(&answered, Instant::now());
        let covered =
            Covered { unheard: self.unheard(&answered.filters), refused: answered.refused };
        answered.reply.send(covered).unwrap_or_default();
    }

    /// The channels among `filters` about which a key may know more than the hub.
    fn unheard(&self, filters: &[Filter]) -> Vec<Channel> {
        let now = Instant::now();
        let unheard = filters.iter().filter_map(Filter::exact).filter(|channel| {
            self.snapshots.newest(channel).is_none_or(|last| {
                !self.heard_since_covered(channel, last) || self.may_have_ended(last, now)
            })
        });
        unheard.cloned().collect()
    }

    /// Lets somebody in: interest, history and the start of live are one step.
    pub(super) fn arrive(&mut self, arrival: Arrival) {
        let Arrival { subscriber, mut filters, by, resume, snapshot, unreadable } = arrival;
        // Whoever was not answered in time comes in all the same.
        let (gave_way, full) = self.coverage.make_room(&filters, by, Instant::now());
        self.turn_out(gave_way);
        let from = match full.or_else(|| self.crowded(&filters)) {
            Some(filter) => {
                filters = Arc::from([]);
                StartFrom::Crowded(filter)
            }
            None => self.start_from(&filters, resume, snapshot),
        };
        self.subscriptions += filters.len();
        let shard = (0..self.load.len()).min_by_key(|&shard| self.load.get(shard)).unwrap_or(0);
        for filter in &*filters {
            self.interest.change(filter, |counts| {
                counts.resize(self.load.len(), 0);
                if let Some(count) = counts.get_mut(shard) {
                    *count += 1;
                }
            });
            self.coverage.occupy(filter, by);
        }
        let join = Join { subscriber, filters, position: self.position(), from, unreadable };
        if let (Some(load), Some(out)) = (self.load.get_mut(shard), self.out.get_mut(shard)) {
            *load += 1;
            out.push(Delivery::Join(Box::new(join)));
        }
    }

    /// The first of the patterns that would be one too many.
    fn crowded(&mut self, filters: &[Filter]) -> Option<Filter> {
        let patterns = filters.iter().filter_map(|filter| Some((filter, filter.pattern()?)));
        for (filter, pattern) in patterns {
            let is_new = self.interest.get_mut(filter).is_none();
            if is_new && self.interest.chain(pattern) > MOST_IN_CHAIN {
                return Some(filter.clone());
            }
        }
        None
    }

    fn start_from(&mut self, filters: &Arc<[Filter]>, resume: Resume, snapshot: bool) -> StartFrom {
        let reason = match resume {
            Resume::Fresh => return StartFrom::Snapshot(self.known(filters, snapshot)),
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
        StartFrom::Broken(gap, self.known(filters, snapshot))
    }

    /// What is known last, for who wants it.
    fn known(&mut self, filters: &Arc<[Filter]>, is_wanted: bool) -> Arc<Known> {
        if !is_wanted {
            return Arc::default();
        }
        if let Some(known) = self.openings.shared.get(filters) {
            return Arc::clone(known);
        }
        let known = Arc::new(self.snapshots.of(filters));
        if filters.iter().any(|filter| filter.pattern().is_some()) {
            if self.openings.shared.len() == MOST_SHARED {
                self.openings.shared.clear();
            }
            self.openings.shared.insert(Arc::clone(filters), Arc::clone(&known));
        }
        known
    }

    /// What is known last of each channel that a client at `sequence` has had, of the channels it
    /// names: those are what can end a stream.
    fn had(&self, sequence: u64, filters: &[Filter]) -> Vec<Arc<Event>> {
        let exact = filters.iter().filter_map(Filter::exact);
        let before = exact.filter_map(|channel| self.history.at_or_before(sequence, channel));
        let mut had: Vec<_> = before.cloned().collect();
        for last in self.snapshots.exactly(filters) {
            had.extend(last.earlier);
            had.push(last.event);
        }
        had.retain(|event| event.position.sequence <= sequence);
        in_order(&mut had);
        had
    }
}
