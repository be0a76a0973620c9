//! What makes no sense although every value has the right type.

mod council;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{
    DeliveryClass, Fault, LimitSettings, RedisSection, ServerSettings, Settings, StreamSettings,
};
use crate::event::{ChannelPattern, Filter, Rules};

/// Connections and streams that can be counted.
const MOST_CONNECTIONS: usize = 100_000_000;

impl Settings {
    /// Whether events can be published: on a loopback address, or with a key.
    pub fn publish_open(&self) -> bool {
        self.publish.enabled
            && (self.server.bind.ip().is_loopback() || !self.publish.api_key.is_empty())
    }

    /// All that makes no sense.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.check_server(&mut faults);
        self.limits.check(&mut faults);
        self.check_redis(&mut faults);
        self.check_publish(&mut faults);
        let positive = [
            ("server.max_connections", self.server.max_connections),
            ("server.max_streams", self.server.max_streams),
            ("limits.held", self.limits.held),
            ("limits.held_per_address", self.limits.held_per_address),
            ("events.max_bytes", self.events.max_bytes),
            ("outbox.state_bytes", self.outbox.state_bytes),
            ("outbox.unsent_bytes", self.outbox.unsent_bytes),
            ("outbox.total_bytes", self.outbox.total_bytes),
            ("outbox.log_bytes", self.outbox.log_bytes),
            ("outbox.text_bytes", self.outbox.text_bytes),
            ("snapshot.keys", self.snapshot.keys),
            ("events.demand_channels", self.events.demand_channels),
            ("publish.max_events", self.publish.max_events),
            ("publish.max_body_bytes", self.publish.max_body_bytes),
        ];
        let zero = positive.into_iter().filter(|(_, value)| *value == 0);
        faults.extend(zero.map(|(key, _)| Fault::new(key, "must be at least 1")));
        for (key, count) in [
            ("server.max_connections", self.server.max_connections),
            ("server.max_streams", self.server.max_streams),
            ("limits.held", self.limits.held),
            ("limits.held_per_address", self.limits.held_per_address),
        ] {
            if count > MOST_CONNECTIONS {
                faults.push(Fault::new(key, format!("must be at most {MOST_CONNECTIONS}")));
            }
        }
        self.check_log(&mut faults);
        self.check_paths(&mut faults);
        self.council.check(&mut faults);
        self.check_answers(&mut faults);
        self.check_council_streams(&mut faults);
        for (name, stream) in self.stream.iter().filter(|(_, stream)| stream.enabled) {
            stream.check(&format!("stream.{name}"), &mut faults);
        }
        faults
    }

    fn check_log(&self, faults: &mut Vec<Fault>) {
        let level = &self.log.level;
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(level) {
            faults.push(Fault::new("log.level", error));
        }
        // The filter takes any other word for a module's name, and then nothing is logged.
        for word in level.split(',').filter(|word| !word.contains(['=', '['])) {
            if word.trim().parse::<tracing::level_filters::LevelFilter>().is_err() {
                let message = format!("{word:?} is none of trace, debug, info, warn, error, off");
                faults.push(Fault::new("log.level", message));
            }
        }
    }

    /// No two streams may answer one URL, nor a stream what the gateway answers itself.
    fn check_paths(&self, faults: &mut Vec<Fault>) {
        let mut router = matchit::Router::new();
        let own = [
            ("/publish", "publish"),
            ("/publish/{*channel}", "publish"),
            ("/realtime/stats", "stats"),
            ("/council", "council"),
            ("/council/{run}", "council"),
            ("/council/{run}/members/{member}", "council"),
        ];
        let streams = self.stream.iter().filter(|(_, stream)| stream.enabled);
        let streams = streams.map(|(name, stream)| (stream.path.as_str(), name.as_str()));
        // Those of the defaults first: the other one is at fault.
        let (known, other): (Vec<_>, Vec<_>) =
            streams.partition(|(path, _)| super::DEFAULTS.contains(&format!("path = \"{path}\"")));
        for (path, name) in own.into_iter().chain(known).chain(other) {
            if let Err(error) = router.insert(path, ()) {
                faults.push(Fault::new(format!("stream.{name}.path"), error));
            }
        }
    }

    fn check_server(&self, faults: &mut Vec<Fault>) {
        let server = &self.server;
        let any = server.cors_origins.iter().any(|origin| origin == "*");
        if any && (server.cors_credentials || server.cors_origins.len() > 1) {
            let message = "\"*\" cannot stand beside other origins or cors_credentials";
            faults.push(Fault::new("server.cors_origins", message));
        }
        for origin in server.cors_origins.iter().filter(|origin| *origin != "*") {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let graphic = |host: &str| host.chars().all(|c| c.is_ascii_graphic() && c != '/');
            if host.is_none_or(|host| host.is_empty() || !graphic(host)) {
                let message =
                    format!("{origin:?} is not an origin such as \"https://app.example\"");
                faults.push(Fault::new("server.cors_origins", message));
            }
        }
        for proxy in server.trusted_proxies.iter().filter(|proxy| network(proxy).is_none()) {
            let message = format!("{proxy:?} is neither an address nor a network");
            faults.push(Fault::new("server.trusted_proxies", message));
        }
        server.check_tls(faults);
        if server.shards > 256 {
            faults.push(Fault::new("server.shards", "must be at most 256"));
        }
        // The kernel counts in seconds, and in 15 bits.
        if !(Duration::from_secs(6)..=Duration::from_secs(32_767)).contains(&server.dead_after) {
            faults.push(Fault::new("server.dead_after", "must be from 6s to 32767s"));
        }
        if server.stalled_after < Duration::from_secs(1) {
            faults.push(Fault::new("server.stalled_after", "must be at least 1s"));
        }
        if server.keep_alive < Duration::from_secs(1) {
            faults.push(Fault::new("server.keep_alive", "must be at least 1s"));
        }
        for (key, time) in [
            ("server.keep_alive", server.keep_alive),
            ("server.drain", server.drain),
            ("server.stalled_after", server.stalled_after),
        ] {
            check_time(key, time, faults);
        }
    }

    fn check_redis(&self, faults: &mut Vec<Fault>) {
        let redis = &self.redis;
        redis.check_url(faults);
        redis.check_files(faults);
        check_patterns("redis.patterns", &redis.patterns, faults);
        for (pattern, key) in &redis.snapshot_keys {
            let at = format!("redis.snapshot_keys.{pattern}");
            check_patterns(&at, std::slice::from_ref(pattern), faults);
            if pattern.matches('*').count() > 1 || key.matches('*').count() > 1 {
                faults.push(Fault::new(at, "at most one * on each side"));
            }
        }
        if redis.backoff_least.is_zero() || redis.backoff_most < redis.backoff_least {
            let message = "must be above 0s and at most redis.backoff_most";
            faults.push(Fault::new("redis.backoff_least", message));
        }
        if redis.timeout.is_zero() {
            faults.push(Fault::new("redis.timeout", "must be above 0s"));
        }
        check_time("snapshot.reread_after", self.snapshot.reread_after, faults);
    }

    /// The key goes into a header: what cannot stand there, no publisher can send.
    fn check_publish(&self, faults: &mut Vec<Fault>) {
        let key = &self.publish.api_key;
        if !key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || key.trim() != key {
            let message =
                "cannot be sent in a header: visible ASCII only, and no blank at its ends";
            faults.push(Fault::new("publish.api_key", message));
        }
    }
}

