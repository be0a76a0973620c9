//! The model behind every member: chat completions streamed as `OpenAI` does, whose text is nothing
//! but the times at which it was sent.
//!
//! A thread per connection reads requests and says the role. One thread beside them, the metronome,
//! sends all that comes later, each answer on a schedule of its own: one that is late has no later
//! ones. Writes block, because a whole answer fits into the buffers of a socket.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpSocket;

use crate::Clock;

/// What every answer is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    /// From the request to the first text.
    pub(crate) ttft: Duration,
    /// From one text to the next.
    pub(crate) gap: Duration,
    /// How many texts there are.
    pub(crate) texts: u32,
}

/// The most that a request may have in its body.
const LARGEST_REQUEST: u64 = 1 << 20;
const STACK: usize = 128 << 10;
/// So long a client may read nothing before it is given up, for the metronome waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

/// Listens where members are to ask; all of them may come at once.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(4096)?.into_std()?;
    listener.set_nonblocking(false)?;
    Ok(listener)
}

/// Answers on `listener` until the process ends.
pub(crate) fn serve(listener: TcpListener, clock: Clock, script: Script) -> io::Result<()> {
    // When it is full, requests wait to be answered.
    let (begun, answers) = mpsc::sync_channel(1024);
    thread::Builder::new()
        .name("metronome".to_owned())
        .spawn(move || play(&answers, clock, script))?;
    let accept = move || {
        for socket in listener.incoming().flatten() {
            let begun = begun.clone();
            let talk = move || converse(&Arc::new(socket), &begun, clock, script);
            // A client that is refused or leaves says so itself.
            drop(thread::Builder::new().stack_size(STACK).spawn(talk));
        }
    };
    thread::Builder::new().name("upstream".to_owned()).spawn(accept)?;
    Ok(())
}

/// Reads requests, one after another, and begins to answer them.
fn converse(
    socket: &Arc<TcpStream>,
    begun: &SyncSender<Answer>,
    clock: Clock,
    script: Script,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut requests = BufReader::new(&**socket);
    while let Some((target, body)) = read_request(&mut requests)? {
        if !target.ends_with("/chat/completions") {
            (&**socket).write_all(NOT_FOUND)?;
            continue;
        }
        let due = clock.now() + nanos(script.ttft);
        let Request { model } = serde_json::from_slice(&body)?;
        let answer = Answer { socket: Arc::clone(socket), model, due, sent: 0 };
        let role = answer.chunk(r#"{"role":"assistant","content":""}"#, "null");
        answer.write(&format!("{HEAD}{role}"))?;
        if begun.send(answer).is_err() {
            break;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Request {
    model: Box<RawValue>,
}

/// The target and the body of the next request, if there is one.
fn read_request(from: &mut impl BufRead) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let target = line.split(' ').nth(1).ok_or(ErrorKind::InvalidData)?;
    let target = target.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| ErrorKind::InvalidData)?;
        }
    }
    let mut body = Vec::new();
    from.take(u64::min(length, LARGEST_REQUEST)).read_to_end(&mut body)?;
    Ok(Some((target, body)))
}

/// Says what is due, for all answers.
fn play(begun: &Receiver<Answer>, clock: Clock, script: Script) {
    // By when it is due, and by a number that tells apart what is due at once.
    let mut waiting: BTreeMap<(u64, u64), Answer> = BTreeMap::new();
    for number in 0.. {
        let next = waiting.first_key_value().map(|((due, _), _)| *due);
        let wait =
            next.map_or(Duration::MAX, |due| Duration::from_nanos(due.saturating_sub(clock.now())));
        let answer = match begun.recv_timeout(wait) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => waiting
                .pop_first()
                .and_then(|(_, mut answer)| answer.go_on(clock, script).then_some(answer)),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Some(answer) = answer {
            waiting.insert((answer.due, number), answer);
        }
    }
}

/// One that is being given.
struct Answer {
    socket: Arc<TcpStream>,
    /// As the request has it.
    model: Box<RawValue>,
    due: u64,
    sent: u32,
}

impl Answer {
    /// Says what is due; false if that was the last of it, or nobody listens.
    fn go_on(&mut self, clock: Clock, script: Script) -> bool {
        let last = self.sent == script.texts;
        let said = if last { self.end() } else { self.text(clock) };
        if self.write(&said).is_err() || last {
            return false;
        }
        // All members of a council are asked at once; from here on, they do not speak at once.
        let phase =
            if self.sent == 0 { script.gap.mul_f64(fastrand::f64()) } else { Duration::ZERO };
        self.due += nanos(script.gap + phase);
        self.sent += 1;
        true
    }

    fn text(&self, clock: Clock) -> String {
        self.chunk(&format!(r#"{{"content":"{} "}}"#, clock.now()), "null")
    }

    fn chunk(&self, delta: &str, finish_reason: &str) -> String {
        let choice = format!(
            r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish_reason}}}"#
        );
        self.data(&format!(r#"[{choice}],"usage":null"#))
    }

    fn data(&self, choices: &str) -> String {
        let model = &self.model;
        frame(&format!(
            r#"data: {{"id":"chatcmpl-load","object":"chat.completion.chunk","created":1700000000,"model":{model},"choices":{choices}}}"#
        ))
    }

    fn end(&self) -> String {
        let (stop, texts) = (self.chunk("{}", r#""stop""#), self.sent);
        let usage = self.data(&format!(
            r#"[],"usage":{{"prompt_tokens":9,"completion_tokens":{texts},"total_tokens":{}}}"#,
            texts + 9
        ));
        format!("{stop}{usage}{}0\r\n\r\n", frame("data: [DONE]"))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        (&*self.socket).write_all(text.as_bytes())
    }
}

/// One event of Server-Sent Events, as a chunk of HTTP.
fn frame(line: &str) -> String {
    format!("{:x}\r\n{line}\n\n\r\n", line.len() + 2)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
