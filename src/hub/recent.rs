//! Channels in the order in which they were published to last, and by name: so that what is newest is
//! found without looking at the rest, and so is what is called alike.

use std::collections::BTreeSet;
use std::ops::Bound;

use hashlink::LinkedHashMap;

use crate::event::{Channel, ChannelPattern};

/// A map from channels to `T` that knows which of them was touched last.
#[derive(Debug)]
pub(super) struct Recent<T> {
    /// One for the channels of each pattern that is heard at all times, a channel in the first that
    /// matches, and at the end one for the rest. Clients ask for such patterns, and each finds its own
    /// channels without those of others in between.
    groups: Vec<Group<T>>,
    names: BTreeSet<Channel>,
    /// How often a channel was touched so far.
    touches: u64,
}

#[derive(Debug)]
struct Group<T> {
    /// `None`: whatever matches no pattern.
    pattern: Option<ChannelPattern>,
    /// The one touched longest ago first, each with the number of its touch.
    channels: LinkedHashMap<Channel, (u64, T)>,
}

impl<T> Recent<T> {
    /// `standing`: what is heard at all times.
    pub(super) fn new(standing: &[ChannelPattern]) -> Self {
        let patterns = standing.iter().cloned().map(Some).chain([None]);
        let group = |pattern| Group { pattern, channels: LinkedHashMap::new() };
        Self { groups: patterns.map(group).collect(), names: BTreeSet::new(), touches: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn contains(&self, channel: &Channel) -> bool {
        self.get(channel).is_some()
    }

    pub(super) fn get(&self, channel: &Channel) -> Option<&T> {
        let group = self.groups.iter().find(|group| group.is_for(channel))?;
        group.channels.get(channel).map(|(_, entry)| entry)
    }

    /// The entry of `channel`, which is the newest from here on. `new`: what it is if there was none.
    pub(super) fn touch(&mut self, channel: &Channel, new: impl FnOnce() -> T) -> Option<&mut T> {
        self.touches += 1;
        let group = self.groups.iter_mut().find(|group| group.is_for(channel))?;
        if !group.channels.contains_key(channel) {
            group.channels.insert(channel.clone(), (0, new()));
            self.names.insert(channel.clone());
        }
        let (touch, entry) = group.channels.to_back(channel)?;
        *touch = self.touches;
        Some(entry)
    }

    /// The channel that was touched longest ago.
    pub(super) fn oldest(&self) -> Option<(&Channel, &T)> {
        let (_, channel, entry) = self.fronts().min_by_key(|(touch, ..)| *touch)?;
        Some((channel, entry))
    }

    pub(super) fn pop_oldest(&mut self) -> Option<(Channel, T)> {
        let fronts = self.groups.iter_mut().filter(|group| !group.channels.is_empty());
        let touch = |group: &&mut Group<T>| group.channels.front().map(|(_, (touch, _))| *touch);
        let (channel, (_, entry)) = fronts.min_by_key(touch)?.channels.pop_front()?;
        self.names.remove(&channel);
        Some((channel, entry))
    }

    /// Those that `pattern` may match, and others of the same groups, the newest first.
    pub(super) fn newest_first<'a>(
        &'a self,
        pattern: &'a ChannelPattern,
    ) -> impl Iterator<Item = (&'a Channel, &'a T)> {
        let groups = self.overlapping(pattern);
        let mut rest: Vec<_> = groups.map(|group| group.channels.iter().rev().peekable()).collect();
        std::iter::from_fn(move || {
            let touches = rest.iter_mut().map(|group| group.peek().map(|(_, (touch, _))| *touch));
            let (newest, _) = touches.enumerate().max_by_key(|(_, touch)| *touch)?;
            rest.get_mut(newest)?.next().map(|(channel, (_, entry))| (channel, entry))
        })
    }

    /// Those that `pattern` matches, by name.
    pub(super) fn named<'a>(
        &'a self,
        pattern: &'a ChannelPattern,
    ) -> impl Iterator<Item = (&'a Channel, &'a T)> {
        let prefix = pattern.prefix();
        let alike = self.names.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let alike = alike.take_while(move |name| name.as_str().starts_with(prefix));
        alike.filter(|name| pattern.matches(name)).filter_map(|name| Some((name, self.get(name)?)))
    }

    /// How many `pattern` matches; no more than `most` are counted, unless that costs nothing.
    pub(super) fn count(&self, pattern: &ChannelPattern, most: usize) -> usize {
        let is_within =
            |group: &Group<T>| group.pattern.as_ref().is_some_and(|own| pattern.contains(own));
        if self.overlapping(pattern).all(is_within) {
            return self.overlapping(pattern).map(|group| group.channels.len()).sum();
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

    fn fronts(&self) -> impl Iterator<Item = (u64, &Channel, &T)> {
        let fronts = self.groups.iter().filter_map(|group| group.channels.front());
        fronts.map(|(channel, (touch, entry))| (*touch, channel, entry))
    }
}

impl<T> Group<T> {
    fn is_for(&self, channel: &Channel) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(channel))
    }
}
