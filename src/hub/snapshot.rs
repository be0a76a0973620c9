//! The last event of each channel, for those who come late.
//!
//! Bounded in bytes and age; the channels that have been silent longest go first, so a million
//! finished jobs do not stay.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::recent::Recent;
use super::rule::ChannelRule;
use crate::event::{
    Channel, ChannelPattern, Event, Fields, Filter, Frame, FrameCache, Made, Shape, ShapeId,
    TextSoFar, Variant,
};

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotBounds {
    /// Bytes of all channels together.
    pub bytes: usize,
    /// Age of a channel's last event.
    pub age: Duration,
    /// Bytes of one client's snapshot of all that its patterns match.
    pub pattern_bytes: usize,
    /// Things told apart in one channel; the oldest gives way.
    pub keys: usize,
}

#[derive(Debug)]
pub(super) struct Snapshots {
    bounds: SnapshotBounds,
    rules: Arc<[ChannelRule]>,
    channels: Recent<Latest>,
    bytes: usize,
}

/// What is known last of what somebody listens to.
#[derive(Debug, Default)]
pub struct Known {
    /// Oldest first. All of the channels that are named exactly; of those that patterns match, the
    /// newest.
    pub last: Vec<Last>,
    /// How many channels that patterns match were left out.
    pub truncated: usize,
    /// The channels of which some things were let go of, because they were too many.
    pub forgotten: Vec<Channel>,
    /// What streams tell of it, each once for all who ask the same.
    told: Mutex<Vec<(ShapeId, Arc<Told>)>>,
}

/// What one kind of stream tells of what is known last.
#[derive(Debug)]
pub struct Told {
    /// What is told, oldest first.
    pub events: Vec<Arc<Event>>,
    /// Those among them with which the stream is over.
    pub ends: Vec<Arc<Event>>,
    /// Bytes of JSON in all of them.
    pub bytes: usize,
    /// Their frames without an id, once more than one is told.
    frames: OnceLock<Box<[FrameCache]>>,
    is_shared: AtomicBool,
}

impl Known {
    /// What a stream of this shape tells of it.
    pub fn told(&self, shape: &dyn Shape) -> Arc<Told> {
        let mut told = self.told.lock();
        if let Some((_, told)) = told.iter().find(|(of, _)| *of == shape.id()) {
            told.is_shared.store(true, Ordering::Relaxed);
            return Arc::clone(told);
        }
        let new = Arc::new(Told::new(&self.last, shape));
        told.push((shape.id(), Arc::clone(&new)));
        new
    }
}

impl Told {
    fn new(last: &[Last], shape: &dyn Shape) -> Self {
        let told = last.iter().filter_map(|last| last.for_stream(shape));
        let mut events: Vec<_> = told.cloned().collect();
        events.sort_by_key(|event| event.position.sequence);
        let mut told = Self::of(events);
        for event in &told.events {
            let Some(shaped) = event.shaped(shape) else { continue };
            told.bytes += shaped.json.len();
            told.ends.extend(shaped.end.is_some().then(|| Arc::clone(event)));
        }
        told
    }

    /// The frame without an id of one of them, made by `encode` if nobody asked for it before.
    pub fn frame(&self, index: usize, variant: Variant, encode: impl FnOnce() -> Frame) -> Frame {
        if !self.is_shared.load(Ordering::Relaxed) {
            return encode();
        }
        let all = || self.events.iter().map(|_| FrameCache::default()).collect();
        match self.frames.get_or_init(all).get(index) {
            Some(cache) => cache.get(variant, encode),
            None => encode(),
        }
    }

    fn of(events: Vec<Arc<Event>>) -> Self {
        let (frames, is_shared) = (OnceLock::new(), AtomicBool::new(false));
        Self { ends: Vec::new(), bytes: 0, frames, is_shared, events }
    }

    /// One that tells one event and no end.
    pub fn one(event: &Arc<Event>) -> Arc<Self> {
        Arc::new(Self::of(vec![Arc::clone(event)]))
    }
}

#[derive(Debug)]
struct Latest {
    rules: Applying,
    /// When its last report was made, which events that are no reports may have followed.
    reported: Made,
    /// Whether a thing of it was let go of, because there were too many.
    has_forgotten: bool,
    by_key: SmallVec<[Keyed; 1]>,
}

/// The rules that are for a channel, by number.
#[derive(Debug, Default)]
struct Applying {
    /// The one that says how things are told apart.
    special: Option<usize>,
    /// Those of streams that do not tell every event as the last.
    shapes: SmallVec<[usize; 2]>,
}

