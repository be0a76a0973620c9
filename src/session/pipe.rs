//! Between a session, which its shard owns, and the reader that writes to the client's connection.
//!
//! The shard only ever adds and never waits; the reader takes all that is there. What has not been
//! taken stands in the outbox.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::outbox::{Outbox, Pushed};
use super::{CloseReason, Outgoing, Plan};
use crate::hub::Seat;

#[derive(Debug)]
pub(super) struct Pipe {
    state: Mutex<State>,
    ready: Notify,
    too_slow: CancellationToken,
    waiting_bytes: IntGauge,
}

#[derive(Debug)]
struct State {
    outbox: Outbox,
    closed: Option<CloseReason>,
    seat: Option<Seat>,
}

/// Takes what a session says. Dropping it tells the session that its client is gone.
#[derive(Debug)]
pub struct PipeReader(Arc<Pipe>);

/// How a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It has something to say.
    Open,
    /// The client has had the stream's end before.
    AlreadyOver,
    /// The node stops; the client was not let in.
    TurnedAway,
}

impl Pipe {
    pub(super) fn new(plan: &Plan, too_slow: CancellationToken) -> (Arc<Self>, PipeReader) {
        let outbox = Outbox::new(plan.outbox);
        let pipe = Arc::new(Self {
            state: Mutex::new(State { outbox, closed: None, seat: None }),
            ready: Notify::new(),
            too_slow,
            waiting_bytes: plan.metrics.outbox_bytes.clone(),
        });
        (Arc::clone(&pipe), PipeReader(pipe))
    }

    /// From now on the shard is told when the reader goes.
    pub(super) fn sit(&self, seat: Seat) {
        self.state.lock().seat = Some(seat);
    }

    pub(super) fn push(&self, outgoing: Outgoing, plan: &Plan) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return;
        }
        let before = state.outbox.bytes();
        let pushed = state.outbox.push(outgoing, &*plan.shape);
        self.count_bytes(before, state.outbox.bytes());
        match pushed {
            Pushed::Kept => {}
            Pushed::Conflated(count) => plan.count_conflated(count),
            Pushed::Overflow => {
                drop(state);
                self.close(CloseReason::SlowConsumer);
            }
        }
    }

    /// See [`Outbox::replay`].
    pub(super) fn replay(&self, replaying: bool) {
        self.state.lock().outbox.replay(replaying);
    }

    /// Says that nothing happened, unless something still waits to be read.
    pub(super) fn keep_alive(&self, plan: &Plan) {
        if self.state.lock().outbox.is_empty() {
            self.push(Outgoing::KeepAlive, plan);
        }
    }

    /// Nothing more is taken in; the reader still gets what waits.
    pub(super) fn close(&self, reason: CloseReason) {
        let closed = *self.state.lock().closed.get_or_insert(reason);
        if closed == CloseReason::SlowConsumer {
            self.too_slow.cancel();
        }
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.state.lock().closed
    }

    pub(super) fn is_closed(&self) -> bool {
        self.close_reason().is_some()
    }

    /// Wakes the reader if there is something for it.
    pub(super) fn wake(&self) {
        let state = self.state.lock();
        if state.closed.is_some() || !state.outbox.is_empty() {
            self.ready.notify_one();
        }
    }

    fn count_bytes(&self, before: usize, after: usize) {
        let change = i64::try_from(after).unwrap_or(0) - i64::try_from(before).unwrap_or(0);
        self.waiting_bytes.add(change);
    }
}

impl PipeReader {
    /// Waits for the first word.
    pub async fn opening(&self) -> Opening {
        loop {
            {
                let state = self.0.state.lock();
                match state.closed {
                    Some(CloseReason::AlreadyOver) => return Opening::AlreadyOver,
                    Some(CloseReason::Aborted) => return Opening::TurnedAway,
                    _ => {}
                }
                if state.closed.is_some() || !state.outbox.is_empty() {
                    return Opening::Open;
                }
            }
            self.0.ready.notified().await;
        }
    }

    /// Waits for what the session says next: all of it, at least one item. `None` when it has
    /// ended and everything was taken.
    pub async fn next(&mut self) -> Option<VecDeque<Outgoing>> {
        loop {
            {
                let mut state = self.0.state.lock();
                if !state.outbox.is_empty() {
                    return Some(self.take(&mut state.outbox));
                }
                if state.closed.is_some() {
                    return None;
                }
            }
            self.0.ready.notified().await;
        }
    }

    fn take(&self, outbox: &mut Outbox) -> VecDeque<Outgoing> {
        self.0.count_bytes(outbox.bytes(), 0);
        outbox.take()
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed.get_or_insert(CloseReason::ClientGone);
        self.0.count_bytes(state.outbox.bytes(), 0);
        state.outbox.take();
        if let Some(seat) = &state.seat {
            seat.leave();
        }
    }
}
