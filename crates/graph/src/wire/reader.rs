//! The second pass: what every part of the reader stands on. Each function reads one thing, and where it cannot,
//! notes a fault at the place and gives none, so that reading goes on and all faults are found.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::form::is_name;
use super::hints;
use super::json::{Item, Items, Json};
use super::outline::{Outline, Role};
use crate::fault::{Fault, Faults, quote};
use crate::limits;
use crate::program::{NodeId, SourceLocation};
use crate::scalar::Scalar;
use crate::suggest::did_you_mean;

/// One step of the way into the JSON.
#[derive(Clone, Copy)]
pub(super) enum Segment {
    Key(&'static str),
    Place(usize),
}

/// The invokes of a trace, or of a sweep or loop inside one.
pub(super) struct Invokes<'t> {
    /// The node after the last that sees them.
    pub(super) end: u32,
    /// Their places among those that can be seen, by name; none where they could not be read: a fault was noted there,
    /// none more is needed.
    pub(super) places: Option<HashMap<Cow<'t, str>, usize>>,
}

/// What is being read, and what was wrong so far.
pub(super) struct Reader<'t> {
    pub(super) faults: Faults,
    pub(super) outline: Outline<'t>,
    /// The node being read.
    pub(super) node: Option<NodeId>,
    pub(super) source: Option<SourceLocation>,
    /// Of the trace being read, then of the sweeps and loops inside it.
    pub(super) invokes: Vec<Invokes<'t>>,
    path: Vec<Segment>,
}

/// The fields of an object.
#[derive(Clone, Copy)]
pub(super) struct Fields<'t> {
    entries: &'t [(Cow<'t, str>, Json<'t>)],
    /// What the object is, for messages.
    what: &'static str,
}

impl<'t> Fields<'t> {
    /// The field of that name, if it is there.
    pub(super) fn get(self, name: &str) -> Option<Item<'t>> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, json)| Item::from(json))
    }

    /// The field of that name, if it is there and not null: for fields that may be left out.
    pub(super) fn optional(self, name: &str) -> Option<Item<'t>> {
        self.get(name).filter(|item| !item.is_null())
    }
}

impl<'t> Reader<'t> {
    pub(super) fn new(faults: Faults, outline: Outline<'t>) -> Self {
        Reader { faults, outline, node: None, source: None, invokes: Vec::new(), path: Vec::new() }
    }

    /// Begins a node.
    pub(super) fn begin(&mut self, node: NodeId) {
        (self.node, self.source) = (Some(node), None);
        self.path.clear();
        self.invokes.retain(|invokes| invokes.end > node.0);
    }

    /// Reads what stands under a key or at a place of a list.
    pub(super) fn at<R>(&mut self, segment: Segment, read: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(segment);
        let result = read(self);
        self.path.pop();
        result
    }

    /// Notes a fault here. Gives none, as what was to be read.
    pub(super) fn fault<T>(&mut self, message: impl Into<String>) -> Option<T> {
        self.note(Fault::new(message))
    }

    /// Notes a fault here, with what was probably meant, if anything comes near.
    pub(super) fn fault_with_guess<T>(&mut self, message: String, guess: Option<String>) -> Option<T> {
        self.note(Fault { hint: guess, ..Fault::new(message) })
    }

