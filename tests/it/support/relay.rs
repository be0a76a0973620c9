//! What stands between a gateway and its Redis, and can be told to hold back what is sent.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A relay of connections to one port.
pub(crate) struct Relay {
    pub(crate) port: u16,
    holds: watch::Sender<bool>,
}

impl Relay {
    /// One that holds nothing back yet.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let holds = watch::Sender::new(false);
        let held = holds.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                let subscribes = watch::Sender::new(false);
                tokio::spawn(down(from_server, to_client, subscribes.subscribe(), held.clone()));
                tokio::spawn(up(from_client, to_server, subscribes));
            }
        });
        Self { port: own, holds }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Whether what Redis sends to those who have subscribed to something is held back.
    pub(crate) fn hold_subscribers(&self, holds: bool) {
        self.holds.send_replace(holds);
    }
}

/// Passes on what a client says, and notes whether it subscribes.
async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, subscribes: watch::Sender<bool>) {
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if bytes[..count].windows(9).any(|word| word == b"SUBSCRIBE") {
            subscribes.send_replace(true);
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Passes on what Redis says, in time.
async fn down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    subscribes: watch::Receiver<bool>,
    mut held: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if *subscribes.borrow() && held.wait_for(|holds| !holds).await.is_err() {
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
