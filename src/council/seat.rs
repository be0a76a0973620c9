//! A member as it is set up: whom to ask, how, with which key, within which limits.
//!
//! Made once, at the start. A key is read here, sent to its provider, and shown to nobody.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::body::Bodies;
use super::dialect::{Fault, Usage};
use crate::settings::{CouncilSettings, Dialect, MemberSettings};

const MASK: &str = "***";
/// Fewer characters of a key tell nothing.
const FEW: usize = 4;

/// One member of the council.
pub(super) struct Seat {
    /// Its name on the wire.
    pub(super) name: String,
    /// How its provider is spoken to.
    pub(super) dialect: Dialect,
    /// Where it is asked; `None` if that is no URL.
    pub(super) url: Option<Url>,
    /// With what.
    pub(super) bodies: Bodies,
    /// What stands in the head of a request, the key included.
    pub(super) headers: HeaderMap,
    /// Why it cannot be asked: what is missing.
    pub(super) missing: Option<String>,
    /// Never shown.
    key: Option<String>,
    /// Whether its scores are asked for by JSON schema.
    pub(super) by_schema: bool,
    /// How long it may take until its first word, all attempts together.
    pub(super) first_text: Duration,
    /// How long it may send nothing after that.
    pub(super) idle: Duration,
    /// How long it may take in all.
    pub(super) total: Duration,
    /// The rest, as it stands in the settings.
    pub(super) settings: MemberSettings,
}

impl Seat {
    /// `schema`: what scores are asked for by.
    pub(super) fn new(
        name: &str,
        settings: &MemberSettings,
        council: &CouncilSettings,
        schema: &Value,
    ) -> Self {
        let dialect = settings.dialect;
        let key = read_key(settings);
        let headers = key.clone().and_then(|key| headers(settings, dialect, key.as_deref()));
        Self {
            name: name.to_owned(),
            dialect,
            url: dialect.url(&settings.base_url, &settings.model).parse().ok(),
            bodies: Bodies::new(dialect, settings, schema),
            missing: headers.as_ref().err().cloned(),
            key: key.unwrap_or_default(),
            headers: headers.unwrap_or_default(),
            by_schema: settings.schema.unwrap_or(true) && dialect.can_schema(),
            first_text: settings.first_text.unwrap_or(council.first_text),
            idle: settings.idle.unwrap_or(council.idle),
            total: settings.total.unwrap_or(council.total),
            settings: settings.clone(),
        }
    }

    /// What its provider says went wrong, without the key, should it repeat that.
    pub(super) fn without_key(&self, mut fault: Fault) -> Fault {
        if let Some(key) = &self.key {
            fault.message = without(&fault.message, key);
            fault.code = fault.code.map(|code| without(&code, key));
        }
        fault
    }

    /// What so many tokens cost; `None` when a price is not known.
    pub(super) fn cost(&self, usage: Usage) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "nobody pays for 2^53 tokens")]
        let price = |tokens: Option<u64>, of_a_million: Option<f64>| {
            Some(tokens.unwrap_or_default() as f64 * of_a_million? / 1e6)
        };
        let input = price(usage.input, self.settings.input_price)?;
        Some(input + price(usage.output, self.settings.output_price)?)
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The text without the key, and without the start of it if the text was cut in the middle of it.
fn without(text: &str, key: &str) -> String {
    let text = text.replace(key, MASK);
    let Some(start) = text.strip_suffix('…') else { return text };
    let mut starts = (FEW..key.len()).rev().filter_map(|length| key.get(..length));
    let known = starts.find_map(|part| start.strip_suffix(part));
    known.map(|before| format!("{before}{MASK}…")).unwrap_or(text)
}

/// `Ok(None)`: none is to be sent.
fn read_key(settings: &MemberSettings) -> Result<Option<String>, String> {
    let Some(source) = settings.key_source() else { return Ok(None) };
    let key = if settings.api_key_env.is_empty() {
        std::fs::read_to_string(&settings.api_key_file)
            .map_err(|error| format!("{source} cannot be read: {error}"))?
    } else {
        std::env::var(&settings.api_key_env).map_err(|_| format!("{source} is not set"))?
    };
    match key.trim() {
        "" => Err(format!("{source} is empty")),
        key => Ok(Some(key.to_owned())),
    }
}

fn headers(
    settings: &MemberSettings,
    dialect: Dialect,
    key: Option<&str>,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    // Identity: what is compressed arrives in blocks, not word by word.
    let fixed = [
        ("accept", "text/event-stream"),
        ("accept-encoding", "identity"),
        ("content-type", "application/json"),
    ];
    for (name, value) in fixed.into_iter().chain(dialect.headers().iter().copied()) {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let own = settings.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
    let secret = key.map(|key| {
        let (name, value) = dialect.key_header(key);
        match &settings.key_header {
            Some(name) => (name.clone(), key.to_owned()),
            None => (name.to_owned(), value),
        }
    });
    for (name, value) in own.chain(secret) {
        let invalid = || format!("the header {name} cannot be sent");
        let mut value = HeaderValue::from_str(&value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::try_from(&*name).map_err(|_| invalid())?, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn neither_a_key_nor_the_start_of_one_is_told() {
        assert_eq!(without("no s3cretkey, s3cretkey", "s3cretkey"), "no ***, ***");
        assert_eq!(without("you sent s3cretk…", "s3cretkey"), "you sent ***…");
        assert_eq!(without("you sent s3c…", "s3cretkey"), "you sent s3c…");
        assert_eq!(without("you sent s3cretk", "s3cretkey"), "you sent s3cretk", "it was not cut");
    }
}
