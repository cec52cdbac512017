//! The types of a program: its nodes, and what a trace runs (`trace`).
//!
//! A program is in static single assignment form. Its nodes stand in one list in program order; a node refers only to
//! nodes before it. A node that owns others (a trace, `steps`, a sweep, a loop) stands before the nodes that it owns.
//!
//! What travels is the *surface* language; what is checked and run is its *core*: a surface node ([`NodeKind::is_surface`])
//! is turned into core nodes by [`crate::expand`], each of which keeps its [`Origin`].

mod trace;

use std::collections::BTreeMap;

use crate::dtype::DType;
use crate::operation::{IndexItem, Operation};
use crate::scalar::Scalar;
use crate::surface::{
    Branch, Cache, Cond, Edit, GradAll, Loop, Parameter, Reduce, SetAll, SetGradAll, Sweep, WildcardAddress,
};

pub use trace::{Generation, HookAddress, Invoke, InvokeOrigin, Prompts, Sampling, StepSelection, Trace};

/// A node's place in [`Program::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The place as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One output of a node: most nodes have one, `topk` has two. On the wire `name`, or `name.1` for the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node that computes it.
    pub node: NodeId,
    /// Which of the node's outputs.
    pub output: u32,
}

impl From<NodeId> for Value {
    fn from(node: NodeId) -> Self {
        Value { node, output: 0 }
    }
}

/// What travels: an experiment on one model.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Program {
    /// The model it is for, as its publisher names it; none: whichever model it is given to.
    pub model: Option<String>,
    /// The seed of everything random in it.
    pub seed: u64,
    /// Every node of the program, in program order.
    pub nodes: Vec<Node>,
    /// The nodes of the outermost body: traces, in sequence.
    pub body: Vec<NodeId>,
    /// Tensors that travel with the program, named by `constant` nodes.
    pub constants: BTreeMap<String, Constant>,
    /// Values that must have the type of another, as a loop's carried values must from one iteration to the next. Made
    /// by expansion; does not travel.
    pub same_types: Vec<SameType>,
}

/// A value that must have another's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SameType {
    /// The node at which it is reported if it has not.
    pub at: NodeId,
    /// What the value is, for the message: a carried value's name.
    pub what: String,
    /// What it begins as.
    pub first: Value,
    /// What it goes on as.
    pub next: Value,
}

impl Program {
    /// The node of that id; ids made by a program's own constructors are always in range.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The program's traces, in sequence.
    pub fn traces(&self) -> impl Iterator<Item = (NodeId, &Trace)> {
        self.body.iter().filter_map(|&id| match &self.node(id).kind {
            NodeKind::Trace(trace) => Some((id, trace)),
            _ => None,
        })
    }

    /// Where a gradient that is read or written stands, if that is at a hook point: the address, and the node whose place is
    /// its own, the target for a hook point's gradient, the getter for that of what one reads.
    pub fn gradient_at(&self, target: NodeId) -> Option<(NodeId, &HookAddress)> {
        match self.node(target).kind.gradient()?.1 {
            GradientOf::Hook(address) => Some((target, address)),
            GradientOf::Value(value) => match &self.node(value.node).kind {
                NodeKind::Get(address) => Some((value.node, address)),
                _ => None,
            },
        }
    }
}

/// A tensor that travels beside the program: little-endian elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Its number type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<u64>,
    /// `shape.product() * dtype.size()` bytes.
    pub bytes: Vec<u8>,
}

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name, unique in the program: letters, digits and `_`. Values are referred to by it, a save's result is filed
    /// under it, and noise is keyed by it.
    pub name: String,
    /// What it does.
    pub kind: NodeKind,
    /// Where its author wrote it.
    pub source: Option<SourceLocation>,
    /// The surface node that it was expanded from, and for which cell; none: it stood in the program as it is.
    pub origin: Option<Origin>,
    /// The conditions under which it runs, all of which must hold: one for each `cond` that it stood in. Where one does
    /// not hold the node is lost, as one of a step that a generation never reached. They are made by expanding a
    /// program, and do not travel.
    pub guards: Vec<Guard>,
    /// Whether it is no mistake if nothing needs it: a setter that comes from an edit. Made by expanding a program.
    pub optional: bool,
}

