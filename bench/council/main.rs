//! What the gateway adds to a council: to the time until the first text, and to the times between
//! texts. How to run it and how to read it: `bench/README.md`.
//!
//! It is the upstream, the client through the gateway and a client that asks the upstream straight,
//! all in one process, so that one clock tells when a text was sent and when it arrived. The gateway
//! is another process, which is started before and asks the upstream at `--upstream`.

mod client;
mod hearing;
mod tally;
mod upstream;
mod usage;

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use serde_json::json;
use tokio::time::Instant;

use crate::client::{Course, Path};
use crate::tally::{Level, Tally};
use crate::upstream::Script;
use crate::usage::Usage;

/// Measures what the gateway adds to a council.
#[derive(Debug, Parser)]
struct Options {
    /// The council's URL; {i} becomes a number of the stream's own. Without it, only the direct
    /// path is measured, which is the noise of the measuring.
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// Where members are to ask: it answers every path that ends with /chat/completions.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4600")]
    upstream: SocketAddr,
    /// Client streams at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,32,128")]
    levels: Vec<u32>,
    /// How often each level is run on each path, by turns.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Members of the council.
    #[arg(long, default_value_t = 4)]
    members: usize,
    /// What each member says.
    #[arg(long, default_value_t = 200)]
    texts: u32,
    /// From one text to the next.
    #[arg(long, default_value = "20ms", value_parser = humantime::parse_duration)]
    gap: Duration,
    /// From the request to the first text.
    #[arg(long, default_value = "20ms", value_parser = humantime::parse_duration)]
    ttft: Duration,
    /// From the first stream's beginning to the last one's.
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    ramp: Duration,
    /// The process of the gateway, to tell its processor time.
    #[arg(long)]
    pid: Option<u32>,
    /// Where to write all results for programs.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Nanoseconds since the program began: the one clock of all its threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// The time.
    pub(crate) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let clock = Clock(Instant::now());
    let script = Script { ttft: options.ttft, gap: options.gap, texts: options.texts };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let levels = runtime.block_on(async {
        let listener = upstream::listen(options.upstream).context("cannot be the upstream")?;
        upstream::serve(listener, clock, script)?;
        measure(&options, clock).await
    })?;
    if let Some(file) = &options.json {
        let levels: Vec<_> = levels.iter().map(Level::json).collect();
        fs::write(file, format!("{:#}\n", json!({ "times": "us", "levels": levels })))?;
    }
    Ok(ExitCode::from(u8::from(!levels.iter().all(Level::clean))))
}

/// Runs every level and prints what comes out.
async fn measure(options: &Options, clock: Clock) -> anyhow::Result<Vec<Level>> {
    let direct = options.upstream.to_string();
    let direct = Path::Direct(&direct);
    let gateway = options.gateway.as_deref().map(Path::Gateway);
    let mut rounds = Rounds::new(options, clock);
    // Whoever asks first finds nothing warm.
    for path in [Some(direct), gateway].into_iter().flatten() {
        rounds.run(path, 1).await?;
    }
    for line in tally::heading() {
        say(&line)?;
    }
    let mut levels = Vec::new();
    for streams in options.levels.iter().copied() {
        let mut straight = Tally::default();
        let mut through = gateway.map(|_| Tally::default());
        for _ in 0..options.rounds {
            straight.add(rounds.run(direct, streams).await?);
            if let (Some(through), Some(gateway)) = (&mut through, gateway) {
                through.add(rounds.run(gateway, streams).await?);
            }
        }
        let level = Level { streams, direct: straight.into(), gateway: through.map(Into::into) };
        level.rows().iter().try_for_each(|row| say(row))?;
        for fault in level.faults() {
            writeln!(io::stderr(), "{fault}")?;
        }
        levels.push(level);
    }
    Ok(levels)
}

/// What the runs have in common.
struct Rounds {
    course: Course,
    pid: Option<u32>,
    /// The number of the next stream. It begins anywhere, for a gateway may know those of another
    /// run.
    next: u32,
}

impl Rounds {
    fn new(options: &Options, clock: Clock) -> Self {
        let lasts = options.ramp + options.ttft + options.gap * (options.texts + 2);
        let course = Course {
            clock,
            members: options.members,
            texts: options.texts as usize,
            ramp: options.ramp,
            patience: lasts + Duration::from_secs(10),
        };
        Self { course, pid: options.pid, next: fastrand::u32(..u32::MAX / 2) }
    }

    async fn run(&mut self, path: Path<'_>, streams: u32) -> anyhow::Result<Tally> {
        let before = Usage::read(self.course.clock, self.pid)?;
        let mut tally = self.course.run(path, streams, self.next).await;
        tally.usage = Usage::read(self.course.clock, self.pid)?.since(before);
        self.next += streams;
        Ok(tally)
    }
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
