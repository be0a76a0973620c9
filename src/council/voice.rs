//! How a run is heard: its words go out through the source's publisher, in their order.
//!
//! While the source is away nothing is published and nothing waits here: what was said stands on the
//! board, and is told again as a whole when the source is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::event::{Channel, Payload};
use crate::source::{Publication, PublishError, Publisher};

pub(super) struct Voice {
    publisher: Arc<dyn Publisher>,
    channel: Channel,
    /// How often the source has been connected: what was said before the last time may not have
    /// been heard.
    connections: watch::Receiver<u64>,
    /// How often it had been when everything was said last.
    heard_since: AtomicU64,
    /// Whether something was not published.
    is_behind: AtomicBool,
}

/// How long to wait until what could not be said is tried again.
const AGAIN: Duration = Duration::from_millis(500);

impl Voice {
    pub(super) fn new(
        publisher: Arc<dyn Publisher>,
        channel: Channel,
        connections: watch::Receiver<u64>,
    ) -> Self {
        let heard_since = AtomicU64::new(*connections.borrow());
        Self { publisher, channel, connections, heard_since, is_behind: AtomicBool::new(false) }
    }

    /// Resolves when everything has to be said again: the source was away, or a while after
    /// something could not be said.
    pub(super) async fn lags(&self) {
        let heard_since = self.heard_since.load(Ordering::Relaxed);
        let mut connections = self.connections.clone();
        let reconnected = async {
            connections.wait_for(|connections| *connections != heard_since).await.map(drop)
        };
        tokio::select! {
            Ok(()) = reconnected => {}
            () = sleep(AGAIN), if self.is_behind.load(Ordering::Relaxed) => {}
            // The source is gone for good.
            else => std::future::pending().await,
        }
    }

    /// Says `words` together. What cannot be said is left to [`Voice::say_again`].
    pub(super) async fn say(&self, words: impl IntoIterator<Item = Option<Payload>>) {
        if !self.is_behind.load(Ordering::Relaxed) {
            self.publish(words.into_iter().flatten().collect()).await;
        }
    }

    /// Says everything from the beginning; from now on words go out again.
    pub(super) async fn say_again(&self, everything: Vec<Option<Payload>>) {
        self.heard_since.store(*self.connections.borrow(), Ordering::Relaxed);
        self.is_behind.store(false, Ordering::Relaxed);
        self.publish(everything.into_iter().flatten().collect()).await;
    }

    /// Says the first word, which tells that the run is this node's. `false`: another one has said
    /// it before.
    ///
    /// # Errors
    /// When the source is away.
    pub(super) async fn claim(&self, word: Option<Payload>) -> Result<bool, PublishError> {
        const FIRST: &str = "first";
        let word = word.map(|payload| self.publication(payload, Some(FIRST.to_owned())));
        self.publisher.ready().await;
        match self.publisher.publish(word.into_iter().collect()).await {
            Ok(known) => Ok(known == 0),
            // In other words, for no two say the first word at the same time.
            Err(PublishError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn publish(&self, words: Vec<Payload>) {
        if words.is_empty() {
            return;
        }
        let words = words.into_iter().map(|payload| self.publication(payload, None));
        if let Err(error) = self.publisher.publish(words.collect()).await {
            tracing::debug!(channel = %self.channel, %error, "a run is not heard for now");
            self.is_behind.store(true, Ordering::Relaxed);
        }
    }

    fn publication(&self, payload: Payload, id: Option<String>) -> Publication {
        Publication { channel: self.channel.clone(), payload, id }
    }
}