/// What is known last of one thing.
#[derive(Debug)]
struct Keyed {
    key: Option<Box<str>>,
    /// Its last event that is no part of a text.
    event: Option<Arc<Event>>,
    /// The earlier events that streams tell in its place, each with the number of their rule.
    earlier: Vec<(usize, Arc<Event>)>,
    text: Option<Box<Text>>,
}

/// The last event of a channel, or of one thing of it.
#[derive(Debug, Clone)]
pub struct Last {
    /// The last, whatever it is.
    pub event: Arc<Event>,
    /// Earlier ones that some streams tell in its place.
    pub earlier: SmallVec<[Arc<Event>; 1]>,
}

impl Last {
    /// What a stream of this shape tells of it; `None` if it shows none of it.
    fn for_stream(&self, shape: &dyn Shape) -> Option<&Arc<Event>> {
        let all = self.earlier.iter().chain([&self.event]);
        let shown = |event: &&Arc<Event>| event.shaped(shape).is_some();
        let gives_way = |told: &Event, later: &Event| told.gives_way_to(later, shape.id());
        let told = all.reduce(|told, later| if gives_way(told, later) { later } else { told });
        told.filter(shown)
    }
}

/// A text, and the field its pieces are in.
#[derive(Debug)]
struct Text {
    field: String,
    so_far: TextSoFar,
}

/// Channels that patterns match in one client's snapshot, at most.
const MOST_CHANNELS: usize = if cfg!(test) { 4 } else { 4096 };
/// Channels that are looked at for one pattern, at most.
const MOST_LOOKED_AT: usize = 16_384;

impl Snapshots {
    /// `standing`: what is heard at all times.
    pub(super) fn new(
        bounds: SnapshotBounds,
        rules: Arc<[ChannelRule]>,
        standing: &[ChannelPattern],
    ) -> Self {
        Self { bounds, rules, channels: Recent::new(standing), bytes: 0 }
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
        let new = || {
            let rules = Applying::to(&event.channel, &self.rules);
            let (reported, by_key) = (Made::Unsaid, SmallVec::new());
            Latest { rules, reported, has_forgotten: false, by_key }
        };
        let Some(latest) = self.channels.touch(&event.channel, new) else { return };
        let change = latest.take_in(event, &self.rules, self.bounds.keys);
        self.bytes = self.bytes + change.added - change.gone;
        while self.bytes > self.bounds.bytes && self.forget_oldest() {}
    }

    /// Lets go of a channel that has been silent for longer than the age; `false` if there is none.
    pub(super) fn expire_one(&mut self, now: Instant) -> bool {
        let oldest = self.channels.oldest();
        oldest.is_some_and(|(_, latest)| latest.age(now) > self.bounds.age) && self.forget_oldest()
    }

    /// Whether a stream of `channel` may end, and has not as far as is known.
    pub(super) fn may_end(&self, channel: &Channel) -> bool {
        let Some(latest) = self.channels.get(channel) else { return false };
        let ends = |(rule, shape): (usize, ShapeId)| {
            latest.by_key.iter().any(|keyed| keyed.has_ended(rule, shape))
        };
        let mut shapes = latest.rules.shapes(&self.rules).peekable();
        shapes.peek().is_some() && !shapes.any(ends)
    }

    /// When the last report of `channel` was made.
    pub(super) fn last_report(&self, channel: &Channel) -> Made {
        self.channels.get(channel).map_or(Made::Unsaid, |latest| latest.reported)
    }

    /// What is known last of the channels that `filters` let pass.
    pub(super) fn of(&self, filters: &[Filter]) -> Known {
        let mut known = Known { last: self.exactly(filters), ..Known::default() };
        let exact = filters.iter().filter_map(Filter::exact);
        let has_forgotten = |channel: &&Channel| {
            self.channels.get(channel).is_some_and(|latest| latest.has_forgotten)
        };
        known.forgotten = exact.filter(has_forgotten).cloned().collect();
        let mut room = Room { channels: MOST_CHANNELS, bytes: self.bounds.pattern_bytes };
        for pattern in filters.iter().filter_map(Filter::pattern) {
            self.matched(pattern, &mut room, &mut known);
        }
        known.last.sort_by_key(|last| last.event.position.sequence);
        known.last.dedup_by_key(|last| last.event.position.sequence);
        known
    }

    /// What is known last of the channels that `filters` name.
    pub(super) fn exactly(&self, filters: &[Filter]) -> Vec<Last> {
        let named = filters.iter().filter_map(Filter::exact);
        let known = named.filter_map(|channel| self.channels.get(channel));
        known.flat_map(Latest::last).collect()
    }

