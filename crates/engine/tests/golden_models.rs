//! Every family on the engine, held to golden values made with transformers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

mod support;

use pellucid_engine::{Engine, RunOptions};
use pellucid_graph::spec::Application;
use support::{Golden, Tally, model_names, program, program_with};

/// Logits may differ by so much, absolutely.
const LOGITS: f64 = 1e-4;
/// A hook point's values may differ by so much of its largest.
const HOOK_POINTS: f64 = 1e-5;

fn for_each_model(mut test: impl FnMut(&str, &Golden, &Engine, &mut Tally)) {
    let mut failures = String::new();
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let mut tally = Tally::new(&name);
        test(&name, &golden, &engine, &mut tally);
        failures.push_str(&tally.failures());
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn every_hook_point_reads_as_in_transformers() {
    for_each_model(|_, golden, engine, tally| {
        let hooks: Vec<(usize, String)> =
            engine.model().spec().hook_points.iter().map(|hook| hook.path()).enumerate().collect();
        let read: Vec<_> = hooks.iter().filter(|(_, path)| golden.tensor(path).is_some()).collect();
        assert!(!read.is_empty() || !golden.has_hook_points());
        let nodes: Vec<String> = read
            .iter()
            .map(|(place, path)| {
                format!(r#"{{"op":"get","name":"h{place}","hook":"{path}"}},{{"op":"save","name":"s{place}","value":"h{place}"}}"#)
            })
            .collect();
        if nodes.is_empty() {
            return;
        }
        let text = program(&[("p", &[golden.prompt(0)])], &nodes.join(","));
        let checked = engine.check(text).unwrap_or_else(|faults| panic!("{faults}"));
        let planned = engine.run(&checked, &RunOptions::default()).unwrap();
        let naive = engine.run_naive(&checked).unwrap();
        for (place, path) in read {
            let expected = golden.tensor(path).unwrap();
            let name = format!("s{place}");
            tally.relative(path, &planned.tensors[&name], &expected, HOOK_POINTS);
            tally.same_bits(path, &planned.tensors[&name], &naive.tensors[&name]);
        }
    });
}

#[test]
fn one_hook_point_alone_reads_the_same_bits_as_all_together() {
    for_each_model(|_, golden, engine, tally| {
        let paths: Vec<String> = engine.model().spec().hook_points.iter().map(|hook| hook.path()).collect();
        let all: Vec<String> = (0..paths.len())
            .map(|place| format!(r#"{{"op":"get","name":"h{place}","hook":"{}"}},{{"op":"save","name":"s{place}","value":"h{place}"}}"#, paths[place]))
            .collect();
        let text = program(&[("p", &[golden.prompt(0)])], &all.join(","));
        let together = engine.run(&engine.check(text).unwrap(), &RunOptions::default()).unwrap();
        for (place, node) in all.iter().enumerate() {
            let text = program(&[("p", &[golden.prompt(0)])], node);
            let alone = engine.run(&engine.check(text).unwrap(), &RunOptions::default()).unwrap();
            let name = format!("s{place}");
            tally.same_bits(&paths[place], &alone.tensors[&name], &together.tensors[&name]);
        }
    });
}

#[test]
fn every_module_applied_to_what_enters_it_gives_what_leaves_it() {
    for_each_model(|_, golden, engine, tally| {
        let mut modules = engine.model().spec().modules.clone();
        modules.retain(|module| module.applied != Application::None);
        assert!(modules.len() > 10);
        for module in modules {
            let path = &module.path;
            let nodes = format!(
                r#"{{"op":"get","name":"i","hook":"{path}.input"}},{{"op":"get","name":"o","hook":"{path}.output"}},
                {{"op":"apply","name":"a","module":"{path}","input":"i"}},
                {{"op":"save","name":"own","value":"o"}},{{"op":"save","name":"applied","value":"a"}}"#
            );
            let checked = engine.check(program(&[("p", &[golden.prompt(0)])], &nodes));
            let checked = checked.unwrap_or_else(|faults| panic!("{path}: {faults}"));
            let planned = engine.run(&checked, &RunOptions::default());
            let planned = planned.unwrap_or_else(|error| panic!("{path}: {error}"));
            tally.same_bits(path, &planned.tensors["applied"], &planned.tensors["own"]);
            let naive = engine.run_naive(&checked).unwrap();
            tally.same_bits(path, &naive.tensors["applied"], &planned.tensors["own"]);
        }
    });
}

#[test]
fn logits_agree_for_prompts_alone_and_for_a_batch_of_unequal_lengths() {
    for_each_model(|_, golden, engine, tally| {
        let prompts: Vec<Vec<u32>> = (0..golden.prompts()).map(|number| golden.prompt(number)).collect();
        let nodes = r#"{"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#;
        let batch = engine.check(program(&[("all", &prompts)], nodes)).unwrap();
        let batch = engine.run(&batch, &RunOptions::default()).unwrap();
        let batch = &batch.tensors["logits"];
        let width = batch.shape()[1];
        for (number, prompt) in prompts.iter().enumerate() {
            let alone = engine.check(program(&[("one", std::slice::from_ref(prompt))], nodes)).unwrap();
            let alone = engine.run(&alone, &RunOptions::default()).unwrap();
            if let Some(expected) = golden.tensor(&format!("logits.{number}")) {
                tally.absolute("logits", &alone.tensors["logits"], &expected, LOGITS);
            }
            // The rectangle's rows end together: this prompt's are the last ones, the cells before them 0.
            let vocabulary = batch.shape()[2];
            let cells = batch.to_vec_f32().unwrap();
            let row = &cells[number * width * vocabulary..(number + 1) * width * vocabulary];
            let (padding, real) = row.split_at((width - prompt.len()) * vocabulary);
            assert!(padding.iter().all(|&cell| cell == 0.0), "padding reads 0");
            assert_eq!(
                bits(real),
                bits(&alone.tensors["logits"].to_vec_f32().unwrap()),
                "a batch equals its prompts"
            );
        }
    });
}

#[test]
fn greedy_generation_makes_the_same_tokens() {
    for_each_model(|_, golden, engine, tally| {
        for (number, expected) in golden.greedy() {
            let prompt = golden.prompt(number);
            let text = format!(
                r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"name":"p","tokens":[{prompt:?}]}}],
                "generate":{{"max_new_tokens":{},"stop_tokens":[]}},
                "body":[{{"op":"generated","name":"g"}},{{"op":"save","name":"made","value":"g"}}]}}]}}"#,
                expected.len()
            );
            let checked =
                engine.check(pellucid_graph::Program::from_bytes(text.as_bytes()).unwrap()).unwrap();
            let planned = engine.run(&checked, &RunOptions::default()).unwrap();
            let naive = engine.run_naive(&checked).unwrap();
            let made: Vec<u32> =
                planned.tensors["made"].to_vec_i64().unwrap().iter().map(|&token| token as u32).collect();
            tally.equal("generation", &made, &expected);
            tally.same_bits("generation", &planned.tensors["made"], &naive.tensors["made"]);
        }
    });
}

#[test]
fn interventions_move_the_logits_as_pytorch_hooks_do() {
    for_each_model(|_, golden, engine, tally| {
        for (name, invokes, nodes) in golden.interventions() {
            let Some(expected) = golden.tensor(&format!("intervention.{name}.logits")) else { continue };
            let invokes: Vec<(&str, &[Vec<u32>])> =
                invokes.iter().map(|(name, prompts)| (name.as_str(), prompts.as_slice())).collect();
            let program = program_with(&invokes, &nodes, golden.constants());
            let checked = engine.check(program).unwrap_or_else(|faults| panic!("{faults}"));
            let planned = engine.run(&checked, &RunOptions::default()).unwrap();
            let naive = engine.run_naive(&checked).unwrap();
            tally.absolute(&format!("intervention {name}"), &planned.tensors["logits"], &expected, LOGITS);
            tally.same_bits(&name, &planned.tensors["logits"], &naive.tensors["logits"]);
            // An edit that silently does nothing would agree with nothing here.
            let clean = golden.tensor("logits.0").unwrap();
            assert!(
                clean.values.iter().zip(&expected.values).any(|(a, b)| (a - b).abs() > 1e-3),
                "{name} moves nothing"
            );
        }
    });
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
