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

mod question;

mod seat;

mod run;

mod runs;

mod second_stage;

mod board;

mod member;

mod end;

mod answer;

mod score;

mod verdict;

mod ranking;

mod words;

mod voice;

mod dialect;

mod upstream;

mod meter;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

pub use end::EndKind;
pub use question::{Caller, Inquiry, Question, Refusal};
pub use run::Viewer;

use crate::event::Channel;
use crate::settings::{CouncilSettings, StreamCouncil, Unwatched};
use crate::shutdown::Stop;
use crate::source::Publisher;
use crate::telemetry::Metrics;
use board::Status;
use end::Ended;
use question::{Asked, fill};
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
        let seat = |name: &String| {
            settings.member.get(name).map(|member| Arc::new(Seat::new(name, member, settings)))
        };
        let sitting: Vec<_> = settings.members.iter().filter_map(seat).collect();
        let others = settings.member.keys().filter(|name| !settings.members.contains(name));
        for missing in sitting.iter().filter_map(|seat| seat.missing.as_ref()) {
            tracing::warn!(%missing, "a member of the council cannot be asked");
        }
        let settings = Arc::new(settings.clone());
        let runs = Runs::new(&settings);
        let tools = Tools {
            client,
            schema: score::schema(settings.scale),
            settings,
            metrics: Arc::clone(metrics),
            stop: stop.clone(),
            connections,
        };
        Ok(Self(Arc::new(Shared {
            tools: Arc::new(tools),
            sitting: sitting.len(),
            seats: sitting.into_iter().chain(others.filter_map(seat)).collect(),
            publisher,
            runs,
        })))
    }

    /// The question that a stream asks with the parameters of its URL.
    ///
    /// # Errors
    /// When nobody can answer, or the question is too long.
    pub fn question<'a>(
        &self,
        stream: &StreamCouncil,
        parameter: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Question, Refusal> {
        let settings = self.settings();
        let prompt = settings.prompt.get(&stream.prompt);
        let prompt =
            prompt.ok_or_else(|| Refusal::Invalid("there is no such prompt".to_owned()))?;
        let most = if stream.seats == 0 { usize::MAX } else { stream.seats };
        let asked = self.sitting().take(most).map(|seat| Asked {
            seat: Arc::clone(seat),
            weight: seat.settings.weight,
            system: fill(seat.settings.system.as_ref().unwrap_or(&prompt.system), &parameter),
            user: fill(seat.settings.user.as_ref().unwrap_or(&prompt.user), &parameter),
        });
        let asked = asked.collect();
        let chairman = self.seat(&settings.chairman).or_else(|| self.sitting().next());
        let question = Question {
            quorum: settings.quorum,
            deadline: settings.deadline,
            unwatched: settings.unwatched,
            grace: settings.grace,
            budget: settings.budget,
            scored: prompt.scored,
            deliberate: settings.deliberate && prompt.scored,
            chairman: chairman.cloned(),
            asked,
        };
        self.checked(question)
    }

    /// The question that a caller puts in its own words.
    ///
    /// # Errors
    /// When nobody can answer, the question is too long, or something in it makes no sense.
    pub fn inquiry(&self, inquiry: &Inquiry) -> Result<Question, Refusal> {
        let settings = self.settings();
        let invalid = |message: String| Refusal::Invalid(message);
        let named = inquiry.members.iter().map(|name| {
            self.seat(name).ok_or_else(|| invalid(format!("members: {name:?} is not known")))
        });
        let named: Vec<_> = named.collect::<Result<_, _>>()?;
        if let Some(name) = twice(&inquiry.members) {
            return Err(invalid(format!("members: {name:?} is named twice")));
        }
        let seats = if named.is_empty() { self.sitting().collect() } else { named };
        for (name, weight) in &inquiry.weights {
            if !seats.iter().any(|seat| seat.name == *name) {
                return Err(invalid(format!("weights: {name:?} is not asked")));
            }
            if !(weight.is_finite() && *weight >= 0.0) {
                return Err(invalid(format!("weights: that of {name:?} is no number from 0")));
            }
        }
        if inquiry.prompt.trim().is_empty() {
            return Err(invalid("prompt: it is empty".to_owned()));
        }
        if inquiry.budget.is_some_and(|budget| !(budget.is_finite() && budget >= 0.0)) {
            return Err(invalid("budget: it is no number from 0".to_owned()));
        }
        let (unwatched, grace) = unwatched(inquiry.unwatched.as_deref(), settings)?;
        let weight = |seat: &Seat| inquiry.weights.get(&seat.name).copied();
        let asked = seats.iter().map(|seat| Asked {
            seat: Arc::clone(seat),
            weight: weight(seat).unwrap_or(seat.settings.weight),
            system: inquiry.system.clone(),
            user: inquiry.prompt.clone(),
        });
        self.checked(Question {
            asked: asked.collect(),
            quorum: inquiry.quorum.unwrap_or(settings.quorum),
            deadline: inquiry.deadline.unwrap_or(settings.deadline).min(settings.deadline),
            unwatched,
            grace,
            budget: stricter(inquiry.budget.unwrap_or_default(), settings.budget),
            scored: inquiry.scored,
            deliberate: inquiry.deliberate.unwrap_or(settings.deliberate),
            chairman: self.seat(&settings.chairman).or_else(|| seats.first().copied()).cloned(),
        })
    }

    /// What makes no sense for any question.
    fn checked(&self, mut question: Question) -> Result<Question, Refusal> {
        let members = question.asked.len();
        if members == 0 {
            let message = "The council has no members: set council.members, and declare each as \
                           [council.member.NAME]";
            return Err(Refusal::NoMembers(message.to_owned()));
        }
        let missing: Vec<_> = question
            .asked
            .iter()
            .filter_map(|asked| {
                Some(format!("{} ({})", asked.seat.missing.as_ref()?, asked.seat.name))
            })
            .collect();
        if missing.len() == members {
            let missing = missing.join(", ");
            return Err(Refusal::NoMembers(format!(
                "No member of the council can be asked: {missing}"
            )));
        }
        let most = self.settings().max_input_bytes;
        if question.asked.iter().any(|asked| asked.system.len() + asked.user.len() > most) {
            return Err(Refusal::TooLong(most));
        }
        if question.quorum == 0 {
            question.quorum = members / 2 + 1;
        }
        // With one seat of several, one score is all there can be.
        question.quorum = question.quorum.min(members);
        Ok(question)
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
        let voice = Voice::new(Arc::clone(&self.0.publisher), channel);
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
        let seats = settings
            .members
            .iter()
            .filter_map(|name| Some(Seat::new(name, settings.member.get(name)?, settings)));
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

/// Every way a run can end, for metrics.
pub fn run_ends() -> impl Iterator<Item = &'static str> {
    Status::ENDS.into_iter().map(Status::as_str)
}

