//! `{"chunk":"word "}`: the words of a council's only member, and nothing else of its run.

use serde_json::value::RawValue;

use crate::event::Event;

/// `None` for what is no piece of the member's text.
pub(super) fn json(event: &Event, text: &str) -> Option<String> {
    let fields = event.payload.fields()?;
    let says = |name: &str, value: &str| fields.get(name).is_some_and(|found| found.get() == value);
    let piece: &RawValue = fields.get(text)?;
    let is_piece = piece.get().starts_with('"') && !says("isComplete", "true");
    is_piece.then(|| format!(r#"{{"chunk":{piece}}}"#))
}