impl ServerSettings {
    /// The proxies in front.
    pub fn proxies(&self) -> Vec<IpNet> {
        self.trusted_proxies.iter().filter_map(|proxy| network(proxy)).collect()
    }

    /// Whether connections are encrypted.
    pub fn has_tls(&self) -> bool {
        !self.tls_cert.as_os_str().is_empty()
    }

    fn check_tls(&self, faults: &mut Vec<Fault>) {
        let (cert, key) =
            (("server.tls_cert", &*self.tls_cert), ("server.tls_key", &*self.tls_key));
        check_pair(cert, key, faults);
        for (at, file) in [cert, key] {
            check_file(at, file, faults);
        }
    }
}

impl LimitSettings {
    fn check(&self, faults: &mut Vec<Fault>) {
        if !self.hold_most.is_zero()
            && (self.hold_least.is_zero() || self.hold_most < self.hold_least)
        {
            let message = "must be above 0s and at most limits.hold_most";
            faults.push(Fault::new("limits.hold_least", message));
        }
        if self.reopen_window.is_zero() {
            faults.push(Fault::new("limits.reopen_window", "must be above 0s"));
        }
        for (key, time) in
            [("limits.reopen_window", self.reopen_window), ("limits.hold_most", self.hold_most)]
        {
            check_time(key, time, faults);
        }
    }
}

