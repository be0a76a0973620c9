//! `sluice check --connect`: whether Redis can be reached, and what the user may not do there.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisError, Value, cmd};
use tokio::select;

use super::redis_connect::{Connector, RedisSettingsError};
use super::redis_publisher::may_run_scripts;
use super::redis_publishing::try_transaction;
use super::{RedisSettings, SourceError};
use crate::event::ChannelPattern;

/// What a look at Redis has found.
#[derive(Debug)]
pub struct Examined {
    /// Where it is, who we are there, and who answers.
    pub link: String,
    /// What is missing or worth knowing, each a sentence.
    pub notes: Vec<String>,
    /// What is missing without which a gateway does not connect, each a sentence.
    pub faults: Vec<String>,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// The settings lead nowhere.
    #[error(transparent)]
    Settings(#[from] RedisSettingsError),
    /// Redis cannot be used.
    #[error("{address}: {error}")]
    Redis {
        /// Where it is, without secrets.
        address: String,
        /// Why not.
        error: SourceError,
    },
}

/// Connects to Redis as a gateway with these settings does, and tries what it needs. Nothing that
/// anybody listens to is published.
///
/// # Errors
/// When Redis cannot be reached, is no master, or does not let us in.
pub async fn examine(settings: &RedisSettings) -> Result<Examined, ExamineError> {
    let connector = Connector::new(settings)?;
    let failed = |error| ExamineError::Redis { address: connector.to_string(), error };
    let config = AsyncConnectionConfig::new().set_push_sender(|_| Ok::<(), ()>(()));
    let (connection, mut driver, server) = connector.connect(config).await.map_err(failed)?;
    let mut trial = Trial { connection, notes: Vec::new(), faults: Vec::new() };
    let trying = async {
        trial.database(&connector);
        trial.own_channel().await?;
        trial.patterns(&settings.patterns).await?;
        trial.keys(settings).await?;
        trial.transactions().await?;
        trial.ids().await
    };
    select! {
        tried = trying => tried.map_err(|error| failed(error.into()))?,
        () = &mut driver => return Err(failed(SourceError::Disconnected)),
    }
    let (user, role, version) = (connector.user(), server.role, server.version);
    if server.mode == "cluster" {
        trial.note("this is a node of a cluster: of stored states, only those on this node are read, and events with ids go out only if their keys are there");
    }
    let link = format!("{connector} as user {user}: {role}, version {version}");
    Ok(Examined { link, notes: trial.notes, faults: trial.faults })
}

struct Trial {
    connection: MultiplexedConnection,
    notes: Vec<String>,
    faults: Vec<String>,
}

impl Trial {
    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// What Redis says against a command; `None`: nothing.
    ///
    /// # Errors
    /// When the connection is lost.
    async fn refusal(&mut self, command: &Cmd) -> Result<Option<RedisError>, RedisError> {
        match command.query_async::<Value>(&mut self.connection).await {
            Ok(_) => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::Io) => Err(error),
            Err(error) => Ok(Some(error)),
        }
    }

    /// Notes what is not allowed.
    ///
    /// # Errors
    /// When the connection is lost.
    async fn may(&mut self, command: &Cmd, what: &str) -> Result<bool, RedisError> {
        let refusal = self.refusal(command).await?;
        if let Some(error) = &refusal {
            self.note(format!("the user may not {what}: {error}"));
        }
        Ok(refusal.is_none())
    }

    fn database(&mut self, connector: &Connector) {
        let database = connector.database();
        if database != 0 {
            self.note(format!(
                "stored states are read from database {database}; Pub/Sub knows no databases: events \
                 of all of them arrive"
            ));
        }
    }

    async fn own_channel(&mut self) -> Result<(), RedisError> {
        const OWN: &str = "sluice:probe:check";
        for (command, what) in [
            (cmd("SUBSCRIBE").arg(OWN), "subscribe to sluice:probe:*"),
            (cmd("PUBLISH").arg(OWN).arg(""), "publish to sluice:probe:*"),
        ] {
            if let Some(error) = self.refusal(command).await? {
                let fault =
                    format!("the user may not {what}, and no gateway works without: {error}");
                self.faults.push(fault);
            }
        }
        self.may(cmd("UNSUBSCRIBE").arg(OWN), "run UNSUBSCRIBE: channels stay subscribed").await?;
        Ok(())
    }

    /// An empty one, and whether it would do.
    async fn transactions(&mut self) -> Result<(), RedisError> {
        if let Err(error) = try_transaction(&mut self.connection).await {
            self.note(format!("the user may not publish several events in one call: {error}"));
        }
        Ok(())
    }

    async fn patterns(&mut self, patterns: &[ChannelPattern]) -> Result<(), RedisError> {
        let mut refused = Vec::new();
        let mut refusal = None;
        for pattern in patterns {
            if let Some(error) = self.refusal(cmd("PSUBSCRIBE").arg(pattern.as_str())).await? {
                refused.push(pattern.as_str());
                refusal = Some(error);
            }
        }
        if let Some(error) = refusal {
            let patterns = refused.join(", ");
            self.note(format!("the user may not listen to {patterns} (redis.patterns): {error}"));
        }
        Ok(())
    }

    async fn keys(&mut self, settings: &RedisSettings) -> Result<(), RedisError> {
        for key in settings.states.names() {
            let what = format!("read {key} (redis.snapshot_keys)");
            let example = key.replace('*', "check");
            let bounded =
                cmd("STRLEN").arg(&example).query_async::<Value>(&mut self.connection).await;
            let range = cmd("GETRANGE").arg(&example).arg(0).arg(0).to_owned();
            let range = range.query_async::<Value>(&mut self.connection).await;
            if bounded.is_err() || range.is_err() {
                let can = self.may(cmd("GET").arg(&example), &what).await?;
                if can {
                    self.note(format!(
                        "the user may not run STRLEN and GETRANGE: each {key} is read by itself, and \
                         however large it is"
                    ));
                }
            }
        }
        Ok(())
    }

    async fn ids(&mut self) -> Result<(), RedisError> {
        let what = "publish events with an id (EVALSHA, SCRIPT LOAD)";
        if let Err(error) = may_run_scripts(&mut self.connection).await {
            self.note(format!("the user may not {what}: {error}"));
            return Ok(());
        }
        if !self.may(cmd("SCRIPT").arg("LOAD").arg("return 0"), what).await? {
            return Ok(());
        }
        let key = "sluice:published:check";
        let what = "publish events with an id (SET, GET, EXISTS, DEL on sluice:published:*)";
        let set = cmd("SET").arg(key).arg("").arg("PX").arg(1).to_owned();
        for command in [&set, cmd("GET").arg(key), cmd("EXISTS").arg(key), cmd("DEL").arg(key)] {
            if !self.may(command, what).await? {
                break;
            }
        }
        Ok(())
    }
}
