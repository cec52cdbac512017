//! What llama.cpp calls the tensors of each architecture, what Hugging Face calls them, and what was changed in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::checkpoint::Entry;
use super::super::tensor::{RawTensor, Restoration};
use super::reader::{GgufFile, Stored, TensorInfo};
use crate::{Error, Result};

/// What a converter did to a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Same,
    /// Rows of each query head interleaved, weight and bias.
    QueryRotation,
    /// Rows of each key head interleaved, weight and bias.
    KeyRotation,
    /// Query, key and value rows sorted from by head to by kind, weight and bias.
    Fused,
    /// One added.
    PlusOne,
    /// The weight transposed, the bias left.
    Transposed,
}

use Change::{Fused, KeyRotation, PlusOne, QueryRotation, Same, Transposed};

/// An architecture's tensors: pairs of names without `.weight` and `.bias`, and the change.
#[derive(Debug)]
pub(super) struct Layout {
    /// Hugging Face's name of the list of blocks.
    blocks: &'static str,
    /// Tensors outside blocks.
    outside: &'static [(&'static str, &'static str, Change)],
    /// Tensors of a block, after `blk.N.` here and `blocks.N.` there.
    inside: &'static [(&'static str, &'static str, Change)],
}

const LLAMA_OUTSIDE: &[(&str, &str, Change)] = &[
    ("token_embd", "model.embed_tokens", Same),
    ("output_norm", "model.norm", Same),
    ("output", "lm_head", Same),
];

const LLAMA: Layout = Layout {
    blocks: "model.layers",
    outside: LLAMA_OUTSIDE,
    inside: &[
        ("attn_norm", "input_layernorm", Same),
        ("attn_q", "self_attn.q_proj", QueryRotation),
        ("attn_k", "self_attn.k_proj", KeyRotation),
        ("attn_v", "self_attn.v_proj", Same),
        ("attn_output", "self_attn.o_proj", Same),
        ("ffn_norm", "post_attention_layernorm", Same),
        ("ffn_gate", "mlp.gate_proj", Same),
        ("ffn_up", "mlp.up_proj", Same),
        ("ffn_down", "mlp.down_proj", Same),
    ],
};

const QWEN: Layout = Layout {
    blocks: "model.layers",
    outside: LLAMA_OUTSIDE,
    inside: &[
        ("attn_norm", "input_layernorm", Same),
        ("attn_q", "self_attn.q_proj", Same),
        ("attn_q_norm", "self_attn.q_norm", Same),
        ("attn_k", "self_attn.k_proj", Same),
        ("attn_k_norm", "self_attn.k_norm", Same),
        ("attn_v", "self_attn.v_proj", Same),
        ("attn_output", "self_attn.o_proj", Same),
        ("ffn_norm", "post_attention_layernorm", Same),
        ("ffn_gate", "mlp.gate_proj", Same),
        ("ffn_up", "mlp.up_proj", Same),
        ("ffn_down", "mlp.down_proj", Same),
    ],
};

const GEMMA: Layout = Layout {
    blocks: "model.layers",
    outside: &[
        ("token_embd", "model.embed_tokens", Same),
        ("output_norm", "model.norm", PlusOne),
        ("output", "lm_head", Same),
    ],
    inside: &[
        ("attn_norm", "input_layernorm", PlusOne),
        ("attn_q", "self_attn.q_proj", Same),
        ("attn_q_norm", "self_attn.q_norm", PlusOne),
        ("attn_k", "self_attn.k_proj", Same),
        ("attn_k_norm", "self_attn.k_norm", PlusOne),
        ("attn_v", "self_attn.v_proj", Same),
        ("attn_output", "self_attn.o_proj", Same),
        ("post_attention_norm", "post_attention_layernorm", PlusOne),
        ("ffn_norm", "pre_feedforward_layernorm", PlusOne),
        ("ffn_gate", "mlp.gate_proj", Same),
        ("ffn_up", "mlp.up_proj", Same),
        ("ffn_down", "mlp.down_proj", Same),
        ("post_ffw_norm", "post_feedforward_layernorm", PlusOne),
    ],
};

const GPT2: Layout = Layout {
    blocks: "transformer.h",
    outside: &[
        ("token_embd", "transformer.wte", Same),
        ("position_embd", "transformer.wpe", Same),
        ("output_norm", "transformer.ln_f", Same),
        ("output", "lm_head", Same),
    ],
    inside: &[
        ("attn_norm", "ln_1", Same),
        ("attn_qkv", "attn.c_attn", Transposed),
        ("attn_output", "attn.c_proj", Transposed),
        ("ffn_norm", "ln_2", Same),
        ("ffn_up", "mlp.c_fc", Transposed),
        ("ffn_down", "mlp.c_proj", Transposed),
    ],
};

