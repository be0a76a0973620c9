//! Windows of time for clients that want their events together.
//!
//! They stand on a grid that all sessions of a stream share, so that clients with windows of one
//! length get the same batches, and each batch is encoded once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::event::{Batch, Event, Shape};

/// The grid of one stream, and the batches that were made last.
#[derive(Debug)]
pub struct Windows {
    origin: Instant,
    recent: Mutex<Recent>,
}

/// Keeps batches until every session has come to the end of the window. Otherwise the first client
/// may have read its batch, and nobody hold it any more, before the last one has its turn.
#[derive(Debug, Default)]
struct Recent {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
}

/// Held by [`Recent`], at most, but for the newest batch: the oldest give way, and sessions that
/// still want one of these encode their own.
const RECENT_BYTES: usize = 1_048_576;

impl Default for Windows {
    fn default() -> Self {
        Self { origin: Instant::now(), recent: Mutex::default() }
    }
}

impl Windows {
    /// When the window ends that `now` is in: a multiple of its length after the origin.
    pub(super) fn end(&self, window: Duration, now: Instant) -> Instant {
        let gone = (now - self.origin).as_nanos().checked_rem(window.as_nanos());
        let gone = gone.and_then(|gone| u64::try_from(gone).ok()).unwrap_or_default();
        now + window.saturating_sub(Duration::from_nanos(gone))
    }

    /// The batch of `events`, the same for all who ask for the same. Only who is the first takes
    /// the lock.
    pub(super) fn batch(&self, events: Vec<Arc<Event>>, shape: &dyn Shape) -> Arc<Batch> {
        let last = events.last().map(Arc::clone);
        let batch = Arc::new(Batch::new(events));
        let Some(shaped) = last.as_ref().and_then(|last| last.shaped(shape)) else { return batch };
        let (batch, is_new) = shaped.batches.share(batch);
        if is_new {
            self.recent.lock().keep(Arc::clone(&batch));
        }
        batch
    }
}

impl Recent {
    fn keep(&mut self, batch: Arc<Batch>) {
        self.bytes += weight(&batch);
        self.batches.push_back(batch);
        while self.bytes > RECENT_BYTES && self.batches.len() > 1 {
            self.bytes -= self.batches.pop_front().map_or(0, |oldest| weight(&oldest));
        }
    }
}

/// With its frame: an event's own is for clients without windows.
fn weight(batch: &Batch) -> usize {
    batch.events.iter().map(|event| event.weight()).sum()
}

#[cfg(test)]
mod tests;
