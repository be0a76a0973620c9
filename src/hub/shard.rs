//! One shard: the only owner of its subscribers and of who among them wants what.
//!
//! ```text
//! loop:  deliveries ─┐
//!        wakes ──────┼─► signals to subscribers ─► dirty ─► flush each once
//!        deadlines ──┘
//! ```
//!
//! Nothing here waits for a subscriber, and nothing here is shared with another shard but counts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use prometheus::Histogram;
use slab::Slab;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue;

use super::Command;
use super::budget::Budget;
use super::core::{Delivery, Join};
use super::subscriber::{Flow, Gap, Signal, Start, Subscriber};
use super::topics::Topics;
use super::turn::{Turn, let_others_go_first};
use super::wakes::Wakes;
use crate::event::{ChannelPattern, Event, Filter, Position};
use crate::shutdown::Stop;

pub(super) struct Shard {
    index: usize,
    /// Over which the node tells its clients to leave when it stops.
    drain: Duration,
    hub: mpsc::Sender<Command>,
    budget: Budget,
    wakes: Arc<Wakes>,
    topics: Topics<Vec<usize>>,
    subscribers: Slab<Entry>,
    deadlines: DelayQueue<usize>,
    /// How long the turns are.
    turns: Histogram,
    /// What the source listens to again, if it was lost.
    reconnected: Option<Reconnected>,
    /// Where the walk over all subscribers goes on, if one is under way: it tells those who do not know
    /// of the last loss, or of the stop.
    walk: Option<usize>,
    dirty: Vec<usize>,
    /// Those that have more to pass on, when others have had their turn.
    again: VecDeque<usize>,
    /// Those that have ended and are still to be removed.
    ended: Vec<usize>,
    /// What those who left listened to, until the hub has been told: one entry per subscriber gone.
    released: VecDeque<Arc<[Filter]>>,
    /// When all were last looked at for somebody to shed.
    last_look: Option<Instant>,
    /// Since when the node stops.
    stop_since: Option<Instant>,
}

/// See [`Delivery::Reconnected`].
struct Reconnected {
    heard: Arc<[ChannelPattern]>,
    position: Position,
}

/// Subscribers that are looked at in one go.
const WALK: usize = 256;

/// How long a subscriber may be behind before it is shed; at once beyond twice the bound.
const GRACE: Duration = Duration::from_secs(1);

/// From one look at all subscribers for somebody to shed to the next.
const PAUSE: Duration = Duration::from_millis(5);

struct Entry {
    subscriber: Box<dyn Subscriber>,
    filters: Arc<[Filter]>,
    deadline: Option<(delay_queue::Key, Instant)>,
    /// The last event it was told, so that one that passes two of its filters is told once.
    last: u64,
    /// The last loss of the source it was told of, or where it began.
    loss_told: u64,
    /// The bytes that waited for it when it was last asked.
    backlog: usize,
    /// Since when some have.
    behind: Option<Instant>,
    dirty: bool,
    /// When the node stops: the moment this client is told.
    stop_at: Option<Instant>,
    /// Whether it knows of the stop.
    knows_of_stop: bool,
    /// Whether it is done and only has to be removed.
    ended: bool,
}

impl Shard {
    pub(super) fn new(
        index: usize,
        drain: Duration,
        hub: mpsc::Sender<Command>,
        budget: Budget,
        (wakes, turns): (Arc<Wakes>, Histogram),
    ) -> Self {
        Self {
            index,
            drain,
            hub,
            budget,
            wakes,
            topics: Topics::default(),
            subscribers: Slab::new(),
            deadlines: DelayQueue::new(),
            turns,
            reconnected: None,
            walk: None,
            dirty: Vec::new(),
            again: VecDeque::new(),
            ended: Vec::new(),
            released: VecDeque::new(),
            last_look: None,
            stop_since: None,
        }
    }

