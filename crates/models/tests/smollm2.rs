//! The real file: SmolLM2-135M-Instruct in Q4_1, as the environment variable `PELLUCID_SMOLLM2` names it. It is held to
//! what `golden/gguf_to_folder.py` wrote with `gguf` and `transformers`. Without the variable, these tests say that they
//! were skipped.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use pellucid_kernels::{Epilogue, matmul};
use pellucid_models::chat_template::Message;
use pellucid_models::stage::WeightId;
use pellucid_models::weights::Source;
use pellucid_models::weights::gguf::GgufModel;
use pellucid_models::{Model, ModelOptions, Precision};
use serde_json::{Value, json};

fn file() -> Option<PathBuf> {
    let path = std::env::var_os("PELLUCID_SMOLLM2").map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: PELLUCID_SMOLLM2 does not name the GGUF file of SmolLM2-135M-Instruct");
    }
    path
}

fn reference() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/gguf/smollm2-135m-instruct.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn checksum(values: &[f32]) -> u64 {
    values.iter().zip(0u64..).fold(0, |sum, (value, place)| {
        sum.wrapping_add(u64::from(value.to_bits()).wrapping_mul(2 * place + 1))
    })
}

#[test]
fn every_tensor_is_bit_for_bit_that_of_the_gguf_package() {
    let Some(path) = file() else { return };
    let checkpoint = GgufModel::open(path).unwrap().checkpoint().unwrap();
    let reference = reference();
    let tensors = reference["tensors"].as_object().unwrap();
    assert_eq!(checkpoint.names().count(), tensors.len());
    for (name, expected) in tensors {
        let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).unwrap();
        let tensor = checkpoint.expect(name, &shape).unwrap();
        assert_eq!(checksum(&tensor.to_f32()), expected["checksum"].as_u64().unwrap(), "{name}");
    }
}

#[test]
fn the_configuration_is_the_models() {
    let Some(path) = file() else { return };
    let model = GgufModel::open(path).unwrap();
    let expected = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "attention_bias": false,
        "mlp_bias": false,
        "vocab_size": 49152,
        "tie_word_embeddings": true,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    });
    assert_eq!(model.config().unwrap(), expected);
    assert_eq!(model.generation_config().unwrap()["eos_token_id"], json!([2]));
}

#[test]
fn the_tokenizer_gives_the_reference_ids() {
    let Some(path) = file() else { return };
    let tokenizer = GgufModel::open(path).unwrap().tokenizer().unwrap().unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos_id(), tokenizer.eos_id()), (49152, Some(1), Some(2)));
    for prompt in reference()["prompts"].as_array().unwrap() {
        let text = prompt["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(prompt["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids);
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        let greedy: Vec<u32> = serde_json::from_value(prompt["greedy"].clone()).unwrap();
        let mut stream = tokenizer.stream(&ids, true);
        let mut continued = String::new();
        for id in greedy {
            continued.extend(stream.push(id).unwrap());
        }
        continued.extend(stream.finish().unwrap());
        assert_eq!(continued, prompt["greedy_text"].as_str().unwrap());
    }
}

#[test]
fn conversations_are_written_by_the_files_own_template() {
    let Some(path) = file() else { return };
    let files = Source::resolve(path.to_str().unwrap()).unwrap();
    assert_eq!(files.origin, path.to_str().unwrap());
    let template = files.chat_template.unwrap();
    for chat in reference()["chats"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        let prompt = chat["add_generation_prompt"].as_bool().unwrap();
        assert_eq!(template.apply(&messages, prompt).unwrap(), chat["text"].as_str().unwrap());
    }
}

#[test]
fn its_blocks_take_a_quarter_of_the_memory_and_multiply_as_unpacked_numbers_do() {
    let Some(path) = file() else { return };
    let load = |precision| {
        let options = ModelOptions { precision, ..ModelOptions::default() };
        Model::open(path.to_str().unwrap(), &options).unwrap()
    };
    let [whole, half, quantised] = [Precision::F32, Precision::Bf16, Precision::Quantised].map(load);
    let bytes = [&whole, &half, &quantised].map(|model| model.weight_bytes());
    eprintln!(
        "bytes of weights in f32, bf16 and quantised: {bytes:?}; expected {}",
        quantised.expected_weight_bytes()
    );
    assert!(bytes[2] * 4 < bytes[0] && bytes[2] * 2 < bytes[1], "{bytes:?}");
    for index in 0..whole.stages().weights.len() {
        let id = WeightId(index as u32);
        let (Some(theirs), Some(ours)) = (whole.packed(id), quantised.packed(id)) else { continue };
        assert_eq!(ours.precision(), Precision::Quantised);
        for rows in [1, 7] {
            let x: Vec<f32> = (0..rows * theirs.k()).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
            let [ours, theirs] = [ours, theirs].map(|weights| {
                let mut out = vec![0.0; rows * weights.n()];
                matmul(&x, weights.k(), rows, weights, &Epilogue::default(), &mut out, weights.n());
                out
            });
            assert!(checksum(&ours) == checksum(&theirs), "{}", whole.stages().weights[index].name);
        }
    }
}

/// The folder is `golden/gguf_to_folder.py`'s, and named by `PELLUCID_SMOLLM2_FOLDER`.
#[test]
fn the_folder_of_the_same_weights_is_the_same_model() {
    let (Some(path), Some(folder)) = (file(), std::env::var_os("PELLUCID_SMOLLM2_FOLDER")) else {
        eprintln!("skipped: PELLUCID_SMOLLM2_FOLDER does not name the folder that gguf_to_folder.py makes");
        return;
    };
    let gguf = Source::resolve(path.to_str().unwrap()).unwrap();
    let folder = Source::resolve(folder.to_str().unwrap()).unwrap();
    assert_eq!(gguf.checkpoint.names().collect::<Vec<_>>(), folder.checkpoint.names().collect::<Vec<_>>());
    for name in gguf.checkpoint.names() {
        let theirs = folder.checkpoint.get(name).unwrap();
        assert!(gguf.checkpoint.expect(name, &theirs.shape).unwrap().to_f32() == theirs.to_f32(), "{name}");
    }
    let (ours, theirs) = (gguf.tokenizer.unwrap(), folder.tokenizer.unwrap());
    assert_eq!(ours.vocab_size(), theirs.vocab_size());
    for prompt in reference()["prompts"].as_array().unwrap() {
        let text = prompt["text"].as_str().unwrap();
        assert_eq!(ours.encode(text, true).unwrap(), theirs.encode(text, true).unwrap());
    }
    let (ours, theirs) = (gguf.chat_template.unwrap(), folder.chat_template.unwrap());
    let chat = [Message::user("What is the capital of France?")];
    assert_eq!(ours.apply(&chat, true).unwrap(), theirs.apply(&chat, true).unwrap());
}