fn stopped() -> Ended {
    Ended::new(EndKind::Cancelled, "it was stopped").with_code("stopped")
}

/// A name that is there more than once.
fn twice(names: &[String]) -> Option<&String> {
    let again = |(n, name): &(usize, &String)| names.iter().take(*n).any(|before| before == *name);
    names.iter().enumerate().find(again).map(|(_, name)| name)
}

fn stricter(one: f64, other: f64) -> f64 {
    match (one > 0.0, other > 0.0) {
        (true, true) => one.min(other),
        (true, false) => one,
        _ => other,
    }
}

fn unwatched(
    asked: Option<&str>,
    settings: &CouncilSettings,
) -> Result<(Unwatched, Duration), Refusal> {
    let grace = settings.grace;
    Ok(match asked {
        None => (settings.unwatched, grace),
        Some("cancel") => (Unwatched::Cancel, grace),
        Some("continue") => (Unwatched::Continue, grace),
        Some("grace") => (Unwatched::Grace, grace),
        Some(time) => {
            let time = humantime::parse_duration(time).map_err(|_| {
                let message = "unwatched: cancel, continue, grace, or a time such as 10s";
                Refusal::Invalid(message.to_owned())
            })?;
            (Unwatched::Grace, time.min(Duration::from_secs(3600)))
        }
    })
}
