//! LoRA adapters in the layout of the `peft` library: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! A linear layer with an adapter gives `base(x) + scale · B (A x)`, with `A` `[rank, in]`, `B` `[out, rank]` and the scale
//! alpha / rank, or alpha / √rank where it is rank-stabilised (Hu et al. 2021; Kalajdzievski 2023). Both matrices lie as a
//! linear layer's whatever the base layer's own layout, so `fan_in_fan_out` changes nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pellucid_graph::ModelSpec;
use pellucid_graph::spec::ModuleSpec;
use pellucid_kernels::philox::Stream;
use serde_json::{Value, json};

use super::{Array, find_folder};
use crate::hub::Settings;
use crate::tokenizer::read_json;
use crate::weights::Checkpoint;
use crate::weights::near::near_names;
use crate::{Error, Result};

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// What every name in an adapter's file begins with.
const PREFIX: &str = "base_model.model.";
/// The largest rank, and the most modules, of an adapter that is made here.
const MAXIMUM_RANK: usize = 65_536;

/// Variants of LoRA that compute something else, by the configuration's field that asks for them.
const VARIANTS: &[(&str, &str)] = &[
    ("use_dora", "DoRA"),
    ("use_qalora", "QALoRA"),
    ("use_bdlora", "BD-LoRA"),
    ("lora_bias", "a bias beside `lora_B`"),
    ("modules_to_save", "whole modules saved beside the adapter"),
    ("layer_replication", "layer replication"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("trainable_token_indices", "trained tokens"),
    ("target_parameters", "an adapter of parameters that are no layer's weight"),
    ("arrow_config", "Arrow's routing"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "MonteCLoRA"),
];

/// Ways of beginning that change the base model's weights, so that the adapter alone does not say what was trained.
const CHANGED_BASES: &[&str] = &["pissa", "olora", "corda", "loftq", "lora_ga"];

/// An adapter's settings, under `peft`'s names for them.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraSettings {
    /// `r`: the rank, unless a module has its own.
    pub rank: usize,
    /// `lora_alpha`.
    pub alpha: f64,
    /// `use_rslora`: whether the scale is alpha / √rank.
    pub rank_stabilised: bool,
    /// `alpha_pattern`: other alphas, by the end of a module's path.
    pub alphas: BTreeMap<String, f64>,
    /// `fan_in_fan_out`: whether the base layers are `Conv1D`s.
    pub fan_in_fan_out: bool,
    /// `base_model_name_or_path`.
    pub base_model: Option<String>,
}

impl LoraSettings {
    /// What multiplies `B (A x)` of a module.
    #[must_use]
    pub fn scale(&self, path: &str, rank: usize) -> f64 {
        let named = |pattern: &str| {
            path.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let own = self.alphas.iter().find(|(pattern, _)| named(pattern));
        let alpha = own.map_or(self.alpha, |(_, alpha)| *alpha);
        alpha / if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 }
    }
}

/// An adapter's part for one linear layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraModule {
    /// The layer's path in the model: `transformer.h.0.attn.c_attn`.
    pub path: String,
    /// `lora_A`: `[rank, in]`.
    pub a: Array,
    /// `lora_B`: `[out, rank]`.
    pub b: Array,
}

impl LoraModule {
    /// The rank.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.a.shape.first().copied().unwrap_or(0)
    }

    /// The width of what the layer takes.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.a.shape.get(1).copied().unwrap_or(0)
    }

    /// The width of what the layer gives.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.b.shape.first().copied().unwrap_or(0)
    }
}

/// A LoRA adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraAdapter {
    /// Where it comes from, for messages.
    pub origin: String,
    /// Its settings.
    pub settings: LoraSettings,
    /// Its parts, by path.
    pub modules: Vec<LoraModule>,
}

impl LoraAdapter {
    /// Opens a folder in `peft`'s layout, or such a repository of a hub.
    ///
    /// # Errors
    /// Where files are missing or damaged, or the adapter is of a variant that computes something else.
    pub fn open(source: &str) -> Result<Self> {
        Self::open_with(source, &Settings::from_environment())
    }

