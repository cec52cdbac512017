//! A model as data: a list of stages over slots.
//!
//! No family has a forward function. A model is a list of [`Stage`]s in static single assignment form: each reads
//! slots, names a kernel and its weights, and writes slots. An engine walks the list; it can start, stop, fork and park
//! at any stage, apply a module by walking just its stages, and walk back.
//!
//! A slot holds, for the packed tokens of a pass, `[tokens, inner dimensions…]` in `f32` (token ids and positions:
//! `i64`). Attention's `scores` and `pattern` are the exception: for each sequence `[heads, length, context]`, and only
//! where something reads or writes them.
//!
//! **Hook points** are stages of their own ([`Kernel::Hook`]): the output slot is the input slot's value, or what a
//! setter made of it. So `h.5.input` and `h.4.output` are two slots, and setting one never changes what the other reads.

use std::ops::Range;

pub use crate::rotary::RotaryTable;

/// A value's place in a pass: every stage writes slots of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// A weight's place in [`StageList::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// The model as a list.
#[derive(Clone, Debug, Default)]
pub struct StageList {
    /// The stages, in the order of the schedule.
    pub stages: Vec<Stage>,
    /// How many slots there are. Slot 0 holds the token ids, slot 1 the positions, both `i64 [tokens]`.
    pub slots: u32,
    /// The weights that stages name: those of `ModelSpec::parameters`, at the same index as there.
    pub weights: Vec<WeightSpec>,
    /// Which stages make up each module of the specification, at the same index as there. A module that is never run
    /// has an empty range.
    pub modules: Vec<ModuleStages>,
    /// The slot of the logits that the next token is chosen from, `[tokens, vocabulary]`.
    pub logits: Option<Slot>,
    /// The stage from which on tokens that nobody reads need not be computed: the final norm's first. Every stage from
    /// there on treats each token alone.
    pub token_wise_from: usize,
    /// The number of attention layers, each with its own keys and values in a cache.
    pub attention_layers: usize,
    /// What each slot holds for a token.
    pub shapes: Vec<SlotShape>,
    /// The tables that [`Kernel::Rotary`] names.
    pub rotary: Vec<RotaryTable>,
}

/// What a slot holds for each token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotShape {
    /// One `i64`: a token id or a position.
    Id,
    /// `f32`s of these inner dimensions.
    Inner(Vec<usize>),
    /// Scores or pattern: for each sequence `[heads, length, context]`.
    Context {
        /// Query heads.
        heads: usize,
    },
}

/// The token ids.
pub const TOKENS: Slot = Slot(0);
/// The positions.
pub const POSITIONS: Slot = Slot(1);

/// The part of a list that is one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleStages {
    /// Its stages, hook stages included.
    pub range: Range<usize>,
    /// The slot that its first stage reads (before its `input` hook point), if it takes one tensor.
    pub input: Option<Slot>,
    /// The slot that its last stage writes (after its `output` hook point).
    pub output: Option<Slot>,
}

/// A weight under transformers' name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// Its name in transformers.
    pub name: String,
    /// Its shape in transformers.
    pub shape: Vec<usize>,
}

/// One stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What it does.
    pub kernel: Kernel,
    /// What it reads.
    pub inputs: Vec<Slot>,
    /// What it writes.
    pub outputs: Vec<Slot>,
}

/// What a stage does. Shapes are per token unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Kernel {
    /// A hook point, by its place in the specification: `[x] → [x]`.
    Hook {
        /// Its place in `ModelSpec::hook_points`.
        point: usize,
        /// How a packed value becomes the hook point's view, and back.
        layout: HookLayout,
    },
    /// Rows of a table: `[ids] → [width]`, times `scale`. Ids are offset by `offset` (OPT's positions: 2).
    Embed {
        /// `[rows, width]`.
        table: WeightId,
        /// Added to each id.
        offset: i64,
        /// Multiplies the rows (Gemma).
        scale: f32,
    },
    /// `[x] → [y]`: a linear layer. `y = x · Wᵀ + b` for `[n, k]` weights, `x · W + b` for `[k, n]`.
    Linear {
        /// The weight.
        weight: WeightId,
        /// Its bias, `[n]`.
        bias: Option<WeightId>,
        /// How the weight is stored.
        layout: LinearLayout,
    },
    /// `[x, y] → [x + y]`.
    Add,
    /// `[x, y] → [x * y]`, element by element.
    Multiply,
    /// `[x] → [x * factor]`.
    Scale(f32),
    /// `[x] → [cap * tanh(x / cap)]`.
    SoftCap(f32),
    /// `[x] → [scale]`, `[1]` for each token (or each head of it): the divisor of a norm over the last dimension.
    NormScale(Norm),
    /// `[x, scale] → [y]`: the norm, given its divisor.
    NormApply(Norm),
    /// `[x] → [act(x)]`.
    Activation(ActivationKind),
    /// `[x] → [view of x]`: the same storage seen as `dimensions` with strides in elements, from `offset` on.
    View {
        /// Elements skipped at the beginning of each token.
        offset: usize,
        /// Size and stride of each inner dimension.
        dimensions: Vec<(usize, usize)>,
    },
    /// `[x [heads, head size], positions] → [rotated x]`.
    Rotary {
        /// Its place in the model's list of rotary tables.
        table: usize,
    },
    /// `[query, key, value] → [scores]`. Puts key and value into the layer's cache first.
    AttentionScores(Attention),
    /// `[scores] → [pattern]`: softmax over the context.
    AttentionPattern(Attention),
    /// `[query, pattern, value] → [mixed [heads, head size]]`. Where nobody touches scores or pattern of a sequence, they
    /// are never materialised and the same numbers come from the fused kernel.
    AttentionMixed(Attention),
}

/// One layer's attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Which cache of keys and values.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub key_value_heads: usize,
    /// Width of a head.
    pub head_size: usize,
    /// Multiplies the dot products.
    pub scale: f32,
    /// `cap * tanh(score / cap)` after scaling.
    pub soft_cap: Option<f32>,
    /// A query at position p attends to positions from p − window + 1 on.
    pub window: Option<usize>,
}

/// A norm over the last dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// Which.
    pub kind: NormKind,
    /// Multiplies the result, `[width]`.
    pub weight: Option<WeightId>,
    /// Added last, `[width]`.
    pub bias: Option<WeightId>,
    /// ε.
    pub epsilon: f32,
    /// Added to the weight (Gemma: 1).
    pub weight_offset: f32,
}

/// Layer norm or RMS norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `(x − mean) / √(variance + ε)`.
    Layer,
    /// `x / √(mean square + ε)`.
    Rms,
}

/// How a linear layer's weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearLayout {
    /// `[n, k]`, PyTorch's `Linear`.
    OutputInput,
    /// `[k, n]`, transformers' `Conv1D`.
    InputOutput,
}

/// Activation functions of the families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationKind {
    /// With the error function.
    Gelu,
    /// The tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `x · sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// How a packed value `[tokens, a, b…]` becomes a hook point's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookLayout {
    /// `[prompts, length, a, b…]`; no inner dimension: `[prompts, length]`.
    Tokens,
    /// `[prompts, a, length, b…]`: heads before positions.
    HeadsFirst,
    /// `[prompts, heads, length, context]`, from the ragged scores or pattern.
    Context,
}
