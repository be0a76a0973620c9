//! One client, whatever it speaks: where it starts, what it gets, how it ends.
//!
//! ```text
//! shard ──Signal──► Session ──Outgoing──► pacing ──► Outbox ──► reader (the wire)
//! ```
//!
//! A session knows no protocol and never waits. What the client has not read yet stands in its
//! outbox, whose bound and overflow policy are those of the stream's delivery class.

mod close;
mod marks;
mod outbox;
mod outgoing;
mod pacing;
mod pipe;
mod plan;
mod quota;
mod registry;
mod start;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use close::CloseReason;
pub use outbox::OutboxSettings;
pub use outgoing::{Connected, Outgoing};
pub use pacing::Pace;
pub use pipe::{Opening, PipeReader};
pub use plan::{Options, Plan};
pub use quota::{Client, Pass, Quota, Refused};
pub use registry::{Registry, Ticket};

use crate::event::{End, Event, Filter, Position};
use crate::hub::{Flow, Gap, Signal, Start, StartFrom, Subscriber};
use pacing::Paced;
use pipe::Pipe;

/// One client of one declared stream.
#[derive(Debug)]
pub struct Session {
    plan: Arc<Plan>,
    ticket: Ticket,
    filters: Arc<[Filter]>,
    pipe: Arc<Pipe>,
    paced: Option<Box<Paced>>,
    /// An end that may still be taken back.
    ending: Option<Box<Ending>>,
    /// Where the client stands when it has read what was said.
    stands: Option<Position>,
    last_said: Instant,
    /// The longest silence, of a length of its own.
    silence: Duration,
    events: u64,
}

#[derive(Debug)]
struct Ending {
    at: Instant,
    end: End,
    event: Arc<Event>,
}

impl Session {
    /// A session and the reader that takes what it has to say.
    pub fn new(
        plan: Arc<Plan>,
        ticket: Ticket,
        filters: Arc<[Filter]>,
        options: Options,
    ) -> (Self, PipeReader) {
        let (pipe, reader) = Pipe::new(&plan, options.too_slow);
        let paced = (options.pace != Pace::AsItComes)
            .then(|| Box::new(Paced::new(options.pace, plan.outbox)));
        let silence = plan.jittered_keep_alive();
        let last_said = Instant::now();
        let ending = None;
        let session = Self {
            plan,
            ticket,
            filters,
            pipe,
            paced,
            ending,
            stands: None,
            last_said,
            silence,
            events: 0,
        };
        (session, reader)
    }

    /// An event in the stream's shape, and the end of the stream if it says so.
    fn event(&mut self, event: &Arc<Event>, now: Instant) {
        let Some(shaped) = event.shaped(&*self.plan.shape) else { return };
        self.say(Outgoing::Event(Arc::clone(event)), now);
        match &shaped.end {
            Some(end) => self.end(end, event, now),
            None => self.take_back(event, shaped.key.as_deref()),
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
    fn take_back(&mut self, event: &Event, key: Option<&str>) {
        let shape = &*self.plan.shape;
        self.ending.take_if(|ending| {
            let ended = ending.event.shaped(shape).and_then(|shaped| shaped.key.as_deref());
            ending.event.channel == event.channel && ended == key
        });
    }

    fn complete(&mut self, end: &End, event: &Event, now: Instant) {
        let data = Arc::clone(&end.data);
        let position = self.stands.unwrap_or(event.position);
        self.say(Outgoing::Complete { data, position }, now);
        self.close(CloseReason::Completed, now);
    }

    /// Whether nothing more is taken in.
    fn is_closing(&self) -> bool {
        self.pipe.is_closed() || self.paced.as_ref().is_some_and(|paced| paced.is_closing())
    }

    fn gap(&mut self, gap: &Gap, with_position: bool, now: Instant) {
        self.plan.metrics.gaps_total.with_label_values(&[gap.reason.as_str()]).inc();
        let position = with_position.then_some(gap.position);
        let channels = gap.channels.iter().map(ToString::to_string).collect();
        self.say(Outgoing::Gap { channels, reason: gap.reason, position }, now);
    }

    fn say(&mut self, outgoing: Outgoing, now: Instant) {
        self.last_said = now;
        self.stands = outgoing.position().or(self.stands);
        self.events += u64::from(matches!(outgoing, Outgoing::Event(_)));
        match &mut self.paced {
            Some(paced) => paced.push(outgoing, now, &self.pipe, &self.plan),
            None => self.pipe.push(outgoing, &self.plan),
        }
    }

    /// Ends the session once what was said has been passed on.
    fn close(&mut self, reason: CloseReason, now: Instant) {
        match &mut self.paced {
            Some(paced) => {
                paced.close(reason, now);
                paced.release(now, &self.pipe, &self.plan);
            }
            None => self.pipe.close(reason),
        }
    }

    fn deadline_passed(&mut self, now: Instant) {
        if let Some(paced) = &mut self.paced {
            paced.release(now, &self.pipe, &self.plan);
        }
        if let Some(ending) = self.ending.take_if(|ending| ending.at <= now) {
            self.complete(&ending.end, &ending.event, now);
        }
        if self.last_said + self.silence <= now {
            self.last_said = now;
            self.pipe.keep_alive(&self.plan);
        }
    }

    fn stop(&mut self, retry: Duration, now: Instant) {
        if let Some(paced) = self.paced.take() {
            paced.release_all(&self.pipe, &self.plan);
        }
        self.say(Outgoing::Shutdown { retry }, now);
        self.pipe.close(CloseReason::ServerStopping);
    }
}

impl Subscriber for Session {
    fn receive(&mut self, signal: Signal<'_>, now: Instant) {
        // What is still held back goes out; nothing comes after the end.
        let held_back = matches!(signal, Signal::Deadline | Signal::Stop { .. });
        if self.pipe.is_closed() || self.is_closing() && !held_back {
            return;
        }
        match signal {
            Signal::Start(start) => self.start(*start, now),
            Signal::Event(event) => self.event(event, now),
            Signal::Gap(gap) => self.gap(&gap, true, now),
            Signal::Deadline => self.deadline_passed(now),
            Signal::Stop { retry } => self.stop(retry, now),
        }
    }

    fn flush(&mut self) -> Flow {
        self.pipe.wake();
        if self.pipe.is_closed() { Flow::Ended } else { Flow::Continue }
    }

    fn deadline(&self) -> Option<Instant> {
        let paced = self.paced.as_ref().and_then(|paced| paced.due());
        let ending = self.ending.as_ref().map(|ending| ending.at);
        paced.into_iter().chain(ending).chain([self.last_said + self.silence]).min()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Already closed, unless nobody took it in or the node aborts.
        self.pipe.close(CloseReason::Aborted);
        self.pipe.wake();
        let reason = self.pipe.close_reason().unwrap_or(CloseReason::Aborted);
        self.plan.metrics.sessions_closed_total.with_label_values(&[reason.as_str()]).inc();
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
