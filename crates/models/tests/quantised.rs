//! Weights that stay in the blocks of their GGUF file: the same numbers as unpacked ones, in less memory.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use pellucid_kernels::{Epilogue, matmul};
use pellucid_models::stage::{Kernel, WeightId};
use pellucid_models::{Error, Model, ModelOptions, Precision};
use serde_json::json;

/// Of every family whose weights a converter stores otherwise, and of every type: `golden/make_gguf.py`.
const FILES: [&str; 4] = ["quantised-llama", "quantised-gpt2", "quantised-gptneox", "quantised-k"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(name)
}

fn options(precision: Precision) -> ModelOptions {
    ModelOptions { precision, ..ModelOptions::default() }
}

fn open(path: &Path, precision: Precision) -> pellucid_models::Result<Model> {
    Model::open(path.to_str().unwrap(), &options(precision))
}

fn both(name: &str) -> (Model, Model) {
    let path = golden(&format!("gguf/{name}.gguf"));
    (open(&path, Precision::F32).unwrap(), open(&path, Precision::Quantised).unwrap())
}

fn linear_weights(model: &Model) -> Vec<WeightId> {
    let stages = model.stages().stages.iter();
    stages
        .filter_map(|stage| match &stage.kernel {
            Kernel::Linear { weight, .. } => Some(*weight),
            _ => None,
        })
        .collect()
}

#[test]
fn every_weight_is_the_number_that_unpacking_gives_both_ways() {
    for name in FILES {
        let (plain, quantised) = both(name);
        assert_eq!((plain.precision(), quantised.precision()), ("f32", "quantised"));
        let mut in_blocks = 0;
        for id in linear_weights(&plain) {
            let what = format!("{name}: {}", plain.stages().weights[id.0 as usize].name);
            let (ours, theirs) = (quantised.packed(id).unwrap(), plain.packed(id).unwrap());
            let back = (quantised.packed_transposed(id).unwrap(), plain.packed_transposed(id).unwrap());
            assert_eq!(theirs.precision(), Precision::F32);
            assert_eq!(ours.precision(), back.0.precision(), "{what}");
            in_blocks += usize::from(ours.precision() == Precision::Quantised);
            for input in 0..theirs.k() {
                for output in 0..theirs.n() {
                    let weight = theirs.weight(input, output).to_bits();
                    assert_eq!(ours.weight(input, output).to_bits(), weight, "{what} ({input}, {output})");
                    assert_eq!(back.0.weight(output, input).to_bits(), weight, "{what} ({input}, {output})");
                    assert_eq!(back.1.weight(output, input).to_bits(), weight, "{what} ({input}, {output})");
                }
            }
        }
        // What is 48 wide in the tiny models is in no blocks of 32, and all the rest is: in a file of K types, all.
        let all = linear_weights(&plain).len();
        assert!(
            in_blocks > all / 2 && (in_blocks == all) == (name == "quantised-k"),
            "{name}: {in_blocks} of {all}"
        );
        for parameter in &plain.spec().parameters {
            let [a, b] = [&plain, &quantised].map(|model| model.parameter(&parameter.name).unwrap().to_f32());
            assert_eq!(a, b, "{name}: {}", parameter.name);
        }
    }
}

#[test]
fn products_with_every_weight_have_the_bits_of_f32() {
    for name in FILES {
        let (plain, quantised) = both(name);
        for id in linear_weights(&plain) {
            let pairs = [
                (plain.packed(id).unwrap(), quantised.packed(id).unwrap()),
                (plain.packed_transposed(id).unwrap(), quantised.packed_transposed(id).unwrap()),
            ];
            for (theirs, ours) in pairs {
                for rows in [1, 5, 20] {
                    let x: Vec<f32> =
                        (0..rows * theirs.k()).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
                    let [ours, theirs] = [ours, theirs].map(|weights| {
                        let mut out = vec![0.0; rows * weights.n()];
                        matmul(&x, weights.k(), rows, weights, &Epilogue::default(), &mut out, weights.n());
                        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                    });
                    assert!(ours == theirs, "{name}: {}", plain.stages().weights[id.0 as usize].name);
                }
            }
        }
    }
}

#[test]
fn blocks_take_a_fraction_of_the_memory_and_as_much_again_for_the_way_back() {
    let (plain, quantised) = both("quantised-k");
    let (whole, held) = (plain.weight_bytes(), quantised.weight_bytes());
    // Of Q6_K five words in sixteen bytes; of Q5_K the same; of Q4_K three in sixteen.
    assert!((2.9..5.4).contains(&(whole as f64 / held as f64)), "{whole} and {held}");
    for model in [&plain, &quantised] {
        // What is expected is what comes, but for alignment; an outline expects the same.
        let expected = model.expected_weight_bytes() as f64;
        assert!((0.9..1.2).contains(&(model.weight_bytes() as f64 / expected)), "{expected}");
    }
    let path = golden("gguf/quantised-k.gguf");
    for (model, precision) in [(&plain, Precision::F32), (&quantised, Precision::Quantised)] {
        let outline = Model::outline(path.to_str().unwrap(), &options(precision)).unwrap();
        assert_eq!(outline.expected_weight_bytes(), model.expected_weight_bytes());
        assert_eq!(outline.precision(), model.precision());
    }
    let half = open(&path, Precision::Bf16).unwrap();
    assert_eq!(2 * half.expected_weight_bytes(), plain.expected_weight_bytes());
    for id in linear_weights(&quantised) {
        quantised.packed_transposed(id).unwrap();
    }
    assert!((1.8..2.1).contains(&(quantised.weight_bytes() as f64 / held as f64)));
}

#[test]
fn what_a_program_puts_in_a_weights_place_is_held_as_f32() {
    let (_, quantised) = both("quantised-llama");
    let id = linear_weights(&quantised)[0];
    let values = quantised.weight(id).unwrap().parameter().to_f32();
    let given = quantised.replaced(id, values.clone()).unwrap();
    assert_eq!(quantised.packed(id).unwrap().precision(), Precision::Quantised);
    assert_eq!(given.packed().unwrap().precision(), Precision::F32);
    assert_eq!(given.packed_transposed().unwrap().precision(), Precision::F32);
    assert_eq!(given.parameter().to_f32(), values);
}

#[test]
fn a_model_without_quantised_weights_is_refused_and_told_what_to_choose() {
    let folder = golden("models/llama3");
    // Its embedding is not quantised, nor is anything else.
    let unquantised = golden("gguf/llama.gguf");
    let random = json!({ "model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 96, "n_positions": 16 });
    for (refused, named) in [
        (open(&folder, Precision::Quantised), "llama3"),
        (open(&unquantised, Precision::Quantised), "llama.gguf"),
        (Model::outline(folder.to_str().unwrap(), &options(Precision::Quantised)), "llama3"),
        (Model::random(random, 1, &options(Precision::Quantised)), "random weights"),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::NotQuantised { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(named) && message.contains("choose `f32`"), "{message}");
    }
    // One quantised matrix is enough.
    assert!(open(&golden("gguf/qwen2.gguf"), Precision::Quantised).is_ok());
}
