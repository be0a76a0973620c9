//! Who is here: the count of sessions, their bound, and their names.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Pass, Refused};
use crate::telemetry::Metrics;

/// Counts the open sessions of the node and refuses those beyond the bound.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    open: AtomicUsize,
    left: Notify,
    most: usize,
    metrics: Arc<Metrics>,
}

/// One session's entry; dropping it takes the session off the count.
#[derive(Debug)]
pub struct Ticket {
    id: String,
    since: Instant,
    registry: Arc<Shared>,
    gauge: IntGauge,
    /// Given back when the session is over.
    _pass: Pass,
    /// See [`Ticket::hold`].
    held: Option<Box<dyn Any + Send>>,
}

impl Registry {
    /// Lets in `most` sessions at a time.
    pub fn new(most: usize, metrics: &Arc<Metrics>) -> Self {
        let metrics = Arc::clone(metrics);
        Self(Arc::new(Shared { open: AtomicUsize::new(0), left: Notify::new(), most, metrics }))
    }

    /// How many sessions are open.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Resolves when no session is open.
    pub async fn emptied(&self) {
        loop {
            let left = self.0.left.notified();
            if self.open() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Counts a session in, which keeps the pass it has got from the [`Quota`](super::Quota).
    ///
    /// # Errors
    /// When there are as many as allowed.
    pub fn enter(
        &self,
        transport: &'static str,
        stream: &str,
        pass: Pass,
    ) -> Result<Ticket, Refused> {
        let grown = self.0.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < self.0.most).then_some(open + 1)
        });
        grown.map_err(|_| Refused::Full.counted(&self.0.metrics))?;
        let gauge = self.0.metrics.sessions.with_label_values(&[transport, stream]);
        gauge.inc();
        let registry = Arc::clone(&self.0);
        Ok(Ticket {
            id: name(transport),
            since: Instant::now(),
            registry,
            gauge,
            _pass: pass,
            held: None,
        })
    }
}

impl Ticket {
    /// Keeps something that is to be let go of when the session is over.
    pub fn hold(&mut self, what: impl Any + Send) {
        self.held = Some(Box::new(what));
    }

    /// The session's name, such as `sse_1795299922786_k3j9x2m1q`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// For how long the session has been open.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gauge.dec();
        self.registry.open.fetch_sub(1, Ordering::Relaxed);
        self.registry.left.notify_waiters();
    }
}

fn name(transport: &str) -> String {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let tail: String = std::iter::repeat_with(fastrand::lowercase).take(9).collect();
    format!("{transport}_{}_{tail}", since_epoch.as_millis())
}
