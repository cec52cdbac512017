//! What depends on values and what stands in for parts of the model: stops, skips, weights that are set; and gradients beside it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod conditions;
mod drawn;
mod edits;
mod failures;
mod gradients;
mod models;
mod quantised;
mod skips;
mod stops;
#[path = "../support/mod.rs"]
mod support;
mod weights;

use pellucid_engine::{Engine, EngineError, Results, RunOptions, Tensor};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;
use support::Golden;

fn engine(name: &str) -> Engine {
    Golden::open(name).engine()
}

/// The JSON of a program with that of its body.
fn whole(body: &str) -> String {
    format!(r#"{{"pellucid":1,"body":[{body}]}}"#)
}

fn read(text: &str) -> Program {
    Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// A program from the JSON of its body.
fn session(body: &str) -> Program {
    read(&whole(body))
}

/// A trace from the JSON of its invokes, of further fields, and of its nodes.
fn trace(invokes: &str, fields: &str, nodes: &str) -> String {
    format!(r#"{{"op":"trace","invokes":[{invokes}],{fields}"body":[{nodes}]}}"#)
}

fn check(engine: &Engine, body: &str) -> CheckedProgram {
    engine.check(session(body)).unwrap_or_else(|faults| panic!("{faults}\n{body}"))
}

/// The first fault of a program that is refused.
fn refusal(engine: &Engine, body: &str) -> String {
    match engine.check(session(body)) {
        Err(faults) => faults.0[0].to_string(),
        Ok(_) => panic!("it is taken:\n{body}"),
    }
}

/// Runs a program of that body both ways, which must agree to the bit.
fn run(engine: &Engine, body: &str) -> Results {
    run_text(engine, &whole(body))
}

/// The same with the whole program's JSON.
fn run_text(engine: &Engine, text: &str) -> Results {
    let checked = engine.check(read(text)).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    let planned =
        engine.run(&checked, &RunOptions::default()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let naive = engine.run_naive(&checked).unwrap_or_else(|error| panic!("naive: {error}\n{text}"));
    assert_same(&planned, &naive, text);
    planned
}

fn assert_same(one: &Results, other: &Results, what: &str) {
    let names = |results: &Results| results.tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(one), names(other), "{what}");
    for (name, tensor) in &one.tensors {
        assert!(tensor.is_same_bits(&other.tensors[name]), "`{name}` differs\n{what}");
    }
    let absent = |results: &Results| {
        let mut names = results.absent.clone();
        names.sort();
        names
    };
    assert_eq!(absent(one), absent(other), "{what}");
}

fn failure(engine: &Engine, body: &str) -> String {
    let checked = check(engine, body);
    match engine.run(&checked, &RunOptions::default()) {
        Err(EngineError::Node(fault)) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

fn tensor<'r>(results: &'r Results, name: &str) -> &'r Tensor {
    results.tensors.get(name).unwrap_or_else(|| panic!("`{name}` is not among the results"))
}

fn numbers(results: &Results, name: &str) -> Vec<f64> {
    tensor(results, name).to_vec_f64().unwrap()
}

fn integers(results: &Results, name: &str) -> Vec<i64> {
    tensor(results, name).to_vec_i64().unwrap()
}
