//! Sessions without a socket: what is said, in which order, and what gives way.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::*;
use crate::event::{Channel, Epoch, Payload, Shape, ShapeId, Shaped};
use crate::settings::{DeliveryClass, Settings};
use crate::telemetry::Metrics;

/// Says everything as it is; `"end"` ends the stream, `"maybe"` unless taken back within a minute.
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
        shaped.end = grace.map(|grace| End { data: "{}".into(), grace });
        Some(shaped)
    }
}

struct Fixture {
    session: Session,
    reader: PipeReader,
    metrics: Arc<Metrics>,
    epoch: Epoch,
    sequence: u64,
}

impl Fixture {
    fn new(class: DeliveryClass, bytes: usize, pace: Pace) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let limits = Settings::load(None, []).unwrap().limits;
        let quota = Quota::new(&limits, &metrics);
        let client = Client::at(Ipv4Addr::LOCALHOST.into());
        let pass = quota.enter(client, "test").now_or_never().unwrap().unwrap();
        let ticket = Registry::new(10, &metrics).enter("sse", "test", pass).unwrap();
        let plan = Plan {
            stream: "test".to_owned(),
            shape: Arc::new(Plain),
            outbox: OutboxSettings { class, bytes, replay_bytes: 10_000 },
            keep_alive: Duration::from_secs(15),
            metrics: Arc::clone(&metrics),
        };
        let filters = Arc::from([Filter::parse("a:*").unwrap()]);
        let (session, reader) =
            Session::new(Arc::new(plan), ticket, filters, Options { pace, ..Options::default() });
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
        self.session.receive(Signal::Event(&event), Instant::now());
    }

    fn pass_deadline(&mut self) {
        self.session.receive(Signal::Deadline, Instant::now());
    }

    /// What the reader gets, in a form that is easy to compare. Keep-alives are left out.
    async fn said(&mut self) -> Vec<String> {
        self.session.flush();
        let next = tokio::time::timeout(Duration::from_millis(1), self.reader.next()).await;
        let said = next.ok().flatten().unwrap_or_default();
        said.iter().filter(|said| !matches!(said, Outgoing::KeepAlive)).map(in_words).collect()
    }

    fn flow(&mut self) -> Flow {
        self.session.flush()
    }
}

fn in_words(outgoing: &Outgoing) -> String {
    match outgoing {
        Outgoing::Event(event) => format!("{}={}", event.channel, event.payload.as_str()),
        Outgoing::Batch(events) => {
            let events: Vec<_> = events.iter().map(|event| event.payload.as_str()).collect();
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
        assert_eq!(fixture.said().await, [format!("a:1={n}")]);
    }
}

#[tokio::test]
async fn state_that_lags_keeps_the_newest_of_each_channel_and_the_end() {
    let mut fixture = Fixture::new(DeliveryClass::State, SMALL, Pace::AsItComes);
    for n in 0..50 {
        fixture.tell(if n % 2 == 0 { "a:1" } else { "a:2" }, &n.to_string());
    }
    fixture.tell("a:1", "\"end\"");
    let said = fixture.said().await;
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
    let said = fixture.said().await;
    let expected: Vec<_> = (0..said.len()).map(|n| format!("a:{n}=1")).collect();
    assert!(!said.is_empty() && said.len() < 20 && said == expected, "{said:?}");
    assert_eq!(fixture.session.pipe.close_reason(), Some(CloseReason::SlowConsumer));
}

#[tokio::test]
async fn a_log_that_lags_is_closed_behind_what_fits() {
    let mut fixture = Fixture::new(DeliveryClass::Log, SMALL, Pace::AsItComes);
    for n in 0..20 {
        fixture.tell("a:1", &n.to_string());
    }
    let said = fixture.said().await;
    let expected: Vec<_> = (0..said.len()).map(|n| format!("a:1={n}")).collect();
    assert!(!said.is_empty() && said.len() < 20 && said == expected, "{said:?}");
    assert!(fixture.reader.next().await.is_none());
    assert_eq!(fixture.session.pipe.close_reason(), Some(CloseReason::SlowConsumer));
    assert_eq!(fixture.metrics.outbox_bytes.get(), 0);
}

#[tokio::test]
async fn one_item_is_taken_in_however_large() {
    let mut fixture = Fixture::new(DeliveryClass::Log, SMALL, Pace::AsItComes);
    let large = format!("\"{}\"", "x".repeat(10 * SMALL));
    fixture.tell("a:1", &large);
    assert_eq!(fixture.said().await, [format!("a:1={large}")]);
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
    assert_eq!(fixture.said().await, ["a:1=\"maybe\"", "a:2=1", "a:1=1"]);

    fixture.tell("a:1", "\"maybe\"");
    tokio::time::advance(Duration::from_secs(30)).await;
    fixture.tell("a:1", "\"maybe\"");
    fixture.tell("a:2", "1");
    tokio::time::advance(Duration::from_secs(31)).await;
    fixture.pass_deadline();
    assert_eq!(fixture.said().await.last().unwrap(), "complete");
    fixture.tell("a:1", "\"end\"");
    assert_eq!(fixture.said().await, Vec::<String>::new(), "an end is said once");
}

#[tokio::test(start_paused = true)]
async fn a_window_goes_out_together_and_an_end_does_not_wait() {
    let window = Pace::Window(Duration::from_millis(100));
    let mut fixture = Fixture::new(DeliveryClass::Log, 10_000, window);
    for n in 1..=3 {
        fixture.tell("a:1", &n.to_string());
    }
    assert_eq!(fixture.said().await, Vec::<String>::new());
    tokio::time::advance(Duration::from_millis(101)).await;
    fixture.pass_deadline();
    assert_eq!(fixture.said().await, ["[1 2 3]"]);
    fixture.tell("a:1", "4");
    fixture.tell("a:1", "\"end\"");
    assert_eq!(fixture.said().await, ["[4 \"end\"]", "complete"]);
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
        said.extend(fixture.said().await);
        tokio::time::advance(Duration::from_millis(1001)).await;
        fixture.pass_deadline();
    }
    said.extend(fixture.said().await);
    let expected: Vec<_> = (0..said.len()).map(|n| format!("a:1={n}")).collect();
    assert_eq!(said, expected);
    assert_eq!(fixture.session.pipe.close_reason(), Some(CloseReason::SlowConsumer));
}

