//! The storms.

use std::time::Duration;

use clap::ValueEnum;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::clients;
use crate::house::House;

const REPORT: &str = r#"{"job_id":"j","status":"processing","stage":"rendering","progress":0.5}"#;
const STORM: Duration = Duration::from_secs(10);

/// What happens beside the witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// One HTTP/2 connection opens 200 streams of 100 new channels each, leaves them, and again.
    ChurnH2,
    /// The same over 200 HTTP/1.1 connections.
    ChurnH1,
    /// 60 clients open and leave 8 patterns that overlap, while 150,000 channels are known.
    Overlap,
    /// 4,000 clients listen to 8 patterns each, and 500 events a second match some of them.
    Patterns,
    /// 500 dashboards open a pattern at once, while 20,000 jobs are known.
    Dashboards20k,
    /// The same with 70,000 jobs.
    Dashboards70k,
    /// 8,000 clients come back at once.
    Returns8k,
    /// 16,000 clients come back at once.
    Returns16k,
    /// 70,000 jobs are forgotten in one second.
    Expiry,
    /// 10,000 clients listen, and the source loses its link.
    Loss,
}

impl Scenario {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ChurnH2 => "churn-h2",
            Self::ChurnH1 => "churn-h1",
            Self::Overlap => "overlap",
            Self::Patterns => "patterns",
            Self::Dashboards20k => "dashboards20k",
            Self::Dashboards70k => "dashboards70k",
            Self::Returns8k => "returns8k",
            Self::Returns16k => "returns16k",
            Self::Expiry => "expiry",
            Self::Loss => "loss",
        }
    }

    pub(crate) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Expiry => &[("SLUICE__HISTORY__AGE", "6s"), ("SLUICE__SNAPSHOT__AGE", "6s")],
            _ => &[],
        }
    }

    /// What is there before the witness.
    pub(crate) async fn prepare(self, house: &House) -> anyhow::Result<()> {
        let jobs = match self {
            Self::Overlap => 150_000,
            Self::Dashboards20k => 20_000,
            Self::Dashboards70k | Self::Expiry => 70_000,
            _ => return Ok(()),
        };
        house.publish((0..jobs).map(job), REPORT).await?;
        sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    pub(crate) async fn run(self, house: &House) -> anyhow::Result<()> {
        sleep(Duration::from_secs(1)).await;
        match self {
            Self::ChurnH2 => churn_h2(house).await?,
            Self::ChurnH1 => churn_h1(house, 200, |n| channels(n, 100)).await,
            Self::Overlap => churn_h1(house, 60, |n| patterns(n % 10)).await,
            Self::Patterns => many_patterns(house).await?,
            Self::Dashboards20k | Self::Dashboards70k => {
                let path = "/api/stream?channel=job_progress:*".to_owned();
                at_once(house, 500, |_| path.clone(), "").await?;
            }
            Self::Returns8k => returns(house, 8_000).await?,
            Self::Returns16k => returns(house, 16_000).await?,
            Self::Expiry => sleep(Duration::from_secs(10)).await,
            Self::Loss => loss(house).await?,
        }
        sleep(Duration::from_secs(2)).await;
        Ok(())
    }
}

fn job(n: u32) -> String {
    format!("job_progress:{n:06x}")
}

fn query(channels: impl Iterator<Item = String>) -> String {
    let channels: Vec<_> = channels.map(|channel| format!("channel={channel}")).collect();
    format!("/api/stream?{}", channels.join("&"))
}

fn channels(n: u64, count: u64) -> String {
    query((0..count).map(|k| format!("h{:x}", n * count + k)))
}

/// Eight patterns of which each is the beginning of the next.
fn patterns(n: u64) -> String {
    query((0..8).map(|length| format!("job_progress:{}*", "0".repeat(length + usize::from(n > 5)))))
}

async fn churn_h2(house: &House) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().http2_prior_knowledge().build()?;
    let until = Instant::now() + STORM;
    let mut n = 0;
    while Instant::now() < until {
        let mut opened: FuturesUnordered<_> = (n..n + 200)
            .map(|n| client.get(format!("http://{}{}", house.address, channels(n, 100))).send())
            .collect();
        let all = async { while opened.next().await.is_some() {} };
        // Whether they were answered or not, they are left.
        timeout(Duration::from_millis(150), all).await.unwrap_or_default();
        n += 200;
    }
    Ok(())
}

/// So many clients open what `path` says for their number, read a little, and leave.
async fn churn_h1(house: &House, clients: u64, path: impl Fn(u64) -> String + Copy) {
    let until = Instant::now() + STORM;
    let churn = |client: u64| async move {
        let (mut n, mut buffer) = (client, vec![0; 4096]);
        while Instant::now() < until {
            if let Ok(stream) = clients::open(house.address, &path(n), "").await {
                let answered = clients::drain(&stream, &mut buffer);
                timeout(Duration::from_secs(4), answered).await.unwrap_or_default();
            }
            n += clients;
        }
    };
    let mut all: FuturesUnordered<_> = (0..clients).map(churn).collect();
    while all.next().await.is_some() {}
}

async fn many_patterns(house: &House) -> anyhow::Result<()> {
    let mut open = Vec::new();
    for n in 0..4_000_u32 {
        let patterns = (0..8).map(|k| format!("job_progress:{:06x}*", n * 8 + k));
        let path = format!("{}&snapshot=false", query(patterns));
        open.push(clients::open(house.address, &path, "").await?);
    }
    for _ in 0..100 {
        house.publish((0..25).map(|_| job(fastrand::u32(..32_000))), REPORT).await?;
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// So many clients that are connected already ask at the same time, and read all they get.
async fn at_once(
    house: &House,
    clients: u32,
    path: impl Fn(u32) -> String,
    headers: &str,
) -> anyhow::Result<Vec<TcpStream>> {
    let mut connected = Vec::new();
    for n in 0..clients {
        connected.push(TcpStream::connect(house.address).await?);
        if n % 64 == 63 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    for (stream, n) in connected.iter_mut().zip(0..) {
        stream.write_all(clients::request(&path(n), headers).as_bytes()).await?;
    }
    let until = Instant::now() + STORM / 2;
    let read = |stream: TcpStream| async move {
        let mut buffer = vec![0; 16_384];
        while let Ok(Some(_)) = timeout_at(until, clients::drain(&stream, &mut buffer)).await {}
        stream
    };
    Ok(connected.into_iter().map(read).collect::<FuturesUnordered<_>>().collect().await)
}

async fn returns(house: &House, clients: u32) -> anyhow::Result<()> {
    // Channels that somebody has listened to a moment ago.
    let path = |n: u32| format!("/api/stream?channel=room:{n}&envelope=false");
    at_once(house, clients, path, "").await?;
    let gaps = house.metric("sluice_gaps_total{reason=\"source_reconnected\"}").await?;
    anyhow::ensure!(gaps < 0.5, "{gaps} false gaps");
    Ok(())
}

async fn loss(house: &House) -> anyhow::Result<()> {
    let open = at_once(house, 10_000, |n| format!("/api/stream/alerts?userId=u{n}"), "").await?;
    let mut redis = house.redis().await?;
    let kill = ["KILL", "TYPE", "pubsub"];
    redis::cmd("CLIENT").arg(&kill).query_async::<u32>(&mut redis).await?;
    sleep(Duration::from_secs(5)).await;
    drop(open);
    Ok(())
}
