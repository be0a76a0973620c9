//! Which exact channels are subscribed to, which are wanted, and which command comes next.
//!
//! ```text
//!            SUBSCRIBE            confirmed
//!      Off ────────────► Asked ─────────────► On
//!       ▲                                      │
//!       └───────────── Leaving ◄───────────────┘
//!         confirmed               UNSUBSCRIBE
//! ```
//!
//! A channel is the object of a command only when it is off or on, so that at most one confirmation
//! of it is under way and none can be taken for another. Who changes their mind meanwhile is served
//! one step later. No I/O.

use std::collections::{BTreeMap, VecDeque};

use super::turns::Turns;
use crate::event::Channel;
use crate::hub::{Asker, Change, NOBODY, Ticket};

/// Channels in one command: few enough for its confirmations to stay far below the 32 MB at which
/// Redis cuts a subscriber, and for the messages of others to come in between.
pub(super) const AT_ONCE: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    channels: BTreeMap<Channel, Subscription>,
    /// Those to subscribe to. Here as in the other queues, a channel may stand that no longer needs
    /// to.
    new: Turns<Channel>,
    /// Those to subscribe to again after the connection was lost.
    again: VecDeque<Channel>,
    /// Those to unsubscribe from.
    unwanted: VecDeque<Channel>,
    /// Which queue is next.
    turn: usize,
}

#[derive(Debug)]
struct Subscription {
    wanted: Option<Ticket>,
    /// Who asked first.
    by: Option<Asker>,
    state: State,
    /// Whether it was on before the connection was lost.
    was_on: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Asked,
    On,
    Leaving,
}

/// Wanted, and not subscribed to.
const OFF: (State, bool) = (State::Off, true);

/// A command to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Subscribe(Vec<Channel>),
    Unsubscribe(Vec<Channel>),
}

/// A channel that is heard from now on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) channel: Channel,
    pub(super) ticket: Ticket,
    /// Whether it was heard before the connection was lost.
    pub(super) again: bool,
}

impl Subscriptions {
    /// The connection is gone, and every subscription with it.
    pub(super) fn lost(&mut self) {
        self.new.clear();
        self.again.clear();
        self.unwanted.clear();
        self.channels.retain(|channel, subscription| {
            subscription.was_on |= matches!(subscription.state, State::On | State::Leaving);
            subscription.state = State::Off;
            if subscription.wanted.is_some() {
                self.again.push_back(channel.clone());
            }
            subscription.wanted.is_some()
        });
    }

    /// What is wanted has changed. Returns the channels that are heard already: what is heard of them
    /// from now on is all there is.
    pub(super) fn follow(&mut self, changes: BTreeMap<Channel, Change>) -> Vec<Live> {
        let mut live = Vec::new();
        for (channel, Change { wanted, by, .. }) in changes {
            let subscription = self.channels.entry(channel.clone()).or_insert(Subscription {
                wanted,
                by: None,
                state: State::Off,
                was_on: false,
            });
            subscription.wanted = wanted;
            subscription.by = by.first().copied().or(subscription.by);
            match (subscription.state, wanted) {
                (State::Off, Some(_)) => {
                    by.into_iter().for_each(|by| self.new.push(by, channel.clone()));
                }
                (State::Off, None) => drop(self.channels.remove(&channel)),
                (State::On, Some(ticket)) => live.push(Live { channel, ticket, again: false }),
                (State::On, None) => self.unwanted.push_back(channel),
                (State::Asked | State::Leaving, _) => {}
            }
        }
        live
    }

    /// The next command. To be asked when the one before has been answered. New channels, those of
    /// before the loss and those that are not wanted any more take turns.
    pub(super) fn next(&mut self) -> Option<Step> {
        for _ in 0..3 {
            self.turn = (self.turn + 1) % 3;
            let step = match self.turn {
                0 => Step::Subscribe(self.take(|all| Some(all.new.pop()?.1), OFF, State::Asked)),
                1 => Step::Subscribe(self.take(|all| all.again.pop_front(), OFF, State::Asked)),
                _ => {
                    let on = (State::On, false);
                    Step::Unsubscribe(self.take(|all| all.unwanted.pop_front(), on, State::Leaving))
                }
            };
            match &step {
                Step::Subscribe(channels) | Step::Unsubscribe(channels) if channels.is_empty() => {}
                _ => return Some(step),
            }
        }
        None
    }

    /// Takes channels from a queue that are still in the state and as wanted as `from` says.
    fn take(
        &mut self,
        next: fn(&mut Self) -> Option<Channel>,
        from: (State, bool),
        to: State,
    ) -> Vec<Channel> {
        let mut taken = Vec::new();
        while taken.len() < AT_ONCE
            && let Some(channel) = next(self)
        {
            let subscription = self.channels.get_mut(&channel);
            if let Some(subscription) =
                subscription.filter(|known| (known.state, known.wanted.is_some()) == from)
            {
                subscription.state = to;
                taken.push(channel);
            }
        }
        taken
    }

    /// Redis has confirmed these subscriptions, and all that was heard before has been handed on.
    /// Returns those that somebody wants.
    pub(super) fn subscribed(&mut self, channels: Vec<Channel>) -> Vec<Live> {
        let mut live = Vec::new();
        for channel in channels {
            let subscription = self.channels.get_mut(&channel);
            let Some(subscription) = subscription.filter(|known| known.state == State::Asked)
            else {
                continue;
            };
            subscription.state = State::On;
            let again = std::mem::take(&mut subscription.was_on);
            match subscription.wanted {
                Some(ticket) => live.push(Live { channel, ticket, again }),
                None => self.unwanted.push_back(channel),
            }
        }
        live
    }

    /// Redis does not allow these. Returns those that somebody wants: they are not asked for again
    /// until somebody wants them anew.
    pub(super) fn refused(&mut self, channels: Vec<Channel>) -> Vec<(Channel, Ticket)> {
        let mut refused = Vec::new();
        for channel in channels {
            let wanted = self.channels.remove(&channel).and_then(|known| known.wanted);
            refused.extend(wanted.map(|ticket| (channel, ticket)));
        }
        refused
    }

    /// Redis has confirmed that these are left.
    pub(super) fn unsubscribed(&mut self, channels: Vec<Channel>) {
        for channel in channels {
            let Some(subscription) = self.channels.get_mut(&channel) else { continue };
            subscription.state = State::Off;
            if subscription.wanted.is_some() {
                let by = subscription.by.unwrap_or(NOBODY);
                self.new.push(by, channel);
            } else {
                self.channels.remove(&channel);
            }
        }
    }
}

#[cfg(test)]
mod tests;