const GPT_NEOX: Layout = Layout {
    blocks: "gpt_neox.layers",
    outside: &[
        ("token_embd", "gpt_neox.embed_in", Same),
        ("output_norm", "gpt_neox.final_layer_norm", Same),
        ("output", "embed_out", Same),
    ],
    inside: &[
        ("attn_norm", "input_layernorm", Same),
        ("attn_qkv", "attention.query_key_value", Fused),
        ("attn_output", "attention.dense", Same),
        ("ffn_norm", "post_attention_layernorm", Same),
        ("ffn_up", "mlp.dense_h_to_4h", Same),
        ("ffn_down", "mlp.dense_4h_to_h", Same),
    ],
};

/// Tensors that say again what the configuration says.
const DERIVED: &[&str] = &["rope_freqs.weight", "attn_rot_embd.weight"];

/// The architectures that are known, as `general.architecture` names them.
pub(super) const ARCHITECTURES: &[(&str, &Layout)] = &[
    ("llama", &LLAMA),
    ("qwen2", &QWEN),
    ("qwen3", &QWEN),
    ("gemma2", &GEMMA),
    ("gemma3", &GEMMA),
    ("gpt2", &GPT2),
    ("gptneox", &GPT_NEOX),
];

/// Heads of queries and of keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) query: usize,
    pub(super) key: usize,
}

impl Layout {
    pub(super) fn of(architecture: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|(name, _)| *name == architecture).map(|(_, layout)| *layout)
    }

    /// Hugging Face's name of a tensor, and its change; `None` where it is not known.
    fn rename(&self, name: &str) -> Option<(String, Change)> {
        let (stem, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
        let find = |table: &'static [(&str, &'static str, Change)], stem: &str| {
            table.iter().find(|(gguf, ..)| *gguf == stem).map(|(_, name, change)| (*name, *change))
        };
        let (name, change) = match stem.strip_prefix("blk.") {
            Some(rest) => {
                let (number, stem) = rest.split_once('.')?;
                let number: usize = number.parse().ok()?;
                let (name, change) = find(self.inside, stem)?;
                (format!("{}.{number}.{name}", self.blocks), change)
            }
            None => {
                let (name, change) = find(self.outside, stem)?;
                (name.to_owned(), change)
            }
        };
        let change = if change == Transposed && kind == "bias" { Same } else { change };
        Some((format!("{name}.{kind}"), change))
    }

    /// The tensors of `file` under Hugging Face's names.
    pub(super) fn entries(
        &self,
        file: &GgufFile,
        heads: Heads,
        leave_out: &[&str],
    ) -> Result<BTreeMap<String, Entry>> {
        let mut entries = BTreeMap::new();
        for (stored_name, info) in &file.tensors {
            let derived = DERIVED.iter().any(|derived| stored_name.ends_with(derived));
            if derived || leave_out.contains(&stored_name.as_str()) {
                continue;
            }
            let Some((name, change)) = self.rename(stored_name) else {
                return Err(Error::Unsupported {
                    origin: file.file.path.display().to_string(),
                    what: format!("tensor `{stored_name}`"),
                    hint: "it is not known of this architecture, so the model would compute something else \
                           without it"
                        .to_owned(),
                });
            };
            entries.insert(name.clone(), entry(file, stored_name, name, info, change, heads)?);
        }
        Ok(entries)
    }
}

fn entry(
    file: &GgufFile,
    stored_name: &str,
    name: String,
    info: &TensorInfo,
    change: Change,
    heads: Heads,
) -> Result<Entry> {
    let dtype = match &info.stored {
        Stored::Known(dtype) => *dtype,
        Stored::Unknown(stored) => {
            return Ok(Entry::Unsupported { stored: stored.clone(), shape: info.shape.clone() });
        }
    };
    let rows = info.shape.first().copied().unwrap_or(1);
    let mut shape = info.shape.clone();
    let (restoration, divisor) = match change {
        Same => (Restoration::None, 1),
        PlusOne => (Restoration::SubtractOne, 1),
        QueryRotation => (Restoration::RotaryHalves { heads: heads.query }, heads.query.saturating_mul(2)),
        KeyRotation => (Restoration::RotaryHalves { heads: heads.key }, heads.key.saturating_mul(2)),
        Fused => (Restoration::FusedByHead { heads: heads.query }, heads.query.saturating_mul(3)),
        Transposed => {
            shape.reverse();
            (Restoration::Transpose, 1)
        }
    };
    if divisor == 0 || !rows.is_multiple_of(divisor) || (change == Transposed && shape.len() != 2) {
        let reason = format!(
            "tensor `{stored_name}` {:?} does not fit {} query heads and {} key heads",
            info.shape, heads.query, heads.key
        );
        return Err(Error::malformed(&file.file.path, "GGUF", reason));
    }
    let range = info.range.clone();
    Ok(Entry::Tensor(RawTensor { name, dtype, shape, file: Arc::clone(&file.file), range, restoration }))
}
