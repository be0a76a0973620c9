//! Keeps a source running: starts it again when it ends, after a pause that grows and is jittered.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Source;
use crate::hub::{Demand, Inlet};
use crate::settings::RedisSection;
use crate::telemetry::Metrics;

/// How long to wait before the next attempt.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// After the first loss.
    pub least: Duration,
    /// At most.
    pub most: Duration,
}

impl Backoff {
    /// As the settings say.
    pub fn of(section: &RedisSection) -> Self {
        Self { least: section.backoff_least, most: section.backoff_most }
    }

    /// The pause before attempt `attempt` (from 0): doubled each time, 50 to 100 % of it by chance,
    /// so that many gateways do not come back at once.
    pub(super) fn pause(self, attempt: u32) -> Duration {
        let grown = self.least.saturating_mul(2_u32.saturating_pow(attempt));
        grown.min(self.most).mul_f64(fastrand::f64().mul_add(0.5, 0.5))
    }
}

/// Runs `source` for as long as the hub takes events.
pub async fn supervise(
    source: &dyn Source,
    inlet: &Inlet,
    demand: &Demand,
    backoff: Backoff,
    metrics: &Metrics,
) {
    let reconnects = metrics.source_reconnects_total.with_label_values(&[source.name()]);
    let address = source.address();
    let mut attempt = 0_u32;
    loop {
        let started = Instant::now();
        let Err(error) = source.run(inlet, demand).await else { continue };
        if inlet.is_connected() {
            // One that is lost at once, again and again, is waited for longer and longer.
            if started.elapsed() > backoff.most {
                attempt = 0;
            }
            reconnects.inc();
            tracing::warn!(source = source.name(), %address, %error,
                up_seconds = started.elapsed().as_secs(), "source lost");
        } else if attempt == 0 || attempt.is_power_of_two() {
            tracing::warn!(source = source.name(), %address, %error, attempt, "source not connected");
        }
        if inlet.lost(&error.to_string()).await.is_err() {
            return;
        }
        sleep(backoff.pause(attempt)).await;
        attempt = attempt.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_most_and_are_jittered() {
        let backoff = Backoff { least: Duration::from_millis(100), most: Duration::from_secs(1) };
        let first = backoff.pause(0);
        assert!(first >= Duration::from_millis(50) && first <= Duration::from_millis(100));
        for attempt in [4, 40, u32::MAX] {
            let late = backoff.pause(attempt);
            assert!(late >= Duration::from_millis(500) && late <= Duration::from_secs(1));
        }
    }
}
