//! Publishing through Redis: all of a call or nothing of it.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script, pipe};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::redis_connect::{in_words, is_of_connection};
use super::redis_publishing::Publishing;
use super::{Publication, PublishError, Publisher};
use crate::telemetry::Flood;

pub(super) struct RedisPublisher {
    link: Publishing,
    /// How long an id is remembered.
    window: Duration,
    failures: Flood,
    /// Room for what is being published, in units of [`UNIT`].
    room: Semaphore,
}

/// Bytes in a unit of room.
const UNIT: usize = 1024;
/// Bytes that are being published at a time. Redis cuts those that listen, ourselves included, when more
/// than 32 MB wait for them.
const ROOM: usize = 12 << 20;
/// How long a publication may wait for room.
const PATIENCE: Duration = Duration::from_secs(5);

impl RedisPublisher {
    pub(super) fn new(link: Publishing, window: Duration) -> Self {
        let room = Semaphore::new(ROOM / UNIT);
        Self { link, window, failures: Flood::default(), room }
    }

    /// Waits until there is room for `publications`, and takes it.
    async fn room(
        &self,
        publications: &[Publication],
    ) -> Result<SemaphorePermit<'_>, PublishError> {
        let bytes = publications.iter().map(|one| one.payload.as_str().len()).sum::<usize>();
        let units = u32::try_from((bytes / UNIT).min(ROOM / UNIT)).unwrap_or(u32::MAX);
        let room = timeout(PATIENCE, self.room.acquire_many(units)).await;
        let full = || PublishError::Unavailable("too much is being published at once".to_owned());
        room.ok().and_then(Result::ok).ok_or_else(full)
    }
}

/// Publishes what has no id, or an id that was not published before. `ARGV`: for how many
/// milliseconds ids are remembered, how many publications there are, and for each its channel, its
/// payload, and the place of its two keys in `KEYS`, or 0 if it has no id.
///
/// An id's key holds a digest of its payload. The second key is that of gateways before this one.
/// Nothing is changed before every channel is known to be allowed (if Redis can tell) and every id to
/// be free. Returns what has become of it, and whatever belongs to that.
static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local window, count = ARGV[1], tonumber(ARGV[2])
        local function item(i)
            return ARGV[3 * i], ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2])
        end
        local function is_error(reply)
            return type(reply) == 'table' and reply.err
        end

        if redis.acl_check_cmd then
            for i = 1, count do
                local channel = item(i)
                if not redis.acl_check_cmd('PUBLISH', channel, '') then
                    return {'refused', i - 1}
                end
            end
        end

        local claimed, known = {}, {}
        local function unclaim(from)
            for i, key in pairs(claimed) do
                if i >= from then redis.pcall('DEL', key) end
            end
        end
        local total = 0
        for i = 1, count do
            local _, payload, place = item(i)
            if place > 0 then
                local key, digest = KEYS[place], redis.sha1hex(payload)
                local old = redis.pcall('EXISTS', KEYS[place + 1]) == 1
                local set = old or redis.pcall('SET', key, digest, 'NX', 'PX', window)
                if is_error(set) then
                    unclaim(1)
                    return {'failed', set.err}
                elseif old or not set then
                    local before = not old and redis.pcall('GET', key)
                    if before and not is_error(before) and before ~= digest then
                        unclaim(1)
                        return {'conflict', i - 1}
                    end
                    known[i] = true
                    total = total + 1
                else
                    claimed[i] = key
                end
            end
        end

        for i = 1, count do
            local channel, payload = item(i)
            local reply = not known[i] and redis.pcall('PUBLISH', channel, payload)
            if is_error(reply) then
                unclaim(i)
                return {'stopped', i - 1, reply.err}
            end
        end
        return {'published', total}",
    )
});

#[async_trait]
impl Publisher for RedisPublisher {
    async fn ready(&self) {
        self.link.connected_soon().await;
    }

