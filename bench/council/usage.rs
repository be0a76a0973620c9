//! Who used the processors: this program, the gateway, and all that ran besides and disturbed.
//!
//! Linux tells it in hundredths of a second, see `proc_stat(5)` and `proc_pid_stat(5)`. Interrupts
//! are nobody's: those of the loopback belong to whoever sends.

use std::fs;
use std::time::Duration;

use anyhow::Context;

use crate::Clock;

/// So much time went by, and so much of the processors' time was used.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Usage {
    elapsed: Duration,
    host: Duration,
    own: Duration,
    /// If its process is known.
    pub(crate) gateway: Option<Duration>,
}

impl Usage {
    /// Until now.
    pub(crate) fn read(clock: Clock, gateway: Option<u32>) -> anyhow::Result<Self> {
        Ok(Self {
            elapsed: Duration::from_nanos(clock.now()),
            host: host()?,
            own: process("self")?,
            gateway: gateway.map(|pid| process(&pid.to_string())).transpose()?,
        })
    }

    /// What came after another was read.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            elapsed: self.elapsed.saturating_sub(before.elapsed),
            host: self.host.saturating_sub(before.host),
            own: self.own.saturating_sub(before.own),
            gateway: self.gateway.zip(before.gateway).map(|(now, then)| now.saturating_sub(then)),
        }
    }

    /// Adds that of another time.
    pub(crate) fn add(&mut self, other: Self) {
        self.elapsed += other.elapsed;
        self.host += other.host;
        self.own += other.own;
        if let Some(gateway) = other.gateway {
            *self.gateway.get_or_insert_default() += gateway;
        }
    }

    /// What neither this program nor the gateway used, in hundredths of one processor.
    pub(crate) fn others(&self) -> Option<f64> {
        let others = self.host.saturating_sub(self.own + self.gateway.unwrap_or_default());
        let percent = others.as_secs_f64() / self.elapsed.as_secs_f64() * 100.0;
        Some(percent).filter(|percent| percent.is_finite())
    }
}

/// User, nice and system time, and what other machines took.
fn host() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1);
    let busy = fields.enumerate().filter(|(nth, _)| matches!(nth, 0..=2 | 7));
    sum(busy.map(|(_, ticks)| ticks))
}

fn process(pid: &str) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("there is no process {pid}"))?;
    // The name before it may have any characters.
    let (_, fields) = stat.rsplit_once(')').context("not the status of a process")?;
    sum(fields.split_ascii_whitespace().skip(11).take(2))
}

fn sum<'a>(ticks: impl Iterator<Item = &'a str>) -> anyhow::Result<Duration> {
    let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}
