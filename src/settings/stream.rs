//! A declared stream, as it stands in the settings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::HistorySettings;

/// `[stream.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct StreamSettings {
    #[serde(default = "yes")]
    pub enabled: bool,
    pub path: String,
    #[serde(default, with = "super::list")]
    pub channels: Vec<String>,
    pub channels_from: Option<String>,
    #[serde(default, with = "super::list")]
    pub allow: Vec<String>,
    #[serde(default, with = "super::list")]
    pub deny: Vec<String>,
    #[serde(default, with = "super::list")]
    pub required: Vec<String>,
    #[serde(default)]
    pub patterns: PatternKind,
    #[serde(default)]
    pub shape: ShapeName,
    pub event_type: Option<String>,
    #[serde(default)]
    pub class: DeliveryClass,
    pub snapshot: Option<bool>,
    pub key: Option<String>,
    pub text: Option<String>,
    #[serde(default, with = "super::list")]
    pub notices: Vec<String>,
    pub history: Option<HistorySettings>,
    pub council: Option<StreamCouncil>,
    #[serde(default, with = "humantime_serde")]
    pub batch: Duration,
    #[serde(default)]
    pub end: Vec<EndSettings>,
}

/// Which patterns clients may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PatternKind {
    /// Those with one `*`, at the end: few of them match an event, and they are found by its name.
    #[default]
    Prefix,
    /// Any.
    Any,
}

/// What becomes of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShapeName {
    /// As it is.
    #[default]
    Payload,
    /// `{"channel","data","timestamp"}`.
    Envelope,
    /// A `job_progress` event.
    JobProgress,
    /// A `video_render_progress` event.
    RenderProgress,
    /// `{"chunk"}`: a piece of the text of a council's only member.
    Chunk,
}

impl ShapeName {
    /// Whether it shows objects only.
    pub fn is_of_objects(self) -> bool {
        matches!(self, Self::JobProgress | Self::RenderProgress)
    }
}

/// What happens to a client that lags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryClass {
    /// The newest event of each channel is kept for it: progress, metrics.
    State,
    /// Nothing is dropped: its stream is closed, and it resumes from its last id. Alerts, chat.
    #[default]
    Log,
    /// Pieces of one text that follow each other are told as one; nothing is dropped. What does
    /// not fit even then is as with `Log`. Tokens of a model.
    Text,
}

impl DeliveryClass {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::State, Self::Log, Self::Text];

    /// The name in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Log => "log",
            Self::Text => "text",
        }
    }
}

/// `[[stream.NAME.end]]`
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct EndSettings {
    pub when: BTreeMap<String, Condition>,
    #[serde(default, with = "super::list")]
    pub channels: Vec<String>,
    #[serde(default, with = "humantime_serde")]
    pub grace: Duration,
    #[serde(default, with = "humantime_serde")]
    pub latch: Duration,
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    pub error: Option<String>,
}

/// `[stream.NAME.council]`: opening the stream begins a run of the council, or joins it.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "documented in config/default.toml, which is the manual")]
pub struct StreamCouncil {
    pub prompt: String,
    #[serde(default)]
    pub seats: usize,
}

/// What a field of an event must be.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Condition {
    /// One of these.
    OneOf(Vec<serde_json::Value>),
    /// A number, at least this.
    AtLeast {
        /// The bound.
        at_least: f64,
    },
}

fn yes() -> bool {
    true
}
