//! Sparse autoencoders.

use pellucid_engine::Tensor;
use pellucid_models::adapters::{FeatureActivation, InputNormalisation, SparseAutoencoder as Loaded};

use super::tensor;
use crate::error::Result;
use crate::invoke::Invoke;
use crate::model::Model;
use crate::trace::Trace;
use crate::value::Value;

/// A sparse autoencoder in the layout of the SAELens library.
///
/// ```
/// use pellucid::{Model, SparseAutoencoder, s};
///
/// # fn main() -> pellucid::Result<()> {
/// let model = Model::bundled()?;
/// let autoencoder = SparseAutoencoder::open("../../models/tiny-gpt2/sae")?; // a folder, or a hub id
///
/// let trace = model.trace();
/// let values = autoencoder.values(&trace)?;
/// // What it reads where it was trained, the model left as it is.
/// let plain = trace.invoke("The movie was awful. I");
/// let (strength, feature) = values.read(&plain).features.index(s![0, -1]).topk(1, -1);
/// feature.save("feature");
/// strength.save("strength");
/// // The same without the strongest feature of the last token, the error kept.
/// let ablated = trace.invoke("The movie was awful. I");
/// values.splice(&ablated, |splice| {
///     splice.features = splice.features.index_put(s![.., -1, feature], 0.0);
/// });
/// ablated.logits().index(s![0, -1]).save("logits");
///
/// let results = trace.run()?;
/// assert!(results["strength"].to_vec_f32()?[0] > 0.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SparseAutoencoder {
    loaded: Loaded,
}

impl SparseAutoencoder {
    /// Opens an autoencoder: a folder with `cfg.json` and `sae_weights.safetensors`, or a hub id.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model): what is missing or damaged, or an architecture that is not known.
    pub fn open(source: &str) -> Result<SparseAutoencoder> {
        Ok(SparseAutoencoder { loaded: Loaded::open(source, None)? })
    }

    /// One of many in a folder or a hub's repository: `open_in("jbloom/GPT2-Small-SAEs-Reformatted",
    /// "blocks.8.hook_resid_pre")`.
    ///
    /// # Errors
    /// Those of [`SparseAutoencoder::open`].
    pub fn open_in(source: &str, inside: &str) -> Result<SparseAutoencoder> {
        Ok(SparseAutoencoder { loaded: Loaded::open(source, Some(inside))? })
    }

    /// How many features it has.
    pub fn features(&self) -> usize {
        self.loaded.features()
    }

    /// The width of what it reads.
    pub fn width(&self) -> usize {
        self.loaded.width()
    }

    /// The hook point that it was trained on, under this model's names.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) where it says none, or the model has none that is the same.
    pub fn hook_point(&self, model: &Model) -> Result<String> {
        Ok(self.loaded.hook_point(model.spec())?)
    }

    /// Its weights as values of a trace, at the hook point that it was trained on.
    ///
    /// # Errors
    /// Those of [`SparseAutoencoder::hook_point`].
    #[track_caller]
    pub fn values(&self, trace: &Trace) -> Result<AutoencoderValues> {
        let hook = self.hook_point(trace.session().model())?;
        self.values_at(trace, &hook)
    }

    /// Its weights as values of a trace, at another hook point.
    ///
    /// # Errors
    /// Where a value cannot be made, which only a lack of memory causes.
    #[track_caller]
    pub fn values_at(&self, trace: &Trace, hook: &str) -> Result<AutoencoderValues> {
        let parts = self.parts()?;
        Ok(AutoencoderValues {
            hook: hook.to_owned(),
            encoder: trace.constant(&parts.encoder),
            encoder_bias: trace.constant(&parts.encoder_bias),
            decoder: trace.constant(&parts.decoder),
            decoder_bias: trace.constant(&parts.decoder_bias),
            threshold: parts.threshold.map(|threshold| trace.constant(&threshold)),
            top_k: parts.top_k,
            normalisation: parts.normalisation,
            subtracts_decoder_bias: parts.subtracts_decoder_bias,
            centred: parts.centred,
            by_heads: parts.by_heads,
            width: self.width(),
        })
    }

    /// Its weights, and what it does beside them.
    ///
    /// # Errors
    /// Where a tensor cannot be made, which only a lack of memory causes.
    pub fn parts(&self) -> Result<AutoencoderParts> {
        let loaded = &self.loaded;
        Ok(AutoencoderParts {
            encoder: tensor(&loaded.encoder)?,
            encoder_bias: tensor(&loaded.encoder_bias)?,
            decoder: tensor(&loaded.decoder)?,
            decoder_bias: tensor(&loaded.decoder_bias)?,
            threshold: match &loaded.activation {
                FeatureActivation::JumpRelu(threshold) => Some(tensor(threshold)?),
                _ => None,
            },
            top_k: match loaded.activation {
                FeatureActivation::TopK(k) => i64::try_from(k).ok(),
                _ => None,
            },
            normalisation: loaded.normalisation,
            subtracts_decoder_bias: loaded.subtracts_decoder_bias,
            centred: loaded.centred,
            by_heads: loaded.by_heads,
        })
    }
}

