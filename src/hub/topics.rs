//! Finds what belongs to a channel, exact names and patterns alike, without looking at the rest.

use hashbrown::DefaultHashBuilder;
use indexmap::IndexMap;

use super::patterns::Patterns;
use crate::event::{Channel, ChannelPattern, Filter};

/// A map from filters to `T` that answers which entries a channel matches.
#[derive(Debug)]
pub(super) struct Topics<T> {
    exact: IndexMap<Channel, T, DefaultHashBuilder>,
    patterns: Patterns<T>,
}

impl<T> Default for Topics<T> {
    fn default() -> Self {
        Self { exact: IndexMap::default(), patterns: Patterns::default() }
    }
}

impl<T: Default> Topics<T> {
    /// Changes the entry of `filter`, new if there was none.
    pub(super) fn change(&mut self, filter: &Filter, change: impl FnOnce(&mut T)) {
        match filter {
            Filter::Exact(channel) => change(self.exact.entry(channel.clone()).or_default()),
            Filter::Pattern(pattern) => {
                if let Some(entry) = self.patterns.get_mut(pattern) {
                    change(entry);
                } else {
                    let mut entry = T::default();
                    change(&mut entry);
                    self.patterns.insert(pattern.clone(), entry);
                }
            }
        }
    }
}

impl<T> Topics<T> {
    /// The entry of exactly this filter.
    pub(super) fn get_mut(&mut self, filter: &Filter) -> Option<&mut T> {
        match filter {
            Filter::Exact(channel) => self.exact.get_mut(channel),
            Filter::Pattern(pattern) => self.patterns.get_mut(pattern),
        }
    }

    /// Forgets the entry of `filter`.
    pub(super) fn remove(&mut self, filter: &Filter) -> Option<T> {
        match filter {
            Filter::Exact(channel) => self.exact.swap_remove(channel),
            Filter::Pattern(pattern) => self.patterns.remove(pattern),
        }
    }

    /// Every entry whose filter lets `channel` pass.
    pub(super) fn matching<'a>(&'a self, channel: &'a Channel) -> impl Iterator<Item = &'a T> {
        let exact = self.exact.get(channel);
        exact.into_iter().chain(self.patterns.matching(channel))
    }

    /// See [`Patterns::chain`].
    pub(super) fn chain(&self, pattern: &ChannelPattern) -> usize {
        self.patterns.chain(pattern)
    }

    /// How many of the filters that have an entry are no patterns.
    pub(super) fn exact_len(&self) -> usize {
        self.exact.len()
    }

    /// One of them. When one is removed, the last takes its place.
    pub(super) fn exact_at(&self, place: usize) -> Option<&Channel> {
        self.exact.get_index(place).map(|(channel, _)| channel)
    }

    /// How many filters have an entry.
    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.patterns.len()
    }

    /// Every filter with its entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Filter, &T)> {
        let exact =
            self.exact.iter().map(|(channel, entry)| (Filter::Exact(channel.clone()), entry));
        let patterns = self.patterns.iter();
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
                topics.change(&Filter::parse(filter).unwrap(), |entry| entry.clone_from(filter));
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
