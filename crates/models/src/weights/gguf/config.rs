//! The `config.json` that a GGUF file's metadata stands for.

use serde_json::{Map, Value, json};

use super::reader::{GgufFile, Stored};
use crate::weights::dequantize;
use crate::{Error, Result};

/// Llama 3.x's rotary scaling, of which a GGUF file keeps only the resulting factors: the parts that all its releases
/// share.
const LLAMA3_LOW_FREQUENCY_FACTOR: f64 = 1.0;
const LLAMA3_HIGH_FREQUENCY_FACTOR: f64 = 4.0;
const LLAMA3_ORIGINAL_CONTEXT: f64 = 8192.0;
/// The tensor of those factors, one for each pair of rotated dimensions.
const ROTARY_FACTORS: &str = "rope_freqs.weight";

/// The blocks of the two Gemma models of 27 billion parameters, whose queries are scaled by another rule than their
/// sisters', which the file does not say.
const GEMMA2_27B_BLOCKS: usize = 46;
const GEMMA3_27B_BLOCKS: usize = 62;
/// Gemma 3's period of layers with full attention, and the rotary base of the others.
const GEMMA3_PATTERN: usize = 6;
const GEMMA3_LOCAL_BASE: f64 = 10_000.0;
/// The base of rotary frequencies where a file names none.
const DEFAULT_ROTARY_BASE: f64 = 10_000.0;

/// The metadata of one architecture, whose keys begin with its name.
pub(super) struct Metadata<'f> {
    pub(super) file: &'f GgufFile,
    pub(super) architecture: &'f str,
}

impl Metadata<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn missing(&self, name: &str) -> Error {
        let reason = format!("its metadata has no `{}` that can be used", self.key(name));
        Error::malformed(&self.file.file.path, "GGUF", reason)
    }

    fn count(&self, name: &str) -> Result<usize> {
        self.file.count(&self.key(name)).ok_or_else(|| self.missing(name))
    }

    fn count_if_there(&self, name: &str) -> Option<usize> {
        self.file.count(&self.key(name))
    }

    fn number(&self, name: &str) -> Result<f64> {
        self.number_if_there(name).ok_or_else(|| self.missing(name))
    }

    fn number_if_there(&self, name: &str) -> Option<f64> {
        self.file.number(&self.key(name))
    }

    fn unsupported(&self, what: impl Into<String>, hint: &str) -> Error {
        Error::Unsupported {
            origin: self.file.file.path.display().to_string(),
            what: what.into(),
            hint: hint.to_owned(),
        }
    }

    fn has_tensor(&self, name: &str) -> bool {
        self.file.tensors.contains_key(name)
    }

    pub(super) fn query_heads(&self) -> Result<usize> {
        match self.count("attention.head_count")? {
            0 => Err(self.missing("attention.head_count")),
            heads => Ok(heads),
        }
    }

    pub(super) fn key_heads(&self) -> Result<usize> {
        let name = "attention.head_count_kv";
        if !self.file.has(&self.key(name)) {
            return self.query_heads();
        }
        self.count(name)
    }

    fn head_size(&self) -> Result<usize> {
        match self.count_if_there("attention.key_length") {
            Some(size) => Ok(size),
            None => Ok(self.count("embedding_length")? / self.query_heads()?),
        }
    }

    fn rotary_base(&self) -> f64 {
        self.number_if_there("rope.freq_base").unwrap_or(DEFAULT_ROTARY_BASE)
    }

    fn vocabulary(&self) -> Result<usize> {
        let embedding = self.file.tensors.get("token_embd.weight").and_then(|info| info.shape.first());
        embedding.copied().ok_or_else(|| {
            Error::malformed(&self.file.file.path, "GGUF", "it has no tensor `token_embd.weight`")
        })
    }
}

