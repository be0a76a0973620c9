//! Patterns in a radix tree of their prefixes, so that those that match a name are found on one way down
//! the tree, however many there are.

use std::iter::successors;

use crate::event::{Channel, ChannelPattern};

/// A map from patterns to `T`.
#[derive(Debug)]
pub(super) struct Patterns<T> {
    root: Node<T>,
    len: usize,
}

/// A place in the tree. What leads to it is the prefix of its patterns: all of a pattern before its
/// first `*`.
#[derive(Debug)]
struct Node<T> {
    /// The part of the prefix that the nodes above do not have.
    label: Box<[u8]>,
    /// More than one only if a pattern has a `*` that is not its end.
    patterns: Vec<(ChannelPattern, T)>,
    /// Ordered by the first byte of their labels; no two begin alike.
    below: Vec<Self>,
    /// The most patterns on a way down from here, those of this node included.
    height: usize,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { root: Node::new(&[]), len: 0 }
    }
}

impl<T> Patterns<T> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get_mut(&mut self, pattern: &ChannelPattern) -> Option<&mut T> {
        let mut rest = pattern.prefix().as_bytes();
        let mut node = &mut self.root;
        while let Some(first) = rest.first() {
            let index = node.place(*first).ok()?;
            node = node.below.get_mut(index)?;
            rest = rest.strip_prefix(&*node.label)?;
        }
        node.patterns.iter_mut().find_map(|(known, entry)| (known == pattern).then_some(entry))
    }

    pub(super) fn insert(&mut self, pattern: ChannelPattern, entry: T) {
        self.len += 1;
        let prefix = pattern.prefix().to_owned();
        self.root.insert(prefix.as_bytes(), (pattern, entry));
    }

    pub(super) fn remove(&mut self, pattern: &ChannelPattern) -> Option<T> {
        let removed = self.root.remove(pattern.prefix().as_bytes(), pattern);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Every entry whose pattern `channel` matches.
    pub(super) fn matching<'a>(&'a self, channel: &'a Channel) -> impl Iterator<Item = &'a T> {
        let begin = Some((&self.root, channel.as_str().as_bytes()));
        successors(begin, |(node, rest)| node.next(rest))
            .flat_map(|(node, _)| &node.patterns)
            .filter(|(pattern, _)| pattern.matches(channel))
            .map(|(_, entry)| entry)
    }

    /// How many patterns there would be, at most, whose prefixes one name begins with, if `pattern` was
    /// among them and was not there.
    pub(super) fn chain(&self, pattern: &ChannelPattern) -> usize {
        let mut rest = pattern.prefix().as_bytes();
        let mut node = &self.root;
        let mut above = 1;
        while let Some(first) = rest.first() {
            above += node.patterns.len();
            let Some(next) = node.place(*first).ok().and_then(|index| node.below.get(index)) else {
                return above;
            };
            match rest.strip_prefix(&*next.label) {
                Some(further) => (node, rest) = (next, further),
                None if next.label.starts_with(rest) => return above + next.height,
                None => return above,
            }
        }
        above + node.height
    }

    /// Every pattern with its entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ChannelPattern, &T)> {
        let mut left = vec![&self.root];
        let nodes = std::iter::from_fn(move || {
            let node = left.pop()?;
            left.extend(&node.below);
            Some(node)
        });
        nodes.flat_map(|node| node.patterns.iter().map(|(pattern, entry)| (pattern, entry)))
    }
}

impl<T> Node<T> {
    fn new(label: &[u8]) -> Self {
        Self { label: label.into(), patterns: Vec::new(), below: Vec::new(), height: 0 }
    }

    /// Where the node stands, or would, whose label begins with `first`.
    fn place(&self, first: u8) -> Result<usize, usize> {
        self.below.binary_search_by_key(&Some(first), |node| node.label.first().copied())
    }

    /// The next on the way down to a name, and what is left of the name there.
    fn next<'a, 'b>(&'a self, rest: &'b [u8]) -> Option<(&'a Self, &'b [u8])> {
        let index = self.place(*rest.first()?).ok()?;
        let next = self.below.get(index)?;
        Some((next, rest.strip_prefix(&*next.label)?))
    }

