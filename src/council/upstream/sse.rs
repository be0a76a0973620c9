//! Reads `text/event-stream` as providers really send it.
//!
//! Bytes go in as they arrive and items come out, the same ones however the bytes are cut. Beyond
//! the standard it shows what the standard drops: comments, lines that are no field, and a last
//! event without its blank line. It bounds what it holds, takes linear time and knows no provider.

use std::mem;

use memchr::memchr2;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::council) enum Item {
    /// An event that has data, were it empty.
    Event {
        /// The last `event` field, unless that is empty.
        name: Option<String>,
        /// The `data` fields, joined by line feeds.
        data: String,
    },
    /// A comment: nothing to read, but the other side lives.
    Comment,
    /// A whole line that is no field of the format, such as one of an error in bare JSON.
    Stray(String),
    /// Something that cannot be read.
    Fault(ReadFault),
}

/// Why something cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::council) enum ReadFault {
    /// The event is not UTF-8 and is left out; the next one is read.
    BadUtf8,
    /// The event is larger than the limit; nothing is read any more.
    TooLong,
}

/// The place in one stream.
#[derive(Debug)]
pub(in crate::council) struct SseReader {
    /// Bytes that may be held for one event: its unfinished line, data and name.
    limit: usize,
    line: Vec<u8>,
    name: Option<String>,
    data: Data,
    /// A line feed that comes next belongs to the carriage return before it.
    after_cr: bool,
    at_start: bool,
    over: bool,
}

/// What the lines of the event so far amount to.
#[derive(Debug, Default)]
enum Data {
    #[default]
    Absent,
    Text(String),
    /// One of the lines is not UTF-8.
    Spoiled,
}

impl SseReader {
    /// A reader that holds at most `limit` bytes for one event.
    pub(in crate::council) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            name: None,
            data: Data::Absent,
            after_cr: false,
            at_start: true,
            over: false,
        }
    }

    /// Reads the next bytes of the stream and adds what they complete to `items`.
    pub(in crate::council) fn feed(&mut self, mut bytes: &[u8], items: &mut Vec<Item>) {
        while !self.over && !bytes.is_empty() {
            if mem::take(&mut self.after_cr)
                && let Some(rest) = bytes.strip_prefix(b"\n")
            {
                bytes = rest;
                continue;
            }
            let end = memchr2(b'\n', b'\r', bytes);
            let (piece, rest) =
                bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or_default();
            if self.held() + piece.len() > self.limit {
                return self.give_up(items);
            }
            if end.is_none() {
                self.line.extend_from_slice(piece);
                return;
            }
            self.after_cr = rest.first() == Some(&b'\r');
            bytes = rest.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.read_line(piece, items);
            } else {
                self.line.extend_from_slice(piece);
                self.read_held_line(items);
            }
        }
    }

    /// The stream has ended: surfaces what its last event and line held.
    pub(in crate::council) fn finish(&mut self, items: &mut Vec<Item>) {
        if self.over {
            return;
        }
        if !self.line.is_empty() {
            self.read_held_line(items);
        }
        self.end_event(items);
        self.over = true;
    }

    fn held(&self) -> usize {
        let data = if let Data::Text(data) = &self.data { data.len() } else { 0 };
        self.line.len() + self.name.as_ref().map_or(0, String::len) + data
    }

    fn give_up(&mut self, items: &mut Vec<Item>) {
        items.push(Item::Fault(ReadFault::TooLong));
        *self = Self { over: true, ..Self::new(self.limit) };
    }

    fn read_held_line(&mut self, items: &mut Vec<Item>) {
        let mut line = mem::take(&mut self.line);
        self.read_line(&line, items);
        line.clear();
        self.line = line;
    }

    fn read_line(&mut self, line: &[u8], items: &mut Vec<Item>) {
        let bom = if mem::take(&mut self.at_start) { BOM } else { b"" };
        let line = line.strip_prefix(bom).unwrap_or(line);
        if line.is_empty() {
            return self.end_event(items);
        }
        if line.first() == Some(&b':') {
            return items.push(Item::Comment);
        }
        if matches!(self.data, Data::Spoiled) {
            return;
        }
        let Ok(line) = str::from_utf8(line) else {
            items.push(Item::Fault(ReadFault::BadUtf8));
            self.data = Data::Spoiled;
            return;
        };
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => self.add_data(value),
            "event" => self.name = Some(value.to_owned()).filter(|name| !name.is_empty()),
            "id" | "retry" => {}
            _ => items.push(Item::Stray(line.to_owned())),
        }
    }

    fn add_data(&mut self, value: &str) {
        match &mut self.data {
            Data::Absent => self.data = Data::Text(value.to_owned()),
            Data::Text(data) => {
                data.push('\n');
                data.push_str(value);
            }
            Data::Spoiled => {}
        }
    }

    fn end_event(&mut self, items: &mut Vec<Item>) {
        let name = self.name.take();
        if let Data::Text(data) = mem::take(&mut self.data) {
            items.push(Item::Event { name, data });
        }
    }
}

#[cfg(test)]
mod tests;
