//! Sparse autoencoders in the layout of the SAELens library: `cfg.json` and `sae_weights.safetensors`.
//!
//! `features = activation((x − b_dec?) W_enc + b_enc)`, `x̂ = features W_dec + b_dec`, with what the configuration says of the
//! input's normalisation before and undone after.

use std::path::Path;

use pellucid_graph::ModelSpec;
use serde_json::Value;

use super::{Array, find_folder, hook_point_of_transformer_lens};
use crate::hub::Settings;
use crate::tokenizer::read_json;
use crate::weights::Checkpoint;
use crate::{Error, Result};

const CONFIG_FILE: &str = "cfg.json";
const WEIGHTS_FILE: &str = "sae_weights.safetensors";

/// What makes features of their preimages.
#[derive(Debug, Clone, PartialEq)]
pub enum FeatureActivation {
    /// max(x, 0).
    Relu,
    /// x where it is above its feature's threshold `[features]` and above 0, else 0 (Rajamanoharan et al. 2024).
    JumpRelu(Array),
    /// max(x, 0) for the k largest, else 0 (Gao et al. 2024).
    TopK(usize),
}

/// What is done to an input before it is encoded, and undone after it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputNormalisation {
    /// Nothing.
    None,
    /// Its mean is taken away, and it is divided by its standard deviation (over n − 1) plus 1e-5; what is decoded is
    /// multiplied by the deviation, and the mean added.
    LayerNorm,
    /// It is scaled to the norm √width.
    ConstantNorm,
}

/// A sparse autoencoder.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseAutoencoder {
    /// Where it comes from, for messages.
    pub origin: String,
    /// The hook point it was trained on, under TransformerLens' name: `blocks.8.hook_resid_pre`.
    pub hook_name: Option<String>,
    /// The model it was trained on.
    pub model_name: Option<String>,
    /// What makes the features.
    pub activation: FeatureActivation,
    /// What is done to the input.
    pub normalisation: InputNormalisation,
    /// Whether the decoder's bias is taken from the input.
    pub subtracts_decoder_bias: bool,
    /// Whether it was trained on a model whose writing weights were centred, so that the input's mean over its width is 0.
    pub centred: bool,
    /// Whether its input is `[…, heads, head size]`, seen as one dimension.
    pub by_heads: bool,
    /// `W_enc`: `[width, features]`.
    pub encoder: Array,
    /// `b_enc`: `[features]`.
    pub encoder_bias: Array,
    /// `W_dec`: `[features, width]`.
    pub decoder: Array,
    /// `b_dec`: `[width]`.
    pub decoder_bias: Array,
}

impl SparseAutoencoder {
    /// Opens a folder in SAELens' layout, or such a repository of a hub; with `inside`, a folder in it, as
    /// `blocks.8.hook_resid_pre` in a repository of many.
    ///
    /// # Errors
    /// Where files are missing or damaged, or the architecture is another.
    pub fn open(source: &str, inside: Option<&str>) -> Result<Self> {
        Self::open_with(source, inside, &Settings::from_environment())
    }

    /// [`SparseAutoencoder::open`] with a hub's settings.
    ///
    /// # Errors
    /// Those of [`SparseAutoencoder::open`].
    pub fn open_with(source: &str, inside: Option<&str>, hub: &Settings) -> Result<Self> {
        let folder = find_folder(source, inside, &[CONFIG_FILE, WEIGHTS_FILE], hub)?;
        let path = folder.join(CONFIG_FILE);
        let config = Config { path: &path, json: read_json(&path)?.unwrap_or(Value::Null) };
        let (width, features) = (config.size("d_in")?, config.size("d_sae")?);
        let checkpoint = Checkpoint::open_file(folder.join(WEIGHTS_FILE))?;
        let read = |name: &str, shape: &[usize]| Array::read(&checkpoint, name, shape);
        config.refuse_what_is_not_known()?;
        let hook_name = config.text("hook_name").map(str::to_owned);
        let heads_in_name = hook_name.as_deref().is_some_and(|name| name.ends_with(".hook_z"));
        Ok(Self {
            origin: inside.map_or_else(|| source.to_owned(), |inside| format!("{source}/{inside}")),
            activation: config.activation(features, &read)?,
            normalisation: config.normalisation()?,
            subtracts_decoder_bias: config.truth("apply_b_dec_to_input", true),
            centred: config
                .field("model_from_pretrained_kwargs")
                .and_then(|arguments| arguments.get("center_writing_weights"))
                .and_then(Value::as_bool)
                .unwrap_or(false),
            by_heads: config.text("reshape_activations") == Some("hook_z") || heads_in_name,
            model_name: config.text("model_name").map(str::to_owned),
            hook_name,
            encoder: read("W_enc", &[width, features])?,
            encoder_bias: read("b_enc", &[features])?,
            decoder: read("W_dec", &[features, width])?,
            decoder_bias: read("b_dec", &[width])?,
        })
    }

    /// Features.
    #[must_use]
    pub fn features(&self) -> usize {
        self.encoder_bias.shape.first().copied().unwrap_or(0)
    }

