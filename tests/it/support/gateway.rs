//! A gateway in this process, on a free port.

use axum::Router;
use reqwest::{Client, ClientBuilder, RequestBuilder};
use serde_json::{Value, json};
use sluice::gateway::Gateway;
use sluice::settings::Settings;
use tokio::net::TcpListener;

use super::client::RawStream;
use super::connection::{Connection, SlowReader, get};
use super::protocol::Protocol;
use super::{EventSource, wait_for, within};

pub(crate) struct TestGateway {
    gateway: Option<Gateway>,
    base: String,
    protocol: Protocol,
    /// Instead of the one that all share.
    client: Option<Client>,
    /// Those that run while nobody asks for anything.
    own_tasks: usize,
}

impl TestGateway {
    /// With the default settings, on the embedded source.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With the default settings as `change` leaves them.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::load(None, []).unwrap();
        change(&mut settings);
        Self::start_from(settings).await
    }

    /// With these settings, on a free port all the same.
    pub(crate) async fn start_from(settings: Settings) -> Self {
        let listener = TcpListener::bind((settings.server.bind.ip(), 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if settings.server.has_tls() { "https" } else { "http" };
        let gateway = Gateway::start(settings, listener, Router::new()).unwrap();
        let base = format!("{scheme}://127.0.0.1:{port}");
        let own_tasks = gateway.stop().running();
        let gateway = Some(gateway);
        Self { gateway, base, protocol: Protocol::Http11, client: None, own_tasks }
    }

    /// One that runs elsewhere.
    pub(crate) fn at(base: String) -> Self {
        Self { gateway: None, base, protocol: Protocol::Http11, client: None, own_tasks: 0 }
    }

    /// Asked over `protocol` from now on.
    pub(crate) fn over(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// From now on asked with this client.
    pub(crate) fn asked_with(&mut self, client: ClientBuilder) {
        self.client = Some(client.build().unwrap());
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        self.base.split_once("//").unwrap().1
    }

    /// Waits until the gateway says that it is ready.
    pub(crate) async fn ready(&self) {
        wait_for("readiness", async || self.get("/readyz").send().await.unwrap().status() == 200)
            .await;
    }

    /// Waits until what is published goes out.
    pub(crate) async fn publishes(&self) {
        wait_for("a way out", async || {
            self.metric("sluice_publishing_up{source=\"redis\"}").await > 0.5
        })
        .await;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Opens a stream and takes its first event, `connected`.
    pub(crate) async fn open(&self, path: &str) -> EventSource {
        EventSource::ask(self.get(path), None).await
    }

    /// Opens a stream as a client that comes back.
    pub(crate) async fn resume(&self, path: &str, last_event_id: &str) -> EventSource {
        EventSource::ask(self.get(path), Some(last_event_id)).await
    }

    /// Opens a stream to read it as text.
    pub(crate) async fn raw(&self, path: &str) -> RawStream {
        Self::read(self.get(path)).await
    }

    /// Sends a request for a stream to read it as text.
    pub(crate) async fn read(request: RequestBuilder) -> RawStream {
        RawStream::new(within("open", request.send()).await.unwrap())
    }

    /// Opens a stream and does not read it.
    pub(crate) async fn slow(&self, path: &str) -> SlowReader {
        SlowReader::open(self.protocol, &self.url(path)).await
    }

    /// A connection on which nothing was said yet.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(&self.url("/")).await
    }

    /// Opens a stream to see how it stands on its connection, which has left hyper: only its shard
    /// runs for it.
    pub(crate) async fn socket(&self, path: &str) -> Connection {
        let mut connection = self.connect().await;
        connection.send(&get(path)).await.unwrap();
        connection.begins().await;
        wait_for("a stream without a task", async || self.tasks() == 0).await;
        connection
    }

    /// A request without following what it answers.
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request("GET", path)
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        match &self.client {
            Some(client) => client.request(method.parse().unwrap(), self.url(path)),
            None => self.protocol.request(method, &self.url(path)),
        }
    }

    pub(crate) fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request("POST", path).body(body)
    }

    /// Publishes one event and sees that it is accepted.
    pub(crate) async fn publish(&self, channel: &str, payload: &Value) {
        let path = format!("/api/publish/{channel}");
        let answer = within("publish", self.post(&path, payload.to_string()).send()).await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    }

    /// Publishes several events in one call.
    pub(crate) async fn publish_all(&self, events: &[(&str, Value)]) {
        let items: Vec<_> = events
            .iter()
            .map(|(channel, data)| json!({"channel": channel, "data": data}))
            .collect();
        let body = Value::from(items).to_string();
        let answer = within("publish", self.post("/api/publish", body).send()).await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    }

    /// The value of a metric with its labels, such as `sluice_gaps_total{reason="…"}`; 0 if it
    /// has not been counted yet.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").send().await.unwrap().text().await.unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until nothing is left of any stream. The connection that asks is the only one.
    pub(crate) async fn nothing_stays(&self) {
        for (metric, rest) in [
            ("sluice_sessions{stream=\"any\",transport=\"sse\"}", 0.0),
            ("sluice_connections", 1.0),
            ("sluice_outbox_bytes", 0.0),
            ("sluice_subscriptions", 0.0),
            ("sluice_subscribed_topics", 0.0),
            ("sluice_openings_waiting", 0.0),
        ] {
            wait_for(metric, async || self.metric(metric).await == rest).await;
        }
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        self.get(path).send().await.unwrap().json().await.unwrap()
    }

    /// How many tasks run for clients.
    pub(crate) fn tasks(&self) -> usize {
        self.gateway.as_ref().unwrap().stop().running() - self.own_tasks
    }

    /// Starts the drain, as SIGTERM does. Resolves when it is over; whether everybody has left.
    pub(crate) fn drain(&mut self) -> impl Future<Output = bool> + use<> {
        self.gateway.take().unwrap().drain()
    }
}
