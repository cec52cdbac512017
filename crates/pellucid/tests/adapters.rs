//! Adapters, autoencoders and steering vectors: held to `peft` and to plain torch (`golden/make_adapters.py`), written out
//! and read again, and what is said of those that do not fit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a golden file that is not as it should be fails its test"
)]

use std::path::{Path, PathBuf};

use pellucid::{Ellipsis, Lora, Model, SparseAutoencoder, Steering, Tensor, s};
use safetensors::SafeTensors;
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn adapter(name: &str) -> String {
    root().join("golden/adapters").join(name).display().to_string()
}

/// What an independent implementation made of one adapter.
struct Expected {
    json: Value,
    bytes: Vec<u8>,
}

impl Expected {
    fn read(name: &str) -> Self {
        let folder = root().join("golden/adapters").join(name);
        let json = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
        Self { json, bytes: std::fs::read(folder.join("expected.safetensors")).unwrap() }
    }

    fn numbers(&self, key: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(key).unwrap();
        tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    /// Asserts |got − want| ≤ bound · max|want|.
    #[track_caller]
    fn holds(&self, key: &str, got: &Tensor, bound: f32) {
        let (want, got) = (self.numbers(key), got.to_vec_f32().unwrap());
        assert_eq!(got.len(), want.len(), "{key}");
        let size = want.iter().fold(0.0_f32, |size, x| size.max(x.abs()));
        for (index, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!((got - want).abs() <= bound * size, "{key} {index}: {got} for {want}");
        }
    }

    fn ids(&self) -> Vec<u32> {
        self.json["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    }
}

#[test]
fn lora_adapters_give_what_peft_gives() -> Outcome {
    for name in ["lora-gpt2", "lora-llama"] {
        let expected = Expected::read(name);
        let model = root().join(expected.json["model"].as_str().unwrap());
        let model = Model::open(&model.display().to_string())?;
        let trace = model.trace();
        let plain = trace.invoke_tokens([expected.ids()]);
        let adapted = trace.invoke_tokens([expected.ids()]);
        Lora::open(&adapter(name))?.values(&trace)?.attach(&adapted);
        plain.logits().index(s![0, -1]).save("plain");
        adapted.logits().index(s![0, -1]).save("adapted");
        let results = trace.run()?;
        expected.holds("plain_logits", &results["plain"], 1e-5);
        expected.holds("logits", &results["adapted"], 1e-5);
    }
    Ok(())
}

#[test]
fn an_adapter_is_written_as_it_was_read() -> Outcome {
    let folder = tempfile::tempdir()?;
    let lora = Lora::open(&adapter("lora-gpt2"))?;
    lora.save(folder.path())?;
    let logits = |lora: &Lora| -> Result<Vec<f32>, Box<dyn std::error::Error>> {
        let trace = Model::bundled()?.trace();
        let invoke = trace.invoke("The Eiffel Tower is in the city of");
        lora.values(&trace)?.attach(&invoke);
        invoke.logits().index(s![0, -1]).save("logits");
        Ok(trace.run()?["logits"].to_vec_f32()?)
    };
    assert_eq!(logits(&Lora::open(&folder.path().display().to_string())?)?, logits(&lora)?);
    Ok(())
}

#[test]
fn a_new_adapter_changes_nothing_and_what_a_program_makes_of_it_is_kept() -> Outcome {
    let model = Model::bundled()?;
    let lora = Lora::new(&model, 3, 6.0, &["attn.c_attn", "c_fc"], 7)?;
    assert_eq!(lora.modules().next(), Some("transformer.h.0.attn.c_attn"));
    assert_eq!(lora.modules().count(), 8);
    let trace = model.trace();
    let plain = trace.invoke("The capital of France is");
    let adapted = trace.invoke("The capital of France is");
    let mut values = lora.values(&trace)?;
    values.attach(&adapted);
    plain.logits().index(s![0, -1]).save("plain");
    adapted.logits().index(s![0, -1]).save("adapted");
    // As a step of training would: B moves.
    for pair in values.pairs_mut() {
        pair.b = &pair.b + 0.01;
    }
    values.save("trained");
    let moved = trace.invoke("The capital of France is");
    values.attach(&moved);
    moved.logits().index(s![0, -1]).save("moved");
    let results = trace.run()?;
    assert_eq!(results["plain"].to_vec_f32()?, results["adapted"].to_vec_f32()?);
    assert_ne!(results["plain"].to_vec_f32()?, results["moved"].to_vec_f32()?);

    let folder = tempfile::tempdir()?;
    lora.with_results(&results, "trained")?.save(folder.path())?;
    let again = model.trace();
    let invoke = again.invoke("The capital of France is");
    Lora::open(&folder.path().display().to_string())?.values(&again)?.attach(&invoke);
    invoke.logits().index(s![0, -1]).save("moved");
    assert_eq!(again.run()?["moved"].to_vec_f32()?, results["moved"].to_vec_f32()?);
    Ok(())
}

/// Opens the golden adapter with some fields of its configuration changed.
fn with_fields(fields: Value) -> Result<Lora, pellucid::Error> {
    let folder = tempfile::tempdir().unwrap();
    let source = root().join("golden/adapters/lora-gpt2");
    std::fs::copy(source.join("adapter_model.safetensors"), folder.path().join("adapter_model.safetensors"))
        .unwrap();
    let text = std::fs::read(source.join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    Lora::open(&folder.path().display().to_string())
}

#[test]
fn adapters_that_compute_something_else_are_refused_by_name() {
    for (fields, what) in [
        (json!({ "use_dora": true }), "DoRA (`use_dora`) is not supported"),
        (json!({ "modules_to_save": ["lm_head"] }), "whole modules saved beside the adapter"),
        (json!({ "bias": "all" }), "a trained bias (`bias`)"),
        (json!({ "init_lora_weights": "pissa_niter_4" }), "changes the base model"),
        (json!({ "peft_type": "IA3" }), "peft_type IA3 is not supported"),
        (json!({ "alpha_pattern": { "h\\.[0-3]": 4 } }), "the regular expression"),
        (json!({ "r": 0 }), "`r` is not a rank above 0"),
        (json!({ "rank_pattern": {} }), "they are not of one adapter"),
    ] {
        let message = with_fields(fields).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    }
    assert!(with_fields(json!({ "lora_dropout": 0.1 })).is_ok());
    let missing = Lora::open("./no/such/folder").unwrap_err().to_string();
    assert!(missing.contains("there is no such folder"), "{missing}");
    let other = Lora::open(&adapter("sae-topk")).unwrap_err().to_string();
    assert!(other.contains("has no `adapter_config.json`"), "{other}");
}

#[test]
fn an_adapter_of_another_model_is_refused() -> Outcome {
    let trace = Model::bundled()?.trace();
    let message = Lora::open(&adapter("lora-llama"))?.values(&trace).unwrap_err().to_string();
    assert!(message.contains("it has no linear layer `model.layers.0.mlp.down_proj`"), "{message}");
    let message = Lora::new(&Model::bundled()?, 2, 2.0, &["q_proj"], 0).unwrap_err().to_string();
    assert!(
        message.contains("no linear layer is called `q_proj`; there are c_attn, c_fc, c_proj"),
        "{message}"
    );
    Ok(())
}

#[test]
fn autoencoders_give_what_plain_torch_gives() -> Outcome {
    let model = Model::bundled()?;
    for name in ["sae-jumprelu", "sae-topk"] {
        let expected = Expected::read(name);
        let prompt = expected.json["prompt"].as_str().unwrap();
        let autoencoder = SparseAutoencoder::open(&adapter(name))?;
        let hook = format!("layers.{}.output", expected.json["layer"]);
        assert_eq!(autoencoder.hook_point(&model)?, hook);
        let trace = model.trace();
        let values = autoencoder.values(&trace)?;
        let read = trace.invoke(prompt);
        let found = values.read(&read);
        found.features.index(s![0]).save("features");
        (read.get(&hook) - &found.error).index(s![0]).save("reconstruction");
        let replaced = trace.invoke(prompt);
        values.splice(&replaced, |splice| splice.error = &splice.error * 0.0);
        let doubled = trace.invoke(prompt);
        values.splice(&doubled, |splice| splice.features = &splice.features * 2.0);
        let identity = trace.invoke(prompt);
        values.splice(&identity, |_| ());
        for (name, invoke) in [("replaced", &replaced), ("doubled", &doubled), ("identity", &identity)] {
            invoke.logits().index(s![0, -1]).save(&format!("{name}_logits"));
        }
        let results = trace.run()?;
        expected.holds("features", &results["features"], 1e-5);
        expected.holds("reconstruction", &results["reconstruction"], 1e-5);
        for key in ["replaced_logits", "doubled_logits", "identity_logits"] {
            expected.holds(key, &results[key], 2e-5);
        }
    }
    Ok(())
}

/// Opens a golden autoencoder with some fields of its configuration changed.
fn autoencoder_with(fields: Value) -> Result<SparseAutoencoder, pellucid::Error> {
    let folder = tempfile::tempdir().unwrap();
    let source = root().join("golden/adapters/sae-topk");
    std::fs::copy(source.join("sae_weights.safetensors"), folder.path().join("sae_weights.safetensors"))
        .unwrap();
    let text = std::fs::read(source.join("cfg.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    std::fs::write(folder.path().join("cfg.json"), config.to_string()).unwrap();
    SparseAutoencoder::open(&folder.path().display().to_string())
}

#[test]
fn autoencoders_of_another_kind_are_refused() {
    for (fields, what) in [
        (json!({ "architecture": "gated" }), "the architecture gated is not supported"),
        (json!({ "activation_fn_kwargs": { "k": 0 } }), "`k` of its top-k is not a number from 1 to 96"),
        (json!({ "normalize_activations": "other" }), "`normalize_activations` \"other\" is not supported"),
        (json!({ "hook_head_index": 3 }), "an autoencoder of one head"),
        (json!({ "d_in": 64 }), "tensor `W_enc`"),
        (json!({ "architecture": "jumprelu" }), "no tensor `threshold`"),
    ] {
        let message = autoencoder_with(fields).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    }
    let middle = autoencoder_with(json!({ "hook_name": "blocks.1.hook_resid_mid" })).unwrap();
    let message = middle.hook_point(&Model::bundled().unwrap()).unwrap_err().to_string();
    assert!(message.contains("it is of `blocks.1.hook_resid_mid`"), "{message}");
}

#[test]
fn an_autoencoder_of_all_heads_sees_them_as_one_dimension() -> Outcome {
    let model = Model::bundled()?;
    let trace = model.trace();
    let autoencoder = autoencoder_with(json!({ "hook_name": "blocks.1.attn.hook_z" }))?;
    let hook = autoencoder.hook_point(&model)?;
    assert_eq!(hook, "layers.1.attention.mixed");
    let (plain, spliced) =
        (trace.invoke("The capital of France is"), trace.invoke("The capital of France is"));
    let splice = autoencoder.values(&trace)?.splice(&spliced, |_| ());
    splice.features.save("features");
    spliced.get(&hook).save("spliced");
    plain.get(&hook).save("plain");
    let results = trace.run()?;
    assert_eq!(results["features"].shape()[2], autoencoder.features());
    assert_eq!(results["spliced"].shape(), results["plain"].shape());
    let pairs = results["spliced"].to_vec_f32()?.into_iter().zip(results["plain"].to_vec_f32()?);
    assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4));
    Ok(())
}

#[test]
fn steering_adds_where_it_says_and_is_the_same_when_read_again() -> Outcome {
    let model = Model::bundled()?;
    let vector: Vec<f32> = (0..model.hidden()).map(|i| (i as f32 * 0.7).sin()).collect();
    let vector = Tensor::from_f32(vector, &[model.hidden()])?;
    let (hook, prompt) = ("layers.1.output", "The movie was awful. I");
    let difference = |steering: &Steering| -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error>> {
        let trace = model.trace();
        trace.generate(3);
        let (plain, steered) = (trace.invoke(prompt), trace.invoke(prompt));
        steering.apply(&trace, &steered);
        (steered.get(hook) - plain.get(hook)).index(s![0]).save("prompt");
        let change = steered.at_step(1).get(hook).index(s![0, 0, Ellipsis]);
        change.save("first");
        steered.generated().save("tokens");
        let results = trace.run()?;
        let prompt = results["prompt"].to_vec_f32()?;
        Ok(prompt.chunks(model.hidden()).map(<[f32]>::to_vec).collect())
    };
    let all = Steering::new(hook, &vector)?.scale(2.0);
    let some = all.clone().positions(-2..);
    let none = all.clone().generated_only();
    let expected: Vec<f32> = vector.to_vec_f32()?.iter().map(|x| 2.0 * x).collect();
    let is_added = |row: &Vec<f32>| row.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4);
    let is_zero = |row: &Vec<f32>| row.iter().all(|x| *x == 0.0);
    assert!(difference(&all)?.iter().all(is_added));
    let rows = difference(&some)?;
    let (before, last) = rows.split_at(rows.len() - 2);
    assert!(before.iter().all(is_zero) && last.iter().all(is_added));
    assert!(difference(&none)?.iter().all(is_zero));

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steering.safetensors");
    some.save(&path)?;
    let again = Steering::open(&path)?;
    assert_eq!(difference(&again)?, rows);
    assert_eq!(again.hook_point(), hook);
    assert!(again.vector().is_same_bits(&vector));
    std::fs::write(&path, b"no such thing")?;
    let message = Steering::open(&path).unwrap_err().to_string();
    assert!(message.contains("is not a steering vector"), "{message}");
    let message = Steering::new(hook, &Tensor::from_f32(vec![0.0; 4], &[2, 2])?).unwrap_err().to_string();
    assert!(message.contains("has shape [2, 2]"), "{message}");
    Ok(())
}

#[test]
fn steering_at_each_generated_token_changes_what_is_generated() -> Outcome {
    let model = Model::bundled()?;
    let vector = Tensor::from_f32(vec![1.0; model.hidden()], &[model.hidden()])?;
    let trace = model.trace();
    trace.generate(4);
    let (plain, steered) = (trace.invoke("The capital of France"), trace.invoke("The capital of France"));
    Steering::new("layers.2.mlp.output", &vector)?.scale(30.0).generated_only().apply(&trace, &steered);
    let moved = steered.at_step(1).get("layers.2.mlp.output") - plain.at_step(1).get("layers.2.mlp.output");
    moved.index(s![0, 0]).save("moved");
    let moved = trace.run()?["moved"].to_vec_f32()?;
    assert!(moved.iter().all(|x| (x - 30.0).abs() < 1e-3), "{:?}", &moved[..4]);
    Ok(())
}
