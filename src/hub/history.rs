//! The recent events of each channel, so that a client can come back and miss nothing.
//!
//! Bounded three ways: events and age per channel, bytes in total. What was let go is remembered as
//! a *floor*: the highest sequence that may be missing. A client that stands at or above the floor
//! can be resumed exactly; one below it is told of a gap. The oldest channels go first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashlink::LinkedHashMap;
use tokio::time::Instant;

use super::names::Names;
use crate::event::{Channel, Event, Filter};

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct HistoryBounds {
    /// Events per channel.
    pub events: usize,
    /// Bytes per channel; its newest event is kept however large.
    pub channel_bytes: usize,
    /// Bytes of all channels together.
    pub bytes: usize,
    /// Age of an event.
    pub age: Duration,
}

#[derive(Debug)]
pub(super) struct History {
    bounds: HistoryBounds,
    /// Least recently published first.
    rings: LinkedHashMap<Channel, Ring>,
    /// The same channels by name, for patterns.
    names: Names,
    bytes: usize,
    /// The highest sequence of a channel that is forgotten altogether.
    floor: u64,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The highest sequence that was let go of.
    floor: u64,
}

/// What a client that comes back missed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missed<E> {
    /// Exactly these, in order.
    Events(Vec<E>),
    /// Some are no longer known.
    Evicted,
}

impl History {
    pub(super) fn new(bounds: HistoryBounds) -> Self {
        Self { bounds, rings: LinkedHashMap::new(), names: Names::default(), bytes: 0, floor: 0 }
    }

    /// Keeps `event`, and lets go of what no longer fits.
    pub(super) fn push(&mut self, event: &Arc<Event>) {
        if let Some(ring) = self.rings.get_mut(&event.channel) {
            self.bytes += event.weight();
            ring.events.push_back(Arc::clone(event));
            ring.bytes += event.weight();
            while ring.exceeds(self.bounds, event.received) {
                self.bytes -= ring.evict();
            }
            self.rings.to_back(&event.channel);
        } else if self.bounds.events > 0 {
            self.bytes += event.weight();
            let ring = Ring {
                events: VecDeque::from([Arc::clone(event)]),
                bytes: event.weight(),
                floor: self.floor,
            };
            self.rings.insert(event.channel.clone(), ring);
            self.names.insert(event.channel.clone());
        } else {
            self.floor = event.position.sequence;
        }
        while self.bytes > self.bounds.bytes && self.forget_oldest() {}
    }

