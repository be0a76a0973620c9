//! A connection that has left hyper: its shard writes to it, and nothing else runs for it.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use prometheus::IntGauge;
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::tuning::Tuning;
use super::writer::{Writer, live_event};
use crate::event::Frame;
use crate::session::{Outbox, Passed};

/// Frames in one write, and the bytes after which no more are added. More gain nothing, and what the
/// socket of a slow client does not take has to be looked up or made again.
const FRAMES: usize = 64;
const BYTES: usize = 65_536;
/// Writes before others have their turn.
const WRITES: usize = 1;
/// The end of a chunked body (RFC 9112, section 7.1).
const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");
/// What a client may send at once on its stream. It has nothing to say.
const CHATTER: usize = 16;

/// A connection and what is let go with it.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    tuning: Arc<Tuning>,
    _permit: OwnedSemaphorePermit,
    _count: Count,
}

/// Counts one in a gauge for as long as it lives.
#[derive(Debug)]
pub struct Count(IntGauge);

/// A connection that carries nothing but one stream.
#[derive(Debug)]
pub(super) struct Socket {
    connection: Connection,
    waker: Waker,
    /// What is left of a frame of which a part was written, and the last chunk.
    rest: Bytes,
    /// Whether the client may have said something, or has left.
    readable: bool,
    reading: Reading,
    ended: bool,
}

/// How the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    KeepsUp,
    /// Not all that waited has been taken since the kernel took no more.
    Lags,
    /// The kernel takes no more.
    Stuck,
    /// It has left, or is sent away.
    Gone,
}

/// Has a connection reset when it is closed, so that the kernel keeps nothing of it.
pub fn reset(stream: &TcpStream) {
    // It is closed in any case.
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap_or_default();
}

impl Connection {
    /// `permit` and `count` are let go when the connection is closed.
    pub fn new(
        stream: TcpStream,
        tuning: Arc<Tuning>,
        permit: OwnedSemaphorePermit,
        count: Count,
    ) -> Self {
        Self { stream, tuning, _permit: permit, _count: count }
    }
}

impl Count {
    /// One more.
    pub fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Socket {
    pub(super) fn new(connection: Connection, waker: Waker) -> Self {
        let rest = Bytes::new();
        Self { connection, waker, rest, readable: true, reading: Reading::KeepsUp, ended: false }
    }

    pub(super) fn woken(&mut self) {
        self.readable = true;
        if self.reading == Reading::Stuck {
            self.reading = Reading::Lags;
        }
    }

    pub(super) fn pass_on(&mut self, outbox: &mut Outbox, last: bool, writer: &Writer) -> Passed {
        if self.readable && self.is_gone() {
            self.reading = Reading::Gone;
        }
        match self.reading {
            Reading::Gone => return Passed::Gone,
            Reading::Stuck => return Passed::Nothing,
            Reading::KeepsUp | Reading::Lags => {}
        }
        let mut progress = Passed::Nothing;
        let mut done = 0;
        loop {
            if last && outbox.is_empty() && !self.ended {
                self.ended = true;
                self.rest = [std::mem::take(&mut self.rest), LAST_CHUNK].concat().into();
            }
            if self.rest.is_empty() && outbox.is_empty() {
                self.set_reading(Reading::KeepsUp);
                if self.ended {
                    // What is left unread when a socket is closed turns the end into a reset.
                    self.is_gone();
                }
                return Passed::All;
            }
            if done >= WRITES {
                self.set_reading(Reading::KeepsUp);
                return Passed::More;
            }
            match self.write(outbox, writer) {
                Ok(()) => {
                    progress = Passed::Some;
                    done += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.is_full() {
                        self.set_reading(Reading::Stuck);
                        return progress;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Passed::Gone,
            }
        }
    }

    /// What waits in the kernel is not known; of a slow client it is taken to be the most it can be.
    pub(super) fn backlog(&self) -> usize {
        match self.reading {
            Reading::KeepsUp | Reading::Gone => 0,
            Reading::Lags | Reading::Stuck => {
                self.rest.len() + self.connection.tuning.kernel_bytes()
            }
        }
    }

    /// What the kernel still holds is thrown away too.
    pub(super) fn cut(&mut self) {
        reset(&self.connection.stream);
        self.rest = Bytes::new();
        self.reading = Reading::Gone;
    }

    /// One write of all that waits, or as much of it as goes into one.
    fn write(&mut self, outbox: &mut Outbox, writer: &Writer) -> io::Result<()> {
        let mut room = BYTES;
        let mut frames: SmallVec<[Frame; 8]> = SmallVec::new();
        outbox.look(|outgoing| {
            let frame = writer.encode(outgoing);
            room = room.saturating_sub(frame.chunk().len());
            frames.push(frame);
            frames.len() < FRAMES && room > 0
        });
        let mut written = match (self.rest.is_empty(), &*frames) {
            (true, [only]) => self.connection.stream.try_write(only.chunk())?,
            (empty, frames) => {
                let rest = (!empty).then(|| IoSlice::new(&self.rest));
                let frames = frames.iter().map(|frame| IoSlice::new(frame.chunk()));
                let slices: SmallVec<[IoSlice<'_>; 8]> = rest.into_iter().chain(frames).collect();
                self.connection.stream.try_write_vectored(&slices)?
            }
        };
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        let rest = written.min(self.rest.len());
        self.rest.advance(rest);
        written -= rest;
        self.took(written, &frames, outbox, writer);
        Ok(())
    }

    /// Takes `written` bytes of `frames` from the outbox.
    fn took(&mut self, mut written: usize, frames: &[Frame], outbox: &mut Outbox, writer: &Writer) {
        let (mut count, mut bytes) = (0, 0);
        let mut oldest = None;
        for frame in frames {
            if written == 0 {
                break;
            }
            let chunk = frame.chunk();
            if written < chunk.len() {
                self.rest = chunk.slice(written..);
            }
            written = written.saturating_sub(chunk.len());
            let said = outbox.pop(writer.shape());
            count += 1;
            bytes += frame.body().len();
            oldest = oldest.or_else(|| said.filter(|said| live_event(said).is_some()));
        }
        writer.count(count, bytes, oldest.as_ref().and_then(live_event));
    }

    fn set_reading(&mut self, reading: Reading) {
        let slow = reading != Reading::KeepsUp;
        if slow != (self.reading != Reading::KeepsUp) {
            self.connection.tuning.be_patient(&self.connection.stream, slow);
        }
        self.reading = reading;
    }

    /// Whether there is no room; if so, the waker is told when there is.
    fn is_full(&self) -> bool {
        let mut context = Context::from_waker(&self.waker);
        self.connection.stream.poll_write_ready(&mut context).is_pending()
    }

    /// Whether the client has left; if not, the waker is told when it does.
    fn is_gone(&mut self) -> bool {
        let mut context = Context::from_waker(&self.waker);
        let mut ignored = [0; 512];
        for _ in 0..CHATTER {
            match self.connection.stream.try_read(&mut ignored) {
                Ok(0) => return true,
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return true,
            }
            match self.connection.stream.poll_read_ready(&mut context) {
                Poll::Pending => {
                    self.readable = false;
                    return false;
                }
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) => {}
            }
        }
        // Whoever talks all the time does not listen.
        true
    }
}