impl Node {
    /// A node without a source or an origin.
    pub fn new(name: impl Into<String>, kind: NodeKind) -> Node {
        Node { name: name.into(), kind, source: None, origin: None, guards: Vec::new(), optional: false }
    }

    /// Every value that the node waits for: those that it reads, and the conditions of its guards.
    pub fn values(&self) -> Vec<Value> {
        let mut values = self.kind.values();
        values.extend(self.guards.iter().map(|guard| guard.condition));
        values
    }

    /// Gives every node that this one names, owns or waits for its new place.
    pub fn renumber(&mut self, moved: &dyn Fn(NodeId) -> NodeId) {
        self.kind.renumber(moved);
        for guard in &mut self.guards {
            guard.condition.node = moved(guard.condition.node);
        }
    }

    /// The name that its author gave it: by it faults are reported, logs are labelled and noise is keyed.
    pub fn label(&self) -> &str {
        self.origin.as_ref().map_or(&self.name, |origin| &origin.label)
    }

    /// The cell of a sweep and the iteration of a loop that it stands for; empty outside of those.
    pub fn coordinates(&self) -> &[u64] {
        self.origin.as_ref().map_or(&[], |origin| &origin.coordinates)
    }
}

/// Where an expanded node comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The name of the surface node.
    pub label: String,
    /// Its cell: one number for each axis of each sweep or loop around it, from the outermost to the innermost.
    pub coordinates: Vec<u64>,
}

/// A condition under which a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    /// A bool without dimensions.
    pub condition: Value,
    /// What it must be.
    pub holds: bool,
}

