//! The council's settings: what is refused, under which key and without the secrets in it, what the
//! environment sets, and that config/council.toml is an example that works.

use std::path::Path;

use sluice::settings::{Dialect, MemberSettings, Settings};

use super::{assert_refused, faults, load};

/// Settings of the member `a`, about whom nothing has to be said besides, and further lines.
fn member(more: &str) -> String {
    named("a", more)
}

fn named(name: &str, more: &str) -> String {
    format!(
        "[council.member.{name:?}]\ndialect = \"openai-chat\"\nbase_url = \"http://127.0.0.1/v1\"\n\
         model = \"m\"\n{more}\n"
    )
}

/// Settings of the council with the members `a` and `b`.
fn council(lines: &str) -> String {
    format!("[council]\n{lines}\n{}{}", named("a", ""), named("b", ""))
}

/// That each line is refused with one fault of `before` and its own key.
fn assert_lines_refused(before: &str, file: impl Fn(&str) -> String, lines: &[&str]) {
    for line in lines {
        let key = line.split(" =").next().unwrap();
        assert_refused(&[(&file(line), &format!("{before}.{key}"))]);
    }
}

#[test]
fn a_member_needs_no_more_than_a_dialect_a_url_and_a_model() {
    let settings = load(&member(""), &[]).unwrap();
    let a = &settings.council.member["a"];
    assert_eq!((a.dialect, a.model.as_str()), (Dialect::OpenaiChat, "m"));
    assert_eq!((a.weight, a.attempts, a.restarts, a.budget), (1.0, 3, 0, 0.0));
    assert_eq!((a.key_source(), a.schema, a.first_text), (None, None, None));
    for key in ["dialect", "base_url", "model"] {
        let lines = member("");
        let without = lines.lines().filter(|line| !line.starts_with(key));
        let without = without.collect::<Vec<_>>().join("\n");
        assert!(faults(&without).starts_with("council.member.a: missing field"), "{without}");
    }
}

#[test]
fn members_are_added_and_all_else_stays() {
    let settings = load(&council("members = [\"b\", \"a\"]"), &[]).unwrap();
    assert_eq!(settings.council.members, ["b", "a"], "in the order of the file");
    let defaults = Settings::load(None, []).unwrap();
    assert!(defaults.council.members.is_empty() && defaults.council.member.is_empty());
    assert_eq!(settings.council.prompt, defaults.council.prompt);
    assert_eq!(settings.council.first_text, defaults.council.first_text);

    let prompt =
        "[council.prompt.mine]\nuser = \"Say {what}.\"\n[council.prompt.score]\nuser = \"Q\"";
    let settings = load(prompt, &[]).unwrap();
    let (mine, score) = (&settings.council.prompt["mine"], &settings.council.prompt["score"]);
    assert_eq!((mine.system.as_str(), mine.scored), ("", false));
    assert_eq!((score.user.as_str(), score.scored), ("Q", true));
    assert_eq!(score.system, defaults.council.prompt["score"].system);
}

#[test]
fn the_environment_declares_members() {
    let environment = [
        ("SLUICE__COUNCIL__MEMBERS", "a,gpt4"),
        ("SLUICE__COUNCIL__BUDGET", "1"),
        ("SLUICE__COUNCIL__MEMBER__GPT4__DIALECT", "openai-responses"),
        ("SLUICE__COUNCIL__MEMBER__GPT4__BASE_URL", "https://api.example/v1"),
        ("SLUICE__COUNCIL__MEMBER__GPT4__MODEL", "x"),
        ("SLUICE__COUNCIL__MEMBER__GPT4__API_KEY_ENV", "OPENAI_API_KEY"),
        ("SLUICE__COUNCIL__MEMBER__GPT4__WEIGHT", "0.2"),
        ("SLUICE__COUNCIL__MEMBER__A__MODEL", "other"),
        ("SLUICE__COUNCIL__MEMBER__A__FIRST_TEXT", "5s"),
    ];
    let settings = load(&member("max_tokens = 9"), &environment).unwrap();
    assert_eq!(settings.council.members, ["a", "gpt4"]);
    assert_eq!(settings.council.budget, 1.0);
    let (a, gpt4) = (&settings.council.member["a"], &settings.council.member["gpt4"]);
    assert_eq!(
        (a.model.as_str(), a.max_tokens),
        ("other", Some(9)),
        "only what is said is changed"
    );
    assert_eq!(a.first_text.unwrap().as_secs(), 5);
    assert_eq!((gpt4.dialect, gpt4.model.as_str()), (Dialect::OpenaiResponses, "x"));
    assert_eq!((gpt4.key_source().as_deref(), gpt4.weight), (Some("OPENAI_API_KEY"), 0.2));
    let unknown = load("", &[("SLUICE__COUNCIL__MEMBERS", "a")]).unwrap_err();
    assert!(unknown.starts_with("council.members: \"a\" is not declared"), "{unknown}");
}

