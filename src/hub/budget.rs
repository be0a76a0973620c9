//! What waits for all slow clients together, and its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntGauge;

use super::wakes::Wakes;

/// The bytes that wait for the clients of one shard, as a part of those of the node.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    used: IntGauge,
    bound: i64,
    shards: Arc<[Behind]>,
    shard: usize,
}

/// What each shard knows of another.
#[derive(Debug)]
struct Behind {
    /// No subscriber of it is further behind.
    most: AtomicUsize,
    wakes: Arc<Wakes>,
}

impl Budget {
    /// The budget of the node, a part for each shard. `wakes`: how each is told that it has to see
    /// to its own.
    pub(super) fn new(bound: usize, used: &IntGauge, wakes: Vec<Arc<Wakes>>) -> Vec<Self> {
        let behind = |wakes| Behind { most: AtomicUsize::new(0), wakes };
        let shards: Arc<[_]> = wakes.into_iter().map(behind).collect();
        let part = |shard| Self {
            used: used.clone(),
            bound: signed(bound),
            shards: Arc::clone(&shards),
            shard,
        };
        (0..shards.len()).map(part).collect()
    }

    /// A subscriber for which `before` bytes waited now has `after`.
    pub(super) fn change(&self, before: usize, after: usize) {
        if before == after {
            return;
        }
        self.used.add(signed(after) - signed(before));
        if let Some(own) = self.shards.get(self.shard).filter(|_| after > before) {
            own.most.fetch_max(after, Ordering::SeqCst);
        }
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.used.get() > self.bound
    }

    /// Whether twice as much waits as may.
    pub(super) fn is_exceeded_by_far(&self) -> bool {
        self.used.get() / 2 > self.bound
    }

    /// Whether nobody on another shard is further behind than the furthest here, for whom `most`
    /// bytes wait. If somebody may be, that shard is told to look.
    pub(super) fn is_furthest(&self, most: usize) -> bool {
        if let Some(own) = self.shards.get(self.shard) {
            own.most.store(most, Ordering::SeqCst);
        }
        let others = self.shards.iter().map(|other| (other.most.load(Ordering::SeqCst), other));
        match others.max_by_key(|(most, _)| *most) {
            Some((further, other)) if further > most => {
                other.wakes.ring();
                false
            }
            _ => true,
        }
    }
}

fn signed(bytes: usize) -> i64 {
    bytes.try_into().unwrap_or(i64::MAX)
}
