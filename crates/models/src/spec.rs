//! What a model publishes of itself, from its configuration alone.

use std::collections::HashMap;

use pellucid_graph::DType;
use pellucid_graph::spec::{Alias, Application, ModelSpec, ModuleSpec, ParameterSpec};
use serde_json::Value;

use crate::config::{ConfigError, DecoderConfig, Positions, Reader};
use crate::decoder;
use crate::family::{FAMILIES, Family, Node, Role, family};
use crate::stage::{LinearLayout, NormKind, StageList};

/// A model without its weights: what it publishes, and its list of stages.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The family.
    pub family: &'static Family,
    /// The configuration.
    pub config: DecoderConfig,
    /// What it publishes.
    pub spec: ModelSpec,
    /// Its list of stages.
    pub stages: StageList,
}

/// The blueprint of a model from the contents of its `config.json`, and of its `generation_config.json` where it has
/// one, whose end tokens count.
///
/// # Errors
/// Where the family or an option is not supported, or a value makes no sense.
pub fn blueprint(name: &str, config: &Value, generation: Option<&Value>) -> Result<Blueprint, ConfigError> {
    let reader = Reader::new(config);
    let model_type = reader.text_or("model_type", "")?;
    let family = family(model_type).ok_or_else(|| ConfigError::UnknownFamily {
        found: model_type.chars().take(100).collect(),
        known: FAMILIES.iter().map(|family| family.model_type).collect(),
    })?;
    let mut config = (family.read)(&reader)?;
    config.check()?;
    if let Some(generation) = generation {
        let end_tokens = Reader::new(generation).token_ids("eos_token_id")?;
        if !end_tokens.is_empty() {
            config.end_tokens = end_tokens;
        }
    }
    let modules = expand(family, &config);
    let parameters = parameters(&modules, &config);
    let (stages, hook_points) = decoder::stages(family, &config, &modules, &parameters);
    let aliases = aliases(&modules, &config);
    // What has no input of its own, as OPT's table of positions, cannot be applied.
    let enters = |path: &str| hook_points.iter().any(|hook| hook.module == path && hook.name == "input");
    let spec = ModelSpec {
        name: name.to_owned(),
        revision: None,
        family: family.model_type.to_owned(),
        compute_type: DType::F32,
        sizes: config.sizes(),
        modules: modules
            .iter()
            .zip(&stages.modules)
            .map(|(module, stages)| ModuleSpec {
                path: module.path.clone(),
                class: module.class.to_owned(),
                applied: if stages.range.is_empty() || !enters(&module.path) {
                    Application::None
                } else {
                    applied(module.role)
                },
            })
            .collect(),
        hook_points,
        parameters,
        aliases,
        capabilities: ["trace", "generate", "weights"].map(str::to_owned).to_vec(),
        end_tokens: config.end_tokens.clone(),
    };
    Ok(Blueprint { family, config, spec, stages })
}

/// A module of the tree in its place.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    pub(crate) path: String,
    pub(crate) class: &'static str,
    pub(crate) role: Role,
    /// The block that it is in or is.
    pub(crate) layer: Option<usize>,
}

/// Modules by their role and layer.
pub(crate) type Places = HashMap<(Role, Option<usize>), usize>;

pub(crate) fn places(modules: &[Module]) -> Places {
    modules.iter().enumerate().map(|(index, module)| ((module.role, module.layer), index)).collect()
}

/// The tree of a configuration, parents before their children.
fn expand(family: &Family, config: &DecoderConfig) -> Vec<Module> {
    let mut modules = Vec::new();
    add(&mut modules, &family.tree, "", None, config);
    modules
}

fn add(modules: &mut Vec<Module>, node: &Node, parent: &str, layer: Option<usize>, config: &DecoderConfig) {
    let present = match node.role {
        Role::FinalNorm => config.final_norm,
        Role::ProjectIn | Role::ProjectOut => config.embedding != config.hidden,
        _ => true,
    };
    if !present {
        return;
    }
    let join = |name: &str| if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
    let (path, layer) = match (node.role, layer) {
        (Role::Block, Some(index)) => (join(&index.to_string()), layer),
        _ => (join(node.name), layer),
    };
    let class = if node.role == Role::MlpActivation { config.activation.class } else { node.class };
    modules.push(Module { path: path.clone(), class, role: node.role, layer });
    if node.role == Role::Layers {
        for index in 0..config.layers {
            for child in node.children {
                add(modules, child, &path, Some(index), config);
            }
        }
    } else {
        for child in node.children {
            add(modules, child, &path, layer, config);
        }
    }
}

