//! A loaded model: its blueprint, with weights.

use std::sync::Arc;

use pellucid_graph::ModelSpec;
use pellucid_graph::check::SpecIndex;
use pellucid_kernels::philox::Stream;
use pellucid_kernels::{PackedMatrix, Precision};
use serde_json::Value;

use crate::chat_template::ChatTemplate;
use crate::config::{DecoderConfig, Reader};
use crate::files::ModelFiles;
use crate::hub::Settings;
use crate::model_weight::{Forecast, ModelWeight, load};
use crate::parameter::{Numbers, Parameter};
use crate::spec::{Blueprint, blueprint};
use crate::stage::{StageList, WeightId, WeightSpec};
use crate::tokenizer::Tokenizer;
use crate::weights::Checkpoint;
use crate::weights::Source;
use crate::{Error, Result};

/// How to load a model.
#[derive(Clone)]
pub struct ModelOptions {
    /// The number type of the linear layers' weights in memory; `f32` by default. With `bf16` weights are half the
    /// size, and products round their inputs to bf16; sums are f32 either way. With `quantised`, weights that a GGUF file has
    /// in blocks of whole numbers stay in them, and results are those of `f32` to the bit; all others are held as `f32`.
    pub precision: Precision,
    /// The revision of a model on a hub: a branch, a tag or a commit. A revision in the model's name goes before it.
    pub revision: Option<String>,
    /// Told of progress, often.
    pub progress: Option<ProgressListener>,
}

/// Who is told of progress.
pub type ProgressListener = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

impl Default for ModelOptions {
    fn default() -> Self {
        Self { precision: Precision::F32, revision: None, progress: None }
    }
}

impl ModelOptions {
    /// Who is told of progress shows it: no bar beside that.
    fn hub_settings(&self) -> Settings {
        let settings = Settings::from_environment();
        let progress = settings.progress && self.progress.is_none();
        Settings { listener: self.progress.clone(), progress, ..settings }
    }
}

impl std::fmt::Debug for ModelOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ModelOptions")
            .field("precision", &self.precision)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// How far something that takes long has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What is being done: `loading weights`, or the file that is downloaded.
    pub what: &'a str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, where known.
    pub total: Option<u64>,
}

/// Bytes of an embedding from which its file's pages are given back after use.
const LARGE_TABLE: usize = 16 << 20;

/// How the names end of buffers that stand in checkpoints and are computed here: causal masks and what they mask with, and
/// rotary frequencies.
const BUFFERS: [&str; 6] = [
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
    ".rotary_emb.inv_freq",
    "rope_freqs.weight",
];
/// The unembedding's names, which a model may have although it uses its embedding.
const UNEMBEDDINGS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];

/// A model with its weights, ready for an engine.
#[derive(Debug)]
pub struct Model {
    blueprint: Blueprint,
    config: Value,
    precision: Precision,
    forecast: Forecast,
    weights: Vec<ModelWeight>,
    leftover: Vec<String>,
    tokenizer: Option<Tokenizer>,
    chat_template: Option<ChatTemplate>,
}

impl Model {
    /// Opens a folder in Hugging Face's layout, a GGUF file, or a model of a hub by its name, as [`Source::parse`] tells
    /// them apart.
    ///
    /// # Errors
    /// Where there is no such model, its family is not supported, or a weight is missing or of another shape.
    pub fn open(source: &str, options: &ModelOptions) -> Result<Self> {
        Self::from_files(Self::source(source, options)?.open(&options.hub_settings())?, options)
    }