    /// Runs until the hub has ended, which it does when the node stops and everybody has left. Arms:
    /// deliveries; subscribers woken; deadlines; room to tell the hub; the stop; what
    /// goes on. However much there is to do, others go on after each turn.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Vec<Delivery>>, stop: Stop) {
        let hub = self.hub.clone();
        let wakes = Arc::clone(&self.wakes);
        let stop_requested = stop.requested();
        tokio::pin!(stop_requested);
        loop {
            let goes_on = self.walk.is_some() || !self.again.is_empty() || !self.ended.is_empty();
            tokio::select! {
                deliveries = inbox.recv() => {
                    let Some(deliveries) = deliveries else { return };
                    self.deliver_all(deliveries, &mut inbox).await;
                }
                () = wakes.some() => self.wake_up().await,
                Some(due) = self.deadlines.next() => self.deadline(due.into_inner()),
                Ok(permit) = hub.reserve(), if !self.released.is_empty() => {
                    if let Some(filters) = self.released.pop_front() {
                        permit.send(Command::Depart { shard: self.index, filters });
                    }
                }
                () = &mut stop_requested, if self.stop_since.is_none() => {
                    self.stop_since = Some(Instant::now());
                    self.walk = Some(0);
                }
                () = let_others_go_first(), if goes_on => {}
            }
            self.walk_on().await;
            self.flush().await;
        }
    }

    /// What waits already goes out with the same flush; what comes in meanwhile does not hold it up.
    async fn deliver_all(
        &mut self,
        first: Vec<Delivery>,
        inbox: &mut mpsc::Receiver<Vec<Delivery>>,
    ) {
        let mut turn = Turn::new(&self.turns);
        self.deliver(first, &mut turn).await;
        for _ in 0..inbox.len() {
            let Ok(more) = inbox.try_recv() else { break };
            self.deliver(more, &mut turn).await;
        }
    }

    async fn deliver(&mut self, deliveries: Vec<Delivery>, turn: &mut Turn) {
        for delivery in deliveries {
            match delivery {
                Delivery::Event(event) => self.event(&event, turn).await,
                Delivery::Join(join) => self.join(*join),
                Delivery::Gap { filters, position } => {
                    let gap = |channels| Signal::Gap(Gap::reconnected(channels, position));
                    self.tell(&filters, gap, turn).await;
                }
                Delivery::Reconnected { heard, position } => {
                    self.reconnected = Some(Reconnected { heard, position });
                    self.walk = Some(0);
                }
                Delivery::Refused(filters) => self.tell(&filters, Signal::Refused, turn).await,
                // There is room for the answer of each shard.
                Delivery::Alive(reply) => reply.try_send(()).unwrap_or_default(),
            }
            turn.next().await;
        }
    }

    async fn event(&mut self, event: &Arc<Event>, turn: &mut Turn) {
        let now = Instant::now();
        for &key in self.topics.matching(&event.channel).flatten() {
            let Some(entry) = self.subscribers.get_mut(key) else { continue };
            if entry.last == event.position.sequence {
                continue;
            }
            // Before whatever comes after the loss.
            entry.hear_of(self.reconnected.as_ref(), now);
            entry.last = event.position.sequence;
            entry.subscriber.receive(Signal::Event(event), now);
            entry.mark(key, &mut self.dirty);
            turn.next().await;
        }
    }

    /// Tells some more of all subscribers that the source was lost, or that the node stops.
    async fn walk_on(&mut self) {
        let Some(from) = self.walk else { return };
        let (now, mut turn) = (Instant::now(), Turn::new(&self.turns));
        let to = from + WALK;
        for key in from..to {
            turn.next().await;
            let Some(entry) = self.subscribers.get_mut(key) else { continue };
            entry.hear_of(self.reconnected.as_ref(), now);
            if let Some(since) = self.stop_since.filter(|_| !entry.knows_of_stop) {
                // Each client gets a moment of its own within the drain, so that they do not all come
                // back at once.
                entry.knows_of_stop = true;
                entry.stop_at = Some(since + self.drain.mul_f64(fastrand::f64() * 0.9));
            }
            entry.mark(key, &mut self.dirty);
        }
        // Who comes later knows.
        self.walk = (to < self.subscribers.capacity()).then_some(to);
    }

    fn join(&mut self, join: Join) {
        let Join { subscriber, filters, position, from, unreadable } = join;
        let entry = Entry {
            subscriber,
            filters: Arc::clone(&filters),
            deadline: None,
            last: 0,
            loss_told: position.sequence,
            backlog: 0,
            behind: None,
            dirty: false,
            stop_at: self.stop_since.map(|_| Instant::now()),
            knows_of_stop: self.stop_since.is_some(),
            ended: false,
        };
        let key = self.subscribers.insert(entry);
        for filter in &*filters {
            self.topics.change(filter, |keys| keys.push(key));
        }
        let start = Start { position, from, unreadable, waker: self.wakes.waker(key) };
        self.signal(key, Signal::Start(Box::new(start)));
    }

    /// Tells everybody who listens to some of `filters` which ones.
    async fn tell(
        &mut self,
        filters: &[Filter],
        signal: impl Fn(Vec<Filter>) -> Signal<'static>,
        turn: &mut Turn,
    ) {
        let mut touched: HashMap<usize, Vec<Filter>> = HashMap::new();
        for filter in filters {
            for &mut key in self.topics.get_mut(filter).into_iter().flatten() {
                touched.entry(key).or_default().push(filter.clone());
            }
        }
        for (key, channels) in touched {
            self.signal(key, signal(channels));
            turn.next().await;
        }
    }

    fn signal(&mut self, key: usize, signal: Signal<'_>) {
        if let Some(entry) = self.subscribers.get_mut(key) {
            let now = Instant::now();
            // Before whatever comes after the loss.
            entry.hear_of(self.reconnected.as_ref(), now);
            entry.subscriber.receive(signal, now);
            entry.mark(key, &mut self.dirty);
        }
    }

    async fn wake_up(&mut self) {
        let (wakes, mut turn) = (Arc::clone(&self.wakes), Turn::new(&self.turns));
        for key in wakes.take() {
            self.signal(key, Signal::Woken);
            turn.next().await;
        }
    }

    fn deadline(&mut self, key: usize) {
        let now = Instant::now();
        let Some(entry) = self.subscribers.get_mut(key) else { return };
        entry.deadline = None;
        if entry.stop_at.is_some_and(|at| at <= now) {
            entry.stop_at = None;
            let retry = Duration::from_millis(fastrand::u64(1000..=5000));
            entry.subscriber.receive(Signal::Stop { retry }, now);
        } else if entry.subscriber.deadline().is_some_and(|deadline| deadline <= now) {
            entry.subscriber.receive(Signal::Deadline, now);
        }
        entry.mark(key, &mut self.dirty);
    }

    async fn flush(&mut self) {
        let mut turn = Turn::new(&self.turns);
        let mut dirty = std::mem::take(&mut self.dirty);
        let now = Instant::now();
        for key in dirty.drain(..) {
            self.flush_one(key, now);
            turn.next().await;
        }
        self.dirty = dirty;
        // However many have much to pass on, they take one turn between the events of all others.
        let mut turn = Turn::new(&self.turns);
        for _ in 0..self.again.len() {
            let Some(key) = self.again.pop_front() else { break };
            self.flush_one(key, now);
            if turn.is_over() {
                break;
            }
        }
        drop(turn);
        if self.budget.is_exceeded() && self.last_look.is_none_or(|last| now - last >= PAUSE) {
            self.last_look = Some(now);
            self.shed(now);
        }
        self.remove_ended(&mut Turn::new(&self.turns)).await;
    }

    fn flush_one(&mut self, key: usize, now: Instant) {
        let Some(entry) = self.subscribers.get_mut(key).filter(|entry| !entry.ended) else {
            return;
        };
        entry.dirty = false;
        let flow = entry.subscriber.flush(now);
        let backlog = if flow == Flow::Ended { 0 } else { entry.subscriber.backlog() };
        self.budget.change(entry.backlog, backlog);
        entry.backlog = backlog;
        entry.behind = (backlog > 0).then(|| entry.behind.unwrap_or(now));
        match flow {
            Flow::Continue => entry.schedule(key, &mut self.deadlines),
            Flow::Again => {
                entry.schedule(key, &mut self.deadlines);
                entry.dirty = true;
                self.again.push_back(key);
            }
            Flow::Ended => {
                entry.ended = true;
                self.ended.push(key);
            }
        }
    }

    /// Too much waits on this node: those who are furthest behind have to go. After a large event
    /// everybody is behind for a moment, so whoever has just fallen behind is spared while it can be.
    fn shed(&mut self, now: Instant) {
        let spare = if self.budget.is_exceeded_by_far() { Duration::ZERO } else { GRACE };
        let is_behind = |entry: &Entry| entry.behind.is_some_and(|since| since + spare <= now);
        let behind = self.subscribers.iter().filter(|(_, entry)| is_behind(entry));
        let mut behind: Vec<_> = behind.map(|(key, entry)| (entry.backlog, key)).collect();
        behind.sort_unstable();
        let mut shed = 0_usize;
        while self.budget.is_exceeded() {
            let most = behind.last().map_or(0, |(backlog, _)| *backlog);
            if !self.budget.is_furthest(most) {
                break;
            }
            let Some((_, key)) = behind.pop() else { break };
            let Some(entry) = self.subscribers.get_mut(key) else { continue };
            entry.subscriber.receive(Signal::Shed, now);
            self.flush_one(key, now);
            shed += 1;
        }
        if shed > 0 {
            tracing::warn!(
                sessions = shed,
                "too much waits for slow clients: the slowest have to go"
            );
        }
    }

    /// Those who leave together are taken off a topic in one go, however many listen to it; some hundreds
    /// at a time.
    async fn remove_ended(&mut self, turn: &mut Turn) {
        let ended = self.ended.split_off(self.ended.len().saturating_sub(WALK));
        let mut left = HashSet::new();
        for &key in &ended {
            turn.next().await;
            let Some(entry) = self.subscribers.try_remove(key) else { continue };
            if let Some((timer, _)) = entry.deadline {
                self.deadlines.remove(&timer);
            }
            left.extend(entry.filters.iter().cloned());
            self.released.push_back(entry.filters);
        }
        for filter in left {
            turn.next().await;
            let Some(keys) = self.topics.get_mut(&filter) else { continue };
            match *ended {
                [one] => keys.retain(|&key| key != one),
                _ => keys.retain(|&key| self.subscribers.contains(key)),
            }
            if keys.is_empty() {
                self.topics.remove(&filter);
            } else if keys.len() < keys.capacity() / 4 {
                keys.shrink_to_fit();
            }
        }
    }
}

