//! The values of stage lists, hook point by hook point, against transformers.

use pellucid_models::Blueprint;
use pellucid_models::stage::WeightId;
use pellucid_models::weights::{Checkpoint, RawTensor};

use crate::folder::{Folder, Tensor, folders};
use crate::interpreter::{Interpreter, Value, Views};

/// Relative to the greatest magnitude of a hook point's golden values.
const HOOK_POINT_BOUND: f32 = 1e-5;
/// Absolute.
const LOGITS_BOUND: f32 = 1e-4;

fn run(folder: &Folder, blueprint: &Blueprint, prompt: usize) -> Views {
    let checkpoint = Checkpoint::open_folder(&folder.path).unwrap();
    let prefix = blueprint.family.prefix;
    let weights = |weight: WeightId| -> RawTensor {
        let weight = &blueprint.stages.weights[weight.0 as usize];
        let renamed = blueprint.family.renamed.iter().find(|(_, ours)| *ours == weight.name);
        let names = [weight.name.as_str(), weight.name.strip_prefix(prefix).unwrap_or_default()];
        let mut names = names.into_iter().chain(renamed.map(|(theirs, _)| *theirs));
        let name = names.find(|name| checkpoint.contains(name)).unwrap();
        checkpoint.expect(name, &weight.shape).unwrap()
    };
    Interpreter { blueprint, weights: &weights }.run(&folder.prompt(prompt))
}

/// The greatest difference; infinity where one is −∞ (or no number) and the other is not.
fn difference(ours: &[f32], golden: &[f32]) -> f32 {
    assert_eq!(ours.len(), golden.len());
    let differences = ours.iter().zip(golden).map(|(a, b)| match (a.is_finite(), b.is_finite()) {
        (true, true) => (a - b).abs(),
        _ if a == b => 0.0,
        _ => f32::INFINITY,
    });
    differences.fold(0.0, f32::max)
}

fn magnitude(values: &[f32]) -> f32 {
    values.iter().filter(|value| value.is_finite()).fold(0.0, |greatest, value| greatest.max(value.abs()))
}

#[test]
fn every_hook_point_has_transformers_value() {
    for folder in folders().iter().filter(|folder| folder.has_values()) {
        let blueprint = folder.blueprint("config.json");
        let views = run(folder, &blueprint, 0);
        let tensors = folder.tensors();
        let mut compared = 0;
        let mut worst = (0.0, "");
        for point in &blueprint.spec.hook_points {
            let path = point.path();
            let Some(golden) = tensors.get(&path) else {
                panic!("{}: no golden value of `{path}`", folder.name);
            };
            let shape: Vec<_> = point
                .shape
                .iter()
                .map(|axis| match axis {
                    pellucid_graph::spec::Axis::Prompts => 1,
                    pellucid_graph::spec::Axis::Size(size) => *size as usize,
                    _ => folder.prompt(0).len(),
                })
                .collect();
            assert_eq!(shape, golden.shape(), "{}: {path}", folder.name);
            match (&views[&path], golden) {
                (Value::Ids(ours), Tensor::Ids { values, .. }) => assert_eq!(ours, values, "{path}"),
                (Value::Numbers(ours), Tensor::Float { values, .. }) => {
                    let relative = difference(ours, values) / magnitude(values);
                    assert!(relative < HOOK_POINT_BOUND, "{}: {path}: {relative:e}", folder.name);
                    if relative > worst.0 {
                        worst = (relative, tensors.get_key_value(&path).map_or("", |(key, _)| key));
                    }
                }
                _ => panic!("{}: {path}: the number type", folder.name),
            }
            compared += 1;
        }
        // And nothing that transformers has is left out.
        let paths: std::collections::BTreeSet<_> =
            blueprint.spec.hook_points.iter().map(|point| point.path()).collect();
        let others = ["logits.", "greedy.", "intervention.", "bfloat16."];
        for key in tensors.keys().filter(|key| !others.iter().any(|other| key.starts_with(other))) {
            assert!(paths.contains(key), "{}: no hook point `{key}`", folder.name);
        }
        println!("{:20} {compared} hook points, worst {:e} at {}", folder.name, worst.0, worst.1);
    }
}

#[test]
fn logits_are_transformers_for_prompts_of_every_length() {
    for folder in folders() {
        let blueprint = folder.blueprint("config.json");
        let tensors = folder.tensors();
        for prompt in 0..3 {
            let views = run(&folder, &blueprint, prompt);
            let (Value::Numbers(ours), Tensor::Float { values, .. }) =
                (&views["output"], &tensors[&format!("logits.{prompt}")])
            else {
                panic!("logits are numbers");
            };
            let difference = difference(ours, values);
            assert!(difference < LOGITS_BOUND, "{}: prompt {prompt}: {difference:e}", folder.name);
        }
    }
}
