//! What providers are asked, to the letter: where, with which headers, with which body; and that a
//! key goes there and nowhere else.

use serde_json::{Value, json};

use super::{ASK, Watcher, gateway, member};
use crate::support::models::{Piece, Replay, Script};

const DIALECTS: [&str; 4] = ["openai-chat", "openai-responses", "anthropic", "gemini"];

/// What every member is told here: a short question.
const PROMPT: &str = "system = \"Judge.\"\nuser = \"What of {transcript}?\"";

/// The bodies that members of all dialects send with these settings, in the order of [`DIALECTS`].
async fn bodies(settings: &str) -> [Value; 4] {
    let upstream = Replay::start(vec![Script::answer("400 Bad Request", &[], vec![])]).await;
    let members = DIALECTS.map(|dialect| {
        member(dialect, dialect, &upstream.url("/v1"), &format!("{PROMPT}\n{settings}"))
    });
    let gateway = gateway(&format!("council.members = {DIALECTS:?}\n{}", members.concat())).await;
    Watcher::watch(&gateway, ASK).await;
    let requests = upstream.requests();
    [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/models/gemini-1:streamGenerateContent?alt=sse",
    ]
    .map(|path| {
        let request = requests.iter().find(|request| request.path == path);
        let request = request.unwrap_or_else(|| panic!("{path}: {requests:?}"));
        assert_eq!(request.method, "POST");
        for (name, value) in [
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("accept-encoding", "identity"),
        ] {
            assert_eq!(request.header(name), Some(value), "{path}: {name}");
        }
        request.json()
    })
}

fn schema() -> Value {
    let part = |what: &str| {
        json!({"type": ["number", "null"],
            "description": format!("{what}, from 0 to 1; null if it cannot be judged")})
    };
    json!({
        "type": "object",
        "properties": {
            "reasoning": {"type": "string", "description": "The assessment, in plain text"},
            "score": {"type": "number", "description": "The overall score, from 0 (worst) to 1 (best)"},
            "psychology": part("Psychological effect"),
            "hookStrength": part("Strength of the hook"),
            "novelty": part("Novelty"),
        },
        "required": ["reasoning", "score", "psychology", "hookStrength", "novelty"],
        "additionalProperties": false,
    })
}

#[tokio::test]
async fn each_dialect_is_asked_in_its_own_words() {
    let [chat, responses, anthropic, gemini] = bodies("max_tokens = 50").await;
    let question = "What of Buy it?";
    assert_eq!(
        chat,
        json!({
            "model": "openai-chat-1",
            "messages": [{"role": "system", "content": "Judge."},
                {"role": "user", "content": question}],
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_tokens": 50,
            "response_format": {"type": "json_schema",
                "json_schema": {"name": "answer", "strict": true, "schema": schema()}},
        })
    );
    assert_eq!(
        responses,
        json!({
            "model": "openai-responses-1",
            "instructions": "Judge.",
            "input": question,
            "stream": true,
            "max_output_tokens": 50,
            "text": {"format": {"type": "json_schema", "name": "answer", "strict": true,
                "schema": schema()}},
        })
    );
    let asked = anthropic["messages"][0]["content"].as_str().unwrap();
    let (asked, demand) = asked.split_once("\n\n").unwrap();
    assert_eq!(asked, question);
    assert!(demand.contains("\nSCORE: N PSYCHOLOGY: N HOOK: N NOVELTY: N\n"), "{demand}");
    assert_eq!(
        anthropic,
        json!({
            "model": "anthropic-1",
            "max_tokens": 50,
            "stream": true,
            "system": "Judge.",
            "messages": [{"role": "user", "content": format!("{question}\n\n{demand}")}],
        })
    );
    let config = &gemini["generationConfig"];
    assert_eq!(gemini["contents"], json!([{"role": "user", "parts": [{"text": question}]}]));
    assert_eq!(gemini["systemInstruction"], json!({"parts": [{"text": "Judge."}]}));
    assert_eq!(config["maxOutputTokens"], 50);
    assert_eq!(config["responseMimeType"], "application/json");
    assert_eq!(config["responseSchema"]["properties"]["score"]["type"], "NUMBER");
    assert_eq!(config["responseSchema"]["properties"]["novelty"]["nullable"], true);
    // The score is to follow from its reasons.
    assert_eq!(config["responseSchema"]["propertyOrdering"][0], "reasoning");
    let schema = &chat["response_format"]["json_schema"]["schema"];
    assert_eq!(schema["properties"].as_object().unwrap().keys().next().unwrap(), "reasoning");
}

#[tokio::test]
async fn without_a_schema_the_score_is_asked_for_in_words() {
    let [chat, responses, _, gemini] = bodies("schema = false").await;
    assert!(chat.get("response_format").is_none() && chat.get("max_tokens").is_none(), "{chat}");
    assert!(responses.get("text").is_none(), "{responses}");
    assert!(gemini.get("generationConfig").is_none(), "{gemini}");
    for asked in [
        &chat["messages"][1]["content"],
        &responses["input"],
        &gemini["contents"][0]["parts"][0]["text"],
    ] {
        assert!(asked.as_str().unwrap().contains("\nSCORE: N "), "{asked}");
    }
}

