//! Chat completions as each of their providers sends them.

use serde_json::{Value, json};

use super::super::tests::*;
use super::super::{Dialect, FaultKind, Finish, Said};

const DONE: &str = "data: [DONE]\n\n";
const COMPLETE: Said = Said::Finished(Finish::Complete);

fn read(stream: impl AsRef<[u8]>) -> Vec<Said> {
    told(Dialect::OpenaiChat, stream)
}

/// A chunk with this delta and no reason to finish.
fn delta(delta: &Value) -> Value {
    json!({"object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": null}], "usage": null})
}

fn content(text: &str) -> Value {
    delta(&json!({"content": text}))
}

fn finish(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

#[test]
fn a_question_with_a_schema() {
    let schema = json!({"type": "object"});
    assert_eq!(
        body(Dialect::OpenaiChat, &schema, &json!({})),
        json!({
            "model": "m",
            "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_tokens": 99,
            "response_format": {"type": "json_schema",
                "json_schema": {"name": "answer", "strict": true, "schema": schema}}
        })
    );
}

#[test]
fn a_plain_question() {
    assert_eq!(
        plain_body(Dialect::OpenaiChat),
        json!({"model": "m", "messages": [{"role": "user", "content": "Q"}], "stream": true,
            "stream_options": {"include_usage": true}})
    );
}

#[test]
fn the_newer_name_of_the_most_tokens_replaces_the_older() {
    let body = body(Dialect::OpenaiChat, &json!({}), &json!({"max_completion_tokens": 5}));
    assert_eq!((&body["max_completion_tokens"], body.get("max_tokens")), (&json!(5), None));
}

#[test]
fn a_good_stream() {
    let details = json!({"reasoning_tokens": 2});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5,
        "completion_tokens_details": details}});
    let role = delta(&json!({"role": "assistant", "content": "", "refusal": null}));
    let stream = chunks(&[role, content("SCORE"), content(": 1"), finish("stop"), usage]) + DONE;
    assert_eq!(
        read(stream),
        [Said::Alive, words("SCORE"), words(": 1"), COMPLETE, used_reasoning(9, 5, 2), Said::Over]
    );
}

#[test]
fn reasons_to_finish() {
    for (reason, end) in [
        ("stop", Finish::Complete),
        ("tool_calls", Finish::Complete),
        ("length", Finish::Truncated),
        ("model_length", Finish::Truncated),
        ("content_filter", Finish::Blocked),
    ] {
        assert_eq!(read(chunks(&[finish(reason)])), [Said::Finished(end)], "{reason}");
    }
    assert_eq!(read(chunks(&[finish("")])), [Said::Alive]);
}

#[test]
fn reasons_to_finish_that_are_faults() {
    for (reason, kind) in [
        ("error", FaultKind::Upstream),
        ("abort", FaultKind::Upstream),
        ("insufficient_system_resource", FaultKind::Overloaded),
    ] {
        let (before, fault) = failed(read(chunks(&[content("a"), finish(reason)])));
        assert_eq!(before, [words("a")]);
        assert_eq!((fault.kind, fault.code.as_deref()), (kind, Some(reason)));
    }
}

#[test]
fn a_refusal_is_no_text_and_ends_refused() {
    let refusals = ["I can", "not"].map(|text| delta(&json!({"refusal": text})));
    let [one, two] = refusals;
    assert_eq!(
        read(chunks(&[one, two, finish("stop")]) + DONE),
        [refusal("I can"), refusal("not"), Said::Finished(Finish::Refused), Said::Over]
    );
}

#[test]
fn reasoning_is_not_shown() {
    let reasoning = [
        json!({"reasoning_content": "hm"}),
        json!({"reasoning": "hm", "content": null}),
        json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
        json!({"tool_calls": []}),
    ];
    let stream = chunks(&reasoning.map(|reasoning| delta(&reasoning)));
    assert_eq!(read(stream), [Said::Alive, Said::Alive, Said::Alive, Said::Alive]);
}

#[test]
fn a_content_may_have_parts() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "image", "text": "no"}, "b"]);
    assert_eq!(read(chunks(&[delta(&json!({"content": parts}))])), [words("ab")]);
}

