//! How a shard learns that a subscriber wants to be flushed, without a queue that could be full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The subscribers of one shard that have been woken. Each stands in the list once, so it is no
/// longer than their number.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    woken: Mutex<Vec<Arc<Seat>>>,
    bell: Notify,
}

/// A subscriber's place in its shard.
#[derive(Debug)]
struct Seat {
    wakes: Arc<Wakes>,
    key: usize,
    woken: AtomicBool,
}

impl Wakes {
    /// Tells the shard to flush the subscriber `key`.
    ///
    /// A key may be given to another subscriber before the shard reads the list; that one is then
    /// flushed once for nothing.
    pub(super) fn waker(self: &Arc<Self>, key: usize) -> Waker {
        Arc::new(Seat { wakes: Arc::clone(self), key, woken: AtomicBool::new(false) }).into()
    }

    /// Resolves when somebody has been woken since the last [`Wakes::take`], or the bell was rung.
    pub(super) async fn some(&self) {
        self.bell.notified().await;
    }

    /// Tells the shard that there is something to see to, for no subscriber in particular.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Who has been woken. From here on they can be woken anew.
    pub(super) fn take(&self) -> impl Iterator<Item = usize> {
        let woken = std::mem::take(&mut *self.woken.lock());
        woken.into_iter().map(|seat| {
            seat.woken.store(false, Ordering::Release);
            seat.key
        })
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            let wakes = Arc::clone(&self.wakes);
            wakes.woken.lock().push(self);
            wakes.ring();
        }
    }
}
