//! What the kernel is told about a connection.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How connections are watched and how much the kernel may hold for each.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// A client whose host does not answer for so long is gone.
    pub dead_after: Duration,
    /// A client that answers but reads nothing for so long is cut.
    pub stalled_after: Duration,
    /// What may wait in the kernel unsent, in bytes.
    pub unsent_bytes: usize,
}

/// What the kernel may hold beyond the bytes it was given: the last packet, and its bookkeeping.
const KERNEL_OVERHEAD: usize = 32_768;

impl Tuning {
    /// Sets up a connection.
    ///
    /// The kernel asks a silent host three times within the last half of `dead_after` (RFC 9293,
    /// section 3.8.4), and gives up on unanswered data after `dead_after` (RFC 5482).
    ///
    /// # Errors
    /// When the kernel refuses any of it; the rest is set up all the same.
    pub fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        let half = self.dead_after / 2;
        let probe = (half / 3).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new().with_time(half).with_interval(probe).with_retries(3);
        // Unlike a fixed SO_SNDBUF it leaves what is under way to the kernel: a fast client far away
        // loses nothing.
        let unsent = self.unsent_bytes.try_into().unwrap_or(u32::MAX);
        let done = [
            socket.set_tcp_nodelay(true),
            socket.set_tcp_keepalive(&keepalive),
            socket.set_tcp_user_timeout(Some(self.dead_after)),
            socket.set_tcp_notsent_lowat(unsent),
        ];
        done.into_iter().collect()
    }

    /// The kernel counts a client that does not read like one that does not answer. One that is
    /// known to be `full` gets the time it has by our own rule, and a little more.
    pub(super) fn be_patient(&self, stream: &TcpStream, full: bool) {
        let timeout = if full { self.stalled_after * 2 } else { self.dead_after };
        // A socket for which this fails has failed itself, which the next write says.
        SockRef::from(stream).set_tcp_user_timeout(Some(timeout)).unwrap_or_default();
    }

    /// The most the kernel holds for a client that does not read, in bytes.
    pub(super) fn kernel_bytes(&self) -> usize {
        self.unsent_bytes + KERNEL_OVERHEAD
    }
}
