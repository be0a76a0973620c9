//! Who watches a run: from its beginning, late, again, or after its end. Everybody hears the same,
//! whoever asks the same joins, and nobody is asked for what has been said.

mod saying;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use super::{ASK, Watcher, gateway, member};
use crate::support::models::chat::{Halting, answer};
use crate::support::models::{Piece, Replay, Script, Talker};
use crate::support::{EventSource, Message, TestGateway, wait_for};

/// Members, each with where it is asked, in the dialect `openai-chat`; `more`: further settings.
pub(super) fn council(more: &str, members: &[(&str, String)]) -> String {
    let names: Vec<_> = members.iter().map(|(name, _)| *name).collect();
    let head = format!("limits.hold_most = \"0s\"\ncouncil.members = {names:?}\n{more}\n");
    let declared = members.iter().map(|(name, url)| member(name, "openai-chat", url, ""));
    [head].into_iter().chain(declared).collect()
}

impl Watcher {
    /// Watches until `enough`, which comes before the end.
    pub(super) async fn until(&mut self, stream: &mut EventSource, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            let message = stream.event().await;
            assert!(self.hear(&message), "it is over: {message:?}");
        }
    }

    /// Watches until the members have said this.
    pub(super) async fn until_said(&mut self, stream: &mut EventSource, said: &[(&str, &str)]) {
        let all = |watcher: &Self| {
            said.iter().all(|(stage, text)| watcher.texts.get(*stage).is_some_and(|t| t == text))
        };
        self.until(stream, all).await;
    }

    pub(super) fn run_id(&self) -> &str {
        self.notice("council_run")["runId"].as_str().unwrap()
    }
}

/// A member whose answer is always whole, and the gateway that asks it.
async fn quick(more: &str) -> (Replay, TestGateway) {
    let replay = Replay::start(vec![answer(&["It ", "sells.\nSCORE: 0.7"])]).await;
    let gateway = gateway(&council(more, &[("gpt4", replay.url("/v1"))])).await;
    (replay, gateway)
}

async fn status(gateway: &TestGateway, path: &str, last_event_id: Option<&str>) -> StatusCode {
    let mut request = gateway.get(path);
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    request.send().await.unwrap().status()
}

/// Pieces of a member's text, the empty ones too.
fn pieces(messages: &[Message], stage: &str) -> Vec<String> {
    let of_stage =
        messages.iter().map(|message| &message.data).filter(|data| data["stage"] == stage);
    of_stage.filter_map(|data| Some(data["thinking"].as_str()?.to_owned())).collect()
}

#[tokio::test]
async fn whoever_comes_late_hears_the_same_and_whoever_comes_back_what_was_missed() {
    let gpt4 = Halting::start(&["One ", "by ", "one, "], &["it ends.", "\nSCORE: 0.6"]).await;
    let claude = Halting::start(&["Two ", "too, "], &["so it does."]).await;
    let members = [("gpt4", gpt4.url()), ("claude", claude.url())];
    let gateway = gateway(&council("", &members)).await;
    let said = [("gpt4", "One by one, "), ("claude", "Two too, ")];

    let mut first_stream = gateway.open(ASK).await;
    let mut first = Watcher::default();
    first.until_said(&mut first_stream, &said).await;
    let (middle, known) = (first.id.clone(), first.plain.len());

    let mut late_stream = gateway.open(ASK).await;
    let mut late = Watcher::default();
    late.until_said(&mut late_stream, &said).await;
    for (stage, text) in said {
        let told = late.plain.iter().filter(|data| data["stage"] == stage);
        let told: Vec<_> = told.map(|data| data["thinking"].clone()).collect();
        assert_eq!(told, [json!(""), json!(text)], "its start and all of it");
    }

    gpt4.go_on();
    claude.go_on();
    let (first, late) =
        tokio::join!(first.until_the_end(first_stream), late.until_the_end(late_stream));
    assert_eq!(first.texts["gpt4"], "One by one, it ends.\nSCORE: 0.6");
    assert_eq!(first.texts["claude"], "Two too, so it does.");
    let after = Watcher::watch(&gateway, &format!("{ASK}&runId={}", first.run_id())).await;
    for other in [&late, &after] {
        assert_eq!((&other.texts, &other.ends), (&first.texts, &first.ends));
        assert_eq!(other.complete, first.complete);
        assert_eq!(other.run_id(), first.run_id());
    }

    let back = gateway.resume(ASK, &middle).await;
    assert_eq!(back.connected.data["recovered"], true);
    let back = Watcher::default().until_the_end(back).await;
    assert_eq!(back.plain, first.plain[known..], "exactly what was missed");
    assert_eq!(status(&gateway, ASK, Some(&first.id)).await, 204);
    assert_eq!((gpt4.asked(), claude.asked()), (1, 1));
}

