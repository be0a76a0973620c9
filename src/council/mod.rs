//! The council: several models answer one question at the same time, live, on one stream.
//!
//! ```text
//! question ──► run ──► members ──► providers
//!               │         │
//!               └─ verdict┴─ words ──► Publisher ──► source ──► hub ──► whoever watches
//! ```
//!
//! A run's words are events of its channel like all others, so any number of clients can watch it,
//! come late, and come back. The council knows neither clients nor HTTP: it is told when somebody
//! watches. A member's failure is its own; a score is never invented; nobody is asked twice for one
//! question.

// What is asked.
mod inquiry;
mod question;
// Who answers: a seat is a member as it is set up, a member one that answers, and its place on the
// board what has come of that.
mod answer;
mod attempt;
mod body;
mod dialect;
mod end;
mod member;
mod meter;
mod seat;
mod upstream;
// What it comes to.
mod board;
mod ranking;
mod run;
mod runs;
mod score;
mod second_stage;
mod stops;
mod verdict;
mod viewers;
// How it is told.
mod events;
mod voice;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

pub use end::EndKind;
pub use inquiry::Inquiry;
pub use question::{Caller, Question, Refusal};
pub use viewers::Viewer;

use crate::event::Channel;
use crate::settings::CouncilSettings;
use crate::shutdown::Stop;
use crate::source::Publisher;
use crate::telemetry::Metrics;
use board::Status;
use end::Ended;
use run::{Run, Tools};
use runs::Runs;
use seat::Seat;
use voice::Voice;

/// The longest name of a run, in bytes.
const MOST_ID_BYTES: usize = 128;

/// The council of this node. Clones share its runs.
#[derive(Clone)]
pub struct Council(Arc<Shared>);

struct Shared {
    tools: Arc<Tools>,
    /// Every member that is declared; those who sit come first, in their order.
    seats: Vec<Arc<Seat>>,
    /// How many sit.
    sitting: usize,
    publisher: Arc<dyn Publisher>,
    /// Changes when the source is connected (anew).
    connections: watch::Receiver<u64>,
    runs: Runs,
}

/// Where the run is that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It begins on this node, under this name.
    Here(String),
    /// It had begun before on this node.
    Before(String),
    /// Another node has begun it.
    Elsewhere,
}

impl fmt::Debug for Council {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Council").field("seats", &self.0.seats).finish_non_exhaustive()
    }
}

impl Council {
    /// A council as the settings say. `connections` changes when the source is connected (anew).
    ///
    /// # Errors
    /// When no requests can be sent, such as without certificates to trust.
    pub fn new(
        settings: &CouncilSettings,
        publisher: Arc<dyn Publisher>,
        connections: watch::Receiver<u64>,
        metrics: &Arc<Metrics>,
        stop: &Stop,
    ) -> Result<Self, reqwest::Error> {
        // A redirect would take the key elsewhere.
        let client = reqwest::Client::builder()
            .connect_timeout(settings.connect)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .build()?;
        let schema = score::schema(settings.scale);
        let seat = |name: &String| {
            let member = settings.member.get(name)?;
            Some(Arc::new(Seat::new(name, member, settings, &schema)))
        };
        let sitting: Vec<_> = settings.members.iter().filter_map(seat).collect();
        let others = settings.member.keys().filter(|name| !settings.members.contains(name));
        for seat in &sitting {
            if let Some(missing) = &seat.missing {
                tracing::warn!(member = seat.name, %missing, "a member of the council cannot be asked");
            }
        }
        let settings = Arc::new(settings.clone());
        let runs = Runs::new(&settings);
        let tools = Tools { client, settings, metrics: Arc::clone(metrics), stop: stop.clone() };
        Ok(Self(Arc::new(Shared {
            tools: Arc::new(tools),
            sitting: sitting.len(),
            seats: sitting.into_iter().chain(others.filter_map(seat)).collect(),
            publisher,
            connections,
            runs,
        })))
    }

