//! Pieces of a text, such as the tokens of a model, told as one.
//!
//! Two pieces go on into each other when all that they say besides is the same. The JSON strings
//! are joined as they are written, so nothing of them changes, half a surrogate pair included. A
//! piece with an empty text begins its text anew: it goes on from nothing, and stands alone.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Event, Fields, Payload};

/// Pieces with more fields stand alone.
const MOST_FIELDS: usize = 64;
/// Newer pieces may have a newer one.
const TIMESTAMP: &str = "timestamp";

/// See [`Shape::merge`](super::Shape::merge). `field` holds the text; what is not `allowed` stands
/// alone.
pub fn merge<'a>(
    events: &'a [Arc<Event>],
    field: &str,
    allowed: impl Fn(&Event) -> bool,
) -> Option<(Event, &'a [Arc<Event>])> {
    let piece = |event: &'a Arc<Event>| Piece::read(event, field).filter(|_| allowed(event));
    let (oldest, mut rest) = events.split_first()?;
    let first = piece(oldest).filter(|first| !first.text.is_empty())?;
    let mut text = first.text.to_owned();
    let mut last = None;
    while let Some((event, after)) = rest.split_first() {
        let Some(next) = piece(event).filter(|next| next.goes_on(&first, field)) else { break };
        text.push_str(next.text);
        last = Some(next);
        rest = after;
    }
    Some((last?.with_text(oldest, &text, field)?, rest))
}

/// The text of one thing as far as it has come: what a client that comes late has to be told.
#[derive(Debug, Default)]
pub struct TextSoFar {
    /// The event with which it began anew, if there was one.
    start: Option<Arc<Event>>,
    /// What followed, each told as one event.
    runs: VecDeque<Run>,
}

/// Pieces that go on into each other.
#[derive(Debug)]
struct Run {
    oldest: Arc<Event>,
    newest: Arc<Event>,
    /// What they say besides, as it is written: so that the one before need not be read again.
    besides: Vec<(Box<str>, Box<str>)>,
    /// As it is written in JSON, without the quotes.
    text: String,
}

/// Runs that are kept; then the oldest gives way. Whoever says something else besides with each piece
/// has as many as pieces.
const MOST_RUNS: usize = 256;

impl TextSoFar {
    /// Takes in `event`, if it is a piece: if `field` is a text.
    pub fn push(&mut self, event: &Arc<Event>, fields: &Fields<'_>, field: &str) -> bool {
        let Some(text) = written(fields, field) else { return false };
        if text.is_empty() {
            *self = Self { start: Some(Arc::clone(event)), runs: VecDeque::new() };
        } else if let Some(run) = self.runs.back_mut().filter(|run| run.goes_on(fields, field)) {
            run.newest = Arc::clone(event);
            run.text.push_str(text);
        } else {
            self.runs.push_back(Run::new(event, fields, text, field));
            if self.runs.len() > MOST_RUNS {
                self.runs.pop_front();
            }
        }
        true
    }

    /// What stands for all of it: the event with which it began, and one for each run.
    pub fn events(&self, field: &str) -> impl Iterator<Item = Arc<Event>> {
        let whole = |run: &Run| {
            let newest = Piece::read(&run.newest, field)?;
            newest.with_text(&run.oldest, &run.text, field).map(Arc::new)
        };
        self.start.clone().into_iter().chain(self.runs.iter().filter_map(whole))
    }

    /// The newest event of it.
    pub fn newest(&self) -> Option<&Arc<Event>> {
        self.runs.back().map(|run| &run.newest).or(self.start.as_ref())
    }

    /// About how many bytes it holds in memory.
    pub fn weight(&self) -> usize {
        let start = self.start.as_ref().map_or(0, |event| event.weight());
        start + self.runs.iter().map(Run::weight).sum::<usize>()
    }
}

impl Run {
    fn new(event: &Arc<Event>, fields: &Fields<'_>, text: &str, field: &str) -> Self {
        let owned = |(name, value): (&str, &str)| (name.into(), value.into());
        Self {
            oldest: Arc::clone(event),
            newest: Arc::clone(event),
            besides: besides(fields, field).map(owned).collect(),
            text: text.to_owned(),
        }
    }

