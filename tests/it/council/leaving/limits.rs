//! Time, money and number: what a member, a run, a client and the council may use at most.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Watcher, begun, council, delete, gateway, halting, state_of};
use crate::council::{ASK, member};
use crate::support::models::chat::{Halting, answer, last_words, word};
use crate::support::models::{Piece, Replay, Script};
use crate::support::{EventSource, TestGateway};

/// Says `first`, and then `again` as often as asked, some milliseconds apart; then `last`.
struct Ticking {
    replay: Replay,
    _clock: JoinSet<()>,
}

impl Ticking {
    async fn start(first: &str, (again, times): (&str, usize), last: &str) -> Self {
        let tick = Arc::new(Notify::new());
        let ticks = (0..times).flat_map(|_| [Piece::Wait(Arc::clone(&tick)), Piece::from(again)]);
        let pieces = [Piece::from(first)].into_iter().chain(ticks).chain([Piece::from(last)]);
        let replay = Replay::start(vec![Script::stream(pieces.collect())]).await;
        let mut clock = JoinSet::new();
        clock.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                tick.notify_one();
            }
        });
        Self { replay, _clock: clock }
    }

    fn member(&self, name: &str, more: &str) -> String {
        member(name, "openai-chat", &self.replay.url("/v1"), more)
    }
}

#[tokio::test]
async fn each_clock_of_a_member_has_its_own_end() {
    const FOREVER: usize = 100_000;
    let pings = Ticking::start(": ping\n\n", (": ping\n\n", FOREVER), "").await;
    let speaks = Ticking::start(&word("And "), (&word("so on "), FOREVER), "").await;
    let silent = Halting::start(&["One, "], &[]).await;
    // Comments are no words, but signs of life: longer than its patience, all of them together.
    let alive = word("At ") + &word("last.") + &last_words();
    let alive = Ticking::start(&word("Slow. "), (": ping\n\n", 60), &alive).await;
    let config = [
        "council.members = [\"pings\", \"speaks\", \"silent\", \"alive\"]\n".to_owned(),
        pings.member("pings", "first_text = \"300ms\""),
        speaks.member("speaks", "total = \"300ms\""),
        member("silent", "openai-chat", &silent.url(), "idle = \"150ms\""),
        alive.member("alive", "idle = \"1s\""),
    ];
    let watcher = Watcher::watch(&gateway(&config.concat()).await, ASK).await;
    for (name, end) in [
        ("pings", "timeout_first_text"),
        ("speaks", "timeout_total"),
        ("silent", "timeout_idle"),
        ("alive", "ok"),
    ] {
        assert_eq!(watcher.ends[name]["end"], end, "{}", watcher.ends[name]);
        assert_eq!(watcher.ends[name]["attempts"], 1);
    }
    assert_eq!(watcher.texts["pings"], "");
    assert_eq!(watcher.texts["silent"], "One, ");
    assert_eq!(watcher.texts["alive"], "Slow. At last.");
    pings.replay.left(1).await;
    speaks.replay.left(1).await;
    silent.upstream.left(1).await;
}

#[tokio::test]
async fn the_deadline_of_a_run_ends_all_its_members() {
    let (gpt4, gateway) = halting("council.deadline = \"500ms\"").await;
    let watcher = Watcher::watch(&gateway, ASK).await;
    let end = &watcher.ends["gpt4"];
    assert_eq!((&end["end"], &end["code"]), (&json!("timeout_total"), &json!("deadline")));
    assert_eq!(watcher.notice("council_run")["deadlineMs"], 500);
    assert_eq!(watcher.complete.unwrap()["compositeScore"], Value::Null);
    assert_eq!(watcher.ends["complete"]["status"], "failed");
    gpt4.upstream.left(1).await;
}

