//! Loading models: from folders in the forms that checkpoints are published in, and at random.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pellucid_models::stage::{Kernel, LinearLayout, WeightId};
use pellucid_models::{Model, ModelOptions, Precision};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden(name: &str) -> PathBuf {
    repository().join("golden/models").join(name)
}

fn open(folder: &Path) -> pellucid_models::Result<Model> {
    Model::open(folder.to_str().unwrap(), &ModelOptions::default())
}

/// The weights that linear layers read, with their layout.
fn linear_weights(model: &Model) -> Vec<(WeightId, LinearLayout)> {
    let stages = model.stages().stages.iter();
    let mut weights: Vec<_> = stages
        .filter_map(|stage| match &stage.kernel {
            Kernel::Linear { weight, layout, .. } => Some((*weight, *layout)),
            _ => None,
        })
        .collect();
    weights.dedup();
    weights
}

#[test]
fn every_form_of_checkpoint_gives_each_weight_to_its_kernel() {
    for entry in std::fs::read_dir(repository().join("golden/models")).unwrap() {
        let folder = entry.unwrap().path();
        let model = open(&folder).unwrap();
        for (id, layout) in linear_weights(&model) {
            let spec = &model.stages().weights[id.0 as usize];
            let parameter = model.parameter(&spec.name).unwrap();
            assert_eq!(parameter.shape(), spec.shape);
            let (rows, columns) = (spec.shape[0], spec.shape[1]);
            let values = parameter.to_f32();
            let (packed, back) = (model.packed(id).unwrap(), model.packed_transposed(id).unwrap());
            for row in 0..rows {
                for column in 0..columns {
                    let value = values[row * columns + column];
                    let (input, output) = match layout {
                        LinearLayout::OutputInput => (column, row),
                        LinearLayout::InputOutput => (row, column),
                    };
                    assert_eq!(packed.weight(input, output), value, "{}: {}", folder.display(), spec.name);
                    assert_eq!(back.weight(output, input), value, "{}: {}", folder.display(), spec.name);
                }
            }
        }
        for (index, weight) in model.stages().weights.iter().enumerate() {
            let id = WeightId(index as u32);
            let parameter = model.parameter(&weight.name).unwrap();
            match weight.shape.as_slice() {
                [_] => assert_eq!(model.vector(id).unwrap(), parameter.to_f32()),
                [rows, width] => {
                    let mut row = vec![0.0; *width];
                    model.weight(id).unwrap().table_row(rows - 1, &mut row);
                    assert_eq!(row, parameter.to_f32()[(rows - 1) * width..]);
                    assert_eq!(model.weight(id).unwrap().table_shape(), Some((*rows, *width)));
                }
                shape => panic!("{}: {shape:?}", weight.name),
            }
        }
    }
}

#[test]
fn shards_and_one_file_are_the_same_model() {
    let (whole, sharded) = (open(&golden("llama3")).unwrap(), open(&golden("llama3-sharded")).unwrap());
    for weight in &whole.spec().parameters {
        let [a, b] = [&whole, &sharded].map(|model| model.parameter(&weight.name).unwrap().to_f32());
        assert_eq!(a, b, "{}", weight.name);
    }
}

#[test]
fn a_tied_unembedding_is_packed_once_and_known_by_both_names() {
    let tied = open(&golden("llama3")).unwrap();
    assert!(tied.spec().parameters.iter().all(|parameter| parameter.name != "lm_head.weight"));
    let values = |name: &str| tied.parameter(name).map(|parameter| parameter.to_f32());
    assert_eq!(values("lm_head.weight").unwrap(), values("model.embed_tokens.weight").unwrap());
    assert!(values("lm_tail.weight").is_none());
    let embedding = tied.stages().weights.iter().position(|weight| weight.name.contains("embed")).unwrap();
    assert_eq!(linear_weights(&tied).last().unwrap().0, WeightId(embedding as u32));
    // Where they are two, the embedding is only read by the row.
    let untied = open(&golden("llama2")).unwrap();
    assert!(untied.packed(WeightId(0)).is_none());
    assert_ne!(
        untied.parameter("lm_head.weight").unwrap().to_f32(),
        untied.parameter("model.embed_tokens.weight").unwrap().to_f32()
    );
}

