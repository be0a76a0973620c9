//! Names of channels, and what a subscriber may ask for: one channel, or a pattern of them.

use std::fmt;
use std::sync::Arc;

/// The name of one channel, such as `job_progress:42`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// A pattern of channel names, such as `recipe:*`: each `*` stands for any run of characters,
/// none and `:` included. Every other character stands for itself.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelPattern(Arc<str>);

/// What a subscriber listens to.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Filter {
    /// Exactly this channel.
    Exact(Channel),
    /// Every channel that matches.
    Pattern(ChannelPattern),
}

/// Why a text is not the name of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The text is empty.
    #[error("a channel name cannot be empty")]
    Empty,
    /// The text is longer than [`Channel::MAX_BYTES`].
    #[error("a channel name has at most 256 bytes")]
    TooLong,
    /// The text holds white space or a control character.
    #[error("a channel name cannot hold white space or control characters")]
    Character,
    /// The text holds `*`, which only a pattern may.
    #[error("a channel name cannot hold `*`")]
    Wildcard,
}

impl Channel {
    /// The longest name, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 256;

    /// Checks `name` and takes it.
    ///
    /// ```
    /// use sluice::event::Channel;
    /// assert_eq!(Channel::new("job_progress:42").unwrap().as_str(), "job_progress:42");
    /// assert!(Channel::new("job progress").is_err());
    /// ```
    ///
    /// # Errors
    /// When the name is empty, too long, or holds white space, control characters or `*`.
    pub fn new(name: &str) -> Result<Self, ChannelError> {
        check(name)?;
        if name.contains('*') {
            return Err(ChannelError::Wildcard);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the channels begin with on which gateways speak to themselves. Nobody else publishes there or
/// listens.
pub const OWN_CHANNELS: &str = "sluice:probe:";

impl ChannelPattern {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// As [`Channel::new`], except that `*` is allowed.
    pub fn new(text: &str) -> Result<Self, ChannelError> {
        check(text)?;
        // Several stars in a row say no more than one, and cost more.
        let mut text = text.to_owned();
        while text.contains("**") {
            text = text.replace("**", "*");
        }
        Ok(Self(text.into()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What every matching name starts with: all that stands before the first `*`.
    pub fn prefix(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    /// Whether `channel` matches.
    ///
    /// ```
    /// use sluice::event::{Channel, ChannelPattern};
    /// let pattern = ChannelPattern::new("recipe:*").unwrap();
    /// assert!(pattern.matches(&Channel::new("recipe:created").unwrap()));
    /// assert!(!pattern.matches(&Channel::new("blog:created").unwrap()));
    /// ```
    pub fn matches(&self, channel: &Channel) -> bool {
        self.matches_name(channel.as_str())
    }

    /// The same of a text that may be no channel.
    pub fn matches_name(&self, name: &str) -> bool {
        glob(self.0.as_bytes(), name.as_bytes())
    }

    /// Whether every channel of `filter` also matches this pattern.
    ///
    /// A `*` of `filter` is taken as a character: only a `*` of this pattern can stand for it,
    /// and that one then stands for whatever the other stood for.
    pub fn covers(&self, filter: &Filter) -> bool {
        glob(self.0.as_bytes(), filter.as_str().as_bytes())
    }

    /// Whether every channel of `other` also matches this pattern. See [`ChannelPattern::covers`].
    pub fn contains(&self, other: &Self) -> bool {
        glob(self.0.as_bytes(), other.0.as_bytes())
    }

    /// Whether its only `*` is its end.
    pub fn is_prefix(&self) -> bool {
        self.prefix().len() + 1 == self.0.len()
    }
}

impl Filter {
    /// Reads a channel name or, if the text holds a `*`, a pattern.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, ChannelError> {
        if text.contains('*') {
            ChannelPattern::new(text).map(Self::Pattern)
        } else {
            Channel::new(text).map(Self::Exact)
        }
    }

    /// The filter as it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(channel) => channel.as_str(),
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }

    /// The channel, if it is exactly one.
    pub fn exact(&self) -> Option<&Channel> {
        match self {
            Self::Exact(channel) => Some(channel),
            Self::Pattern(_) => None,
        }
    }

    /// The pattern, if it is one.
    pub fn pattern(&self) -> Option<&ChannelPattern> {
        match self {
            Self::Exact(_) => None,
            Self::Pattern(pattern) => Some(pattern),
        }
    }

    /// Whether events of `channel` pass.
    pub fn matches(&self, channel: &Channel) -> bool {
        match self {
            Self::Exact(exact) => exact == channel,
            Self::Pattern(pattern) => pattern.matches(channel),
        }
    }
}

fn check(name: &str) -> Result<(), ChannelError> {
    if name.is_empty() {
        return Err(ChannelError::Empty);
    }
    if name.len() > Channel::MAX_BYTES {
        return Err(ChannelError::TooLong);
    }
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(ChannelError::Character);
    }
    Ok(())
}

/// Matches with one step back per `*`: linear in practice, quadratic at worst, never exponential.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&c| c == b'*'))
}

macro_rules! written_as_text {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }
    )*};
}
written_as_text!(Channel, ChannelPattern, Filter);

impl std::borrow::Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, without regard to cost.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            Some((c, rest)) => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn matches_as_defined(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()),
                naive(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn what_a_pattern_covers_it_matches(wide in "[ab*]{1,5}", narrow in "[ab*]{1,5}", text in "[ab]{1,6}") {
            let (wide, narrow) = (ChannelPattern::new(&wide).unwrap(), ChannelPattern::new(&narrow).unwrap());
            let channel = Channel::new(&text).unwrap();
            if wide.covers(&Filter::Pattern(narrow.clone())) && narrow.matches(&channel) {
                prop_assert!(wide.matches(&channel));
            }
        }
    }

    #[test]
    fn refuses_what_cannot_be_a_name() {
        assert_eq!(Channel::new(""), Err(ChannelError::Empty));
        assert_eq!(Channel::new("a\nb"), Err(ChannelError::Character));
        assert_eq!(Channel::new("a*"), Err(ChannelError::Wildcard));
        assert_eq!(Channel::new(&"x".repeat(257)), Err(ChannelError::TooLong));
    }
}
