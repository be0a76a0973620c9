//! A real `redis-server` of the test's own, on a free port.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;

use super::wait_for;

pub(crate) struct Redis {
    pub(crate) port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
    directory: tempfile::TempDir,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more arguments, such as `["--requirepass", "secret"]`.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let mut redis = Self::stopped(arguments);
        redis.run().await;
        redis
    }

    /// A port on which nothing listens yet.
    pub(crate) fn stopped(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self {
            port: Self::free_port(),
            arguments,
            child: None,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts the server, again if it was killed, and waits until it answers.
    pub(crate) async fn run(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "no", "--loglevel", "warning"])
            .args(&self.arguments)
            .arg("--dir")
            .arg(self.directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        let port = self.port;
        wait_for("redis-server", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
    }

    /// Starts the server again on data in which `key` is set, as a replica that takes over.
    pub(crate) async fn run_with_state(&mut self, key: &str, value: &str) {
        let command = format!(
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
            key.len(),
            value.len()
        );
        std::fs::write(self.directory.path().join("state.aof"), command).unwrap();
        self.run_once_with(&["--appendonly", "yes", "--appendfilename", "state.aof"]).await;
    }

    /// Starts the server again on the data it has now, which takes it about two seconds to load:
    /// meanwhile it takes subscriptions and reads nothing.
    pub(crate) async fn run_loading(&mut self) {
        wait_for("data", async || self.cli(&["PING"]) == "PONG").await;
        let mut fill = redis::pipe();
        for n in 0..2000 {
            fill.set(format!("filler:{n}"), "x".repeat(200)).ignore();
        }
        fill.query_async::<()>(&mut self.connection().await).await.unwrap();
        self.cli(&["SAVE"]);
        self.kill();
        let slowly =
            ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "2048"];
        self.run_once_with(&slowly).await;
    }

    async fn run_once_with(&mut self, arguments: &[&str]) {
        let usual = self.arguments.clone();
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self.run().await;
        self.arguments = usual;
    }

    pub(crate) fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    /// Sends the server a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// A connection of the test's own.
    pub(crate) async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// Runs a command; any bytes may be its arguments.
    pub(crate) async fn run_command<T: FromRedisValue>(&self, words: &[&[u8]]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query_async(&mut self.connection().await).await.unwrap()
    }

    /// Ends connections, as an operator does: those of a type such as `pubsub` or `normal`.
    pub(crate) fn end_connections(&self, kind: &str) {
        self.cli(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
    }

    /// Makes saving to disk fail, whereupon Redis takes no writes.
    pub(crate) async fn cannot_save(&self) {
        std::fs::remove_dir_all(self.directory.path()).unwrap();
        self.cli(&["CONFIG", "SET", "save", "3600 1"]);
        self.cli(&["BGSAVE"]);
        wait_for("a failure", async || self.cli(&["SET", "x", "1"]).contains("MISCONF")).await;
    }

    /// Publishes any bytes.
    pub(crate) async fn publish(&self, channel: &str, payload: &[u8]) {
        let mut connection = self.connection().await;
        let publish = redis::cmd("PUBLISH")
            .arg(channel)
            .arg(payload)
            .query_async::<u64>(&mut connection)
            .await;
        assert_eq!(publish.unwrap(), 1, "the gateway listens");
    }

    /// Ends the server at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs `redis-cli`, as a worker's host would, and returns what it prints.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .expect("redis-cli is installed");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
