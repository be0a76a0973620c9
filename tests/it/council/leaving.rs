//! How a run ends before its members do: nobody watches, somebody stops it, its time or its money
//! is spent, or the gateway stops. Each end has a name, and no provider goes on talking after it.

mod asking;
mod limits;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::watching::council;
use super::{ASK, Watcher, gateway};
use crate::support::models::Replay;
use crate::support::models::chat::{Halting, answer};
use crate::support::{EventSource, TestGateway, wait_for, within};

/// A member that halts, and the gateway that asks it.
async fn halting(more: &str) -> (Halting, TestGateway) {
    let gpt4 = Halting::start(&["One, "], &["two.\nSCORE: 0.5"]).await;
    let gateway = gateway(&council(more, &[("gpt4", gpt4.url())])).await;
    (gpt4, gateway)
}

/// Opens a stream and hears what the member says before it halts.
async fn begun(gateway: &TestGateway, path: &str) -> (EventSource, Watcher) {
    let mut stream = gateway.open(path).await;
    let mut watcher = Watcher::default();
    watcher.until_said(&mut stream, &[("gpt4", "One, ")]).await;
    (stream, watcher)
}

fn state_of(watcher: &Watcher) -> String {
    format!("/api/council/{}", watcher.run_id())
}

async fn until_status(gateway: &TestGateway, state: &str, status: &str) {
    wait_for(status, async || gateway.json(state).await["status"] == status).await;
}

async fn until_nobody_watches(gateway: &TestGateway, state: &str) {
    wait_for("nobody", async || gateway.json(state).await["viewers"] == 0).await;
}

async fn delete(gateway: &TestGateway, path: &str) -> StatusCode {
    gateway.request("DELETE", path).send().await.unwrap().status()
}

