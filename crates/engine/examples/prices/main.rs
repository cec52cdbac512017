//! What operations take beside their price: each kind on some two million elements, for each number type that it takes, as they lie
//! in memory and turned; and what it takes to save a value. On one thread, the least of several times. A line of text for each kind:
//! `kind`, `number type`, `layout`, milliseconds, and the milliseconds of its price at 20 G operations a second.
//!
//! ```sh
//! cargo run --release -p pellucid-engine --example prices -- [PART OF A KIND'S NAME]
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark stops where something is wrong")]

mod cases;

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use pellucid_engine::operations::{Noise, evaluate};
use pellucid_engine::{Engine, Results, Tensor};
use pellucid_graph::check::CheckedProgram;
use pellucid_graph::{NodeKind, Program, Value};
use pellucid_models::{Model, ModelOptions};

/// Times of which the least is told.
const ROUNDS: usize = 5;
/// Where one takes as many seconds, it is not measured again.
const LONG: f64 = 0.5;
/// What the service takes a model to do in a second, before it knows better.
const BASE: f64 = 20e9;

fn main() {
    pellucid_kernels::keep_freed_memory();
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-gpt2/model");
    let model = Model::open(folder, &ModelOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let engine = Engine::new(Arc::new(model));
    pellucid_kernels::pool::with_threads(1, || {
        for dtype in ["f32", "f64", "f16", "bf16", "i64", "i32", "u8", "bool"] {
            for turned in [false, true] {
                let all = cases::OF_ALL_TYPES.iter().copied();
                let once: &[&str] = if dtype == "f32" && !turned { cases::OF_ONE_TYPE } else { &[] };
                let cases = all.chain(once.iter().copied()).filter(|case| kind(case).contains(&wanted));
                let layout = if turned { "turned" } else { "in order" };
                let inputs = Inputs::make(&engine, dtype, turned);
                for case in cases {
                    let measured = inputs.measure(&engine, case);
                    // Every case is of something that takes `f32`.
                    assert!(measured.is_some() || dtype != "f32", "{case} is refused");
                    if let Some((took, priced)) = measured {
                        println!("{}\t{dtype}\t{layout}\t{took:.3}\t{priced:.3}", kind(case));
                    }
                }
                if "save".contains(&wanted) {
                    let (took, priced) = inputs.measure_saving(&engine);
                    println!("save\t{dtype}\t{layout}\t{took:.3}\t{priced:.3}");
                }
            }
        }
    });
}

/// The kind of a case, which is what it begins with.
fn kind(case: &str) -> &str {
    case.split('"').nth(1).unwrap()
}

/// What the cases of one number type and layout read.
struct Inputs {
    text: String,
    values: Vec<Vec<Tensor>>,
    names: Vec<String>,
}

impl Inputs {
    fn make(engine: &Engine, dtype: &str, turned: bool) -> Inputs {
        let text = cases::inputs(dtype, turned);
        let program =
            checked(engine, &format!(r#"{text},{{"op":"save","name":"all","value":"x"}}"#)).unwrap();
        let mut inputs = Inputs { text, values: Vec::new(), names: Vec::new() };
        for node in &program.program.nodes {
            let NodeKind::Operation(operation) = &node.kind else { continue };
            let read = |value: Value| inputs.read(value);
            let noise = Noise { label: node.name.clone(), ..Noise::default() };
            let made = evaluate(operation, &read, &noise).unwrap();
            inputs.names.push(node.name.clone());
            inputs.values.push(made);
        }
        inputs
    }

    fn read(&self, value: Value) -> Tensor {
        self.values[value.node.index()][value.output as usize].clone()
    }

    /// Milliseconds of a case, and of its price; none: it takes no such numbers.
    fn measure(&self, engine: &Engine, case: &str) -> Option<(f64, f64)> {
        let text = format!(
            r#"{},{{"op":{case},"name":"measured"}},{{"op":"save","name":"all","value":"measured"}}"#,
            self.text
        );
        let program = checked(engine, &text)?;
        let place = program.program.nodes.iter().position(|node| node.name == "measured")?;
        let NodeKind::Operation(operation) = &program.program.nodes[place].kind else { return None };
        let read = |value: Value| self.read(value);
        let took = least(|| drop(evaluate(operation, &read, &Noise::default()).unwrap()));
        Some((took, program.nodes[place].flops as f64 / BASE * 1e3))
    }

    /// Milliseconds until `x` is written down as a result, and of the price of its save.
    fn measure_saving(&self, engine: &Engine) -> (f64, f64) {
        let text = format!(r#"{},{{"op":"save","name":"all","value":"x"}}"#, self.text);
        let program = checked(engine, &text).unwrap();
        // What the other nodes take is the rest of the price.
        let others = program.program.nodes.iter().zip(&program.nodes).filter(|(node, _)| node.name != "all");
        let others: u64 = others.map(|(_, checked)| checked.flops).sum();
        let x = self.names.iter().position(|name| name == "x").unwrap();
        let took = least(|| {
            let mut file = tempfile::tempfile().unwrap();
            let tensor = self.values[x][0].contiguous().unwrap();
            let results = Results { tensors: [("all".to_owned(), tensor)].into(), ..Results::default() };
            file.write_all(&results.to_safetensors().unwrap()).unwrap();
            file.sync_all().unwrap();
        });
        (took, (program.price.flops - others) as f64 / BASE * 1e3)
    }
}

/// The least of several times, in milliseconds.
fn least(mut work: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        work();
        least = least.min(started.elapsed().as_secs_f64());
        if least > LONG {
            break;
        }
    }
    least * 1e3
}

/// The program of these nodes, if it is sound.
fn checked(engine: &Engine, body: &str) -> Option<CheckedProgram> {
    let text = format!(r#"{{"pellucid":1,"body":[{body}]}}"#);
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    engine.check(program).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{cases, kind};

    #[test]
    fn every_kind_of_operation_is_measured() {
        let cases = cases::OF_ALL_TYPES.iter().chain(cases::OF_ONE_TYPE);
        let measured: BTreeSet<&str> = cases.map(|case| kind(case)).collect();
        let all = pellucid_graph::operation::table().iter().map(|definition| definition.name);
        assert_eq!(measured, all.collect::<BTreeSet<_>>());
    }
}
