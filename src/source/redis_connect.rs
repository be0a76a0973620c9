//! A connection to Redis: the way there, who we are, and who answers.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, Value,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::redis_tls::RedisTlsError;
use super::{RedisSettings, SourceError};

/// How to reach Redis. Every connection is made here.
pub(super) struct Connector {
    way: Way,
    info: RedisConnectionInfo,
    password_file: PathBuf,
    /// The connections' name in `CLIENT LIST`.
    name: String,
    timeout: Duration,
}

enum Way {
    Tcp { host: String, port: u16, tls: Option<(TlsConnector, ServerName<'static>)> },
    Unix(PathBuf),
}

/// Why the settings do not lead to Redis.
#[derive(Debug, thiserror::Error)]
pub enum RedisSettingsError {
    /// The URL cannot be read. It may hold a password: it is not repeated.
    #[error("redis.url: {0}")]
    Url(String),
    /// The files of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] RedisTlsError),
}

/// What works on a connection, and has to run for as long as it is used.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) version: String,
    pub(super) role: String,
    /// `standalone`, `cluster` or `sentinel`.
    pub(super) mode: String,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Connector {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RedisSettingsError> {
        let wrong = |error: RedisError| {
            RedisSettingsError::Url(error.detail().unwrap_or_else(|| error.category()).to_owned())
        };
        let info = settings.url.as_str().into_connection_info().map_err(wrong)?;
        let mut redis = info.redis_settings().clone();
        redis = redis.set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        if let Some(username) = &settings.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &settings.password {
            redis = redis.set_password(password);
        }
        let way = match info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                Way::Tcp { host: host.clone(), port: *port, tls: None }
            }
            ConnectionAddr::TcpTls { host, port, .. } => {
                let tls = TlsConnector::from(Arc::new(settings.tls.config()?));
                let name = settings.tls.server_name(host)?;
                Way::Tcp { host: host.clone(), port: *port, tls: Some((tls, name)) }
            }
            ConnectionAddr::Unix(path) => Way::Unix(path.clone()),
            _ => return Err(RedisSettingsError::Url("this scheme is not supported".to_owned())),
        };
        Ok(Self {
            way,
            info: redis,
            password_file: settings.password_file.clone(),
            name: client_name(),
            timeout: settings.timeout,
        })
    }

    /// The user, as Redis names the one who says no name.
    pub(super) fn user(&self) -> &str {
        self.info.username().unwrap_or("default")
    }

    /// The database that keys are read from.
    pub(super) fn database(&self) -> i64 {
        self.info.db()
    }

    /// Connects, and finds out who answers.
    ///
    /// # Errors
    /// When nobody does, in time, or whoever does is not the one that is written to.
    pub(super) async fn connect(
        &self,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, Driver, Server), SourceError> {
        let connecting = async {
            // Read each time, so that a password that is changed heals by itself.
            let info = self.info_with_password().await?;
            let config = config.set_response_timeout(Some(self.timeout));
            let stream = self.stream().await?;
            let (mut connection, driver) =
                MultiplexedConnection::new_with_config(&info, stream, config)
                    .await
                    .map_err(|error| self.explain(error))?;
            let mut driver: Driver = Box::pin(driver);
            let server = tokio::select! {
                () = &mut driver => Err(SourceError::Disconnected),
                server = self.master(&mut connection) => server,
            }?;
            Ok((connection, driver, server))
        };
        let is_tls = matches!(self.way, Way::Tcp { tls: Some(_), .. });
        let silent = if is_tls { SourceError::SilentTls } else { SourceError::Silent };
        timeout(self.timeout, connecting).await.unwrap_or(Err(silent))
    }

    /// Who answers on `connection`.
    ///
    /// # Errors
    /// When it is not a master: what is published to a replica reaches nobody else, and what is
    /// published elsewhere may not reach it.
    pub(super) async fn master(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Server, SourceError> {
        let mut hello = redis::cmd("HELLO");
        hello.arg(3).arg("SETNAME").arg(&self.name);
        let answer = hello.query_async(connection).await;
        let server = Server::read(answer.map_err(|error| self.explain(error))?);
        if server.role == "master" {
            return Ok(server);
        }
        Err(SourceError::NoMaster(server.role))
    }

    /// What an error means to the people who set up the gateway.
    fn explain(&self, error: RedisError) -> SourceError {
        let text = error.to_string().to_ascii_lowercase();
        match error.code() {
            Some("NOAUTH") => SourceError::NoPassword,
            Some("WRONGPASS") => SourceError::WrongPassword(self.user().to_owned()),
            _ if error.kind() == ErrorKind::Parse || text.contains("incompatible type") => {
                SourceError::NoRedis
            }
            // What an old Redis says to `HELLO`.
            _ if text.contains("unknown command") || text.contains("noproto") => {
                SourceError::NoResp3
            }
            _ => SourceError::Redis(error),
        }
    }

    async fn info_with_password(&self) -> Result<RedisConnectionInfo, SourceError> {
        let info = self.info.clone();
        if self.password_file.as_os_str().is_empty() {
            return Ok(info);
        }
        let read = tokio::fs::read_to_string(&self.password_file).await;
        let password = read.map_err(|error| SourceError::PasswordFile(error.to_string()))?;
        Ok(info.set_password(password.trim_end_matches(['\r', '\n'])))
    }

    async fn stream(&self) -> Result<Box<dyn Stream>, SourceError> {
        let (host, port, tls) = match &self.way {
            Way::Unix(path) => {
                return Ok(Box::new(
                    UnixStream::connect(path).await.map_err(SourceError::Connect)?,
                ));
            }
            Way::Tcp { host, port, tls } => (host.as_str(), *port, tls),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await.map_err(SourceError::Connect)?;
        stream.set_nodelay(true).map_err(SourceError::Connect)?;
        match tls {
            None => Ok(Box::new(stream)),
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await;
                Ok(Box::new(stream.map_err(SourceError::Connect)?))
            }
        }
    }
}

impl fmt::Display for Connector {
    /// Where Redis is, without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::Tcp { host, port, tls } => {
                let scheme = if tls.is_some() { "rediss" } else { "redis" };
                if host.contains(':') && !host.starts_with('[') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
            Way::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Server {
    fn read(hello: Value) -> Self {
        let fields = match hello {
            Value::Map(fields) => fields,
            _ => Vec::new(),
        };
        let field = |wanted: &str| {
            let named = fields.iter().find(|(name, _)| text(name).as_deref() == Some(wanted));
            named.and_then(|(_, value)| text(value)).unwrap_or_else(|| "unknown".to_owned())
        };
        Self { version: field("version"), role: field("role"), mode: field("mode") }
    }
}

fn text(value: &Value) -> Option<String> {
    redis::from_redis_value_ref(value).ok()
}

/// An error as Redis writes it, with its code.
pub(super) fn in_words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

/// `sluice:HOST:PROCESS`: what an operator who looks at `CLIENT LIST` wants to know.
fn client_name() -> String {
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    let plain = |c: &char| c.is_ascii_graphic();
    let host: String = host.trim().chars().filter(plain).take(64).collect();
    format!("sluice:{}:{}", if host.is_empty() { "unknown" } else { &host }, std::process::id())
}

/// Whether an error says that the connection cannot be used, or not for what it is for, until it is
/// made anew. All else is the refusal of one command.
pub(super) fn is_of_connection(error: &RedisError) -> bool {
    const STATES: [&str; 5] = ["READONLY", "MISCONF", "MASTERDOWN", "LOADING", "NOAUTH"];
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.code().is_some_and(|code| STATES.contains(&code))
}
