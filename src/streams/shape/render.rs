//! `video_render_progress` events from what render workers, jobs and tasks publish.

use std::iter::successors;

use serde_json::{Map, Value, json};

use super::job::Job;
use super::string;
use crate::event::{Event, Fields, Run, Shape};

/// What `status`, `stage` and `progress` are made of.
pub(super) const MADE_OF: &[&str] =
    &["type", "status", "stage", "progress", "metadata", "currentFrame", "totalFrames"];

/// The event, and the run it belongs to.
pub(super) fn json(event: &Event, shape: &dyn Shape) -> Option<(String, Run)> {
    let job = Job::read(event)?;
    let already = job.fields.get("type").and_then(string);
    if already.as_deref() == Some("video_render_progress") {
        let progress = job.progress.unwrap_or_default();
        return Some((event.payload.as_str().to_owned(), run(event, shape, progress)));
    }
    let frames = Frames::of(&job);
    let progress = job.progress.unwrap_or_else(|| frames.progress());
    let run = run(event, shape, progress);
    let first = [
        ("type", json!("video_render_progress")),
        ("jobId", job.id.clone()),
        ("currentFrame", frames.current),
        ("totalFrames", frames.total),
        ("progress", json!(progress)),
        ("fps", frames.fps),
        ("estimatedTimeRemaining", json!(seconds_left(event, run))),
        ("stage", json!(stage(&job))),
        ("status", json!(job.status)),
        ("timestamp", job.timestamp.clone()),
    ];
    let first = first.into_iter().map(|(name, value)| (name.to_owned(), value));
    Some((job.json(&first.collect::<Map<_, _>>())?, run))
}

struct Frames {
    current: Value,
    total: Value,
    fps: Value,
}

impl Frames {
    fn of(job: &Job<'_>) -> Self {
        let metadata =
            job.fields.get("metadata").map(serde_json::value::RawValue::get).unwrap_or_default();
        let names = ["current_frame", "currentFrame", "total_frames", "totalFrames", "fps"];
        let metadata = Fields::of_names(metadata, &names).unwrap_or_default();
        let field = |snake: &str, camel: &str| {
            let own = || job.fields.get(camel);
            let found = metadata.get(snake).or_else(|| metadata.get(camel)).or_else(own);
            let found = found.and_then(|value| serde_json::from_str::<Value>(value.get()).ok());
            found.filter(Value::is_number).unwrap_or_else(|| json!(0))
        };
        Self {
            current: field("current_frame", "currentFrame"),
            total: field("total_frames", "totalFrames"),
            fps: field("fps", "fps"),
        }
    }

    fn progress(&self) -> f64 {
        let (current, total) = (self.current.as_f64(), self.total.as_f64());
        let share = current.zip(total).filter(|(_, total)| *total > 0.0);
        share.map_or(0.0, |(current, total)| current / total)
    }
}

fn stage(job: &Job<'_>) -> &'static str {
    let stage = job.stage.as_deref().unwrap_or_default().to_ascii_lowercase();
    let is = |names: &[&str]| names.iter().any(|name| stage.starts_with(name));
    match job.status.as_deref() {
        Some("completed") => "complete",
        _ if is(&["upload"]) => "uploading",
        _ if is(&["encod", "transcod"]) => "encoding",
        _ if is(&["complete"]) => "complete",
        Some("queued") => "preparing",
        _ if is(&["queued", "started", "prepar"]) => "preparing",
        _ => "rendering",
    }
}

/// The run that the event belongs to. It began with the first event that is still known, or with
/// the last that went back behind the one before it.
fn run(event: &Event, shape: &dyn Shape, progress: f64) -> Run {
    shape_oldest_first(event, shape);
    let before = event.previous.upgrade().and_then(|previous| previous.shaped(shape)?.run);
    match before.filter(|run| run.reached <= progress) {
        Some(run) => Run { reached: progress, ..run },
        None => Run { began: event.received, from: progress, reached: progress },
    }
}

/// Shapes what came before, from its beginning on: asked from the end, each would ask the one
/// before it, as deep as the history is long.
fn shape_oldest_first(event: &Event, shape: &dyn Shape) {
    let next = |event: &Event| event.previous.upgrade().filter(|event| !event.has_shape(shape));
    let before: Vec<_> = successors(next(event), |event| next(event)).collect();
    for event in before.iter().rev() {
        event.shaped(shape);
    }
}

/// By the rate since the run began; 0 when there is no rate to go by.
fn seconds_left(event: &Event, run: Run) -> f64 {
    let (done, left) = (run.reached - run.from, 1.0 - run.reached);
    if done <= 0.0 || left <= 0.0 {
        return 0.0;
    }
    let seconds = (event.received - run.began).as_secs_f64() * left / done;
    (seconds * 10.0).round() / 10.0
}