    async fn publish(&self, publications: Vec<Publication>) -> Result<usize, PublishError> {
        let _room = self.room(&publications).await?;
        let away = || PublishError::Unavailable("the event source is not connected".to_owned());
        let mut connection = self.link.connection().ok_or_else(away)?;
        let refused = self.link.no_transactions().filter(|_| publications.len() > 1);
        let published = if publications.is_empty() {
            Ok(0)
        } else if publications.iter().any(|publication| publication.id.is_some()) {
            self.publish_once(&mut connection, &publications).await
        } else if let Some(message) = refused {
            Err(Failure::Known(PublishError::Refused { channel: None, message }))
        } else {
            // In this order on the connection, at the cost of one.
            let asked = connection.clone();
            let published = publish_together(&mut connection, &publications);
            let (published, confirmed) = tokio::join!(published, self.link.confirm(&asked));
            let confirmed = confirmed.map_err(PublishError::Unconfirmed).map_err(Failure::Known);
            published.and_then(|known| confirmed.map(|()| known))
        };
        published.map_err(|failure| {
            let error = match failure {
                Failure::Known(error) => error,
                Failure::Redis(error) => {
                    self.link.report(&error);
                    understood(&error, &publications)
                }
            };
            // A conflict is between two publishers; Redis has nothing to do with it.
            let is_of_redis = !matches!(error, PublishError::Conflict { .. });
            if is_of_redis && let Some(times) = self.failures.count() {
                tracing::warn!(%error, times, "publications failed; this is the last");
            }
            error
        })
    }
}

enum Failure {
    Known(PublishError),
    Redis(RedisError),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl RedisPublisher {
    async fn publish_once(
        &self,
        connection: &mut MultiplexedConnection,
        publications: &[Publication],
    ) -> Result<usize, Failure> {
        let mut script = PUBLISH.prepare_invoke();
        script.arg(u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX).max(1));
        script.arg(publications.len());
        let mut keys = 0;
        for Publication { channel, payload, id } in publications {
            script.arg(channel.as_str()).arg(payload.as_str());
            if let Some(id) = id {
                // No channel begins with a slash: no key is the old one of another channel.
                let length = channel.as_str().len();
                script.key(format!("sluice:published:/{length}:{channel}:{id}"));
                script.key(format!("sluice:published:{channel}:{id}"));
                script.arg(keys + 1);
                keys += 2;
            } else {
                script.arg(0);
            }
        }
        let reply: redis::Value = script.invoke_async(connection).await?;
        outcome(reply, publications)
    }
}

/// Runs the script with nothing to publish.
///
/// # Errors
/// When the user may not, or the connection is lost.
pub(super) async fn may_run_scripts(
    connection: &mut MultiplexedConnection,
) -> Result<(), RedisError> {
    PUBLISH.arg(1).arg(0).invoke_async::<redis::Value>(connection).await.map(drop)
}

/// Reads what the script says.
fn outcome(reply: redis::Value, publications: &[Publication]) -> Result<usize, Failure> {
    let mut parts = match reply {
        redis::Value::Array(parts) => parts.into_iter(),
        _ => Vec::new().into_iter(),
    };
    let kind: String = parts.next().and_then(read).unwrap_or_default();
    let second = parts.next();
    let number = || second.clone().and_then(read::<usize>).unwrap_or_default();
    let words = |value: Option<redis::Value>| value.and_then(read::<String>).unwrap_or_default();
    let publication = || publications.get(number());
    let error = match kind.as_str() {
        "published" => return Ok(number()),
        "refused" => PublishError::Refused {
            channel: publication().map(|publication| publication.channel.clone()),
            message: "the broker does not allow this channel".to_owned(),
        },
        "conflict" => PublishError::Conflict {
            id: publication().and_then(|publication| publication.id.clone()).unwrap_or_default(),
        },
        "failed" => return Err(Failure::Redis(server_error(&words(second.clone())))),
        "stopped" => {
            let cause = server_error(&words(parts.next()));
            let published = number();
            if published == 0 {
                return Err(Failure::Redis(cause));
            }
            PublishError::Partly {
                published,
                total: publications.len(),
                cause: Box::new(understood(
                    &cause,
                    publications.get(published..).unwrap_or_default(),
                )),
            }
        }
        _ => PublishError::Unconfirmed("the script's answer cannot be read".to_owned()),
    };
    Err(Failure::Known(error))
}

