//! GGUF files: that they give back the model they were made from, and that no bytes do harm.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use pellucid_models::Error;
use pellucid_models::weights::gguf::GgufModel;
use pellucid_models::weights::{Checkpoint, Restoration, TensorType};
use serde_json::{Value, json};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(name)
}

/// The tiny models, as `golden/make_gguf.py` pairs them.
const MODELS: &[(&str, &str)] = &[
    ("llama", "llama3"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3"),
    ("gpt2", "gpt2"),
    ("gptneox", "gpt-neox"),
];

fn config_of(folder: &str) -> Value {
    let text = std::fs::read_to_string(golden("models").join(folder).join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn tensors_are_those_of_the_folder_they_were_made_from() {
    for (architecture, folder) in MODELS {
        let gguf = Checkpoint::open_gguf(golden(&format!("gguf/{architecture}.gguf"))).unwrap();
        let folder = Checkpoint::open_folder(golden("models").join(folder)).unwrap();
        let buffer = |name: &&str| !name.ends_with(".attention.bias") && !name.contains("masked_bias");
        let names: Vec<&str> = folder.names().filter(buffer).filter(|n| !n.ends_with("inv_freq")).collect();
        assert_eq!(gguf.names().collect::<Vec<_>>(), names, "{architecture}");
        for name in names {
            let theirs = folder.get(name).unwrap();
            let ours = gguf.expect(name, &theirs.shape).unwrap();
            let bound = match (ours.dtype, ours.restoration()) {
                // Of the largest of 32, in 127 steps, and rounded to one.
                (TensorType::Q8_0, _) => 2e-2,
                // Adding one and taking it away rounds.
                (_, Restoration::SubtractOne) => 1e-6,
                _ => 0.0,
            };
            let (ours_values, theirs_values) = (ours.to_f32(), theirs.to_f32());
            for (ours, theirs) in ours_values.iter().zip(&theirs_values) {
                assert!((ours - theirs).abs() <= bound, "{architecture} {name}: {ours} for {theirs}");
            }
            let rows = theirs.shape[0];
            let columns = theirs_values.len() / rows;
            let middle = rows / 3..rows / 3 + 2;
            let part = &ours_values[middle.start * columns..middle.end * columns];
            assert_eq!(ours.rows_to_f32(middle), part, "{architecture} {name}");
        }
    }
}

#[test]
fn the_configuration_is_that_of_the_folder() {
    // What the format cannot say, or says otherwise.
    let not_said = [
        "torch_dtype",
        "transformers_version",
        "architectures",
        "attn_pdrop",
        "embd_pdrop",
        "resid_pdrop",
        "use_sliding_window",
        "max_window_layers",
        "pad_token_id",
    ];
    for (architecture, folder) in MODELS {
        let ours = GgufModel::open(golden(&format!("gguf/{architecture}.gguf"))).unwrap().config().unwrap();
        let mut theirs = config_of(folder);
        if *architecture == "llama" {
            theirs["rope_scaling"]["original_max_position_embeddings"] = json!(8192);
            theirs["rope_theta"] = json!(500_000.0);
        }
        assert_eq!(ours["architectures"], theirs["architectures"]);
        for (key, value) in theirs.as_object().unwrap() {
            if not_said.contains(&key.as_str()) || (*architecture == "qwen2" && key == "sliding_window") {
                continue;
            }
            let same = match (ours[key].as_f64(), value.as_f64()) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ if key == "rope_scaling" => {
                    let number = |scaling: &Value, key: &str| scaling[key].as_f64();
                    ours[key]["rope_type"] == value["rope_type"]
                        && value
                            .as_object()
                            .unwrap()
                            .keys()
                            .all(|k| number(&ours[key], k) == number(value, k))
                }
                _ => ours[key] == *value,
            };
            assert!(same, "{architecture} {key}: {} for {value}", ours[key]);
        }
    }
}

#[test]
fn a_second_copy_of_the_embedding_is_left_out() {
    let path = golden("gguf/gpt2.gguf");
    assert!(!Checkpoint::open_gguf(&path).unwrap().contains("lm_head.weight"));
    assert_eq!(GgufModel::open(&path).unwrap().config().unwrap()["tie_word_embeddings"], json!(true));
    let untied = GgufModel::open(golden("gguf/qwen3.gguf")).unwrap();
    assert_eq!(untied.config().unwrap()["tie_word_embeddings"], json!(false));
    assert!(untied.checkpoint().unwrap().contains("lm_head.weight"));
}

#[test]
fn tokenizers_give_the_reference_ids() {
    for kind in ["llama", "gpt-2", "smollm", "llama-bpe", "qwen2"] {
        let model = GgufModel::open(golden(&format!("gguf/tokenizer-{kind}.gguf"))).unwrap();
        let tokenizer = model.tokenizer().unwrap().unwrap();
        let text = std::fs::read_to_string(golden(&format!("gguf/tokenizer-{kind}.json"))).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert!(cases.len() > 5);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{kind}: {text:?}");
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), case["decoded"], "{kind}: {text:?}");
        }
        let template = model.chat_template();
        assert_eq!(template.is_some(), kind != "llama");
    }
}

/// The parts of a small file that is in order, so that one can be put out of order.
struct Header {
    version: u32,
    tensors: u64,
    entries: u64,
    rest: Vec<u8>,
}

impl Header {
    fn new() -> Self {
        Self { version: 3, tensors: 0, entries: 0, rest: Vec::new() }
    }

