//! How stored states are read, on a connection of their own.
//!
//! Redis cuts a subscriber for which more than 32 MB wait: on the connection of the subscriptions, the
//! large states of one client would cost everybody. But what is read elsewhere may be newer than what
//! has arrived on the subscriptions, and then older events would follow a newer state. So behind each
//! group of keys a *fence* is published, on the gateway's own channel: when the fence has arrived, so
//! has everything that was published before the keys were read.

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value, pipe};

use super::SourceError;
use super::redis_states::{Asked, RedisStates, Taken};
use crate::hub::Inlet;
use crate::telemetry::Flood;

/// Keys that are looked at together.
const KEYS_AT_ONCE: usize = 500;
/// Bytes of values that are under way together.
const BYTES_AT_ONCE: usize = 4 << 20;
/// What a fence says, before its number.
pub(super) const FENCE: &str = "fence ";

/// A connection over which states are read.
pub(super) struct Reading {
    connection: MultiplexedConnection,
    /// The channel of our own on which fences are published.
    channel: String,
    max_bytes: usize,
    way: Way,
    unreadable: Flood,
}

/// How values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The lengths first, and then as much as may be.
    Bounded,
    /// Key by key: the user may not run `STRLEN` and `GETRANGE`.
    Whole,
}

/// What was found in a key.
#[derive(Debug)]
enum Found {
    Nothing,
    Value(Vec<u8>),
    /// More than there was when it was looked at.
    Grown,
    /// It cannot be read, for a reason that trying again does not change.
    Unreadable(String),
    /// The user may not run the command.
    Denied,
}

impl Reading {
    pub(super) fn new(
        connection: MultiplexedConnection,
        channel: String,
        max_bytes: usize,
    ) -> Self {
        Self { connection, channel, max_bytes, way: Way::Bounded, unreadable: Flood::default() }
    }

    /// Reads some of the keys that are wished for.
    ///
    /// # Errors
    /// When Redis does not answer, or cannot for now. Keys that were not read are wished for again.
    pub(super) async fn read(
        &mut self,
        states: &RedisStates,
        inlet: &Inlet,
    ) -> Result<(), SourceError> {
        let most = if self.way == Way::Whole { 1 } else { KEYS_AT_ONCE };
        let mut taken = states.take(most);
        let mut sizes = self.sizes(&taken).await?;
        while !taken.asked.is_empty() {
            let count = group(&sizes, self.max_bytes);
            let (found, fence) = self.values(&taken, sizes.drain(..count)).await?;
            let denied = found.iter().any(|found| matches!(found, Found::Denied));
            if denied && self.way == Way::Bounded {
                self.way = Way::Whole;
                if states.is_first_whole() {
                    tracing::warn!(
                        "the Redis user may not run STRLEN and GETRANGE: stored states are read with GET, one by one"
                    );
                }
                return Ok(());
            }
            if let Some(fence) = fence
                && !taken.pass(fence).await?
            {
                return Ok(());
            }
            for found in found {
                let Some((key, asked)) = taken.asked.pop_front() else { break };
                if matches!(found, Found::Grown) {
                    states.wish_again(key, asked);
                    continue;
                }
                self.tell(&key, asked, found, inlet).await?;
            }
        }
        Ok(())
    }

    /// How long the values are; what is found out besides.
    async fn sizes(&mut self, taken: &Taken) -> Result<Vec<Result<usize, Found>>, SourceError> {
        if self.way == Way::Whole {
            return Ok(taken.asked.iter().map(|_| Ok(1)).collect());
        }
        let mut lengths = pipe();
        for (key, _) in &taken.asked {
            lengths.cmd("STRLEN").arg(key);
        }
        let answers = send(&mut self.connection, &lengths).await?;
        answers
            .into_iter()
            .map(|answer| match answer {
                Value::Int(0) => Ok(Err(Found::Nothing)),
                Value::Int(length) => Ok(Ok(usize::try_from(length).unwrap_or(usize::MAX))),
                other => Ok(Err(refusal(other)?)),
            })
            .collect()
    }

