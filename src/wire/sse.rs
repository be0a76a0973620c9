//! Server-Sent Events (WHATWG HTML, section 9.2), in the shapes of the reference system.
//!
//! Payloads are JSON on one line, so nothing in them can end a field or an event.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::Wire;
use crate::event::{Event, Frame, Position, Shape, Shaped, Variant, now};
use crate::session::{Connected, Outgoing};

/// A `text/event-stream`.
#[derive(Debug, Clone)]
pub struct Sse {
    shape: Arc<dyn Shape>,
    variant: Variant,
    compress_above: usize,
}

impl Sse {
    /// A stream in `shape`. With `variant.compressed`, data longer than `compress_above` bytes is
    /// compressed if that makes it shorter.
    pub fn new(shape: Arc<dyn Shape>, variant: Variant, compress_above: usize) -> Self {
        Self { shape, variant, compress_above }
    }

    pub(super) fn shape(&self) -> &dyn Shape {
        &*self.shape
    }

    fn event(&self, event: &Event) -> Frame {
        let Some(shaped) = event.shaped(&*self.shape) else { return unseen() };
        shaped.frames.get(self.variant, || self.data(shaped, Some(event.position)))
    }

    fn data(&self, shaped: &Shaped, position: Option<Position>) -> Frame {
        if shaped.json.is_empty() {
            return unseen();
        }
        let named = self.variant.named || shaped.is_notice;
        let name = shaped.kind.as_deref().filter(|name| named && !is_ours(name));
        Frame::new(write(name, position, self.json(shaped)).as_bytes())
    }

    /// The data of an event. Compressed once, whatever id and name stand over it.
    fn json<'a>(&self, shaped: &'a Shaped) -> &'a str {
        if !self.variant.compressed {
            return &shaped.json;
        }
        let compressed = shaped.compressed.get_or_init(|| self.compress(&shaped.json));
        compressed.as_deref().unwrap_or(&shaped.json)
    }

    fn batch(&self, events: &[Arc<Event>]) -> Frame {
        let shaped = events.iter().filter_map(|event| event.shaped(&*self.shape));
        let all: Vec<&str> = shaped.map(|shaped| &*shaped.json).collect();
        let json = format!(r#"{{"type":"batch","events":[{}]}}"#, all.join(","));
        let position = events.last().map(|event| event.position);
        let name = self.variant.named.then_some("batch");
        let compressed = if self.variant.compressed { self.compress(&json) } else { None };
        Frame::new(write(name, position, compressed.as_deref().unwrap_or(&json)).as_bytes())
    }

    /// The compressed form, if it is wanted for so much data and shorter.
    fn compress(&self, json: &str) -> Option<Box<str>> {
        if json.len() <= self.compress_above || json.len() > COMPRESS_UP_TO {
            return None;
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let compressed = gzip.write_all(json.as_bytes()).and_then(|()| gzip.finish());
        let data = STANDARD.encode(compressed.ok()?);
        let wrapped = format!(r#"{{"type":"compressed","encoding":"gzip","data":"{data}"}}"#);
        (wrapped.len() < json.len()).then(|| wrapped.into())
    }
}

/// Bytes beyond which data is not compressed: everybody on the shard would wait for it.
const COMPRESS_UP_TO: usize = 262_144;

impl Wire for Sse {
    fn transport(&self) -> &'static str {
        "sse"
    }

    fn encode(&self, outgoing: &Outgoing) -> Frame {
        let text = match outgoing {
            Outgoing::Event(event) => return self.event(event),
            Outgoing::Snapshot { told, index, position } => {
                let event = told.events.get(*index);
                let Some(shaped) = event.and_then(|event| event.shaped(&*self.shape)) else {
                    return unseen();
                };
                return match position {
                    Some(position) => self.data(shaped, Some(*position)),
                    None => told.frame(*index, self.variant, || self.data(shaped, None)),
                };
            }
            Outgoing::Batch(batch) => {
                return batch.frames.get(self.variant, || self.batch(&batch.events));
            }
            Outgoing::Connected(connected) => write(None, connected.position, &hello(connected)),
            Outgoing::Gap { channels, reason, position } => {
                let gap = json!({"type": "gap", "channels": channels, "reason": reason.as_str(),
                    "timestamp": now()});
                write(Some("gap"), *position, &gap.to_string())
            }
            Outgoing::Complete { data, position } => {
                let json =
                    format!(r#"{{"type":"complete","data":{data},"timestamp":"{}"}}"#, now());
                write(Some("complete"), Some(*position), &json)
            }
            Outgoing::Error(error) => {
                let json = json!({"type": "error", "error": error, "timestamp": now()});
                write(Some("error"), None, &json.to_string())
            }
            // Without an empty line, which some clients take for an event without data.
            Outgoing::KeepAlive => format!(": keep-alive {}\n", now()),
            Outgoing::Shutdown { retry } => {
                let json = json!({"type": "server_shutdown",
                    "message": "Server is shutting down", "timestamp": now()});
                format!("retry: {}\n{}", retry.as_millis(), write(None, None, &json.to_string()))
            }
        };
        Frame::new(text.as_bytes())
    }
}

fn hello(connected: &Connected) -> String {
    let mut hello = json!({
        "type": "connected",
        "message": "SSE connection established",
        "clientId": connected.client,
        "timestamp": now(),
        "channels": connected.channels,
        "recovered": connected.recovered,
    });
    if let Some(hello) = hello.as_object_mut() {
        if !connected.unreadable.is_empty() {
            hello.insert("unreadable".to_owned(), json!(connected.unreadable));
        }
        if connected.truncated > 0 {
            hello.insert("truncated".to_owned(), json!(connected.truncated));
        }
    }
    hello.to_string()
}

/// Names that end a stream or speak of it: no payload may take them.
fn is_ours(name: &str) -> bool {
    matches!(name, "complete" | "error" | "gap" | "open")
}

/// What is not for the clients of this stream: a comment, for an empty chunk would end the stream.
fn unseen() -> Frame {
    Frame::new(b":\n")
}

/// One event. An empty line ends it. A name with a line break in it is left out.
///
/// The id stands behind the data: some clients take the id of an event that was cut in its middle,
/// and would resume behind an event that they never had.
fn write(name: Option<&str>, position: Option<Position>, data: &str) -> String {
    let mut text = String::with_capacity(data.len() + 64);
    if let Some(name) = name.filter(|name| !name.contains(['\r', '\n'])) {
        push(&mut text, format_args!("event: {name}\n"));
    }
    push(&mut text, format_args!("data: {data}\n"));
    if let Some(position) = position {
        push(&mut text, format_args!("id: {position}\n"));
    }
    text.push('\n');
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    text.write_fmt(line).unwrap_or_default();
}

#[cfg(test)]
mod tests;
