//! One client, whatever it speaks: where it starts, what it gets, how it ends.
//!
//! ```text
//! shard ──Signal──► Session ──Outgoing──► pacing ──► Outbox ──► Sink (a connection)
//! ```
//!
//! A session knows no protocol and never waits. What the client has not read yet stands in its
//! outbox, whose bound and overflow policy are those of the stream's delivery class. One shard owns
//! the session with all that belongs to it.

mod close;
mod marks;
mod outbox;
mod outgoing;
mod outward;
mod pacing;
mod plan;
mod quota;
mod registry;
mod sink;
mod start;
#[cfg(test)]
mod tests;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use close::CloseReason;
pub use outbox::{Outbox, OutboxSettings};
pub use outgoing::{Connected, Outgoing};
pub use pacing::Pace;
pub use plan::Plan;
pub use quota::{Client, Pass, Quota, Refused};
pub use registry::{Registry, Ticket};
pub use sink::{Passed, Sink};
pub use windows::Windows;

use crate::event::{End, Event, Filter, Origin, Outcome, Position, Shaped};
use crate::hub::{Flow, Gap, GapReason, Signal, Start, StartFrom, Subscriber, Told};
use outward::Outward;
use pacing::Paced;

/// How long a client may take for what waits for it when its session is over.
const LAST_CHANCE: Duration = Duration::from_secs(5);
/// The same while the node stops, which does not wait for long.
const FAREWELL: Duration = Duration::from_secs(1);

/// One client of one declared stream.
#[derive(Debug)]
pub struct Session<S> {
    plan: Arc<Plan>,
    ticket: Ticket,
    filters: Arc<[Filter]>,
    sink: S,
    out: Outward,
    paced: Option<Box<Paced>>,
    /// An end that may still be taken back.
    ending: Option<Box<Ending>>,
    /// Where the client stands when it has read what was said.
    stands: Option<Position>,
    last_said: Instant,
    /// The longest silence, of a length of its own.
    silence: Duration,
    events: u64,
    /// Since when the client has taken nothing of what waits for it.
    stuck: Option<Instant>,
    /// Whether only what waits is still passed on.
    leaving: bool,
}

#[derive(Debug)]
struct Ending {
    at: Instant,
    end: End,
    event: Arc<Event>,
}

impl<S: Sink> Session<S> {
    /// A session that speaks to `sink`.
    pub fn new(
        plan: Arc<Plan>,
        ticket: Ticket,
        filters: Arc<[Filter]>,
        pace: Pace,
        sink: S,
    ) -> Self {
        let paced = (pace != Pace::AsItComes).then(|| Box::new(Paced::new(pace, plan.outbox)));
        Self {
            ticket,
            filters,
            sink,
            out: Outward::new(Outbox::new(plan.outbox)),
            paced,
            ending: None,
            stands: None,
            last_said: Instant::now(),
            silence: plan.jittered_keep_alive(),
            events: 0,
            stuck: None,
            leaving: false,
            plan,
        }
    }

    /// An event in the stream's shape, and the end of the stream if it says so.
    fn event(&mut self, event: &Arc<Event>, now: Instant) {
        if event.origin == Origin::Dropped {
            return self.dropped(event, now);
        }
        let Some(shaped) = event.shaped(&*self.plan.shape) else { return };
        self.say(Outgoing::Event(Arc::clone(event)), now);
        match &shaped.end {
            Some(end) => self.end(end, event, now),
            None => self.take_back(event, shaped),
        }
    }

    /// Something stood here that could not be let in.
    fn dropped(&mut self, event: &Event, now: Instant) {
        if self.plan.shape.shows(&event.channel) {
            let channels = vec![Filter::Exact(event.channel.clone())];
            let gap = Gap { channels, reason: GapReason::Dropped, position: event.position };
            self.gap(&gap, true, now);
        }
    }

