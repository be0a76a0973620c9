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
