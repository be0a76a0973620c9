//! Finds what belongs to a channel, exact names and patterns alike, without looking at the rest.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::event::{Channel, ChannelPattern, Filter};

/// A map from filters to `T` that answers which entries a channel matches.
///
/// Patterns are found by their literal prefix: one look-up per distinct prefix *length* that is not
/// longer than the channel's name, however many patterns there are.
#[derive(Debug)]
pub(super) struct Topics<T> {
    exact: HashMap<Channel, T>,
    patterns: HashMap<Box<str>, Vec<(ChannelPattern, T)>>,
    prefix_lengths: BTreeMap<usize, usize>,
    pattern_count: usize,
}

impl<T> Default for Topics<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            patterns: HashMap::new(),
            prefix_lengths: BTreeMap::new(),
            pattern_count: 0,
        }
    }
}

impl<T: Default> Topics<T> {
    /// The entry of `filter`, new if there was none.
    pub(super) fn entry(&mut self, filter: &Filter) -> &mut T {
        match filter {
            Filter::Exact(channel) => self.exact.entry(channel.clone()).or_default(),
            Filter::Pattern(pattern) => self.pattern_entry(pattern),
        }
    }

    fn pattern_entry(&mut self, pattern: &ChannelPattern) -> &mut T {
        let group = self.patterns.entry(pattern.prefix().into()).or_insert_with(|| {
            *self.prefix_lengths.entry(pattern.prefix().len()).or_default() += 1;
            Vec::new()
        });
        let index = group.iter().position(|(known, _)| known == pattern).unwrap_or(group.len());
        if index == group.len() {
            group.push((pattern.clone(), T::default()));
            self.pattern_count += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "pushed above if it was not there")]
        &mut group[index].1
    }
}

impl<T> Topics<T> {
    /// The entry of exactly this filter.
    pub(super) fn get_mut(&mut self, filter: &Filter) -> Option<&mut T> {
        match filter {
            Filter::Exact(channel) => self.exact.get_mut(channel),
            Filter::Pattern(pattern) => self
                .patterns
                .get_mut(pattern.prefix())?
                .iter_mut()
                .find_map(|(known, entry)| (known == pattern).then_some(entry)),
        }
    }

    /// Forgets the entry of `filter`.
    pub(super) fn remove(&mut self, filter: &Filter) -> Option<T> {
        let pattern = match filter {
            Filter::Exact(channel) => return self.exact.remove(channel),
            Filter::Pattern(pattern) => pattern,
        };
        let prefix = pattern.prefix();
        let group = self.patterns.get_mut(prefix)?;
        let index = group.iter().position(|(known, _)| known == pattern)?;
        let (_, entry) = group.swap_remove(index);
        self.pattern_count -= 1;
        if group.is_empty() {
            self.patterns.remove(prefix);
            if let Some(count) = self.prefix_lengths.get_mut(&prefix.len()) {
                *count -= 1;
                if *count == 0 {
                    self.prefix_lengths.remove(&prefix.len());
                }
            }
        }
        Some(entry)
    }

    /// Every entry whose filter lets `channel` pass.
    pub(super) fn matching<'a>(&'a self, channel: &'a Channel) -> impl Iterator<Item = &'a T> {
        let name = channel.as_str();
        let exact = self.exact.get(channel);
        let patterns = self
            .prefix_lengths
            .range(..=name.len())
            .filter_map(|(&length, _)| self.patterns.get(name.get(..length)?))
            .flatten()
            .filter(|(pattern, _)| pattern.matches(channel))
            .map(|(_, entry)| entry);
        exact.into_iter().chain(patterns)
    }

    /// How many filters have an entry.
    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.pattern_count
    }

    /// Every filter with its entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Filter, &T)> {
        let exact =
            self.exact.iter().map(|(channel, entry)| (Filter::Exact(channel.clone()), entry));
        let patterns = self.patterns.values().flatten();
        exact.chain(patterns.map(|(pattern, entry)| (Filter::Pattern(pattern.clone()), entry)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the definition: every filter is asked.
        #[test]
        fn finds_what_matches(
            filters in prop::collection::btree_set("[ab:*]{1,4}", 0..12),
            removed in prop::collection::vec("[ab:*]{1,4}", 0..4),
            name in "[ab:]{1,5}",
        ) {
            // Several stars in a row are one.
            let one = |text: &String| Filter::parse(text).unwrap().as_str().to_owned();
            let filters: std::collections::BTreeSet<_> = filters.iter().map(one).collect();
            let removed: Vec<_> = removed.iter().map(one).collect();
            let mut topics = Topics::<String>::default();
            for filter in &filters {
                *topics.entry(&Filter::parse(filter).unwrap()) = filter.clone();
            }
            for filter in &removed {
                topics.remove(&Filter::parse(filter).unwrap());
            }
            let channel = Channel::new(&name).unwrap();
            let mut found: Vec<_> = topics.matching(&channel).cloned().collect();
            found.sort();
            let expected: Vec<_> = filters.iter()
                .filter(|f| !removed.contains(f) && Filter::parse(f).unwrap().matches(&channel))
                .cloned().collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(topics.len(), topics.iter().count());
        }
    }
}
