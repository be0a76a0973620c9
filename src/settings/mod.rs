//! Settings: the built-in defaults, then a file, then the environment.
//!
//! `config/default.toml` is embedded and documents every key where it stands, so the manual and
//! the defaults are one file. Whatever is wrong is reported all at once, each with its key.

mod council;
mod environment;
mod list;
mod load;
mod stream;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub use council::{
    CouncilSettings, Dialect, MemberSettings, PromptSettings, ScoreScale, Unwatched,
};
pub use load::{Fault, Faults};
pub use stream::{
    Condition, DeliveryClass, EndSettings, PatternKind, ShapeName, StreamCouncil, StreamSettings,
};

/// The embedded `config/default.toml`.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Everything that can be set. The keys are documented in `config/default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct Settings {
    pub server: ServerSettings,
    pub limits: LimitSettings,
    pub log: LogSettings,
    pub redis: RedisSection,
    pub events: EventSettings,
    pub history: HistorySettings,
    pub snapshot: SnapshotSettings,
    pub outbox: OutboxSection,
    pub compress: CompressSettings,
    pub publish: PublishSettings,
    pub council: CouncilSettings,
    pub stream: BTreeMap<String, StreamSettings>,
}

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct ServerSettings {
    pub bind: SocketAddr,
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    pub max_connections: usize,
    pub max_streams: usize,
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    #[serde(with = "humantime_serde")]
    pub dead_after: Duration,
    #[serde(with = "humantime_serde")]
    pub stalled_after: Duration,
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    pub shards: usize,
    #[serde(with = "list")]
    pub cors_origins: Vec<String>,
    pub cors_credentials: bool,
    #[serde(with = "list")]
    pub trusted_proxies: Vec<String>,
    pub role: String,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct LimitSettings {
    pub streams_per_address: usize,
    #[serde(with = "humantime_serde")]
    pub reopen_window: Duration,
    #[serde(with = "humantime_serde")]
    pub hold_least: Duration,
    #[serde(with = "humantime_serde")]
    pub hold_most: Duration,
    pub held: usize,
    pub held_per_address: usize,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct LogSettings {
    pub format: LogFormat,
    pub level: String,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// `[redis]`
#[derive(Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct RedisSection {
    pub url: String,
    pub username: String,
    #[serde(deserialize_with = "secret")]
    pub password: String,
    pub password_file: PathBuf,
    pub ca_file: PathBuf,
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
    pub server_name: String,
    #[serde(with = "list")]
    pub patterns: Vec<String>,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub backoff_least: Duration,
    #[serde(with = "humantime_serde")]
    pub backoff_most: Duration,
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    pub snapshot_keys: BTreeMap<String, String>,
}

/// `[events]`
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct EventSettings {
    pub max_bytes: usize,
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    pub linger_channels: usize,
    pub demand_channels: usize,
}

/// `[history]`, or `[stream.NAME.history]`: what is kept of the channels of that stream instead.
#[derive(Debug, Clone, Copy, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct HistorySettings {
    pub events: usize,
    pub channel_bytes: usize,
    pub bytes: usize,
    #[serde(with = "humantime_serde")]
    pub age: Duration,
}

/// `[snapshot]`
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct SnapshotSettings {
    pub bytes: usize,
    #[serde(with = "humantime_serde")]
    pub age: Duration,
    pub pattern_bytes: usize,
    pub keys: usize,
    #[serde(with = "humantime_serde")]
    pub reread_after: Duration,
}

/// `[outbox]`
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct OutboxSection {
    pub state_bytes: usize,
    pub log_bytes: usize,
    pub text_bytes: usize,
    pub unsent_bytes: usize,
    pub total_bytes: usize,
}

/// `[compress]`
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct CompressSettings {
    pub above_bytes: usize,
}

/// `[publish]`
#[derive(Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct PublishSettings {
    pub enabled: bool,
    #[serde(deserialize_with = "secret")]
    pub api_key: String,
    pub api_key_file: PathBuf,
    pub unknown: Unknown,
    pub max_events: usize,
    pub max_body_bytes: usize,
    #[serde(with = "humantime_serde")]
    pub idempotency_window: Duration,
}

/// What becomes of an event that is published on a channel which no stream declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// It is published.
    Accept,
    /// It is refused.
    Refuse,
}

impl PublishSettings {
    /// Takes the key from its file, if there is one. Returns what is wrong with that.
    fn read_key(&mut self) -> Option<Fault> {
        if self.api_key_file.as_os_str().is_empty() {
            return None;
        }
        let fault = |message: &str| Some(Fault::new("publish.api_key_file", message));
        if !self.api_key.is_empty() {
            return fault("not together with publish.api_key");
        }
        let Ok(key) = std::fs::read_to_string(&self.api_key_file) else {
            return fault("this file cannot be read as text");
        };
        key.trim_end_matches(['\r', '\n']).clone_into(&mut self.api_key);
        if self.api_key.is_empty() { fault("this file is empty") } else { None }
    }
}

/// A secret. Files and variables often end in a line break that is no part of it.
fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let mut secret = String::deserialize(from)?;
    secret.truncate(secret.trim_end_matches(['\r', '\n']).len());
    Ok(secret)
}

impl std::fmt::Debug for RedisSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the URL and the password, which are secrets.
        f.debug_struct("RedisSection").field("patterns", &self.patterns).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PublishSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the key, which is a secret.
        f.debug_struct("PublishSettings").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}
