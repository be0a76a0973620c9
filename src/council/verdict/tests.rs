use proptest::prelude::*;

use super::*;

fn ballot(weight: f64, score: Option<f64>) -> Ballot {
    Ballot { weight, score, sub_scores: SubScores::default() }
}

fn composite(ballots: &[(f64, Option<f64>)], quorum: usize) -> Option<f64> {
    let ballots: Vec<_> = ballots.iter().map(|(weight, score)| ballot(*weight, *score)).collect();
    Verdict::of(&ballots, quorum).composite
}

#[test]
fn a_member_without_a_score_counts_neither_way() {
    assert_eq!(composite(&[(1.0, Some(0.5)), (9.0, None)], 1), Some(0.5));
}

#[test]
fn weights_say_how_much_a_score_counts() {
    assert_eq!(composite(&[(3.0, Some(1.0)), (1.0, Some(0.0))], 2), Some(0.75));
    assert_eq!(composite(&[(0.0, Some(1.0)), (1.0, Some(0.25))], 2), Some(0.25));
    for no_weight in [f64::NAN, -1.0, f64::INFINITY] {
        assert_eq!(composite(&[(no_weight, Some(1.0)), (1.0, Some(0.25))], 2), Some(0.25));
    }
}

#[test]
fn weights_may_be_very_large_or_small() {
    for weight in [f64::MAX, f64::MIN_POSITIVE, 5e-324] {
        assert_eq!(composite(&[(weight, Some(1.0)), (weight, Some(0.5))], 1), Some(0.75));
    }
}

#[test]
fn too_few_scores_come_to_nothing() {
    let mut ballots = vec![ballot(1.0, Some(0.5)), ballot(1.0, None), ballot(1.0, None)];
    ballots[0].sub_scores.novelty = Some(0.5);
    let verdict = Verdict::of(&ballots, 2);
    let nothing = SubScores::default();
    assert_eq!((verdict.composite, verdict.spread, verdict.sub_scores), (None, None, nothing));
    assert_eq!((verdict.scored, verdict.quorum, verdict.members), (1, 2, 3));
    assert_eq!(Verdict::of(&ballots, 1).composite, Some(0.5));
}

#[test]
fn nobody_comes_to_nothing() {
    for quorum in [0, 1] {
        assert_eq!(composite(&[], quorum), None);
        assert_eq!(composite(&[(1.0, None)], quorum), None);
        assert_eq!(composite(&[(0.0, Some(0.5))], quorum), None);
    }
}

#[test]
fn a_sub_score_is_that_of_the_members_that_gave_it() {
    let mut ballots = vec![ballot(1.0, Some(0.5)), ballot(3.0, Some(0.5)), ballot(9.0, None)];
    ballots[0].sub_scores =
        SubScores { psychology: Some(0.0), novelty: Some(0.9), ..<_>::default() };
    ballots[1].sub_scores.psychology = Some(1.0);
    let sub_scores = Verdict::of(&ballots, 2).sub_scores;
    assert_eq!(
        sub_scores,
        SubScores { psychology: Some(0.75), hook_strength: None, novelty: Some(0.9) }
    );
}

#[test]
fn the_spread_says_how_far_members_agree() {
    let of = |scores: &[f64]| {
        let ballots: Vec<_> = scores.iter().map(|score| ballot(1.0, Some(*score))).collect();
        Verdict::of(&ballots, 1).spread
    };
    assert_eq!(of(&[0.25, 0.75]), Some(Spread { least: 0.25, most: 0.75, deviation: 0.25 }));
    assert_eq!(of(&[0.1, 0.1, 0.1]), Some(Spread { least: 0.1, most: 0.1, deviation: 0.0 }));
    assert_eq!(of(&[]), None);
}

fn ballots() -> impl Strategy<Value = Vec<Ballot>> {
    let score = prop::option::of(0.0..=1.0_f64);
    let one = (0.01..10.0_f64, score.clone(), score).prop_map(|(weight, score, novelty)| Ballot {
        sub_scores: SubScores { novelty, ..SubScores::default() },
        ..ballot(weight, score)
    });
    prop::collection::vec(one, 0..8)
}

fn naive(values: &[(f64, f64)]) -> Option<(f64, f64)> {
    let sum: f64 = values.iter().map(|(weight, _)| weight).sum();
    let mean = values.iter().map(|(weight, value)| weight * value).sum::<f64>() / sum;
    let squares = |(weight, value): &(f64, f64)| weight * (value - mean) * (value - mean);
    let deviation = (values.iter().map(squares).sum::<f64>() / sum).sqrt();
    (!values.is_empty()).then_some((mean, deviation))
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    a.is_some() == b.is_some() && a.zip(b).is_none_or(|(a, b)| (a - b).abs() < 1e-7)
}

proptest! {
    #[test]
    fn is_what_the_definition_says(ballots in ballots(), quorum in 0_usize..4) {
        let verdict = Verdict::of(&ballots, quorum);
        let scores: Vec<_> = ballots.iter().filter_map(|b| Some((b.weight, b.score?))).collect();
        let novelty: Vec<_> = ballots.iter().filter_map(|b| Some((b.weight, b.sub_scores.novelty?))).collect();
        let has_quorum = scores.len() >= quorum;
        let expected = naive(&scores).filter(|_| has_quorum);
        prop_assert_eq!(verdict.scored, scores.len());
        prop_assert!(close(verdict.composite, expected.map(|(mean, _)| mean)));
        prop_assert!(close(verdict.spread.map(|s| s.deviation), expected.map(|(_, deviation)| deviation)));
        prop_assert!(close(verdict.sub_scores.novelty, naive(&novelty).filter(|_| has_quorum).map(|(mean, _)| mean)));
    }

    #[test]
    fn lies_between_the_least_and_the_most(ballots in ballots()) {
        if let Verdict { composite: Some(composite), spread: Some(spread), .. } = Verdict::of(&ballots, 1) {
            prop_assert!((spread.least..=spread.most).contains(&composite));
            prop_assert!(spread.deviation <= (spread.most - spread.least) / 2.0 + 1e-9);
        }
    }

    #[test]
    fn equal_scores_come_to_themselves(score in 0.0..=1.0_f64, weights in prop::collection::vec(0.01..10.0_f64, 1..9)) {
        let ballots: Vec<_> = weights.iter().map(|weight| ballot(*weight, Some(score))).collect();
        prop_assert_eq!(Verdict::of(&ballots, 1).composite, Some(score));
    }

    #[test]
    fn the_order_of_the_members_does_not_matter(ballots in ballots(), turn in 0_usize..8) {
        let mut turned = ballots.clone();
        turned.rotate_left(turn.min(ballots.len()));
        turned.reverse();
        let (one, other) = (Verdict::of(&ballots, 1), Verdict::of(&turned, 1));
        prop_assert!(close(one.composite, other.composite));
        prop_assert_eq!((one.scored, one.members), (other.scored, other.members));
    }

    #[test]
    fn a_higher_score_never_lowers_the_composite(ballots in ballots(), which in 0_usize..8, more in 0.0..1.0_f64) {
        let before = Verdict::of(&ballots, 1).composite;
        let mut raised = ballots;
        if let Some(score) = raised.get_mut(which).and_then(|ballot| ballot.score.as_mut()) {
            *score += more;
        }
        let after = Verdict::of(&raised, 1).composite;
        prop_assert!(before.zip(after).is_none_or(|(before, after)| after >= before - 1e-12));
    }
}
