//! Openings without a socket, on paused time.

use futures_util::FutureExt as _;
use tokio::time::{advance, timeout};

use super::*;
use crate::settings::Settings;

const MS: Duration = Duration::from_millis(1);

fn quota(change: impl FnOnce(&mut LimitSettings)) -> Quota {
    let mut limits = Settings::load(None, []).unwrap().limits;
    limits.reopen_window = 1000 * MS;
    change(&mut limits);
    Quota::new(&limits, &Arc::new(Metrics::new().unwrap()))
}

fn client(address: &str) -> Client {
    Client::at(address.parse().unwrap())
}

impl Quota {
    /// Opens a stream of one address.
    async fn open(&self, stream: &str) -> Result<Pass, Refused> {
        self.enter(client("192.0.2.1"), stream).await
    }

    /// Opens a stream, which is not held.
    fn open_at_once(&self, stream: &str) -> Pass {
        self.open(stream).now_or_never().expect("not held").unwrap()
    }

    /// For how long the next opening is held, to 5 ms. It is closed at once.
    async fn held(&self, stream: &str) -> u128 {
        let asked = Instant::now();
        drop(self.open(stream).await.unwrap());
        asked.elapsed().as_millis() / 5 * 5
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_back_too_soon_is_held_longer_each_time() {
    let quota = quota(|_| {});
    for expected in [0, 200, 300, 450, 675, 1000, 1000] {
        assert_eq!(quota.held("a").await, expected);
    }
    assert_eq!(quota.0.metrics.openings_held_total.get(), 6);
    advance(10_001 * MS).await;
    assert_eq!(quota.held("a").await, 0);
    assert_eq!(quota.held("a").await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_open_for_the_window_leaves_no_mark() {
    let quota = quota(|_| {});
    for _ in 0..3 {
        let pass = quota.open_at_once("a");
        advance(1000 * MS).await;
        drop(pass);
    }
    drop(quota.open_at_once("a"));
    let pass = quota.open("a").await;
    advance(900 * MS).await;
    drop(pass);
    assert_eq!(quota.held("a").await, 300, "the hold is not part of its life");
}

#[tokio::test(start_paused = true)]
async fn nobody_else_is_held() {
    let quota = quota(|_| {});
    let crowd: Vec<_> = (0..1000).map(|_| quota.open_at_once("a")).collect();
    drop(quota.open_at_once("a"));
    let other = client("192.0.2.2");
    let elsewhere = quota.enter(other, "a").now_or_never().expect("another client");
    let held = quota.open("a");
    tokio::pin!(held);
    assert!(held.as_mut().now_or_never().is_none());
    assert_eq!(quota.0.metrics.openings_waiting.get(), 1);
    let same = quota.open_at_once("a");
    let another = quota.open_at_once("b");
    assert!(held.await.is_ok());
    assert_eq!(quota.0.metrics.openings_waiting.get(), 0);
    advance(1000 * MS).await;
    drop((crowd, elsewhere, same, another));
    assert_eq!(quota.held("b").await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_opening_given_up_while_it_is_held_counts_as_one_more() {
    let quota = quota(|limits| {
        limits.hold_least = 2 * limits.reopen_window;
        limits.hold_most = limits.hold_least;
    });
    drop(quota.open_at_once("a"));
    // Held for longer than the window: what it waited is no part of its life.
    assert!(timeout(1500 * MS, quota.open("a")).await.is_err());
    assert_eq!(quota.0.metrics.openings_waiting.get(), 0);
    assert!(quota.open("a").now_or_never().is_none(), "held");
}

#[tokio::test(start_paused = true)]
async fn without_a_place_to_be_held_in_an_opening_is_refused() {
    let quota = quota(|limits| limits.held_per_address = 1);
    let both = (quota.open_at_once("a"), quota.open_at_once("a"));
    drop(both);
    let held = quota.open("a");
    tokio::pin!(held);
    assert!(held.as_mut().now_or_never().is_none());
    assert_eq!(quota.open("a").await.err(), Some(Refused::Held));
    let refused = &quota.0.metrics.openings_refused_total;
    assert_eq!(refused.with_label_values(&["held"]).get(), 1);
    quota.open_at_once("b");
    held.await.unwrap();
    assert!(quota.open("a").await.is_ok(), "the place is free again");
}

#[tokio::test(start_paused = true)]
async fn a_client_has_so_many_streams_at_a_time() {
    let quota = quota(|limits| limits.streams_per_address = 2);
    let (one, two) = (quota.open_at_once("a"), quota.open_at_once("b"));
    assert_eq!(quota.open("c").await.err(), Some(Refused::StreamsPerAddress));
    let refused = &quota.0.metrics.openings_refused_total;
    assert_eq!(refused.with_label_values(&["streams_per_address"]).get(), 1);
    assert!(quota.open("c").now_or_never().is_none(), "a loop of refusals is held as well");
    let other = quota.enter(client("192.0.2.2"), "a").await.unwrap();
    drop(one);
    let three = quota.open_at_once("d");
    assert_eq!(quota.open("e").await.err(), Some(Refused::StreamsPerAddress));
    drop((two, three, other));
    assert!(quota.0.table.lock().open.is_empty());
}

#[tokio::test(start_paused = true)]
async fn pacing_can_be_switched_off() {
    let quota = quota(|limits| limits.hold_most = Duration::ZERO);
    for _ in 0..3 {
        drop(quota.open_at_once("a"));
    }
}

#[test]
fn one_machine_is_one_client() {
    assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::2"));
    assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
    assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
}

#[test]
fn an_idle_client_pays_little_for_its_pass() {
    assert!(size_of::<Pass>() <= 40);
}
