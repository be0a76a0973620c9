//! Bytes that no stand-in says, to the letter: line ends, cuts, errors in bare JSON, chunks without
//! words, streams without an end. Whatever comes, an answer is whole or its end has a name, and
//! nothing but an answer has a score.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{ASK, Watcher, gateway, member};
use crate::support::TestGateway;
use crate::support::models::{Piece, Replay, Script};

const CHAT: &str = "openai-chat";
const RESPONSES: &str = "openai-responses";
const ANTHROPIC: &str = "anthropic";
const GEMINI: &str = "gemini";

/// Of several bytes a character, and with a score.
const TEXT: &str = "Grüße, 皆 🎬!\nSCORE: 0.5";
const STOP: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const OVERLOADED: &str = "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"The model is \
                          overloaded.\",\n    \"status\": \"UNAVAILABLE\"\n  }\n}\n";

/// A member: its name and dialect, further settings, and what its provider says, request by request.
type Case<'a> = (&'a str, &'a str, &'a str, Vec<Script>);

/// A run of these members, to its end.
async fn hear(cases: Vec<Case<'_>>) -> (Watcher, Vec<Replay>) {
    let (gateway, upstreams) = council(cases).await;
    (Watcher::watch(&gateway, ASK).await, upstreams)
}

async fn council(cases: Vec<Case<'_>>) -> (TestGateway, Vec<Replay>) {
    let names: Vec<_> = cases.iter().map(|(name, ..)| name.to_owned()).collect();
    let (mut config, mut upstreams) = (format!("council.members = {names:?}\n"), Vec::new());
    for (name, dialect, more, scripts) in cases {
        let upstream = Replay::start(scripts).await;
        let more = format!("schema = false\n{more}");
        config += &member(name, dialect, &upstream.url("/v1"), &more);
        upstreams.push(upstream);
    }
    (gateway(&config).await, upstreams)
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// Some words of chat completions.
fn chat(words: &str) -> String {
    data(&json!({"choices": [{"index": 0, "delta": {"content": words}, "finish_reason": null}]}))
}

fn gemini(words: &str, finish: Option<&str>) -> String {
    let mut candidate = json!({"content": {"parts": [{"text": words}], "role": "model"}});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    data(&json!({"candidates": [candidate]})).replace('\n', "\r\n")
}

fn anthropic(words: &str) -> String {
    let delta = json!({"type": "content_block_delta", "index": 0,
        "delta": {"type": "text_delta", "text": words}});
    format!("event: content_block_delta\n{}", data(&delta))
}

fn stream(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Script {
    Script::stream(pieces.into_iter().map(Piece::from).collect())
}

/// The end of a member, by name and code.
fn ended<'a>(run: &'a Watcher, member: &str) -> (&'a str, &'a str) {
    let end = &run.ends[member];
    (end["end"].as_str().unwrap(), end["code"].as_str().unwrap_or_default())
}

/// It has answered with [`TEXT`], after so many attempts.
fn has_answered(run: &Watcher, member: &str, attempts: u32) {
    let end = &run.ends[member];
    assert_eq!(
        (&end["end"], &end["attempts"]),
        (&json!("ok"), &json!(attempts)),
        "{member}: {end}"
    );
    assert_eq!(end["score"], 0.5, "{member}: {end}");
    assert_eq!(run.texts[member], TEXT, "{member}");
}

#[tokio::test]
async fn an_answer_is_the_same_however_its_bytes_come() {
    let (one, two) = TEXT.split_at(9);
    let plain = [chat(one), chat(two), STOP.to_owned(), DONE.to_owned()].concat();
    let crlf = plain.replace('\n', "\r\n");
    let comments = ": PROCESSING\n\n: PROCESSING\n\n:\n";
    let closed = vec![chat(TEXT).into(), STOP.into(), Piece::Close];
    let byte_by_byte = plain.bytes().map(|byte| Piece::from([byte])).collect();
    let cases = [
        ("lf", stream([&plain])),
        ("crlf", stream([&crlf])),
        ("crlf_in_pieces", stream(crlf.split_inclusive('\r'))),
        ("cr", stream([plain.replace('\n', "\r")])),
        ("bom", stream(["\u{feff}", &plain])),
        ("split_bom", stream([b"\xef".as_slice(), b"\xbb\xbf", plain.as_bytes()])),
        ("byte_by_byte", Script::chunked(byte_by_byte)),
        ("comments", stream([comments, &chat(one), comments, &chat(two), STOP, DONE])),
        ("without_done", stream([chat(one), chat(two), STOP.to_owned()])),
        ("without_blank_line", stream([chat(one), chat(two), STOP.trim_end().to_owned()])),
        ("stray_json", stream([&chat(one), "{\"note\": 1}\nnote\n", &chat(two), STOP, DONE])),
        ("closed_after_stop", Script::chunked(closed)),
        ("more_after_done", stream([&plain, "data: {broken\n\n"])),
    ];
    let names = cases.each_ref().map(|(name, _)| *name);
    let cases = cases.map(|(name, script)| (name, CHAT, "", vec![script]));
    let (run, _upstreams) = hear(cases.into()).await;
    for name in names {
        has_answered(&run, name, 1);
    }
}

#[tokio::test]
async fn what_breaks_off_is_never_taken_for_whole() {
    let created = data(&json!({"type": "response.created", "response": {}}));
    let delta = data(&json!({"type": "response.output_text.delta", "delta": TEXT}));
    let stopping =
        data(&json!({"type": "message_delta", "delta": {"stop_reason": null}, "usage": {}}));
    let (run, _upstreams) = hear(vec![
        ("chat", CHAT, "", vec![stream([chat(TEXT)])]),
        ("done_only", CHAT, "", vec![stream([&chat(TEXT), DONE])]),
        ("responses", RESPONSES, "", vec![stream([created, delta])]),
        ("claude", ANTHROPIC, "", vec![stream([anthropic(TEXT), stopping])]),
        ("gemini", GEMINI, "", vec![stream([gemini(TEXT, None)])]),
        (
            "again",
            CHAT,
            "restarts = 1",
            vec![stream([chat("What is withdrawn")]), stream([&chat(TEXT), STOP, DONE])],
        ),
        ("closed", CHAT, "", vec![Script::chunked(vec![chat(TEXT).into(), Piece::Close])]),
    ])
    .await;
    for name in ["chat", "done_only", "responses", "claude", "gemini"] {
        assert_eq!(ended(&run, name), ("truncated", "no_end"), "{name}");
        assert_eq!(run.texts[name], TEXT, "what was said stands");
    }
    assert_eq!(ended(&run, "closed"), ("upstream_error", "disconnected"));
    has_answered(&run, "again", 2);
    let complete = run.complete.unwrap();
    let scores = json!([{"model": "again", "score": 0.5, "reasoning": TEXT}]);
    assert_eq!(complete, json!({"scores": scores, "compositeScore": null}), "no quorum of one");
    let broken = run.ends.iter().filter(|(name, _)| !["again", "complete"].contains(&&***name));
    for (name, end) in broken {
        assert!(end.get("score").is_none() && end.get("reasoning").is_none(), "{name}: {end}");
        assert_eq!(end["attempts"], 1, "what was shown is not asked for again");
    }
}

#[tokio::test]
async fn what_was_said_before_a_reset_stands_without_a_score() {
    let heard = Arc::new(Notify::new());
    let pieces = vec![chat(TEXT).into(), Piece::Wait(Arc::clone(&heard)), Piece::Reset];
    let (gateway, upstreams) = council(vec![("m", CHAT, "", vec![Script::stream(pieces)])]).await;
    let (mut stream, mut run) = (gateway.open(ASK).await, Watcher::default());
    while run.texts.get("m").is_none_or(|text| text != TEXT) {
        assert!(run.hear(&stream.event().await));
    }
    heard.notify_one();
    let run = run.until_the_end(stream).await;
    assert_eq!(ended(&run, "m"), ("upstream_error", "disconnected"));
    assert_eq!(run.complete.unwrap(), json!({"scores": [], "compositeScore": null}));
    assert_eq!(upstreams[0].requests().len(), 1);
}

#[tokio::test]
async fn of_what_was_cut_at_its_longest_no_number_is_read_that_may_be_cut_too() {
    let cut = |text: &str| {
        let length = "data: {\"choices\":[{\"index\":0,\"finish_reason\":\"length\"}]}\n\n";
        vec![stream([&chat(text), length, DONE])]
    };
    let object = "{\"reasoning\": \"Fine.\", \"score\": 0.5";
    let (run, _upstreams) = hear(vec![
        ("line", CHAT, "", cut("Fine.\nSCORE: 0")),
        ("object", CHAT, "", cut(object)),
        ("whole_object", CHAT, "", cut(&format!("{object}}}\n\n\n"))),
    ])
    .await;
    let scores = ["line", "object", "whole_object"].map(|name| {
        assert_eq!(ended(&run, name), ("truncated", "length"));
        run.ends[name].get("score").and_then(Value::as_f64)
    });
    assert_eq!(scores, [None, None, Some(0.5)]);
    assert_eq!(run.plain.last().unwrap()["scored"], 1, "nobody else has a vote");
}

#[tokio::test]
async fn an_error_in_the_stream_is_told_by_its_name() {
    let raw = OVERLOADED.replace('\n', "\r\n");
    let first = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\
                 \"message\":\"Overloaded\"}}\n\n";
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let (run, _upstreams) = hear(vec![
        ("raw_first", GEMINI, "", vec![stream([&raw]), stream([gemini(TEXT, Some("STOP"))])]),
        ("raw_later", GEMINI, "", vec![stream([&gemini("A strong", None), &raw])]),
        ("raw_list", GEMINI, "", vec![stream([gemini("A strong", None), format!("[{raw}]\r\n")])]),
        ("first", ANTHROPIC, "", vec![stream([first]), stream([&anthropic(TEXT), stop])]),
        ("later", ANTHROPIC, "", vec![stream([&anthropic("A strong"), first])]),
    ])
    .await;
    has_answered(&run, "raw_first", 2);
    has_answered(&run, "first", 2);
    for (name, code) in
        [("raw_later", "UNAVAILABLE"), ("raw_list", "UNAVAILABLE"), ("later", "overloaded_error")]
    {
        assert_eq!(ended(&run, name), ("overloaded", code), "{name}");
        assert_eq!(run.texts[name], "A strong");
    }
    assert_eq!(run.ends["raw_later"]["thinking"], "Error: The model is overloaded.");
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_answer_by_name() {
    let bad_utf8 = [b"data: {\"choices\":\"\xff\"}\n\n".as_slice(), STOP.as_bytes()].concat();
    let endless = vec![chat("A strong").into(), vec![b'a'; 1_100_000].into(), Piece::Stall];
    let (run, upstreams) = hear(vec![
        ("endless", CHAT, "", vec![Script::stream(endless)]),
        ("bad_utf8", CHAT, "", vec![stream([chat("A strong").as_bytes(), &bad_utf8])]),
        ("no_json", CHAT, "", vec![stream([&chat("A strong"), "data: {\"choi\n\n", STOP])]),
        ("empty", CHAT, "attempts = 1", vec![stream([STOP, DONE])]),
    ])
    .await;
    upstreams[0].left(1).await;
    assert_eq!(ended(&run, "endless"), ("upstream_error", "too_long"));
    assert_eq!(ended(&run, "bad_utf8"), ("upstream_error", "bad_utf8"));
    assert_eq!(ended(&run, "no_json"), ("upstream_error", "malformed"));
    assert_eq!(ended(&run, "empty"), ("upstream_error", "empty"));
    assert_eq!(run.texts["endless"], "A strong");
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_cut_there_and_has_no_holes() {
    let pieces = [chat("0123456789"), chat("0123456789ab"), chat("xyz"), STOP.to_owned()].concat();
    let upstream = Replay::start(vec![Script::chunked(vec![pieces.into()])]).await;
    let member = member("m", CHAT, &upstream.url("/v1"), "");
    let config = format!("[council]\nmembers = [\"m\"]\nmax_answer_bytes = 20\n{member}");
    let run = Watcher::watch(&gateway(&config).await, ASK).await;
    assert_eq!(ended(&run, "m"), ("truncated", "too_long"));
    assert_eq!(run.texts["m"], "0123456789");
}

#[tokio::test]
async fn what_providers_do_in_their_own_way_disturbs_nothing() {
    let (one, two) = TEXT.split_at(9);
    let usage = |output: u64| json!({"prompt_tokens": 7, "completion_tokens": output});
    // Azure: results of filters in chunks without choices, and in choices without words.
    let filter = json!({"hate": {"filtered": false, "severity": "safe"}});
    let prompt = json!({"prompt_index": 0, "content_filter_results": filter});
    let azure = [
        data(&json!({"choices": [], "prompt_filter_results": [prompt]})),
        chat(one),
        data(&json!({"choices": [{"index": 0, "finish_reason": null,
            "content_filter_results": filter, "content_filter_offsets": {"end_offset": 9}}]})),
        chat(two),
        STOP.to_owned(),
        data(&json!({"choices": [], "usage": usage(5)})),
        DONE.to_owned(),
    ];
    // Perplexity: all sources and the usage so far in every chunk.
    let sources = json!(["https://one.example", "https://two.example"]);
    let told = |words: &str, output, object: &str| {
        let choice = json!({"index": 0, "delta": {"content": words}, "finish_reason": null});
        data(&json!({"object": object, "citations": sources, "usage": usage(output),
            "choices": [choice]}))
        .replace('\n', "\r\n")
    };
    let perplexity = [
        told(one, 3, "chat.completion.chunk"),
        told(two, 6, "chat.completion.chunk"),
        told("", 6, "chat.completion.done"),
        DONE.replace('\n', "\r\n"),
    ];
    // Gemini: says that it is at its end, and goes on.
    let early = [gemini(one, Some("STOP")), gemini(two, None), gemini("", Some("STOP"))];
    let (run, _upstreams) = hear(vec![
        ("azure", CHAT, "", vec![stream(azure)]),
        ("perplexity", CHAT, "", vec![stream(perplexity)]),
        ("gemini", GEMINI, "", vec![stream(early)]),
        (
            "withdrawn",
            CHAT,
            "restarts = 1",
            vec![
                stream([told(one, 3, "chat.completion.chunk")]),
                stream([&chat(TEXT), STOP, DONE]),
            ],
        ),
    ])
    .await;
    for name in ["azure", "perplexity", "gemini"] {
        has_answered(&run, name, 1);
    }
    has_answered(&run, "withdrawn", 2);
    assert_eq!(run.ends["azure"]["usage"], json!({"inputTokens": 7, "outputTokens": 5}));
    let end = &run.ends["perplexity"];
    assert_eq!((&end["citations"], &end["usage"]["outputTokens"]), (&sources, &json!(6)));
    let with_sources = run.plain.iter().filter(|event| event.get("citations").is_some());
    assert_eq!(with_sources.count(), 1, "sources are told once, at the end, and go with the text");
    assert_eq!(run.ends["gemini"]["usage"]["estimated"], true, "its provider never said so");
}

#[tokio::test]
async fn what_was_not_counted_is_guessed_and_stays_within_the_budget() {
    // Its output is counted at its end only.
    let start = json!({"type": "message_start",
        "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}});
    let start = Piece::from(format!("event: message_start\n{}", data(&start)));
    let words = Piece::from(anthropic(&"word ".repeat(40)));
    let answer = |times: usize, end: Piece| {
        let words = std::iter::repeat_n(words.clone(), times);
        vec![Script::stream([start.clone()].into_iter().chain(words).chain([end]).collect())]
    };
    let prices = "input_price = 1_000_000\noutput_price = 1_000_000\n";
    let dear = format!("{prices}budget = 60");
    let (run, _upstreams) = hear(vec![
        ("cut", ANTHROPIC, prices, answer(1, Piece::Close)),
        ("dear", ANTHROPIC, &dear, answer(2, Piece::Stall)),
    ])
    .await;
    let end = &run.ends["cut"];
    assert_eq!(ended(&run, "cut"), ("truncated", "no_end"));
    let usage = json!({"inputTokens": 3, "outputTokens": 50, "estimated": true});
    assert_eq!((&end["usage"], &end["cost"]), (&usage, &json!(53.0)), "{end}");
    assert_eq!(ended(&run, "dear"), ("budget", "budget"));
}
