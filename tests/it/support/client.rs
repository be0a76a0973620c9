//! A browser's `EventSource`, as far as tests need it: events with their ids.

use std::pin::Pin;

use eventsource_stream::Eventsource;
use futures_util::{Stream, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::gateway::http;
use super::within;

type Events = Pin<Box<dyn Stream<Item = eventsource_stream::Event> + Send>>;

/// One stream, open.
pub(crate) struct EventSource {
    pub(crate) connected: Message,
    pub(crate) last_event_id: String,
    events: Events,
}

/// One event as a browser dispatches it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    /// `message` if the stream did not say.
    pub(crate) name: String,
    /// The last id the stream has said, this event's or an earlier one's.
    pub(crate) id: String,
    pub(crate) data: Value,
}

impl EventSource {
    /// Opens the stream and takes its first event, which must be `connected`.
    pub(crate) async fn open(url: &str, last_event_id: Option<&str>) -> Self {
        Self::ask(http().get(url), last_event_id).await
    }

    /// The same with a request of one's own.
    pub(crate) async fn ask(
        mut request: reqwest::RequestBuilder,
        last_event_id: Option<&str>,
    ) -> Self {
        request = request.header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = within("open", request.send()).await.unwrap();
        assert_eq!(response.status(), 200, "{}", response.url());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        // A connection that breaks ends the stream, as it does for a browser.
        let whole = response.bytes_stream().eventsource();
        let events =
            Box::pin(whole.take_while(|e| std::future::ready(e.is_ok())).map(Result::unwrap));
        let last_event_id = last_event_id.unwrap_or_default().to_owned();
        let connected = Message { name: String::new(), id: String::new(), data: Value::Null };
        let mut source = Self { connected, last_event_id, events };
        source.connected = source.next().await.expect("a stream begins with `connected`");
        assert_eq!(source.connected.data["type"], "connected");
        source
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let event = within("next event", self.events.next()).await?;
        if !event.id.is_empty() {
            self.last_event_id.clone_from(&event.id);
        }
        let data = serde_json::from_str(&event.data).expect("data is JSON");
        Some(Message { name: event.event, id: self.last_event_id.clone(), data })
    }

    /// The next event, which must come.
    pub(crate) async fn event(&mut self) -> Message {
        self.next().await.expect("an event, not the end of the stream")
    }

    /// The `data` of the next event.
    pub(crate) async fn data(&mut self) -> Value {
        self.event().await.data
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(mut self) -> Vec<Message> {
        let mut rest = Vec::new();
        while let Some(message) = self.next().await {
            rest.push(message);
        }
        rest
    }
}

/// A stream as the text it is written in.
pub(crate) struct RawStream {
    response: reqwest::Response,
    bytes: Vec<u8>,
}

impl RawStream {
    pub(super) fn new(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        Self { response, bytes: Vec::new() }
    }

    /// Reads until `end` has come, and returns everything so far.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.bytes);
            if text.contains(end) {
                return text.into_owned();
            }
            assert!(self.more().await, "the stream ended before {end:?} came");
        }
    }

    /// Everything up to the end of the stream. A connection that breaks fails the test.
    pub(crate) async fn rest(mut self) -> String {
        while self.more().await {}
        String::from_utf8(self.bytes).unwrap()
    }

    async fn more(&mut self) -> bool {
        let chunk = within("more of the stream", self.response.chunk()).await.unwrap();
        self.bytes.extend_from_slice(chunk.as_deref().unwrap_or_default());
        chunk.is_some()
    }
}

/// A client that opens a stream and then reads only when it is told to.
pub(crate) struct SlowReader {
    socket: TcpStream,
    text: String,
}

impl SlowReader {
    pub(super) async fn open(url: &str) -> Self {
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        // The kernel keeps little for it, so that the gateway soon feels that it does not read.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = within("connect", socket.connect(host.parse().unwrap())).await.unwrap();
        // HTTP/1.0, so that the body has no chunks.
        let request = format!("GET /{path} HTTP/1.0\r\nhost: {host}\r\n\r\n");
        within("request", socket.write_all(request.as_bytes())).await.unwrap();
        let mut opened = Self { socket, text: String::new() };
        opened.until("\n\n").await;
        opened
    }

    /// Reads until `end` has come, and returns everything so far.
    pub(crate) async fn until(&mut self, end: &str) -> &str {
        let mut new = 0;
        while !self.text[new..].contains(end) {
            new = self.text.len().saturating_sub(end.len());
            assert!(self.more().await, "the stream ended before {end:?} came");
        }
        &self.text
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(mut self) -> String {
        while self.more().await {}
        self.text
    }

    async fn more(&mut self) -> bool {
        let mut bytes = Vec::with_capacity(65_536);
        let read = self.socket.read_buf(&mut bytes);
        let count = within("more of the stream", read).await.unwrap();
        self.text.push_str(str::from_utf8(&bytes).expect("ASCII"));
        count > 0
    }
}
