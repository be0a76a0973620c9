//! How a session is written: which bytes, and on which way to the client.
//!
//! ```text
//! Session ──Outbox──► Outlet ┬─► Body ───► hyper ──► client
//!                      Sse   └─► Socket ───────────► client
//! ```
//!
//! A [`Wire`] is pure: what a session says goes in, bytes come out. An [`Outlet`] takes them to the
//! client: through the body of a response at first, and once an HTTP/1.1 connection has left hyper
//! through its [`Exit`], from the session's shard straight to the socket.

mod body;
mod exit;
mod outlet;
mod socket;
mod sse;
mod tuning;
mod writer;

pub use body::{Body, Cut, Opening, Slot};
pub use exit::{Exit, Leave, Lent};
pub use outlet::Outlet;
pub use socket::{Connection, Count, reset};
pub use sse::Sse;
pub use tuning::Tuning;
pub use writer::Writer;

use crate::event::Frame;
use crate::session::Outgoing;

/// Gives bytes to what a session says.
pub trait Wire: Send + Sync {
    /// The name in metrics, and the first part of a session's name.
    fn transport(&self) -> &'static str;

    /// The bytes of one thing said. Those of an event are encoded once and shared.
    fn encode(&self, outgoing: &Outgoing) -> Frame;
}
