//! Each dialect against `aimock`, which speaks them all: the merged stream in the shape of the
//! contract, every end by its name, what is asked again, and what it has cost.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ASK, Watcher, gateway, member};
use crate::support::TestGateway;
use crate::support::models::Aimock;

const CHAT: (&str, &str) = ("openai-chat", "/v1");
const RESPONSES: (&str, &str) = ("openai-responses", "/v1");
const ANTHROPIC: (&str, &str) = ("anthropic", "/v1");
const GEMINI: (&str, &str) = ("gemini", "/v1beta");
const ROUTER: (&str, &str) = ("openai-chat", "/api/v1");

/// What the model of a member says, in small pieces.
fn says(member: &str, response: Value) -> Value {
    let mut says = json!({"match": {"model": format!("{member}-1")}, "chunkSize": 7, "latency": 2});
    says["response"] = response;
    says
}

/// The same, the n-th time that it is asked.
fn says_at(n: usize, member: &str, response: Value) -> Value {
    let mut says = says(member, response);
    says["match"]["sequenceIndex"] = json!(n);
    says
}

fn error(status: u16, kind: &str, retry_after: Option<u64>) -> Value {
    let error = json!({"message": format!("no: {kind}"), "type": kind, "code": kind});
    json!({"error": error, "status": status, "retryAfter": retry_after})
}

/// A council of these members, each with its dialect and further settings.
async fn council(aimock: &Aimock, members: &[(&str, (&str, &str), &str)]) -> TestGateway {
    let names: Vec<_> = members.iter().map(|(name, ..)| *name).collect();
    let config = members
        .iter()
        .map(|(name, (dialect, path), more)| member(name, dialect, &aimock.url(path), more));
    gateway(&format!("council.members = {names:?}\n{}", config.collect::<String>())).await
}

/// How often the model of a member was asked.
async fn asked(aimock: &Aimock, member: &str) -> usize {
    let model = format!("{member}-1");
    aimock.journal().await.iter().filter(|request| request["body"]["model"] == *model).count()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// What the reference says, field by field (golden/council-score.txt): ours may only follow, or
/// stand in events that its clients do not see.
pub(super) fn has_the_shape_of_the_contract(run: &Watcher, members: &[&str]) {
    let starts: Vec<_> = run.plain[..members.len()].iter().map(|start| &start["stage"]).collect();
    assert_eq!(starts, members, "each member begins, in the order of the settings");
    let (complete, others) = run.plain.split_last().unwrap();
    let (aggregating, of_members) = others.split_last().unwrap();
    for event in of_members {
        assert_eq!(event["stage"], event["model"]);
        let first = ["type", "stage", "model"];
        let then = match (event.get("score"), event.get("reasoning"), event["isComplete"] == true) {
            (Some(_), _, true) => &["score", "reasoning", "isComplete", "timestamp"][..],
            (None, Some(_), true) => &["reasoning", "isComplete", "timestamp"],
            (_, _, is_complete) => {
                let text = event["thinking"].as_str().unwrap();
                assert!(!is_complete || text.starts_with("Error: "), "{event}");
                &["thinking", "isComplete", "timestamp"]
            }
        };
        let golden = [&first, then].concat();
        let keys = keys(event);
        assert_eq!(&keys[..golden.len()], golden, "{event}");
        assert!(event["isComplete"] == true || keys.len() == golden.len(), "{event}");
    }
    assert_eq!(keys(aggregating), ["type", "stage", "thinking", "isComplete", "timestamp"]);
    assert_eq!(aggregating["stage"], "aggregating");
    assert_eq!(aggregating["thinking"], "Aggregating scores from all models...");
    assert_eq!(
        keys(complete)[..5],
        ["type", "stage", "isComplete", "finalScore", "timestamp"],
        "{complete}"
    );
    let data = run.complete.as_ref().unwrap();
    assert_eq!(data.as_object().unwrap().len(), 2, "scores and compositeScore: {data}");
    for score in data["scores"].as_array().unwrap() {
        assert!(
            [&["model", "score", "reasoning"][..], &["model", "reasoning"]]
                .contains(&&*keys(score))
        );
    }
    assert_eq!(complete["finalScore"]["composite"], data["compositeScore"]);
    // What an unmodified client is told is of one type; the rest has names it does not listen to.
    assert!(run.plain.iter().all(|event| event["type"] == "council_score_stream"));
    let names: BTreeSet<_> = run.notices.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.is_subset(&BTreeSet::from(["council_run", "council_aggregate"])), "{names:?}");
    assert!(names.contains("council_run"));
}

