//! A browser's `EventSource`, as far as tests need it: events with their ids.

use std::convert::Infallible;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use eventsource_stream::Eventsource;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use super::protocol::Protocol;
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
    pub(crate) async fn open(url: &str) -> Self {
        Self::ask(Protocol::Http11.request("GET", url), None).await
    }

    /// The same with a request of one's own.
    pub(crate) async fn ask(mut request: RequestBuilder, last_event_id: Option<&str>) -> Self {
        request = request.header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = within("open", request.send()).await.unwrap();
        assert_eq!(response.status(), 200, "{}", response.url());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let events = Box::pin(whole_events(response).eventsource().map(Result::unwrap));
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

/// The body in pieces that end with an event: given half of one, the parser reads it from its start
/// again with the next. As for a browser, a connection that breaks ends the stream.
fn whole_events(response: Response) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold(response, async |mut response| {
        let mut piece = BytesMut::new();
        while !piece.ends_with(b"\n\n") {
            piece.extend(response.chunk().await.ok()??);
        }
        Some((Ok(piece.freeze()), response))
    })
}

/// A stream as the text it is written in.
pub(crate) struct RawStream {
    response: Response,
    bytes: Vec<u8>,
}

impl RawStream {
    pub(super) fn new(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        Self { response, bytes: Vec::new() }
    }

    /// Reads until `end` has come, and returns everything so far.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        // Not read by read: a stream that is kept alive always says something.
        within(end, async {
            loop {
                let text = String::from_utf8_lossy(&self.bytes);
                if text.contains(end) {
                    return text.into_owned();
                }
                assert!(self.more().await, "the stream ended before {end:?} came");
            }
        })
        .await
    }

    /// Everything up to the end of the stream. A connection that breaks fails the test.
    pub(crate) async fn rest(mut self) -> String {
        within("the stream's end", async { while self.more().await {} }).await;
        String::from_utf8(self.bytes).unwrap()
    }

    async fn more(&mut self) -> bool {
        let chunk = self.response.chunk().await.unwrap();
        self.bytes.extend_from_slice(chunk.as_deref().unwrap_or_default());
        chunk.is_some()
    }
}
