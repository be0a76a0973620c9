//! What all sessions of one declared stream share.

use std::sync::Arc;
use std::time::Duration;

use super::{CloseReason, OutboxSettings, Windows};
use crate::event::Shape;
use crate::settings::DeliveryClass;
use crate::telemetry::Metrics;

/// How a declared stream treats its clients.
#[derive(Debug)]
pub struct Plan {
    /// The name of the declared stream.
    pub stream: String,
    /// What becomes of an event.
    pub shape: Arc<dyn Shape>,
    /// How much may wait for a client, and what happens then.
    pub outbox: OutboxSettings,
    /// When the windows end of clients that want their events together.
    pub windows: Windows,
    /// The longest silence, keep-alives included.
    pub keep_alive: Duration,
    /// A client that takes nothing of what waits for it for so long is cut.
    pub stalled_after: Duration,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

impl Plan {
    pub(super) fn count_closed(&self, reason: CloseReason) {
        let labels = [self.outbox.class.as_str(), reason.as_str()];
        self.metrics.sessions_closed_total.with_label_values(&labels).inc();
    }

    /// Counts events that gave way to others: lost to the client, unless merged with them.
    pub(super) fn count_conflated(&self, count: usize) {
        let count = count as u64;
        match self.outbox.class {
            DeliveryClass::Text => self.metrics.events_merged_total.inc_by(count),
            class => {
                let conflated = &self.metrics.events_conflated_total;
                conflated.with_label_values(&[class.as_str()]).inc_by(count);
            }
        }
    }

    /// A silence of 70 to 100 % of the longest, so that clients are not all kept alive at once.
    pub(super) fn jittered_keep_alive(&self) -> Duration {
        self.keep_alive.mul_f64(fastrand::f64().mul_add(0.3, 0.7))
    }
}
