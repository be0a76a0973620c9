//! One channel to many sessions: hub, shard, outbox, frame. The kernel's part is left out: the bytes
//! are thrown away.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::task::Waker;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use sluice::event::{Filter, Shape, Variant};
use sluice::session::{
    Client, Outbox, OutboxSettings, Outgoing, Pace, Passed, Plan, Quota, Registry, Session, Sink,
    Windows,
};
use sluice::streams::Streams;
use sluice::wire::{Sse, Wire};

use crate::house::{Heard, House, channel, report};

/// Encodes what it is given and throws it away.
struct Discard {
    sse: Arc<Sse>,
    shape: Arc<dyn Shape>,
    heard: Heard,
}

impl Sink for Discard {
    fn attach(&mut self, _waker: Waker) {}

    fn woken(&mut self) {}

    fn pass_on(&mut self, outbox: &mut Outbox, _last: bool) -> Passed {
        while let Some(said) = outbox.pop(&*self.shape) {
            black_box(self.sse.encode(&said));
            if matches!(said, Outgoing::Event(_)) {
                self.heard.one_more();
            }
        }
        Passed::All
    }

    fn backlog(&self) -> usize {
        0
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn already_over(&mut self) {}

    fn cut(&mut self) {}
}

/// A house in which so many clients of `/stream` listen to `a`.
fn open(sessions: usize) -> House {
    let house = House::new();
    let settings = &house.settings;
    let streams = Streams::compile(&settings.stream);
    let (stream, _) = streams.find("/stream").unwrap();
    let shape = &stream.shape;
    let plan = Arc::new(Plan {
        stream: stream.name.clone(),
        shape: Arc::clone(shape),
        outbox: OutboxSettings { class: stream.class, bytes: settings.outbox.log_bytes },
        windows: Windows::default(),
        keep_alive: settings.server.keep_alive,
        stalled_after: settings.server.stalled_after,
        metrics: Arc::clone(&house.metrics),
    });
    let sse = Arc::new(Sse::new(Arc::clone(shape), Variant::default(), usize::MAX));
    let quota = Quota::new(&settings.limits, &house.metrics);
    let registry = Registry::new(sessions, &house.metrics);
    let filter = Filter::parse("a").unwrap();
    for _ in 0..sessions {
        let client = Client::at(Ipv4Addr::LOCALHOST.into());
        let pass = house.wait_for(quota.enter(client, "bench")).unwrap();
        let ticket = registry.enter("sse", &plan.stream, pass).unwrap();
        let (sse, shape, heard) = (Arc::clone(&sse), Arc::clone(shape), house.heard());
        let sink = Discard { sse, shape, heard };
        let filters = Arc::from([filter.clone()]);
        let session = Session::new(Arc::clone(&plan), ticket, filters, Pace::AsItComes, sink);
        house.arrive(session, &filter);
    }
    house
}

fn bench_burst(bencher: Bencher<'_, '_>, sessions: usize, events: usize) {
    let house = open(sessions);
    bencher
        .counter(ItemsCount::new(sessions * events))
        .with_inputs(|| (0..events).map(|_| (channel("a"), report())).collect())
        .bench_values(|burst| house.deliver(burst, sessions * events));
}

/// An event comes while nothing else does; counted in deliveries.
#[divan::bench(args = [1, 1_000, 10_000])]
fn one_event(bencher: Bencher<'_, '_>, sessions: usize) {
    bench_burst(bencher, sessions, 1);
}

/// Sixteen come at once, and each session passes them on together; counted in deliveries.
#[divan::bench(args = [1, 1_000, 10_000])]
fn sixteen_events(bencher: Bencher<'_, '_>, sessions: usize) {
    bench_burst(bencher, sessions, 16);
}
