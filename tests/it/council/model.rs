//! A council of a real model, very small: four members on one server. Its slots show whether those
//! who left are noticed there, too.

use serde_json::{Value, json};

use super::{ASK, Watcher, gateway, member};
use crate::support::models::Smol;
use crate::support::{EventSource, TestGateway, wait_for};

const MEMBERS: [&str; 4] = ["gemini", "claude", "gpt4", "perplexity"];

/// What this model can be held to: it keeps to lists of numbers, not to their bounds.
const BY_SCHEMA: &str = r#"
system = "Judge."
user = "{transcript}"
[council.member.NAME.extra]
seed = SEED
max_tokens = 100
[council.member.NAME.extra.response_format]
type = "json_schema"
[council.member.NAME.extra.response_format.json_schema]
name = "answer"
[council.member.NAME.extra.response_format.json_schema.schema]
type = "object"
required = ["reasoning", "score", "novelty"]
[council.member.NAME.extra.response_format.json_schema.schema.properties]
reasoning = { type = "string", maxLength = 30 }
score = { enum = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1] }
novelty = { enum = [0.2, 0.4] }
"#;

/// Longer than any test waits.
const AT_LENGTH: &str = "schema = false
extra = { max_tokens = 900, ignore_eos = true, temperature = 0 }
system = \"Tell a long story.\"
user = \"Begin.\"";

async fn council(smol: &Smol, settings: &str, more: impl Fn(usize, &str) -> String) -> TestGateway {
    let members = MEMBERS
        .iter()
        .enumerate()
        .map(|(n, name)| member(name, "openai-chat", &smol.url("/v1"), &more(n, name)));
    let members: String = members.collect();
    gateway(&format!("[council]\nmembers = {MEMBERS:?}\n{settings}\n{members}")).await
}

/// Reads on until every member has said something (more).
async fn all_speak(stream: &mut EventSource, watcher: &mut Watcher) {
    let mut silent = MEMBERS.to_vec();
    while !silent.is_empty() {
        let message = stream.event().await;
        assert!(watcher.hear(&message), "the run goes on: {}", message.data);
        let speaks = message.data["thinking"].as_str() > Some("");
        silent.retain(|name| !(speaks && message.data["stage"] == **name));
    }
}

async fn state(gateway: &TestGateway, watcher: &Watcher) -> Value {
    let run = watcher.notice("council_run")["runId"].as_str().unwrap();
    gateway.json(&format!("/api/council/{run}")).await
}

fn statuses(state: &Value) -> Vec<&Value> {
    state["members"].as_array().unwrap().iter().map(|member| &member["status"]).collect()
}

#[tokio::test]
async fn four_members_of_one_server_give_scores_by_schema() {
    let smol = Smol::start().await;
    let by_schema =
        |n: usize, name: &str| BY_SCHEMA.replace("NAME", name).replace("SEED", &n.to_string());
    let gateway = council(&smol, "", by_schema).await;
    let run = Watcher::watch(&gateway, ASK).await;
    let scores: Vec<_> = MEMBERS
        .iter()
        .map(|name| {
            let end = &run.ends[*name];
            assert_eq!((&end["end"], &end["scoreSource"]), (&json!("ok"), &json!("json_schema")));
            assert_eq!(end["reasoning"], run.texts[*name], "no braces were shown");
            assert!(end["usage"].get("estimated").is_none(), "the server has counted: {end}");
            end["score"].as_f64().unwrap()
        })
        .collect();
    let complete = run.plain.last().unwrap();
    let mean = scores.iter().sum::<f64>() / 4.0;
    assert!((complete["finalScore"]["composite"].as_f64().unwrap() - mean).abs() < 1e-9);
    let spread = &complete["spread"];
    assert_eq!(spread["least"].as_f64().unwrap(), scores.iter().copied().fold(1.0, f64::min));
    assert_eq!(spread["most"].as_f64().unwrap(), scores.iter().copied().fold(0.0, f64::max));
    assert_eq!(complete["scored"], 4);
    let novelty = complete["finalScore"]["novelty"]["composite"].as_f64().unwrap();
    assert!((0.2..=0.4).contains(&novelty), "{complete}");
}

#[tokio::test]
async fn when_the_only_viewer_leaves_the_model_stops() {
    let smol = Smol::start().await;
    let gateway = council(&smol, "unwatched = \"cancel\"", |_, _| AT_LENGTH.to_owned()).await;
    let (mut stream, mut viewer) = (gateway.open(ASK).await, Watcher::default());
    all_speak(&mut stream, &mut viewer).await;
    assert_eq!(smol.busy_slots().await, 4);
    drop(stream);
    wait_for("slots without work", async || smol.busy_slots().await == 0).await;
    wait_for("the run's end", async || state(&gateway, &viewer).await["status"] == "cancelled")
        .await;
    let state = state(&gateway, &viewer).await;
    assert_eq!(statuses(&state), ["cancelled"; 4], "no answer had come to its end");
    assert_eq!(state["members"][0]["code"], "unwatched");
}

#[tokio::test]
async fn as_long_as_somebody_watches_the_model_goes_on() {
    let smol = Smol::start().await;
    let settings = "unwatched = \"grace\"\ngrace = \"1ms\"";
    let gateway = council(&smol, settings, |_, _| AT_LENGTH.to_owned()).await;
    let (first, mut stays) = (gateway.open(ASK).await, gateway.open(ASK).await);
    let mut viewer = Watcher::default();
    all_speak(&mut stays, &mut viewer).await;
    assert_eq!(state(&gateway, &viewer).await["viewers"], 2);
    drop(first);
    wait_for("one viewer", async || state(&gateway, &viewer).await["viewers"] == 1).await;
    // Longer than the grace that nobody needs.
    for _ in 0..3 {
        all_speak(&mut stays, &mut viewer).await;
    }
    assert_eq!(smol.busy_slots().await, 4);
    assert_eq!(statuses(&state(&gateway, &viewer).await), ["answering"; 4]);
    drop(stays);
    wait_for("slots without work", async || smol.busy_slots().await == 0).await;
}
