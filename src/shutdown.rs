//! How the gateway stops, and the only place that starts a task.
//!
//! [`Stop`] is handed to every part. Stopping has three steps: `request` tells everybody to come to
//! an end by themselves, `settle` those who carry the words of the others that nothing more will be
//! said, and `abort` ends what has not ended at the drain's deadline.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// The stop signal and the list of running tasks. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    requested: CancellationToken,
    settled: CancellationToken,
    aborted: CancellationToken,
    /// The task that has ended although it must not.
    failed: Arc<OnceLock<&'static str>>,
    failure: CancellationToken,
    tasks: TaskTracker,
    engine: Option<Handle>,
}

/// A task without which the gateway is of no use.
struct Vital {
    name: &'static str,
    stop: Stop,
}

impl Drop for Vital {
    fn drop(&mut self) {
        if !self.stop.is_requested() && !self.stop.aborted.is_cancelled() {
            self.stop.failed.get_or_init(|| self.name);
            self.stop.failure.cancel();
        }
    }
}

impl Stop {
    /// Nothing runs yet and nothing is to stop.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with a runtime of its own for the engine: the hub, the shards and the source. However many
    /// requests come at once, no event stands behind them in a queue of tasks.
    pub fn with_engine(engine: Handle) -> Self {
        Self { engine: Some(engine), ..Self::default() }
    }

    /// Starts a task the drain waits for, where the task that asks runs. A task still running at the
    /// drain's deadline is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&Handle::current(), task);
    }

    /// The same for a task that must not end before it is told to: if it does, or panics, the process is of
    /// no use any more, see [`Stop::failed`].
    pub fn spawn_vital(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(self.vital(name, task));
    }

    /// The same for a task of the engine.
    pub fn spawn_engine(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let engine = self.engine.clone().unwrap_or_else(Handle::current);
        self.spawn_on(&engine, self.vital(name, task));
    }

    fn spawn_on(&self, runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        let aborted = self.aborted.clone();
        runtime.spawn(self.tasks.track_future(async move {
            aborted.run_until_cancelled_owned(task).await;
        }));
    }

    fn vital<F: Future<Output = ()>>(
        &self,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = ()> + use<F> {
        let vital = Vital { name, stop: self.clone() };
        async move {
            let _vital = vital;
            task.await;
        }
    }

    /// Resolves with its name when a vital task has ended.
    pub async fn failed(&self) -> &'static str {
        self.failure.cancelled().await;
        self.failed.get().copied().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_ends_is_known_and_others_are_not_missed() {
        let stop = Stop::new();
        stop.spawn(async {});
        stop.spawn_vital("fine", stop.requested());
        assert_eq!(stop.failed().now_or_never(), None);
        stop.spawn_vital("broken", async { panic!("a fault of ours") });
        assert_eq!(stop.failed().await, "broken");
        let other = Stop::new();
        other.spawn_vital("fine", other.requested());
        other.request();
        other.finished().await;
        assert_eq!(other.failed().now_or_never(), None);
    }
}
