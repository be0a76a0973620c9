//! The clients of both paths: they ask, read, and note when each text arrived and when it was sent.
//!
//! All of them are tasks of one thread. The time is taken as soon as a read returns, before
//! anything is made of it. Connections are made and accepted before the first request.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::Clock;
use crate::hearing::{Hearing, Speech};
use crate::tally::Tally;

/// What is asked of whom.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    /// The time that the upstream tells.
    pub(crate) clock: Clock,
    /// Members of a council.
    pub(crate) members: usize,
    /// What each of them says.
    pub(crate) texts: usize,
    /// The first stream and the last begin so far apart.
    pub(crate) ramp: Duration,
    /// A stream that takes longer is given up.
    pub(crate) patience: Duration,
}

/// Where and how to ask.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'a> {
    /// Straight to the upstream at this address, with a connection for each member.
    Direct(&'a str),
    /// Through the gateway at this URL, where `{i}` stands for a number of the stream's own.
    Gateway(&'a str),
}

const READ: usize = 16 << 10;
/// So long after the connections are made whoever is asked may still be busy with them.
const SETTLE: Duration = Duration::from_millis(200);

impl Course {
    /// Runs so many streams at a time, the first of which has the number `first`.
    pub(crate) async fn run(&self, path: Path<'_>, streams: u32, first: u32) -> Tally {
        let mut tally = Tally::default();
        let mut asked = Vec::new();
        for stream in 0..streams {
            for request in self.requests(path, first + stream) {
                match connect(&request.authority).await {
                    Ok(socket) => asked.push((stream, socket, request)),
                    Err(error) => tally.faults.push(format!("cannot connect: {error}")),
                }
            }
        }
        let begin = Instant::now() + SETTLE;
        let mut listening = JoinSet::new();
        for (stream, socket, request) in asked {
            let at = begin + self.ramp * stream / streams;
            listening.spawn(listen(self.clone(), socket, request, at));
        }
        while let Some(heard) = listening.join_next().await {
            tally.add(heard.unwrap_or_else(|error| failed(error.to_string())));
        }
        tally
    }

    fn requests(&self, path: Path<'_>, number: u32) -> Vec<Request> {
        match path {
            Path::Direct(authority) => {
                (1..=self.members).map(|member| Request::direct(authority, member)).collect()
            }
            Path::Gateway(url) => vec![Request::gateway(&url.replace("{i}", &number.to_string()))],
        }
    }
}

struct Request {
    authority: String,
    text: String,
    speech: Speech,
}

impl Request {
    fn direct(authority: &str, member: usize) -> Self {
        let body = format!(
            r#"{{"model":"m{member}","messages":[{{"role":"user","content":"Score this."}}],"stream":true,"stream_options":{{"include_usage":true}}}}"#
        );
        let text = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {authority}\r\naccept: text/event-stream\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { authority: authority.to_owned(), text, speech: Speech::Completion }
    }

    fn gateway(url: &str) -> Self {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let (authority, target) = rest.split_once('/').unwrap_or((rest, ""));
        let text = format!(
            "GET /{target} HTTP/1.1\r\nhost: {authority}\r\naccept: text/event-stream\r\n\r\n"
        );
        Self { authority: authority.to_owned(), text, speech: Speech::Council }
    }
}

async fn connect(authority: &str) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect(authority).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn failed(fault: String) -> Tally {
    Tally { faults: vec![fault], ..Tally::default() }
}

/// Asks at the given time and listens to the end.
async fn listen(course: Course, mut socket: TcpStream, request: Request, at: Instant) -> Tally {
    sleep_until(at).await;
    let mut hearing = Hearing::new(request.speech, course.clock.now());
    let heard = async {
        socket.write_all(request.text.as_bytes()).await?;
        read(&mut socket, course.clock, &mut hearing).await
    };
    let ended = timeout_at(at + course.patience, heard).await;
    let members = match request.speech {
        Speech::Completion => 1,
        Speech::Council => course.members,
    };
    let mut tally = hearing.verdict(members, course.texts);
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tally.faults.push(format!("{error:#}")),
        Err(_) => tally.faults.push("took too long".to_owned()),
    }
    tally
}

