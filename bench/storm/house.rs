//! A Redis and a gateway, as processes of their own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

pub(crate) struct House {
    redis: Child,
    gateway: Child,
    redis_url: String,
    pub(crate) address: SocketAddr,
}

/// Latest by then everything has started.
const PATIENCE: Duration = Duration::from_secs(10);

impl House {
    /// `settings`: names and values of the gateway's environment.
    pub(crate) async fn start(sluice: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let (redis_address, address) = (free_address()?, free_address()?);
        let redis_port = redis_address.port().to_string();
        let redis = Command::new("redis-server")
            .args(["--port", &redis_port, "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("redis-server")?;
        listens(redis_address).await?;
        let redis_url = format!("redis://{redis_address}");
        let gateway = Command::new(sluice)
            .env("SLUICE__SERVER__BIND", address.to_string())
            .env("SLUICE__REDIS__URL", &redis_url)
            .env("SLUICE__LIMITS__HOLD_MOST", "0s")
            .env("SLUICE__LOG__LEVEL", "error")
            .envs(settings.iter().copied())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| sluice.display().to_string())?;
        let house = Self { redis, gateway, redis_url, address };
        listens(address).await?;
        let until = Instant::now() + PATIENCE;
        while !house.get("/readyz").await.is_ok_and(|response| response.status().is_success()) {
            anyhow::ensure!(Instant::now() < until, "the gateway does not get ready");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(house)
    }

    pub(crate) fn redis_url(&self) -> String {
        self.redis_url.clone()
    }

    /// A connection to Redis.
    pub(crate) async fn redis(&self) -> anyhow::Result<MultiplexedConnection> {
        let client = redis::Client::open(self.redis_url.as_str())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// Publishes `payload` on each of `channels`.
    pub(crate) async fn publish(
        &self,
        channels: impl Iterator<Item = String>,
        payload: &str,
    ) -> anyhow::Result<()> {
        let mut redis = self.redis().await?;
        let channels: Vec<_> = channels.collect();
        for chunk in channels.chunks(1000) {
            let mut publish = redis::pipe();
            for channel in chunk {
                publish.publish(channel, payload).ignore();
            }
            publish.query_async::<()>(&mut redis).await?;
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        reqwest::get(format!("http://{}{path}", self.address)).await
    }

    /// The value of a metric; 0 if it is not there.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let page = self.get("/metrics").await?.text().await?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map_or(Ok(0.0), str::parse)?)
    }

    /// Milliseconds that no turn of the hub, or of the shards, was longer than.
    pub(crate) async fn longest_step(&self, whose: &str) -> anyhow::Result<String> {
        let page = self.get("/metrics").await?.text().await?;
        let prefix = format!("sluice_{whose}_step_seconds_bucket{{le=\"");
        let buckets =
            page.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("\"} "));
        let buckets: Vec<(&str, f64)> =
            buckets.filter_map(|(le, count)| Some((le, count.parse().ok()?))).collect();
        let all = buckets.last().map_or(0.0, |(_, count)| *count);
        let longest = buckets.iter().find(|(_, count)| *count >= all).map_or("", |(le, _)| le);
        let milliseconds = longest.parse::<f64>().map(|seconds| format!("{}", seconds * 1e3));
        Ok(milliseconds.unwrap_or_else(|_| longest.to_owned()))
    }

    /// Ends both. Returns how long the gateway took.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Duration> {
        let asked = Instant::now();
        if let Some(pid) = self.gateway.id() {
            Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        }
        timeout(Duration::from_secs(60), self.gateway.wait())
            .await
            .context("it does not stop")??;
        self.redis.kill().await?;
        Ok(asked.elapsed())
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

async fn listens(address: SocketAddr) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_err() {
        anyhow::ensure!(Instant::now() < until, "nothing listens at {address}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
