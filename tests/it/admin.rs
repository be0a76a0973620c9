//! What operators and their tools read.

use serde_json::{Value, json};

use crate::support::{TestGateway, wait_for};

async fn number(gateway: &TestGateway, name: &str) -> u64 {
    let value = gateway.metric(name).await;
    assert!(value >= 0.0 && value.fract() == 0.0, "{name} {value}");
    value.to_string().parse().unwrap()
}

#[tokio::test]
async fn it_lives_and_is_ready() {
    let gateway = TestGateway::start().await;
    for path in ["/livez", "/readyz", "/health/live", "/health/ready"] {
        assert_eq!(gateway.get(path).send().await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test]
async fn without_its_source_it_lives_but_is_not_ready() {
    // Nothing listens on this port: it was free a moment ago and belongs to nobody.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = format!("redis://127.0.0.1:{port}");
    })
    .await;
    for (path, status) in
        [("/livez", 200), ("/health/live", 200), ("/readyz", 503), ("/health/ready", 503)]
    {
        assert_eq!(gateway.get(path).send().await.unwrap().status(), status, "{path}");
    }
    // Manifests ask it whether the process lives: another one would reach no more.
    wait_for("a failure", async || {
        gateway.json("/health").await["checks"][1]["reason"] != "not connected yet"
    })
    .await;
    let response = gateway.get("/health").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let health: Value = response.json().await.unwrap();
    assert_eq!(health["status"], "degraded");
    for check in &health["checks"].as_array().unwrap()[..2] {
        assert_eq!(check["status"], "unhealthy");
        assert!(check["reason"].as_str().unwrap().contains("refused"), "{check}");
    }
    let stats = gateway.json("/api/realtime/stats").await;
    assert_eq!(stats["status"], "degraded");
    assert_eq!(stats["channels"]["isConnected"], false);
    assert!(gateway.metric("sluice_source_up{source=\"redis\"}").await < 0.5);
}

#[tokio::test]
async fn health_says_what_was_checked() {
    let gateway =
        TestGateway::start_with(|settings| settings.server.role = "edge".to_owned()).await;
    let _stream = gateway.open("/api/stream/alerts").await;
    let health = gateway.json("/health").await;
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["uptime"].as_f64().unwrap() >= 0.0);
    assert!(health["timestamp"].as_str().unwrap().ends_with('Z'));
    let checks = health["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|check| &check["name"]).collect();
    assert_eq!(names, ["source", "publishing", "hub"]);
    for check in checks {
        assert_eq!(check["status"], "healthy");
        assert!(check["reason"].is_null());
    }
    for check in &checks[..2] {
        assert!(check["since"].as_str().unwrap().ends_with('Z'));
    }
    for check in [&checks[0], &checks[2]] {
        assert!(check["latency"].as_f64().unwrap() >= 0.0);
    }
    // Monitors of other systems look for these two.
    assert_eq!((&health["role"], &health["connectedClients"]), (&json!("edge"), &json!(1)));
}

#[tokio::test]
async fn stats_count_what_is_there() {
    let gateway = TestGateway::start().await;
    let mut one = gateway.open("/api/stream?channel=a&channel=b:*").await;
    let two = gateway.open("/api/stream?channel=a").await;
    gateway.publish("a", &json!(1)).await;
    one.data().await;
    for prefix in ["/api", "/api/v1"] {
        let stats = gateway.json(&format!("{prefix}/realtime/stats")).await;
        assert_eq!(stats["status"], "healthy");
        assert_eq!(stats["sse"]["totalConnections"], 2);
        assert!(stats["sse"]["totalEvents"].as_u64().unwrap() >= 3, "two beginnings, one event");
        let channels = json!({"isConnected": true, "activeChannels": 2, "totalSubscriptions": 3});
        assert_eq!(stats["channels"], channels);
        assert!(stats["timestamp"].as_str().unwrap().ends_with('Z'));
    }
    drop((one, two));
    wait_for("nobody", async || {
        let stats = gateway.json("/api/realtime/stats").await;
        let subscriptions = &stats["channels"]["totalSubscriptions"];
        (&stats["sse"]["totalConnections"], subscriptions) == (&json!(0), &json!(0))
    })
    .await;
}

