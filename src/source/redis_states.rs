//! The keys in which workers keep the last payload of a channel: what is to be read, and for whom.
//!
//! A read belongs to the node: it goes on when the opening that wanted it has given up, and is tried
//! again while Redis is slow, or loads its data. How it is done stands in `redis_reading.rs`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::AsyncConnectionConfig;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::redis_connect::Connector;
use super::redis_reading::{FENCE, Reading};
use super::{Backoff, SourceError, StateKeys, StoredStates};
use crate::event::Channel;
use crate::hub::Inlet;

/// How long a worker may take from publishing to setting the key.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How long a connection stays that nobody needs.
const IDLE: Duration = Duration::from_secs(60);
/// Keys that wait to be read, at most. Beyond it a channel begins without its state, and its stream says
/// so.
const MOST: usize = 100_000;

/// Reads states and puts them in order behind the messages that arrived before them. Clones share it.
#[derive(Clone)]
pub(super) struct RedisStates(Arc<Shared>);

struct Shared {
    connector: Arc<Connector>,
    keys: StateKeys,
    /// The channel of our own on which fences are published.
    channel: String,
    max_bytes: usize,
    /// How long a fence may take.
    patience: Duration,
    backoff: Backoff,
    wishes: Mutex<Wishes>,
    bell: Notify,
    /// The number of the last fence that has arrived.
    passed: watch::Sender<u64>,
    /// The number of the last fence.
    fences: AtomicU64,
    /// Whether the log says already that keys are read whole.
    told: AtomicBool,
}

/// What is to be read: no more than [`MOST`] keys.
#[derive(Default)]
struct Wishes {
    /// Whether the subscriptions are there to which a state can be added.
    listening: bool,
    /// How often they were lost.
    losses: u64,
    asked: HashMap<String, Asked>,
    /// Keys that an opening waits for, before those that nobody does.
    first: VecDeque<String>,
    then: VecDeque<String>,
    /// Channels that are to be looked at once more, and when.
    later: VecDeque<(Instant, Vec<Channel>)>,
}

/// Who wants a key.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) channels: Vec<Channel>,
    /// Whether it is told even if it is what was known before.
    pub(super) again: bool,
    /// Told whether it could be read.
    pub(super) waiting: Vec<oneshot::Sender<bool>>,
}

/// Keys that are being read. Those that are left when it is dropped are wished for again.
pub(super) struct Taken {
    states: RedisStates,
    losses: u64,
    pub(super) asked: VecDeque<(String, Asked)>,
}

impl RedisStates {
    /// `channel`: our own, on which fences are published. `max_bytes`: of a state that is let in.
    /// `patience`: how long a fence may take.
    pub(super) fn new(
        connector: Arc<Connector>,
        keys: StateKeys,
        channel: String,
        max_bytes: usize,
        (patience, backoff): (Duration, Backoff),
    ) -> Self {
        let (wishes, bell, passed) = (Mutex::default(), Notify::new(), watch::Sender::default());
        Self(Arc::new(Shared {
            connector,
            keys,
            channel,
            max_bytes,
            patience,
            backoff,
            wishes,
            bell,
            passed,
            fences: AtomicU64::new(0),
            told: AtomicBool::new(false),
        }))
    }

    /// Whether this is the first time that keys are found to be readable only whole.
    pub(super) fn is_first_whole(&self) -> bool {
        !self.0.told.swap(true, Ordering::Relaxed)
    }

    /// Whether no channel has a key.
    pub(super) fn is_empty(&self) -> bool {
        self.0.keys.is_empty()
    }

    /// The subscriptions are there.
    pub(super) fn begin(&self) {
        self.0.wishes.lock().listening = true;
    }

    /// The subscriptions are lost. All is looked at again when they are back.
    pub(super) fn end(&self) {
        let mut wishes = self.0.wishes.lock();
        *wishes = Wishes { losses: wishes.losses + 1, ..Wishes::default() };
        drop(wishes);
        // Nobody waits for a fence any more.
        self.0.passed.send_modify(|_| ());
    }

