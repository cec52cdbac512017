//! GPT-2: learned positions, layer norms, one fused projection, `Conv1D` weights stored `[in, out]`.

use super::{Family, FusedOrder, Role, leaf, parent};
use crate::config::{Activation, ConfigError, DecoderConfig, NormConfig, Positions, Reader};
use crate::stage::{HookLayout, NormKind};

pub(super) const GPT2: Family = Family {
    model_type: "gpt2",
    tree: parent(
        "",
        "GPT2LMHeadModel",
        Role::Root,
        &[
            parent(
                "transformer",
                "GPT2Model",
                Role::Model,
                &[
                    leaf("wte", "Embedding", Role::Embed),
                    leaf("wpe", "Embedding", Role::Positions),
                    leaf("drop", "Dropout", Role::EmbedDropout),
                    parent(
                        "h",
                        "ModuleList",
                        Role::Layers,
                        &[parent(
                            "",
                            "GPT2Block",
                            Role::Block,
                            &[
                                leaf("ln_1", "LayerNorm", Role::Norm1),
                                parent(
                                    "attn",
                                    "GPT2Attention",
                                    Role::Attention,
                                    &[
                                        leaf("c_attn", "Conv1D", Role::QueryKeyValue),
                                        leaf("c_proj", "Conv1D", Role::AttentionOutput),
                                        leaf("attn_dropout", "Dropout", Role::Bystander),
                                        leaf("resid_dropout", "Dropout", Role::AttentionOutputDropout),
                                    ],
                                ),
                                leaf("ln_2", "LayerNorm", Role::Norm2),
                                parent(
                                    "mlp",
                                    "GPT2MLP",
                                    Role::Mlp,
                                    &[
                                        leaf("c_fc", "Conv1D", Role::MlpIn),
                                        leaf("c_proj", "Conv1D", Role::MlpDown),
                                        leaf("act", "", Role::MlpActivation),
                                        leaf("dropout", "Dropout", Role::MlpInnerDropout),
                                    ],
                                ),
                            ],
                        )],
                    ),
                    leaf("ln_f", "LayerNorm", Role::FinalNorm),
                ],
            ),
            leaf("lm_head", "Linear", Role::Unembed),
        ],
    ),
    fused: FusedOrder::ByProjection,
    head_norm_layout: HookLayout::Tokens,
    prefix: "transformer.",
    renamed: &[],
    read,
};

fn read(config: &Reader<'_>) -> Result<DecoderConfig, ConfigError> {
    config.refuse_true("add_cross_attention")?;
    let hidden = config.size_or("n_embd", 768)?;
    let norm = NormConfig {
        kind: NormKind::Layer,
        epsilon: config.natural_float_or("layer_norm_epsilon", 1e-5)?,
        ..NormConfig::RMS
    };
    let activation = Activation::named(config.text_or("activation_function", "gelu_new")?)?;
    let mut decoder = DecoderConfig::new(
        config,
        hidden,
        config.size_or("n_layer", 12)?,
        config.size_or("n_head", 12)?,
        config.size_or("vocab_size", 50257)?,
        norm,
        activation,
    )?;
    decoder.inner = config.optional_size("n_inner")?.unwrap_or(4 * hidden);
    decoder.positions = Positions::Learned { count: config.size_or("n_positions", 1024)?, offset: 0 };
    decoder.tied = config.flag_or("tie_word_embeddings", true)?;
    decoder.bias_everywhere();
    let scale =
        if config.flag_or("scale_attn_weights", true)? { (decoder.head_size as f64).powf(-0.5) } else { 1.0 };
    let by_layer = config.flag_or("scale_attn_by_inverse_layer_idx", false)?;
    for (index, layer) in decoder.attention.iter_mut().enumerate() {
        layer.scale = (if by_layer { scale / (index + 1) as f64 } else { scale }) as f32;
    }
    Ok(decoder)
}