#[test]
fn tensors_that_no_model_uses_are_noted() {
    let model = open(&golden("gpt2-bare")).unwrap();
    assert!(!model.leftover().is_empty());
    assert!(model.leftover().iter().all(|name| name.ends_with("attn.bias")), "{:?}", model.leftover());
    assert_eq!(model.unexplained().count(), 0, "masks are known");
    assert!(open(&golden("gpt2")).unwrap().leftover().is_empty());
}

#[test]
fn what_no_habit_explains_is_left() {
    let layers = open(&golden("llama2")).unwrap().spec().sizes.layers;
    let folder = copy(
        "llama2",
        |_, _| {},
        |config| {
            config["num_hidden_layers"] = json!(layers - 1);
            config["tie_word_embeddings"] = json!(true);
        },
    );
    let model = open(folder.path()).unwrap();
    let last = format!("model.layers.{}.", layers - 1);
    assert!(model.leftover().iter().any(|name| name == "lm_head.weight"));
    assert!(model.unexplained().count() > 0);
    assert!(model.unexplained().all(|name| name.starts_with(&last)), "{:?}", model.leftover());
}

#[test]
fn an_outline_needs_no_weights() {
    let folder = copy("llama2", |_, _| {}, |_| {});
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let path = folder.path().to_str().unwrap();
    let outline = Model::outline(path, &ModelOptions::default()).unwrap();
    assert!(outline.is_outline());
    let settings = pellucid_models::hub::Settings::from_environment();
    let spec = pellucid_models::weights::Source::parse(path).unwrap().spec(&settings).unwrap();
    assert_eq!(&spec, outline.spec());
    assert!(open(folder.path()).is_err());
}

#[test]
fn bf16_weights_take_half_the_memory() {
    let config = json!({
        "model_type": "gpt2", "n_embd": 512, "n_layer": 1, "n_head": 4, "vocab_size": 4096, "n_positions": 16
    });
    let load = |precision| {
        let options = ModelOptions { precision, ..ModelOptions::default() };
        Model::random(config.clone(), 1, &options).unwrap()
    };
    let (whole, half) = (load(Precision::F32), load(Precision::Bf16));
    assert_eq!((whole.precision(), half.precision()), ("f32", "bf16"));
    // But for what alignment to pages takes.
    let ratio = whole.weight_bytes() as f64 / half.weight_bytes() as f64;
    assert!((1.7..2.3).contains(&ratio), "{ratio}");
}

#[test]
fn progress_ends_at_its_total() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let seen = Arc::clone(&seen);
        Arc::new(move |progress: pellucid_models::Progress<'_>| {
            seen.lock().unwrap().push((progress.done, progress.total));
        })
    };
    let options = ModelOptions { progress: Some(listener), ..ModelOptions::default() };
    Model::open(golden("gpt2").to_str().unwrap(), &options).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].0, 0);
    assert!(seen.is_sorted());
    assert_eq!(Some(seen[seen.len() - 1].0), seen[0].1);
}

#[test]
fn the_bundled_model_comes_with_all_it_needs() {
    let model = open(&repository().join("models/tiny-gpt2/model")).unwrap();
    assert_eq!(model.spec().name, "model");
    assert_eq!(model.spec().sizes.layers, 4);
    assert_eq!(model.spec().end_tokens, [0]);
    assert!(model.tokenizer().is_some());
    assert!(model.leftover().is_empty());
}

#[test]
fn end_tokens_are_those_of_the_generation_configuration() {
    let folder = copy("llama3", |_, _| {}, |_| {});
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [7, 2]}"#).unwrap();
    assert_eq!(open(folder.path()).unwrap().spec().end_tokens, [7, 2]);
    assert_eq!(open(&golden("llama3")).unwrap().spec().end_tokens, [2]);
}

