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
    /// Finds every hook point and module that the program names.
    pub(super) fn names(&mut self) {
        for position in 0..self.program.nodes.len() {
            let id = NodeId(position as u32);
            match &self.program.node(id).kind {
                NodeKind::Get(address)
                | NodeKind::Set { address, .. }
                | NodeKind::Grad { of: GradientOf::Hook(address), .. }
                | NodeKind::SetGrad { of: GradientOf::Hook(address), .. } => {
                    match self.index.hook(&address.hook) {
                        Some(place) => self.nodes[position].place = Some(place),
                        None => {
                            let hint = if self.faults.len() < SUGGESTED {
                                self.index.hint_for_hook(&address.hook)
                            } else {
                                None
                            };
                            self.fault(
                                id,
                                format!("`{}` has no hook point `{}`", self.spec.name, address.hook),
                                hint,
                            );
                        }
                    }
                }
                NodeKind::Apply { module, .. } => match self.index.module(module) {
                    Some(place) => self.nodes[position].module = Some(place),
                    None => {
                        let hint = if self.faults.len() < SUGGESTED {
                            self.index.hint_for_module(module)
                        } else {
                            None
                        };
                        self.fault(id, format!("`{}` has no module `{module}`", self.spec.name), hint);
                    }
                },
                _ => {}
            }
        }
    }
}