#[test]
fn what_makes_no_sense_about_the_council_is_refused() {
    assert!(load(&council("members = [\"a\", \"b\"]\nquorum = 2\nchairman = \"a\""), &[]).is_ok());
    assert_lines_refused(
        "council",
        council,
        &[
            "members = [\"a\", \"c\"]",
            "members = [\"a\", \"b\", \"a\"]",
            "members = 5",
            "quorum = 2\nmembers = [\"a\"]",
            "quorum = -1",
            "chairman = \"c\"",
            "scale = \"0-10\"",
            "unwatched = \"never\"",
            "deliberate = \"perhaps\"",
            "budget = -0.01",
            "budget = nan",
            "budget = inf",
            "max_runs = 0",
            "max_runs = 100_001",
            "max_runs_per_client = 0",
            "kept_runs = 0",
            "kept_runs = 100_001",
            "max_input_bytes = 0",
            "max_answer_bytes = 0",
        ],
    );
    for key in ["first_text", "idle", "total", "deadline", "connect"] {
        assert_lines_refused("council", council, &[&format!("{key} = \"0s\"")]);
        assert_lines_refused("council", council, &[&format!("{key} = \"31days\"")]);
    }
    for key in ["grace", "reuse", "retention"] {
        assert!(load(&council(&format!("{key} = \"0s\"")), &[]).is_ok(), "switched off");
        assert_lines_refused("council", council, &[&format!("{key} = \"31days\"")]);
        assert_lines_refused("council", council, &[&format!("{key} = 5")]);
    }
}

#[test]
fn what_makes_no_sense_about_a_member_is_refused() {
    assert_lines_refused(
        "council.member.a",
        member,
        &[
            "weight = -1.0",
            "weight = nan",
            "input_price = -0.1",
            "output_price = inf",
            "budget = nan",
            "attempts = 0",
            "attempts = 11",
            "attempts = -1",
            "restarts = 11",
            "max_tokens = -1",
            "first_text = \"0s\"",
            "idle = \"0s\"",
            "total = \"0s\"",
            "total = \"31days\"",
            "total = \"soon\"",
            "headers = { \"a b\" = \"x\" }",
            "headers = { \"\" = \"x\" }",
            "key_header = \"api key\"",
            "key_header = \"\"",
            "api_key_file = \"none\"",
            "api_key_file = \"Cargo.toml\"\napi_key_env = \"KEY\"",
            "api_key_env = \"not a name\"",
            "schema = \"perhaps\"",
        ],
    );
    let right = "weight = 0\nattempts = 10\nrestarts = 10\ninput_price = 0.0\nkey_header = \"api-key\"\n\
                 api_key_file = \"Cargo.toml\"\nheaders = { X-Title = \"mine\" }";
    assert!(load(&member(right), &[]).is_ok(), "the same without the faults");
    for url in
        ["", "api.example/v1", "ftp://api.example", "https://", "https://a b/v1", "http://[::1"]
    {
        let file = member("").replace("http://127.0.0.1/v1", url);
        assert_refused(&[(&file, "council.member.a.base_url")]);
    }
    assert_refused(&[
        (&member("").replace("\"m\"", "\" \""), "council.member.a.model"),
        (&member("").replace("openai-chat", "openai"), "council.member.a.dialect"),
        (&member("headers = { X-Count = 5 }"), "council.member.a.headers.X-Count"),
    ]);
    let dialect = faults(&member("").replace("openai-chat", "openai"));
    assert!(dialect.contains("anthropic") && dialect.contains("gemini"), "{dialect}");
}

#[test]
fn a_members_name_can_stand_on_the_wire_and_in_urls() {
    let longest = "x".repeat(64);
    for name in ["gpt-4.1_mini", longest.as_str()] {
        assert!(load(&named(name, ""), &[]).is_ok(), "{name}");
    }
    let too_long = "x".repeat(65);
    for name in ["", "a b", "a/b", "ranking:a", "é", too_long.as_str()] {
        let faults = faults(&named(name, ""));
        assert!(faults.starts_with(&format!("council.member.{name}: ")), "{faults}");
    }
    for stage in ["run", "aggregate", "aggregating", "synthesis", "complete"] {
        assert_refused(&[(&named(stage, ""), &format!("council.member.{stage}"))]);
    }
}

#[test]
fn unknown_keys_of_the_council_are_refused_wherever_they_stand() {
    for (file, key) in [
        (council("nope = 1"), "council.nope"),
        (member("nope = 1"), "council.member.a.nope"),
        ("[council.prompt.score]\nnope = 1".to_owned(), "council.prompt.score.nope"),
        (
            "[stream.council_score.council]\nnope = 1".to_owned(),
            "stream.council_score.council.nope",
        ),
    ] {
        assert_eq!(faults(&file), format!("{key}: unknown key"));
    }
    // The body of the request is the provider's matter.
    let extra = load(&member("extra = { temperature = 0.2, nope = { a = [1] } }"), &[]).unwrap();
    assert_eq!(extra.council.member["a"].extra["nope"]["a"][0], 1);
}

