//! What one client may have, and how fast it may come back: others do not feel it.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Response;
use serde_json::{Value, json};
use sluice::settings::LimitSettings;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::{TestGateway, wait_for, within};

const JOB: &str = "/api/stream/render-progress/job";
const HELD: &str = "sluice_openings_held_total";
const WAITING: &str = "sluice_openings_waiting";
const FORWARDED: &str = "x-forwarded-for";

async fn limited(change: impl FnOnce(&mut LimitSettings)) -> TestGateway {
    TestGateway::start_with(|settings| change(&mut settings.limits)).await
}

/// Holds whoever comes back too soon for as long as any test takes.
async fn holding() -> TestGateway {
    limited(hold_for_long).await
}

fn hold_for_long(limits: &mut LimitSettings) {
    limits.hold_least = Duration::from_secs(3600);
    limits.hold_most = limits.hold_least;
    // However slow the machine, what a test closes was closed too soon.
    limits.reopen_window = limits.hold_least;
}

/// Waits until nobody has a stream: their ends have been noticed.
async fn all_closed(gateway: &TestGateway) {
    wait_for("nobody", async || {
        gateway.json("/api/realtime/stats").await["sse"]["totalConnections"] == 0
    })
    .await;
}

async fn waiting(gateway: &TestGateway, count: f64) {
    wait_for("held openings", async || gateway.metric(WAITING).await == count).await;
}

/// Sends a request that is held, the only one.
async fn held(gateway: &TestGateway, path: &str) -> JoinHandle<reqwest::Result<Response>> {
    waiting(gateway, 0.0).await;
    let asked = tokio::spawn(gateway.get(path).send());
    waiting(gateway, 1.0).await;
    asked
}

async fn is_refused(response: Response) {
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["retry-after"], "1");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], 429);
}

async fn publish_frame(gateway: &TestGateway, frame: u64) {
    let metadata = json!({"current_frame": frame, "total_frames": 1_000_000});
    let report = json!({"job_id": "job", "status": "processing", "metadata": metadata});
    gateway.publish("job_progress:job", &report).await;
}

/// One opening of a storm.
struct Opening {
    asked: Instant,
    held: bool,
    /// What it began with.
    frame: u64,
}

/// Opens the stream as fast as it can, as the hooks of the reference front-end do, for so long.
async fn storm(gateway: &TestGateway, time: Duration) -> Vec<Opening> {
    let begun = Instant::now();
    let mut openings = Vec::new();
    let mut held = 0.0;
    while begun.elapsed() < time {
        let asked = Instant::now();
        let mut stream = gateway.open(JOB).await;
        let frame = stream.data().await["currentFrame"].as_u64().unwrap();
        drop(stream);
        let before = std::mem::replace(&mut held, gateway.metric(HELD).await);
        openings.push(Opening { asked, held: held > before, frame });
    }
    openings
}

/// The measure is the number of connections in a time, so it takes that time.
#[tokio::test]
async fn a_storm_becomes_a_slow_poller_that_sees_the_newest() {
    let gateway = TestGateway::start().await;
    let least = Duration::from_millis(200);
    let mut published = Vec::new();
    let mut neighbours = Vec::new();
    publish_frame(&gateway, 0).await;
    let others = async {
        for frame in 1.. {
            publish_frame(&gateway, frame).await;
            published.push((Instant::now(), frame));
            if frame % 10 == 0 {
                neighbours.push(gateway.open(&format!("/api/stream/jobs/{frame}")).await);
            }
        }
    };
    let openings = tokio::select! {
        openings = storm(&gateway, Duration::from_secs(5)) => openings,
        () = others => panic!("there is always one more"),
    };
    assert!((3..=25).contains(&openings.len()), "{} connections", openings.len());
    for Opening { asked, held, frame } in &openings {
        // A hold is over no sooner than this.
        let begun = if *held { *asked + least } else { *asked };
        let before = published.iter().take_while(|(at, _)| *at <= begun).last();
        let newest = before.map_or(0, |(_, frame)| *frame);
        assert!(*frame >= newest, "it began with {frame}, after {newest} was published");
    }
    // The end of one stream may be noticed after the next was asked for; not again and again.
    let at_once = openings.iter().filter(|opening| !opening.held).count();
    assert!(at_once <= 3, "{at_once} of {} were not held", openings.len());
    assert!(neighbours.len() > 3);
    let of_the_storm = f64::from(u32::try_from(openings.len() - at_once).unwrap());
    assert_eq!(gateway.metric(HELD).await, of_the_storm, "nobody else was held");
}

#[tokio::test]
async fn others_at_the_address_do_not_wait_for_whoever_is_held() {
    let gateway = holding().await;
    drop(gateway.open(JOB).await);
    all_closed(&gateway).await;
    let stormy = held(&gateway, JOB).await;
    let same = gateway.open(JOB).await;
    let other = gateway.open("/api/stream/jobs/job").await;
    assert!(!stormy.is_finished());
    // Leaving while it is held does not make the next opening a first one.
    stormy.abort();
    held(&gateway, JOB).await.abort();
    drop((same, other));
}

