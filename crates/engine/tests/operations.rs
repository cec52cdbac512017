//! Every operation against PyTorch: the cases of `golden/operations`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod golden_operations;

use std::path::PathBuf;

use golden_operations::{Case, Golden, fault};
use pellucid_engine::operations::{Noise, evaluate};
use pellucid_engine::tensor::Tensor;
use pellucid_graph::operation::table;
use pellucid_graph::rules::RuleContext;
use pellucid_graph::{Argument, DType, Operation, OperationKind, Scalar, Size, TensorType, Value};
use serde_json::Value as Json;

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
        let typed = case.operation.kind.definition().typed(&mut context);
        let typed = typed.unwrap_or_else(|error| panic!("{json}: {error}"));
        let outputs: Vec<TensorType> = case.outputs().iter().map(self::type_of).collect();
        assert_eq!(outputs, typed.outputs, "{json}");
    }
}

fn type_of(tensor: &Tensor) -> TensorType {
    let shape: Vec<u64> = tensor.shape().iter().map(|&size| size as u64).collect();
    TensorType::known(tensor.dtype(), &shape)
}
