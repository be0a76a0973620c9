//! The declared streams over a real socket: heads, first events, the generic stream, refusals.

mod ends;
mod jobs;
mod results;

use serde_json::{Value, json};

use crate::support::{EventSource, Protocol, TestGateway, over_each_protocol};

const PREFIXES: [&str; 2] = ["/api", "/api/v1"];

const ROUTES: [&str; 6] = [
    "/stream/render-progress/a1",
    "/stream/jobs/a1",
    "/stream/campaign-metrics/a1",
    "/stream/ab-test-results/a1",
    "/stream/alerts",
    "/stream?channel=a1",
];

over_each_protocol! {
    the_first_event_says_who_and_what
    the_bytes_of_a_stream
    whoever_listens_gets_each_event_once
    a_late_client_of_any_channel_gets_the_last_event_of_each
    what_cannot_be_had_is_said_in_the_stream
}

/// Hides what is different in each run.
fn masked(text: &str) -> String {
    let mut masked = text.to_owned();
    for (before, after, mask) in [
        ("\"clientId\":\"", '"', "CLIENT"),
        ("\"timestamp\":\"", '"', "TIME"),
        ("id: p", '\n', "POSITION"),
    ] {
        let pieces: Vec<_> = masked
            .split(before)
            .enumerate()
            .map(|(n, piece)| match (n, piece.find(after)) {
                (0, _) | (_, None) => piece.to_owned(),
                (_, Some(end)) => format!("{mask}{}", &piece[end..]),
            })
            .collect();
        masked = pieces.join(before);
    }
    masked
}

/// Everything of a stream that ends, after `connected`, as names and data.
async fn told(stream: EventSource) -> Vec<(String, Value)> {
    stream.rest().await.into_iter().map(|message| (message.name, message.data)).collect()
}

#[tokio::test]
async fn every_route_answers_under_both_prefixes() {
    let gateway = TestGateway::start().await;
    for prefix in PREFIXES {
        for route in ROUTES {
            let path = format!("{prefix}{route}");
            let response = gateway.get(&path).send().await.unwrap();
            let head = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(head("content-type"), "text/event-stream", "{path}");
            assert_eq!(head("cache-control"), "no-cache, no-transform", "{path}");
            assert_eq!(head("x-accel-buffering"), "no", "{path}");
        }
    }
}

async fn the_first_event_says_who_and_what(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    assert_eq!(gateway.get("/livez").send().await.unwrap().version(), protocol.version());
    let stream = gateway.open("/api/stream/render-progress/j7?userId=u").await;
    let first = stream.connected;
    assert_eq!(first.name, "message");
    assert_eq!(first.data["type"], "connected");
    assert_eq!(first.data["message"], "SSE connection established");
    assert!(first.data["clientId"].as_str().unwrap().starts_with("sse_"));
    let time = first.data["timestamp"].as_str().unwrap();
    assert_eq!((time.len(), time.ends_with('Z')), ("2026-11-21T22:25:22.787Z".len(), true));
    let kinds = ["job_progress", "task_progress", "video_render"];
    let channels = kinds.map(|kind| [format!("{kind}:j7"), format!("{kind}:j7:u")]);
    assert_eq!(first.data["channels"], json!(channels.concat()));
    assert_eq!(first.data["recovered"], false);
}

