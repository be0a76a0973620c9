//! A real browser: headless Chromium on a page that records what its `EventSource`s see, and a
//! proxy between the two that cuts connections.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::wait_for;

/// An `EventSource` the page is to open.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Source {
    name: &'static str,
    url: String,
    listen: Vec<&'static str>,
    close: Vec<&'static str>,
    credentials: bool,
}

impl Source {
    /// Listens to unnamed events alone and never closes itself.
    pub(crate) fn new(name: &'static str, url: impl Into<String>) -> Self {
        let url = url.into();
        Self { name, url, listen: Vec::new(), close: Vec::new(), credentials: false }
    }

    /// Listens to events of these names too.
    pub(crate) fn listening_to(mut self, names: &[&'static str]) -> Self {
        self.listen = names.to_vec();
        self
    }

    /// Closes itself after an event of one of these names; `error` is a broken connection too.
    pub(crate) fn closing_at(mut self, names: &[&'static str]) -> Self {
        self.close = names.to_vec();
        self
    }

    /// Sends the gateway's cookies along.
    pub(crate) fn with_credentials(mut self) -> Self {
        self.credentials = true;
        self
    }
}

/// `EventSource.readyState` after the browser gave up.
pub(crate) const CLOSED: u8 = 2;

/// Something an `EventSource` of the page has seen.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Sighting {
    source: String,
    /// The type of the DOM event: `open`, `message`, `error`, or the name of an event.
    pub(crate) what: String,
    /// The last id the stream has said.
    pub(crate) id: String,
    /// `None` if the browser tells of the connection, not of an event.
    text: Option<String>,
    /// `readyState`
    pub(crate) state: u8,
}

impl Sighting {
    /// The event's data; null if there is none.
    pub(crate) fn data(&self) -> Value {
        self.text.as_ref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
    }

    /// Whether the browser says that the connection broke or was refused.
    pub(crate) fn is_broken_connection(&self) -> bool {
        self.what == "error" && self.text.is_none()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == CLOSED
    }
}

type Sightings = Arc<Mutex<Vec<Sighting>>>;

/// The server of the page, an origin of its own.
pub(crate) struct Page {
    pub(crate) origin: String,
    sightings: Sightings,
    listener: Option<TcpListener>,
    server: JoinSet<()>,
}

impl Page {
    /// Knows its origin; nobody has opened it yet.
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let sightings = Sightings::default();
        Self { origin, sightings, listener: Some(listener), server: JoinSet::new() }
    }

    /// Opens these sources in a browser that lives as long as what this returns.
    pub(crate) fn open(&mut self, sources: Vec<Source>) -> Browser {
        let listener = self.listener.take().expect("a page is opened once");
        let page = Html(include_str!("../../fixtures/recorder.html"));
        let router = Router::new()
            .route("/", get(async move || page))
            .route("/plan", get(async move || Json(sources)))
            .route("/report", post(take_report))
            .with_state(Arc::clone(&self.sightings));
        self.server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Browser::start(&self.origin)
    }

    /// What a source has seen so far.
    pub(crate) fn seen(&self, source: &str) -> Vec<Sighting> {
        let sightings = self.sightings.lock();
        sightings.iter().filter(|sighting| sighting.source == source).cloned().collect()
    }

    /// The data of the unnamed events a source has seen, without `connected`.
    pub(crate) fn messages(&self, source: &str) -> Vec<Value> {
        let messages = self.seen(source).into_iter().filter(|seen| seen.what == "message");
        messages.map(|seen| seen.data()).filter(|data| data["type"] != "connected").collect()
    }

    /// Waits until what a source has seen fulfils the condition.
    pub(crate) async fn sees(&self, source: &str, condition: impl Fn(&[Sighting]) -> bool) {
        wait_for(source, async || condition(&self.seen(source))).await;
    }

    /// Waits until a source has seen so many messages besides `connected`.
    pub(crate) async fn sees_messages(&self, source: &str, count: usize) {
        wait_for(source, async || self.messages(source).len() >= count).await;
    }
}

