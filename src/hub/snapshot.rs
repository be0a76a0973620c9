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
use super::rule::ChannelRule;
use crate::event::{Channel, Event, Fields, Filter, TextSoFar};

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotBounds {
    /// Bytes of all channels together.
    pub bytes: usize,
    /// Age of a channel's last event.
    pub age: Duration,
}

#[derive(Debug)]
pub(super) struct Snapshots {
    bounds: SnapshotBounds,
    rules: Arc<[ChannelRule]>,
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

/// What is known last of one thing.
#[derive(Debug)]
struct Keyed {
    key: Option<Box<str>>,
    /// Its last event that is no part of a text.
    event: Option<Arc<Event>>,
    text: Option<Box<Text>>,
}

/// A text, and the field its pieces are in.
#[derive(Debug)]
struct Text {
    field: String,
    so_far: TextSoFar,
}

/// Things told apart in one channel, at most; the oldest gives way.
const KEYS_PER_CHANNEL: usize = 256;

impl Snapshots {
    pub(super) fn new(bounds: SnapshotBounds, rules: Arc<[ChannelRule]>) -> Self {
        Self { bounds, rules, channels: LinkedHashMap::new(), names: Names::default(), bytes: 0 }
    }

    /// The newest event of a channel, whatever its key.
    pub(super) fn newest(&self, channel: &Channel) -> Option<&Arc<Event>> {
        let events = self.channels.get(channel)?.by_key.iter().filter_map(Keyed::newest);
        events.max_by_key(|event| event.position.sequence)
    }

