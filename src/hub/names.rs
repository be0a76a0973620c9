//! Channels by name, so that a pattern finds those that start like it without looking at the rest.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::event::{Channel, ChannelPattern};

#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<Channel>);

impl Names {
    pub(super) fn insert(&mut self, channel: Channel) {
        self.0.insert(channel);
    }

    pub(super) fn remove(&mut self, channel: &Channel) {
        self.0.remove(channel);
    }

    pub(super) fn matching<'a>(
        &'a self,
        pattern: &'a ChannelPattern,
    ) -> impl Iterator<Item = &'a Channel> {
        let prefix = pattern.prefix();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let alike = self.0.range::<str, _>(from);
        alike
            .take_while(move |name| name.as_str().starts_with(prefix))
            .filter(|name| pattern.matches(name))
    }
}
