//! The command line: what can be asked for, and what the commands that do not serve print.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::council::Council;
use crate::http::{PREFIXES, parse_query};
use crate::settings::{Faults, Settings};
use crate::source::{Embedded, Examined, RedisSettings, StateKeys, examine};
use crate::streams::{Params, Streams};

/// A gateway for live streams.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A file of settings; see config/default.toml.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve streams.
    Serve,
    /// Serve streams of simulated workers, with a page that shows them; needs no Redis.
    Demo,
    /// Say whether the settings are right, or all that is wrong with them.
    Check {
        /// Say which stream answers this URL, and what it listens to.
        #[arg(long, value_name = "URL")]
        explain: Option<String>,
        /// Connect to Redis as well, and say who answers and what is missing there.
        #[arg(long)]
        connect: bool,
    },
    /// Publish one event through a running gateway.
    Publish {
        /// Where to publish.
        channel: String,
        /// What to publish.
        json: String,
        /// The gateway; the address of the settings if it is not said.
        #[arg(long)]
        url: Option<String>,
    },
}

/// Why a command ended without success. Its exit status is of sysexits(3).
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line or the settings are wrong.
    #[error("{0}")]
    Usage(String),
    /// A fault of ours, or of what we talk to.
    #[error("{0}")]
    Fault(String),
    /// The address cannot be bound.
    #[error("{0}")]
    Bind(String),
}

impl Failure {
    /// 64 for wrong usage, 70 for a fault, 75 when an address cannot be bound.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 64,
            Self::Fault(_) => 70,
            Self::Bind(_) => 75,
        })
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Usage(faults.to_string())
    }
}

impl Cli {
    /// Reads the arguments of this process. `Err` when there is nothing left to do: the exit
    /// status after help was printed (0), or after what is wrong was said (64).
    ///
    /// # Errors
    /// See above.
    pub fn read() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            // Without a terminal to write to there is nobody to tell.
            error.print().unwrap_or_default();
            ExitCode::from(if error.use_stderr() { 64 } else { 0 })
        })
    }

    /// The settings of the built-in defaults, the file and the environment.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn settings(&self) -> Result<Settings, Faults> {
        let text = |variable: std::ffi::OsString| variable.into_string().ok();
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        Settings::load(self.config.as_deref(), variables)
    }
}

/// Writes a line to standard output.
///
/// # Errors
/// When nobody reads it.
pub fn say(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| Failure::Fault(error.to_string()))
}

/// `sluice check`: the settings are right; with a URL, what answers it.
///
/// # Errors
/// When no stream answers the URL.
pub fn check(settings: &Settings, explain: Option<&str>) -> Result<(), Failure> {
    match explain {
        Some(url) => say(&explain_url(settings, url)?)?,
        None => say("the settings are right")?,
    }
    for missing in Council::missing(&settings.council) {
        say(&format!("note: a member of the council cannot be asked: {missing}"))?;
    }
    if explain.is_some() {
        return Ok(());
    }
    if settings.publish.enabled && !settings.publish_open() {
        say(
            "note: publishing is closed until publish.api_key is set, for server.bind is not a loopback address",
        )?;
    }
    Ok(())
}

/// `sluice check --connect`: where Redis is, who answers, and what is missing.
///
/// # Errors
/// When it cannot be used.
pub async fn connect(settings: &Settings) -> Result<(), Failure> {
    if settings.redis.url.is_empty() {
        return say("redis.url is empty: events live in the gateway's own memory");
    }
    let examined = examine(&RedisSettings::of(settings)).await;
    let Examined { link, notes, faults } =
        examined.map_err(|error| Failure::Fault(error.to_string()))?;
    say(&link)?;
    notes.iter().try_for_each(|note| say(&format!("note: {note}")))?;
    if faults.is_empty() { Ok(()) } else { Err(Failure::Fault(faults.join("\n"))) }
}