#[tokio::test]
async fn the_same_stream_is_the_same_however_it_is_asked_for() {
    let gateway = holding().await;
    drop(gateway.open(JOB).await);
    all_closed(&gateway).await;
    let other = gateway.open(&format!("{JOB}-2")).await;
    held(&gateway, &format!("{JOB}?named=true&_=1")).await.abort();
    held(&gateway, &format!("{JOB}?lastEventId=p000000.1")).await.abort();
    held(&gateway, "/api/v1/stream/render-progress/job").await.abort();
    drop(other);
}

#[tokio::test]
async fn a_loop_of_faults_is_held_as_well() {
    let gateway = holding().await;
    let told = gateway.open("/api/stream").await.rest().await;
    assert_eq!(told[0].name, "error");
    all_closed(&gateway).await;
    held(&gateway, "/api/stream").await.abort();
}

#[tokio::test]
async fn many_who_come_at_once_are_not_held() {
    let gateway = TestGateway::start().await;
    let streams = join_all((0..300).map(|_| gateway.open(JOB))).await;
    assert_eq!(streams.len(), 300);
    assert_eq!(gateway.metric(HELD).await, 0.0);
}

#[tokio::test]
async fn so_many_are_held_and_the_others_refused() {
    let gateway = limited(|limits| {
        hold_for_long(limits);
        limits.held_per_address = 1;
    })
    .await;
    drop((gateway.open(JOB).await, gateway.open(JOB).await));
    all_closed(&gateway).await;
    let first = held(&gateway, JOB).await;
    is_refused(within("an answer", gateway.get(JOB).send()).await.unwrap()).await;
    assert_eq!(gateway.metric("sluice_openings_refused_total{reason=\"held\"}").await, 1.0);
    first.abort();
    held(&gateway, JOB).await.abort();
}

#[tokio::test]
async fn whoever_is_held_when_the_gateway_stops_is_told_so() {
    let mut gateway = holding().await;
    drop(gateway.open(JOB).await);
    all_closed(&gateway).await;
    let held = held(&gateway, JOB).await;
    let drained = gateway.drain();
    let (response, drained) = tokio::join!(held, drained);
    let response = response.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.text().await.unwrap().contains("server_shutdown"));
    assert!(drained);
}

#[tokio::test]
async fn an_address_has_so_many_streams_at_a_time() {
    let gateway = limited(|limits| limits.streams_per_address = 2).await;
    let one = gateway.open("/api/stream/jobs/1").await;
    let two = gateway.open("/api/stream/jobs/2").await;
    is_refused(gateway.get("/api/stream/jobs/3").send().await.unwrap()).await;
    let refused = "sluice_openings_refused_total{reason=\"streams_per_address\"}";
    assert_eq!(gateway.metric(refused).await, 1.0);
    drop(one);
    wait_for("a place", async || {
        gateway.get("/api/stream/jobs/3").send().await.unwrap().status() == 200
    })
    .await;
    drop(two);
}

/// A request for a stream on behalf of these addresses; a header for each line.
async fn on_behalf(gateway: &TestGateway, forwarded: &str) -> Response {
    let lines = forwarded.split('\n');
    let request = lines.fold(gateway.get(JOB), |request, line| request.header(FORWARDED, line));
    within("an answer", request.send()).await.unwrap()
}

#[tokio::test]
async fn a_trusted_proxy_says_whom_it_speaks_for() {
    let gateway = TestGateway::start_with(|settings| {
        settings.limits.streams_per_address = 1;
        settings.server.trusted_proxies = vec!["127.0.0.1".to_owned(), "10.0.0.0/8".to_owned()];
    })
    .await;
    let mut open = Vec::new();
    for forwarded in [
        "192.0.2.1",
        "192.0.2.2:4711",
        // Only what trusted proxies have written counts.
        "192.0.2.1, 192.0.2.3",
        "who knows, 192.0.2.4",
        "192.0.2.5, 10.1.2.3",
        "192.0.2.9\n192.0.2.6",
        "[2001:db8:0:1::1]:4711",
        "2001:db8:0:2::1",
        // The proxy's own.
        "who knows",
    ] {
        let response = on_behalf(&gateway, forwarded).await;
        assert_eq!(response.status(), 200, "{forwarded}");
        open.push(response);
    }
    for forwarded in [
        "192.0.2.1",
        "::ffff:192.0.2.2",
        "192.0.2.9, 192.0.2.3",
        "192.0.2.4",
        "192.0.2.5,10.9.9.9,10.1.2.3",
        "192.0.2.6",
        "2001:db8:0:1::2",
        "",
    ] {
        is_refused(on_behalf(&gateway, forwarded).await).await;
    }
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let gateway = TestGateway::start_with(|settings| {
        settings.limits.streams_per_address = 1;
        settings.server.trusted_proxies = vec!["10.0.0.0/8".to_owned()];
    })
    .await;
    let open = on_behalf(&gateway, "192.0.2.1").await;
    assert_eq!(open.status(), 200);
    is_refused(on_behalf(&gateway, "192.0.2.2").await).await;
    is_refused(on_behalf(&gateway, "10.0.0.1").await).await;
}
