//! Sessions without a socket: what is said, in which order, and what gives way.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::*;
use crate::event::{Batch, Channel, Epoch, Payload, Shape, ShapeId, Shaped};
use crate::settings::{DeliveryClass, Settings};
use crate::telemetry::Metrics;

/// Says everything as it is; `"end"` ends the stream, `"maybe"` unless a number takes it back within a
/// minute.
#[derive(Debug)]
struct Plain;

impl Shape for Plain {
    fn id(&self) -> ShapeId {
        ShapeId(0)
    }

    fn apply(&self, event: &Event) -> Option<Shaped> {
        let mut shaped = Shaped::plain(event.payload.shared());
        let grace = match event.payload.as_str() {
            "\"end\"" => Some(Duration::ZERO),
            "\"maybe\"" => Some(Duration::from_secs(60)),
            _ => None,
        };
        let outcome = Outcome::Complete("{}".into());
        shaped.end = grace.map(|grace| End { outcome, grace, latch: Duration::ZERO, rule: 0 });
        let is_number = event.payload.as_str().starts_with(|c: char| c.is_ascii_digit());
        shaped.contradicts = is_number.then_some(0).into_iter().collect();
        Some(shaped)
    }
}

/// A client that reads when it is told to.
#[derive(Clone, Default)]
struct Reader(Arc<Mutex<Reading>>);

#[derive(Default)]
struct Reading {
    reads: bool,
    read: Vec<Outgoing>,
    gone: bool,
    cut: bool,
}

impl Sink for Reader {
    fn attach(&mut self, _waker: Waker) {}

    fn woken(&mut self) {}

    fn pass_on(&mut self, outbox: &mut Outbox, _last: bool) -> Passed {
        let mut reading = self.0.lock();
        if reading.gone || reading.cut {
            return Passed::Gone;
        }
        if !reading.reads {
            return if outbox.is_empty() { Passed::All } else { Passed::Nothing };
        }
        reading.read.extend(std::iter::from_fn(|| outbox.pop(&Plain)));
        Passed::All
    }

    fn backlog(&self) -> usize {
        0
    }

    fn is_gone(&self) -> bool {
        self.0.lock().gone
    }

    fn already_over(&mut self) {}

    fn cut(&mut self) {
        self.0.lock().cut = true;
    }
}

struct Fixture {
    session: Session<Reader>,
    reader: Reader,
    metrics: Arc<Metrics>,
    epoch: Epoch,
    sequence: u64,
}

impl Fixture {
    fn new(class: DeliveryClass, bytes: usize, pace: Pace) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let plan = Plan {
            stream: "test".to_owned(),
            shape: Arc::new(Plain),
            outbox: OutboxSettings { class, bytes },
            windows: Windows::default(),
            keep_alive: Duration::from_secs(15),
            stalled_after: Duration::from_secs(90),
            metrics: Arc::clone(&metrics),
        };
        Self::of(Arc::new(plan), pace)
    }

    fn of(plan: Arc<Plan>, pace: Pace) -> Self {
        let metrics = Arc::clone(&plan.metrics);
        let limits = Settings::load(None, []).unwrap().limits;
        let quota = Quota::new(&limits, &metrics);
        let client = Client::at(Ipv4Addr::LOCALHOST.into());
        let pass = quota.enter(client, "test").now_or_never().unwrap().unwrap();
        let ticket = Registry::new(10, &metrics).enter("sse", "test", pass).unwrap();
        let filters = Arc::from([Filter::parse("a:*").unwrap()]);
        let reader = Reader::default();
        let session = Session::new(plan, ticket, filters, pace, reader.clone());
        Self { session, reader, metrics, epoch: Epoch::random(), sequence: 0 }
    }

    fn event(&mut self, channel: &str, payload: &str) -> Arc<Event> {
        self.sequence += 1;
        let payload = Payload::parse(payload.as_bytes(), usize::MAX).unwrap();
        let position = self.epoch.at(self.sequence);
        Arc::new(Event::new(Channel::new(channel).unwrap(), payload, position))
    }

    fn tell(&mut self, channel: &str, payload: &str) {
        let event = self.event(channel, payload);
        self.hear(&event);
    }

    fn hear(&mut self, event: &Arc<Event>) {
        self.session.receive(Signal::Event(event), Instant::now());
    }

    fn pass_deadline(&mut self) {
        self.session.receive(Signal::Deadline, Instant::now());
    }

    /// What the client gets when it reads now, in a form that is easy to compare. Keep-alives are
    /// left out.
    fn said(&mut self) -> Vec<String> {
        self.read()
            .iter()
            .filter(|said| !matches!(said, Outgoing::KeepAlive))
            .map(in_words)
            .collect()
    }

    fn read(&mut self) -> Vec<Outgoing> {
        self.flow();
        std::mem::take(&mut self.reader.0.lock().read)
    }

    /// The client reads now.
    fn flow(&mut self) -> Flow {
        self.reader.0.lock().reads = true;
        let flow = self.session.flush(Instant::now());
        self.reader.0.lock().reads = false;
        flow
    }
}

