//! The language of intervention graphs.
//!
//! An experiment is data: a [`Program`] is a list of traces, each with its invokes (inputs) and a graph of nodes that
//! read hook points of a model, compute, write hook points and save. This crate says what a program is, what its
//! operations mean (shapes, number types, cost), how it is checked against a model's [`ModelSpec`] before anything
//! runs, and how it travels. It runs nothing.
//!
//! | module | holds |
//! | --- | --- |
//! | [`program`] | nodes, traces, invokes, values: the types of a program |
//! | [`surface`], [`expand`] | sweeps, loops and wildcards; how they become plain nodes |
//! | [`operation`] | the one table of operations and their arguments |
//! | [`rules`] | shape, number type and cost of each operation |
//! | [`shape`] | dimensions, some of them known only when prompts are tokenised |
//! | [`dtype`], [`scalar`] | number types, their promotion, and literals |
//! | [`spec`] | what a model publishes of itself: modules, hook points in schedule order, parameters |
//! | [`wire`] | how a program travels: JSON and safetensors |
//! | [`limits`] | every bound on a program, in one place |
//! | [`fault`], [`suggest`] | what is wrong with a program, where, and what was probably meant |
//!
//! **Invariant:** nothing in this crate holds a tensor's storage or runs an operation; any bytes at all give a program
//! or an error, quickly.

pub mod check;
pub mod dtype;
pub mod expand;
pub mod fault;
pub mod limits;
pub mod operation;
pub mod program;
mod reference;
pub mod rules;
pub mod scalar;
pub mod shape;
pub mod spec;
pub mod suggest;
pub mod surface;
pub mod wire;

pub use dtype::DType;
pub use fault::{Fault, Faults};
pub use operation::{Argument, IndexItem, Operation, OperationKind, Size};
pub use program::{
    Generation, GradientOf, Guard, HookAddress, Invoke, InvokeOrigin, Node, NodeId, NodeKind, Origin,
    Program, Prompts, Sampling, SourceLocation, StepSelection, Trace, Value,
};
pub use scalar::Scalar;
pub use shape::{Dimension, TensorType};
pub use spec::ModelSpec;
pub use surface::{
    Branch, Cache, Cond, Edit, GradAll, Loop, Parameter, Reduce, Reduction, Region, SetAll, SetGradAll,
    Sweep, WildcardAddress,
};
