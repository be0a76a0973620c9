//! What a client asks for: the parameters of its URL, and what can be wrong with them.

use crate::event::ChannelError;

/// Names and values, in the order they were given.
pub type Pairs = Vec<(String, String)>;

/// The parameters of a request: those of the path, then those of the query.
#[derive(Debug, Clone, Default)]
pub struct Params(Pairs);

/// Why a stream cannot be had. Clients are told the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Parameters are missing.
    #[error("Missing required parameter{}: {}", if .0.len() == 1 { "" } else { "s" }, .0.join(", "))]
    Missing(Vec<String>),
    /// A parameter has a value that makes no sense.
    #[error("Invalid parameter {name}: {message}")]
    Invalid {
        /// Which.
        name: String,
        /// Why.
        message: String,
    },
    /// A channel may not be asked for.
    #[error("Channel not allowed: {0}")]
    NotAllowed(String),
    /// A pattern has a `*` that is not its end.
    #[error("A pattern has one *, at its end: {0}")]
    NotPrefix(String),
    /// A pattern is not among those the source listens to.
    #[error("Pattern not available: {0}")]
    NotHeard(String),
    /// More channels than one client may ask for.
    #[error("Too many channels")]
    TooMany,
}

impl Params {
    /// Those of the path and those of the query.
    pub fn new(path: Pairs, query: Pairs) -> Self {
        Self(path.into_iter().chain(query).collect())
    }

    /// The first value of `name` that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// With `value` as the value of `name`, whatever it had.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All but those of `name`.
    pub fn except<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a (String, String)> {
        self.0.iter().filter(move |(known, _)| known != name)
    }
}

impl RequestError {
    pub(super) fn channel(name: &str, error: ChannelError) -> Self {
        Self::Invalid { name: format!("{name:?}"), message: error.to_string() }
    }

    /// A parameter has a value that makes no sense.
    pub fn invalid(name: &str, message: impl std::fmt::Display) -> Self {
        Self::Invalid { name: name.to_owned(), message: message.to_string() }
    }
}
