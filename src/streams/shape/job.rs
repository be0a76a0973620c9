//! `job_progress` events from what workers publish on `job_progress:{id}` and `task_progress:{id}`.
//!
//! The fields of the payload are kept; what clients expect is added or put right.

use indexmap::IndexMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{number, string};
use crate::event::{Channel, Event, Fields, timestamp};

/// What `status`, `stage` and `progress` are made of.
pub(super) const MADE_OF: &[&str] = &["status", "stage", "progress"];

/// A worker's report, in the terms of the contract.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) fields: Fields<'a>,
    pub(super) id: Value,
    pub(super) status: Option<String>,
    pub(super) stage: Option<String>,
    /// From 0 to 1.
    pub(super) progress: Option<f64>,
    pub(super) timestamp: Value,
    is_task: bool,
}

/// Whether what comes of `channel` are reports of tasks, which count their progress in percent.
pub(super) fn is_of_tasks(channel: &Channel) -> bool {
    channel.as_str().starts_with("task_progress:")
}

impl<'a> Job<'a> {
    pub(super) fn read(event: &'a Event) -> Option<Self> {
        let fields = event.payload.fields()?;
        let (_, suffix) = event.channel.as_str().split_once(':').unwrap_or_default();
        let is_task = is_of_tasks(&event.channel);
        let text = |name: &str| fields.get(name).and_then(string);
        let id = ["jobId", "job_id", "task_id"].iter().find_map(|name| fields.get(name));
        let id =
            id.and_then(|id| serde_json::from_str(id.get()).ok()).filter(|id| *id != Value::Null);
        let progress = fields.get("progress").and_then(number);
        let mut job = Self {
            id: id.unwrap_or_else(|| json!(suffix)),
            status: text("status"),
            stage: text("stage"),
            progress: if is_task { progress.map(|percent| percent / 100.0) } else { progress },
            timestamp: json!(text("timestamp").map_or_else(|| timestamp(event.at), with_zone)),
            is_task,
            fields,
        };
        if job.is_task {
            job.translate();
        }
        Some(job)
    }

    /// Tasks have states of their own: `started` and `retrying` are stages of `processing`.
    fn translate(&mut self) {
        let status = self.status.as_deref().unwrap_or_default();
        if matches!(status, "started" | "retrying") {
            self.stage.get_or_insert_with(|| status.to_owned());
            self.status = Some("processing".to_owned());
        } else if !status.is_empty() {
            self.stage.get_or_insert_with(|| status.to_owned());
        }
    }

    /// `first`, then every field of the payload that is not among them, as it was written.
    pub(super) fn json(&self, first: &Map<String, Value>) -> Option<String> {
        let written = |value: &Value| RawValue::from_string(value.to_string()).ok();
        let first: Vec<_> = first
            .iter()
            .map(|(name, value)| Some((name.as_str(), written(value)?)))
            .collect::<Option<_>>()?;
        let is_first = |name: &str| first.iter().any(|(known, _)| *known == name);
        let mut all: IndexMap<&str, &RawValue> =
            first.iter().map(|(name, value)| (*name, &**value)).collect();
        // Of a name that is there twice the last counts.
        let own = self.fields.iter().filter(|(name, _)| !is_first(name));
        all.extend(own);
        serde_json::to_string(&all).ok()
    }
}

pub(super) fn json(event: &Event) -> Option<String> {
    let job = Job::read(event)?;
    let mut first = Map::new();
    first.insert("type".to_owned(), json!("job_progress"));
    first.insert("jobId".to_owned(), job.id.clone());
    if job.is_task {
        let changed = [
            ("status", job.status.clone().map(Value::from)),
            ("stage", job.stage.clone().map(Value::from)),
            ("progress", job.progress.map(Value::from)),
        ];
        let changed =
            changed.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        first.extend(changed);
    }
    first.insert("timestamp".to_owned(), job.timestamp.clone());
    job.json(&first)
}

/// Workers write UTC without saying so.
fn with_zone(timestamp: String) -> String {
    let time = timestamp.split_once('T').map(|(_, time)| time);
    let zoneless = time.is_some_and(|time| !time.contains(['Z', 'z', '+', '-']));
    if zoneless { timestamp + "Z" } else { timestamp }
}
