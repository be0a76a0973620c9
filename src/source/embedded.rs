//! The source without a broker: what is published here is delivered here.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hashlink::LinkedHashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Publication, PublishError, Publisher, Source, SourceError};
use crate::event::ChannelPattern;
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
    published: Mutex<LinkedHashMap<String, Instant>>,
    window: Duration,
}

impl Embedded {
    /// The name in metrics and logs.
    pub const NAME: &'static str = "embedded";

    /// Delivers through `inlet`. An id is remembered for `window`.
    pub fn new(inlet: Inlet, window: Duration) -> Self {
        let published = Mutex::default();
        Self { publisher: Arc::new(EmbeddedPublisher { inlet, published, window }) }
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
        let news = self.news(publications);
        let known = total - news.len();
        room.publish(news.into_iter().map(|news| (news.channel, news.payload)).collect());
        Ok(known)
    }
}

impl EmbeddedPublisher {
    fn news(&self, mut publications: Vec<Publication>) -> Vec<Publication> {
        let now = Instant::now();
        let mut published = self.published.lock();
        while published.front().is_some_and(|(_, at)| now - *at >= self.window) {
            published.pop_front();
        }
        publications.retain(|publication| {
            let Some(id) = &publication.id else { return true };
            let id = format!("{}:{id}", publication.channel);
            let new = !published.contains_key(&id);
            if new {
                published.insert(id, now);
            }
            new
        });
        while published.len() > IDS {
            published.pop_front();
        }
        publications
    }
}
