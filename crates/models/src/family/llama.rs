//! Llama and Mistral, and the tree and configuration that Qwen and Gemma share with them: RMS norms, rotary positions,
//! gated MLPs, grouped keys and values.

use super::{Family, FusedOrder};
use crate::config::{Activation, ConfigError, DecoderConfig, LayerAttention, NormConfig, Reader};
use crate::rotary::RotaryTable;
use crate::stage::HookLayout;

/// The tree that Llama's descendants share: classes begin with the family's name, and `attention` and `block` are what
/// a family registers in them beyond Llama's modules.
macro_rules! llama_tree {
    (
        $family:literal,
        model: $model:literal,
        embed: $embed:literal,
        attention: [$(($attention_name:literal, $attention_role:ident)),*],
        block: [$(($block_name:literal, $block_role:ident)),*]
    ) => {{
        use $crate::family::{Role, leaf, parent};
        const NORM: &str = concat!($family, "RMSNorm");
        parent("", concat!($family, "ForCausalLM"), Role::Root, &[
            parent("model", $model, Role::Model, &[
                leaf("embed_tokens", $embed, Role::Embed),
                parent("layers", "ModuleList", Role::Layers, &[
                    parent("", concat!($family, "DecoderLayer"), Role::Block, &[
                        parent("self_attn", concat!($family, "Attention"), Role::Attention, &[
                            leaf("q_proj", "Linear", Role::Query),
                            leaf("k_proj", "Linear", Role::Key),
                            leaf("v_proj", "Linear", Role::Value),
                            leaf("o_proj", "Linear", Role::AttentionOutput),
                            $(leaf($attention_name, NORM, Role::$attention_role),)*
                        ]),
                        parent("mlp", concat!($family, "MLP"), Role::Mlp, &[
                            leaf("gate_proj", "Linear", Role::MlpGate),
                            leaf("up_proj", "Linear", Role::MlpUp),
                            leaf("down_proj", "Linear", Role::MlpDown),
                            leaf("act_fn", "", Role::MlpActivation),
                        ]),
                        leaf("input_layernorm", NORM, Role::Norm1),
                        $(leaf($block_name, NORM, Role::$block_role),)*
                    ]),
                ]),
                leaf("norm", NORM, Role::FinalNorm),
                leaf("rotary_emb", concat!($family, "RotaryEmbedding"), Role::Bystander),
            ]),
            leaf("lm_head", "Linear", Role::Unembed),
        ])
    }};
}
pub(super) use llama_tree;

pub(super) const LLAMA: Family = Family {
    model_type: "llama",
    tree: llama_tree!(
        "Llama",
        model: "LlamaModel",
        embed: "Embedding",
        attention: [],
        block: [("post_attention_layernorm", Norm2)]
    ),
    fused: FusedOrder::ByProjection,
    head_norm_layout: HookLayout::Tokens,
    prefix: "model.",
    renamed: &[],
    read: read_llama,
};

pub(super) const MISTRAL: Family = Family {
    model_type: "mistral",
    tree: llama_tree!(
        "Mistral",
        model: "MistralModel",
        embed: "Embedding",
        attention: [],
        block: [("post_attention_layernorm", Norm2)]
    ),
    read: read_mistral,
    ..LLAMA
};

/// What transformers takes for keys that a `config.json` of the family lacks.
pub(super) struct Defaults {
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: Option<usize>,
    pub(super) head_size: Option<usize>,
    pub(super) positions: usize,
    pub(super) activation: &'static str,
    pub(super) tied: bool,
}

const LLAMA_DEFAULTS: Defaults = Defaults {
    vocabulary: 32000,
    hidden: 4096,
    inner: 11008,
    layers: 32,
    heads: 32,
    key_value_heads: None,
    head_size: None,
    positions: 2048,
    activation: "silu",
    tied: false,
};

