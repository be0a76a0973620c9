use proptest::prelude::*;

use super::*;

/// What each of the pieces makes visible, and what the end does.
fn shown(pieces: &[&str]) -> Vec<String> {
    let mut answer = Answer::new(usize::MAX);
    let mut shown: Vec<_> =
        pieces.iter().map(|piece| answer.push(piece).unwrap().to_owned()).collect();
    shown.push(answer.rest().to_owned());
    assert_eq!(shown.concat(), answer.shown());
    shown
}

fn whole(text: &str) -> String {
    shown(&[text]).concat()
}

fn judged(text: &str) -> Judgement {
    let mut answer = Answer::new(usize::MAX);
    answer.push(text).unwrap();
    answer.finish(ScoreScale::One)
}

#[test]
fn text_is_shown_without_delay() {
    assert_eq!(shown(&["G", "ood", ".\nSCORE: 0.8"]), ["G", "ood", ".\nSCORE: 0.8", ""]);
}

#[test]
fn white_space_waits_until_it_is_known_what_follows() {
    assert_eq!(shown(&[" ", "\n", "x "]), ["", "", " \nx ", ""]);
    assert_eq!(shown(&[" \n"]), ["", " \n"]);
    assert_eq!(shown(&[" \n", " {\"reasoning\":\"x"]), ["", "x", ""]);
    assert_eq!(shown(&[]), [""]);
}

#[test]
fn reasoning_is_shown_as_it_comes() {
    let pieces = ["{\"rea", "soning\": \"It", " wor", "ks\",\"score\":", "0.5}"];
    assert_eq!(shown(&pieces), ["", "It", " wor", "ks", "", ""]);
}

#[test]
fn half_an_escape_waits_for_the_other_half() {
    let pieces = ["{\"reasoning\":\"a\\", "nb\\u00", "e9\\ud83d", "\\ude", "00\""];
    assert_eq!(shown(&pieces), ["a", "\nb", "é", "", "😀", ""]);
}

#[test]
fn every_escape_is_decoded() {
    let text = r#"{"reasoning":"\"\\\/\b\f\n\r\t\u0041\uD83D\uDE00"}"#;
    assert_eq!(whole(text), "\"\\/\u{8}\u{c}\n\r\tA😀");
}

