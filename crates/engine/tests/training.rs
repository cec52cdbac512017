//! A step of training as a program: the example of the language's reference.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use pellucid_engine::{Engine, RunOptions};
use pellucid_graph::Program;
use pellucid_models::{Model, ModelOptions};

#[test]
fn the_example_of_the_languages_reference_takes_a_step() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("docs/language.md")).unwrap();
    let section = text.split("## Training").nth(1).unwrap();
    let example = section.split("```json").nth(1).unwrap().split("```").next().unwrap();
    let model = Model::open(root.join("models/tiny-gpt2/model").to_str().unwrap(), &ModelOptions::default());
    let engine = Engine::new(Arc::new(model.unwrap()));
    let checked = engine.check(Program::from_bytes(example.as_bytes()).unwrap());
    let checked = checked.unwrap_or_else(|faults| panic!("{faults}"));
    let planned = engine.run(&checked, &RunOptions::default()).unwrap();
    let naive = engine.run_naive(&checked).unwrap();
    for name in ["new_vector", "new_mean"] {
        assert!(planned.tensors[name].is_same_bits(&naive.tensors[name]), "{name}");
    }
    // The first step of Adam is as long as the rate in every direction, against the gradient.
    let (vector, mean) = (
        planned.tensors["new_vector"].to_vec_f32().unwrap(),
        planned.tensors["new_mean"].to_vec_f32().unwrap(),
    );
    assert_eq!(vector.len(), 128);
    for (moved, mean) in vector.iter().zip(&mean) {
        assert!((moved + 0.1 * mean.signum()).abs() < 1e-3, "moved by {moved} at a mean gradient of {mean}");
    }
}
