//! The bodies of a member's requests, made once but for what is asked: a run asks all its members at
//! the same time, and its first words should not wait for that.

use serde_json::Value;

use super::dialect::Ask;
use crate::settings::{Dialect, MemberSettings};

/// Stand for what is asked; no setting holds a NUL.
const SYSTEM: &str = "\0system";
const USER: &str = "\0user";

/// Bodies of one member.
#[derive(Debug)]
pub(super) struct Bodies {
    /// Without a schema and with one, each without words beforehand and with them.
    templates: [[String; 2]; 2],
}

impl Bodies {
    /// `schema`: what scores are asked for by.
    pub(super) fn new(dialect: Dialect, settings: &MemberSettings, schema: &Value) -> Self {
        let template = |schema, system| {
            let ask = Ask {
                model: &settings.model,
                system,
                user: USER,
                max_tokens: settings.max_tokens,
                schema,
                extra: &settings.extra,
            };
            dialect.body(&ask).to_string()
        };
        let templates =
            [None, Some(schema)].map(|schema| ["", SYSTEM].map(|s| template(schema, s)));
        Self { templates }
    }

    /// The body that asks `user`, after saying `system` if that is not empty.
    pub(super) fn asking(&self, system: &str, user: &str, by_schema: bool) -> String {
        let [bare, by_the_schema] = &self.templates;
        let [alone, introduced] = if by_schema { by_the_schema } else { bare };
        let template = if system.is_empty() { alone } else { introduced };
        fill(template, &[(SYSTEM, system), (USER, user)])
    }
}

/// The template with each text where its mark stands. Marks are looked for in the template alone, not
/// in what is filled in.
fn fill(template: &str, texts: &[(&str, &str)]) -> String {
    let written = |text: &str| Value::from(text).to_string();
    let mut places: Vec<_> = texts
        .iter()
        .filter_map(|(mark, text)| {
            let mark = written(mark);
            Some((template.find(&mark)?, mark.len(), text))
        })
        .collect();
    places.sort_unstable();
    let mut filled = String::new();
    let mut from = 0;
    for (at, length, text) in places {
        filled.push_str(template.get(from..at).unwrap_or_default());
        filled.push_str(&written(text));
        from = at + length;
    }
    filled + template.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Dialect; 4] =
        [Dialect::OpenaiChat, Dialect::OpenaiResponses, Dialect::Anthropic, Dialect::Gemini];

    #[test]
    fn a_body_is_as_if_it_were_made_for_the_question() {
        let schema = serde_json::json!({"type": "object", "properties": {}});
        let mut settings = MemberSettings::new(Dialect::OpenaiChat, "http://a/v1", "m");
        settings.extra.insert("seed".to_owned(), 7.into());
        for dialect in ALL {
            let bodies = Bodies::new(dialect, &settings, &schema);
            for (system, user, by_schema) in [
                ("", "Why?", false),
                ("Be \"brief\".\n", "\u{0}system", true),
                ("\u{0}user", "{\"\u{0}user\"} \u{2028}", false),
                ("\"\u{0}user\"", "\"\\u0000system\"", true),
            ] {
                let ask = Ask {
                    model: "m",
                    system,
                    user,
                    max_tokens: None,
                    schema: by_schema.then_some(&schema),
                    extra: &settings.extra,
                };
                let body = bodies.asking(system, user, by_schema);
                assert_eq!(body, dialect.body(&ask).to_string(), "{dialect:?}");
            }
        }
    }
}