/// The configuration. `tied` says that the unembedding is the embedding.
pub(super) fn config(metadata: &Metadata<'_>, tied: bool) -> Result<Value> {
    let mut config = match metadata.architecture {
        "llama" => llama(metadata)?,
        "qwen2" | "qwen3" => qwen(metadata)?,
        "gemma2" | "gemma3" => gemma(metadata)?,
        "gpt2" => gpt2(metadata)?,
        "gptneox" => gpt_neox(metadata)?,
        other => return Err(metadata.unsupported(format!("architecture `{other}`"), "")),
    };
    config.insert("vocab_size".to_owned(), json!(metadata.vocabulary()?));
    config.insert("tie_word_embeddings".to_owned(), json!(tied));
    for (name, key) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding")] {
        if let Some(id) = metadata.file.count(&format!("tokenizer.ggml.{key}_token_id")) {
            config.insert(format!("{name}_token_id"), json!(id));
        }
    }
    Ok(Value::Object(config))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// What all families after Llama share.
fn llama_like(metadata: &Metadata<'_>, model_type: &str, class: &str) -> Result<Map<String, Value>> {
    if metadata.count_if_there("expert_count").unwrap_or(0) > 0 {
        return Err(metadata.unsupported("a mixture of experts", "only dense models can be read"));
    }
    let mut config = object(json!({
        "architectures": [class],
        "model_type": model_type,
        "hidden_size": metadata.count("embedding_length")?,
        "intermediate_size": metadata.count("feed_forward_length")?,
        "num_hidden_layers": metadata.count("block_count")?,
        "num_attention_heads": metadata.query_heads()?,
        "num_key_value_heads": metadata.key_heads()?,
        "head_dim": metadata.head_size()?,
        "hidden_act": "silu",
        "max_position_embeddings": metadata.count("context_length")?,
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon")?,
        "rope_theta": metadata.rotary_base(),
    }));
    if let Some(scaling) = rotary_scaling(metadata)? {
        config.insert("rope_scaling".to_owned(), scaling);
    }
    Ok(config)
}

fn llama(metadata: &Metadata<'_>) -> Result<Map<String, Value>> {
    let window = metadata.count_if_there("attention.sliding_window").filter(|window| *window > 0);
    let mut config = match window {
        Some(window) => {
            let mut config = llama_like(metadata, "mistral", "MistralForCausalLM")?;
            config.insert("sliding_window".to_owned(), json!(window));
            config
        }
        None => llama_like(metadata, "llama", "LlamaForCausalLM")?,
    };
    config.insert("attention_bias".to_owned(), json!(metadata.has_tensor("blk.0.attn_q.bias")));
    config.insert("mlp_bias".to_owned(), json!(metadata.has_tensor("blk.0.ffn_up.bias")));
    Ok(config)
}

fn qwen(metadata: &Metadata<'_>) -> Result<Map<String, Value>> {
    if metadata.architecture == "qwen2" {
        return llama_like(metadata, "qwen2", "Qwen2ForCausalLM");
    }
    let mut config = llama_like(metadata, "qwen3", "Qwen3ForCausalLM")?;
    config.insert("attention_bias".to_owned(), json!(metadata.has_tensor("blk.0.attn_q.bias")));
    Ok(config)
}

fn gemma(metadata: &Metadata<'_>) -> Result<Map<String, Value>> {
    let second = metadata.architecture == "gemma2";
    let mut config = if second {
        llama_like(metadata, "gemma2", "Gemma2ForCausalLM")?
    } else {
        llama_like(metadata, "gemma3_text", "Gemma3ForCausalLM")?
    };
    config.remove("hidden_act");
    let largest = if second { GEMMA2_27B_BLOCKS } else { GEMMA3_27B_BLOCKS };
    let query_scale = match metadata.number_if_there("attention.scale").filter(|scale| *scale > 0.0) {
        Some(scale) => json!((1.0 / (scale * scale)).round()),
        None if metadata.count("block_count")? == largest => {
            json!(metadata.count("embedding_length")? / metadata.query_heads()?)
        }
        None => json!(metadata.head_size()?),
    };
    let mut also = object(json!({
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": query_scale,
        "attn_logit_softcapping": metadata.number_if_there("attn_logit_softcapping"),
        "final_logit_softcapping": metadata.number_if_there("final_logit_softcapping"),
        "sliding_window": metadata.count_if_there("attention.sliding_window"),
    }));
    if !second {
        let pattern = metadata.count_if_there("attention.sliding_window_pattern").unwrap_or(GEMMA3_PATTERN);
        let local = metadata.number_if_there("rope.freq_base_swa").unwrap_or(GEMMA3_LOCAL_BASE);
        also.insert("sliding_window_pattern".to_owned(), json!(pattern));
        also.insert("rope_local_base_freq".to_owned(), json!(local));
    }
    config.append(&mut also);
    Ok(config)
}

