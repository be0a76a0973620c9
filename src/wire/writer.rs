//! What all sessions of one stream need to be written alike.

use prometheus::{Histogram, IntCounter};

use super::{Sse, Wire};
use crate::event::{Event, Frame, Shape};
use crate::session::Outgoing;
use crate::telemetry::Metrics;

/// A wire, and the counts of what is written with it.
#[derive(Debug)]
pub struct Writer {
    wire: Sse,
    frames: IntCounter,
    bytes: IntCounter,
    latency: Histogram,
}

impl Writer {
    /// Writes with `wire` and counts it in `metrics`.
    pub fn new(wire: Sse, metrics: &Metrics) -> Self {
        let transport = wire.transport();
        Self {
            frames: metrics.frames_sent_total.with_label_values(&[transport]),
            bytes: metrics.sent_bytes_total.with_label_values(&[transport]),
            latency: metrics.publish_to_flush_seconds.clone(),
            wire,
        }
    }

    pub(super) fn encode(&self, outgoing: &Outgoing) -> Frame {
        self.wire.encode(outgoing)
    }

    pub(super) fn shape(&self) -> &dyn Shape {
        self.wire.shape()
    }

    /// Counts a hand-over of `frames` and `bytes` whose oldest live event is `oldest`.
    pub(super) fn count(&self, frames: usize, bytes: usize, oldest: Option<&Event>) {
        self.frames.inc_by(frames as u64);
        self.bytes.inc_by(bytes as u64);
        if let Some(event) = oldest {
            self.latency.observe(event.received.elapsed().as_secs_f64());
        }
    }
}

/// The event that a client waits for, if it is one.
pub(super) fn live_event(outgoing: &Outgoing) -> Option<&Event> {
    match outgoing {
        Outgoing::Event(event) => Some(event),
        Outgoing::Batch(batch) => batch.events.first().map(|event| &**event),
        _ => None,
    }
}