/// An autoencoder's weights, and what it does beside them.
#[derive(Clone, Debug)]
pub struct AutoencoderParts {
    /// `W_enc`: `[width, features]`.
    pub encoder: Tensor,
    /// `b_enc`: `[features]`.
    pub encoder_bias: Tensor,
    /// `W_dec`: `[features, width]`; its rows are the features' directions.
    pub decoder: Tensor,
    /// `b_dec`: `[width]`.
    pub decoder_bias: Tensor,
    /// Of a jump-ReLU: `[features]`.
    pub threshold: Option<Tensor>,
    /// How many features are kept at each position, the largest; none: all.
    pub top_k: Option<i64>,
    /// What is done to an input before it is encoded, and undone after it is decoded.
    pub normalisation: InputNormalisation,
    /// Whether the decoder's bias is taken from the input.
    pub subtracts_decoder_bias: bool,
    /// Whether the input's mean over its width is taken away first.
    pub centred: bool,
    /// Whether its input is `[…, heads, head size]`, seen as one dimension.
    pub by_heads: bool,
}

/// The values of an autoencoder in a trace.
#[derive(Clone, Debug)]
pub struct AutoencoderValues {
    hook: String,
    /// `W_enc`: `[width, features]`.
    pub encoder: Value,
    /// `b_enc`: `[features]`.
    pub encoder_bias: Value,
    /// `W_dec`: `[features, width]`; its rows are the features' directions.
    pub decoder: Value,
    /// `b_dec`: `[width]`.
    pub decoder_bias: Value,
    /// Of a jump-ReLU: `[features]`.
    pub threshold: Option<Value>,
    top_k: Option<i64>,
    normalisation: InputNormalisation,
    subtracts_decoder_bias: bool,
    centred: bool,
    by_heads: bool,
    width: usize,
}

/// An autoencoder at a hook point: what it says there, and what it leaves out.
#[derive(Clone, Debug)]
pub struct Splice {
    /// The features' strengths, `[prompts, length, features]`.
    pub features: Value,
    /// What they do not say: the hook point's value less what is decoded from them, in its shape.
    pub error: Value,
}

/// How an input was normalised.
enum Normalised {
    Plain,
    /// Mean and deviation.
    Layer(Value, Value),
    /// The factor.
    Constant(Value),
}

impl AutoencoderValues {
    /// The hook point where it stands.
    pub fn hook_point(&self) -> &str {
        &self.hook
    }

    /// What it says of an invoke. The model goes on as it would.
    #[track_caller]
    pub fn read(&self, invoke: &Invoke) -> Splice {
        let value = invoke.get(&self.hook);
        let (features, normalised) = self.encode(&value);
        let error = &value - self.decode(&features, &normalised, &value);
        Splice { features, error }
    }

    /// Puts it into an invoke: the hook point becomes what is decoded from the features, plus the error. `change` may
    /// replace both before; unchanged, the model goes on as it would but for rounding.
    #[track_caller]
    pub fn splice(&self, invoke: &Invoke, change: impl FnOnce(&mut Splice)) -> Splice {
        let value = invoke.get(&self.hook);
        let (features, normalised) = self.encode(&value);
        let error = &value - self.decode(&features, &normalised, &value);
        let mut splice = Splice { features, error };
        change(&mut splice);
        let decoded = self.decode(&splice.features, &normalised, &value);
        invoke.set(&self.hook, &(decoded + &splice.error));
        splice
    }

    #[track_caller]
    fn encode(&self, value: &Value) -> (Value, Normalised) {
        let mut x = if self.by_heads { value.flatten(-2, -1) } else { value.clone() };
        if self.centred {
            x = &x - x.mean_keepdim(-1);
        }
        let normalised = match self.normalisation {
            InputNormalisation::None => Normalised::Plain,
            InputNormalisation::LayerNorm => {
                let mean = x.mean_keepdim(-1);
                x = &x - &mean;
                let deviation = x.std_keepdim(-1, 1.0);
                x = &x / (&deviation + 1e-5);
                Normalised::Layer(mean, deviation)
            }
            InputNormalisation::ConstantNorm => {
                let norm = x.p_norm(2.0, -1).unsqueeze(-1);
                let factor = (self.width as f64).sqrt() / &norm;
                x = &x * &factor;
                Normalised::Constant(factor)
            }
        };
        if self.subtracts_decoder_bias {
            x = &x - &self.decoder_bias;
        }
        let before = x.matmul(&self.encoder) + &self.encoder_bias;
        let positive = before.relu();
        let features = match (&self.threshold, self.top_k) {
            (Some(threshold), _) => before.gt(threshold).where_cond(&positive, 0.0),
            (None, Some(k)) => {
                let (largest, places) = positive.topk(k, -1);
                (&positive * 0.0).scatter(-1, &places, &largest)
            }
            (None, None) => positive,
        };
        (features, normalised)
    }

    /// What the features say, in the shape of `like`.
    #[track_caller]
    fn decode(&self, features: &Value, normalised: &Normalised, like: &Value) -> Value {
        let mut x = features.matmul(&self.decoder) + &self.decoder_bias;
        match normalised {
            Normalised::Plain => {}
            Normalised::Layer(mean, deviation) => x = x * deviation + mean,
            Normalised::Constant(factor) => x = x / factor,
        }
        if self.by_heads { x.unflatten(-1, [like.size(-2), like.size(-1)]) } else { x }
    }
}
