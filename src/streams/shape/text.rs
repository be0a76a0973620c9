//! Pieces of a text, such as the tokens of a model, told as one.
//!
//! Two pieces go on into each other when all that they say besides is the same. The JSON strings
//! are joined as they are written, so nothing of them changes, half a surrogate pair included.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::event::{Event, Fields, Payload};

/// Newer pieces may have a newer one.
const TIMESTAMP: &str = "timestamp";

/// See [`Shape::merge`](crate::event::Shape::merge). `field` holds the text; what is not `allowed`
/// stands alone.
pub(super) fn merge<'a>(
    events: &'a [Arc<Event>],
    field: &str,
    allowed: impl Fn(&Event) -> bool,
) -> Option<(Event, &'a [Arc<Event>])> {
    let piece = |event: &'a Arc<Event>| Piece::read(event, field).filter(|_| allowed(event));
    let (oldest, mut rest) = events.split_first()?;
    let first = piece(oldest)?;
    let mut text = first.text.to_owned();
    let mut last = None;
    while let Some((event, after)) = rest.split_first() {
        let Some(next) = piece(event).filter(|next| next.goes_on(&first, field)) else { break };
        text.push_str(next.text);
        last = Some(next);
        rest = after;
    }
    let Piece { event: newest, mut fields, .. } = last?;
    let text = RawValue::from_string(format!("\"{text}\"")).ok()?;
    fields.insert(field.to_owned(), &text);
    let json = serde_json::to_vec(&fields).ok()?;
    let payload = Payload::parse(&json, usize::MAX).ok()?;
    Some((Event::merged(oldest, newest, payload), rest))
}

struct Piece<'a> {
    event: &'a Event,
    fields: Fields<'a>,
    /// As it is written, without the quotes.
    text: &'a str,
}

impl<'a> Piece<'a> {
    fn read(event: &'a Event, field: &str) -> Option<Self> {
        let fields = event.payload.fields()?;
        let text = fields.get(field)?.get().strip_prefix('"')?.strip_suffix('"')?;
        Some(Self { event, fields, text })
    }

    fn goes_on(&self, first: &Self, field: &str) -> bool {
        let same = |(name, value): (&String, &&RawValue)| {
            let before = first.fields.get(name).map(|value| value.get());
            name == field || before.is_some_and(|b| name == TIMESTAMP || b == value.get())
        };
        self.event.channel == first.event.channel
            && self.fields.len() == first.fields.len()
            && self.fields.iter().all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Channel, Epoch};

    fn events(payloads: &[&str]) -> Vec<Arc<Event>> {
        let event = |(payload, n): (&&str, u64)| {
            let payload = Payload::parse(payload.as_bytes(), usize::MAX).unwrap();
            Arc::new(Event::new(Channel::new("c").unwrap(), payload, Epoch::random().at(n)))
        };
        payloads.iter().zip(1..).map(event).collect()
    }

    /// What becomes of the first ones, and how many are left.
    fn merged(payloads: &[&str]) -> Option<(String, usize)> {
        let events = events(payloads);
        let (event, rest) = merge(&events, "t", |_| true)?;
        let newest = events.len() - rest.len() - 1;
        assert_eq!(event.position, events[newest].position);
        assert_eq!(event.received, events[0].received);
        Some((event.payload.as_str().to_owned(), rest.len()))
    }

    #[test]
    fn strings_are_joined_as_they_are_written_and_the_newest_timestamp_stays() {
        let one = r#"{"m":"a","t":"x\n\"","n":1.50,"timestamp":"1"}"#;
        let two = r#"{"n":1.50,"timestamp":2,"m":"a","t":"\ud83d"}"#;
        let three = r#"{"n":1.50,"timestamp":3,"m":"a","t":"\ude00"}"#;
        let all = r#"{"n":1.50,"timestamp":3,"m":"a","t":"x\n\"\ud83d\ude00"}"#;
        assert_eq!(merged(&[one, two, three, "7"]), Some((all.to_owned(), 1)));
    }

    #[test]
    fn what_differs_in_anything_else_stays_apart() {
        let one = r#"{"m":"a","t":"x"}"#;
        for other in [
            r#"{"m":"b","t":"x"}"#,
            r#"{"m":"a","t":"x","more":1}"#,
            r#"{"m":"a","t":"x","timestamp":1}"#,
            r#"{"m":"a","t":null}"#,
            r#"{"t":"x"}"#,
            r#"{"m":"a"}"#,
            r#""x""#,
        ] {
            assert_eq!(merged(&[one, other]), None, "{other}");
            assert_eq!(merged(&[other, one]), None, "{other}");
        }
        assert_eq!(merged(&[one]), None);
        assert!(merge(&events(&[one, one]), "t", |_| false).is_none());
    }

    #[test]
    fn channels_stay_apart() {
        let mut events = events(&[r#"{"t":"x"}"#, r#"{"t":"y"}"#]);
        Arc::get_mut(&mut events[1]).unwrap().channel = Channel::new("other").unwrap();
        assert!(merge(&events, "t", |_| true).is_none());
    }
}
