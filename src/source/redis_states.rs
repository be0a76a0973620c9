//! The keys in which workers keep the last payload of a channel.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::redis_link::CurrentLink;
use super::{SourceError, StateKeys, StoredStates};
use crate::event::Channel;

/// Keys read with one command: few enough not to hold up the messages behind it.
const KEYS_AT_ONCE: usize = 500;
/// How long a worker may take from publishing to setting the key.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Reads states and puts them in order behind the messages that arrived before them.
#[derive(Clone)]
pub(super) struct RedisStates {
    pub(super) link: CurrentLink,
    pub(super) keys: StateKeys,
}

impl RedisStates {
    /// Reads the state of `channels`. `again`: it is said even if it is what was known before a gap.
    /// What cannot be read is logged: without it a stream begins without a snapshot.
    pub(super) async fn look(self, channels: Vec<Channel>, again: bool) -> Result<(), SourceError> {
        if let Err(error) = self.read(channels, again).await {
            tracing::warn!(%error, "the last state of a channel could not be read");
        }
        Ok(())
    }

    async fn read(&self, channels: Vec<Channel>, again: bool) -> Result<(), SourceError> {
        let keyed = channels.into_iter().filter_map(|channel| {
            let key = self.keys.key(&channel)?;
            Some((channel, key))
        });
        let (channels, keys): (Vec<_>, Vec<_>) = keyed.unzip();
        let Some(link) = self.link.get().filter(|_| !keys.is_empty()) else { return Ok(()) };
        let mut connection = link.connection.clone();
        for (channels, keys) in channels.chunks(KEYS_AT_ONCE).zip(keys.chunks(KEYS_AT_ONCE)) {
            let values: Vec<Option<Vec<u8>>> =
                redis::cmd("MGET").arg(keys).query_async(&mut connection).await?;
            let found = channels.iter().cloned().zip(values);
            let found = found.filter_map(|(channel, value)| Some((channel, value?))).collect();
            link.enqueue(found, again).await;
        }
        Ok(())
    }

    /// Reads the state of `channels` a little later. A worker publishes first and sets the key
    /// after: if it published just before the subscription and sets the key just after the first
    /// look, only a second one finds it.
    pub(super) async fn look_later(self, channels: Vec<Channel>) -> Result<(), SourceError> {
        sleep(SECOND_LOOK).await;
        self.look(channels, false).await
    }
}

#[async_trait]
impl StoredStates for RedisStates {
    async fn refresh(&self, channels: Vec<Channel>) -> Result<(), SourceError> {
        self.read(channels, false).await
    }
}
