//! The surface language: nodes that are written and sent, and expanded into plain ones before anything is checked.
//!
//! A sweep or a loop owns a *region*: parameters, invokes of its own, and a body that is written once. Inside the body a
//! parameter of numbers is a value by its name, and `{name}` in hook points and module paths; a parameter of prompts is
//! what an invoke can be given.

use crate::program::{Invoke, NodeId, Prompts, Value};
use crate::scalar::Scalar;

/// What a sweep or loop owns.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Region {
    /// The axes; each has one or more parameters of equal length, which go along it together.
    pub over: Vec<Vec<NodeId>>,
    /// In a trace: invokes that every cell has for itself. Nodes of the body name them after those of the trace and of
    /// the regions around this one.
    pub invokes: Vec<Invoke>,
    /// Its nodes, in program order.
    pub body: Vec<NodeId>,
}

impl Region {
    /// Its parameters, axis by axis.
    pub fn parameters(&self) -> impl Iterator<Item = NodeId> {
        self.over.iter().flatten().copied()
    }
}

/// One body over a grid. Cells do not depend on one another.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Sweep {
    /// The grid and the body.
    pub region: Region,
    /// Values of the body; the sweep's own values are theirs, stacked in the grid's shape.
    pub yields: Vec<Value>,
}

/// One body again and again, in sequence.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Loop {
    /// The iterations, the last axis fastest, and the body.
    pub region: Region,
    /// The carried values: nodes of kind [`NodeKind::Carried`](crate::NodeKind::Carried), which say what each begins as.
    pub carry: Vec<NodeId>,
    /// Of each carried value: the value of the body that it is in the next iteration.
    pub next: Vec<Value>,
    /// The iteration at which it begins: those before it are left out, as if they had been run elsewhere. All that do run
    /// keep their numbers, their parameters and their noise.
    pub from: u64,
}

/// Two bodies, of which one runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cond {
    /// A bool without dimensions.
    pub condition: Value,
    /// The branch where it holds: a node of kind [`NodeKind::Branch`](crate::NodeKind::Branch).
    pub then: NodeId,
    /// The branch where it does not; none: nothing runs there.
    pub otherwise: Option<NodeId>,
}

/// One branch of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Branch {
    /// Its nodes, in program order.
    pub body: Vec<NodeId>,
    /// Values of the body, or from outside: the condition's own values are those of the branch that ran.
    pub yields: Vec<Value>,
}

/// A named stack of edits of one invoke, written once and used by invokes of later traces.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Edit {
    /// How its nodes call the invoke that is edited.
    pub invoke: String,
    /// Edits that come before its own nodes, in order.
    pub edits: Vec<NodeId>,
    /// Its nodes, in program order; the only invoke that they can name is number 0.
    pub body: Vec<NodeId>,
}

/// The values of a parameter along its axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// Numbers: all integers, or all floats.
    Numbers(Vec<Scalar>),
    /// `from`, up to and without `to`, `step` apart; downwards where the step is negative.
    Range {
        /// The first number.
        from: i64,
        /// Where it ends.
        to: i64,
        /// The distance from one to the next; not 0.
        step: i64,
    },
    /// Prompts as texts, one or more for each cell.
    Texts {
        /// Of each cell, its prompts.
        cells: Vec<Vec<String>>,
        /// Whether the tokenizer adds its own default special tokens.
        special_tokens: bool,
    },
    /// Prompts as token ids, one or more for each cell.
    Tokens(Vec<Vec<Vec<u32>>>),
    /// The rows of a value along its first dimension.
    Rows(Value),
}

impl Parameter {
    /// How many values it has; none: as many as the value has rows.
    pub fn count(&self) -> Option<u64> {
        match self {
            Parameter::Numbers(numbers) => Some(numbers.len() as u64),
            Parameter::Range { from, to, step } => {
                let (from, to, step) = (i128::from(*from), i128::from(*to), i128::from(*step));
                let (distance, step) = if step < 0 { (from - to, -step) } else { (to - from, step) };
                let count = if step == 0 || distance <= 0 { 0 } else { (distance + step - 1) / step };
                Some(u64::try_from(count).unwrap_or(u64::MAX))
            }
            Parameter::Texts { cells, .. } => Some(cells.len() as u64),
            Parameter::Tokens(cells) => Some(cells.len() as u64),
            Parameter::Rows(_) => None,
        }
    }

