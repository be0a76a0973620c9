//! From when on the node hears a channel completely: the ground on which a position is honoured.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::{Asker, Demand, Ticket};
use super::idle::{Idle, Left};
use super::shares::Shares;
use crate::event::{Channel, ChannelPattern, Filter};

pub(super) struct Coverage {
    standing: Vec<Standing>,
    standing_since: Option<u64>,
    /// What the source listens to because somebody asked. Half a million may be: no hash table, which
    /// would now and then be built anew while everybody waits.
    asked: BTreeMap<Channel, Asked>,
    /// The same channels, by who asked.
    shares: Shares<Channel>,
    /// Those that nobody listens to or waits for.
    idle: Idle,
    waiting: HashMap<u64, Waiting>,
    /// Those who went away while they waited.
    gone: Vec<Answered>,
    linger: Lingering,
    demand: Demand,
    /// How often the source has been connected.
    connections: u64,
    connected: bool,
    /// The number of the last ticket, and of the last that waits.
    last: u64,
}

/// What the source listens to at all times.
struct Standing {
    pattern: ChannelPattern,
    /// The broker does not allow it.
    refused: bool,
}

/// Somebody listens to it, or waits for it, or it is idle.
struct Asked {
    ticket: Ticket,
    /// For whom it counts.
    by: Asker,
    /// Everything after this sequence was heard.
    since: Option<u64>,
    /// Since which connection of the source it is listened to; 0: never.
    live_in: u64,
    /// Whether somebody listens.
    occupied: bool,
    /// Those that wait until it is listened to.
    waiting: BTreeSet<u64>,
    /// Since when it is idle.
    left: Option<Left>,
}

/// How long an idle channel is kept whatever their number: whoever has waited for it arrives in a
/// moment.
pub(super) const ARRIVING: Duration = Duration::from_secs(3);

/// How many channels are listened to because somebody asks, and how long when nobody does any more.
#[derive(Debug, Clone, Copy)]
pub struct Lingering {
    /// How long.
    pub time: Duration,
    /// How many of which nobody wants any more.
    pub channels: usize,
    /// How many in all.
    pub demand: usize,
}

/// Somebody who waits until the source listens.
struct Waiting {
    filters: Arc<[Filter]>,
    /// How many of them are not listened to yet.
    missing: usize,
    reply: Reply,
}

/// Who is told that the source listens, and what cannot be had.
pub(super) type Reply = oneshot::Sender<Covered>;

/// What has become of the wish that the source listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Covered {
    /// Channels about which a key may know more than the hub.
    pub unheard: Vec<Channel>,
    /// What the broker does not allow.
    pub refused: Vec<Filter>,
}

/// Somebody who no longer waits, because the source listens, cannot, or is away.
pub(super) struct Answered {
    number: u64,
    pub(super) filters: Arc<[Filter]>,
    /// What the broker does not allow.
    pub(super) refused: Vec<Filter>,
    pub(super) reply: Reply,
}

/// Whom channels that cannot be had any more concern.
#[derive(Default)]
pub(super) struct GaveWay {
    /// Channels that somebody listens to.
    pub(super) occupied: Vec<Filter>,
    /// Those who waited for one.
    pub(super) answered: Vec<Answered>,
}

impl Waiting {
    fn answered(self, number: u64) -> Answered {
        let Self { filters, reply, .. } = self;
        Answered { number, filters, refused: Vec::new(), reply }
    }
}

impl Coverage {
    pub(super) fn new(standing: Vec<ChannelPattern>, linger: Lingering, demand: Demand) -> Self {
        let standing = standing.into_iter().map(|pattern| Standing { pattern, refused: false });
        Self {
            standing: standing.collect(),
            standing_since: None,
            asked: BTreeMap::new(),
            shares: Shares::default(),
            idle: Idle::default(),
            waiting: HashMap::new(),
            gone: Vec::new(),
            linger,
            demand,
            connections: 0,
            connected: false,
            last: 0,
        }
    }

    /// Whether a standing subscription hears everything of `filter`.
    pub(super) fn stands(&self, filter: &Filter) -> bool {
        self.standing.iter().any(|standing| !standing.refused && standing.pattern.covers(filter))
    }

