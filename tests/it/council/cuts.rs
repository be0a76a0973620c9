//! A viewer whose connection is cut a thousand times, anywhere, while words keep coming: what it puts
//! together is what each member has said, to the letter, and nobody is asked twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::watching::council;
use super::{Watcher, gateway};
use crate::support::models::Talker;
use crate::support::{EventSource, Protocol, Proxy, TestGateway};

const MEMBERS: [&str; 4] = ["gemini", "claude", "gpt4", "perplexity"];
/// At the same time, over each protocol, and how often each is cut.
const RUNS: [(Protocol, usize, usize); 2] = [(Protocol::Http11, 8, 100), (Protocol::Http2, 4, 50)];

/// More bytes than an answer has before its first event but one.
const HEAD: usize = 1000;

/// Somebody who is cut again and again.
struct Traveller {
    talker: Arc<Talker>,
    proxy: Proxy,
    protocol: Protocol,
    transcript: String,
    watcher: Watcher,
}

impl Traveller {
    fn path(&self) -> String {
        format!("/api/stream/council-score?videoUrl=v&transcript={}", self.transcript)
    }

    /// Opens the stream, whole or from where it got to.
    async fn open(&self) -> EventSource {
        let request = self.protocol.request("GET", &self.proxy.url(&self.path()));
        let is_back = !self.watcher.id.is_empty();
        let stream = EventSource::ask(request, is_back.then_some(&*self.watcher.id)).await;
        assert_eq!(stream.connected.data["recovered"], is_back, "{}", self.watcher.id);
        stream
    }

    /// Watches until the connection ends.
    async fn watch(&mut self, mut stream: EventSource) {
        while let Some(message) = stream.next().await {
            assert_ne!(message.name, "gap", "{}", message.data);
            self.watcher.hear(&message);
            let words = message.data["thinking"].as_str().unwrap_or_default();
            self.talker.heard(&self.transcript, words.matches(' ').count());
        }
    }

    /// Is cut before it has heard anything: in the head of the answer, or soon after.
    async fn is_cut_at_the_door(&self) {
        self.proxy.cut_after(fastrand::usize(1..800));
        let mut request = self.protocol.request("GET", &self.proxy.url(&self.path()));
        if !self.watcher.id.is_empty() {
            request = request.header("last-event-id", &self.watcher.id);
        }
        if let Ok(answer) = request.send().await {
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap_err();
        }
    }

    async fn travel(mut self, cuts: usize) -> (String, Watcher) {
        for cut in 0..cuts {
            if cut % 10 == 9 {
                self.is_cut_at_the_door().await;
                continue;
            }
            // Mostly in the middle of an event, told again or live.
            self.proxy.cut_after(HEAD + fastrand::usize(..3000));
            let stream = self.open().await;
            self.watch(stream).await;
            assert_eq!(self.watcher.complete, None, "it was cut");
        }
        self.talker.conclude(&self.transcript);
        let stream = self.open().await;
        self.watch(stream).await;
        (self.transcript, self.watcher)
    }
}

/// The texts are long: only where they part is shown.
fn assert_same(heard: &BTreeMap<String, String>, said: &BTreeMap<String, String>) {
    assert!(heard.keys().eq(said.keys()), "{:?}", heard.keys());
    for (member, said) in said {
        let mut rest = (heard[member].split(' '), said.split(' '));
        while let (Some(heard), Some(said)) = (rest.0.next(), rest.1.next()) {
            assert_eq!(heard, said, "{member}");
        }
        assert_eq!(heard[member].len(), said.len(), "{member}");
    }
}

/// A run that is watched by one who is cut and by one who is not.
async fn run(gateway: Arc<TestGateway>, talker: Arc<Talker>, protocol: Protocol, cuts: usize) {
    let transcript = format!("{:x}", fastrand::u64(..));
    let proxy = Proxy::start(&gateway.url("")).await;
    let watcher = Watcher::default();
    let traveller = Traveller { talker: Arc::clone(&talker), proxy, protocol, transcript, watcher };
    let stays = gateway.open(&traveller.path()).await;
    let (stayed, (transcript, cut)) =
        tokio::join!(Watcher::default().until_the_end(stays), traveller.travel(cuts));

    let named =
        |name: &&str| ((*name).to_owned(), talker.said(&transcript)[&format!("{name}-1")].clone());
    let said: BTreeMap<_, _> = MEMBERS.iter().map(named).collect();
    let heard = |watcher: &Watcher| {
        let texts = watcher.texts.iter().filter(|(stage, _)| MEMBERS.contains(&stage.as_str()));
        texts.map(|(stage, text)| (stage.clone(), text.clone())).collect::<BTreeMap<_, _>>()
    };
    assert_same(&heard(&stayed), &said);
    assert_same(&heard(&cut), &said);
    assert_eq!((&cut.ends, &cut.complete), (&stayed.ends, &stayed.complete));
    assert_eq!(cut.complete.unwrap()["compositeScore"], 0.5);
    let state = gateway.json(&format!("/api/council/{}", stayed.run_id())).await;
    for member in state["members"].as_array().unwrap() {
        assert_eq!(member["text"], said[member["stage"].as_str().unwrap()]);
        assert_eq!(member["attempts"], 1);
    }
}

#[tokio::test]
async fn a_thousand_cuts_take_no_word_and_ask_nobody_twice() {
    let talker = Arc::new(Talker::start().await);
    let members = MEMBERS.map(|name| (name, talker.url()));
    let gateway = Arc::new(gateway(&council("council.max_runs_per_client = 100", &members)).await);
    let mut runs = JoinSet::new();
    let mut all_cuts = 0;
    for (protocol, count, cuts) in RUNS {
        for _ in 0..count {
            runs.spawn(run(Arc::clone(&gateway), Arc::clone(&talker), protocol, cuts));
            all_cuts += cuts;
        }
    }
    assert_eq!(all_cuts, 1000);
    let count = runs.len();
    runs.join_all().await;
    assert_eq!(talker.asked(), MEMBERS.len() * count, "one bill for each run");
}
