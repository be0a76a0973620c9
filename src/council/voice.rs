//! How a run is heard: its words go out through the source's publisher, in their order.
//!
//! While the source is away nothing is published and nothing waits here: what was said stands on the
//! board, and is told again as a whole when the source is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::event::{Channel, Payload};
use crate::source::{Publication, PublishError, Publisher};

pub(super) struct Voice {
    publisher: Arc<dyn Publisher>,
    channel: Channel,
    /// Whether something was not published, or may not have been heard.
    is_behind: AtomicBool,
}

impl Voice {
    pub(super) fn new(publisher: Arc<dyn Publisher>, channel: Channel) -> Self {
        Self { publisher, channel, is_behind: AtomicBool::new(false) }
    }

    /// Says `words` together. What cannot be said is left to [`Voice::say_again`].
    pub(super) async fn say(&self, words: impl IntoIterator<Item = Option<Payload>>) {
        if !self.is_behind() {
            self.publish(words.into_iter().flatten().collect()).await;
        }
    }

    /// Says everything from the beginning; from now on words go out again.
    pub(super) async fn say_again(&self, everything: Vec<Option<Payload>>) {
        self.is_behind.store(false, Ordering::Relaxed);
        self.publish(everything.into_iter().flatten().collect()).await;
    }

    /// What was said last may not have been heard.
    pub(super) fn fall_behind(&self) {
        self.is_behind.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Says the first word, which tells that the run is this node's. `false`: another one has said
    /// it before.
    ///
    /// # Errors
    /// When the source is away.
    pub(super) async fn claim(&self, word: Option<Payload>) -> Result<bool, PublishError> {
        const FIRST: &str = "first";
        let word = word.map(|payload| self.publication(payload, Some(FIRST.to_owned())));
        Ok(self.publisher.publish(word.into_iter().collect()).await? == 0)
    }

    async fn publish(&self, words: Vec<Payload>) {
        if words.is_empty() {
            return;
        }
        let words = words.into_iter().map(|payload| self.publication(payload, None));
        if let Err(error) = self.publisher.publish(words.collect()).await {
            tracing::debug!(channel = %self.channel, %error, "a run is not heard for now");
            self.fall_behind();
        }
    }

    fn publication(&self, payload: Payload, id: Option<String>) -> Publication {
        Publication { channel: self.channel.clone(), payload, id }
    }
}
