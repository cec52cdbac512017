//! The JSON tree that programs are read from. Unlike `serde_json::Value` it keeps every key (so that a duplicate can
//! be reported where it stands), holds lists of whole numbers as such (token ids are most of a large program), borrows
//! its texts, and bounds how many values it holds.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::scan::scan;
use crate::fault::{Fault, Faults};
use crate::limits;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json<'t> {
    Null,
    Bool(bool),
    Integer(i64),
    /// A whole number above `i64::MAX`.
    Natural(u64),
    Float(f64),
    Text(Cow<'t, str>),
    /// A list of whole numbers, not empty.
    Integers(Vec<i64>),
    /// Any other list.
    List(Vec<Json<'t>>),
    /// Keys in the order of the text, duplicates included.
    Object(Vec<(Cow<'t, str>, Json<'t>)>),
}

/// The items of a list.
#[derive(Clone, Copy)]
pub(super) enum Items<'t> {
    Integers(&'t [i64]),
    List(&'t [Json<'t>]),
}

impl<'t> Items<'t> {
    pub(super) fn len(self) -> usize {
        match self {
            Items::Integers(items) => items.len(),
            Items::List(items) => items.len(),
        }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Item<'t>> {
        (0..self.len()).map(move |place| match self {
            Items::Integers(items) => Item::Integer(items[place]),
            Items::List(items) => Item::from(&items[place]),
        })
    }
}

/// One item of a list.
#[derive(Clone, Copy)]
pub(super) enum Item<'t> {
    Integer(i64),
    Json(&'t Json<'t>),
}

impl<'t> From<&'t Json<'t>> for Item<'t> {
    fn from(json: &'t Json<'t>) -> Self {
        match json {
            Json::Integer(integer) => Item::Integer(*integer),
            json => Item::Json(json),
        }
    }
}

impl<'t> Item<'t> {
    /// What kind of value it is, in words.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Item::Integer(_) => "a whole number",
            Item::Json(json) => match json {
                Json::Null => "null",
                Json::Bool(_) => "a truth value",
                Json::Integer(_) | Json::Natural(_) => "a whole number",
                Json::Float(_) => "a number with a fraction or an exponent",
                Json::Text(_) => "a text",
                Json::Integers(_) | Json::List(_) => "a list",
                Json::Object(_) => "an object",
            },
        }
    }

    /// Its items, if it is a list.
    pub(super) fn items(self) -> Option<Items<'t>> {
        match self {
            Item::Json(Json::Integers(items)) => Some(Items::Integers(items)),
            Item::Json(Json::List(items)) => Some(Items::List(items)),
            _ => None,
        }
    }

    /// Its text, if it is one.
    pub(super) fn text(self) -> Option<&'t str> {
        match self {
            Item::Json(Json::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Its entries, if it is an object.
    pub(super) fn entries(self) -> Option<&'t [(Cow<'t, str>, Json<'t>)]> {
        match self {
            Item::Json(Json::Object(entries)) => Some(entries),
            _ => None,
        }
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self, Item::Json(Json::Null))
    }
}

/// Reads a JSON text whose values stand in one another at most `depth` deep.
pub(super) fn parse(bytes: &[u8], depth: usize) -> Result<Json<'_>, Faults> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Fault::new(format!("not UTF-8 from byte {} on", error.valid_up_to())))?;
    if text.starts_with('\u{feff}') {
        return Err(Fault::new("the text begins with a byte order mark")
            .with_hint("save it as UTF-8 without one")
            .into());
    }
    scan(text, depth)?;
    let count = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let json = Seed(&count).deserialize(&mut deserializer).and_then(|json| deserializer.end().map(|()| json));
    json.map_err(|error| Fault::new(format!("not JSON: {error}")).into())
}

/// Counts the values read so far.
#[derive(Clone, Copy)]
struct Seed<'c>(&'c Cell<usize>);

impl Seed<'_> {
    fn count<E: Error>(self, values: usize) -> Result<(), E> {
        self.0.set(self.0.get() + values);
        if self.0.get() > limits::JSON_VALUES {
            return Err(E::custom(format_args!("more than {} values", limits::JSON_VALUES)));
        }
        Ok(())
    }
}

impl<'t> DeserializeSeed<'t> for Seed<'_> {
    type Value = Json<'t>;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Json<'t>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Seed<'_> {
    type Value = Json<'t>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'t>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'t>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'t>, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'t>, E> {
        Ok(i64::try_from(value).map_or(Json::Natural(value), Json::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'t>, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'t str) -> Result<Json<'t>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'t>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut sequence: A) -> Result<Json<'t>, A::Error> {
        let mut integers = Vec::new();
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(self)? {
            match item {
                Json::Integer(integer) if items.is_empty() => integers.push(integer),
                item => {
                    self.count(integers.len() + 1)?;
                    items.extend(std::mem::take(&mut integers).into_iter().map(Json::Integer));
                    items.push(item);
                }
            }
        }
        Ok(if integers.is_empty() { Json::List(items) } else { Json::Integers(integers) })
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Json<'t>, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            self.count(1)?;
            entries.push((key, map.next_value_seed(self)?));
        }
        Ok(Json::Object(entries))
    }
}

/// A key, borrowed where its text holds no escapes.
struct Key;

impl<'t> DeserializeSeed<'t> for Key {
    type Value = Cow<'t, str>;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Cow<'t, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'t> for Key {
    type Value = Cow<'t, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'t str) -> Result<Cow<'t, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'t, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}
