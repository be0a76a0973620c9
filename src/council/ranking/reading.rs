//! The ranking at the end of a text.
//!
//! It takes labels where a list has them, and never from prose. A line of a list begins with a
//! label; it may say more about that one if it is numbered or has a bullet, and otherwise holds
//! labels only. The list ends with the first line that is none of it.

use std::iter;

use super::{LABEL, MARKER};

/// Before an entry: bullets, headings, quotes and emphasis.
const LEAD: [char; 8] = ['-', '*', '+', '•', '#', '>', '_', '`'];

/// Markdown around a label.
const MARKS: [char; 3] = ['*', '_', '`'];

/// Between labels on one line.
const SEPARATORS: [char; 4] = [',', '>', ';', '→'];

/// A label with the number it stands behind, if the list has numbers.
type Entry = (Option<u32>, String);

/// The labels that stand behind the last mention of a final ranking, best first, as `labels` would
/// write them but for their case. None if none is mentioned.
pub(super) fn list(text: &str) -> Option<Vec<String>> {
    let mut list = Vec::new();
    for line in lines_after_marker(text)? {
        let entries = entries(line);
        // What is indented says more about the entry above.
        let goes_on =
            !entries.is_empty() || line.is_empty() || line.starts_with(char::is_whitespace);
        if !goes_on && !list.is_empty() {
            break;
        }
        list.extend(entries);
    }
    if list.iter().any(|(number, _)| number.is_some()) {
        list.retain(|(number, _)| number.is_some());
        // Some count down to the best.
        list.sort_by_key(|(number, _)| *number);
    }
    Some(list.into_iter().map(|(_, label)| label).collect())
}

fn lines_after_marker(text: &str) -> Option<impl Iterator<Item = &str>> {
    let marker = text.to_ascii_uppercase().rfind(MARKER)?;
    let after = text.get(marker..)?.get(MARKER.len()..)?;
    let (same, below) = after.split_once('\n').unwrap_or((after, ""));
    let same = same.trim_start_matches(is_blank_or_mark).strip_prefix(':').unwrap_or_default();
    Some(iter::once(same.trim()).chain(below.lines()))
}

fn entries(line: &str) -> Vec<Entry> {
    let (mut number, mut rest) = numbered(line);
    let is_item = number.is_some() || line.trim_start().starts_with(LEAD);
    let mut entries = Vec::new();
    let mut remark = "";
    while let Some((label, after)) = label(rest) {
        if entries.is_empty() {
            remark = after;
        }
        entries.push((number, label));
        let (next, text) =
            numbered(after.strip_prefix("->").unwrap_or(after).trim_start_matches(SEPARATORS));
        (number, rest) = (next.or(number), text);
    }
    let labels_only = rest.trim_start_matches('.').is_empty();
    let has_remark = is_item && !remark.starts_with(char::is_alphanumeric);
    if !labels_only {
        entries.truncate(usize::from(has_remark));
    }
    entries
}

/// A number in front, and what it is in front of.
fn numbered(text: &str) -> (Option<u32>, &str) {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || LEAD.contains(&c));
    let after = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text.strip_suffix(after).and_then(|digits| digits.parse().ok());
    match after.strip_prefix(['.', ')', ':']) {
        Some(item) if number.is_some() => (number, item),
        _ => (None, text),
    }
}

/// A label, and what follows it.
fn label(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches(is_blank_or_mark);
    let (word, name) = text.split_at_checked(LABEL.len())?;
    let name = name.strip_prefix(char::is_whitespace)?;
    let after = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let letters = name.strip_suffix(after).filter(|letters| !letters.is_empty())?;
    let in_word = |c: char| c.is_alphanumeric() || c == '\'' || c == '’';
    if !word.eq_ignore_ascii_case(LABEL) || after.starts_with(in_word) {
        return None;
    }
    Some((format!("{LABEL} {letters}"), after.trim_start_matches(is_blank_or_mark)))
}

fn is_blank_or_mark(c: char) -> bool {
    c.is_whitespace() || MARKS.contains(&c)
}
