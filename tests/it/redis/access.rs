//! Getting in: passwords, ACL users, databases, TLS.

use std::path::PathBuf;

use serde_json::json;
use sluice::settings::RedisSection;
use tempfile::TempDir;

use crate::support::{Redis, TestGateway, wait_for};

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

/// A Redis that speaks TLS on a port, with its certificate for `names` as files.
struct OverTls {
    _redis: Redis,
    files: TempDir,
    url: String,
}

impl OverTls {
    async fn start(names: &[&str], asks_clients: bool) -> Self {
        let files = tempfile::tempdir().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        for (name, names) in [("server", names), ("client", vec!["gateway".to_owned()])] {
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            std::fs::write(files.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
            let key = made.signing_key.serialize_pem();
            std::fs::write(files.path().join(format!("{name}.key")), key).unwrap();
        }
        let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
        let port = Redis::free_port().to_string();
        let asks = if asks_clients { "yes" } else { "no" };
        let redis = Redis::start_with(
            &[
                ["--tls-port", &port],
                ["--tls-cert-file", &path("server.pem")],
                ["--tls-key-file", &path("server.key")],
                ["--tls-ca-cert-file", &path("client.pem")],
                ["--tls-auth-clients", asks],
            ]
            .concat(),
        )
        .await;
        Self { _redis: redis, files, url: format!("rediss://127.0.0.1:{port}") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A gateway that trusts the certificate.
    async fn gateway(&self, change: impl FnOnce(&mut RedisSection)) -> TestGateway {
        TestGateway::start_with(|settings| {
            settings.redis.url.clone_from(&self.url);
            settings.redis.ca_file = self.path("server.pem");
            change(&mut settings.redis);
        })
        .await
    }
}

/// Why a gateway does not reach its Redis.
async fn fault(gateway: &TestGateway) -> String {
    let mut fault = String::new();
    wait_for("a fault", async || {
        let health = gateway.json("/health").await;
        health["checks"][0]["reason"].as_str().unwrap_or_default().clone_into(&mut fault);
        !fault.is_empty() && fault != "not connected yet"
    })
    .await;
    fault
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_for_itself() {
    let redis = OverTls::start(&["127.0.0.1"], false).await;
    let trusting = redis.gateway(|_| {}).await;
    trusting.ready().await;
    trusting.publishes().await;
    let mut client = trusting.open("/api/stream?channel=alerts&envelope=false").await;
    trusting.publish("alerts", &json!({"n": 1})).await;
    assert_eq!(client.data().await, json!({"n": 1}));
    let wary = redis.gateway(|redis| redis.ca_file = PathBuf::new()).await;
    assert!(fault(&wary).await.contains("certificate"));
    // Another one that is trusted for itself is not this one.
    let mistaken = redis.gateway(|section| section.ca_file = redis.path("client.pem")).await;
    assert!(fault(&mistaken).await.contains("certificate"));
    for gateway in [&wary, &mistaken] {
        assert_eq!(gateway.get("/readyz").send().await.unwrap().status(), 503);
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_needs_that_name() {
    let redis = OverTls::start(&["redis.internal"], false).await;
    let by_host = redis.gateway(|_| {}).await;
    assert!(fault(&by_host).await.contains("certificate"));
    let by_name = redis.gateway(|section| section.server_name = "redis.internal".to_owned()).await;
    by_name.ready().await;
    let wrong = redis.gateway(|section| section.server_name = "redis.example".to_owned()).await;
    assert!(fault(&wrong).await.contains("certificate"));
}

#[tokio::test]
async fn a_redis_that_asks_for_our_certificate_gets_it() {
    let redis = OverTls::start(&["127.0.0.1"], true).await;
    let known = redis
        .gateway(|section| {
            section.client_cert = redis.path("client.pem");
            section.client_key = redis.path("client.key");
        })
        .await;
    known.ready().await;
    known.publishes().await;
    let unknown = redis.gateway(|_| {}).await;
    fault(&unknown).await;
    assert_eq!(unknown.get("/readyz").send().await.unwrap().status(), 503);
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