async fn the_bytes_of_a_stream(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let stream = gateway.raw("/api/stream/jobs/j7").await;
    let report = |status: &str, progress: f64| {
        json!({"job_id": "j7", "status": status, "stage": "x", "progress": progress,
            "message": "m", "timestamp": "2026-11-21T22:32:01.761250"})
    };
    let events = [("processing", 0.25), ("completed", 1.0)]
        .map(|(status, progress)| ("job_progress:j7", report(status, progress)));
    gateway.publish_all(&events).await;
    let text = stream.rest().await;
    assert!(!text.contains('\r'), "LF only");
    insta::allow_duplicates! {
        insta::assert_snapshot!(masked(&text), @r#"
        data: {"type":"connected","message":"SSE connection established","clientId":"CLIENT","timestamp":"TIME","channels":["job_progress:j7","task_progress:j7"],"recovered":false}
        id: pPOSITION

        data: {"type":"job_progress","jobId":"j7","timestamp":"TIME","job_id":"j7","status":"processing","stage":"x","progress":0.25,"message":"m"}
        id: pPOSITION

        data: {"type":"job_progress","jobId":"j7","timestamp":"TIME","job_id":"j7","status":"completed","stage":"x","progress":1.0,"message":"m"}
        id: pPOSITION

        event: complete
        data: {"type":"complete","data":{"jobId":"j7","status":"completed"},"timestamp":"TIME"}
        id: pPOSITION
        "#);
    }
}

#[tokio::test]
async fn any_channel_in_an_envelope_or_as_it_is() {
    let gateway = TestGateway::start().await;
    let path = "/api/stream?channel=recipe:*&channel=blog:created";
    let mut wrapped = gateway.open(path).await;
    let mut bare = gateway.open(&format!("{path}&envelope=false")).await;
    for (channel, data) in [
        ("recipe:created", json!({"recipeId": 1})),
        ("blog:deleted", json!("not for them")),
        ("blog:created", json!([1.50, null])),
        ("recipe:updated", json!("text")),
    ] {
        gateway.publish(channel, &data).await;
        if channel == "blog:deleted" {
            continue;
        }
        let envelope = wrapped.data().await;
        assert_eq!(envelope["channel"], channel);
        assert_eq!(envelope["data"], data);
        assert!(envelope["timestamp"].as_u64().unwrap() > 1_700_000_000_000, "milliseconds");
        assert_eq!(envelope.as_object().unwrap().len(), 3);
        assert_eq!(bare.data().await, data);
    }
}

async fn whoever_listens_gets_each_event_once(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    let mut streams = Vec::new();
    for query in [
        "channel=recipe:created",
        "channel=recipe:created",
        "channel=recipe:*",
        "channel=recipe:created&channel=recipe:*&channel=*&channel=recipe:created",
    ] {
        streams.push(gateway.open(&format!("/api/stream?envelope=false&{query}")).await);
    }
    for n in 0..5 {
        gateway.publish("recipe:created", &json!({"n": n})).await;
    }
    for stream in &mut streams {
        for n in 0..5 {
            assert_eq!(stream.data().await, json!({"n": n}), "{}", stream.connected.data);
        }
    }
}

async fn a_late_client_of_any_channel_gets_the_last_event_of_each(protocol: Protocol) {
    let gateway = TestGateway::start().await.over(protocol);
    for n in 0..3 {
        gateway.publish_all(&[("a:1", json!(n)), ("a:2", json!(n * 10))]).await;
    }
    let mut stream = gateway.open("/api/stream?channel=a:*&envelope=false").await;
    assert_eq!(stream.data().await, json!(2));
    assert_eq!(stream.data().await, json!(20));
    gateway.publish("a:1", &json!("live")).await;
    assert_eq!(stream.data().await, json!("live"));
}

async fn what_cannot_be_had_is_said_in_the_stream(protocol: Protocol) {
    let gateway = TestGateway::start_with(|settings| {
        settings.stream.get_mut("any").unwrap().allow = vec!["open:*".to_owned()];
        let jobs = settings.stream.get_mut("jobs").unwrap();
        jobs.required = vec!["videoUrl".to_owned(), "transcript".to_owned()];
    })
    .await
    .over(protocol);
    let too_many = format!("/api/stream?{}", "channel=open:x&".repeat(101));
    for (path, error) in [
        ("/api/stream/jobs/1", "Missing required parameters: videoUrl, transcript"),
        ("/api/stream/jobs/1?videoUrl=x", "Missing required parameter: transcript"),
        ("/api/stream", "Missing required parameter: channel"),
        ("/api/stream?channel=", "Missing required parameter: channel"),
        ("/api/stream?channel=closed:1", "Channel not allowed: closed:1"),
        ("/api/stream?channel=open:1&channel=*", "Channel not allowed: *"),
        ("/api/stream?channel=open:*x*", "A pattern has one *, at its end: open:*x*"),
        (&too_many, "Too many channels"),
    ] {
        let told = told(gateway.open(path).await).await;
        let [(name, data)] = &*told else { panic!("{path}: one event, not {told:?}") };
        assert_eq!((&**name, data["type"].as_str()), ("error", Some("error")), "{path}");
        assert_eq!(data["error"], error, "{path}");
        assert!(data["timestamp"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn other_urls_and_methods_are_problems() {
    let gateway = TestGateway::start().await;
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/api/nothing", 404),
        ("GET", "/api/v2/stream/alerts", 404),
        ("GET", "/api/stream/jobs", 404),
        ("GET", "/api/stream/jobs/a/b", 404),
        ("DELETE", "/api/stream/alerts", 405),
        ("POST", "/api/v1/stream/jobs/1", 405),
        ("GET", "/api/publish", 405),
        ("POST", "/health", 405),
    ] {
        let response = gateway.request(method, path).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["status"], status, "{path}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{path}");
    }
}

/// The CORS headers of an answer to a page of `origin`.
async fn cors(gateway: &TestGateway, origin: &str, preflight: bool) -> Vec<(String, String)> {
    let method = if preflight { "OPTIONS" } else { "GET" };
    let mut request = gateway.request(method, "/api/stream/alerts").header("origin", origin);
    if preflight {
        request = request
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "last-event-id");
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let all = response.headers().iter();
    let cors = all.filter(|(name, _)| name.as_str().starts_with("access-control-"));
    cors.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

async fn open_to_one_origin() -> TestGateway {
    TestGateway::start_with(|settings| {
        settings.server.cors_origins = vec!["https://app.example".to_owned()];
        settings.server.cors_credentials = true;
    })
    .await
}

#[tokio::test]
async fn a_listed_origin_gets_cors_headers() {
    let gateway = open_to_one_origin().await;
    let has = |headers: &[(String, String)], name: &str, part: &str| {
        headers.iter().any(|(known, value)| known == name && value.to_lowercase().contains(part))
    };
    for preflight in [false, true] {
        let headers = cors(&gateway, "https://app.example", preflight).await;
        assert!(has(&headers, "access-control-allow-origin", "https://app.example"));
        assert!(has(&headers, "access-control-allow-credentials", "true"));
        if preflight {
            assert!(has(&headers, "access-control-allow-methods", "get"));
            assert!(has(&headers, "access-control-allow-headers", "last-event-id"));
        }
    }
}

#[tokio::test]
async fn other_origins_get_no_cors_headers() {
    let gateway = open_to_one_origin().await;
    for preflight in [false, true] {
        assert_eq!(cors(&gateway, "https://evil.example", preflight).await, []);
    }
}

#[tokio::test]
async fn any_origin_means_no_credentials() {
    let gateway =
        TestGateway::start_with(|settings| settings.server.cors_origins = vec!["*".to_owned()])
            .await;
    let headers = cors(&gateway, "https://any.example", false).await;
    assert!(headers.contains(&("access-control-allow-origin".to_owned(), "*".to_owned())));
    assert!(!headers.iter().any(|(name, _)| name == "access-control-allow-credentials"));
    let closed = TestGateway::start().await;
    assert_eq!(cors(&closed, "https://any.example", false).await, []);
}
