//! The hand-over from history to live: whoever subscribes while events are published gets every
//! event after its start, once and in order, or is told of a gap.

mod coverage;
mod spread;
mod stored;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::event::{ChannelPattern, Payload, Position};

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Record>>);

#[derive(Default, Debug)]
struct Record {
    /// Where it started, and whether its position was honoured; the rest is live.
    start: Option<(u64, bool)>,
    sequences: Vec<u64>,
    gaps: Vec<(Vec<String>, GapReason)>,
    /// How many events it had been told at each gap.
    gaps_after: Vec<usize>,
    refused: Vec<String>,
    left: bool,
}

impl Subscriber for Recorder {
    fn receive(&mut self, signal: Signal<'_>, _now: Instant) {
        let mut record = self.0.lock();
        match signal {
            Signal::Start(start) => {
                let (resumed, events) = match start.from {
                    StartFrom::Resumed { missed, .. } => (true, missed),
                    _ => (false, Vec::new()),
                };
                record.start = Some((start.position.sequence, resumed));
                record.sequences.extend(events.iter().map(|event| event.position.sequence));
            }
            Signal::Event(event) => record.sequences.push(event.position.sequence),
            Signal::Gap(gap) => {
                let channels = gap.channels.iter().map(ToString::to_string).collect();
                record.gaps.push((channels, gap.reason));
                let told = record.sequences.len();
                record.gaps_after.push(told);
            }
            Signal::Woken | Signal::Deadline | Signal::Shed => {}
            Signal::Refused(filters) => {
                record.refused.extend(filters.iter().map(ToString::to_string));
                record.left = true;
            }
            Signal::Stop { .. } => record.left = true,
        }
    }

    fn flush(&mut self, _now: Instant) -> Flow {
        if self.0.lock().left { Flow::Ended } else { Flow::Continue }
    }

    fn backlog(&self) -> usize {
        0
    }

