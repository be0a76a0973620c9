//! What subscribers want that no standing subscription of the source covers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::event::Channel;

/// Tells one demand for a channel from a later one for the same: what the source answers to a
/// demand that has been withdrawn meanwhile is not taken for an answer to the next.
pub type Ticket = u64;

/// Who asks for a channel: all that comes from one network is one.
pub type Asker = IpAddr;

/// Whoever asks where nobody knows.
pub const NOBODY: Asker = Asker::V4(Ipv4Addr::UNSPECIFIED);

/// Askers of one channel that wait for it each in its own turn, at most.
const ASKERS: usize = 8;

/// The wishes of the hub, read by the source. Clones share them.
///
/// It holds the last change of each channel that the source has not taken yet, so it is never longer
/// than the hub has topics. Only subscribing touches it, never an event.
#[derive(Debug, Clone, Default)]
pub struct Demand(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    changes: Mutex<BTreeMap<Channel, Change>>,
    changed: Notify,
}

/// A channel is wanted, or no longer.
#[derive(Debug)]
pub struct Change {
    /// The ticket of the demand; `None`: nobody wants it any more.
    pub wanted: Option<Ticket>,
    /// Those who wait for it.
    pub by: SmallVec<[Asker; 1]>,
    /// Whether the source has taken a demand for the channel before: then it has to hear of the end.
    is_known: bool,
}

impl Demand {
    pub(super) fn add(&self, channel: Channel, ticket: Ticket, by: Asker) {
        let mut changes = self.0.changes.lock();
        let new = Change { wanted: None, by: SmallVec::new(), is_known: false };
        let change = changes.entry(channel).or_insert(new);
        change.wanted = Some(ticket);
        if change.by.len() < ASKERS && !change.by.contains(&by) {
            change.by.push(by);
        }
        self.0.changed.notify_one();
    }

    /// Somebody else waits for what was added before, which the source may have taken.
    pub(super) fn add_asker(&self, channel: &Channel, ticket: Ticket, by: Asker) {
        self.add(channel.clone(), ticket, by);
        if let Some(change) = self.0.changes.lock().get_mut(channel) {
            change.is_known = true;
        }
    }

    /// What was added and not taken is forgotten, so nothing grows while nobody takes it.
    pub(super) fn remove(&self, channel: Channel) {
        let mut changes = self.0.changes.lock();
        if changes.get(&channel).is_some_and(|change| !change.is_known) {
            changes.remove(&channel);
        } else {
            changes.insert(channel, Change { wanted: None, by: SmallVec::new(), is_known: true });
            self.0.changed.notify_one();
        }
    }

    /// Resolves when there are changes to take.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// What has changed since the last call: channels that are wanted, each with its ticket, and
    /// those that no longer are.
    pub fn changes(&self) -> BTreeMap<Channel, Change> {
        std::mem::take(&mut *self.0.changes.lock())
    }

    /// The same without those who wait.
    #[cfg(test)]
    pub(crate) fn tickets(&self) -> std::collections::HashMap<Channel, Option<Ticket>> {
        self.changes().into_iter().map(|(channel, change)| (channel, change.wanted)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const ASKER: Asker = Asker::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn of_each_channel_the_last_change_counts() {
        let demand = Demand::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| Channel::new(name).unwrap());
        demand.add(a.clone(), 1, ASKER);
        demand.changed().await;
        assert_eq!(demand.tickets(), HashMap::from([(a.clone(), Some(1))]));
        demand.remove(a.clone());
        demand.add(b.clone(), 2, ASKER);
        demand.remove(b.clone());
        demand.add(b.clone(), 3, ASKER);
        demand.add(c.clone(), 4, ASKER);
        demand.remove(c);
        demand.changed().await;
        assert_eq!(demand.tickets(), HashMap::from([(a.clone(), None), (b.clone(), Some(3))]));
        assert_eq!(demand.tickets(), HashMap::new());
        // Known, taken back, wanted again and taken back again.
        demand.remove(b.clone());
        demand.add(b.clone(), 5, ASKER);
        demand.remove(b.clone());
        assert_eq!(demand.tickets(), HashMap::from([(b, None)]));
    }
}
