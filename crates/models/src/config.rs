//! Reading `config.json`, as published and as transformers 5 writes it, into the one decoder's configuration.

use pellucid_graph::spec::ModelSizes;
use serde_json::Value;

use crate::rotary::RotaryTable;
use crate::stage::{ActivationKind, NormKind};

/// What can be wrong with a `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The family is not one of ours.
    #[error("config.json: model type `{found}` is not supported; supported are {}", known.join(", "))]
    UnknownFamily {
        /// `model_type`.
        found: String,
        /// What is supported.
        known: Vec<&'static str>,
    },
    /// A value has the wrong type or size.
    #[error("config.json: `{key}` is {found}, and must be {needed}")]
    Invalid {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it must be.
        needed: String,
    },
    /// An option that the decoder does not know.
    #[error("config.json: `{key}` = {found} is not supported; {hint}")]
    Unsupported {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What is supported.
        hint: String,
    },
}

/// The largest size that a configuration may name: a hostile one must not exhaust memory before weights are seen.
const LARGEST_SIZE: u64 = 1 << 24;
/// The most layers that a configuration may name.
const MOST_LAYERS: usize = 1024;

/// Everything the decoder needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub key_value_heads: usize,
    /// Width of a head.
    pub head_size: usize,
    /// Width inside an MLP.
    pub inner: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Width of the token embedding: the residual stream's, but in OPT-350m.
    pub embedding: usize,
    /// Multiplies the token embedding.
    pub embedding_scale: f32,
    /// How positions enter.
    pub positions: Positions,
    /// The norms.
    pub norm: NormConfig,
    /// The MLP's activation function.
    pub activation: Activation,
    /// Which linear layers have a bias.
    pub biases: Biases,
    /// Each layer's attention.
    pub attention: Vec<LayerAttention>,
    /// Multiplies queries before the dot product, where the family does so itself (OPT).
    pub query_scale: Option<f32>,
    /// Soft cap of attention scores.
    pub score_cap: Option<f32>,
    /// Soft cap of logits.
    pub logit_cap: Option<f32>,
    /// How branches and residual stream meet.
    pub residual: Residual,
    /// Whether a norm follows the last block.
    pub final_norm: bool,
    /// Whether the unembedding is the embedding.
    pub tied: bool,
    /// The rotary tables.
    pub rotary: Vec<RotaryTable>,
    /// Token ids that end a generation.
    pub end_tokens: Vec<u32>,
}

/// How positions enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// A table of embeddings, of which the first `offset` rows are of no position.
    Learned {
        /// Positions it has rows for.
        count: usize,
        /// Rows before position 0's.
        offset: usize,
    },
    /// Rotation of queries and keys.
    Rotary,
}

/// The norms of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConfig {
    /// Which.
    pub kind: NormKind,
    /// ε.
    pub epsilon: f32,
    /// Whether it has weights (and a layer norm biases).
    pub affine: bool,
    /// Added to the weight.
    pub weight_offset: f32,
}

impl NormConfig {
    /// An RMS norm with weights, ε of 1e-6.
    pub const RMS: Self = Self { kind: NormKind::Rms, epsilon: 1e-6, affine: true, weight_offset: 0.0 };
}

/// Which linear layers have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// The projections to queries, keys and values.
    pub query_key_value: bool,
    /// Attention's output projection.
    pub attention_output: bool,
    /// The MLP's.
    pub mlp: bool,
}

/// One layer's attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerAttention {
    /// Multiplies the dot products.
    pub scale: f32,
    /// Tokens that a query attends to, itself included.
    pub window: Option<usize>,
    /// Which rotary table.
    pub rotary: Option<usize>,
}

/// How branches and residual stream meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// Norm, branch, add; attention, then the MLP.
    Sequential,
    /// Branch, add, norm (OPT-350m).
    NormAfter,
    /// Both branches read the block's input (GPT-NeoX).
    Parallel,
}

/// An activation function under the names it goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation {
    /// What it computes.
    pub kind: ActivationKind,
    /// Its class in transformers.
    pub class: &'static str,
}

/// The names of activation functions in configurations.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation { kind: ActivationKind::Gelu, class: "GELUActivation" }),
    ("gelu_new", Activation { kind: ActivationKind::GeluTanh, class: "NewGELUActivation" }),
    ("gelu_fast", Activation { kind: ActivationKind::GeluTanh, class: "FastGELUActivation" }),
    ("gelu_pytorch_tanh", Activation { kind: ActivationKind::GeluTanh, class: "GELUTanh" }),
    ("silu", Activation { kind: ActivationKind::Silu, class: "SiLUActivation" }),
    ("swish", Activation { kind: ActivationKind::Silu, class: "SiLUActivation" }),
    ("relu", Activation { kind: ActivationKind::Relu, class: "ReLU" }),
];

