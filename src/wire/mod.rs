//! How a session is written. A wire is pure: what a session says goes in, bytes come out.

mod sse;

pub use sse::Sse;

use crate::event::Frame;
use crate::session::Outgoing;

/// Gives bytes to what a session says.
pub trait Wire: Send + Sync {
    /// The name in metrics, and the first part of a session's name.
    fn transport(&self) -> &'static str;

    /// The bytes of one thing said. Those of an event are encoded once and shared.
    fn encode(&self, outgoing: &Outgoing) -> Frame;
}
