//! Clients that want their events in windows, or not too fast.

use std::time::Duration;

use tokio::time::Instant;

use super::outbox::{Outbox, Pushed};
use super::outward::Outward;
use super::{CloseReason, OutboxSettings, Outgoing, Plan};
use crate::settings::DeliveryClass;

/// How fast a client wants its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// Each as it comes.
    #[default]
    AsItComes,
    /// All of a window together. Windows end for all clients at the same time: see [`Windows`].
    ///
    /// [`Windows`]: super::Windows
    Window(Duration),
    /// One per interval at most; the stream's delivery class says what becomes of the others.
    Rate(Duration),
}

/// What waits for its time. Bounded like the outbox behind it, with the same policy.
#[derive(Debug)]
pub(super) struct Paced {
    pace: Pace,
    held: Outbox,
    /// When something may go out next.
    next: Instant,
    closing: Option<CloseReason>,
}

impl Paced {
    pub(super) fn new(pace: Pace, outbox: OutboxSettings) -> Self {
        Self { pace, held: Outbox::new(outbox), next: Instant::now(), closing: None }
    }

    /// Keeps an event until it is due. What is not an event waits only behind events.
    pub(super) fn push(
        &mut self,
        outgoing: Outgoing,
        now: Instant,
        out: &mut Outward,
        plan: &Plan,
    ) {
        if self.closing.is_some() {
            return;
        }
        if self.held.is_empty() && !matches!(outgoing, Outgoing::Event(_)) {
            out.push(outgoing, plan);
            return;
        }
        if let (Pace::Window(window), Outgoing::Event(event)) = (self.pace, &outgoing) {
            // A window ends at the same event for everybody, however late its deadline comes.
            if self.next <= event.received {
                self.release_window(out, plan);
            }
            if self.held.is_empty() {
                self.next = plan.windows.end(window, now);
            }
        }
        match self.held.push(outgoing, &*plan.shape) {
            Pushed::Kept => {}
            Pushed::Conflated(count) => plan.count_conflated(count),
            Pushed::Overflow => self.closing = Some(CloseReason::SlowConsumer),
        }
        // State is conflated to the rate: of what waits, only the newest is worth saying.
        if matches!(self.pace, Pace::Rate(_)) && plan.outbox.class == DeliveryClass::State {
            plan.count_conflated(self.held.keep_newest(&*plan.shape));
        }
        self.release(now, out, plan);
    }

    /// Closes the way out behind the last thing held; a window does not wait for its end.
    pub(super) fn close(&mut self, reason: CloseReason, now: Instant) {
        self.closing = self.closing.or(Some(reason));
        if let Pace::Window(_) = self.pace {
            self.next = now;
        }
    }

    /// Whether nothing more is taken in.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// See [`Outbox::replay`].
    pub(super) fn replay(&mut self, replaying: bool) {
        self.held.replay(replaying);
    }

    /// How many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.held.bytes()
    }

    /// When [`Paced::release`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.held.is_empty() || self.closing.is_some()).then_some(self.next)
    }

    /// Passes on what is due.
    pub(super) fn release(&mut self, now: Instant, out: &mut Outward, plan: &Plan) {
        match self.pace {
            Pace::Rate(interval) => self.release_one_by_one(interval, now, out, plan),
            _ if self.next <= now => self.release_window(out, plan),
            _ => {}
        }
        if let (true, Some(reason)) = (self.held.is_empty(), self.closing) {
            out.close(reason);
        }
    }

    /// Passes on everything at once: the node stops.
    pub(super) fn release_all(mut self, out: &mut Outward, plan: &Plan) {
        self.release_window(out, plan);
        if let Some(reason) = self.closing {
            out.close(reason);
        }
    }

    fn release_one_by_one(
        &mut self,
        interval: Duration,
        now: Instant,
        out: &mut Outward,
        plan: &Plan,
    ) {
        while self.next <= now {
            let Some(outgoing) = self.held.pop(&*plan.shape) else { return };
            if matches!(outgoing, Outgoing::Event(_)) {
                self.next = now + interval;
            }
            out.push(outgoing, plan);
        }
    }

    fn release_window(&mut self, out: &mut Outward, plan: &Plan) {
        let batch = |events| Outgoing::Batch(plan.windows.batch(events, &*plan.shape));
        let mut events = Vec::new();
        for outgoing in self.held.take() {
            if let Outgoing::Event(event) = outgoing {
                events.push(event);
                continue;
            }
            if !events.is_empty() {
                out.push(batch(std::mem::take(&mut events)), plan);
            }
            out.push(outgoing, plan);
        }
        if !events.is_empty() {
            out.push(batch(events), plan);
        }
    }
}
