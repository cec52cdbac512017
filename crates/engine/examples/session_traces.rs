//! What it brings that traces of a session run together: a session of a clean trace and 144 that patch one head at one position
//! each, as a script with a trace in its loops would make it; with the rewrite and without, in turn. On the bundled model, or with
//! `small` on GPT-2 small's shape with random weights. A line of JSON.
//!
//! ```sh
//! cargo run --release -p pellucid-engine --example session_traces -- [small [ROUNDS]]
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark stops where something is wrong")]

use std::sync::Arc;
use std::time::Instant;

use pellucid_engine::{Engine, Rewrites, RunOptions};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;
use pellucid_models::{Model, ModelOptions};

/// Traces that patch.
const CELLS: u64 = 144;
/// Tokens of the prompt.
const TOKENS: u64 = 15;

fn main() {
    pellucid_kernels::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_small = arguments.first().is_some_and(|argument| argument == "small");
    let rounds: usize = arguments.get(1).map_or(5, |rounds| rounds.parse().unwrap());
    let model = if is_small {
        let config = serde_json::json!({
            "model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50257,
            "n_positions": 1024, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
        });
        Model::random(config, 7, &ModelOptions::default())
    } else {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-gpt2/model");
        Model::open(folder, &ModelOptions::default())
    };
    let together = Engine::new(Arc::new(model.unwrap_or_else(|error| panic!("{error}"))));
    let apart = together.share().with_rewrites(Rewrites { traces: false, ..Rewrites::ALL });
    let program = session(&together);
    let engines = [&together, &apart];
    let mut ms = [Vec::new(), Vec::new()];
    let mut reports = [None, None];
    for _ in 0..=rounds {
        let results = engines.map(|engine| {
            let started = Instant::now();
            let results = engine.run(&program, &RunOptions::default()).unwrap();
            (started.elapsed().as_secs_f64() * 1000.0, results)
        });
        for (name, tensor) in &results[0].1.tensors {
            assert!(tensor.is_same_bits(&results[1].1.tensors[name]), "`{name}` differs");
        }
        for (place, (took, results)) in results.into_iter().enumerate() {
            // The first round warms up.
            if reports[place].replace(results.report).is_some() {
                ms[place].push(took);
            }
        }
    }
    let told = |place: usize, ms: &mut Vec<f64>| {
        ms.sort_by(f64::total_cmp);
        let report = reports[place].as_ref().unwrap();
        serde_json::json!({
            "passes": report.passes, "tokens": report.tokens, "ms": ms[ms.len() / 2], "least_ms": ms[0],
            "peak_value_bytes": report.peak_value_bytes,
        })
    };
    let [first, second] = &mut ms;
    let told = serde_json::json!({
        "model": together.model().spec().name, "traces": CELLS + 1, "together": told(0, first), "apart": told(1, second),
    });
    println!("{told}");
}

/// A clean trace, and one for each layer and head, at one position after another, until there are enough.
fn session(engine: &Engine) -> CheckedProgram {
    let sizes = &engine.model().spec().sizes;
    let prompt = |seed: u64| -> Vec<u64> {
        (0..TOKENS).map(|place| (seed * 7919 + place * 104_729 + 13) % sizes.vocabulary).collect()
    };
    let hook = |layer: u64| format!("layers.{layer}.attention.mixed");
    let clean = (0..sizes.layers)
        .map(|layer| format!(r#"{{"op":"get","name":"c{layer}","hook":"{}"}}"#, hook(layer)));
    let trace = |tokens: Vec<u64>, body: String| {
        format!(r#"{{"op":"trace","invokes":[{{"name":"p","tokens":[{tokens:?}]}}],"body":[{body}]}}"#)
    };
    let mut traces = vec![trace(prompt(1), clean.collect::<Vec<_>>().join(","))];
    let heads = sizes.layers * sizes.heads;
    for cell in 0..CELLS {
        let (layer, head) = (cell % heads / sizes.heads, cell % sizes.heads);
        let position = TOKENS - 1 - cell / heads;
        let (hook, at) = (hook(layer), format!(r#"[":",{position},{head}]"#));
        traces.push(trace(
            prompt(2),
            format!(
                r#"{{"op":"getitem","name":"z{cell}","input":"c{layer}","index":{at}}},
                {{"op":"get","name":"m{cell}","hook":"{hook}"}},{{"op":"index_put","name":"n{cell}","input":"m{cell}","index":{at},"values":"z{cell}"}},
                {{"op":"set","hook":"{hook}","value":"n{cell}"}},{{"op":"get","name":"l{cell}","hook":"logits"}},
                {{"op":"getitem","name":"a{cell}","input":"l{cell}","index":[":",-1,0]}},{{"op":"save","name":"s{cell}","value":"a{cell}"}}"#
            ),
        ));
    }
    let text = format!(r#"{{"pellucid":1,"body":[{}]}}"#, traces.join(","));
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
    engine.check(program).unwrap_or_else(|faults| panic!("{faults}"))
}
