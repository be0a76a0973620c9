//! Which channels had something that was not let in, and when that was told last: at most once a
//! second for each.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Channel;

const PAUSE: Duration = Duration::from_secs(1);

/// Holds the channels of the last second or two, of those that somebody listens to or comes back to.
#[derive(Debug, Default)]
pub(super) struct Drops(HashMap<Channel, Told>);

#[derive(Debug)]
struct Told {
    at: Instant,
    /// Whether there was another since.
    again: bool,
}

impl Drops {
    /// Whether a drop is to be told now; if not, [`Drops::due`] says when.
    pub(super) fn is_due(&mut self, channel: &Channel, now: Instant) -> bool {
        match self.0.get_mut(channel) {
            Some(told) if now - told.at < PAUSE => {
                told.again = true;
                false
            }
            _ => {
                self.0.insert(channel.clone(), Told { at: now, again: false });
                true
            }
        }
    }

    /// The channels of which another drop is to be told now. Called once a second or so.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Channel> {
        let mut due = Vec::new();
        self.0.retain(|channel, told| {
            if now - told.at < PAUSE {
                return true;
            }
            let again = std::mem::replace(told, Told { at: now, again: false }).again;
            due.extend(again.then(|| channel.clone()));
            again
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_told_once_a_second_and_its_last_is_not_forgotten() {
        let (a, b) = (Channel::new("a").unwrap(), Channel::new("b").unwrap());
        let mut drops = Drops::default();
        assert!(drops.is_due(&a, Instant::now()));
        assert!(!drops.is_due(&a, Instant::now()));
        assert!(drops.is_due(&b, Instant::now()), "each channel by itself");
        assert_eq!(drops.due(Instant::now()), []);
        tokio::time::advance(PAUSE).await;
        assert_eq!(drops.due(Instant::now()), std::slice::from_ref(&a));
        assert!(!drops.is_due(&a, Instant::now()), "it was told a moment ago");
        tokio::time::advance(PAUSE).await;
        assert_eq!(drops.due(Instant::now()), std::slice::from_ref(&a));
        tokio::time::advance(PAUSE).await;
        assert_eq!(drops.due(Instant::now()), []);
        assert!(drops.0.is_empty());
        assert!(drops.is_due(&a, Instant::now()));
    }
}
