//! What becomes of an event on one kind of stream. Computed once per event and shape, not per client.

use std::fmt;
use std::iter::successors;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::batch::BatchCache;
use super::frame::FrameCache;
use super::time::Made;
use super::{Channel, Event, Payload};

/// Turns what a publisher said into what the clients of one declared stream expect.
///
/// A shape is a pure function of the event: every session, shard and replay gets the same result.
pub trait Shape: fmt::Debug + Send + Sync {
    /// Tells this shape from every other of the node.
    fn id(&self) -> ShapeId;

    /// The event as clients of the stream get it; `None` when it is not for them.
    fn apply(&self, event: &Event) -> Option<Shaped>;

    /// Whether clients of the stream are told of `channel` at all, were it only that something of it
    /// is missing.
    fn shows(&self, _channel: &Channel) -> bool {
        true
    }

    /// What an event with this payload means to the stream. Cheaper than shaping it, and always the
    /// same as what the shape says.
    fn verdict(&self, _channel: &Channel, _payload: &Payload) -> Verdict {
        Verdict::default()
    }

    /// The first of `events`, which a client is to get one after the other, told as one: as many as
    /// can be, two at least. Returned with those that are left; `None` when the first two stay
    /// apart.
    fn merge<'a>(&self, _events: &'a [Arc<Event>]) -> Option<(Event, &'a [Arc<Event>])> {
        None
    }
}

/// See [`Shape::id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShapeId(pub u16);

/// What an event means to a stream that is over at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the stream shows it.
    pub is_shown: bool,
    /// Whether it has a field that the end of the stream hangs on. One that has none, such as a line of
    /// a log, says nothing about it.
    pub is_report: bool,
    /// The rule whose end it is, and for how long no event takes the end back.
    pub end: Option<(usize, Duration)>,
    /// The rules whose end it takes back.
    pub contradicts: Rules,
    /// When it was made, as it says.
    pub made: Made,
}

impl Default for Verdict {
    /// It is shown, and says nothing about the end.
    fn default() -> Self {
        let (end, contradicts, made) = (None, Rules::default(), Made::Unsaid);
        Self { is_shown: true, is_report: false, end, contradicts, made }
    }
}

/// What an event means to each of the streams that are over at some time.
pub type Verdicts = Box<[(ShapeId, Verdict)]>;

/// An event in the shape of one stream.
#[derive(Debug)]
pub struct Shaped {
    /// JSON on one line.
    pub json: Arc<str>,
    /// The type of the event, for clients that want it as the SSE event name.
    pub kind: Option<Box<str>>,
    /// Whether it has that name for all clients: those that do not know it are not to see it.
    pub is_notice: bool,
    /// Tells things apart that share a channel: only an event of the same key replaces this one.
    pub key: Option<Box<str>>,
    /// Set when the stream is over with this event.
    pub end: Option<End>,
    /// The rules whose end this event takes back.
    pub contradicts: Rules,
    /// The run of work it reports on, for those who estimate its end.
    pub run: Option<Run>,
    /// The JSON in compressed form, once somebody has asked for it; `None` inside: no shorter.
    pub compressed: OnceLock<Option<Box<str>>>,
    /// What has been encoded of it.
    pub frames: FrameCache,
    /// What has been sent together with it, as the last of a batch.
    pub batches: BatchCache,
}

/// A run of work, from its beginning or from where it was begun anew. Progress is from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// When it began, as far as is known.
    pub began: Instant,
    /// At which progress.
    pub from: f64,
    /// How far it has come.
    pub reached: f64,
}

/// A stream is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What is said last.
    pub outcome: Outcome,
    /// How long an event that contradicts it may still take the end back.
    pub grace: Duration,
    /// How long no event takes it back.
    pub latch: Duration,
    /// Which rule of the stream says so.
    pub rule: usize,
}

/// Some of the rules of a stream that say when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rules(u64);

impl Rules {
    /// Rules that one stream may have.
    pub const MAX: usize = 64;

    /// Whether `rule` is one of them.
    pub fn contains(self, rule: usize) -> bool {
        rule < Self::MAX && self.0 & (1 << rule) != 0
    }
}

impl FromIterator<usize> for Rules {
    fn from_iter<I: IntoIterator<Item = usize>>(rules: I) -> Self {
        let within = rules.into_iter().filter(|rule| *rule < Self::MAX);
        Self(within.fold(0, |rules, rule| rules | 1 << rule))
    }
}

/// How a stream ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With `complete` and this data: JSON on one line.
    Complete(Arc<str>),
    /// With `error` and this text for people.
    Failed(Arc<str>),
}

impl Event {
    /// Whether `later`, an event of the same channel and key, is told in the place of this one on
    /// streams of this shape. Not if it is not shown, and not as long as this one's end stands.
    pub fn gives_way_to(&self, later: &Self, shape: ShapeId) -> bool {
        let (said, says) = (self.verdict(shape), later.verdict(shape));
        if !says.is_shown {
            return !said.is_shown;
        }
        said.end.is_none_or(|(rule, latch)| {
            says.end.is_some()
                || says.contradicts.contains(rule) && later.received >= self.received + latch
        })
    }

    /// What it means to streams of this shape.
    pub fn verdict(&self, shape: ShapeId) -> Verdict {
        let verdicts = self.verdicts.iter();
        let mut of_shape = verdicts.filter(|(of, _)| *of == shape).map(|(_, verdict)| *verdict);
        of_shape.next().unwrap_or_default()
    }
}

impl End {
    /// Whether the end that `event` said is taken back by `later`, which is `shaped` so.
    pub fn is_taken_back(&self, event: &Event, later: &Event, shaped: &Shaped) -> bool {
        shaped.contradicts.contains(self.rule) && later.received >= event.received + self.latch
    }
}

impl Shaped {
    /// JSON without a type or an end.
    pub fn plain(json: Arc<str>) -> Self {
        Self {
            json,
            kind: None,
            is_notice: false,
            key: None,
            end: None,
            contradicts: Rules::default(),
            run: None,
            compressed: OnceLock::new(),
            frames: FrameCache::default(),
            batches: BatchCache::default(),
        }
    }
}

/// The shapes an event has been given so far: a list that only grows, read without a lock.
#[derive(Debug, Default)]
pub(super) struct ShapeCache(OnceLock<Box<Entry>>);

#[derive(Debug)]
struct Entry {
    shape: ShapeId,
    shaped: Option<Shaped>,
    next: ShapeCache,
}

impl ShapeCache {
    pub(super) fn holds(&self, shape: ShapeId) -> bool {
        let entries = successors(self.0.get(), |entry| entry.next.0.get());
        entries.into_iter().any(|entry| entry.shape == shape)
    }

    pub(super) fn get(&self, shape: &dyn Shape, event: &Event) -> Option<&Shaped> {
        let mut slot = self;
        loop {
            let entry = slot.0.get_or_init(|| {
                let shaped = shape.apply(event);
                Box::new(Entry { shape: shape.id(), shaped, next: Self::default() })
            });
            if entry.shape == shape.id() {
                return entry.shaped.as_ref();
            }
            slot = &entry.next;
        }
    }
}
