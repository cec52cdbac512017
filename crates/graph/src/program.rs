//! The types of a program: nodes, traces, invokes.
//!
//! A program is in static single assignment form. Its nodes stand in one list in program order; a node refers only to
//! nodes before it. A node that owns a body (a trace, later a loop or a sweep) stands before the nodes of that body.

use std::collections::BTreeMap;

use crate::dtype::DType;
use crate::operation::Operation;
use crate::scalar::Scalar;

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
    /// The tokens that a generation made for the invoke: `[prompts, new tokens]`, i64, as many columns as the longest
    /// prompt made; −1 in cells after a prompt had stopped.
    Generated(usize),
    /// Steps of a generation: the body runs once at each chosen step. Owns a body.
    Steps {
        /// Which steps.
        steps: StepSelection,
        /// Its nodes.
        body: Vec<NodeId>,
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
    /// Every value that the node reads, in order; those of its body are the body's own.
    pub fn values(&self) -> Vec<Value> {
        match self {
            NodeKind::Set { value, .. } | NodeKind::Save(value) | NodeKind::Log(value) => vec![*value],
            NodeKind::Apply { input, .. } => vec![*input],
            NodeKind::Operation(operation) => operation.values(),
            NodeKind::Backward { of, cotangent } => std::iter::once(*of).chain(*cotangent).collect(),
            NodeKind::SetGrad { value, .. } => vec![*value],
            _ => Vec::new(),
        }
    }

    /// The `backward` that a node reads or writes a gradient of, and what it is the gradient of.
    pub fn gradient(&self) -> Option<(NodeId, &GradientOf)> {
        match self {
            NodeKind::Grad { backward, of } | NodeKind::SetGrad { backward, of, .. } => Some((*backward, of)),
            _ => None,
        }
    }

    /// Whether other nodes can read a value of it.
    pub fn has_value(&self) -> bool {
        !matches!(
            self,
            NodeKind::Trace(_)
                | NodeKind::Set { .. }
                | NodeKind::Steps { .. }
                | NodeKind::Save(_)
                | NodeKind::Log(_)
                | NodeKind::Backward { .. }
                | NodeKind::SetGrad { .. }
        )
    }
}

/// One or more invokes and one graph.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Trace {
    /// Its inputs.
    pub invokes: Vec<Invoke>,
    /// How to generate; none: one forward pass.
    pub generation: Option<Generation>,
    /// Its graph, in program order.
    pub body: Vec<NodeId>,
}

/// One input, with the rows that belong to it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Invoke {
    /// Its name, unique in the trace: the wire refers to invokes by name.
    pub name: String,
    /// What goes in.
    pub prompts: Prompts,
}

/// The prompts of an invoke.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompts {
    /// Texts, tokenised by the model's tokenizer where the program is admitted.
    Text {
        /// The prompts.
        texts: Vec<String>,
        /// Whether the tokenizer adds its own default special tokens.
        special_tokens: bool,
    },
    /// Token ids, one list for each prompt.
    Tokens(Vec<Vec<u32>>),
}

impl Default for Prompts {
    fn default() -> Self {
        Prompts::Tokens(Vec::new())
    }
}

impl Prompts {
    /// How many prompts.
    pub fn count(&self) -> usize {
        match self {
            Prompts::Text { texts, .. } => texts.len(),
            Prompts::Tokens(tokens) => tokens.len(),
        }
    }
}

/// A hook point of one invoke, at one step or at the current one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HookAddress {
    /// The place in [`Trace::invokes`].
    pub invoke: usize,
    /// `<module path>.<name>`, canonical or by alias.
    pub hook: String,
    /// The step of a generation, outside a `steps` body; none: step 0, or the body's own step inside one.
    pub step: Option<u64>,
}

/// Which steps of a generation: `from`, up to and without `to`, every `every`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepSelection {
    /// The first step.
    pub from: u64,
    /// The step before which it ends; none: the generation's last.
    pub to: Option<u64>,
    /// The distance from one step to the next, at least 1.
    pub every: u64,
}

impl StepSelection {
    /// Whether that step of a generation of `total` steps is chosen.
    pub fn contains(&self, step: u64, total: u64) -> bool {
        let end = self.to.unwrap_or(total).min(total);
        step >= self.from && step < end && (step - self.from).is_multiple_of(self.every.max(1))
    }
}

/// How a trace generates.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// How many tokens are made at most: step 0 is the prompt's, so there are as many steps as new tokens.
    pub max_new_tokens: u64,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Token ids that end a prompt's generation; none: the model's own.
    pub stop_tokens: Option<Vec<u32>>,
    /// Texts that end a prompt's generation.
    pub stop_texts: Vec<String>,
}

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: the most probable token (greedy). Above: logits are divided by it before sampling.
    pub temperature: f64,
    /// Only so many of the most probable tokens are considered; none: all.
    pub top_k: Option<u64>,
    /// Only the most probable tokens that together reach this probability are considered; none: all.
    pub top_p: Option<f64>,
    /// Logits of tokens already present are divided (if positive) or multiplied (if negative) by it; 1: no penalty.
    pub repetition_penalty: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: None, top_p: None, repetition_penalty: 1.0 }
    }
}
