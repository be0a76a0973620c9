//! The link to Redis: what arrives on it stands in one queue, in its order.
//!
//! All subscriptions and the reading of keys share one connection, which speaks RESP3. Redis answers
//! in order: when a key has been read, every message published before it was set is in the queue
//! already. That is what lets a snapshot be told from an event that follows it.
//!
//! Publishing has a connection of its own: a transaction that publishes to its own connection gets
//! the messages mixed into its reply (Redis 7.0), and both are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, Value};
use tokio::sync::{mpsc, oneshot};

use super::{RedisSettings, SourceError};
use crate::event::Channel;

/// Items that wait for the hub, at most.
const ITEMS: usize = 65_536;
/// Bytes of messages that wait for the hub, at most.
const BYTES: usize = 64 << 20;

/// Something that has arrived.
pub(super) enum Item {
    Push(PushInfo),
    States { found: Vec<(Channel, Vec<u8>)>, again: bool, done: oneshot::Sender<()> },
}

/// A connection, as long as it lasts.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    pub(super) publishing: MultiplexedConnection,
    queue: mpsc::Sender<Item>,
}

/// The other end of a link's queue.
pub(super) struct Arrivals {
    queue: mpsc::Receiver<Item>,
    waiting: Arc<Waiting>,
}

/// How much waits. When it is too much, the link is given up: the loss is then announced as a gap,
/// where dropping messages one by one would be silent.
#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    overrun: AtomicUsize,
}

/// The present connection, for those who publish and read keys.
#[derive(Clone, Default)]
pub(super) struct CurrentLink(Arc<Mutex<Option<Link>>>);

impl Link {
    pub(super) async fn open(
        client: &Client,
        settings: &RedisSettings,
    ) -> Result<(Self, Arrivals), SourceError> {
        let (sender, queue) = mpsc::channel(ITEMS);
        let waiting = Arc::new(Waiting::default());
        let pushes = (sender.clone(), Arc::clone(&waiting));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.timeout))
            .set_response_timeout(Some(settings.timeout));
        let publishing = client.get_multiplexed_async_connection_with_config(&config).await?;
        let config = config.set_push_sender(move |push| {
            let (queue, waiting) = &pushes;
            waiting.add(push, queue);
            Ok::<(), ()>(())
        });
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok((Self { connection, publishing, queue: sender }, Arrivals { queue, waiting }))
    }

    /// Puts states that were read behind all that arrived before them, and waits until they have
    /// been handed to the hub.
    pub(super) async fn enqueue(&self, found: Vec<(Channel, Vec<u8>)>, again: bool) {
        let (done, handed_on) = oneshot::channel();
        if self.queue.send(Item::States { found, again, done }).await.is_ok() {
            // Without an answer the link is gone; whoever waits then starts without a snapshot.
            handed_on.await.unwrap_or_default();
        }
    }
}

impl Waiting {
    fn add(&self, push: PushInfo, queue: &mpsc::Sender<Item>) {
        let size = size(&push);
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        if before + size > BYTES || queue.try_send(Item::Push(push)).is_err() {
            self.overrun.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Arrivals {
    /// The next item.
    ///
    /// # Errors
    /// When something did not fit into the queue, or the link is gone.
    pub(super) async fn next(&mut self) -> Result<Item, SourceError> {
        if self.waiting.overrun.load(Ordering::Relaxed) > 0 {
            return Err(SourceError::Overrun);
        }
        let item = self.queue.recv().await.ok_or(SourceError::Disconnected)?;
        if let Item::Push(push) = &item {
            self.waiting.bytes.fetch_sub(size(push), Ordering::Relaxed);
        }
        Ok(item)
    }
}

impl CurrentLink {
    pub(super) fn get(&self) -> Option<Link> {
        self.0.lock().clone()
    }

    /// Makes `link` the present one until the guard is dropped.
    pub(super) fn hold(&self, link: Link) -> impl Drop + use<> {
        *self.0.lock() = Some(link);
        LinkGuard(self.clone())
    }
}

struct LinkGuard(CurrentLink);

impl Drop for LinkGuard {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

fn size(push: &PushInfo) -> usize {
    let bytes = |value: &Value| if let Value::BulkString(bytes) = value { bytes.len() } else { 0 };
    push.data.iter().map(bytes).sum()
}
