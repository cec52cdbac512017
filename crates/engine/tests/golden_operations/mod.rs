//! The cases of `golden/operations`, as operations on tensors.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking, and uses a part"
)]

use std::collections::HashMap;
use std::path::PathBuf;

use pellucid_engine::operations::{Noise, evaluate};
use pellucid_engine::tensor::Tensor;
use pellucid_graph::operation::ParameterKind;
use pellucid_graph::{Argument, DType, IndexItem, NodeId, Operation, OperationKind, Scalar, Size, Value};
use serde_json::Value as Json;

/// The tensors of the golden file, and a value's number for each that a case names.
pub struct Golden {
    pub cases: Vec<Json>,
    pub tensors: HashMap<String, Tensor>,
}

impl Golden {
    pub fn read() -> Golden {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/operations");
        let cases = std::fs::read_to_string(folder.join("operations.json")).unwrap();
        let bytes = std::fs::read(folder.join("operations.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| {
            let dtype = match view.dtype() {
                safetensors::Dtype::F64 => DType::F64,
                safetensors::Dtype::F32 => DType::F32,
                safetensors::Dtype::BF16 => DType::Bf16,
                safetensors::Dtype::F16 => DType::F16,
                safetensors::Dtype::I64 => DType::I64,
                safetensors::Dtype::I32 => DType::I32,
                safetensors::Dtype::U8 => DType::U8,
                safetensors::Dtype::BOOL => DType::Bool,
                other => panic!("{name} has the number type {other:?}"),
            };
            (name.to_owned(), Tensor::from_bytes(view.data(), view.shape(), dtype).unwrap())
        });
        Golden { cases: serde_json::from_str(&cases).unwrap(), tensors: tensors.collect() }
    }
}

/// A case as an operation on values, which are numbered as they come.
pub struct Case<'a> {
    golden: &'a Golden,
    pub operation: Operation,
    pub inputs: Vec<Tensor>,
}

impl<'a> Case<'a> {
    pub fn new(golden: &'a Golden, case: &Json) -> Case<'a> {
        let kind = OperationKind::from_name(case["operation"].as_str().unwrap()).unwrap();
        let mut this =
            Case { golden, operation: Operation { kind, arguments: Vec::new() }, inputs: Vec::new() };
        for parameter in &kind.definition().parameters {
            let argument = match (case["arguments"].get(parameter.name), &parameter.default) {
                (Some(json), _) => this.argument(parameter.kind, json),
                (None, Some(default)) => default.clone(),
                (None, None) => panic!("{case} lacks `{}`", parameter.name),
            };
            this.operation.arguments.push(argument);
        }
        this
    }

    fn value(&mut self, json: &Json) -> Option<Value> {
        let key = json.get("tensor")?.as_str().unwrap();
        self.inputs.push(self.golden.tensors[key].clone());
        Some(Value::from(NodeId(self.inputs.len() as u32 - 1)))
    }

    fn argument(&mut self, kind: ParameterKind, json: &Json) -> Argument {
        if let Some(value) = self.value(json) {
            return Argument::Value(value);
        }
        match kind {
            ParameterKind::Tensors => Argument::Values(
                json.as_array().unwrap().iter().map(|item| self.value(item).unwrap()).collect(),
            ),
            ParameterKind::DType => Argument::DType(DType::from_name(json.as_str().unwrap()).unwrap()),
            ParameterKind::Text => Argument::Text(json.as_str().unwrap().to_owned()),
            ParameterKind::Sizes => {
                let sizes = json.as_array().unwrap().iter();
                Argument::Sizes(sizes.map(|size| Size::Literal(size.as_i64().unwrap())).collect())
            }
            ParameterKind::Integers if json.is_array() => Argument::Integers(
                json.as_array().unwrap().iter().map(|item| item.as_i64().unwrap()).collect(),
            ),
            ParameterKind::Index => {
                Argument::Index(json.as_array().unwrap().iter().map(|item| self.index_item(item)).collect())
            }
            _ => Argument::Scalar(scalar(json)),
        }
    }

    fn index_item(&mut self, json: &Json) -> IndexItem {
        if let Some(value) = self.value(json) {
            return IndexItem::Tensor(value);
        }
        match json {
            Json::Null => IndexItem::NewAxis,
            Json::Number(number) => IndexItem::Integer(number.as_i64().unwrap()),
            Json::String(text) if text == "..." => IndexItem::Ellipsis,
            other => {
                let parts: Vec<Option<i64>> =
                    other.as_str().unwrap().split(':').map(|part| part.parse().ok()).collect();
                let step = parts.get(2).copied().flatten().unwrap_or(1);
                IndexItem::Slice { start: parts[0], stop: parts[1], step }
            }
        }
    }

    pub fn outputs(&self) -> Vec<Tensor> {
        let values = |value: Value| self.inputs[value.node.index()].clone();
        evaluate(&self.operation, &values, &Noise::default()).unwrap_or_else(|error| {
            panic!("{:?}: {error}", self.operation);
        })
    }
}

fn scalar(json: &Json) -> Scalar {
    match json {
        Json::Bool(value) => Scalar::Bool(*value),
        Json::Number(number) if number.is_i64() => Scalar::Int(number.as_i64().unwrap()),
        Json::Number(number) => Scalar::Float(number.as_f64().unwrap()),
        Json::String(text) => Scalar::Float(text.parse().unwrap()),
        other => panic!("{other} is no number"),
    }
}

/// What is wrong with a tensor, if it is further from the expected one than the tolerance.
pub fn fault(ours: &Tensor, expected: &Tensor, tolerance: f64) -> Option<String> {
    if (ours.dtype(), ours.shape()) != (expected.dtype(), expected.shape()) {
        let (ours, expected) = ((ours.dtype(), ours.shape()), (expected.dtype(), expected.shape()));
        return Some(format!("is {ours:?}, expected {expected:?}"));
    }
    let (a, b) = (ours.to_vec_f64().unwrap(), expected.to_vec_f64().unwrap());
    for (place, (a, b)) in a.iter().zip(&b).enumerate() {
        let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        let near = tolerance > 0.0 && (a - b).abs() <= tolerance * b.abs().max(1.0);
        if !(same || near) {
            return Some(format!("element {place} is {a:?}, expected {b:?} within {tolerance}"));
        }
    }
    None
}
