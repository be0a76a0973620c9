//! What each asker has, and who has most.

use std::collections::{BTreeSet, HashMap};

use super::demand::Asker;

#[derive(Debug)]
pub(super) struct Shares<T> {
    own: HashMap<Asker, BTreeSet<T>>,
    /// How many things each has; the one with most last.
    most: BTreeSet<(usize, Asker)>,
}

impl<T> Default for Shares<T> {
    fn default() -> Self {
        Self { own: HashMap::new(), most: BTreeSet::new() }
    }
}

impl<T: Ord> Shares<T> {
    pub(super) fn insert(&mut self, by: Asker, thing: T) {
        self.change(by, |own| own.insert(thing));
    }

    pub(super) fn remove(&mut self, by: Asker, thing: &T) {
        self.change(by, |own| own.remove(thing));
    }

    /// The first thing of who has most.
    pub(super) fn of_most(&self) -> Option<&T> {
        let (_, by) = self.most.last()?;
        self.own.get(by)?.first()
    }

    /// How many things who has most has.
    pub(super) fn most(&self) -> usize {
        self.most.last().map_or(0, |(count, _)| *count)
    }

    /// How many things `by` has.
    pub(super) fn count(&self, by: Asker) -> usize {
        self.own.get(&by).map_or(0, BTreeSet::len)
    }

    fn change(&mut self, by: Asker, change: impl FnOnce(&mut BTreeSet<T>) -> bool) {
        let own = self.own.entry(by).or_default();
        self.most.remove(&(own.len(), by));
        change(own);
        if own.is_empty() {
            self.own.remove(&by);
        } else {
            self.most.insert((own.len(), by));
        }
    }
}
