//! What has arrived on the subscriptions' connection and waits for the hub, in its order.
//!
//! Redis has to be read whatever the hub is doing: it cuts a subscriber that reads too slowly. So what
//! arrives waits here, within bounds. Beyond them the connection is given up: the loss is then
//! announced as a gap, where dropping messages one by one would be silent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::SourceError;
use crate::event::Channel;

/// Bytes that wait for the hub, at most. A burst is no reason to give the connection up: Redis itself lets
/// 32 MB of messages wait, without the room they take here.
const BYTES: usize = 96 << 20;
/// Bytes that each item takes besides what it says.
const OVERHEAD: usize = 160;
/// Items that are taken at once, at most.
const AT_ONCE: usize = 256;

/// Something that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A message, of a channel that was subscribed to by its name.
    Message { channel: Vec<u8>, payload: Vec<u8> },
    /// A message, of a channel that a pattern matches.
    Matched { pattern: Vec<u8>, channel: Vec<u8>, payload: Vec<u8> },
    /// Subscriptions that begin here. Neighbours are one item: many thousands may come at once.
    Subscribed(Vec<Channel>),
}

/// The two ends of the queue share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrivals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    bell: Notify,
    /// The number of the last probe that came back.
    probe: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Disconnected,
    Overrun,
}

impl Arrivals {
    /// Puts what Redis has sent into the queue. `probe`: the channel of our own probes, which are
    /// noted as soon as they arrive: a hub that is busy is no subscription that hangs.
    pub(super) fn push(&self, push: PushInfo, probe: &str) {
        if push.kind == PushKind::Disconnection {
            return self.end(End::Disconnected);
        }
        let Some(item) = read(push) else { return };
        if let Item::Message { channel, payload } = &item
            && channel == probe.as_bytes()
            && let Some(number) = probe_number(payload)
        {
            self.0.probe.fetch_max(number, Ordering::Relaxed);
        }
        let mut queue = self.0.queue.lock();
        if queue.end.is_some() {
            return;
        }
        queue.bytes += item.bytes();
        match (queue.items.back_mut(), item) {
            (Some(Item::Subscribed(last)), Item::Subscribed(more)) => last.extend(more),
            (_, item) => queue.items.push_back(item),
        }
        let overrun = queue.bytes > BYTES;
        drop(queue);
        if overrun {
            self.end(End::Overrun);
        }
        self.0.bell.notify_one();
    }

    /// The next items. To be dropped only before it has returned them.
    ///
    /// # Errors
    /// When the connection is gone, or more has arrived than may wait.
    pub(super) async fn next(&self) -> Result<Vec<Item>, SourceError> {
        loop {
            if let Some(items) = self.take()? {
                return Ok(items);
            }
            self.0.bell.notified().await;
        }
    }

    /// The number of the last probe that came back.
    pub(super) fn last_probe(&self) -> u64 {
        self.0.probe.load(Ordering::Relaxed)
    }

    fn take(&self) -> Result<Option<Vec<Item>>, SourceError> {
        let mut queue = self.0.queue.lock();
        if let Some(End::Overrun) = queue.end {
            return Err(SourceError::Overrun);
        }
        let count = queue.items.len().min(AT_ONCE);
        let items: Vec<_> = queue.items.drain(..count).collect();
        queue.bytes -= items.iter().map(Item::bytes).sum::<usize>();
        match (items.is_empty(), queue.end) {
            (false, _) => Ok(Some(items)),
            (true, None) => Ok(None),
            (true, Some(_)) => Err(SourceError::Disconnected),
        }
    }

    fn end(&self, end: End) {
        let mut queue = self.0.queue.lock();
        queue.end.get_or_insert(end);
        if let End::Overrun = end {
            // Nobody will read them.
            queue.items = VecDeque::new();
        }
        self.0.bell.notify_one();
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Message { channel, payload } => OVERHEAD + channel.len() + payload.len(),
            Self::Matched { pattern, channel, payload } => {
                OVERHEAD + pattern.len() + channel.len() + payload.len()
            }
            Self::Subscribed(channels) => {
                channels.iter().map(|channel| channel.as_str().len()).sum()
            }
        }
    }
}

/// What a probe says.
pub(super) fn probe(number: u64) -> String {
    format!("probe {number}")
}

