//! Checking a program against a model's specification, before anything runs.
//!
//! All faults are reported together, each with its node, its author's line if given, and a hint. The pass is linear in
//! nodes and edges:
//!
//! 1. `names`: every hook point, module and parameter is found in the specification ("did you mean");
//! 2. `types`: shapes and number types of every node, lengths of untokenised prompts as symbols;
//! 3. `applications`: which cells of unequal prompts a module attends to;
//! 4. `skips`: nothing inside a skipped module is read or written;
//! 5. `gradients`: what each `backward` goes through;
//! 6. `order`: soundness in time: what must be acyclic is the graph of events (invoke, step, place, version);
//! 7. `use_of`: setters that nobody sees, results that nobody saves;
//! 8. `together`: which traces do not depend on one another;
//! 9. `price`: floating-point operations, peak bytes, result bytes.
//!
//! What is checked is a program's core: [`crate::expand`] comes before. A fault that many cells of a sweep share is
//! reported once, under the name that its author wrote, with the first cell that has it.

mod applications;
mod generation;
mod gradients;
mod guards;
mod meetings;
mod names;
mod order;
mod price;
mod shown;
mod skips;
mod together;
mod types;
mod use_of;
mod versions;
mod weights;

use std::collections::{HashMap, HashSet};

use crate::fault::{Fault, Faults, quote};
use crate::limits;
use crate::program::{GradientOf, HookAddress, NodeId, NodeKind, Program, Prompts, Trace, Value};
use crate::shape::{Dimension, Symbol, TensorType};
use crate::spec::ModelSpec;
use crate::suggest::did_you_mean;
use crate::wire::hint_of_node;

pub use gradients::GradientPlan;
pub use names::SpecIndex;
pub use price::Price;
pub use together::CheckedTrace;

/// A program that was checked against a specification: what an engine runs.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedProgram {
    /// The program as given.
    pub program: Program,
    /// What is known of each node, at the same index as in the program.
    pub nodes: Vec<CheckedNode>,
    /// What each `backward` goes through, in program order.
    pub gradients: Vec<GradientPlan>,
    /// What is known of its traces, in sequence.
    pub traces: Vec<CheckedTrace>,
    /// What it will cost, at most.
    pub price: Price,
}

/// What checking found out of one node.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct CheckedNode {
    /// The type of each output; for a node inside `steps`, at the body's first step.
    pub outputs: Vec<TensorType>,
    /// Of a getter or setter, and of a gradient of a hook point: the hook point's place in the schedule; of a skip that of
    /// the module's output.
    pub place: Option<usize>,
    /// Of an application or a skip: the module's index in the specification.
    pub module: Option<usize>,
    /// Of the application of a module that attends, to a rectangle of prompts of unequal length: their lengths. The rows of
    /// each end together; the cells before its first are no tokens.
    pub lengths: Option<Vec<usize>>,
    /// Of a weight that is read or set: its index in the specification.
    pub parameter: Option<usize>,
    /// Which model it is about: the place in the list that the program was checked with.
    pub model: usize,
    /// The trace that it stands in.
    pub trace: Option<NodeId>,
    /// The `steps` body that it stands in.
    pub steps: Option<NodeId>,
    /// Whether a save, a log or a setter needs it.
    pub needed: bool,
    /// Floating-point operations that it takes to run once, at most; of a node that is not needed 0.
    pub flops: u64,
}

/// Checks a program against a model. Every fault is reported, up to [`limits::FAULTS`].
pub fn check(program: Program, index: &SpecIndex<'_>) -> Result<CheckedProgram, Faults> {
    check_models(program, &[("", index)])
}