    fn text(&mut self, text: &str) {
        self.rest.extend((text.len() as u64).to_le_bytes());
        self.rest.extend(text.as_bytes());
    }

    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries += 1;
        self.text(key);
        self.rest.extend(kind.to_le_bytes());
        self.rest.extend(value);
        self
    }

    fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors += 1;
        self.text(name);
        self.rest.extend((dimensions.len() as u32).to_le_bytes());
        dimensions.iter().for_each(|size| self.rest.extend(size.to_le_bytes()));
        self.rest.extend(kind.to_le_bytes());
        self.rest.extend(offset.to_le_bytes());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensors.to_le_bytes());
        bytes.extend(self.entries.to_le_bytes());
        bytes.extend(&self.rest);
        bytes
    }
}

fn open(bytes: &[u8]) -> Result<Checkpoint, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open_gguf(path)
}

/// The file with room for a little data.
fn padded(header: Header) -> Vec<u8> {
    [header.bytes(), vec![0; 64]].concat()
}

fn text_value(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn array(kind: u32, count: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat()
}

fn llama() -> Header {
    Header::new().entry("general.architecture", 8, &text_value("llama")).entry(
        "llama.attention.head_count",
        4,
        &2u32.to_le_bytes(),
    )
}

#[test]
fn hostile_headers_are_errors() {
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("does not begin", b"GGML\x03\0\0\0".to_vec()),
        ("ends within its header", b"GGUF".to_vec()),
        ("big-endian", [&b"GGUF"[..], &3u32.to_be_bytes(), &[0; 16]].concat()),
        ("version 1", Header { version: 1, ..Header::new() }.bytes()),
        ("version 9", Header { version: 9, ..Header::new() }.bytes()),
        ("tensors; at most", Header { tensors: u64::MAX, ..Header::new() }.bytes()),
        ("entries; at most", Header { entries: u64::MAX, ..Header::new() }.bytes()),
        ("ends within", Header { tensors: 5, ..llama() }.bytes()),
        ("ends within", Header::new().entry("a", 8, &u64::MAX.to_le_bytes()).bytes()),
        ("does not fit", Header::new().entry("a", 9, &array(4, u64::MAX)).bytes()),
        ("does not fit", Header::new().entry("a", 9, &array(8, 1 << 40)).bytes()),
        ("unknown type 77", Header::new().entry("a", 9, &array(77, 1)).bytes()),
        ("unknown type 77", Header::new().entry("a", 77, &[]).bytes()),
        ("nested deeper", Header::new().entry("a", 9, &array(9, 1).repeat(100_000)).bytes()),
        ("there twice", Header::new().entry("a", 7, &[1]).entry("a", 7, &[1]).bytes()),
        ("architecture ``", Header::new().bytes()),
        ("architecture `bert`", Header::new().entry("general.architecture", 8, &text_value("bert")).bytes()),
        ("general.alignment", llama().entry("general.alignment", 4, &0u32.to_le_bytes()).bytes()),
        ("general.alignment", llama().entry("general.alignment", 4, &33u32.to_le_bytes()).bytes()),
        ("5 dimensions", llama().tensor("a", &[1, 1, 1, 1, 1], 0, 0).bytes()),
        ("larger than any file", llama().tensor("a", &[u64::MAX, 2], 0, 0).bytes()),
        ("not aligned", llama().tensor("a", &[1], 0, 3).bytes()),
        ("not whole blocks", llama().tensor("a", &[33], 8, 0).bytes()),
        ("cut short: tensor `a` [4, 8]", llama().tensor("a", &[8, 4], 0, 0).bytes()),
        ("cut short", llama().tensor("a", &[8], 0, u64::MAX - 31).bytes()),
        ("there twice", padded(llama().tensor("a", &[0], 0, 0).tensor("a", &[0], 0, 0))),
        ("tensor `blk.0.strange.weight`", padded(llama().tensor("blk.0.strange.weight", &[0], 0, 0))),
        ("does not fit 2 query heads", padded(llama().tensor("blk.0.attn_q.weight", &[1, 3], 0, 0))),
    ];
    for (expected, bytes) in hostile {
        let message = open(&bytes).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn an_unknown_type_is_an_error_only_for_who_asks() {
    let file = llama().tensor("token_embd.weight", &[256, 4], 11, 0).tensor("output_norm.weight", &[2], 0, 0);
    let checkpoint = open(&padded(file)).unwrap();
    assert_eq!(checkpoint.get("model.norm.weight").unwrap().to_f32(), [0.0, 0.0]);
    let message = checkpoint.get("model.embed_tokens.weight").unwrap_err().to_string();
    assert!(message.contains("stored as Q3_K"), "{message}");
}

#[test]
fn a_file_cut_short_or_with_any_byte_changed_does_no_harm() {
    let whole = std::fs::read(golden("gguf/llama.gguf")).unwrap();
    let header = whole.len() - 100_000;
    for length in (0..header).step_by(61).chain([whole.len() - 1]) {
        assert!(open(&whole[..length]).is_err(), "{length}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for at in (0..header.min(4000)).step_by(17) {
        let mut changed = whole.clone();
        changed[at] ^= 0xff;
        std::fs::write(&path, changed).unwrap();
        let Ok(model) = GgufModel::open(&path) else { continue };
        let _ = (model.config(), model.tokenizer(), model.generation_config());
        let Ok(checkpoint) = model.checkpoint() else { continue };
        for name in checkpoint.names() {
            if let Ok(tensor) = checkpoint.get(name) {
                assert_eq!(tensor.to_f32().len(), tensor.element_count());
            }
        }
    }
}
