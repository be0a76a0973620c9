//! The council over a real Redis: the words of a run reach every node, a Redis that goes away takes
//! none of them, and one run is one bill, however many nodes are asked for it.

use super::watching::council;
use super::{ASK, Watcher, gateway};
use crate::support::models::chat::Halting;
use crate::support::{EventSource, Redis, TestGateway, wait_for, within};

const UP: &str = "sluice_source_up{source=\"redis\"}";

/// A gateway on this Redis, with one member.
async fn node(redis: &Redis, gpt4: &Halting) -> TestGateway {
    let more = format!(
        "redis.url = {:?}\ncouncil.unwatched = \"continue\"\nserver.drain = \"500ms\"",
        redis.url()
    );
    let gateway = gateway(&council(&more, &[("gpt4", gpt4.url())])).await;
    gateway.ready().await;
    gateway
}

/// Opens the stream and hears the first words.
async fn begun(gateway: &TestGateway, path: &str) -> (EventSource, Watcher) {
    let mut stream = gateway.open(path).await;
    let mut watcher = Watcher::default();
    watcher.until_said(&mut stream, &[("gpt4", "First, ")]).await;
    (stream, watcher)
}

async fn member() -> Halting {
    Halting::start(&["First, "], &["then", " last.\nSCORE: 0.5"]).await
}

const ALL: &str = "First, then last.\nSCORE: 0.5";

#[tokio::test]
async fn a_run_is_heard_on_every_node_from_its_beginning() {
    let redis = Redis::start().await;
    let gpt4 = member().await;
    let (a, b) = (node(&redis, &gpt4).await, node(&redis, &gpt4).await);
    let (stream, at_a) = begun(&a, &format!("{ASK}&runId=shared")).await;
    let (other, at_b) = begun(&b, "/api/stream/council-score?runId=shared").await;
    assert_eq!(at_b.run_id(), "shared");
    gpt4.go_on();
    let (at_a, at_b) = tokio::join!(at_a.until_the_end(stream), at_b.until_the_end(other));
    assert_eq!(at_a.texts["gpt4"], ALL);
    assert_eq!((&at_b.texts, &at_b.ends), (&at_a.texts, &at_a.ends));
    assert_eq!(at_b.complete, at_a.complete);
    let after = Watcher::watch(&b, &format!("{ASK}&runId=shared")).await;
    assert_eq!((after.texts, after.complete), (at_a.texts, at_a.complete));
    assert_eq!(gpt4.asked(), 1);

    let unknown = "/api/stream/council-score?videoUrl=v&transcript=t&runId=unknown";
    for path in [unknown, ASK] {
        let back = b.get(path).header("last-event-id", &at_b.id).send().await.unwrap();
        assert_eq!(back.status(), 404, "{path}: nobody is asked for what B does not know");
    }
    assert_eq!(gpt4.asked(), 1);
}

#[tokio::test]
async fn a_run_of_another_node_is_known_after_a_loss() {
    let redis = Redis::start().await;
    let gpt4 = member().await;
    let (a, b) = (node(&redis, &gpt4).await, node(&redis, &gpt4).await);
    let path = format!("{ASK}&runId=shared");
    let (stream, at_a) = begun(&a, &path).await;
    let id = begun(&b, "/api/stream/council-score?runId=shared").await.0.last_event_id;
    redis.end_connections("pubsub");
    let lost = "sluice_source_reconnects_total{source=\"redis\"}";
    wait_for("loss", async || b.metric(lost).await > 0.5).await;
    b.ready().await;
    let back = b.resume(&path, &id).await;
    gpt4.go_on();
    let at_a = at_a.until_the_end(stream);
    let (at_a, rest) = tokio::join!(at_a, back.rest());
    assert_eq!(at_a.texts["gpt4"], ALL);
    assert_eq!(Some(&rest.last().unwrap().data["data"]), at_a.complete.as_ref());
    assert_eq!(gpt4.asked(), 1);
}

#[tokio::test]
async fn the_same_name_on_two_nodes_at_once_is_one_run() {
    let redis = Redis::start().await;
    let gpt4 = member().await;
    let (a, b) = (node(&redis, &gpt4).await, node(&redis, &gpt4).await);
    for run in 1..=10 {
        let path = format!("{ASK}&runId=run-{run}");
        let (at_a, at_b) = tokio::join!(begun(&a, &path), begun(&b, &path));
        gpt4.go_on();
        let (at_a, at_b) = tokio::join!(at_a.1.until_the_end(at_a.0), at_b.1.until_the_end(at_b.0));
        assert_eq!(at_a.texts["gpt4"], ALL);
        assert_eq!((&at_b.texts, &at_b.complete), (&at_a.texts, &at_a.complete));
        assert_eq!(gpt4.asked(), run, "one bill");
    }
}

