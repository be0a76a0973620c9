//! The connection that is published through. It heals by itself: its loss costs nobody who listens
//! anything, and the loss of the subscriptions costs nobody who publishes anything.
//!
//! It is not that of the subscriptions: a transaction that publishes to its own connection gets the
//! messages mixed into its reply (Redis 7.0), and both are lost.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::redis_connect::{Connector, Driver, in_words, is_of_connection};
use super::{Backoff, SourceError};
use crate::hub::Inlet;

/// How long whoever publishes waits for a connection that was lost a moment ago.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the connection is looked after when it is not used, if probes do not say.
const CHECK: Duration = Duration::from_secs(5);

/// The connection, for those who publish. Clones share it.
#[derive(Clone)]
pub(super) struct Publishing(Arc<Shared>);

struct Shared {
    connector: Arc<Connector>,
    backoff: Backoff,
    check_every: Duration,
    state: watch::Sender<State>,
    /// Rung when whoever publishes finds that the connection is of no use any more.
    broken: Notify,
    /// Rung when there is reason to think that Redis can be reached.
    hurry: Notify,
}

struct State {
    connection: Option<MultiplexedConnection>,
    /// What Redis says against several publications in one transaction. It would run them one by one.
    no_transactions: Option<String>,
    /// Since when there has been one, or none.
    since: Instant,
    /// What somebody has found.
    fault: Option<SourceError>,
}

impl State {
    fn new(connection: Option<MultiplexedConnection>) -> Self {
        Self { connection, no_transactions: None, since: Instant::now(), fault: None }
    }
}

impl Publishing {
    pub(super) fn new(
        connector: Arc<Connector>,
        backoff: Backoff,
        probe_interval: Duration,
    ) -> Self {
        let check_every = if probe_interval.is_zero() { CHECK } else { probe_interval };
        let state = watch::Sender::new(State::new(None));
        let (broken, hurry) = (Notify::new(), Notify::new());
        Self(Arc::new(Shared { connector, backoff, check_every, state, broken, hurry }))
    }

    /// The connection, if there is one.
    pub(super) fn connection(&self) -> Option<MultiplexedConnection> {
        self.0.state.borrow().connection.clone()
    }

    /// Why Redis does not take several publications as one; `None`: it does.
    pub(super) fn no_transactions(&self) -> Option<String> {
        self.0.state.borrow().no_transactions.clone()
    }

    /// Waits until there is a connection, if one was lost a moment ago.
    pub(super) async fn connected_soon(&self) {
        let mut state = self.0.state.subscribe();
        let until = state.borrow().since + PATIENCE;
        let connected = state.wait_for(|state| state.connection.is_some());
        timeout_at(until, connected).await.map(drop).unwrap_or_default();
    }

    /// Redis can be reached: another attempt is worth it, and worth waiting for.
    pub(super) fn hurry(&self) {
        self.0.state.send_if_modified(|state| {
            if state.connection.is_none() {
                state.since = Instant::now();
            }
            false
        });
        self.0.hurry.notify_one();
    }

    /// Looks at the error of a command: if it says that the connection is of no use, it is made anew.
    pub(super) fn report(&self, error: &RedisError) {
        if is_of_connection(error) {
            self.lose(SourceError::Redis(error.clone()));
        }
    }

    /// Sees to it that what was published a moment ago was published to a master: a replica takes it
    /// without a word, and hands it to nobody else.
    ///
    /// # Errors
    /// When it was not, or nobody knows. In words.
    pub(super) async fn confirm(&self, connection: &MultiplexedConnection) -> Result<(), String> {
        let asked = self.0.connector.master(&mut connection.clone()).await;
        asked.map(drop).map_err(|error| {
            let words = error.to_string();
            self.lose(error);
            words
        })
    }

    fn lose(&self, fault: SourceError) {
        let found = self.0.state.send_if_modified(|state| {
            let found = state.connection.is_some();
            if found {
                *state = State::new(None);
                state.fault = Some(fault);
            }
            found
        });
        if found {
            self.0.broken.notify_one();
        }
    }

    /// Keeps the connection open for as long as the gateway runs, and tells `inlet` how it is doing.
    pub(super) async fn keep(&self, inlet: &Inlet) -> ! {
        let Shared { connector, backoff, .. } = &*self.0;
        let mut attempt = 0_u32;
        loop {
            let error = match connector.connect(AsyncConnectionConfig::new()).await {
                Ok((connection, driver, _)) => {
                    let began = Instant::now();
                    let (error, was_of_use) = self.hold(connection, driver, inlet).await;
                    if began.elapsed() > backoff.most {
                        attempt = 0;
                    } else if was_of_use {
                        attempt = 1;
                    }
                    error
                }
                Err(error) => error,
            };
            if inlet.publishing().is_up() {
                tracing::warn!(address = %connector, %error, "publishing lost");
            } else if attempt == 0 || attempt.is_power_of_two() {
                tracing::warn!(address = %connector, %error, attempt, "publishing not connected");
            }
            inlet.publishes_not(&error.to_string());
            // One that has held for a while is made anew at once.
            if attempt > 0 {
                let pause = backoff.pause(attempt - 1);
                timeout(pause, self.0.hurry.notified()).await.unwrap_or_default();
            }
            attempt = attempt.saturating_add(1);
        }
    }

    /// Lets others use the connection until it is of no use any more. Returns why, and whether it was
    /// of use at first.
    async fn hold(
        &self,
        mut connection: MultiplexedConnection,
        mut driver: Driver,
        inlet: &Inlet,
    ) -> (SourceError, bool) {
        let mut check = interval(self.0.check_every);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first look comes before anybody uses it.
        let mut looked = false;
        let mut no_transactions = None;
        let error = loop {
            let look = async {
                check.tick().await;
                self.look(&mut connection).await?;
                if !looked {
                    let tried = try_transaction(&mut connection).await;
                    no_transactions = tried.err().map(|error| in_words(&error));
                }
                Ok(())
            };
            tokio::select! {
                () = &mut driver => break SourceError::Disconnected,
                () = self.0.broken.notified(), if looked => {
                    let mut fault = None;
                    self.0.state.send_modify(|state| fault = state.fault.take());
                    break fault.unwrap_or(SourceError::Disconnected);
                }
                fault = look => {
                    if let Err(fault) = fault {
                        break fault;
                    }
                }
            }
            if !looked {
                looked = true;
                let no_transactions = no_transactions.take();
                let connection = Some(connection.clone());
                self.0.state.send_replace(State { no_transactions, ..State::new(connection) });
                inlet.publishes();
                tracing::info!(address = %self.0.connector, "publishing connected");
            }
        };
        self.0.state.send_if_modified(|state| {
            let was_there = state.connection.is_some();
            if was_there {
                *state = State::new(None);
            }
            was_there
        });
        (error, looked)
    }

    /// Whether Redis still takes what is published: a master that cannot write says so when it is
    /// asked for a sign of life.
    async fn look(&self, connection: &mut MultiplexedConnection) -> Result<(), SourceError> {
        self.0.connector.master(connection).await?;
        match redis::cmd("PING").query_async::<()>(connection).await {
            Err(error) if is_of_connection(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Runs a transaction in which nothing is done.
///
/// # Errors
/// When the user may not, or the connection is lost.
pub(super) async fn try_transaction(
    connection: &mut MultiplexedConnection,
) -> Result<(), RedisError> {
    for command in ["MULTI", "EXEC"] {
        redis::cmd(command).query_async::<()>(connection).await?;
    }
    Ok(())
}
