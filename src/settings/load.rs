//! Reading the layers and collecting every fault.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::environment;
use super::{DEFAULTS, Settings};

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The key, such as `server.bind`, or the name of a file.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

/// All that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl Fault {
    /// A fault of `key`.
    pub fn new(key: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { key: key.into(), message: message.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Values that cannot be read are looked for so many times at most, one reading each.
const MOST_READINGS: usize = 64;

impl Settings {
    /// Reads the defaults, then `file`, then `variables` of the environment (those that do not
    /// start with `SLUICE__` are left alone), and checks the whole.
    ///
    /// # Errors
    /// All that is wrong: unknown keys, values of a wrong type, values that make no sense.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let defaults =
            parse(DEFAULTS, "config/default.toml").map_err(|fault| Faults(vec![fault]))?;
        let mut merged = defaults.clone();
        if let Some(file) = file {
            merge(&mut merged, read(file).map_err(|fault| Faults(vec![fault]))?);
        }
        merge(&mut merged, environment::table(variables, &defaults));

        let mut faults = Vec::new();
        let mut settings = collect(merged, &defaults, &mut faults);
        if let Some(settings) = &mut settings {
            faults.extend(settings.publish.read_key());
            faults.extend(settings.validate());
        }
        faults.sort();
        faults.dedup();
        settings.filter(|_| faults.is_empty()).ok_or(Faults(faults))
    }
}

fn read(file: &Path) -> Result<Table, Fault> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| Fault::new(&name, error))?;
    parse(&text, &name)
}

/// The line at fault is named, not shown: it may hold a secret.
fn parse(text: &str, name: &str) -> Result<Table, Fault> {
    text.parse::<Table>().map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Fault::new(format!("{name}, line {line}"), error.message())
    })
}

/// Puts `above` over `below`; tables are merged, everything else is replaced.
fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Reads the settings. What cannot be read is noted and put back to its default, or taken out if
/// it has none, and reading goes on, so that every fault is found.
fn collect(mut merged: Table, defaults: &Table, faults: &mut Vec<Fault>) -> Option<Settings> {
    for _ in 0..MOST_READINGS {
        let mut track = serde_path_to_error::Track::new();
        let mut unknown = Vec::new();
        let mut note = |path: serde_ignored::Path<'_>| {
            // What stands in an optional value is written `key.?.below`.
            let key = path.to_string().replace(".?", "");
            unknown.push(Fault::new(key, "unknown key"));
        };
        let reader = serde_path_to_error::Deserializer::new(merged.clone(), &mut track);
        let error = match Settings::deserialize(serde_ignored::Deserializer::new(reader, &mut note))
        {
            Ok(settings) => {
                faults.extend(unknown);
                return Some(settings);
            }
            Err(error) => error,
        };
        let path = track.path();
        let keys: Vec<_> = path.iter().map_while(key).collect();
        let holds_secrets = matches!(keys.first(), Some(&("redis" | "publish" | "council")));
        let message = error.message();
        let message = if holds_secrets { without_value(message) } else { message };
        let fault = Fault::new(path.to_string(), message);
        if !is_of_what_was_taken_out(&fault, faults) {
            faults.push(fault);
        }
        put_back(&mut merged, defaults, &keys)?;
    }
    None
}

/// A field that is missing because its value could not be read.
fn is_of_what_was_taken_out(fault: &Fault, known: &[Fault]) -> bool {
    let field = fault.message.strip_prefix("missing field `");
    let field = field.and_then(|field| field.split('`').next());
    field.is_some_and(|field| {
        let key = format!("{}.{field}", fault.key);
        known.iter().any(|known| known.key == key)
    })
}

/// The message without the value it is about, which may be a secret.
fn without_value(message: &str) -> &str {
    if message.starts_with("missing field") {
        return message;
    }
    message.rfind("expected").and_then(|at| message.get(at..)).unwrap_or("cannot be read")
}

fn key(segment: &serde_path_to_error::Segment) -> Option<&str> {
    match segment {
        serde_path_to_error::Segment::Map { key } => Some(key),
        _ => None,
    }
}

/// `None` when nothing was changed.
fn put_back(table: &mut Table, defaults: &Table, keys: &[&str]) -> Option<()> {
    let (first, rest) = keys.split_first()?;
    let default = defaults.get(*first);
    if let Some(Value::Table(below)) = table.get_mut(*first)
        && !rest.is_empty()
    {
        let none = Table::new();
        return put_back(below, default.and_then(Value::as_table).unwrap_or(&none), rest);
    }
    match default {
        Some(default) => table.insert((*first).to_owned(), default.clone()),
        None => table.remove(*first),
    };
    Some(())
}
