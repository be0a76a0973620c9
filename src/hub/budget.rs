//! What waits for all slow clients together, and its bound.

use prometheus::IntGauge;

/// The bytes that wait for the clients of the node: one count for all shards.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    used: IntGauge,
    bound: i64,
}

impl Budget {
    pub(super) fn new(bound: usize, used: IntGauge) -> Self {
        Self { used, bound: signed(bound) }
    }

    /// A subscriber for which `before` bytes waited now has `after`.
    pub(super) fn change(&self, before: usize, after: usize) {
        if before != after {
            self.used.add(signed(after) - signed(before));
        }
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.used.get() > self.bound
    }
}

fn signed(bytes: usize) -> i64 {
    bytes.try_into().unwrap_or(i64::MAX)
}
