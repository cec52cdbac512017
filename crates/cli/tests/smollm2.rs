//! The command on a model that people use: SmolLM2-135M-Instruct, as a GGUF file (Q4_1) and as a Hugging Face folder of
//! the same weights. Both are held to what `golden/gguf_to_folder.py` found with transformers and plain PyTorch hooks, and
//! to each other. `cargo xtask smollm2` runs this with both, and prints what it finds.
//!
//! `PELLUCID_SMOLLM2` names the file, `PELLUCID_SMOLLM2_FOLDER` the folder. Without the first, these tests say that they
//! were skipped; without the second, only the file is tried.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// A probability may differ from transformers' by so much.
const PROBABILITY: f64 = 5e-5;
const CLEAN: &str = "When Mary and John went to the store, John gave a drink to";
const CORRUPTED: &str = "When Mary and John went to the store, Mary gave a drink to";
const TOWER: &str = "The Eiffel Tower is in the city of";

/// The forms of the model that are there.
fn models() -> Vec<String> {
    let Ok(file) = std::env::var("PELLUCID_SMOLLM2") else {
        eprintln!("skipped: PELLUCID_SMOLLM2 does not name the GGUF file of SmolLM2-135M-Instruct");
        return Vec::new();
    };
    [Some(file), std::env::var("PELLUCID_SMOLLM2_FOLDER").ok()].into_iter().flatten().collect()
}

fn reference() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/gguf/smollm2-135m-instruct.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn pellucid(arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pellucid"));
    command.args(arguments).env("HF_HUB_OFFLINE", "1").stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What every form of the model gives, which must be the same to the last digit: the weights are, and so is everything
/// that is made of them.
fn of_all(mut ask: impl FnMut(&str) -> Value) -> Option<Value> {
    let models = models();
    let mut answers = models.iter().map(|model| ask(model));
    let first = answers.next()?;
    for (model, other) in models.iter().skip(1).zip(answers) {
        assert!(first == other, "{model} gives something else than {}:\n{other:#}\n{first:#}", models[0]);
    }
    Some(first)
}

fn close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < PROBABILITY, "{what}: {found}, by transformers {expected}");
}

#[test]
fn the_lens_ends_with_what_transformers_says() {
    let reference = reference();
    for (prompt, answer, place, known) in [(CLEAN, " Mary", 0, 0.92), (TOWER, " Paris", 1, 0.65)] {
        let lens = of_all(|model| {
            let mut lens = pellucid(&["lens", model, prompt, "--json"]);
            lens["model"].take();
            lens
        });
        let Some(lens) = lens else { return };
        let layers = lens["layers"].as_array().unwrap();
        let mut table = String::new();
        for layer in layers {
            let guess = &layer["positions"].as_array().unwrap().last().unwrap()[0];
            let probability = guess["probability"].as_f64().unwrap();
            writeln!(
                table,
                "  {:<18} {:<14} {probability:.3}",
                layer["hook_point"].as_str().unwrap(),
                guess["token"].to_string()
            )
            .unwrap();
        }
        println!("lens of {prompt:?}, at its end:\n{table}");
        let last = &layers.last().unwrap()["positions"].as_array().unwrap().last().unwrap()[0];
        let expected = &reference["prompts"][place];
        assert_eq!((&last["token"], &last["id"]), (&answer.into(), &expected["next"]));
        let probability = last["probability"].as_f64().unwrap();
        close(probability, expected["probability"].as_f64().unwrap(), prompt);
        assert!((probability - known).abs() < 0.01, "{probability}");
        assert_ne!(layers[0]["positions"].as_array().unwrap().last().unwrap()[0]["token"], answer);
    }
}

/// Runs a program of one trace; the numbers that it saves as `p0`, `p1`, …
fn probabilities(model: &str, invokes: &str, nodes: &[String], count: usize) -> Value {
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{invokes}],"body":[{}]}}]}}"#,
        nodes.join(",")
    );
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program.json");
    std::fs::write(&program, text).unwrap();
    let summary = pellucid(&["run", program.to_str().unwrap(), "--model", model, "--json"]);
    let saved = summary["saved"].as_array().unwrap();
    let number = |invoke: usize| {
        let name = format!("p{invoke}");
        saved.iter().find(|saved| saved["name"] == name.as_str()).unwrap()["first"][0].clone()
    };
    (0..count).map(number).collect()
}

/// The nodes that save how probable a token is after an invoke.
fn probability_of(answer: u64, invoke: usize) -> String {
    format!(
        r#"{{"op":"get","name":"l{invoke}","invoke":"i{invoke}","hook":"logits"}},{{"op":"getitem","name":"e{invoke}","input":"l{invoke}","index":[0,-1]}},
        {{"op":"softmax","name":"s{invoke}","input":"e{invoke}","dim":-1}},{{"op":"getitem","name":"a{invoke}","input":"s{invoke}","index":[{answer}]}},
        {{"op":"save","name":"p{invoke}","value":"a{invoke}"}}"#
    )
}

