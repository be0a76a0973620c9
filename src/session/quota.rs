//! Who may open a stream, and how soon: what one client may have, and how fast it may come back.
//!
//! An opening asks for a [`Pass`] and keeps it for as long as the stream is open. A client that
//! re-opens a stream it has just closed is held before it gets one, see [`Marks`]: a page that does
//! so in a loop becomes a slow poller that sees the newest state. Others at its address are not
//! held, for the loop's own openings take the marks it leaves.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::marks::Marks;
use crate::settings::LimitSettings;
use crate::telemetry::Metrics;

/// Who opens streams: those of one client are counted and paced together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// Whoever comes from there.
    Address(IpAddr),
}

/// Why a stream is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There are as many sessions as the settings allow.
    #[error("too many streams are open")]
    Full,
    /// The client has as many streams as the settings allow.
    #[error("too many streams are open from this address")]
    StreamsPerAddress,
    /// The client came back too soon, and as many openings are held as the settings allow.
    #[error("this stream is re-opened too fast")]
    Held,
}

/// Counts and paces the openings of every client. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Quota(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Streams of one client; 0: any number.
    most_streams: usize,
    /// A stream that was open for less leaves a mark; 0: none does.
    too_short: Duration,
    hasher: RandomState,
    table: Mutex<Table>,
    /// Places for openings to be held in.
    places: Semaphore,
    /// Openings of one client that are held; those beyond are refused.
    most_held: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Table {
    /// Open streams by client; nothing if any number is allowed.
    open: HashMap<u64, usize>,
    /// Openings that are held, by client.
    held: HashMap<u64, usize>,
    marks: Marks,
}

/// Leave to have a stream open; dropping it says that the stream is closed. Kept small, for every
/// idle client has one: clients and streams are known by their hashes.
#[derive(Debug)]
pub struct Pass {
    quota: Arc<Shared>,
    client: u64,
    stream: u64,
    /// Since when; `None` while it is asked for.
    open: Option<Instant>,
}

impl Client {
    /// Whoever comes from `address`. In IPv6 that is a network of 64 bits: one machine has all of it.
    pub fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }

    /// The address, or that of the network.
    pub fn address(self) -> IpAddr {
        match self {
            Self::Address(address) => address,
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Full, Self::StreamsPerAddress, Self::Held];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::StreamsPerAddress => "streams_per_address",
            Self::Held => "held",
        }
    }

    pub(super) fn counted(self, metrics: &Metrics) -> Self {
        metrics.openings_refused_total.with_label_values(&[self.as_str()]).inc();
        self
    }
}

impl Quota {
    /// Within these limits.
    pub fn new(limits: &LimitSettings, metrics: &Arc<Metrics>) -> Self {
        let paced = !limits.hold_most.is_zero();
        Self(Arc::new(Shared {
            most_streams: limits.streams_per_address,
            too_short: if paced { limits.reopen_window } else { Duration::ZERO },
            hasher: RandomState::new(),
            table: Mutex::new(Table {
                open: HashMap::new(),
                held: HashMap::new(),
                marks: Marks::new(limits),
            }),
            places: Semaphore::new(limits.held),
            most_held: limits.held_per_address,
            metrics: Arc::clone(metrics),
        }))
    }

    /// Lets a client open a stream: at once, or after a hold if it has just closed the same.
    /// `stream` is what makes it the same. An opening that is refused, or given up while it is
    /// held, counts as a stream that was closed too soon.
    ///
    /// # Errors
    /// When the client has too many streams, or comes back too soon and too many are held already.
    pub async fn enter(&self, client: Client, stream: impl Hash) -> Result<Pass, Refused> {
        let hasher = &self.0.hasher;
        let stream = hasher.hash_one((client, stream));
        let quota = Arc::clone(&self.0);
        let mut pass = Pass { quota, client: hasher.hash_one(client), stream, open: None };
        let hold = self.0.table.lock().marks.take(stream, Instant::now());
        if let Some(hold) = hold {
            self.0.hold(pass.client, hold).await?;
        }
        self.0.count_in(pass.client)?;
        pass.open = Some(Instant::now());
        Ok(pass)
    }
}

impl Shared {
    /// Without a place left on the node a client is let in at once: it is not its fault.
    async fn hold(&self, client: u64, hold: Duration) -> Result<(), Refused> {
        let _own = Holding::of(self, client)?;
        let Ok(_place) = self.places.try_acquire() else { return Ok(()) };
        self.metrics.openings_held_total.inc();
        let _waiting = Waiting::new(&self.metrics.openings_waiting);
        sleep(hold).await;
        Ok(())
    }

    fn count_in(&self, client: u64) -> Result<(), Refused> {
        if self.most_streams == 0 {
            return Ok(());
        }
        let mut table = self.table.lock();
        let open = table.open.entry(client).or_default();
        if *open >= self.most_streams {
            return Err(Refused::StreamsPerAddress.counted(&self.metrics));
        }
        *open += 1;
        Ok(())
    }

    fn count_out(&self, client: u64) {
        if self.most_streams == 0 {
            return;
        }
        let mut table = self.table.lock();
        if let Some(open) = table.open.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                table.open.remove(&client);
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.open.is_some() {
            self.quota.count_out(self.client);
        }
        let age = self.open.map_or(Duration::ZERO, |open| open.elapsed());
        if age < self.quota.too_short {
            self.quota.table.lock().marks.leave(self.stream, Instant::now());
        }
    }
}

/// One of the openings of a client that are held.
struct Holding<'a> {
    shared: &'a Shared,
    client: u64,
}

impl<'a> Holding<'a> {
    fn of(shared: &'a Shared, client: u64) -> Result<Self, Refused> {
        let mut table = shared.table.lock();
        let held = table.held.entry(client).or_default();
        if *held >= shared.most_held {
            return Err(Refused::Held.counted(&shared.metrics));
        }
        *held += 1;
        Ok(Self { shared, client })
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        let mut table = self.shared.table.lock();
        if let Some(held) = table.held.get_mut(&self.client) {
            *held -= 1;
            if *held == 0 {
                table.held.remove(&self.client);
            }
        }
    }
}

/// One more on a gauge, until it is dropped.
struct Waiting<'a>(&'a IntGauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
