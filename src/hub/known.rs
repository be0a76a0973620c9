//! What is known last, and what streams tell of it to those who come late.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::event::{Channel, Event, Frame, FrameCache, Shape, ShapeId, Variant};

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
