//! The import rule, read from the sources themselves: which module may use which, what belongs to
//! one side of the gateway only, and who may start tasks.
//!
//! Code for tests (`#[cfg(test)]`, `tests.rs`) may import what it likes.

mod paths;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use paths::paths_of;

/// As it stands in `ARCHITECTURE.md`. A row names only rows above it, so there is no cycle.
const TABLE: &str = "\
| module | may import |
|---|---|
| `event` | – |
| `telemetry` | – |
| `shutdown` | – |
| `settings` | `event` |
| `hub` | `event` `telemetry` `settings` `shutdown` |
| `source` | `event` `hub` `telemetry` `settings` `shutdown` |
| `session` | `event` `hub` `telemetry` `settings` `shutdown` |
| `wire` | `event` `session` `telemetry` `shutdown` |
| `streams` | `event` `settings` |
| `council` | `event` `source` `settings` `telemetry` `shutdown` |
| `http` | everything above |
| `gateway` | everything above |
| `demo` | everything above |
| `cli` | everything above but `gateway` `demo` |
";

/// Crates that belong to one side only, and who may use them.
const OUTSIDE: [(&str, &[&str]); 9] = [
    ("redis", &["source", "settings", "gateway"]),
    ("axum", &["http", "gateway", "demo", "main"]),
    ("hyper", &["http"]),
    ("hyper_util", &["http"]),
    ("tower", &["http"]),
    ("tower_http", &["http"]),
    ("rustls", &["http", "settings", "source"]),
    ("tokio_rustls", &["http", "source"]),
    ("reqwest", &["settings", "council", "gateway", "cli"]),
];

/// Ways to start a task or a thread that the drain does not wait for.
const STARTS: [&[&str]; 8] = [
    &["tokio", "spawn"],
    &["tokio", "task"],
    &["tokio", "runtime"],
    &["tokio_util", "task"],
    &["task", "spawn"],
    &["thread", "spawn"],
    &["thread", "scope"],
    &["thread", "Builder"],
];

/// One file below `src/`.
struct Source {
    /// Its path below `src/`.
    file: PathBuf,
    /// Every path in it, resolved: one that leads out of its module starts with `crate`.
    paths: Vec<Vec<String>>,
}

impl Source {
    fn read(root: &Path, file: &Path) -> Self {
        let file = file.strip_prefix(root).unwrap().to_owned();
        let depth = file.components().count() - usize::from(file.ends_with("mod.rs"));
        let text = fs::read_to_string(root.join(&file)).unwrap();
        let paths = paths_of(&text).into_iter().map(|path| resolved(path, depth)).collect();
        Self { file, paths }
    }

    /// The module of the table it belongs to.
    fn module(&self) -> String {
        let first = self.file.components().next().unwrap().as_os_str().to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    }

    /// Names the file and the path for the message of a failure.
    fn blame(&self, path: &[String]) -> String {
        format!("src/{}: {}", self.file.display(), path.join("::"))
    }
}

/// `super` as often as the module is deep leads to the crate's root.
fn resolved(mut path: Vec<String>, depth: usize) -> Vec<String> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    if supers > 0 && supers >= depth {
        path.splice(..supers, ["crate".to_owned()]);
    }
    path
}

/// Every file below `src/` but those of tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") && name != "tests.rs" {
                sources.push(Source::read(&root, &path));
            }
        }
    }
    sources
}

/// The rows: a module, and what it may import.
fn table() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut rows = BTreeMap::new();
    for row in TABLE.lines().skip(2) {
        let (module, allowed) = row.split_once(" | ").unwrap();
        let named: Vec<_> = allowed.split('`').skip(1).step_by(2).collect();
        let allowed = if allowed.starts_with("everything above") {
            rows.keys().copied().filter(|module| !named.contains(module)).collect()
        } else {
            named
        };
        rows.insert(module.trim_matches(['|', ' ', '`']), allowed);
    }
    rows
}

#[test]
fn a_module_imports_only_what_its_row_allows() {
    let table = table();
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let allowed = table.get(module.as_str()).expect(&module);
        for path in source.paths.iter().filter(|path| path[0] == "crate" && path.len() > 1) {
            if path[1] != module && !allowed.contains(&path[1].as_str()) {
                wrong.push(source.blame(path));
            }
        }
    }
    assert!(wrong.is_empty(), "not in the table of ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_is_that_of_the_architecture_and_of_the_crate() {
    let document = include_str!("../../ARCHITECTURE.md");
    assert!(document.contains(TABLE), "ARCHITECTURE.md has another table than this test");

    let library = include_str!("../../src/lib.rs");
    let mut declared: Vec<_> = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    declared.sort_unstable();
    let table = table();
    assert_eq!(declared, table.keys().copied().collect::<Vec<_>>());
}

#[test]
fn a_row_names_only_rows_above_it() {
    let table = table();
    let order: Vec<_> = TABLE.lines().skip(2).map(|row| row.split('`').nth(1).unwrap()).collect();
    for (index, module) in order.iter().enumerate() {
        for allowed in &table[module] {
            assert!(order[..index].contains(allowed), "{module} may import {allowed}: a cycle?");
        }
    }
}

#[test]
fn brokers_and_http_stay_on_their_sides() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        for path in source.paths.iter().filter(|path| path.len() > 1) {
            let bound = OUTSIDE.iter().find(|(name, _)| path[0] == *name);
            if bound.is_some_and(|(_, users)| !users.contains(&module.as_str())) {
                wrong.push(source.blame(path));
            }
        }
    }
    assert!(wrong.is_empty(), "a crate of the other side:\n{}", wrong.join("\n"));
}

/// What a council says takes the way of everybody's events, and no other.
const OF_SOURCE: [&str; 3] = ["Publication", "PublishError", "Publisher"];

#[test]
fn the_council_only_publishes() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module() == "council") {
        let others = source.paths.iter().filter(|path| {
            path.starts_with(&["crate".into(), "source".into()])
                && !path.get(2).is_some_and(|name| OF_SOURCE.contains(&name.as_str()))
        });
        wrong.extend(others.map(|path| source.blame(path)));
    }
    assert!(wrong.is_empty(), "more of the source than its publisher:\n{}", wrong.join("\n"));
}

#[test]
fn only_shutdown_starts_tasks() {
    let mut wrong = Vec::new();
    for source in sources() {
        // `main` builds the runtime that everything runs on, and nothing else.
        let builds_runtime = source.file == Path::new("main.rs");
        if source.file == Path::new("shutdown.rs") {
            continue;
        }
        for path in &source.paths {
            let runtime = builds_runtime && path.starts_with(&["tokio".into(), "runtime".into()]);
            let starts =
                STARTS.iter().any(|start| path.windows(start.len()).any(|part| part == *start));
            if starts && !runtime {
                wrong.push(source.blame(path));
            }
        }
    }
    assert!(wrong.is_empty(), "starts a task outside src/shutdown.rs:\n{}", wrong.join("\n"));
}
