//! A real language model with 135 million parameters, served by llama.cpp: it knows little, but
//! it takes its time, fills its slots, and shows whether a client that left was noticed.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Server, installed};

pub(crate) struct Smol {
    server: Server,
}

impl Smol {
    pub(crate) async fn start() -> Self {
        let mut command = Command::new(installed("bin/python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/smol.py"));
        Self { server: Server::start(command, &[], "/health").await }
    }

    /// The base URL is at `/v1` (`OpenAI`, Anthropic).
    pub(crate) fn url(&self, path: &str) -> String {
        self.server.url(path)
    }

    /// How many of its four slots work on an answer.
    pub(crate) async fn busy_slots(&self) -> usize {
        let slots = self.server.ask("GET", "/slots", None).await;
        let slots: Vec<Value> = serde_json::from_value(slots).unwrap();
        slots.iter().filter(|slot| slot["is_processing"] == true).count()
    }
}
