//! Applying a rule to arguments written as JSON. A tensor is the text of its type, `f32[2, L0 - 1]`.

use pellucid_graph::operation::{OperationDefinition, ParameterKind};
use pellucid_graph::rules::{RuleContext, RuleError, Typed};
use pellucid_graph::shape::Symbol;
use pellucid_graph::{
    Argument, DType, Dimension, IndexItem, NodeId, Operation, OperationKind, Scalar, Size, TensorType, Value,
};
use serde_json::Value as Json;

/// An operation with the types of the values it reads: each tensor is a node of its own.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) types: Vec<TensorType>,
}

/// Applies an operation's rule.
pub(crate) fn apply(call: &Call) -> Result<Typed, RuleError> {
    let type_of = |value: Value| call.types[value.node.index()].clone();
    let mut next_symbol = 100;
    let mut context =
        RuleContext { operation: &call.operation, type_of: &type_of, next_symbol: &mut next_symbol };
    call.operation.kind.definition().typed(&mut context)
}

/// Applies the rule of the operation of that name.
pub(crate) fn rule(name: &str, arguments: Json) -> Result<Typed, RuleError> {
    apply(&read(name, &arguments, &tensor_type))
}

/// The outputs' types as text, apart by spaces.
pub(crate) fn outputs(name: &str, arguments: Json) -> String {
    match rule(name, arguments) {
        Ok(typed) => typed.outputs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Err(error) => format!("error: {error}"),
    }
}

/// Reads a type: the number type, and sizes that are sums like `2*L0 - 1`; `?3` is a derived size.
pub(crate) fn tensor_type(text: &str) -> Option<TensorType> {
    let (dtype, sizes) = text.strip_suffix(']')?.split_once('[')?;
    let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
    Some(TensorType { dtype: DType::from_name(dtype)?, shape: sizes.map(dimension).collect::<Option<_>>()? })
}

fn dimension(text: &str) -> Option<Dimension> {
    let mut sum = Dimension::known(0);
    for term in text.replace('-', "+-").split('+') {
        let term = term.replace(' ', "");
        let (negative, term) = term.strip_prefix('-').map_or((false, term.as_str()), |term| (true, term));
        let (factor, name) = term.split_once('*').unwrap_or(("1", term));
        let size = match (name.strip_prefix('L'), name.strip_prefix('?')) {
            (Some(number), _) => Dimension::symbol(Symbol(number.parse().ok()?)),
            (_, Some(number)) => Dimension::symbol(Symbol::derived(number.parse().ok()?)),
            _ => Dimension::known(name.parse().ok()?),
        };
        let factor: i64 = factor.parse().ok()?;
        sum = sum.plus(&size.times(if negative { -factor } else { factor }));
    }
    Some(sum)
}

/// Reads an operation; `type_of` finds a tensor's type by its text.
pub(crate) fn read(name: &str, arguments: &Json, type_of: &dyn Fn(&str) -> Option<TensorType>) -> Call {
    let kind = OperationKind::from_name(name).unwrap_or_else(|| panic!("no operation {name}"));
    let mut reader = Reader { type_of, types: Vec::new() };
    let given = arguments.as_object().expect("arguments are an object");
    let definition = kind.definition();
    for key in given.keys() {
        assert!(definition.parameter(key).is_some(), "{name} has no parameter {key}");
    }
    let arguments = reader.arguments(definition, given);
    Call { operation: Operation { kind, arguments }, types: reader.types }
}

struct Reader<'a> {
    type_of: &'a dyn Fn(&str) -> Option<TensorType>,
    types: Vec<TensorType>,
}

impl Reader<'_> {
    fn arguments(
        &mut self,
        definition: &OperationDefinition,
        given: &serde_json::Map<String, Json>,
    ) -> Vec<Argument> {
        let one = |parameter: &pellucid_graph::operation::Parameter| match given.get(parameter.name) {
            None | Some(Json::Null) => parameter.default.clone().unwrap_or(Argument::Absent),
            Some(json) => self.argument(parameter.kind, json),
        };
        definition.parameters.iter().map(one).collect()
    }

    fn value(&mut self, json: &Json) -> Option<Value> {
        let text = json.get("tensor").unwrap_or(json).as_str()?;
        self.types.push((self.type_of)(text)?);
        Some(NodeId(self.types.len() as u32 - 1).into())
    }

    fn argument(&mut self, kind: ParameterKind, json: &Json) -> Argument {
        match (kind, json) {
            (ParameterKind::Tensors, Json::Array(list)) => {
                Argument::Values(list.iter().map(|json| self.value(json).expect("a tensor")).collect())
            }
            (ParameterKind::Tensor | ParameterKind::Operand, _) => match self.value(json) {
                Some(value) => Argument::Value(value),
                None => Argument::Scalar(scalar(json)),
            },
            (ParameterKind::Text, Json::String(text)) => Argument::Text(text.clone()),
            (ParameterKind::DType, Json::String(name)) => {
                Argument::DType(DType::from_name(name).expect("a number type"))
            }
            (ParameterKind::Sizes, Json::Array(list)) => {
                Argument::Sizes(list.iter().map(|json| self.size(json)).collect())
            }
            (ParameterKind::Index, Json::Array(list)) => {
                Argument::Index(list.iter().map(|json| self.item(json)).collect())
            }
            (_, Json::Array(list)) => {
                Argument::Integers(list.iter().map(|json| json.as_i64().expect("an integer")).collect())
            }
            _ => Argument::Scalar(scalar(json)),
        }
    }

    fn size(&mut self, json: &Json) -> Size {
        match json.as_i64() {
            Some(size) => Size::Literal(size),
            None => Size::Of {
                value: self.value(&json["size_of"]).expect("a tensor"),
                dimension: json["dim"].as_i64().expect("a dimension"),
            },
        }
    }

    fn item(&mut self, json: &Json) -> IndexItem {
        match json {
            Json::Null => IndexItem::NewAxis,
            Json::Number(number) => IndexItem::Integer(number.as_i64().expect("an integer")),
            Json::String(text) if text == "..." => IndexItem::Ellipsis,
            Json::String(text) if text.contains(':') => {
                let mut bounds = text.split(':').map(|bound| bound.parse().ok());
                let mut next = || bounds.next().flatten();
                IndexItem::Slice { start: next(), stop: next(), step: next().unwrap_or(1) }
            }
            _ => IndexItem::Tensor(self.value(json).expect("a tensor")),
        }
    }
}

fn scalar(json: &Json) -> Scalar {
    match json {
        Json::Bool(value) => Scalar::Bool(*value),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Scalar::Float(number.as_f64().unwrap()), Scalar::Int)
        }
        Json::String(text) => Scalar::Float(text.parse().unwrap_or_else(|_| panic!("{text} is no number"))),
        _ => panic!("{json} is no number"),
    }
}
