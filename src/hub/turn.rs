//! How long one task goes on before others have their turn.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use prometheus::Histogram;
use tokio::time::Instant;

/// Work in one turn, at most.
const TIME: Duration = Duration::from_millis(2);
/// Things done in one turn, at most.
const ITEMS: u32 = 256;

/// What a task does before it lets others go on. Dropped, it is counted in the histogram of turns.
#[derive(Debug)]
pub(super) struct Turn {
    began: Instant,
    items: u32,
    seconds: Histogram,
}

impl Turn {
    /// `seconds`: where it is counted.
    pub(super) fn new(seconds: &Histogram) -> Self {
        Self { began: Instant::now(), items: 0, seconds: seconds.clone() }
    }

    /// Something more was done. Whether others are to go on now.
    pub(super) fn is_over(&mut self) -> bool {
        self.items += 1;
        self.items >= ITEMS || self.began.elapsed() >= TIME
    }

    /// Something more was done: lets others go on if it is time, and begins a new turn.
    pub(super) async fn next(&mut self) {
        if self.is_over() {
            self.rest().await;
        }
    }

    /// Lets others go on, and begins a new turn.
    async fn rest(&mut self) {
        self.seconds.observe(self.began.elapsed().as_secs_f64());
        let_others_go_first().await;
        self.items = 0;
        self.began = Instant::now();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.items > 0 {
            self.seconds.observe(self.began.elapsed().as_secs_f64());
        }
    }
}

/// Lets the tasks that can go on now do so first. Nothing is waited for, and while nothing else can go
/// on it costs nothing.
pub(super) async fn let_others_go_first() {
    let mut asked = false;
    poll_fn(|context| {
        if asked {
            return Poll::Ready(());
        }
        asked = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