#[tokio::test]
async fn members_of_every_dialect_are_heard_on_one_stream() {
    let said = |model: &str, text: &str| says(model, json!({"content": text}));
    let aimock = Aimock::start(&json!([
        said("gemini", "A strong hook.\nSCORE: 0.81 PSYCHOLOGY: 0.7 HOOK: 0.9"),
        said("claude", "It convinces.\nSCORE: 0.72"),
        said("gpt4", "{\"reasoning\":\"It interrupts.\",\"score\":0.9}"),
        said("responses", "Novel enough.\nSCORE: 0.6"),
        said("router", "Routed.\nSCORE: 0.5"),
    ]))
    .await;
    let members = [
        ("gemini", GEMINI, ""),
        ("claude", ANTHROPIC, ""),
        ("gpt4", CHAT, "weight = 2"),
        ("responses", RESPONSES, ""),
        ("router", ROUTER, ""),
    ];
    let gateway = council(&aimock, &members).await;
    let run = Watcher::watch(&gateway, ASK).await;
    has_the_shape_of_the_contract(&run, &members.map(|(name, ..)| name));
    assert_eq!(run.texts["gemini"], "A strong hook.\nSCORE: 0.81 PSYCHOLOGY: 0.7 HOOK: 0.9");
    assert_eq!(run.texts["gpt4"], "It interrupts.");
    assert_eq!(run.ends["gpt4"]["scoreSource"], "json_schema");
    assert_eq!(run.ends["claude"]["scoreSource"], "pattern");
    let complete = run.complete.as_ref().unwrap();
    assert_eq!(complete["scores"].as_array().unwrap().len(), 5, "{complete}");
    assert_eq!(
        complete["scores"][1],
        json!({"model": "claude", "score": 0.72, "reasoning": "It convinces.\nSCORE: 0.72"})
    );
    let composite = (0.81 + 0.72 + 2.0 * 0.9 + 0.6 + 0.5) / 6.0;
    assert!((complete["compositeScore"].as_f64().unwrap() - composite).abs() < 1e-9);
    let score = &run.plain.last().unwrap()["finalScore"];
    assert_eq!(keys(score), ["composite", "psychology", "hookStrength"], "nobody gave a novelty");
    assert_eq!(score["hookStrength"], json!({"strength": 0.9}));
    assert_eq!(aimock.journal().await.len(), 5);
}

#[tokio::test]
async fn members_answer_at_the_same_time() {
    let slowly = |member: &str| {
        let mut says = says(member, json!({"content": "One two three four.\nSCORE: 0.5"}));
        says["latency"] = json!(100);
        says
    };
    let members = ["one", "two", "three"];
    let aimock = Aimock::start(&json!(members.map(slowly))).await;
    let gateway = council(&aimock, &members.map(|name| (name, CHAT, ""))).await;
    let run = Watcher::watch(&gateway, ASK).await;
    let place = |of: &dyn Fn(&Value) -> bool| run.plain.iter().position(of).unwrap();
    let first_words = members.map(|name| {
        place(&|event| event["stage"] == name && event["thinking"].as_str() > Some(""))
    });
    let ends = members.map(|name| place(&|e| e["stage"] == name && e["isComplete"] == true));
    assert!(first_words.iter().max() < ends.iter().min(), "{first_words:?}, {ends:?}");
}

#[tokio::test]
async fn an_answer_that_was_stopped_says_how_and_has_no_score() {
    let stopped = |member: &str, reason: &str| {
        says(member, json!({"content": "A hook that", "finishReason": reason}))
    };
    let aimock = Aimock::start(&json!([
        stopped("cut", "length"),
        stopped("cut_responses", "length"),
        stopped("cut_claude", "max_tokens"),
        stopped("cut_gemini", "MAX_TOKENS"),
        stopped("filtered", "content_filter"),
        stopped("failed", "content_filter"),
        stopped("unsafe", "SAFETY"),
        stopped("refusing", "refusal"),
    ]))
    .await;
    let gateway = council(
        &aimock,
        &[
            ("cut", CHAT, ""),
            ("cut_responses", RESPONSES, ""),
            ("cut_claude", ANTHROPIC, ""),
            ("cut_gemini", GEMINI, ""),
            ("filtered", CHAT, ""),
            ("failed", RESPONSES, ""),
            ("unsafe", GEMINI, ""),
            ("refusing", ANTHROPIC, ""),
        ],
    )
    .await;
    let run = Watcher::watch(&gateway, ASK).await;
    for cut in ["cut", "cut_responses", "cut_claude", "cut_gemini"] {
        let end = &run.ends[cut];
        assert_eq!((&end["end"], &end["code"]), (&json!("truncated"), &json!("length")), "{end}");
        assert_eq!(end["reasoning"], "A hook that", "what was said stands: {end}");
    }
    for (member, name) in [
        ("filtered", "blocked"),
        ("failed", "upstream_error"),
        ("unsafe", "blocked"),
        ("refusing", "refused"),
    ] {
        let end = &run.ends[member];
        assert_eq!(end["end"], name, "{end}");
        assert!(end["thinking"].as_str().unwrap().starts_with("Error: "), "{end}");
    }
    for end in run.ends.values() {
        assert!(end.get("score").is_none(), "no score is invented: {end}");
    }
    assert_eq!(run.complete.unwrap()["compositeScore"], Value::Null);
}

