//! What members of a council ask in the tests instead of providers: two servers nobody here wrote
//! (`aimock` answers as told, `llmock` breaks on demand and judges its client), a real model, very
//! small, and upstreams of our own: one says any bytes, one never stops talking. `tests/models` installs
//! the first three.

mod aimock;
pub(crate) mod chat;
mod llmock;
mod replay;
mod smol;
mod talker;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) use aimock::Aimock;
pub(crate) use llmock::Llmock;
pub(crate) use replay::{Piece, Replay, Script};
use reqwest::Response;
use serde_json::Value;
pub(crate) use smol::Smol;
pub(crate) use talker::Talker;

use super::{Protocol, within};

/// Where `tests/models` has installed it all.
fn installed(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../models").join(path);
    assert!(path.exists(), "{} is missing: tests/models installs it", path.display());
    path
}

/// A server in a process group of its own, which ends with this.
struct Server {
    child: Child,
    base: String,
}

impl Server {
    /// Starts `command`, told a free port by `arguments`, and waits until it answers at `ready`.
    async fn start(mut command: Command, arguments: &[&str], ready: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        command.args(arguments).arg(port.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = command.spawn().unwrap();
        let mut server = Self { child, base: format!("http://127.0.0.1:{port}") };
        within("a server of models", async {
            while !server.answers(ready).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        server
    }

    async fn answers(&mut self, path: &str) -> bool {
        assert!(self.child.try_wait().unwrap().is_none(), "a server of models ended");
        let answer = Protocol::Http11.request("GET", &self.url(path)).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Asks the server's own interface, which answers in JSON.
    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let request = Protocol::Http11.request(method, &self.url(path));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = within(path, request.send()).await.and_then(Response::error_for_status);
        within(path, answer.unwrap().json()).await.unwrap()
    }
}

impl Drop for Server {
    /// Ends the server with all the processes it has started.
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
        drop((killed, self.child.wait()));
    }
}