    /// Reads the states of `channels` when there is time. `again`: they are told even if they are
    /// what was known before a gap.
    pub(super) fn look(&self, channels: &[Channel], again: bool) {
        let mut wishes = self.0.wishes.lock();
        for channel in channels {
            if let Some(key) = self.0.keys.key(channel) {
                wishes.ask(key, channel, again, None);
            }
        }
        self.0.bell.notify_one();
    }

    /// Reads the states of `channels` a little later. A worker publishes first and sets the key
    /// after: if it published just before the subscription and sets the key just after the first
    /// look, only a second one finds it.
    pub(super) fn look_later(&self, mut channels: Vec<Channel>) {
        channels.retain(|channel| self.0.keys.key(channel).is_some());
        if !channels.is_empty() {
            let due = Instant::now() + SECOND_LOOK;
            self.0.wishes.lock().later.push_back((due, channels));
            self.0.bell.notify_one();
        }
    }

    /// Something has arrived on the channel of fences: everything before it has been handed on.
    pub(super) fn arrived(&self, payload: &[u8]) {
        let number = str::from_utf8(payload).ok().and_then(|text| text.strip_prefix(FENCE));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            self.0.passed.send_replace(number);
        }
    }

    /// Reads what is wished for, for as long as the gateway runs.
    pub(super) async fn keep(&self, inlet: &Inlet) -> ! {
        let mut attempt = 0_u32;
        loop {
            self.wished().await;
            let Err(error) = self.read(inlet, &mut attempt).await else { continue };
            inlet.reads_not(&error.to_string());
            // The first failure may be that of a connection that was lost while nobody used it.
            if attempt > 0 {
                self.0.wishes.lock().give_up();
            }
            if attempt == 0 || attempt.is_power_of_two() {
                tracing::warn!(address = %self.0.connector, %error, attempt, "stored states not read");
            }
            sleep(self.0.backoff.pause(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Reads over one connection, until nothing has been wished for in a while. `attempt` is set back
    /// when something was read.
    async fn read(&self, inlet: &Inlet, attempt: &mut u32) -> Result<(), SourceError> {
        let Shared { connector, channel, max_bytes, .. } = &*self.0;
        let (connection, mut driver, _) = connector.connect(AsyncConnectionConfig::new()).await?;
        let mut reading = Reading::new(connection, channel.clone(), *max_bytes);
        loop {
            tokio::select! {
                wished = timeout(IDLE, self.wished()) => if wished.is_err() { return Ok(()) },
                // Redis may close what is idle; the next read makes it anew.
                () = &mut driver => return Ok(()),
            }
            tokio::select! {
                read = reading.read(self, inlet) => read?,
                () = &mut driver => return Err(SourceError::Disconnected),
            }
            inlet.reads();
            *attempt = 0;
        }
    }

    /// Resolves when something is wished for.
    async fn wished(&self) {
        loop {
            let due = {
                let mut wishes = self.0.wishes.lock();
                wishes.ask_due(&self.0.keys);
                if !wishes.asked.is_empty() {
                    return;
                }
                wishes.later.front().map(|(due, _)| *due)
            };
            tokio::select! {
                () = self.0.bell.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Puts a key back that has to be read once more.
    pub(super) fn wish_again(&self, key: String, asked: Asked) {
        self.0.wishes.lock().put_back(key, asked);
        self.0.bell.notify_one();
    }

    /// Takes keys to read, `most` of them at most.
    pub(super) fn take(&self, most: usize) -> Taken {
        let mut wishes = self.0.wishes.lock();
        let mut asked = VecDeque::new();
        while asked.len() < most
            && let Some(key) = wishes.first.pop_front().or_else(|| wishes.then.pop_front())
        {
            // It may stand in both queues.
            asked.extend(wishes.asked.remove_entry(&key));
        }
        Taken { states: self.clone(), losses: wishes.losses, asked }
    }
}

impl Taken {
    /// The number of a fence that has not been published yet.
    pub(super) fn next_fence(&self) -> u64 {
        self.states.0.fences.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Waits until everything has been handed on that arrived before fence `number`. `false`: the
    /// subscriptions were lost meanwhile.
    ///
    /// # Errors
    /// When the fence does not arrive in time.
    pub(super) async fn pass(&self, number: u64) -> Result<bool, SourceError> {
        let states = &self.states.0;
        let is_lost = || states.wishes.lock().losses != self.losses;
        let mut passed = states.passed.subscribe();
        let arrived = passed.wait_for(|passed| *passed >= number || is_lost());
        let Ok(_) = timeout(states.patience, arrived).await else {
            return Err(SourceError::NoFence);
        };
        Ok(!is_lost())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut wishes = self.states.0.wishes.lock();
        if wishes.losses == self.losses {
            for (key, asked) in self.asked.drain(..) {
                wishes.put_back(key, asked);
            }
        }
    }
}

impl Wishes {
    /// `waiting` is dropped if there is no room.
    fn ask(
        &mut self,
        key: String,
        channel: &Channel,
        again: bool,
        waiting: Option<oneshot::Sender<bool>>,
    ) {
        if self.asked.len() >= MOST && !self.asked.contains_key(&key) {
            return;
        }
        let queue = if waiting.is_some() { &mut self.first } else { &mut self.then };
        let asked = self.asked.entry(key.clone());
        // One that nobody waited for until now goes to the front.
        let is_urgent = waiting.is_some();
        let asked = match asked {
            Entry::Occupied(known) => {
                if is_urgent && known.get().waiting.is_empty() {
                    queue.push_back(key);
                }
                known.into_mut()
            }
            Entry::Vacant(new) => {
                queue.push_back(key);
                new.insert(Asked::default())
            }
        };
        if !asked.channels.contains(channel) {
            asked.channels.push(channel.clone());
        }
        asked.again |= again;
        asked.waiting.retain(|waiting| !waiting.is_closed());
        asked.waiting.extend(waiting);
    }

    /// Nothing can be read for now. Whoever waits begins without; what is read later is told as news.
    fn give_up(&mut self) {
        for asked in self.asked.values_mut() {
            for waiting in asked.waiting.drain(..) {
                waiting.send(false).unwrap_or_default();
            }
        }
        // Nobody waits in front any more.
        self.then.append(&mut self.first);
    }

    fn put_back(&mut self, key: String, mut taken: Asked) {
        let asked = self.asked.entry(key.clone()).or_default();
        taken.channels.retain(|channel| !asked.channels.contains(channel));
        asked.channels.append(&mut taken.channels);
        asked.again |= taken.again;
        asked.waiting.append(&mut taken.waiting);
        asked.waiting.retain(|waiting| !waiting.is_closed());
        let queue = if asked.waiting.is_empty() { &mut self.then } else { &mut self.first };
        queue.push_back(key);
    }

    fn ask_due(&mut self, keys: &StateKeys) {
        let now = Instant::now();
        while self.later.front().is_some_and(|(due, _)| *due <= now)
            && let Some((_, channels)) = self.later.pop_front()
        {
            for channel in channels {
                if let Some(key) = keys.key(&channel) {
                    self.ask(key, &channel, false, None);
                }
            }
        }
    }
}

#[async_trait]
impl StoredStates for RedisStates {
    async fn refresh(&self, channels: Vec<Channel>, until: Instant) -> Vec<Channel> {
        let mut read = Vec::new();
        {
            let mut wishes = self.0.wishes.lock();
            if !wishes.listening {
                return Vec::new();
            }
            for channel in channels {
                let Some(key) = self.0.keys.key(&channel) else { continue };
                let (waiting, done) = oneshot::channel();
                wishes.ask(key, &channel, false, Some(waiting));
                read.push((channel, done));
            }
        }
        self.0.bell.notify_one();
        let mut unreadable = Vec::new();
        for (channel, done) in read {
            // Without an answer the subscriptions are lost, or too much waits to be read.
            let read = timeout_at(until, done).await;
            if !matches!(read, Ok(Ok(true))) {
                unreadable.push(channel);
            }
        }
        unreadable
    }
}
