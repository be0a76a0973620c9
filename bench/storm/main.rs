//! What a storm of some clients costs an honest one beside them. How to run it and how to read it:
//! `bench/README.md`.
//!
//! Each scenario has a Redis and a gateway of its own. The witness listens to a channel of its own, on
//! which it publishes an event every 20 ms through Redis; its losses and its latency are the result.

mod clients;
mod house;
mod scenarios;
mod witness;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use crate::house::House;
use crate::scenarios::Scenario;
use crate::witness::{Seen, Witness};

/// Measures what a storm of some clients costs an honest one beside them.
#[derive(Debug, Parser)]
struct Options {
    /// The scenarios; all without any.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// The program under test.
    #[arg(long, default_value = "target/release/sluice")]
    sluice: PathBuf,
    /// How often each is run; the best counts, for the load takes processors too.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long the witness is watched without a storm.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    quiet: Duration,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done =
        runtime.context("no runtime").and_then(|runtime| runtime.block_on(run(&Options::parse())));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without standard error there is nobody to tell.
            writeln!(std::io::stderr(), "storm: {error:#}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> anyhow::Result<()> {
    sluice::http::choose_cryptography();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "scenario       events  lost  gaps   p50 ms   p99 ms   max ms x quiet    hub ms  shard ms  losses   stop s"
    )?;
    let house = House::start(&options.sluice, &[]).await?;
    let witness = Witness::start(&house).await?;
    tokio::time::sleep(options.quiet).await;
    let quiet = witness.seen().await?;
    row(&mut out, "quiet", (&quiet, &quiet), house).await?;
    let all = Scenario::all();
    let chosen = if options.scenarios.is_empty() { &all } else { &options.scenarios };
    for &scenario in chosen {
        let (seen, house) = best(options, scenario).await?;
        row(&mut out, scenario.name(), (&seen, &quiet), house).await?;
    }
    Ok(())
}

/// What the witness has seen in the best of some rounds, and the house in which it has.
async fn best(options: &Options, scenario: Scenario) -> anyhow::Result<(Seen, House)> {
    let mut best = None;
    for _ in 0..options.rounds.max(1) {
        let house = House::start(&options.sluice, scenario.settings()).await?;
        scenario.prepare(&house).await?;
        let witness = Witness::start(&house).await?;
        scenario.run(&house).await.with_context(|| scenario.name())?;
        let seen = witness.seen().await?;
        if best.as_ref().is_none_or(|(best, _): &(Seen, House)| seen.rank() < best.rank()) {
            best = Some((seen, house));
        }
    }
    best.context("no round")
}

/// Says what was seen, and stops the house.
async fn row(
    out: &mut impl Write,
    name: &str,
    (seen, quiet): (&Seen, &Seen),
    house: House,
) -> anyhow::Result<()> {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let ratio = seen.latency(990).as_secs_f64() / quiet.latency(990).as_secs_f64();
    let (hub, shard) = (house.longest_step("hub").await?, house.longest_step("shard").await?);
    let losses = house.metric("sluice_source_reconnects_total{source=\"redis\"}").await?;
    let took = house.stop().await?.as_secs_f64();
    writeln!(
        out,
        "{name:<14} {:>6} {:>5} {:>5} {:>8.2} {:>8.2} {:>8.2} {ratio:>7.1} {hub:>9} {shard:>9} {losses:>7} {took:>8.1}",
        seen.sent,
        seen.lost(),
        seen.gaps,
        milliseconds(seen.latency(500)),
        milliseconds(seen.latency(990)),
        milliseconds(seen.latency(1000)),
    )?;
    Ok(())
}
