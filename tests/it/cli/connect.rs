//! What is said of the Redis that a gateway works with: at the start, and by `check --connect`.

use std::net::SocketAddr;

use super::{Process, run, sluice};
use crate::support::{EventSource, Redis, TestGateway, wait_for};

async fn connect(url: &str) -> (i32, String, String) {
    run(sluice(&["check", "--connect"]).env("SLUICE__REDIS__URL", url)).await
}

#[tokio::test]
async fn a_redis_that_can_be_used_is_named() {
    let redis = Redis::start().await;
    let (status, stdout, stderr) = connect(&redis.url()).await;
    assert_eq!((status, stderr.as_str()), (0, ""));
    let expected = format!("{} as user default: master, version 7.", redis.url());
    assert!(stdout.contains(&expected), "{stdout}");
    assert!(!stdout.contains("note"), "{stdout}");
    // In another database.
    let (status, stdout, _) = connect(&format!("{}/3", redis.url())).await;
    assert_eq!(status, 0);
    assert!(
        stdout.contains("note: stored states are read from database 3; Pub/Sub knows no"),
        "{stdout}"
    );
}

#[tokio::test]
async fn what_is_missing_is_said_in_a_sentence() {
    let redis = Redis::start_with(&["--requirepass", "hunter2"]).await;
    let rights =
        ["resetchannels", "&alerts", "&sluice:*", "+@all", "-evalsha", "-getrange", "allkeys"];
    let user = ["-a", "hunter2", "ACL", "SETUSER", "sluice", "on", ">hunter3"];
    redis.cli(&[&user[..], &rights].concat());
    let at = format!("127.0.0.1:{}", redis.port);
    let (status, stdout, _) = connect(&format!("redis://sluice:hunter3@{at}")).await;
    assert_eq!(status, 0);
    for said in [
        "as user sluice: master",
        "note: the user may not listen to job_progress:*, ",
        ", alerts:*, ",
        "note: the user may not run STRLEN and GETRANGE: each job_status:* is read by itself",
        "note: the user may not publish events with an id (EVALSHA, SCRIPT LOAD): ",
    ] {
        assert!(stdout.contains(said), "{said}: {stdout}");
    }
    assert!(!stdout.contains("listen to alerts,"), "{stdout}");
    // Without these, no gateway connects.
    redis.cli(&["-a", "hunter2", "ACL", "SETUSER", "sluice", "resetchannels", "&alerts*"]);
    let (status, _, stderr) = connect(&format!("redis://sluice:hunter3@{at}")).await;
    assert_eq!(status, 70);
    assert!(
        stderr.contains("the user may not subscribe to sluice:probe:*, and no gateway"),
        "{stderr}"
    );

    let replica = Redis::start().await;
    replica.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let nobody = Redis::stopped(&[]);
    let other = TestGateway::start().await;
    let other: SocketAddr = other.address().parse().unwrap();
    for (url, fault) in [
        (format!("redis://sluice:wrong@{at}"), "WRONGPASS"),
        (format!("redis://{at}"), "asks for a password"),
        (replica.url(), "replica"),
        (nobody.url(), "refused"),
        (format!("redis://127.0.0.1:{}", other.port()), "what answers is not Redis"),
    ] {
        let (status, _, stderr) = connect(&url).await;
        assert_eq!(status, 70, "{stderr}");
        assert!(stderr.contains(fault), "{fault}: {stderr}");
        for secret in ["hunter", "wrong@"] {
            assert!(!stderr.contains(secret), "{stderr}");
        }
    }
}

#[tokio::test]
async fn the_log_names_the_redis_that_answers() {
    let redis = Redis::start_with(&["--requirepass", "hunter2"]).await;
    let url = format!("redis://:hunter2@127.0.0.1:{}", redis.port);
    let process = Process::start(&[], &[("SLUICE__REDIS__URL", &url)]).await;
    wait_for("the line", async || process.log().contains("source connected")).await;
    let log = process.log();
    let line = log.lines().find(|line| line.contains("source connected")).unwrap();
    let expected = format!(
        "address=redis://127.0.0.1:{} user=\"default\" role=\"master\" version=\"7.",
        redis.port
    );
    assert!(line.contains(&expected), "{line}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn a_connection_that_redis_closes_for_being_idle_is_no_fault() {
    let redis = Redis::start().await;
    redis.cli(&["CONFIG", "SET", "timeout", "1"]);
    let url = redis.url();
    let environment = [("SLUICE__REDIS__URL", &*url), ("SLUICE__REDIS__PROBE_INTERVAL", "200ms")];
    let process = Process::start(&[], &environment).await;
    wait_for("the line", async || process.log().contains("publishing connected")).await;
    let connections = || redis.cli(&["CLIENT", "LIST"]).matches("name=sluice:").count();
    for round in 0..2 {
        // Its key is read.
        let path = format!("/api/stream/jobs/{round}");
        let stream = EventSource::open(&process.url(&path)).await;
        wait_for("one more", async || connections() == 3).await;
        wait_for("one less", async || connections() == 2).await;
        drop(stream);
    }
    let log = process.log();
    assert!(!log.contains("WARN"), "{log}");
}