    fn insert(&mut self, rest: &[u8], entry: (ChannelPattern, T)) {
        if let Some(first) = rest.first() {
            let index = match self.place(*first) {
                Ok(index) => index,
                Err(index) => {
                    self.below.insert(index, Self::new(rest));
                    index
                }
            };
            if let Some(next) = self.below.get_mut(index) {
                let common = next.label.iter().zip(rest).take_while(|(own, other)| own == other);
                let common = common.count();
                next.split(common);
                next.insert(rest.get(common..).unwrap_or_default(), entry);
            }
        } else {
            self.patterns.push(entry);
        }
        self.measure();
    }

    /// Lets what stands behind the first bytes of the label be a node of its own.
    fn split(&mut self, at: usize) {
        let (head, tail) = self.label.split_at(at);
        if tail.is_empty() {
            return;
        }
        let (head, tail) = (Self::new(head), tail.into());
        let mut behind = std::mem::replace(self, head);
        behind.label = tail;
        self.below.push(behind);
    }

    fn remove(&mut self, rest: &[u8], pattern: &ChannelPattern) -> Option<T> {
        let removed = if let Some(first) = rest.first() {
            let index = self.place(*first).ok()?;
            let next = self.below.get_mut(index)?;
            let removed = next.remove(rest.strip_prefix(&*next.label)?, pattern)?;
            next.join();
            if next.height == 0 {
                self.below.remove(index);
            }
            removed
        } else {
            let index = self.patterns.iter().position(|(known, _)| known == pattern)?;
            self.patterns.swap_remove(index).1
        };
        self.measure();
        Some(removed)
    }

    /// Becomes one with what is below, if nothing else is here.
    fn join(&mut self) {
        if self.patterns.is_empty()
            && self.below.len() == 1
            && let Some(below) = self.below.pop()
        {
            let label = [&*self.label, &*below.label].concat().into();
            *self = Self { label, ..below };
        }
    }

    fn measure(&mut self) {
        let below = self.below.iter().map(|node| node.height).max().unwrap_or(0);
        self.height = self.patterns.len() + below;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> ChannelPattern {
        ChannelPattern::new(text).unwrap()
    }

    proptest! {
        /// Against the definition: all patterns are looked at.
        #[test]
        fn says_what_a_list_would_say(
            changes in prop::collection::vec((any::<bool>(), "[ab]{0,5}\\*[ab]{0,1}"), 0..40),
            asked in "[ab]{0,5}\\*",
            name in "[ab]{1,6}",
        ) {
            let mut patterns = Patterns::default();
            let mut list = BTreeSet::new();
            for (insert, text) in changes {
                let changed = pattern(&text);
                if insert && list.insert(text.clone()) {
                    patterns.insert(changed, text);
                } else if !insert {
                    let known = list.remove(&text);
                    prop_assert_eq!(patterns.remove(&changed), known.then_some(text));
                }
            }
            prop_assert_eq!(patterns.len(), list.len());
            let all: BTreeSet<_> = patterns.iter().map(|(_, text)| text.clone()).collect();
            prop_assert_eq!(&all, &list);
            for text in &list {
                prop_assert_eq!(patterns.get_mut(&pattern(text)).cloned(), Some(text.clone()));
            }
            let name = Channel::new(&name).unwrap();
            let matching: BTreeSet<_> = patterns.matching(&name).cloned().collect();
            let expected = list.iter().filter(|text| pattern(text).matches(&name));
            prop_assert_eq!(matching, expected.cloned().collect());

            // Of all names that begin with its prefix, the one that begins with most prefixes.
            let prefix = |text: &str| text.split('*').next().unwrap().to_owned();
            let prefixes: Vec<_> = list.iter().map(|text| prefix(text)).collect();
            let begun = |name: &str| prefixes.iter().filter(|p| name.starts_with(&***p)).count();
            let own = prefix(&asked);
            let longest = prefixes.iter().filter(|p| p.starts_with(&own)).map(|p| begun(p)).max();
            prop_assert_eq!(patterns.chain(&pattern(&asked)), 1 + longest.unwrap_or_else(|| begun(&own)));
        }
    }

    #[test]
    fn nothing_is_left_of_what_is_removed() {
        let mut patterns = Patterns::default();
        let texts = ["a*", "ab*", "abc*", "abd*", "*", "x*y", "x*z"];
        for text in texts {
            patterns.insert(pattern(text), ());
        }
        assert_eq!(patterns.chain(&pattern("abcd*")), 5);
        for text in texts {
            assert_eq!(patterns.remove(&pattern(text)), Some(()));
            assert_eq!(patterns.remove(&pattern(text)), None);
        }
        assert!(patterns.root.below.is_empty());
        assert_eq!((patterns.root.height, patterns.len()), (0, 0));
    }
}
