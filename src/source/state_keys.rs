//! Which key holds the last state of which channel.

use crate::event::{Channel, ChannelPattern};

/// Pairs of a pattern of channels and a key, in which a `*` stands for what the pattern's stands
/// for.
#[derive(Debug, Clone, Default)]
pub struct StateKeys(Vec<(ChannelPattern, String)>);

impl StateKeys {
    /// Takes the pairs of the settings; what is not a pattern is left out.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let pairs = pairs.into_iter();
        let read = |(pattern, key): (&String, &String)| {
            Some((ChannelPattern::new(pattern).ok()?, key.clone()))
        };
        Self(pairs.filter_map(read).collect())
    }

    /// The key that holds the state of `channel`.
    pub fn key(&self, channel: &Channel) -> Option<String> {
        let (pattern, key) = self.0.iter().find(|(pattern, _)| pattern.matches(channel))?;
        let name = channel.as_str();
        let (before, after) = pattern.as_str().split_once('*').unwrap_or((name, ""));
        let middle = name.strip_prefix(before)?.strip_suffix(after)?;
        Some(key.replacen('*', middle, 1))
    }

    /// The keys, as the settings write them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, key)| key.as_str())
    }

    /// Whether no channel has a key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_star_stands_for_the_same() {
        let pairs =
            [("job:*".to_owned(), "status:*".to_owned()), ("all".to_owned(), "every".to_owned())];
        let keys = StateKeys::new(pairs.iter().map(|(pattern, key)| (pattern, key)));
        let key = |name: &str| keys.key(&Channel::new(name).unwrap());
        assert_eq!(key("job:7:a").as_deref(), Some("status:7:a"));
        assert_eq!(key("all").as_deref(), Some("every"));
        assert_eq!(key("other"), None);
    }
}
