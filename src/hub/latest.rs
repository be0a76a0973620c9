//! What is kept of one channel for those who come late: the last event of each thing in it.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::known::Last;
use super::rule::ChannelRule;
use crate::event::{Channel, Event, Fields, Made, ShapeId, TextSoFar};

/// What is known last of one channel.
#[derive(Debug)]
pub(super) struct Latest {
    rules: Applying,
    /// When its last report was made, which events that are no reports may have followed.
    pub(super) reported: Made,
    /// Whether a thing of it was let go of, because there were too many.
    pub(super) has_forgotten: bool,
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

/// A text, and the field its pieces are in.
#[derive(Debug)]
struct Text {
    field: String,
    so_far: TextSoFar,
}

/// What became of the bytes held.
pub(super) struct Change {
    pub(super) added: usize,
    pub(super) gone: usize,
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
    pub(super) fn new(channel: &Channel, rules: &[ChannelRule]) -> Self {
        let (reported, by_key) = (Made::Unsaid, SmallVec::new());
        Self { rules: Applying::to(channel, rules), reported, has_forgotten: false, by_key }
    }

    /// Its newest event, whatever its key.
    pub(super) fn newest(&self) -> Option<&Arc<Event>> {
        let events = self.by_key.iter().filter_map(Keyed::newest);
        events.max_by_key(|event| event.position.sequence)
    }

    /// Whether a stream of the channel may end, and has not as far as is known.
    pub(super) fn may_end(&self, rules: &[ChannelRule]) -> bool {
        let ends = |(rule, shape): (usize, ShapeId)| {
            self.by_key.iter().any(|keyed| keyed.has_ended(rule, shape))
        };
        let mut shapes = self.rules.shapes(rules).peekable();
        shapes.peek().is_some() && !shapes.any(ends)
    }

    pub(super) fn last(&self) -> impl Iterator<Item = Last> {
        self.by_key.iter().flat_map(Keyed::last)
    }

    pub(super) fn weight(&self) -> usize {
        self.by_key.iter().map(Keyed::weight).sum::<usize>()
    }

    /// That of its newest event.
    pub(super) fn sequence(&self) -> u64 {
        self.newest().map(|event| event.position.sequence).unwrap_or_default()
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        self.newest().map_or(Duration::MAX, |event| now - event.received)
    }

    /// Keeps `event` in place of the last one of its key; no more than so many `keys`.
    pub(super) fn take_in(
        &mut self,
        event: &Arc<Event>,
        rules: &[ChannelRule],
        keys: usize,
    ) -> Change {
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
