//! What the hub tells those who listen, and the little it asks of them.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::known::Known;
use crate::event::{Channel, Event, Filter, Position};

/// Someone who listens, owned by one shard.
///
/// A subscriber never waits: what it cannot pass on at once it keeps, within a bound of its own.
pub trait Subscriber: Send {
    /// Takes in what has happened.
    fn receive(&mut self, signal: Signal<'_>, now: Instant);

    /// Passes on what has come in since the last call. Called once per batch of signals.
    fn flush(&mut self, now: Instant) -> Flow;

    /// How many bytes wait for it, in this process and in the kernel: what the node gets back when
    /// it is [shed](Signal::Shed).
    fn backlog(&self) -> usize;

    /// Whether its client has left, so that it need not be let in.
    fn is_gone(&self) -> bool;

    /// When [`Signal::Deadline`] is due next. May move later at any time; the shard then asks again.
    fn deadline(&self) -> Option<Instant>;
}

/// One thing a subscriber is told.
#[derive(Debug)]
pub enum Signal<'a> {
    /// Always first: where it starts.
    Start(Box<Start>),
    /// An event of one of its channels, in the node's order.
    Event(&'a Arc<Event>),
    /// Some of its channels may have missed events.
    Gap(Gap),
    /// The broker does not allow these of its channels: it has to end.
    Refused(Vec<Filter>),
    /// Somebody has used [`Start::waker`].
    Woken,
    /// The time it asked for has come.
    Deadline,
    /// Too much waits on this node, and most of it here: it has to end at once and let all go.
    Shed,
    /// The node stops. The client may come back after `retry`.
    Stop {
        /// A delay of its own for each client, so that they do not all come back at once.
        retry: Duration,
    },
}

/// Whether a subscriber goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It listens.
    Continue,
    /// It could pass on more at once, when others have had their turn.
    Again,
    /// It is done and can be dropped.
    Ended,
}

/// Where a subscriber starts. Live events follow from `position` on: none missing, none twice.
#[derive(Debug)]
pub struct Start {
    /// The node's position at the moment live begins.
    pub position: Position,
    /// What it gets before the live events.
    pub from: StartFrom,
    /// Its channels whose stored state could not be read.
    pub unreadable: Vec<Channel>,
    /// Has it flushed: its client is gone, or reads again.
    pub waker: Waker,
}

/// See [`Start::from`].
#[derive(Debug)]
pub enum StartFrom {
    /// The client gave no position: what is known last, oldest first.
    Snapshot(Arc<Known>),
    /// The client's position is honoured.
    Resumed {
        /// What it missed, in order.
        missed: Vec<Arc<Event>>,
        /// What it has had last of each channel, as far as is known, oldest first.
        had: Vec<Arc<Event>>,
    },
    /// The client's position cannot be honoured: a gap, then what is known last, oldest first.
    Broken(Gap, Arc<Known>),
    /// It gets nothing: there are too many patterns like this one of its own, or no room for this channel.
    Crowded(Filter),
}

/// Some channels may have missed events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The subscriber's channels and patterns that are touched.
    pub channels: Vec<Filter>,
    /// Why.
    pub reason: GapReason,
    /// Where the node stands now; from here on nothing is missing.
    pub position: Position,
}

impl Gap {
    pub(super) fn reconnected(channels: Vec<Filter>, position: Position) -> Self {
        Self { channels, reason: GapReason::SourceReconnected, position }
    }
}

/// Why events may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The source was not connected for a while.
    SourceReconnected,
    /// The history no longer holds what came after the client's position.
    HistoryEvicted,
    /// The client's position is of another node, another run, or no position at all.
    UnknownPosition,
    /// Something was published that could not be let in.
    Dropped,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 4] =
        [Self::SourceReconnected, Self::HistoryEvicted, Self::UnknownPosition, Self::Dropped];

    /// The name on the wire and in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SourceReconnected => "source_reconnected",
            Self::HistoryEvicted => "history_evicted",
            Self::UnknownPosition => "unknown_position",
            Self::Dropped => "dropped",
        }
    }
}