    /// Notes a fault here, with what to do about it.
    pub(super) fn fault_with_hint<T>(
        &mut self,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Option<T> {
        self.note(Fault::new(message).with_hint(hint))
    }

    /// Notes a fault here.
    pub(super) fn note<T>(&mut self, mut fault: Fault) -> Option<T> {
        if self.faults.is_full() {
            return None;
        }
        let mut pointer = String::new();
        if let Some(id) = self.node {
            if let (None, Role::Node(Some(op))) = (&fault.hint, self.outline.entries[id.index()].role) {
                let field = self.path.first().and_then(|segment| match segment {
                    Segment::Key(key) => Some(*key),
                    Segment::Place(_) => None,
                });
                fault.hint = Some(hints::of(op, field));
            }
            pointer = self.outline.pointer(id);
            let name = self.outline.entries[id.index()].name.chars().take(64).collect::<String>();
            fault = fault.at_node(name, self.source.clone());
        }
        for segment in &self.path {
            pointer.push('/');
            match segment {
                Segment::Key(key) => pointer.push_str(key),
                Segment::Place(place) => pointer.push_str(&place.to_string()),
            }
        }
        self.faults.push(fault.at_place(pointer));
        None
    }

    /// Notes that something else was expected here.
    pub(super) fn expected<T>(&mut self, what: &str, found: Item<'t>) -> Option<T> {
        self.fault(format!("expected {what}, found {}", found.kind()))
    }

    /// The fields of an object that has no others than the `known` ones, and none twice.
    pub(super) fn fields(
        &mut self,
        item: Item<'t>,
        what: &'static str,
        known: &[&str],
    ) -> Option<Fields<'t>> {
        let Some(entries) = item.entries() else { return self.expected(what, item) };
        let mut seen = HashSet::new();
        for (key, _) in entries {
            if self.faults.is_full() {
                return None;
            }
            if !known.contains(&key.as_ref()) {
                let hint = did_you_mean(key, known.iter().copied());
                let hint = hint.unwrap_or_else(|| format!("its fields are: {}", known.join(", ")));
                self.fault_with_hint::<()>(format!("{what} has no field {}", quote(key)), hint);
            } else if !seen.insert(key.as_ref()) {
                self.fault::<()>(format!("the field {} stands there twice", quote(key)));
            }
        }
        Some(Fields { entries, what })
    }

