//! What a publisher said: JSON on one line, checked once.

use std::sync::Arc;

use serde::Serialize;
use serde::de::IgnoredAny;

use super::Fields;

/// A JSON text without line breaks. Cheap to clone; never changed on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(Arc<str>);

/// Why bytes are no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// More bytes than the settings allow.
    #[error("the payload is larger than the limit")]
    TooLarge,
    /// Not UTF-8.
    #[error("the payload is not UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("the payload is not JSON")]
    NotJson,
}

impl Payload {
    /// Checks that `bytes` are one JSON value of at most `limit` bytes, and takes them.
    ///
    /// A raw CR or LF in valid JSON stands between tokens only (RFC 8259, section 7), so turning
    /// it into a space changes no value and keeps the payload on one line.
    ///
    /// # Errors
    /// When the bytes are too many, not UTF-8 or not JSON.
    pub fn parse(bytes: &[u8], limit: usize) -> Result<Self, PayloadError> {
        if bytes.len() > limit {
            return Err(PayloadError::TooLarge);
        }
        let text = str::from_utf8(bytes).map_err(|_| PayloadError::NotUtf8)?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| PayloadError::NotJson)?;
        let text = text.trim();
        if text.contains(['\r', '\n']) {
            return Ok(Self(text.replace(['\r', '\n'], " ").into()));
        }
        Ok(Self(text.into()))
    }

    /// The JSON of `value`. `None` when it has none, such as a map whose keys are no texts.
    pub fn of(value: &impl Serialize) -> Option<Self> {
        serde_json::to_string(value).ok().map(|json| Self(json.into()))
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The fields, if the payload is an object.
    pub fn fields(&self) -> Option<Fields<'_>> {
        serde_json::from_str(&self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_line_whatever_stands_between_tokens() {
        let payload = Payload::parse(b"{\r\n \"a\":\n\"x\\r\\n\"}\n", 100).unwrap();
        assert_eq!(payload.as_str(), r#"{   "a": "x\r\n"}"#);
    }

    #[test]
    fn refuses_what_is_not_json() {
        assert_eq!(Payload::parse(b"{", 9), Err(PayloadError::NotJson));
        assert_eq!(Payload::parse(b"", 9), Err(PayloadError::NotJson));
        assert_eq!(Payload::parse(b"1 2", 9), Err(PayloadError::NotJson));
        assert_eq!(Payload::parse(b"\"\0\"", 9), Err(PayloadError::NotJson));
        assert_eq!(Payload::parse(b"\"\xff\"", 9), Err(PayloadError::NotUtf8));
        assert_eq!(Payload::parse(b"\"1234567890\"", 9), Err(PayloadError::TooLarge));
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "\\PC*|[\\r\\n\\x00\u{2028} ]*") {
            let json = serde_json::to_string(&text).unwrap();
            let payload = Payload::parse(json.as_bytes(), usize::MAX).unwrap();
            prop_assert!(!payload.as_str().contains(['\r', '\n']));
            prop_assert_eq!(serde_json::from_str::<String>(payload.as_str()).unwrap(), text);
        }
    }
}