impl RedisSection {
    /// What the URL says has to be what is done. It may hold a password: it is not repeated.
    fn check_url(&self, faults: &mut Vec<Fault>) {
        let mut fault = |message: &str| faults.push(Fault::new("redis.url", message));
        if self.url.is_empty() {
            return;
        }
        let Some(url) = redis::parse_redis_url(&self.url) else {
            return fault("not a URL such as redis://user:password@host:6379/0");
        };
        if url.fragment() == Some("insecure") {
            fault("#insecure is not supported: a certificate can be trusted with redis.ca_file");
        } else if url.fragment().is_some() {
            fault("what stands behind # means nothing");
        }
        let is_socket = url.scheme().ends_with("unix");
        let known = |name: &str| is_socket && matches!(name, "db" | "user" | "pass");
        if url.query_pairs().any(|(name, _)| !known(&name)) {
            fault("what stands behind ? means nothing here");
        }
        let database = url.path().trim_matches('/');
        if !is_socket && !database.is_empty() && database.parse::<u32>().is_err() {
            fault("the path is the number of a database, such as /0");
        }
        if !is_socket && url.host_str().is_none_or(str::is_empty) {
            fault("there is no host in it");
        }
        let has_tls = matches!(url.scheme(), "rediss" | "valkeys");
        let tls = [
            ("redis.ca_file", !self.ca_file.as_os_str().is_empty()),
            ("redis.client_cert", !self.client_cert.as_os_str().is_empty()),
            ("redis.server_name", !self.server_name.is_empty()),
        ];
        for (key, _) in tls.into_iter().filter(|(_, is_set)| *is_set && !has_tls) {
            faults.push(Fault::new(key, "needs a redis.url that begins with rediss://"));
        }
    }

    fn check_files(&self, faults: &mut Vec<Fault>) {
        check_certificates("redis.ca_file", &self.ca_file, faults);
        check_certificates("redis.client_cert", &self.client_cert, faults);
        check_file("redis.client_key", &self.client_key, faults);
        check_file("redis.password_file", &self.password_file, faults);
        check_pair(
            ("redis.client_cert", &self.client_cert),
            ("redis.client_key", &self.client_key),
            faults,
        );
        if !self.password.is_empty() && !self.password_file.as_os_str().is_empty() {
            faults.push(Fault::new("redis.password_file", "not together with redis.password"));
        }
    }

    /// What to listen to at all times.
    pub fn standing(&self) -> Vec<ChannelPattern> {
        let patterns = self.patterns.iter().filter_map(|pattern| ChannelPattern::new(pattern).ok());
        // Redis delivers once for each: one that is listed twice counts once.
        patterns.collect::<indexmap::IndexSet<_>>().into_iter().collect()
    }
}

