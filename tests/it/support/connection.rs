//! A connection as bytes: for tests that look at what stands on it, or that read as they like.

use std::io;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::protocol::{Protocol, builder};
use super::within;

/// What the kernel keeps for a client that is to be felt when it does not read.
const SMALL: u32 = 4096;

/// A connection, and what has come but was not asked for yet.
pub(crate) struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
    /// The most that is read at once; how much of it is a matter of chance.
    pub(crate) most: usize,
}

impl Connection {
    /// Connects to the host of `url`. The kernel keeps little for it.
    pub(crate) async fn open(url: &str) -> Self {
        let (host, _) = split(url);
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(SMALL).unwrap();
        let socket = within("connect", socket.connect(host.parse().unwrap())).await.unwrap();
        Self { socket, received: Vec::new(), most: 65_536 }
    }

    pub(crate) async fn send(&mut self, text: &str) -> io::Result<()> {
        within("send", self.socket.write_all(text.as_bytes())).await
    }

    /// Takes the head of a stream and its first event.
    pub(crate) async fn begins(&mut self) {
        let head = self.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let first = self.event().await;
        assert!(first.contains(r#""type":"connected""#), "{first}");
    }

    /// The text of the next chunk, which is one whole event.
    pub(crate) async fn event(&mut self) -> String {
        let chunk = self.chunk().await.expect("a chunk that is not the last");
        let text = String::from_utf8(chunk.to_vec()).unwrap();
        assert_eq!(text.find("\n\n"), Some(text.len() - 2), "one event: {text}");
        text
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn half_close(&mut self) {
        self.socket.shutdown().await.unwrap();
    }

    /// The next bytes up to `end`, with it.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let end = end.as_bytes();
        loop {
            let found = self.received.windows(end.len()).position(|bytes| bytes == end);
            if let Some(found) = found {
                let text = self.received.drain(..found + end.len()).collect();
                return String::from_utf8(text).unwrap();
            }
            assert!(self.more().await.unwrap() > 0, "the connection ended too soon");
        }
    }

    /// The next chunk of a body; `None`: it was the last. Anything that is not the framing of
    /// RFC 9112, section 7.1, without extensions and trailers, fails the test.
    pub(crate) async fn chunk(&mut self) -> Option<Bytes> {
        let size = self.until("\r\n").await;
        let size = usize::from_str_radix(size.trim_end(), 16).expect("the size of a chunk");
        let chunk = self.take(size).await;
        assert_eq!(self.take(2).await, "\r\n", "the end of a chunk");
        (size > 0).then_some(chunk)
    }

    /// The next so many bytes.
    pub(crate) async fn take(&mut self, count: usize) -> Bytes {
        while self.received.len() < count {
            assert!(self.more().await.unwrap() > 0, "the connection ended too soon");
        }
        self.received.drain(..count).collect()
    }

    /// All that still comes before the connection ends; and an error if it is reset.
    pub(crate) async fn rest(mut self) -> (String, io::Result<()>) {
        let all = async {
            loop {
                match self.more().await {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
        };
        let end = within("the connection's end", all).await;
        (String::from_utf8(self.received).unwrap(), end)
    }

    async fn more(&mut self) -> io::Result<usize> {
        let mut bytes = vec![0; fastrand::usize(1..=self.most)];
        let count = within("more bytes", self.socket.read(&mut bytes)).await?;
        self.received.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

/// The head of a request over HTTP/1.1.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: gateway\r\n\r\n")
}

/// A client that opens a stream and then reads only when it is told to.
pub(crate) struct SlowReader {
    body: BoxStream<'static, Bytes>,
    text: String,
}

impl SlowReader {
    pub(super) async fn open(protocol: Protocol, url: &str) -> Self {
        let body = match protocol {
            Protocol::Http10 => whole(ask(url, "HTTP/1.0").await),
            Protocol::Http11 => chunked(ask(url, "HTTP/1.1").await),
            Protocol::Http2 => in_small_windows(url).await,
        };
        let mut opened = Self { body, text: String::new() };
        opened.until("\n\n").await;
        opened
    }

    /// Reads until `end` has come, and returns everything so far.
    pub(crate) async fn until(&mut self, end: &str) -> &str {
        within(end, async {
            let mut new = 0;
            while !self.text[new..].contains(end) {
                new = self.text.len().saturating_sub(end.len());
                assert!(self.more().await, "the stream ended before {end:?} came");
            }
        })
        .await;
        &self.text
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(mut self) -> String {
        within("the stream's end", async { while self.more().await {} }).await;
        self.text
    }

    async fn more(&mut self) -> bool {
        let bytes = self.body.next().await;
        self.text.push_str(str::from_utf8(bytes.as_deref().unwrap_or_default()).expect("ASCII"));
        bytes.is_some()
    }
}

/// Opens a stream and takes its head.
async fn ask(url: &str, version: &str) -> Connection {
    let (host, path) = split(url);
    let mut connection = Connection::open(url).await;
    connection.send(&format!("GET /{path} {version}\r\nhost: {host}\r\n\r\n")).await.unwrap();
    let head = connection.until("\r\n\r\n").await;
    assert!(head.starts_with(&format!("{version} 200 ")), "{head}");
    connection
}

fn whole(connection: Connection) -> BoxStream<'static, Bytes> {
    let next = async |mut connection: Connection| {
        while connection.received.is_empty() && connection.more().await.unwrap() > 0 {}
        let bytes = Bytes::from(std::mem::take(&mut connection.received));
        (!bytes.is_empty()).then_some((bytes, connection))
    };
    unfold(connection, next).boxed()
}

fn chunked(connection: Connection) -> BoxStream<'static, Bytes> {
    let next = async |mut connection: Connection| Some((connection.chunk().await?, connection));
    unfold(connection, next).boxed()
}

/// The kernel always reads; what was not asked for is bounded by the windows of HTTP/2.
async fn in_small_windows(url: &str) -> BoxStream<'static, Bytes> {
    let client = builder().http2_prior_knowledge().http2_initial_stream_window_size(SMALL);
    let response = within("open", client.build().unwrap().get(url).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    response.bytes_stream().map(Result::unwrap).boxed()
}

fn split(url: &str) -> (&str, &str) {
    url.strip_prefix("http://").unwrap().split_once('/').unwrap()
}
