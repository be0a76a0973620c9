//! Requests, and what all dialects read alike. What only one of them says is tested beside it.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::council::upstream::sse::SseReader;

/// What a stream tells, however it is cut.
pub(super) fn told(dialect: Dialect, stream: impl AsRef<[u8]>) -> Vec<Said> {
    let bytes = stream.as_ref();
    let told = told_in_pieces(dialect, bytes, bytes.len());
    assert_eq!(told, told_in_pieces(dialect, bytes, 1));
    told
}

fn told_in_pieces(dialect: Dialect, bytes: &[u8], size: usize) -> Vec<Said> {
    let (mut sse, mut reader) = (SseReader::new(1 << 16), dialect.reader());
    let (mut items, mut said) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        sse.feed(piece, &mut items);
        items.drain(..).for_each(|item| reader.read(item, &mut said));
    }
    sse.finish(&mut items);
    items.drain(..).for_each(|item| reader.read(item, &mut said));
    reader.end(&mut said);
    said
}

/// Chunks as events without names.
pub(super) fn chunks(chunks: &[Value]) -> String {
    let lines = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    lines.collect::<Vec<_>>().concat()
}

/// Events that are named by their type.
pub(super) fn events(events: &[Value]) -> String {
    let name = |event: &Value| event["type"].as_str().unwrap().to_owned();
    let lines = events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", name(event)));
    lines.collect::<Vec<_>>().concat()
}

pub(super) fn words(text: &str) -> Said {
    Said::Text(text.to_owned())
}

pub(super) fn refusal(text: &str) -> Said {
    Said::Refusal(text.to_owned())
}

pub(super) fn used(input: u64, output: u64) -> Said {
    Said::Usage(Usage { input: Some(input), output: Some(output), reasoning: None })
}

pub(super) fn used_reasoning(input: u64, output: u64, reasoning: u64) -> Said {
    let reasoning = Some(reasoning);
    Said::Usage(Usage { input: Some(input), output: Some(output), reasoning })
}

/// What failed, and after what.
pub(super) fn failed(mut said: Vec<Said>) -> (Vec<Said>, Fault) {
    match said.pop() {
        Some(Said::Failed(fault)) => (said, fault),
        last => panic!("{said:?}, {last:?}"),
    }
}

/// The body for "Q" to "m" under "S", with all that can be given.
pub(super) fn body(dialect: Dialect, schema: &Value, extra: &Value) -> Value {
    let (system, user, max_tokens) = ("S", "Q", Some(99));
    let extra = extra.as_object().unwrap();
    let schema = Some(schema);
    dialect.body(&Ask { model: "m", system, user, max_tokens, schema, extra })
}

/// The body for a question and nothing else.
pub(super) fn plain_body(dialect: Dialect) -> Value {
    let (max_tokens, schema, extra) = (None, None, &Map::new());
    dialect.body(&Ask { model: "m", system: "", user: "Q", max_tokens, schema, extra })
}

const ALL: [Dialect; 4] =
    [Dialect::OpenaiChat, Dialect::OpenaiResponses, Dialect::Anthropic, Dialect::Gemini];

#[test]
fn each_dialect_has_its_path() {
    for (dialect, base, url) in [
        (Dialect::OpenaiChat, "https://a/v1", "https://a/v1/chat/completions"),
        (Dialect::OpenaiChat, "https://a/api/v1/", "https://a/api/v1/chat/completions"),
        (Dialect::OpenaiResponses, "https://a/v1", "https://a/v1/responses"),
        (Dialect::Anthropic, "https://a/v1", "https://a/v1/messages"),
        (
            Dialect::Gemini,
            "https://a/v1beta",
            "https://a/v1beta/models/m:streamGenerateContent?alt=sse",
        ),
    ] {
        assert_eq!(dialect.url(base, "m"), url);
    }
}