/// A place in the author's own program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceLocation {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The line's text, if the author's client sent it.
    pub text: Option<String>,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// One or more invokes and one graph over them, run on the model. Owns a body.
    Trace(Trace),
    /// Reads a hook point's value.
    Get(HookAddress),
    /// Replaces a hook point's value: of the same shape, or one that expands to it, cast to its number type.
    Set {
        /// Where.
        address: HookAddress,
        /// The new value.
        value: Value,
    },
    /// Applies a module of the model to a value, out of the model's own order. Pure: it fires no hook point.
    Apply {
        /// The module's path or alias.
        module: String,
        /// What it is applied to.
        input: Value,
    },
    /// An operation of the table.
    Operation(Operation),
    /// A small tensor written in the program itself.
    Literal {
        /// Its number type.
        dtype: DType,
        /// Its shape.
        shape: Vec<u64>,
        /// Its elements, row-major.
        elements: Vec<Scalar>,
    },
    /// A tensor that travels with the program: the key in [`Program::constants`].
    Constant(String),
    /// The invoke's token ids: `[prompts, length]`, i64, left-padded with 0.
    Tokens(usize),
    /// The number of tokens of each prompt of the invoke: `[prompts]`, i64.
    Lengths(usize),
    /// Which cells of the invoke's rectangle are real: `[prompts, length]`, bool.
    Mask(usize),
    /// The tokens that a generation made for the invoke: `[prompts, max_new_tokens]`, i64; −1 in cells after a prompt had
    /// stopped. The shape does not depend on what was made: cells of a sweep can be stacked, whenever each stops.
    Generated(usize),
    /// Steps of a generation: the body runs once at each chosen step. Owns a body.
    Steps {
        /// Which steps.
        steps: StepSelection,
        /// Its nodes.
        body: Vec<NodeId>,
    },
    /// Ends the generation of the prompts for which a bool holds, after this step's token. Stands inside `steps`.
    Stop {
        /// The place in [`Trace::invokes`].
        invoke: usize,
        /// A bool, without dimensions or `[prompts]`.
        when: Value,
    },
    /// Gives a module's output without running the module.
    Skip {
        /// The place in [`Trace::invokes`].
        invoke: usize,
        /// The module's path or alias.
        module: String,
        /// The step of a generation, as in a [`HookAddress`].
        step: Option<u64>,
        /// The output: of its shape, or one that expands to it.
        value: Value,
    },
    /// A parameter of the model as it was loaded, f32 in the checkpoint's layout, or a part of it.
    Weight {
        /// Its name in transformers, or by an alias of its module.
        parameter: String,
        /// Which part; none: all of it.
        index: Option<Vec<IndexItem>>,
    },
    /// Runs an invoke with another parameter in a parameter's place: all of its steps, and no other invoke.
    SetWeight {
        /// The place in [`Trace::invokes`].
        invoke: usize,
        /// Its name in transformers, or by an alias of its module.
        parameter: String,
        /// The parameter, of the same shape.
        value: Value,
    },
    /// The value of the branch that ran. Made from a `cond` by expanding a program; it does not travel.
    Merge {
        /// A bool without dimensions.
        condition: Value,
        /// The value where it holds.
        then: Value,
        /// The value where it does not, of the same number type and shape.
        otherwise: Value,
    },
    /// Marks a value that is returned, under this node's name. Inside `steps`, one result for each step: `name/0`, ….
    Save(Value),
    /// Streams a small value to the caller while the program runs, with this node's name as its label.
    Log(Value),
    /// Goes back from a value to what it was computed from. Gradients of it are then read by [`NodeKind::Grad`] and
    /// written by [`NodeKind::SetGrad`]; several may go back from one forward pass.
    Backward {
        /// The value, a float of one element; with a cotangent, of any shape.
        of: Value,
        /// What is sent back in place of 1: a float of the value's shape.
        cotangent: Option<Value>,
    },
    /// Reads a gradient: it has the shape and number type of what it is the gradient of.
    Grad {
        /// The [`NodeKind::Backward`] that computes it.
        backward: NodeId,
        /// Of what.
        of: GradientOf,
    },
    /// Replaces a gradient on the way back: what was computed before is what changes. A `grad` of the same after it in
    /// program order reads the new one.
    SetGrad {
        /// The [`NodeKind::Backward`] that computes it.
        backward: NodeId,
        /// Of what.
        of: GradientOf,
        /// The new gradient, of the same shape, or one that expands to it.
        value: Value,
    },
    /// Surface: one body over a grid of parameters. Owns its parameters and a body; its values are the yields, stacked.
    Sweep(Sweep),
    /// Surface: one body again and again, with carried values. Owns its parameters, what it carries, and a body; its
    /// values are the carried ones in the end.
    Loop(Loop),
    /// Surface: a parameter of a sweep or loop, which owns it.
    Parameter(Parameter),
    /// Surface: a value that a loop carries from one iteration to the next, which owns it: what it begins as.
    Carried(Value),
    /// Surface: two branches, of which one runs. Owns them; its values are the yields of the branch that ran.
    Cond(Cond),
    /// Surface: a branch of a condition, which owns it. Owns a body.
    Branch(Branch),
    /// Surface: a stack of edits, which invokes of later traces use by its name. Owns a body.
    Edit(Edit),
    /// Surface: one value made of all cells of the sweep whose body it stands in, known after that sweep.
    Reduce(Reduce),
    /// Surface: reads all hook points that match a pattern, stacked in the order of the schedule.
    GetAll(WildcardAddress),
    /// Surface: writes all hook points that match a pattern.
    SetAll(SetAll),
    /// Surface: saves all hook points that match a pattern, each under its own path.
    Cache(Cache),
    /// Surface: reads the gradients of all hook points that match a pattern, stacked in the order of the schedule.
    GradAll(GradAll),
    /// Surface: writes the gradients of all hook points that match a pattern.
    SetGradAll(SetGradAll),
}

/// What a gradient is the gradient of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GradientOf {
    /// A value of the program; of a getter: the version of the hook point that it read.
    Value(Value),
    /// A hook point: the version that flowed on, after all setters.
    Hook(HookAddress),
}

