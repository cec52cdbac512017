//! The families: what each calls its modules, and how its `config.json` reads.
//!
//! A family is a table, not a forward function: the tree of modules with their roles in the one decoder
//! ([`crate::decoder`]), a few oddities, and a function from its `config.json` to [`DecoderConfig`].
//!
//! To add one: write its file with a [`Family`], and put it into [`FAMILIES`].

use crate::config::{ConfigError, DecoderConfig, Reader};
use crate::stage::HookLayout;

mod gemma;
mod gpt2;
mod gpt_neox;
mod llama;
mod opt;
mod qwen;

/// All families.
pub const FAMILIES: &[&Family] = &[
    &gpt2::GPT2,
    &llama::LLAMA,
    &llama::MISTRAL,
    &gpt_neox::GPT_NEOX,
    &opt::OPT,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
];

/// One family.
#[derive(Debug)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The root of the module tree, in transformers' order.
    pub tree: Node,
    /// What a fused query-key-value projection's result looks like.
    pub fused: FusedOrder,
    /// What a norm of queries and keys by head sees.
    pub head_norm_layout: HookLayout,
    /// What published checkpoints may leave out, or put, before the names of the base model's weights.
    pub prefix: &'static str,
    /// Published names that transformers has renamed: (theirs, transformers').
    pub renamed: &'static [(&'static str, &'static str)],
    /// Reads the configuration.
    pub read: fn(&Reader<'_>) -> Result<DecoderConfig, ConfigError>,
}

/// The order of a fused projection's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FusedOrder {
    /// All queries, all keys, all values: `[3, heads, head size]`.
    ByProjection,
    /// Each head's query, key and value: `[heads, 3, head size]`.
    ByHead,
}

/// A module of a tree.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The last part of its path. Under [`Role::Layers`] the layer's number takes its place.
    pub name: &'static str,
    /// Its class in transformers; of an activation, the configuration knows it.
    pub class: &'static str,
    /// What it is to the decoder.
    pub role: Role,
    /// Its children, in the order in which the class registers them.
    pub children: &'static [Node],
}

/// A module with children.
pub(crate) const fn parent(
    name: &'static str,
    class: &'static str,
    role: Role,
    children: &'static [Node],
) -> Node {
    Node { name, class, role, children }
}

/// A module without children.
pub(crate) const fn leaf(name: &'static str, class: &'static str, role: Role) -> Node {
    Node { name, class, role, children: &[] }
}

/// What a module is to the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The whole, with the unembedding.
    Root,
    /// The model without its unembedding.
    Model,
    /// In the tree, and never run: it has no hook points.
    Bystander,
    /// The token embedding.
    Embed,
    /// The embedding of positions.
    Positions,
    /// From the token embedding's width to the residual stream's.
    ProjectIn,
    /// Dropout on the embedding.
    EmbedDropout,
    /// The list of blocks.
    Layers,
    /// A block.
    Block,
    /// The norm of the attention branch.
    Norm1,
    /// Attention.
    Attention,
    /// The fused projection.
    QueryKeyValue,
    /// The query's projection.
    Query,
    /// The key's projection.
    Key,
    /// The value's projection.
    Value,
    /// The norm of queries by head.
    QueryNorm,
    /// The norm of keys by head.
    KeyNorm,
    /// The output projection.
    AttentionOutput,
    /// Dropout on the output projection's result.
    AttentionOutputDropout,
    /// Dropout on attention's output.
    AttentionDropout,
    /// A norm of attention's output.
    PostAttentionNorm,
    /// The norm of the MLP's branch.
    Norm2,
    /// The MLP.
    Mlp,
    /// The first projection of an MLP that is not gated.
    MlpIn,
    /// The gate projection.
    MlpGate,
    /// The linear branch of a gated MLP.
    MlpUp,
    /// The activation function.
    MlpActivation,
    /// The down projection.
    MlpDown,
    /// Dropout on the down projection's result, inside the MLP.
    MlpInnerDropout,
    /// Dropout on the MLP's output.
    MlpDropout,
    /// A norm of the MLP's output.
    PostMlpNorm,
    /// The last norm.
    FinalNorm,
    /// From the residual stream's width to the token embedding's.
    ProjectOut,
    /// The unembedding.
    Unembed,
}

/// The family of a `model_type`.
#[must_use]
pub fn family(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|family| family.model_type == model_type)
}
