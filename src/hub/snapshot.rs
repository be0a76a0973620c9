//! The last event of each channel, for those who come late.
//!
//! Bounded in bytes and age; the channels that have been silent longest go first, so a million
//! finished jobs do not stay.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::known::{Known, Last};
use super::latest::Latest;
use super::recent::Recent;
use super::rule::ChannelRule;
use crate::event::{Channel, ChannelPattern, Event, Filter, Made};

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotBounds {
    /// Bytes of all channels together.
    pub bytes: usize,
    /// Age of a channel's last event.
    pub age: Duration,
    /// Bytes of one client's snapshot of all that its patterns match.
    pub pattern_bytes: usize,
    /// Things told apart in one channel; the oldest gives way.
    pub keys: usize,
}

#[derive(Debug)]
pub(super) struct Snapshots {
    bounds: SnapshotBounds,
    rules: Arc<[ChannelRule]>,
    channels: Recent<Latest>,
    bytes: usize,
}

/// Channels that patterns match in one client's snapshot, at most.
const MOST_CHANNELS: usize = if cfg!(test) { 4 } else { 4096 };
/// Channels that are looked at for one pattern, at most.
const MOST_LOOKED_AT: usize = 16_384;

impl Snapshots {
    /// `standing`: what is heard at all times.
    pub(super) fn new(
        bounds: SnapshotBounds,
        rules: Arc<[ChannelRule]>,
        standing: &[ChannelPattern],
    ) -> Self {
        Self { bounds, rules, channels: Recent::new(standing), bytes: 0 }
    }

    /// The newest event of a channel, whatever its key.
    pub(super) fn newest(&self, channel: &Channel) -> Option<&Arc<Event>> {
        self.channels.get(channel)?.newest()
    }

    /// Keeps `event` in place of the last one.
    pub(super) fn push(&mut self, event: &Arc<Event>) {
        if self.bounds.bytes == 0 {
            return;
        }
        let new = || Latest::new(&event.channel, &self.rules);
        let Some(latest) = self.channels.touch(&event.channel, new) else { return };
        let change = latest.take_in(event, &self.rules, self.bounds.keys);
        self.bytes = self.bytes + change.added - change.gone;
        while self.bytes > self.bounds.bytes && self.forget_oldest() {}
    }

    /// Lets go of a channel that has been silent for longer than the age; `false` if there is none.
    pub(super) fn expire_one(&mut self, now: Instant) -> bool {
        let oldest = self.channels.oldest();
        oldest.is_some_and(|(_, latest)| latest.age(now) > self.bounds.age) && self.forget_oldest()
    }

    /// Whether a stream of `channel` may end, and has not as far as is known.
    pub(super) fn may_end(&self, channel: &Channel) -> bool {
        self.channels.get(channel).is_some_and(|latest| latest.may_end(&self.rules))
    }

    /// When the last report of `channel` was made.
    pub(super) fn last_report(&self, channel: &Channel) -> Made {
        self.channels.get(channel).map_or(Made::Unsaid, |latest| latest.reported)
    }

    /// What is known last of the channels that `filters` let pass.
    pub(super) fn of(&self, filters: &[Filter]) -> Known {
        let mut known = Known::default();
        known.last = self.exactly(filters);
        let exact = filters.iter().filter_map(Filter::exact);
        let has_forgotten = |channel: &&Channel| {
            self.channels.get(channel).is_some_and(|latest| latest.has_forgotten)
        };
        known.forgotten = exact.filter(has_forgotten).cloned().collect();
        let mut room = Room { channels: MOST_CHANNELS, bytes: self.bounds.pattern_bytes };
        for pattern in filters.iter().filter_map(Filter::pattern) {
            self.matched(pattern, &mut room, &mut known);
        }
        known.last.sort_by_key(|last| last.event.position.sequence);
        known.last.dedup_by_key(|last| last.event.position.sequence);
        known
    }

    /// What is known last of the channels that `filters` name.
    pub(super) fn exactly(&self, filters: &[Filter]) -> Vec<Last> {
        let named = filters.iter().filter_map(Filter::exact);
        let known = named.filter_map(|channel| self.channels.get(channel));
        known.flat_map(Latest::last).collect()
    }

