//! What a client has not read yet: bounded in bytes, with a policy for what does not fit.

use std::collections::{HashSet, VecDeque};

use super::Outgoing;
use crate::event::{Channel, Shape};
use crate::settings::DeliveryClass;

/// The bound and the policy of an outbox.
#[derive(Debug, Clone, Copy)]
pub struct OutboxSettings {
    /// The policy.
    pub class: DeliveryClass,
    /// The bound. One event is always taken in, however large.
    pub bytes: usize,
    /// How much more what a client missed may take, so that it gets all of it. Beyond that the
    /// session ends, and the client resumes from where it got to.
    pub replay_bytes: usize,
}

/// What waits for one client, oldest first.
#[derive(Debug)]
pub struct Outbox {
    settings: OutboxSettings,
    queue: VecDeque<Outgoing>,
    bytes: usize,
    /// Whether what is pushed is what the client missed, and how many bytes of that wait.
    replaying: bool,
    replayed: usize,
}

/// What became of an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Kept,
    /// It waits, and so many older events gave way.
    Conflated(usize),
    /// It does not fit, and nothing may give way: the session has to end.
    Overflow,
}

impl Outbox {
    pub(super) fn new(settings: OutboxSettings) -> Self {
        Self { settings, queue: VecDeque::new(), bytes: 0, replaying: false, replayed: 0 }
    }

    pub(super) fn push(&mut self, outgoing: Outgoing, shape: &dyn Shape) -> Pushed {
        let weight = outgoing.weight(shape);
        let (waiting, bound) = if self.replaying {
            (self.replayed, self.settings.replay_bytes)
        } else {
            (self.bytes - self.replayed, self.settings.bytes)
        };
        let fits = waiting + weight <= bound || !self.queue.iter().any(is_event);
        if !fits && (self.replaying || self.settings.class == DeliveryClass::Log) {
            return Pushed::Overflow;
        }
        self.queue.push_back(outgoing);
        self.bytes += weight;
        self.replayed += if self.replaying { weight } else { 0 };
        if fits {
            return Pushed::Kept;
        }
        let conflated = self.keep_newest(shape);
        if self.bytes - self.replayed <= bound {
            return Pushed::Conflated(conflated);
        }
        // Too many channels: the client resumes from what it has read.
        self.bytes -= self.queue.pop_back().map_or(0, |newest| newest.weight(shape));
        self.replayed = self.replayed.min(self.bytes);
        Pushed::Overflow
    }

    /// From now on what is pushed is what the client missed, or no longer.
    pub(super) fn replay(&mut self, replaying: bool) {
        self.replaying = replaying;
    }

    /// Takes the oldest. `shape`: that of the stream.
    pub fn pop(&mut self, shape: &dyn Shape) -> Option<Outgoing> {
        let outgoing = self.queue.pop_front()?;
        self.bytes -= outgoing.weight(shape);
        self.replayed = self.replayed.min(self.bytes);
        Some(outgoing)
    }

    pub(super) fn take(&mut self) -> VecDeque<Outgoing> {
        self.bytes = 0;
        self.replayed = 0;
        std::mem::take(&mut self.queue)
    }

    /// What waits, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Outgoing> {
        self.queue.iter()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
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
        self.replayed = self.replayed.min(self.bytes);
        before - self.queue.len()
    }
}

fn is_event(outgoing: &Outgoing) -> bool {
    matches!(outgoing, Outgoing::Event(_) | Outgoing::Snapshot { .. } | Outgoing::Batch(_))
}

/// Whether a newer one stands for this: an event of the same channel and key, or a later gap. What
/// ends a stream is the newest of its channel and never gives way.
fn seen_again(outgoing: &Outgoing, shape: &dyn Shape, seen: &mut HashSet<Thing>) -> bool {
    let thing = match outgoing {
        Outgoing::Event(event) | Outgoing::Snapshot { event, .. } => {
            let key = event.shaped(shape).and_then(|shaped| shaped.key.clone());
            Thing::State(event.channel.clone(), key)
        }
        Outgoing::Gap { channels, .. } => Thing::Gap(channels.clone()),
        _ => return false,
    };
    !seen.insert(thing)
}

#[derive(PartialEq, Eq, Hash)]
enum Thing {
    State(Channel, Option<Box<str>>),
    Gap(Vec<String>),
}
