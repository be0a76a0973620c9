//! The history of every channel: one for most of them, and one for each rule that keeps more or less.
//!
//! Each has bytes of its own, so that the long texts of some channels do not take the room of the
//! others.

use std::sync::Arc;

use tokio::time::Instant;

use super::history::{History, HistoryBounds, Missed, in_order};
use super::rule::ChannelRule;
use crate::event::{Channel, ChannelPattern, Event, Filter};

#[derive(Debug)]
pub(super) struct Histories {
    special: Vec<(ChannelPattern, History)>,
    usual: History,
}

impl Histories {
    /// `standing`: what is heard at all times.
    pub(super) fn new(
        usual: HistoryBounds,
        rules: &[ChannelRule],
        standing: &[ChannelPattern],
    ) -> Self {
        let bounded = rules.iter().filter_map(|rule| Some((rule.channels.clone(), rule.history?)));
        let special = bounded.map(|(channels, bounds)| (channels, History::new(bounds, standing)));
        Self { special: special.collect(), usual: History::new(usual, standing) }
    }

    /// Keeps `event`, and lets go of what no longer fits.
    pub(super) fn push(&mut self, event: &Arc<Event>) {
        let mut special = self.special.iter_mut();
        let special = special.find(|(channels, _)| channels.matches(&event.channel));
        special.map_or(&mut self.usual, |(_, history)| history).push(event);
    }

    /// Lets go of a channel that has been silent for too long; `false` if there is none.
    pub(super) fn expire_one(&mut self, now: Instant) -> bool {
        let mut special = self.special.iter_mut();
        special.any(|(_, history)| history.expire_one(now)) || self.usual.expire_one(now)
    }

    /// What `filters` let pass after `sequence`, in order and each once.
    pub(super) fn after(&self, sequence: u64, filters: &[Filter]) -> Missed {
        let mut all = Vec::new();
        for (history, filters) in self.each(filters) {
            match history.after(sequence, &filters) {
                Missed::Events(missed) => all.extend(missed),
                Missed::Evicted => return Missed::Evicted,
            }
        }
        in_order(&mut all);
        Missed::Events(all)
    }

    /// The newest known event of `channel` at or before `sequence`.
    pub(super) fn at_or_before(&self, sequence: u64, channel: &Channel) -> Option<&Arc<Event>> {
        let mut special = self.special.iter();
        let special = special.find(|(channels, _)| channels.matches(channel));
        special.map_or(&self.usual, |(_, history)| history).at_or_before(sequence, channel)
    }

    /// Whether an event of `channel` is kept.
    pub(super) fn holds(&self, channel: &Channel) -> bool {
        self.all().any(|history| history.holds(channel))
    }

    pub(super) fn bytes(&self) -> usize {
        self.all().map(History::bytes).sum()
    }

    pub(super) fn channels(&self) -> usize {
        self.all().map(History::channels).sum()
    }

    fn all(&self) -> impl Iterator<Item = &History> {
        self.special.iter().map(|(_, history)| history).chain([&self.usual])
    }

    /// Each history that may hold what `filters` let pass, and those that are for it. A pattern may
    /// match channels of several.
    fn each(&self, filters: &[Filter]) -> Vec<(&History, Vec<Filter>)> {
        let of = |channel: &Channel| {
            self.special.iter().position(|(channels, _)| channels.matches(channel))
        };
        let place = |filter: &Filter| filter.exact().map(of);
        let last = [None];
        let places = (0..self.special.len()).map(Some).chain(last);
        let concerned = self.special.iter().map(|(_, history)| history).chain([&self.usual]);
        let each = concerned.zip(places).map(|(history, at)| {
            let own = filters.iter().filter(|filter| place(filter).is_none_or(|place| place == at));
            (history, own.cloned().collect::<Vec<_>>())
        });
        each.filter(|(_, filters)| !filters.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{Epoch, Payload};

    fn bounds(events: usize, bytes: usize) -> HistoryBounds {
        HistoryBounds { events, channel_bytes: usize::MAX, bytes, age: Duration::MAX }
    }

    fn event(sequence: u64, name: &str) -> Arc<Event> {
        let payload = Payload::parse(b"1", 1).unwrap();
        let position = Epoch::random().at(sequence);
        Arc::new(Event::new(Channel::new(name).unwrap(), payload, position))
    }

    fn rule(channels: &str, history: HistoryBounds) -> ChannelRule {
        let channels = ChannelPattern::new(channels).unwrap();
        ChannelRule { channels, history: Some(history), key: None, text: None, shape: None }
    }

    fn missed(histories: &Histories, since: u64, filter: &str) -> Option<Vec<u64>> {
        match histories.after(since, &[Filter::parse(filter).unwrap()]) {
            Missed::Events(missed) => Some(missed.iter().map(|e| e.position.sequence).collect()),
            Missed::Evicted => None,
        }
    }

    #[test]
    fn each_rule_keeps_what_it_says_and_takes_no_room_of_others() {
        let one = event(1, "run:1").weight();
        let rules = [rule("run:*", bounds(3, 4 * one)), rule("*:x", bounds(1, 10 * one))];
        let mut histories = Histories::new(bounds(2, 2 * one), &rules, &[]);
        let names = ["run:1", "all:1", "run:1", "all:x", "run:1", "all:1", "run:x", "run:1"];
        names.iter().zip(1..).for_each(|(name, n)| histories.push(&event(n, name)));
        assert_eq!(missed(&histories, 1, "run:1"), Some(vec![3, 5, 8]));
        assert_eq!(missed(&histories, 0, "run:1"), None, "three of four are kept");
        assert_eq!(missed(&histories, 0, "all:1"), Some(vec![2, 6]), "the runs took no room of it");
        assert_eq!(missed(&histories, 6, "run:x"), Some(vec![7]), "the first rule counts");
        assert_eq!(missed(&histories, 1, "*"), Some(vec![2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(missed(&histories, 0, "*"), None);
        assert_eq!((histories.channels(), histories.bytes()), (4, 7 * one));
        let had = histories.at_or_before(6, &Channel::new("run:1").unwrap());
        assert_eq!(had.map(|event| event.position.sequence), Some(5));
    }
}
