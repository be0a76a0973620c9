use proptest::prelude::*;

use super::*;

fn text(text: &str) -> Option<f64> {
    Scores::from_text(text, ScoreScale::One).score
}

fn text_of_hundred(text: &str) -> Option<f64> {
    Scores::from_text(text, ScoreScale::Hundred).score
}

fn json(text: &str) -> Option<f64> {
    Scores::from_json(text, ScoreScale::One).score
}

#[test]
fn plain_numbers_on_the_scale_are_scores() {
    for (number, score) in
        [("0.81", 0.81), (".81", 0.81), ("1", 1.0), ("1.0", 1.0), ("0", 0.0), ("1.", 1.0)]
    {
        assert_eq!(text(&format!("SCORE: {number}")), Some(score), "{number}");
    }
    for (number, score) in
        [("81", 0.81), ("100", 1.0), ("0.81", 0.81 / 100.0), ("81%", 0.81), ("81/100", 0.81)]
    {
        assert_eq!(text_of_hundred(&format!("SCORE: {number}")), Some(score), "{number}");
    }
    assert_eq!(text_of_hundred("SCORE: 81 % NOVELTY: 2"), Some(0.81));
    assert_eq!(text_of_hundred("SCORE: 81 / 100."), Some(0.81));
}

#[test]
fn anything_else_is_no_score() {
    for number in [
        "8/10",
        "81%",
        "0.8e1",
        "0.8.1",
        "-0.2",
        "1.2",
        "81",
        "",
        ".",
        "..",
        "+0.8",
        "0,81",
        "NaN",
        "inf",
        "high",
        "0.8-0.9",
        "1 / 10",
        "1 (/10)",
        "0.8 %",
        "1 out of 10",
        "1 out of ten",
        "1 (out of 10)",
        "1 of 5",
        "0.7 - 0.8",
        "0.7 to 0.8",
        "0.7 or 0.8",
        "0.7 – 0.8",
        "0.7 ± .1",
        "1 000",
        "0.8*1",
        "0.8_1",
        "0.8,1",
        "0.8)1",
        "0.8x",
        "0.8?",
        "~0.8",
        "<0.8>",
        "1 percent",
        "0x1",
        "\u{661}",
        "1\u{661}",
    ] {
        assert_eq!(text(&format!("SCORE: {number}")), None, "{number}");
    }
    for number in ["8/10", "81/1000", "101", "81%5", "-1", "80 - 90", "81/100/2"] {
        assert_eq!(text_of_hundred(&format!("SCORE: {number}")), None, "{number}");
    }
}

#[test]
fn a_number_may_be_followed_by_punctuation_and_words() {
    for after in [
        ".",
        ",",
        ";",
        ")",
        "*",
        "**",
        ").",
        " good",
        ", 3 strong points",
        ". 3 strong points",
        " (strong hook)",
        " - good",
        " | NOVELTY: 0.4",
        ";NOVELTY=0.4",
        "\u{a0}good",
        " total",
    ] {
        assert_eq!(text(&format!("SCORE: 0.81{after}")), Some(0.81), "{after}");
    }
}

#[test]
fn the_label_may_be_written_in_many_ways() {
    for line in [
        "score:0.81",
        "Score = 0.81",
        "SCORE\t:\t0.81",
        "Final score: 0.81",
        "**SCORE:** 0.81",
        "**SCORE**: **0.81**",
        "`SCORE: 0.81`",
        "_SCORE: 0.81_",
        "### SCORE: 0.81",
        "- Score: 0.81",
        "(SCORE: 0.81)",
        "> SCORE: 0.81",
        "SCORE: `0.81`",
    ] {
        assert_eq!(text(line), Some(0.81), "{line}");
    }
}