    fn is_gone(&self) -> bool {
        self.0.lock().left
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

fn settings(shards: usize) -> HubSettings {
    HubSettings {
        shards,
        backlog: usize::MAX,
        history: HistoryBounds {
            events: 1000,
            channel_bytes: 1 << 20,
            bytes: 1 << 20,
            age: Duration::from_secs(60),
        },
        snapshot: SnapshotBounds {
            bytes: 1 << 20,
            age: Duration::from_secs(60),
            pattern_bytes: 1 << 20,
            keys: 256,
        },
        rules: Arc::from([]),
        linger: Lingering { time: Duration::from_secs(60), channels: 1000, demand: usize::MAX },
        standing: vec![ChannelPattern::new("*").unwrap()],
        stale_after: Duration::from_secs(5),
    }
}

fn inlet_settings() -> InletSettings {
    InletSettings {
        max_event_bytes: 100,
        objects: ObjectChannels::default(),
        reshaped: Vec::new(),
        rules: Arc::from([]),
    }
}

fn filters(texts: &[String]) -> Arc<[Filter]> {
    texts.iter().map(|text| Filter::parse(text).unwrap()).collect()
}

/// A core, and shards that hand over what comes out of it when they are told to, not before: every
/// interleaving of hub and shards can be made.
struct Machine {
    core: Core,
    waiting: Vec<Vec<Delivery>>,
    shards: Vec<Vec<Seated>>,
    said: Vec<(u64, Channel)>,
}

impl Machine {
    fn new(settings: HubSettings) -> Self {
        let shards = settings.shards;
        let mut core = Core::new(settings, Demand::default());
        core.connected(&[]);
        Self {
            core,
            waiting: (0..shards).map(|_| Vec::new()).collect(),
            shards: (0..shards).map(|_| Vec::new()).collect(),
            said: Vec::new(),
        }
    }

    fn publish(&mut self, channel: &str) {
        let channel = Channel::new(channel).unwrap();
        let payload = Payload::parse(b"1", 1).unwrap();
        self.core.publish(Incoming::plain(channel.clone(), payload));
        self.said.push((self.core.position().sequence, channel));
        self.collect();
    }

    fn arrive(&mut self, filters: Arc<[Filter]>, resume: Resume) -> Recorder {
        let recorder = Recorder::default();
        let subscriber = Box::new(recorder.clone());
        let unreadable = Vec::new();
        self.core.arrive(Arrival {
            subscriber,
            filters,
            by: NOBODY,
            resume,
            snapshot: true,
            unreadable,
        });
        self.collect();
        recorder
    }

    fn collect(&mut self) {
        for (shard, deliveries) in self.core.take() {
            self.waiting[shard].extend(deliveries);
        }
    }

    fn run_shard(&mut self, shard: usize) {
        for delivery in std::mem::take(&mut self.waiting[shard]) {
            match delivery {
                Delivery::Join(mut join) => {
                    let waker = std::task::Waker::noop().clone();
                    let (position, from, unreadable) = (join.position, join.from, join.unreadable);
                    let start = Start { position, from, unreadable, waker };
                    join.subscriber.receive(Signal::Start(Box::new(start)), Instant::now());
                    self.shards[shard].push((join.subscriber, join.filters, 0));
                }
                Delivery::Event(event) => {
                    for (subscriber, filters, last) in &mut self.shards[shard] {
                        let new = std::mem::replace(last, event.position.sequence) != *last;
                        if new && filters.iter().any(|filter| filter.matches(&event.channel)) {
                            subscriber.receive(Signal::Event(&event), Instant::now());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn expected(&self, after: u64, filters: &[Filter]) -> Vec<u64> {
        let passes = |channel: &Channel| filters.iter().any(|filter| filter.matches(channel));
        let said = self.said.iter().filter(|(n, channel)| *n > after && passes(channel));
        said.map(|(n, _)| *n).collect()
    }
}

/// A subscriber, what it listens to, and the last event it was told.
type Seated = (Box<dyn Subscriber>, Arc<[Filter]>, u64);

#[derive(Debug, Clone)]
enum Step {
    Publish(String),
    Arrive { filters: Vec<String>, back: Option<u64> },
    RunShard(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => "[ab]:[xy]".prop_map(Step::Publish),
        2 => (prop::collection::vec("[ab]:[xy*]", 1..4), prop::option::of(0_u64..20))
            .prop_map(|(filters, back)| Step::Arrive { filters, back }),
        2 => (0_usize..2).prop_map(Step::RunShard),
    ]
}

proptest! {
    #[test]
    fn no_gap_and_nothing_twice(steps in prop::collection::vec(step(), 1..120)) {
        let mut machine = Machine::new(settings(2));
        let mut arrived = Vec::new();
        for step in steps {
            match step {
                Step::Publish(channel) => machine.publish(&channel),
                Step::RunShard(shard) => machine.run_shard(shard),
                Step::Arrive { filters: texts, back } => {
                    let filters = filters(&texts);
                    let now = machine.core.position();
                    // The source was connected at 1; what was before was not heard.
                    let at = back.map(|back| now.epoch.at(now.sequence.saturating_sub(back).max(1)));
                    let resume = at.map_or(Resume::Fresh, Resume::At);
                    let recorder = machine.arrive(Arc::clone(&filters), resume);
                    arrived.push((recorder, filters, at.unwrap_or(now).sequence));
                }
            }
        }
        machine.run_shard(0);
        machine.run_shard(1);
        for (recorder, filters, from) in arrived {
            prop_assert_eq!(&recorder.0.lock().sequences, &machine.expected(from, &filters));
        }
    }
}

/// The same over the real tasks: subscribers come and go back while a publisher runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_gap_and_nothing_twice_over_tasks() {
    let stop = Stop::new();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (hub, _demand) = Hub::start(settings(4), Duration::ZERO, &metrics, &stop);
    let inlet = hub.inlet("test", inlet_settings(), &metrics);
    inlet.connected(Vec::new()).await.unwrap();
    let (total, channels) = (3000_u64, ["a:x", "a:y", "b:x"]);
    let publisher = async {
        for n in 0..total {
            inlet
                .publish(channels[usize::try_from(n % 3).unwrap()].as_bytes(), b"1")
                .await
                .unwrap();
        }
    };
    let subscribers = async {
        let mut recorders = Vec::new();
        for n in 0..200 {
            let recorder = Recorder::default();
            let texts = [["a:x", "a:*"], ["b:*", "a:y"], ["*", "a:x"]][n % 3].map(str::to_owned);
            let filters = filters(&texts);
            let subscriber = Box::new(recorder.clone());
            let arrival = Arrival {
                subscriber,
                by: NOBODY,
                filters: Arc::clone(&filters),
                resume: Resume::Fresh,
                snapshot: false,
                unreadable: Vec::new(),
            };
            hub.arrive(arrival).await.unwrap();
            recorders.push((recorder, filters));
            tokio::task::yield_now().await;
        }
        recorders
    };
    let ((), recorders) = tokio::join!(publisher, subscribers);

    // The connection of the source took place 1: place n is the event n - 2 of the publisher.
    let total = total + 1;
    let passes = |filters: &[Filter], n: u64| {
        let channel = Channel::new(channels[usize::try_from((n - 2) % 3).unwrap()]).unwrap();
        filters.iter().any(|filter| filter.matches(&channel))
    };
    for (recorder, filters) in recorders {
        let last = (2..=total).rev().find(|&n| passes(&filters, n)).unwrap();
        wait_until(|| {
            let record = recorder.0.lock();
            record.sequences.last() == Some(&last)
                || record.start.is_some_and(|(from, _)| from >= last)
        })
        .await;
        let record = recorder.0.lock();
        let (from, _) = record.start.unwrap();
        let expected: Vec<_> = (from.max(1) + 1..=total).filter(|&n| passes(&filters, n)).collect();
        assert_eq!(record.sequences, expected);
    }
    stop.request();
    stop.settle();
    tokio::time::timeout(Duration::from_secs(20), stop.finished()).await.unwrap();
}

#[test]
fn a_position_from_before_the_loss_is_not_honoured() {
    let mut machine = Machine::new(settings(1));
    machine.publish("a:x");
    let before = machine.core.position();
    machine.core.lost();
    machine.core.connected(&[]);
    machine.publish("a:x");
    let after = machine.core.position();
    let resumed = |machine: &mut Machine, at: Position| {
        let recorder = machine.arrive(filters(&["a:x".to_owned()]), Resume::At(at));
        machine.run_shard(0);
        let start = recorder.0.lock().start;
        start.unwrap().1
    };
    assert!(!resumed(&mut machine, before));
    assert!(resumed(&mut machine, after));
    assert!(!resumed(&mut machine, after.epoch.at(after.sequence + 1)));
}

async fn wait_until(condition: impl Fn() -> bool) {
    let polled = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), polled).await.unwrap();
}
