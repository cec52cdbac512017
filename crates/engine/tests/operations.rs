//! Every operation against PyTorch: the cases of `golden/operations`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::PathBuf;

use pellucid_engine::operations::{Noise, evaluate};
use pellucid_engine::tensor::Tensor;
use pellucid_graph::operation::{ParameterKind, table};
use pellucid_graph::rules::RuleContext;
use pellucid_graph::{
    Argument, DType, IndexItem, NodeId, Operation, OperationKind, Scalar, Size, TensorType, Value,
};
use serde_json::Value as Json;

/// The tensors of the golden file, and a value's number for each that a case names.
struct Golden {
    cases: Vec<Json>,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    fn read() -> Golden {
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
struct Case<'a> {
    golden: &'a Golden,
    operation: Operation,
    inputs: Vec<Tensor>,
}

impl<'a> Case<'a> {
    fn new(golden: &'a Golden, case: &Json) -> Case<'a> {
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

    fn outputs(&self) -> Vec<Tensor> {
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
fn fault(ours: &Tensor, expected: &Tensor, tolerance: f64) -> Option<String> {
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

#[test]
fn every_golden_case_agrees_with_pytorch() {
    let golden = Golden::read();
    let mut faults = Vec::new();
    for json in &golden.cases {
        let case = Case::new(&golden, json);
        let expected: Vec<&Tensor> = match &json["expected"] {
            Json::Array(keys) => keys.iter().map(|key| &golden.tensors[key.as_str().unwrap()]).collect(),
            key => vec![&golden.tensors[key.as_str().unwrap()]],
        };
        let outputs = case.outputs();
        let tolerance = json["tolerance"].as_f64().unwrap();
        if outputs.len() != expected.len() {
            faults.push(format!("{}: {} outputs, expected {}", json["name"], outputs.len(), expected.len()));
        }
        for (ours, expected) in outputs.iter().zip(expected) {
            if let Some(fault) = fault(ours, expected, tolerance) {
                faults.push(format!("{} {}: {fault}", json["name"], json["arguments"]));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_operation_has_a_golden_case() {
    let golden = Golden::read();
    let seeded = ["randn", "rand", "randint", "randperm"];
    for definition in table().iter().filter(|definition| !seeded.contains(&definition.name)) {
        let covered = golden.cases.iter().any(|case| case["operation"] == definition.name);
        assert!(covered, "no golden case of {}", definition.name);
    }
}

/// Ours, evaluated without inputs under a key.
fn drawn(name: &str, arguments: Vec<Argument>, noise: &Noise) -> Tensor {
    let operation = Operation { kind: OperationKind::from_name(name).unwrap(), arguments };
    evaluate(&operation, &|_| unreachable!(), noise).unwrap().remove(0)
}

#[test]
fn random_numbers_are_those_of_the_description() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/operations/noise.json");
    let cases: Vec<Json> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let size = |count: usize| Argument::Sizes(vec![Size::Literal(count as i64)]);
    let floats = |json: &Json| -> Vec<f64> {
        json.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let integers = |json: &Json| -> Vec<i64> {
        json.as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect()
    };
    for case in &cases {
        let noise = Noise {
            seed: case["seed"].as_u64().unwrap(),
            label: case["label"].as_str().unwrap().to_owned(),
            coordinates: case["coordinates"]
                .as_array()
                .unwrap()
                .iter()
                .map(|at| at.as_u64().unwrap())
                .collect(),
        };
        let expected = floats(&case["randn"]);
        for (dtype, bound) in
            [(DType::F64, 1e-14), (DType::F32, 1e-7), (DType::F16, 1e-3), (DType::Bf16, 8e-3)]
        {
            let ours = drawn("randn", vec![size(expected.len()), Argument::DType(dtype)], &noise);
            assert_eq!((ours.dtype(), ours.shape()), (dtype, &[expected.len()][..]));
            for (a, b) in ours.to_vec_f64().unwrap().iter().zip(&expected) {
                assert!((a - b).abs() <= bound * b.abs().max(1.0), "{a} {b} {dtype}");
            }
        }
        for (dtype, expected) in case["rand"].as_object().unwrap() {
            let (dtype, expected) = (DType::from_name(dtype).unwrap(), floats(expected));
            let ours = drawn("rand", vec![size(expected.len()), Argument::DType(dtype)], &noise);
            assert_eq!(ours.to_vec_f64().unwrap(), expected, "{dtype}");
        }
        for range in case["randint"].as_array().unwrap() {
            let bound = |name: &str| Argument::Scalar(Scalar::Int(range[name].as_i64().unwrap()));
            let expected = integers(&range["values"]);
            let arguments =
                vec![bound("low"), bound("high"), size(expected.len()), Argument::DType(DType::I64)];
            assert_eq!(drawn("randint", arguments, &noise).to_vec_i64().unwrap(), expected);
        }
        let expected = integers(&case["randperm"]);
        let count = Argument::Scalar(Scalar::Int(expected.len() as i64));
        let ours = drawn("randperm", vec![count, Argument::DType(DType::I64)], &noise);
        assert_eq!(ours.to_vec_i64().unwrap(), expected);
    }
}

#[test]
fn results_have_the_types_that_the_rules_promise() {
    let golden = Golden::read();
    for json in &golden.cases {
        let case = Case::new(&golden, json);
        let type_of = |value: Value| type_of(&case.inputs[value.node.index()]);
        let mut context = RuleContext { operation: &case.operation, type_of: &type_of, next_symbol: &mut 0 };
        let typed = (case.operation.kind.definition().rule)(&mut context);
        let typed = typed.unwrap_or_else(|error| panic!("{json}: {error}"));
        let outputs: Vec<TensorType> = case.outputs().iter().map(self::type_of).collect();
        assert_eq!(outputs, typed.outputs, "{json}");
    }
}

fn type_of(tensor: &Tensor) -> TensorType {
    let shape: Vec<u64> = tensor.shape().iter().map(|&size| size as u64).collect();
    TensorType::known(tensor.dtype(), &shape)
}
