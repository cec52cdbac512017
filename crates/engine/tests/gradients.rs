//! The gradient rule of every operation against PyTorch: the gradients in `golden/operations`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod golden_operations;

use golden_operations::{Case, Golden, fault};
use pellucid_engine::operations::gradients::vjp;
use pellucid_engine::tensor::Tensor;
use pellucid_graph::operation::table;
use serde_json::Value as Json;

/// The place among an operation's values of a parameter's value, or of an item of a list (`operands.1`).
fn place(case: &Case<'_>, name: &str) -> usize {
    let (parameter, item) = match name.split_once('.') {
        Some((parameter, item)) => (parameter, item.parse().unwrap()),
        None => (name, 0),
    };
    let parameter = case.operation.kind.definition().parameter(parameter).unwrap();
    case.operation.arguments[..parameter].iter().map(|argument| argument.values().len()).sum::<usize>() + item
}

fn cotangents(golden: &Golden, gradient: &Json) -> Vec<Option<Tensor>> {
    let keys = gradient["cotangents"].as_array().unwrap().iter();
    keys.map(|key| key.as_str().map(|key| golden.tensors[key].clone())).collect()
}

#[test]
fn every_golden_gradient_agrees_with_pytorch() {
    let golden = Golden::read();
    let mut faults = Vec::new();
    let mut compared = 0;
    for json in golden.cases.iter().filter(|case| !case["gradient"].is_null()) {
        let (case, gradient) = (Case::new(&golden, json), &json["gradient"]);
        let wanted = vec![true; case.inputs.len()];
        let found =
            vjp(&case.operation, &case.inputs, &case.outputs(), &cotangents(&golden, gradient), &wanted);
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                faults.push(format!("{}: {error}", json["name"]));
                continue;
            }
        };
        let tolerance = gradient["tolerance"].as_f64().unwrap();
        for (name, key) in gradient["expected"].as_object().unwrap() {
            let expected = &golden.tensors[key.as_str().unwrap()];
            compared += 1;
            let fault = match &found[place(&case, name)] {
                Some(ours) => fault(ours, expected, tolerance),
                None => Some("is missing".to_owned()),
            };
            if let Some(fault) = fault {
                faults.push(format!("{} {name} {}: {fault}", json["name"], json["arguments"]));
            }
        }
    }
    println!("{compared} gradients compared");
    assert!(faults.is_empty(), "{} faults of {compared}:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_differentiable_operation_has_a_golden_gradient() {
    let golden = Golden::read();
    for definition in table() {
        let has = golden
            .cases
            .iter()
            .any(|case| case["operation"] == definition.name && !case["gradient"].is_null());
        assert_eq!(has, definition.differentiable, "{}", definition.name);
    }
}

#[test]
fn what_is_not_wanted_is_not_given_and_what_is_has_its_operands_type() {
    let golden = Golden::read();
    for json in &golden.cases {
        let case = Case::new(&golden, json);
        let outputs = case.outputs();
        // The logarithm of a singular matrix's determinant has no gradient, and says so.
        let infinite = |output: &Tensor| output.to_vec_f64().unwrap().contains(&f64::NEG_INFINITY);
        if json["operation"] == "slogdet" && outputs.iter().any(infinite) {
            continue;
        }
        // Cotangents of every number type, half-precision ones too.
        let cotangents: Vec<Option<Tensor>> =
            outputs.iter().map(|output| output.dtype().is_float().then(|| output.clone())).collect();
        let differentiable = case.operation.kind.definition().differentiable;
        for wish in 0..=case.inputs.len() {
            let wanted: Vec<bool> = (0..case.inputs.len()).map(|place| place == wish).collect();
            let found = vjp(&case.operation, &case.inputs, &outputs, &cotangents, &wanted)
                .unwrap_or_else(|error| panic!("{json}: {error}"));
            for (place, (found, input)) in found.iter().zip(&case.inputs).enumerate() {
                let Some(found) = found else { continue };
                assert!(differentiable && place == wish && input.dtype().is_float(), "{json}");
                assert_eq!((found.dtype(), found.shape()), (input.dtype(), input.shape()), "{json}");
            }
        }
    }
}
