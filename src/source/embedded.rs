//! The source without a broker: what is published here is delivered here.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hashlink::LinkedHashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Publication, PublishError, Publisher, Source, SourceError};
use crate::event::{Channel, ChannelPattern};
use crate::hub::{Demand, Inlet};

/// Ids that are remembered, at most; then the oldest go first, before their window has passed.
const IDS: usize = 100_000;

/// See the module.
#[derive(Debug)]
pub struct Embedded {
    publisher: Arc<EmbeddedPublisher>,
}

#[derive(Debug)]
struct EmbeddedPublisher {
    inlet: Inlet,
    published: Mutex<LinkedHashMap<Id, Published>>,
    window: Duration,
    /// Makes digests of payloads that nobody outside can foresee.
    digests: RandomState,
}

/// The channel, and the id on it.
type Id = (Channel, String);

#[derive(Debug)]
struct Published {
    at: Instant,
    /// Of the payload.
    digest: u64,
}

impl Embedded {
    /// The name in metrics and logs.
    pub const NAME: &'static str = "embedded";

    /// Delivers through `inlet`. An id is remembered for `window`.
    pub fn new(inlet: Inlet, window: Duration) -> Self {
        let (published, digests) = (Mutex::default(), RandomState::new());
        Self { publisher: Arc::new(EmbeddedPublisher { inlet, published, window, digests }) }
    }

    /// What it listens to at all times: everything.
    pub fn standing() -> Vec<ChannelPattern> {
        ChannelPattern::new("*").into_iter().collect()
    }
}

#[async_trait]
impl Source for Embedded {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn address(&self) -> String {
        "this process".to_owned()
    }

    fn standing(&self) -> Vec<ChannelPattern> {
        Self::standing()
    }

    async fn run(&self, inlet: &Inlet, _demand: &Demand) -> Result<(), SourceError> {
        inlet.connected(Vec::new()).await?;
        std::future::pending().await
    }

    fn publisher(&self) -> Arc<dyn Publisher> {
        Arc::clone(&self.publisher) as Arc<dyn Publisher>
    }
}

#[async_trait]
impl Publisher for EmbeddedPublisher {
    async fn publish(&self, publications: Vec<Publication>) -> Result<usize, PublishError> {
        let total = publications.len();
        // The room is there before an id is noted: what is noted is also delivered.
        let room = self.inlet.room().await?;
        let news = self.news(publications)?;
        let known = total - news.len();
        let news = news.into_iter().map(|news| self.inlet.incoming(news.channel, news.payload));
        room.publish(news.collect());
        Ok(known)
    }
}

impl EmbeddedPublisher {
    /// Those of `publications` that were not published before, whose ids are noted.
    fn news(&self, publications: Vec<Publication>) -> Result<Vec<Publication>, PublishError> {
        let now = Instant::now();
        let mut published = self.published.lock();
        while published.front().is_some_and(|(_, known)| now - known.at >= self.window) {
            published.pop_front();
        }
        let mut claimed: HashMap<Id, u64> = HashMap::new();
        let mut news = Vec::with_capacity(publications.len());
        for publication in publications {
            let Some(id) = &publication.id else {
                news.push(publication);
                continue;
            };
            let digest = self.digests.hash_one(publication.payload.as_str());
            let id = (publication.channel.clone(), id.clone());
            let before = published.get(&id).map(|known| known.digest);
            match before.or_else(|| claimed.get(&id).copied()) {
                Some(before) if before != digest => {
                    return Err(PublishError::Conflict { id: id.1 });
                }
                Some(_) => {}
                None => {
                    claimed.insert(id, digest);
                    news.push(publication);
                }
            }
        }
        for (id, digest) in claimed {
            published.insert(id, Published { at: now, digest });
        }
        while published.len() > IDS {
            published.pop_front();
        }
        Ok(news)
    }
}
