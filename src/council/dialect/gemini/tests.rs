//! `streamGenerateContent`, with CRLF as it is sent.

use serde_json::{Value, json};

use super::super::tests::*;
use super::super::{Dialect, FaultKind, Finish, Said, Usage};

fn read(stream: &[Value]) -> Vec<Said> {
    told(Dialect::Gemini, chunks(stream).replace('\n', "\r\n"))
}

fn parts(parts: &Value) -> Value {
    json!({"candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}]})
}

fn text(text: &str) -> Value {
    parts(&json!([{"text": text}]))
}

fn finish(reason: &str) -> Value {
    json!({"candidates": [{"finishReason": reason}]})
}

#[test]
fn a_question_with_a_schema() {
    let score = json!({"type": ["number", "null"], "minimum": 0, "maximum": 1, "format": "x"});
    let list = json!({"type": "array", "items": {"type": "string", "enum": ["a", null]}});
    let schema = json!({
        "$schema": "x", "type": "object", "additionalProperties": false,
        "properties": {"type": {"type": "string"}, "score": score, "list": list},
        "required": ["type", "score"],
    });
    let open = json!({
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING"},
            "score": {"type": "NUMBER", "nullable": true, "minimum": 0, "maximum": 1},
            "list": {"type": "ARRAY", "items": {"type": "STRING", "enum": ["a"]}}
        },
        "propertyOrdering": ["type", "score", "list"],
        "required": ["type", "score"],
    });
    let extra = json!({"generationConfig": {"temperature": 0}});
    assert_eq!(
        body(Dialect::Gemini, &schema, &extra),
        json!({
            "contents": [{"role": "user", "parts": [{"text": "Q"}]}],
            "systemInstruction": {"parts": [{"text": "S"}]},
            "generationConfig": {"maxOutputTokens": 99, "responseMimeType": "application/json",
                "responseSchema": open, "temperature": 0}
        })
    );
}

#[test]
fn a_choice_of_schemas_is_turned_too() {
    let schema = json!({"anyOf": [{"type": "number"}, {"type": ["null", "string"]}]});
    let config = &body(Dialect::Gemini, &schema, &json!({}))["generationConfig"];
    let open = json!({"anyOf": [{"type": "NUMBER"}, {"type": "STRING", "nullable": true}]});
    assert_eq!(config["responseSchema"], open);
}

#[test]
fn a_plain_question() {
    let plain = json!({"contents": [{"role": "user", "parts": [{"text": "Q"}]}]});
    assert_eq!(plain_body(Dialect::Gemini), plain);
}

#[test]
fn a_good_stream() {
    let mut thought = parts(&json!([{"text": "hm", "thought": true}]));
    thought["usageMetadata"] = json!({"promptTokenCount": 9, "thoughtsTokenCount": 4});
    let mixed = json!([{"text": "hm", "thought": true}, {"text": "a"}, {"text": "b"}]);
    let mut last = finish("STOP");
    last["candidates"][0]["content"] = json!({"role": "model"});
    last["usageMetadata"] =
        json!({"promptTokenCount": 9, "candidatesTokenCount": 2, "thoughtsTokenCount": 4});
    assert_eq!(
        read(&[thought, parts(&mixed), last]),
        [
            used_reasoning(9, 4, 4),
            words("a"),
            words("b"),
            used_reasoning(9, 6, 4),
            Said::Finished(Finish::Complete)
        ]
    );
}

#[test]
fn early_chunks_may_say_stop() {
    let mut first = text("a");
    first["candidates"][0]["finishReason"] = json!("STOP");
    assert_eq!(
        read(&[first, text("b"), finish("MAX_TOKENS")]),
        [
            words("a"),
            Said::Finished(Finish::Complete),
            words("b"),
            Said::Finished(Finish::Truncated)
        ]
    );
}

#[test]
fn the_last_chunk_may_be_nothing_but_a_signature() {
    let signature = "x".repeat(8000);
    let part = json!([{"text": "", "thoughtSignature": signature}]);
    assert_eq!(read(&[text("a"), parts(&part)]), [words("a"), Said::Alive]);
}

#[test]
fn a_blocked_prompt_has_no_candidates() {
    let blocked = json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 9}});
    let input = Said::Usage(Usage { input: Some(9), ..Usage::default() });
    assert_eq!(read(&[blocked]), [input, Said::Finished(Finish::Blocked)]);
    for feedback in [json!({}), json!({"blockReason": "BLOCK_REASON_UNSPECIFIED"})] {
        assert_eq!(read(&[json!({"promptFeedback": feedback})]), [Said::Alive]);
    }
}

#[test]
fn filters_block() {
    for reason in [
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "LANGUAGE",
        "IMAGE_SAFETY",
    ] {
        assert_eq!(read(&[finish(reason)]), [Said::Finished(Finish::Blocked)], "{reason}");
    }
}

#[test]
fn other_reasons_to_finish_are_faults() {
    for reason in ["MALFORMED_FUNCTION_CALL", "OTHER", "UNEXPECTED_TOOL_CALL"] {
        let (before, fault) = failed(read(&[text("a"), finish(reason)]));
        assert_eq!(before, [words("a")]);
        assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::Upstream, Some(reason)));
    }
    let mut explained = finish("OTHER");
    explained["candidates"][0]["finishMessage"] = json!("because");
    assert_eq!(failed(read(&[explained])).1.message, "because");
    assert_eq!(read(&[finish("FINISH_REASON_UNSPECIFIED")]), [Said::Alive]);
}

#[test]
fn only_the_first_candidate_counts() {
    let other = json!({"candidates": [{"index": 1, "content": {"parts": [{"text": "no"}]}},
        {"content": {"parts": [{"text": "a"}]}}]});
    assert_eq!(read(&[other]), [words("a")]);
}

#[test]
fn an_error_comes_as_bare_lines_after_text() {
    let details =
        json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"}]);
    let error = json!({"error": {"code": 429, "message": "Quota exceeded",
        "status": "RESOURCE_EXHAUSTED", "details": details}});
    let stream = chunks(&[text("a")]) + &serde_json::to_string_pretty(&error).unwrap();
    let (before, fault) = failed(told(Dialect::Gemini, stream.replace('\n', "\r\n")));
    assert_eq!(before, [words("a")]);
    assert_eq!((fault.kind, fault.retryable), (FaultKind::RateLimited, true));
    assert_eq!(fault.code.as_deref(), Some("RESOURCE_EXHAUSTED"));
    assert_eq!(fault.retry_after.unwrap().as_secs(), 2);
}