fn in_words(outgoing: &Outgoing) -> String {
    match outgoing {
        Outgoing::Event(event) => format!("{}={}", event.channel, event.payload.as_str()),
        Outgoing::Batch(batch) => {
            let events: Vec<_> = batch.events.iter().map(|event| event.payload.as_str()).collect();
            format!("[{}]", events.join(" "))
        }
        Outgoing::Complete { .. } => "complete".to_owned(),
        Outgoing::Gap { reason, .. } => format!("gap {}", reason.as_str()),
        other => format!("{other:?}").split([' ', '(']).next().unwrap().to_owned(),
    }
}

/// Room for about four events of the tests below.
const SMALL: usize = 300;

#[tokio::test]
async fn a_client_that_keeps_up_sees_every_event() {
    let mut fixture = Fixture::new(DeliveryClass::State, SMALL, Pace::AsItComes);
    for n in 0..20 {
        fixture.tell("a:1", &n.to_string());
        assert_eq!(fixture.said(), [format!("a:1={n}")]);
    }
}

#[tokio::test]
async fn state_that_lags_keeps_the_newest_of_each_channel_and_the_end() {
    let mut fixture = Fixture::new(DeliveryClass::State, SMALL, Pace::AsItComes);
    for n in 0..50 {
        fixture.tell(if n % 2 == 0 { "a:1" } else { "a:2" }, &n.to_string());
    }
    fixture.tell("a:1", "\"end\"");
    let said = fixture.said();
    assert!(said.len() <= 6, "{said:?}");
    assert_eq!(said[said.len() - 2..], ["a:1=\"end\"", "complete"]);
    assert!(said.contains(&"a:2=49".to_owned()), "{said:?}");
    let conflated = fixture.metrics.events_conflated_total.with_label_values(&["state"]).get();
    assert_eq!(usize::try_from(conflated).unwrap() + said.len() - 2, 50);
    assert_eq!(fixture.flow(), Flow::Ended);
}

#[tokio::test]
async fn state_of_more_channels_than_fit_is_closed_behind_what_does() {
    let mut fixture = Fixture::new(DeliveryClass::State, SMALL, Pace::AsItComes);
    for n in 0..20 {
        fixture.tell(&format!("a:{n}"), "1");
    }
    let said = fixture.said();
    let expected: Vec<_> = (0..said.len()).map(|n| format!("a:{n}=1")).collect();
    assert!(!said.is_empty() && said.len() < 20 && said == expected, "{said:?}");
    assert_eq!(fixture.session.out.close_reason(), Some(CloseReason::SlowConsumer));
}

#[tokio::test]
async fn a_log_that_lags_is_closed_behind_what_fits() {
    let mut fixture = Fixture::new(DeliveryClass::Log, SMALL, Pace::AsItComes);
    for n in 0..20 {
        fixture.tell("a:1", &n.to_string());
    }
    let said = fixture.said();
    let expected: Vec<_> = (0..said.len()).map(|n| format!("a:1={n}")).collect();
    assert!(!said.is_empty() && said.len() < 20 && said == expected, "{said:?}");
    assert_eq!(fixture.session.out.close_reason(), Some(CloseReason::SlowConsumer));
    assert_eq!(fixture.session.backlog(), 0);
}

#[tokio::test]
async fn one_item_is_taken_in_however_large() {
    let mut fixture = Fixture::new(DeliveryClass::Log, SMALL, Pace::AsItComes);
    let large = format!("\"{}\"", "x".repeat(10 * SMALL));
    fixture.tell("a:1", &large);
    assert_eq!(fixture.said(), [format!("a:1={large}")]);
    assert_eq!(fixture.flow(), Flow::Continue);
}

