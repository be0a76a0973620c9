//! The last event of each channel, for those who come late.
//!
//! Bounded in bytes and age; the channels that have been silent longest go first, so a million
//! finished jobs do not stay.

use std::sync::Arc;
use std::time::Duration;

use hashlink::LinkedHashMap;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::history::in_order;
use super::names::Names;
use crate::event::{Channel, ChannelPattern, Event, Filter};

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotBounds {
    /// Bytes of all channels together.
    pub bytes: usize,
    /// Age of a channel's last event.
    pub age: Duration,
}

/// Channels that carry the state of several things, told apart by a field of the payload: each
/// thing's last event is kept, not the channel's only.
#[derive(Debug, Clone)]
pub struct KeyRule {
    /// The channels the rule is for.
    pub channels: ChannelPattern,
    /// The field that tells things apart, such as `variantId`.
    pub field: String,
}

#[derive(Debug)]
pub(super) struct Snapshots {
    bounds: SnapshotBounds,
    rules: Vec<KeyRule>,
    /// Least recently published first.
    channels: LinkedHashMap<Channel, Latest>,
    /// The same channels by name, for patterns.
    names: Names,
    bytes: usize,
}

#[derive(Debug)]
struct Latest {
    by_key: SmallVec<[Keyed; 1]>,
}

type Keyed = (Option<Box<str>>, Arc<Event>);

/// Things told apart in one channel, at most; the oldest gives way.
const KEYS_PER_CHANNEL: usize = 256;

impl Snapshots {
    pub(super) fn new(bounds: SnapshotBounds, rules: Vec<KeyRule>) -> Self {
        Self { bounds, rules, channels: LinkedHashMap::new(), names: Names::default(), bytes: 0 }
    }

    /// The newest event of a channel, whatever its key.
    pub(super) fn newest(&self, channel: &Channel) -> Option<&Arc<Event>> {
        let events = self.channels.get(channel)?.by_key.iter().map(|(_, event)| event);
        events.max_by_key(|event| event.position.sequence)
    }

    /// Keeps `event` in place of the last one.
    pub(super) fn push(&mut self, event: &Arc<Event>) {
        if self.bounds.bytes == 0 {
            return;
        }
        let key = self.key(event);
        self.bytes += event.weight();
        if let Some(latest) = self.channels.get_mut(&event.channel) {
            self.bytes -= latest.replace(key, event);
            self.channels.to_back(&event.channel);
        } else {
            let by_key = SmallVec::from_iter([(key, Arc::clone(event))]);
            self.names.insert(event.channel.clone());
            self.channels.insert(event.channel.clone(), Latest { by_key });
        }
        while self.bytes > self.bounds.bytes && self.forget_oldest() {}
    }

    /// Lets go of channels that have been silent for longer than the age.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.channels.front().is_some_and(|(_, latest)| latest.age(now) > self.bounds.age) {
            self.forget_oldest();
        }
    }

    /// The last events that `filters` let pass, oldest first.
    pub(super) fn of(&self, filters: &[Filter]) -> Vec<Arc<Event>> {
        let mut found = Vec::new();
        let mut take = |channel: &Channel| {
            found.extend(self.channels.get(channel).into_iter().flat_map(Latest::events));
        };
        for filter in filters {
            match filter {
                Filter::Exact(channel) => take(channel),
                Filter::Pattern(pattern) => self.names.matching(pattern).for_each(&mut take),
            }
        }
        in_order(&mut found);
        found
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    fn key(&self, event: &Event) -> Option<Box<str>> {
        let rule = self.rules.iter().find(|rule| rule.channels.matches(&event.channel))?;
        event.payload.fields()?.get(&rule.field).map(|value| value.get().into())
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((channel, latest)) = self.channels.pop_front() else { return false };
        self.names.remove(&channel);
        self.bytes -= latest.weight();
        true
    }
}

impl Latest {
    fn events(&self) -> impl Iterator<Item = Arc<Event>> {
        self.by_key.iter().map(|(_, event)| Arc::clone(event))
    }

    fn weight(&self) -> usize {
        self.by_key.iter().map(|(_, event)| event.weight()).sum::<usize>()
    }

    fn age(&self, now: Instant) -> Duration {
        let newest = self.by_key.iter().map(|(_, event)| event.received).max();
        newest.map_or(Duration::MAX, |received| now - received)
    }

    /// Returns the weight of what gave way.
    fn replace(&mut self, key: Option<Box<str>>, event: &Arc<Event>) -> usize {
        if let Some((_, old)) = self.by_key.iter_mut().find(|(known, _)| *known == key) {
            return std::mem::replace(old, Arc::clone(event)).weight();
        }
        let gone = (self.by_key.len() >= KEYS_PER_CHANNEL).then(|| self.by_key.remove(0));
        self.by_key.push((key, Arc::clone(event)));
        gone.map_or(0, |(_, event)| event.weight())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Epoch, Payload};

    fn event(sequence: u64, name: &str, payload: &str) -> Arc<Event> {
        let payload = Payload::parse(payload.as_bytes(), 1000).unwrap();
        Arc::new(Event::new(Channel::new(name).unwrap(), payload, Epoch::random().at(sequence)))
    }

    fn sequences(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.position.sequence).collect()
    }

    #[test]
    fn the_last_of_each_key() {
        let rule = KeyRule {
            channels: ChannelPattern::new("ab:*").unwrap(),
            field: "variantId".to_owned(),
        };
        let bounds = SnapshotBounds { bytes: usize::MAX, age: Duration::MAX };
        let mut snapshots = Snapshots::new(bounds, vec![rule]);
        for (n, variant) in [(1, "A"), (2, "B"), (3, "A")] {
            snapshots.push(&event(n, "ab:1", &format!(r#"{{"variantId":"{variant}"}}"#)));
        }
        snapshots.push(&event(4, "other:1", r#"{"variantId":"A"}"#));
        snapshots.push(&event(5, "other:1", r#"{"variantId":"B"}"#));
        assert_eq!(sequences(&snapshots.of(&[Filter::parse("ab:1").unwrap()])), [2, 3]);
        assert_eq!(sequences(&snapshots.of(&[Filter::parse("*").unwrap()])), [2, 3, 5]);
    }

    #[test]
    fn bytes_are_bounded_and_returned() {
        let one = event(1, "job:0000", "1").weight();
        let bounds = SnapshotBounds { bytes: 10 * one, age: Duration::MAX };
        let mut snapshots = Snapshots::new(bounds, vec![]);
        for n in 1..=1000 {
            snapshots.push(&event(n, &format!("job:{:04}", n % 100), "1"));
        }
        assert_eq!((snapshots.channels(), snapshots.bytes()), (10, 10 * one));
        while snapshots.forget_oldest() {}
        assert_eq!(snapshots.bytes(), 0);
    }
}
