//! A loaded model: its blueprint, with weights.

use std::sync::{Arc, OnceLock};

use pellucid_graph::ModelSpec;
use pellucid_graph::check::SpecIndex;
use pellucid_kernels::philox::Stream;
use pellucid_kernels::{PackedMatrix, Precision, WeightLayout};
use serde_json::Value;

use crate::Result;
use crate::chat_template::ChatTemplate;
use crate::config::{DecoderConfig, Reader};
use crate::files::ModelFiles;
use crate::hub::Settings;
use crate::parameter::{Numbers, Parameter};
use crate::spec::{Blueprint, blueprint};
use crate::stage::{Kernel, LinearLayout, StageList, WeightId, WeightSpec};
use crate::tokenizer::Tokenizer;
use crate::weights::Checkpoint;
use crate::weights::Source;

/// How to load a model.
#[derive(Clone)]
pub struct ModelOptions {
    /// The number type of the linear layers' weights in memory; `f32` by default. With `bf16` weights are half the
    /// size, and products round their inputs to bf16; sums are f32 either way.
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
    weights: Vec<ModelWeight>,
    leftover: Vec<String>,
    tokenizer: Option<Tokenizer>,
    chat_template: Option<ChatTemplate>,
}

/// One weight in the forms that kernels take: a model's own, or one that a program puts in its place.
#[derive(Debug)]
pub struct ModelWeight {
    shape: Vec<usize>,
    numbers: Numbers,
    precision: Precision,
    /// How linear layers read it, if any does.
    layout: Option<WeightLayout>,
    packed: Option<PackedMatrix>,
    /// Made when a gradient first flows through it.
    transposed: OnceLock<PackedMatrix>,
    /// A norm's weight, a bias.
    vector: Option<Vec<f32>>,
}

impl ModelWeight {
    fn new(shape: &[usize], numbers: Numbers, layout: Option<WeightLayout>, precision: Precision) -> Self {
        let parameter = Parameter { shape, numbers: &numbers };
        let packed = layout.map(|layout| parameter.pack(layout, precision));
        let vector = (shape.len() == 1).then(|| parameter.to_f32());
        let transposed = OnceLock::new();
        Self { shape: shape.to_vec(), numbers, precision, layout, packed, transposed, vector }
    }

    /// The weight as it is stored, or as it was given.
    #[must_use]
    pub fn parameter(&self) -> Parameter<'_> {
        Parameter { shape: &self.shape, numbers: &self.numbers }
    }

    /// Packed for linear layers; `None` for a weight that no linear layer has.
    #[must_use]
    pub fn packed(&self) -> Option<&PackedMatrix> {
        self.packed.as_ref()
    }

    /// Packed for the way back, from outputs to inputs, when it is first asked for.
    #[must_use]
    pub fn packed_transposed(&self) -> Option<&PackedMatrix> {
        let layout = match self.layout? {
            WeightLayout::OutputMajor => WeightLayout::InputMajor,
            WeightLayout::InputMajor => WeightLayout::OutputMajor,
        };
        Some(self.transposed.get_or_init(|| self.parameter().pack(layout, self.precision)))
    }

    /// The numbers of a weight of one dimension.
    #[must_use]
    pub fn vector(&self) -> Option<&[f32]> {
        self.vector.as_deref()
    }

    /// Rows and width, of a weight of two dimensions.
    #[must_use]
    pub fn table_shape(&self) -> Option<(usize, usize)> {
        match self.shape.as_slice() {
            [rows, width] => Some((*rows, *width)),
            _ => None,
        }
    }

    /// Copies a row out.
    ///
    /// # Panics
    /// Where there is no such row, or `values` is not as long as a row.
    pub fn table_row(&self, row: usize, values: &mut [f32]) {
        values.copy_from_slice(&self.parameter().rows_to_f32(row..row + 1));
    }

    /// The bytes that its packed forms and its numbers take in memory; what is mapped from a file takes none.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let packed = self.packed.as_ref().map_or(0, PackedMatrix::size_in_bytes);
        let transposed = self.transposed.get().map_or(0, PackedMatrix::size_in_bytes);
        let given = if let Numbers::Given(values) = &self.numbers { 4 * values.len() } else { 0 };
        packed + transposed + given + self.vector.as_ref().map_or(0, |vector| 4 * vector.len())
    }
}

impl Model {
    /// Opens a folder in Hugging Face's layout, a GGUF file, or a model of a hub by its name, as [`Source::parse`] tells
    /// them apart.
    ///
    /// # Errors
    /// Where there is no such model, its family is not supported, or a weight is missing or of another shape.
    pub fn open(source: &str, options: &ModelOptions) -> Result<Self> {
        Self::from_files(Self::source(source, options)?.open(&Settings::from_environment())?, options)
    }

    /// A model without its weights: enough to tokenise, and to check and plan programs, which can then be run on the
    /// model itself. Running on it fails.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn outline(source: &str, options: &ModelOptions) -> Result<Self> {
        let files = Self::source(source, options)?.outline(&Settings::from_environment())?;
        let mut blueprint = blueprint(&files.name, &files.config, files.generation_config.as_ref())?;
        blueprint.spec.revision = files.revision;
        Ok(Self {
            blueprint,
            config: files.config,
            precision: options.precision,
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

    /// The number type of the linear layers' weights: `f32` or `bf16`.
    #[must_use]
    pub fn precision(&self) -> &'static str {
        match self.precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }

    /// A linear layer's weight, packed; `None` for a weight that no linear layer has.
    #[must_use]
    pub fn packed(&self, weight: WeightId) -> Option<&PackedMatrix> {
        self.weight(weight)?.packed()
    }

    /// A linear layer's weight for the way back, from outputs to inputs; packed when it is first asked for, and counted
    /// in [`Model::weight_bytes`] from then on. In the model's own precision: with bf16 weights, a gradient is rounded to
    /// bf16 where it enters a product, as values are on the way forward, and memory grows by half of what f32 would take.
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

/// Packs what linear layers read, and reads what is small.
fn load(stages: &StageList, numbers: Vec<Numbers>, options: &ModelOptions) -> Vec<ModelWeight> {
    let mut layouts = vec![None; numbers.len()];
    for stage in &stages.stages {
        if let Kernel::Linear { weight, layout, .. } = &stage.kernel {
            layouts[weight.0 as usize] = Some(match layout {
                LinearLayout::OutputInput => WeightLayout::OutputMajor,
                LinearLayout::InputOutput => WeightLayout::InputMajor,
            });
        }
    }
    let bytes = |weight: &WeightSpec| 4 * weight.shape.iter().product::<usize>() as u64;
    let total = stages.weights.iter().map(bytes).sum();
    let mut done = 0;
    let mut report = |bytes: u64| {
        done += bytes;
        if let Some(progress) = &options.progress {
            progress(Progress { what: "loading weights", done, total: Some(total) });
        }
    };
    report(0);
    let weights = stages.weights.iter().zip(numbers).zip(layouts).map(|((spec, numbers), layout)| {
        let weight = ModelWeight::new(&spec.shape, numbers, layout, options.precision);
        report(bytes(spec));
        weight
    });
    let weights: Vec<ModelWeight> = weights.collect();
    for weight in &weights {
        if let Numbers::Stored(tensor) = &weight.numbers {
            tensor.release_file();
        }
    }
    weights
}
