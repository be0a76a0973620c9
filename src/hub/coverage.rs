//! From when on the node hears a channel completely: the ground on which a position is honoured.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::Demand;
use crate::event::{ChannelPattern, Filter};

pub(super) struct Coverage {
    /// What the source listens to at all times.
    standing: Vec<ChannelPattern>,
    standing_since: Option<u64>,
    /// What it listens to because somebody asked.
    asked: HashMap<Filter, Asked>,
    /// Filters that nobody occupies, in the order they were left.
    idle: VecDeque<(Instant, Filter)>,
    waiting: Vec<Waiting>,
    linger: Duration,
    /// Filters that are asked for and that nobody occupies, at most; the longest idle go first.
    most_idle: usize,
    demand: Demand,
    connected: bool,
}

#[derive(Default)]
struct Asked {
    /// Everything after this sequence was heard.
    since: Option<u64>,
    /// Whether the source listens now.
    live: bool,
    /// Whether somebody listens; if not, since when.
    occupied: bool,
    left: Option<Instant>,
}

/// How long, and how many, channels are still listened to when nobody wants them any more.
#[derive(Debug, Clone, Copy)]
pub struct Lingering {
    /// How long.
    pub time: Duration,
    /// How many.
    pub channels: usize,
}

struct Waiting {
    filters: Vec<Filter>,
    reply: oneshot::Sender<()>,
}

impl Coverage {
    pub(super) fn new(standing: Vec<ChannelPattern>, lingering: Lingering, demand: Demand) -> Self {
        Self {
            standing,
            standing_since: None,
            asked: HashMap::new(),
            idle: VecDeque::new(),
            waiting: Vec::new(),
            linger: lingering.time,
            most_idle: lingering.channels,
            demand,
            connected: false,
        }
    }

    /// Whether a standing subscription hears everything of `filter`.
    pub(super) fn stands(&self, filter: &Filter) -> bool {
        self.standing.iter().any(|pattern| pattern.covers(filter))
    }

    /// The sequence after which everything of `filter` was heard, up to now or to the loss of the
    /// source; `None` if it never was.
    pub(super) fn since(&self, filter: &Filter) -> Option<u64> {
        if self.stands(filter) {
            return self.standing_since;
        }
        self.asked.get(filter).and_then(|asked| asked.since)
    }

    /// Whether everything of `filter` after `sequence` was heard.
    pub(super) fn unbroken(&self, filter: &Filter, sequence: u64) -> bool {
        self.since(filter).is_some_and(|since| since <= sequence)
    }

    /// Asks the source for what does not stand. `reply` is told when all of it is heard, or at
    /// once while the source is away: nobody waits for a broker.
    pub(super) fn want(
        &mut self,
        filters: &[Filter],
        now: Instant,
        reply: Option<oneshot::Sender<()>>,
    ) {
        let mut missing = Vec::new();
        for filter in filters {
            if self.stands(filter) {
                continue;
            }
            let asked = self.asked.entry(filter.clone()).or_insert_with(|| {
                self.demand.add(filter.clone());
                Asked::default()
            });
            // Whoever asks now arrives in a moment: lingering starts anew.
            if !asked.occupied && asked.left.is_none_or(|left| now - left > self.linger / 2) {
                asked.left = Some(now);
                self.idle.push_back((now, filter.clone()));
            }
            if !asked.live {
                missing.push(filter.clone());
            }
        }
        while self.idle.len() > self.most_idle {
            self.let_go();
        }
        let Some(reply) = reply else { return };
        if missing.is_empty() || !self.connected {
            // Whoever asked may have gone away; then nobody waits for the answer.
            reply.send(()).unwrap_or_default();
        } else {
            self.waiting.push(Waiting { filters: missing, reply });
        }
    }

    /// Somebody listens to `filter`.
    pub(super) fn occupy(&mut self, filter: &Filter) {
        if let Some(asked) = self.asked.get_mut(filter) {
            asked.occupied = true;
            asked.left = None;
        }
    }

    /// Nobody listens to `filter` any more.
    pub(super) fn vacate(&mut self, filter: &Filter, now: Instant) {
        if let Some(asked) = self.asked.get_mut(filter) {
            asked.occupied = false;
            asked.left = Some(now);
            self.idle.push_back((now, filter.clone()));
        }
    }

    /// Lets go of filters that nobody has listened to for the time of lingering.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.idle.front().is_some_and(|(left, _)| now - *left >= self.linger) {
            self.let_go();
        }
        self.waiting.retain(|waiting| !waiting.reply.is_closed());
    }

    /// The source listens to `filters` from `sequence` on. Returns those that somebody has been
    /// listening to without being heard.
    pub(super) fn begin(&mut self, filters: &[Filter], sequence: u64) -> Vec<Filter> {
        let mut begun = Vec::new();
        for filter in filters {
            let Some(asked) = self.asked.get_mut(filter).filter(|asked| !asked.live) else {
                continue;
            };
            asked.live = true;
            asked.since = Some(sequence);
            if asked.occupied {
                begun.push(filter.clone());
            }
        }
        self.answer();
        begun
    }

    /// The source is connected and listens to all that stands from `sequence` on.
    pub(super) fn begin_standing(&mut self, sequence: u64) {
        self.connected = true;
        self.standing_since = Some(sequence);
    }

    /// The source is away: nothing is heard.
    pub(super) fn lost(&mut self) {
        self.connected = false;
        self.asked.values_mut().for_each(|asked| asked.live = false);
        self.waiting.clear();
    }

    /// Lets go of what has been idle longest.
    fn let_go(&mut self) {
        let Some((left, filter)) = self.idle.pop_front() else { return };
        if self.asked.get(&filter).is_some_and(|asked| asked.left == Some(left)) {
            self.asked.remove(&filter);
            self.demand.drop_filter(&filter);
        }
    }

    fn answer(&mut self) {
        let asked = &self.asked;
        let heard = |filter: &Filter| asked.get(filter).is_none_or(|asked| asked.live);
        for waiting in self.waiting.extract_if(.., |waiting| waiting.filters.iter().all(heard)) {
            waiting.reply.send(()).unwrap_or_default();
        }
    }
}
