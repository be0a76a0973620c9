//! Runs of the council: which one a stream shows, and `…/council` for those who begin, read and stop
//! them.
//!
//! Opening a stream begins a run only if nobody has asked the same before: whoever comes back, or
//! opens it twice, joins. The name of a run is the key to it: whoever knows it may watch and stop it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::App;
use super::client::{Peer, is_foreign};
use super::problem::Problem;
use super::publish::MayPublish;
use crate::council::{Begun, Caller, Council, Inquiry, Question, Refusal, Viewer};
use crate::event::Channel;
use crate::hub::{Resume, Stopped};
use crate::session::Client;
use crate::settings::StreamCouncil;
use crate::streams::{Declared, Params, RequestError};

/// The parameter that names a run.
pub(super) const RUN: &str = "runId";
/// How long the first word of a run that another node has begun may take to be heard.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// The run that a client wants to see.
#[derive(Debug, Hash)]
pub(super) struct Wanted {
    /// The name it has given.
    run: Option<String>,
    /// What it asks, or why it cannot be asked.
    question: Result<Question, Refusal>,
    /// Whether it has said anything of what is needed to ask.
    asks: bool,
    caller: Caller,
    /// It has watched it before.
    is_back: bool,
}

/// Why there is nothing to watch.
pub(super) enum Unwatchable {
    /// Something is wrong with the question: said in the stream, for its client to read.
    Said(String),
    /// There is no stream.
    Problem(Problem),
}

impl<P: Into<Problem>> From<P> for Unwatchable {
    fn from(problem: P) -> Self {
        Self::Problem(problem.into())
    }
}

/// A run that can be watched.
pub(super) struct Watched {
    /// Its name.
    pub(super) run: String,
    /// Counts as watching; `None` if it is another node's.
    pub(super) viewer: Option<Viewer>,
}

impl Wanted {
    /// Reads what a client asks for.
    pub(super) fn read(
        app: &App,
        (stream, council): (&Declared, &StreamCouncil),
        params: &Params,
        (client, resume): (Client, Resume),
    ) -> Result<Self, Refusal> {
        let caller = caller(client, params.get("userId"));
        let run = params.get(RUN).map(str::to_owned);
        run.as_deref().map_or(Ok(()), Council::check_id)?;
        let is_back = resume != Resume::Fresh;
        let question = stream
            .check(params)
            .map_err(|error: RequestError| Refusal::Invalid(error.to_string()))
            .and_then(|()| app.council.question(council, |name| params.get(name)));
        // A run that has begun can be watched all the same.
        if let (None, Err(refusal)) = (&run, &question) {
            return Err(refusal.clone());
        }
        Ok(Self { run, question, asks: stream.is_asked(params), caller, is_back })
    }

    /// Joins the run, or begins it.
    pub(super) async fn watch(
        self,
        app: &App,
        headers: &HeaderMap,
    ) -> Result<Watched, Unwatchable> {
        if let Some(viewer) = self.known(app)
            && viewer.begun().await?
        {
            return Ok(Watched { run: viewer.run_id().to_owned(), viewer: Some(viewer) });
        }
        if let Some(run) = &self.run
            && is_heard(app, run).await?
        {
            return Ok(Watched { run: run.clone(), viewer: None });
        }
        // Whoever comes back to what is gone is not to be billed again.
        if self.is_back || !self.asks {
            return Err(Refusal::Unknown.into());
        }
        let question = self.question.map_err(|refusal| Unwatchable::Said(refusal.to_string()))?;
        if is_foreign(headers, &app.settings.server) {
            let problem =
                Problem::new(StatusCode::FORBIDDEN, "this origin may not ask the council");
            return Err(problem.into());
        }
        match app.council.begin(self.run.as_deref(), question, &self.caller).await? {
            Begun::Here(run) | Begun::Before(run) => {
                let viewer = app.council.watch(&run);
                Ok(Watched { run, viewer })
            }
            Begun::Elsewhere => {
                let run = self.run.ok_or(Refusal::Unknown)?;
                wait_until_heard(app, &run).await?;
                Ok(Watched { run, viewer: None })
            }
        }
    }