#[test]
fn a_stream_asks_for_what_the_council_has() {
    let redis = "[redis]\nurl = \"redis://host\"\npatterns = [\"alerts\"]";
    let heard = format!("{}{redis}", member(""));
    assert_refused(&[
        (
            "[stream.council_score.council]\nprompt = \"none\"",
            "stream.council_score.council.prompt",
        ),
        ("[stream.council_score]\nchannels = [\"council:all\"]", "stream.council_score.channels"),
        ("[stream.alerts]\ncouncil = { prompt = \"score\" }", "stream.alerts.channels"),
        ("[stream.alerts.council]\nseats = 1", "stream.alerts.council"),
        ("[council.prompt.mine]\nsystem = \"S\"", "council.prompt.mine"),
        (&heard, "redis.patterns"),
    ]);
    assert!(load(&heard.replace("alerts", "*"), &[]).is_ok(), "a pattern that covers all runs");
    assert!(load(redis, &[]).is_ok(), "nobody can be asked, as before there was a council");
    assert!(load(&heard.replace("redis://host", ""), &[]).is_ok(), "nobody listens to Redis");
    let without =
        "[stream.council_score]\nenabled = false\n[stream.evaluate_creative]\nenabled = false";
    assert!(load(&format!("{heard}\n{without}"), &[]).is_ok(), "nobody asks the council");
}

#[test]
fn secrets_of_members_are_in_no_fault() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2").unwrap();
    let key_file = format!("api_key_file = {:?}\napi_key_env = \"KEY\"", file.path());
    let base_url = |url: &str| member("").replace("http://127.0.0.1/v1", url);
    for faulty in [
        base_url("ftp://user:hunter2@host"),
        base_url("https://user:hunter2@host:99999/v1?key=hunter2"),
        base_url("hunter2"),
        member("").replace("\"http://127.0.0.1/v1\"", "[\"http://user:hunter2@host\"]"),
        member(&key_file),
        member("api_key = \"hunter2\""),
        // The key itself where the name of its variable belongs.
        member("api_key_env = \"sk-hunter2\""),
        member("api_key_env = [\"hunter2\"]"),
        member("headers = \"hunter2\""),
        member("headers = { Authorization = [\"Bearer hunter2\"] }"),
        member("headers = { \"a b\" = \"hunter2\" }"),
        member("headers = { Authorization = \"Bearer hunter2 }"),
        "[council]\nmember = \"hunter2\"".to_owned(),
        "council = \"hunter2\"".to_owned(),
    ] {
        let faults = faults(&faulty);
        assert!(!faults.contains("hunter2"), "{faulty}: {faults}");
    }
    let right =
        member("headers = { Authorization = \"Bearer hunter2\" }\nextra = { user = \"hunter2\" }")
            .replace("http://127.0.0.1/v1", "https://user:hunter2@host/v1?key=hunter2");
    assert!(!format!("{:?}", load(&right, &[]).unwrap()).contains("hunter2"));
}

#[test]
fn the_example_is_a_council_of_four() {
    let settings = Settings::load(Some(Path::new("config/council.toml")), []).unwrap();
    let council = settings.council;
    assert_eq!(council.members, ["gemini", "claude", "gpt4", "perplexity"]);
    let keys = council.members.iter().map(|name| council.member[name].key_source().unwrap());
    let expected = ["GEMINI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "PERPLEXITY_API_KEY"];
    assert_eq!(keys.collect::<Vec<_>>(), expected);
    assert!(council.member.values().all(|member| member.weight == 1.0));
}

#[test]
fn what_the_example_leaves_out_can_be_switched_on() {
    let text = std::fs::read_to_string("config/council.toml").unwrap();
    let switched_on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    let text = text.lines().map(switched_on).collect::<Vec<_>>().join("\n");
    let others = ["azure", "openrouter", "vllm", "llamacpp", "ollama"];
    let all = format!("\"perplexity\", {}", others.map(|name| format!("{name:?}")).join(", "));
    let council = load(&text.replace("\"perplexity\"", &all), &[]).unwrap().council;
    assert_eq!((council.members.len(), council.member.len()), (9, 9));
    assert_eq!((council.quorum, council.budget), (3, 0.05));
    for name in ["gemini", "claude", "gpt4", "perplexity"] {
        let MemberSettings { input_price, output_price, .. } = &council.member[name];
        assert!(input_price.is_some() && output_price.is_some(), "{name}");
    }
    let azure = &council.member["azure"];
    assert_eq!(azure.key_header.as_deref(), Some("api-key"));
    assert!(azure.base_url.contains("?api-version="));
    assert_eq!(council.member["openrouter"].headers["X-Title"], "Sluice");
    for name in ["vllm", "llamacpp", "ollama"] {
        assert_eq!(council.member[name].key_source(), None, "{name}");
    }
}
