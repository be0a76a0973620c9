//! Responses, their three ends and their two forms of an error.

use serde_json::{Value, json};

use super::super::tests::*;
use super::super::{Dialect, FaultKind, Finish, Said};

fn read(stream: &[Value]) -> Vec<Said> {
    told(Dialect::OpenaiResponses, events(stream))
}

fn event(name: &str) -> Value {
    json!({"type": name, "sequence_number": 0})
}

fn delta(name: &str, text: &str) -> Value {
    json!({"type": name, "output_index": 1, "content_index": 0, "delta": text})
}

fn text(text: &str) -> Value {
    delta("response.output_text.delta", text)
}

fn end(name: &str, response: &Value) -> Value {
    json!({"type": name, "response": response})
}

#[test]
fn a_question_with_a_schema() {
    let schema = json!({"type": "object"});
    assert_eq!(
        body(Dialect::OpenaiResponses, &schema, &json!({"text": {"verbosity": "low"}})),
        json!({
            "model": "m", "instructions": "S", "input": "Q", "stream": true,
            "max_output_tokens": 99,
            "text": {"format":
                {"type": "json_schema", "name": "answer", "strict": true, "schema": schema},
                "verbosity": "low"}
        })
    );
}

#[test]
fn a_plain_question() {
    let plain = json!({"model": "m", "input": "Q", "stream": true});
    assert_eq!(plain_body(Dialect::OpenaiResponses), plain);
}

#[test]
fn a_good_stream() {
    let usage = json!({"input_tokens": 9, "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2}});
    let stream = [
        event("response.created"),
        delta("response.reasoning_summary_text.delta", "hm"),
        text("a"),
        text("b"),
        json!({"type": "response.output_text.done", "text": "ab"}),
        end("response.completed", &json!({"error": null, "usage": usage})),
        text("late"),
    ];
    assert_eq!(
        read(&stream),
        [
            Said::Alive,
            Said::Alive,
            words("a"),
            words("b"),
            Said::Alive,
            used_reasoning(9, 5, 2),
            Said::Finished(Finish::Complete),
            Said::Over
        ]
    );
}

#[test]
fn an_incomplete_response_tells_why() {
    for (reason, finish) in
        [("max_output_tokens", Finish::Truncated), ("content_filter", Finish::Blocked)]
    {
        let details = json!({"incomplete_details": {"reason": reason}, "usage": null});
        let stream = [text("a"), end("response.incomplete", &details)];
        assert_eq!(read(&stream), [words("a"), Said::Finished(finish), Said::Over]);
    }
}

#[test]
fn a_refusal_is_no_text_and_ends_refused() {
    let stream = [delta("response.refusal.delta", "no"), end("response.completed", &json!({}))];
    assert_eq!(read(&stream), [refusal("no"), Said::Finished(Finish::Refused), Said::Over]);
}

#[test]
fn an_error_is_told_once_in_either_form() {
    let error = json!({"code": "rate_limit_exceeded", "message": "slow down"});
    let flat = json!({"type": "error", "code": "rate_limit_exceeded", "message": "slow down",
        "param": null, "sequence_number": 3});
    let nested = json!({"type": "error", "error": error});
    let end = end("response.failed", &json!({"error": error}));
    for stream in [&[text("a"), flat, end.clone()][..], &[text("a"), nested, end]] {
        let (before, fault) = failed(read(stream));
        assert_eq!(before, [words("a")]);
        assert_eq!((fault.kind, fault.retryable), (FaultKind::RateLimited, true));
        assert_eq!(fault.code.as_deref(), Some("rate_limit_exceeded"));
        assert_eq!(fault.message, "slow down");
    }
}

#[test]
fn a_failed_response_tells_its_error_and_its_cost() {
    let response = json!({"error": {"code": "server_error", "message": "sorry"},
        "usage": {"input_tokens": 1, "output_tokens": 2}});
    let (before, fault) = failed(read(&[end("response.failed", &response)]));
    assert_eq!(before, [used(1, 2)]);
    assert_eq!((fault.retryable, fault.message.as_str()), (true, "sorry"));
    let (_, fault) = failed(read(&[end("response.failed", &json!({"error": null}))]));
    assert_eq!((fault.kind, fault.retryable), (FaultKind::Upstream, false));
}
