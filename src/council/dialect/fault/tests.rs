//! Errors as providers write them.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::*;

const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn with_headers(status: u16, headers: &[(&str, &'static str)], body: &str) -> Fault {
    let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
    let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
    assert_eq!(httpdate::fmt_http_date(now), NOW);
    Fault::of_status(status, header, body.as_bytes(), now)
}

fn in_stream(data: &Value) -> Fault {
    of_json(&serde_json::from_str(&data.to_string()).unwrap())
}

fn of_status(status: u16, body: &Value) -> Fault {
    with_headers(status, &[], &body.to_string())
}

/// The seconds to wait.
fn wait(headers: &[(&str, &'static str)], body: &str) -> Option<f64> {
    with_headers(429, headers, body).retry_after.map(|time| time.as_secs_f64())
}

#[test]
fn every_form_of_a_body_is_read() {
    for body in [
        json!({"error": {"message": "no", "type": "t", "param": null, "code": null}}),
        json!({"error": {"message": "no", "status": "t", "code": 400, "details": []}}),
        json!({"error": "no", "type": "t"}),
        json!({"type": "error", "error": {"type": "t", "message": "no"}}),
        json!([{"error": {"message": "no", "code": "t"}}]),
        json!({"message": "no", "type": "t"}),
        json!({"detail": "no", "code": "t"}),
        json!({"detail": [{"loc": ["body"], "msg": "no", "type": "x"}], "type": "t"}),
        json!({"error": {"code": "t", "message": "no"}, "message": "other", "type": "error"}),
    ] {
        let fault = of_status(400, &body);
        assert_eq!((fault.message.as_str(), fault.code.as_deref()), ("no", Some("t")), "{body}");
    }
}

#[test]
fn a_body_that_is_not_json_is_told_as_it_is() {
    let fault = with_headers(502, &[], "<html><title>502 Bad Gateway</title></html>");
    assert_eq!((fault.message.as_str(), fault.code.as_deref()), ("502 Bad Gateway", Some("502")));
    assert_eq!(with_headers(500, &[], "upstream\nfailed").message, "upstream failed");
    assert_eq!(with_headers(500, &[], &"x y ".repeat(200)).message.chars().count(), 300);
    assert_eq!(with_headers(503, &[], "").message, "the provider answered with status 503");
}

#[test]
fn an_error_without_a_message_is_told_whole() {
    let fault = of_status(400, &json!({"error": {"code": "t", "why": 7}}));
    assert_eq!(fault.message, r#"{"code":"t","why":7}"#);
}

#[test]
fn the_words_of_the_provider_behind_a_gateway_are_told_too() {
    let body = json!({"error": {"code": 429, "message": "Provider returned error",
        "metadata": {"raw": "m is busy", "provider_name": "p"}}});
    assert_eq!(of_status(429, &body).message, "Provider returned error: m is busy");
}

#[test]
fn a_key_that_is_echoed_is_masked() {
    let message = "Incorrect API key provided: sk-proj-abc12********wxyz. You can find it";
    let fault = of_status(401, &json!({"error": {"message": message, "code": "invalid_api_key"}}));
    assert_eq!(fault.message, "Incorrect API key provided: *** You can find it");
    assert_eq!(fault.code.as_deref(), Some("invalid_api_key"));
}

#[test]
fn only_passing_trouble_is_retryable() {
    for status in [408, 409, 429, 500, 502, 503, 504, 529] {
        assert!(with_headers(status, &[], "").retryable, "{status}");
    }
    for status in [302, 400, 401, 402, 403, 404, 413, 422] {
        assert!(!with_headers(status, &[], "").retryable, "{status}");
    }
}

#[test]
fn the_status_and_not_the_body_decides_on_a_retry() {
    let with_code = |status, code: u16| of_status(status, &json!({"error": {"code": code}}));
    assert!(!with_code(400, 503).retryable);
    assert!(with_code(503, 400).retryable);
}

#[test]
fn the_provider_may_forbid_a_retry() {
    assert!(!with_headers(503, &[("x-should-retry", "false")], "").retryable);
    assert!(!with_headers(400, &[("x-should-retry", "true")], "").retryable);
}

#[test]
fn a_status_has_a_kind() {
    for (status, kind) in [
        (400, FaultKind::Upstream),
        (401, FaultKind::Auth),
        (402, FaultKind::Budget),
        (403, FaultKind::Auth),
        (404, FaultKind::Upstream),
        (429, FaultKind::RateLimited),
        (500, FaultKind::Upstream),
        (503, FaultKind::Overloaded),
        (529, FaultKind::Overloaded),
    ] {
        assert_eq!(with_headers(status, &[], "").kind, kind, "{status}");
    }
}

#[test]
fn a_label_has_a_kind_whatever_the_status() {
    for (label, kind) in [
        ("insufficient_quota", FaultKind::Budget),
        ("workspace_spend_limit_reached", FaultKind::Budget),
        ("credit_balance_exhausted", FaultKind::Budget),
        ("billing_hard_limit_reached", FaultKind::Budget),
        ("authentication_error", FaultKind::Auth),
        ("permission_error", FaultKind::Auth),
        ("PERMISSION_DENIED", FaultKind::Auth),
        ("rate_limit_error", FaultKind::RateLimited),
        ("RateLimitError", FaultKind::RateLimited),
        ("RESOURCE_EXHAUSTED", FaultKind::RateLimited),
        ("overloaded_error", FaultKind::Overloaded),
        ("UNAVAILABLE", FaultKind::Overloaded),
        ("content_filter", FaultKind::Blocked),
        ("invalid_request_error", FaultKind::Upstream),
    ] {
        for field in ["type", "code", "status"] {
            let fault = of_status(500, &json!({"error": {"message": "no", field: label}}));
            assert_eq!((fault.kind, fault.code.as_deref()), (kind, Some(label)));
        }
    }
}

#[test]
fn a_label_may_stand_beside_an_error_that_is_text() {
    let body = json!({"error": "Model is busy", "error_type": "overloaded"});
    assert_eq!(of_status(500, &body).kind, FaultKind::Overloaded);
}

#[test]
fn an_empty_purse_looks_like_other_trouble() {
    let quota = json!({"error": {"type": "insufficient_quota", "code": "rate_limit_exceeded"}});
    let message = "Your credit balance is too low to access the API.";
    let low = json!({"error": {"type": "invalid_request_error", "message": message}});
    for fault in [of_status(429, &quota), of_status(400, &low), of_status(529, &low)] {
        assert_eq!((fault.kind, fault.retryable), (FaultKind::Budget, false), "{fault:?}");
    }
}

#[test]
fn a_filter_and_a_bad_key_look_like_other_trouble() {
    let azure = json!({"error": {"code": "content_filter", "status": 400, "message": "no"}});
    assert_eq!(of_status(400, &azure).kind, FaultKind::Blocked);
    let flagged = json!({"error": {"code": 403, "message": "flagged",
        "metadata": {"reasons": ["x"], "flagged_input": "…"}}});
    assert_eq!(of_status(403, &flagged).kind, FaultKind::Blocked);
    let key = json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "no",
        "details": [{"reason": "API_KEY_INVALID"}]}});
    assert_eq!(of_status(400, &key).kind, FaultKind::Auth);
}

#[test]
fn the_status_in_the_body_is_more_exact_than_that_of_the_gateway() {
    let fault = of_status(500, &json!({"error": {"code": 429, "message": "no"}}));
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::RateLimited, Some("429")));
}

