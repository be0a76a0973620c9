//! Between a session and the body of a response, whose bytes HTTP's library writes.
//!
//! Every stream begins here, so that its first words go out with the response's head. An HTTP/1.1
//! connection then leaves hyper (see [`Exit`](super::Exit)); the others go on like this.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;

use super::exit::Exit;
use super::socket::Connection;
use super::writer::{Writer, live_event};
use crate::session::{Outbox, Passed};

/// Bytes that wait for the body to be read, at most, and one frame more. What does not fit stays in
/// the outbox.
const ROOM: usize = 16_384;

/// What both sides share: a slot for frames, and how things stand.
#[derive(Debug)]
pub struct Slot {
    state: Mutex<State>,
    exit: Option<Exit>,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    stage: Stage,
    session: Option<Waker>,
    reader: Option<Waker>,
    /// Whether the session waits for room.
    full: bool,
}

#[derive(Debug, Default)]
enum Stage {
    /// Nothing was said yet.
    #[default]
    Silent,
    /// The client has had the stream's end before.
    AlreadyOver,
    Open,
    /// The connection is about to leave hyper: nothing more goes this way.
    Leaving,
    /// It has left.
    Left(Box<Connection>),
    /// Nothing follows what waits.
    Ended,
    /// The session has ended without an end of its stream.
    Cut,
    /// The client is gone.
    Gone,
}

/// How a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It has something to say.
    Open,
    /// The client has had the stream's end before.
    AlreadyOver,
    /// The node stops; the client was not let in.
    TurnedAway,
}

/// The stream was ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream was cut")]
pub struct Cut;

/// What the session says, as the bytes of a body. Dropping it tells the session that its client is
/// gone.
#[derive(Debug)]
pub struct Body(Arc<Slot>);

impl Slot {
    /// With an `exit`, the connection leaves hyper once the first words are read.
    pub(super) fn new(exit: Option<Exit>) -> Self {
        Self { state: Mutex::default(), exit }
    }

    pub(super) fn attach(&self, waker: Waker) {
        self.state.lock().session = Some(waker);
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Gone)
    }

    /// The connection, if it has left hyper since.
    pub(super) fn connection(&self) -> Option<Box<Connection>> {
        let mut state = self.state.lock();
        match std::mem::take(&mut state.stage) {
            Stage::Left(connection) => Some(connection),
            other => {
                state.stage = other;
                None
            }
        }
    }

    pub(super) fn pass_on(&self, outbox: &mut Outbox, last: bool, writer: &Writer) -> Passed {
        let mut state = self.state.lock();
        match state.stage {
            Stage::Gone => return Passed::Gone,
            Stage::AlreadyOver | Stage::Cut | Stage::Ended if state.frames.is_empty() => {
                return Passed::All;
            }
            Stage::Leaving | Stage::Left(_) if outbox.is_empty() && !last => return Passed::All,
            Stage::Leaving | Stage::Left(_) | Stage::Ended => return Passed::Nothing,
            _ => {}
        }
        let (mut frames, mut bytes, mut oldest) = (0, 0, None);
        while state.bytes < ROOM {
            let Some(said) = outbox.pop(writer.shape()) else { break };
            let frame = writer.encode(&said).body();
            frames += 1;
            bytes += frame.len();
            state.bytes += frame.len();
            state.frames.push_back(frame);
            oldest = oldest.or_else(|| live_event(&said).is_some().then_some(said));
        }
        if frames > 0 {
            state.stage = Stage::Open;
            writer.count(frames, bytes, oldest.as_ref().and_then(live_event));
        }
        if last && outbox.is_empty() {
            state.stage = Stage::Ended;
        }
        state.wake_reader();
        state.full = !outbox.is_empty() || last && !state.frames.is_empty();
        match (state.full, frames) {
            (false, _) => Passed::All,
            (true, 0) => Passed::Nothing,
            (true, _) => Passed::Some,
        }
    }

    pub(super) fn backlog(&self) -> usize {
        let state = self.state.lock();
        if state.full { state.bytes } else { 0 }
    }

    pub(super) fn already_over(&self) {
        let mut state = self.state.lock();
        state.stage = Stage::AlreadyOver;
        state.wake_reader();
    }

    /// The session has ended, whatever still waits.
    pub(super) fn cut(&self) {
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::AlreadyOver | Stage::Gone)
            || matches!(state.stage, Stage::Ended) && state.frames.is_empty()
        {
            return;
        }
        // Whoever has not had a word gets another answer.
        let answered = !matches!(state.stage, Stage::Silent);
        state.stage = Stage::Cut;
        state.frames = VecDeque::new();
        state.bytes = 0;
        state.wake_reader();
        if let Some(exit) = self.exit.as_ref().filter(|_| answered) {
            exit.cut();
        }
    }

    /// The connection has left hyper. `None`: it was lost on the way.
    pub fn leave(&self, connection: Option<Connection>) {
        let mut state = self.state.lock();
        state.stage = match connection {
            _ if matches!(state.stage, Stage::Cut) => Stage::Cut,
            Some(connection) => Stage::Left(Box::new(connection)),
            None => Stage::Gone,
        };
        state.wake_session();
    }
}

impl State {
    fn wake_session(&self) {
        if let Some(session) = &self.session {
            session.wake_by_ref();
        }
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wait(&mut self, context: &Context<'_>) {
        self.reader = Some(context.waker().clone());
    }
}

impl Body {
    pub(super) fn new(slot: Arc<Slot>) -> Self {
        Self(slot)
    }

    /// Waits for the first word.
    pub async fn opening(&self) -> Opening {
        poll_fn(|context| {
            let mut state = self.0.state.lock();
            Poll::Ready(match state.stage {
                Stage::Silent => {
                    state.wait(context);
                    return Poll::Pending;
                }
                Stage::AlreadyOver => Opening::AlreadyOver,
                Stage::Cut => Opening::TurnedAway,
                _ => Opening::Open,
            })
        })
        .await
    }
}

impl Stream for Body {
    type Item = Result<Bytes, Cut>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.state.lock();
        if let Some(frame) = state.frames.pop_front() {
            state.bytes -= frame.len();
            if state.full && state.bytes < ROOM / 2 {
                state.wake_session();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        match (&state.stage, &self.0.exit) {
            (Stage::Ended, _) => {
                state.wake_session();
                return Poll::Ready(None);
            }
            (Stage::Cut, _) => return Poll::Ready(Some(Err(Cut))),
            (Stage::Open, Some(exit)) if exit.leads_to_socket() => {
                state.stage = Stage::Leaving;
                exit.ask(&self.0);
            }
            _ => {}
        }
        state.wait(context);
        Poll::Pending
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if matches!(state.stage, Stage::Left(_) | Stage::Cut | Stage::AlreadyOver) {
            return;
        }
        if matches!(state.stage, Stage::Leaving) && self.0.exit.as_ref().is_some_and(Exit::is_open)
        {
            return;
        }
        state.stage = Stage::Gone;
        state.frames = VecDeque::new();
        state.bytes = 0;
        state.wake_session();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_turned_away_can_be_answered() {
        let exit = Exit::default();
        let slot = Arc::new(Slot::new(Some(exit.of_request(true))));
        let body = Body::new(Arc::clone(&slot));
        slot.cut();
        assert_eq!(body.opening().await, Opening::TurnedAway);
        let leave = exit.poll_leave(&Context::from_waker(Waker::noop()));
        assert!(leave.is_pending(), "the connection is not cut");
    }
}