    /// The newest of those that `pattern` matches, as far as there is room. Looks at the newest of all
    /// that may match, and no further than [`MOST_LOOKED_AT`]: at names alone if they are few.
    fn matched(&self, pattern: &ChannelPattern, room: &mut Room, known: &mut Known) {
        let all = self.channels.count(pattern, MOST_LOOKED_AT);
        let mut taken = 0;
        let mut take = |(channel, latest): (&Channel, &Latest)| {
            let fits = room.take(latest.weight());
            if fits {
                known.last.extend(latest.last());
                known.forgotten.extend(latest.has_forgotten.then(|| channel.clone()));
                taken += 1;
            }
            fits
        };
        if all <= MOST_CHANNELS {
            let mut few: Vec<_> = self.channels.named(pattern).collect();
            few.sort_by_key(|(_, latest)| std::cmp::Reverse(latest.sequence()));
            few.into_iter().all(&mut take);
        } else {
            let newest = self.channels.newest_first(pattern).take(MOST_LOOKED_AT);
            newest.filter(|(channel, _)| pattern.matches(channel)).all(&mut take);
        }
        known.truncated += all.saturating_sub(taken);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, latest)) = self.channels.pop_oldest() else { return false };
        self.bytes -= latest.weight();
        true
    }
}

/// The room for what patterns match.
struct Room {
    channels: usize,
    bytes: usize,
}

impl Room {
    /// Takes the room for one channel, if there is any left. The first has room however large.
    fn take(&mut self, weight: usize) -> bool {
        let is_first = self.channels == MOST_CHANNELS;
        let fits = self.channels > 0 && (is_first || weight <= self.bytes);
        self.channels -= usize::from(fits);
        self.bytes = if fits { self.bytes.saturating_sub(weight) } else { 0 };
        fits
    }
}

/// What became of the bytes held.
struct Change {
    added: usize,
    gone: usize,
}

impl Applying {
    fn to(channel: &Channel, rules: &[ChannelRule]) -> Self {
        let own = || rules.iter().enumerate().filter(|(_, rule)| rule.is_for(channel));
        let numbers = |which: fn(&ChannelRule) -> bool| {
            own().filter(move |(_, rule)| which(rule)).map(|(number, _)| number)
        };
        Self {
            special: numbers(ChannelRule::tells_apart).next(),
            shapes: numbers(|rule| rule.shape.is_some()).collect(),
        }
    }

    /// The shapes of streams that do not tell every event as the last, with the numbers of their rules.
    fn shapes<'a>(&'a self, rules: &'a [ChannelRule]) -> impl Iterator<Item = (usize, ShapeId)> {
        let shapes = self.shapes.iter();
        shapes.filter_map(|&rule| Some((rule, rules.get(rule)?.shape.as_ref()?.id())))
    }
}

impl Latest {
    fn last(&self) -> impl Iterator<Item = Last> {
        self.by_key.iter().flat_map(Keyed::last)
    }

    fn weight(&self) -> usize {
        self.by_key.iter().map(Keyed::weight).sum::<usize>()
    }

    /// That of its newest event.
    fn sequence(&self) -> u64 {
        let newest = self.by_key.iter().filter_map(Keyed::newest);
        newest.map(|event| event.position.sequence).max().unwrap_or_default()
    }

    fn age(&self, now: Instant) -> Duration {
        let newest = self.by_key.iter().filter_map(Keyed::newest).map(|event| event.received).max();
        newest.map_or(Duration::MAX, |received| now - received)
    }

    fn take_in(&mut self, event: &Arc<Event>, rules: &[ChannelRule], keys: usize) -> Change {
        self.reported = event.report().unwrap_or(self.reported);
        let rule = self.rules.special.and_then(|rule| rules.get(rule));
        let fields = rule.and_then(|_| event.payload.fields()).unwrap_or_default();
        let key = rule.and_then(|rule| fields.get(rule.key.as_ref()?));
        let known =
            |keyed: &Keyed| keyed.key.as_deref() == key.map(serde_json::value::RawValue::get);
        let (index, gone) = if let Some(index) = self.by_key.iter().position(known) {
            (index, self.by_key.get(index).map_or(0, Keyed::weight))
        } else {
            let oldest = (self.by_key.len() >= keys.max(1)).then(|| self.by_key.remove(0));
            self.has_forgotten |= oldest.is_some();
            self.by_key.push(Keyed::new(key.map(|key| key.get().into())));
            (self.by_key.len() - 1, oldest.map_or(0, |oldest| oldest.weight()))
        };
        let Some(keyed) = self.by_key.get_mut(index) else { return Change { added: 0, gone } };
        let text = rule.and_then(|rule| rule.text.as_deref());
        if !text.is_some_and(|field| keyed.take_piece(event, &fields, field)) {
            keyed.take_in(event, self.rules.shapes(rules));
        }
        Change { added: keyed.weight(), gone }
    }
}