impl Entry {
    /// Tells it that the source was lost, if it has not been told.
    fn hear_of(&mut self, reconnected: Option<&Reconnected>, now: Instant) {
        let Some(Reconnected { heard, position }) = reconnected else { return };
        if self.loss_told >= position.sequence {
            return;
        }
        self.loss_told = position.sequence;
        let is_heard = |filter: &&Filter| heard.iter().any(|pattern| pattern.covers(filter));
        let channels: Vec<_> = self.filters.iter().filter(is_heard).cloned().collect();
        if !channels.is_empty() {
            self.subscriber.receive(Signal::Gap(Gap::reconnected(channels, *position)), now);
        }
    }

    fn mark(&mut self, key: usize, dirty: &mut Vec<usize>) {
        if !self.dirty && !self.ended {
            self.dirty = true;
            dirty.push(key);
        }
    }

    /// Sees to it that the shard wakes no later than the subscriber's deadline. One that has moved
    /// later is left as it is: waking early costs less than moving the timer at every event.
    fn schedule(&mut self, key: usize, deadlines: &mut DelayQueue<usize>) {
        let wanted = self.subscriber.deadline().into_iter().chain(self.stop_at).min();
        let Some(wanted) = wanted else { return };
        match &mut self.deadline {
            Some((_, at)) if *at <= wanted => {}
            Some((timer, at)) => {
                deadlines.reset_at(timer, wanted);
                *at = wanted;
            }
            None => self.deadline = Some((deadlines.insert_at(key, wanted), wanted)),
        }
    }
}