    /// Whether `name` can be that of a run.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_id(name: &str) -> Result<(), Refusal> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
        if name.is_empty() || name.len() > MOST_ID_BYTES || !name.chars().all(plain) {
            let message = "runId: 1 to 128 letters, digits, `-`, `_`, `.` or `~`";
            return Err(Refusal::Invalid(message.to_owned()));
        }
        Ok(())
    }

    /// Watches the run of this name, if it is one of this node's.
    pub fn watch(&self, run: &str) -> Option<Viewer> {
        self.0.runs.get(run).map(|run| Viewer::of(&run))
    }

    /// Watches the run that answers the question. `is_back`: whoever asks has watched it before,
    /// perhaps from another address, and is to see how it went, however that was.
    pub fn watch_answer(
        &self,
        question: &Question,
        caller: &Caller,
        is_back: bool,
    ) -> Option<Viewer> {
        self.0.runs.answering(question, caller, is_back).map(|run| Viewer::of(&run))
    }

    /// Begins a run, unless there is one that has this name or, without a name, answers the
    /// question.
    ///
    /// # Errors
    /// When there are too many, or the source is away.
    pub async fn begin(
        &self,
        name: Option<&str>,
        question: Question,
        caller: &Caller,
    ) -> Result<Begun, Refusal> {
        let id = name.map_or_else(runs::new_id, str::to_owned);
        Self::check_id(&id)?;
        let channel = Channel::new(&format!("council:{id}"))
            .map_err(|error| Refusal::Invalid(format!("runId: {error}")))?;
        let Shared { publisher, connections, .. } = &*self.0;
        let voice = Voice::new(Arc::clone(publisher), channel, connections.clone());
        let settings = Arc::clone(&self.0.tools.settings);
        let run = Arc::new(Run::new(id.clone(), question, settings, voice));
        if let Some(known) = self.0.runs.enter(&run, caller, name.is_some())? {
            let id = known.id.clone();
            return Ok(if known.begun().await? { Begun::Before(id) } else { Begun::Elsewhere });
        }
        // A task of its own: whoever asks may leave at any moment, others may wait for it.
        self.0.tools.stop.spawn(self.clone().hold(Arc::clone(&run)));
        Ok(if run.begun().await? { Begun::Here(id) } else { Begun::Elsewhere })
    }

    /// Holds a run, if it can begin and is no other node's.
    async fn hold(self, run: Arc<Run>) {
        let _whatever_happens = Closing(Arc::clone(&run));
        let claimed = run.voice.claim(run.first_word()).await;
        if !matches!(claimed, Ok(true)) {
            self.0.runs.withdraw(&run);
        }
        let begun = claimed.map_err(|error| {
            tracing::warn!(run = run.id, %error, "a run of the council could not begin");
            Refusal::Unavailable
        });
        run.begun.send_replace(Some(begun.clone()));
        if begun == Ok(true) {
            let members = run.question.asked.len();
            tracing::debug!(run = run.id, members, "a run of the council begins");
            run.proceed(Arc::clone(&self.0.tools)).await;
        }
    }

    /// How a run stands.
    pub fn state(&self, run: &str) -> Option<Value> {
        self.0.runs.get(run).map(|run| run.state())
    }

    /// Resolves when no run is under way.
    pub async fn idle(&self) {
        while let Some(run) = self.0.runs.under_way() {
            run.is_over().await;
        }
    }

    /// Stops a run. `false`: it is not known.
    pub fn stop(&self, run: &str) -> bool {
        let run = self.0.runs.get(run);
        run.map(|run| run.stop(&stopped())).is_some()
    }

    /// Stops one member of a run. `None`: the run is not known; `Some(false)`: nothing of this
    /// member is under way.
    pub fn stop_member(&self, run: &str, member: &str) -> Option<bool> {
        self.0.runs.get(run).map(|run| run.stop_member(member, &stopped()))
    }

    /// What is missing so that all members can be asked.
    pub fn missing(settings: &CouncilSettings) -> Vec<String> {
        let seats = settings.members.iter().filter_map(|name| {
            Some(Seat::new(name, settings.member.get(name)?, settings, &Value::Null))
        });
        seats.filter_map(|seat| Some(format!("{} ({})", seat.missing?, seat.name))).collect()
    }

    fn settings(&self) -> &CouncilSettings {
        &self.0.tools.settings
    }

    fn sitting(&self) -> impl Iterator<Item = &Arc<Seat>> {
        self.0.seats.iter().take(self.0.sitting)
    }

    fn seat(&self, name: &str) -> Option<&Arc<Seat>> {
        self.0.seats.iter().find(|seat| seat.name == name)
    }
}

/// Lets nobody wait for a run whose task has ended, were it by a fault of ours.
struct Closing(Arc<Run>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Every way a run can end, for metrics.
pub fn run_ends() -> impl Iterator<Item = &'static str> {
    Status::ENDS.into_iter().map(Status::as_str)
}

fn stopped() -> Ended {
    Ended::new(EndKind::Cancelled, "it was stopped").with_code("stopped")
}