#[tokio::test]
async fn the_metrics_have_names_and_help() {
    let gateway = TestGateway::start().await;
    // Metrics with labels are there once something was counted.
    let path = "/api/stream/campaign-metrics/c";
    let mut slow = gateway.resume(&format!("{path}?maxRate=1"), "garbage").await;
    let events = [1, 2, 3].map(|n| ("campaign_metrics:c", json!({"n": n})));
    gateway.publish_all(&events).await;
    slow.data().await;
    drop(slow);
    wait_for("a session's end", async || {
        number(&gateway, "sluice_sessions_closed_total{class=\"state\",reason=\"client_gone\"}")
            .await
            == 1
    })
    .await;
    let response = gateway.get("/metrics").send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    let page = response.text().await.unwrap();
    let help = page.lines().filter_map(|line| line.strip_prefix("# HELP sluice_"));
    let help = help.collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(help, @r"
    build_info Always 1; the labels say what runs.
    connections Connections that are open, whatever they carry.
    council_runs Runs of the council that are under way.
    council_runs_total Runs of the council that are over, by how they ended.
    events_conflated_total Events replaced by a newer one of their channel because a client lagged or asked for a lower rate, by delivery class.
    events_dropped_total Events that were not let in, by reason.
    events_merged_total Events told as one with the next because a client of a text lagged; nothing of them is lost.
    events_published_total Events published through this gateway.
    events_received_total Events that entered, by source.
    events_repaired_total Events with a bare NaN or Infinity, which became null.
    frames_sent_total Frames handed to connections, by transport.
    gaps_total Gaps announced to clients, by reason.
    history_bytes Bytes held so that clients can resume.
    history_channels Channels that clients can resume.
    http_responses_total Answers to requests, by status.
    hub_step_seconds Seconds that the hub works before it lets others go on.
    openings_held_total Openings of streams that were held because the client had just closed the same stream.
    openings_refused_total Openings of streams that were refused, by reason.
    openings_waiting Openings of streams that are being held.
    outbox_bytes Bytes that wait for clients to read, with what the kernel holds for slow ones.
    publish_to_flush_seconds Seconds from an event's entry to its hand-over to a connection; one observation per hand-over, of its oldest event.
    publishing_up Whether what is published through this gateway goes out (1) or not (0), by source.
    sent_bytes_total Bytes handed to connections, by transport, without the framing of HTTP.
    sessions Open sessions.
    sessions_closed_total Sessions that have ended, by delivery class and by the reason they ended for.
    shard_step_seconds Seconds that a shard works before it lets others go on.
    snapshot_bytes Bytes held as the last events of channels.
    snapshot_channels Channels whose last event is held.
    source_reconnects_total How often a source was lost.
    source_up Whether a source is connected (1) or not (0).
    states_unreadable_total Stored states of channels that could not be read.
    subscribed_topics Channels and patterns with at least one session.
    subscriptions Subscriptions of sessions to channels and patterns.
    ");
    assert!(page.contains("# HELP process_resident_memory_bytes "));
}

#[tokio::test]
async fn the_counters_move() {
    let gateway = TestGateway::start().await;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(number(&gateway, &format!("sluice_build_info{{version=\"{version}\"}}")).await, 1);
    assert_eq!(number(&gateway, "sluice_source_up{source=\"embedded\"}").await, 1);

    let mut any = gateway.open("/api/stream?channel=a&channel=b").await;
    let jobs = gateway.open("/api/stream/jobs/j").await;
    let sessions = "sluice_sessions{stream=\"any\",transport=\"sse\"}";
    assert_eq!(number(&gateway, sessions).await, 1);
    assert_eq!(number(&gateway, "sluice_sessions{stream=\"jobs\",transport=\"sse\"}").await, 1);
    assert_eq!(number(&gateway, "sluice_subscriptions").await, 4);
    assert_eq!(number(&gateway, "sluice_subscribed_topics").await, 4);

    gateway.publish_all(&[("a", json!(1)), ("b", json!(2)), ("c", json!(3))]).await;
    gateway.publish("job_progress:j", &json!({"job_id": "j", "status": "completed"})).await;
    any.data().await;
    any.data().await;
    assert_eq!(jobs.rest().await.len(), 2);
    assert_eq!(number(&gateway, "sluice_events_published_total").await, 4);
    assert_eq!(number(&gateway, "sluice_events_received_total{source=\"embedded\"}").await, 4);
    assert_eq!(number(&gateway, "sluice_history_channels").await, 4);
    assert_eq!(number(&gateway, "sluice_snapshot_channels").await, 4);
    assert_eq!(number(&gateway, "sluice_http_responses_total{status=\"202\"}").await, 2);
    for (name, least) in [
        // Two beginnings, three events and an end.
        ("sluice_frames_sent_total{transport=\"sse\"}", 6),
        ("sluice_sent_bytes_total{transport=\"sse\"}", 500),
        ("sluice_publish_to_flush_seconds_count", 1),
        ("sluice_history_bytes", 100),
        ("sluice_snapshot_bytes", 100),
        ("sluice_connections", 1),
    ] {
        assert!(number(&gateway, name).await >= least, "{name}");
    }
    wait_for("the end of the jobs stream", async || {
        number(&gateway, "sluice_sessions_closed_total{class=\"state\",reason=\"completed\"}").await
            == 1
    })
    .await;
    let back = gateway.resume("/api/stream/alerts", "garbage").await;
    assert_eq!(number(&gateway, "sluice_gaps_total{reason=\"unknown_position\"}").await, 1);
    drop((any, back));
    wait_for("nobody", async || {
        number(&gateway, sessions).await == 0
            && number(&gateway, "sluice_subscriptions").await == 0
            && number(&gateway, "sluice_outbox_bytes").await == 0
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_channels_leave_memory_bounded() {
    const HISTORY: u64 = 200_000;
    const SNAPSHOT: u64 = 100_000;
    const CHANNELS: u64 = 10_000;
    let gateway = TestGateway::start_with(|settings| {
        settings.history.bytes = HISTORY.try_into().unwrap();
        settings.snapshot.bytes = SNAPSHOT.try_into().unwrap();
    })
    .await;
    for thousand in 0..CHANNELS / 1000 {
        let names: Vec<_> = (0..1000).map(|n| format!("job:{thousand}-{n}")).collect();
        let events: Vec<_> =
            names.iter().map(|name| (&**name, json!({"status": "completed"}))).collect();
        gateway.publish_all(&events).await;
    }
    gateway.publish("job:last", &json!("last")).await;
    let mut late = gateway.open("/api/stream?channel=job:last").await;
    assert_eq!(late.data().await["data"], "last", "the newest is kept");
    assert_eq!(number(&gateway, "sluice_events_received_total{source=\"embedded\"}").await, 10_001);
    for (kind, bound) in [("history", HISTORY), ("snapshot", SNAPSHOT)] {
        let bytes = number(&gateway, &format!("sluice_{kind}_bytes")).await;
        let channels = number(&gateway, &format!("sluice_{kind}_channels")).await;
        assert!(bytes <= bound, "{kind}: {bytes}");
        assert!(bytes > bound / 2 && channels > 10, "{kind} holds what fits: {bytes}, {channels}");
        assert!(channels < CHANNELS / 2, "the bound has bitten: {channels}");
    }
}