impl Activation {
    /// The activation of a name in `config.json`.
    ///
    /// # Errors
    /// [`ConfigError::Unsupported`].
    pub fn named(name: &str) -> Result<Self, ConfigError> {
        let found = ACTIVATIONS.iter().find(|(known, _)| *known == name);
        found.map(|(_, activation)| *activation).ok_or_else(|| ConfigError::Unsupported {
            key: "activation function".into(),
            found: format!("`{name}`"),
            hint: format!(
                "supported are {}",
                ACTIVATIONS.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ")
            ),
        })
    }
}

impl DecoderConfig {
    /// The common case of these sizes: heads that share out the width, no biases, full attention, an untied
    /// unembedding. A family's `read` then sets what it has otherwise.
    ///
    /// # Errors
    /// Where sizes do not fit together.
    pub fn new(
        reader: &Reader<'_>,
        hidden: usize,
        layers: usize,
        heads: usize,
        vocabulary: usize,
        norm: NormConfig,
        activation: Activation,
    ) -> Result<Self, ConfigError> {
        if layers > MOST_LAYERS {
            return Err(ConfigError::Invalid {
                key: "number of layers".into(),
                found: layers.to_string(),
                needed: format!("at most {MOST_LAYERS}"),
            });
        }
        // 0 where the heads do not share out the width: a family may say otherwise, and is held to it afterwards.
        let head_size = if hidden.is_multiple_of(heads) { hidden / heads } else { 0 };
        let attention =
            LayerAttention { scale: (head_size as f64).powf(-0.5) as f32, window: None, rotary: None };
        Ok(Self {
            hidden,
            layers,
            heads,
            key_value_heads: heads,
            head_size,
            inner: 4 * hidden,
            vocabulary,
            embedding: hidden,
            embedding_scale: 1.0,
            positions: Positions::Rotary,
            norm,
            activation,
            biases: Biases::default(),
            attention: vec![attention; layers],
            query_scale: None,
            score_cap: None,
            logit_cap: None,
            residual: Residual::Sequential,
            final_norm: true,
            tied: false,
            rotary: Vec::new(),
            end_tokens: reader.token_ids("eos_token_id")?,
        })
    }

    /// Sets the heads of keys and values, and the width of all heads.
    ///
    /// # Errors
    /// Where query heads cannot be shared out among them.
    pub fn set_heads(&mut self, key_value_heads: usize, head_size: usize) -> Result<(), ConfigError> {
        if !self.heads.is_multiple_of(key_value_heads) {
            return Err(ConfigError::Invalid {
                key: "num_key_value_heads".into(),
                found: key_value_heads.to_string(),
                needed: format!("a divisor of the {} query heads", self.heads),
            });
        }
        (self.key_value_heads, self.head_size) = (key_value_heads, head_size);
        let scale = (head_size as f64).powf(-0.5) as f32;
        self.attention.iter_mut().for_each(|layer| layer.scale = scale);
        self.check()
    }

    /// Refuses what no list of stages can be made of.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.head_size == 0 {
            return Err(ConfigError::Invalid {
                key: "number of heads".into(),
                found: self.heads.to_string(),
                needed: format!("a divisor of the width {}", self.hidden),
            });
        }
        Ok(())
    }

    /// Gives every linear layer but the unembedding a bias.
    pub fn bias_everywhere(&mut self) {
        self.biases = Biases { query_key_value: true, attention_output: true, mlp: true };
    }

    /// The sizes that a specification publishes.
    #[must_use]
    pub fn sizes(&self) -> ModelSizes {
        ModelSizes {
            layers: self.layers as u64,
            hidden: self.hidden as u64,
            heads: self.heads as u64,
            key_value_heads: self.key_value_heads as u64,
            head_size: self.head_size as u64,
            inner: self.inner as u64,
            vocabulary: self.vocabulary as u64,
            positions: match self.positions {
                Positions::Learned { count, .. } => Some(count as u64),
                Positions::Rotary => None,
            },
        }
    }
}

/// Typed reading of a JSON object. A key that is missing or null takes the default that transformers gives it.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    value: &'a Value,
}

impl<'a> Reader<'a> {
    /// A reader of this object.
    #[must_use]
    pub fn new(value: &'a Value) -> Self {
        Self { value }
    }