/// What Llama's descendants have in common, with one rotary table for every layer.
pub(super) fn read_common(config: &Reader<'_>, defaults: &Defaults) -> Result<DecoderConfig, ConfigError> {
    let norm = NormConfig { epsilon: config.natural_float_or("rms_norm_eps", 1e-6)?, ..NormConfig::RMS };
    let heads = config.size_or("num_attention_heads", defaults.heads)?;
    let activation =
        config.text_or("hidden_activation", config.text_or("hidden_act", defaults.activation)?)?;
    let mut decoder = DecoderConfig::new(
        config,
        config.size_or("hidden_size", defaults.hidden)?,
        config.size_or("num_hidden_layers", defaults.layers)?,
        heads,
        config.size_or("vocab_size", defaults.vocabulary)?,
        norm,
        Activation::named(activation)?,
    )?;
    decoder.inner = config.size_or("intermediate_size", defaults.inner)?;
    let key_value_heads = if config.is_null("num_key_value_heads") { None } else { defaults.key_value_heads };
    let key_value_heads = config.size_or("num_key_value_heads", key_value_heads.unwrap_or(heads))?;
    let head_size = if config.is_null("head_dim") { None } else { defaults.head_size };
    let head_size = config.size_or("head_dim", head_size.unwrap_or(decoder.head_size))?;
    decoder.set_heads(key_value_heads, head_size)?;
    decoder.tied = config.flag_or("tie_word_embeddings", defaults.tied)?;
    let positions = config.size_or("max_position_embeddings", defaults.positions)?;
    if config.object("rope_parameters")?.is_none_or(|parameters| parameters.get("full_attention").is_none()) {
        let parameters = config.object("rope_parameters")?.or(config.object("rope_scaling")?);
        let theta = config.optional_float("rope_theta")?.unwrap_or(10_000.0);
        decoder.rotary = vec![RotaryTable::read(parameters, theta, 1.0, head_size, positions)?];
        decoder.attention.iter_mut().for_each(|layer| layer.rotary = Some(0));
    }
    Ok(decoder)
}

/// The layers that `layer_types` says slide, or the family's rule where there is no such list.
pub(super) fn sliding_layers(
    config: &Reader<'_>,
    layers: usize,
    rule: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, ConfigError> {
    let Some(types) = config.get("layer_types") else { return Ok((0..layers).map(rule).collect()) };
    let slides = |kind: &serde_json::Value| match kind.as_str() {
        Some("sliding_attention") => Some(true),
        Some("full_attention") => Some(false),
        _ => None,
    };
    let types = types.as_array().and_then(|types| types.iter().map(slides).collect::<Option<Vec<_>>>());
    types.filter(|types| types.len() == layers).ok_or_else(|| {
        config.invalid(
            "layer_types",
            &format!("{layers} of `sliding_attention` and `full_attention`, one for each layer"),
        )
    })
}

pub(super) fn set_windows(attention: &mut [LayerAttention], sliding: &[bool], window: Option<usize>) {
    for (layer, sliding) in attention.iter_mut().zip(sliding) {
        layer.window = window.filter(|_| *sliding);
    }
}

fn read_llama(config: &Reader<'_>) -> Result<DecoderConfig, ConfigError> {
    let mut decoder = read_common(config, &LLAMA_DEFAULTS)?;
    let bias = config.flag_or("attention_bias", false)?;
    decoder.biases.query_key_value = bias;
    decoder.biases.attention_output = bias;
    decoder.biases.mlp = config.flag_or("mlp_bias", false)?;
    Ok(decoder)
}

fn read_mistral(config: &Reader<'_>) -> Result<DecoderConfig, ConfigError> {
    let defaults =
        Defaults { inner: 14336, key_value_heads: Some(8), positions: 4096 * 32, ..LLAMA_DEFAULTS };
    let mut decoder = read_common(config, &defaults)?;
    let window = config.nullable_size("sliding_window", Some(4096))?;
    decoder.attention.iter_mut().for_each(|layer| layer.window = window);
    Ok(decoder)
}
