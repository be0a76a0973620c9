//! `llmock`: fails as a scenario says and judges how the client took it.

use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Server, installed};

pub(crate) struct Llmock {
    server: Server,
}

/// What it thinks of its client.
#[derive(Debug, Deserialize)]
pub(crate) struct Verdict {
    /// Requests that are not retries of others.
    pub(crate) calls: usize,
    pub(crate) attempts: usize,
    findings: Vec<Value>,
}

impl Verdict {
    /// What the client did wrong, such as `retry_after_ignored`.
    pub(crate) fn fails(&self) -> Vec<&str> {
        self.codes("error")
    }

    /// What it may have done wrong, such as `gave_up`.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.codes("warning")
    }

    fn codes(&self, severity: &str) -> Vec<&str> {
        let findings = self.findings.iter().filter(|finding| finding["severity"] == severity);
        findings.map(|finding| finding["code"].as_str().unwrap()).collect()
    }
}

impl Llmock {
    pub(crate) async fn start() -> Self {
        let mut command = Command::new(installed("bin/llmock"));
        command.args(["serve", "--log-level", "critical"]);
        // Else all of an answer is there at once, and whoever leaves it early is not missed.
        command.args(["--stream-chunk-delay-ms", "20"]);
        Self { server: Server::start(command, &["--port"], "/health").await }
    }

    /// Base URLs are at `/v1` (`OpenAI`), `/anthropic/v1`, `/gemini/v1beta`, `/perplexity/v1`.
    pub(crate) fn url(&self, path: &str) -> String {
        self.server.url(path)
    }

    /// What happens to the next requests: a list, such as
    /// `json!([{"type": "fail", "status": 529, "retry_after": 0.2, "times": 2}])`.
    pub(crate) async fn scenario(&self, behaviors: &Value) {
        let body = json!({ "behaviors": behaviors });
        self.server.ask("POST", "/_llmock/scenario", Some(&body)).await;
    }

    /// Waits for requests under way first, two seconds at most.
    pub(crate) async fn verdict(&self) -> Verdict {
        let verdict = self.server.ask("GET", "/_llmock/verdict", None).await;
        serde_json::from_value(verdict).unwrap()
    }
}