    /// [`LoraAdapter::open`] with a hub's settings.
    ///
    /// # Errors
    /// Those of [`LoraAdapter::open`].
    pub fn open_with(source: &str, hub: &Settings) -> Result<Self> {
        let folder = find_folder(source, None, &[CONFIG_FILE, WEIGHTS_FILE], hub)?;
        let path = folder.join(CONFIG_FILE);
        let config = read_json(&path)?.unwrap_or(Value::Null);
        let settings = read_settings(&path, &config)?;
        let checkpoint = Checkpoint::open_file(folder.join(WEIGHTS_FILE))?;
        let modules = read_modules(&checkpoint)?;
        let adapter = Self { origin: source.to_owned(), settings, modules };
        adapter.check_ranks(&path, &config)?;
        Ok(adapter)
    }

    /// A new adapter for a model, as `peft` begins one: `A` uniform within ±1/√in, the same for the same seed, and `B` zero, so
    /// that it changes nothing yet. It goes on every linear layer whose path is one of `targets` or ends with one, as in
    /// `c_attn` or `mlp.c_proj`.
    ///
    /// # Errors
    /// Where a target names no linear layer, or the rank is 0 or beyond all reason.
    pub fn new(spec: &ModelSpec, rank: usize, alpha: f64, targets: &[&str], seed: u64) -> Result<Self> {
        let name = &spec.name;
        let misfit =
            |reason: String| Error::Misfit { origin: "the adapter".to_owned(), model: name.clone(), reason };
        if rank == 0 || rank > MAXIMUM_RANK {
            return Err(misfit(format!("a rank is from 1 to {MAXIMUM_RANK}, not {rank}")));
        }
        let layers = linear_layers(spec);
        let fits = |path: &str, target: &str| {
            path.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        for target in targets {
            if !layers.iter().any(|layer| fits(&layer.path, target)) {
                let mut ends: Vec<&str> =
                    layers.iter().filter_map(|layer| layer.path.rsplit('.').next()).collect();
                ends.sort_unstable();
                ends.dedup();
                return Err(misfit(format!(
                    "no linear layer is called `{target}`; there are {}",
                    ends.join(", ")
                )));
            }
        }
        let chosen = layers.iter().filter(|layer| targets.iter().any(|target| fits(&layer.path, target)));
        let modules: Vec<LoraModule> = chosen
            .enumerate()
            .map(|(index, layer)| {
                let bound = 1.0 / (layer.inputs.max(1) as f32).sqrt();
                let mut a = vec![0.0; rank * layer.inputs];
                Stream { key: seed, stream: index as u64 }.fill_uniform(0, &mut a);
                a.iter_mut().for_each(|value| *value = (2.0 * *value - 1.0) * bound);
                LoraModule {
                    path: layer.path.clone(),
                    a: Array { shape: vec![rank, layer.inputs], numbers: a },
                    b: Array { shape: vec![layer.outputs, rank], numbers: vec![0.0; layer.outputs * rank] },
                }
            })
            .collect();
        let settings = LoraSettings {
            rank,
            alpha,
            rank_stabilised: false,
            alphas: BTreeMap::new(),
            fan_in_fan_out: layers.iter().any(|layer| layer.input_major),
            base_model: Some(name.clone()),
        };
        Ok(Self { origin: "the adapter".to_owned(), settings, modules })
    }

    /// Whether the adapter is of such a model: every layer is there, and of its sizes.
    ///
    /// # Errors
    /// [`Error::Misfit`], which names the layer and what is near it.
    pub fn check(&self, spec: &ModelSpec) -> Result<()> {
        let misfit =
            |reason: String| Error::Misfit { origin: self.origin.clone(), model: spec.name.clone(), reason };
        for module in &self.modules {
            let path = &module.path;
            let weight = format!("{path}.weight");
            let Some(parameter) = spec.parameters.iter().find(|parameter| parameter.name == weight) else {
                let near = near_names(path, spec.modules.iter().map(|module| module.path.as_str()), 1);
                let near = near.first().map_or_else(String::new, |near| format!("; the nearest is `{near}`"));
                return Err(misfit(format!("it has no linear layer `{path}`{near}")));
            };
            let (inputs, outputs) = (module.inputs() as u64, module.outputs() as u64);
            if parameter.shape != [inputs, outputs] && parameter.shape != [outputs, inputs] {
                return Err(misfit(format!(
                    "`{path}` has {inputs} inputs and {outputs} outputs here, and a weight {:?} there",
                    parameter.shape
                )));
            }
        }
        Ok(())
    }

    /// Writes the adapter in `peft`'s layout; the folder is made where it is not there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let path = folder.join(CONFIG_FILE);
        let mut text = serde_json::to_vec_pretty(&self.config())
            .map_err(|error| Error::malformed(&path, "JSON", error))?;
        text.push(b'\n');
        std::fs::write(&path, text).map_err(Error::io("write", &path))?;
        let path = folder.join(WEIGHTS_FILE);
        let mut tensors: Vec<(String, Vec<u8>, &[usize])> = Vec::new();
        for module in &self.modules {
            for (letter, array) in [("A", &module.a), ("B", &module.b)] {
                let bytes = array.numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                tensors.push((format!("{PREFIX}{}.lora_{letter}.weight", module.path), bytes, &array.shape));
            }
        }
        let mut views = Vec::with_capacity(tensors.len());
        for (name, bytes, shape) in &tensors {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes);
            views.push((name, view.map_err(|error| Error::malformed(&path, "safetensors", error))?));
        }
        // transformers and peft read it only where it says so.
        let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let bytes = safetensors::serialize(views, Some(metadata))
            .map_err(|error| Error::malformed(&path, "safetensors", error))?;
        std::fs::write(&path, bytes).map_err(Error::io("write", &path))
    }

    fn config(&self) -> Value {
        let settings = &self.settings;
        let others = self.modules.iter().filter(|module| module.rank() != settings.rank);
        let ranks: BTreeMap<&str, usize> =
            others.map(|module| (module.path.as_str(), module.rank())).collect();
        // peft matches each module against the ends of its paths; whole paths match themselves alone.
        let targets: Vec<&str> = self.modules.iter().map(|module| module.path.as_str()).collect();
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": settings.base_model,
            "r": settings.rank,
            "lora_alpha": settings.alpha,
            "use_rslora": settings.rank_stabilised,
            "rank_pattern": ranks,
            "alpha_pattern": settings.alphas,
            "fan_in_fan_out": settings.fan_in_fan_out,
            "target_modules": targets,
            "lora_dropout": 0.0,
            "bias": "none",
            "use_dora": false,
            "modules_to_save": null,
            "init_lora_weights": true,
            "inference_mode": true,
        })
    }

    /// The ranks that the configuration gives, where it gives them plainly, are those of the weights.
    fn check_ranks(&self, path: &Path, config: &Value) -> Result<()> {
        let has_own =
            config.get("rank_pattern").and_then(Value::as_object).is_some_and(|map| !map.is_empty());
        let other = self.modules.iter().find(|module| module.rank() != self.settings.rank);
        match other {
            Some(module) if !has_own => Err(Error::malformed(
                path,
                "adapter configuration",
                format!(
                    "it says r = {}, and `{}` has rank {} in {WEIGHTS_FILE}: they are not of one adapter",
                    self.settings.rank,
                    module.path,
                    module.rank()
                ),
            )),
            _ => Ok(()),
        }
    }
}

