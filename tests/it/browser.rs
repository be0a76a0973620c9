//! A real browser on a page of another origin, with the `EventSource` it was built with.

use serde_json::{Value, json};

use crate::support::{Page, Proxy, Redis, Sighting, Source, TestGateway, wait_for};

/// A gateway that takes calls from the page.
async fn gateway_for(page: &Page) -> TestGateway {
    let origin = page.origin.clone();
    TestGateway::start_with(|settings| settings.server.cors_origins = vec![origin]).await
}

/// What a worker publishes on `job_progress:{id}`.
fn report(job: &str, status: &str, progress: f64) -> Value {
    json!({"job_id": job, "status": status, "stage": "rendering", "progress": progress,
        "message": "Frame by frame", "timestamp": "2026-11-21T22:32:01.761250",
        "metadata": {"current_frame": 30, "total_frames": 300, "fps": 24.5}})
}

fn has_connected(seen: &[Sighting]) -> bool {
    seen.iter().any(|sighting| sighting.what == "message")
}

fn is_complete(seen: &[Sighting]) -> bool {
    seen.iter().any(|sighting| sighting.what == "complete")
}

#[tokio::test]
async fn a_job_is_seen_live_up_to_its_end() {
    let mut page = Page::new().await;
    let gateway = gateway_for(&page).await;
    let source = |name, path| {
        Source::new(name, gateway.url(path))
            .listening_to(&["complete", "gap"])
            .closing_at(&["complete"])
    };
    let _browser = page.open(vec![
        source("job", "/api/stream/jobs/job_1"),
        source("render", "/api/v1/stream/render-progress/job_1?userId=u"),
    ]);
    page.sees("job", has_connected).await;
    page.sees("render", has_connected).await;

    for (step, progress) in [(1, 0.25), (2, 0.5), (3, 0.75)] {
        gateway.publish("job_progress:job_1", &report("job_1", "processing", progress)).await;
        // Seen before the next is published: nothing waits for more to come.
        page.sees_messages("job", step).await;
        page.sees_messages("render", step).await;
    }
    gateway.publish("job_progress:job_1", &report("job_1", "completed", 1.0)).await;
    page.sees("job", is_complete).await;
    page.sees("render", is_complete).await;

    let seen = page.seen("job");
    let kinds: Vec<_> = seen.iter().map(|sighting| sighting.what.as_str()).collect();
    assert_eq!(
        kinds,
        ["open", "message", "message", "message", "message", "message", "complete"],
        "one connection, `connected`, four reports, the end, and no error"
    );
    let connected = seen[1].data();
    assert_eq!(connected["message"], "SSE connection established");
    assert!(connected["clientId"].as_str().unwrap().starts_with("sse_"));
    let jobs = page.messages("job");
    assert_eq!(jobs[0]["type"], "job_progress");
    assert_eq!(jobs[0]["jobId"], "job_1");
    assert_eq!(jobs[0]["timestamp"], "2026-11-21T22:32:01.761250Z");
    let progress: Vec<_> = jobs.iter().map(|job| job["progress"].as_f64().unwrap()).collect();
    assert_eq!(progress, [0.25, 0.5, 0.75, 1.0]);
    let complete = seen.last().unwrap().data();
    assert_eq!(complete["type"], "complete");
    assert_eq!(complete["data"], json!({"jobId": "job_1", "status": "completed"}));

    let frame = &page.messages("render")[0];
    let expected = json!({"type": "video_render_progress", "jobId": "job_1", "currentFrame": 30,
        "totalFrames": 300, "progress": 0.25, "fps": 24.5, "stage": "rendering"});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&frame[field], value, "{field}");
    }
}