#[test]
fn attention_left_out_layer_by_layer_does_what_it_does_in_pytorch() {
    let reference = &reference()["experiments"];
    let expected = reference["ablation"].as_array().unwrap();
    let answer = reference["answer"].as_u64().unwrap();
    let invokes: Vec<String> =
        (0..expected.len()).map(|layer| format!(r#"{{"name":"i{layer}","prompt":"{CLEAN}"}}"#)).collect();
    let mut nodes = vec![r#"{"op":"zeros","name":"zero","size":[1]}"#.to_owned()];
    for layer in 0..expected.len() {
        nodes.push(format!(
            r#"{{"op":"set","invoke":"i{layer}","hook":"model.layers.{layer}.self_attn.output","value":"zero"}}"#
        ));
        nodes.push(probability_of(answer, layer));
    }
    let found = of_all(|model| probabilities(model, &invokes.join(","), &nodes, expected.len()));
    let Some(found) = found else { return };
    println!("probability of \" Mary\" without the attention of a layer:");
    for (layer, (found, expected)) in found.as_array().unwrap().iter().zip(expected).enumerate() {
        let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
        println!("  layer {layer:<3} {found:.4}   by PyTorch {expected:.4}");
        close(found, expected, &format!("without the attention of layer {layer}"));
    }
}

#[test]
fn the_residual_stream_carried_over_brings_the_answer_back_as_in_pytorch() {
    let reference = &reference()["experiments"];
    let expected = reference["patching"].as_array().unwrap();
    let (answer, subject) = (reference["answer"].as_u64().unwrap(), reference["subject"].as_u64().unwrap());
    let mut invokes = vec![
        format!(r#"{{"name":"clean","prompt":"{CLEAN}"}}"#),
        format!(r#"{{"name":"i0","prompt":"{CORRUPTED}"}}"#),
    ];
    let mut nodes = Vec::new();
    for layer in 0..expected.len() {
        nodes.push(format!(
            r#"{{"op":"get","name":"clean{layer}","invoke":"clean","hook":"layers.{layer}.output"}}"#
        ));
    }
    nodes.push(probability_of(answer, 0));
    let cells: Vec<(usize, String)> =
        (0..expected.len()).flat_map(|layer| [(layer, subject.to_string()), (layer, "-1".into())]).collect();
    for (number, (layer, position)) in cells.iter().enumerate() {
        let invoke = number + 1;
        invokes.push(format!(r#"{{"name":"i{invoke}","prompt":"{CORRUPTED}"}}"#));
        nodes.push(format!(
            r#"{{"op":"getitem","name":"from{invoke}","input":"clean{layer}","index":[":",{position}]}},
            {{"op":"get","name":"h{invoke}","invoke":"i{invoke}","hook":"layers.{layer}.output"}},
            {{"op":"index_put","name":"patched{invoke}","input":"h{invoke}","index":[":",{position}],"values":"from{invoke}"}},
            {{"op":"set","invoke":"i{invoke}","hook":"layers.{layer}.output","value":"patched{invoke}"}}"#
        ));
        nodes.push(probability_of(answer, invoke));
    }
    let found = of_all(|model| probabilities(model, &invokes.join(","), &nodes, 1 + cells.len()));
    let Some(found) = found else { return };
    let number = |place: usize| found[place].as_f64().unwrap();
    close(number(0), reference["corrupted"].as_f64().unwrap(), "nothing carried over");
    println!(
        "probability of \" Mary\" after the corrupted prompt: {:.4}; with the clean stream carried over",
        number(0)
    );
    println!("  after layer   at the subject   at the last position");
    for (layer, expected) in expected.iter().enumerate() {
        println!("  {layer:<13} {:<16.4} {:.4}", number(1 + 2 * layer), number(2 + 2 * layer));
        for (place, what) in ["the subject", "the last position"].iter().enumerate() {
            let expected = expected[place].as_f64().unwrap();
            close(number(1 + 2 * layer + place), expected, &format!("layer {layer}, {what}"));
        }
    }
    // Where the answer stands: early at the subject, late at the end.
    let (early, late) = (number(1), number(2 * expected.len()));
    assert!(early > 0.9 && late > 0.9 && number(0) < 0.1, "{early} {late}");
}

#[test]
fn fifty_tokens_are_generated_as_by_transformers() {
    let reference = reference();
    let prompt = &reference["prompts"][3];
    let text = prompt["text"].as_str().unwrap();
    let generated = of_all(|model| {
        let generated = pellucid(&["generate", model, text, "-n", "50", "--json"]);
        json!({ "text": generated["text"], "tokens": generated["tokens"] })
    });
    let Some(generated) = generated else { return };
    println!("{text}{}", generated["text"].as_str().unwrap());
    assert_eq!(generated["tokens"].as_array().unwrap().len(), 50);
    assert_eq!(generated["tokens"], prompt["greedy"]);
    assert_eq!(generated["text"], prompt["greedy_text"]);
}
