//! Whose request it is: the peer of the connection, or whom a trusted proxy says it speaks for; and
//! whether a page of somebody else's has a browser send it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Once;

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

use crate::session::Client;
use crate::settings::ServerSettings;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// The proxies in front, whose word is taken.
#[derive(Debug)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    /// Logs once that somebody's word was not taken.
    stranger: Once,
}

impl Proxies {
    /// Those of these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self { trusted: networks, stranger: Once::new() }
    }

    /// Who sent a request with these headers. Each proxy adds the address it was called from, so
    /// the list is read from its end, for as long as a trusted proxy has written it. If one has
    /// written what cannot be read, it is the peer.
    pub(super) fn client(&self, Peer(peer): Peer, headers: &HeaderMap) -> Client {
        let lists = headers.get_all("x-forwarded-for").iter().rev();
        let mut addresses = lists.flat_map(|list| list.to_str().unwrap_or("?").rsplit(','));
        let mut client = peer.to_canonical();
        if !self.trusts(client) && headers.contains_key("x-forwarded-for") {
            self.stranger.call_once(|| {
                tracing::warn!(%peer, "a proxy that server.trusted_proxies does not name counts as one client");
            });
        }
        while self.trusts(client)
            && let Some(text) = addresses.next()
        {
            let Some(address) = address(text.trim()) else { return Client::at(peer) };
            client = address.to_canonical();
        }
        Client::at(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// Whether a page of an origin that the settings do not name has sent it. What browsers say of it
/// (Fetch Metadata) counts more than a host's name, which a proxy may have changed.
pub(super) fn is_foreign(headers: &HeaderMap, settings: &ServerSettings) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let origin = text(header::ORIGIN);
    let known = |known: &String| known == "*" || origin == Some(known);
    if settings.cors_origins.iter().any(known) {
        return false;
    }
    match text(HeaderName::from_static("sec-fetch-site")) {
        Some("same-origin" | "none") => false,
        Some(_) => true,
        None => origin.is_some_and(|origin| {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_none() || host != text(header::HOST)
        }),
    }
}

/// Some proxies add the port.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    text.parse().or_else(|_| with_port()).ok()
}