/// A golden folder with changed weights and configuration. `weights` sees each tensor's name and shape.
fn copy(
    name: &str,
    weights: impl Fn(&mut String, &mut Vec<usize>),
    config: impl Fn(&mut Value),
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(golden(name).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(mut name, view)| {
            let mut shape = view.shape().to_vec();
            weights(&mut name, &mut shape);
            let data = vec![0; 4 * shape.iter().product::<usize>()];
            (name, shape, data)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, data)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    let text = std::fs::read_to_string(golden(name).join("config.json")).unwrap();
    let mut value = serde_json::from_str(&text).unwrap();
    config(&mut value);
    std::fs::write(folder.path().join("config.json"), value.to_string()).unwrap();
    folder
}

#[test]
fn a_missing_weight_is_named_with_its_shape() {
    let rename = |name: &mut String, _: &mut Vec<usize>| {
        if name == "model.layers.1.mlp.up_proj.weight" {
            *name = "model.layers.1.mlp.up_projection.weight".to_owned();
        }
    };
    let message = open(copy("llama2", rename, |_| {}).path()).unwrap_err().to_string();
    assert!(message.contains("`model.layers.1.mlp.up_proj.weight`"), "{message}");
    assert!(message.contains("[48, 32]") && message.contains("nearest"), "{message}");
}

#[test]
fn a_mismatched_weight_is_named_with_both_shapes() {
    let reshape = |name: &mut String, shape: &mut Vec<usize>| {
        if name == "model.layers.1.mlp.up_proj.weight" {
            *shape = vec![40, 32];
        }
    };
    let message = open(copy("llama2", reshape, |_| {}).path()).unwrap_err().to_string();
    assert!(message.contains("`model.layers.1.mlp.up_proj.weight`"), "{message}");
    assert!(message.contains("[48, 32]") && message.contains("[40, 32]"), "{message}");
}

#[test]
fn what_a_configuration_must_not_say_is_refused_by_name() {
    let refusal =
        |change: &dyn Fn(&mut Value)| open(copy("llama3", |_, _| {}, change).path()).unwrap_err().to_string();
    let set = |key: &'static str, value: Value| move |config: &mut Value| config[key] = value.clone();
    for (key, value, mention) in [
        ("model_type", json!("mamba"), "`mamba` is not supported; supported are gpt2, llama"),
        ("hidden_act", json!("swiglu9000"), "swiglu9000"),
        ("hidden_size", json!(-3), "`hidden_size` is -3"),
        ("hidden_size", json!(1u64 << 60), "`hidden_size`"),
        ("num_hidden_layers", json!(1_000_000), "number of layers"),
        ("num_attention_heads", json!(0), "`num_attention_heads` is 0"),
        ("num_attention_heads", json!(6), "a divisor of the width 32"),
        ("num_key_value_heads", json!(3), "a divisor of the 4 query heads"),
        ("eos_token_id", json!("end"), "`eos_token_id`"),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0}), "`yarn`"),
        ("rope_scaling", json!({"rope_type": "llama3"}), "`factor`"),
        ("rope_scaling", json!([1]), "`rope_scaling` is [1]"),
        ("tie_word_embeddings", json!("yes"), "`tie_word_embeddings`"),
        ("rms_norm_eps", json!(-1), "`rms_norm_eps` is -1"),
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}),
            "`high_freq_factor` is 4",
        ),
    ] {
        let message = refusal(&set(key, value));
        assert!(message.contains(mention), "{key}: {message}");
    }
}

#[test]
fn random_models_are_made_by_their_seed() {
    let config = json!({
        "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 16
    });
    let model = |seed| Model::random(config.clone(), seed, &ModelOptions::default()).unwrap();
    let name = "transformer.h.1.mlp.c_fc.weight";
    let weights = |model: &Model| model.parameter(name).unwrap().to_f32();
    let (one, again, other) = (model(1), model(1), model(2));
    assert_eq!(weights(&one), weights(&again));
    assert_ne!(weights(&one), weights(&other));
    let values = weights(&one);
    let count = values.len() as f32;
    let mean = values.iter().sum::<f32>() / count;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count).sqrt();
    assert!(mean.abs() < 1e-3 && (deviation - 0.02).abs() < 1e-3, "{mean} {deviation}");
    // Rows are the same read alone, which is how embeddings are.
    let whole = one.parameter("transformer.wte.weight").unwrap().to_f32();
    let mut row = vec![0.0; 32];
    one.weight(WeightId(0)).unwrap().table_row(7, &mut row);
    assert_eq!(row, whole[7 * 32..8 * 32]);
    let norm = one.parameter("transformer.ln_f.weight").unwrap().to_f32();
    assert!(norm.iter().all(|value| (value - 1.0).abs() < 0.1));
}