    /// Keeps `event` in place of the last one.
    pub(super) fn push(&mut self, event: &Arc<Event>) {
        if self.bounds.bytes == 0 {
            return;
        }
        let rules = Arc::clone(&self.rules);
        let special = |rule: &&ChannelRule| rule.tells_apart() && rule.is_for(&event.channel);
        let rule = rules.iter().find(special);
        if let Some(latest) = self.channels.get_mut(&event.channel) {
            let before = latest.take_in(event, rule);
            self.bytes = self.bytes + before.added - before.gone;
            self.channels.to_back(&event.channel);
        } else {
            let mut latest = Latest { by_key: SmallVec::new() };
            self.bytes += latest.take_in(event, rule).added;
            self.names.insert(event.channel.clone());
            self.channels.insert(event.channel.clone(), latest);
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

    fn forget_oldest(&mut self) -> bool {
        let Some((channel, latest)) = self.channels.pop_front() else { return false };
        self.names.remove(&channel);
        self.bytes -= latest.weight();
        true
    }
}

/// What became of the bytes held.
struct Change {
    added: usize,
    gone: usize,
}

impl Latest {
    fn events(&self) -> impl Iterator<Item = Arc<Event>> {
        self.by_key.iter().flat_map(Keyed::events)
    }

    fn weight(&self) -> usize {
        self.by_key.iter().map(Keyed::weight).sum::<usize>()
    }

    fn age(&self, now: Instant) -> Duration {
        let newest = self.by_key.iter().filter_map(Keyed::newest).map(|event| event.received).max();
        newest.map_or(Duration::MAX, |received| now - received)
    }

    fn take_in(&mut self, event: &Arc<Event>, rule: Option<&ChannelRule>) -> Change {
        let fields = rule.and_then(|_| event.payload.fields()).unwrap_or_default();
        let key = rule.and_then(|rule| fields.get(rule.key.as_ref()?));
        let known =
            |keyed: &&mut Keyed| keyed.key.as_deref() == key.map(serde_json::value::RawValue::get);
        let text = rule.and_then(|rule| rule.text.as_deref());
        if let Some(keyed) = self.by_key.iter_mut().find(known) {
            let gone = keyed.weight();
            keyed.take_in(event, &fields, text);
            return Change { added: keyed.weight(), gone };
        }
        let oldest = (self.by_key.len() >= KEYS_PER_CHANNEL).then(|| self.by_key.remove(0));
        let mut keyed = Keyed { key: key.map(|key| key.get().into()), event: None, text: None };
        keyed.take_in(event, &fields, text);
        let change =
            Change { added: keyed.weight(), gone: oldest.map_or(0, |oldest| oldest.weight()) };
        self.by_key.push(keyed);
        change
    }
}

impl Keyed {
    /// `text`: the field of pieces of a text.
    fn take_in(&mut self, event: &Arc<Event>, fields: &Fields<'_>, text: Option<&str>) {
        if let Some(field) = text {
            let fresh = || Box::new(Text { field: field.to_owned(), so_far: TextSoFar::default() });
            let text = self.text.get_or_insert_with(fresh);
            if text.so_far.push(event, fields, field) {
                return;
            }
        }
        self.event = Some(Arc::clone(event));
    }

    fn events(&self) -> impl Iterator<Item = Arc<Event>> {
        let text = self.text.iter().flat_map(|text| text.so_far.events(&text.field));
        text.chain(self.event.clone())
    }

    fn newest(&self) -> Option<&Arc<Event>> {
        let text = self.text.as_ref().and_then(|text| text.so_far.newest());
        text.into_iter().chain(&self.event).max_by_key(|event| event.position.sequence)
    }

    fn weight(&self) -> usize {
        let event = self.event.as_ref().map_or(0, |event| event.weight());
        event + self.text.as_ref().map_or(0, |text| text.so_far.weight())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ChannelPattern, Epoch, Payload};

    fn event(sequence: u64, name: &str, payload: &str) -> Arc<Event> {
        let payload = Payload::parse(payload.as_bytes(), 1000).unwrap();
        Arc::new(Event::new(Channel::new(name).unwrap(), payload, Epoch::random().at(sequence)))
    }

    fn sequences(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.position.sequence).collect()
    }

    fn with_rule(channels: &str, key: Option<&str>, text: Option<&str>) -> Snapshots {
        let rule = ChannelRule {
            channels: ChannelPattern::new(channels).unwrap(),
            history: None,
            key: key.map(str::to_owned),
            text: text.map(str::to_owned),
        };
        let bounds = SnapshotBounds { bytes: usize::MAX, age: Duration::MAX };
        Snapshots::new(bounds, Arc::from([rule]))
    }

    #[test]
    fn all_of_a_text_and_the_last_that_is_none() {
        let mut snapshots = with_rule("run:*", Some("m"), Some("t"));
        let said = [
            r#"{"m":"a","t":""}"#,
            r#"{"m":"b","t":""}"#,
            r#"{"m":"a","t":"x "}"#,
            r#"{"m":"b","t":"u"}"#,
            r#"{"m":"a","t":"y"}"#,
            r#"{"m":"a","done":true}"#,
            r#"{"m":"a","done":true,"score":1}"#,
        ];
        for (payload, n) in said.iter().zip(1..) {
            snapshots.push(&event(n, "run:1", payload));
        }
        let told = snapshots.of(&[Filter::parse("run:1").unwrap()]);
        assert_eq!(sequences(&told), [1, 2, 4, 5, 7]);
        let texts: Vec<_> = told.iter().map(|event| event.payload.as_str()).collect();
        assert_eq!(texts[2..4], [r#"{"m":"b","t":"u"}"#, r#"{"m":"a","t":"x y"}"#]);
        assert_eq!(snapshots.newest(&told[0].channel).unwrap().position.sequence, 7);
        while snapshots.forget_oldest() {}
        assert_eq!(snapshots.bytes(), 0);
    }

    #[test]
    fn the_last_of_each_key() {
        let mut snapshots = with_rule("ab:*", Some("variantId"), None);
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
        let mut snapshots = Snapshots::new(bounds, Arc::from([]));
        for n in 1..=1000 {
            snapshots.push(&event(n, &format!("job:{:04}", n % 100), "1"));
        }
        assert_eq!((snapshots.channels(), snapshots.bytes()), (10, 10 * one));
        while snapshots.forget_oldest() {}
        assert_eq!(snapshots.bytes(), 0);
    }
}
