//! A model of GPT-2 small's shape with random weights, as a folder.

use std::io::{BufWriter, Write};

use serde_json::{Map, json};

use crate::shell::{Outcome, root};

const LAYERS: usize = 12;
const HIDDEN: usize = 768;
const VOCABULARY: usize = 50_257;
const POSITIONS: usize = 1_024;

/// The folder; made where it is not there.
pub(super) fn folder() -> Outcome<String> {
    let folder = root().join("target/gpt2-small-shape");
    let weights = folder.join("model.safetensors");
    if !weights.is_file() {
        std::fs::create_dir_all(&folder)?;
        let config = json!({
            "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": LAYERS, "n_embd": HIDDEN, "n_head": 12,
            "n_positions": POSITIONS, "vocab_size": VOCABULARY, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "bos_token_id": 50256, "eos_token_id": 50256, "tie_word_embeddings": true,
        });
        std::fs::write(folder.join("config.json"), config.to_string())?;
        let beside = folder.join("model.part");
        write(&mut BufWriter::new(std::fs::File::create(&beside)?))?;
        std::fs::rename(beside, weights)?;
    }
    Ok(folder.canonicalize()?.to_string_lossy().into_owned())
}

/// Names and shapes of the weights, and what they are about.
fn weights() -> Vec<(String, Vec<usize>, f32)> {
    let mut all = vec![
        ("wte.weight".to_owned(), vec![VOCABULARY, HIDDEN], 0.0),
        ("wpe.weight".to_owned(), vec![POSITIONS, HIDDEN], 0.0),
        ("ln_f.weight".to_owned(), vec![HIDDEN], 1.0),
        ("ln_f.bias".to_owned(), vec![HIDDEN], 0.0),
    ];
    for layer in 0..LAYERS {
        for (name, shape, mean) in [
            ("ln_1.weight", vec![HIDDEN], 1.0),
            ("ln_1.bias", vec![HIDDEN], 0.0),
            ("attn.c_attn.weight", vec![HIDDEN, 3 * HIDDEN], 0.0),
            ("attn.c_attn.bias", vec![3 * HIDDEN], 0.0),
            ("attn.c_proj.weight", vec![HIDDEN, HIDDEN], 0.0),
            ("attn.c_proj.bias", vec![HIDDEN], 0.0),
            ("ln_2.weight", vec![HIDDEN], 1.0),
            ("ln_2.bias", vec![HIDDEN], 0.0),
            ("mlp.c_fc.weight", vec![HIDDEN, 4 * HIDDEN], 0.0),
            ("mlp.c_fc.bias", vec![4 * HIDDEN], 0.0),
            ("mlp.c_proj.weight", vec![4 * HIDDEN, HIDDEN], 0.0),
            ("mlp.c_proj.bias", vec![HIDDEN], 0.0),
        ] {
            all.push((format!("h.{layer}.{name}"), shape, mean));
        }
    }
    all
}

fn write(file: &mut impl Write) -> Outcome {
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape, _) in weights() {
        let bytes = 4 * shape.iter().product::<usize>();
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [end, end + bytes] }));
        end += bytes;
    }
    let header = serde_json::Value::Object(header).to_string();
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for (_, shape, mean) in weights() {
        for _ in 0..shape.iter().product::<usize>() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Uniform, with a standard deviation of about 0.02.
            let uniform = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            file.write_all(&(mean + 0.07 * uniform).to_le_bytes())?;
        }
    }
    Ok(())
}
