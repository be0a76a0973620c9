//! The council as its users meet it: members asked at real servers, runs watched, left, resumed and
//! stopped over HTTP.

mod browser;
mod cuts;
mod dialects;
mod harm;
mod leaving;
mod model;
mod naming;
mod redis;
mod replay;
mod requests;
mod unheard;
mod verdict;
mod watching;

use std::collections::BTreeMap;

use serde_json::Value;
use sluice::settings::Settings;

use crate::support::{EventSource, Message, TestGateway};

/// A question with all that is required.
const ASK: &str = "/api/stream/council-score?videoUrl=http://video.example/1&transcript=Buy+it";

/// A gateway with these settings, as they stand in a file.
async fn gateway(config: &str) -> TestGateway {
    TestGateway::start_from(settings(config)).await
}

fn settings(config: &str) -> Settings {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    match Settings::load(Some(file.path()), []) {
        Ok(settings) => settings,
        Err(faults) => panic!("{faults}\n{config}"),
    }
}

/// One member, as it stands in a file; `more`: further lines.
fn member(name: &str, dialect: &str, base_url: &str, more: &str) -> String {
    format!(
        "[council.member.{name}]\ndialect = {dialect:?}\nbase_url = {base_url:?}\nmodel = \"{name}-1\"\n{more}\n"
    )
}

/// Somebody who watches a run, and what they have put together of it, as the manual says: an empty
/// piece begins a text anew, all others are appended.
#[derive(Debug, Default)]
struct Watcher {
    texts: BTreeMap<String, String>,
    /// The last words of each member.
    ends: BTreeMap<String, Value>,
    /// Notices, by name.
    notices: Vec<(String, Value)>,
    /// The data of every unnamed event, as an unmodified client of the reference sees them.
    plain: Vec<Value>,
    /// The data of `complete`, or of `error`.
    complete: Option<Value>,
    error: Option<Value>,
    /// Where to go on from.
    id: String,
}

impl Watcher {
    /// Takes in one event. `false`: the run is over.
    fn hear(&mut self, message: &Message) -> bool {
        self.id.clone_from(&message.id);
        let data = &message.data;
        match message.name.as_str() {
            "complete" => self.complete = Some(data["data"].clone()),
            "error" => self.error = Some(data["error"].clone()),
            "message" => {
                self.plain.push(data.clone());
                self.hear_plain(data);
            }
            "gap" => self.texts.clear(),
            name => self.notices.push((name.to_owned(), data.clone())),
        }
        self.complete.is_none() && self.error.is_none()
    }

    fn hear_plain(&mut self, data: &Value) {
        let stage = data["stage"].as_str().unwrap_or_default().to_owned();
        if data["isComplete"] == true {
            self.ends.insert(stage, data.clone());
            return;
        }
        let Some(thinking) = data["thinking"].as_str() else { return };
        let text = self.texts.entry(stage).or_default();
        if thinking.is_empty() {
            text.clear();
        }
        text.push_str(thinking);
    }

    /// Watches to the end of the stream.
    async fn until_the_end(mut self, mut stream: EventSource) -> Self {
        while let Some(message) = stream.next().await {
            if !self.hear(&message) {
                break;
            }
        }
        assert_eq!(stream.next().await, None, "nothing follows the end");
        self
    }

    /// Opens a stream and watches it to its end.
    async fn watch(gateway: &TestGateway, path: &str) -> Self {
        Self::default().until_the_end(gateway.open(path).await).await
    }

    fn notice(&self, name: &str) -> &Value {
        let named = self.notices.iter().rev().find(|(known, _)| known == name);
        &named.unwrap_or_else(|| panic!("no {name}: {:?}", self.notices)).1
    }
}
