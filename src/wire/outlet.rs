//! Where a session's words go: first through hyper, then, if it can be, straight to the socket.

use std::sync::Arc;
use std::task::Waker;

use super::Writer;
use super::body::{Body, Slot};
use super::exit::Exit;
use super::socket::Socket;
use crate::session::{Outbox, Passed, Sink};

/// The sink of a session that speaks HTTP.
#[derive(Debug)]
pub struct Outlet {
    writer: Arc<Writer>,
    way: Way,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Way {
    Body(Arc<Slot>),
    Socket(Socket),
}

impl Outlet {
    /// An outlet and the body whose bytes are to be sent. With an `exit`, the connection can
    /// be cut, and leaves hyper, if it may, as soon as the first words are written.
    pub fn new(writer: Arc<Writer>, exit: Option<Exit>) -> (Self, Body) {
        let slot = Arc::new(Slot::new(exit));
        let body = Body::new(Arc::clone(&slot));
        (Self { writer, way: Way::Body(slot), waker: None }, body)
    }

    /// Goes over to the socket if the connection has left hyper.
    fn follow(&mut self) {
        if let (Way::Body(slot), Some(waker)) = (&self.way, &self.waker)
            && let Some(connection) = slot.connection()
        {
            self.way = Way::Socket(Socket::new(*connection, waker.clone()));
        }
    }
}

impl Sink for Outlet {
    fn attach(&mut self, waker: Waker) {
        if let Way::Body(slot) = &self.way {
            slot.attach(waker.clone());
        }
        self.waker = Some(waker);
    }

    fn woken(&mut self) {
        match &mut self.way {
            Way::Body(_) => self.follow(),
            Way::Socket(socket) => socket.woken(),
        }
    }

    fn pass_on(&mut self, outbox: &mut Outbox, last: bool) -> Passed {
        match &mut self.way {
            Way::Body(slot) => slot.pass_on(outbox, last, &self.writer),
            Way::Socket(socket) => socket.pass_on(outbox, last, &self.writer),
        }
    }

    fn backlog(&self) -> usize {
        match &self.way {
            Way::Body(slot) => slot.backlog(),
            Way::Socket(socket) => socket.backlog(),
        }
    }

    fn is_gone(&self) -> bool {
        match &self.way {
            Way::Body(slot) => slot.is_gone(),
            Way::Socket(_) => false,
        }
    }

    fn already_over(&mut self) {
        if let Way::Body(slot) = &self.way {
            slot.already_over();
        }
    }

    fn cut(&mut self) {
        match &mut self.way {
            Way::Body(slot) => slot.cut(),
            Way::Socket(socket) => socket.cut(),
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if let Way::Body(slot) = &self.way {
            slot.cut();
        }
    }
}
