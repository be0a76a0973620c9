//! The line of a text that holds the scores.
//!
//! It reads plain decimal numbers behind labels and refuses whatever only resembles one: fractions
//! of another whole, ranges, signs, exponents, a comma for the point.

use crate::settings::ScoreScale;

/// Markdown around a label or a number.
const MARKS: [char; 3] = ['*', '_', '`'];

/// May follow a number at once.
const PUNCTUATION: [char; 7] = ['.', ',', ';', ')', '*', '_', '`'];

/// `PSYCHOLOGY SCORE` is not the score.
const PARTS: [&str; 4] = ["PSYCHOLOGY", "HOOK", "STRENGTH", "NOVELTY"];

/// Make another number of the one before them.
const UNITS: [&str; 3] = ["%", "PERCENT", "OUT OF"];

/// Make one thing of the numbers around them; with nothing between two, it is unclear what they
/// are.
const JOINTS: [&str; 9] = ["", "/", "-", "–", "—", "±", "OF", "TO", "OR"];

/// In capitals.
#[derive(Debug)]
pub(super) struct Line(String);

impl Line {
    /// The last line that is more than a fence.
    pub(super) fn last_of(text: &str) -> Option<Self> {
        let mut lines = text.lines().rev().map(|line| line.trim_matches(is_blank_or_mark));
        lines.find(|line| !line.is_empty()).map(|line| Self(line.to_ascii_uppercase()))
    }

    /// The number behind the last `label`.
    pub(super) fn number(&self, label: &str, scale: ScoreScale) -> Option<f64> {
        let after = self.after(label)?.trim_start_matches(is_blank_or_mark);
        let value = after.strip_prefix([':', '='])?.trim_start_matches(is_blank_or_mark);
        let (number, rest) = decimal(value)?;
        let rest = match scale {
            ScoreScale::One => rest,
            ScoreScale::Hundred => after_hundred(rest),
        };
        if is_end(rest) { scale.read(number) } else { None }
    }

    fn after(&self, label: &str) -> Option<&str> {
        self.0.rmatch_indices(label).find_map(|(at, _)| {
            let (before, found) = self.0.split_at_checked(at)?;
            let after = found.strip_prefix(label)?;
            is_word_of_its_own(before, after).then_some(after)
        })
    }
}

/// The digits and the point that `text` begins with, as a number, and what follows them.
pub(super) fn decimal(text: &str) -> Option<(f64, &str)> {
    let after = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let digits = text.strip_suffix(after)?;
    // The point after a number is the sentence's.
    let digits = digits.strip_suffix('.').unwrap_or(digits);
    Some((digits.parse().ok()?, text.strip_prefix(digits)?))
}

/// Without a `%` or `/100`, which say of a number up to 100 what it is anyway.
fn after_hundred(rest: &str) -> &str {
    let next = rest.trim_start();
    let hundred = || next.strip_prefix('/')?.trim_start().strip_prefix("100");
    next.strip_prefix('%').or_else(hundred).unwrap_or(rest)
}

/// Whether a number that `rest` follows is complete and stands for itself.
fn is_end(rest: &str) -> bool {
    let ends = |c: char| c.is_whitespace() || PUNCTUATION.contains(&c);
    let digit = |c: char| c.is_ascii_digit();
    if !rest.is_empty() && !rest.starts_with(ends)
        || rest.trim_start_matches(PUNCTUATION).starts_with(digit)
    {
        return false;
    }
    let next = rest.trim_start_matches(|c: char| c == '(' || is_blank_or_mark(c));
    let begins_with_number = |text: &str| {
        let text = text.trim_start();
        text.strip_prefix('.').unwrap_or(text).starts_with(digit)
    };
    let joins = |joint| next.strip_prefix(joint).is_some_and(begins_with_number);
    !UNITS.into_iter().any(|unit| next.starts_with(unit)) && !JOINTS.into_iter().any(joins)
}

fn is_word_of_its_own(before: &str, after: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || c == '-';
    !before.trim_end_matches(MARKS).ends_with(goes_on)
        && !after.trim_start_matches(MARKS).starts_with(goes_on)
        && !PARTS.iter().any(|part| before.trim_end_matches(is_blank_or_mark).ends_with(part))
}

fn is_blank_or_mark(c: char) -> bool {
    c.is_whitespace() || MARKS.contains(&c)
}
