//! Looks into JSON whose form is the provider's and may change, and puts some together.

use serde_json::{Map, Value};

/// What stands at a JSON pointer (RFC 6901), which has no escapes: looked for several times in each
/// chunk, and `Value::pointer` would take each name apart.
pub(super) fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    pointer.split('/').skip(1).try_fold(value, |value, name| match value {
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

/// The text at a JSON pointer, if there is any.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    at(value, pointer)?.as_str().filter(|text| !text.is_empty())
}

/// The count at a JSON pointer.
pub(super) fn count(value: &Value, pointer: &str) -> Option<u64> {
    at(value, pointer)?.as_u64()
}

/// The elements of the list at a JSON pointer, none if there is no list.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The one of several answers that counts: the first, which need not have a number.
pub(super) fn first_answer<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    list(value, pointer).iter().find(|answer| count(answer, "/index").unwrap_or(0) == 0)
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
