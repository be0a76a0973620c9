//! The council, as it stands in the settings: its members, what they are asked, and its limits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// `[council]`
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct CouncilSettings {
    #[serde(with = "super::list")]
    pub members: Vec<String>,
    pub quorum: usize,
    pub scale: ScoreScale,
    #[serde(with = "humantime_serde")]
    pub first_text: Duration,
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    #[serde(with = "humantime_serde")]
    pub total: Duration,
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    #[serde(with = "humantime_serde")]
    pub connect: Duration,
    pub unwatched: Unwatched,
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    #[serde(with = "humantime_serde")]
    pub reuse: Duration,
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    pub max_runs: usize,
    pub max_runs_per_client: usize,
    pub kept_runs: usize,
    pub kept_bytes: usize,
    pub max_input_bytes: usize,
    pub max_answer_bytes: usize,
    pub budget: f64,
    pub deliberate: bool,
    pub chairman: String,
    pub prompt: BTreeMap<String, PromptSettings>,
    #[serde(default)]
    pub member: BTreeMap<String, MemberSettings>,
}

/// How scores are written by the members; on the wire they are from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ScoreScale {
    /// From 0 to 1.
    #[serde(rename = "0-1")]
    One,
    /// From 0 to 100.
    #[serde(rename = "0-100")]
    Hundred,
}

/// What becomes of a run when nobody watches it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unwatched {
    /// It is cancelled at once.
    Cancel,
    /// It goes on to its end.
    Continue,
    /// It is cancelled unless somebody comes back in time.
    Grace,
}

/// `[council.prompt.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct PromptSettings {
    #[serde(default)]
    pub system: String,
    pub user: String,
    #[serde(default)]
    pub scored: bool,
}

/// `[council.member.NAME]`
#[derive(Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct MemberSettings {
    pub dialect: Dialect,
    pub base_url: String,
    pub model: String,
    #[serde(default)]
    pub api_key_env: String,
    #[serde(default)]
    pub api_key_file: PathBuf,
    pub key_header: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub extra: serde_json::Map<String, serde_json::Value>,
    #[serde(default = "one")]
    pub weight: f64,
    pub schema: Option<bool>,
    pub system: Option<String>,
    pub user: Option<String>,
    pub max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "time")]
    pub first_text: Option<Duration>,
    #[serde(default, deserialize_with = "time")]
    pub idle: Option<Duration>,
    #[serde(default, deserialize_with = "time")]
    pub total: Option<Duration>,
    #[serde(default = "three")]
    pub attempts: u32,
    #[serde(default)]
    pub restarts: u32,
    pub input_price: Option<f64>,
    pub output_price: Option<f64>,
    #[serde(default)]
    pub budget: f64,
}

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// `POST …/chat/completions`, which most servers understand.
    OpenaiChat,
    /// `POST …/responses`
    OpenaiResponses,
    /// `POST …/messages`
    Anthropic,
    /// `POST …/models/MODEL:streamGenerateContent`
    Gemini,
}

impl MemberSettings {
    /// A member about which nothing else is said.
    pub fn new(dialect: Dialect, base_url: &str, model: &str) -> Self {
        Self {
            dialect,
            base_url: base_url.to_owned(),
            model: model.to_owned(),
            api_key_env: String::new(),
            api_key_file: PathBuf::new(),
            key_header: None,
            headers: BTreeMap::new(),
            extra: serde_json::Map::new(),
            weight: one(),
            schema: None,
            system: None,
            user: None,
            max_tokens: None,
            first_text: None,
            idle: None,
            total: None,
            attempts: three(),
            restarts: 0,
            input_price: None,
            output_price: None,
            budget: 0.0,
        }
    }

    /// Where the key comes from, for people; `None`: no key is sent.
    pub fn key_source(&self) -> Option<String> {
        match (self.api_key_env.as_str(), self.api_key_file.to_str().unwrap_or("?")) {
            ("", "") => None,
            ("", file) => Some(file.to_owned()),
            (variable, _) => Some(variable.to_owned()),
        }
    }
}

impl std::fmt::Debug for MemberSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without headers and URL, which may hold secrets.
        f.debug_struct("MemberSettings")
            .field("dialect", &self.dialect)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    humantime_serde::deserialize(from).map(Some)
}

fn one() -> f64 {
    1.0
}

fn three() -> u32 {
    3
}
