//! What `explain` tells of each rewrite of the planner: for each a snapshot by its name, of a small program's plan with the rewrite
//! and without it, or beside a program in which there is nothing for it to do.
//!
//! Plans depend on nothing but the program, the model's configuration and the rewrites: no clock is asked, and nothing is drawn.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod passes;
mod rows;
mod values;

use std::sync::Arc;

use pellucid_engine::{Engine, Rewrites};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;
use pellucid_models::{Model, ModelOptions};

/// A GPT-2 of four layers.
fn engine() -> Engine {
    let config = serde_json::json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 96, "n_positions": 64,
        "n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 128, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.2,
    });
    Engine::new(Arc::new(Model::random(config, 7, &ModelOptions::default()).unwrap()))
}

fn with(rewrites: Rewrites) -> Engine {
    engine().with_rewrites(rewrites)
}

fn checked(engine: &Engine, body: &str) -> CheckedProgram {
    let text = format!(r#"{{"pellucid":1,"body":[{body}]}}"#);
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    engine.check(program).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// A prompt of seven tokens.
const PROMPT: &str = "[[7,3,9,1,4,4,2]]";

/// A trace of such invokes, each by its name and prompts.
fn trace(invokes: &[(&str, &str)], nodes: &str) -> String {
    let invokes: Vec<String> =
        invokes.iter().map(|(name, tokens)| format!(r#"{{"name":"{name}","tokens":{tokens}}}"#)).collect();
    format!(r#"{{"op":"trace","invokes":[{}],"body":[{nodes}]}}"#, invokes.join(","))
}

/// What is picked of an invoke's hook point, saved.
fn read(invoke: &str, hook: &str, index: &str) -> String {
    format!(
        r#"{{"op":"get","name":"{invoke}_value","invoke":"{invoke}","hook":"{hook}"}},
        {{"op":"getitem","name":"{invoke}_part","input":"{invoke}_value","index":{index}}},
        {{"op":"save","name":"{invoke}_saved","value":"{invoke}_part"}}"#
    )
}

/// An edit of some columns of an invoke's hook point.
fn patch(invoke: &str, hook: &str, index: &str) -> String {
    format!(
        r#"{{"op":"get","name":"{invoke}_before","invoke":"{invoke}","hook":"{hook}"}},
        {{"op":"index_put","name":"{invoke}_after","input":"{invoke}_before","index":{index},"values":0.5}},
        {{"op":"set","invoke":"{invoke}","hook":"{hook}","value":"{invoke}_after"}}"#
    )
}

/// A plan as text.
fn told(engine: &Engine, body: &str) -> String {
    engine.explain(&checked(engine, body)).unwrap().to_string()
}

/// The plans of a program without a rewrite and with all.
fn off_and_on(off: Rewrites, body: &str) -> [(&'static str, String); 2] {
    [("without it", told(&with(off), body)), ("with it", told(&engine(), body))]
}

/// Holds plans to the snapshot of a rewrite. What is to be seen in them is said there too.
fn hold(rewrite: &str, seen: &str, plans: &[(&str, String)]) {
    let plans: Vec<String> = plans.iter().map(|(title, plan)| format!("── {title}\n{plan}")).collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/explain_rewrites/snapshots"));
    settings.set_omit_expression(true);
    settings.set_description(seen);
    settings.bind(|| insta::assert_snapshot!(rewrite, plans.join("\n")));
}