#[tokio::test(start_paused = true)]
async fn a_rate_conflates_state_and_delays_a_log() {
    for (class, expected) in
        [(DeliveryClass::State, vec![1, 9]), (DeliveryClass::Log, (1..=9).collect())]
    {
        let mut fixture = Fixture::new(class, 10_000, Pace::Rate(Duration::from_secs(1)));
        for n in 1..=9 {
            fixture.tell("a:1", &n.to_string());
        }
        for n in expected {
            assert_eq!(fixture.said().await, [format!("a:1={n}")], "{class:?}");
            fixture.pass_deadline();
            assert_eq!(
                fixture.said().await,
                Vec::<String>::new(),
                "{class:?}: not before its time"
            );
            tokio::time::advance(Duration::from_millis(1001)).await;
            fixture.pass_deadline();
        }
        assert_eq!(fixture.said().await, Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_before_the_longest_silence_is_over() {
    let mut fixture = Fixture::new(DeliveryClass::State, 10_000, Pace::AsItComes);
    fixture.tell("a:1", "1");
    fixture.said().await;
    let deadline = fixture.session.deadline().unwrap();
    assert!(deadline <= Instant::now() + Duration::from_secs(15));
    tokio::time::advance(deadline - Instant::now()).await;
    fixture.pass_deadline();
    fixture.session.flush();
    assert!(matches!(fixture.reader.next().await.unwrap()[0], Outgoing::KeepAlive));
}

#[tokio::test]
async fn a_session_that_nobody_takes_in_is_turned_away() {
    let Fixture { session, reader, metrics, .. } =
        Fixture::new(DeliveryClass::State, 10_000, Pace::AsItComes);
    drop(session);
    assert_eq!(reader.opening().await, Opening::TurnedAway);
    assert_eq!(metrics.sessions_closed_total.with_label_values(&["aborted"]).get(), 1);
}

#[tokio::test]
async fn a_reader_that_goes_ends_the_session() {
    let mut fixture = Fixture::new(DeliveryClass::State, 10_000, Pace::AsItComes);
    fixture.tell("a:1", "1");
    let Fixture { mut session, reader, metrics, .. } = fixture;
    drop(reader);
    assert_eq!(session.flush(), Flow::Ended);
    drop(session);
    assert_eq!(metrics.sessions_closed_total.with_label_values(&["client_gone"]).get(), 1);
    assert_eq!(
        (metrics.outbox_bytes.get(), metrics.sessions.with_label_values(&["sse", "test"]).get()),
        (0, 0)
    );
}
