//! The council from the command line: what `check` says about it, and that a key that stands in the
//! environment goes to its provider and nowhere else.

use serde_json::json;
use tempfile::NamedTempFile;

use super::{Process, check, run, sluice};
use crate::support::models::{Piece, Replay, Script};
use crate::support::{EventSource, wait_for, within};

const ASK: &str = "/api/stream/council-score?videoUrl=a&transcript=b";
/// The variable that holds the key of [`member`].
const VARIABLE: &str = "COUNCIL_TEST_KEY";

/// A file of a council whose only member is asked at `base_url` with the key of [`VARIABLE`].
fn member(base_url: &str) -> String {
    format!(
        "[council]\nmembers = [\"gpt4\"]\n[council.member.gpt4]\ndialect = \"openai-chat\"\n\
         base_url = {base_url:?}\nmodel = \"m\"\napi_key_env = {VARIABLE:?}\n"
    )
}

fn file(config: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    file
}

/// What stream and log of a gateway with these settings say when its council is asked.
async fn refusal(config: &str) -> (String, String) {
    let file = file(config);
    let mut process = Process::start(&["--config", file.path().to_str().unwrap()], &[]).await;
    let said = EventSource::open(&process.url(ASK)).await.rest().await;
    assert_eq!(said.len(), 1, "nothing but why: {said:?}");
    assert_eq!(said[0].name, "error");
    assert_eq!(process.stop().await, 0);
    (said[0].data["error"].as_str().unwrap().to_owned(), process.log())
}

#[tokio::test]
async fn check_notes_members_that_cannot_be_asked() {
    let (status, stdout, stderr) = check(&member("http://127.0.0.1/v1")).await;
    assert_eq!((status, stderr.as_str()), (0, ""));
    insta::assert_snapshot!(stdout, @"
    the settings are right
    note: a member of the council cannot be asked: COUNCIL_TEST_KEY is not set (gpt4)
    ");
    let file = file(&member("http://127.0.0.1/v1"));
    let mut command = sluice(&["check", "--config", file.path().to_str().unwrap()]);
    for (key, note) in [("hunter2", ""), (" ", "is empty"), ("hunter2\u{7f}", "cannot be sent")] {
        let (status, stdout, _) = run(command.env(VARIABLE, key)).await;
        assert_eq!((status, stdout.contains("note: ")), (0, !note.is_empty()), "{stdout}");
        assert!(stdout.contains(note) && !stdout.contains("hunter2"), "{stdout}");
    }
}

#[tokio::test]
async fn check_explains_whom_a_stream_asks_and_how_it_ends() {
    let file = file(&member("http://127.0.0.1/v1"));
    let config = file.path().to_str().unwrap();
    let (status, stdout, _) =
        run(&mut sluice(&["check", "--config", config, "--explain", ASK])).await;
    assert_eq!(status, 0);
    insta::assert_snapshot!(stdout, @r#"
    stream    council_score (/stream/council-score)
    class     text
    snapshot  the last events, for clients that come late
    council   gpt4 (prompt score)
    channel   council:{runId} (heard at all times by *)
    ends      when isComplete is true and stage is "complete"
    note: a member of the council cannot be asked: COUNCIL_TEST_KEY is not set (gpt4)
    "#);
    let named = format!("{ASK}&runId=mine");
    let (_, stdout, _) = run(&mut sluice(&["check", "--explain", &named])).await;
    assert!(stdout.contains("channel   council:mine "), "{stdout}");
    assert!(stdout.contains("council   nobody (prompt score)"), "{stdout}");
    let (status, _, stderr) =
        run(&mut sluice(&["check", "--explain", "/api/stream/council-score?videoUrl=a"])).await;
    let missing = "sluice: stream council_score: Missing required parameter: transcript\n";
    assert_eq!((status, stderr.as_str()), (64, missing));
}

#[tokio::test]
async fn a_key_goes_to_its_provider_and_nowhere_else() {
    const KEY: &str = "sk-hunter2";
    let chunk = |chunk: serde_json::Value| Piece::from(format!("data: {chunk}\n\n"));
    let answers = Script::chunked(vec![
        chunk(json!({"choices": [{"delta": {"content": "Fine.\nSCORE: 0.8"}}]})),
        chunk(json!({"choices": [{"delta": {}, "finish_reason": "stop"}]})),
        Piece::from("data: [DONE]\n\n"),
    ]);
    // As some providers do, this one repeats the key it does not like.
    let error = json!({"error": {"message": format!("Incorrect API key provided: {KEY}."),
        "code": "invalid_api_key"}});
    let headers = ["content-type: application/json"];
    let refuses =
        Script::answer("401 Unauthorized", &headers, vec![Piece::from(error.to_string())]);
    for (script, said) in [(answers, "Fine."), (refuses, "invalid_api_key")] {
        let provider = Replay::start(vec![script]).await;
        let file = file(&member(&provider.url("/v1")));
        let arguments = ["--config", file.path().to_str().unwrap()];
        let environment = [(VARIABLE, KEY), ("SLUICE__LOG__LEVEL", "trace")];
        let mut process = Process::start(&arguments, &environment).await;
        let get = async |path: &str| {
            let answer = within(path, reqwest::get(process.url(path))).await.unwrap();
            within(path, answer.text()).await.unwrap()
        };
        let mut told = get(&format!("{ASK}&runId=mine")).await;
        assert!(told.contains(said), "{told}");
        for path in ["/api/council/mine", "/metrics", "/health", "/api/realtime/stats"] {
            told += &get(path).await;
        }
        let requests = provider.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].header("authorization"), Some("Bearer sk-hunter2"));
        assert!(!String::from_utf8_lossy(&requests[0].body).contains("hunter2"));

        assert_eq!(process.stop().await, 0);
        wait_for("last line", async || process.log().contains("draining")).await;
        let log = process.log();
        assert!(log.contains("a run of the council is over"), "{log}");
        for place in [told, log] {
            assert!(!place.contains("hunter2"), "{place}");
        }
    }
}

#[tokio::test]
async fn a_council_that_cannot_be_asked_says_at_once_what_is_missing() {
    let (said, log) = refusal(&member("http://127.0.0.1/v1")).await;
    let missing = "COUNCIL_TEST_KEY is not set (gpt4)";
    assert_eq!(said, format!("No member of the council can be asked: {missing}"));
    assert!(log.contains(" WARN ") && log.contains("COUNCIL_TEST_KEY is not set"), "{log}");

    let (said, _) = refusal("").await;
    insta::assert_snapshot!(said, @"The council has no members: set council.members, and declare each as [council.member.NAME]");
}
