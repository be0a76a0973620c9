//! The gateway with a certificate of its own: what clients get over TLS, and what becomes of those who
//! do not get that far.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{ClientBuilder, Version};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use sluice::gateway::Gateway;
use sluice::settings::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::support::{Certificate, TestGateway, wait_for, within};

/// A gateway with a certificate, asked by a client that trusts it.
async fn start(
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
    change: impl FnOnce(&mut Settings),
) -> (TestGateway, Certificate) {
    let certificate = Certificate::new();
    let mut gateway = TestGateway::start_with(|settings| {
        certificate.put_into(settings);
        change(settings);
    })
    .await;
    gateway.asked_with(client(certificate.client()));
    (gateway, certificate)
}

/// Reads until the gateway ends the connection; a reset ends it as well.
async fn is_ended(mut stream: impl AsyncReadExt + Unpin) {
    let mut rest = Vec::new();
    within("the connection's end", stream.read_to_end(&mut rest)).await.unwrap_or_default();
}

#[tokio::test]
async fn a_stream_has_its_order_and_its_end_over_either_http() {
    let http1 = |client: ClientBuilder| client.http1_only();
    let negotiated = |client| client;
    for (client, version) in [
        (&http1 as &dyn Fn(ClientBuilder) -> ClientBuilder, Version::HTTP_11),
        (&negotiated, Version::HTTP_2),
    ] {
        let (gateway, _certificate) = start(client, |_| {}).await;
        assert_eq!(gateway.get("/livez").send().await.unwrap().version(), version);
        let path = "/api/stream/jobs/j";
        let mut job = gateway.open(path).await;
        for n in 1..=50 {
            let status = if n < 50 { "processing" } else { "completed" };
            gateway.publish("job_progress:j", &json!({"status": status, "n": n})).await;
        }
        for n in 1..=50 {
            assert_eq!(job.data().await["n"], n, "{version:?}");
        }
        let end = job.event().await;
        assert_eq!(end.name, "complete", "{version:?}");
        assert!(job.next().await.is_none(), "{version:?}");
        let back = gateway.get(path).header("last-event-id", end.id).send().await.unwrap();
        assert_eq!(back.status(), 204, "{version:?}");
    }
}

#[tokio::test]
async fn one_connection_carries_many_streams() {
    let (gateway, _certificate) = start(|client| client, |_| {}).await;
    let mut streams = Vec::new();
    for n in 0..20 {
        streams.push(gateway.open(&format!("/api/stream?channel=a:{n}&envelope=false")).await);
    }
    assert_eq!(gateway.metric("sluice_connections").await, 1.0);
    for (n, stream) in streams.iter_mut().enumerate() {
        gateway.publish(&format!("a:{n}"), &json!(n)).await;
        assert_eq!(stream.data().await, json!(n));
    }
}

#[tokio::test]
async fn a_drain_tells_everybody() {
    let (mut gateway, certificate) =
        start(|client| client, |settings| settings.server.drain = Duration::from_millis(200)).await;
    // Nobody waits for one that has not said anything.
    let silent = TcpStream::connect(gateway.address()).await.unwrap();
    let mut streams = vec![gateway.open("/api/stream/alerts").await];
    wait_for("both", async || gateway.metric("sluice_connections").await == 2.0).await;
    gateway.asked_with(certificate.client().http1_only());
    streams.push(gateway.open("/api/stream/alerts").await);
    let drained = gateway.drain();
    let told = async {
        for stream in streams {
            let said = stream.rest().await;
            let kinds: Vec<_> = said.iter().map(|message| &message.data["type"]).collect();
            assert_eq!(kinds, ["server_shutdown"]);
        }
    };
    let (drained, ()) = tokio::join!(within("drain", drained), told);
    assert!(drained, "everybody has left");
    is_ended(silent).await;
}

/// They are taken in, and each waits by itself.
#[tokio::test]
async fn handshakes_that_hang_hold_nobody_up() {
    let change = |settings: &mut Settings| settings.server.header_timeout = Duration::MAX / 4;
    let (gateway, _certificate) = start(|client| client, change).await;
    let mut hanging = Vec::new();
    for _ in 0..10 {
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        // The head of a handshake, and no more of it.
        socket.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
        hanging.push(socket);
    }
    let mut stream = gateway.open("/api/stream?channel=a&envelope=false").await;
    gateway.publish("a", &json!("well")).await;
    assert_eq!(stream.data().await, json!("well"));
    assert_eq!(gateway.metric("sluice_connections").await, 11.0);
}

#[tokio::test]
async fn whoever_does_not_get_to_http_is_dropped_in_time_and_gives_its_place_back() {
    let (mut gateway, certificate) = start(
        |client| client,
        |settings| {
            settings.server.header_timeout = Duration::from_secs(2);
            settings.server.max_connections = 5;
        },
    )
    .await;
    let mut witness = gateway.open("/api/stream?channel=a&envelope=false").await;
    let connect = async || TcpStream::connect(gateway.address()).await.unwrap();

    let silent = connect().await;
    let mut plain = connect().await;
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut half = connect().await;
    half.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    let shaken = encrypted(&certificate, connect().await).await;
    tokio::join!(is_ended(silent), is_ended(plain), is_ended(half), is_ended(shaken));
    let stranger = reqwest::get(gateway.url("/livez")).await;
    assert!(stranger.is_err(), "the system does not trust this authority");

    wait_for("their places", async || gateway.metric("sluice_connections").await == 1.0).await;
    gateway.publish("a", &json!("well")).await;
    assert_eq!(witness.data().await, json!("well"));
    drop(witness);
    assert!(within("drain", gateway.drain()).await);
}

/// A connection whose client has shaken hands and says nothing.
async fn encrypted(certificate: &Certificate, socket: TcpStream) -> impl AsyncReadExt + Unpin {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate.path("authority.pem")).unwrap()).unwrap();
    let config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, socket);
    within("handshake", handshake).await.unwrap()
}

#[tokio::test]
async fn files_that_cannot_be_used_are_faults_of_their_keys() {
    let (ours, other) = (Certificate::new(), Certificate::new());
    let (cert, key) = (ours.path("cert.pem"), ours.path("key.pem"));
    let broken = ours.path("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nhunter2\n").unwrap();
    let folder = ours.path("");
    let mut said = Vec::new();
    for (cert, key) in [
        (&cert, &cert),
        (&key, &key),
        (&broken, &key),
        (&cert, &broken),
        (&cert, &folder),
        (&cert, &other.path("key.pem")),
    ] {
        let mut settings = Settings::load(None, []).unwrap();
        settings.server.tls_cert.clone_from(cert);
        settings.server.tls_key.clone_from(key);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = Gateway::start(settings, listener, axum::Router::new()).unwrap_err();
        said.push(refused.to_string());
    }
    insta::assert_snapshot!(said.join("\n"), @"
    server.tls_key: there is none in the file
    server.tls_cert: there is none in the file
    server.tls_cert: the file is not in the format PEM
    server.tls_key: the file is not in the format PEM
    server.tls_key: Is a directory (os error 21)
    server.tls_key: it does not belong to the certificate
    ");
}
