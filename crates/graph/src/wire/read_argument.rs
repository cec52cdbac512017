//! Reads an operation's arguments, each by the kind of its parameter.

use super::form::{is_name, parameter_field};
use super::json::Item;
use super::reader::{Fields, Reader};
use crate::fault::quote;
use crate::limits;
use crate::operation::{Argument, IndexItem, Operation, OperationKind, Parameter, ParameterKind, Size};
use crate::scalar::Scalar;

/// The fields of the size of another value.
pub(super) const SIZE_FIELDS: [&str; 2] = ["size_of", "dim"];
/// The fields of an index tensor.
pub(super) const INDEX_FIELDS: [&str; 1] = ["tensor"];

impl<'t> Reader<'t> {
    pub(super) fn operation(&mut self, fields: Fields<'t>, kind: OperationKind) -> Option<Operation> {
        let parameters = &kind.definition().parameters;
        let mut arguments = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            arguments.push(self.parameter(fields, parameter));
        }
        Some(Operation { kind, arguments: arguments.into_iter().collect::<Option<_>>()? })
    }

    fn parameter(&mut self, fields: Fields<'t>, parameter: &'static Parameter) -> Option<Argument> {
        let field = parameter_field(parameter.name);
        let read = |reader: &mut Self, item| reader.argument(parameter.kind, item);
        match &parameter.default {
            None => self.required(fields, field, read),
            Some(Argument::Absent) => Some(self.optional(fields, field, read)?.unwrap_or(Argument::Absent)),
            Some(default) if fields.get(field).is_none() => Some(default.clone()),
            Some(_) => self.required(fields, field, read),
        }
    }

    pub(super) fn argument(&mut self, kind: ParameterKind, item: Item<'t>) -> Option<Argument> {
        Some(match kind {
            ParameterKind::Tensor => Argument::Value(self.value(item)?),
            ParameterKind::Operand if item.text().is_some() => Argument::Value(self.value(item)?),
            ParameterKind::Operand => match self.scalar(item) {
                Some(scalar) => Argument::Scalar(scalar),
                None => return None,
            },
            ParameterKind::Tensors => Argument::Values(self.list(
                item,
                "a list of nodes' names",
                limits::LIST_ARGUMENTS,
                Reader::value,
            )?),
            ParameterKind::Number => Argument::Scalar(self.number(item)?),
            ParameterKind::Integer => Argument::Scalar(Scalar::Int(self.integer(item)?)),
            ParameterKind::Integers if item.items().is_some() => Argument::Integers(self.list(
                item,
                "a list of whole numbers",
                limits::LIST_ARGUMENTS,
                Reader::integer,
            )?),
            ParameterKind::Integers => Argument::Integers(vec![self.integer(item)?]),
            ParameterKind::Sizes => {
                Argument::Sizes(self.list(item, "a list of sizes", limits::DIMENSIONS, Reader::size)?)
            }
            ParameterKind::Boolean => Argument::Scalar(Scalar::Bool(self.boolean(item)?)),
            ParameterKind::Text => Argument::Text(self.text(item, "a text", limits::TEXT_BYTES)?.to_owned()),
            ParameterKind::DType => Argument::DType(self.dtype(item)?),
            ParameterKind::Index if item.items().is_some() => {
                Argument::Index(self.list(item, "an index", limits::INDEX_ITEMS, Reader::index_item)?)
            }
            ParameterKind::Index => Argument::Index(vec![self.index_item(item)?]),
        })
    }

    /// A literal number; truth values count as numbers here, as in PyTorch.
    pub(super) fn number(&mut self, item: Item<'t>) -> Option<Scalar> {
        if item.text().is_some() {
            return self.fault_with_hint(
                "expected a number, found a text",
                "a value of the program cannot stand here",
            );
        }
        self.scalar(item)
    }

    fn size(&mut self, item: Item<'t>) -> Option<Size> {
        if !is_object_with(item, "size_of") {
            return self.integer(item).map(Size::Literal);
        }
        let fields = self.fields(item, "a size", &SIZE_FIELDS)?;
        let value = self.required(fields, "size_of", Reader::value);
        let dimension = self.required(fields, "dim", Reader::integer);
        Some(Size::Of { value: value?, dimension: dimension? })
    }

    fn index_item(&mut self, item: Item<'t>) -> Option<IndexItem> {
        if item.is_null() {
            return Some(IndexItem::NewAxis);
        }
        if let Some(text) = item.text() {
            return match text {
                "..." => Some(IndexItem::Ellipsis),
                text => slice(text).or_else(|| {
                    let hint = match !text.split('.').all(is_name) {
                        true => "a slice is `start:stop:step`, each a whole number or left out; the step is at least 1".into(),
                        false => format!(r#"an index tensor is written {{"tensor": "{}"}}"#, quote(text).trim_matches('`')),
                    };
                    self.fault_with_hint(format!("{} is not an index", quote(text)), hint)
                }),
            };
        }
        if !is_object_with(item, "tensor") {
            return self.integer(item).map(IndexItem::Integer);
        }
        let fields = self.fields(item, "an index tensor", &INDEX_FIELDS)?;
        self.required(fields, "tensor", Reader::value).map(IndexItem::Tensor)
    }
}

pub(super) fn is_object_with(item: Item<'_>, key: &str) -> bool {
    item.entries().is_some_and(|entries| entries.iter().any(|(other, _)| other == key))
}

/// `start:stop:step`.
fn slice(text: &str) -> Option<IndexItem> {
    let mut parts = text.split(':').map(|part| match part {
        "" => Some(None),
        digits if digits.starts_with('+') => None,
        digits => digits.parse::<i64>().ok().map(Some),
    });
    let (start, stop) = (parts.next()??, parts.next()??);
    let step = match parts.next() {
        None => 1,
        Some(step) => step?.unwrap_or(1),
    };
    (step >= 1 && parts.next().is_none()).then_some(IndexItem::Slice { start, stop, step })
}
