//! The way out of a session: its outbox, and whether it has been closed.

use super::outbox::{Outbox, Pushed};
use super::{CloseReason, Outgoing, Plan};

/// What is pushed waits in the outbox until the sink takes it; once closed, nothing more is taken
/// in, and what waits still goes out.
#[derive(Debug)]
pub(super) struct Outward {
    pub(super) outbox: Outbox,
    closed: Option<CloseReason>,
}

impl Outward {
    pub(super) fn new(outbox: Outbox) -> Self {
        Self { outbox, closed: None }
    }

    pub(super) fn push(&mut self, outgoing: Outgoing, plan: &Plan) {
        if self.is_closed() {
            return;
        }
        match self.outbox.push(outgoing, &*plan.shape) {
            Pushed::Kept => {}
            Pushed::Conflated(count) => plan.count_conflated(count),
            Pushed::Overflow => self.close(CloseReason::SlowConsumer),
        }
    }

    /// Says that nothing happened, unless something still waits to be read.
    pub(super) fn keep_alive(&mut self, plan: &Plan) {
        if self.outbox.is_empty() {
            self.push(Outgoing::KeepAlive, plan);
        }
    }

    /// The first reason counts.
    pub(super) fn close(&mut self, reason: CloseReason) {
        self.closed.get_or_insert(reason);
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.closed
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }
}