/// Input width, output width and whether there is a bias, of a linear layer.
pub(crate) fn linear(role: Role, config: &DecoderConfig) -> Option<(usize, usize, bool)> {
    let queries = config.heads * config.head_size;
    let keys = config.key_value_heads * config.head_size;
    let biases = config.biases;
    Some(match role {
        Role::ProjectIn => (config.embedding, config.hidden, false),
        Role::QueryKeyValue => (config.hidden, queries + 2 * keys, biases.query_key_value),
        Role::Query => (config.hidden, queries, biases.query_key_value),
        Role::Key | Role::Value => (config.hidden, keys, biases.query_key_value),
        Role::AttentionOutput => (queries, config.hidden, biases.attention_output),
        Role::MlpIn | Role::MlpGate | Role::MlpUp => (config.hidden, config.inner, biases.mlp),
        Role::MlpDown => (config.inner, config.hidden, biases.mlp),
        Role::ProjectOut => (config.hidden, config.embedding, false),
        Role::Unembed => (config.embedding, config.vocabulary, false),
        _ => return None,
    })
}

/// How a class of linear layers stores its weight.
pub(crate) fn linear_layout(class: &str) -> LinearLayout {
    if class == "Conv1D" { LinearLayout::InputOutput } else { LinearLayout::OutputInput }
}

/// The width that a norm is over.
pub(crate) fn norm_width(role: Role, config: &DecoderConfig) -> Option<usize> {
    match role {
        Role::Norm1 | Role::PostAttentionNorm | Role::Norm2 | Role::PostMlpNorm | Role::FinalNorm => {
            Some(config.hidden)
        }
        Role::QueryNorm | Role::KeyNorm => Some(config.head_size),
        _ => None,
    }
}

/// The weights of all modules, as transformers' `named_parameters` gives them: a tied one once.
fn parameters(modules: &[Module], config: &DecoderConfig) -> Vec<ParameterSpec> {
    let mut parameters = Vec::new();
    for module in modules {
        let mut push = |name: &str, shape: &[usize]| {
            let shape = shape.iter().map(|size| *size as u64).collect();
            parameters.push(ParameterSpec { name: format!("{}.{name}", module.path), shape });
        };
        if module.role == Role::Unembed && config.tied {
        } else if let Some((input, output, bias)) = linear(module.role, config) {
            match linear_layout(module.class) {
                LinearLayout::OutputInput => push("weight", &[output, input]),
                LinearLayout::InputOutput => push("weight", &[input, output]),
            }
            if bias {
                push("bias", &[output]);
            }
        } else if let Some(width) = norm_width(module.role, config) {
            if config.norm.affine {
                push("weight", &[width]);
                if config.norm.kind == NormKind::Layer {
                    push("bias", &[width]);
                }
            }
        } else if module.role == Role::Embed {
            push("weight", &[config.vocabulary, config.embedding]);
        } else if let (Role::Positions, Positions::Learned { count, offset }) =
            (module.role, config.positions)
        {
            push("weight", &[count + offset, config.hidden]);
        }
    }
    parameters
}

fn applied(role: Role) -> Application {
    match role {
        Role::Root | Role::Model | Role::Layers | Role::Bystander => Application::None,
        Role::Block | Role::Attention => Application::Sequence,
        _ => Application::TokenWise,
    }
}

/// The standard names.
fn aliases(modules: &[Module], config: &DecoderConfig) -> Vec<Alias> {
    let places = places(modules);
    let path = |role, layer| places.get(&(role, layer)).map(|index| modules[*index].path.as_str());
    let mut aliases = Vec::new();
    let mut module = |alias: String, target: Option<&str>| {
        if let Some(target) = target {
            aliases.push(Alias { alias, target: target.to_owned(), hook: false });
        }
        target.is_some()
    };
    module("embed".into(), path(Role::Embed, None));
    let mut without_mlp = Vec::new();
    for index in 0..config.layers {
        let layer = Some(index);
        module(format!("layers.{index}"), path(Role::Block, layer));
        module(format!("layers.{index}.norm_1"), path(Role::Norm1, layer));
        module(format!("layers.{index}.attention"), path(Role::Attention, layer));
        module(format!("layers.{index}.norm_2"), path(Role::Norm2, layer));
        if !module(format!("layers.{index}.mlp"), path(Role::Mlp, layer)) {
            without_mlp.push(index);
        }
    }
    module("final_norm".into(), path(Role::FinalNorm, None));
    module("unembed".into(), path(Role::Unembed, None));
    let mut hook = |alias: String, target: String| aliases.push(Alias { alias, target, hook: true });
    // A family whose blocks hold the MLP's layers themselves.
    for index in without_mlp {
        for (name, role, target) in [
            ("input", Role::MlpIn, "input"),
            ("pre", Role::MlpIn, "output"),
            ("post", Role::MlpDown, "input"),
            ("output", Role::MlpDown, "output"),
        ] {
            if let Some(path) = path(role, Some(index)) {
                hook(format!("layers.{index}.mlp.{name}"), format!("{path}.{target}"));
            }
        }
    }
    if config.logit_cap.is_some() {
        hook("logits".into(), "output".into());
    } else if let Some(unembed) = path(Role::Unembed, None) {
        hook("logits".into(), format!("{unembed}.output"));
    }
    aliases
}
