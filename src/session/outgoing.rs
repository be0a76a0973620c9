//! What a session says, before any wire has given it bytes.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Batch, Event, Position, Shape};
use crate::hub::{GapReason, Told};

/// One thing a session says.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// Always first.
    Connected(Box<Connected>),
    /// An event, under its own position.
    Event(Arc<Event>),
    /// The last event of a channel, said to a client that comes late.
    Snapshot {
        /// All that is told so.
        told: Arc<Told>,
        /// Which of it.
        index: usize,
        /// Where the client stands after it, if it is the last of the snapshot.
        position: Option<Position>,
    },
    /// Events of a window of time, under the position of the last.
    Batch(Arc<Batch>),
    /// Some channels may have missed events.
    Gap {
        /// Which.
        channels: Vec<String>,
        /// Why.
        reason: GapReason,
        /// Where the client stands after it, unless a snapshot follows.
        position: Option<Position>,
    },
    /// The stream is over.
    Complete {
        /// JSON on one line.
        data: Arc<str>,
        /// The position of the event that ended it.
        position: Position,
    },
    /// The stream cannot be had; a text for people.
    Error(String),
    /// Nothing happened for a while.
    KeepAlive,
    /// The node stops.
    Shutdown {
        /// When the client may come back.
        retry: Duration,
    },
}

/// See [`Outgoing::Connected`].
#[derive(Debug, Clone)]
pub struct Connected {
    /// The name of the session, such as `sse_1795299922786_k3j9x2m1q`.
    pub client: String,
    /// What it listens to.
    pub channels: Vec<String>,
    /// Whether the client's position was honoured.
    pub recovered: bool,
    /// Channels whose stored state could not be read: their last state may be missing.
    pub unreadable: Vec<String>,
    /// How many of the channels that its patterns match have a last event that it is not told.
    pub truncated: usize,
    /// Where the client stands, if nothing has to be said first.
    pub position: Option<Position>,
}

impl Outgoing {
    /// Bytes that each takes besides what it says.
    pub(super) const OVERHEAD: usize = 64;

    /// Where the client stands after it, if it says so.
    pub(super) fn position(&self) -> Option<Position> {
        match self {
            Self::Connected(connected) => connected.position,
            Self::Event(event) => Some(event.position),
            Self::Snapshot { position, .. } | Self::Gap { position, .. } => *position,
            Self::Complete { position, .. } => Some(*position),
            Self::Batch(batch) => batch.events.last().map(|event| event.position),
            Self::Error(_) | Self::KeepAlive | Self::Shutdown { .. } => None,
        }
    }

    /// About how many bytes it keeps in memory while it waits.
    pub(super) fn weight(&self, shape: &dyn Shape) -> usize {
        let event = |event: &Event| event.shaped(shape).map_or(0, |shaped| shaped.json.len());
        Self::OVERHEAD
            + match self {
                Self::Event(e) => event(e),
                Self::Snapshot { told, index, .. } => {
                    told.events.get(*index).map_or(0, |e| event(e))
                }
                Self::Batch(batch) => batch.events.iter().map(|e| Self::OVERHEAD + event(e)).sum(),
                Self::Connected(connected) => connected.channels.iter().map(String::len).sum(),
                Self::Gap { channels, .. } => channels.iter().map(String::len).sum(),
                Self::Complete { data, .. } => data.len(),
                Self::Error(text) => text.len(),
                Self::KeepAlive | Self::Shutdown { .. } => 0,
            }
    }
}
