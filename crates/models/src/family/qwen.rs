//! Qwen 2 (biases on queries, keys and values) and Qwen 3 (norms of queries and keys by head).

use super::Family;
use super::llama::{Defaults, LLAMA, llama_tree, read_common, set_windows, sliding_layers};
use crate::config::{ConfigError, DecoderConfig, Reader};

pub(super) const QWEN2: Family = Family {
    model_type: "qwen2",
    tree: llama_tree!(
        "Qwen2",
        model: "Qwen2Model",
        embed: "Embedding",
        attention: [],
        block: [("post_attention_layernorm", Norm2)]
    ),
    read: read_qwen2,
    ..LLAMA
};

pub(super) const QWEN3: Family = Family {
    model_type: "qwen3",
    tree: llama_tree!(
        "Qwen3",
        model: "Qwen3Model",
        embed: "Embedding",
        attention: [("q_norm", QueryNorm), ("k_norm", KeyNorm)],
        block: [("post_attention_layernorm", Norm2)]
    ),
    read: read_qwen3,
    ..LLAMA
};

const DEFAULTS: Defaults = Defaults {
    vocabulary: 151_936,
    hidden: 4096,
    inner: 22016,
    layers: 32,
    heads: 32,
    key_value_heads: Some(32),
    head_size: None,
    positions: 32768,
    activation: "silu",
    tied: false,
};

fn read_qwen2(config: &Reader<'_>) -> Result<DecoderConfig, ConfigError> {
    let mut decoder = read_common(config, &DEFAULTS)?;
    decoder.biases.query_key_value = true;
    windows(config, &mut decoder)?;
    Ok(decoder)
}

fn read_qwen3(config: &Reader<'_>) -> Result<DecoderConfig, ConfigError> {
    let mut decoder = read_common(config, &Defaults { head_size: Some(128), ..DEFAULTS })?;
    let bias = config.flag_or("attention_bias", false)?;
    decoder.biases.query_key_value = bias;
    decoder.biases.attention_output = bias;
    windows(config, &mut decoder)?;
    Ok(decoder)
}

/// Windows are of no effect unless `use_sliding_window` says so, whatever else is written.
fn windows(config: &Reader<'_>, decoder: &mut DecoderConfig) -> Result<(), ConfigError> {
    let window = match config.flag_or("use_sliding_window", false)? {
        true => config.nullable_size("sliding_window", Some(4096))?,
        false => None,
    };
    let first = config.whole_or("max_window_layers", 28)?;
    let sliding = sliding_layers(config, decoder.layers, |layer| layer >= first)?;
    set_windows(&mut decoder.attention, &sliding, window);
    Ok(())
}