struct LinearLayer {
    path: String,
    inputs: usize,
    outputs: usize,
    input_major: bool,
}

fn linear_layers(spec: &ModelSpec) -> Vec<LinearLayer> {
    let layer = |module: &ModuleSpec| {
        let input_major = match module.class.as_str() {
            "Linear" => false,
            "Conv1D" => true,
            _ => return None,
        };
        // A tied unembedding has no weight of its own.
        let weight = format!("{}.weight", module.path);
        let parameter = spec.parameters.iter().find(|parameter| parameter.name == weight)?;
        let &[rows, columns] = parameter.shape.as_slice() else { return None };
        let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
        let (inputs, outputs) = if input_major { (rows, columns) } else { (columns, rows) };
        Some(LinearLayer { path: module.path.clone(), inputs, outputs, input_major })
    };
    spec.modules.iter().filter_map(layer).collect()
}

/// Whether a field asks for something: it is there, and neither null, false, zero nor empty.
fn is_set(config: &Value, field: &str) -> bool {
    match config.get(field) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::Bool(true)) => true,
    }
}

fn read_settings(path: &Path, config: &Value) -> Result<LoraSettings> {
    let malformed = |reason: String| Error::malformed(path, "adapter configuration", reason);
    let unsupported = |what: String, hint: &str| Error::Unsupported {
        origin: path.display().to_string(),
        what,
        hint: hint.to_owned(),
    };
    match config.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        Some(other) => {
            return Err(unsupported(format!("peft_type {other}"), "adapters of type LORA are"));
        }
        None => return Err(malformed("it has no `peft_type`".to_owned())),
    }
    for (field, what) in VARIANTS {
        if is_set(config, field) {
            return Err(unsupported(
                format!("{what} (`{field}`)"),
                "merge it into the base model with peft's `merge_and_unload`, save that and open it as a model",
            ));
        }
    }
    if config.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
        let hint =
            "merge it into the base model with peft's `merge_and_unload`, save that and open it as a model";
        return Err(unsupported("a trained bias (`bias`)".to_owned(), hint));
    }
    if let Some(start) = config.get("init_lora_weights").and_then(Value::as_str)
        && CHANGED_BASES.iter().any(|base| start.to_ascii_lowercase().starts_with(base))
    {
        return Err(unsupported(
            format!("an adapter that began with {start}, which changes the base model (`init_lora_weights`)"),
            "save it with peft's `path_initial_model_for_weight_conversion`, which makes it an adapter of the model as it was",
        ));
    }
    let rank = config.get("r").and_then(Value::as_u64).and_then(|rank| usize::try_from(rank).ok());
    let rank =
        rank.filter(|rank| *rank > 0).ok_or_else(|| malformed("`r` is not a rank above 0".to_owned()))?;
    let alpha = config.get("lora_alpha").map_or(Some(8.0), Value::as_f64);
    let alpha = alpha.ok_or_else(|| malformed("`lora_alpha` is not a number".to_owned()))?;
    let mut alphas = BTreeMap::new();
    if let Some(pattern) = config.get("alpha_pattern").and_then(Value::as_object) {
        for (key, alpha) in pattern {
            if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
                return Err(unsupported(
                    format!("the regular expression `{key}` in `alpha_pattern`"),
                    "write out the ends of the modules' paths",
                ));
            }
            let alpha = alpha
                .as_f64()
                .ok_or_else(|| malformed(format!("`alpha_pattern` has no number for `{key}`")))?;
            alphas.insert(key.clone(), alpha);
        }
    }
    let truth = |field: &str| config.get(field).and_then(Value::as_bool).unwrap_or(false);
    Ok(LoraSettings {
        rank,
        alpha,
        rank_stabilised: truth("use_rslora"),
        alphas,
        fan_in_fan_out: truth("fan_in_fan_out"),
        base_model: config.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
    })
}

