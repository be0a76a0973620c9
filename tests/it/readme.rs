//! What the README says is true: its commands, routes, settings and files exist, and its first
//! screen shows what really comes out.

use std::path::Path;
use std::process::Command;

use axum::http::StatusCode;
use clap::Parser;
use serde_json::Value;
use sluice::cli::Cli;
use sluice::demo;
use sluice::gateway::Gateway;
use sluice::settings::{DEFAULTS, Settings};
use tokio::net::TcpListener;

use crate::support::{EventSource, wait_for};

const README: &str = include_str!("../../README.md");
const RUN: &str = "cargo run --release -- demo";
const TEST: &str = "tests/run";

/// The demo of the first command, on a free port: the gateway, and where it is.
async fn demo() -> (Gateway, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings =
        demo::settings(Settings::load(None, []).unwrap(), listener.local_addr().unwrap());
    let gateway = Gateway::start(settings, listener, demo::pages()).unwrap();
    demo::start(&gateway);
    let base = format!("http://{}", gateway.address());
    (gateway, base)
}

/// The blocks of code in `language`.
fn blocks(language: &str) -> Vec<&'static str> {
    let mut blocks = Vec::new();
    let mut parts = README.split("```");
    while let (Some(_text), Some(block)) = (parts.next(), parts.next()) {
        let (named, code) = block.split_once('\n').unwrap();
        if named == language {
            blocks.push(code.trim_end());
        }
    }
    blocks
}

/// What stands in backticks within the text.
fn spans() -> Vec<&'static str> {
    let text = README.split("```").step_by(2);
    text.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

/// Splits a line of the shell: white space, and single quotes.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.last_mut().unwrap().push_str(part);
            continue;
        }
        for c in part.chars() {
            match c {
                ' ' => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn the_two_commands_stand_there_alone_and_the_scripts_run_the_second() {
    assert_eq!(blocks("sh")[0], RUN);
    assert_eq!(blocks("sh")[2], TEST);
    let ci = include_str!("../../.ci/run");
    assert!(ci.lines().any(|line| line.starts_with("step ") && line.ends_with(TEST)), "{ci}");
    let run = include_str!("../run");
    assert!(run.trim_end().lines().last().unwrap().starts_with("exec cargo test"), "{run}");
    for script in [".ci/run", "tests/run"] {
        use std::os::unix::fs::PermissionsExt;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} cannot be run");
    }
}

#[tokio::test]
async fn the_first_screen_shows_what_comes_out() {
    let curl = blocks("sh")[1].strip_prefix("curl -N http://127.0.0.1:8000").unwrap();
    let shown = blocks("text")[0].lines().filter_map(|line| line.strip_prefix("data: "));
    let shown: Vec<_> = shown.map(|line| line.trim_end_matches(", …")).collect();
    assert!(shown.len() > 1, "an event at least");

    let (_gateway, base) = demo().await;
    let mut stream = EventSource::open(&format!("{base}{curl}")).await;
    let mut came = stream.connected.data.clone();
    for shown in shown {
        // What is shown is cut: its end closes it.
        let shown: Value = serde_json::from_str(&format!("{shown}}}")).unwrap();
        assert_eq!(shown["type"], came["type"]);
        let names = |value: &Value| -> Vec<String> {
            value
                .as_object()
                .unwrap()
                .keys()
                .take(shown.as_object().unwrap().len())
                .cloned()
                .collect()
        };
        assert_eq!(names(&shown), names(&came));
        let next = stream.event().await;
        assert!(!next.id.is_empty());
        came = next.data;
    }
}

#[tokio::test]
async fn every_route_it_names_answers() {
    let (_gateway, base) = demo().await;
    let urls = README.split("http://127.0.0.1:8000").skip(1).map(|rest| {
        rest.split(|c: char| c.is_whitespace() || matches!(c, '\'' | ')' | '`')).next().unwrap()
    });
    let named = spans().into_iter().filter(|span| span.starts_with('/'));
    let mut asked = 0;
    for route in urls.chain(named).filter(|route| !matches!(*route, "/api" | "/api/v1")) {
        let url = format!("{base}{}", route.replace(['{', '}'], ""));
        let publishes = route.starts_with("/api/publish");
        let expected = if publishes { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::OK };
        // Not at once: the gateway has just been started, and `/readyz` says so.
        let what = format!("GET {route} answers {expected}");
        wait_for(&what, async || reqwest::get(&url).await.unwrap().status() == expected).await;
        asked += 1;
    }
    assert!(asked > 10, "only {asked} routes were found");
}

#[test]
fn every_setting_it_names_exists() {
    let defaults: toml::Table = DEFAULTS.parse().unwrap();
    let section = |key: &str| defaults.get(key).is_some_and(toml::Value::is_table);
    let exists = |key: &str| {
        let mut keys = key.split('.');
        let first = keys.next().and_then(|first| defaults.get(first));
        keys.try_fold(first, |found, key| found.map(|value| value.get(key))).flatten().is_some()
    };
    let mut settings: Vec<String> = README
        .split("SLUICE__")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap())
        .map(|name| name.to_lowercase().replace("__", "."))
        .collect();
    for span in spans() {
        match span.split_once('.') {
            Some((first, _)) if section(first) => settings.push(span.to_owned()),
            _ if span.starts_with('[') => settings.push(span.replace(['[', ']'], "")),
            _ => {}
        }
    }
    assert!(settings.len() > 10, "only {settings:?} were found");
    for key in settings {
        assert!(exists(&key), "README names {key}");
    }
}

#[test]
fn every_file_it_names_exists() {
    let links = README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let named = spans().into_iter().filter(|span| {
        let folder = span.split('/').next().unwrap_or_default();
        ["config", "src", "tests", "dashboards"].contains(&folder) && folder != *span
    });
    let mut looked = 0;
    for file in links.filter(|link| !link.contains("://")).chain(named) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{file}");
        looked += 1;
    }
    assert!(looked > 5, "only {looked} files were found");
}

#[test]
fn every_command_it_shows_is_understood() {
    let blocks = blocks("sh");
    let lines = blocks.iter().flat_map(|block| block.lines());
    let mut understood = 0;
    for line in lines {
        let mut words = split(line);
        words.retain(|word| !word.starts_with("SLUICE__"));
        match words[0].as_str() {
            "sluice" => {
                Cli::try_parse_from(&words).unwrap();
                understood += 1;
            }
            "cargo" => assert!(line.ends_with("cargo run --release") || line == RUN, "{line}"),
            "curl" | "docker" | TEST => {}
            other => panic!("nothing checks {other}"),
        }
    }
    assert!(understood > 2, "only {understood} were found");
}

#[test]
fn what_it_shows_of_the_terminal_is_what_is_printed() {
    for block in blocks("console") {
        for session in block.split("$ ").skip(1) {
            let (line, shown) = session.split_once('\n').unwrap();
            let words = split(line);
            assert_eq!(words[0], "sluice");
            let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
                .args(&words[1..])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .env_clear()
                .output()
                .unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(printed.trim_end(), shown.trim_end(), "{line}");
        }
    }
}