impl StreamSettings {
    fn check(&self, at: &str, faults: &mut Vec<Fault>) {
        let well_formed = (self.path == "/stream" || self.path.starts_with("/stream/"))
            && self.path.split('/').skip(1).all(|part| {
                let name = part.strip_prefix('{').map_or(Some(part), |name| name.strip_suffix('}'));
                name.is_some_and(|name| !name.is_empty() && !name.contains(['{', '}', '*']))
            });
        if !well_formed {
            let message = "must be like \"/stream/name/{parameter}\"";
            faults.push(Fault::new(format!("{at}.path"), message));
        }
        if self.channels.is_empty() == self.channels_from.is_none() {
            let message = "give either channels or channels_from";
            faults.push(Fault::new(format!("{at}.channels"), message));
        }
        if self.channels_from.is_some() && self.allow.is_empty() {
            let message = "says which channels may be asked for; [\"*\"]: all";
            faults.push(Fault::new(format!("{at}.allow"), message));
        }
        if (self.class == DeliveryClass::Text) != self.text.is_some() {
            let message = "names the field that holds the text: needed for class \"text\", and \
                           for no other";
            faults.push(Fault::new(format!("{at}.text"), message));
        }
        // What is kept for late joiners hangs on the channels that are declared.
        let kept = [
            ("key", self.key.is_some()),
            ("text", self.text.is_some()),
            ("history", self.history.is_some()),
        ];
        for (key, _) in kept.iter().filter(|(_, is_set)| *is_set && self.channels_from.is_some()) {
            faults.push(Fault::new(format!("{at}.{key}"), "only together with channels"));
        }
        if !self.deny.is_empty() && self.channels_from.is_none() {
            faults.push(Fault::new(format!("{at}.deny"), "only together with channels_from"));
        }
        check_patterns(&format!("{at}.allow"), &self.allow, faults);
        check_patterns(&format!("{at}.deny"), &self.deny, faults);
        check_time(&format!("{at}.batch"), self.batch, faults);
        for template in &self.channels {
            self.check_template(&format!("{at}.channels"), template, faults);
        }
        if self.end.len() > Rules::MAX {
            let message = format!("at most {} rules", Rules::MAX);
            faults.push(Fault::new(format!("{at}.end"), message));
        }
        for end in &self.end {
            if end.error.is_some() && !end.data.is_empty() {
                faults.push(Fault::new(format!("{at}.end"), "either `data` or `error`"));
            }
            if end.when.is_empty() {
                faults.push(Fault::new(format!("{at}.end"), "`when` names no field"));
            }
            check_patterns(&format!("{at}.end.channels"), &end.channels, faults);
            check_time(&format!("{at}.end.grace"), end.grace, faults);
            check_time(&format!("{at}.end.latch"), end.latch, faults);
        }
    }

    fn check_template(&self, at: &str, template: &str, faults: &mut Vec<Fault>) {
        let names: Vec<_> =
            template.split('{').skip(1).map(|rest| rest.split('}').next()).collect();
        let balanced = template.matches('{').count() == template.matches('}').count();
        for name in names.iter().flatten() {
            let known = name.ends_with('?')
                || self.path.contains(&format!("{{{name}}}"))
                || self.council.is_some() && *name == "runId";
            if !known && !self.required.iter().any(|required| required == name) {
                let message = format!(
                    "{{{name}}} is neither in the path nor required; write {{{name}?}} for one \
                     that may be missing"
                );
                faults.push(Fault::new(at, message));
            }
        }
        let plain = template.replace(['{', '}', '?'], "");
        if !balanced || !matches!(Filter::parse(&plain), Ok(Filter::Exact(_))) {
            faults.push(Fault::new(at, format!("{template:?} is not the template of a channel")));
        }
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}

/// A file that is named has to be there.
fn check_file(at: &str, file: &Path, faults: &mut Vec<Fault>) {
    if !file.as_os_str().is_empty() && !file.is_file() {
        faults.push(Fault::new(at, "there is no such file"));
    }
}

/// Neither of two files is of use without the other.
fn check_pair(one: (&str, &Path), two: (&str, &Path), faults: &mut Vec<Fault>) {
    for ((at, file), (other, other_file)) in [(one, two), (two, one)] {
        if file.as_os_str().is_empty() && !other_file.as_os_str().is_empty() {
            faults.push(Fault::new(at, format!("needed beside {other}")));
        }
    }
}

/// A file that is named has to hold a certificate (PEM).
fn check_certificates(at: &str, file: &Path, faults: &mut Vec<Fault>) {
    check_file(at, file, faults);
    let read = || CertificateDer::pem_file_iter(file).ok()?.next()?.ok();
    if file.is_file() && read().is_none() {
        faults.push(Fault::new(at, "there is no certificate (PEM) in the file"));
    }
}

/// Timers hold about two years; nobody waits for so long.
fn check_time(at: &str, time: Duration, faults: &mut Vec<Fault>) {
    const MOST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    if time > MOST {
        faults.push(Fault::new(at, "must be at most 30days"));
    }
}

fn check_patterns(at: &str, patterns: &[String], faults: &mut Vec<Fault>) {
    for pattern in patterns {
        if let Err(error) = ChannelPattern::new(pattern) {
            faults.push(Fault::new(at, format!("{pattern:?}: {error}")));
        }
    }
}
