//! Gemma 2 (soft caps, windows in every other layer) and Gemma 3's text model (norms of queries and keys by head, two
//! rotary tables): four norms to a block, weights that count from 1, a scaled embedding.

use super::Family;
use super::llama::{Defaults, LLAMA, llama_tree, read_common, set_windows, sliding_layers};
use crate::config::{ConfigError, DecoderConfig, Reader};
use crate::rotary::RotaryTable;
use crate::stage::HookLayout;

pub(super) const GEMMA2: Family = Family {
    model_type: "gemma2",
    tree: llama_tree!(
        "Gemma2",
        model: "Gemma2Model",
        embed: "Gemma2TextScaledWordEmbedding",
        attention: [],
        block: [
            ("post_attention_layernorm", PostAttentionNorm),
            ("pre_feedforward_layernorm", Norm2),
            ("post_feedforward_layernorm", PostMlpNorm)
        ]
    ),
    read: read_gemma2,
    ..LLAMA
};

pub(super) const GEMMA3: Family = Family {
    model_type: "gemma3_text",
    tree: llama_tree!(
        "Gemma3",
        model: "Gemma3TextModel",
        embed: "Gemma3TextScaledWordEmbedding",
        attention: [("q_norm", QueryNorm), ("k_norm", KeyNorm)],
        block: [
            ("post_attention_layernorm", PostAttentionNorm),
            ("pre_feedforward_layernorm", Norm2),
            ("post_feedforward_layernorm", PostMlpNorm)
        ]
    ),
    // transformers turns the heads before the positions first, and norms then.
    head_norm_layout: HookLayout::HeadsFirst,
    read: read_gemma3,
    ..LLAMA
};

const DEFAULTS: Defaults = Defaults {
    vocabulary: 256_000,
    hidden: 2304,
    inner: 9216,
    layers: 26,
    heads: 8,
    key_value_heads: Some(4),
    head_size: Some(256),
    positions: 8192,
    activation: "gelu_pytorch_tanh",
    tied: true,
};

fn read_both(config: &Reader<'_>, defaults: &Defaults) -> Result<DecoderConfig, ConfigError> {
    config.refuse_true("use_bidirectional_attention")?;
    let mut decoder = read_common(config, defaults)?;
    decoder.norm.weight_offset = 1.0;
    decoder.embedding_scale = (decoder.hidden as f64).sqrt() as f32;
    let bias = config.flag_or("attention_bias", false)?;
    decoder.biases.query_key_value = bias;
    decoder.biases.attention_output = bias;
    let scale = f64::from(config.nullable_positive("query_pre_attn_scalar", Some(256.0))?.unwrap_or(256.0))
        .powf(-0.5);
    decoder.attention.iter_mut().for_each(|layer| layer.scale = scale as f32);
    Ok(decoder)
}

fn read_gemma2(config: &Reader<'_>) -> Result<DecoderConfig, ConfigError> {
    let mut decoder = read_both(config, &DEFAULTS)?;
    decoder.score_cap = config.nullable_positive("attn_logit_softcapping", Some(50.0))?;
    decoder.logit_cap = config.nullable_positive("final_logit_softcapping", Some(30.0))?;
    let sliding = sliding_layers(config, decoder.layers, |layer| layer % 2 == 0)?;
    let window = config.nullable_size("sliding_window", Some(4096))?;
    set_windows(&mut decoder.attention, &sliding, window);
    Ok(decoder)
}

fn read_gemma3(config: &Reader<'_>) -> Result<DecoderConfig, ConfigError> {
    let defaults = Defaults { vocabulary: 262_208, positions: 131_072, ..DEFAULTS };
    let mut decoder = read_both(config, &defaults)?;
    // transformers reads the cap of scores and does not apply it; no published model has one.
    if let Some(cap) = config.nullable_positive("attn_logit_softcapping", None)? {
        return Err(ConfigError::Unsupported {
            key: "attn_logit_softcapping".into(),
            found: cap.to_string(),
            hint: "Gemma 3 has no soft cap of attention scores".into(),
        });
    }
    decoder.logit_cap = config.nullable_positive("final_logit_softcapping", None)?;
    let pattern = config.size_or("sliding_window_pattern", 6)?;
    let sliding = sliding_layers(config, decoder.layers, |layer| !(layer + 1).is_multiple_of(pattern))?;
    let window = config.nullable_size("sliding_window", Some(4096))?;
    set_windows(&mut decoder.attention, &sliding, window);

    let positions = config.size_or("max_position_embeddings", defaults.positions)?;
    let table = |parameters, theta| RotaryTable::read(parameters, theta, 1.0, decoder.head_size, positions);
    let both = config.object("rope_parameters")?;
    let of = |kind: &str| both.map_or(Ok(None), |both| both.object(kind));
    let full = of("full_attention")?.or(config.object("rope_scaling")?);
    let theta = config.optional_float("rope_theta")?.unwrap_or(1_000_000.0);
    let local = config.optional_float("rope_local_base_freq")?.unwrap_or(10_000.0);
    decoder.rotary = vec![table(full, theta)?, table(of("sliding_attention")?, local)?];
    for (layer, sliding) in decoder.attention.iter_mut().zip(sliding) {
        layer.rotary = Some(usize::from(sliding));
    }
    Ok(decoder)
}