/// Kills Redis in the middle of a run; `meanwhile` while it is away.
async fn outlived(
    meanwhile: impl AsyncFnOnce(&TestGateway, &Halting, &str),
    gpt4: Halting,
) -> Watcher {
    let mut redis = Redis::start().await;
    let gateway = node(&redis, &gpt4).await;
    let (mut stream, mut watcher) = begun(&gateway, ASK).await;
    let run = watcher.run_id().to_owned();
    redis.kill();
    wait_for("loss", async || gateway.metric(UP).await == 0.0).await;
    meanwhile(&gateway, &gpt4, &run).await;
    redis.run().await;
    while watcher.hear(&stream.event().await) {
        // Those who halt once more go on when Redis is back.
        if watcher.texts.get("gpt4").is_some_and(|text| text.ends_with("then ")) {
            gpt4.go_on();
        }
    }
    assert_eq!(stream.next().await, None);
    assert_eq!(watcher.texts["gpt4"], ALL);
    assert_eq!(watcher.complete.as_ref().unwrap()["compositeScore"], 0.5);
    let late = Watcher::watch(&gateway, ASK).await;
    assert_eq!((&late.texts, &late.complete), (&watcher.texts, &watcher.complete));
    assert_eq!(gpt4.asked(), 1, "one bill");
    watcher
}

async fn text(gateway: &TestGateway, run: &str) -> serde_json::Value {
    gateway.json(&format!("/api/council/{run}")).await["members"][0]["text"].clone()
}

#[tokio::test]
async fn a_run_that_ends_while_redis_is_away_is_told_when_it_is_back() {
    let ends = async |gateway: &TestGateway, gpt4: &Halting, run: &str| {
        gpt4.go_on();
        let state = format!("/api/council/{run}");
        wait_for("the end", async || gateway.json(&state).await["status"] == "complete").await;
        assert_eq!(text(gateway, run).await, ALL);
    };
    outlived(ends, member().await).await;
}

#[tokio::test]
async fn words_said_while_redis_is_away_are_told_when_it_is_back_and_the_run_goes_on() {
    let speaks = async |gateway: &TestGateway, gpt4: &Halting, run: &str| {
        gpt4.go_on();
        wait_for("words", async || text(gateway, run).await == "First, then ").await;
    };
    let gpt4 = Halting::start_in(&[&["First, "], &["then "], &["last.\nSCORE: 0.5"]]).await;
    outlived(speaks, gpt4).await;
}

/// A gateway on a Redis that does not answer: only the first words of a run wait for it.
async fn hanging(redis: &Redis, gpt4: &Halting, timeout: &str) -> TestGateway {
    let more = format!(
        "redis.url = {:?}\nredis.timeout = {timeout:?}\nredis.probe_interval = \"0s\"\n\
         council.max_runs = 1",
        redis.url()
    );
    let gateway = gateway(&council(&more, &[("gpt4", gpt4.url())])).await;
    gateway.ready().await;
    redis.signal("STOP");
    gateway
}

#[tokio::test]
async fn whoever_leaves_before_a_run_has_begun_leaves_no_dead_one_behind() {
    let redis = Redis::start().await;
    let gpt4 = member().await;
    let gateway = hanging(&redis, &gpt4, "1h").await;
    let impatient = tokio::spawn(gateway.get(ASK).send());
    wait_for("the request", async || gateway.metric("sluice_connections").await >= 2.0).await;
    impatient.abort();
    wait_for("its end", async || gateway.metric("sluice_connections").await <= 1.0).await;
    redis.signal("CONT");
    let (stream, watcher) = begun(&gateway, ASK).await;
    gpt4.go_on();
    assert_eq!(watcher.until_the_end(stream).await.texts["gpt4"], ALL);
    assert_eq!(gpt4.asked(), 1);
}

#[tokio::test]
async fn a_run_that_could_not_begin_is_refused_to_all_who_asked_for_it() {
    let redis = Redis::start().await;
    let gpt4 = member().await;
    let gateway = hanging(&redis, &gpt4, "300ms").await;
    let twins = (0..4).map(|_| async { gateway.get(ASK).send().await.unwrap().status() });
    let twins = futures_util::future::join_all(twins).await;
    assert_eq!(twins, [503; 4]);
    redis.signal("CONT");
    gateway.publishes().await;
    drop(begun(&gateway, ASK).await);
    assert_eq!(gpt4.asked(), 1);
}

#[tokio::test]
async fn whoever_watches_on_another_node_is_told_when_the_runs_own_stops() {
    let redis = Redis::start().await;
    let gpt4 = member().await;
    let (mut a, b) = (node(&redis, &gpt4).await, node(&redis, &gpt4).await);
    let (at_a, _) = begun(&a, &format!("{ASK}&runId=shared")).await;
    let (stream, at_b) = begun(&b, "/api/stream/council-score?runId=shared").await;
    let drained = within("drain", a.drain());
    let (drained, _, at_b) = tokio::join!(drained, at_a.rest(), at_b.until_the_end(stream));
    assert!(drained);
    assert_eq!(at_b.ends["gpt4"]["end"], "cancelled");
    assert_eq!(at_b.ends["complete"]["status"], "cancelled");
    gpt4.upstream.left(1).await;
}
