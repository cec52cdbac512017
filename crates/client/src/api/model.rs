//! Models, their tokenizers, and plans.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Price;

/// The models that one may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    /// The models.
    pub models: Vec<ModelEntry>,
    /// The id of the one that programs which name none are run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// A model, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelEntry {
    /// Its id, under which programs name it.
    pub id: String,
    /// Its own name, as in its specification.
    pub name: String,
    /// Whether it is in memory.
    pub state: ModelState,
    /// While it is loading: the part that is done, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Whether it stays in memory.
    #[serde(default)]
    pub pinned: bool,
    /// Whether it is the one that programs which name none are run on.
    #[serde(default)]
    pub default: bool,
    /// Its family, where that is known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// How many blocks it has, where that is known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u64>,
    /// The width of its residual stream, where that is known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<u64>,
    /// The bytes of its weights, where that is known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_bytes: Option<u64>,
    /// What can be done with it, where that is known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Why it could not be loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whether a model is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// It is not in memory: the first job that needs it loads it.
    Cold,
    /// It is being loaded, or downloaded to be.
    Loading,
    /// It is in memory.
    Hot,
    /// It could not be loaded.
    Failed,
}

impl ModelState {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            ModelState::Cold => "cold",
            ModelState::Loading => "loading",
            ModelState::Hot => "hot",
            ModelState::Failed => "failed",
        }
    }
}

impl fmt::Display for ModelState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The query of an explanation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// The model, by its id; without it the one that the program names, or the service's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// What a program would compute where, and at what price.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The model's name.
    pub model: String,
    /// What it costs, at most.
    pub price: Price,
    /// Bytes that may be kept of passes for ways back, where its memory has no room for all: what is beyond is computed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_at_most: Option<u64>,
    /// Tokens that are not computed, because their keys and values are in the account's cache of prefixes.
    #[serde(default, skip_serializing_if = "super::job::is_zero")]
    pub cached_tokens: u64,
    /// Its passes in order, as the engine describes them.
    pub passes: Vec<serde_json::Value>,
    /// Nodes that are computed, and nodes of the program.
    pub nodes: (u64, u64),
    /// Nodes that are not computed, because nothing needs what they give: by name, with how many there are by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<(String, u64)>,
    /// The models whose stages the passes walk: how many there are, and which are each layer's.
    #[serde(default)]
    pub models: Vec<serde_json::Value>,
    /// All of it as `pellucid explain` prints it.
    pub text: String,
}

/// Texts to be tokenised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncodeRequest {
    /// The model, by its id; without it, the service's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The texts.
    pub texts: Vec<String>,
    /// Whether the special tokens are added that the tokenizer adds by default.
    #[serde(default = "yes")]
    pub special_tokens: bool,
    /// Whether each text is a user's turn in the model's chat template, up to where its answer begins.
    #[serde(default)]
    pub chat: bool,
}

fn yes() -> bool {
    true
}

/// Texts as token ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EncodeResponse {
    /// The model's id.
    pub model: String,
    /// Of each text, its token ids.
    pub tokens: Vec<Vec<u32>>,
}

/// Token ids whose texts are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecodeRequest {
    /// The model, by its id; without it, the service's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Token ids, a list for each text.
    pub tokens: Vec<Vec<u32>>,
}

/// The texts of token ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DecodeResponse {
    /// The model's id.
    pub model: String,
    /// The texts.
    pub texts: Vec<String>,
}