#[tokio::test]
async fn too_few_scores_come_to_nothing() {
    let good = Replay::start(vec![answer(&["Good.\nSCORE: 0.8"])]).await;
    let unsure = Replay::start(vec![answer(&["Who knows."])]).await;
    let denied = Replay::start(vec![Script::answer("403 Forbidden", &[], Vec::new())]).await;
    let members = [("gpt4", &good), ("claude", &unsure), ("gemini", &denied)];
    let members = members.map(|(name, replay)| (name, replay.url("/v1")));
    for (quorum, composite) in [(0, Value::Null), (2, Value::Null), (1, json!(0.8))] {
        let config = council(&format!("council.quorum = {quorum}"), &members);
        let watcher = Watcher::watch(&gateway(&config).await, ASK).await;
        assert_eq!(watcher.ends["gpt4"]["score"], 0.8);
        assert_eq!(watcher.ends["claude"].get("score"), None, "none is invented");
        assert_eq!(watcher.ends["claude"]["scoreSource"], "none");
        let last = &watcher.ends["complete"];
        assert_eq!(
            (&last["finalScore"]["composite"], &last["composite"]),
            (&composite, &composite)
        );
        assert_eq!((&last["scored"], &last["members"]), (&json!(1), &json!(3)));
        assert_eq!(last["quorum"], quorum.max(1) + usize::from(quorum == 0));
        let complete = watcher.complete.as_ref().unwrap();
        assert_eq!(complete["compositeScore"], composite);
        assert_eq!(complete["scores"].as_array().unwrap().len(), 2, "{complete}");
        assert_eq!(watcher.notice("council_aggregate")["composite"], composite);
    }
}

/// Breaks off in the middle and, asked again, halts after the first of the right words.
async fn breaking(right: &Arc<Notify>) -> Replay {
    let wrong = vec![word("Wrong. ").into(), Piece::Close];
    let right = vec![
        word("Right").into(),
        Piece::Wait(Arc::clone(right)),
        word(" this time.\nSCORE: 0.5").into(),
        last_words().into(),
    ];
    Replay::start(vec![Script::chunked(wrong), Script::chunked(right)]).await
}