    /// Whether everything of `channel` is heard now.
    pub(super) fn hears(&self, channel: &Channel) -> bool {
        let is_live = |asked: &Asked| asked.live_in == self.connections;
        self.is_matched(channel) || self.asked.get(channel).is_some_and(is_live)
    }

    /// The patterns that are heard.
    pub(super) fn heard(&self) -> Arc<[ChannelPattern]> {
        let heard = self.standing.iter().filter(|standing| !standing.refused);
        heard.map(|standing| standing.pattern.clone()).collect()
    }

    /// Whether a standing subscription hears `channel`.
    pub(super) fn is_matched(&self, channel: &Channel) -> bool {
        self.standing.iter().any(|standing| !standing.refused && standing.pattern.matches(channel))
    }

    /// Whether the source cannot listen to `filter`: to patterns that do not stand, that is. A
    /// channel it may be allowed to listen to.
    pub(super) fn is_refused(&self, filter: &Filter) -> bool {
        filter.pattern().is_some() && !self.stands(filter)
    }

    /// The sequence after which everything of `filter` was heard, up to now or to the loss of the
    /// source; `None` if it never was.
    pub(super) fn since(&self, filter: &Filter) -> Option<u64> {
        if self.stands(filter) {
            return self.standing_since;
        }
        self.asked.get(filter.exact()?).and_then(|asked| asked.since)
    }

    /// The same of a channel.
    pub(super) fn channel_since(&self, channel: &Channel) -> Option<u64> {
        if self.is_matched(channel) {
            return self.standing_since;
        }
        self.asked.get(channel).and_then(|asked| asked.since)
    }

    /// Whether everything of `filter` after `sequence` was heard.
    pub(super) fn unbroken(&self, filter: &Filter, sequence: u64) -> bool {
        self.since(filter).is_some_and(|since| since <= sequence)
    }

    /// Sees to it that there is room for what `filters` name: idle channels give way, and then those of
    /// whoever has most, as long as that is not `by`, with these. Also returned: a channel for which there
    /// is no room; then only idle ones gave way.
    pub(super) fn make_room(
        &mut self,
        filters: &[Filter],
        by: Asker,
        now: Instant,
    ) -> (GaveWay, Option<Filter>) {
        let mut gave_way = GaveWay::default();
        if self.asked.len() + filters.len() <= self.linger.demand {
            return (gave_way, None);
        }
        let is_new = |filter: &&Filter| {
            let is_new = |channel| !self.asked.contains_key(channel) && !self.is_matched(channel);
            filter.exact().is_some_and(is_new)
        };
        let new: Vec<_> = filters.iter().filter(is_new).collect();
        let mut over = (self.asked.len() + new.len()).saturating_sub(self.linger.demand);
        while over > 0
            && let Some((_, channel)) =
                self.idle.oldest_of_most().filter(|(left, _)| now - *left >= ARRIVING)
        {
            self.let_go(&channel.clone());
            over -= 1;
        }
        let left_to_most = self.shares.most().saturating_sub(over);
        if over > 0 && self.shares.count(by) + new.len() > left_to_most {
            return (gave_way, new.last().map(|&filter| filter.clone()));
        }
        for _ in 0..over {
            let Some(channel) = self.shares.of_most().cloned() else { break };
            self.turn_out(&channel, &mut gave_way);
            self.demand.remove(channel);
        }
        (gave_way, None)
    }

    /// Asks the source for what does not stand. Nothing comes of it if the source is away: nobody
    /// waits for a broker. Returned when there is nothing to wait for: `reply`.
    pub(super) fn want(
        &mut self,
        filters: &Arc<[Filter]>,
        by: Asker,
        now: Instant,
        reply: Reply,
    ) -> Option<Answered> {
        let (number, connections, connected) = (self.number(), self.connections, self.connected);
        let mut missing = 0;
        for channel in filters.iter().filter_map(Filter::exact) {
            let is_new = !self.asked.contains_key(channel);
            let Some(asked) = self.ask(channel, by) else { continue };
            if connected && asked.live_in < connections {
                let ticket = asked.ticket;
                asked.waiting.insert(number);
                let left = asked.left.take();
                missing += 1;
                self.wake(left);
                if !is_new {
                    // It is not to wait for the turn of whoever asked before.
                    self.demand.add_asker(channel, ticket, by);
                }
            } else {
                self.rest(channel, now);
            }
        }
        let waiting = Waiting { filters: Arc::clone(filters), missing, reply };
        self.let_go_of_surplus(now);
        if missing == 0 {
            return Some(waiting.answered(number));
        }
        self.waiting.insert(number, waiting);
        None
    }

