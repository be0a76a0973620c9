//! A source that is connected anew at the worst moments: while something is being said, so that
//! nobody may have heard it although its publisher was told that all went well.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use sluice::council::{Caller, Council, Inquiry};
use sluice::http::choose_cryptography;
use sluice::shutdown::Stop;
use sluice::source::{Publication, PublishError, Publisher};
use sluice::telemetry::Metrics;
use tokio::sync::watch;

use super::{member, settings};
use crate::support::wait_for;

/// Publishes to nobody; the source is connected anew while `worst` is said for the first time.
struct Broker {
    worst: &'static str,
    connections: watch::Sender<u64>,
    said: Mutex<Vec<String>>,
}

impl Broker {
    fn said(&self, what: &str) -> usize {
        self.said.lock().iter().filter(|said| said.contains(what)).count()
    }
}

#[async_trait]
impl Publisher for Broker {
    async fn publish(&self, publications: Vec<Publication>) -> Result<usize, PublishError> {
        let is_first = self.said(self.worst) == 0;
        let words = publications.iter().map(|said| said.payload.as_str().to_owned());
        self.said.lock().extend(words);
        if is_first && self.said(self.worst) > 0 {
            self.connections.send_modify(|connections| *connections += 1);
        }
        Ok(0)
    }
}

#[tokio::test]
async fn what_may_not_have_been_heard_is_said_again_whenever_that_was() {
    choose_cryptography();
    for worst in ["council_run", "\"thinking\":\"\"", "aggregating"] {
        let connections = watch::Sender::new(1);
        let heard = connections.subscribe();
        let broker = Arc::new(Broker { worst, connections, said: Mutex::default() });
        let nobody = member("m", "openai-chat", "http://127.0.0.1:1", "attempts = 1");
        let settings = settings(&format!("council.members = [\"m\"]\n{nobody}"));
        let metrics = Arc::new(Metrics::new().unwrap());
        let publisher = Arc::clone(&broker) as Arc<dyn Publisher>;
        let council =
            Council::new(&settings.council, publisher, heard, &metrics, &Stop::new()).unwrap();
        let inquiry: Inquiry = serde_json::from_str(r#"{"prompt": "Well?"}"#).unwrap();
        let caller = Caller { name: String::new(), address: String::new() };
        council.begin(None, council.inquiry(&inquiry).unwrap(), &caller).await.unwrap();
        wait_for(worst, async || broker.said("council_run") == 2).await;
        wait_for(worst, async || broker.said("\"stage\":\"complete\"") > 0).await;
        let said = broker.said.lock();
        let again = said.iter().rposition(|said| said.contains("council_run")).unwrap();
        let worst_at = said.iter().position(|said| said.contains(worst)).unwrap();
        assert!(again > worst_at, "{said:?}");
    }
}