    /// A model without its weights: enough to tokenise, and to check and plan programs, which can then be run on the
    /// model itself. Running on it fails.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn outline(source: &str, options: &ModelOptions) -> Result<Self> {
        let files = Self::source(source, options)?.outline(&options.hub_settings())?;
        let mut blueprint = blueprint(&files.name, &files.config, files.generation_config.as_ref())?;
        blueprint.spec.revision = files.revision;
        let forecast = forecast(&files.checkpoint, &blueprint, options.precision)?;
        Ok(Self {
            blueprint,
            config: files.config,
            precision: options.precision,
            forecast,
            weights: Vec::new(),
            leftover: Vec::new(),
            tokenizer: files.tokenizer,
            chat_template: files.chat_template,
        })
    }

    /// Whether it was opened without its weights.
    #[must_use]
    pub fn is_outline(&self) -> bool {
        self.weights.is_empty()
    }

    fn source(source: &str, options: &ModelOptions) -> Result<Source> {
        let mut parsed = Source::parse(source)?;
        if let (Source::Hub(_), Some(revision)) = (&parsed, &options.revision)
            && !source.contains('@')
        {
            parsed = Source::parse(&format!("{source}@{revision}"))?;
        }
        Ok(parsed)
    }

    /// Loads a model from its files.
    ///
    /// # Errors
    /// Where its family is not supported, or a weight is missing or of another shape.
    pub fn from_files(files: ModelFiles, options: &ModelOptions) -> Result<Self> {
        let mut blueprint = blueprint(&files.name, &files.config, files.generation_config.as_ref())?;
        blueprint.spec.revision = files.revision;
        let forecast = forecast(&files.checkpoint, &blueprint, options.precision)?;
        let mut used = std::collections::BTreeSet::new();
        let mut numbers = Vec::with_capacity(blueprint.stages.weights.len());
        for weight in &blueprint.stages.weights {
            let name = stored_name(&files.checkpoint, &blueprint, weight);
            numbers.push(Numbers::Stored(files.checkpoint.expect(&name, &weight.shape)?));
            used.insert(name);
        }
        let unused = files.checkpoint.names().filter(|name| !used.contains(*name));
        let leftover = unused.map(str::to_owned).collect();
        let weights = load(&blueprint.stages, numbers, options);
        Ok(Self {
            blueprint,
            config: files.config,
            precision: options.precision,
            forecast,
            weights,
            leftover,
            tokenizer: files.tokenizer,
            chat_template: files.chat_template,
        })
    }

    /// A model of this configuration (the contents of a `config.json`) with random weights, the same for the same
    /// seed: for tests and benchmarks. Weights and biases are uniform with the configuration's `initializer_range` as
    /// standard deviation, norms' weights the same about 1.
    ///
    /// # Errors
    /// Where the family or an option is not supported.
    pub fn random(config: Value, seed: u64, options: &ModelOptions) -> Result<Self> {
        let blueprint = blueprint("random", &config, None)?;
        let nothing = Checkpoint::empty("a model of random weights".to_owned());
        let forecast = forecast(&nothing, &blueprint, options.precision)?;
        let deviation = Reader::new(&config).float_or("initializer_range", 0.02)?;
        let one = 1.0 - blueprint.config.norm.weight_offset;
        let numbers = blueprint.stages.weights.iter().enumerate().map(|(index, weight)| {
            let norm = weight.shape.len() == 1 && weight.name.ends_with(".weight");
            let mean = if norm { one } else { 0.0 };
            Numbers::Random { stream: Stream { key: seed, stream: index as u64 }, mean, deviation }
        });
        let weights = load(&blueprint.stages, numbers.collect(), options);
        Ok(Self {
            blueprint,
            config,
            precision: options.precision,
            forecast,
            weights,
            leftover: Vec::new(),
            tokenizer: None,
            chat_template: None,
        })
    }

    /// What the model publishes of itself.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.blueprint.spec
    }

    /// The model as a list.
    #[must_use]
    pub fn stages(&self) -> &StageList {
        &self.blueprint.stages
    }

    /// The decoder's configuration.
    #[must_use]
    pub fn decoder_config(&self) -> &DecoderConfig {
        &self.blueprint.config
    }

    /// The contents of `config.json`.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The number type of the linear layers' weights: `f32`, `bf16` or `quantised`.
    #[must_use]
    pub fn precision(&self) -> &'static str {
        match self.precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Quantised => "quantised",
        }
    }

    /// A linear layer's weight, packed; `None` for a weight that no linear layer has.
    #[must_use]
    pub fn packed(&self, weight: WeightId) -> Option<&PackedMatrix> {
        self.weight(weight)?.packed()
    }

    /// A linear layer's weight for the way back, from outputs to inputs; packed when it is first asked for, and counted
    /// in [`Model::weight_bytes`] from then on. In the model's own precision: with bf16 weights, a gradient is rounded to
    /// bf16 where it enters a product, as values are on the way forward, and memory grows by half of what f32 would take. Quantised weights stay so, in as much memory again.
    #[must_use]
    pub fn packed_transposed(&self, weight: WeightId) -> Option<&PackedMatrix> {
        self.weight(weight)?.packed_transposed()
    }

    /// A weight of one dimension: a bias, a norm's weight.
    #[must_use]
    pub fn vector(&self, weight: WeightId) -> Option<&[f32]> {
        self.weight(weight)?.vector()
    }

    /// A weight.
    #[must_use]
    pub fn weight(&self, weight: WeightId) -> Option<&ModelWeight> {
        self.weights.get(weight.0 as usize)
    }

    /// Other numbers, row-major, in a weight's place, in the forms that kernels take; `None` where there is no such
    /// weight, or it has another number of elements. The model itself stays as it is.
    #[must_use]
    pub fn replaced(&self, weight: WeightId, values: Vec<f32>) -> Option<ModelWeight> {
        let own = self.weight(weight)?;
        let fits = own.shape.iter().product::<usize>() == values.len();
        fits.then(|| ModelWeight::new(&own.shape, Numbers::Given(values), own.layout, self.precision))
    }

    /// Lets the system take back the pages of a large embedding's file that its rows were read from: each row read brings
    /// its neighbours' pages along. They are read again when they are next touched, from the system's cache most often.
    pub fn release_table(&self, table: WeightId) {
        if let Some(ModelWeight { numbers: Numbers::Stored(tensor), .. }) = self.weight(table)
            && tensor.bytes().len() >= LARGE_TABLE
        {
            tensor.release_pages();
        }
    }

    /// A weight under transformers' name, as it is stored. The name of a tied unembedding's is the embedding's too.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<Parameter<'_>> {
        let index = SpecIndex::new(self.spec()).parameter(name)?;
        Some(self.weights.get(index)?.parameter())
    }

    /// Tensors of the checkpoint that the model does not use: buffers of old checkpoints, say.
    #[must_use]
    pub fn leftover(&self) -> &[String] {
        &self.leftover
    }

    /// Those leftover tensors that no habit explains: without buffers that older versions of transformers saved with the weights, rotary
    /// factors that were read as configuration, and the unembedding of a model that uses its embedding for it. What is left may
    /// be a sign that the configuration is another model's.
    pub fn unexplained(&self) -> impl Iterator<Item = &str> {
        let tied = self.blueprint.config.tied;
        let is_buffer = |name: &str| BUFFERS.iter().any(|buffer| name.ends_with(buffer));
        let is_unembedding = move |name: &str| tied && UNEMBEDDINGS.contains(&name);
        self.leftover.iter().map(String::as_str).filter(move |name| !is_buffer(name) && !is_unembedding(name))
    }

    /// The tokenizer, if the model came with one.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// How many token ids a generation chooses among, from 0 on: those that the tokenizer has. A vocabulary that is padded
    /// has more rows, which stand for nothing. Without a tokenizer, all rows.
    #[must_use]
    pub fn drawn_tokens(&self) -> usize {
        let rows = self.decoder_config().vocabulary;
        let known = self.tokenizer.as_ref().map(Tokenizer::id_limit).filter(|&known| known > 0);
        known.map_or(rows, |known| known.min(rows))
    }

    /// The chat template, if the model came with one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// The bytes that packed weights and vectors take in memory.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.weights.iter().map(ModelWeight::bytes).sum()
    }

    /// About the bytes that weights take in memory once they are loaded; of a model without its weights too.
    #[must_use]
    pub fn expected_weight_bytes(&self) -> u64 {
        self.forecast.bytes
    }
}