    fn end(&mut self, end: &End, event: &Arc<Event>, now: Instant) {
        let at = event.received + end.grace;
        if at <= now {
            self.complete(end, event, now);
        } else if self.ending.is_none() {
            self.ending = Some(Box::new(Ending { at, end: end.clone(), event: Arc::clone(event) }));
        }
    }

    /// A later event of the same channel and key says that it goes on after all.
    fn take_back(&mut self, event: &Event, shaped: &Shaped) {
        let shape = &*self.plan.shape;
        self.ending.take_if(|ending| {
            let ended = ending.event.shaped(shape).and_then(|shaped| shaped.key.as_deref());
            ending.event.channel == event.channel
                && ended == shaped.key.as_deref()
                && ending.end.is_taken_back(&ending.event, event, shaped)
        });
    }

    fn complete(&mut self, end: &End, event: &Event, now: Instant) {
        let position = self.stands.unwrap_or(event.position);
        let last_words = match &end.outcome {
            Outcome::Complete(data) => Outgoing::Complete { data: Arc::clone(data), position },
            Outcome::Failed(text) => Outgoing::Error(text.to_string()),
        };
        self.say(last_words, now);
        self.close(CloseReason::Completed, now);
    }

    /// Whether nothing more is taken in.
    fn is_closing(&self) -> bool {
        self.out.is_closed() || self.paced.as_ref().is_some_and(|paced| paced.is_closing())
    }

    fn gap(&mut self, gap: &Gap, with_position: bool, now: Instant) {
        self.plan.metrics.gaps_total.with_label_values(&[gap.reason.as_str()]).inc();
        let position = with_position.then_some(gap.position);
        let channels = gap.channels.iter().map(ToString::to_string).collect();
        self.say(Outgoing::Gap { channels, reason: gap.reason, position }, now);
    }

    /// Nothing will be heard of some of its channels.
    fn refused(&mut self, filters: &[Filter], now: Instant) {
        self.say(Outgoing::Error(not_available(filters)), now);
        self.close(CloseReason::Refused, now);
    }

    fn say(&mut self, outgoing: Outgoing, now: Instant) {
        self.last_said = now;
        self.stands = outgoing.position().or(self.stands);
        self.events += u64::from(matches!(outgoing, Outgoing::Event(_)));
        // A burst is no reason to call a client slow: what it can take goes out before the outbox
        // decides what has to give way.
        let keeps_up = self.stuck.is_none() && !self.out.is_closed();
        if keeps_up && !self.out.outbox.fits(&outgoing, &*self.plan.shape) {
            self.pass_on(now);
        }
        match &mut self.paced {
            Some(paced) => paced.push(outgoing, now, &mut self.out, &self.plan),
            None => self.out.push(outgoing, &self.plan),
        }
    }

    /// Ends the session once what was said has been passed on.
    fn close(&mut self, reason: CloseReason, now: Instant) {
        match &mut self.paced {
            Some(paced) => {
                paced.close(reason, now);
                paced.release(now, &mut self.out, &self.plan);
            }
            None => self.out.close(reason),
        }
    }

    fn deadline_passed(&mut self, now: Instant) {
        if self.patience_ends().is_some_and(|at| at <= now) {
            self.cut(CloseReason::SlowConsumer);
        }
        if self.out.is_closed() {
            return;
        }
        if let Some(paced) = &mut self.paced {
            paced.release(now, &mut self.out, &self.plan);
        }
        if let Some(ending) = self.ending.take_if(|ending| ending.at <= now) {
            self.complete(&ending.end, &ending.event, now);
        }
        if self.last_said + self.silence <= now {
            self.last_said = now;
            self.out.keep_alive(&self.plan);
            self.out.outbox.shrink();
        }
    }

    /// When a client that takes nothing of what waits for it is cut.
    fn patience_ends(&self) -> Option<Instant> {
        let patience = match self.out.close_reason() {
            None => self.plan.stalled_after,
            Some(CloseReason::ServerStopping) => FAREWELL,
            Some(_) => LAST_CHANCE,
        };
        self.stuck.map(|since| since + patience)
    }