/// Begins a run with a question of one's own, which has to be taken.
async fn post(gateway: &TestGateway, inquiry: &Value) -> Value {
    let answer = gateway.post("/api/council", inquiry.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

#[tokio::test]
async fn a_run_that_nobody_watches_is_cancelled_at_once_or_after_grace() {
    for policy in ["unwatched = \"cancel\"\ncouncil.grace = \"1h\"", "grace = \"50ms\""] {
        let (gpt4, gateway) = halting(&format!("council.{policy}")).await;
        let (first, watcher) = begun(&gateway, ASK).await;
        let (second, _) = begun(&gateway, ASK).await;
        drop(first);
        let state = state_of(&watcher);
        wait_for("one", async || gateway.json(&state).await["viewers"] == 1).await;
        assert_eq!(gateway.json(&state).await["status"], "running", "{policy}");
        drop(second);
        gpt4.upstream.left(1).await;
        until_status(&gateway, &state, "cancelled").await;
        let member = gateway.json(&state).await["members"][0].clone();
        assert_eq!(
            (&member["status"], &member["code"]),
            (&json!("cancelled"), &json!("unwatched"))
        );
        assert_eq!(member["text"], "One, ");
    }
}

#[tokio::test]
async fn whoever_comes_back_within_grace_finds_the_run_going_on() {
    let (gpt4, gateway) = halting("council.grace = \"1h\"").await;
    let (stream, watcher) = begun(&gateway, ASK).await;
    drop(stream);
    until_nobody_watches(&gateway, &state_of(&watcher)).await;
    let back = gateway.resume(ASK, &watcher.id).await;
    assert_eq!(back.connected.data["recovered"], true);
    gpt4.go_on();
    let watcher = watcher.until_the_end(back).await;
    assert_eq!(watcher.texts["gpt4"], "One, two.\nSCORE: 0.5");
    assert_eq!(gpt4.asked(), 1);
}

#[tokio::test]
async fn a_run_that_is_to_go_on_goes_on_without_viewers() {
    let (gpt4, gateway) = halting("council.unwatched = \"continue\"\ncouncil.grace = \"0s\"").await;
    let (stream, watcher) = begun(&gateway, ASK).await;
    drop(stream);
    until_nobody_watches(&gateway, &state_of(&watcher)).await;
    gpt4.go_on();
    until_status(&gateway, &state_of(&watcher), "complete").await;
    let late = Watcher::watch(&gateway, ASK).await;
    assert_eq!(late.texts["gpt4"], "One, two.\nSCORE: 0.5");
    assert_eq!(gpt4.asked(), 1);
}

#[tokio::test]
async fn a_run_that_nobody_ever_watches_waits_for_grace_unless_it_is_to_go_on() {
    let (gpt4, gateway) = halting("council.unwatched = \"cancel\"").await;
    let left = post(&gateway, &json!({"prompt": "Sells?", "unwatched": "300ms"})).await;
    gpt4.upstream.left(1).await;
    until_status(&gateway, left["state"].as_str().unwrap(), "cancelled").await;

    let goes_on = post(&gateway, &json!({"prompt": "Sells?", "unwatched": "continue"})).await;
    gpt4.upstream.asked(2).await;
    gpt4.go_on();
    until_status(&gateway, goes_on["state"].as_str().unwrap(), "complete").await;
}

/// Two members that halt.
async fn two(more: &str) -> (Halting, Halting, TestGateway) {
    let gpt4 = Halting::start(&["One, "], &["two.\nSCORE: 0.5"]).await;
    let claude = Halting::start(&["Eins, "], &["zwei.\nSCORE: 0.9"]).await;
    let members = [("gpt4", gpt4.url()), ("claude", claude.url())];
    let gateway = gateway(&council(more, &members)).await;
    (gpt4, claude, gateway)
}

#[tokio::test]
async fn a_run_is_stopped_by_whoever_knows_its_name() {
    let (gpt4, claude, gateway) = two("").await;
    let (mut stream, mut watcher) = begun(&gateway, ASK).await;
    watcher.until_said(&mut stream, &[("claude", "Eins, ")]).await;
    assert_eq!(delete(&gateway, "/api/council/unknown").await, 404);
    assert_eq!(delete(&gateway, &state_of(&watcher)).await, 204);
    gpt4.upstream.left(1).await;
    claude.upstream.left(1).await;
    let watcher = watcher.until_the_end(stream).await;
    for member in ["gpt4", "claude"] {
        let end = &watcher.ends[member];
        assert_eq!((&end["end"], &end["code"]), (&json!("cancelled"), &json!("stopped")));
        assert!(end["thinking"].as_str().unwrap().starts_with("Error: "), "{end}");
        assert_eq!(end.get("score"), None);
    }
    assert_eq!(watcher.ends["complete"]["status"], "cancelled");
    assert_eq!(watcher.complete.as_ref().unwrap()["compositeScore"], Value::Null);
    assert_eq!(gateway.json(&state_of(&watcher)).await["status"], "cancelled");
}

#[tokio::test]
async fn a_member_is_stopped_and_the_others_go_on() {
    let (gpt4, claude, gateway) = two("council.quorum = 1").await;
    let (mut stream, mut watcher) = begun(&gateway, ASK).await;
    watcher.until_said(&mut stream, &[("claude", "Eins, ")]).await;
    let member = |name: &str| format!("{}/members/{name}", state_of(&watcher));
    assert_eq!(delete(&gateway, "/api/council/unknown/members/gpt4").await, 404);
    assert_eq!(delete(&gateway, &member("nobody")).await, 404);
    assert_eq!(delete(&gateway, &member("gpt4")).await, 204);
    gpt4.upstream.left(1).await;
    watcher.until(&mut stream, |watcher| watcher.ends.contains_key("gpt4")).await;
    assert_eq!(delete(&gateway, &format!("{}/members/gpt4", state_of(&watcher))).await, 404);
    claude.go_on();
    let watcher = watcher.until_the_end(stream).await;
    assert_eq!(watcher.ends["gpt4"]["end"], "cancelled");
    assert_eq!(watcher.ends["claude"]["end"], "ok");
    assert_eq!(watcher.texts["claude"], "Eins, zwei.\nSCORE: 0.9");
    assert_eq!(watcher.ends["complete"]["status"], "complete");
    assert_eq!(watcher.complete.unwrap()["compositeScore"], 0.9);
}

#[tokio::test]
async fn a_gateway_that_stops_tells_the_viewers_and_leaves_the_providers() {
    let (gpt4, mut gateway) = halting("server.drain = \"200ms\"\ncouncil.grace = \"1h\"").await;
    let (stream, watcher) = begun(&gateway, ASK).await;
    let never_watched = post(&gateway, &json!({"prompt": "Sells?"})).await;
    assert!(never_watched["runId"].is_string());
    gpt4.upstream.asked(2).await;
    let drained = within("drain", gateway.drain());
    let (drained, told) = tokio::join!(drained, stream.rest());
    assert!(drained, "no run is left behind");
    let last = &told.last().unwrap().data;
    assert_eq!(last["type"], "server_shutdown", "{last}");
    gpt4.upstream.left(2).await;
    assert_eq!(watcher.complete, None);
}

#[tokio::test]
async fn members_rank_each_other_without_names_and_the_chairman_writes_a_synthesis() {
    let ranking = answer(&["Both fine.\nFINAL RANKING:\n", "1. Response B\n2. Response A"]);
    let speaks = async |text: &str| {
        let synthesis = answer(&["Better ", "than each."]);
        Replay::start(vec![answer(&[text, "\nSCORE: 0.5"]), ranking.clone(), synthesis]).await
    };
    let (gpt4, claude, gemini) =
        (speaks("A hook.").await, speaks("A plan.").await, speaks("A joke.").await);
    let members = [("gpt4", &gpt4), ("claude", &claude), ("gemini", &gemini)];
    let urls = members.map(|(name, replay)| (name, replay.url("/v1")));
    let gateway =
        gateway(&council("council.deliberate = true\ncouncil.chairman = \"claude\"", &urls)).await;
    let watcher = Watcher::watch(&gateway, ASK).await;

    let texts = ["A hook.", "A plan.", "A joke."];
    for ((_, replay), own) in members.iter().zip(texts) {
        let asked = replay.requests()[1].json()["messages"].to_string();
        for text in texts {
            assert_eq!(asked.contains(text), text != own, "{asked}");
        }
        assert!(asked.contains("Response A") && asked.contains("Response B"), "{asked}");
        for (name, _) in members {
            assert!(!asked.contains(name), "{name}: {asked}");
        }
    }
    assert_eq!(
        watcher.texts["ranking:gpt4"],
        "Both fine.\nFINAL RANKING:\n1. Response B\n2. Response A"
    );
    assert_eq!(watcher.texts["synthesis"], "Better than each.");
    assert_eq!(watcher.ends["synthesis"]["model"], "claude");
    let complete = &watcher.ends["complete"];
    assert_eq!(complete["synthesis"], "Better than each.");
    let rankings = complete["rankings"].as_array().unwrap();
    let votes: u64 = rankings.iter().map(|standing| standing["votes"].as_u64().unwrap()).sum();
    assert_eq!((rankings.len(), votes), (3, 6), "{complete}");
    let ranks = rankings.iter().map(|standing| standing["averageRank"].as_f64().unwrap());
    let ranks: Vec<_> = ranks.collect();
    assert!(ranks.is_sorted() && (ranks.iter().sum::<f64>() - 4.5).abs() < 1e-9, "{complete}");
    assert_eq!(watcher.complete.unwrap()["compositeScore"], 0.5);
    assert_eq!([&gpt4, &claude, &gemini].map(|replay| replay.requests().len()), [2, 3, 2]);
}