/// The name under which a checkpoint has a weight: transformers' own, that without the base model's prefix, or that
/// of before a renaming. Where it has none of them, transformers' own, for the message.
fn stored_name(checkpoint: &Checkpoint, blueprint: &Blueprint, weight: &WeightSpec) -> String {
    let family = blueprint.family;
    let renamed = family.renamed.iter().find(|(_, ours)| *ours == weight.name).map(|(theirs, _)| *theirs);
    let short = weight.name.strip_prefix(family.prefix);
    let names = [Some(weight.name.as_str()), short, renamed];
    let stored = names.into_iter().flatten().find(|name| checkpoint.contains(name));
    stored.unwrap_or(&weight.name).to_owned()
}

/// What loading a checkpoint comes to. Where weights are to stay quantised, some must be.
fn forecast(checkpoint: &Checkpoint, blueprint: &Blueprint, precision: Precision) -> Result<Forecast> {
    let stored = |weight: &WeightSpec| checkpoint.get(&stored_name(checkpoint, blueprint, weight)).ok();
    let forecast = Forecast::new(&blueprint.stages, precision, stored);
    if precision == Precision::Quantised && !forecast.quantised {
        return Err(Error::NotQuantised { origin: checkpoint.origin().to_owned() });
    }
    Ok(forecast)
}