#[test]
fn other_words_are_not_the_label() {
    for line in [
        "SUBSCORE: 0.81",
        "SUB_SCORE: 0.81",
        "SUB-SCORE: 0.81",
        "SCORES: 0.81",
        "SCOREBOARD: 0.81",
        "SCORE_1: 0.81",
        "ÄSCORE: 0.81",
        "PSYCHOLOGY SCORE: 0.81",
        "**Hook** score: 0.81",
        "SCORE 0.81",
        "SCORE is 0.81",
        "SCORE:: 0.81",
        "0.81",
        "SCORE",
        "",
    ] {
        assert_eq!(text(line), None, "{line}");
    }
    assert_eq!(text("SCORE: 0.81 NOVELTY SCORE: 0.2"), Some(0.81));
    assert_eq!(text("SCORE: 0.81 SUBSCORE: 0.2"), Some(0.81));
    assert_eq!(text("SCORE: 0.81 SCORE_MAX: 1"), Some(0.81));
}

#[test]
fn the_last_label_in_the_line_counts() {
    assert_eq!(text("not SCORE: 0.2 but SCORE: 0.8"), Some(0.8));
    assert_eq!(text("SCORE: 0.2, no, SCORE: high"), None);
    assert_eq!(text("SCORE: 0.2 is my SCORE"), None);
}

#[test]
fn the_last_line_that_says_anything_counts() {
    for end in ["", "\n", "\r\n\r\n", "\n```\n", "\n**\n", "\n  \n\t"] {
        assert_eq!(text(&format!("SCORE: 0.1\nSCORE: 0.8{end}")), Some(0.8), "{end:?}");
    }
    assert_eq!(text("SCORE: 0.8\nThat is all."), None);
    assert_eq!(text("SCORE:\n0.8"), None);
    assert_eq!(text("\n \n```"), None);
}

#[test]
fn sub_scores_stand_in_the_same_line() {
    let read = |line: &str| Scores::from_text(line, ScoreScale::One).sub_scores;
    let all = SubScores { psychology: Some(0.1), hook_strength: Some(0.2), novelty: Some(0.3) };
    for hook in ["HOOK", "Hook strength", "HOOKSTRENGTH", "hook_strength", "hookStrength"] {
        let line = format!("SCORE: 0.5 Psychology: 0.1, {hook}: 0.2 | NOVELTY=.3");
        assert_eq!(read(&line), all, "{hook}");
    }
    assert_eq!(
        read("HOOK: 0.2 SCORE: 0.5"),
        SubScores { hook_strength: Some(0.2), ..<_>::default() }
    );
    assert_eq!(read("NOVELTY: 0.3\nSCORE: 0.5 HOOK: 2 PSYCHOLOGY: N"), SubScores::default());
}

#[test]
fn sub_scores_do_not_count_without_a_score() {
    assert_eq!(Scores::from_text("I like NOVELTY: 1 of many", ScoreScale::One), Scores::default());
    assert_eq!(Scores::from_text("SCORE: 8/10 HOOK: 0.8", ScoreScale::One), Scores::default());
    let text = r#"{"score":8,"novelty":0.8}"#;
    assert_eq!(Scores::from_json(text, ScoreScale::One), Scores::default());
}