impl NodeKind {
    /// Every value that the node reads, in order; those of its body, and those that its body gives to it, are the body's
    /// own.
    pub fn values(&self) -> Vec<Value> {
        match self {
            NodeKind::Set { value, .. }
            | NodeKind::Skip { value, .. }
            | NodeKind::SetWeight { value, .. }
            | NodeKind::Stop { when: value, .. }
            | NodeKind::Save(value)
            | NodeKind::Log(value)
            | NodeKind::Carried(value)
            | NodeKind::Parameter(Parameter::Rows(value)) => vec![*value],
            NodeKind::Merge { condition, then, otherwise } => vec![*condition, *then, *otherwise],
            NodeKind::Weight { index: Some(items), .. } => items
                .iter()
                .filter_map(|item| if let IndexItem::Tensor(value) = item { Some(*value) } else { None })
                .collect(),
            NodeKind::Apply { input, .. } => vec![*input],
            NodeKind::Operation(operation) => operation.values(),
            NodeKind::Cond(cond) => vec![cond.condition],
            NodeKind::Reduce(reduce) => vec![reduce.value],
            NodeKind::SetAll(set) => vec![set.value],
            NodeKind::Backward { of, cotangent } => std::iter::once(*of).chain(*cotangent).collect(),
            NodeKind::SetGrad { value, .. } | NodeKind::SetGradAll(SetGradAll { value, .. }) => vec![*value],
            _ => Vec::new(),
        }
    }

    /// Every value that the node names, those that its body gives to it included.
    pub fn for_each_value_mut(&mut self, change: &mut dyn FnMut(&mut Value)) {
        match self {
            NodeKind::Set { value, .. }
            | NodeKind::Skip { value, .. }
            | NodeKind::SetWeight { value, .. }
            | NodeKind::Stop { when: value, .. }
            | NodeKind::Save(value)
            | NodeKind::Log(value)
            | NodeKind::Carried(value)
            | NodeKind::Parameter(Parameter::Rows(value)) => change(value),
            NodeKind::Merge { condition, then, otherwise } => {
                [condition, then, otherwise].into_iter().for_each(change);
            }
            NodeKind::Weight { index: Some(items), .. } => items.iter_mut().for_each(|item| {
                if let IndexItem::Tensor(value) = item {
                    change(value);
                }
            }),
            NodeKind::Apply { input, .. } => change(input),
            NodeKind::Backward { of, cotangent } => std::iter::once(of).chain(cotangent).for_each(change),
            NodeKind::Grad { backward, of } => for_each_of_gradient(backward, of, change),
            NodeKind::SetGrad { backward, of, value } => {
                for_each_of_gradient(backward, of, change);
                change(value);
            }
            NodeKind::GradAll(GradAll { backward, .. }) => for_way_back(backward, change),
            NodeKind::SetGradAll(SetGradAll { backward, value, .. }) => {
                for_way_back(backward, change);
                change(value);
            }
            NodeKind::Operation(operation) => operation.for_each_value_mut(change),
            NodeKind::Reduce(reduce) => change(&mut reduce.value),
            NodeKind::SetAll(set) => change(&mut set.value),
            NodeKind::Sweep(sweep) => sweep.yields.iter_mut().for_each(change),
            NodeKind::Loop(repeated) => repeated.next.iter_mut().for_each(change),
            NodeKind::Cond(cond) => change(&mut cond.condition),
            NodeKind::Branch(branch) => branch.yields.iter_mut().for_each(change),
            _ => {}
        }
    }

    /// Every invoke that the node names, by its place among those that it can see.
    pub fn for_each_invoke_mut(&mut self, change: &mut dyn FnMut(&mut usize)) {
        match self {
            NodeKind::Get(address)
            | NodeKind::Set { address, .. }
            | NodeKind::Grad { of: GradientOf::Hook(address), .. }
            | NodeKind::SetGrad { of: GradientOf::Hook(address), .. } => change(&mut address.invoke),
            NodeKind::Tokens(invoke)
            | NodeKind::Lengths(invoke)
            | NodeKind::Mask(invoke)
            | NodeKind::Generated(invoke)
            | NodeKind::Stop { invoke, .. }
            | NodeKind::Skip { invoke, .. }
            | NodeKind::SetWeight { invoke, .. } => change(invoke),
            NodeKind::GetAll(address) => change(&mut address.invoke),
            NodeKind::SetAll(set) => change(&mut set.address.invoke),
            NodeKind::Cache(cache) => change(&mut cache.address.invoke),
            NodeKind::GradAll(grad) => change(&mut grad.address.invoke),
            NodeKind::SetGradAll(set) => change(&mut set.address.invoke),
            _ => {}
        }
    }

