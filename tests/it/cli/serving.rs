//! A gateway in a process of its own: how it ends, what its log says and never says, and what the
//! environment sets.

use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::sluice;
use crate::support::{EventSource, Redis, wait_for, within};

/// A gateway in a process of its own, and what it logs.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    base: String,
}

impl Process {
    /// Starts on a free port and waits until the log says which.
    pub(crate) async fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        // For the test's own requests: every test may come first.
        sluice::http::choose_cryptography();
        let mut child = sluice(arguments)
            .env("SLUICE__SERVER__BIND", "127.0.0.1:0")
            .env("SLUICE__SERVER__DRAIN", "100ms")
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines_of_log = Arc::clone(&log);
        tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                lines_of_log.lock().push(line);
            }
        });
        let mut process = Self { child, log, base: String::new() };
        wait_for("start", async || process.log().contains("gateway started")).await;
        let log = process.log();
        let started = log.lines().find(|line| line.contains("gateway started")).unwrap();
        let port = started.split("127.0.0.1:").nth(1).unwrap();
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        process.base = format!("http://127.0.0.1:{port}");
        process
    }

    pub(super) fn log(&self) -> String {
        self.log.lock().join("\n")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends a signal, such as `TERM`.
    fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it and returns its exit status.
    pub(super) async fn stop(&mut self) -> i32 {
        self.signal("TERM");
        within("end", self.child.wait()).await.unwrap().code().unwrap()
    }
}

#[tokio::test]
async fn a_signal_ends_it_well_and_tells_open_streams() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::start(&[], &[]).await;
        let stream = EventSource::open(&process.url("/api/stream/alerts")).await;
        process.signal(signal);
        let said = stream.rest().await;
        let kinds: Vec<_> = said.iter().map(|message| message.data["type"].clone()).collect();
        assert_eq!(kinds, ["server_shutdown"]);
        let status = within("end", process.child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0), "SIG{signal}");
    }
}

#[tokio::test]
async fn the_log_is_one_line_a_fact() {
    let mut process = Process::start(&["serve"], &[("SLUICE__LOG__FORMAT", "json")]).await;
    assert_eq!(process.stop().await, 0);
    wait_for("last line", async || process.log().contains("draining")).await;
    for line in process.log().lines() {
        let fact: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for field in ["timestamp", "level", "message"] {
            assert!(fact[field].is_string(), "{field}: {line}");
        }
    }

    let mut process = Process::start(&["serve"], &[]).await;
    assert_eq!(process.stop().await, 0);
    wait_for("last line", async || process.log().contains("draining")).await;
    for line in process.log().lines() {
        // No colours: standard error is no terminal here.
        assert!(line.contains(" INFO sluice") && !line.contains('\u{1b}'), "{line}");
    }
}

#[tokio::test]
async fn secrets_stay_out_of_the_log() {
    // Nobody listens there; a Redis that asks for another password stands at the second.
    let nobody = Redis::stopped(&[]);
    let locked = Redis::start_with(&["--requirepass", "other"]).await;
    for redis in [&nobody, &locked] {
        let url = format!("redis://default:hunter2@127.0.0.1:{}/", redis.port);
        let environment = [
            ("SLUICE__REDIS__URL", url.as_str()),
            ("SLUICE__PUBLISH__API_KEY", "hunter2-key"),
            ("SLUICE__LOG__LEVEL", "trace"),
        ];
        let mut process = Process::start(&[], &environment).await;
        wait_for("a failure", async || process.log().contains("not connected")).await;
        for path in ["/readyz", "/health", "/metrics", "/api/realtime/stats"] {
            let answer = reqwest::get(process.url(path)).await.unwrap();
            if path == "/readyz" {
                assert_eq!(answer.status(), 503);
            }
            let text = answer.text().await.unwrap();
            assert!(!text.contains("hunter2"), "{path}: {text}");
        }
        let publish = reqwest::Client::new().post(process.url("/api/publish/alerts")).body("{}");
        let answer = within("refusal", publish.bearer_auth("hunter2-key").send()).await.unwrap();
        assert_eq!(answer.status(), 503);
        let _waits = EventSource::open(&process.url("/api/stream/alerts")).await;
        process.stop().await;
        assert!(!process.log().contains("hunter2"), "{}", process.log());
    }
}

#[tokio::test]
async fn the_environment_names_redis() {
    let redis = Redis::start_with(&["--requirepass", "hunter2"]).await;
    let url = format!("redis://:hunter2@127.0.0.1:{}", redis.port);
    let process = Process::start(&[], &[("SLUICE__REDIS__URL", &url)]).await;
    wait_for("redis source", async || {
        reqwest::get(process.url("/readyz")).await.unwrap().status() == 200
    })
    .await;
    let mut events =
        EventSource::open(&process.url("/api/stream?channel=alerts&envelope=false")).await;
    redis.cli(&["--no-auth-warning", "-a", "hunter2", "PUBLISH", "alerts", r#"{"n":1}"#]);
    assert_eq!(events.data().await, json!({"n": 1}));
}

#[tokio::test]
async fn the_environment_names_the_publishing_key_as_it_is_written() {
    // What looks like a number, a list or a truth is a key all the same.
    for key in ["plain", "123456", "007", "12345678901234567890123", "1e5", "true", "a,b"] {
        let process = Process::start(&[], &[("SLUICE__PUBLISH__API_KEY", key)]).await;
        let publish = async |key: &str| {
            let request = reqwest::Client::new().post(process.url("/api/publish/alerts"));
            request.bearer_auth(key).body("{}").send().await.unwrap().status().as_u16()
        };
        assert_eq!(publish(key).await, 202, "{key}");
        assert_eq!(publish("another").await, 401, "{key}");
    }
}

#[tokio::test]
async fn the_demo_serves_its_page_and_streams_that_move() {
    // Whatever the settings say, it needs no Redis.
    let mut process =
        Process::start(&["demo"], &[("SLUICE__REDIS__URL", "redis://127.0.0.1:1")]).await;
    wait_for("honesty", async || process.log().contains("simulated")).await;
    let page = reqwest::get(process.url("/")).await.unwrap().text().await.unwrap();
    assert!(page.contains("EventSource") && page.contains("simulated"));
    let mut job = EventSource::open(&process.url("/api/stream/render-progress/job_1")).await;
    for _ in 0..3 {
        assert_eq!(job.data().await["type"], "video_render_progress");
    }
    assert_eq!(process.stop().await, 0);
}

#[tokio::test]
async fn a_job_of_many_reports_can_be_opened_late() {
    const REPORTS: u32 = 5000;
    let mut process = Process::start(&[], &[("SLUICE__HISTORY__EVENTS", "10000")]).await;
    let reports: Vec<_> = (1..=REPORTS)
        .map(|n| {
            json!({"channel": "job_progress:job_1",
                "data": {"status": "processing", "progress": f64::from(n) / 10_000.0}})
        })
        .collect();
    for call in reports.chunks(1000) {
        let publish = reqwest::Client::new().post(process.url("/api/publish")).json(call);
        assert_eq!(within("publish", publish.send()).await.unwrap().status(), 202);
    }
    // Nobody has asked for the shape of these events before. In a process of its own, because
    // shaping them all at once may take more stack than there is.
    let path = "/api/stream/render-progress/job_1";
    let mut late = EventSource::open(&process.url(path)).await;
    assert_eq!(late.data().await["progress"], 0.5);
    assert_eq!(process.stop().await, 0);
}
