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
    changes: Mutex<HashMap<Channel, Option<Ticket>>>,
    changed: Notify,
}

impl Demand {
    pub(super) fn add(&self, channel: Channel, ticket: Ticket) {
        self.change(channel, Some(ticket));
    }

    pub(super) fn remove(&self, channel: Channel) {
        self.change(channel, None);
    }

    fn change(&self, channel: Channel, wanted: Option<Ticket>) {
        self.0.changes.lock().insert(channel, wanted);
        self.0.changed.notify_one();
    }

    /// Resolves when there are changes to take.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// What has changed since the last call: channels that are wanted, each with its ticket, and
    /// those that no longer are.
    pub fn changes(&self) -> HashMap<Channel, Option<Ticket>> {
        std::mem::take(&mut self.0.changes.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_each_channel_the_last_change_counts() {
        let demand = Demand::default();
        let (a, b) = (Channel::new("a").unwrap(), Channel::new("b").unwrap());
        demand.add(a.clone(), 1);
        demand.add(b.clone(), 2);
        demand.remove(a.clone());
        demand.remove(b.clone());
        demand.add(b.clone(), 3);
        demand.changed().await;
        assert_eq!(demand.changes(), HashMap::from([(a, None), (b, Some(3))]));
        assert_eq!(demand.changes(), HashMap::new());
    }
}