/// Whose number is that of a probe; `None`: it is none.
pub(super) fn probe_number(payload: &[u8]) -> Option<u64> {
    str::from_utf8(payload).ok()?.strip_prefix("probe ")?.parse().ok()
}

/// `None` for what need not be handed on.
fn read(PushInfo { kind, mut data }: PushInfo) -> Option<Item> {
    let mut text =
        |at: usize| match data.get_mut(at).map(|value| std::mem::replace(value, Value::Nil)) {
            Some(Value::BulkString(text)) => Some(text),
            _ => None,
        };
    Some(match kind {
        PushKind::Message => Item::Message { channel: text(0)?, payload: text(1)? },
        PushKind::PMessage => {
            Item::Matched { pattern: text(0)?, channel: text(1)?, payload: text(2)? }
        }
        PushKind::Subscribe => {
            Item::Subscribed(vec![Channel::new(str::from_utf8(&text(0)?).ok()?).ok()?])
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(kind: PushKind, data: &[&str]) -> PushInfo {
        let text = |text: &&str| Value::BulkString(text.as_bytes().to_vec());
        PushInfo { kind, data: data.iter().map(text).collect() }
    }

    fn message(channel: &str, payload: &str) -> PushInfo {
        push(PushKind::Message, &[channel, payload])
    }

    #[tokio::test]
    async fn confirmations_keep_their_place_and_neighbours_are_one() {
        let arrivals = Arrivals::default();
        for name in ["a", "b"] {
            arrivals.push(push(PushKind::Subscribe, &[name]), "probe");
        }
        arrivals.push(message("a", "1"), "probe");
        arrivals.push(push(PushKind::Unsubscribe, &["b"]), "probe");
        arrivals.push(message("a", "2"), "probe");
        arrivals.push(push(PushKind::Subscribe, &["c"]), "probe");
        let channels = |names: &[&str]| {
            Item::Subscribed(names.iter().map(|name| Channel::new(name).unwrap()).collect())
        };
        let heard =
            |payload: &str| Item::Message { channel: b"a".to_vec(), payload: payload.into() };
        let expected = [channels(&["a", "b"]), heard("1"), heard("2"), channels(&["c"])];
        assert_eq!(arrivals.next().await.unwrap(), expected);
        assert_eq!(arrivals.0.queue.lock().bytes, 0);
    }

    #[tokio::test]
    async fn a_hundred_thousand_confirmations_take_one_place() {
        let arrivals = Arrivals::default();
        for n in 0..100_000 {
            arrivals.push(push(PushKind::Subscribe, &[&format!("user:{n}")]), "probe");
        }
        let items = arrivals.next().await.unwrap();
        assert!(matches!(&items[..], [Item::Subscribed(channels)] if channels.len() == 100_000));
    }

    #[tokio::test]
    async fn what_came_before_the_end_is_still_handed_on() {
        let arrivals = Arrivals::default();
        arrivals.push(message("a", "1"), "probe");
        arrivals.push(push(PushKind::Disconnection, &[]), "probe");
        arrivals.push(message("a", "2"), "probe");
        assert_eq!(arrivals.next().await.unwrap().len(), 1);
        assert!(matches!(arrivals.next().await, Err(SourceError::Disconnected)));
    }

    #[tokio::test]
    async fn more_than_may_wait_is_a_loss() {
        let arrivals = Arrivals::default();
        for _ in 0..=BYTES / OVERHEAD {
            arrivals.push(message("a", "1"), "probe");
        }
        assert!(matches!(arrivals.next().await, Err(SourceError::Overrun)));
        let arrivals = Arrivals::default();
        let large = "x".repeat(BYTES / 4);
        for _ in 0..4 {
            arrivals.push(message("a", &large), "probe");
        }
        assert!(matches!(arrivals.next().await, Err(SourceError::Overrun)));
    }

    #[test]
    fn a_probe_is_noted_before_it_is_handed_on() {
        let arrivals = Arrivals::default();
        arrivals.push(message("other", &probe(7)), "mine");
        arrivals.push(message("mine", "fence 9"), "mine");
        assert_eq!(arrivals.last_probe(), 0);
        arrivals.push(message("mine", &probe(3)), "mine");
        assert_eq!(arrivals.last_probe(), 3);
    }
}