    /// Somebody listens to `filter`.
    pub(super) fn occupy(&mut self, filter: &Filter, by: Asker) {
        let Some(channel) = filter.exact() else { return };
        if let Some(asked) = self.ask(channel, by) {
            asked.occupied = true;
            let left = asked.left.take();
            self.wake(left);
        }
    }

    /// Nobody listens to `filter` any more.
    pub(super) fn vacate(&mut self, filter: &Filter, now: Instant) {
        let Some(channel) = filter.exact() else { return };
        if let Some(asked) = self.asked.get_mut(channel) {
            asked.occupied = false;
            self.rest(channel, now);
            self.let_go_of_surplus(now);
        }
    }

    /// Looks who has gone away while they waited, for [`Coverage::expire_one`].
    pub(super) fn look_who_is_gone(&mut self) {
        let gone = self.waiting.extract_if(|_, waiting| waiting.reply.is_closed());
        self.gone.extend(gone.map(|(number, waiting)| waiting.answered(number)));
    }

    /// Lets go of somebody who has gone away while they waited, or of a channel that nobody has listened
    /// to for the time of lingering; `false` if there is none.
    pub(super) fn expire_one(&mut self, now: Instant) -> bool {
        if let Some(gone) = self.gone.pop() {
            self.leave(&gone, now);
            return true;
        }
        let time = self.linger.time.max(ARRIVING);
        let due = self.idle.oldest().filter(|(left, _)| now - *left >= time);
        let due = due.map(|(_, channel)| channel.clone());
        due.map(|channel| self.let_go(&channel)).is_some() || self.let_go_of_surplus(now)
    }

    /// Somebody waits no longer.
    pub(super) fn leave(&mut self, answered: &Answered, now: Instant) {
        for channel in answered.filters.iter().filter_map(Filter::exact) {
            let asked = self.asked.get_mut(channel);
            if asked.is_some_and(|asked| asked.waiting.remove(&answered.number)) {
                self.rest(channel, now);
            }
        }
    }

    /// The source listens to these channels from `sequence` on. Returns those that somebody has been
    /// listening to without being heard, and those who need to wait no longer.
    pub(super) fn begin(
        &mut self,
        channels: &[(Channel, Ticket)],
        sequence: u64,
        now: Instant,
    ) -> (Vec<Filter>, Vec<Answered>) {
        let (mut begun, mut answered) = (Vec::new(), Vec::new());
        for (channel, ticket) in channels {
            let connections = self.connections;
            let asked = self.asked.get_mut(channel).filter(|asked| asked.ticket == *ticket);
            let Some(asked) = asked.filter(|asked| asked.live_in < connections) else { continue };
            asked.live_in = connections;
            asked.since = Some(sequence);
            if asked.occupied {
                begun.push(Filter::Exact(channel.clone()));
            }
            let waiting = std::mem::take(&mut asked.waiting);
            answered.extend(waiting.into_iter().filter_map(|number| self.one_less(number)));
            self.rest(channel, now);
        }
        (begun, answered)
    }

    /// The broker does not allow these channels.
    pub(super) fn refuse(&mut self, channels: &[(Channel, Ticket)]) -> GaveWay {
        let mut gave_way = GaveWay::default();
        for (channel, ticket) in channels {
            if self.asked.get(channel).is_some_and(|asked| asked.ticket == *ticket) {
                self.turn_out(channel, &mut gave_way);
            }
        }
        gave_way
    }

    /// Nobody gets what is asked of `channel`.
    fn turn_out(&mut self, channel: &Channel, gave_way: &mut GaveWay) {
        let Some(asked) = self.forget(channel) else { return };
        let filter = Filter::Exact(channel.clone());
        for number in asked.waiting {
            let Some(waiting) = self.waiting.remove(&number) else { continue };
            let refused = vec![filter.clone()];
            gave_way.answered.push(Answered { refused, ..waiting.answered(number) });
        }
        gave_way.occupied.extend(asked.occupied.then_some(filter));
    }

