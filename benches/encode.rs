//! From what a session says to the bytes of Server-Sent Events.

use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use sluice::event::{Batch, Shape, Variant};
use sluice::hub::Told;
use sluice::session::Outgoing;
use sluice::settings::Settings;
use sluice::streams::Streams;
use sluice::wire::{Sse, Wire};

use crate::house::{event, payload, report};

const SHAPES: [&str; 4] = ["payload", "envelope", "job-progress", "render-progress"];

fn shape(name: &str) -> Arc<dyn Shape> {
    let streams = Streams::compile(&Settings::load(None, []).unwrap().stream);
    let path = match name {
        "job-progress" => "/stream/jobs/job_1",
        "render-progress" => "/stream/render-progress/job_1",
        _ => "/stream",
    };
    let (stream, _) = streams.find(path).unwrap();
    Arc::clone(if name == "payload" { &stream.bare } else { &stream.shape })
}

fn sse(shape_name: &str) -> Sse {
    Sse::new(shape(shape_name), Variant::default(), usize::MAX)
}

/// The first client that gets an event: it is shaped and encoded.
#[divan::bench(args = SHAPES)]
fn event_first(bencher: Bencher<'_, '_>, shape: &str) {
    let (sse, report) = (sse(shape), report());
    bencher
        .with_inputs(|| Outgoing::Event(event(report.clone())))
        .bench_refs(|said| sse.encode(said));
}

/// Every other client of the same stream.
#[divan::bench]
fn event_shared(bencher: Bencher<'_, '_>) {
    let (sse, said) = (sse("envelope"), Outgoing::Event(event(report())));
    bencher.bench(|| sse.encode(black_box(&said)));
}

/// A client that comes late: shaped before, encoded for it alone.
#[divan::bench]
fn snapshot(bencher: Bencher<'_, '_>) {
    let sse = sse("envelope");
    let said = Outgoing::Snapshot { told: Told::one(&event(report())), index: 0, position: None };
    bencher.bench(|| sse.encode(black_box(&said)));
}

/// The first client that gets a batch of so many events.
#[divan::bench(args = [10, 100])]
fn batch_first(bencher: Bencher<'_, '_>, events: usize) {
    let sse = sse("envelope");
    let events: Vec<_> = (0..events).map(|_| event(report())).collect();
    bencher
        .counter(ItemsCount::new(events.len()))
        .with_inputs(|| Outgoing::Batch(Arc::new(Batch::new(events.clone()))))
        .bench_refs(|said| sse.encode(said));
}

/// Every other client that gets the same batch.
#[divan::bench]
fn batch_shared(bencher: Bencher<'_, '_>) {
    let sse = sse("envelope");
    let events = (0..100).map(|_| event(report())).collect();
    let said = Outgoing::Batch(Arc::new(Batch::new(events)));
    bencher.bench(|| sse.encode(black_box(&said)));
}

/// The first client that gets an event of so many bytes compressed.
#[divan::bench(args = [2_000, 20_000, 200_000])]
fn gzip_first(bencher: Bencher<'_, '_>, bytes: usize) {
    let variant = Variant { named: false, compressed: true };
    let sse = Sse::new(shape("payload"), variant, 1024);
    let items: Vec<_> = (0..bytes / 40)
        .map(|n| format!(r#"{{"id":{n:>6},"name":"recipe","score":{:>5}}}"#, n * 7919 % 9973))
        .collect();
    let items = payload(&format!("[{}]", items.join(",")));
    bencher
        .counter(BytesCount::of_str(items.as_str()))
        .with_inputs(|| Outgoing::Event(event(items.clone())))
        .bench_refs(|said| sse.encode(said));
}
