//! How to reach Redis and what to hear there.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::redis_tls::RedisTls;
use super::{Backoff, StateKeys};
use crate::event::ChannelPattern;
use crate::settings::Settings;

/// How to reach Redis and what to hear there.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://` or `rediss://`, with user, password and database.
    pub url: String,
    /// The ACL user, if it does not stand in the URL.
    pub username: Option<String>,
    /// The password, if it does not stand in the URL.
    pub password: Option<String>,
    /// A file with the password, read at every connect; empty: none.
    pub password_file: PathBuf,
    /// Whom to trust, and who we are.
    pub tls: RedisTls,
    /// What to listen to at all times.
    pub patterns: Vec<ChannelPattern>,
    /// Which key holds the last state of which channel.
    pub states: StateKeys,
    /// The largest state that is let in, in bytes.
    pub max_event_bytes: usize,
    /// For connecting, and for the answer to a command.
    pub timeout: Duration,
    /// The pause before the next attempt to connect.
    pub backoff: Backoff,
    /// How often to see whether what is published arrives; zero: never.
    pub probe_interval: Duration,
    /// How long the id of something published is remembered.
    pub idempotency_window: Duration,
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without URL and password.
        f.debug_struct("RedisSettings").field("patterns", &self.patterns).finish_non_exhaustive()
    }
}

impl RedisSettings {
    /// As the settings of the gateway say.
    pub fn of(settings: &Settings) -> Self {
        let section = &settings.redis;
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Self {
            url: section.url.clone(),
            username: some(&section.username),
            password: some(&section.password),
            password_file: section.password_file.clone(),
            tls: RedisTls {
                ca_file: section.ca_file.clone(),
                client_cert: section.client_cert.clone(),
                client_key: section.client_key.clone(),
                server_name: section.server_name.clone(),
            },
            patterns: section.standing(),
            states: StateKeys::new(&section.snapshot_keys),
            max_event_bytes: settings.events.max_bytes,
            timeout: section.timeout,
            backoff: Backoff::of(section),
            probe_interval: section.probe_interval,
            idempotency_window: settings.publish.idempotency_window,
        }
    }
}
