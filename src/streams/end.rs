//! When a stream is over, and what it then says.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::event::{Channel, ChannelPattern, End, Fields, Outcome};
use crate::settings::{Condition, EndSettings};

/// One rule of a declared stream.
#[derive(Debug)]
pub(super) struct EndRule {
    settings: EndSettings,
    channels: Vec<ChannelPattern>,
}

impl EndRule {
    pub(super) fn new(settings: &EndSettings) -> Self {
        let channels =
            settings.channels.iter().filter_map(|p| ChannelPattern::new(p).ok()).collect();
        Self { settings: settings.clone(), channels }
    }

    /// Whether the rule is for events of `channel`.
    pub(super) fn is_for(&self, channel: &Channel) -> bool {
        self.channels.is_empty() || self.channels.iter().any(|pattern| pattern.matches(channel))
    }

    /// The end, if an event with these `fields` is one. `rule`: the number of this rule.
    pub(super) fn apply(&self, rule: usize, fields: &Fields<'_>) -> Option<End> {
        let fits = |(name, condition): (&String, &Condition)| {
            fields.get(name).is_some_and(|value| condition.fits(value))
        };
        self.settings.when.iter().all(fits).then(|| End {
            outcome: self.outcome(fields),
            grace: self.settings.grace,
            latch: self.settings.latch,
            rule,
        })
    }

    /// Whether an event takes back an end that an earlier one has said: it has one of the fields, with
    /// another value. `null` is no value: some workers write it for what they do not know. `said`: the
    /// fields as they were published; a shape may add some of its own.
    pub(super) fn is_contradicted(&self, said: &Fields<'_>, fields: &Fields<'_>) -> bool {
        let is_said = |value: &&RawValue| value.get() != "null";
        self.settings.when.iter().any(|(name, condition)| {
            said.get(name).as_ref().is_some_and(is_said)
                && fields.get(name).is_some_and(|value| !condition.fits(value))
        })
    }

    /// The fields that it looks at.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.settings.when.keys()
    }
}

impl EndRule {
    fn outcome(&self, fields: &Fields<'_>) -> Outcome {
        if let Some(text) = &self.settings.error {
            return Outcome::Failed(match value(text, fields) {
                Value::String(text) => text.into(),
                other => other.to_string().into(),
            });
        }
        let data =
            self.settings.data.iter().map(|(name, text)| (name.clone(), value(text, fields)));
        Outcome::Complete(Value::Object(data.collect()).to_string().into())
    }
}

impl Condition {
    fn fits(&self, value: &RawValue) -> bool {
        if let (Some(text), Self::OneOf(values)) = (plain_text(value), self) {
            return values.iter().any(|value| value.as_str() == Some(text));
        }
        let Ok(value) = serde_json::from_str::<Value>(value.get()) else { return false };
        match self {
            Self::OneOf(values) => values.contains(&value),
            Self::AtLeast { at_least } => value.as_f64().is_some_and(|value| value >= *at_least),
        }
    }
}

/// The text, if it is one that needs no decoding.
fn plain_text(value: &RawValue) -> Option<&str> {
    let text = value.get().strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains('\\')).then_some(text)
}

/// `{field}` is taken from the event (`null` if it has none); everything else stands for itself.
fn value(text: &str, fields: &Fields<'_>) -> Value {
    match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some(field) => {
            let value = fields.get(field).and_then(|value| serde_json::from_str(value.get()).ok());
            value.unwrap_or_default()
        }
        None => json!(text),
    }
}

/// The rule in words, for `sluice check --explain`.
pub(super) fn describe(end: &EndSettings) -> String {
    let when = end.when.iter().map(|(field, condition)| match condition {
        Condition::OneOf(values) => {
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            format!("{field} is {}", values.join(" or "))
        }
        Condition::AtLeast { at_least } => format!("{field} is at least {at_least}"),
    });
    let mut text = when.collect::<Vec<_>>().join(" and ");
    if !end.channels.is_empty() {
        text = format!("{text} on {}", end.channels.join(", "));
    }
    if !end.grace.is_zero() {
        text =
            format!("{text}, unless taken back within {}", humantime::format_duration(end.grace));
    }
    if !end.latch.is_zero() {
        text = format!("{text}, for {} at least", humantime::format_duration(end.latch));
    }
    text
}