    /// The source is connected and listens from `sequence` on to all that stands but `refused`.
    /// Returns whether other patterns are refused than before.
    pub(super) fn begin_standing(&mut self, sequence: u64, refused: &[ChannelPattern]) -> bool {
        self.connected = true;
        self.connections += 1;
        self.standing_since = Some(sequence);
        let mut changed = false;
        for standing in &mut self.standing {
            let is_refused = refused.contains(&standing.pattern);
            changed |= is_refused != standing.refused;
            standing.refused = is_refused;
        }
        if changed {
            self.leave_to_patterns();
        }
        changed
    }

    /// The source is away: nothing is heard. Returns those who waited for it.
    pub(super) fn lost(&mut self) -> Vec<Answered> {
        self.connected = false;
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        waiting.map(|(number, waiting)| waiting.answered(number)).collect()
    }

    /// The demand for `channel`, new if there was none; `None` if a pattern hears it anyway.
    fn ask(&mut self, channel: &Channel, by: Asker) -> Option<&mut Asked> {
        if self.is_matched(channel) {
            return None;
        }
        if !self.asked.contains_key(channel) {
            let ticket = self.number();
            self.demand.add(channel.clone(), ticket, by);
            let asked = Asked {
                ticket,
                by,
                since: None,
                live_in: 0,
                occupied: false,
                waiting: BTreeSet::new(),
                left: None,
            };
            self.shares.insert(by, channel.clone());
            self.asked.insert(channel.clone(), asked);
        }
        let asked = self.asked.get_mut(channel)?;
        // It counts for whoever asks for less, so that nobody loses it because of somebody greedy.
        if asked.by != by && self.shares.count(by) < self.shares.count(asked.by) {
            self.shares.remove(asked.by, channel);
            self.shares.insert(by, channel.clone());
            asked.by = by;
        }
        Some(asked)
    }

    /// Has the channel be idle from now on, unless somebody listens to it or waits for it. That of one
    /// that is idle already begins anew when half of its time has passed.
    fn rest(&mut self, channel: &Channel, now: Instant) {
        let Some(asked) = self.asked.get_mut(channel) else { return };
        let is_fresh = asked.left.is_some_and(|(left, _)| now - left <= self.linger.time / 2);
        if !asked.occupied && asked.waiting.is_empty() && !is_fresh {
            if let Some(left) = asked.left {
                self.idle.remove(left);
            }
            asked.left = Some(self.idle.insert(channel.clone(), asked.by, now));
        }
    }

    /// What was left then is idle no more.
    fn wake(&mut self, left: Option<Left>) {
        if let Some(left) = left {
            self.idle.remove(left);
        }
    }

    fn forget(&mut self, channel: &Channel) -> Option<Asked> {
        let asked = self.asked.remove(channel)?;
        self.shares.remove(asked.by, channel);
        self.wake(asked.left);
        Some(asked)
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn one_less(&mut self, number: u64) -> Option<Answered> {
        let waiting = self.waiting.get_mut(&number)?;
        waiting.missing -= 1;
        if waiting.missing > 0 {
            return None;
        }
        self.waiting.remove(&number).map(|waiting| waiting.answered(number))
    }

    /// Of idle channels only so many are kept: that of whoever has left most, and of these the one that
    /// was left first, goes. Returns whether one went.
    fn let_go_of_surplus(&mut self, now: Instant) -> bool {
        if self.idle.len() <= self.linger.channels {
            return false;
        }
        let due = self.idle.oldest_of_most().filter(|(left, _)| now - *left >= ARRIVING);
        let due = due.map(|(_, channel)| channel.clone());
        due.map(|channel| self.let_go(&channel)).is_some()
    }

    fn let_go(&mut self, channel: &Channel) {
        self.forget(channel);
        self.demand.remove(channel.clone());
    }

    /// Channels that patterns hear now need no subscription of their own.
    fn leave_to_patterns(&mut self) {
        let matched = self.asked.keys().filter(|channel| self.is_matched(channel));
        for channel in matched.cloned().collect::<Vec<_>>() {
            self.let_go(&channel);
        }
    }
}
