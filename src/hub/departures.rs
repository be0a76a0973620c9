//! How a shard learns that a client is gone, without a queue that could be full.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The subscribers of one shard whose clients are gone. Each leaves once, so the list is no longer
/// than the number of those who left since the shard last looked.
#[derive(Debug, Default)]
pub(super) struct Departures {
    gone: Mutex<Vec<usize>>,
    wake: Notify,
}

/// A subscriber's place in its shard.
#[derive(Debug, Clone)]
pub struct Seat {
    departures: Arc<Departures>,
    key: usize,
}

impl Departures {
    pub(super) fn seat(self: &Arc<Self>, key: usize) -> Seat {
        Seat { departures: Arc::clone(self), key }
    }

    /// Resolves when somebody has left since the last [`Departures::take`].
    pub(super) async fn some(&self) {
        self.wake.notified().await;
    }

    pub(super) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.gone.lock())
    }
}

impl Seat {
    /// Tells the shard to flush this subscriber, which will say that it has ended.
    ///
    /// A seat may be given to another subscriber before the shard reads the list; that one is then
    /// flushed once for nothing.
    pub fn leave(&self) {
        self.departures.gone.lock().push(self.key);
        self.departures.wake.notify_one();
    }
}
