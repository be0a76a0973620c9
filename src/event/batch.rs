//! Events that go out together: one batch, and one encoding of it, for all who get the same.

use std::sync::{Arc, OnceLock, Weak};

use super::Event;
use super::frame::FrameCache;

/// Events of a window of time, in one shape.
#[derive(Debug)]
pub struct Batch {
    /// At least one, oldest first.
    pub events: Vec<Arc<Event>>,
    /// What has been encoded of it.
    pub frames: FrameCache,
}

/// The batches that end with one event, as long as somebody holds them. Weak: a batch holds its
/// events, and the last one may stay in the history for long after.
///
/// Two of them: when an event comes in at the border of two windows, some sessions have it in the
/// one and some in the other. Clients that find no room here have batches of their own.
#[derive(Debug, Default)]
pub struct BatchCache([OnceLock<Weak<Batch>>; 2]);

impl Batch {
    /// A batch of `events`.
    pub fn new(events: Vec<Arc<Event>>) -> Self {
        Self { events, frames: FrameCache::default() }
    }

    fn is_same(&self, other: &Self) -> bool {
        let pairs = || self.events.iter().zip(&other.events);
        self.events.len() == other.events.len() && pairs().all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl BatchCache {
    /// A batch of the same events as `batch`, which may be `batch` itself. `true` beside it: others
    /// will find it here while it is held.
    pub fn share(&self, batch: Arc<Batch>) -> (Arc<Batch>, bool) {
        for slot in &self.0 {
            let known = slot.get_or_init(|| Arc::downgrade(&batch)).upgrade();
            if let Some(known) = known.filter(|known| known.is_same(&batch)) {
                let is_new = Arc::ptr_eq(&known, &batch);
                return (known, is_new);
            }
        }
        (batch, false)
    }
}
