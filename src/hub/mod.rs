//! Who wants what, and what was last said.
//!
//! ```text
//! source ──Inlet──► hub task: position, history, snapshot ──► shards ──► subscribers
//!            ▲                    │
//!            └────── Demand ◄─────┘
//! ```
//!
//! The hub knows neither brokers nor HTTP. One task owns the state (`core.rs`); each shard is a task that
//! alone owns its subscribers. Every queue between them is bounded: a full one makes the source
//! wait, never a client, because a shard does not wait for clients.

mod budget;
#[cfg(test)]
pub(crate) mod by_hand;
mod chores;
mod core;
mod coverage;
mod demand;
mod drops;
mod histories;
mod history;
mod idle;
mod inlet;
mod known;
mod latest;
mod openings;
mod patterns;
mod recent;
mod rule;
mod shard;
mod shares;
mod snapshot;
mod subscriber;
#[cfg(test)]
mod tests;
mod topics;
mod turn;
mod wakes;

use std::collections::VecDeque;
use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

pub use self::core::{Arrival, HubSettings, Resume};
pub use coverage::{Covered, Lingering};
pub use demand::{Asker, Change, Demand, NOBODY, Ticket};
pub use history::HistoryBounds;
pub(crate) use inlet::DROP_REASONS;
pub use inlet::{Condition, Incoming, Inlet, InletSettings, Room};
pub use known::{Known, Last, Told};
pub use rule::{ChannelRule, ObjectChannels};
pub use snapshot::SnapshotBounds;
pub use subscriber::{Flow, Gap, GapReason, Signal, Start, StartFrom, Subscriber};

use self::core::{Core, Delivery};
use crate::event::{Channel, ChannelPattern, Filter};
use crate::shutdown::Stop;
use crate::telemetry::Metrics;
use budget::Budget;
use openings::Opening;
use shard::Shard;
use turn::{Turn, let_others_go_first};
use wakes::Wakes;

/// Commands that wait for the hub, at most; then their senders wait.
const COMMANDS: usize = 4096;
/// Batches that wait for one shard, at most; then the hub waits.
const BATCHES: usize = 64;
/// Commands whose deliveries go out together, at most.
const BATCH: usize = 256;

/// The hub's address. Clones reach the same hub.
#[derive(Clone)]
pub struct Hub {
    commands: mpsc::Sender<Command>,
    /// How many shards there are.
    shards: usize,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hub")
    }
}

/// The hub has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway is shutting down")]
pub struct Stopped;

enum Command {
    Publish(Incoming),
    PublishAll(Vec<Incoming>),
    Dropped(Channel),
    Seed { incoming: Incoming, again: bool },
    Connected { refused: Vec<ChannelPattern> },
    Live(Vec<(Channel, Ticket)>),
    Refused(Vec<(Channel, Ticket)>),
    Lost,
    Subscribed(oneshot::Sender<Vec<Channel>>),
    Cover(Arc<[Filter]>, Asker, oneshot::Sender<Covered>),
    Knows(Channel, oneshot::Sender<bool>),
    Listeners(Vec<Channel>, oneshot::Sender<usize>),
    Alive(mpsc::Sender<()>),
    Arrive(Box<Arrival>),
    Depart { shard: usize, filters: Arc<[Filter]> },
}

impl Hub {
    /// Starts the hub and its shards. `drain` is the time over which clients are told to leave
    /// when the node stops.
    pub fn start(
        settings: HubSettings,
        drain: Duration,
        metrics: &Arc<Metrics>,
        stop: &Stop,
    ) -> (Self, Demand) {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let wakes: Vec<_> = (0..settings.shards.max(1)).map(|_| Arc::<Wakes>::default()).collect();
        let budgets = Budget::new(settings.backlog, &metrics.outbox_bytes, wakes.clone());
        let mut shards = Vec::new();
        for (index, (budget, wakes)) in budgets.into_iter().zip(wakes).enumerate() {
            let (deliveries, inbox) = mpsc::channel(BATCHES);
            let turns = metrics.shard_step_seconds.clone();
            let shard = Shard::new(index, drain, commands.clone(), budget, (wakes, turns));
            stop.spawn_engine("a shard", shard.run(inbox, stop.clone()));
            shards.push(deliveries);
        }
        let demand = Demand::default();
        let core = Core::new(settings, demand.clone());
        let count = shards.len();
        stop.spawn_engine("the hub", run(core, inbox, shards, Arc::clone(metrics), stop.clone()));
        (Self { commands, shards: count }, demand)
    }

    /// The way in for a source. `name` is its label in the metrics.
    pub fn inlet(
        &self,
        name: &'static str,
        settings: InletSettings,
        metrics: &Arc<Metrics>,
    ) -> Inlet {
        Inlet::new(self.commands.clone(), name, settings, metrics)
    }