    /// Hands what waits to the connection.
    fn pass_on(&mut self, now: Instant) -> Flow {
        let last = self.leaving;
        match self.sink.pass_on(&mut self.out.outbox, last) {
            Passed::All if last => return Flow::Ended,
            Passed::All => self.stuck = None,
            Passed::More => {
                self.stuck = None;
                return Flow::Again;
            }
            Passed::Some => self.stuck = Some(now),
            Passed::Nothing => self.stuck = self.stuck.or(Some(now)),
            Passed::Gone => {
                self.out.close(CloseReason::ClientGone);
                return Flow::Ended;
            }
        }
        Flow::Continue
    }

    /// Ends the session without its last words.
    fn cut(&mut self, reason: CloseReason) {
        self.out.close(reason);
        self.out.outbox.take();
        self.sink.cut();
    }

    fn stop(&mut self, retry: Duration, now: Instant) {
        if let Some(paced) = self.paced.take() {
            paced.release_all(&mut self.out, &self.plan);
        }
        if self.out.is_closed() {
            return;
        }
        self.say(Outgoing::Shutdown { retry }, now);
        self.out.close(CloseReason::ServerStopping);
    }
}

impl<S: Sink> Subscriber for Session<S> {
    fn receive(&mut self, signal: Signal<'_>, now: Instant) {
        match signal {
            Signal::Woken => {
                self.sink.woken();
                self.out.outbox.shrink();
            }
            Signal::Deadline => self.deadline_passed(now),
            Signal::Shed => self.cut(CloseReason::Shed),
            Signal::Stop { retry } if !self.out.is_closed() => self.stop(retry, now),
            // Nothing comes after the end.
            _ if self.is_closing() => {}
            Signal::Start(start) => self.start(*start, now),
            Signal::Event(event) => self.event(event, now),
            Signal::Gap(gap) => self.gap(&gap, true, now),
            Signal::Refused(filters) => self.refused(&filters, now),
            Signal::Stop { .. } => {}
        }
    }

    fn flush(&mut self, now: Instant) -> Flow {
        if self.out.is_closed() && !self.leaving {
            self.leaving = true;
            self.stuck = None;
            self.count_end();
        }
        self.pass_on(now)
    }

    fn backlog(&self) -> usize {
        let paced = self.paced.as_ref().map_or(0, |paced| paced.bytes());
        paced + self.out.outbox.bytes() + self.sink.backlog()
    }

    fn is_gone(&self) -> bool {
        self.sink.is_gone()
    }

    fn deadline(&self) -> Option<Instant> {
        let patience = self.patience_ends();
        if self.out.is_closed() {
            return patience;
        }
        let paced = self.paced.as_ref().and_then(|paced| paced.due());
        let ending = self.ending.as_ref().map(|ending| ending.at);
        let keep_alive = self.last_said + self.silence;
        paced.into_iter().chain(ending).chain(patience).chain([keep_alive]).min()
    }
}

/// What clients are told of channels that the broker does not allow.
pub fn not_available(filters: &[Filter]) -> String {
    let names: Vec<_> = filters.iter().map(Filter::as_str).collect();
    format!("Channel not available: {}", names.join(", "))
}

impl<S> Session<S> {
    fn count_end(&self) {
        let reason = self.out.close_reason().unwrap_or(CloseReason::Aborted);
        self.plan.count_closed(reason);
        tracing::debug!(
            client = %self.ticket.id(),
            stream = %self.plan.stream,
            reason = reason.as_str(),
            events = self.events,
            seconds = self.ticket.age().as_secs_f64(),
            "session ended"
        );
    }
}

impl<S> Drop for Session<S> {
    fn drop(&mut self) {
        // Already counted, unless its client left, nobody took it in or the node aborts.
        if !self.leaving {
            self.count_end();
        }
    }
}