async fn take_report(State(sightings): State<Sightings>, report: String) {
    sightings.lock().push(serde_json::from_str(&report).unwrap());
}

/// A headless Chromium with a profile of its own.
pub(crate) struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--disable-dev-shm-usage", "--disable-sync", "--no-first-run"])
            // Without it, headless Chromium ends when the page has loaded.
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .env("TMPDIR", profile.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromium is installed");
        Self { child, _profile: profile }
    }
}

impl Drop for Browser {
    /// Ends the browser with all the processes it has started.
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
        drop((killed, self.child.wait()));
    }
}

/// Stands between browser and gateway, sees every request, and cuts connections.
pub(crate) struct Proxy {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    cuts: watch::Sender<u64>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    target: Mutex<String>,
    /// What clients have sent, one entry per connection.
    sent: Mutex<Vec<Vec<u8>>>,
    /// How many bytes may still reach clients before their connections are cut; `usize::MAX`: all.
    allowance: AtomicUsize,
}

impl Proxy {
    /// Passes everything on to `target`, such as `http://127.0.0.1:8000`.
    pub(crate) async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { allowance: usize::MAX.into(), ..Shared::default() });
        let (cuts, cut) = watch::channel(0);
        let mut server = JoinSet::new();
        server.spawn(accept(listener, Arc::clone(&shared), cut));
        let proxy = Self { address, shared, cuts, _server: server };
        proxy.aim(target);
        proxy
    }

    /// Passes connections to come on to another gateway.
    pub(crate) fn aim(&self, target: &str) {
        target.trim_start_matches("http://").clone_into(&mut self.shared.target.lock());
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Closes every connection there is.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Closes the connection on which the next `bytes` bytes have gone to a client: in the middle
    /// of whatever is being said.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.shared.allowance.store(bytes, Ordering::Relaxed);
    }

    /// The heads of the requests for this path, oldest first, in lower case.
    pub(crate) fn requests(&self, path: &str) -> Vec<String> {
        let sent = self.shared.sent.lock();
        let start = format!("get {path} ").to_lowercase();
        let texts = sent.iter().map(|sent| String::from_utf8_lossy(sent).to_lowercase());
        let heads =
            texts.flat_map(|text| text.split("\r\n\r\n").map(str::to_owned).collect::<Vec<_>>());
        heads.filter(|head| head.starts_with(&start)).collect()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, cut: watch::Receiver<u64>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(relay(client, Arc::clone(&shared), cut.clone()));
    }
}

/// Passes bytes both ways until either side ends, or a cut.
async fn relay(client: TcpStream, shared: Arc<Shared>, mut cut: watch::Receiver<u64>) {
    cut.mark_unchanged();
    let target = shared.target.lock().clone();
    let Ok(server) = TcpStream::connect(target).await else { return };
    let index = {
        let mut sent = shared.sent.lock();
        sent.push(Vec::new());
        sent.len() - 1
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pump(from_client, to_server, |bytes| {
        shared.sent.lock()[index].extend_from_slice(bytes);
        bytes.len()
    });
    let down = pump(from_server, to_client, |bytes| shared.allow(bytes.len()));
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = cut.changed() => {}
    }
}

/// Passes bytes on one way; `allow` says how many of them. Fewer than all are the last.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    allow: impl Fn(&[u8]) -> usize,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let allowed = allow(&buffer[..length]);
        if to.write_all(&buffer[..allowed]).await.is_err() || allowed < length {
            return;
        }
    }
}

impl Shared {
    /// How many of the next `length` bytes may go to a client.
    fn allow(&self, length: usize) -> usize {
        let left = self.allowance.load(Ordering::Relaxed);
        if left == usize::MAX {
            return length;
        }
        let rest = left.checked_sub(length).filter(|rest| *rest > 0);
        // One cut: the next connection is whole again.
        self.allowance.store(rest.unwrap_or(usize::MAX), Ordering::Relaxed);
        if rest.is_some() { length } else { left.min(length - 1) }
    }
}
