//! How a connection leaves hyper once it carries nothing but one stream.
//!
//! hyper reads the request and writes the response's head and the first words. Its buffers and its
//! state are then worth many times what the stream needs, so the connection is taken from it: hyper
//! is given a [`Lent`] view of the socket; when the stream has asked to leave and all that hyper
//! had to say is in the kernel, [`Exit::opened`] lets whoever drives hyper drop it and keep the
//! socket.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::body::Slot;

/// One connection's way out of hyper.
#[derive(Debug, Clone, Default)]
pub struct Exit {
    state: Arc<Mutex<State>>,
    /// Whether the stream may take it; if not, the connection can be cut only.
    to_socket: bool,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    /// Whoever drives hyper.
    driver: Option<Waker>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Closed,
    /// The stream has nothing more for hyper; hyper may still hold some of it.
    Asked(Weak<Slot>),
    /// All that hyper was given is in the kernel.
    Open(Weak<Slot>),
    /// The connection is to be closed.
    Cut,
}

/// How a connection leaves hyper.
#[derive(Debug)]
pub enum Leave {
    /// It goes on as this stream.
    Stream(Weak<Slot>),
    /// It is to be closed.
    Cut,
}

/// A socket as hyper sees it: shared, so that dropping hyper does not close it.
#[derive(Debug)]
pub struct Lent {
    stream: Arc<TcpStream>,
    exit: Exit,
}

impl Exit {
    /// Asks to leave as soon as all that was said so far is written.
    pub(super) fn ask(&self, slot: &Arc<Slot>) {
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::Closed) {
            state.stage = Stage::Asked(Arc::downgrade(slot));
        }
    }

    /// Has the connection closed, whatever hyper still has to write.
    pub(super) fn cut(&self) {
        let mut state = self.state.lock();
        state.stage = Stage::Cut;
        if let Some(driver) = &state.driver {
            driver.wake_by_ref();
        }
    }

    /// The way out for one request. `to_socket`: its connection carries nothing else, and chunks.
    #[must_use]
    pub fn of_request(&self, to_socket: bool) -> Self {
        Self { state: Arc::clone(&self.state), to_socket }
    }

    /// Whether the stream goes on without hyper.
    pub fn leads_to_socket(&self) -> bool {
        self.to_socket
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Open(_))
    }

    /// Whether the connection leaves hyper now. To be asked each time hyper was polled.
    pub fn poll_leave(&self, context: &Context<'_>) -> Poll<Leave> {
        let mut state = self.state.lock();
        match &state.stage {
            Stage::Open(slot) => return Poll::Ready(Leave::Stream(Weak::clone(slot))),
            Stage::Cut => return Poll::Ready(Leave::Cut),
            Stage::Closed | Stage::Asked(_) => {}
        }
        if !state.driver.as_ref().is_some_and(|driver| driver.will_wake(context.waker())) {
            state.driver = Some(context.waker().clone());
        }
        Poll::Pending
    }

    fn flushed(&self) {
        let mut state = self.state.lock();
        if let Stage::Asked(slot) = &state.stage {
            state.stage = Stage::Open(Weak::clone(slot));
        }
    }
}

impl Lent {
    /// Lends `stream`, which leaves through `exit`.
    pub fn new(stream: &Arc<TcpStream>, exit: &Exit) -> Self {
        Self { stream: Arc::clone(stream), exit: exit.clone() }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Lent {
    fn poll_try<T>(
        &self,
        context: &mut Context<'_>,
        mut work: impl FnMut(&TcpStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match work(&self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when it has written all it has.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.exit.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = socket2::SockRef::from(&*self.stream);
        Poll::Ready(match socket.shutdown(std::net::Shutdown::Write) {
            // The client was faster.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }
}