#[test]
fn the_query_of_the_base_stays_behind_the_path() {
    let azure = "https://a/openai/deployments/D/?api-version=2024-10-21";
    assert_eq!(
        Dialect::OpenaiChat.url(azure, "m"),
        "https://a/openai/deployments/D/chat/completions?api-version=2024-10-21"
    );
    assert_eq!(
        Dialect::Gemini.url("https://a/v1?x=1", "m"),
        "https://a/v1/models/m:streamGenerateContent?alt=sse&x=1"
    );
    assert_eq!(Dialect::Anthropic.url("https://a/v1?", "m"), "https://a/v1/messages");
}

#[test]
fn each_dialect_has_its_headers() {
    let keys = ALL.map(|dialect| dialect.key_header("K"));
    let names = ["authorization", "authorization", "x-api-key", "x-goog-api-key"];
    assert_eq!(keys.each_ref().map(|(name, _)| *name), names);
    assert_eq!(keys.map(|(_, value)| value), ["Bearer K", "Bearer K", "K", "K"]);
    let version = ("anthropic-version", "2023-06-01");
    assert_eq!(ALL.map(|dialect| dialect.headers().first()), [None, None, Some(&version), None]);
}

#[test]
fn only_anthropic_cannot_be_held_to_a_schema() {
    assert_eq!(ALL.map(Dialect::can_schema), [true, true, false, true]);
}

#[test]
fn dialects_have_names_in_the_settings() {
    let names = json!(["openai-chat", "openai-responses", "anthropic", "gemini"]);
    assert_eq!(serde_json::from_value::<[Dialect; 4]>(names).unwrap(), ALL);
}

#[test]
fn extra_fields_win_and_leave_what_they_do_not_name() {
    let (chat, schema) = (Dialect::OpenaiChat, json!({}));
    let extra = json!({"model": "n", "seed": 7, "stream_options": {"x": 1}});
    let extended = body(chat, &schema, &extra);
    assert_eq!(extended["model"], "n");
    assert_eq!(extended["seed"], 7);
    assert_eq!(extended["stream_options"], json!({"include_usage": true, "x": 1}));
}

#[test]
fn an_extra_object_of_a_type_replaces_ours() {
    let extra = json!({"response_format": {"type": "json_object"}});
    let extended = body(Dialect::OpenaiChat, &json!({}), &extra);
    assert_eq!(extended["response_format"], extra["response_format"]);
}

#[test]
fn a_comment_shows_that_the_provider_lives() {
    for dialect in ALL {
        assert_eq!(told(dialect, ": PROCESSING\n\n"), [Said::Alive]);
    }
}

#[test]
fn empty_data_says_nothing() {
    for dialect in ALL {
        assert_eq!(told(dialect, "data:\n\ndata: \n\nevent: x\n\n"), []);
    }
}

#[test]
fn an_unknown_event_shows_that_the_provider_lives() {
    for dialect in ALL {
        assert_eq!(
            told(dialect, "event: new\ndata: {\"type\":\"new\"}\n\ndata: 7\n\n"),
            [Said::Alive, Said::Alive]
        );
    }
}

#[test]
fn nothing_is_told_after_the_end() {
    for dialect in ALL {
        let stream =
            "data: [DONE]\n\n: late\n\ndata: {\"error\":\"late\"}\n\ndata: x\n\n{\"error\":1}";
        assert_eq!(told(dialect, stream), [Said::Over]);
        let (before, fault) = failed(told(dialect, "data: {\"error\":\"early\"}\n\n: late\n\n"));
        assert_eq!((before, fault.message.as_str()), (vec![], "early"));
    }
}

#[test]
fn data_that_is_not_json_is_a_fault_and_names_no_key() {
    for dialect in ALL {
        let (before, fault) = failed(told(dialect, "data: {\"a\": sk-12345678\n\n"));
        assert!(before.is_empty());
        assert_eq!(fault.code.as_deref(), Some("malformed"));
        assert!(fault.retryable && fault.message.contains("***"), "{fault:?}");
    }
}

