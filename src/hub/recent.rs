//! Channels in the order in which they were published to last, and by name: so that what is newest is
//! found without looking at the rest, and so is what is called alike.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::event::{Channel, ChannelPattern};

/// A map from channels to `T` that knows which of them was touched last.
#[derive(Debug)]
pub(super) struct Recent<T> {
    /// One for the channels of each pattern that is heard at all times, a channel in the first that
    /// matches, and at the end one for the rest. Clients ask for such patterns, and each finds its own
    /// channels without those of others in between.
    groups: Vec<Group<T>>,
    /// How often a channel was touched so far.
    touches: u64,
}

/// Trees and no hash tables: those would now and then be built anew while everybody waits.
#[derive(Debug)]
struct Group<T> {
    /// `None`: whatever matches no pattern.
    pattern: Option<ChannelPattern>,
    /// Each with the number of its touch.
    by_name: BTreeMap<Channel, (u64, T)>,
    by_touch: BTreeMap<u64, Channel>,
}

impl<T> Recent<T> {
    /// `standing`: what is heard at all times.
    pub(super) fn new(standing: &[ChannelPattern]) -> Self {
        let patterns = standing.iter().cloned().map(Some).chain([None]);
        let group =
            |pattern| Group { pattern, by_name: BTreeMap::new(), by_touch: BTreeMap::new() };
        Self { groups: patterns.map(group).collect(), touches: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.by_name.len()).sum()
    }

    pub(super) fn contains(&self, channel: &Channel) -> bool {
        self.get(channel).is_some()
    }

    pub(super) fn get(&self, channel: &Channel) -> Option<&T> {
        let group = self.groups.iter().find(|group| group.is_for(channel))?;
        group.by_name.get(channel).map(|(_, entry)| entry)
    }

    /// The entry of `channel`, which is the newest from here on. `new`: what it is if there was none.
    pub(super) fn touch(&mut self, channel: &Channel, new: impl FnOnce() -> T) -> Option<&mut T> {
        self.touches += 1;
        let group = self.groups.iter_mut().find(|group| group.is_for(channel))?;
        let (touch, entry) = group.by_name.entry(channel.clone()).or_insert_with(|| (0, new()));
        let known = group.by_touch.remove(touch);
        group.by_touch.insert(self.touches, known.unwrap_or_else(|| channel.clone()));
        *touch = self.touches;
        Some(entry)
    }

    /// The channel that was touched longest ago.
    pub(super) fn oldest(&self) -> Option<(&Channel, &T)> {
        let group = self.groups.iter().filter(|group| !group.by_touch.is_empty());
        let group = group.min_by_key(|group| group.by_touch.first_key_value().map(|(n, _)| *n))?;
        let (_, channel) = group.by_touch.first_key_value()?;
        group.by_name.get(channel).map(|(_, entry)| (channel, entry))
    }

    pub(super) fn pop_oldest(&mut self) -> Option<(Channel, T)> {
        let group = self.groups.iter_mut().filter(|group| !group.by_touch.is_empty());
        let group = group.min_by_key(|group| group.by_touch.first_key_value().map(|(n, _)| *n))?;
        let (_, channel) = group.by_touch.pop_first()?;
        group.by_name.remove(&channel).map(|(_, entry)| (channel, entry))
    }

    /// Those that `pattern` may match, and others of the same groups, the newest first.
    pub(super) fn newest_first<'a>(
        &'a self,
        pattern: &'a ChannelPattern,
    ) -> impl Iterator<Item = (&'a Channel, &'a T)> {
        let groups = self.overlapping(pattern);
        let mut rest: Vec<_> =
            groups.map(|group| (group, group.by_touch.iter().rev().peekable())).collect();
        std::iter::from_fn(move || {
            let numbers = rest.iter_mut().map(|(_, touched)| touched.peek().map(|(n, _)| **n));
            let (newest, _) = numbers.enumerate().max_by_key(|(_, touch)| *touch)?;
            let (group, touched) = rest.get_mut(newest)?;
            let (_, channel) = touched.next()?;
            group.by_name.get(channel).map(|(_, entry)| (channel, entry))
        })
    }

    /// Those that `pattern` matches, by name in each group.
    pub(super) fn named<'a>(
        &'a self,
        pattern: &'a ChannelPattern,
    ) -> impl Iterator<Item = (&'a Channel, &'a T)> {
        let prefix = pattern.prefix();
        let alike = self.overlapping(pattern).flat_map(move |group| {
            let from = group.by_name.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
            from.take_while(move |(name, _)| name.as_str().starts_with(prefix))
        });
        let matching = alike.filter(|(name, _)| pattern.matches(name));
        matching.map(|(name, (_, entry))| (name, entry))
    }

    /// How many `pattern` matches; no more than `most` are counted, unless that costs nothing.
    pub(super) fn count(&self, pattern: &ChannelPattern, most: usize) -> usize {
        let is_within =
            |group: &Group<T>| group.pattern.as_ref().is_some_and(|own| pattern.contains(own));
        if self.overlapping(pattern).all(is_within) {
            return self.overlapping(pattern).map(|group| group.by_name.len()).sum();
        }
        self.named(pattern).take(most).count()
    }

    /// The groups that may hold a channel that `pattern` matches.
    fn overlapping<'a>(
        &'a self,
        pattern: &'a ChannelPattern,
    ) -> impl Iterator<Item = &'a Group<T>> {
        let mut own = self.groups.iter().filter_map(|group| group.pattern.as_ref());
        let stands = own.any(|own| own.contains(pattern));
        let (prefix, groups) = (pattern.prefix(), self.groups.iter());
        groups.filter(move |group| match &group.pattern {
            Some(own) if own.prefix() == own.as_str() => pattern.matches_name(own.as_str()),
            Some(own) => own.prefix().starts_with(prefix) || prefix.starts_with(own.prefix()),
            None => !stands,
        })
    }
}

impl<T> Group<T> {
    fn is_for(&self, channel: &Channel) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(channel))
    }
}
