//! An honest client, on a thread of its own.

use std::time::Duration;

use anyhow::Context;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::clients;
use crate::house::House;

const CHANNEL: &str = "alerts:witness";
const RHYTHM: Duration = Duration::from_millis(20);

pub(crate) struct Witness {
    stop: oneshot::Sender<()>,
    watching: std::thread::JoinHandle<anyhow::Result<Seen>>,
}

/// What the witness has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sent: usize,
    pub(crate) gaps: usize,
    /// From publishing to arrival.
    latencies: Vec<Duration>,
}

impl Seen {
    pub(crate) fn lost(&self) -> usize {
        self.sent - self.latencies.len()
    }

    /// What so many of a thousand were no later than.
    pub(crate) fn latency(&self, of_thousand: usize) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = sorted.len().saturating_sub(1) * of_thousand / 1000;
        sorted.get(rank).copied().unwrap_or_default()
    }

    /// The less, the better.
    pub(crate) fn rank(&self) -> (usize, Duration) {
        (self.lost(), self.latency(990))
    }
}

impl Witness {
    pub(crate) async fn start(house: &House) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let (address, publisher) = (house.address, house.redis_url());
        let watching = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = redis::Client::open(publisher)?;
                let publisher = client.get_multiplexed_async_connection().await?;
                let path = format!("/api/stream?channel={CHANNEL}&envelope=false&snapshot=false");
                let stream = clients::open(address, &path, "").await?;
                ready.send(()).unwrap_or_default();
                watch(stream, publisher, stopped).await
            })
        });
        is_ready.await.context("the witness did not get in")?;
        Ok(Self { stop, watching })
    }

    pub(crate) async fn seen(self) -> anyhow::Result<Seen> {
        self.stop.send(()).unwrap_or_default();
        while !self.watching.is_finished() {
            tokio::time::sleep(RHYTHM).await;
        }
        self.watching.join().ok().context("the witness failed")?
    }
}

async fn watch(
    mut stream: TcpStream,
    mut publisher: MultiplexedConnection,
    mut stopped: oneshot::Receiver<()>,
) -> anyhow::Result<Seen> {
    const LAST: Duration = Duration::from_secs(10);
    let began = Instant::now();
    let (mut seen, mut received, mut buffer) = (Seen::default(), String::new(), vec![0; 65_536]);
    let mut tick = interval(RHYTHM);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut goes_on = true;
    while goes_on || seen.lost() > 0 {
        tokio::select! {
            _ = tick.tick(), if goes_on => {
                seen.sent += 1;
                let sent = began.elapsed().as_micros();
                publisher.publish::<_, _, ()>(CHANNEL, format!(r#"{{"sent":{sent}}}"#)).await?;
            }
            _ = &mut stopped, if goes_on => goes_on = false,
            count = timeout(LAST, stream.read(&mut buffer)) => {
                // What has not come by now is lost.
                let Ok(count) = count else { break };
                let count = count?;
                anyhow::ensure!(count > 0, "the witness was sent away");
                received.push_str(&String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()));
                let now = began.elapsed();
                while let Some((line, rest)) = received.split_once('\n') {
                    if let Some(sent) = line.strip_prefix(r#"data: {"type":"alert","sent":"#)
                        .or_else(|| line.strip_prefix(r#"data: {"sent":"#)) {
                        let sent = sent.trim_end_matches('}').trim_end().parse()?;
                        seen.latencies.push(now.saturating_sub(Duration::from_micros(sent)));
                    }
                    seen.gaps += usize::from(line == "event: gap");
                    received = rest.to_owned();
                }
            }
        }
    }
    Ok(seen)
}