#[test]
fn half_a_character_is_replaced() {
    for (text, expected) in [
        (r#"{"reasoning":"\ud83dx"}"#, "\u{fffd}x"),
        (r#"{"reasoning":"\ud83d"}"#, "\u{fffd}"),
        (r#"{"reasoning":"\ud83d\n"}"#, "\u{fffd}\n"),
        (r#"{"reasoning":"\ude00x"}"#, "\u{fffd}x"),
        (r#"{"reasoning":"\ud83d\ud83d\ude00"}"#, "\u{fffd}😀"),
        (r#"{"reasoning":"\ud83d\u0041"}"#, "\u{fffd}A"),
        (r#"{"reasoning":"\u00zx"}"#, "\u{fffd}zx"),
        (r#"{"reasoning":"\u00"}"#, "\u{fffd}"),
        (r#"{"reasoning":"\ud83d\u00"}"#, "\u{fffd}\u{fffd}"),
    ] {
        assert_eq!(whole(text), expected, "{text}");
    }
}

#[test]
fn what_json_forbids_in_a_string_is_shown_as_it_is() {
    assert_eq!(whole("{\"reasoning\":\"a\nb\\'c\"}"), "a\nb'c");
}

#[test]
fn what_an_answer_left_half_written_is_not_shown() {
    for end in ["\\", "\\u12", "\\ud83d", "\\ud83d\\", "\\ud83d\\ude0"] {
        assert_eq!(whole(&format!("{{\"reasoning\":\"a{end}")), "a", "{end}");
    }
}

#[test]
fn other_fields_are_passed_over() {
    for before in [
        r#""a":"reasoning","#,
        r#""a":"\"reasoning\":\"no\"","#,
        r#""a":"\\","#,
        r#""a":{"reasoning":"no"},"#,
        r#""a":[{"reasoning":"no"},["]}",{}],[]],"#,
        r#""a":-1.5e3 , "b" : true,"c":null,"#,
        r#""a":"","":{"b":{"c":[1,2,{"d":"}"}]}},"#,
        r#""Reasoning":"no","reasoning ":"no","#,
        r#""reasoning":null,"reasoning":["no"],"#,
    ] {
        let text =
            format!("{{ {before}\n\t\"reasoning\" : \"yes\",\"z\":{{\"reasoning\":\"no\"}}}}");
        assert_eq!(whole(&text), "yes", "{before}");
    }
}

#[test]
fn an_escaped_name_is_the_same_name() {
    assert_eq!(whole(r#"{"reason\u0069ng":"yes"}"#), "yes");
}

#[test]
fn only_the_first_reasoning_is_shown() {
    assert_eq!(whole(r#"{"reasoning":"yes","reasoning":"no"}{"reasoning":"no"}"#), "yes");
}

#[test]
fn empty_reasoning_is_reasoning() {
    assert_eq!(whole(r#"{"reasoning":"","score":0.5}"#), "");
}

#[test]
fn a_fence_around_an_object_is_passed_over() {
    for fence in ["```json\n", "```json\r\n", "```\n", " \n```json \n\n", "```"] {
        let text = format!("{fence}{{\"reasoning\":\"yes\",\"score\":0.5}}\n```\n");
        assert_eq!(whole(&text), "yes", "{fence:?}");
        assert_eq!(judged(&text).given.score, Some(0.5), "{fence:?}");
    }
    assert_eq!(shown(&["``", "`js", "on", "\n", "{\"reasoning\":\"x"]), ["", "", "", "", "x", ""]);
}

#[test]
fn a_fence_around_anything_else_is_text() {
    for text in ["```rust\nfn", "```json\nx", "``` x", "`x`", "```", "```json\n", "```json```json{"]
    {
        assert_eq!(whole(text), text);
    }
    assert_eq!(shown(&["```js", "\n"]), ["", "```js\n", ""]);
}

#[test]
fn an_object_without_reasoning_is_shown_as_it_is_written() {
    let text = "```json\n{\"score\":0.5}\n```";
    assert_eq!(whole(text), text);
    assert_eq!(shown(&["{\"score\":0.5", "}", "\n"]), ["", "{\"score\":0.5}", "\n", ""]);
    assert_eq!(shown(&["{\"score\":0."]), ["", "{\"score\":0."]);
    let judgement = judged(text);
    assert_eq!(judgement.reasoning, text);
    assert_eq!(
        (judgement.given.score, judgement.given.source),
        (Some(0.5), ScoreSource::JsonSchema)
    );
}

#[test]
fn what_only_looks_like_an_object_is_text_as_soon_as_that_shows() {
    assert_eq!(shown(&["{", "brand", "} it"]), ["", "{brand", "} it", ""]);
    assert_eq!(shown(&["{\"Wow\"", " is"]), ["", "{\"Wow\" is", ""]);
    let judgement = judged("{brand} works.\nSCORE: 0.8");
    assert_eq!((judgement.given.score, judgement.given.source), (Some(0.8), ScoreSource::Pattern));
}

#[test]
fn a_broken_object_keeps_the_reasoning_it_had() {
    assert_eq!(whole(r#"{"reasoning":"a "b" c","score":0.5}"#), "a ");
    assert_eq!(whole(r#"{"reasoning":"a",score:0.5}"#), "a");
    assert_eq!(judged(r#"{"reasoning":"a "b" c","score":0.5}"#).given.score, None);
}

#[test]
fn a_whole_object_is_judged_by_its_fields() {
    let judgement = judged(
        r#"{"reasoning":"Good.","score":0.81,"psychology":0.8,"hookStrength":null,"novelty":0}"#,
    );
    let sub_scores = SubScores { psychology: Some(0.8), hook_strength: None, novelty: Some(0.0) };
    let (score, source) = (Some(0.81), ScoreSource::JsonSchema);
    assert_eq!(
        judgement,
        Judgement { reasoning: "Good.".to_owned(), given: Given { score, source, sub_scores } }
    );
}

#[test]
fn text_is_judged_by_its_last_line() {
    let judgement = judged("Good.\n\n**SCORE: 0.81** NOVELTY: 0.2\n");
    assert_eq!(judgement.reasoning, "Good.\n\n**SCORE: 0.81** NOVELTY: 0.2\n");
    assert_eq!((judgement.given.score, judgement.given.source), (Some(0.81), ScoreSource::Pattern));
    assert_eq!(judgement.given.sub_scores.novelty, Some(0.2));
}

#[test]
fn a_score_quoted_in_an_object_is_not_the_score() {
    for text in [
        r#"{"reasoning":"A SCORE: 0.9 would be too much"}"#,
        r#"{"note":"A SCORE: 0.9 would be too much"}"#,
        r#"{"note":"A SCORE: 0.9 "#,
        r#"{"reasoning":"x","score":1.2,"note":"SCORE: 0.9 "}"#,
    ] {
        let judgement = judged(text);
        assert_eq!(
            (judgement.given.score, judgement.given.source),
            (None, ScoreSource::None),
            "{text}"
        );
    }
}

#[test]
fn an_object_that_was_cut_has_no_score() {
    let judgement = judged(r#"{"reasoning":"Good.","score":0.8"#);
    assert_eq!((judgement.reasoning.as_str(), judgement.given.score), ("Good.", None));
}

#[test]
fn an_empty_answer_says_nothing() {
    let judgement = Answer::new(10).finish(ScoreScale::One);
    assert_eq!(judgement.reasoning, "");
    assert_eq!((judgement.given.score, judgement.given.source), (None, ScoreSource::None));
}

#[test]
fn a_piece_that_is_too_much_is_not_taken() {
    let mut answer = Answer::new(5);
    assert_eq!(answer.push("abc"), Ok("abc"));
    assert_eq!(answer.push("def"), Err(TooLong));
    assert_eq!(answer.push("de"), Ok("de"));
    assert_eq!(answer.push("f"), Err(TooLong));
    assert_eq!(answer.shown(), "abcde");
}

#[test]
fn a_million_blanks_one_by_one_are_looked_at_once_each() {
    let mut answer = Answer::new(usize::MAX);
    for _ in 0..1_000_000 {
        assert_eq!(answer.push(" "), Ok(""));
    }
    assert_eq!(answer.push("x").unwrap().len(), 1_000_001);
}

#[test]
fn sources_have_their_names_on_the_wire() {
    let sources = [ScoreSource::JsonSchema, ScoreSource::Pattern, ScoreSource::None];
    assert_eq!(sources.map(ScoreSource::as_str), ["json_schema", "pattern", "none"]);
}

/// Full of what is special somewhere.
fn odd_text() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        "\\u",
        "d83d",
        "\\ude00",
        "\\n",
        ":",
        ",",
        " ",
        "\n",
        "```",
        "json",
        "\"reasoning\"",
        "{\"reasoning\":\"",
        "0.5",
        "é",
        "😀",
        "x",
        "SCORE: 0.5",
    ]);
    prop::collection::vec(token, 0..20).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn the_pieces_do_not_matter(text in odd_text(), cuts in prop::collection::vec(0_usize..8, 60)) {
        let mut answer = Answer::new(usize::MAX);
        let mut shown = String::new();
        let mut rest = text.as_str();
        for cut in cuts {
            let at = rest.char_indices().nth(cut).map_or(rest.len(), |(at, _)| at);
            let (piece, after) = rest.split_at(at);
            shown.push_str(answer.push(piece).unwrap());
            prop_assert_eq!(&shown, answer.shown());
            rest = after;
        }
        shown.push_str(answer.push(rest).unwrap());
        shown.push_str(answer.rest());
        prop_assert_eq!(&shown, answer.shown());
        prop_assert_eq!(&shown, &whole(&text));
        let judgement = answer.finish(ScoreScale::One);
        prop_assert_eq!(&judgement.reasoning, &shown);
        prop_assert_eq!(judgement, judged(&text));
    }

    #[test]
    fn any_object_shows_its_reasoning(reasoning in any::<String>(), other in any::<String>(), pretty: bool) {
        let nested = serde_json::json!({ &other: { "reasoning": &other } });
        let object = serde_json::json!({ "other": [nested, other], "reasoning": reasoning, "score": 0.5 });
        let text = if pretty { format!("{object:#}") } else { object.to_string() };
        let judgement = judged(&text);
        prop_assert_eq!(judgement.reasoning, reasoning);
        prop_assert_eq!(judgement.given.score, Some(0.5));
    }
}
