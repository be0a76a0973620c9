//! What is in proportion to all that is known, done a little in each turn.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::core::Core;
use crate::event::Channel;

/// Channels that are looked at beside each opening: the source waits for all of them.
const LOOKS: usize = 64;

/// What is still to be done.
#[derive(Default)]
pub(super) struct Chores {
    /// What is too old now has to go.
    expiring: Option<Instant>,
    /// Drops that are to be told.
    due: Vec<Channel>,
    /// Who asks for what is listened to; how much of it has not been looked at; what was found.
    asking: Option<(oneshot::Sender<Vec<Channel>>, usize, Vec<Channel>)>,
}

impl Core {
    /// Tells `reply`, in a few turns, the channels that somebody listens to by name and that patterns
    /// hear.
    pub(super) fn subscribed(&mut self, reply: oneshot::Sender<Vec<Channel>>) {
        self.chores.asking = Some((reply, self.interest.exact_len(), Vec::new()));
    }

    /// Lets go of what is too old, a little in each turn.
    pub(super) fn expire(&mut self, now: Instant) {
        self.coverage.look_who_is_gone();
        self.chores.expiring = Some(now);
        self.chores.due.extend(self.drops.due(now));
    }

    /// Whether there is something to do although nothing has come in.
    pub(super) fn has_work(&self) -> bool {
        let Chores { expiring, due, asking } = &self.chores;
        !self.openings.are_empty() || expiring.is_some() || !due.is_empty() || asking.is_some()
    }

    /// Does one thing of what can wait a little. Returns whether there was any.
    pub(super) fn work(&mut self) -> bool {
        self.open_one() | self.expire_one() | self.tell_one_drop() | self.look_at_some()
    }

    fn expire_one(&mut self) -> bool {
        let Some(now) = self.chores.expiring else { return false };
        let any = self.history.expire_one(now)
            | self.snapshots.expire_one(now)
            | self.coverage.expire_one(now);
        self.chores.expiring = any.then_some(now);
        true
    }

    fn tell_one_drop(&mut self) -> bool {
        let due = self.chores.due.pop();
        due.map(|channel| self.tell_drop(channel)).is_some()
    }

    /// Looks at some of the channels that somebody listens to by name, from the last to the first: what is
    /// added meanwhile stands behind, and what is removed gives its place to one that was looked at.
    fn look_at_some(&mut self) -> bool {
        let Some((_, left, found)) = &mut self.chores.asking else { return false };
        let to = (*left).min(self.interest.exact_len());
        *left = to.saturating_sub(LOOKS);
        let channels = (*left..to).filter_map(|place| self.interest.exact_at(place));
        found.extend(channels.filter(|channel| self.coverage.is_matched(channel)).cloned());
        if *left == 0
            && let Some((reply, _, found)) = self.chores.asking.take()
        {
            reply.send(found).unwrap_or_default();
        }
        true
    }
}