/// Reads until all is said or the connection ends.
async fn read(socket: &mut TcpStream, clock: Clock, hearing: &mut Hearing) -> anyhow::Result<()> {
    let mut body = Body::default();
    while !hearing.ended() {
        body.raw.reserve(READ);
        if socket.read_buf(&mut body.raw).await? == 0 {
            return Ok(());
        }
        let at = clock.now();
        body.decode()?;
        while let Some(line) = body.line() {
            hearing.line(line.trim_ascii_end(), at)?;
        }
    }
    Ok(())
}

/// The body of a response as it comes in, chunked or not.
#[derive(Default)]
struct Body {
    /// Read, but not decoded.
    raw: BytesMut,
    framing: Framing,
    /// Decoded, but not taken.
    text: BytesMut,
}

#[derive(Default, Clone, Copy)]
enum Framing {
    #[default]
    Head,
    /// So much is left of the chunk that is read.
    Chunk(usize),
    Plain,
}

impl Body {
    /// Takes from `raw` all that is there as a whole.
    fn decode(&mut self) -> anyhow::Result<()> {
        loop {
            match self.framing {
                Framing::Plain => {
                    self.text.extend_from_slice(&self.raw.split());
                    return Ok(());
                }
                Framing::Head => {
                    let Some(head) = take_to(&mut self.raw, b"\r\n\r\n") else { return Ok(()) };
                    self.framing = framing(&head)?;
                }
                Framing::Chunk(0) => {
                    let Some(line) = take_to(&mut self.raw, b"\r\n") else { return Ok(()) };
                    // What ends a chunk is an empty line.
                    let size = line.trim_ascii();
                    if !size.is_empty() {
                        let size = usize::from_str_radix(std::str::from_utf8(size)?, 16);
                        self.framing = Framing::Chunk(size.context("not the size of a chunk")?);
                    }
                }
                Framing::Chunk(_) if self.raw.is_empty() => return Ok(()),
                Framing::Chunk(left) => {
                    let here = left.min(self.raw.len());
                    self.text.extend_from_slice(&self.raw.split_to(here));
                    self.framing = Framing::Chunk(left - here);
                }
            }
        }
    }

    fn line(&mut self) -> Option<BytesMut> {
        take_to(&mut self.text, b"\n")
    }
}

/// All up to the given end and with it, if it is there.
fn take_to(from: &mut BytesMut, end: &[u8]) -> Option<BytesMut> {
    let found = from.windows(end.len()).position(|window| window == end)?;
    Some(from.split_to(found + end.len()))
}

fn framing(head: &[u8]) -> anyhow::Result<Framing> {
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "answered {status}");
    let chunked = head.lines().any(|line| line == "transfer-encoding: chunked");
    Ok(if chunked { Framing::Chunk(0) } else { Framing::Plain })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    fn lines(pieces: &[&[u8]]) -> anyhow::Result<Vec<BytesMut>> {
        let mut body = Body::default();
        let mut lines = Vec::new();
        for piece in pieces {
            body.raw.extend_from_slice(piece);
            body.decode()?;
            lines.extend(std::iter::from_fn(|| body.line()));
        }
        Ok(lines)
    }

    #[test]
    fn a_chunked_body_has_the_same_lines_wherever_reads_split_it() {
        let all = format!("{HEAD}9\r\ndata: a\n\n\r\n4\r\ndata\r\n4\r\n: b\n\r\n0\r\n\r\n");
        for split in 0..=all.len() {
            let (before, after) = all.as_bytes().split_at(split);
            assert_eq!(lines(&[before, after]).unwrap(), ["data: a\n", "\n", "data: b\n"]);
        }
    }

    #[test]
    fn a_body_that_is_not_chunked_is_taken_as_it_is() {
        let all = b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n4\r\ndata: a\n";
        assert_eq!(lines(&[all]).unwrap(), ["4\r\n", "data: a\n"]);
    }

    #[test]
    fn any_other_status_is_a_failure() {
        assert!(lines(&[b"HTTP/1.1 503 Service Unavailable\r\n\r\n"]).is_err());
    }
}
