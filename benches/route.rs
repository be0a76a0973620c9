//! From the inlet to those who want an event, whatever they do with it: its place in the order, history
//! and snapshot, and who listens.

use divan::Bencher;
use divan::counter::ItemsCount;
use sluice::event::Filter;
use sluice::hub::{Flow, Signal, Subscriber};
use tokio::time::Instant;

use crate::house::{Heard, House, channel, report};

/// Events that come in at once.
const BURST: usize = 256;

/// Counts what it is told.
struct Listener(Heard);

impl Subscriber for Listener {
    fn receive(&mut self, signal: Signal<'_>, _now: Instant) {
        if matches!(signal, Signal::Event(_)) {
            self.0.one_more();
        }
    }

    fn flush(&mut self, _now: Instant) -> Flow {
        Flow::Continue
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn backlog(&self) -> usize {
        0
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

fn listen(house: &House, filter: &str) {
    house.arrive(Listener(house.heard()), &Filter::parse(filter).unwrap());
}

/// One channel with so many who listen; counted in deliveries.
#[divan::bench(args = [1, 100, 10_000])]
fn one_channel(bencher: Bencher<'_, '_>, listeners: usize) {
    let house = House::new();
    for _ in 0..listeners {
        listen(&house, "a");
    }
    bencher
        .counter(ItemsCount::new(listeners))
        .with_inputs(|| vec![(channel("a"), report())])
        .bench_values(|events| house.deliver(events, listeners));
}

/// Names of a burst that are spread over `count`.
fn spread(count: usize, name: impl Fn(usize) -> String) -> Vec<String> {
    // A prime, so that all of them have their turn.
    (0..BURST).map(|n| name(n * 7919 % count)).collect()
}

fn bench_burst(bencher: Bencher<'_, '_>, house: &House, names: &[String]) {
    bencher
        .counter(ItemsCount::new(names.len()))
        .with_inputs(|| names.iter().map(|name| (channel(name), report())).collect())
        .bench_values(|events| house.deliver(events, names.len()));
}

/// So many channels, each with one who listens; counted in events.
#[divan::bench(args = [1_000, 100_000])]
fn distinct_channels(bencher: Bencher<'_, '_>, channels: usize) {
    let house = House::new();
    for n in 0..channels {
        listen(&house, &format!("job_progress:{n}"));
    }
    bench_burst(bencher, &house, &spread(channels, |n| format!("job_progress:{n}")));
}

/// So many patterns, of which each event passes one; counted in events.
#[divan::bench(args = [10, 1_000])]
fn patterns(bencher: Bencher<'_, '_>, patterns: usize) {
    let house = House::new();
    for n in 0..patterns {
        listen(&house, &format!("team_{n}:*"));
    }
    bench_burst(bencher, &house, &spread(patterns, |n| format!("team_{n}:recipe")));
}

/// So many patterns that begin alike, so that each has to be tried; counted in events.
#[divan::bench(args = [10, 1_000])]
fn patterns_that_begin_alike(bencher: Bencher<'_, '_>, patterns: usize) {
    let house = House::new();
    for n in 0..patterns {
        listen(&house, &format!("team:*:{n}"));
    }
    bench_burst(bencher, &house, &spread(patterns, |n| format!("team:recipe:{n}")));
}