    /// A field that must be there, read by `read`.
    pub(super) fn required<T>(
        &mut self,
        fields: Fields<'t>,
        name: &'static str,
        read: impl FnOnce(&mut Self, Item<'t>) -> Option<T>,
    ) -> Option<T> {
        match fields.get(name) {
            Some(item) => self.at(Segment::Key(name), |reader| read(reader, item)),
            None => self.fault(format!("{} needs the field `{name}`", fields.what)),
        }
    }

    /// A field that may be left out, read by `read`; the outer none: it was there and could not be read.
    pub(super) fn optional<T>(
        &mut self,
        fields: Fields<'t>,
        name: &'static str,
        read: impl FnOnce(&mut Self, Item<'t>) -> Option<T>,
    ) -> Option<Option<T>> {
        match fields.optional(name) {
            Some(item) => self.at(Segment::Key(name), |reader| read(reader, item)).map(Some),
            None => Some(None),
        }
    }

    /// A list of at most so many items.
    pub(super) fn items(&mut self, item: Item<'t>, what: &str, most: usize) -> Option<Items<'t>> {
        let Some(items) = item.items() else { return self.expected(what, item) };
        if items.len() > most {
            return self.fault(format!("{} items where at most {most} may stand", items.len()));
        }
        Some(items)
    }

    /// A list of at most so many items, each read by `read`. Every item is read, so that all faults are found.
    pub(super) fn list<T>(
        &mut self,
        item: Item<'t>,
        what: &str,
        most: usize,
        mut read: impl FnMut(&mut Self, Item<'t>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.items(item, what, most)?;
        let mut list = Vec::with_capacity(items.len());
        let mut complete = true;
        for (place, item) in items.iter().enumerate() {
            match self.at(Segment::Place(place), |reader| read(reader, item)) {
                Some(value) => list.push(value),
                None => complete = false,
            }
            if self.faults.is_full() {
                return None;
            }
        }
        complete.then_some(list)
    }

    /// A text of at most so many bytes.
    pub(super) fn text(&mut self, item: Item<'t>, what: &str, most: usize) -> Option<&'t str> {
        let Some(text) = item.text() else { return self.expected(what, item) };
        if text.len() > most {
            return self.fault(format!("a text of {} bytes where at most {most} may stand", text.len()));
        }
        Some(text)
    }

    /// A name.
    pub(super) fn name(&mut self, item: Item<'t>) -> Option<&'t str> {
        let name = self.text(item, "a name", limits::TEXT_BYTES)?;
        if !is_name(name) {
            return self.fault_with_hint(
                format!("{} cannot be a name", quote(name)),
                "a name is made of the letters a to z and A to Z, digits and `_`",
            );
        }
        Some(name)
    }

    /// A truth value.
    pub(super) fn boolean(&mut self, item: Item<'t>) -> Option<bool> {
        match item {
            Item::Json(Json::Bool(value)) => Some(*value),
            item => self.expected("true or false", item),
        }
    }

    /// A whole number.
    pub(super) fn integer(&mut self, item: Item<'t>) -> Option<i64> {
        if let Item::Integer(integer) = item {
            return Some(integer);
        }
        match self.exact(item) {
            Some(Some(Scalar::Int(integer))) => Some(integer),
            None => None,
            Some(_) if matches!(item, Item::Json(Json::Natural(_))) => {
                self.fault("a whole number above 2^63 - 1")
            }
            Some(_) => self.expected("a whole number", item),
        }
    }

    /// A whole number from 0 to 2^64 - 1.
    pub(super) fn natural(&mut self, item: Item<'t>) -> Option<u64> {
        match item {
            Item::Json(Json::Natural(natural)) => return Some(*natural),
            Item::Json(Json::Object(entries)) => {
                if let [(key, Json::Text(digits))] = entries.as_slice()
                    && key == "int"
                    && let Ok(natural) = digits.parse()
                    && is_plain_integer(digits)
                {
                    return Some(natural);
                }
            }
            _ => {}
        }
        let integer = self.integer(item)?;
        match u64::try_from(integer) {
            Ok(natural) => Some(natural),
            Err(_) => self.fault(format!("expected a whole number of at least 0, found {integer}")),
        }
    }

    /// A literal number or truth value.
    pub(super) fn scalar(&mut self, item: Item<'t>) -> Option<Scalar> {
        match item {
            Item::Integer(integer) => Some(Scalar::Int(integer)),
            Item::Json(Json::Bool(value)) => Some(Scalar::Bool(*value)),
            Item::Json(Json::Float(value)) => Some(Scalar::Float(*value)),
            item => match self.exact(item)? {
                Some(scalar) => Some(scalar),
                None if matches!(item, Item::Json(Json::Natural(_))) => {
                    self.fault("a whole number above 2^63 - 1")
                }
                None => self.expected("a number", item),
            },
        }
    }

    /// A number in its exact form, `{"float": "nan"}` or `{"int": "9223372036854775807"}`: the inner none where it is
    /// not an object at all, the outer where it is a faulty one.
    fn exact(&mut self, item: Item<'t>) -> Option<Option<Scalar>> {
        let Some(entries) = item.entries() else { return Some(None) };
        if let [(key, Json::Text(text))] = entries {
            match (key.as_ref(), text.as_ref()) {
                ("float", "nan") => return Some(Some(Scalar::Float(f64::NAN))),
                ("float", "inf") => return Some(Some(Scalar::Float(f64::INFINITY))),
                ("float", "-inf") => return Some(Some(Scalar::Float(f64::NEG_INFINITY))),
                ("int", digits) if is_plain_integer(digits) => {
                    if let Ok(integer) = digits.parse() {
                        return Some(Some(Scalar::Int(integer)));
                    }
                }
                _ => {}
            }
        }
        self.fault_with_hint(
            "expected a number, found an object that is none",
            r#"exact forms are {"float": "nan"}, {"float": "inf"}, {"float": "-inf"} and {"int": "9223372036854775807"}"#,
        )
    }
}

/// A whole number as it is usually written: no zeros before it, no `+`.
fn is_plain_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_digits =
        !digits.is_empty() && digits.len() <= 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    text == "0" || (is_digits && !digits.starts_with('0'))
}
