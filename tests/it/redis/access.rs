//! Getting in: passwords, ACL users, databases, TLS.

use serde_json::json;

use crate::support::{Redis, TestGateway};

#[tokio::test]
async fn password_user_and_database_are_used() {
    let redis = Redis::start_with(&["--requirepass", "se:cret"]).await;
    redis.cli(&[
        "-a",
        "se:cret",
        "ACL",
        "SETUSER",
        "sluice",
        "on",
        ">p@ss",
        "allchannels",
        "allkeys",
        "+@all",
    ]);
    redis.cli(&[
        "-a",
        "se:cret",
        "-n",
        "3",
        "SET",
        "job_status:j",
        r#"{"status":"processing","n":3}"#,
    ]);
    let address = format!("127.0.0.1:{}", redis.port);
    let in_url =
        TestGateway::start_with(|s| s.redis.url = format!("redis://:se%3Acret@{address}/3")).await;
    let apart = TestGateway::start_with(|s| {
        s.redis.url = format!("redis://{address}/3");
        s.redis.username = "sluice".to_owned();
        s.redis.password = "p@ss".to_owned();
    })
    .await;
    for gateway in [in_url, apart] {
        gateway.ready().await;
        assert_eq!(gateway.open("/api/stream/jobs/j").await.data().await["n"], 3);
    }
    let wrong =
        TestGateway::start_with(|s| s.redis.url = format!("redis://:wrong@{address}")).await;
    assert_eq!(wrong.get("/readyz").send().await.unwrap().status(), 503);
}

#[tokio::test]
async fn tls_with_a_certificate_authority_of_ones_own() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
        .unwrap();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let tls_port = Redis::free_port();
    let (cert, key, port) = (path("cert.pem"), path("key.pem"), tls_port.to_string());
    let arguments = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ];
    let _redis = Redis::start_with(&arguments).await;
    let url = format!("rediss://127.0.0.1:{tls_port}");
    let trusting = TestGateway::start_with(|settings| {
        settings.redis.url.clone_from(&url);
        settings.redis.ca_file = cert.clone().into();
    })
    .await;
    trusting.ready().await;
    let mut client = trusting.open("/api/stream?channel=alerts&envelope=false").await;
    trusting.publish("alerts", &json!({"n": 1})).await;
    assert_eq!(client.data().await, json!({"n": 1}));
    let wary = TestGateway::start_with(|settings| settings.redis.url.clone_from(&url)).await;
    assert_eq!(wary.get("/readyz").send().await.unwrap().status(), 503);
}

#[tokio::test]
async fn what_redis_refuses_costs_nobody_else_anything() {
    let redis = Redis::start().await;
    let rights = ["resetchannels", "&alerts*", "&allowed", "&sluice:*", "+@all", "~nothing:*"];
    redis.cli(&[&["ACL", "SETUSER", "sluice", "on", ">p"][..], &rights].concat());
    let gateway = TestGateway::start_with(|settings| {
        settings.redis.url = format!("redis://sluice:p@127.0.0.1:{}", redis.port);
        settings.redis.patterns = vec!["alerts*".to_owned(), "alerts*".to_owned()];
    })
    .await;
    gateway.ready().await;
    let _secret = gateway.open("/api/stream?channel=secret").await;
    // Its state stands in a key that the user may not read.
    let _job = gateway.open("/api/stream/jobs/j").await;
    let path = "/api/stream?channel=allowed&channel=alerts&envelope=false&snapshot=false";
    let mut allowed = gateway.open(path).await;
    for channel in ["allowed", "alerts"] {
        gateway.publish(channel, &json!({"channel": channel})).await;
        assert_eq!(allowed.data().await["channel"], channel);
    }
    assert_eq!(gateway.metric("sluice_source_reconnects_total{source=\"redis\"}").await, 0.0);
}
