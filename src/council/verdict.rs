//! What the members' scores come to.
//!
//! Weighted means over those who gave a score; nobody's missing score is filled in, and too few
//! scores come to nothing. It can be asked at any time of whatever is known then.

use super::score::SubScores;

#[cfg(test)]
mod tests;

/// What one member has to say about the verdict.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ballot {
    /// How much it counts beside the others; not at all unless above 0.
    pub(super) weight: f64,
    /// From 0 to 1, if it gave one.
    pub(super) score: Option<f64>,
    /// What it gave besides.
    pub(super) sub_scores: SubScores,
}

/// The council's scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    /// The weighted mean of the scores. None, like all that follows, without a quorum.
    pub(super) composite: Option<f64>,
    /// Each the weighted mean over the members that gave it.
    pub(super) sub_scores: SubScores,
    /// How far the members agree.
    pub(super) spread: Option<Spread>,
    /// How many members gave a score.
    pub(super) scored: usize,
    /// How many have to.
    pub(super) quorum: usize,
    /// How many there are.
    pub(super) members: usize,
}

/// How far scores lie from each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    /// The lowest score that counts.
    pub(super) least: f64,
    /// The highest.
    pub(super) most: f64,
    /// The weighted standard deviation of them all (not an estimate from a sample).
    pub(super) deviation: f64,
}

impl Verdict {
    /// The verdict of these members, if at least `quorum` of them gave a score.
    pub(super) fn of(ballots: &[Ballot], quorum: usize) -> Self {
        let scored = ballots.iter().filter(|ballot| ballot.score.is_some()).count();
        let pool = |given: fn(&Ballot) -> Option<f64>| {
            if scored < quorum { None } else { Pool::of(ballots, given) }
        };
        let mean = |given| pool(given).map(|pool| pool.mean());
        Self {
            composite: mean(|ballot| ballot.score),
            sub_scores: SubScores {
                psychology: mean(|ballot| ballot.sub_scores.psychology),
                hook_strength: mean(|ballot| ballot.sub_scores.hook_strength),
                novelty: mean(|ballot| ballot.sub_scores.novelty),
            },
            spread: pool(|ballot| ballot.score).map(|pool| pool.spread()),
            scored,
            quorum,
            members: ballots.len(),
        }
    }
}

/// The values that count, each with its share, of which the shares of all make 1. At least one.
struct Pool(Vec<(f64, f64)>);

impl Pool {
    fn of(ballots: &[Ballot], given: impl Fn(&Ballot) -> Option<f64>) -> Option<Self> {
        let counts = |ballot: &&Ballot| ballot.weight > 0.0 && ballot.weight.is_finite();
        let value = |ballot: &Ballot| Some((ballot.weight, given(ballot)?));
        let mut values: Vec<_> = ballots.iter().filter(counts).filter_map(value).collect();
        // By the heaviest first: the sum of very large weights would be infinite.
        let heaviest = values.iter().map(|(weight, _)| *weight).reduce(f64::max)?;
        let sum: f64 = values.iter().map(|(weight, _)| weight / heaviest).sum();
        for (weight, _) in &mut values {
            *weight = *weight / heaviest / sum;
        }
        Some(Self(values))
    }

    /// Between the least and the most, whatever rounding makes of it.
    fn mean(&self) -> f64 {
        self.weighted(|value| value).max(self.least()).min(self.most())
    }

    fn spread(&self) -> Spread {
        let mean = self.mean();
        let deviation = self.weighted(|value| (value - mean).powi(2)).sqrt();
        Spread { least: self.least(), most: self.most(), deviation }
    }

    fn weighted(&self, of: impl Fn(f64) -> f64) -> f64 {
        self.0.iter().map(|(share, value)| share * of(*value)).sum()
    }

    fn least(&self) -> f64 {
        self.0.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.0.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max)
    }
}
