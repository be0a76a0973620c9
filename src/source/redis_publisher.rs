//! Publishing through Redis: all of a call or nothing of it.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use redis::{RedisError, Script, pipe};

use super::redis_link::CurrentLink;
use super::{Publication, PublishError, Publisher};

pub(super) struct RedisPublisher {
    pub(super) link: CurrentLink,
    /// How long an id is remembered.
    pub(super) window: Duration,
}

/// Publishes what has no id, or an id whose key was not set yet. `KEYS` and the pairs of `ARGV`
/// run in parallel; an empty key means no id. Returns how many were known.
static PUBLISH_ONCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local known = 0
        for i, key in ipairs(KEYS) do
            if ARGV[3 * i] == '' or redis.call('SET', key, '1', 'NX', 'PX', ARGV[1]) then
                redis.call('PUBLISH', ARGV[3 * i - 1], ARGV[3 * i + 1])
            else
                known = known + 1
            end
        end
        return known",
    )
});

#[async_trait]
impl Publisher for RedisPublisher {
    async fn publish(&self, publications: Vec<Publication>) -> Result<usize, PublishError> {
        let mut connection = self.link.get().ok_or(PublishError::Unavailable)?.publishing;
        if publications.iter().any(|publication| publication.id.is_some()) {
            let mut script = PUBLISH_ONCE.prepare_invoke();
            script.arg(u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX).max(1));
            for Publication { channel, payload, id } in &publications {
                let id = id.as_deref().unwrap_or_default();
                script.key(format!("sluice:published:{channel}:{id}"));
                script.arg(channel.as_str()).arg(id).arg(payload.as_str());
            }
            return script.invoke_async(&mut connection).await.map_err(unconfirmed);
        }
        let mut transaction = pipe();
        if publications.len() > 1 {
            transaction.atomic();
        }
        for Publication { channel, payload, .. } in &publications {
            transaction.publish(channel.as_str(), payload.as_str()).ignore();
        }
        transaction.query_async::<()>(&mut connection).await.map_err(unconfirmed)?;
        Ok(0)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that map_err takes")]
fn unconfirmed(error: RedisError) -> PublishError {
    if error.is_connection_refusal() {
        return PublishError::Unavailable;
    }
    PublishError::Unconfirmed(error.to_string())
}
