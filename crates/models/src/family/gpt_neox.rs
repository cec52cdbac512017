//! GPT-NeoX (Pythia): both branches read the block's input, a part of each head is rotated, and the fused projection
//! holds each head's query, key and value together.

use super::{Family, FusedOrder, Role, leaf, parent};
use crate::config::{Activation, Biases, ConfigError, DecoderConfig, NormConfig, Reader, Residual};
use crate::rotary::RotaryTable;
use crate::stage::{HookLayout, NormKind};

pub(super) const GPT_NEOX: Family = Family {
    model_type: "gpt_neox",
    tree: parent(
        "",
        "GPTNeoXForCausalLM",
        Role::Root,
        &[
            parent(
                "gpt_neox",
                "GPTNeoXModel",
                Role::Model,
                &[
                    leaf("embed_in", "Embedding", Role::Embed),
                    leaf("emb_dropout", "Dropout", Role::EmbedDropout),
                    parent(
                        "layers",
                        "ModuleList",
                        Role::Layers,
                        &[parent(
                            "",
                            "GPTNeoXLayer",
                            Role::Block,
                            &[
                                leaf("input_layernorm", "LayerNorm", Role::Norm1),
                                leaf("post_attention_layernorm", "LayerNorm", Role::Norm2),
                                leaf("post_attention_dropout", "Dropout", Role::AttentionDropout),
                                leaf("post_mlp_dropout", "Dropout", Role::MlpDropout),
                                parent(
                                    "attention",
                                    "GPTNeoXAttention",
                                    Role::Attention,
                                    &[
                                        leaf("query_key_value", "Linear", Role::QueryKeyValue),
                                        leaf("dense", "Linear", Role::AttentionOutput),
                                    ],
                                ),
                                parent(
                                    "mlp",
                                    "GPTNeoXMLP",
                                    Role::Mlp,
                                    &[
                                        leaf("dense_h_to_4h", "Linear", Role::MlpIn),
                                        leaf("dense_4h_to_h", "Linear", Role::MlpDown),
                                        leaf("act", "", Role::MlpActivation),
                                    ],
                                ),
                            ],
                        )],
                    ),
                    leaf("final_layer_norm", "LayerNorm", Role::FinalNorm),
                    leaf("rotary_emb", "GPTNeoXRotaryEmbedding", Role::Bystander),
                ],
            ),
            leaf("lm_head", "Linear", Role::Unembed),
        ],
    ),
    fused: FusedOrder::ByHead,
    head_norm_layout: HookLayout::Tokens,
    prefix: "gpt_neox.",
    renamed: &[("embed_out.weight", "lm_head.weight")],
    read,
};

fn read(config: &Reader<'_>) -> Result<DecoderConfig, ConfigError> {
    let epsilon = config.natural_float_or("layer_norm_eps", 1e-5)?;
    let mut decoder = DecoderConfig::new(
        config,
        config.size_or("hidden_size", 6144)?,
        config.size_or("num_hidden_layers", 44)?,
        config.size_or("num_attention_heads", 64)?,
        config.size_or("vocab_size", 50432)?,
        NormConfig { kind: NormKind::Layer, epsilon, ..NormConfig::RMS },
        Activation::named(config.text_or("hidden_act", "gelu")?)?,
    )?;
    decoder.inner = config.size_or("intermediate_size", 24576)?;
    decoder.tied = config.flag_or("tie_word_embeddings", false)?;
    let bias = config.flag_or("attention_bias", true)?;
    decoder.biases = Biases { query_key_value: bias, attention_output: bias, mlp: true };
    if config.flag_or("use_parallel_residual", true)? {
        decoder.residual = Residual::Parallel;
    }
    let parameters = config.object("rope_parameters")?.or(config.object("rope_scaling")?);
    let theta = config.optional_float("rotary_emb_base")?.unwrap_or(10_000.0);
    let fraction = config.optional_float("rotary_pct")?.unwrap_or(0.25);
    let positions = config.size_or("max_position_embeddings", 2048)?;
    decoder.rotary = vec![RotaryTable::read(parameters, theta, fraction, decoder.head_size, positions)?];
    decoder.attention.iter_mut().for_each(|layer| layer.rotary = Some(0));
    Ok(decoder)
}
