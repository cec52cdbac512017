//! What the random programs were made of, counted: a test that claims to try everything must show it.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_graph::check::{CheckedProgram, SpecIndex};
use pellucid_graph::operation;
use pellucid_graph::spec::Application;
use pellucid_graph::{GradientOf, NodeKind, Prompts};

/// Counts by heading and name.
#[derive(Default)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, String), usize>,
}

impl Coverage {
    pub fn add(&mut self, heading: &'static str, name: impl Into<String>) {
        *self.counts.entry((heading, name.into())).or_default() += 1;
    }

    pub fn count(&self, heading: &'static str, name: &str) -> usize {
        self.counts.get(&(heading, name.to_owned())).copied().unwrap_or(0)
    }

    /// Counts every node of a program that is computed, and the constructs that it uses.
    pub fn program(&mut self, checked: &CheckedProgram, index: &SpecIndex<'_>) {
        let program = &checked.program;
        let spec = index.spec();
        self.add("family", spec.family.clone());
        if program.traces().count() > 1 {
            self.add("construct", "several traces");
        }
        for (_, trace) in program.traces() {
            self.add("construct", format!("{} invokes", trace.invokes.len()));
            if let Some(generation) = &trace.generation {
                self.add("construct", "generation");
                if generation.sampling.temperature > 0.0 {
                    self.add("construct", "sampling with a temperature");
                }
                if generation.stop_tokens != Some(Vec::new()) {
                    self.add("construct", "stop tokens");
                }
            }
            for invoke in &trace.invokes {
                let Prompts::Tokens(prompts) = &invoke.prompts else { continue };
                self.add("construct", format!("{} prompts", prompts.len()));
                if prompts.iter().any(|tokens| tokens.len() != prompts[0].len()) {
                    self.add("construct", "prompts of unequal length");
                }
            }
        }
        for plan in &checked.gradients {
            for id in plan.path.iter().filter(|_| checked.nodes[plan.backward.index()].needed) {
                match &program.node(*id).kind {
                    NodeKind::Operation(operation) => self.add("gradient of", operation.kind.name()),
                    NodeKind::Apply { .. } => self.add("construct", "gradients through applied modules"),
                    NodeKind::Set { .. } => self.add("construct", "gradients through setters"),
                    _ => {}
                }
            }
        }
        let mut set: BTreeMap<(usize, usize, u64), usize> = BTreeMap::new();
        for (node, known) in program.nodes.iter().zip(&checked.nodes) {
            if !known.needed {
                continue;
            }
            let kind_of = |place: Option<usize>| {
                let hook = &spec.hook_points[place.unwrap()];
                match (hook.module.is_empty(), hook.name.as_str()) {
                    (true, "output") => "logits".to_owned(),
                    _ if hook.dtype == pellucid_graph::DType::I64 => "token ids".to_owned(),
                    (_, name) => name.to_owned(),
                }
            };
            if known.steps.is_some() {
                self.add("construct", "nodes inside `steps`");
            }
            if !node.guards.is_empty() {
                self.add("construct", "nodes under a condition");
                if matches!(node.kind, NodeKind::Set { .. }) {
                    self.add("construct", "setters under a condition");
                }
            }
            for value in node.kind.values() {
                let read = &checked.nodes[value.node.index()];
                if read.trace != known.trace {
                    self.add("construct", "values of an earlier trace");
                }
                if known.steps.is_some() && read.steps.is_none() {
                    self.add("construct", "values from outside `steps`");
                }
            }
            match &node.kind {
                NodeKind::Get(_) => self.add("getter", kind_of(known.place)),
                NodeKind::Set { address, .. } => {
                    self.add("setter", kind_of(known.place));
                    let key = (address.invoke, known.place.unwrap(), address.step.unwrap_or(0));
                    let versions = set.entry(key).or_default();
                    *versions += 1;
                    if *versions == 2 {
                        self.add("construct", "several versions of a hook point");
                    }
                    if known.steps.is_some() {
                        self.add("construct", "setters inside `steps`");
                    }
                }
                NodeKind::Apply { .. } => {
                    self.add("applied", spec.modules[known.module.unwrap()].class.clone());
                    self.add("construct", "applied modules");
                }
                NodeKind::Operation(operation) => self.add("operation", operation.kind.name()),
                NodeKind::Tokens(_) => self.add("construct", "tokens"),
                NodeKind::Mask(_) => self.add("construct", "mask"),
                NodeKind::Lengths(_) => self.add("construct", "lengths"),
                NodeKind::Generated(_) => self.add("construct", "generated"),
                NodeKind::Literal { .. } => self.add("construct", "literals"),
                NodeKind::Constant(_) => self.add("construct", "constants"),
                NodeKind::Log(_) => self.add("construct", "logs"),
                NodeKind::Stop { .. } => self.add("construct", "stops"),
                NodeKind::Skip { .. } => self.add("construct", "skips"),
                NodeKind::Weight { .. } => self.add("construct", "weights"),
                NodeKind::SetWeight { .. } => self.add("construct", "set weights"),
                NodeKind::Merge { .. } => self.add("construct", "merges"),
                NodeKind::Backward { cotangent, .. } => {
                    self.add("construct", "ways back");
                    if cotangent.is_some() {
                        self.add("construct", "ways back with a cotangent");
                    }
                }
                NodeKind::Grad { of, .. } | NodeKind::SetGrad { of, .. } => {
                    let written = matches!(node.kind, NodeKind::SetGrad { .. });
                    match of {
                        GradientOf::Hook(_) if written => {
                            self.add("construct", "written gradients of hook points")
                        }
                        GradientOf::Value(_) if written => {
                            self.add("construct", "written gradients of values")
                        }
                        GradientOf::Hook(_) => self.add("gradient", kind_of(known.place)),
                        GradientOf::Value(value) => {
                            let getter = matches!(program.node(value.node).kind, NodeKind::Get(_));
                            let what = if getter { "gradients of getters" } else { "gradients of values" };
                            self.add("construct", what);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Counts what the ways back of a program go through.
    pub fn way_back(&mut self, checked: &CheckedProgram, index: &SpecIndex<'_>) {
        let program = &checked.program;
        for plan in &checked.gradients {
            let mut invokes = BTreeSet::new();
            for id in &plan.path {
                let known = &checked.nodes[id.index()];
                match &program.node(*id).kind {
                    NodeKind::Operation(operation) => self.add("gradient of", operation.kind.name()),
                    NodeKind::Apply { .. } => {
                        let attends = known.module.is_some_and(|module| {
                            index.spec().modules[module].applied == Application::Sequence
                        });
                        let what = if attends { "that attend" } else { "by tokens" };
                        self.add("way back", format!("applied modules {what}"));
                    }
                    NodeKind::Set { .. } => self.add("way back", "setters"),
                    NodeKind::Skip { .. } => self.add("way back", "skips"),
                    NodeKind::SetWeight { .. } => self.add("way back", "values of weights"),
                    NodeKind::Merge { .. } => self.add("way back", "values of two branches"),
                    NodeKind::Get(address) => {
                        invokes.insert(address.invoke);
                    }
                    _ => {}
                }
            }
            if plan.path.iter().any(|id| !program.node(*id).guards.is_empty()) {
                self.add("way back", "conditions");
            }
            let beside = |node: &pellucid_graph::Node| match &node.kind {
                NodeKind::SetWeight { invoke, .. } => invokes.contains(invoke),
                _ => false,
            };
            if program.nodes.iter().any(beside) {
                self.add("way back", "other weights");
            }
            if invokes.len() > 1 {
                self.add("way back", "another invoke");
            }
        }
    }

    /// Everything that was met less often than wanted.
    pub fn missing(&self, wanted: &[(&'static str, Vec<String>, usize)]) -> Vec<String> {
        let mut missing = Vec::new();
        for (heading, names, least) in wanted {
            for name in names {
                let count = self.count(heading, name);
                if count < *least {
                    missing.push(format!("{heading} {name}: {count} of at least {least}"));
                }
            }
        }
        missing
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut last = "";
        for ((heading, name), count) in &self.counts {
            if *heading != last {
                text.push_str(&format!("\n{heading}\n"));
                last = heading;
            }
            text.push_str(&format!("  {name:<36} {count}\n"));
        }
        text
    }
}

/// Every operation that a gradient flows through.
pub fn differentiable() -> Vec<String> {
    let flows = operation::table().iter().filter(|definition| definition.differentiable);
    flows.map(|definition| definition.name.to_owned()).collect()
}

/// Every operation of the table, by its name.
pub fn operations() -> Vec<String> {
    operation::table().iter().map(|definition| definition.name.to_owned()).collect()
}
