//! What subscribers want that no standing subscription of the source covers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::event::Filter;

/// The wishes of the hub, read by the source. Clones share them.
///
/// It holds each filter once, so it is never longer than the hub has topics. Only subscribing
/// touches it, never an event.
#[derive(Debug, Clone, Default)]
pub struct Demand(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    wanted: HashSet<Filter>,
    /// What was added (`true`) or dropped since the source last looked.
    changes: HashMap<Filter, bool>,
}

/// What to subscribe to and what to let go of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Newly wanted.
    pub added: Vec<Filter>,
    /// No longer wanted.
    pub dropped: Vec<Filter>,
}

impl Demand {
    pub(super) fn add(&self, filter: Filter) {
        let mut state = self.0.state.lock();
        if state.wanted.insert(filter.clone()) {
            state.changes.insert(filter, true);
            self.0.changed.notify_one();
        }
    }

    pub(super) fn drop_filter(&self, filter: &Filter) {
        let mut state = self.0.state.lock();
        if state.wanted.remove(filter) {
            state.changes.insert(filter.clone(), false);
            self.0.changed.notify_one();
        }
    }

    /// Everything wanted now, for a source that has just connected. Later [`Demand::changes`] are
    /// relative to this.
    pub fn all(&self) -> Vec<Filter> {
        let mut state = self.0.state.lock();
        state.changes.clear();
        state.wanted.iter().cloned().collect()
    }

    /// Resolves when there are changes to take.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// What has changed since the last call of this or of [`Demand::all`].
    pub fn changes(&self) -> Changes {
        let mut changes = Changes::default();
        for (filter, added) in self.0.state.lock().changes.drain() {
            if added { &mut changes.added } else { &mut changes.dropped }.push(filter);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_add_up() {
        let demand = Demand::default();
        let (a, b) = (Filter::parse("a").unwrap(), Filter::parse("b:*").unwrap());
        demand.add(a.clone());
        demand.add(b.clone());
        demand.drop_filter(&a);
        demand.changed().await;
        let changes = demand.changes();
        assert_eq!((changes.added, changes.dropped), (vec![b.clone()], vec![a]));
        assert_eq!(demand.all(), [b]);
        assert_eq!(demand.changes(), Changes::default());
    }
}
