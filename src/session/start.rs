//! How a session begins: connected, then what brings the client up to the present.
//!
//! An id stands only on what leaves the client complete up to it. So while a snapshot is being
//! said nothing carries one but its last event, which carries the node's present position: a
//! connection cut in between begins again from the client's old id.

use std::sync::Arc;

use tokio::time::Instant;

use super::{CloseReason, Connected, Ending, Last, Outgoing, Session, Sink, Start, StartFrom};
use crate::event::{Channel, End, Event, Position};

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
        let connected = |recovered, position| (recovered, position, unreadable);
        match from {
            StartFrom::Resumed { missed, had } => {
                let had = self.told_last(had);
                if missed.is_empty() && self.is_over(&had, now) || self.was_over(&had) {
                    self.sink.already_over();
                    self.out.close(CloseReason::AlreadyOver);
                    return;
                }
                self.connected(connected(true, missed.is_empty().then_some(position)), now);
                self.arm(&had);
                for event in &missed {
                    if self.is_closing() {
                        break;
                    }
                    self.event(event, now);
                }
            }
            StartFrom::Snapshot(latest) => {
                let latest = self.for_this_stream(&latest);
                self.connected(connected(false, latest.is_empty().then_some(position)), now);
                self.snapshot(&latest, position, now);
            }
            StartFrom::Broken(gap, latest) => {
                let latest = self.for_this_stream(&latest);
                self.connected(connected(false, None), now);
                self.gap(&gap, latest.is_empty(), now);
                self.snapshot(&latest, position, now);
            }
        }
    }

    fn connected(
        &mut self,
        (recovered, position, unreadable): (bool, Option<Position>, &[Channel]),
        now: Instant,
    ) {
        let connected = Connected {
            client: self.ticket.id().to_owned(),
            channels: self.filters.iter().map(ToString::to_string).collect(),
            recovered,
            unreadable: unreadable.iter().map(ToString::to_string).collect(),
            position,
        };
        self.say(Outgoing::Connected(Box::new(connected)), now);
    }

    fn snapshot(&mut self, latest: &[Arc<Event>], position: Position, now: Instant) {
        let mut rest = latest.len();
        for event in latest {
            rest -= 1;
            let position = (rest == 0).then_some(position);
            self.say(Outgoing::Snapshot { event: Arc::clone(event), position }, now);
        }
        for (end, event) in self.ends(latest) {
            self.end(&end, &event, now);
        }
    }

    /// What the stream shows of what is known last. A pattern may match more channels than can be
    /// replayed: then the newest that take half of it.
    fn for_this_stream(&self, known: &[Last]) -> Vec<Arc<Event>> {
        let shape = &*self.plan.shape;
        let mut shown: Vec<_> =
            known.iter().filter_map(|last| last.for_stream(shape)).cloned().collect();
        shown.sort_by_key(|event| event.position.sequence);
        let mut room = self.plan.outbox.replay_bytes / 2;
        let mut kept: Vec<_> = shown
            .into_iter()
            .rev()
            .enumerate()
            .take_while(|(index, event)| {
                let json = event.shaped(shape).map_or(0, |shaped| shaped.json.len());
                let fits = room.checked_sub(json);
                room = fits.unwrap_or_default();
                *index == 0 || fits.is_some()
            })
            .map(|(_, event)| event)
            .collect();
        kept.reverse();
        kept
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
