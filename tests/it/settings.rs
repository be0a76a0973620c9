//! The settings: the embedded defaults, a file, the environment, and what is said about faults.

mod council;

use std::time::Duration;

use serde::Deserialize;
use sluice::settings::{DEFAULTS, DeliveryClass, Settings};
use toml::{Table, Value};

/// Loads a file of this text and these variables; what is wrong as the command line prints it.
fn load(file: &str, environment: &[(&str, &str)]) -> Result<Settings, String> {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    Settings::load(Some(path.path()), environment).map_err(|faults| faults.to_string())
}

/// What is wrong with a file of this text.
fn faults(file: &str) -> String {
    match load(file, &[]) {
        Ok(_) => panic!("accepted: {file}"),
        Err(faults) => faults,
    }
}

/// That each file is refused with one fault, of this key.
fn assert_refused(files: &[(&str, &str)]) {
    for (file, key) in files {
        let faults = faults(file);
        assert!(faults.starts_with(&format!("{key}: ")), "{key}: {faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
}

fn default_values() -> Table {
    DEFAULTS.parse().unwrap()
}

/// The defaults without a key of a section, or without a section.
fn without(section: &str, key: Option<&str>) -> Table {
    let mut values = default_values();
    match (key, &mut values[section]) {
        (Some(key), Value::Table(keys)) => keys.remove(key),
        _ => values.remove(section),
    }
    .unwrap();
    values
}

#[test]
fn the_defaults_stand_alone() {
    let settings = Settings::load(None, []).unwrap();
    assert_eq!(settings.server.bind.to_string(), "127.0.0.1:8000");
    assert_eq!(settings.server.keep_alive, Duration::from_secs(15));
    assert_eq!(settings.redis.url, "");
    assert_eq!(settings.stream.len(), 8);
    assert!(load("", &[]).is_ok(), "an empty file changes nothing");
}

#[test]
fn every_key_is_needed_and_named_when_it_is_missing() {
    let values = default_values();
    assert_eq!(values.len(), 12);
    for (section, keys) in &values {
        let error = Settings::deserialize(without(section, None)).unwrap_err().to_string();
        assert!(error.contains(section), "{section}: {error}");
        // Streams are declared freely; what one needs has a test of its own.
        for key in keys.as_table().unwrap().keys().filter(|_| section != "stream") {
            let Err(error) = Settings::deserialize(without(section, Some(key))) else {
                panic!("{section}.{key} stands in the manual but nothing reads it");
            };
            assert!(error.to_string().contains(key), "{section}.{key}: {error}");
        }
    }
}

#[test]
fn unknown_keys_are_refused_wherever_they_stand() {
    for section in [
        "server", "limits", "log", "redis", "events", "history", "snapshot", "outbox", "compress",
        "publish", "council",
    ] {
        assert_eq!(
            faults(&format!("[{section}]\nnope = 1")),
            format!("{section}.nope: unknown key")
        );
    }
    assert_eq!(faults("nope = 1"), "nope: unknown key");
    assert_eq!(faults("[nope]\nx = 1"), "nope: unknown key");
    assert_eq!(faults("[stream.jobs]\nnope = 1"), "stream.jobs.nope: unknown key");
    assert_eq!(faults("[server]\nBIND = \"127.0.0.1:1\""), "server.BIND: unknown key");
    let end = faults("[[stream.jobs.end]]\nwhen = { status = [\"completed\"] }\nnope = 1");
    assert!(end.starts_with("stream.jobs.end") && end.ends_with("nope: unknown key"), "{end}");
    let variable = load("", &[("SLUICE__SERVER__NOPE", "1")]).unwrap_err();
    assert_eq!(variable, "server.nope: unknown key");
}

#[test]
fn every_fault_is_reported_at_once() {
    let file = r#"
        [server]
        bind = "nowhere"
        max_streams = -1
        cors_origins = ["app.example"]
        nope = 1
        [history]
        age = "long"
        [redis]
        timeout = "0s"
        [stream.mine]
        path = "mine"
    "#;
    let faults = load(file, &[("SLUICE__PUBLISH__MAX_EVENTS", "many")]).unwrap_err();
    let faults = faults.lines().map(|line| line.split(" in ").next().unwrap());
    insta::assert_snapshot!(faults.collect::<Vec<_>>().join("\n"), @r#"
    history.age: invalid value: string "long", expected a duration
    publish.max_events: expected usize
    redis.timeout: must be above 0s
    server.bind: invalid socket address syntax
    server.cors_origins: "app.example" is not an origin such as "https://app.example"
    server.max_streams: invalid value: integer `-1`, expected usize
    server.nope: unknown key
    stream.mine.channels: give either channels or channels_from
    stream.mine.path: must be like "/stream/name/{parameter}"
    "#);
}

#[test]
fn a_fault_in_a_stream_of_ones_own_hides_no_other() {
    // There is no default to go on with.
    let file = r#"
        [server]
        nope = 1
        shards = 1000
        [stream.mine]
        path = "/stream/mine"
        channels = ["mine"]
        class = "best"
        [stream.other]
        channels = ["other"]
    "#;
    let faults = faults(file);
    for key in ["server.nope", "server.shards", "stream.mine.class", "stream.other"] {
        assert!(faults.contains(key), "{key}: {faults}");
    }
}

#[test]
fn a_wrong_type_is_named() {
    assert_refused(&[
        ("[server]\nbind = 5", "server.bind"),
        ("[server]\nmax_streams = \"many\"", "server.max_streams"),
        ("[server]\nmax_streams = -1", "server.max_streams"),
        ("[server]\nshards = 1.5", "server.shards"),
        ("[server]\ncors_origins = 5", "server.cors_origins"),
        ("[server]\ncors_credentials = \"perhaps\"", "server.cors_credentials"),
        ("[server]\nkeep_alive = 15", "server.keep_alive"),
        ("[log]\nformat = \"xml\"", "log.format"),
        ("[redis]\nurl = [\"redis://host\"]", "redis.url"),
        ("[redis]\nsnapshot_keys = 5", "redis.snapshot_keys"),
        ("[history]\nage = \"long\"", "history.age"),
        ("[stream.jobs]\nclass = \"best\"", "stream.jobs.class"),
        ("[stream.jobs]\nshape = \"round\"", "stream.jobs.shape"),
        ("[stream.jobs]\nbatch = 5", "stream.jobs.batch"),
        ("[stream]\njobs = 5", "stream.jobs"),
    ]);
    let missing = faults("[stream.mine]\nchannels = [\"mine\"]");
    assert!(missing.contains("stream.mine") && missing.contains("path"), "{missing}");
    let condition = faults("[[stream.jobs.end]]\nwhen = { status = { at_most = 1 } }");
    assert!(condition.contains("stream.jobs.end") && condition.contains("status"), "{condition}");
}

#[test]
fn a_text_names_its_field_and_nothing_else_does() {
    assert_refused(&[
        ("[stream.jobs]\nclass = \"text\"", "stream.jobs.text"),
        ("[stream.jobs]\ntext = \"words\"", "stream.jobs.text"),
        ("[outbox]\ntext_bytes = 0", "outbox.text_bytes"),
    ]);
    let settings = load("[stream.jobs]\nclass = \"text\"\ntext = \"words\"", &[]).unwrap();
    assert_eq!(settings.stream["jobs"].class, DeliveryClass::Text);
    assert_eq!(settings.outbox.text_bytes, 262_144);
}

#[test]
fn a_wrong_word_is_answered_with_the_right_ones() {
    for (file, right) in [
        ("[log]\nformat = \"xml\"", &["text", "json"][..]),
        ("[stream.jobs]\nclass = \"best\"", &["state", "log", "text"]),
        ("[stream.jobs]\nshape = \"round\"", &["payload", "envelope", "render-progress"]),
    ] {
        let faults = faults(file);
        assert!(right.iter().all(|word| faults.contains(word)), "{faults}");
    }
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file =
        "[server]\nbind = \"127.0.0.1:1\"\nrole = \"file\"\n[stream.jobs]\nclass = \"log\"\n";
    let environment = [
        ("SLUICE__SERVER__BIND", "127.0.0.1:2"),
        ("SLUICE__SERVER__KEEP_ALIVE", "20s"),
        ("SLUICE__SERVER__CORS_CREDENTIALS", "true"),
        ("SLUICE__REDIS__PROBE_INTERVAL", "0s"),
        ("SLUICE__STREAM__ALERTS__ENABLED", "false"),
        ("SLUICELIKE", "1"),
        ("SLUICE_SERVER__BIND", "nowhere"),
        ("PATH", "/bin"),
    ];
    let settings = load(file, &environment).unwrap();
    assert_eq!(settings.server.bind.port(), 2);
    assert_eq!(settings.server.role, "file");
    assert_eq!(settings.server.keep_alive, Duration::from_secs(20));
    assert!(settings.server.cors_credentials);
    assert!(settings.redis.probe_interval.is_zero());
    assert!(!settings.stream["alerts"].enabled);
    // Of a stream, too, only what is said is changed.
    assert_eq!(settings.stream["jobs"].class, DeliveryClass::Log);
    assert_eq!(settings.stream["jobs"].path, "/stream/jobs/{jobId}");
    assert_eq!(settings.server.max_streams, 90_000);
}

#[test]
fn text_in_the_environment_is_taken_as_it_is_written() {
    for text in ["007", "12345678901234567890123", "1e5", "true", "a,b", " x ", ""] {
        let names = [
            ("SLUICE__PUBLISH__API_KEY", text.trim()),
            ("SLUICE__REDIS__PASSWORD", text),
            ("SLUICE__SERVER__ROLE", text),
        ];
        let settings = load("", &names).unwrap();
        assert_eq!(settings.publish.api_key, text.trim());
        assert_eq!(settings.redis.password, text);
        assert_eq!(settings.server.role, text);
    }
}

#[test]
fn lists_in_the_environment_are_written_with_commas() {
    let origins = |text| {
        let settings = load("", &[("SLUICE__SERVER__CORS_ORIGINS", text)]).unwrap();
        settings.server.cors_origins
    };
    assert_eq!(origins("https://a.example"), ["https://a.example"]);
    let two = ["https://a.example", "https://b.example"];
    assert_eq!(origins("https://a.example,https://b.example"), two);
    assert_eq!(origins("https://a.example, https://b.example"), two);
    assert!(origins("").is_empty(), "an empty variable is an empty list");

    // Lists that the defaults do not have are lists all the same.
    let file = "[stream.mine]\npath = \"/stream/mine\"\nchannels = [\"mine\"]\n";
    let environment = [
        ("SLUICE__REDIS__PATTERNS", "recipe:*,blog:*"),
        ("SLUICE__STREAM__ANY__ALLOW", "recipe:*"),
        ("SLUICE__STREAM__JOBS__REQUIRED", "userId,token"),
        ("SLUICE__STREAM__MINE__CHANNELS", "mine,yours"),
    ];
    let settings = load(file, &environment).unwrap();
    assert_eq!(settings.redis.patterns, ["recipe:*", "blog:*"]);
    assert_eq!(settings.stream["any"].allow, ["recipe:*"]);
    assert_eq!(settings.stream["jobs"].required, ["userId", "token"]);
    assert_eq!(settings.stream["mine"].channels, ["mine", "yours"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mine = |rest: &str| format!("[stream.mine]\npath = \"/stream/mine/{{id}}\"\n{rest}");
    assert_refused(&[
        ("[server]\nmax_streams = 0", "server.max_streams"),
        ("[server]\nkeep_alive = \"1ms\"", "server.keep_alive"),
        ("[server]\nshards = 1000", "server.shards"),
        ("[server]\ncors_origins = [\"app.example\"]", "server.cors_origins"),
        ("[server]\ncors_origins = [\"https://app.example/\"]", "server.cors_origins"),
        ("[server]\ncors_origins = [\"*\", \"https://a.example\"]", "server.cors_origins"),
        ("[server]\ntrusted_proxies = [\"proxy\"]", "server.trusted_proxies"),
        ("[server]\ntrusted_proxies = [\"10.0.0.0/33\"]", "server.trusted_proxies"),
        ("[server]\ntls_cert = \"Cargo.toml\"", "server.tls_key"),
        ("[server]\ntls_key = \"Cargo.toml\"", "server.tls_cert"),
        ("[server]\ntls_cert = \"none.pem\"\ntls_key = \"Cargo.toml\"", "server.tls_cert"),
        ("[server]\ntls_cert = \"Cargo.toml\"\ntls_key = \"none.pem\"", "server.tls_key"),
        ("[redis]\nca_file = \"none.pem\"", "redis.ca_file"),
        ("[limits]\nhold_least = \"2s\"", "limits.hold_least"),
        ("[limits]\nhold_least = \"0s\"", "limits.hold_least"),
        ("[limits]\nhold_most = \"31days\"", "limits.hold_most"),
        ("[limits]\nreopen_window = \"0s\"", "limits.reopen_window"),
        ("[limits]\nheld = 0", "limits.held"),
        ("[redis]\npatterns = [\"a b\"]", "redis.patterns"),
        ("[redis]\npatterns = [\"\"]", "redis.patterns"),
        ("[stream.any]\nkey = \"x\"", "stream.any.key"),
        ("[redis]\nbackoff_least = \"5s\"", "redis.backoff_least"),
        ("[redis.snapshot_keys]\n\"a*b*\" = \"c*\"", "redis.snapshot_keys.a*b*"),
        (&mine(""), "stream.mine.channels"),
        (&mine("channels = [\"a:{other}\"]"), "stream.mine.channels"),
        (&mine("channels = [\"a:{id\"]"), "stream.mine.channels"),
        (&mine("channels = [\"a:*\"]"), "stream.mine.channels"),
        (
            &mine("channels = [\"a\"]\nchannels_from = \"c\"\nallow = [\"*\"]"),
            "stream.mine.channels",
        ),
        (&mine("channels_from = \"channel\""), "stream.mine.allow"),
        (&mine("channels = [\"a\"]\n[[stream.mine.end]]\nwhen = {}"), "stream.mine.end"),
        ("[stream.mine]\npath = \"mine\"\nchannels = [\"a\"]", "stream.mine.path"),
    ]);
    let right = mine("channels = [\"a:{id}\", \"a:{id}:{userId?}\"]");
    assert!(load(&right, &[]).is_ok(), "the same without the fault");
    let tls = "[server]\ntls_cert = \"Cargo.toml\"\ntls_key = \"Cargo.toml\"";
    assert!(load(tls, &[]).is_ok(), "what is in the files is seen when they are used");
    let proxies = "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"192.0.2.1\", \"::1\"]";
    assert_eq!(load(proxies, &[]).unwrap().server.proxies().len(), 3);
    assert!(load("[limits]\nhold_most = \"0s\"", &[]).is_ok(), "switched off");
    assert!(load("[stream.jobs]\nenabled = false\npath = \"\"", &[]).is_ok(), "switched off");
    insta::assert_snapshot!(
        faults("[server]\ncors_origins = [\"*\"]\ncors_credentials = true"),
        @r#"server.cors_origins: "*" cannot stand beside other origins or cors_credentials"#
    );
    insta::assert_snapshot!(
        faults(&mine("channels = [\"a:{other}\"]")),
        @"stream.mine.channels: {other} is neither in the path nor required; write {other?} for one that may be missing"
    );
}

#[test]
fn two_streams_cannot_have_one_path() {
    for path in ["/stream/jobs/{jobId}", "/stream/jobs/{id}"] {
        let file = format!("[stream.mine]\npath = \"{path}\"\nchannels = [\"mine\"]");
        let faults = faults(&file);
        assert!(faults.contains("stream.mine.path") && faults.contains("jobs"), "{faults}");
    }
}

#[test]
fn more_connections_than_can_be_counted_are_refused() {
    let file = "[server]\nmax_connections = 9223372036854775807";
    assert_refused(&[(file, "server.max_connections")]);
}

#[test]
fn a_bad_redis_url_is_refused_without_its_password() {
    for url in ["http://user:hunter2@host", "redis://user:hunter2@host:99999", "hunter2@host"] {
        let faults = faults(&format!("[redis]\nurl = \"{url}\""));
        assert_eq!(faults, "redis.url: not a URL such as redis://user:password@host:6379/0");
    }
    let settings =
        load("[redis]\nurl = \"redis://user:hunter2@host\"\npassword = \"hunter2\"", &[]);
    assert!(!format!("{:?}", settings.unwrap()).contains("hunter2"));
}
