//! What subscribers want that no standing subscription of the source covers.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::event::Channel;

/// Tells one demand for a channel from a later one for the same: what the source answers to a
/// demand that has been withdrawn meanwhile is not taken for an answer to the next.
pub type Ticket = u64;

/// The wishes of the hub, read by the source. Clones share them.
///
/// It holds the last change of each channel that the source has not taken yet, so it is never longer
/// than the hub has topics. Only subscribing touches it, never an event.
#[derive(Debug, Clone, Default)]
pub struct Demand(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    changes: Mutex<HashMap<Channel, Change>>,
    changed: Notify,
}

#[derive(Debug)]
struct Change {
    wanted: Option<Ticket>,
    /// Whether the source has taken a demand for the channel before: then it has to hear of the end.
    is_known: bool,
}

impl Demand {
    pub(super) fn add(&self, channel: Channel, ticket: Ticket) {
        let mut changes = self.0.changes.lock();
        let new = Change { wanted: None, is_known: false };
        changes.entry(channel).or_insert(new).wanted = Some(ticket);
        self.0.changed.notify_one();
    }

    /// What was added and not taken is forgotten, so nothing grows while nobody takes it.
    pub(super) fn remove(&self, channel: Channel) {
        let mut changes = self.0.changes.lock();
        if changes.get(&channel).is_some_and(|change| !change.is_known) {
            changes.remove(&channel);
        } else {
            changes.insert(channel, Change { wanted: None, is_known: true });
            self.0.changed.notify_one();
        }
    }

    /// Resolves when there are changes to take.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// What has changed since the last call: channels that are wanted, each with its ticket, and
    /// those that no longer are.
    pub fn changes(&self) -> HashMap<Channel, Option<Ticket>> {
        let changes = std::mem::take(&mut *self.0.changes.lock());
        changes.into_iter().map(|(channel, change)| (channel, change.wanted)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_each_channel_the_last_change_counts() {
        let demand = Demand::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| Channel::new(name).unwrap());
        demand.add(a.clone(), 1);
        demand.changed().await;
        assert_eq!(demand.changes(), HashMap::from([(a.clone(), Some(1))]));
        demand.remove(a.clone());
        demand.add(b.clone(), 2);
        demand.remove(b.clone());
        demand.add(b.clone(), 3);
        demand.add(c.clone(), 4);
        demand.remove(c);
        demand.changed().await;
        assert_eq!(demand.changes(), HashMap::from([(a.clone(), None), (b.clone(), Some(3))]));
        assert_eq!(demand.changes(), HashMap::new());
        // Known, taken back, wanted again and taken back again.
        demand.remove(b.clone());
        demand.add(b.clone(), 5);
        demand.remove(b.clone());
        assert_eq!(demand.changes(), HashMap::from([(b, None)]));
    }
}