#[tokio::test(start_paused = true)]
async fn an_end_with_grace_can_be_taken_back() {
    let mut fixture = Fixture::new(DeliveryClass::State, 10_000, Pace::AsItComes);
    fixture.tell("a:1", "\"maybe\"");
    tokio::time::advance(Duration::from_secs(30)).await;
    fixture.tell("a:2", "1");
    fixture.tell("a:1", "1");
    tokio::time::advance(Duration::from_secs(90)).await;
    fixture.pass_deadline();
    assert_eq!(fixture.said(), ["a:1=\"maybe\"", "a:2=1", "a:1=1"]);

    fixture.tell("a:1", "\"maybe\"");
    tokio::time::advance(Duration::from_secs(30)).await;
    fixture.tell("a:1", "\"maybe\"");
    fixture.tell("a:2", "1");
    tokio::time::advance(Duration::from_secs(31)).await;
    fixture.pass_deadline();
    assert_eq!(fixture.said().last().unwrap(), "complete");
    fixture.tell("a:1", "\"end\"");
    assert_eq!(fixture.said(), Vec::<String>::new(), "an end is said once");
}

#[tokio::test(start_paused = true)]
async fn a_window_goes_out_together_and_an_end_does_not_wait() {
    let window = Pace::Window(Duration::from_millis(100));
    let mut fixture = Fixture::new(DeliveryClass::Log, 10_000, window);
    for n in 1..=3 {
        fixture.tell("a:1", &n.to_string());
    }
    assert_eq!(fixture.said(), Vec::<String>::new());
    tokio::time::advance(Duration::from_millis(101)).await;
    fixture.pass_deadline();
    assert_eq!(fixture.said(), ["[1 2 3]"]);
    fixture.tell("a:1", "4");
    fixture.tell("a:1", "\"end\"");
    assert_eq!(fixture.said(), ["[4 \"end\"]", "complete"]);
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_stream_share_their_batches() {
    let window = Pace::Window(Duration::from_millis(100));
    let mut one = Fixture::new(DeliveryClass::Log, 10_000, window);
    let mut two = Fixture::of(Arc::clone(&one.session.plan), window);
    tokio::time::advance(Duration::from_millis(70)).await;
    let first = one.event("a:1", "1");
    one.hear(&first);
    two.hear(&first);
    // The window is over; the deadline of one session comes in time, that of the other late.
    tokio::time::advance(Duration::from_millis(31)).await;
    one.pass_deadline();
    for n in ["2", "3"] {
        let event = one.event("a:1", n);
        one.hear(&event);
        two.hear(&event);
    }
    two.pass_deadline();
    tokio::time::advance(Duration::from_millis(100)).await;
    one.pass_deadline();
    two.pass_deadline();
    let batches = |mut of: Fixture| of.read().into_iter().map(batch).collect::<Vec<_>>();
    let (one, two) = (batches(one), batches(two));
    assert_eq!(one.iter().map(|batch| batch.events.len()).collect::<Vec<_>>(), [1, 2]);
    assert!(one.len() == two.len() && one.iter().zip(&two).all(|(a, b)| Arc::ptr_eq(a, b)));
}

fn batch(outgoing: Outgoing) -> Arc<Batch> {
    let Outgoing::Batch(batch) = outgoing else { panic!("{outgoing:?}") };
    batch
}

#[tokio::test(start_paused = true)]
async fn an_end_that_does_not_fit_is_not_said_without_its_event() {
    let rate = Pace::Rate(Duration::from_secs(1));
    let mut fixture = Fixture::new(DeliveryClass::Log, 4 * 65 + 67, rate);
    // One goes out at once, four wait; the end does not fit, though `complete` would.
    for n in 0..5 {
        fixture.tell("a:1", &n.to_string());
    }
    fixture.tell("a:1", "\"end\"");
    let mut said = Vec::new();
    while fixture.flow() == Flow::Continue {
        said.extend(fixture.said());
        tokio::time::advance(Duration::from_millis(1001)).await;
        fixture.pass_deadline();
    }
    said.extend(fixture.said());
    let expected: Vec<_> = (0..said.len()).map(|n| format!("a:1={n}")).collect();
    assert_eq!(said, expected);
    assert_eq!(fixture.session.out.close_reason(), Some(CloseReason::SlowConsumer));
}

#[tokio::test(start_paused = true)]
async fn a_rate_conflates_state_and_delays_all_else() {
    for (class, expected) in [
        (DeliveryClass::State, vec![1, 9]),
        (DeliveryClass::Log, (1..=9).collect()),
        (DeliveryClass::Text, (1..=9).collect()),
    ] {
        let mut fixture = Fixture::new(class, 10_000, Pace::Rate(Duration::from_secs(1)));
        for n in 1..=9 {
            fixture.tell("a:1", &n.to_string());
        }
        for n in expected {
            assert_eq!(fixture.said(), [format!("a:1={n}")], "{class:?}");
            fixture.pass_deadline();
            assert_eq!(fixture.said(), Vec::<String>::new(), "{class:?}: not before its time");
            tokio::time::advance(Duration::from_millis(1001)).await;
            fixture.pass_deadline();
        }
        assert_eq!(fixture.said(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_before_the_longest_silence_is_over() {
    let mut fixture = Fixture::new(DeliveryClass::State, 10_000, Pace::AsItComes);
    fixture.tell("a:1", "1");
    fixture.said();
    let deadline = fixture.session.deadline().unwrap();
    assert!(deadline <= Instant::now() + Duration::from_secs(15));
    tokio::time::advance(deadline - Instant::now()).await;
    fixture.pass_deadline();
    fixture.flow();
    assert!(matches!(fixture.reader.0.lock().read[..], [Outgoing::KeepAlive]));
}

#[tokio::test]
async fn a_client_that_goes_ends_the_session() {
    let mut fixture = Fixture::new(DeliveryClass::State, 10_000, Pace::AsItComes);
    fixture.tell("a:1", "1");
    fixture.reader.0.lock().gone = true;
    assert_eq!(fixture.flow(), Flow::Ended);
    let Fixture { session, metrics, .. } = fixture;
    drop(session);
    let closed = metrics.sessions_closed_total.with_label_values(&["state", "client_gone"]).get();
    assert_eq!((closed, metrics.sessions.with_label_values(&["sse", "test"]).get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_cut_in_time() {
    let mut fixture = Fixture::new(DeliveryClass::State, SMALL, Pace::AsItComes);
    fixture.tell("a:1", "1");
    assert_eq!(fixture.session.flush(Instant::now()), Flow::Continue);
    tokio::time::advance(Duration::from_secs(89)).await;
    fixture.pass_deadline();
    assert_eq!(fixture.session.flush(Instant::now()), Flow::Continue);
    tokio::time::advance(Duration::from_secs(1)).await;
    fixture.pass_deadline();
    assert_eq!(fixture.session.flush(Instant::now()), Flow::Ended);
    assert!(fixture.reader.0.lock().cut);
    assert_eq!(fixture.session.out.close_reason(), Some(CloseReason::SlowConsumer));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_waits_a_little_for_its_client() {
    let mut fixture = Fixture::new(DeliveryClass::State, SMALL, Pace::AsItComes);
    fixture.tell("a:1", "\"end\"");
    assert_eq!(fixture.session.flush(Instant::now()), Flow::Continue);
    let deadline = fixture.session.deadline().unwrap();
    assert_eq!(deadline, Instant::now() + LAST_CHANCE);
    tokio::time::advance(LAST_CHANCE).await;
    fixture.pass_deadline();
    assert_eq!(fixture.session.flush(Instant::now()), Flow::Ended);
    assert_eq!(fixture.session.out.close_reason(), Some(CloseReason::Completed));
}

#[tokio::test]
async fn a_session_that_is_shed_lets_all_go() {
    let mut fixture = Fixture::new(DeliveryClass::Log, 10_000, Pace::AsItComes);
    fixture.tell("a:1", "1");
    assert!(fixture.session.backlog() > 0);
    fixture.session.receive(Signal::Shed, Instant::now());
    assert_eq!(fixture.session.backlog(), 0);
    assert_eq!(fixture.session.flush(Instant::now()), Flow::Ended);
    assert_eq!(fixture.session.out.close_reason(), Some(CloseReason::Shed));
}
