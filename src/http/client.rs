//! Whose request it is: the peer of the connection.

use std::net::IpAddr;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);