    /// The newest of those that `pattern` matches, as far as there is room. Looks at the newest of all
    /// that may match, and no further than [`MOST_LOOKED_AT`]: at names alone if they are few.
    fn matched(&self, pattern: &ChannelPattern, room: &mut Room, known: &mut Known) {
        let all = self.channels.count(pattern, MOST_LOOKED_AT);
        let mut taken = 0;
        let mut take = |(channel, latest): (&Channel, &Latest)| {
            let fits = room.take(latest.weight());
            if fits {
                known.last.extend(latest.last());
                known.forgotten.extend(latest.has_forgotten.then(|| channel.clone()));
                taken += 1;
            }
            fits
        };
        if all <= MOST_CHANNELS {
            let mut few: Vec<_> = self.channels.named(pattern).collect();
            few.sort_by_key(|(_, latest)| std::cmp::Reverse(latest.sequence()));
            few.into_iter().all(&mut take);
        } else {
            let newest = self.channels.newest_first(pattern).take(MOST_LOOKED_AT);
            newest.filter(|(channel, _)| pattern.matches(channel)).all(&mut take);
        }
        known.truncated += all.saturating_sub(taken);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, latest)) = self.channels.pop_oldest() else { return false };
        self.bytes -= latest.weight();
        true
    }
}

/// The room for what patterns match.
struct Room {
    channels: usize,
    bytes: usize,
}

impl Room {
    /// Takes the room for one channel, if there is any left. The first has room however large.
    fn take(&mut self, weight: usize) -> bool {
        let is_first = self.channels == MOST_CHANNELS;
        let fits = self.channels > 0 && (is_first || weight <= self.bytes);
        self.channels -= usize::from(fits);
        self.bytes = if fits { self.bytes.saturating_sub(weight) } else { 0 };
        fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Epoch, Payload};

    fn event(sequence: u64, name: &str, payload: &str) -> Arc<Event> {
        let payload = Payload::parse(payload.as_bytes(), 1000).unwrap();
        Arc::new(Event::new(Channel::new(name).unwrap(), payload, Epoch::random().at(sequence)))
    }

    fn sequences(last: &[Last]) -> Vec<u64> {
        last.iter().map(|last| last.event.position.sequence).collect()
    }

    fn with_rule(channels: &str, key: Option<&str>, text: Option<&str>) -> Snapshots {
        let rule = ChannelRule {
            channels: ChannelPattern::new(channels).unwrap(),
            history: None,
            key: key.map(str::to_owned),
            text: text.map(str::to_owned),
            shape: None,
        };
        let bounds = SnapshotBounds {
            bytes: usize::MAX,
            age: Duration::MAX,
            pattern_bytes: usize::MAX,
            keys: 256,
        };
        Snapshots::new(bounds, Arc::from([rule]), &[])
    }

