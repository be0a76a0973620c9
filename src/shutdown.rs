//! How the gateway stops, and the only place that starts a task.
//!
//! [`Stop`] is handed to every part. Stopping has three steps: `request` tells everybody to come to
//! an end by themselves, `settle` those who carry the words of the others that nothing more will be
//! said, and `abort` ends what has not ended at the drain's deadline.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// The stop signal and the list of running tasks. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requested: CancellationToken,
    settled: CancellationToken,
    aborted: CancellationToken,
    tasks: TaskTracker,
}

impl Stop {
    /// Nothing runs yet and nothing is to stop.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task the drain waits for. A task still running at the drain's deadline is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let aborted = self.aborted.clone();
        #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
        tokio::spawn(self.tasks.track_future(async move {
            aborted.run_until_cancelled_owned(task).await;
        }));
    }

    /// Tells everybody to stop.
    pub fn request(&self) {
        self.requested.cancel();
    }

    /// Whether everybody was told to stop.
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Resolves when everybody is told to stop.
    pub fn requested(&self) -> WaitForCancellationFutureOwned {
        self.requested.clone().cancelled_owned()
    }

    /// Tells those who carry events that nothing more will be said, and nobody listens any more.
    pub fn settle(&self) {
        self.settled.cancel();
    }

    /// Whether nothing more will be said.
    pub fn is_settled(&self) -> bool {
        self.settled.is_cancelled()
    }

    /// Resolves when nothing more will be said.
    pub fn settled(&self) -> WaitForCancellationFutureOwned {
        self.settled.clone().cancelled_owned()
    }

    /// Drops every task that is still running.
    pub fn abort(&self) {
        self.aborted.cancel();
    }

    /// Resolves when no task is left. Only after [`Stop::request`]: no task is started any more.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }
}

/// Resolves at SIGTERM or SIGINT.
///
/// # Errors
/// When the process may not listen to signals.
pub async fn signalled() -> io::Result<&'static str> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => Ok("SIGTERM"),
        _ = int.recv() => Ok("SIGINT"),
    }
}
