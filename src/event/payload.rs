//! What a publisher said: JSON on one line, checked once.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde::de::IgnoredAny;

use super::Fields;

/// A JSON text without line breaks. Cheap to clone; never changed on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(Arc<str>);

/// Why bytes are no payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// More bytes than the settings allow.
    #[error("the payload is larger than the limit")]
    TooLarge,
    /// Not UTF-8.
    #[error("the payload is not UTF-8")]
    NotUtf8,
    /// Not JSON: why, and where.
    #[error("the payload is not JSON: {0}")]
    NotJson(String),
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
        serde_json::from_str::<IgnoredAny>(text)
            .map_err(|error| PayloadError::NotJson(error.to_string()))?;
        let text = text.trim();
        if text.contains(['\r', '\n']) {
            return Ok(Self(text.replace(['\r', '\n'], " ").into()));
        }
        Ok(Self(text.into()))
    }

    /// As [`Payload::parse`], [without bare words](without_bare_words). Returned beside the payload:
    /// whether there was one.
    ///
    /// # Errors
    /// As [`Payload::parse`].
    pub fn parse_leniently(bytes: &[u8], limit: usize) -> Result<(Self, bool), PayloadError> {
        match Self::parse(bytes, limit) {
            Err(PayloadError::NotJson(error)) => {
                let repaired = without_bare_words(bytes).ok_or(PayloadError::NotJson(error))?;
                // `null` may be longer than what it stands for.
                Ok((Self::parse(&repaired, usize::MAX)?, true))
            }
            parsed => Ok((parsed?, false)),
        }
    }

    /// The payload if it is an object, or the object that it holds as a text: some workers encode
    /// twice.
    pub fn object(&self) -> Option<Self> {
        if self.is_object() {
            return Some(self.clone());
        }
        let inner: Cow<'_, str> = serde_json::from_str(&self.0).ok()?;
        let (inner, _) = Self::parse_leniently(inner.as_bytes(), usize::MAX).ok()?;
        Some(inner).filter(Self::is_object)
    }

    /// Whether the payload is an object.
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// The JSON of `value`. `None` when it has none, such as a map whose keys are no texts.
    pub fn of(value: &impl Serialize) -> Option<Self> {
        serde_json::to_string(value).ok().map(|json| Self(json.into()))
    }

    /// `null`
    pub fn null() -> Self {
        Self("null".into())
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

/// The bytes with `null` in place of bare words; `None` if there are none.
///
/// Python's `json` writes `NaN`, `Infinity` and `-Infinity`, which JSON does not have. What stands within
/// texts is left alone.
pub fn without_bare_words(bytes: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let mut repaired = Vec::with_capacity(bytes.len());
    let (mut rest, mut found, mut within_text) = (bytes, false, false);
    while let Some((&first, after)) = rest.split_first() {
        let word = WORDS.into_iter().find(|word| !within_text && rest.starts_with(word));
        if let Some(word) = word {
            repaired.extend_from_slice(b"null");
            rest = rest.get(word.len()..)?;
            found = true;
            continue;
        }
        repaired.push(first);
        rest = after;
        within_text ^= first == b'"';
        if within_text
            && first == b'\\'
            && let Some((&escaped, after)) = rest.split_first()
        {
            repaired.push(escaped);
            rest = after;
        }
    }
    found.then_some(repaired)
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
        assert!(matches!(Payload::parse(b"{", 9), Err(PayloadError::NotJson(_))));
        assert!(matches!(Payload::parse(b"", 9), Err(PayloadError::NotJson(_))));
        assert!(matches!(Payload::parse(b"1 2", 9), Err(PayloadError::NotJson(_))));
        assert!(matches!(Payload::parse(b"\"\0\"", 9), Err(PayloadError::NotJson(_))));
        assert_eq!(Payload::parse(b"\"\xff\"", 9), Err(PayloadError::NotUtf8));
        assert_eq!(Payload::parse(b"\"1234567890\"", 9), Err(PayloadError::TooLarge));
    }

    fn leniently(text: &str) -> Option<(String, bool)> {
        let parsed = Payload::parse_leniently(text.as_bytes(), 100).ok();
        parsed.map(|(payload, repaired)| (payload.as_str().to_owned(), repaired))
    }

    #[test]
    fn what_python_writes_for_no_number_becomes_null() {
        let written = r#"{"a":NaN,"b":[-Infinity, Infinity ],"c":"\"NaN","d":1}"#;
        let read = r#"{"a":null,"b":[null, null ],"c":"\"NaN","d":1}"#;
        assert_eq!(leniently(written), Some((read.to_owned(), true)));
        assert_eq!(leniently("NaN"), Some(("null".to_owned(), true)));
        let good = r#"{"NaN":"Infinity"}"#;
        assert_eq!(leniently(good), Some((good.to_owned(), false)));
        for bad in ["{NaN:1}", "nan", "--Infinity", "1NaN", "\"NaN", "{", "{\"a\":NaN"] {
            assert_eq!(leniently(bad), None, "{bad}");
        }
        assert!(matches!(Payload::parse(written.as_bytes(), 100), Err(PayloadError::NotJson(_))));
        assert_eq!(Payload::parse_leniently(b"[NaN]", 4), Err(PayloadError::TooLarge));
    }

    #[test]
    fn a_text_that_holds_an_object_is_that_object() {
        let object = |text: &str| {
            let object = Payload::parse(text.as_bytes(), 100).unwrap().object();
            object.map(|object| object.as_str().to_owned())
        };
        assert_eq!(object(r#"{"a":1}"#).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(object(r#""{\"a\":\n1}""#).as_deref(), Some(r#"{"a": 1}"#));
        for other in ["1", "null", "[{}]", r#""text""#, r#""{""#, r#""\"{}\"""#] {
            assert_eq!(object(other), None, "{other}");
        }
    }

    proptest! {
        /// Whatever is JSON is left as it is; whatever is repaired is JSON afterwards.
        #[test]
        fn leniency_changes_no_json(text in r#"[\[\]{},:"\\aNIn1-]|NaN|Infinity|"[a\\"]*""#) {
            let strict = Payload::parse(text.as_bytes(), 1000);
            match Payload::parse_leniently(text.as_bytes(), 1000) {
                Ok((payload, repaired)) => {
                    prop_assert_eq!(strict.is_err(), repaired);
                    prop_assert!(Payload::parse(payload.as_str().as_bytes(), 1000).is_ok());
                }
                Err(_) => prop_assert!(strict.is_err()),
            }
        }

        #[test]
        fn any_text_survives(text in "\\PC*|[\\r\\n\\x00\u{2028} ]*") {
            let json = serde_json::to_string(&text).unwrap();
            let payload = Payload::parse(json.as_bytes(), usize::MAX).unwrap();
            prop_assert!(!payload.as_str().contains(['\r', '\n']));
            prop_assert_eq!(serde_json::from_str::<String>(payload.as_str()).unwrap(), text);
        }
    }
}
