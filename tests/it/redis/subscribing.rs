//! Many channels on demand: what asking for them, and asking again after a loss, costs others.
//!
//! `SLUICE_TEST_CHANNELS` and `SLUICE_TEST_CLIENTS` say how many; by themselves the tests take what
//! was too much once.

use std::collections::HashSet;
use std::env;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use serde_json::json;

use super::gateway;
use crate::support::{EventSource, Redis, TestGateway, Witness, wait_for};

const AT_ONCE: usize = 50;
/// As many as a stream may have.
const CHANNELS_OF_ONE: usize = 100;

fn number(variable: &str, usual: usize) -> usize {
    env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// Opens streams, all of them before any is read.
async fn open(gateway: &TestGateway, paths: impl Iterator<Item = String>) -> Vec<EventSource> {
    let opening = iter(paths).map(async |path| gateway.open(&path).await);
    opening.buffered(AT_ONCE).collect().await
}

#[tokio::test]
async fn a_link_with_70_000_channels_heals() {
    let channels = number("SLUICE_TEST_CHANNELS", 70_000);
    let redis = Redis::start().await;
    let gateway =
        gateway(&redis, |settings| settings.limits.hold_most = std::time::Duration::ZERO).await;
    let paths = (0..channels / CHANNELS_OF_ONE).map(|stream| {
        let own = stream * CHANNELS_OF_ONE..(stream + 1) * CHANNELS_OF_ONE;
        let own: Vec<_> = own.map(|n| format!("channel=room:{n}")).collect();
        format!("/api/stream?envelope=false&snapshot=false&{}", own.join("&"))
    });
    let mut streams = open(&gateway, paths).await;
    let witness = Witness::start(&gateway, &redis).await;
    // Twice: the second time before all of it is back.
    redis.end_connections("pubsub");
    let reconnects = "sluice_source_reconnects_total{source=\"redis\"}";
    wait_for("a loss", async || gateway.metric(reconnects).await > 0.5).await;
    gateway.ready().await;
    redis.end_connections("pubsub");
    for stream in &mut streams {
        let mut told = HashSet::new();
        // More than one gap, if its channels came back in more than one step.
        while told.len() < CHANNELS_OF_ONE {
            let gap = stream.event().await;
            assert_eq!(gap.data["reason"], "source_reconnected");
            let channels = gap.data["channels"].as_array().unwrap();
            told.extend(channels.iter().map(|channel| channel.as_str().unwrap().to_owned()));
        }
    }
    // All are back.
    let last = format!("room:{}", channels - 1);
    wait_for("the last", async || redis.cli(&["PUBSUB", "NUMSUB", &last]).ends_with('1')).await;
    for (n, stream) in streams.iter_mut().enumerate().step_by(100) {
        let channel = format!("room:{}", n * CHANNELS_OF_ONE);
        wait_for(&channel, async || redis.cli(&["PUBSUB", "NUMSUB", &channel]).ends_with('1'))
            .await;
        redis.publish(&channel, n.to_string().as_bytes()).await;
        let mut event = stream.event().await;
        while event.name == "gap" {
            event = stream.event().await;
        }
        assert_eq!(event.data, json!(n));
    }
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 2), "{seen:?}");
    assert_eq!(gateway.metric(reconnects).await, 2.0);
}

#[tokio::test]
async fn clients_that_return_at_once_are_told_no_gap_and_cost_others_nothing() {
    let clients = number("SLUICE_TEST_CLIENTS", 2_000);
    let redis = Redis::start().await;
    let gateway =
        gateway(&redis, |settings| settings.limits.hold_most = std::time::Duration::ZERO).await;
    let witness = Witness::start(&gateway, &redis).await;
    let path = |n: usize| format!("/api/stream?channel=room:{n}&envelope=false");
    let opening = iter(0..clients).map(async |n| gateway.open(&path(n)).await);
    let mut streams: Vec<_> = opening.buffered(clients).collect().await;
    for (n, stream) in streams.iter_mut().enumerate() {
        redis.publish(&format!("room:{n}"), n.to_string().as_bytes()).await;
        assert_eq!(stream.data().await, json!(n), "and no gap before");
    }
    let seen = witness.seen().await;
    assert_eq!((seen.lost, seen.gaps), (0, 0), "{seen:?}");
}