fn gpt2(metadata: &Metadata<'_>) -> Result<Map<String, Value>> {
    Ok(object(json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": metadata.count("embedding_length")?,
        "n_layer": metadata.count("block_count")?,
        "n_head": metadata.query_heads()?,
        "n_inner": metadata.count("feed_forward_length")?,
        "n_positions": metadata.count("context_length")?,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": metadata.number("attention.layer_norm_epsilon")?,
    })))
}

fn gpt_neox(metadata: &Metadata<'_>) -> Result<Map<String, Value>> {
    let size = metadata.head_size()?;
    let rotated = metadata.count_if_there("rope.dimension_count").unwrap_or(size);
    Ok(object(json!({
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": metadata.count("embedding_length")?,
        "intermediate_size": metadata.count("feed_forward_length")?,
        "num_hidden_layers": metadata.count("block_count")?,
        "num_attention_heads": metadata.query_heads()?,
        "hidden_act": "gelu",
        "max_position_embeddings": metadata.count("context_length")?,
        "layer_norm_eps": metadata.number("attention.layer_norm_epsilon")?,
        "rotary_pct": rotated as f64 / size.max(1) as f64,
        "rotary_emb_base": metadata.rotary_base(),
        "use_parallel_residual": metadata.file.flag(&metadata.key("use_parallel_residual")).unwrap_or(true),
    })))
}

/// `rope_scaling`, where the file says that rotary frequencies are scaled.
fn rotary_scaling(metadata: &Metadata<'_>) -> Result<Option<Value>> {
    if let Some(info) = metadata.file.tensors.get(ROTARY_FACTORS) {
        let Stored::Known(dtype) = &info.stored else {
            return Err(metadata.unsupported(format!("the type of `{ROTARY_FACTORS}`"), "it should be F32"));
        };
        let mut factors = vec![0.0; info.shape.iter().product()];
        dequantize::to_f32(*dtype, &metadata.file.file.map[info.range.clone()], &mut factors);
        return llama3_scaling(metadata, &factors);
    }
    let kind = metadata.file.text(&metadata.key("rope.scaling.type"));
    let factor = metadata.number_if_there("rope.scaling.factor");
    Ok(match kind {
        None | Some("none") => None,
        Some(kind) => {
            let mut scaling = object(json!({ "rope_type": kind, "factor": factor.unwrap_or(1.0) }));
            if let Some(context) = metadata.count_if_there("rope.scaling.original_context_length") {
                scaling.insert("original_max_position_embeddings".to_owned(), json!(context));
            }
            Some(Value::Object(scaling))
        }
    })
}

/// Llama 3.x's scaling from the factors by which it divides each frequency: the largest is the scaling's own, and that
/// the rest follows is checked.
fn llama3_scaling(metadata: &Metadata<'_>, factors: &[f32]) -> Result<Option<Value>> {
    if factors.iter().all(|factor| *factor == 1.0) {
        return Ok(None);
    }
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let base = metadata.rotary_base();
    let (low, high) = (LLAMA3_LOW_FREQUENCY_FACTOR, LLAMA3_HIGH_FREQUENCY_FACTOR);
    let follows = factors.iter().enumerate().all(|(index, stored)| {
        let wavelength = std::f64::consts::TAU * base.powf(index as f64 / factors.len() as f64);
        let turns = LLAMA3_ORIGINAL_CONTEXT / wavelength;
        let expected = if turns > high {
            1.0
        } else if turns < low {
            factor
        } else {
            let smooth = (turns - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        };
        (f64::from(*stored) - expected).abs() <= 1e-3 * expected
    });
    if !follows {
        return Err(metadata.unsupported(
            format!("the scaling of rotary frequencies in `{ROTARY_FACTORS}`"),
            "it is not that of a Llama 3 model",
        ));
    }
    Ok(Some(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": LLAMA3_ORIGINAL_CONTEXT as u64,
    })))
}
