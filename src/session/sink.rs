//! What a session asks of the connection it speaks to.

use std::task::Waker;

use super::Outbox;

/// Where a session's words go. A sink never waits: what it cannot take now stays in the outbox, and
/// whoever owns the session is woken when there is room again.
pub trait Sink: Send + 'static {
    /// From now on `waker` is told when there is room again and when the client is gone.
    fn attach(&mut self, waker: Waker);

    /// The waker was used.
    fn woken(&mut self);

    /// Takes from `outbox` what it can; `last`: nothing follows, so the stream is ended behind it.
    fn pass_on(&mut self, outbox: &mut Outbox, last: bool) -> Passed;

    /// How many bytes wait behind the outbox, in this process and in the kernel. Zero while the
    /// client keeps up.
    fn backlog(&self) -> usize;

    /// Whether the client has left before its session began.
    fn is_gone(&self) -> bool;

    /// The client has had the stream's end before: it gets no stream at all.
    fn already_over(&mut self);

    /// The connection is to be cut; what waits is let go.
    fn cut(&mut self);
}

/// What became of what waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// All of it is on its way.
    All,
    /// Some of it is on its way, and there is room for more when others have had their turn.
    More,
    /// The client is slow: some of it is on its way.
    Some,
    /// The client is slow: nothing was taken since the last time.
    Nothing,
    /// The client is gone.
    Gone,
}