    /// Lets go of channels that have been silent for longer than the age.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.rings.front().is_some_and(|(_, ring)| {
            ring.events.back().is_none_or(|last| now - last.received > self.bounds.age)
        }) {
            self.forget_oldest();
        }
    }

    /// What `filters` let pass after `sequence`, in order and each once.
    pub(super) fn after(&self, sequence: u64, filters: &[Filter]) -> Missed<Arc<Event>> {
        let mut missed = Vec::new();
        let mut complete = true;
        self.each(filters, |ring, floor| {
            complete &= floor <= sequence;
            let from = ring.map_or(0, |ring| ring.first_after(sequence));
            missed.extend(ring.into_iter().flat_map(|r| r.events.iter().skip(from)).cloned());
        });
        if !complete {
            return Missed::Evicted;
        }
        in_order(&mut missed);
        Missed::Events(missed)
    }

    /// The newest known event at or before `sequence`, of each channel that `filters` let pass.
    pub(super) fn at_or_before(&self, sequence: u64, filters: &[Filter]) -> Vec<Arc<Event>> {
        let mut found = Vec::new();
        self.each(filters, |ring, _| {
            let Some(ring) = ring else { return };
            let before = ring.first_after(sequence).checked_sub(1);
            found.extend(before.and_then(|index| ring.events.get(index)).cloned());
        });
        found
    }

    pub(super) fn holds(&self, channel: &Channel) -> bool {
        self.rings.contains_key(channel)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn channels(&self) -> usize {
        self.rings.len()
    }

    /// Calls `visit` with every ring that `filters` name, and the floor that holds for it.
    fn each(&self, filters: &[Filter], mut visit: impl FnMut(Option<&Ring>, u64)) {
        for filter in filters {
            match filter {
                Filter::Exact(channel) => {
                    let ring = self.rings.get(channel);
                    visit(ring, ring.map_or(self.floor, |ring| ring.floor));
                }
                Filter::Pattern(pattern) => {
                    visit(None, self.floor);
                    let rings =
                        self.names.matching(pattern).filter_map(|name| self.rings.get(name));
                    rings.for_each(|ring| visit(Some(ring), ring.floor));
                }
            }
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((channel, ring)) = self.rings.pop_front() else { return false };
        self.names.remove(&channel);
        self.bytes -= ring.events.iter().map(|event| event.weight()).sum::<usize>();
        let last = ring.events.back().map_or(ring.floor, |event| event.position.sequence);
        self.floor = self.floor.max(last);
        true
    }
}

impl Ring {
    fn first_after(&self, sequence: u64) -> usize {
        self.events.partition_point(|event| event.position.sequence <= sequence)
    }

    fn exceeds(&self, bounds: HistoryBounds, now: Instant) -> bool {
        self.events.len() > bounds.events
            || self.events.len() > 1 && self.bytes > bounds.channel_bytes
            || self.is_stale(now, bounds.age)
    }

    fn is_stale(&self, now: Instant, age: Duration) -> bool {
        self.events.front().is_some_and(|oldest| now - oldest.received > age)
    }

    fn evict(&mut self) -> usize {
        self.events.pop_front().map_or(0, |event| {
            self.floor = event.position.sequence;
            self.bytes -= event.weight();
            event.weight()
        })
    }
}

/// Sorts events of several channels into the node's order; one that came twice stays once.
pub(super) fn in_order(events: &mut Vec<Arc<Event>>) {
    events.sort_by_key(|event| event.position.sequence);
    events.dedup_by_key(|event| event.position.sequence);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{ChannelPattern, Epoch, Payload};

    fn event(sequence: u64, name: &str) -> Arc<Event> {
        let position = Epoch::random().at(sequence);
        let payload = Payload::parse(b"1", 1).unwrap();
        Arc::new(Event::new(Channel::new(name).unwrap(), payload, position))
    }

    proptest! {
        /// Against a plain list of everything ever said: what `after` returns is exact, or it
        /// says that it is not.
        #[test]
        fn exact_or_evicted(
            names in prop::collection::vec("[ab]:[xy]", 1..60),
            events in 0_usize..5,
            channels in 1_usize..5,
            since in 0_u64..60,
            filters in prop::collection::vec("[ab]:[xy*]", 1..3),
        ) {
            let bytes = channels * event(1, "a:x").weight();
            let mut history = History::new(HistoryBounds { events, channel_bytes: bytes / 2, bytes, age: Duration::MAX });
            let all: Vec<_> = names.iter().zip(1..).map(|(name, n)| event(n, name)).collect();
            for event in &all {
                history.push(event);
            }
            prop_assert!(history.bytes() <= bytes);
            let everything = ChannelPattern::new("*").unwrap();
            prop_assert_eq!(history.channels(), history.names.matching(&everything).count());

            let filters: Vec<_> = filters.iter().map(|f| Filter::parse(f).unwrap()).collect();
            let expected: Vec<_> = all.iter()
                .filter(|e| e.position.sequence > since && filters.iter().any(|f| f.matches(&e.channel)))
                .map(|e| e.position.sequence).collect();
            if let Missed::Events(missed) = history.after(since, &filters) {
                let missed: Vec<_> = missed.iter().map(|e| e.position.sequence).collect();
                prop_assert_eq!(missed, expected);
            } else {
                prop_assert!(names.len() > events.min(channels), "nothing was let go of");
            }
        }
    }

    #[test]
    fn a_million_finished_jobs_do_not_stay() {
        let one = event(1, "job:0000000").weight();
        let bounds = HistoryBounds {
            events: 8,
            channel_bytes: one,
            bytes: 1000 * one,
            age: Duration::from_secs(60),
        };
        let mut history = History::new(bounds);
        (1..=1_000_000).for_each(|n| history.push(&event(n, &format!("job:{n:07}"))));
        assert_eq!((history.channels(), history.bytes()), (1000, 1000 * one));
        let gone = [Filter::parse("job:0000001").unwrap()];
        assert_eq!(history.after(5, &gone), Missed::Evicted);
        assert_eq!(history.after(999_999, &gone), Missed::Events(vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_expires() {
        let bounds = HistoryBounds {
            events: 8,
            channel_bytes: 1000,
            bytes: usize::MAX,
            age: Duration::from_secs(60),
        };
        let mut history = History::new(bounds);
        history.push(&event(1, "a"));
        tokio::time::advance(Duration::from_secs(40)).await;
        history.push(&event(2, "b"));
        tokio::time::advance(Duration::from_secs(40)).await;
        history.expire(Instant::now());
        assert_eq!(history.channels(), 1);
        assert_eq!(history.after(0, &[Filter::parse("a").unwrap()]), Missed::Evicted);
        assert_eq!(history.after(1, &[Filter::parse("a").unwrap()]), Missed::Events(vec![]));
    }

    impl PartialEq for Event {
        fn eq(&self, other: &Self) -> bool {
            self.position == other.position
        }
    }
    impl Eq for Event {}
}