    #[test]
    fn all_of_a_text_and_the_last_that_is_none() {
        let mut snapshots = with_rule("run:*", Some("m"), Some("t"));
        let said = [
            r#"{"m":"a","t":""}"#,
            r#"{"m":"b","t":""}"#,
            r#"{"m":"a","t":"x "}"#,
            r#"{"m":"b","t":"u"}"#,
            r#"{"m":"a","t":"y"}"#,
            r#"{"m":"a","done":true}"#,
            r#"{"m":"a","done":true,"score":1}"#,
        ];
        for (payload, n) in said.iter().zip(1..) {
            snapshots.push(&event(n, "run:1", payload));
        }
        let told = snapshots.of(&[Filter::parse("run:1").unwrap()]).last;
        assert_eq!(sequences(&told), [1, 2, 4, 5, 7]);
        let texts: Vec<_> = told.iter().map(|last| last.event.payload.as_str()).collect();
        assert_eq!(texts[2..4], [r#"{"m":"b","t":"u"}"#, r#"{"m":"a","t":"x y"}"#]);
        assert_eq!(snapshots.newest(&told[0].event.channel).unwrap().position.sequence, 7);
        while snapshots.forget_oldest() {}
        assert_eq!(snapshots.bytes(), 0);
    }

    #[test]
    fn the_last_of_each_key() {
        let mut snapshots = with_rule("ab:*", Some("variantId"), None);
        for (n, variant) in [(1, "A"), (2, "B"), (3, "A")] {
            snapshots.push(&event(n, "ab:1", &format!(r#"{{"variantId":"{variant}"}}"#)));
        }
        snapshots.push(&event(4, "other:1", r#"{"variantId":"A"}"#));
        snapshots.push(&event(5, "other:1", r#"{"variantId":"B"}"#));
        assert_eq!(sequences(&snapshots.of(&[Filter::parse("ab:1").unwrap()]).last), [2, 3]);
        assert_eq!(sequences(&snapshots.of(&[Filter::parse("*").unwrap()]).last), [2, 3, 5]);
    }

    proptest! {
        /// Against a plain list of everything ever said.
        #[test]
        fn a_pattern_tells_the_newest_and_says_how_many_it_leaves_out(
            names in prop::collection::vec("[ab]:[xyz][12]?", 1..60),
            patterns in prop::collection::vec("[ab]?:?\\*|b:x\\*", 1..3),
            exact in prop::collection::vec("[ab]:[xyz]", 0..3),
            channels in 1_usize..20,
            room in 1_usize..8,
        ) {
            let one = event(1, "a:x1", "1").weight();
            let standing = ["a:*", "b:x*", "b:z", "b:*"].map(|text| ChannelPattern::new(text).unwrap());
            let bounds = SnapshotBounds {
                bytes: channels * one,
                age: Duration::MAX,
                pattern_bytes: room * one,
                keys: 1,
            };
            let mut snapshots = Snapshots::new(bounds, Arc::from([]), &standing);
            let mut model: Vec<(String, u64, usize)> = Vec::new();
            for (name, n) in names.iter().zip(1..) {
                let event = event(n, name, "1");
                model.retain(|(known, ..)| known != name);
                model.push((name.clone(), n, event.weight()));
                snapshots.push(&event);
                while model.iter().map(|(.., weight)| weight).sum::<usize>() > channels * one {
                    model.remove(0);
                }
            }
            prop_assert_eq!(snapshots.channels(), model.len());
            let filters = patterns.iter().chain(&exact).map(|text| Filter::parse(text).unwrap());
            let filters: Vec<_> = filters.collect();
            let known = snapshots.of(&filters);

            let (mut expected, mut truncated) = (Vec::new(), 0);
            let (mut left, mut bytes) = (MOST_CHANNELS, room * one);
            for pattern in filters.iter().filter_map(Filter::pattern) {
                let matching = model.iter().rev();
                let matching = matching.filter(|(n, ..)| pattern.matches(&Channel::new(n).unwrap()));
                for (_, n, weight) in matching {
                    if left > 0 && (left == MOST_CHANNELS || *weight <= bytes) {
                        left -= 1;
                        bytes = bytes.saturating_sub(*weight);
                        expected.push(*n);
                    } else {
                        bytes = 0;
                        truncated += 1;
                    }
                }
            }
            expected.extend(model.iter().filter(|(name, ..)| exact.contains(name)).map(|(_, n, _)| n));
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(sequences(&known.last), expected);
            prop_assert_eq!(known.truncated, truncated);
        }
    }

    #[test]
    fn things_that_are_let_go_of_are_not_forgotten_in_silence() {
        let mut snapshots = with_rule("ab:*", Some("variantId"), None);
        snapshots.bounds.keys = 2;
        for (n, variant) in [(1, "A"), (2, "B"), (3, "C")] {
            snapshots.push(&event(n, "ab:1", &format!(r#"{{"variantId":"{variant}"}}"#)));
        }
        for filter in ["ab:1", "ab:*"] {
            let known = snapshots.of(&[Filter::parse(filter).unwrap()]);
            assert_eq!(sequences(&known.last), [2, 3]);
            assert_eq!(known.forgotten, [Channel::new("ab:1").unwrap()], "{filter}");
        }
    }

    #[test]
    fn bytes_are_bounded_and_returned() {
        let one = event(1, "job:0000", "1").weight();
        let bounds = SnapshotBounds {
            bytes: 10 * one,
            age: Duration::MAX,
            pattern_bytes: usize::MAX,
            keys: 256,
        };
        let mut snapshots = Snapshots::new(bounds, Arc::from([]), &[]);
        for n in 1..=1000 {
            snapshots.push(&event(n, &format!("job:{:04}", n % 100), "1"));
        }
        assert_eq!((snapshots.channels(), snapshots.bytes()), (10, 10 * one));
        while snapshots.forget_oldest() {}
        assert_eq!(snapshots.bytes(), 0);
    }
}
