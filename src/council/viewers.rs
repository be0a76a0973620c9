//! Who watches a run, and what becomes of it when nobody does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::question::Refusal;
use super::run::Run;
use crate::settings::Unwatched;
use crate::shutdown::Stop;

/// Those who watch one run.
#[derive(Debug, Default)]
pub(super) struct Viewers(watch::Sender<Count>);

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    now: usize,
    /// Whether anybody ever has.
    ever: bool,
}

/// Somebody watches a run, for as long as this lives.
pub struct Viewer(Arc<Run>);

impl Viewers {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.borrow().now
    }

    /// Resolves when nobody watches any more and the run is not to go on like that. A run that
    /// nobody has watched yet waits for its first viewer like for one that comes back.
    pub(super) async fn gone(&self, unwatched: Unwatched, grace: Duration, stop: &Stop) {
        let mut viewers = self.0.subscribe();
        if unwatched == Unwatched::Continue {
            // Not beyond the end of this node.
            stop.requested().await;
        }
        loop {
            let Ok(left) = viewers.wait_for(|count| count.now == 0).await.map(|left| *left) else {
                return;
            };
            let at_once = unwatched == Unwatched::Cancel && left.ever;
            let grace = if at_once { Duration::ZERO } else { grace };
            let back = timeout(grace, viewers.wait_for(|count| count.now > 0));
            let came_back = tokio::select! {
                back = back => back.is_ok(),
                // Whoever was told to leave does not come back to this node.
                () = stop.requested() => false,
            };
            if !came_back {
                return;
            }
        }
    }
}

impl Viewer {
    pub(super) fn of(run: &Arc<Run>) -> Self {
        run.viewers.0.send_modify(|count| *count = Count { now: count.now + 1, ever: true });
        Self(Arc::clone(run))
    }

    /// The name of the run.
    pub fn run_id(&self) -> &str {
        &self.0.id
    }

    /// Waits until it is known whether the run is this node's; `false`: it is another one's.
    ///
    /// # Errors
    /// When it could not begin.
    pub async fn begun(&self) -> Result<bool, Refusal> {
        self.0.begun().await
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.viewers.0.send_modify(|count| count.now = count.now.saturating_sub(1));
    }
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Viewer").field(&self.0.id).finish()
    }
}
