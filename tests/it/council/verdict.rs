//! Every fault that `llmock` knows, over every dialect and Perplexity, all in one run: what the
//! gateway says of each, and what `llmock` says of the gateway.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::dialects::has_the_shape_of_the_contract;
use super::{ASK, Watcher, gateway, member};
use crate::support::models::Llmock;

const TEXT: &str = "One two three four five.\nSCORE: 0.5";

/// How a provider is asked, and where its streams are cut.
struct Provider {
    name: &'static str,
    dialect: &'static str,
    path: &'static str,
    /// After so many events no word has come yet.
    before_text: u32,
    /// How its answers end that a filter has stopped.
    filtered: &'static str,
}

const PROVIDERS: [Provider; 5] = [
    Provider {
        name: "chat",
        dialect: "openai-chat",
        path: "/v1",
        before_text: 1,
        filtered: "blocked",
    },
    Provider {
        name: "responses",
        dialect: "openai-responses",
        path: "/v1",
        before_text: 4,
        // `llmock` has no other word for it here than that the answer is complete.
        filtered: "ok",
    },
    Provider {
        name: "claude",
        dialect: "anthropic",
        path: "/anthropic/v1",
        before_text: 3,
        filtered: "refused",
    },
    Provider {
        name: "gemini",
        dialect: "gemini",
        path: "/gemini/v1beta",
        before_text: 0,
        filtered: "blocked",
    },
    Provider {
        name: "perplexity",
        dialect: "openai-chat",
        path: "/perplexity/v1",
        before_text: 1,
        filtered: "blocked",
    },
];

/// A fault, and how an answer with it ends.
struct Trial {
    name: String,
    fault: Value,
    /// Further settings of the member.
    more: &'static str,
    end: &'static str,
    attempts: u32,
}

impl Trial {
    fn new(name: impl Into<String>, fault: Value, (end, attempts): (&'static str, u32)) -> Self {
        Self { name: name.into(), fault, more: "", end, attempts }
    }

    fn with(self, more: &'static str) -> Self {
        Self { more, ..self }
    }
}

/// Statuses: those that pass, with and without a time to wait for, and those that do not.
fn refusals() -> Vec<Trial> {
    let mut trials = Vec::new();
    for status in [429, 500, 502, 503, 504, 529] {
        let fail = json!({"type": "fail", "status": status});
        trials.push(Trial::new(format!("s{status}"), fail, ("ok", 2)));
        let fail = json!({"type": "fail", "status": status, "retry_after": 0.3});
        trials.push(Trial::new(format!("s{status}_after"), fail, ("ok", 2)));
    }
    for (status, end) in [
        (400, "upstream_error"),
        (401, "auth"),
        (403, "auth"),
        (404, "upstream_error"),
        (422, "upstream_error"),
    ] {
        let fail = json!({"type": "fail", "status": status});
        trials.push(Trial::new(format!("s{status}"), fail, (end, 1)));
    }
    let down = json!({"type": "fail", "status": 503, "times": null});
    trials.push(Trial::new("down", down, ("overloaded", 3)));
    trials
}

/// Streams that break before the first word, and after.
fn breaks(provider: &Provider) -> Vec<Trial> {
    let mut trials = Vec::new();
    for kind in ["truncate", "disconnect", "malformed"] {
        for (place, after_chunks) in
            [("before", provider.before_text), ("after", provider.before_text + 2)]
        {
            let fault = json!({"type": "stream_fault", "kind": kind, "after_chunks": after_chunks});
            let trial = Trial::new(format!("{kind}_{place}"), fault, ("ok", 2));
            trials.push(trial.with("restarts = 1"));
        }
    }
    trials
}

/// What takes its time: a little of it is patience, a lot is an end.
fn waits(provider: &Provider) -> Vec<Trial> {
    let stall = |after_chunks: u32| {
        json!({"type": "stream_fault", "kind": "stall", "after_chunks": after_chunks,
            "stall_seconds": 3})
    };
    let first = "first_text = \"500ms\"";
    vec![
        Trial::new("delay", json!({"type": "delay", "seconds": 0.1}), ("ok", 1)),
        Trial::new("delay_long", json!({"type": "delay", "seconds": 3}), ("timeout_first_text", 1))
            .with(first),
        Trial::new("slow", json!({"type": "slow_first_token", "seconds": 0.1}), ("ok", 1)),
        Trial::new(
            "slow_long",
            json!({"type": "slow_first_token", "seconds": 3}),
            ("timeout_first_text", 1),
        )
        .with(first),
        Trial::new("stall_before", stall(provider.before_text), ("timeout_first_text", 1))
            .with(first),
        Trial::new("stall_after", stall(provider.before_text + 2), ("timeout_idle", 1))
            .with("idle = \"500ms\""),
    ]
}

/// Answers that end in another way than with all that was to be said.
fn ends(provider: &Provider) -> Vec<Trial> {
    let reply = |reason: &str| json!({"type": "reply", "text": TEXT, "finish_reason": reason});
    vec![
        Trial::new("length", reply("length"), ("truncated", 1)),
        Trial::new("filter", reply("content_filter"), (provider.filtered, 1)),
    ]
}

#[tokio::test]
async fn llmock_has_nothing_to_say_against_how_its_faults_are_taken() {
    let llmock = Llmock::start().await;
    let mut trials = BTreeMap::new();
    let (mut names, mut members, mut behaviors) = (Vec::new(), String::new(), Vec::new());
    for provider in &PROVIDERS {
        let of_provider =
            [refusals(), breaks(provider), waits(provider), ends(provider)].into_iter().flatten();
        for mut trial in of_provider {
            let name = format!("{}_{}", provider.name, trial.name);
            let more = format!("schema = false\n{}", trial.more);
            members += &member(&name, provider.dialect, &llmock.url(provider.path), &more);
            trial.fault["match"] = json!({"model": format!("{name}-1")});
            behaviors.push(trial.fault.take());
            names.push(name.clone());
            trials.insert(name, trial);
        }
    }
    // What nothing else is said for.
    behaviors.push(json!({"type": "reply", "text": TEXT, "times": null}));
    llmock.scenario(&json!(behaviors)).await;
    let gateway = gateway(&format!("council.members = {names:?}\n{members}")).await;

    let run = Watcher::watch(&gateway, ASK).await;
    has_the_shape_of_the_contract(&run, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for (name, trial) in &trials {
        let end = &run.ends[name];
        let said = (&end["end"], &end["attempts"]);
        assert_eq!(said, (&json!(trial.end), &json!(trial.attempts)), "{name}: {end}");
        let half = json!(0.5);
        let score = (trial.end == "ok").then_some(&half);
        assert_eq!(end.get("score"), score, "{name}: {end}");
        if score.is_some() {
            assert_eq!(run.texts[name], TEXT, "{name}: whole, and nothing of it twice");
        }
    }
    let verdict = llmock.verdict().await;
    assert_eq!(verdict.fails(), [""; 0], "{verdict:?}");
    assert_eq!(verdict.warnings(), [""; 0], "{verdict:?}");
    let attempts: u64 = run.ends.values().filter_map(|end| end["attempts"].as_u64()).sum();
    assert_eq!(u64::try_from(verdict.attempts).unwrap(), attempts, "each attempt is told");
    assert_eq!(verdict.calls, trials.len(), "a call each, its retries told from other calls");
}