#[tokio::test]
async fn further_fields_of_the_body_win() {
    let settings = "max_tokens = 50
        [council.member.NAME.extra]
        temperature = 0.5
        max_tokens = 7
        stream_options = { include_usage = false }
        text = { verbosity = \"low\" }
        generationConfig = { temperature = 0.5, maxOutputTokens = 7 }
        response_format = { type = \"json_object\" }";
    let upstream = Replay::start(vec![Script::answer("400 Bad Request", &[], vec![])]).await;
    let members = DIALECTS.map(|dialect| {
        member(dialect, dialect, &upstream.url("/v1"), &settings.replace("NAME", dialect))
    });
    let gateway = gateway(&format!("council.members = {DIALECTS:?}\n{}", members.concat())).await;
    Watcher::watch(&gateway, ASK).await;
    let body = |path: &str| {
        let requests = upstream.requests();
        requests.iter().find(|request| request.path.starts_with(path)).unwrap().json()
    };
    let chat = body("/v1/chat");
    assert_eq!((&chat["temperature"], &chat["max_tokens"]), (&json!(0.5), &json!(7)));
    assert_eq!(chat["stream_options"], json!({"include_usage": false}));
    // Another kind of format is not mixed with ours.
    assert_eq!(chat["response_format"], json!({"type": "json_object"}));
    let responses = body("/v1/responses");
    assert_eq!(responses["text"]["verbosity"], "low");
    assert_eq!(responses["text"]["format"]["schema"], schema(), "beside it, ours stays");
    assert_eq!(body("/v1/messages")["max_tokens"], 7);
    let config = &body("/v1/models")["generationConfig"];
    assert_eq!((&config["temperature"], &config["maxOutputTokens"]), (&json!(0.5), &json!(7)));
    assert_eq!(config["responseMimeType"], "application/json");
}

#[tokio::test]
async fn a_key_goes_to_its_provider_and_nowhere_else() {
    const KEYS: [&str; 5] = [
        "sk-proj-4f9a8b7c6d5e",
        "sk-resp-1a2b3c4d5e6f",
        "sk-ant-api03-9z8y7x6w",
        "AIzaSyD-1234567890abc",
        "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    ];
    // The provider repeats what it was sent, as some do.
    let told = KEYS.map(|key| format!("Incorrect API key provided: {key}. Authorization: {key}"));
    let error = json!({"error": {"message": told.join(" "), "code": "invalid_api_key"}});
    let refusal = Script::answer("401 Unauthorized", &[], vec![Piece::from(error.to_string())]);
    let upstream = Replay::start(vec![refusal]).await;
    let folder = tempfile::tempdir().unwrap();
    let with_key = |name: &str, dialect: &str, path: &str, key: &str, more: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("{key}\n")).unwrap();
        let more = format!("{PROMPT}\napi_key_file = {file:?}\n{more}");
        member(name, dialect, &upstream.url(path), &more)
    };
    let azure = "/openai/deployments/d?api-version=2024-10-21";
    let config = [
        "council.members = [\"chat\", \"responses\", \"claude\", \"gemini\", \"azure\"]\n"
            .to_owned(),
        with_key("chat", "openai-chat", "/v1", KEYS[0], ""),
        with_key("responses", "openai-responses", "/v1", KEYS[1], ""),
        with_key("claude", "anthropic", "/v1", KEYS[2], ""),
        with_key("gemini", "gemini", "/v1", KEYS[3], ""),
        with_key("azure", "openai-chat", azure, KEYS[4], "key_header = \"api-key\""),
    ];
    let gateway = gateway(&config.concat()).await;
    let path = format!("{ASK}&runId=a-run");
    let wire = gateway.raw(&path).await.rest().await;
    assert!(wire.contains("event: complete"), "{wire}");

    let requests = upstream.requests();
    assert_eq!(requests.len(), KEYS.len(), "a wrong key is not tried again");
    let bearer = |key: &str| format!("Bearer {key}");
    for (path, header, value) in [
        ("/v1/chat/completions", "authorization", bearer(KEYS[0])),
        ("/v1/responses", "authorization", bearer(KEYS[1])),
        ("/v1/messages", "x-api-key", KEYS[2].to_owned()),
        ("/v1/models/gemini-1:streamGenerateContent?alt=sse", "x-goog-api-key", KEYS[3].to_owned()),
        (
            "/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "api-key",
            KEYS[4].to_owned(),
        ),
    ] {
        let request = requests.iter().find(|request| request.path == path).unwrap();
        for name in ["authorization", "x-api-key", "x-goog-api-key", "api-key"] {
            let sent = (name == header).then_some(&*value);
            assert_eq!(request.header(name), sent, "{path}: {name}");
        }
        let version = request.header("anthropic-version");
        assert_eq!(version, (path == "/v1/messages").then_some("2023-06-01"));
    }
    let state = gateway.get("/api/council/a-run").send().await.unwrap().text().await.unwrap();
    assert!(state.contains("invalid_api_key"), "{state}");
    let metrics = gateway.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("sluice_council_member_ends_total{end=\"auth\",member=\"azure\"} 1"),
        "{metrics}"
    );
    for place in [wire, state, metrics] {
        for key in KEYS {
            assert!(!place.contains(key), "{key} in {place}");
        }
    }
}
