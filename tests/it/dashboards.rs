//! What the dashboard and the alerts ask for is what `/metrics` says: a metric that is renamed
//! would otherwise leave an empty panel and an alert that never fires.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::TestGateway;

const DASHBOARD: &str = include_str!("../../dashboards/sluice.json");
const ALERTS: &str = include_str!("../../config/alerts.yml");
const DECLARATIONS: &str = include_str!("../../src/telemetry/metrics.rs");

/// Labels that Prometheus adds.
const ADDED: [&str; 3] = ["instance", "job", "le"];

/// Every query of the dashboard and of the alerts.
fn queries() -> Vec<String> {
    let mut queries = Vec::new();
    collect(&serde_json::from_str(DASHBOARD).unwrap(), &mut queries);
    let alerts = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    queries.extend(alerts.map(str::to_owned));
    queries
}

/// The queries below `value`: what stands under the keys `expr` and `query`.
fn collect(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().filter(|_| matches!(key.as_str(), "expr" | "query")) {
                    Some(query) => queries.push(query.to_owned()),
                    None => collect(value, queries),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
        _ => {}
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The metrics a query names, without what a histogram adds. Labels can look like metrics.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let ours = |word: &&str| {
        ["sluice_", "process_", "gen_ai_"].iter().any(|start| word.starts_with(start))
    };
    let added = ["_bucket", "_sum", "_count"];
    let labels: BTreeSet<_> = declared().into_values().flatten().collect();
    words(query)
        .filter(move |word| ours(word) && !labels.contains(word))
        .map(move |name| added.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
}

/// The metrics of `src/telemetry/metrics.rs`, each with its labels.
fn declared() -> BTreeMap<String, BTreeSet<&'static str>> {
    let block = DECLARATIONS.split_once("pub struct Metrics {").unwrap().1;
    let block = block.split_once("\n    }").unwrap().0;
    let lines = block.lines().map(str::trim).filter(|line| !line.starts_with("///"));
    let read = |line: &'static str| {
        let (name, rest) = line.split_once(": ")?;
        let labels = rest.split('"').skip(1).step_by(2).collect();
        let prefix = if name.starts_with("gen_ai_") { "" } else { "sluice_" };
        Some((format!("{prefix}{name}"), labels))
    };
    lines.filter_map(read).collect()
}

/// The metrics of a page of `/metrics`, with their kind.
fn exposed(page: &str) -> BTreeMap<&str, &str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

#[tokio::test]
async fn every_metric_of_the_dashboard_and_the_alerts_exists() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.open("/api/stream?channel=any:1").await;
    gateway.publish("any:1", &json!({"n": 1})).await;
    stream.event().await;
    let page = gateway.get("/metrics").send().await.unwrap().text().await.unwrap();

    // A metric with labels is on the page from its first value on, which may be a fault's.
    let (declared, exposed) = (declared(), exposed(&page));
    for name in exposed.keys().filter(|name| name.starts_with("sluice_")) {
        assert!(declared.contains_key(*name), "{name} is on the page but was not found declared");
    }
    for query in queries() {
        for name in metrics(&query) {
            let known = exposed.contains_key(name) || declared.contains_key(name);
            assert!(known, "{name} is no metric: {query}");
        }
    }
    for (name, kind) in exposed {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let queries = queries().join("\n");
    let shown: BTreeSet<_> = metrics(&queries).collect();
    for name in declared().keys() {
        assert!(shown.contains(name.as_str()), "{name} is on no panel and in no alert");
    }
}

#[test]
fn every_panel_has_an_id_and_a_place_of_its_own() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{}: its id is another's",
            panel["title"]
        );
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{}: too wide", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{}: stands on another at {cell:?}", panel["title"]);
        }
    }
}

#[test]
fn every_label_a_query_uses_is_one_of_its_metrics() {
    let declared = declared();
    for query in queries() {
        let known: BTreeSet<_> =
            metrics(&query).filter_map(|name| declared.get(name)).flatten().copied().collect();
        // `by (label, …)` and `{label="…", …}`.
        let groups = query.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
        let grouped = groups.flat_map(words);
        let selectors = query.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let selected = selectors.flat_map(|selector| {
            selector.split(',').filter_map(|matcher| words(matcher.split('"').next()?).next())
        });
        for label in grouped.chain(selected) {
            let found = known.contains(label) || ADDED.contains(&label);
            assert!(found, "no metric has the label {label}: {query}");
        }
    }
}

#[test]
fn every_alert_says_when_how_urgent_and_what() {
    let alerts: Vec<_> = ALERTS.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 5);
    for alert in alerts {
        for part in ["expr: ", "severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "no `{part}` in the alert {alert}");
        }
    }
}