    fn goes_on(&self, fields: &Fields<'_>, field: &str) -> bool {
        let before = self.besides.iter().map(|(name, value)| (&**name, &**value));
        before.eq(besides(fields, field))
    }

    fn weight(&self) -> usize {
        self.text.capacity() + 2 * self.newest.weight() + self.oldest.weight()
    }
}

/// All that a piece says but its text, and that it has a timestamp, but not which.
fn besides<'a>(fields: &'a Fields<'_>, field: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let others = fields.iter().filter(move |(name, _)| *name != field);
    others.map(|(name, value)| (name, if name == TIMESTAMP { "" } else { value.get() }))
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
        let text = written(&fields, field)?;
        Some(Self { event, fields, text })
    }

    /// This piece with another text, for all since `oldest`.
    fn with_text(self, oldest: &Event, text: &str, field: &str) -> Option<Event> {
        let text = RawValue::from_string(format!("\"{text}\"")).ok()?;
        let mut fields: Fields<'_> = self.fields;
        fields.set(field, &text);
        let json = serde_json::to_vec(&fields).ok()?;
        let payload = Payload::parse(&json, usize::MAX).ok()?;
        Some(Event::merged(oldest, self.event, payload))
    }

    fn goes_on(&self, first: &Self, field: &str) -> bool {
        let same = |(name, value): (&str, &RawValue)| {
            let before = first.fields.get(name).map(RawValue::get);
            name == field || before.is_some_and(|b| name == TIMESTAMP || b == value.get())
        };
        !self.text.is_empty()
            && self.event.channel == first.event.channel
            && self.fields.len() == first.fields.len()
            // Each is looked for among all.
            && self.fields.len() <= MOST_FIELDS
            && self.fields.iter().all(same)
    }
}

/// The text in `field` as it is written, without the quotes.
fn written<'a>(fields: &Fields<'a>, field: &str) -> Option<&'a str> {
    fields.get(field)?.get().strip_prefix('"')?.strip_suffix('"')
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

    #[test]
    fn an_empty_piece_begins_anew_and_stands_alone() {
        let (empty, one) = (r#"{"m":"a","t":""}"#, r#"{"m":"a","t":"x"}"#);
        assert_eq!(merged(&[one, empty]), None);
        assert_eq!(merged(&[empty, one, one]), None);
        assert_eq!(merged(&[one, one, empty, one]), Some((r#"{"m":"a","t":"xx"}"#.to_owned(), 2)));
    }

    /// What a client that comes late is told of these, and which of them were no part of a text.
    fn so_far(payloads: &[&str]) -> (Vec<String>, Vec<usize>) {
        let events = events(payloads);
        let mut text = TextSoFar::default();
        let mut apart = Vec::new();
        for (index, event) in events.iter().enumerate() {
            if !text.push(event, &event.payload.fields().unwrap_or_default(), "t") {
                apart.push(index);
            }
        }
        let told = text.events("t").map(|event| event.payload.as_str().to_owned());
        (told.collect(), apart)
    }

    #[test]
    fn the_text_so_far_is_its_start_and_all_of_it() {
        let (start, one, two) =
            (r#"{"m":"a","t":"","again":true}"#, r#"{"m":"a","t":"x"}"#, r#"{"m":"a","t":"\ny"}"#);
        let all = r#"{"m":"a","t":"x\ny"}"#;
        let told = |payloads: &[&str]| so_far(payloads).0;
        assert_eq!(told(&[start]), [start]);
        assert_eq!(told(&[start, one, two]), [start, all]);
        assert_eq!(told(&[one, two]), [all]);
        assert_eq!(told(&[start, one, start, one, two]), [start, all], "begun anew");
        let end = r#"{"m":"a","t":"Error","done":true}"#;
        assert_eq!(
            so_far(&[start, one, end, r#"{"m":"a"}"#]),
            (vec![start.into(), one.into(), end.into()], vec![3])
        );
    }

    #[test]
    fn what_says_something_else_besides_is_told_apart_and_nothing_is_left_out() {
        let piece = |n: usize| format!(r#"{{"t":"x","n":{n}}}"#);
        let pieces: Vec<_> = (0..MOST_RUNS).map(piece).collect();
        let all: Vec<_> = pieces.iter().map(String::as_str).collect();
        assert_eq!(so_far(&all).0, pieces);
    }
}