#[tokio::test]
async fn a_text_that_broke_off_is_withdrawn_and_told_anew() {
    let go_on = Arc::new(Notify::new());
    let replay = breaking(&go_on).await;
    let config = [
        "council.members = [\"gpt4\"]\n".to_owned(),
        member("gpt4", "openai-chat", &replay.url("/v1"), "restarts = 1"),
    ];
    let gateway = gateway(&config.concat()).await;
    let mut stream = gateway.open(ASK).await;
    let mut watcher = Watcher::default();
    watcher.until_said(&mut stream, &[("gpt4", "Right")]).await;
    let pieces = |watcher: &Watcher| {
        let of_member = watcher.plain.iter().filter(|data| data["stage"] == "gpt4");
        of_member.map(|data| data["thinking"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(pieces(&watcher), ["", "Wrong. ", "", "Right"]);
    let mut late_stream = gateway.open(ASK).await;
    let mut late = Watcher::default();
    late.until_said(&mut late_stream, &[("gpt4", "Right")]).await;
    assert_eq!(pieces(&late), ["", "Right"], "what was withdrawn is not told");
    go_on.notify_one();
    let (watcher, late) =
        tokio::join!(watcher.until_the_end(stream), late.until_the_end(late_stream));
    assert_eq!(watcher.texts["gpt4"], "Right this time.\nSCORE: 0.5");
    assert_eq!((&late.texts, &late.ends), (&watcher.texts, &watcher.ends));
    assert_eq!(
        (&watcher.ends["gpt4"]["end"], &watcher.ends["gpt4"]["attempts"]),
        (&json!("ok"), &json!(2))
    );
    assert_eq!(replay.requests().len(), 2);
}

#[tokio::test]
async fn a_text_that_broke_off_stays_if_it_is_not_to_be_told_anew() {
    let said = || vec![word("Wrong. ").into(), Piece::Close];
    for (script, kind, code) in [
        (Script::stream(said()), "truncated", "no_end"),
        (Script::chunked(said()), "upstream_error", "disconnected"),
    ] {
        let replay = Replay::start(vec![script, answer(&["Never asked."])]).await;
        let gateway = gateway(&council("", &[("gpt4", replay.url("/v1"))])).await;
        let watcher = Watcher::watch(&gateway, ASK).await;
        assert_eq!(watcher.texts["gpt4"], "Wrong. ");
        let end = &watcher.ends["gpt4"];
        assert_eq!((&end["end"], &end["code"]), (&json!(kind), &json!(code)));
        assert_eq!(replay.requests().len(), 1);
    }
}

#[tokio::test]
async fn money_spent_ends_an_answer() {
    // One unit for each token said.
    let price = "input_price = 0.0\noutput_price = 1_000_000.0";
    for (of_run, of_member) in [("council.budget = 10.0", ""), ("", "budget = 10.0")] {
        let words = Halting::start(&["eight by "; 20], &[]).await;
        let config = [
            format!("council.members = [\"gpt4\"]\n{of_run}\n"),
            member("gpt4", "openai-chat", &words.url(), &format!("{price}\n{of_member}")),
        ];
        let watcher = Watcher::watch(&gateway(&config.concat()).await, ASK).await;
        let end = &watcher.ends["gpt4"];
        assert_eq!((&end["end"], &end["code"]), (&json!("budget"), &json!("budget")));
        assert_eq!(end["usage"]["estimated"], true);
        let cost = end["cost"].as_f64().unwrap();
        assert!(cost > 10.0, "{end}");
        assert_eq!(watcher.ends["complete"]["cost"], cost);
        words.upstream.left(1).await;
    }
}

async fn refused(gateway: &TestGateway, path: &str, status: u16) {
    let refused = gateway.get(path).send().await.unwrap();
    assert_eq!(refused.status(), status);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert!(refused.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn there_are_so_many_runs_at_a_time_and_no_more() {
    let another = "/api/stream/council-score?videoUrl=v&transcript=another";
    for (limit, status) in [("max_runs", 503), ("max_runs_per_client", 429)] {
        let (gpt4, gateway) =
            halting(&format!("council.{limit} = 1\nserver.trusted_proxies = [\"127.0.0.1\"]"))
                .await;
        let (first, watcher) = begun(&gateway, ASK).await;
        refused(&gateway, another, status).await;
        refused(&gateway, &format!("{another}&userId=u"), status).await;
        // Whoever only watches takes no room.
        let (joined, _) = begun(&gateway, ASK).await;
        drop(joined);
        if limit == "max_runs_per_client" {
            let elsewhere = gateway.get(another).header("x-forwarded-for", "192.0.2.1");
            drop(EventSource::ask(elsewhere, None).await);
        }
        assert_eq!(delete(&gateway, &state_of(&watcher)).await, 204);
        let asked = gpt4.asked();
        watcher.until_the_end(first).await;
        let (_second, other) = begun(&gateway, &format!("{another}&userId=u")).await;
        assert_eq!(gpt4.asked(), asked.max(1) + 1, "{}", other.run_id());
    }
}

#[tokio::test]
async fn a_node_that_is_full_begins_no_run_that_nobody_could_watch() {
    let (gpt4, gateway) = halting("server.max_streams = 1").await;
    let (first, watcher) = begun(&gateway, ASK).await;
    let another = "/api/stream/council-score?videoUrl=v&transcript=another&runId=another";
    refused(&gateway, another, 503).await;
    let state = gateway.get("/api/council/another").send().await.unwrap();
    assert_eq!((state.status(), gpt4.asked()), (reqwest::StatusCode::NOT_FOUND, 1));
    assert_eq!(delete(&gateway, &state_of(&watcher)).await, 204);
    watcher.until_the_end(first).await;
}