    fn known(&self, app: &App) -> Option<Viewer> {
        match (&self.run, &self.question) {
            (Some(run), _) => app.council.watch(run),
            (None, question) => {
                let question = question.as_ref().ok()?;
                app.council.watch_answer(question, &self.caller, self.is_back)
            }
        }
    }
}

/// Whether something was said in the run, wherever it is.
async fn is_heard(app: &App, run: &str) -> Result<bool, Problem> {
    Ok(app.hub.knows(Channel::new(&format!("council:{run}"))?).await?)
}

async fn wait_until_heard(app: &App, run: &str) -> Result<(), Problem> {
    let until = Instant::now() + HEARD_WITHIN;
    while !is_heard(app, run).await? {
        if Instant::now() > until {
            return Err(Refusal::Unknown.into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn caller(client: Client, user: Option<&str>) -> Caller {
    let address = client.to_string();
    Caller { name: user.map_or_else(|| address.clone(), |user| format!("user {user}")), address }
}

/// The fields of a JSON object as parameters: texts as they are, all else as JSON.
pub(super) fn fields(body: &Bytes) -> Result<Vec<(String, String)>, Problem> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let fields: serde_json::Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("expected a JSON object: {error}")))?;
    let text = |value: Value| match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    };
    Ok(fields.into_iter().map(|(name, value)| (name, text(value))).collect())
}

/// Begins a run with a question in the caller's own words, and says where it can be watched.
pub(super) async fn begin(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    MayPublish { key }: MayPublish,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    if app.stop.is_requested() {
        return Err(Stopped.into());
    }
    let mut inquiry: Inquiry = serde_json::from_slice(&body?).map_err(|error| {
        Problem::bad_request(format!("expected {{\"prompt\", \"members\"?, …}}: {error}"))
    })?;
    let question = app.council.inquiry(&inquiry)?;
    let name = inquiry.run_id.take().or(key);
    let caller = caller(app.proxies.client(peer, &headers), None);
    let (status, run) = match app.council.begin(name.as_deref(), question, &caller).await? {
        Begun::Here(run) => (StatusCode::CREATED, run),
        Begun::Before(run) => (StatusCode::OK, run),
        Begun::Elsewhere => (StatusCode::OK, name.ok_or(Refusal::Unknown)?),
    };
    let state = format!("/api/council/{run}");
    let stream = app.streams.iter().find(|stream| stream.council.is_some());
    let url = stream.map(|stream| format!("/api{}?{RUN}={run}", stream.path));
    let body = json!({"runId": run, "url": url, "state": state});
    Ok((status, [(header::LOCATION, state)], Json(body)).into_response())
}

/// How a run stands.
pub(super) async fn state(
    State(app): State<Arc<App>>,
    run: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(run) = run?;
    let state = app.council.state(&run).ok_or(Refusal::Unknown)?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(state)).into_response())
}

/// Stops a run.
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    run: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(run) = run?;
    may_stop(&app, &headers)?;
    if app.council.stop(&run) { Ok(StatusCode::NO_CONTENT) } else { Err(Refusal::Unknown.into()) }
}

/// Stops one member of a run.
pub(super) async fn stop_member(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    names: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path((run, member)) = names?;
    may_stop(&app, &headers)?;
    match app.council.stop_member(&run, &member) {
        Some(true) => Ok(StatusCode::NO_CONTENT),
        Some(false) => {
            let detail = "nothing of this member is under way in this run";
            Err(Problem::new(StatusCode::NOT_FOUND, detail))
        }
        None => Err(Refusal::Unknown.into()),
    }
}

fn may_stop(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    if is_foreign(headers, &app.settings.server) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "this origin may not stop a run"));
    }
    Ok(())
}
