//! Every gradient rule against finite differences in `f64`, on random shapes, broadcasts and arguments.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod random_examples;

use pellucid_engine::operations::gradients::vjp;
use pellucid_engine::operations::{Noise, evaluate};
use pellucid_engine::tensor::Tensor;
use pellucid_graph::operation::table;
use pellucid_graph::rules::RuleContext;
use pellucid_graph::{DType, Operation, TensorType, Value};
use random_examples::{Example, Numbers};

/// Examples of each operation.
const EXAMPLES: u64 = 60;
/// How far an operand is moved to either side.
const STEP: f64 = 1e-6;

fn outputs(operation: &Operation, inputs: &[Tensor]) -> Vec<Tensor> {
    evaluate(operation, &|value: Value| inputs[value.node.index()].clone(), &Noise::default())
        .unwrap_or_else(|error| panic!("{operation:?}: {error}"))
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.to_vec_f64().unwrap().iter().zip(b.to_vec_f64().unwrap()).map(|(a, b)| a * b).sum()
}

/// The outputs' sum, each weighed by its cotangent.
fn loss(operation: &Operation, inputs: &[Tensor], cotangents: &[Option<Tensor>]) -> f64 {
    let outputs = outputs(operation, inputs);
    outputs
        .iter()
        .zip(cotangents)
        .map(|(output, cotangent)| cotangent.as_ref().map_or(0.0, |c| dot(output, c)))
        .sum()
}

/// The tensor moved along a direction.
fn moved(tensor: &Tensor, direction: &Tensor, by: f64) -> Tensor {
    let elements = tensor.to_vec_f64().unwrap();
    let elements = elements.iter().zip(direction.to_vec_f64().unwrap()).map(|(x, d)| x + by * d).collect();
    Tensor::from_f64(elements, tensor.shape()).unwrap()
}

fn check(example: &Example, numbers: &mut Numbers) -> usize {
    let (operation, inputs) = (&example.operation, &example.inputs);
    let shown = || {
        let shapes: Vec<_> = inputs.iter().map(|input| (input.dtype(), input.shape().to_vec())).collect();
        format!("{operation:?} of {shapes:?}")
    };
    let made = outputs(operation, inputs);
    let types = |tensor: &Tensor| {
        let sizes: Vec<u64> = tensor.shape().iter().map(|&size| size as u64).collect();
        TensorType::known(tensor.dtype(), &sizes)
    };
    let type_of = |value: Value| types(&inputs[value.node.index()]);
    let mut context = RuleContext { operation, type_of: &type_of, next_symbol: &mut 0 };
    let typed = operation
        .kind
        .definition()
        .typed(&mut context)
        .unwrap_or_else(|error| panic!("{}: {error}", shown()));
    assert_eq!(made.iter().map(types).collect::<Vec<_>>(), typed.outputs, "{}", shown());
    let cotangents: Vec<Option<Tensor>> =
        made.iter().map(|output| output.dtype().is_float().then(|| numbers.normal(output.shape()))).collect();
    let wanted = vec![true; inputs.len()];
    let found = vjp(operation, inputs, &made, &cotangents, &wanted)
        .unwrap_or_else(|error| panic!("{}: {error}", shown()));
    let mut compared = 0;
    for (place, input) in inputs.iter().enumerate() {
        if !input.dtype().is_float() {
            assert!(found[place].is_none(), "{}: a gradient of {}", shown(), input.dtype());
            continue;
        }
        let Some(gradient) = &found[place] else {
            // What an operation reads only the size of has none.
            continue;
        };
        let direction = example.direction(place, numbers);
        let at = |by: f64| {
            let mut inputs = inputs.clone();
            inputs[place] = moved(input, &direction, by);
            loss(operation, &inputs, &cotangents)
        };
        let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        let ours = dot(gradient, &direction);
        let scale = 1.0 + expected.abs() + loss(operation, inputs, &cotangents).abs();
        assert!(
            (ours - expected).abs() <= 2e-6 * scale,
            "{} by its operand {place}: {ours}, by differences {expected}",
            shown()
        );
        compared += 1;
    }
    compared
}

#[test]
fn every_rule_agrees_with_finite_differences() {
    let mut counts = Vec::new();
    for definition in table().iter().filter(|definition| definition.differentiable) {
        let mut count = 0;
        for seed in 0..EXAMPLES {
            let mut numbers = Numbers::new(seed, definition.name);
            let example = Example::new(definition.kind, &mut numbers);
            count += check(&example, &mut numbers);
        }
        assert!(count >= EXAMPLES as usize / 2, "{} was fired {count} times", definition.name);
        counts.push(format!("{} {count}", definition.name));
    }
    println!("gradients held to finite differences: {}", counts.join(", "));
}

#[test]
fn a_gradient_that_is_wrong_by_a_little_is_told_apart() {
    let mut numbers = Numbers::new(1, "teeth");
    let x = numbers.normal(&[3]);
    let example = Example::unary(pellucid_graph::OperationKind::Exp, x.clone());
    let made = outputs(&example.operation, &example.inputs);
    let cotangents = vec![Some(Tensor::from_f64(vec![1.0; 3], &[3]).unwrap())];
    let found = vjp(&example.operation, &example.inputs, &made, &cotangents, &[true]).unwrap();
    let ours = dot(found[0].as_ref().unwrap(), &x);
    let at = |by: f64| loss(&example.operation, &[moved(&x, &x, by)], &cotangents);
    let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
    assert!((ours - expected).abs() < 1e-6 && (ours * 1.0001 - expected).abs() > 1e-6);
    assert_eq!(found[0].as_ref().unwrap().dtype(), DType::F64);
}