#[test]
fn a_field_holds_a_number_on_the_scale() {
    for (value, score) in
        [("0.81", 0.81), ("1", 1.0), ("8.1e-1", 0.81), ("\"0.81\"", 0.81), ("\" .81 \"", 0.81)]
    {
        assert_eq!(json(&format!("{{\"score\":{value}}}")), Some(score), "{value}");
    }
    let zero = json(r#"{"score":-0.0}"#).unwrap();
    assert!(zero.is_sign_positive());
    let hundred = Scores::from_json(r#"{"score":81,"novelty":0.5}"#, ScoreScale::Hundred);
    assert_eq!((hundred.score, hundred.sub_scores.novelty), (Some(0.81), Some(0.005)));
}

#[test]
fn any_other_field_is_no_score() {
    for value in [
        "1.2",
        "81",
        "-0.2",
        "1e999",
        "NaN",
        "null",
        "true",
        "[0.8]",
        "{\"value\":0.8}",
        "\"\"",
        "\"8/10\"",
        "\"81%\"",
        "\"0.8e0\"",
        "\"-0\"",
        "\"0.8.\"",
        "\"high\"",
        "\"NaN\"",
        "0.8.1",
        ".8",
    ] {
        assert_eq!(json(&format!("{{\"score\":{value}}}")), None, "{value}");
    }
    for text in
        ["", "{", "[]", "0.8", "{\"Score\":0.8}", "{\"a\":{\"score\":0.8}}", "{\"score\":0.8"]
    {
        assert_eq!(json(text), None, "{text}");
    }
}

#[test]
fn a_field_that_is_there_twice_is_not_read() {
    assert_eq!(json(r#"{"score":0.2,"score":0.9}"#), None);
}

#[test]
fn what_is_wrong_elsewhere_does_not_hide_the_score() {
    for text in [
        "{\"reasoning\":\"two\nlines\",\n\t\"score\":0.8}",
        r#"{"reasoning":"\ud83d","score":0.8}"#,
        r#"{"reasoning":1,"reasoning":2,"score":0.8}"#,
        r#"{"score":0.8,"novelty":"new"} and so on"#,
        "{\"score\":0.8}\n```",
    ] {
        assert_eq!(json(text), Some(0.8), "{text}");
    }
}

#[test]
fn the_schema_is_strict_and_asks_for_the_reasoning_first() {
    let schema = schema(ScoreScale::Hundred);
    let names: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["reasoning", "score", "psychology", "hookStrength", "novelty"]);
    assert_eq!(schema["required"], serde_json::json!(names));
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["score"]["type"], "number");
    assert_eq!(schema["properties"]["novelty"]["type"], serde_json::json!(["number", "null"]));
    let keys: Vec<_> = schema["properties"]["score"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["type", "description"]);
    assert!(schema["properties"]["score"]["description"].as_str().unwrap().contains("to 100 "));
}

#[test]
fn the_line_that_is_demanded_can_be_read() {
    let demand = demand(ScoreScale::One);
    assert!(demand.contains("to 1 (best)"), "{demand}");
    let line = demand.lines().find(|line| line.starts_with("SCORE: ")).unwrap();
    let scores = Scores::from_text(
        &line.replace('N', "0.5").replace("0.5OVELTY", "NOVELTY"),
        ScoreScale::One,
    );
    let half = Some(0.5);
    let sub_scores = SubScores { psychology: half, hook_strength: half, novelty: half };
    assert_eq!(scores, Scores { score: half, sub_scores });
    assert_eq!(Scores::from_text(line, ScoreScale::One), Scores::default());
}

proptest! {
    #[test]
    fn what_is_read_was_written(before in "[ a-z*]{0,9}", number in "[0-9./%e, -]{0,6}", after in "[ .;)*a-z]{0,9}") {
        let read = text(&format!("{before} SCORE: {number}{after}"));
        if let Some(score) = read {
            prop_assert!((0.0..=1.0).contains(&score));
            let written: String = number.trim().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            prop_assert_eq!(written.trim_end_matches('.').parse(), Ok(score));
        }
    }

    #[test]
    fn a_score_survives_being_written(score in 0.0..=1.0_f64) {
        prop_assert_eq!(text(&format!("SCORE: {score}")), Some(score));
        let object = serde_json::json!({ "score": score });
        let read = json(&object.to_string()).unwrap();
        prop_assert!((read - score).abs() <= f64::EPSILON);
    }

    #[test]
    fn never_panics(text in "(?s).{0,40}", label in "(SCORE|HOOK)[:=]? ?") {
        let text = format!("{text}{label}{text}");
        for scale in [ScoreScale::One, ScoreScale::Hundred] {
            let read = [Scores::from_text(&text, scale), Scores::from_json(&text, scale)];
            prop_assert!(read.iter().all(|scores| scores.score.is_none_or(|s| (0.0..=1.0).contains(&s))));
        }
    }
}
