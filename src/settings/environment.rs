//! The environment as a layer of settings: `SLUICE__SERVER__BIND` is `server.bind`.

use toml::{Table, Value};

const PREFIX: &str = "SLUICE__";

/// The variables as settings. A text stays as it is written; numbers, switches and what has no
/// default are read as TOML if they can be. Lists are texts with commas, see [`super::list`].
pub(super) fn table(
    variables: impl IntoIterator<Item = (String, String)>,
    defaults: &Table,
) -> Table {
    let mut table = Table::new();
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let keys: Vec<_> = path.split("__").map(str::to_lowercase).collect();
        let default = keys.iter().try_fold(None, |found: Option<&Value>, key| match found {
            None => Some(defaults.get(key)),
            Some(value) => Some(value.get(key)),
        });
        put(&mut table, &keys, value(text, default.flatten()));
    }
    table
}

fn put(table: &mut Table, keys: &[String], value: Value) {
    match keys {
        [] => {}
        [last] => {
            table.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let below = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                put(below, rest, value);
            }
        }
    }
}

fn value(text: String, default: Option<&Value>) -> Value {
    match default {
        Some(Value::String(_) | Value::Array(_)) => Value::String(text),
        _ => text.parse().unwrap_or(Value::String(text)),
    }
}