fn explain_url(settings: &Settings, url: &str) -> Result<String, Failure> {
    let target = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => url,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let streams = Streams::compile(&settings.stream);
    let mut below = PREFIXES.iter().rev().filter_map(|prefix| path.strip_prefix(prefix));
    let found = below.find_map(|path| streams.find(path));
    let (stream, parameters) =
        found.ok_or_else(|| Failure::Usage(format!("no stream answers {path}")))?;
    let standing = match settings.redis.url.as_str() {
        "" => Embedded::standing(),
        _ => settings.redis.standing(),
    };
    let mut params = Params::new(parameters, parse_query(query));
    if stream.council.is_some() && params.get("runId").is_none() {
        params = params.with("runId", "{runId}");
    }
    let filters = stream
        .check(&params)
        .and_then(|()| stream.filters(&params, &standing))
        .map_err(|error| Failure::Usage(format!("stream {}: {error}", stream.name)))?;

    // Only Redis has keys.
    let keys = match settings.redis.url.as_str() {
        "" => StateKeys::default(),
        _ => StateKeys::new(&settings.redis.snapshot_keys),
    };
    let mut lines = vec![
        format!("stream    {} ({})", stream.name, stream.path),
        format!("class     {}", stream.class.as_str()),
        format!(
            "snapshot  {}",
            if stream.snapshot { "the last events, for clients that come late" } else { "none" }
        ),
    ];
    if let Some(council) = &stream.council {
        let seats = if council.seats == 0 { usize::MAX } else { council.seats };
        let members: Vec<_> =
            settings.council.members.iter().take(seats).map(String::as_str).collect();
        let members = if members.is_empty() { "nobody".to_owned() } else { members.join(", ") };
        lines.push(format!("council   {members} (prompt {})", council.prompt));
    }
    for filter in &*filters {
        let heard = match standing.iter().find(|pattern| pattern.covers(filter)) {
            Some(pattern) => format!("heard at all times by {pattern}"),
            None => "subscribed to on demand".to_owned(),
        };
        let key = filter.exact().and_then(|channel| keys.key(channel));
        let key = key.map(|key| format!(", last state in {key}"));
        lines.push(format!("channel   {filter} ({heard}{})", key.unwrap_or_default()));
    }
    match stream.ends.as_slice() {
        [] => lines.push("ends      never".to_owned()),
        ends => lines.extend(ends.iter().map(|end| format!("ends      when {end}"))),
    }
    Ok(lines.join("\n"))
}

/// An error and what it comes from, down to the system's own word.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// `sluice publish`: hands one event to a running gateway and prints its answer.
///
/// # Errors
/// When the gateway does not take it.
pub async fn publish(
    settings: &Settings,
    channel: &str,
    json: &str,
    url: Option<&str>,
) -> Result<(), Failure> {
    let fault = |error: reqwest::Error| Failure::Fault(with_causes(&error));
    let scheme = if settings.server.has_tls() { "https" } else { "http" };
    let base = url.map_or_else(|| format!("{scheme}://{}", settings.server.bind), str::to_owned);
    let mut target =
        reqwest::Url::parse(&base).map_err(|error| Failure::Usage(format!("--url: {error}")))?;
    target
        .path_segments_mut()
        .map_err(|()| Failure::Usage("--url: not a web address".to_owned()))?
        .pop_if_empty()
        .extend(["api", "publish", channel]);
    let mut request = reqwest::Client::new()
        .post(target)
        .header("content-type", "application/json")
        .body(json.to_owned());
    if !settings.publish.api_key.is_empty() {
        request = request.bearer_auth(&settings.publish.api_key);
    }
    let response = request.send().await.map_err(fault)?;
    let refused = response.status().is_client_error() || response.status().is_server_error();
    let answer = response.text().await.map_err(fault)?;
    if refused { Err(Failure::Fault(detail(&answer).unwrap_or(answer))) } else { say(&answer) }
}

/// What a problem (RFC 9457) says to people.
fn detail(problem: &str) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_str(problem).ok()?;
    problem.get("detail")?.as_str().map(str::to_owned)
}
