//! Hook points and modules by name, aliases included.

use std::collections::HashMap;

use super::Checker;
use crate::program::{GradientOf, NodeId, NodeKind};
use crate::spec::ModelSpec;
use crate::suggest::did_you_mean;

/// Names that cannot be found get a suggestion up to so many faults: a bound on the work that nonsense can cause.
const SUGGESTED: usize = 16;

/// A specification with its names in a table. Built once for each model.
pub struct SpecIndex<'a> {
    spec: &'a ModelSpec,
    hooks: HashMap<String, usize>,
    modules: HashMap<&'a str, usize>,
    parameters: HashMap<&'a str, usize>,
    module_aliases: HashMap<&'a str, &'a str>,
    hook_aliases: HashMap<&'a str, &'a str>,
}

impl<'a> SpecIndex<'a> {
    /// The index of a specification.
    pub fn new(spec: &'a ModelSpec) -> Self {
        SpecIndex {
            spec,
            hooks: spec.hook_points.iter().enumerate().map(|(place, hook)| (hook.path(), place)).collect(),
            modules: spec
                .modules
                .iter()
                .enumerate()
                .map(|(place, module)| (module.path.as_str(), place))
                .collect(),
            parameters: spec
                .parameters
                .iter()
                .enumerate()
                .map(|(place, parameter)| (parameter.name.as_str(), place))
                .collect(),
            module_aliases: aliases(spec, false),
            hook_aliases: aliases(spec, true),
        }
    }

    /// The specification.
    pub fn spec(&self) -> &'a ModelSpec {
        self.spec
    }

    /// The place of a hook point, by its canonical path or by an alias: `layers.3.attention.pattern`, `logits`.
    pub fn hook(&self, path: &str) -> Option<usize> {
        if let Some(&place) = self.hooks.get(path) {
            return Some(place);
        }
        if let Some(target) = self.hook_aliases.get(path) {
            return self.hooks.get(*target).copied();
        }
        self.expand(path).find_map(|expanded| self.hooks.get(expanded.as_str()).copied())
    }

    /// The index of a module, by its canonical path or by an alias.
    pub fn module(&self, path: &str) -> Option<usize> {
        if let Some(&place) = self.modules.get(path) {
            return Some(place);
        }
        if let Some(target) = self.module_aliases.get(path) {
            return self.modules.get(target).copied();
        }
        self.expand(path).find_map(|expanded| self.modules.get(expanded.as_str()).copied())
    }

    /// Every name of every hook point, canonical and by alias, with its place.
    pub fn hook_names(&self) -> Vec<(String, usize)> {
        let mut names: Vec<(String, usize)> =
            self.hooks.iter().map(|(name, &place)| (name.clone(), place)).collect();
        let mut of_module: HashMap<&str, Vec<(&str, usize)>> = HashMap::new();
        for (place, hook) in self.spec.hook_points.iter().enumerate() {
            of_module.entry(hook.module.as_str()).or_default().push((hook.name.as_str(), place));
        }
        // An alias also stands at the beginning of paths of the modules inside.
        for (alias, target) in &self.module_aliases {
            let inside = format!("{target}.");
            for (module, hooks) in &of_module {
                let rest = match module.strip_prefix(&inside) {
                    Some(rest) => format!(".{rest}"),
                    None if module == target => String::new(),
                    None => continue,
                };
                names.extend(hooks.iter().map(|(name, place)| (format!("{alias}{rest}.{name}"), *place)));
            }
        }
        let hooks = self.hook_aliases.iter();
        names.extend(
            hooks.filter_map(|(alias, target)| Some(((*alias).to_owned(), *self.hooks.get(*target)?))),
        );
        names
    }

    /// The index of a parameter, by its name in transformers or by an alias of its module: `layers.3.norm_1.weight`. The
    /// weight of a tied unembedding is the embedding's.
    pub fn parameter(&self, name: &str) -> Option<usize> {
        let own = |name: &str| self.parameters.get(name).copied();
        own(name).or_else(|| self.expand(name).find_map(|name| own(&name))).or_else(|| {
            let unembed = self.module_aliases.get("unembed")?;
            let module = name.strip_suffix(".weight")?;
            let tied = module == "unembed" || module == *unembed;
            tied.then(|| own(&format!("{}.weight", self.module_aliases.get("embed")?))).flatten()
        })
    }

    /// "Did you mean", for a parameter that is not there.
    pub fn hint_for_parameter(&self, name: &str) -> Option<String> {
        let names: Vec<String> =
            self.spec.parameters.iter().map(|parameter| parameter.name.clone()).collect();
        did_you_mean(name, names.iter().map(String::as_str))
    }

    /// The path with an alias at its beginning replaced by what it stands for, the longest alias first.
    fn expand(&self, path: &str) -> impl Iterator<Item = String> {
        let ends: Vec<usize> = path.match_indices('.').map(|(at, _)| at).collect();
        ends.into_iter().rev().filter_map(move |end| {
            let target = self.module_aliases.get(&path[..end])?;
            Some(format!("{target}{}", &path[end..]))
        })
    }

    /// "Did you mean", for a hook point that is not there.
    pub fn hint_for_hook(&self, path: &str) -> Option<String> {
        if self.module(path).is_some() {
            return Some(format!("it is a module; its values are `{path}.input` and `{path}.output`"));
        }
        // Aliases of modules stand for all their hook points: the name at the end is compared with those of the target.
        let mut aliased: Vec<String> = Vec::new();
        for (alias, target) in &self.module_aliases {
            let own = self.spec.hook_points.iter().filter(|hook| hook.module == *target);
            aliased.extend(own.map(|hook| format!("{alias}.{}", hook.name)));
        }
        aliased.sort();
        let canonical = self.spec.hook_points.iter().map(|hook| hook.path()).collect::<Vec<_>>();
        let hooks = self.spec.aliases.iter().filter(|alias| alias.hook).map(|alias| alias.alias.as_str());
        let names = canonical.iter().chain(&aliased).map(String::as_str);
        did_you_mean(path, names.chain(hooks))
    }

    /// "Did you mean", for a module that is not there.
    pub fn hint_for_module(&self, path: &str) -> Option<String> {
        let modules = self.spec.modules.iter().map(|module| module.path.as_str());
        let aliases = self.spec.aliases.iter().filter(|alias| !alias.hook).map(|alias| alias.alias.as_str());
        did_you_mean(path, modules.chain(aliases))
    }
}

