//! The binary: what its commands print, and how they end.

mod connect;
mod council;
mod serving;

use std::process::Output;

use serde_json::json;
use sluice::settings::Settings;
use tokio::process::Command;

use crate::support::{Certificate, TestGateway, within};
pub(crate) use serving::Process;

/// The binary, without settings from the surroundings of the test.
fn sluice(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SLUICE")) {
        command.env_remove(name);
    }
    command.args(arguments).kill_on_drop(true);
    command
}

/// Runs a command to its end: its exit status, standard output and standard error.
async fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = within("end", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

async fn check(config: &str) -> (i32, String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    run(&mut sluice(&["check", "--config", file.path().to_str().unwrap()])).await
}

#[tokio::test]
async fn help_and_version_are_no_failure() {
    let (status, stdout, stderr) = run(&mut sluice(&["--help"])).await;
    assert_eq!((status, stderr.as_str()), (0, ""));
    for command in ["serve", "demo", "check", "publish", "--config"] {
        assert!(stdout.contains(command), "{command}: {stdout}");
    }
    let (status, stdout, stderr) = run(&mut sluice(&["--version"])).await;
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(stdout.trim(), format!("sluice {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_bad_command_line_is_64() {
    for wrong in [&["--nope"][..], &["nope"], &["publish", "alerts"], &["check", "--explain"]] {
        let (status, stdout, stderr) = run(&mut sluice(wrong)).await;
        assert_eq!((status, stdout.as_str()), (64, ""), "{wrong:?}");
        assert!(stderr.contains("Usage: sluice") || stderr.contains("required"), "{stderr}");
    }
}

#[tokio::test]
async fn a_bad_config_is_64_with_every_fault_and_its_key() {
    let config = r#"
        [server]
        bnd = "127.0.0.1:8000"
        keep_alive = "soon"
        [redis]
        url = "http://user:hunter2@host"
        [stream.mine]
        path = "/stream/mine/{id}"
        channels = ["mine:{other}"]
    "#;
    let (status, stdout, stderr) = check(config).await;
    assert_eq!((status, stdout.as_str()), (64, ""));
    insta::assert_snapshot!(stderr, @r#"
    sluice: redis.url: not a URL such as redis://user:password@host:6379/0
    server.bnd: unknown key
    server.keep_alive: invalid value: string "soon", expected a duration
    stream.mine.channels: {other} is neither in the path nor required; write {other?} for one that may be missing
    "#);

    // Serving is refused for the same reasons.
    let mut serve = sluice(&["serve"]);
    let (status, _, stderr) = run(serve.env("SLUICE__SERVER__BND", "127.0.0.1:8000")).await;
    assert_eq!((status, stderr.as_str()), (64, "sluice: server.bnd: unknown key\n"));

    let (status, _, stderr) = run(&mut sluice(&["--config", "no-such-file.toml"])).await;
    assert_eq!(status, 64);
    assert!(stderr.contains("no-such-file.toml"), "{stderr}");
}

#[tokio::test]
async fn what_check_takes_serve_takes() {
    // A stream of one's own where a default one is, and a filter of the log that is none.
    let twice = "[stream.mine]\npath = \"/stream/jobs/{id}\"\nchannels = [\"mine:{id}\"]\n";
    for (config, key) in [(twice, "stream.mine.path"), ("[log]\nlevel = \"a=b=c\"\n", "log.level")]
    {
        let (status, stdout, stderr) = check(config).await;
        assert_eq!(status, 64, "{key}: {stdout}");
        assert!(stderr.contains(key), "{stderr}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_75() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in ["serve", "demo"] {
        let mut command = sluice(&[command]);
        let (status, _, stderr) = run(command.env("SLUICE__SERVER__BIND", &address)).await;
        assert_eq!(status, 75);
        assert!(stderr.contains(&address), "{stderr}");
    }
}

#[tokio::test]
async fn check_says_yes() {
    let (status, stdout, stderr) = run(&mut sluice(&["check"])).await;
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (0, "the settings are right\n", ""));
    let (status, stdout, _) = check("[server]\nbind = \"0.0.0.0:8000\"\n").await;
    assert_eq!(status, 0);
    assert!(stdout.contains("publish.api_key"), "publishing is closed then: {stdout}");
}

#[tokio::test]
async fn check_explains_every_declared_stream() {
    for (name, stream) in Settings::load(None, []).unwrap().stream {
        let path: Vec<_> = stream
            .path
            .split('/')
            .map(|part| if part.starts_with('{') { "seven" } else { part })
            .collect();
        let mut query: Vec<_> = stream.required.iter().map(|name| format!("{name}=x")).collect();
        query.extend(stream.channels_from.map(|parameter| format!("{parameter}=recipe:*")));
        query.extend(stream.council.map(|_| "runId=seven".to_owned()));
        let below = format!("{}?{}", path.join("/"), query.join("&"));
        for prefix in ["/api", "/api/v1", "https://stream.example/api"] {
            let url = format!("{prefix}{below}");
            let (status, stdout, stderr) = run(&mut sluice(&["check", "--explain", &url])).await;
            assert_eq!(status, 0, "{url}: {stderr}");
            let first = format!("stream    {name} ({})", stream.path);
            assert_eq!(stdout.lines().next(), Some(first.as_str()), "{url}");
            assert!(stdout.contains(stream.class.as_str()), "{stdout}");
            let channel = if stream.channels.is_empty() { "recipe:*" } else { "seven" };
            assert!(stdout.contains(channel) || stream.channels.contains(&"alerts".to_owned()));
        }
    }
}

#[tokio::test]
async fn check_explains_channels_keys_and_ends() {
    let url = "/api/stream/render-progress/job_1?userId=u";
    let mut command = sluice(&["check", "--explain", url]);
    let (_, stdout, _) = run(command.env("SLUICE__REDIS__URL", "redis://host")).await;
    insta::assert_snapshot!(stdout, @r#"
    stream    render_progress (/stream/render-progress/{jobId})
    class     state
    snapshot  the last events, for clients that come late
    channel   job_progress:job_1 (heard at all times by job_progress:*, last state in job_status:job_1)
    channel   job_progress:job_1:u (heard at all times by job_progress:*, last state in job_status:job_1:u)
    channel   task_progress:job_1 (heard at all times by task_progress:*, last state in task_status:job_1)
    channel   task_progress:job_1:u (heard at all times by task_progress:*, last state in task_status:job_1:u)
    channel   video_render:job_1 (heard at all times by video_render:*)
    channel   video_render:job_1:u (heard at all times by video_render:*)
    ends      when status is "completed"
    ends      when progress is at least 1 and stage is "complete" on video_render:*
    ends      when status is "failed" on task_progress:*, unless taken back within 1m
    ends      when status is "failed"
    "#);
    let refused = [
        ("/api/nothing", "no stream answers /api/nothing"),
        ("/stream/alerts", "no stream answers /stream/alerts"),
        ("/api/stream", "stream any: Missing required parameter: channel"),
    ];
    for (url, error) in refused {
        let (status, _, stderr) = run(&mut sluice(&["check", "--explain", url])).await;
        assert_eq!((status, stderr), (64, format!("sluice: {error}\n")));
    }
}

#[tokio::test]
async fn publish_hands_an_event_to_a_running_gateway() {
    let gateway =
        TestGateway::start_with(|settings| settings.publish.api_key = "s3cret".to_owned()).await;
    let mut events = gateway.open("/api/stream?channel=alerts:u&envelope=false").await;
    let url = gateway.url("");
    let publish = |json| sluice(&["publish", "alerts:u", json, "--url", &url]);

    let mut with_key = publish(r#"{"n":1}"#);
    let (status, stdout, stderr) = run(with_key.env("SLUICE__PUBLISH__API_KEY", "s3cret")).await;
    assert_eq!(
        (status, stdout.as_str(), stderr.as_str()),
        (0, "{\"accepted\":1,\"streams\":1,\"subscribers\":1}\n", "")
    );
    assert_eq!(events.data().await, json!({"n": 1}));

    for (json, key, reason) in [("{}", "wrong", "API key"), ("{", "s3cret", "JSON")] {
        let mut refused = publish(json);
        let (status, stdout, stderr) = run(refused.env("SLUICE__PUBLISH__API_KEY", key)).await;
        assert_ne!(status, 0);
        assert_eq!(stdout, "");
        assert!(stderr.contains(reason) && !stderr.contains("s3cret"), "{stderr}");
    }
}

#[tokio::test]
async fn publish_speaks_tls_to_a_gateway_that_does() {
    let certificate = Certificate::new();
    let mut gateway = TestGateway::start_with(|settings| certificate.put_into(settings)).await;
    gateway.asked_with(certificate.client());
    let mut events = gateway.open("/api/stream?channel=a&envelope=false").await;
    let trusting = |arguments: &[&str]| {
        let mut command = sluice(arguments);
        command.env("SSL_CERT_FILE", certificate.path("authority.pem"));
        command
    };
    let (status, _, stderr) =
        run(&mut trusting(&["publish", "a", "1", "--url", &gateway.url("")])).await;
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(events.data().await, json!(1));

    // Without a URL, as the settings say.
    let mut publish = trusting(&["publish", "a", "2"]);
    publish
        .env("SLUICE__SERVER__BIND", gateway.address())
        .env("SLUICE__SERVER__TLS_CERT", certificate.path("cert.pem"))
        .env("SLUICE__SERVER__TLS_KEY", certificate.path("key.pem"));
    let (status, _, stderr) = run(&mut publish).await;
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(events.data().await, json!(2));
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_64() {
    let certificate = Certificate::new();
    let mut serve = sluice(&["serve"]);
    serve
        .env("SLUICE__SERVER__BIND", "127.0.0.1:0")
        .env("SLUICE__SERVER__TLS_CERT", certificate.path("cert.pem"));
    let (status, _, stderr) = run(&mut serve).await;
    assert_eq!((status, &*stderr), (64, "sluice: server.tls_key: needed beside server.tls_cert\n"));
    let (status, _, stderr) =
        run(serve.env("SLUICE__SERVER__TLS_KEY", certificate.path("authority.pem"))).await;
    assert_eq!((status, &*stderr), (64, "sluice: server.tls_key: there is none in the file\n"));
}

#[tokio::test]
async fn publish_to_nobody_says_who_was_not_there_and_why() {
    // Bound and closed again: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = sluice(&["publish", "alerts", "{}"]);
    let (status, _, stderr) = run(command.env("SLUICE__SERVER__BIND", address.to_string())).await;
    assert_eq!(status, 70);
    assert!(stderr.contains(&address.to_string()), "{stderr}");
    assert!(stderr.contains("refused"), "{stderr}");
}

#[tokio::test]
async fn secrets_stay_out_of_errors() {
    // A file that cannot be read is quoted by the reader; its line may be the password's.
    for config in [
        "[redis]\npassword = \"hunter2\n",
        "[redis]\nurl = redis://user:hunter2@host\n",
        "[redis]\nurl = \"http://user:hunter2@host\"\n",
        "[publish]\napi_key = [\"hunter2\"]\n",
        "[publish]\napikey = \"hunter2\"\n",
    ] {
        let (status, _, stderr) = check(config).await;
        assert_eq!(status, 64);
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
    // A name cut short puts the secret where a section stands.
    for name in ["SLUICE__REDIS", "SLUICE__PUBLISH"] {
        let mut command = sluice(&["check"]);
        let (status, _, stderr) = run(command.env(name, "redis://user:hunter2@host")).await;
        assert_eq!(status, 64);
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}