    /// Sees to it that the source listens to `filters`, and waits until it does. Returns at once
    /// while the source is away, and when some of them cannot be had. `by`: who asks; what somebody asks
    /// for waits for that one's turn.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn cover(&self, filters: &Arc<[Filter]>, by: Asker) -> Result<Covered, Stopped> {
        self.ask(|reply| Command::Cover(Arc::clone(filters), by, reply)).await
    }

    /// Whether anything is known of `channel`.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn knows(&self, channel: Channel) -> Result<bool, Stopped> {
        self.ask(|reply| Command::Knows(channel, reply)).await
    }

    /// Whether the hub and every shard answer.
    pub async fn is_alive(&self) -> bool {
        let (reply, mut answers) = mpsc::channel(self.shards);
        if self.send(Command::Alive(reply)).await.is_err() {
            return false;
        }
        let mut alive = 0;
        while answers.recv().await.is_some() {
            alive += 1;
        }
        alive == self.shards
    }

    /// How many subscriptions hear `channels`, all together.
    ///
    /// # Errors
    /// When the hub has stopped.
    pub async fn listeners(&self, channels: Vec<Channel>) -> Result<usize, Stopped> {
        self.ask(|reply| Command::Listeners(channels, reply)).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Lets somebody in. They are told where they start through [`Signal::Start`].
    pub async fn arrive(&self, arrival: Arrival) -> Result<(), Stopped> {
        self.send(Command::Arrive(Box::new(arrival))).await
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }
}

/// The hub task: runs until the node stops, nothing more is said, and everybody has left.
///
/// It goes on in turns, each of two halves: what has come in, and what can wait a little. After each half
/// the shards are given what has come of it, so no event waits for more than a turn.
async fn run(
    mut core: Core,
    mut inbox: mpsc::Receiver<Command>,
    shards: Vec<mpsc::Sender<Vec<Delivery>>>,
    metrics: Arc<Metrics>,
    stop: Stop,
) {
    let mut commands = Vec::with_capacity(BATCH);
    let mut queue = VecDeque::with_capacity(BATCH);
    let mut expiry = interval(Duration::from_secs(1));
    expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let settled = stop.settled();
    tokio::pin!(settled);
    while !(stop.is_settled() && core.subscribers() == 0) {
        let goes_on = !queue.is_empty() || core.has_work();
        tokio::select! {
            _ = inbox.recv_many(&mut commands, BATCH), if queue.is_empty() => {
                // What others are about to publish goes out with the same flush. Woken by a
                // publisher, this task would run at once, for each event anew.
                let_others_go_first().await;
                let room = BATCH.saturating_sub(commands.len());
                commands.extend(iter::from_fn(|| inbox.try_recv().ok()).take(room));
                queue.extend(commands.drain(..));
            }
            _ = expiry.tick() => core.expire(Instant::now()),
            () = &mut settled, if !stop.is_settled() => {}
            () = let_others_go_first(), if goes_on => {}
        }
        let mut turn = Turn::new(&metrics.hub_step_seconds);
        while let Some(command) = queue.pop_front() {
            apply(&mut core, command, &mut queue);
            if turn.is_over() {
                break;
            }
        }
        drop(turn);
        hand_on(&mut core, &shards).await;
        if core.has_work() {
            let mut turn = Turn::new(&metrics.hub_step_seconds);
            while core.work() && !turn.is_over() {}
            drop(turn);
            hand_on(&mut core, &shards).await;
        }
        observe(&core, &metrics);
    }
}

async fn hand_on(core: &mut Core, shards: &[mpsc::Sender<Vec<Delivery>>]) {
    for (index, deliveries) in core.take() {
        if let Some(shard) = shards.get(index) {
            // A shard ends after the hub; one that is gone was aborted with everything else.
            shard.send(deliveries).await.unwrap_or_default();
        }
    }
}

/// `queue`: what comes after the command.
fn apply(core: &mut Core, command: Command, queue: &mut VecDeque<Command>) {
    match command {
        Command::Publish(incoming) => core.publish(incoming),
        Command::PublishAll(all) => {
            all.into_iter().rev().for_each(|one| queue.push_front(Command::Publish(one)));
        }
        Command::Dropped(channel) => core.dropped(channel, Instant::now()),
        Command::Seed { incoming, again } => core.seed(incoming, again),
        Command::Connected { refused } => core.connected(&refused),
        Command::Live(channels) => core.live(&channels),
        Command::Refused(channels) => core.refuse(&channels),
        Command::Lost => core.lost(),
        Command::Subscribed(reply) => core.subscribed(reply),
        Command::Cover(filters, by, reply) => {
            core.openings.push(Opening::Cover(filters, by, reply));
        }
        Command::Arrive(arrival) => core.openings.push(Opening::Arrive(arrival)),
        // Whoever asked may have gone away; then nobody waits for the answer.
        Command::Knows(channel, reply) => reply.send(core.knows(&channel)).unwrap_or_default(),
        Command::Listeners(channels, reply) => {
            let listeners = channels.iter().map(|channel| core.listeners(channel)).sum();
            reply.send(listeners).unwrap_or_default();
        }
        Command::Alive(reply) => core.ask_shards(&reply),
        Command::Depart { shard, filters } => core.depart(shard, &filters),
    }
}

fn observe(core: &Core, metrics: &Metrics) {
    let set = |gauge: &prometheus::IntGauge, value: usize| {
        gauge.set(value.try_into().unwrap_or(i64::MAX));
    };
    set(&metrics.history_bytes, core.history().bytes());
    set(&metrics.history_channels, core.history().channels());
    set(&metrics.snapshot_bytes, core.snapshots().bytes());
    set(&metrics.snapshot_channels, core.snapshots().channels());
    set(&metrics.subscriptions, core.subscriptions());
    set(&metrics.subscribed_topics, core.topics());
}