/// Checks a program whose traces may run on several models, each with the name by which a trace calls it. The first is
/// the program's own: that of traces which name none.
///
/// # Errors
/// Every fault, up to [`limits::FAULTS`].
pub fn check_models(program: Program, models: &[(&str, &SpecIndex<'_>)]) -> Result<CheckedProgram, Faults> {
    if models.is_empty() {
        return Err(Fault::new("there is no model to check the program against")
            .with_hint("give at least one")
            .into());
    }
    let mut checker = Checker::new(&program, models);
    checker.structure();
    if checker.faults.is_empty() {
        checker.names();
        checker.types();
        checker.applications();
        checker.skips();
        checker.gradients();
        checker.order();
        checker.use_of();
    }
    if checker.faults.is_empty() {
        let mut traces = checker.together();
        let (mut price, flops) = checker.price(&traces);
        if traces.iter().any(|trace| trace.joins) {
            // Nobody is refused, or made to wait for room, because traces of one program could run together.
            let alone: Vec<_> = traces.iter().map(|&trace| CheckedTrace { joins: false, ..trace }).collect();
            let (sequential, _) = checker.price(&alone);
            if price.peak_bytes > sequential.peak_bytes.max(2 * limits::TOGETHER_BYTES) {
                (traces, price) = (alone, sequential);
            }
        }
        checker.nodes.iter_mut().zip(flops).for_each(|(node, flops)| node.flops = flops);
        let (nodes, mut gradients) = (checker.nodes, checker.gradients);
        gradients.iter_mut().for_each(|plan| plan.targets.retain(|target| nodes[target.index()].needed));
        Ok(CheckedProgram { program, nodes, gradients, traces, price })
    } else {
        Err(Faults(checker.faults))
    }
}

/// The type of a value of a program that may be written only in part, if what it comes from is sound.
pub(crate) fn type_of(
    program: &Program,
    models: &[(&str, &SpecIndex<'_>)],
    value: Value,
) -> Option<TensorType> {
    typed(program, models).nodes.get(value.node.index())?.outputs.get(value.output as usize).cloned()
}

/// The types of the values of a node that its author calls by that name, of a program that may be written only in part:
/// whether it can run is not asked. Of a node that stands for many, as in a sweep over texts, a size is known where it is the same
/// in all of them.
///
/// # Errors
/// What is wrong with the program, where that leaves the node without types.
pub fn types_of(
    program: &Program,
    models: &[(&str, &SpecIndex<'_>)],
    name: &str,
) -> Result<Vec<TensorType>, Faults> {
    let checker = typed(program, models);
    let named = program.nodes.iter().zip(&checker.nodes).filter(|(node, _)| node.label() == name);
    let mut all = named.map(|(_, node)| &node.outputs).filter(|outputs| !outputs.is_empty());
    let Some(mut types) = all.next().cloned() else {
        if checker.faults.is_empty() {
            let hint = "ask of a node that gives a value, by the name that its author gave it";
            return Err(Fault::new(format!("{} has no value", quote(name))).with_hint(hint).into());
        }
        return Err(Faults(checker.faults));
    };
    let mut next_symbol = checker.next_symbol;
    for others in all {
        for (kind, other) in types.iter_mut().zip(others) {
            for (size, there) in kind.shape.iter_mut().zip(&other.shape) {
                if *size != *there {
                    *size = Dimension::symbol(Symbol(next_symbol));
                    next_symbol = next_symbol.saturating_add(1);
                }
            }
        }
    }
    Ok(types)
}

/// What names and types of a program can be found out.
fn typed<'a>(program: &'a Program, models: &'a [(&'a str, &'a SpecIndex<'a>)]) -> Checker<'a> {
    let mut checker = Checker::new(program, models);
    checker.structure();
    checker.names();
    checker.types();
    checker
}

/// The state of one check.
struct Checker<'a> {
    program: &'a Program,
    /// Never empty.
    models: &'a [(&'a str, &'a SpecIndex<'a>)],
    nodes: Vec<CheckedNode>,
    gradients: Vec<GradientPlan>,
    faults: Vec<Fault>,
    /// What was reported of expanded nodes: their label, and the message without its numbers.
    reported: HashSet<(String, String)>,
    next_symbol: u32,
    /// Of a body's nodes that run at the first step too: bytes of what they give at a later one.
    later_bytes: HashMap<NodeId, u64>,
    /// Symbols that stand for the lengths of tokenised prompts, where types are to tell whose rectangle a value is.
    rectangles: Option<applications::Rectangles>,
}