    /// Every text in which `{parameter}` stands for a parameter's number: hook points, modules, names of weights.
    pub fn for_each_address_mut(&mut self, change: &mut dyn FnMut(&mut String)) {
        match self {
            NodeKind::Get(address)
            | NodeKind::Set { address, .. }
            | NodeKind::Grad { of: GradientOf::Hook(address), .. }
            | NodeKind::SetGrad { of: GradientOf::Hook(address), .. } => change(&mut address.hook),
            NodeKind::Apply { module, .. } | NodeKind::Skip { module, .. } => change(module),
            NodeKind::Weight { parameter, .. } | NodeKind::SetWeight { parameter, .. } => change(parameter),
            NodeKind::GetAll(address) => address.for_each_pattern_mut(change),
            NodeKind::SetAll(set) => set.address.for_each_pattern_mut(change),
            NodeKind::Cache(cache) => cache.address.for_each_pattern_mut(change),
            NodeKind::GradAll(grad) => grad.address.for_each_pattern_mut(change),
            NodeKind::SetGradAll(set) => set.address.for_each_pattern_mut(change),
            _ => {}
        }
    }

    /// The nodes that the node owns, in program order: its parameters, what it carries, its body.
    pub fn owned(&self) -> Vec<NodeId> {
        match self {
            NodeKind::Trace(trace) => trace.body.clone(),
            NodeKind::Steps { body, .. } => body.clone(),
            NodeKind::Cond(cond) => std::iter::once(cond.then).chain(cond.otherwise).collect(),
            NodeKind::Branch(branch) => branch.body.clone(),
            NodeKind::Edit(edit) => edit.body.clone(),
            NodeKind::Sweep(sweep) => {
                sweep.region.parameters().chain(sweep.region.body.iter().copied()).collect()
            }
            NodeKind::Loop(repeated) => {
                let carried = repeated.carry.iter().copied();
                let region = &repeated.region;
                region.parameters().chain(carried).chain(region.body.iter().copied()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Gives every node that this one names or owns its new place.
    pub fn renumber(&mut self, moved: &dyn Fn(NodeId) -> NodeId) {
        self.for_each_value_mut(&mut |value| value.node = moved(value.node));
        let all = |ids: &mut Vec<NodeId>| ids.iter_mut().for_each(|id| *id = moved(*id));
        let invokes = |invokes: &mut Vec<Invoke>| {
            for invoke in invokes {
                if let Prompts::Axis(parameter) = &mut invoke.prompts {
                    *parameter = moved(*parameter);
                }
                all(&mut invoke.edits);
            }
        };
        match self {
            NodeKind::Trace(trace) => {
                all(&mut trace.body);
                all(&mut trace.edits);
                invokes(&mut trace.invokes);
            }
            NodeKind::Steps { body, .. } => all(body),
            NodeKind::Cond(cond) => {
                cond.then = moved(cond.then);
                cond.otherwise = cond.otherwise.map(moved);
            }
            NodeKind::Branch(branch) => all(&mut branch.body),
            NodeKind::Edit(edit) => {
                all(&mut edit.edits);
                all(&mut edit.body);
            }
            NodeKind::Sweep(Sweep { region, .. }) | NodeKind::Loop(Loop { region, .. }) => {
                region.over.iter_mut().for_each(all);
                all(&mut region.body);
                invokes(&mut region.invokes);
            }
            _ => {}
        }
        if let NodeKind::Loop(repeated) = self {
            all(&mut repeated.carry);
        }
    }

    /// The `backward` that a node reads or writes a gradient of, and what it is the gradient of.
    pub fn gradient(&self) -> Option<(NodeId, &GradientOf)> {
        match self {
            NodeKind::Grad { backward, of } | NodeKind::SetGrad { backward, of, .. } => Some((*backward, of)),
            _ => None,
        }
    }

    /// The invoke of which it gives a hook point another value, and that value: of a setter, and of a skip, which gives its
    /// module's output.
    pub fn written(&self) -> Option<(usize, Value)> {
        match self {
            NodeKind::Set { address, value } => Some((address.invoke, *value)),
            NodeKind::Skip { invoke, value, .. } => Some((*invoke, *value)),
            _ => None,
        }
    }

    /// Whether other nodes can read a value of it.
    pub fn has_value(&self) -> bool {
        !matches!(
            self,
            NodeKind::Trace(_)
                | NodeKind::Set { .. }
                | NodeKind::Skip { .. }
                | NodeKind::SetWeight { .. }
                | NodeKind::Stop { .. }
                | NodeKind::Steps { .. }
                | NodeKind::Branch(_)
                | NodeKind::Edit(_)
                | NodeKind::Save(_)
                | NodeKind::Log(_)
                | NodeKind::Backward { .. }
                | NodeKind::SetGrad { .. }
                | NodeKind::SetAll(_)
                | NodeKind::Cache(_)
                | NodeKind::SetGradAll(_)
        )
    }

    /// The word of the wire for it. `get` and `set` are also those of hook points by pattern; a loop's carried value is a
    /// parameter like those of its axes.
    pub fn op(&self) -> &'static str {
        match self {
            NodeKind::Trace(_) => "trace",
            NodeKind::Get(_) => "get",
            NodeKind::Set { .. } => "set",
            NodeKind::Apply { .. } => "apply",
            NodeKind::Operation(operation) => operation.kind.name(),
            NodeKind::Literal { .. } => "literal",
            NodeKind::Constant(_) => "constant",
            NodeKind::Tokens(_) => "tokens",
            NodeKind::Lengths(_) => "lengths",
            NodeKind::Mask(_) => "mask",
            NodeKind::Generated(_) => "generated",
            NodeKind::Steps { .. } => "steps",
            NodeKind::Stop { .. } => "stop",
            NodeKind::Skip { .. } => "skip",
            NodeKind::Weight { .. } => "weight",
            NodeKind::SetWeight { .. } => "set_weight",
            NodeKind::Merge { .. } => "merge",
            NodeKind::Save(_) => "save",
            NodeKind::Log(_) => "print",
            NodeKind::Sweep(_) => "sweep",
            NodeKind::Loop(_) => "loop",
            NodeKind::Cond(_) => "cond",
            NodeKind::Branch(_) => "branch",
            NodeKind::Edit(_) => "edit",
            NodeKind::Parameter(_) | NodeKind::Carried(_) => "parameter",
            NodeKind::Reduce(_) => "reduce",
            NodeKind::GetAll(_) => "get",
            NodeKind::SetAll(_) => "set",
            NodeKind::Cache(_) => "cache",
            NodeKind::Backward { .. } => "backward",
            NodeKind::Grad { .. } | NodeKind::GradAll(_) => "grad",
            NodeKind::SetGrad { .. } | NodeKind::SetGradAll(_) => "set_grad",
        }
    }

    /// Whether it belongs to the surface language alone: nothing checks or runs it before it is expanded.
    pub fn is_surface(&self) -> bool {
        matches!(
            self,
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
                | NodeKind::SetGradAll(_)
        )
    }
}

/// The values that a gradient's node names: what it is the gradient of, and the way back that computes it.
fn for_each_of_gradient(backward: &mut NodeId, of: &mut GradientOf, change: &mut dyn FnMut(&mut Value)) {
    for_way_back(backward, change);
    if let GradientOf::Value(value) = of {
        change(value);
    }
}

fn for_way_back(backward: &mut NodeId, change: &mut dyn FnMut(&mut Value)) {
    let mut way_back = Value::from(*backward);
    change(&mut way_back);
    *backward = way_back.node;
}