#[test]
fn text_beside_the_reason_to_finish_comes_first() {
    let last = json!({"choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2}});
    assert_eq!(read(chunks(&[content("a"), last])), [words("a"), words("b"), used(1, 2), COMPLETE]);
}

#[test]
fn a_close_without_done_after_the_reason_to_finish() {
    let stream = chunks(&[content("a"), finish("stop")]);
    assert_eq!(read(stream.trim_end()), [words("a"), COMPLETE]);
}

#[test]
fn a_close_without_a_reason_to_finish_is_not_finished() {
    assert_eq!(read(chunks(&[content("a")])), [words("a")]);
    assert_eq!(read(chunks(&[content("a")]) + DONE), [words("a"), Said::Over]);
}

#[test]
fn azure_says_things_without_choices_and_deltas() {
    let filters = json!({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]});
    let checked = json!({"choices": [{"index": 0, "finish_reason": null,
        "content_filter_results": {}, "content_filter_offsets": {"check_offset": 4}}]});
    let cut = json!({"choices": [{"index": 0, "finish_reason": "content_filter"}]});
    assert_eq!(
        read(chunks(&[filters, content("a"), checked, cut]) + DONE),
        [Said::Alive, words("a"), Said::Alive, Said::Finished(Finish::Blocked), Said::Over]
    );
}

/// A chunk of Perplexity, which has all that came before in its message.
fn perplexity(text: &str, output: u64, citations: &[&str]) -> Value {
    let mut chunk = content(text);
    chunk["choices"][0]["message"] = json!({"role": "assistant", "content": "all of it"});
    chunk["citations"] = json!(citations);
    chunk["usage"] = json!({"prompt_tokens": 3, "completion_tokens": output});
    chunk
}

#[test]
fn perplexity_repeats_usage_and_citations() {
    let mut done = perplexity("", 2, &["u1", "u2"]);
    done["object"] = json!("chat.completion.done");
    let texts = [perplexity("a", 1, &["u1"]), perplexity("b", 2, &["u1"]), done];
    let stream = (chunks(&texts) + DONE).replace('\n', "\r\n");
    let citations = |all: &[&str]| Said::Citations(all.iter().map(|u| (*u).to_owned()).collect());
    assert_eq!(
        read(stream),
        [
            words("a"),
            citations(&["u1"]),
            used(3, 1),
            words("b"),
            used(3, 2),
            citations(&["u1", "u2"]),
            used(3, 2),
            COMPLETE,
            Said::Over
        ]
    );
}

#[test]
fn reasoning_may_be_counted_beside_the_details() {
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "reasoning_tokens": 1});
    let chunk = json!({"choices": [], "usage": usage});
    assert_eq!(read(chunks(&[chunk])), [used_reasoning(3, 2, 1)]);
}

#[test]
fn search_results_are_citations_where_there_are_no_others() {
    let results = json!({"choices": [], "search_results": [{"title": "t", "url": "u"}]});
    assert_eq!(read(chunks(&[results])), [Said::Citations(vec!["u".to_owned()])]);
}

#[test]
fn openrouter_comments_while_it_waits() {
    let stream = format!(": OPENROUTER PROCESSING\n\n{}", chunks(&[content("a")]));
    assert_eq!(read(stream), [Said::Alive, words("a")]);
}

#[test]
fn openrouter_puts_an_error_into_a_chunk() {
    let error = json!({"id": "gen-1", "error": {"code": 502, "message": "Provider disconnected"},
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]});
    let (before, fault) = failed(read(chunks(&[content("a"), error]) + DONE));
    assert_eq!(before, [words("a")]);
    assert_eq!(fault.code.as_deref(), Some("502"));
    assert_eq!((fault.retryable, fault.message.as_str()), (true, "Provider disconnected"));
}

#[test]
fn an_error_may_stand_in_the_choice() {
    let mut chunk = finish("error");
    chunk["choices"][0]["error"] = json!({"code": 429, "message": "slow down"});
    let (_, fault) = failed(read(chunks(&[chunk])));
    assert_eq!(fault.kind, FaultKind::RateLimited);
}

#[test]
fn only_the_first_choice_counts() {
    let choice = |index: u64, text: &str| json!({"index": index, "delta": {"content": text}, "finish_reason": null});
    let both = json!({"choices": [choice(1, "no"), choice(0, "a")]});
    let other = json!({"choices": [choice(1, "no")]});
    let nameless = json!({"choices": [{"delta": {"content": "b"}}]});
    assert_eq!(read(chunks(&[both, other, nameless])), [words("a"), Said::Alive, words("b")]);
}
