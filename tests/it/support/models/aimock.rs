//! `aimock`: answers each request as the first fixture says that matches it, in the format of the
//! provider whose path was asked.

use std::process::Command;

use serde_json::{Value, json};

use super::{Server, installed};

pub(crate) struct Aimock {
    server: Server,
    _fixtures: tempfile::TempDir,
}

impl Aimock {
    /// With a list of fixtures, such as
    /// `json!([{"match": {"userMessage": "rate"}, "response": {"content": "SCORE: 0.8"}}])`.
    pub(crate) async fn start(fixtures: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fixtures.json");
        std::fs::write(&file, json!({ "fixtures": fixtures }).to_string()).unwrap();
        let mut command = Command::new(installed("bin/node"));
        command.arg(installed("node_modules/@copilotkit/aimock/dist/cli.js"));
        command.args(["--log-level", "silent", "--validate-on-load", "--fixtures"]).arg(file);
        let server = Server::start(command, &["--port"], "/health").await;
        Self { server, _fixtures: folder }
    }

    /// Base URLs are at `/v1` (`OpenAI`, Anthropic), `/v1beta` (Gemini), `/api/v1` (`OpenRouter`).
    pub(crate) fn url(&self, path: &str) -> String {
        self.server.url(path)
    }

    /// The requests it has had, oldest first, each with its `path`, `headers`, `body` and
    /// `response`. A body in another format is given in that of chat completions.
    pub(crate) async fn journal(&self) -> Vec<Value> {
        let journal = self.server.ask("GET", "/__aimock/journal", None).await;
        serde_json::from_value(journal).unwrap()
    }

    /// From now on answers break by chance, such as `json!({"malformedRate": 1})`: always.
    pub(crate) async fn chaos(&self, rates: &Value) {
        self.server.ask("POST", "/__aimock/chaos", Some(rates)).await;
    }
}
