//! Texts with `{parameters}`: names of channels, and paths.

use super::{Pairs, Params, RequestError};
use crate::event::ChannelPattern;

/// A text such as `alerts:{userId?}`.
#[derive(Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Parameter { name: String, optional: bool },
}

impl Template {
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        for piece in text.split_inclusive('}') {
            let (before, name) = piece.split_once('{').unwrap_or((piece, ""));
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let name = name.trim_end_matches('}');
            if !name.is_empty() {
                let optional = name.ends_with('?');
                parts.push(Part::Parameter {
                    name: name.trim_end_matches('?').to_owned(),
                    optional,
                });
            }
        }
        Self(parts)
    }

    /// The text with the parameters put in; `None` when an optional one is missing.
    pub(super) fn fill(&self, params: &Params) -> Result<Option<String>, RequestError> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Parameter { name, optional } => match params.get(name) {
                    Some(value) => text.push_str(value),
                    None if *optional => return Ok(None),
                    None => return Err(RequestError::Missing(vec![name.clone()])),
                },
            }
        }
        Ok(Some(text))
    }

    /// The pattern of all texts it can become.
    pub(super) fn pattern(&self) -> Option<ChannelPattern> {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Parameter { .. } => "*",
        });
        ChannelPattern::new(&parts.collect::<String>()).ok()
    }
}

/// The parameters of `path`, if it has the form of `template`.
pub(super) fn path_match(template: &str, path: &str) -> Option<Pairs> {
    let (wanted, given): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    if wanted.len() != given.len() {
        return None;
    }
    let mut found = Vec::new();
    for (wanted, given) in wanted.into_iter().zip(given) {
        match wanted.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !given.is_empty() => found.push((name.to_owned(), given.to_owned())),
            None if wanted == given => {}
            _ => return None,
        }
    }
    Some(found)
}
