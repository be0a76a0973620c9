//! An object whose values stay as they were written: order, digits and unknown fields included.
//!
//! Made for the few fields of an event: names are borrowed, and looked for one after the other.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

/// Room for the fields of most events.
const FEW: usize = 8;

/// See the module. Of a name that is there twice the last counts, as in most readers of JSON.
#[derive(Debug, Clone, Default)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Every field, in the order they are written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    /// Those of the object `json` that have one of these names; `None` if it is no object. Takes little
    /// more time than looking for its end.
    pub fn of_names(json: &'a str, names: &[impl AsRef<str>]) -> Option<Self> {
        let mut from = serde_json::Deserializer::from_str(json);
        let wanted = |name: &str| names.iter().any(|known| known.as_ref() == name);
        let fields = from.deserialize_map(Object(wanted)).ok()?;
        from.end().ok()?;
        Some(fields)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves a field out.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// Puts `value` in the place of a field's value, or at the end if there was no such field.
    pub fn set(&mut self, name: &str, value: &'a RawValue) {
        match self.0.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((Cow::Owned(name.to_owned()), value)),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Object(|_: &str| true))
    }
}

/// Takes those fields of an object whose names it wants.
struct Object<F>(F);

impl<'de, F: Fn(&str) -> bool> Visitor<'de> for Object<F> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(FEW);
        while let Some(Name(name)) = map.next_key()? {
            if (self.0)(&name) {
                fields.push((name, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Fields(fields))
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Borrowed unless it is written with escapes. A `Cow` by itself is always read as owned.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_bytes<E>(self, name: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Name(String::from_utf8_lossy(name)))
            }

            fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
                Ok(Name(String::from_utf8_lossy(name).into_owned().into()))
            }
        }

        // As bytes: half of a surrogate pair, written as an escape, is no text, and yet JSON.
        from.deserialize_bytes(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn values_and_order_stay_as_they_were_written() {
        let json = r#"{"b":1.50,"\u0061":"\u0062","c":{"z":1, "y":2}}"#;
        let value = RawValue::from_string("7".to_owned()).unwrap();
        let mut fields = fields(json);
        assert_eq!(fields.get("a").unwrap().get(), r#""\u0062""#);
        assert!(fields.get("z").is_none());
        fields.set("a", &value);
        fields.set("d", &value);
        let written = serde_json::to_string(&fields).unwrap();
        assert_eq!(written, r#"{"b":1.50,"a":7,"c":{"z":1, "y":2},"d":7}"#);
    }

    #[test]
    fn of_a_name_that_is_there_twice_the_last_counts() {
        assert_eq!(fields(r#"{"a":1,"b":2,"a":3}"#).get("a").unwrap().get(), "3");
    }

    #[test]
    fn a_name_that_is_no_text_hides_none_of_the_others() {
        let fields = fields(r#"{"a":1,"\ud800":2,"b":3}"#);
        assert_eq!((fields.len(), fields.get("b").unwrap().get()), (3, "3"));
    }

    #[test]
    fn some_are_found_without_the_others() {
        let json = r#"{"a":[{"b":7}],"b":2,"c":{"b":8},"b":3}"#;
        let found = Fields::of_names(json, &["b", "x"]).unwrap();
        assert_eq!((found.len(), found.get("b").unwrap().get()), (2, "3"));
        assert!(Fields::of_names("[1]", &["b"]).is_none());
    }

    #[test]
    fn what_is_no_object_has_none() {
        for json in ["1", "[]", "null", "\"a\"", "{"] {
            assert!(serde_json::from_str::<Fields<'_>>(json).is_err(), "{json}");
        }
    }
}
