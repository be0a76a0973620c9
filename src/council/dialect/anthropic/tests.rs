//! Messages, block by block.

use std::slice;

use serde_json::{Value, json};

use super::super::tests::*;
use super::super::{Dialect, FaultKind, Finish, Said, Usage};

fn read(stream: &[Value]) -> Vec<Said> {
    told(Dialect::Anthropic, events(stream))
}

fn start(usage: &Value) -> Value {
    json!({"type": "message_start", "message": {"role": "assistant", "content": [], "usage": usage}})
}

fn block(block: &Value) -> Value {
    json!({"type": "content_block_start", "index": 0, "content_block": block})
}

fn delta(kind: &str, field: &str, text: &str) -> Value {
    json!({"type": "content_block_delta", "index": 0, "delta": {"type": kind, field: text}})
}

fn text(text: &str) -> Value {
    delta("text_delta", "text", text)
}

fn stop_reason(reason: &str, usage: &Value) -> Value {
    json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage})
}

fn stop() -> Value {
    json!({"type": "message_stop"})
}

#[test]
fn a_question() {
    let extra = json!({"temperature": 0});
    assert_eq!(
        body(Dialect::Anthropic, &json!({"type": "object"}), &extra),
        json!({"model": "m", "max_tokens": 99, "stream": true, "system": "S",
            "messages": [{"role": "user", "content": "Q"}], "temperature": 0})
    );
    assert_eq!(
        plain_body(Dialect::Anthropic),
        json!({"model": "m", "max_tokens": 1024, "stream": true,
            "messages": [{"role": "user", "content": "Q"}]})
    );
}

#[test]
fn a_good_stream() {
    let stream = [
        start(&json!({"input_tokens": 9, "output_tokens": 1})),
        block(&json!({"type": "text", "text": ""})),
        json!({"type": "ping"}),
        text("a"),
        text("b"),
        json!({"type": "content_block_stop", "index": 0}),
        stop_reason("end_turn", &json!({"output_tokens": 5})),
        stop(),
        text("late"),
    ];
    let input = Said::Usage(Usage { input: Some(9), ..Usage::default() });
    let output = Said::Usage(Usage { output: Some(5), ..Usage::default() });
    assert_eq!(
        read(&stream),
        [
            input,
            Said::Alive,
            Said::Alive,
            words("a"),
            words("b"),
            Said::Alive,
            output,
            Said::Finished(Finish::Complete),
            Said::Over
        ]
    );
}

#[test]
fn only_text_is_shown() {
    let stream = [
        block(&json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta("thinking_delta", "thinking", "hm"),
        delta("signature_delta", "signature", "EqQB"),
        block(&json!({"type": "tool_use", "id": "t", "name": "n", "input": {}})),
        delta("input_json_delta", "partial_json", "{"),
        delta("citations_delta", "citation", "c"),
        delta("new_delta", "text", "no"),
        json!({"type": "new_event", "text": "no"}),
    ];
    assert_eq!(read(&stream), vec![Said::Alive; stream.len()]);
}

#[test]
fn a_block_may_begin_with_text() {
    assert_eq!(read(&[block(&json!({"type": "text", "text": "a"}))]), [words("a")]);
}

#[test]
fn the_count_of_the_input_may_be_corrected_and_includes_the_cache() {
    let usage = json!({"input_tokens": 20, "output_tokens": 5, "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 3});
    let stream = [start(&json!({"input_tokens": 9})), stop_reason("end_turn", &usage)];
    let first = Said::Usage(Usage { input: Some(9), ..Usage::default() });
    assert_eq!(read(&stream), [first, used(123, 5)]);
}

#[test]
fn reasons_to_stop_are_told_when_the_message_stops() {
    for (reason, finish) in [
        ("end_turn", Finish::Complete),
        ("stop_sequence", Finish::Complete),
        ("tool_use", Finish::Complete),
        ("pause_turn", Finish::Complete),
        ("max_tokens", Finish::Truncated),
        ("model_context_window_exceeded", Finish::Truncated),
        ("refusal", Finish::Refused),
    ] {
        let reason = stop_reason(reason, &json!({}));
        assert_eq!(read(slice::from_ref(&reason)), [Said::Alive]);
        assert_eq!(read(&[reason, stop()]), [Said::Alive, Said::Finished(finish), Said::Over]);
    }
}

#[test]
fn a_refusal_has_no_content() {
    let stream = [
        start(&json!({"input_tokens": 9, "output_tokens": 1})),
        stop_reason("refusal", &json!({"output_tokens": 1})),
        json!({"type": "message_delta", "delta": {"stop_reason": null}}),
        stop(),
    ];
    let end = [Said::Finished(Finish::Refused), Said::Over];
    assert_eq!(read(&stream)[3..], end);
}

#[test]
fn an_error_may_be_the_first_event_or_a_later_one() {
    let error = json!({"type": "overloaded_error", "message": "Overloaded"});
    let error = json!({"type": "error", "error": error, "request_id": "req_1"});
    for before in [&[][..], &[text("a")]] {
        let (said, fault) = failed(read(&[before, slice::from_ref(&error)].concat()));
        assert_eq!(said.len(), before.len());
        assert_eq!((fault.kind, fault.retryable), (FaultKind::Overloaded, true));
        assert_eq!(fault.code.as_deref(), Some("overloaded_error"));
        assert_eq!(fault.message, "Overloaded");
    }
}
