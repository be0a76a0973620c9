//! Where in the node's one order of events a client stands: the SSE id.

use std::fmt;
use std::str::FromStr;

/// Names one run of one node, so that a position of another run is not taken for one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u32);

/// A place in the node's order: everything up to and including `sequence` has been said.
///
/// Written `p3f9k2.1041` (epoch in base 36, sequence in decimal). All clients of a node get the
/// same id for the same event, and a client's stream is a subsequence of the node's order, so one
/// id resumes any merged stream. A source that can replay adds an entry of its own, separated by
/// `,`; readers skip the entries they do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The run of the node that gave the position.
    pub epoch: Epoch,
    /// How many events the node had taken in; the first is 1.
    pub sequence: u64,
}

/// The text is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position")]
pub struct PositionError;

impl Epoch {
    /// Base-36 digits in the written form.
    const DIGITS: u32 = 6;

    /// An epoch no earlier run is likely to have had (one in two thousand million).
    pub fn random() -> Self {
        Self(fastrand::u32(..36_u32.pow(Self::DIGITS)))
    }

    /// The position `sequence` of this epoch.
    pub fn at(self, sequence: u64) -> Position {
        Position { epoch: self, sequence }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut digits = [0_u8; Self::DIGITS as usize];
        for digit in digits.iter_mut().rev() {
            let value = u8::try_from(rest % 36).unwrap_or_default();
            *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
            rest /= 36;
        }
        f.write_str(str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}.{}", self.epoch, self.sequence)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        text.split(',').find_map(entry).ok_or(PositionError)
    }
}

fn entry(text: &str) -> Option<Position> {
    let (epoch, sequence) = text.strip_prefix('p')?.split_once('.')?;
    if epoch.len() != Epoch::DIGITS as usize || !sequence.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let epoch = Epoch(u32::from_str_radix(epoch, 36).ok()?);
    Some(epoch.at(sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn survives_being_written(epoch in 0..36_u32.pow(6), sequence: u64) {
            let position = Epoch(epoch).at(sequence);
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn never_panics(text in ".{0,40}") {
            prop_assert!(text.parse::<Position>().is_err() || text.contains('p'));
        }
    }

    #[test]
    fn skips_entries_of_other_sources() {
        let position: Position = "s1733392800000-5,p3f9k2a.1041".parse().unwrap();
        assert_eq!(position.sequence, 1041);
        for text in ["", "p", "1041", "p3f9k2a.", "p3f9k2a.-1", "p3f9.1", "p3f9k2a.1x"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
