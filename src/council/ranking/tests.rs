use proptest::prelude::*;

use super::*;

fn ranked(text: &str) -> Option<Vec<usize>> {
    read(text, &labels(3))
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn labels_go_on_after_z() {
    let labels = labels(704);
    let at = [0, 25, 26, 27, 51, 52, 701, 702]
        .map(|n: usize| labels[n].strip_prefix("Response ").unwrap());
    assert_eq!(at, ["A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]);
}

#[test]
fn a_member_sees_the_answers_of_the_others_without_names() {
    let answers = [("gpt4", "one"), ("claude", " two\n"), ("gemini", "three")]
        .map(|(m, t)| (m.to_owned(), t.to_owned()));
    let Anonymised { prompt, members } = anonymised(&answers, "claude", &[2, 1, 0]);
    assert_eq!(members, ["gemini", "gpt4"]);
    assert!(
        prompt.contains("\n=== Response A ===\nthree\n\n=== Response B ===\none\n"),
        "{prompt}"
    );
    for hidden in ["two", "gpt4", "claude", "gemini", "Response C"] {
        assert!(!prompt.contains(hidden), "{hidden}");
    }
    assert!(prompt.contains("FINAL RANKING:"));
    assert!(prompt.contains("(Response A, Response B)"));
}

#[test]
fn an_order_may_leave_answers_out() {
    let answers = [("a", "one"), ("b", "two")].map(|(m, t)| (m.to_owned(), t.to_owned()));
    assert_eq!(anonymised(&answers, "c", &[7, 1]).members, ["b"]);
    assert!(anonymised(&answers, "c", &[]).members.is_empty());
}

#[test]
fn a_ranking_may_be_written_in_many_ways() {
    for list in [
        "\n1. Response B\n2. Response C\n3. Response A",
        "\n1) Response B\n2) Response C\n3) Response A\n",
        "\r\n1. Response B\r\n2. Response C\r\n3. Response A\r\n",
        "\n\n- Response B\n- Response C\n\n- Response A",
        "\n* **Response B**\n* **Response C**\n* **Response A**",
        "\n**1. Response B**\n**2. Response C**\n**3. Response A**",
        "\nResponse B\nResponse C\nResponse A",
        "\nresponse b\nRESPONSE C\nResponse a",
        " Response B > Response C > Response A.",
        " Response B, Response C, Response A",
        " 1. Response B, 2. Response C, 3. Response A",
        " 1. Response B 2. Response C 3. Response A",
        "\nResponse B -> Response C → Response A",
        "\n1. Response B - the best\n2. Response C (good)\n3. Response A, because it is short",
        "\n1. Response B: better than Response A\n2. Response C\n3. Response A",
        "\n1. Response B\n   It beats Response A.\n2. Response C\n   - Response A: worse\n3. Response A",
        "\n3. Response A\n2. Response C\n1. Response B",
        "\n1. Response B\n1. Response C\n1. Response A",
        "\nFrom the best to the worst:\n1. Response B\n2. Response C\n3. Response A",
        "\n1. Response B > Response C\n2. Response A",
    ] {
        assert_eq!(
            ranked(&format!("Text.\n\n**FINAL RANKING:**{list}")),
            Some(vec![1, 2, 0]),
            "{list}"
        );
    }
}

#[test]
fn the_last_marker_counts_in_any_case() {
    let text = "FINAL RANKING:\n1. Response A\n\nNo. Final Ranking\n1. Response C\n2. Response B";
    assert_eq!(ranked(text), Some(vec![2, 1]));
    assert_eq!(ranked("FINAL RANKING:\n1. Response A\nThis is my final ranking."), None);
}

#[test]
fn without_a_marker_or_a_label_there_is_no_ranking() {
    for text in [
        "",
        "1. Response A\n2. Response B",
        "FINAL RANKING:",
        "FINAL RANKING:\n1. A\n2. B",
        "FINAL RANKING:\n1. Response Z",
        "FINAL RANKING:\nThey are all good.",
    ] {
        assert_eq!(ranked(text), None, "{text}");
    }
}

#[test]
fn a_repeated_label_counts_where_it_is_first() {
    assert_eq!(ranked("FINAL RANKING: Response B > Response A > Response B"), Some(vec![1, 0]));
}

#[test]
fn unknown_labels_are_passed_over() {
    let text = "FINAL RANKING:\n1. Response Z\n2. Response AA\n3. Response C\n4. Response A";
    assert_eq!(ranked(text), Some(vec![2, 0]));
    assert_eq!(ranked("FINAL RANKING: Response Z > Response B"), Some(vec![1]));
}

#[test]
fn prose_ranks_nothing() {
    for after in [
        "Response C was off the topic.",
        "Response C's case is weak.",
        "Response C: off the topic",
        "I could not judge Response C.",
        "Reasons:\n1. Response C - none",
        "- Response C was off the topic",
    ] {
        let numbered = format!("FINAL RANKING:\n1. Response B\n2. Response A\n\n{after}");
        assert_eq!(ranked(&numbered), Some(vec![1, 0]), "{after}");
    }
    for after in [
        "Response C was off the topic.",
        "Response C: off the topic",
        "- Response C was off the topic",
        "- Response C's case is weak",
        "- Response C’s case is weak",
    ] {
        let bare = format!("FINAL RANKING: Response B > Response A\n{after}");
        assert_eq!(ranked(&bare), Some(vec![1, 0]), "{after}");
    }
    assert_eq!(ranked("My FINAL RANKING has Response A, Response B"), None);
    assert_eq!(ranked("FINAL RANKING: Response A and Response B are equal"), None);
}

#[test]
fn labels_of_two_letters_are_not_those_of_one() {
    let text = "FINAL RANKING: Response AA > Response A";
    assert_eq!(read(text, &labels(27)), Some(vec![26, 0]));
}

#[test]
fn the_lower_mean_of_places_is_better() {
    let members = owned(&["a", "b", "c"]);
    let rankings = [owned(&["b", "c"]), owned(&["c", "a"]), owned(&["b", "a"])];
    let standing = |member: &str, average_rank, votes| Standing {
        member: member.to_owned(),
        average_rank,
        votes,
    };
    let expected = [standing("b", 1.0, 2), standing("c", 1.5, 2), standing("a", 2.0, 2)];
    assert_eq!(average(&members, &rankings), expected);
}

#[test]
fn equal_members_keep_their_order() {
    let members = owned(&["x", "b", "a"]);
    let names = |rankings: &[Vec<String>]| -> Vec<_> {
        average(&members, rankings).into_iter().map(|standing| standing.member).collect()
    };
    assert_eq!(names(&[owned(&["a", "b", "x"]), owned(&["x", "b", "a"])]), ["x", "b", "a"]);
}

#[test]
fn who_was_not_ranked_has_no_standing() {
    let members = owned(&["a", "b"]);
    assert_eq!(average(&members, &[owned(&["b", "stranger"])]).len(), 1);
    assert!(average(&members, &[]).is_empty());
}

proptest! {
    #[test]
    fn a_list_is_read_as_it_was_written(order in Just((0..30).collect::<Vec<usize>>()).prop_shuffle(), inline: bool) {
        let labels = labels(30);
        let line = |(n, index): (usize, &usize)| {
            if inline { labels[*index].clone() } else { format!("{n}. {}", labels[*index]) }
        };
        let lines: Vec<_> = (1..).zip(&order).map(line).collect();
        let list = lines.join(if inline { " > " } else { "\n" });
        prop_assert_eq!(read(&format!("FINAL RANKING:\n{list}"), &labels), Some(order));
    }

    #[test]
    fn never_panics_nor_ranks_twice(text in "(?s)(.|Response [A-D]|[0-9]{1,12}[.)]|FINAL RANKING:|\n){0,30}") {
        let ranking = ranked(&format!("FINAL RANKING: {text}")).unwrap_or_default();
        let mut once = ranking.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), ranking.len());
        prop_assert!(ranking.iter().all(|index| *index < 3));
    }
}