#[test]
fn inside_a_stream_numbers_and_labels_tell_what_passes() {
    for (error, retryable) in [
        (json!({"code": 429}), true),
        (json!({"code": "503"}), true),
        (json!({"code": 529}), true),
        (json!({"code": 400, "type": "BadRequestError"}), false),
        (json!({"code": 500, "type": "InternalServerError"}), true),
        (json!({"type": "api_error"}), true),
        (json!({"code": "server_error"}), true),
        (json!({"code": "rate_limit_exceeded"}), true),
        (json!({"type": "overloaded_error"}), true),
        (json!({"type": "invalid_request_error"}), false),
        (json!({"type": "authentication_error"}), false),
        (json!({"code": 401}), false),
        (json!({"code": 1301}), false),
        (json!({"code": 7, "type": "server_error"}), true),
    ] {
        assert_eq!(in_stream(&json!({"error": error})).retryable, retryable, "{error}");
    }
}

#[test]
fn a_200_that_is_no_stream_is_read_like_an_error_inside_one() {
    let error = json!({"error": {"type": "overloaded_error", "message": "busy"}});
    assert_eq!(of_status(200, &error), in_stream(&error));
    let page = with_headers(200, &[], "");
    assert_eq!(page.message, "the provider gave an error without a message");
    assert_eq!((page.code, page.retryable), (None, false));
}

#[test]
fn a_header_names_the_time_to_wait() {
    assert_eq!(wait(&[("retry-after", "7")], ""), Some(7.0));
    assert_eq!(wait(&[("retry-after", " 1.5 ")], ""), Some(1.5));
    assert_eq!(wait(&[("retry-after-ms", "250")], ""), Some(0.25));
    assert_eq!(wait(&[("retry-after", "7"), ("retry-after-ms", "250")], ""), Some(0.25));
    assert_eq!(wait(&[("retry-after", "7"), ("retry-after-ms", "x")], ""), Some(7.0));
    assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], ""), Some(30.0));
    assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT")], ""), Some(0.0));
}

#[test]
fn a_time_to_wait_that_is_none_is_ignored() {
    for text in ["", "soon", "-1", "NaN", "inf", "1e300"] {
        assert_eq!(wait(&[("retry-after", text)], ""), None, "{text}");
    }
}

#[test]
fn nobody_is_told_to_wait_for_longer_than_a_year() {
    let year = f64::from(365 * 24 * 60 * 60);
    assert_eq!(wait(&[("retry-after", "18446744073709551615")], ""), None, "no such number");
    assert_eq!(wait(&[("retry-after", "18446744073709549568")], ""), Some(year));
}

#[test]
fn gemini_names_the_time_to_wait_in_the_body() {
    let details = json!([{"@type": "Help"}, {"@type": "RetryInfo", "retryDelay": "34.4s"}]);
    let body = json!({"error": {"code": 429, "message": "no", "details": details}}).to_string();
    assert_eq!(wait(&[], &body), Some(34.4));
    assert_eq!(wait(&[("retry-after", "1")], &body), Some(1.0));
    assert_eq!(wait(&[], &body.replace("34.4s", "34.4")), None);
}