impl Keyed {
    fn new(key: Option<Box<str>>) -> Self {
        Self { key, event: None, earlier: Vec::new(), text: None }
    }

    /// Takes in a piece of a text, if the event is one: if `field` is a text.
    fn take_piece(&mut self, event: &Arc<Event>, fields: &Fields<'_>, field: &str) -> bool {
        let fresh = || Box::new(Text { field: field.to_owned(), so_far: TextSoFar::default() });
        self.text.get_or_insert_with(fresh).so_far.push(event, fields, field)
    }

    /// `shapes`: those of streams that do not tell every event as the last, with their numbers.
    fn take_in(&mut self, event: &Arc<Event>, shapes: impl Iterator<Item = (usize, ShapeId)>) {
        let before = self.event.replace(Arc::clone(event));
        let Some(before) = before else { return };
        for (rule, shape) in shapes {
            let known = self.earlier.iter().position(|(of, _)| *of == rule);
            let told =
                known.map_or_else(|| Arc::clone(&before), |at| self.earlier.swap_remove(at).1);
            if !told.gives_way_to(event, shape) {
                self.earlier.push((rule, told));
            }
        }
        self.earlier.shrink_to_fit();
    }

    /// Whether it has come to its end on streams of the rule.
    fn has_ended(&self, rule: usize, shape: ShapeId) -> bool {
        let earlier = self.earlier.iter().find(|(of, _)| *of == rule).map(|(_, event)| event);
        let told = earlier.or(self.event.as_ref());
        told.is_some_and(|event| event.verdict(shape).end.is_some())
    }

    /// The earlier events, each once, oldest first.
    fn earlier(&self) -> SmallVec<[Arc<Event>; 1]> {
        let mut earlier: SmallVec<[Arc<Event>; 1]> =
            self.earlier.iter().map(|(_, event)| Arc::clone(event)).collect();
        earlier.sort_by_key(|event| event.position.sequence);
        earlier.dedup_by_key(|event| event.position.sequence);
        earlier
    }

    fn last(&self) -> impl Iterator<Item = Last> {
        let alone = |event| Last { event, earlier: SmallVec::new() };
        let text = self.text.iter().flat_map(|text| text.so_far.events(&text.field)).map(alone);
        let last = self.event.clone().map(|event| Last { event, earlier: self.earlier() });
        text.chain(last)
    }

    fn newest(&self) -> Option<&Arc<Event>> {
        let text = self.text.as_ref().and_then(|text| text.so_far.newest());
        text.into_iter().chain(&self.event).max_by_key(|event| event.position.sequence)
    }

    fn weight(&self) -> usize {
        let earlier = if self.earlier.is_empty() { SmallVec::new() } else { self.earlier() };
        let events = self.event.iter().chain(&earlier).map(|event| event.weight()).sum::<usize>();
        events + self.text.as_ref().map_or(0, |text| text.so_far.weight())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Epoch, Payload};

    fn event(sequence: u64, name: &str, payload: &str) -> Arc<Event> {
        let payload = Payload::parse(payload.as_bytes(), 1000).unwrap();
        Arc::new(Event::new(Channel::new(name).unwrap(), payload, Epoch::random().at(sequence)))
    }

    fn sequences(last: &[Last]) -> Vec<u64> {
        last.iter().map(|last| last.event.position.sequence).collect()
    }