#[tokio::test]
async fn what_is_opened_many_times_at_once_is_one_run() {
    let (replay, gateway) = quick("").await;
    let twins = join_all((0..12).map(|_| Watcher::watch(&gateway, ASK))).await;
    for twin in &twins {
        assert_eq!(twin.run_id(), twins[0].run_id());
        assert_eq!(twin.texts["gpt4"], "It sells.\nSCORE: 0.7");
    }
    assert_eq!(replay.requests().len(), 1);
}

#[tokio::test]
async fn the_same_question_of_the_same_caller_joins_and_that_of_others_does_not() {
    let (replay, gateway) = quick("server.trusted_proxies = [\"127.0.0.1\"]").await;
    let asked = async |more: &str, address: &str| {
        let request = gateway.get(&format!("{ASK}{more}")).header("x-forwarded-for", address);
        let stream = EventSource::ask(request, None).await;
        Watcher::default().until_the_end(stream).await.run_id().to_owned()
    };
    let own = asked("", "192.0.2.1").await;
    assert_eq!(asked("", "192.0.2.1").await, own);
    let of_user = asked("&userId=a", "192.0.2.1").await;
    assert_eq!(asked("&userId=a", "192.0.2.9").await, of_user, "wherever the user is");
    let others = [
        asked("", "192.0.2.2").await,
        asked("&userId=b", "192.0.2.1").await,
        asked("&features=%7B%7D", "192.0.2.1").await,
    ];
    let mut runs = vec![own.clone(), of_user];
    runs.extend(others);
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), 5);
    let named = asked(&format!("&userId=c&runId={own}"), "192.0.2.3").await;
    assert_eq!(named, own, "whoever knows its name joins");
    assert_eq!(replay.requests().len(), 5);
}

#[tokio::test]
async fn a_run_without_an_answer_or_too_old_does_not_answer_again() {
    let denied = Script::answer("401 Unauthorized", &[], vec!["{}".into()]);
    let halting = [Piece::from(crate::support::models::chat::word("One. ")), Piece::Stall];
    let scripts = vec![denied, Script::chunked(halting.to_vec()), answer(&["Yes.\nSCORE: 1"])];
    let replay = Replay::start(scripts).await;
    let gateway = gateway(&council("", &[("gpt4", replay.url("/v1"))])).await;
    let failed = Watcher::watch(&gateway, ASK).await;
    assert_eq!(failed.ends["gpt4"]["end"], "auth");

    let mut stream = gateway.open(ASK).await;
    let mut cancelled = Watcher::default();
    cancelled.until_said(&mut stream, &[("gpt4", "One. ")]).await;
    let path = format!("/api/council/{}", cancelled.run_id());
    assert_eq!(gateway.request("DELETE", &path).send().await.unwrap().status(), 204);
    let cancelled = cancelled.until_the_end(stream).await;
    // Whoever comes back is shown how it went, however that was.
    assert_eq!(status(&gateway, ASK, Some(&failed.id)).await, 200);
    assert_eq!(status(&gateway, ASK, Some(&cancelled.id)).await, 204);
    assert_eq!(replay.requests().len(), 2);

    let good = Watcher::watch(&gateway, ASK).await;
    assert_eq!(good.complete.as_ref().unwrap()["compositeScore"], 1.0);
    assert_eq!(Watcher::watch(&gateway, ASK).await.run_id(), good.run_id());
    assert_eq!(replay.requests().len(), 3);
    let back = gateway.resume(ASK, &cancelled.id).await;
    let back = Watcher::default().until_the_end(back).await;
    assert_eq!((&back.texts, &back.complete), (&good.texts, &good.complete), "the newest");
    assert_eq!(status(&gateway, ASK, Some(&good.id)).await, 204);
    assert_eq!(replay.requests().len(), 3);

    let (replay, gateway) = quick("council.reuse = \"0s\"").await;
    let first = Watcher::watch(&gateway, ASK).await;
    assert_ne!(Watcher::watch(&gateway, ASK).await.run_id(), first.run_id());
    assert_eq!(replay.requests().len(), 2);
}

#[tokio::test]
async fn whoever_comes_back_to_what_is_gone_is_told_so_and_not_billed() {
    let short = "council.retention = \"0s\"\nstream.council_score.history.age = \"1ms\"\n\
                 snapshot.age = \"1ms\"";
    let (replay, gateway) = quick(short).await;
    let run = Watcher::watch(&gateway, ASK).await;
    wait_for("the end of retention", async || status(&gateway, ASK, Some(&run.id)).await == 404)
        .await;
    let named = format!("{ASK}&runId={}", run.run_id());
    wait_for("all is forgotten", async || status(&gateway, &named, Some(&run.id)).await == 404)
        .await;
    let bare = format!("/api/stream/council-score?runId={}", run.run_id());
    assert_eq!(status(&gateway, &bare, None).await, 404);
    assert_eq!(status(&gateway, &format!("/api/council/{}", run.run_id()), None).await, 404);
    assert_eq!(status(&gateway, "/api/stream/council-score?runId=never", None).await, 404);
    let invented = status(&gateway, "/api/stream/council-score?runId=a%20b", None).await;
    assert_eq!(invented, 200, "said in the stream: it is no name");
    assert_eq!(replay.requests().len(), 1);
}

