//! Channels that nobody listens to or waits for any more, by age and by who asked for them: whoever leaves
//! most behind gives way first.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::demand::Asker;
use super::shares::Shares;
use crate::event::Channel;

/// Since when a channel is idle, with a number of its own.
pub(super) type Left = (Instant, u64);

#[derive(Debug, Default)]
pub(super) struct Idle {
    by_age: BTreeMap<Left, (Asker, Channel)>,
    by_asker: Shares<Left>,
    last: u64,
}

impl Idle {
    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(super) fn insert(&mut self, channel: Channel, by: Asker, now: Instant) -> Left {
        self.last += 1;
        let left = (now, self.last);
        self.by_age.insert(left, (by, channel));
        self.by_asker.insert(by, left);
        left
    }

    pub(super) fn remove(&mut self, left: Left) {
        if let Some((by, _)) = self.by_age.remove(&left) {
            self.by_asker.remove(by, &left);
        }
    }

    /// The channel that has been idle longest.
    pub(super) fn oldest(&self) -> Option<(Instant, &Channel)> {
        self.by_age.first_key_value().map(|((since, _), (_, channel))| (*since, channel))
    }

    /// The one that has been idle longest of those who have left most behind.
    pub(super) fn oldest_of_most(&self) -> Option<(Instant, &Channel)> {
        let left = self.by_asker.of_most()?;
        self.by_age.get(left).map(|(_, channel)| (left.0, channel))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_has_left_most_gives_way_and_the_oldest_goes_first() {
        let mut idle = Idle::default();
        let channel = |name: &str| Channel::new(name).unwrap();
        let [honest, stranger] = [1_u8, 2].map(|n| Asker::from([127, 0, 0, n]));
        let first = idle.insert(channel("honest"), honest, Instant::now());
        let mut left = Vec::new();
        for n in 0..3 {
            tokio::time::advance(Duration::from_secs(1)).await;
            left.push(idle.insert(channel(&format!("s{n}")), stranger, Instant::now()));
        }
        assert_eq!(idle.oldest().unwrap().1, &channel("honest"));
        for (n, left) in left.into_iter().enumerate().take(2) {
            assert_eq!(idle.oldest_of_most().unwrap().1, &channel(&format!("s{n}")));
            idle.remove(left);
        }
        assert_eq!(idle.len(), 2);
        idle.remove(first);
        idle.remove(first);
        assert_eq!(idle.oldest_of_most().unwrap().1, &channel("s2"));
        assert_eq!(idle.len(), 1);
    }
}