    /// The values of the first keys that are taken, and the fence behind them, if there are any.
    async fn values(
        &mut self,
        taken: &Taken,
        sizes: impl Iterator<Item = Result<usize, Found>>,
    ) -> Result<(Vec<Found>, Option<u64>), SourceError> {
        let mut values = pipe();
        let mut found = Vec::new();
        for ((key, _), size) in taken.asked.iter().zip(sizes) {
            found.push(size.map(|size| room_for(size, self.max_bytes)));
            if let Some(Ok(room)) = found.last() {
                match self.way {
                    Way::Bounded => values.cmd("GETRANGE").arg(key).arg(0).arg(room - 1),
                    Way::Whole => values.cmd("GET").arg(key),
                };
            }
        }
        let fence = if values.is_empty() {
            None
        } else {
            let number = taken.next_fence();
            values.cmd("PUBLISH").arg(&self.channel).arg(format!("{FENCE}{number}"));
            Some(number)
        };
        let answers = match fence {
            Some(_) => send(&mut self.connection, &values).await?,
            None => Vec::new(),
        };
        let mut answers = answers.into_iter();
        let found = found.into_iter().map(|found| match found {
            Ok(room) => self.found(answers.next(), room),
            Err(found) => Ok(found),
        });
        let found = found.collect::<Result<_, _>>()?;
        match answers.next() {
            Some(Value::ServerError(error)) => Err(RedisError::from(error).into()),
            _ => Ok((found, fence)),
        }
    }

    fn found(&self, answer: Option<Value>, room: usize) -> Result<Found, SourceError> {
        match answer {
            Some(Value::BulkString(value)) if value.is_empty() => Ok(Found::Nothing),
            Some(Value::BulkString(value)) => {
                let has_all = value.len() < room || room > self.max_bytes || self.way == Way::Whole;
                Ok(if has_all { Found::Value(value) } else { Found::Grown })
            }
            Some(Value::Nil) | None => Ok(Found::Nothing),
            Some(other) => refusal(other),
        }
    }

    async fn tell(
        &self,
        key: &str,
        asked: Asked,
        found: Found,
        inlet: &Inlet,
    ) -> Result<(), SourceError> {
        let mut fault = None;
        match found {
            Found::Nothing | Found::Grown => {}
            Found::Value(value) => {
                for channel in &asked.channels {
                    fault = inlet.seed(channel, &value, asked.again).await?.or(fault);
                }
            }
            Found::Unreadable(error) => fault = Some(error),
            Found::Denied => fault = Some("the Redis user may not run GET".to_owned()),
        }
        let is_readable = fault.is_none();
        if let Some(fault) = fault {
            inlet.metrics().states_unreadable_total.inc();
            if let Some(times) = self.unreadable.count() {
                tracing::warn!(key, fault, times, "stored states cannot be read; this is the last");
            }
        }
        for waiting in asked.waiting {
            // Whoever waited may have gone away.
            waiting.send(is_readable).unwrap_or_default();
        }
        Ok(())
    }
}

/// Sends commands and returns what Redis says to each, refusals included.
async fn send(
    connection: &mut MultiplexedConnection,
    commands: &Pipeline,
) -> Result<Vec<Value>, SourceError> {
    Ok(connection.send_packed_commands(commands, 0, commands.len()).await?)
}

/// What an answer means that is no value.
///
/// # Errors
/// When Redis cannot answer for now.
fn refusal(answer: Value) -> Result<Found, SourceError> {
    let Value::ServerError(error) = answer else {
        return Ok(Found::Unreadable("an answer of another kind".to_owned()));
    };
    match error.code() {
        "NOPERM" if error.details().is_some_and(|details| details.contains("command")) => {
            Ok(Found::Denied)
        }
        // Of a cluster, only the keys of this node can be read.
        "NOPERM" | "WRONGTYPE" | "ERR" | "MOVED" | "ASK" => {
            Ok(Found::Unreadable(error.to_string()))
        }
        _ => Err(RedisError::from(error).into()),
    }
}

/// How much of a value is read that was so long a moment ago: it may have grown. At most one byte more
/// than an event may have: what is longer is told from what is as long.
fn room_for(size: usize, max_bytes: usize) -> usize {
    (size + size / 4 + 1024).min(max_bytes.saturating_add(1))
}

/// How many of the first values are read together.
fn group(sizes: &[Result<usize, Found>], max_bytes: usize) -> usize {
    let mut room = BYTES_AT_ONCE;
    let fit = sizes.iter().take_while(|size| {
        let bytes = size.as_ref().map_or(0, |size| room_for(*size, max_bytes));
        let fits = bytes <= room;
        room = room.saturating_sub(bytes);
        fits
    });
    fit.count().max(1)
}