fn read_modules(checkpoint: &Checkpoint) -> Result<Vec<LoraModule>> {
    let unsupported = |name: &str, hint: &str| Error::Unsupported {
        origin: checkpoint.origin().to_owned(),
        what: format!("tensor `{name}`"),
        hint: hint.to_owned(),
    };
    // Of both matrices: one without the other is missed below.
    let mut paths = BTreeSet::new();
    for name in checkpoint.names() {
        let path = name.strip_prefix(PREFIX).and_then(|rest| {
            rest.strip_suffix(".lora_A.weight").or_else(|| rest.strip_suffix(".lora_B.weight"))
        });
        match path {
            Some(path) => {
                paths.insert(path.to_owned());
            }
            None if name.contains("lora_embedding_") => {
                return Err(unsupported(name, "adapters of linear layers are, those of embeddings are not"));
            }
            None if name.contains("lora_magnitude_vector") => {
                return Err(unsupported(
                    name,
                    "it belongs to DoRA; merge the adapter into the base model with peft",
                ));
            }
            None => {
                let hint = "an adapter's tensors are called `base_model.model.<module path>.lora_A.weight` and `….lora_B.weight`";
                return Err(unsupported(name, hint));
            }
        }
    }
    if paths.is_empty() {
        return Err(unsupported("lora_A", "the file holds no adapter: it has no tensor of that kind"));
    }
    let mut modules = Vec::with_capacity(paths.len());
    for path in paths {
        let name = |letter: &str| format!("{PREFIX}{path}.lora_{letter}.weight");
        let a = checkpoint.get(&name("A"))?;
        let &[rank @ (1..), inputs] = a.shape.as_slice() else {
            return Err(unsupported(
                &name("A"),
                &format!("it has shape {:?}; a linear layer's is [rank, in]", a.shape),
            ));
        };
        let outputs = checkpoint.shape(&name("B")).and_then(|shape| shape.first().copied()).unwrap_or(0);
        modules.push(LoraModule {
            a: Array::read(checkpoint, &name("A"), &[rank, inputs])?,
            b: Array::read(checkpoint, &name("B"), &[outputs, rank])?,
            path,
        });
    }
    Ok(modules)
}
