//! An upstream that says exactly the bytes it was given, in the pieces it was given, and keeps what
//! it was asked: for what no stand-in says (CRLF, broken UTF-8, raw errors, cuts in the middle of
//! a line). It knows HTTP/1.1 just well enough to read a request.

use std::future::pending;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::wait_for;

/// A step of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// Goes on when the test says so.
    Wait(Arc<Notify>),
    /// Never goes on, and leaves the connection open.
    Stall,
    /// Ends the connection: in the middle of the answer, if it is in chunks.
    Close,
    /// Ends the connection with a TCP reset.
    Reset,
}

impl<T: AsRef<[u8]>> From<T> for Piece {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.as_ref().to_vec())
    }
}

/// All that is said to one request; then the connection is closed.
#[derive(Debug, Clone)]
pub(crate) struct Script(Vec<Piece>);

impl Script {
    /// An event stream that ends with the connection.
    pub(crate) fn stream(pieces: Vec<Piece>) -> Self {
        Self::answer("200 OK", &["content-type: text/event-stream"], pieces)
    }

    /// An event stream with a chunk for each of the pieces, and a last one.
    pub(crate) fn chunked(pieces: Vec<Piece>) -> Self {
        let headers = ["content-type: text/event-stream", "transfer-encoding: chunked"];
        let chunks = pieces.into_iter().map(|piece| match piece {
            Piece::Bytes(bytes) => {
                let start = format!("{:x}\r\n", bytes.len());
                Piece::Bytes([start.as_bytes(), &bytes, b"\r\n"].concat())
            }
            other => other,
        });
        Self::answer("200 OK", &headers, chunks.chain([Piece::from("0\r\n\r\n")]).collect())
    }

    /// Any status, such as `429 Too Many Requests`, with any headers, such as `retry-after: 1`; the
    /// body ends with the connection.
    pub(crate) fn answer(status: &str, headers: &[&str], mut pieces: Vec<Piece>) -> Self {
        let status = format!("HTTP/1.1 {status}");
        let head = [&[status.as_str(), "connection: close"], headers, &["", ""]].concat();
        pieces.insert(0, Piece::from(head.join("\r\n")));
        Self(pieces)
    }
}

/// What a client has asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// `None` if the client leaves before it has said it all.
    async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut stream = BufReader::new(stream);
        let start = line(&mut stream).await?;
        let mut words = start.split(' ').map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let mut headers = Vec::new();
        while let Some((name, value)) = line(&mut stream).await?.split_once(':') {
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut request = Self { method, path, headers, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        request.body = vec![0; length];
        stream.read_exact(&mut request.body).await.ok()?;
        Some(request)
    }
}

/// Without its end.
async fn line(stream: &mut BufReader<&mut TcpStream>) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    Some(line.strip_suffix("\r\n")?.to_owned())
}

#[derive(Default)]
struct Shared {
    scripts: Vec<Script>,
    requests: Vec<Request>,
    /// How many clients have closed their connection before the script was at its end.
    left: usize,
}

pub(crate) struct Replay {
    base: String,
    shared: Arc<Mutex<Shared>>,
    _server: JoinSet<()>,
}

impl Replay {
    /// Answers the n-th request by the n-th script, and all that follow by the last.
    pub(crate) async fn start(scripts: Vec<Script>) -> Self {
        assert!(!scripts.is_empty(), "there is something to say");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared { scripts, ..Shared::default() }));
        let mut server = JoinSet::new();
        server.spawn(accept(listener, Arc::clone(&shared)));
        Self { base, shared, _server: server }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// What it was asked, oldest first.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// Waits until so many requests have come in all.
    pub(crate) async fn asked(&self, count: usize) {
        wait_for("requests", async || self.shared.lock().requests.len() >= count).await;
    }

    /// Waits until so many clients in all have closed their connection before the end.
    pub(crate) async fn left(&self, count: usize) {
        wait_for("clients that leave", async || self.shared.lock().left >= count).await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream, Arc::clone(&shared)));
    }
}

/// Plays the script whose turn it is, until its end or until the client leaves.
async fn answer(mut stream: TcpStream, shared: Arc<Mutex<Shared>>) {
    stream.set_nodelay(true).unwrap();
    let Some(request) = Request::read(&mut stream).await else { return };
    let script = {
        let mut shared = shared.lock();
        shared.requests.push(request);
        let turn = shared.requests.len().min(shared.scripts.len()) - 1;
        shared.scripts[turn].clone()
    };
    let (from_client, to_client) = stream.split();
    let played = tokio::select! {
        played = play(script, to_client) => played,
        () = leaves(from_client) => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    match played {
        Ok(Ending::Close) => {}
        Ok(Ending::Reset) => stream.set_zero_linger().unwrap(),
        Err(_) => shared.lock().left += 1,
    }
}

enum Ending {
    Close,
    Reset,
}

async fn play(script: Script, mut to_client: WriteHalf<'_>) -> io::Result<Ending> {
    for piece in script.0 {
        match piece {
            Piece::Bytes(bytes) => to_client.write_all(&bytes).await?,
            Piece::Wait(go_on) => go_on.notified().await,
            Piece::Stall => pending().await,
            Piece::Close => break,
            Piece::Reset => return Ok(Ending::Reset),
        }
    }
    Ok(Ending::Close)
}

/// Returns when the client has closed its connection.
async fn leaves(mut from_client: ReadHalf<'_>) {
    while let Ok(1..) = from_client.read(&mut [0; 64]).await {}
}
