//! Reading the layers and collecting every fault.

use std::fmt;
use std::path::Path;

use config::{Config, ConfigError, Environment, File, FileFormat, Value, ValueKind};
use serde::Deserialize;

use super::{DEFAULTS, Settings};

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The key, such as `server.bind`; empty when it is about a file as a whole.
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
        if self.key.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Values of a wrong type that are looked for at most, one reading each.
const MOST_FAULTS: usize = 64;

impl Settings {
    /// Reads the defaults, then `file`, then `environment` (pairs of name and value; those that do
    /// not start with `SLUICE__` are left alone), and checks the whole.
    ///
    /// # Errors
    /// All that is wrong: unknown keys, values of a wrong type, values that make no sense.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let layers =
            Layers::read(file, environment).map_err(|error| Faults(vec![fault(&error)]))?;
        let mut faults = Vec::new();
        let settings = layers.settings(&mut faults);
        if let Some(settings) = &settings {
            faults.extend(settings.validate());
        }
        faults.sort();
        faults.dedup();
        settings.filter(|_| faults.is_empty()).ok_or(Faults(faults))
    }
}

struct Layers {
    defaults: Config,
    merged: Config,
}

impl Layers {
    fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let embedded = || File::from_str(DEFAULTS, FileFormat::Toml);
        let defaults = Config::builder().add_source(embedded()).build()?;
        let mut merged = Config::builder().add_source(embedded());
        if let Some(file) = file {
            merged = merged.add_source(File::from(file).format(FileFormat::Toml));
        }
        let mut variables = Environment::with_prefix("SLUICE")
            .prefix_separator("__")
            .separator("__")
            .list_separator(",")
            .try_parsing(true)
            .source(Some(environment.into_iter().collect()));
        for key in lists(&defaults.cache, String::new()) {
            variables = variables.with_list_parse_key(&key);
        }
        Ok(Self { defaults, merged: merged.add_source(variables).build()? })
    }

    /// Reads the settings; a value that cannot be read is noted, put back to its default, and
    /// reading goes on, so that every fault is found.
    fn settings(&self, faults: &mut Vec<Fault>) -> Option<Settings> {
        let mut merged = self.merged.clone();
        for _ in 0..MOST_FAULTS {
            let mut track = serde_path_to_error::Track::new();
            let mut unknown = Vec::new();
            let reader = serde_path_to_error::Deserializer::new(merged.clone(), &mut track);
            let mut note = |path: serde_ignored::Path<'_>| {
                unknown.push(Fault::new(path.to_string(), "unknown key"));
            };
            let read = serde_ignored::Deserializer::new(reader, &mut note);
            let error = match Settings::deserialize(read) {
                Ok(settings) => {
                    faults.extend(unknown);
                    return Some(settings);
                }
                Err(error) => error,
            };
            let key = track.path().to_string();
            faults.push(Fault::new(key.clone(), reason(&error)));
            let default = self.defaults.get::<Value>(&key).ok()?;
            let builder = Config::builder().add_source(merged).set_override(&key, default).ok()?;
            merged = builder.build().ok()?;
        }
        None
    }
}

/// The keys of lists, which the environment writes with commas.
fn lists(value: &Value, path: String) -> Vec<String> {
    match &value.kind {
        ValueKind::Array(_) => vec![path],
        ValueKind::Table(table) => {
            let below = table.iter().flat_map(|(key, value)| {
                let dot = if path.is_empty() { "" } else { "." };
                lists(value, format!("{path}{dot}{key}"))
            });
            below.collect()
        }
        _ => Vec::new(),
    }
}

fn fault(error: &ConfigError) -> Fault {
    Fault::new("", error)
}

/// The message without the key, which stands before it already.
fn reason(error: &ConfigError) -> String {
    match error {
        ConfigError::At { error, .. } => reason(error),
        ConfigError::Type { unexpected, expected, origin, .. } => {
            let origin = origin.as_ref().map(|origin| format!(" in {origin}")).unwrap_or_default();
            format!("expected {expected}, found {unexpected}{origin}")
        }
        other => other.to_string(),
    }
}
