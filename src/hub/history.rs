//! The recent events of each channel, so that a client can come back and miss nothing.
//!
//! Bounded three ways: events and age per channel, bytes in total. What was let go is remembered as
//! a *floor*: the highest sequence that may be missing. A client that stands at or above the floor
//! can be resumed exactly; one below it is told of a gap. The oldest channels go first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::recent::Recent;
use crate::event::{Channel, ChannelPattern, Event, Filter};

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
    rings: Recent<Ring>,
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
#[derive(Debug)]
#[cfg_attr(test, derive(PartialEq, Eq))]
pub(super) enum Missed {
    /// Exactly these, in order.
    Events(Vec<Arc<Event>>),
    /// Some are no longer known, or they are too many.
    Evicted,
}

/// Events that one client is given when it comes back, at most. Whoever missed more is told so.
const MOST_MISSED: usize = 16_384;
/// A pattern that matches no more channels than this finds them by their names.
const FEW: usize = if cfg!(test) { 1 } else { 1024 };
/// Channels that are looked at for one pattern, at most: with more news than that there is a gap.
const MOST_LOOKED_AT: usize = 32_768;

impl History {
    /// `standing`: what is heard at all times.
    pub(super) fn new(bounds: HistoryBounds, standing: &[ChannelPattern]) -> Self {
        Self { bounds, rings: Recent::new(standing), bytes: 0, floor: 0 }
    }

    /// Keeps `event`, and lets go of what no longer fits.
    pub(super) fn push(&mut self, event: &Arc<Event>) {
        if self.bounds.events == 0 {
            self.floor = event.position.sequence;
            return;
        }
        let new = || Ring { floor: self.floor, ..Ring::default() };
        let Some(ring) = self.rings.touch(&event.channel, new) else { return };
        self.bytes += event.weight();
        ring.bytes += event.weight();
        ring.events.push_back(Arc::clone(event));
        while ring.exceeds(self.bounds, event.received) {
            self.bytes -= ring.evict();
        }
        while self.bytes > self.bounds.bytes && self.forget_oldest() {}
    }

    /// Lets go of a channel that has been silent for longer than the age; `false` if there is none.
    pub(super) fn expire_one(&mut self, now: Instant) -> bool {
        let is_old =
            |ring: &Ring| ring.last().is_none_or(|last| now - last.received > self.bounds.age);
        self.rings.oldest().is_some_and(|(_, ring)| is_old(ring)) && self.forget_oldest()
    }

    /// What `filters` let pass after `sequence`, in order and each once. Looks at what was published
    /// since, not at all that is known.
    pub(super) fn after(&self, sequence: u64, filters: &[Filter]) -> Missed {
        let mut missed = Vec::new();
        let mut take = |ring: &Ring| {
            let events = ring.events.iter().skip(ring.first_after(sequence));
            missed.extend(events.take(MOST_MISSED + 1).cloned());
            ring.floor <= sequence && missed.len() <= MOST_MISSED
        };
        let is_complete = filters.iter().all(|filter| match filter {
            Filter::Exact(channel) => match self.rings.get(channel) {
                Some(ring) => take(ring),
                None => self.floor <= sequence,
            },
            Filter::Pattern(_) if self.floor > sequence => false,
            Filter::Pattern(pattern) if self.rings.named(pattern).nth(FEW).is_none() => {
                self.rings.named(pattern).all(|(_, ring)| take(ring))
            }
            Filter::Pattern(pattern) => {
                let newest = self.rings.newest_first(pattern);
                let newer = newest.take_while(|(_, ring)| ring.is_after(sequence)).enumerate();
                newer.into_iter().all(|(looked_at, (channel, ring))| {
                    let is_told = !pattern.matches(channel) || take(ring);
                    is_told && looked_at < MOST_LOOKED_AT
                })
            }
        });
        if !is_complete {
            return Missed::Evicted;
        }
        in_order(&mut missed);
        Missed::Events(missed)
    }

    /// The newest known event of `channel` at or before `sequence`.
    pub(super) fn at_or_before(&self, sequence: u64, channel: &Channel) -> Option<&Arc<Event>> {
        let ring = self.rings.get(channel)?;
        ring.events.get(ring.first_after(sequence).checked_sub(1)?)
    }

    pub(super) fn holds(&self, channel: &Channel) -> bool {
        self.rings.contains(channel)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn channels(&self) -> usize {
        self.rings.len()
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, ring)) = self.rings.pop_oldest() else { return false };
        self.bytes -= ring.bytes;
        let last = ring.last().map_or(ring.floor, |event| event.position.sequence);
        self.floor = self.floor.max(last);
        true
    }
}

impl Ring {
    fn last(&self) -> Option<&Arc<Event>> {
        self.events.back()
    }

    /// Whether something was published after `sequence`.
    fn is_after(&self, sequence: u64) -> bool {
        self.last().map_or(self.floor, |last| last.position.sequence) > sequence
    }

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
    use crate::event::{Epoch, Payload};

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
            filters in prop::collection::vec("[ab]:[xy*]|[ab]?\\*", 1..3),
        ) {
            let bytes = channels * event(1, "a:x").weight();
            let mut history = History::new(HistoryBounds { events, channel_bytes: bytes / 2, bytes, age: Duration::MAX }, &[ChannelPattern::new("a:*").unwrap()]);
            let all: Vec<_> = names.iter().zip(1..).map(|(name, n)| event(n, name)).collect();
            for event in &all {
                history.push(event);
            }
            prop_assert!(history.bytes() <= bytes);

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
        let mut history = History::new(bounds, &[]);
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
        let mut history = History::new(bounds, &[]);
        history.push(&event(1, "a"));
        tokio::time::advance(Duration::from_secs(40)).await;
        history.push(&event(2, "b"));
        tokio::time::advance(Duration::from_secs(40)).await;
        while history.expire_one(Instant::now()) {}
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
