//! Our side of the benchmarks: reads a request a line, runs it, answers with a line of JSON. `benchmarks/run.py` asks it
//! and the peers in turn, so that all are measured in one run.
//!
//! ```sh
//! cargo run --release -p pellucid-engine --example bench_server -- MODEL_FOLDER [f32|bf16]
//! ```
//!
//! Instead of a folder, `layers:48` is GPT-2 small's shape with random weights and so many layers, `smollm2:30` SmolLM2-135M's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops where something is wrong"
)]

mod cases;
mod growth;

use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pellucid_engine::{Engine, RunOptions};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;
use pellucid_models::{Model, ModelOptions, Precision};

fn main() {
    pellucid_kernels::keep_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next().expect("a model's folder");
    let precision = match arguments.next().as_deref() {
        Some("bf16") => Precision::Bf16,
        Some("quantised") => Precision::Quantised,
        _ => Precision::F32,
    };
    let options = ModelOptions { precision, ..ModelOptions::default() };
    let started = Instant::now();
    let shape = source.split_once(':').and_then(|(shape, layers)| Some((shape, layers.parse::<u64>().ok()?)));
    let model = match shape {
        Some(("layers", layers)) => {
            Model::random(serde_json::json!({"model_type": "gpt2", "n_layer": layers}), 0, &options)
        }
        Some(("smollm2", layers)) => Model::random(smollm2(layers), 0, &options),
        _ => Model::open(&source, &options),
    };
    let model = model.unwrap_or_else(|error| panic!("{error}"));
    let engine = Engine::new(Arc::new(model));
    answer(&format!(
        r#"{{"loaded": {}, "instruction_set": "{}", "weight_bytes": {}}}"#,
        started.elapsed().as_secs_f64(),
        pellucid_kernels::Isa::current().name(),
        engine.model().weight_bytes()
    ));
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        let how = |at: usize| words.get(at).copied().unwrap_or("planned");
        match words.first().copied() {
            Some("forward") => forward(&engine, number(1), number(2), "all"),
            Some("last") => forward(&engine, number(1), number(2), "last"),
            Some("decode") => decode(&engine, number(1), number(2)),
            Some("overhead") => overhead(&engine),
            Some("gradients") => gradients(&engine, number(1), number(2)),
            Some("patching") => cases::patching(&engine, 1, number(1), how(2)),
            Some("sweep") => cases::sweep(&engine, number(1)),
            Some("pairs") => cases::patching(&engine, number(1), number(2), how(3)),
            Some("residual") => cases::residual(&engine, number(1), how(2)),
            Some("everything") => cases::everything(&engine, number(1)),
            Some("lens") => cases::lens(&engine, number(1), number(2)),
            Some("steering") => cases::steering(&engine, number(1), number(2), number(3), how(4)),
            Some("product") => growth::product(),
            Some("prompts") => growth::prompts(&engine, number(1), number(2)),
            Some("cells") => growth::cells(&engine, number(1), number(2)),
            Some("attribution") => cases::attribution(&engine, number(1)),
            Some("lora") => lora(&engine, number(1), number(2)),
            Some("operation") => operation(&engine, number(1), number(2)),
            Some("memory") => memory(),
            Some("logits") => logits(&engine, number(1)),
            Some(unknown) => answer(&format!(r#"{{"error": "`{unknown}` is not known"}}"#)),
            None => break,
        }
    }
}

/// The configuration of SmolLM2-135M with so many layers.
fn smollm2(layers: u64) -> serde_json::Value {
    serde_json::json!({
        "model_type": "llama", "num_hidden_layers": layers, "hidden_size": 576, "intermediate_size": 1536,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
        "rope_theta": 100_000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    })
}

fn answer(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// The same tokens that the peers are given.
fn tokens(prompts: usize, length: usize, vocabulary: u64) -> Vec<Vec<u32>> {
    let at =
        |prompt: usize, place: usize| ((prompt * 7919 + place * 104_729 + 13) as u64 % vocabulary) as u32;
    (0..prompts).map(|prompt| (0..length).map(|place| at(prompt, place)).collect()).collect()
}

fn checked(engine: &Engine, prompts: &[Vec<u32>], generate: &str, nodes: &str) -> CheckedProgram {
    let invoke = format!(r#"{{"name":"p","tokens":{prompts:?}}}"#);
    try_checked(engine, &trace(&invoke, generate, nodes)).unwrap_or_else(|faults| panic!("{faults}"))
}

fn trace(invokes: &str, generate: &str, nodes: &str) -> String {
    format!(r#"{{"op":"trace","invokes":[{invokes}]{generate},"body":[{nodes}]}}"#)
}

/// A session of these nodes.
fn try_checked(engine: &Engine, body: &str) -> Result<CheckedProgram, String> {
    let text = format!(r#"{{"pellucid":1,"body":[{body}]}}"#);
    let program = Program::from_bytes(text.as_bytes()).map_err(|faults| faults.to_string())?;
    engine.check(program).map_err(|faults| faults.to_string())
}

/// Runs a lone trace that must save so many tensors, checking included; what it cannot do is told.
fn timed(engine: &Engine, invokes: &str, nodes: &str, saved: usize) {
    timed_each(engine, &trace(invokes, "", nodes), saved, 1);
}

/// The same of a whole session's nodes, which do one thing so many times: the seconds are of one.
fn timed_each(engine: &Engine, body: &str, saved: usize, times: usize) {
    let started = Instant::now();
    let outcome = try_checked(engine, body)
        .and_then(|program| engine.run(&program, &RunOptions::default()).map_err(|error| error.to_string()));
    let seconds = started.elapsed().as_secs_f64() / times as f64;
    match outcome {
        Ok(results) => {
            assert_eq!(results.tensors.len(), saved);
            answer(&format!(r#"{{"seconds": {seconds}}}"#));
        }
        Err(error) => {
            let first: String = error.lines().take(1).collect();
            answer(&format!(r#"{{"error": {}}}"#, serde_json::Value::from(first)));
        }
    }
}

/// The outputs of every attention and MLP: 24 hook points of GPT-2 small.
fn hook_points(engine: &Engine) -> Vec<String> {
    let layers = engine.model().spec().sizes.layers;
    (0..layers)
        .flat_map(|layer| ["attention", "mlp"].map(|part| format!("layers.{layer}.{part}.output")))
        .collect()
}

/// A logit difference at the last position of an invoke's prompts, and the way back from it.
fn backward(invoke: &str) -> String {
    format!(
        r#"{{"op":"get","name":"l","invoke":"{invoke}","hook":"logits"}},{{"op":"getitem","name":"one","input":"l","index":[":",-1,0]}},
        {{"op":"getitem","name":"other","input":"l","index":[":",-1,1]}},{{"op":"sub","name":"d","input":"one","other":"other"}},
        {{"op":"sum","name":"loss","input":"d"}},{{"op":"backward","name":"back","of":"loss"}}"#
    )
}

/// A forward pass with the gradients at every hook point of [`hook_points`].
fn gradients(engine: &Engine, prompts: usize, length: usize) {
    let prompts = tokens(prompts, length, engine.model().spec().sizes.vocabulary);
    let mut nodes = vec![backward("p")];
    let hooks = hook_points(engine);
    for (place, hook) in hooks.iter().enumerate() {
        nodes.push(format!(
            r#"{{"op":"grad","name":"g{place}","backward":"back","invoke":"p","hook":"{hook}"}},{{"op":"save","name":"s{place}","value":"g{place}"}}"#
        ));
    }
    let invoke = format!(r#"{{"name":"p","tokens":{prompts:?}}}"#);
    timed(engine, &invoke, &nodes.join(","), hooks.len());
}

/// Training steps of one program: enough that its own cost is shared as in real training.
const STEPS: usize = 8;
/// The adapter's rank and what its output is multiplied by, as in `benchmarks/peers.py`.
const RANK: usize = 8;
const SCALE: usize = 2;

/// Training steps (AdamW) of a low-rank adapter of every query-key-value projection; the loss is that of every next token.
fn lora(engine: &Engine, prompts: usize, length: usize) {
    let sizes = &engine.model().spec().sizes;
    let (layers, width, prompts) = (sizes.layers, sizes.hidden, tokens(prompts, length, sizes.vocabulary));
    let targets: Vec<u32> = prompts.iter().flat_map(|prompt| prompt[1..].iter().copied()).collect();
    let mut body = vec![format!(
        r#"{{"op":"literal","name":"targets","dtype":"i64","shape":[{}],"elements":{targets:?}}}"#,
        targets.len()
    )];
    for layer in 0..layers {
        for (name, rows, columns) in [("a", RANK as u64, width), ("b", 3 * width, RANK as u64)] {
            let start = if name == "a" { "randn" } else { "zeros" };
            body.push(format!(r#"{{"op":"{start}","name":"{name}{layer}_0","size":[{rows},{columns}]}}"#));
            for state in ["m", "v"] {
                body.push(format!(
                    r#"{{"op":"zeros","name":"{state}{name}{layer}_0","size":[{rows},{columns}]}}"#
                ));
            }
        }
    }
    // A parameter as a step finds it, and the means of its gradient and of its square: the outputs of the step before.
    let before = |step: usize, output: usize, parameter: &str| match (step, output) {
        (0, output) => format!("{}{parameter}_0", ["", "m", "v"][output]),
        (step, 0) => format!("t{parameter}_{step}"),
        (step, output) => format!("t{parameter}_{step}.{output}"),
    };
    for step in 0..STEPS {
        let mut nodes = Vec::new();
        for layer in 0..layers {
            let at = format!("{layer}_{step}");
            let module = format!("transformer.h.{layer}.attn.c_attn");
            let [a, b] = ["a", "b"].map(|name| before(step, 0, &format!("{name}{layer}")));
            nodes.push(format!(
                r#"{{"op":"get","name":"x{at}","hook":"{module}.input"}},{{"op":"get","name":"y{at}","hook":"{module}.output"}},
                {{"op":"transpose","name":"at{at}","input":"{a}","dim0":0,"dim1":1}},{{"op":"transpose","name":"bt{at}","input":"{b}","dim0":0,"dim1":1}},
                {{"op":"matmul","name":"i{at}","input":"x{at}","other":"at{at}"}},{{"op":"matmul","name":"o{at}","input":"i{at}","other":"bt{at}"}},
                {{"op":"mul","name":"s{at}","input":"o{at}","other":{SCALE}}},{{"op":"add","name":"z{at}","input":"y{at}","other":"s{at}"}},
                {{"op":"set","hook":"{module}.output","value":"z{at}"}}"#
            ));
        }
        nodes.push(format!(
            r#"{{"op":"get","name":"l_{step}","hook":"logits"}},{{"op":"getitem","name":"n_{step}","input":"l_{step}","index":[":",":-1"]}},
            {{"op":"reshape","name":"f_{step}","input":"n_{step}","shape":[{},{}]}},{{"op":"cross_entropy","name":"loss_{step}","input":"f_{step}","target":"targets"}},
            {{"op":"backward","name":"back_{step}","of":"loss_{step}"}}"#,
            targets.len(),
            sizes.vocabulary
        ));
        for layer in 0..layers {
            for name in ["a", "b"].map(|name| format!("{name}{layer}")) {
                let next = step + 1;
                let [parameter, mean, square] = [0, 1, 2].map(|output| before(step, output, &name));
                nodes.push(format!(
                    r#"{{"op":"grad","name":"g{name}_{step}","backward":"back_{step}","of":"{parameter}"}},
                    {{"op":"adam_step","name":"t{name}_{next}","parameter":"{parameter}","gradient":"g{name}_{step}","exp_avg":"{mean}","exp_avg_sq":"{square}","step":{next},"lr":0.001,"weight_decay":0.01,"decoupled":true}}"#
                ));
                if next == STEPS {
                    nodes.push(format!(r#"{{"op":"save","name":"{name}","value":"t{name}_{next}"}}"#));
                }
            }
        }
        body.push(trace(&format!(r#"{{"tokens":{prompts:?}}}"#), "", &nodes.join(",")));
    }
    timed_each(engine, &body.join(","), 2 * layers as usize, STEPS);
}

const ALL: &str = r#"{"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#;
const LAST: &str = r#"{"op":"get","name":"l","hook":"logits"},{"op":"getitem","name":"x","input":"l","index":[":",-1]},{"op":"save","name":"logits","value":"x"}"#;

/// One forward pass, checking included, as a user would pay for it.
fn forward(engine: &Engine, prompts: usize, length: usize, which: &str) {
    let prompts = tokens(prompts, length, engine.model().spec().sizes.vocabulary);
    let started = Instant::now();
    let program = checked(engine, &prompts, "", if which == "all" { ALL } else { LAST });
    let results = engine.run(&program, &RunOptions::default()).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(results.tensors.len(), 1);
    answer(&format!(r#"{{"seconds": {seconds}}}"#));
}

/// Seconds a token after a context, by the times at which tokens arrive.
fn decode(engine: &Engine, context: usize, count: usize) {
    let prompts = tokens(1, context, engine.model().spec().sizes.vocabulary);
    let generate = format!(r#","generate":{{"max_new_tokens":{count},"stop_tokens":[]}}"#);
    let program = checked(
        engine,
        &prompts,
        &generate,
        r#"{"op":"generated","name":"g"},{"op":"save","name":"s","value":"g"}"#,
    );
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = times.clone();
    let options = RunOptions {
        on_token: Some(Arc::new(move |_| seen.lock().unwrap().push(Instant::now()))),
        ..RunOptions::default()
    };
    engine.run(&program, &options).unwrap();
    let times = times.lock().unwrap();
    let seconds = (times[times.len() - 1] - times[0]).as_secs_f64() / (times.len() - 1) as f64;
    answer(&format!(r#"{{"seconds": {seconds}}}"#));
}

/// What interventions cost beside the model: the least of many runs of each.
fn overhead(engine: &Engine) {
    let layers = engine.model().spec().sizes.layers as usize;
    let prompts = tokens(1, 16, engine.model().spec().sizes.vocabulary);
    let least = |program: &CheckedProgram| {
        let mut best = f64::INFINITY;
        for _ in 0..300 {
            let started = Instant::now();
            engine.run(program, &RunOptions::default()).unwrap();
            best = best.min(started.elapsed().as_secs_f64());
        }
        best
    };
    let empty = r#"{"op":"lengths","name":"n"},{"op":"save","name":"s","value":"n"}"#;
    let mut build = f64::INFINITY;
    for _ in 0..300 {
        let started = Instant::now();
        checked(engine, &prompts, "", empty);
        build = build.min(started.elapsed().as_secs_f64());
    }
    let empty = least(&checked(engine, &prompts, "", empty));
    let plain = least(&checked(engine, &prompts, "", LAST));
    let nodes = |node: &dyn Fn(usize) -> String| (0..layers).map(node).collect::<Vec<_>>().join(",");
    // A getter whose value is not kept: a reader that takes one number of it.
    let getters = nodes(&|layer| {
        format!(
            r#"{{"op":"get","name":"g{layer}","hook":"layers.{layer}.output"}},{{"op":"save","name":"s{layer}","value":"g{layer}"}}"#
        )
    });
    let getters = least(&checked(engine, &prompts, "", &format!("{getters},{LAST}")));
    let setters = nodes(&|layer| format!(r#"{{"op":"set","hook":"layers.{layer}.output","value":"z"}}"#));
    let zero = r#"{"op":"zeros","name":"z","size":[1]}"#;
    let setters = least(&checked(engine, &prompts, "", &format!("{zero},{setters},{LAST}")));
    let each = |with: f64| (with - plain) / layers as f64;
    answer(&format!(
        r#"{{"parse_and_check": {build}, "empty": {empty}, "forward": {plain}, "getter": {}, "setter": {}}}"#,
        each(getters),
        each(setters)
    ));
}

/// A user's own operations on a value as large as an MLP's inner one, `[1, length, inner]`: seconds for each of `count`.
fn operation(engine: &Engine, length: usize, count: usize) {
    let inner = engine.model().spec().sizes.inner;
    let chain: Vec<String> = (0..count)
        .map(|at| format!(r#"{{"op":"mul","name":"v{}","input":"v{at}","other":1.5}}"#, at + 1))
        .collect();
    let nodes = format!(
        r#"{{"op":"ones","name":"v0","size":[1,{length},{inner}]}},{},{{"op":"mean","name":"m","input":"v{count}"}},{{"op":"save","name":"s","value":"m"}}"#,
        chain.join(",")
    );
    let program = checked(engine, &tokens(1, 1, engine.model().spec().sizes.vocabulary), "", &nodes);
    let started = Instant::now();
    engine.run(&program, &RunOptions::default()).unwrap();
    let seconds = started.elapsed().as_secs_f64() / count as f64;
    answer(&format!(r#"{{"seconds": {seconds}}}"#));
}

/// The memory of this process in bytes: the most since it was last asked, and what is held now, of it mapped files.
fn memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    answer(&format!(
        r#"{{"peak": {}, "anonymous": {}, "file": {}}}"#,
        field("VmHWM"),
        field("RssAnon"),
        field("RssFile")
    ));
    // From here on the peak counts anew.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The last position's first logits, to compare with the peers'.
fn logits(engine: &Engine, length: usize) {
    let prompts = tokens(1, length, engine.model().spec().sizes.vocabulary);
    let results = engine.run(&checked(engine, &prompts, "", LAST), &RunOptions::default()).unwrap();
    let values = results.tensors["logits"].to_vec_f32().unwrap();
    answer(&format!("{:?}", &values[..values.len().min(1000)]));
}
