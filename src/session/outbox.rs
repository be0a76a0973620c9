//! What a client has not read yet: bounded in bytes, with a policy for what does not fit.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::Outgoing;
use crate::event::{Channel, Event, Position, Shape};
use crate::hub::Told;
use crate::settings::DeliveryClass;

/// The bound and the policy of an outbox.
#[derive(Debug, Clone, Copy)]
pub struct OutboxSettings {
    /// The policy.
    pub class: DeliveryClass,
    /// The bound. One event is always taken in, however large. What a client is given to begin with,
    /// and what comes before it has read that, is bounded by what waits for all clients together.
    pub bytes: usize,
}

/// What waits for one client, oldest first.
#[derive(Debug)]
pub struct Outbox {
    settings: OutboxSettings,
    queue: VecDeque<Outgoing>,
    /// What is known last: told behind the first `lead` items of the queue.
    snapshot: Option<Snapshot>,
    lead: usize,
    /// How many events are in it.
    events: usize,
    bytes: usize,
    /// Whether what is pushed is what the client begins with, and how many bytes of that wait.
    replaying: bool,
    replayed: usize,
    /// The least that has waited since the client had read what it began with: the bound counts from
    /// there, so that it may catch up, and may not fall further behind.
    behind: usize,
    /// How many items at the front cannot be merged with each other: they are not looked at again.
    settled: usize,
}

/// A list that many clients share, and where in it this one is.
#[derive(Debug)]
struct Snapshot {
    told: Arc<Told>,
    next: usize,
    /// Where the client stands after the last.
    position: Position,
}

impl Snapshot {
    fn get(&self, index: usize) -> Outgoing {
        let is_last = index + 1 == self.told.events.len();
        let (told, position) = (Arc::clone(&self.told), is_last.then_some(self.position));
        Outgoing::Snapshot { told, index, position }
    }
}

/// What became of an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Kept,
    /// It waits, and so many older events gave way: to newer ones, or merged with them.
    Conflated(usize),
    /// It does not fit, and nothing may give way: the session has to end.
    Overflow,
}

impl Outbox {
    pub(super) fn new(settings: OutboxSettings) -> Self {
        Self {
            settings,
            queue: VecDeque::new(),
            snapshot: None,
            lead: 0,
            events: 0,
            bytes: 0,
            replaying: false,
            replayed: 0,
            behind: 0,
            settled: 0,
        }
    }

    pub(super) fn push(&mut self, outgoing: Outgoing, shape: &dyn Shape) -> Pushed {
        let weight = outgoing.weight(shape);
        let mut merged = 0;
        if !self.has_room(&outgoing, weight) {
            match self.settings.class {
                DeliveryClass::State if !self.replaying => {
                    return self.push_over(outgoing, weight, shape);
                }
                DeliveryClass::Text => merged = self.merge(shape),
                DeliveryClass::State | DeliveryClass::Log => {}
            }
            if !self.has_room(&outgoing, weight) {
                return Pushed::Overflow;
            }
        }
        self.add(outgoing, weight);
        if merged == 0 { Pushed::Kept } else { Pushed::Conflated(merged) }
    }

    /// Whether `outgoing` can be taken in without anything giving way.
    pub(super) fn fits(&self, outgoing: &Outgoing, shape: &dyn Shape) -> bool {
        self.has_room(outgoing, outgoing.weight(shape))
    }

    /// One event always has room, however large. A gap is small: it has none of its own.
    fn has_room(&self, outgoing: &Outgoing, weight: usize) -> bool {
        let is_beginning = self.replaying || self.replayed > 0;
        let is_gap = matches!(outgoing, Outgoing::Gap { .. });
        let bound = self.settings.bytes + self.behind;
        is_beginning || self.bytes + weight <= bound || self.events == 0 && !is_gap
    }

    fn add(&mut self, outgoing: Outgoing, weight: usize) {
        self.events += usize::from(is_event(&outgoing));
        self.queue.push_back(outgoing);
        self.bytes += weight;
        self.replayed += if self.replaying { weight } else { 0 };
    }

    /// Takes in what there is no room for, if what is older can give way to it.
    fn push_over(&mut self, outgoing: Outgoing, weight: usize, shape: &dyn Shape) -> Pushed {
        self.add(outgoing, weight);
        let conflated = self.keep_newest(shape);
        self.behind = self.behind.min(self.bytes);
        if self.bytes <= self.settings.bytes + self.behind || self.queue.len() == 1 {
            return Pushed::Conflated(conflated);
        }
        // Too many channels: the client resumes from what it has read.
        if let Some(newest) = self.queue.pop_back() {
            self.events -= usize::from(is_event(&newest));
            self.bytes -= newest.weight(shape);
        }
        Pushed::Overflow
    }

    /// What was pushed so far is followed by what is known last, and then by what is pushed from now on.
    pub(super) fn begin_with(&mut self, told: Arc<Told>, position: Position) {
        let bytes = snapshot_weight(&told);
        self.bytes += bytes;
        self.replayed += bytes;
        self.events += told.events.len();
        self.lead = self.queue.len();
        self.snapshot = Some(Snapshot { told, next: 0, position });
    }

    /// From now on what is pushed is what the client begins with, or no longer.
    pub(super) fn replay(&mut self, replaying: bool) {
        self.replaying = replaying;
    }