#[tokio::test]
async fn a_browser_whose_connection_is_cut_misses_nothing_and_sees_nothing_twice() {
    const JOB: &str = "/api/stream/jobs/job_1";
    const CHAT: &str = "/api/stream?channel=chat:7&envelope=false";
    let mut page = Page::new().await;
    let gateway = gateway_for(&page).await;
    let proxy = Proxy::start(&gateway.url("")).await;
    let _browser = page.open(vec![
        Source::new("job", proxy.url(JOB)).listening_to(&["gap", "complete"]),
        Source::new("chat", proxy.url(CHAT)).listening_to(&["gap"]),
    ]);
    page.sees("job", has_connected).await;
    page.sees("chat", has_connected).await;

    let mut count = 0_usize;
    for cut in 0..3 {
        for n in count..count + 20 {
            if n == count + 10 {
                // The ids the browser will come back with are then known.
                page.sees_messages("job", n).await;
                page.sees_messages("chat", n).await;
                // In the silence between two events, or in the middle of one.
                if cut == 1 { proxy.cut_after(100) } else { proxy.cut() }
            }
            let mut job = report("job_1", "processing", 0.0);
            job["n"] = json!(n);
            gateway.publish("job_progress:job_1", &job).await;
            gateway.publish("chat:7", &json!({"n": n})).await;
        }
        count += 20;
        page.sees_messages("job", count).await;
        page.sees_messages("chat", count).await;
    }

    for (source, path) in [("job", JOB), ("chat", CHAT)] {
        let seen = page.seen(source);
        let numbers: Vec<_> =
            page.messages(source).iter().map(|event| event["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..count as u64).collect::<Vec<_>>(), "{source}");
        assert!(seen.iter().all(|sighting| sighting.what != "gap"), "{source}: {seen:?}");

        // Every time it came back with the id of the last event it had seen.
        let requests = proxy.requests(path);
        assert!(requests.len() >= 3, "{source}: {requests:?}");
        assert!(!requests[0].contains("last-event-id"), "{}", requests[0]);
        let breaks = seen.iter().filter(|sighting| sighting.is_broken_connection());
        let positions = seen.iter().enumerate().filter(|(_, s)| s.is_broken_connection());
        assert_eq!(breaks.count(), requests.len() - 1, "{source}");
        for ((at, _), request) in positions.zip(&requests[1..]) {
            let header = format!("last-event-id: {}", seen[at - 1].id);
            assert!(request.lines().any(|line| line == header), "{header}: {request}");
        }
        let connected = seen.iter().filter(|s| s.what == "message").map(Sighting::data);
        let recovered: Vec<_> = connected
            .filter(|data| data["type"] == "connected")
            .map(|data| data["recovered"].as_bool().unwrap())
            .collect();
        assert!(!recovered[0] && recovered[1..].iter().all(|&is| is), "{source}: {recovered:?}");
    }
}

#[tokio::test]
async fn a_browser_is_told_to_stop_when_a_stream_is_over() {
    const DONE: &str = "/api/stream/jobs/done";
    const OTHER: &str = "/api/stream/jobs/other";
    let mut page = Page::new().await;
    let gateway = gateway_for(&page).await;
    let proxy = Proxy::start(&gateway.url("")).await;
    gateway.publish("job_progress:done", &report("done", "completed", 1.0)).await;
    let _browser = page.open(vec![
        // A client that knows nothing of `complete` closing anything.
        Source::new("done", proxy.url(DONE)).listening_to(&["complete"]),
        Source::new("other", proxy.url(OTHER)),
    ]);
    page.sees("done", |seen| seen.iter().any(Sighting::is_closed)).await;

    let seen = page.seen("done");
    let kinds: Vec<_> = seen.iter().map(|sighting| sighting.what.as_str()).collect();
    assert_eq!(kinds, ["open", "message", "message", "complete", "error", "error"]);
    assert_eq!(page.messages("done")[0]["status"], "completed");
    let requests = proxy.requests(DONE);
    assert_eq!(requests.len(), 2);
    assert!(requests[1].contains(&format!("last-event-id: {}", seen[3].id)), "{}", requests[1]);
    assert_eq!(gateway.metric("sluice_http_responses_total{status=\"204\"}").await, 1.0);

    // The other stream is cut and comes back: the time after which browsers do has gone by.
    proxy.cut();
    wait_for("reconnect", async || proxy.requests(OTHER).len() >= 2).await;
    page.sees("other", |seen| seen.iter().filter(|s| s.what == "open").count() == 2).await;
    assert_eq!(proxy.requests(DONE).len(), 2);
    assert_eq!(page.seen("done"), seen);
}

#[tokio::test]
async fn a_page_of_an_origin_that_is_not_listed_sees_nothing() {
    const PATH: &str = "/api/stream/jobs/job_1";
    let mut page = Page::new().await;
    let foreign = TestGateway::start_with(|settings| {
        settings.server.cors_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let without_credentials = gateway_for(&page).await;
    let origin = page.origin.clone();
    let with_credentials = TestGateway::start_with(|settings| {
        settings.server.cors_origins = vec![origin];
        settings.server.cors_credentials = true;
    })
    .await;
    for gateway in [&foreign, &without_credentials, &with_credentials] {
        gateway.publish("job_progress:job_1", &report("job_1", "processing", 0.5)).await;
    }
    let _browser = page.open(vec![
        Source::new("foreign", foreign.url(PATH)),
        Source::new("refused", without_credentials.url(PATH)).with_credentials(),
        Source::new("listed", without_credentials.url(PATH)),
        Source::new("trusted", with_credentials.url(PATH)).with_credentials(),
    ]);
    for blocked in ["foreign", "refused"] {
        page.sees(blocked, |seen| seen.iter().any(Sighting::is_closed)).await;
    }
    for allowed in ["listed", "trusted"] {
        page.sees_messages(allowed, 1).await;
    }
    for blocked in ["foreign", "refused"] {
        let seen = page.seen(blocked);
        assert!(seen.iter().all(Sighting::is_broken_connection), "{blocked}: {seen:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_know_gaps_is_not_disturbed_by_one() {
    let mut redis = Redis::start().await;
    let mut page = Page::new().await;
    let origin = page.origin.clone();
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = redis.url();
        settings.server.cors_origins = vec![origin];
    })
    .await;
    let is_ready = async || gateway.get("/readyz").send().await.unwrap().status() == 200;
    wait_for("redis source", is_ready).await;
    let url = gateway.url("/api/stream/render-progress/job_1");
    let _browser = page.open(vec![
        // The reference's client: it gives up at the first error.
        Source::new("reference", &url)
            .listening_to(&["complete", "error"])
            .closing_at(&["complete", "error"]),
        Source::new("ours", &url).listening_to(&["gap"]),
    ]);
    page.sees("reference", has_connected).await;
    page.sees("ours", has_connected).await;
    gateway.publish("job_progress:job_1", &report("job_1", "processing", 0.25)).await;
    page.sees_messages("reference", 1).await;

    redis.kill();
    wait_for("loss of redis", async || !is_ready().await).await;
    redis.run().await;
    page.sees("ours", |seen| seen.iter().any(|sighting| sighting.what == "gap")).await;
    wait_for("redis source", is_ready).await;
    gateway.publish("job_progress:job_1", &report("job_1", "completed", 1.0)).await;
    page.sees("reference", is_complete).await;

    let seen = page.seen("reference");
    let disturbing: Vec<_> = seen
        .iter()
        .filter(|seen| !matches!(seen.what.as_str(), "open" | "message" | "complete"))
        .collect();
    assert!(disturbing.is_empty(), "{disturbing:?}");
    for message in page.messages("reference") {
        assert_eq!(message["type"], "video_render_progress");
    }
    assert_eq!(page.messages("reference").last().unwrap()["progress"], 1.0);
}