    /// The value under a key, if it is there and not null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// The object under a key, if it is there and not null.
    ///
    /// # Errors
    /// Where it is no object.
    pub fn object(&self, key: &str) -> Result<Option<Reader<'a>>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) if value.is_object() => Ok(Some(Reader { value })),
            Some(value) => Err(invalid(key, value, "an object")),
        }
    }

    /// A size from 1 on, if it is there.
    ///
    /// # Errors
    /// Where it is no such number.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size @ 1..=LARGEST_SIZE) => Ok(Some(size as usize)),
            _ => Err(invalid(key, value, &format!("a whole number from 1 to {LARGEST_SIZE}"))),
        }
    }

    /// A size from 1 on.
    ///
    /// # Errors
    /// Where it is no such number.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        Ok(self.optional_size(key)?.unwrap_or(default))
    }

    /// Whether a key is written, and is null.
    #[must_use]
    pub fn is_null(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(Value::is_null)
    }

    /// A size from 1 on; none where the key is null, the default where it is not there.
    ///
    /// # Errors
    /// Where it is no such number.
    pub fn nullable_size(&self, key: &str, default: Option<usize>) -> Result<Option<usize>, ConfigError> {
        Ok(self.optional_size(key)?.or(default.filter(|_| !self.is_null(key))))
    }

    /// A number above 0; none where the key is null, the default where it is not there.
    ///
    /// # Errors
    /// Where it is no such number.
    pub fn nullable_positive(&self, key: &str, default: Option<f32>) -> Result<Option<f32>, ConfigError> {
        match self.optional_float(key)? {
            Some(number) if number > 0.0 => Ok(Some(number as f32)),
            Some(_) => Err(self.invalid(key, "a number above 0")),
            None => Ok(default.filter(|_| !self.is_null(key))),
        }
    }

    /// A whole number from 0 on.
    ///
    /// # Errors
    /// Where it is no such number.
    pub fn whole_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let whole = value.as_u64().filter(|whole| *whole <= LARGEST_SIZE);
        whole.map(|whole| whole as usize).ok_or_else(|| invalid(key, value, "a whole number from 0 on"))
    }

    /// The error that a key's value is not what it must be.
    #[must_use]
    pub fn invalid(&self, key: &str, needed: &str) -> ConfigError {
        invalid(key, self.value.get(key).unwrap_or(&Value::Null), needed)
    }

    /// A finite number, if it is there.
    ///
    /// # Errors
    /// Where it is no number.
    pub fn optional_float(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value
            .as_f64()
            .filter(|number| number.is_finite())
            .map(Some)
            .ok_or_else(|| invalid(key, value, "a number"))
    }

    /// A finite number.
    ///
    /// # Errors
    /// Where it is no number.
    pub fn float_or(&self, key: &str, default: f64) -> Result<f32, ConfigError> {
        Ok(self.optional_float(key)?.unwrap_or(default) as f32)
    }

    /// A finite number from 0 on.
    ///
    /// # Errors
    /// Where it is no such number.
    pub fn natural_float_or(&self, key: &str, default: f64) -> Result<f32, ConfigError> {
        let number = self.float_or(key, default)?;
        if number < 0.0 { Err(self.invalid(key, "a number from 0 on")) } else { Ok(number) }
    }

    /// A flag.
    ///
    /// # Errors
    /// Where it is neither true nor false.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| invalid(key, value, "true or false"))
    }

    /// A text.
    ///
    /// # Errors
    /// Where it is no text.
    pub fn text_or<'b>(&self, key: &str, default: &'b str) -> Result<&'b str, ConfigError>
    where
        'a: 'b,
    {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_str().ok_or_else(|| invalid(key, value, "a text"))
    }

    /// Token ids: none, one or a list.
    ///
    /// # Errors
    /// Where they are no token ids.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(values) => values.iter().map(id).collect(),
            single => id(single).map(|id| vec![id]),
        };
        ids.ok_or_else(|| invalid(key, value, "a token id or a list of them"))
    }

    /// Refuses an option that changes the computation in a way that the decoder does not know.
    ///
    /// # Errors
    /// [`ConfigError::Unsupported`] where the flag is set.
    pub fn refuse_true(&self, key: &str) -> Result<(), ConfigError> {
        if self.flag_or(key, false)? {
            let (key, found) = (key.to_owned(), "true".to_owned());
            return Err(ConfigError::Unsupported { key, found, hint: "only models without it are".into() });
        }
        Ok(())
    }
}

fn invalid(key: &str, value: &Value, needed: &str) -> ConfigError {
    let mut found = value.to_string();
    if found.len() > 100 {
        found = format!("{}…", found.chars().take(100).collect::<String>());
    }
    ConfigError::Invalid { key: key.to_owned(), found, needed: needed.to_owned() }
}