#[tokio::test]
async fn a_run_has_the_name_it_is_given_and_head_begins_none() {
    let (replay, gateway) = quick("").await;
    let named = format!("{ASK}&runId=mine");
    assert_eq!(gateway.request("HEAD", &named).send().await.unwrap().status(), 200);
    assert_eq!(status(&gateway, "/api/council/mine", None).await, 404);
    let run = Watcher::watch(&gateway, &named).await;
    assert_eq!(run.run_id(), "mine");
    assert_eq!(status(&gateway, "/api/council/mine", None).await, 200);
    let bare = Watcher::watch(&gateway, "/api/v1/stream/council-score?runId=mine").await;
    assert_eq!(bare.texts, run.texts);
    assert_eq!(replay.requests().len(), 1);
}

#[tokio::test]
async fn a_question_may_stand_in_the_body() {
    let (replay, gateway) = quick("").await;
    let question = json!({"videoUrl": "http://video.example/1", "transcript": "Buy\nit {now}",
        "features": {"length": 9}, "userId": null});
    let path = "/api/stream/council-score";
    let post = || gateway.post(path, question.to_string());
    let run = Watcher::default().until_the_end(EventSource::ask(post(), None).await).await;
    assert_eq!(run.texts["gpt4"], "It sells.\nSCORE: 0.7");
    let query = "?videoUrl=http://video.example/1&transcript=Buy%0Ait+%7Bnow%7D&features=%7B%22length%22:9%7D";
    let again = Watcher::watch(&gateway, &format!("{path}{query}")).await;
    assert_eq!(again.run_id(), run.run_id(), "it is the same question");
    let asked = replay.requests()[0].json();
    let user = asked["messages"][1]["content"].as_str().unwrap();
    assert!(user.contains("Buy\nit {now}\n") && user.contains("{\"length\":9}"), "{user}");
    for body in ["[1]", "{", "\"text\""] {
        let refused = gateway.post(path, body).send().await.unwrap();
        assert_eq!(refused.status(), 400, "{body}");
        assert_eq!(refused.headers()["content-type"], "application/problem+json");
    }
    assert_eq!(replay.requests().len(), 1);
}

#[tokio::test]
async fn a_slow_reader_of_a_long_run_loses_no_word() {
    const MERGED: &str = "sluice_events_merged_total";
    let talker = Talker::start().await;
    let more = "outbox.text_bytes = 50_000\ncouncil.max_answer_bytes = 50_000_000\n\
                events.max_bytes = 300_000_000\nhistory.bytes = 500_000_000";
    let gateway = gateway(&council(more, &[("gpt4", talker.url())])).await;
    let path = "/api/stream/council-score?videoUrl=v&transcript=long";
    let slow = gateway.slow(path).await;
    while gateway.metric(MERGED).await < 0.5 {
        talker.heard("long", 500);
    }
    talker.conclude("long");
    let text = slow.rest().await;
    let mut watcher = Watcher::default();
    let mut events = eventsource_stream::EventStream::new(futures_util::stream::iter([Ok::<
        _,
        std::convert::Infallible,
    >(text)]));
    while let Some(event) = futures_util::StreamExt::next(&mut events).await {
        let event = event.unwrap();
        let data = serde_json::from_str(&event.data).unwrap();
        watcher.hear(&Message { name: event.event, id: event.id, data });
    }
    assert_eq!(watcher.texts["gpt4"], talker.said("long")["gpt4-1"]);
    assert!(watcher.complete.is_some());
}

#[tokio::test]
async fn the_options_of_all_streams_are_those_of_this_one() {
    let (_replay, gateway) = quick("").await;
    let messages = gateway.open(&format!("{ASK}&batch=20ms")).await.rest().await;
    let batched = messages.iter().filter(|message| message.data["type"] == "batch");
    let events: Vec<_> =
        batched.flat_map(|batch| batch.data["events"].as_array().unwrap()).collect();
    assert!(!events.is_empty(), "{messages:?}");

    let messages = gateway.open(&format!("{ASK}&named=true")).await.rest().await;
    assert_eq!(pieces(&messages, "gpt4").concat(), "It sells.\nSCORE: 0.7");
    assert!(messages.iter().all(|message| message.name != "message"), "{messages:?}");
    let named = messages.iter().filter(|message| message.data["stage"] == "gpt4");
    assert!(named.map(|message| &message.name).all(|name| name == "council_score_stream"));
}

#[tokio::test]
async fn silence_before_the_first_word_is_broken_by_comments() {
    let gpt4 = Halting::start(&[], &["It sells.\nSCORE: 0.7"]).await;
    let gateway = gateway(&council("server.keep_alive = \"1s\"", &[("gpt4", gpt4.url())])).await;
    let mut stream = gateway.raw(ASK).await;
    let silence = stream.until(": keep-alive").await;
    assert!(silence.contains("council_run"), "the run has begun: {silence}");
    gpt4.go_on();
    stream.until("It sells.").await;
}