#[tokio::test]
async fn a_provider_is_asked_again_only_if_that_may_help() {
    let aimock = Aimock::start(&json!([
        says("locked", error(401, "invalid_api_key", None)),
        says_at(0, "busy", error(429, "rate_limit_exceeded", None)),
        says_at(1, "busy", json!({"content": "At last.\nSCORE: 0.5"})),
        says("away", error(429, "rate_limit_exceeded", Some(3600))),
        says("broke", error(429, "insufficient_quota", None)),
    ]))
    .await;
    let members = ["locked", "busy", "away", "broke"].map(|name| (name, CHAT, ""));
    let gateway = council(&aimock, &members).await;
    let run = Watcher::watch(&gateway, ASK).await;
    for (member, name, attempts) in [
        ("locked", "auth", 1),
        ("busy", "ok", 2),
        ("away", "rate_limited", 1),
        ("broke", "budget", 1),
    ] {
        let end = &run.ends[member];
        assert_eq!((&end["end"], &end["attempts"]), (&json!(name), &json!(attempts)), "{end}");
        assert_eq!(asked(&aimock, member).await, attempts, "{member}");
    }
    assert_eq!(run.ends["locked"]["code"], "invalid_api_key");
    assert_eq!(run.ends["away"]["retryAfterMs"], 3_600_000);
    assert_eq!(run.ends["busy"]["score"], 0.5);
    assert_eq!(run.texts["busy"], "At last.\nSCORE: 0.5");
}

#[tokio::test]
async fn what_answers_have_used_and_cost_is_told() {
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500});
    let members =
        [("chat", CHAT), ("responses", RESPONSES), ("claude", ANTHROPIC), ("gemini", GEMINI)];
    let fixture =
        |(name, _): (&str, _)| says(name, json!({"content": "Fine.\nSCORE: 0.5", "usage": usage}));
    let aimock = Aimock::start(&json!(members.map(fixture))).await;
    let prices = "input_price = 3.0\noutput_price = 15.0";
    let gateway = council(&aimock, &members.map(|(name, as_)| (name, as_, prices))).await;
    let run = Watcher::watch(&gateway, ASK).await;
    let cost = |value: &Value| (value["cost"].as_f64().unwrap() * 1e6).round();
    for end in run.ends.iter().filter(|(stage, _)| *stage != "complete").map(|(_, end)| end) {
        assert_eq!(end["usage"], json!({"inputTokens": 1000, "outputTokens": 500}), "{end}");
        assert_eq!(cost(end), 10_500.0, "{end}");
    }
    let complete = run.plain.last().unwrap();
    assert_eq!(complete["usage"], json!({"inputTokens": 4000, "outputTokens": 2000}));
    assert_eq!(cost(complete), 42_000.0);
}

#[tokio::test]
async fn what_is_no_event_stream_is_an_error_with_a_name() {
    let members = [("chat", CHAT), ("claude", ANTHROPIC), ("gemini", GEMINI)];
    let fixture = |(name, _): (&str, _)| says(name, json!({"content": "SCORE: 0.5"}));
    let aimock = Aimock::start(&json!(members.map(fixture))).await;
    aimock.chaos(&json!({"malformedRate": 1})).await;
    let gateway = council(&aimock, &members.map(|(name, as_)| (name, as_, ""))).await;
    let run = Watcher::watch(&gateway, ASK).await;
    for (name, _) in members {
        let end = &run.ends[name];
        let named = (&end["end"], &end["code"]);
        assert_eq!(named, (&json!("upstream_error"), &json!("no_event_stream")), "{end}");
        assert_eq!(run.texts[name], "");
    }
    assert_eq!(run.complete.unwrap(), json!({"scores": [], "compositeScore": null}));
}

#[tokio::test]
async fn a_key_from_a_file_is_sent_where_each_dialect_wants_it() {
    let members = [
        ("chat", CHAT, "authorization"),
        ("responses", RESPONSES, "authorization"),
        ("claude", ANTHROPIC, "x-api-key"),
        ("gemini", GEMINI, "x-goog-api-key"),
    ];
    let fixture = |(name, ..): (&str, _, _)| says(name, json!({"content": "SCORE: 0.5"}));
    let aimock = Aimock::start(&json!(members.map(fixture))).await;
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "a key\n").unwrap();
    let more = format!("api_key_file = {:?}", key.path());
    let gateway = council(&aimock, &members.map(|(name, as_, _)| (name, as_, &*more))).await;
    Watcher::watch(&gateway, ASK).await;
    let journal = aimock.journal().await;
    for (name, _, header) in members {
        let model = format!("{name}-1");
        let request = journal.iter().find(|request| request["body"]["model"] == *model).unwrap();
        let sent = ["authorization", "x-api-key", "x-goog-api-key"]
            .map(|name| (name, request["headers"].get(name).is_some()))
            .into_iter()
            .filter_map(|(name, is_there)| is_there.then_some(name));
        assert_eq!(sent.collect::<Vec<_>>(), [header], "{name}");
    }
}
