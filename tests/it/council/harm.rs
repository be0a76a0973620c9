//! Providers that mean harm, or count in ways of their own: numbers beyond all measure, refusals
//! without end, ends with a misleading name. The run ends all the same, says what happened, and stays small.

use serde_json::{Value, json};

use super::{ASK, Watcher, gateway, member};
use crate::support::models::chat::{last_words, word};
use crate::support::models::{Piece, Replay, Script};

/// A run of these members, each with further settings, to its end.
async fn hear(council: &str, members: &[(&str, &str, &Replay)]) -> Watcher {
    let names: Vec<_> = members.iter().map(|(name, ..)| name).collect();
    let declared = members.iter().map(|(name, more, upstream)| {
        member(name, "openai-chat", &upstream.url("/v1"), &format!("schema = false\n{more}"))
    });
    let config = format!("[council]\nmembers = {names:?}\n{council}\n");
    let config = config + &declared.collect::<String>();
    Watcher::watch(&gateway(&config).await, ASK).await
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// The last chunk of an answer, with so many tokens of output.
fn counted(tokens: u64) -> String {
    let stop = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": tokens}});
    data(&stop) + "data: [DONE]\n\n"
}

fn says(text: String) -> Script {
    Script::stream(vec![Piece::from(text)])
}

fn end_of<'a>(run: &'a Watcher, member: &str) -> (&'a str, &'a Value) {
    (run.ends[member]["end"].as_str().unwrap(), &run.ends[member]["code"])
}

#[tokio::test]
async fn a_time_to_wait_beyond_all_measure_is_an_end_like_others() {
    for after in ["18446744073709549568", "100000000000000000"] {
        let header = format!("retry-after: {after}");
        let busy = Script::answer("429 Too Many Requests", &[&header], Vec::new());
        let busy = Replay::start(vec![busy]).await;
        let run = hear("", &[("busy", "", &busy)]).await;
        assert_eq!(end_of(&run, "busy").0, "rate_limited");
        assert_eq!(run.ends["busy"]["retryAfterMs"], 365_u64 * 24 * 60 * 60 * 1000);
    }
}

#[tokio::test]
async fn counts_beyond_all_measure_stay_there() {
    let one = Replay::start(vec![says(word("One.") + &counted(u64::MAX))]).await;
    let run = hear("", &[("one", "", &one), ("two", "", &one)]).await;
    assert_eq!(run.ends["complete"]["usage"]["outputTokens"], u64::MAX);
}

#[tokio::test]
async fn a_refusal_is_told_in_one_line_however_long_it_is() {
    let part = json!({"choices": [{"index": 0, "delta": {"refusal": "no!\n ".repeat(100_000)}}]});
    let part = data(&part);
    let long = Replay::start(vec![says(part.repeat(10) + &last_words())]).await;
    let run = hear("", &[("long", "", &long)]).await;
    assert_eq!(end_of(&run, "long").0, "refused");
    let told = run.ends["long"]["thinking"].as_str().unwrap();
    assert!(told.starts_with("Error: the model refused: no! no! "), "{told}");
    assert!(told.chars().count() < 400 && !told.contains('\n'), "{told}");
}

#[tokio::test]
async fn an_error_is_no_answer_whatever_its_provider_calls_it() {
    let error = data(&json!({"error": {"code": "length", "message": "It broke."}}));
    let broken = Replay::start(vec![says(word("{\"score\": 0.9}") + &error)]).await;
    let run = hear("", &[("broken", "", &broken)]).await;
    assert_eq!(end_of(&run, "broken"), ("upstream_error", &json!("length")));
    assert_eq!(run.ends["broken"]["thinking"], "Error: It broke.");
    assert_eq!(run.ends["complete"]["status"], "failed");
}

#[tokio::test]
async fn what_ends_without_a_word_is_no_answer() {
    let stop = |reason: &str| {
        data(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
    };
    // Its tokens were spent on thoughts.
    let thinker = Replay::start(vec![says(stop("length"))]).await;
    // It leaves the connection open.
    let mute = vec![Piece::from(stop("stop")), Piece::Stall];
    let mute = Replay::start(vec![Script::stream(mute)]).await;
    let run = hear("", &[("thinker", "", &thinker), ("mute", "", &mute)]).await;
    assert_eq!(end_of(&run, "thinker"), ("truncated", &json!("empty")));
    assert_eq!(end_of(&run, "mute"), ("upstream_error", &json!("empty")));
    assert_eq!(run.ends["complete"]["status"], "failed");
}

#[tokio::test]
async fn of_sources_beyond_number_a_hundred_are_told() {
    let sources: Vec<_> = (0..40_000).map(|n| format!("https://{n}.example")).collect();
    let chunk = data(&json!({"citations": sources, "choices": []}));
    let many = Replay::start(vec![says(word("Yes.") + &chunk + &last_words())]).await;
    let run = hear("", &[("many", "", &many)]).await;
    let told = run.ends["many"]["citations"].as_array().unwrap();
    assert_eq!((told.len(), &told[0]), (100, &json!("https://0.example")));
}

#[tokio::test]
async fn money_that_is_spent_buys_no_further_request() {
    let price = "input_price = 0.0\noutput_price = 1_000_000.0";
    let [one, two] = ["One.", "Two."].map(|text| vec![says(word(text) + &counted(8))]);
    let (one, two) = (Replay::start(one).await, Replay::start(two).await);
    let members = [("one", price, &one), ("two", price, &two)];
    let run = hear("budget = 10.0\ndeliberate = true", &members).await;
    for name in ["one", "two"] {
        assert_eq!(end_of(&run, name).0, "ok", "what is whole has been paid");
    }
    for stage in ["ranking:one", "ranking:two", "synthesis"] {
        assert_eq!(end_of(&run, stage), ("budget", &json!("budget")));
    }
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1));
    assert_eq!(run.ends["complete"]["cost"], 16.0);
}
