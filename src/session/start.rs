//! How a session begins: connected, then what brings the client up to the present.
//!
//! An id stands only on what leaves the client complete up to it. So while a snapshot is being
//! said nothing carries one but its last event, which carries the node's present position: a
//! connection cut in between begins again from the client's old id.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    CloseReason, Connected, Ending, Gap, GapReason, Outgoing, Session, Sink, Start, StartFrom, Told,
};
use crate::event::{Channel, End, Event, Filter, Position};

/// What a client is told first.
#[derive(Clone, Copy)]
struct Begun<'a> {
    recovered: bool,
    position: Option<Position>,
    unreadable: &'a [Channel],
    truncated: usize,
}

impl<S: Sink> Session<S> {
    pub(super) fn start(&mut self, start: Start, now: Instant) {
        self.sink.attach(start.waker);
        self.replay(true);
        self.begin(start.from, (start.position, &start.unreadable), now);
        self.replay(false);
    }

    fn replay(&mut self, replaying: bool) {
        self.out.outbox.replay(replaying);
        if let Some(paced) = &mut self.paced {
            paced.replay(replaying);
        }
    }

    fn begin(
        &mut self,
        from: StartFrom,
        (position, unreadable): (Position, &[Channel]),
        now: Instant,
    ) {
        let begun = Begun { recovered: false, position: None, unreadable, truncated: 0 };
        match from {
            StartFrom::Resumed { missed, had } => {
                let had = self.told_last(had);
                if missed.is_empty() && self.is_over(&had, now) || self.was_over(&had) {
                    self.sink.already_over();
                    self.out.close(CloseReason::AlreadyOver);
                    return;
                }
                let position = missed.is_empty().then_some(position);
                self.connected(&Begun { recovered: true, position, ..begun }, now);
                self.arm(&had);
                for event in &missed {
                    if self.is_closing() {
                        break;
                    }
                    self.event(event, now);
                }
            }
            StartFrom::Snapshot(known) => {
                let told = known.told(&*self.plan.shape);
                let is_all = told.events.is_empty() && known.forgotten.is_empty();
                let (position_at_once, truncated) = (is_all.then_some(position), known.truncated);
                self.connected(&Begun { position: position_at_once, truncated, ..begun }, now);
                if !known.forgotten.is_empty() {
                    let channels = known.forgotten.iter().cloned().map(Filter::Exact).collect();
                    let gap = Gap { channels, reason: GapReason::HistoryEvicted, position };
                    self.gap(&gap, told.events.is_empty(), now);
                }
                self.snapshot(&told, position, now);
            }
            StartFrom::Broken(gap, known) => {
                let told = known.told(&*self.plan.shape);
                self.connected(&Begun { truncated: known.truncated, ..begun }, now);
                self.gap(&gap, told.events.is_empty(), now);
                self.snapshot(&told, position, now);
            }
            StartFrom::Crowded(pattern) => {
                self.connected(&begun, now);
                self.say(
                    Outgoing::Error(format!(
                        "Too many channels or patterns like this one: {pattern}"
                    )),
                    now,
                );
                self.close(CloseReason::Refused, now);
            }
        }
    }

    fn connected(&mut self, begun: &Begun<'_>, now: Instant) {
        let connected = Connected {
            client: self.ticket.id().to_owned(),
            channels: self.filters.iter().map(ToString::to_string).collect(),
            recovered: begun.recovered,
            unreadable: begun.unreadable.iter().map(ToString::to_string).collect(),
            truncated: begun.truncated,
            position: begun.position,
        };
        self.say(Outgoing::Connected(Box::new(connected)), now);
    }

    fn snapshot(&mut self, told: &Arc<Told>, position: Position, now: Instant) {
        if !told.events.is_empty() {
            self.stands = Some(position);
            self.out.outbox.begin_with(Arc::clone(told), position);
        }
        for (end, event) in self.ends(&told.ends) {
            self.end(&end, &event, now);
        }
    }

    /// Of `events`, which are in order, what the stream has told last of each channel and key.
    fn told_last(&self, events: Vec<Arc<Event>>) -> Vec<Arc<Event>> {
        let shape = &*self.plan.shape;
        let key = |event: &Event| Some(event.shaped(shape)?.key.clone());
        let mut told: Vec<Arc<Event>> = Vec::new();
        for event in events {
            let same =
                |told: &&mut Arc<Event>| told.channel == event.channel && key(told) == key(&event);
            match told.iter_mut().find(same) {
                Some(told) if told.gives_way_to(&event, shape.id()) => *told = event,
                Some(_) => {}
                None => told.push(event),
            }
        }
        told
    }

    fn ends(&self, events: &[Arc<Event>]) -> Vec<(End, Arc<Event>)> {
        let end = |event: &Arc<Event>| {
            let end = event.shaped(&*self.plan.shape)?.end.clone()?;
            Some((end, Arc::clone(event)))
        };
        events.iter().filter_map(end).collect()
    }

    /// Whether the client has had an end that nothing took back in time.
    fn is_over(&self, had: &[Arc<Event>], now: Instant) -> bool {
        self.ends(had).iter().any(|(end, event)| event.received + end.grace <= now)
    }

    /// Whether the client has had an end that nothing can take back.
    fn was_over(&self, had: &[Arc<Event>]) -> bool {
        self.ends(had).iter().any(|(end, _)| end.grace.is_zero())
    }

    /// An end that the client has had and that may still be taken back goes on counting.
    fn arm(&mut self, had: &[Arc<Event>]) {
        for (end, event) in self.ends(had) {
            let at = event.received + end.grace;
            self.ending = Some(Box::new(Ending { at, end, event }));
        }
    }
}
