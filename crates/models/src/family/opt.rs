//! OPT: learned positions whose table begins with two rows of no position, queries scaled before the dot product, no
//! module around the MLP; its 350m norms after each branch and projects its embedding to another width.

use super::{Family, FusedOrder, Role, leaf, parent};
use crate::config::{Activation, ConfigError, DecoderConfig, NormConfig, Positions, Reader, Residual};
use crate::stage::{HookLayout, NormKind};

pub(super) const OPT: Family = Family {
    model_type: "opt",
    tree: parent(
        "",
        "OPTForCausalLM",
        Role::Root,
        &[
            parent(
                "model",
                "OPTModel",
                Role::Bystander, // passed over: the whole calls the decoder itself
                &[parent(
                    "decoder",
                    "OPTDecoder",
                    Role::Model,
                    &[
                        leaf("embed_tokens", "Embedding", Role::Embed),
                        leaf("embed_positions", "OPTLearnedPositionalEmbedding", Role::Positions),
                        leaf("project_out", "Linear", Role::ProjectOut),
                        leaf("project_in", "Linear", Role::ProjectIn),
                        leaf("final_layer_norm", "LayerNorm", Role::FinalNorm),
                        parent(
                            "layers",
                            "ModuleList",
                            Role::Layers,
                            &[parent(
                                "",
                                "OPTDecoderLayer",
                                Role::Block,
                                &[
                                    parent(
                                        "self_attn",
                                        "OPTAttention",
                                        Role::Attention,
                                        &[
                                            leaf("k_proj", "Linear", Role::Key),
                                            leaf("v_proj", "Linear", Role::Value),
                                            leaf("q_proj", "Linear", Role::Query),
                                            leaf("out_proj", "Linear", Role::AttentionOutput),
                                        ],
                                    ),
                                    leaf("activation_fn", "", Role::MlpActivation),
                                    leaf("self_attn_layer_norm", "LayerNorm", Role::Norm1),
                                    leaf("fc1", "Linear", Role::MlpIn),
                                    leaf("fc2", "Linear", Role::MlpDown),
                                    leaf("final_layer_norm", "LayerNorm", Role::Norm2),
                                ],
                            )],
                        ),
                    ],
                )],
            ),
            leaf("lm_head", "Linear", Role::Unembed),
        ],
    ),
    fused: FusedOrder::ByProjection,
    head_norm_layout: HookLayout::Tokens,
    prefix: "model.",
    renamed: &[],
    read,
};

/// Rows of the table of positions before position 0's.
const POSITION_OFFSET: usize = 2;

fn read(config: &Reader<'_>) -> Result<DecoderConfig, ConfigError> {
    let hidden = config.size_or("hidden_size", 768)?;
    let affine = config.flag_or("layer_norm_elementwise_affine", true)?;
    let mut decoder = DecoderConfig::new(
        config,
        hidden,
        config.size_or("num_hidden_layers", 12)?,
        config.size_or("num_attention_heads", 12)?,
        config.size_or("vocab_size", 50272)?,
        NormConfig { kind: NormKind::Layer, epsilon: 1e-5, affine, ..NormConfig::RMS },
        Activation::named(config.text_or("activation_function", "relu")?)?,
    )?;
    decoder.inner = config.size_or("ffn_dim", 3072)?;
    decoder.embedding = config.size_or("word_embed_proj_dim", hidden)?;
    let count = config.size_or("max_position_embeddings", 2048)?;
    decoder.positions = Positions::Learned { count, offset: POSITION_OFFSET };
    decoder.tied = config.flag_or("tie_word_embeddings", true)?;
    if config.flag_or("enable_bias", true)? {
        decoder.bias_everywhere();
    }
    decoder.query_scale = Some((decoder.head_size as f64).powf(-0.5) as f32);
    decoder.attention.iter_mut().for_each(|layer| layer.scale = 1.0);
    let norm_before = config.flag_or("do_layer_norm_before", true)?;
    if !norm_before {
        decoder.residual = Residual::NormAfter;
    }
    decoder.final_norm = norm_before && !config.flag_or("_remove_final_layer_norm", false)?;
    Ok(decoder)
}
