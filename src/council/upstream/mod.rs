//! One attempt to be answered by a provider: the request goes out, what the answer says comes in.
//!
//! It knows no clock: how long to wait for the next word is its caller's business, and dropping it
//! closes the connection, which is how a provider is told to stop.

pub(super) mod sse;

use std::time::SystemTime;

use reqwest::{Client, Response, header};

use self::sse::{Item, SseReader};
use super::dialect::{Fault, FaultKind, Reader, Said, tidy};
use super::seat::Seat;

/// Bytes of one event of a provider, at most: signatures and citations are long.
const MOST_EVENT_BYTES: usize = 1 << 20;
/// Bytes of an error that are read.
const MOST_ERROR_BYTES: usize = 16 << 10;

/// An answer that is coming in.
pub(super) struct Upstream {
    response: Response,
    sse: SseReader,
    reader: Reader,
    items: Vec<Item>,
}

impl Upstream {
    /// Asks.
    ///
    /// # Errors
    /// When the provider cannot be reached, or says no.
    pub(super) async fn open(client: &Client, seat: &Seat, body: String) -> Result<Self, Fault> {
        let Some(url) = seat.url.clone() else {
            return Err(fault("its base_url is no URL".to_owned(), "unreachable"));
        };
        let request = client.post(url).headers(seat.headers.clone()).body(body);
        let response = request.send().await.map_err(|error| unreachable_fault(&error))?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        if !kind.starts_with("text/event-stream") {
            return Err(no_stream(response, &kind).await);
        }
        Ok(Self {
            response,
            sse: SseReader::new(MOST_EVENT_BYTES),
            reader: seat.dialect.reader(),
            items: Vec::new(),
        })
    }

    /// Adds what the next bytes tell to `said`. `false`: the stream has ended.
    ///
    /// # Errors
    /// When the connection broke.
    pub(super) async fn next(&mut self, said: &mut Vec<Said>) -> Result<bool, Fault> {
        let bytes = self.response.chunk().await.map_err(|error| broken(&error))?;
        let more = bytes.is_some();
        match bytes {
            Some(bytes) => self.sse.feed(&bytes, &mut self.items),
            None => self.sse.finish(&mut self.items),
        }
        for item in self.items.drain(..) {
            self.reader.read(item, said);
        }
        if !more {
            self.reader.end(said);
        }
        Ok(more)
    }
}

async fn refusal(mut response: Response) -> Fault {
    let status = response.status().as_u16();
    let body = start_of_body(&mut response).await;
    let headers = response.headers();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Fault::of_status(status, header, &body, SystemTime::now())
}

/// A page, or an answer in one piece: whatever it is, it is not what was asked for.
async fn no_stream(mut response: Response, kind: &str) -> Fault {
    let body = start_of_body(&mut response).await;
    let told = Fault::of_status(200, |_| None, &body, SystemTime::now());
    let message = tidy(&format!("no event stream but {kind:?}: {}", told.message));
    Fault { code: Some("no_event_stream".to_owned()), message, ..told }
}

async fn start_of_body(response: &mut Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        let room = MOST_ERROR_BYTES - body.len();
        body.extend(bytes.iter().take(room));
        if body.len() == MOST_ERROR_BYTES {
            break;
        }
    }
    body
}

fn unreachable_fault(error: &reqwest::Error) -> Fault {
    let what = if error.is_connect() { "cannot be reached" } else { "did not answer" };
    fault(format!("the provider {what}: {}", cause(error)), "unreachable")
}

fn broken(error: &reqwest::Error) -> Fault {
    fault(format!("the connection broke: {}", cause(error)), "disconnected")
}

fn fault(message: String, code: &str) -> Fault {
    let code = Some(code.to_owned());
    Fault { kind: FaultKind::Upstream, code, message, retryable: true, retry_after: None }
}

/// The innermost cause, in the system's own words: the outer ones repeat the URL.
fn cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.last().map_or_else(|| "no cause is known".to_owned(), ToString::to_string)
}