fn read<T: redis::FromRedisValue>(value: redis::Value) -> Option<T> {
    redis::from_redis_value(value).ok()
}

/// Without ids. More than one are a transaction: Redis takes all of them or none.
async fn publish_together(
    connection: &mut MultiplexedConnection,
    publications: &[Publication],
) -> Result<usize, Failure> {
    let mut transaction = pipe();
    if publications.len() > 1 {
        transaction.atomic();
    }
    for Publication { channel, payload, .. } in publications {
        transaction.publish(channel.as_str(), payload.as_str()).ignore();
    }
    transaction.query_async::<()>(connection).await?;
    Ok(0)
}

/// An error as a script says it: a word, and then what it means.
fn server_error(text: &str) -> RedisError {
    let (code, detail) = text.trim_start_matches('-').split_once(' ').unwrap_or((text, ""));
    redis::make_extension_error(code.to_owned(), Some(detail.to_owned()))
}

/// What an error means to whoever publishes.
fn understood(error: &RedisError, publications: &[Publication]) -> PublishError {
    // That of a transaction holds those of its commands.
    let of_commands = error.clone().into_server_errors();
    let mut of_commands = of_commands.iter().flat_map(|errors| errors.iter());
    let refused = of_commands.find(|(_, error)| error.code() == "NOPERM");
    if refused.is_some() || error.code() == Some("NOPERM") {
        let alone = (publications.len() == 1).then_some(0);
        let at = refused.map(|(at, _)| *at).or(alone);
        let message = refused.map_or_else(|| error.detail(), |(_, error)| error.details());
        let message = message.unwrap_or("the broker does not allow this").to_owned();
        // It may also be the command or a key that the user may not use.
        let publication = at.and_then(|at| publications.get(at));
        let publication = publication.filter(|_| message.contains("channel"));
        return PublishError::Refused {
            channel: publication.map(|publication| publication.channel.clone()),
            message,
        };
    }
    if is_of_connection(error) && error.code().is_none() && !error.is_connection_refusal() {
        return PublishError::Unconfirmed(in_words(error));
    }
    PublishError::Unavailable(in_words(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Channel, Payload};

    fn publication(channel: &str) -> Publication {
        let payload = Payload::null();
        Publication { channel: Channel::new(channel).unwrap(), payload, id: None }
    }

    #[test]
    fn a_call_that_was_stopped_names_what_went_out() {
        let all = [publication("a"), publication("b"), publication("c")];
        let stopped = |index: i64| {
            let cause = "NOPERM No permissions to access a channel";
            let words = |text: &str| redis::Value::BulkString(text.into());
            let reply = vec![words("stopped"), redis::Value::Int(index), words(cause)];
            match outcome(redis::Value::Array(reply), &all) {
                Err(Failure::Known(error)) => error,
                Err(Failure::Redis(error)) => understood(&error, &all[..1]),
                Ok(_) => panic!("it was stopped"),
            }
        };
        let PublishError::Partly { published: 1, total: 3, cause } = stopped(1) else {
            panic!("one of three")
        };
        assert!(matches!(*cause, PublishError::Refused { .. }), "{cause}");
        assert!(matches!(stopped(0), PublishError::Refused { .. }), "nothing went out");
    }

    #[test]
    fn what_redis_says_is_understood() {
        let all = [publication("a"), publication("b")];
        let of = |text: &str| understood(&server_error(text), &all[..1]);
        assert!(matches!(of("NOPERM No permissions to access a channel"),
            PublishError::Refused { channel: Some(channel), .. } if channel.as_str() == "a"));
        assert!(matches!(of("-OOM command not allowed"), PublishError::Unavailable(_)));
        assert!(matches!(of("READONLY You can't write"), PublishError::Unavailable(_)));
        let broken = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(matches!(understood(&broken, &all), PublishError::Unconfirmed(_)));
        let refused = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert!(matches!(understood(&refused, &all), PublishError::Unavailable(_)));
    }
}
