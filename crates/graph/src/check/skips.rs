//! Skipped modules: what may be skipped, and that nothing inside one is touched.

use std::collections::HashMap;

use super::Checker;
use crate::limits;
use crate::program::{GradientOf, Guard, HookAddress, NodeId, NodeKind, StepSelection};

/// A skip, and the hook points that are not reached through it: places from its module's input on, before its output.
struct Skip {
    id: NodeId,
    from: usize,
    output: usize,
}

impl Checker<'_> {
    /// The place of the output of the module that a node skips, if that module can be skipped.
    pub(super) fn skipped(&mut self, id: NodeId) {
        let spec = self.spec(id);
        let Some(module) = self.nodes[id.index()].module.and_then(|module| spec.modules.get(module)) else {
            return;
        };
        let hook = |name: &str| {
            spec.hook_points.iter().position(|hook| hook.module == module.path && hook.name == name)
        };
        let (Some(_), Some(output)) = (hook("input"), hook("output")) else {
            let message =
                format!("`{}` cannot be skipped: it has no input and output of its own", module.path);
            return self.fault(id, message, Some("skip one of the modules inside it".into()));
        };
        self.nodes[id.index()].place = Some(output);
        let generates = self
            .trace_of(id)
            .and_then(|trace| trace.generation.as_ref())
            .is_some_and(|generation| generation.max_new_tokens > 1);
        // Only an attention has a pattern.
        let attends = spec
            .hook_points
            .iter()
            .any(|hook| hook.name == "pattern" && is_inside(&hook.module, &module.path));
        if generates && attends {
            let message = format!("`{}` attends, and cannot be skipped in a generation", module.path);
            let hint = "the keys of later steps would be missing from its cache: set its `output` instead, which keeps them";
            self.fault(id, message, Some(hint.into()));
        }
    }

    /// The address of the output that a skip gives.
    pub(super) fn skipped_output(&self, id: NodeId, invoke: usize, step: Option<u64>) -> Option<HookAddress> {
        let hook = self.spec(id).hook_points.get(self.nodes[id.index()].place?)?;
        Some(HookAddress { invoke, hook: hook.path(), step })
    }

    /// Faults where something is read or written that is skipped.
    pub(super) fn skips(&mut self) {
        let mut skips: HashMap<(Option<NodeId>, usize), Vec<Skip>> = HashMap::new();
        for position in 0..self.program.nodes.len() {
            let id = NodeId(position as u32);
            let NodeKind::Skip { invoke, .. } = &self.program.node(id).kind else { continue };
            let (Some(from), Some(output)) = (self.input_of(id), self.nodes[position].place) else {
                continue;
            };
            let own = skips.entry((self.nodes[position].trace, *invoke)).or_default();
            own.push(Skip { id, from, output });
            if own.len() == limits::SKIPS + 1 {
                self.fault(id, format!("more than {} skips in one invoke", limits::SKIPS), None);
            }
        }
        if !self.faults.is_empty() {
            return;
        }
        for position in 0..self.program.nodes.len() {
            let id = NodeId(position as u32);
            let (Some(invoke), Some(place)) = (self.touched(id), self.nodes[position].place) else {
                continue;
            };
            let own = skips.get(&(self.nodes[position].trace, invoke));
            // A gradient is that of the version that flowed on, wherever it stands.
            let kind = &self.program.node(id).kind;
            let skips = matches!(kind, NodeKind::Skip { .. }) || kind.gradient().is_some();
            let found = own.into_iter().flatten().find(|skip| {
                // Before the skip gives it, the output has no value either: the module does not run.
                ((skip.from..skip.output).contains(&place)
                    || (place == skip.output && id < skip.id && !skips))
                    && skip.id != id
                    && self.meet(id, skip.id)
                    && !exclude_each_other(&self.program.node(id).guards, &self.program.node(skip.id).guards)
            });
            if let Some(skip) = found {
                let (hook, module) = (self.hook_path(place, id), self.hook_module(skip.output, skip.id));
                let skipping = self.program.node(skip.id);
                let line = skipping.source.as_ref();
                let line =
                    line.map_or(String::new(), |source| format!(" at {}:{}", source.file, source.line));
                let (message, hint) = if place == skip.output {
                    let message = format!("`{hook}` is touched before `{}` gives it{line}", skipping.name);
                    (message, "a skipped module has no output but the given one: put this after the skip")
                } else {
                    let message =
                        format!("`{hook}` is inside `{module}`, which `{}` skips{line}", skipping.name);
                    (message, "a skipped module computes nothing but its given output")
                };
                self.fault(id, message, Some(hint.into()));
            }
        }
    }

    fn hook_path(&self, place: usize, id: NodeId) -> String {
        self.spec(id).hook_points.get(place).map(|hook| hook.path()).unwrap_or_default()
    }

    fn hook_module(&self, place: usize, id: NodeId) -> String {
        self.spec(id).hook_points.get(place).map(|hook| hook.module.clone()).unwrap_or_default()
    }

    /// The place of the input of the module that a node skips.
    fn input_of(&self, id: NodeId) -> Option<usize> {
        let spec = self.spec(id);
        let module = spec.modules.get(self.nodes[id.index()].module?)?;
        spec.hook_points.iter().position(|hook| hook.module == module.path && hook.name == "input")
    }

    /// The invoke that a getter, setter or skip touches, or that a gradient of a hook point is of.
    fn touched(&self, id: NodeId) -> Option<usize> {
        let kind = &self.program.node(id).kind;
        match (kind, kind.gradient()) {
            (NodeKind::Get(address) | NodeKind::Set { address, .. }, _)
            | (_, Some((_, GradientOf::Hook(address)))) => Some(address.invoke),
            (NodeKind::Skip { invoke, .. }, _) => Some(*invoke),
            _ => None,
        }
    }

    /// Whether two touches of one invoke come at the same step. Of two different `steps` it is enough that their ranges
    /// overlap.
    fn meet(&self, one: NodeId, other: NodeId) -> bool {
        match (self.steps_of(one), self.steps_of(other)) {
            (Ok(one), Ok(other)) => one == other,
            (Ok(step), Err(steps)) | (Err(steps), Ok(step)) => steps.contains(step, u64::MAX),
            (Err(one), Err(other)) => {
                one.from < other.to.unwrap_or(u64::MAX) && other.from < one.to.unwrap_or(u64::MAX)
            }
        }
    }

    /// The step of a touch, or the selection of the `steps` that it stands in.
    fn steps_of(&self, id: NodeId) -> Result<u64, StepSelection> {
        if let Some(owner) = self.nodes[id.index()].steps
            && let NodeKind::Steps { steps, .. } = &self.program.node(owner).kind
        {
            return Err(*steps);
        }
        Ok(match &self.program.node(id).kind {
            NodeKind::Get(address) | NodeKind::Set { address, .. } => address.step.unwrap_or(0),
            NodeKind::Skip { step, .. } => step.unwrap_or(0),
            _ => 0,
        })
    }
}

/// Whether a module is another or stands inside it.
fn is_inside(module: &str, other: &str) -> bool {
    module.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether two nodes stand in the two branches of one condition.
fn exclude_each_other(one: &[Guard], other: &[Guard]) -> bool {
    one.iter().any(|guard| {
        other.iter().any(|other| other.condition == guard.condition && other.holds != guard.holds)
    })
}
