//! An honest client beside whatever else happens: on a channel of its own, with an event every 20 ms.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{EventSource, Redis, TestGateway, within};

const CHANNEL: &str = "alerts:witness";
const RHYTHM: Duration = Duration::from_millis(20);

pub(crate) struct Witness {
    stop: oneshot::Sender<()>,
    watching: JoinHandle<Seen>,
}

/// What the witness has seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How many events were published to it.
    pub(crate) sent: u64,
    /// How many of them it neither got nor was told of.
    pub(crate) lost: u64,
    /// How often it was told that something may be missing.
    pub(crate) gaps: u64,
}

impl Witness {
    pub(crate) async fn start(gateway: &TestGateway, redis: &Redis) -> Self {
        let path = format!("/api/stream?channel={CHANNEL}&envelope=false&snapshot=false");
        let (stream, publisher) = (gateway.open(&path).await, redis.connection().await);
        let (stop, stopped) = oneshot::channel();
        let watching = tokio::spawn(watch(stream, publisher, stopped));
        Self { stop, watching }
    }

    /// Ends, when what was published last has come or is known to be missing.
    pub(crate) async fn seen(self) -> Seen {
        self.stop.send(()).unwrap();
        within("the witness", self.watching).await.unwrap()
    }
}

async fn watch(
    mut stream: EventSource,
    mut publisher: MultiplexedConnection,
    mut stopped: oneshot::Receiver<()>,
) -> Seen {
    let mut seen = Seen::default();
    // The last number; none after a gap.
    let mut last = Some(0);
    let mut rhythm = interval(RHYTHM);
    rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_stopping = false;
    // It goes on until the newest has come: what was published while nobody listened does not.
    while !is_stopping || last != Some(seen.sent) {
        tokio::select! {
            _ = &mut stopped, if !is_stopping => is_stopping = true,
            _ = rhythm.tick() => {
                let event = json!({"n": seen.sent + 1}).to_string();
                let publish = redis::cmd("PUBLISH").arg(CHANNEL).arg(event).to_owned();
                if publish.query_async::<()>(&mut publisher).await.is_ok() {
                    seen.sent += 1;
                }
            }
            event = stream.event() => if let Some(n) = event.data["n"].as_u64() {
                seen.lost += last.map_or(0, |last| n - last - 1);
                last = Some(n);
            } else {
                assert_eq!(event.name, "gap");
                seen.gaps += 1;
                last = None;
            }
        }
    }
    seen
}