    /// The width of its input.
    #[must_use]
    pub fn width(&self) -> usize {
        self.decoder_bias.shape.first().copied().unwrap_or(0)
    }

    /// The hook point of this model that it was trained on.
    ///
    /// # Errors
    /// [`Error::Misfit`] where it says none, or the model has none that is the same.
    pub fn hook_point(&self, spec: &ModelSpec) -> Result<String> {
        let misfit =
            |reason: String| Error::Misfit { origin: self.origin.clone(), model: spec.name.clone(), reason };
        let Some(name) = &self.hook_name else {
            return Err(misfit("it does not say of which hook point it is: name one".to_owned()));
        };
        hook_point_of_transformer_lens(name, spec).ok_or_else(|| {
            misfit(format!("it is of `{name}`, and there is no one hook point that is the same: name one"))
        })
    }
}

/// A configuration: fields stand at its top, or, in newer versions, some of them in `metadata`.
struct Config<'a> {
    path: &'a Path,
    json: Value,
}

impl Config<'_> {
    fn field(&self, name: &str) -> Option<&Value> {
        let inner = || self.json.get("metadata").and_then(|metadata| metadata.get(name));
        self.json.get(name).or_else(inner).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.field(name).and_then(Value::as_str)
    }

    fn truth(&self, name: &str, default: bool) -> bool {
        self.field(name).and_then(Value::as_bool).unwrap_or(default)
    }

    fn size(&self, name: &str) -> Result<usize> {
        let size = self.field(name).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
        size.filter(|size| *size > 0).ok_or_else(|| self.malformed(format!("`{name}` is not a size above 0")))
    }

    fn malformed(&self, reason: String) -> Error {
        Error::malformed(self.path, "autoencoder configuration", reason)
    }

    fn unsupported(&self, what: String, hint: &str) -> Error {
        Error::Unsupported { origin: self.path.display().to_string(), what, hint: hint.to_owned() }
    }

    fn refuse_what_is_not_known(&self) -> Result<()> {
        for (field, what) in [
            ("finetuning_scaling_factor", "a factor of its own for each feature"),
            ("rescale_acts_by_decoder_norm", "features scaled by their decoder's norm"),
        ] {
            if self.truth(field, false) {
                let hint = "SAELens folds it into the weights when it saves for inference";
                return Err(self.unsupported(format!("{what} (`{field}`)"), hint));
            }
        }
        if self.field("hook_head_index").is_some() {
            let hint = "put it on by hand: read the hook point's head, and encode that";
            return Err(self.unsupported("an autoencoder of one head (`hook_head_index`)".to_owned(), hint));
        }
        match self.text("reshape_activations") {
            None | Some("none" | "hook_z") => Ok(()),
            Some(other) => {
                Err(self.unsupported(format!("`reshape_activations` {other}"), "`none` and `hook_z` are"))
            }
        }
    }

    fn normalisation(&self) -> Result<InputNormalisation> {
        match self.field("normalize_activations") {
            None => Ok(InputNormalisation::None),
            // A factor that training found is folded into the weights when they are saved.
            Some(Value::String(text)) if text == "none" || text == "expected_average_only_in" => {
                Ok(InputNormalisation::None)
            }
            Some(Value::String(text)) if text == "layer_norm" => Ok(InputNormalisation::LayerNorm),
            Some(Value::String(text)) if text == "constant_norm_rescale" => {
                Ok(InputNormalisation::ConstantNorm)
            }
            Some(Value::Bool(false)) => Ok(InputNormalisation::None),
            Some(other) => Err(self.unsupported(
                format!("`normalize_activations` {other}"),
                "`none`, `layer_norm` and `constant_norm_rescale` are",
            )),
        }
    }

    fn activation(
        &self,
        features: usize,
        read: &dyn Fn(&str, &[usize]) -> Result<Array>,
    ) -> Result<FeatureActivation> {
        let function = self.text("activation_fn_str").or_else(|| self.text("activation_fn"));
        match (self.text("architecture").unwrap_or("standard"), function) {
            ("jumprelu", _) => Ok(FeatureActivation::JumpRelu(read("threshold", &[features])?)),
            ("topk", _) | ("standard", Some("topk")) => {
                let inside = self.field("activation_fn_kwargs").and_then(|arguments| arguments.get("k"));
                let k = self.field("k").or(inside).and_then(Value::as_u64);
                let k = k.and_then(|k| usize::try_from(k).ok()).filter(|k| (1..=features).contains(k));
                let k = k.ok_or_else(|| {
                    self.malformed(format!("`k` of its top-k is not a number from 1 to {features}"))
                })?;
                Ok(FeatureActivation::TopK(k))
            }
            ("standard", None | Some("relu")) => Ok(FeatureActivation::Relu),
            ("standard", Some(other)) => {
                Err(self.unsupported(format!("the activation function {other}"), "relu and topk are"))
            }
            (other, _) => Err(self.unsupported(
                format!("the architecture {other}"),
                "standard, jumprelu (as batch top-k and matryoshka autoencoders are saved) and topk are",
            )),
        }
    }
}
