//! The `reasoning` of a JSON object, decoded while the object is still being written.
//!
//! One pass, one character at a time, so that a piece may end anywhere. It owns the place in the
//! object; it judges the object only as far as it must to find its fields, and keeps no value but
//! the one.

use std::mem;

/// The field that is decoded. Only the object itself counts, not the objects in it, and only the
/// first string of that name.
const FIELD: &str = "reasoning";

/// Begins after the object's brace.
#[derive(Debug, Default)]
pub(super) struct ObjectReader {
    /// From its opening quote on.
    reasoning: Option<String>,
    place: Place,
    /// The objects and arrays the place is in, besides the object itself.
    depth: usize,
    /// What the string the place is in is to the object.
    role: Option<Role>,
    escapes: Escapes,
    /// The last string that is not the reasoning; before a value, the field's name.
    word: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    BeforeKey,
    BeforeColon,
    Value,
    Complete,
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Key,
    Reasoning,
    Other,
}

impl ObjectReader {
    pub(super) fn push(&mut self, text: &str) {
        text.chars().for_each(|c| self.step(c));
    }

    /// What can be shown of the reasoning; none if the object has not come to one yet.
    pub(super) fn reasoning(&self) -> Option<&str> {
        self.reasoning.as_deref()
    }

    pub(super) fn into_reasoning(self) -> Option<String> {
        self.reasoning
    }

    /// The object has been closed.
    pub(super) fn is_complete(&self) -> bool {
        self.place == Place::Complete
    }

    /// It only looked like an object.
    pub(super) fn is_broken(&self) -> bool {
        self.place == Place::Broken
    }

    fn step(&mut self, c: char) {
        if let Some(role) = self.role {
            return self.step_in_string(role, c);
        }
        match (self.place, c) {
            (Place::Complete | Place::Broken, _) => {}
            (_, c) if c.is_whitespace() => {}
            (Place::BeforeKey, '"') => self.begin_string(Role::Key),
            (Place::BeforeKey, '}') => self.place = Place::Complete,
            (Place::BeforeColon, ':') => self.place = Place::Value,
            (Place::BeforeKey | Place::BeforeColon, _) => self.place = Place::Broken,
            (Place::Value, c) => self.step_in_value(c),
        }
    }

    fn step_in_string(&mut self, role: Role, c: char) {
        let text = match (role, &mut self.reasoning) {
            (Role::Reasoning, Some(reasoning)) => reasoning,
            _ => &mut self.word,
        };
        let ended = self.escapes.step(c, text);
        if ended {
            self.role = None;
        }
        if ended && role == Role::Key {
            self.place = Place::BeforeColon;
        }
    }

    fn step_in_value(&mut self, c: char) {
        match (c, self.depth) {
            ('"', 0) if self.word == FIELD && self.reasoning.is_none() => {
                self.reasoning = Some(String::new());
                self.begin_string(Role::Reasoning);
            }
            ('"', _) => self.begin_string(Role::Other),
            ('{' | '[', depth) => self.depth = depth.saturating_add(1),
            ('}' | ']', 0) => self.place = Place::Complete,
            ('}' | ']', depth) => self.depth = depth.saturating_sub(1),
            (',', 0) => self.place = Place::BeforeKey,
            _ => {}
        }
    }

    fn begin_string(&mut self, role: Role) {
        self.role = Some(role);
        self.word.clear();
    }
}

/// Where a JSON string stands between two characters. Is at its beginning again when it has ended.
#[derive(Debug, Default)]
struct Escapes {
    at: At,
    /// The first half of a surrogate pair. Alone it is no character and becomes U+FFFD.
    half: Option<u16>,
}

#[derive(Debug, Default, Clone, Copy)]
enum At {
    #[default]
    Plain,
    /// After a backslash.
    Escape,
    /// After `\u` and some of its four digits.
    Unit { value: u16, digits: u8 },
}

impl Escapes {
    /// Adds what `c` completes to `text`; whether `c` ends the string.
    ///
    /// Control characters stand for themselves, and so does what needs no backslash: JSON has
    /// neither, models write both.
    fn step(&mut self, c: char, text: &mut String) -> bool {
        match (mem::take(&mut self.at), c) {
            (At::Plain, '\\') => self.at = At::Escape,
            (At::Plain, '"') => {
                self.end_half(text);
                return true;
            }
            (At::Plain, c) => self.add(c, text),
            (At::Escape, 'u') => self.at = At::Unit { value: 0, digits: 0 },
            (At::Escape, c) => self.add(escaped(c), text),
            (At::Unit { value, digits }, c) => return self.digit(value, digits, c, text),
        }
        false
    }

    fn digit(&mut self, value: u16, digits: u8, c: char, text: &mut String) -> bool {
        let Some(digit) = c.to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
            self.add(char::REPLACEMENT_CHARACTER, text);
            return self.step(c, text);
        };
        let value = value << 4 | digit;
        if digits < 3 {
            self.at = At::Unit { value, digits: digits + 1 };
        } else {
            self.unit(value, text);
        }
        false
    }

    fn unit(&mut self, unit: u16, text: &mut String) {
        let pair = self.half.and_then(|half| String::from_utf16(&[half, unit]).ok());
        if let Some(pair) = pair {
            self.half = None;
            return text.push_str(&pair);
        }
        self.end_half(text);
        if (0xD800..0xDC00).contains(&unit) {
            self.half = Some(unit);
        } else {
            text.push_str(&String::from_utf16_lossy(&[unit]));
        }
    }

    fn add(&mut self, c: char, text: &mut String) {
        self.end_half(text);
        text.push(c);
    }

    fn end_half(&mut self, text: &mut String) {
        if self.half.take().is_some() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

fn escaped(c: char) -> char {
    match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        c => c,
    }
}
