//! What a model publishes of itself: enough to write, check, price and plan a program without having the model.

use serde::{Deserialize, Serialize};

use crate::dtype::DType;

/// What a model publishes of itself. It needs no weights to build, and it serialises.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The model's name: a hub id, or the folder's or file's name.
    pub name: String,
    /// The revision of the weights, if their publisher has one.
    pub revision: Option<String>,
    /// The family: `gpt2`, `llama`, `gpt_neox`, `opt`, `qwen2`, `qwen3`, `gemma2`, `gemma3_text`, `mistral`.
    pub family: String,
    /// The number type of hook points.
    pub compute_type: DType,
    /// The model's sizes.
    pub sizes: ModelSizes,
    /// The module tree in transformers' order: parents before their children.
    pub modules: Vec<ModuleSpec>,
    /// Hook points in schedule order: the order in which a forward pass reaches them. A hook point's index is its *place*.
    pub hook_points: Vec<HookPointSpec>,
    /// Weights under transformers' names.
    pub parameters: Vec<ParameterSpec>,
    /// Standard names of modules and hook points that work on every family.
    pub aliases: Vec<Alias>,
    /// What an engine can do with this model: `trace`; `generate`; `weights`, reading and setting them.
    pub capabilities: Vec<String>,
    /// Token ids that end a generation by default.
    pub end_tokens: Vec<u32>,
}

impl ModelSpec {
    /// Whether an engine can do that with the model.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|own| own == capability)
    }
}

/// The sizes of a decoder.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSizes {
    /// Blocks.
    pub layers: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub key_value_heads: u64,
    /// Width of a head.
    pub head_size: u64,
    /// Width inside an MLP.
    pub inner: u64,
    /// Rows of the embedding.
    pub vocabulary: u64,
    /// The longest sequence that positions are defined for; none: no bound of its own.
    pub positions: Option<u64>,
}

/// One module of the tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModuleSpec {
    /// Its path under transformers' name; the root's is empty.
    pub path: String,
    /// Its class in transformers.
    pub class: String,
    /// How it can be applied to a value out of the model's own order.
    pub applied: Application,
}

/// How a module can be applied to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Application {
    /// It treats each token alone: any leading dimensions will do, the last ones are the input's own.
    TokenWise,
    /// It mixes tokens of a sequence: the value is `[prompts, length, …]`, positions count from 0.
    Sequence,
    /// It cannot be applied by itself.
    None,
}

/// One hook point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookPointSpec {
    /// The module's path.
    pub module: String,
    /// `input`, `output`, `pattern`, ….
    pub name: String,
    /// Its shape.
    pub shape: Vec<Axis>,
    /// Its number type.
    pub dtype: DType,
}

impl HookPointSpec {
    /// The dimensions of one token's own value: those of a known size behind the last that is not (prompts, length, context).
    pub fn own_sizes(&self) -> Vec<u64> {
        let mut sizes: Vec<u64> = self
            .shape
            .iter()
            .rev()
            .map_while(|axis| if let Axis::Size(size) = axis { Some(*size) } else { None })
            .collect();
        sizes.reverse();
        sizes
    }
}

impl HookPointSpec {
    /// `<module path>.<name>`; of the root module just the name.
    pub fn path(&self) -> String {
        if self.module.is_empty() { self.name.clone() } else { format!("{}.{}", self.module, self.name) }
    }
}

/// One axis of a hook point's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// The invoke's prompts.
    Prompts,
    /// The tokens of this step: the prompt's, or 1.
    Length,
    /// All tokens attended to so far.
    Context,
    /// A fixed size.
    Size(u64),
}

/// One weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParameterSpec {
    /// Its name in transformers, without `.weight` cut off.
    pub name: String,
    /// Its shape in transformers.
    pub shape: Vec<u64>,
}

/// A standard name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// The standard name: `layers.3.attention`, `logits`.
    pub alias: String,
    /// What it stands for: a module's path, or a hook point's.
    pub target: String,
    /// Whether the target is a hook point rather than a module.
    pub hook: bool,
}