    /// Takes the oldest. `shape`: that of the stream.
    pub fn pop(&mut self, shape: &dyn Shape) -> Option<Outgoing> {
        let outgoing = self.next()?;
        self.events -= usize::from(is_event(&outgoing));
        let weight = match &outgoing {
            // The list is held as a whole until its last is taken.
            Outgoing::Snapshot { .. } if self.snapshot.is_some() => 0,
            Outgoing::Snapshot { told, .. } => snapshot_weight(told),
            other => other.weight(shape),
        };
        self.bytes -= weight;
        // What the client begins with stands in front.
        let was_beginning = self.replayed > 0;
        self.replayed = self.replayed.saturating_sub(weight);
        let is_through = was_beginning && self.replayed == 0;
        self.behind = if is_through { self.bytes } else { self.behind.min(self.bytes) };
        self.settled = self.settled.saturating_sub(1);
        Some(outgoing)
    }

    fn next(&mut self) -> Option<Outgoing> {
        let Some(snapshot) = self.snapshot.as_mut().filter(|_| self.lead == 0) else {
            self.lead = self.lead.saturating_sub(1);
            return self.queue.pop_front();
        };
        let outgoing = snapshot.get(snapshot.next);
        snapshot.next += 1;
        if snapshot.next >= snapshot.told.events.len() {
            self.snapshot = None;
        }
        Some(outgoing)
    }

    pub(super) fn take(&mut self) -> VecDeque<Outgoing> {
        self.snapshot = None;
        self.lead = 0;
        self.events = 0;
        self.bytes = 0;
        self.replayed = 0;
        self.behind = 0;
        self.settled = 0;
        std::mem::take(&mut self.queue)
    }

    /// Shows what waits, oldest first, until `look` has seen enough.
    pub fn look(&self, mut look: impl FnMut(&Outgoing) -> bool) {
        let (lead, rest) = (self.queue.iter().take(self.lead), self.queue.iter().skip(self.lead));
        let list = self
            .snapshot
            .iter()
            .flat_map(|list| (list.next..list.told.events.len()).map(|index| list.get(index)));
        let goes_on = lead.into_iter().all(&mut look) && list.into_iter().all(|said| look(&said));
        if goes_on {
            rest.into_iter().all(look);
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.snapshot.is_none()
    }

    /// Gives back memory that an idle client does not need.
    pub(super) fn shrink(&mut self) {
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps the newest event of each channel and key, and all that is not an event. Returns how
    /// many gave way.
    pub(super) fn keep_newest(&mut self, shape: &dyn Shape) -> usize {
        let before = self.queue.len();
        let mut seen = HashSet::new();
        let mut kept = VecDeque::with_capacity(before);
        for outgoing in std::mem::take(&mut self.queue).into_iter().rev() {
            if seen_again(&outgoing, shape, &mut seen) {
                self.bytes -= outgoing.weight(shape);
            } else {
                kept.push_front(outgoing);
            }
        }
        self.queue = kept;
        self.count();
        self.replayed = self.replayed.min(self.bytes);
        before - self.queue.len()
    }

    /// Tells as one the events that follow each other and can be. Only neighbours: an id stands
    /// for everything before it, so nothing may overtake. Returns how many gave way.
    fn merge(&mut self, shape: &dyn Shape) -> usize {
        let before = self.queue.len();
        // The last of those looked at before may go on in what has come since.
        let rest = self.queue.split_off(self.settled.saturating_sub(1));
        self.bytes -= rest.iter().map(|outgoing| outgoing.weight(shape)).sum::<usize>();
        let mut run = Vec::new();
        for outgoing in rest {
            match outgoing {
                Outgoing::Event(event) => run.push(event),
                other => {
                    self.add_merged(&run, shape);
                    run.clear();
                    self.bytes += other.weight(shape);
                    self.queue.push_back(other);
                }
            }
        }
        self.add_merged(&run, shape);
        self.count();
        self.replayed = self.replayed.min(self.bytes);
        self.settled = self.queue.len();
        before - self.queue.len()
    }

    fn count(&mut self) {
        self.events = self.queue.iter().filter(|outgoing| is_event(outgoing)).count();
    }

    fn add_merged(&mut self, mut run: &[Arc<Event>], shape: &dyn Shape) {
        while let Some((first, others)) = run.split_first() {
            let merged = shape.merge(run).map(|(event, rest)| (Arc::new(event), rest));
            let (event, rest) = merged.unwrap_or_else(|| (Arc::clone(first), others));
            let outgoing = Outgoing::Event(event);
            self.bytes += outgoing.weight(shape);
            self.queue.push_back(outgoing);
            run = rest;
        }
    }
}

fn snapshot_weight(told: &Told) -> usize {
    told.bytes + told.events.len() * Outgoing::OVERHEAD
}

fn is_event(outgoing: &Outgoing) -> bool {
    matches!(outgoing, Outgoing::Event(_) | Outgoing::Snapshot { .. } | Outgoing::Batch(_))
}

/// Whether newer ones stand for this: events of the same channels and keys, or a later gap. What
/// ends a stream is the newest of its channel and never gives way.
fn seen_again(outgoing: &Outgoing, shape: &dyn Shape, seen: &mut HashSet<Thing>) -> bool {
    match outgoing {
        Outgoing::Event(event) => !seen.insert(thing(event, shape)),
        Outgoing::Batch(batch) => {
            let new = batch.events.iter().filter(|event| seen.insert(thing(event, shape)));
            new.count() == 0
        }
        Outgoing::Gap { channels, .. } => !seen.insert(Thing::Gap(channels.clone())),
        _ => false,
    }
}

fn thing(event: &Event, shape: &dyn Shape) -> Thing {
    let key = event.shaped(shape).and_then(|shaped| shaped.key.clone());
    Thing::State(event.channel.clone(), key)
}

#[derive(PartialEq, Eq, Hash)]
enum Thing {
    State(Channel, Option<Box<str>>),
    Gap(Vec<String>),
}

#[cfg(test)]
mod tests;