#[test]
fn what_cannot_be_read_is_a_fault() {
    let code = |stream: &[u8]| {
        let (_, fault) = failed(told(Dialect::OpenaiChat, stream));
        (fault.code.unwrap(), fault.retryable)
    };
    assert_eq!(code(b"data: \xff\n\n"), ("bad_utf8".to_owned(), true));
    assert_eq!(code(&vec![b'x'; 1 << 17]), ("too_long".to_owned(), false));
}

#[test]
fn an_error_in_bare_json_is_a_fault_as_soon_as_it_is_whole() {
    let error = json!({"error": {"message": "busy", "code": 503, "status": "UNAVAILABLE"}});
    let pretty = serde_json::to_string_pretty(&error).unwrap();
    let in_list = serde_json::to_string_pretty(&json!([error])).unwrap();
    for dialect in ALL {
        for stream in [error.to_string() + "\n", pretty.clone() + "\r\n", in_list.clone()] {
            let (before, fault) = failed(told(dialect, stream + "\n: late\n"));
            assert_eq!((before, fault.kind), (vec![], FaultKind::Overloaded));
            assert_eq!(fault.message, "busy");
        }
    }
}

#[test]
fn an_error_in_bare_json_that_is_cut_or_too_long_is_told_at_the_end() {
    let long = format!("{{\n\"error\": \"m\",\n{}\"x\": 0\n}}", "\"x\": 0,\n".repeat(9000));
    for stream in ["{\n\"error\": {\n", &long] {
        let (before, fault) = failed(told(Dialect::Gemini, stream));
        assert!(before.is_empty());
        assert!(fault.message.starts_with("{ \"error\":"), "{fault:?}");
    }
}

#[test]
fn strays_that_are_no_error_are_ignored() {
    let stream = "hello\n{\n\"a\": 1\n}\n,\n]\n{\"error\": null}\n{\"cut\":\n";
    assert_eq!(told(Dialect::OpenaiChat, stream), []);
}

#[test]
fn an_error_event_is_a_fault_whatever_its_form() {
    for dialect in ALL {
        let stream = "event: error\ndata: {\"message\":\"slow down\",\"code\":\"rate_limit\"}\n\n";
        let (_, fault) = failed(told(dialect, stream));
        assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::RateLimited, "slow down"));
        let (_, fault) = failed(told(dialect, "error: {\"code\":500,\"message\":\"no slot\"}\n\n"));
        assert_eq!((fault.retryable, fault.message.as_str()), (true, "no slot"));
    }
}

#[test]
fn an_error_inside_a_stream_may_name_the_time_to_wait() {
    let details = json!([{"@type": "RetryInfo", "retryDelay": "34.4s"}]);
    let error = json!({"error": {"code": 429, "message": "m", "details": details}});
    let (_, fault) = failed(told(Dialect::Gemini, chunks(&[error])));
    assert_eq!(fault.retry_after, Some(Duration::from_millis(34_400)));
}

proptest! {
    #[test]
    fn no_stream_tells_more_after_its_end(
        parts in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..12),
        dialect in prop::sample::select(ALL.to_vec()),
    ) {
        let said = told(dialect, parts.concat());
        let is_end = |said: &Said| matches!(said, Said::Over | Said::Failed(_));
        let end = said.iter().position(is_end).unwrap_or(said.len());
        prop_assert!(said.len() <= end + 1, "{:?}", said);
    }
}

/// Pieces of streams of all dialects.
const PARTS: [&str; 14] = [
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"type\":\"message_stop\"}\n\n",
    "data: {\"type\":\"response.completed\"}\n\n",
    "data: {\"type\":\"response.failed\"}\n\n",
    "data: {\"candidates\":[{\"finishReason\":\"OTHER\"}]}\n\n",
    "data: {\"candidates\":[[{}],null,7]}\n\n",
    "data: {\"choices\":{},\"usage\":[],\"citations\":[null]}\n\n",
    "data: [DONE]\n\n",
    "{\n",
    "\"error\": {\"message\": \"m\"}\n",
    "}\n",
    ": c\n",
    "data: [\n",
    "\n",
];