    /// The number at a place along the axis, if it has numbers.
    pub fn number(&self, place: usize) -> Option<Scalar> {
        match self {
            Parameter::Numbers(numbers) => numbers.get(place).copied(),
            Parameter::Range { from, step, .. } => {
                let number = i128::from(*from) + i128::from(*step) * i128::try_from(place).ok()?;
                i64::try_from(number).ok().map(Scalar::Int)
            }
            _ => None,
        }
    }

    /// The prompts at a place along the axis, if it has prompts.
    pub fn prompts(&self, place: usize) -> Option<Prompts> {
        match self {
            Parameter::Texts { cells, special_tokens } => {
                let texts = cells.get(place)?.clone();
                Some(Prompts::Text { texts, special_tokens: *special_tokens })
            }
            Parameter::Tokens(cells) => cells.get(place).cloned().map(Prompts::Tokens),
            _ => None,
        }
    }

    /// Whether its values are tensors of the program: numbers or rows, not prompts.
    pub fn has_value(&self) -> bool {
        !matches!(self, Parameter::Texts { .. } | Parameter::Tokens(_))
    }
}

/// How values of cells become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The mean.
    Mean,
    /// The variance.
    Var,
    /// The smallest.
    Amin,
    /// The largest.
    Amax,
    /// The covariance of the last dimension; all others are samples.
    Covariance,
    /// The k largest, and the cells that they come from.
    TopK,
}

impl Reduction {
    /// Every reduction.
    pub const ALL: [Reduction; 7] = [
        Reduction::Sum,
        Reduction::Mean,
        Reduction::Var,
        Reduction::Amin,
        Reduction::Amax,
        Reduction::Covariance,
        Reduction::TopK,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Reduction::Sum => "sum",
            Reduction::Mean => "mean",
            Reduction::Var => "var",
            Reduction::Amin => "amin",
            Reduction::Amax => "amax",
            Reduction::Covariance => "covariance",
            Reduction::TopK => "topk",
        }
    }
}

/// One value made of a value of every cell, in the cells' order; no more than the accumulator is held.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduce {
    /// How.
    pub reduction: Reduction,
    /// The value of a cell.
    pub value: Value,
    /// Dimensions of it that count as samples too; they are not in the result. Not of a covariance, where all but the
    /// last do.
    pub dim: Vec<i64>,
    /// Of variance and covariance: what is taken off the number of samples.
    pub correction: Scalar,
    /// Of `topk`: how many.
    pub k: u64,
    /// Of `topk`: whether the largest.
    pub largest: bool,
}

/// Hook points of an invoke by a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WildcardAddress {
    /// The invoke, as in [`HookAddress::invoke`](crate::HookAddress::invoke).
    pub invoke: usize,
    /// `*` stands for any one part of a path, `**` for any number of them, `layers[0:12:2]` and `layers[0,5]` for some
    /// layers.
    pub pattern: String,
    /// Patterns of hook points that are left out.
    pub except: Vec<String>,
    /// As in [`HookAddress::step`](crate::HookAddress::step).
    pub step: Option<u64>,
}

impl WildcardAddress {
    pub(crate) fn for_each_pattern_mut(&mut self, change: &mut dyn FnMut(&mut String)) {
        change(&mut self.pattern);
        self.except.iter_mut().for_each(change);
    }
}

/// Writes all hook points that match a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetAll {
    /// Which.
    pub address: WildcardAddress,
    /// What is written.
    pub value: Value,
    /// Whether the k-th row of the value is written to the k-th hook point; otherwise all of it to each.
    pub each: bool,
}

/// Reads the gradients of all hook points that match a pattern, each of the version that flowed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GradAll {
    /// The way back that computes them.
    pub backward: NodeId,
    /// Of which; it has no step.
    pub address: WildcardAddress,
}

/// Writes the gradients of all hook points that match a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetGradAll {
    /// The way back that computes them.
    pub backward: NodeId,
    /// Of which; it has no step.
    pub address: WildcardAddress,
    /// What is written.
    pub value: Value,
    /// As in [`SetAll::each`].
    pub each: bool,
}

/// Saves all hook points that match a pattern, each as `name/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cache {
    /// Which.
    pub address: WildcardAddress,
}