impl<'a> Checker<'a> {
    /// Before anything is checked.
    fn new(program: &'a Program, models: &'a [(&'a str, &'a SpecIndex<'a>)]) -> Checker<'a> {
        Checker {
            program,
            models,
            nodes: vec![CheckedNode::default(); program.nodes.len()],
            gradients: Vec::new(),
            faults: Vec::new(),
            reported: HashSet::new(),
            next_symbol: 0,
            later_bytes: HashMap::new(),
            rectangles: None,
        }
    }

    /// The names of the model that a node is about.
    fn index(&self, id: NodeId) -> &'a SpecIndex<'a> {
        let model = self.nodes[id.index()].model;
        self.models.get(model).unwrap_or(&self.models[0]).1
    }

    /// The specification of the model that a node is about.
    fn spec(&self, id: NodeId) -> &'a ModelSpec {
        self.index(id).spec()
    }

    fn fault(&mut self, id: NodeId, message: impl Into<String>, hint: Option<String>) {
        if self.faults.len() >= limits::FAULTS {
            return;
        }
        let node = self.program.node(id);
        let mut message = message.into();
        if let Some(origin) = &node.origin {
            // What cells share is reported once; cells differ in numbers alone.
            let words = message.chars().filter(|character| !character.is_ascii_digit()).collect();
            if !self.reported.insert((origin.label.clone(), words)) {
                return;
            }
            if !origin.coordinates.is_empty() {
                let cell: Vec<String> = origin.coordinates.iter().map(u64::to_string).collect();
                message.push_str(&format!(" (in cell {})", cell.join(", ")));
            }
        }
        let hint = hint.or_else(|| hint_of_node(node.kind.op(), None));
        let fault = Fault { hint, ..Fault::new(message) };
        self.faults.push(fault.at_node(node.label(), node.source.clone()));
    }

    /// Programs can also be built in Rust: their structure is checked as the wire would.
    fn structure(&mut self) {
        let program = self.program;
        if program.nodes.len() > limits::EXPANDED_NODES {
            let message = format!(
                "the program has {} nodes; at most {} are taken",
                program.nodes.len(),
                limits::EXPANDED_NODES
            );
            self.faults.push(Fault::new(message).with_hint("put it into several programs"));
            return;
        }
        let mut names = HashSet::new();
        let mut owners = vec![None; program.nodes.len()];
        let mut owned = vec![false; program.nodes.len()];
        for (position, node) in program.nodes.iter().enumerate() {
            let id = NodeId(position as u32);
            if !names.insert(node.name.as_str()) {
                self.fault(
                    id,
                    format!("two nodes are named `{}`", node.name),
                    Some("give each node its own name".into()),
                );
            }
            if node.kind.is_surface() {
                self.fault(id, "it was not expanded", Some("call `expand` before `check`".into()));
            }
            for child in node.kind.owned() {
                if child <= id || child.index() >= program.nodes.len() || owned[child.index()] {
                    self.fault(
                        id,
                        "its body lists a node that does not follow it, or that stands in another body",
                        None,
                    );
                } else {
                    owned[child.index()] = true;
                    owners[child.index()] = Some(id);
                }
            }
        }
        for &id in &program.body {
            if id.index() >= program.nodes.len() || owned[id.index()] {
                let message =
                    "the program's body lists a node that does not exist, or that stands in another body";
                let hint = "list every node once: in the program's body, or in that of the node that owns it";
                self.faults.push(Fault::new(message).with_hint(hint));
            } else {
                owned[id.index()] = true;
            }
        }
        if let Some(position) = owned.iter().position(|owned| !owned) {
            self.fault(NodeId(position as u32), "the node stands in no body", None);
        }
        if !self.faults.is_empty() {
            return;
        }
        for (position, owner) in owners.into_iter().enumerate() {
            let id = NodeId(position as u32);
            // Owners stand before what they own, so an owner's own place is already known.
            let (trace, steps) = match owner {
                None => (None, None),
                Some(owner) => match &program.node(owner).kind {
                    NodeKind::Trace(_) => (Some(owner), None),
                    _ => (self.nodes[owner.index()].trace, Some(owner)),
                },
            };
            self.nodes[position].trace = trace;
            self.nodes[position].steps = steps;
            self.nodes[position].model = match &program.node(id).kind {
                NodeKind::Trace(trace) => self.model_of(id, trace),
                _ => trace.map_or(0, |trace| self.nodes[trace.index()].model),
            };
            self.placement(id);
            for value in program.node(id).values() {
                self.reference(id, value);
            }
        }
    }

    /// The place of the model that a trace names.
    fn model_of(&mut self, id: NodeId, trace: &Trace) -> usize {
        let Some(name) = &trace.model else { return 0 };
        if let Some(place) = self.models.iter().position(|(known, _)| known == name) {
            return place;
        }
        let known: Vec<&str> =
            self.models.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        let hint = did_you_mean(name, known.iter().copied()).or_else(|| {
            Some(match known.as_slice() {
                [] => "only one model is loaded: leave `model` out".to_owned(),
                known => format!("those that are loaded are called {}", known.join(", ")),
            })
        });
        self.fault(id, format!("no model is loaded as {}", quote(name)), hint);
        0
    }

    /// Whether a node may stand where it stands.
    fn placement(&mut self, id: NodeId) {
        let checked = &self.nodes[id.index()];
        let (inside_trace, inside_steps) = (checked.trace.is_some(), checked.steps.is_some());
        match &self.program.node(id).kind {
            NodeKind::Trace(_) if inside_trace => {
                self.fault(
                    id,
                    "a trace cannot stand inside a trace",
                    Some("write it after the other, in the program's body".into()),
                );
            }
            NodeKind::Trace(trace) => self.trace(id, trace),
            NodeKind::Steps { .. } if inside_steps => {
                self.fault(id, "`steps` cannot stand inside `steps`", None);
            }
            NodeKind::Steps { steps, .. } => {
                let total =
                    self.trace_of(id).and_then(|trace| trace.generation.as_ref()).map(|g| g.max_new_tokens);
                match total {
                    None => self.fault(
                        id,
                        "`steps` stands in a trace that does not generate",
                        Some("give the trace a `generate` with `max_new_tokens`".into()),
                    ),
                    Some(total)
                        if steps.from >= total
                            || steps.to.is_some_and(|to| to > total || to <= steps.from) =>
                    {
                        self.fault(
                            id,
                            format!("`steps` names steps that are never reached: the generation has steps 0 to {}", total.saturating_sub(1)),
                            Some("step 0 is the prompt's; N new tokens take steps 0 to N−1".into()),
                        );
                    }
                    Some(_) if steps.every == 0 => self.fault(id, "`every` must be at least 1", None),
                    Some(_) => {}
                }
            }
            NodeKind::Get(address) | NodeKind::Set { address, .. } => self.address(id, address),
            NodeKind::Skip { invoke, step, .. } => self.step_of(id, *invoke, *step),
            NodeKind::SetWeight { invoke, .. } => {
                let known = self.invoke(id, *invoke);
                if known && inside_steps {
                    self.fault(
                        id,
                        "a weight is set for all steps of its invoke, but this stands inside `steps`",
                        Some("move it out of `steps`".into()),
                    );
                }
            }
            NodeKind::Stop { invoke, .. } => {
                let known = self.invoke(id, *invoke);
                if known && !inside_steps {
                    self.fault(
                        id,
                        "it ends a generation after the step in which it stands, but it stands in none",
                        Some("put it into the body of a `steps`".into()),
                    );
                }
            }
            NodeKind::Backward { .. } => self.backward(id),
            NodeKind::Grad { backward, of } | NodeKind::SetGrad { backward, of, .. } => {
                self.gradient(id, *backward, of);
            }
            NodeKind::Tokens(invoke) | NodeKind::Lengths(invoke) | NodeKind::Mask(invoke) => {
                self.invoke(id, *invoke);
            }
            NodeKind::Generated(invoke) => {
                let generates = self.trace_of(id).is_some_and(|trace| trace.generation.is_some());
                if self.invoke(id, *invoke) && (!generates || inside_steps) {
                    self.fault(id, "the generated tokens are known only after a generation", None);
                }
            }
            _ => {}
        }
    }

    /// Whether a `backward` may stand where it stands.
    fn backward(&mut self, id: NodeId) {
        let generates = self.trace_of(id).is_some_and(|trace| trace.generation.is_some());
        if generates || self.nodes[id.index()].steps.is_some() {
            self.fault(
                id,
                "gradients do not go back across the steps of a generation",
                Some("give the prompt together with the tokens that were generated to a trace that does not generate".into()),
            );
        }
    }

    /// Whether a gradient names a `backward` before it, and something of its own trace.
    fn gradient(&mut self, id: NodeId, backward: NodeId, of: &GradientOf) {
        let known = backward < id && matches!(self.program.node(backward).kind, NodeKind::Backward { .. });
        if !known {
            return self.fault(id, "it names no `backward` before it", None);
        }
        let (own, its) = (&self.nodes[id.index()], &self.nodes[backward.index()]);
        if own.trace != its.trace || own.steps.is_some() {
            let hint = "write the gradient beside its `backward`; its value can be read anywhere after it";
            return self.fault(
                id,
                "a gradient stands in another body than its `backward`",
                Some(hint.into()),
            );
        }
        match of {
            GradientOf::Value(value) => self.reference(id, *value),
            GradientOf::Hook(address) => self.address(id, address),
        }
    }

    fn trace_of(&self, id: NodeId) -> Option<&'a Trace> {
        let trace = self.nodes[id.index()].trace?;
        match &self.program.node(trace).kind {
            NodeKind::Trace(trace) => Some(trace),
            _ => None,
        }
    }

    fn invoke(&mut self, id: NodeId, invoke: usize) -> bool {
        let known = self.trace_of(id).map(|trace| trace.invokes.len());
        match known {
            Some(count) if invoke < count => true,
            Some(count) => {
                self.fault(id, format!("it names invoke {invoke}, but the trace has {count}"), None);
                false
            }
            None => {
                self.fault(id, "it stands outside a trace", Some("move it into the trace's body".into()));
                false
            }
        }
    }

    fn address(&mut self, id: NodeId, address: &HookAddress) {
        self.step_of(id, address.invoke, address.step);
    }

    /// Whether an invoke has that step.
    fn step_of(&mut self, id: NodeId, invoke: usize, step: Option<u64>) {
        if !self.invoke(id, invoke) {
            return;
        }
        let steps =
            self.trace_of(id).and_then(|trace| trace.generation.as_ref()).map_or(1, |g| g.max_new_tokens);
        if let Some(step) = step {
            if self.nodes[id.index()].steps.is_some() {
                self.fault(
                    id,
                    "inside `steps` a hook point is that of the current step; it takes no `step`",
                    None,
                );
            } else if step >= steps {
                self.fault(
                    id,
                    format!(
                        "step {step} is never reached: the trace has steps 0 to {}",
                        steps.saturating_sub(1)
                    ),
                    Some("step 0 is the prompt's; N new tokens take steps 0 to N−1".into()),
                );
            }
        }
    }

    /// A trace's inputs.
    fn trace(&mut self, id: NodeId, trace: &Trace) {
        if trace.invokes.is_empty() {
            self.fault(id, "the trace has no invoke", Some("give it at least one prompt".into()));
        }
        if let Some(generation) = &trace.generation {
            self.generation(id, generation);
        }
        let new_tokens = trace
            .generation
            .as_ref()
            .map_or(0, |generation| generation.max_new_tokens - u64::from(generation.max_new_tokens > 0));
        let sizes = &self.spec(id).sizes;
        for invoke in &trace.invokes {
            let name = invoke.label();
            if let Prompts::Axis(_) = &invoke.prompts {
                self.fault(id, "it was not expanded", Some("call `expand` before `check`".into()));
                continue;
            }
            if invoke.prompts.count() == 0 {
                self.fault(id, format!("invoke `{name}` has no prompt"), Some("give it at least one".into()));
            }
            let Prompts::Tokens(prompts) = &invoke.prompts else { continue };
            for (number, tokens) in prompts.iter().enumerate() {
                let length = tokens.len() as u64;
                if tokens.is_empty() {
                    self.fault(
                        id,
                        format!("prompt {number} of invoke `{name}` has no tokens"),
                        Some("a prompt needs at least one token".into()),
                    );
                }
                if let Some(token) = tokens.iter().find(|&&token| u64::from(token) >= sizes.vocabulary) {
                    let message = format!(
                        "prompt {number} of invoke `{name}` has token {token}, but the vocabulary ends at {}",
                        sizes.vocabulary.saturating_sub(1)
                    );
                    self.fault(id, message, Some("token ids are those of the model's own tokenizer".into()));
                }
                if let Some(positions) = sizes.positions
                    && length.saturating_add(new_tokens) > positions
                {
                    let message = format!(
                        "prompt {number} of invoke `{name}` takes {} positions, but the model has {positions}",
                        length.saturating_add(new_tokens)
                    );
                    self.fault(id, message, Some("shorten the prompt, or generate fewer tokens".into()));
                }
            }
        }
    }

    /// Whether a node may read a value.
    fn reference(&mut self, id: NodeId, value: Value) {
        if value.node >= id {
            self.fault(id, "it reads a value that comes after it", None);
            return;
        }
        let (reader, read) = (&self.nodes[id.index()], &self.nodes[value.node.index()]);
        if read.steps.is_some() && read.steps != reader.steps {
            let name = self.program.node(value.node).label().to_owned();
            self.fault(
                id,
                format!("it reads `{name}`, which has one value for each step and is known only inside its `steps`"),
                Some("save it there, or move this node into the same `steps`".into()),
            );
        } else if !self.program.node(value.node).kind.has_value() {
            let name = self.program.node(value.node).label().to_owned();
            self.fault(id, format!("it reads `{name}`, which has no value"), None);
        }
    }
}
