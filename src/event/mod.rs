//! Values: what travels through the gateway. No I/O and no async here.
//!
//! ```text
//! channel + payload ──hub──► Event { position } ──shape──► Shaped ──wire──► Frame
//! ```

mod batch;
mod channel;
mod fields;
mod frame;
mod payload;
mod position;
mod shape;
mod text;
mod time;

use std::sync::Weak;
use std::time::SystemTime;

use tokio::time::Instant;

pub use batch::{Batch, BatchCache};
pub use channel::{Channel, ChannelError, ChannelPattern, Filter, OWN_CHANNELS};
pub use fields::Fields;
pub use frame::{Frame, FrameCache, Variant};
pub use payload::{Payload, PayloadError, without_bare_words};
pub use position::{Epoch, Position, PositionError};
pub use shape::{End, Outcome, Rules, Run, Shape, ShapeId, Shaped, Verdict, Verdicts};
pub use text::{TextSoFar, merge};
pub use time::{Made, now, timestamp};

use shape::ShapeCache;

/// What a publisher said, at its place in the node's order.
#[derive(Debug)]
pub struct Event {
    /// Where it was published.
    pub channel: Channel,
    /// What was published.
    pub payload: Payload,
    /// Its place in the node's order: the SSE id.
    pub position: Position,
    /// When it reached this node, by the wall clock.
    pub at: SystemTime,
    /// When it reached this node, for measuring.
    pub received: Instant,
    /// How it came to be known.
    pub origin: Origin,
    /// The event of the channel before this one, while it is still known.
    pub previous: Weak<Self>,
    /// What it means to the streams that are over at some time.
    pub verdicts: Verdicts,
    /// Whether some stream tells something else than the payload.
    pub is_reshaped: bool,
    shapes: ShapeCache,
}

/// How an event came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was published, and heard.
    Heard,
    /// It was read from where the last state is stored.
    Stored,
    /// Something was published that could not be let in: this stands in its place in the order, so
    /// that whoever listens, now or when it comes back, is told that something is missing.
    Dropped,
}

impl Event {
    /// An event that has just reached the node.
    pub fn new(channel: Channel, payload: Payload, position: Position) -> Self {
        Self {
            channel,
            payload,
            position,
            at: SystemTime::now(),
            received: Instant::now(),
            origin: Origin::Heard,
            previous: Weak::new(),
            verdicts: Verdicts::default(),
            is_reshaped: true,
            shapes: ShapeCache::default(),
        }
    }

    /// What stands in the place of something that could not be let in.
    pub fn dropped(channel: Channel, position: Position) -> Self {
        Self { origin: Origin::Dropped, ..Self::new(channel, Payload::null(), position) }
    }

    /// One event for a run of them, from `oldest` to `newest`: it has the newest one's place and
    /// has been here since the oldest came.
    pub fn merged(oldest: &Self, newest: &Self, payload: Payload) -> Self {
        Self {
            channel: newest.channel.clone(),
            payload,
            position: newest.position,
            at: newest.at,
            received: oldest.received,
            origin: newest.origin,
            previous: Weak::clone(&newest.previous),
            verdicts: newest.verdicts.clone(),
            is_reshaped: newest.is_reshaped,
            shapes: ShapeCache::default(),
        }
    }

    /// The event as clients of one kind of stream get it; `None` when it is not for them.
    pub fn shaped(&self, shape: &dyn Shape) -> Option<&Shaped> {
        if self.origin == Origin::Dropped { None } else { self.shapes.get(shape, self) }
    }

    /// When it was made, if it is a report on what may be over some time.
    pub fn report(&self) -> Option<Made> {
        self.verdicts.iter().find(|(_, verdict)| verdict.is_report).map(|(_, verdict)| verdict.made)
    }

    /// Whether some stream is over with it.
    pub fn is_end(&self) -> bool {
        self.verdicts.iter().any(|(_, verdict)| verdict.end.is_some())
    }

    /// Whether the event has been given this shape before.
    pub fn has_shape(&self, shape: &dyn Shape) -> bool {
        self.shapes.holds(shape.id())
    }

    /// About how many bytes the event holds in memory, with a shape and a frame of one stream, and
    /// what is left of a batch it was the last of: of batches it holds nothing that grows.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 768;
        let copies = if self.is_reshaped { 3 } else { 2 };
        OVERHEAD + self.channel.as_str().len() + copies * self.payload.as_str().len()
    }
}
