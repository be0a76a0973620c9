//! Looks into JSON whose form is the provider's and may change, and puts some together.

use serde_json::{Map, Value};

/// What has been read: most of its text stays where it was read from.
pub(super) type Tree<'a> = serde_json_borrow::Value<'a>;

/// What stands where a path of names and indices leads. The path comes in parts, because to take one
/// apart costs more than to follow it, and each chunk is looked into about ten times.
pub(super) fn at<'a>(value: &'a Tree<'_>, path: &[&str]) -> Option<&'a Tree<'a>> {
    path.iter().try_fold(value, |value, name| match value {
        // Of several with one name the last counts, as for most readers of JSON.
        Tree::Object(fields) => {
            fields.as_vec().iter().rev().find(|(key, _)| **key == **name).map(|(_, value)| value)
        }
        Tree::Array(list) => list.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The text at a path, if there is any.
pub(super) fn text<'a>(value: &'a Tree<'_>, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.as_str().filter(|text| !text.is_empty())
}

/// The count at a path.
pub(super) fn count(value: &Tree<'_>, path: &[&str]) -> Option<u64> {
    at(value, path)?.as_u64()
}

/// The elements of the list at a path, none if there is no list.
pub(super) fn list<'a>(value: &'a Tree<'_>, path: &[&str]) -> &'a [Tree<'a>] {
    at(value, path).and_then(Tree::as_array).unwrap_or_default()
}

/// The one of several answers that counts: the first, which need not have a number.
pub(super) fn first_answer<'a>(value: &'a Tree<'_>, path: &[&str]) -> Option<&'a Tree<'a>> {
    list(value, path).iter().find(|answer| count(answer, &["index"]).unwrap_or(0) == 0)
}

/// An object of the fields that have a value.
pub(super) fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let present = |(name, value): (&str, Option<Value>)| Some((name.to_owned(), value?));
    fields.into_iter().filter_map(present).collect()
}

/// The text as a value, unless it is empty.
pub(super) fn unless_empty(text: &str) -> Option<Value> {
    Some(text).filter(|text| !text.is_empty()).map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(json: &str) -> Option<u64> {
        count(&serde_json::from_str(json).unwrap(), &["list", "1", "name"])
    }

    #[test]
    fn a_path_leads_through_names_and_indices() {
        assert_eq!(number(r#"{"list": [0, {"name": 2}]}"#), Some(2));
        assert_eq!(number(r#"{"list": [{"name": 2}]}"#), None);
        assert_eq!(number(r#"{"list": "name"}"#), None);
    }

    #[test]
    fn a_name_is_found_however_it_is_escaped() {
        assert_eq!(number(r#"{"l\u0069st": [0, {"n\u0061me": 2}]}"#), Some(2));
    }

    #[test]
    fn the_last_of_several_fields_of_one_name_counts() {
        assert_eq!(number(r#"{"list": [0, {"name": 1, "name": 2}]}"#), Some(2));
    }
}
