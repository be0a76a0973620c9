//! What is special about some channels: how much of them is kept, and how they are told to those who
//! come late.

use std::sync::Arc;

use super::history::HistoryBounds;
use crate::event::{Channel, ChannelPattern, Payload, Shape};

/// A rule for the channels of a declared stream. The first that says something about a channel
/// counts.
#[derive(Debug, Clone)]
pub struct ChannelRule {
    /// The channels it is for.
    pub channels: ChannelPattern,
    /// How much history is kept, of all these channels together.
    pub history: Option<HistoryBounds>,
    /// The field that tells things apart that share a channel, such as `variantId`: each thing's
    /// last event is kept, not the channel's only.
    pub key: Option<String>,
    /// The field that holds pieces of a text: all of it is kept for those who come late, not the
    /// last piece only.
    pub text: Option<String>,
    /// The shape of the stream, if not every event of its channels is the last word: an end stands
    /// until it is contradicted, and what is not shown hides nothing.
    pub shape: Option<Arc<dyn Shape>>,
}

impl ChannelRule {
    pub(super) fn is_for(&self, channel: &Channel) -> bool {
        self.channels.matches(channel)
    }

    /// Whether it says anything.
    pub fn says_something(&self) -> bool {
        self.history.is_some() || self.shape.is_some() || self.tells_apart()
    }

    /// Whether it says how those who come late are told.
    pub(super) fn tells_apart(&self) -> bool {
        self.key.is_some() || self.text.is_some()
    }
}

/// Channels whose payloads have to be objects, because the only streams that show them show nothing
/// else.
#[derive(Debug, Clone, Default)]
pub struct ObjectChannels {
    /// The channels of such streams.
    pub objects: Vec<ChannelPattern>,
    /// Those of other streams, which show any payload.
    pub anything: Vec<ChannelPattern>,
}

impl ObjectChannels {
    /// The payload as the streams of `channel` read it; `None` if none of them can.
    pub fn read(&self, channel: &Channel, payload: Payload) -> Option<Payload> {
        let is_of = |patterns: &[ChannelPattern]| patterns.iter().any(|p| p.matches(channel));
        if payload.is_object() || !is_of(&self.objects) || is_of(&self.anything) {
            return Some(payload);
        }
        payload.object()
    }
}
