//! Shapes and number types of every node.

use super::{Checker, applications};
use crate::dtype::DType;
use crate::program::{GradientOf, HookAddress, Invoke, NodeId, NodeKind, Prompts, Value};
use crate::rules::ASSUMED_LENGTH;
use crate::rules::{RuleContext, RuleError};
use crate::shape::{Dimension, Symbol, TensorType};
use crate::spec::{Application, Axis, HookPointSpec};

/// Which step's shapes a body is checked with.
#[derive(Clone, Copy)]
enum Phase {
    /// The prompt's: length is the prompt's.
    Prompt,
    /// A later one: length is 1; the context grows by the step, if it is known.
    Later(Option<u64>),
}

impl Checker<'_> {
    /// Computes the type of every node, and holds setters and applications to the model's shapes.
    pub(super) fn types(&mut self) {
        let body = self.program.body.clone();
        for id in body {
            match &self.program.node(id).kind {
                NodeKind::Trace(trace) => {
                    let lengths: Vec<Dimension> =
                        trace.invokes.iter().map(|invoke| self.length(invoke)).collect();
                    let nodes = trace.body.clone();
                    self.body_types(&nodes, &lengths, Phase::Prompt);
                }
                _ => self.node_type(id, &[], Phase::Prompt),
            }
        }
        self.same_types();
    }

    /// What a loop carries has one type in all iterations.
    fn same_types(&mut self) {
        for same in &self.program.same_types {
            let of = |value: Value| self.nodes.get(value.node.index())?.outputs.get(value.output as usize);
            let (Some(first), Some(next)) = (of(same.first), of(same.next)) else { continue };
            let fits = first.dtype == next.dtype
                && first.shape.len() == next.shape.len()
                && first.shape.iter().zip(&next.shape).all(|(first, next)| first.could_equal(next));
            if !fits {
                let message = format!("`{}` is {first} at first, and {next} later", same.what);
                let hint = "it must have one number type and shape throughout: carry a tensor of the final size, or use `to`";
                self.fault(same.at, message, Some(hint.into()));
            }
        }
    }

    /// The width of an invoke's rectangle: its longest prompt.
    fn length(&mut self, invoke: &Invoke) -> Dimension {
        if let (Some(rectangles), Some(lengths)) = (&self.rectangles, applications::lengths(invoke))
            && let Some(&symbol) = rectangles.get(&lengths)
        {
            return Dimension::symbol(symbol);
        }
        match &invoke.prompts {
            Prompts::Tokens(prompts) => {
                Dimension::known(prompts.iter().map(Vec::len).max().unwrap_or(0) as u64)
            }
            Prompts::Text { .. } | Prompts::Axis(_) => Dimension::symbol(self.fresh()),
        }
    }

    pub(super) fn fresh(&mut self) -> Symbol {
        let symbol = Symbol(self.next_symbol);
        self.next_symbol += 1;
        symbol
    }

    fn body_types(&mut self, nodes: &[NodeId], lengths: &[Dimension], phase: Phase) {
        for &id in nodes {
            let NodeKind::Steps { steps, body } = &self.program.node(id).kind else {
                self.node_type(id, lengths, phase);
                continue;
            };
            let total =
                self.trace_of(id).and_then(|trace| trace.generation.as_ref()).map_or(1, |g| g.max_new_tokens);
            let (steps, body) = (*steps, body.clone());
            let after_first = steps.contains(steps.from.saturating_add(steps.every), total);
            let known = (!after_first).then_some(steps.from);
            if steps.from > 0 {
                self.body_types(&body, lengths, Phase::Later(known));
            } else {
                if after_first {
                    self.body_types(&body, lengths, Phase::Later(None));
                    for &id in &body {
                        let outputs = self.nodes[id.index()].outputs.iter();
                        let bytes = outputs.map(|output| output.bytes(ASSUMED_LENGTH));
                        self.later_bytes.insert(id, bytes.fold(0, u64::saturating_add));
                    }
                }
                // Last, so that the recorded types are the first step's; faults of both are reported once.
                let faults = self.faults.len();
                self.body_types(&body, lengths, Phase::Prompt);
                let mut kept = Vec::new();
                for (position, fault) in std::mem::take(&mut self.faults).into_iter().enumerate() {
                    if position < faults || !kept.contains(&fault) {
                        kept.push(fault);
                    }
                }
                self.faults = kept;
            }
        }
    }

    fn node_type(&mut self, id: NodeId, lengths: &[Dimension], phase: Phase) {
        let node = self.program.node(id);
        self.guards(id);
        // A node that reads a value whose own type is at fault is not reported again.
        let of = match node.kind.gradient() {
            Some((_, GradientOf::Value(value))) => Some(*value),
            _ => None,
        };
        for value in node.values().into_iter().chain(of) {
            let outputs = self.nodes[value.node.index()].outputs.len();
            if outputs == 0 {
                return;
            }
            if value.output as usize >= outputs {
                let name = self.program.node(value.node).label();
                let message = format!(
                    "`{name}` has {outputs} output{}; output {} is not there",
                    if outputs == 1 { "" } else { "s" },
                    value.output
                );
                return self.fault(id, message, Some("the first output is number 0".into()));
            }
        }
        let outputs = match &node.kind {
            NodeKind::Get(address) => self.hook_type(id, address, lengths, phase).into_iter().collect(),
            NodeKind::Set { address, value } => {
                if let Some(target) = self.hook_type(id, address, lengths, phase) {
                    self.written(id, &format!("`{}`", address.hook), *value, &target);
                }
                Vec::new()
            }
            NodeKind::Skip { invoke, step, value, .. } => {
                if let Some(address) = self.skipped_output(id, *invoke, *step)
                    && let Some(target) = self.hook_type(id, &address, lengths, phase)
                {
                    self.written(id, &format!("`{}`", address.hook), *value, &target);
                }
                Vec::new()
            }
            NodeKind::Stop { invoke, when } => {
                self.stop(id, *invoke, *when);
                Vec::new()
            }
            NodeKind::Weight { index, .. } => self.weight(id, index.as_deref()).into_iter().collect(),
            NodeKind::SetWeight { value, .. } => {
                self.set_weight(id, *value);
                Vec::new()
            }
            NodeKind::Merge { condition, then, otherwise } => {
                self.merge(id, *condition, *then, *otherwise).into_iter().collect()
            }
            NodeKind::Apply { input, .. } => self.application(id, *input).into_iter().collect(),
            NodeKind::Operation(operation) => {
                let nodes = &self.nodes;
                let type_of = |value: Value| nodes[value.node.index()].outputs[value.output as usize].clone();
                let mut context =
                    RuleContext { operation, type_of: &type_of, next_symbol: &mut self.next_symbol };
                match operation.kind.definition().typed(&mut context) {
                    Ok(typed) => typed.outputs,
                    Err(RuleError { message, hint }) => {
                        return self.fault(id, message, hint);
                    }
                }
            }
            NodeKind::Literal { dtype, shape, elements } => {
                let count = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
                if count != Some(elements.len() as u64) {
                    let message =
                        format!("the literal's shape {shape:?} does not hold {} elements", elements.len());
                    let hint = "give one number for each element, in row-major order".to_owned();
                    return self.fault(id, message, Some(hint));
                }
                let lost = elements.iter().enumerate().find(|(_, element)| !element.is_kept_by(*dtype));
                if let Some((index, element)) = lost {
                    let message =
                        format!("element {index} of the literal, {element}, is not a number of {dtype}");
                    let hint =
                        "use a number type that holds it, or write the number that is meant".to_owned();
                    return self.fault(id, message, Some(hint));
                }
                vec![TensorType::known(*dtype, shape)]
            }
            NodeKind::Constant(key) => match self.program.constants.get(key) {
                Some(constant) => vec![TensorType::known(constant.dtype, &constant.shape)],
                None => {
                    let hint = "constants travel in the safetensors file that carries the program".to_owned();
                    return self.fault(id, format!("the program carries no constant `{key}`"), Some(hint));
                }
            },
            NodeKind::Tokens(invoke) => self.rectangle(id, *invoke, lengths, DType::I64),
            NodeKind::Mask(invoke) => self.rectangle(id, *invoke, lengths, DType::Bool),
            NodeKind::Lengths(invoke) => {
                vec![TensorType { dtype: DType::I64, shape: vec![self.prompts(id, *invoke)] }]
            }
            NodeKind::Generated(invoke) => {
                let generation = self.trace_of(id).and_then(|trace| trace.generation.as_ref());
                let made = Dimension::known(generation.map_or(0, |generation| generation.max_new_tokens));
                vec![TensorType { dtype: DType::I64, shape: vec![self.prompts(id, *invoke), made] }]
            }
            NodeKind::Backward { of, cotangent } => {
                self.backward_type(id, *of, *cotangent);
                Vec::new()
            }
            NodeKind::Grad { of, .. } => {
                self.gradient_type(id, of, lengths, phase).map(|(_, of)| of).into_iter().collect()
            }
            NodeKind::SetGrad { of, value, .. } => {
                if let Some((name, target)) = self.gradient_type(id, of, lengths, phase) {
                    self.written(id, &name, *value, &target);
                }
                Vec::new()
            }
            NodeKind::Trace(_) | NodeKind::Steps { .. } | NodeKind::Save(_) | NodeKind::Log(_) => Vec::new(),
            // Surface nodes were refused before.
            NodeKind::Sweep(_)
            | NodeKind::Loop(_)
            | NodeKind::Cond(_)
            | NodeKind::Branch(_)
            | NodeKind::Edit(_)
            | NodeKind::Parameter(_)
            | NodeKind::Carried(_)
            | NodeKind::Reduce(_)
            | NodeKind::GetAll(_)
            | NodeKind::SetAll(_)
            | NodeKind::Cache(_)
            | NodeKind::GradAll(_)
            | NodeKind::SetGradAll(_) => Vec::new(),
        };
        self.nodes[id.index()].outputs = outputs;
    }

    pub(super) fn prompts(&self, id: NodeId, invoke: usize) -> Dimension {
        let invoke = self.trace_of(id).and_then(|trace| trace.invokes.get(invoke));
        Dimension::known(invoke.map_or(0, |invoke| invoke.prompts.count()) as u64)
    }

    fn rectangle(&self, id: NodeId, invoke: usize, lengths: &[Dimension], dtype: DType) -> Vec<TensorType> {
        let length = lengths.get(invoke).cloned().unwrap_or(Dimension::known(0));
        vec![TensorType { dtype, shape: vec![self.prompts(id, invoke), length] }]
    }

    /// The type of a hook point's value in an invoke at a step.
    fn hook_type(
        &mut self,
        id: NodeId,
        address: &HookAddress,
        lengths: &[Dimension],
        phase: Phase,
    ) -> Option<TensorType> {
        let hook = self.spec(id).hook_points.get(self.nodes[id.index()].place?)?;
        let prompt = lengths.get(address.invoke)?.clone();
        let phase = match address.step {
            None => phase,
            Some(0) => Phase::Prompt,
            Some(step) => Phase::Later(Some(step)),
        };
        let (length, context) = match phase {
            Phase::Prompt => (prompt.clone(), prompt),
            Phase::Later(Some(step)) => (Dimension::known(1), prompt.offset(i64::try_from(step).ok()?)),
            Phase::Later(None) => {
                let grown = Dimension::symbol(self.fresh());
                (Dimension::known(1), prompt.plus(&grown))
            }
        };
        let shape = hook.shape.iter().map(|axis| match axis {
            Axis::Prompts => self.prompts(id, address.invoke),
            Axis::Length => length.clone(),
            Axis::Context => context.clone(),
            Axis::Size(size) => Dimension::known(*size),
        });
        Some(TensorType { dtype: hook.dtype, shape: shape.collect() })
    }

    /// Whether a value may be written where `target` is: it has its shape, or expands to it.
    fn written(&mut self, id: NodeId, name: &str, value: Value, target: &TensorType) {
        let given = self.nodes[value.node.index()].outputs[value.output as usize].clone();
        let fits = given.shape.len() <= target.shape.len()
            && given.shape.iter().rev().zip(target.shape.iter().rev()).all(|(from, to)| {
                from.is_one() || from == to || from.value().is_none() || to.value().is_none()
            });
        if !fits {
            let hint = "a written value must have the hook point's shape, or expand to it; to write a part, use `index_put` on the value read".to_owned();
            self.fault(id, format!("{name} is {target}, but it is set to {given}"), Some(hint));
        } else if given.dtype == DType::Bool || (given.dtype.is_float() && !target.dtype.is_float()) {
            let hint = format!("cast it with `to` {}", target.dtype);
            self.fault(
                id,
                format!("{name} holds {}, but it is set to {}", target.dtype, given.dtype),
                Some(hint),
            );
        }
    }

    /// Whether a value can be gone back from.
    fn backward_type(&mut self, id: NodeId, of: Value, cotangent: Option<Value>) {
        let name = self.program.node(of.node).name.clone();
        let given = self.nodes[of.node.index()].outputs[of.output as usize].clone();
        if !given.dtype.is_float() {
            let hint = "gradients are those of floats: a probability, a logit, a loss".to_owned();
            return self.fault(id, format!("`{name}` is {given}, which has no gradient"), Some(hint));
        }
        let Some(cotangent) = cotangent else {
            if !given.shape.iter().all(Dimension::is_one) {
                let hint =
                    "reduce it to one element with `sum` or `mean`, or give a `cotangent` of its shape";
                self.fault(id, format!("`{name}` is {given}, not one number"), Some(hint.to_owned()));
            }
            return;
        };
        let sent = self.nodes[cotangent.node.index()].outputs[cotangent.output as usize].clone();
        let same = sent.shape.len() == given.shape.len()
            && sent
                .shape
                .iter()
                .zip(&given.shape)
                .all(|(one, other)| one == other || one.value().is_none() || other.value().is_none());
        if !same || !sent.dtype.is_float() {
            let hint = "the cotangent is a float of the value's own shape".to_owned();
            self.fault(id, format!("`{name}` is {given}, but its cotangent is {sent}"), Some(hint));
        }
    }

    /// In words what a gradient is the gradient of, and its type, which is the gradient's own.
    fn gradient_type(
        &mut self,
        id: NodeId,
        of: &GradientOf,
        lengths: &[Dimension],
        phase: Phase,
    ) -> Option<(String, TensorType)> {
        let (name, target) = match of {
            GradientOf::Value(value) => {
                let target = self.nodes[value.node.index()].outputs.get(value.output as usize)?.clone();
                (format!("`{}`", self.program.node(value.node).name), target)
            }
            GradientOf::Hook(address) => {
                (format!("`{}`", address.hook), self.hook_type(id, address, lengths, phase)?)
            }
        };
        if !target.dtype.is_float() {
            self.fault(id, format!("{name} is {target}: only floats have gradients"), None);
            return None;
        }
        Some((format!("the gradient of {name}"), target))
    }

    /// The type of a module's result on a value.
    fn application(&mut self, id: NodeId, input: Value) -> Option<TensorType> {
        let spec = self.spec(id);
        let module = spec.modules.get(self.nodes[id.index()].module?)?;
        let given = self.nodes[input.node.index()].outputs[input.output as usize].clone();
        let hook =
            |name: &str| spec.hook_points.iter().find(|hook| hook.module == module.path && hook.name == name);
        let (Some(taken), Some(result)) = (hook("input"), hook("output")) else {
            self.fault(id, format!("`{}` cannot be applied by itself", module.path), None);
            return None;
        };
        let inner = |hook: &HookPointSpec| -> Vec<Dimension> {
            hook.own_sizes().into_iter().map(Dimension::known).collect()
        };
        let (takes, gives) = (inner(taken), inner(result));
        let leading = given.shape.len().checked_sub(takes.len());
        let fits = leading.is_some_and(|leading| given.shape[leading..] == takes[..]);
        match module.applied {
            Application::None => {
                self.fault(
                    id,
                    format!("`{}` cannot be applied by itself", module.path),
                    Some("apply one of the modules inside it".into()),
                );
                None
            }
            Application::Sequence if !fits || leading != Some(2) => {
                let wanted: Vec<String> = takes.iter().map(ToString::to_string).collect();
                self.fault(
                    id,
                    format!(
                        "`{}` takes [prompts, length, {}], but it is applied to {given}",
                        module.path,
                        wanted.join(", ")
                    ),
                    None,
                );
                None
            }
            _ if !fits => {
                let wanted: Vec<String> = takes.iter().map(ToString::to_string).collect();
                self.fault(
                    id,
                    format!(
                        "`{}` takes […, {}], but it is applied to {given}",
                        module.path,
                        wanted.join(", ")
                    ),
                    None,
                );
                None
            }
            _ if given.dtype.is_float() != taken.dtype.is_float() || given.dtype == DType::Bool => {
                self.fault(
                    id,
                    format!("`{}` takes {}, but it is applied to {}", module.path, taken.dtype, given.dtype),
                    None,
                );
                None
            }
            _ => {
                let mut shape = given.shape[..leading.unwrap_or(0)].to_vec();
                shape.extend(gives);
                Some(TensorType { dtype: result.dtype, shape })
            }
        }
    }
}