fn aliases(spec: &ModelSpec, hook: bool) -> HashMap<&str, &str> {
    let chosen = spec.aliases.iter().filter(|alias| alias.hook == hook);
    chosen.map(|alias| (alias.alias.as_str(), alias.target.as_str())).collect()
}

impl Checker<'_> {
    /// Finds every hook point, module and parameter that the program names.
    pub(super) fn names(&mut self) {
        for position in 0..self.program.nodes.len() {
            let id = NodeId(position as u32);
            let index = self.index(id);
            match &self.program.node(id).kind {
                NodeKind::Get(address)
                | NodeKind::Set { address, .. }
                | NodeKind::Grad { of: GradientOf::Hook(address), .. }
                | NodeKind::SetGrad { of: GradientOf::Hook(address), .. } => {
                    self.nodes[position].place = index.hook(&address.hook);
                    if self.nodes[position].place.is_none() {
                        let hint = self.guess(|| index.hint_for_hook(&address.hook));
                        self.unknown(id, "hook point", &address.hook, hint);
                    }
                }
                NodeKind::Apply { module, .. } | NodeKind::Skip { module, .. } => {
                    self.nodes[position].module = index.module(module);
                    if self.nodes[position].module.is_none() {
                        let hint = self.guess(|| index.hint_for_module(module));
                        self.unknown(id, "module", module, hint);
                    } else if let NodeKind::Skip { .. } = &self.program.node(id).kind {
                        self.skipped(id);
                    }
                }
                NodeKind::Weight { parameter, .. } | NodeKind::SetWeight { parameter, .. } => {
                    self.nodes[position].parameter = index.parameter(parameter);
                    if !index.spec().can("weights") {
                        let message =
                            format!("`{}` does not let its weights be read or set", index.spec().name);
                        self.fault(id, message, None);
                    } else if self.nodes[position].parameter.is_none() {
                        let hint = self.guess(|| index.hint_for_parameter(parameter));
                        self.unknown(id, "parameter", parameter, hint);
                    }
                }
                _ => {}
            }
        }
    }

    fn guess(&self, hint: impl Fn() -> Option<String>) -> Option<String> {
        if self.faults.len() < SUGGESTED { hint() } else { None }
    }

    fn unknown(&mut self, id: NodeId, what: &str, name: &str, hint: Option<String>) {
        self.fault(id, format!("`{}` has no {what} `{name}`", self.spec(id).name), hint);
    }
}