    fn with_rule(channels: &str, key: Option<&str>, text: Option<&str>) -> Snapshots {
        let rule = ChannelRule {
            channels: ChannelPattern::new(channels).unwrap(),
            history: None,
            key: key.map(str::to_owned),
            text: text.map(str::to_owned),
            shape: None,
        };
        let bounds = SnapshotBounds {
            bytes: usize::MAX,
            age: Duration::MAX,
            pattern_bytes: usize::MAX,
            keys: 256,
        };
        Snapshots::new(bounds, Arc::from([rule]), &[])
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
        let told = snapshots.of(&[Filter::parse("run:1").unwrap()]).last;
        assert_eq!(sequences(&told), [1, 2, 4, 5, 7]);
        let texts: Vec<_> = told.iter().map(|last| last.event.payload.as_str()).collect();
        assert_eq!(texts[2..4], [r#"{"m":"b","t":"u"}"#, r#"{"m":"a","t":"x y"}"#]);
        assert_eq!(snapshots.newest(&told[0].event.channel).unwrap().position.sequence, 7);
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
        assert_eq!(sequences(&snapshots.of(&[Filter::parse("ab:1").unwrap()]).last), [2, 3]);
        assert_eq!(sequences(&snapshots.of(&[Filter::parse("*").unwrap()]).last), [2, 3, 5]);
    }

    proptest! {
        /// Against a plain list of everything ever said.
        #[test]
        fn a_pattern_tells_the_newest_and_says_how_many_it_leaves_out(
            names in prop::collection::vec("[ab]:[xyz][12]?", 1..60),
            patterns in prop::collection::vec("[ab]?:?\\*|b:x\\*", 1..3),
            exact in prop::collection::vec("[ab]:[xyz]", 0..3),
            channels in 1_usize..20,
            room in 1_usize..8,
        ) {
            let one = event(1, "a:x1", "1").weight();
            let standing = ["a:*", "b:x*", "b:z", "b:*"].map(|text| ChannelPattern::new(text).unwrap());
            let bounds = SnapshotBounds {
                bytes: channels * one,
                age: Duration::MAX,
                pattern_bytes: room * one,
                keys: 1,
            };
            let mut snapshots = Snapshots::new(bounds, Arc::from([]), &standing);
            let mut model: Vec<(String, u64, usize)> = Vec::new();
            for (name, n) in names.iter().zip(1..) {
                let event = event(n, name, "1");
                model.retain(|(known, ..)| known != name);
                model.push((name.clone(), n, event.weight()));
                snapshots.push(&event);
                while model.iter().map(|(.., weight)| weight).sum::<usize>() > channels * one {
                    model.remove(0);
                }
            }
            prop_assert_eq!(snapshots.channels(), model.len());
            let filters = patterns.iter().chain(&exact).map(|text| Filter::parse(text).unwrap());
            let filters: Vec<_> = filters.collect();
            let known = snapshots.of(&filters);

            let (mut expected, mut truncated) = (Vec::new(), 0);
            let (mut left, mut bytes) = (MOST_CHANNELS, room * one);
            for pattern in filters.iter().filter_map(Filter::pattern) {
                let matching = model.iter().rev();
                let matching = matching.filter(|(n, ..)| pattern.matches(&Channel::new(n).unwrap()));
                for (_, n, weight) in matching {
                    if left > 0 && (left == MOST_CHANNELS || *weight <= bytes) {
                        left -= 1;
                        bytes = bytes.saturating_sub(*weight);
                        expected.push(*n);
                    } else {
                        bytes = 0;
                        truncated += 1;
                    }
                }
            }
            expected.extend(model.iter().filter(|(name, ..)| exact.contains(name)).map(|(_, n, _)| n));
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(sequences(&known.last), expected);
            prop_assert_eq!(known.truncated, truncated);
        }
    }

    #[test]
    fn things_that_are_let_go_of_are_not_forgotten_in_silence() {
        let mut snapshots = with_rule("ab:*", Some("variantId"), None);
        snapshots.bounds.keys = 2;
        for (n, variant) in [(1, "A"), (2, "B"), (3, "C")] {
            snapshots.push(&event(n, "ab:1", &format!(r#"{{"variantId":"{variant}"}}"#)));
        }
        for filter in ["ab:1", "ab:*"] {
            let known = snapshots.of(&[Filter::parse(filter).unwrap()]);
            assert_eq!(sequences(&known.last), [2, 3]);
            assert_eq!(known.forgotten, [Channel::new("ab:1").unwrap()], "{filter}");
        }
    }

    #[test]
    fn bytes_are_bounded_and_returned() {
        let one = event(1, "job:0000", "1").weight();
        let bounds = SnapshotBounds {
            bytes: 10 * one,
            age: Duration::MAX,
            pattern_bytes: usize::MAX,
            keys: 256,
        };
        let mut snapshots = Snapshots::new(bounds, Arc::from([]), &[]);
        for n in 1..=1000 {
            snapshots.push(&event(n, &format!("job:{:04}", n % 100), "1"));
        }
        assert_eq!((snapshots.channels(), snapshots.bytes()), (10, 10 * one));
        while snapshots.forget_oldest() {}
        assert_eq!(snapshots.bytes(), 0);
    }
}
