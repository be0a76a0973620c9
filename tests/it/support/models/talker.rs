//! A provider in the dialect `openai-chat` for many runs at once: its words are random, with random
//! pauses, never far ahead of what the test has heard, and it keeps what it has said.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream::unfold;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};

use super::chat::{last_words, word};

/// How many words of a run may be on their way.
const AHEAD: usize = 60;
/// What JSON, SSE and UTF-8 have to carry whole. None has a space: one follows each word.
const WORDS: [&str; 8] =
    ["word", "日本語", "é😀", "\"\\", "data:\n\nid:7\n\n", "\u{2028}\u{0}", "\r\n", "{\"a\":1}"];

pub(crate) struct Talker {
    base: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    requests: AtomicUsize,
    /// By the transcript that was asked about.
    runs: Mutex<HashMap<String, Arc<Run>>>,
}

struct Run {
    /// Closed: the members come to their ends.
    may_say: Semaphore,
    /// By model.
    said: Mutex<BTreeMap<String, String>>,
}

impl Talker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::<Shared>::default();
        let router =
            Router::new().route("/v1/chat/completions", post(talk)).with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, shared, _server: server }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/v1", self.base)
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// So many words of the run about `transcript` were heard: as many more may come.
    pub(crate) fn heard(&self, transcript: &str, words: usize) {
        self.shared.run(transcript).may_say.add_permits(words);
    }

    /// The members of the run about `transcript` come to their ends.
    pub(crate) fn conclude(&self, transcript: &str) {
        self.shared.run(transcript).may_say.close();
    }

    /// What was said in the run about `transcript`, by model.
    pub(crate) fn said(&self, transcript: &str) -> BTreeMap<String, String> {
        self.shared.run(transcript).said.lock().clone()
    }
}

impl Shared {
    fn run(&self, transcript: &str) -> Arc<Run> {
        let new = || Run { may_say: Semaphore::new(AHEAD), said: Mutex::default() };
        let mut runs = self.runs.lock();
        Arc::clone(runs.entry(transcript.to_owned()).or_insert_with(|| Arc::new(new())))
    }
}

async fn talk(State(shared): State<Arc<Shared>>, Json(asked): Json<Value>) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let user = asked["messages"][1]["content"].as_str().unwrap();
    let transcript = user.split_once("Transcript:\n").unwrap().1.lines().next().unwrap();
    let run = shared.run(transcript);
    let model = asked["model"].as_str().unwrap().to_owned();
    let words = unfold(Some(0_u32), move |state| {
        let (run, model) = (Arc::clone(&run), model.clone());
        async move {
            let n = state?;
            let (said, next) = run.say(&model, n).await;
            Some((Ok::<_, Infallible>(said), next))
        }
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(words)).into_response()
}

impl Run {
    /// The next words of a member, and the number of those that follow, if any do.
    async fn say(&self, model: &str, n: u32) -> (String, Option<u32>) {
        let say = |text: String| {
            self.said.lock().entry(model.to_owned()).or_default().push_str(&text);
            word(&text)
        };
        let Ok(permit) = self.may_say.acquire().await else {
            return (say("\nSCORE: 0.5".to_owned()) + &last_words(), None);
        };
        permit.forget();
        match fastrand::u64(..16) {
            pause @ 0..3 => tokio::time::sleep(Duration::from_millis(pause)).await,
            _ => yield_now().await,
        }
        let piece = WORDS[fastrand::usize(..WORDS.len())];
        (say(format!("{n}:{piece} ")), Some(n + 1))
    }
}
