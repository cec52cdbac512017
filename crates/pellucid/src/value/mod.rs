//! Values: what a program will have computed, to compute with now.

mod arguments;
mod constructors;
mod conversions;
mod elementwise;
mod index;
mod linear;
mod operators;
mod parts;
mod reductions;
mod shapes;
mod training;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use pellucid_graph::{Argument, NodeId, NodeKind, Operation, OperationKind, Value as Reference};

use crate::builder::{Builder, Scope, resolve};

pub(crate) use arguments::number;
pub use conversions::{Dimension, Dimensions, Operand, Shape, Size};
pub use index::{Ellipsis, Index, Item, NewAxis, step};
pub use linear::OrthogonalMap;
pub use shapes::Pieces;
pub use training::{Adam, CrossEntropy, Reduction, Sgd};

/// A value of a program: a hook point's, or what is computed from others. It holds no numbers: those exist when the
/// program runs, and come back where the value is saved.
///
/// Operators and methods have the names and the semantics of PyTorch. A clone is the same value.
///
/// A value can be used in every invoke of its trace, in later traces of its session, and nowhere else: using it in
/// another session is a fault, reported when that session runs.
#[derive(Clone)]
pub struct Value {
    builder: Arc<Builder>,
    reference: Reference,
    scope: Scope,
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Value({}.{})", self.reference.node.0, self.reference.output)
    }
}

/// A place where nodes are written: the body of a trace or of `steps`, and the author's own line.
#[derive(Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) builder: &'a Arc<Builder>,
    pub(crate) scope: Scope,
    pub(crate) location: &'static Location<'static>,
}

impl Writer<'_> {
    /// Adds a node.
    pub(crate) fn node(&self, name: &str, kind: NodeKind) -> Value {
        let (node, scope) = self.builder.node(self.scope, name.to_owned(), kind, self.location);
        Value { builder: self.builder.clone(), reference: node.into(), scope }
    }

    /// Adds an operation, in the innermost of the bodies of what it reads.
    pub(crate) fn operation<const N: usize>(
        mut self,
        kind: OperationKind,
        arguments: [Given<'_>; N],
    ) -> Value {
        let mut resolved = Vec::with_capacity(N);
        for argument in arguments {
            resolved.push(argument.resolve(&mut self));
        }
        self.node("", NodeKind::Operation(Operation { kind, arguments: resolved }))
    }

    /// Reads a value: the writer's body becomes the value's, if that is further in or later.
    pub(crate) fn read(&mut self, value: &Value) -> Reference {
        self.scope = match resolve(self.builder, value, self.location) {
            Some(_) => self.scope.max(value.scope),
            None => self.scope,
        };
        value.reference
    }
}

/// An argument as given, before its values are looked up in the program.
pub(crate) enum Given<'a> {
    Value(&'a Value),
    Values(Vec<&'a Value>),
    Operand(Operand),
    Sizes(Shape),
    Index(Index),
    Optional(Option<&'a Value>),
    Plain(Argument),
}

impl Given<'_> {
    fn resolve(self, writer: &mut Writer<'_>) -> Argument {
        match self {
            Given::Value(value) => Argument::Value(writer.read(value)),
            Given::Values(values) => {
                Argument::Values(values.into_iter().map(|value| writer.read(value)).collect())
            }
            Given::Operand(Operand::Value(value)) => Argument::Value(writer.read(&value)),
            Given::Operand(Operand::Scalar(scalar)) => Argument::Scalar(scalar),
            Given::Sizes(shape) => Argument::Sizes(shape.resolve(writer)),
            Given::Index(index) => Argument::Index(index.resolve(writer)),
            Given::Optional(Some(value)) => Argument::Value(writer.read(value)),
            Given::Optional(None) => Argument::Absent,
            Given::Plain(argument) => argument,
        }
    }
}

impl Value {
    pub(crate) fn new(builder: Arc<Builder>, reference: Reference, scope: Scope) -> Value {
        Value { builder, reference, scope }
    }

    pub(crate) fn builder(&self) -> &Arc<Builder> {
        &self.builder
    }

    pub(crate) fn reference(&self) -> Reference {
        self.reference
    }

    pub(crate) fn node_id(&self) -> NodeId {
        self.reference.node
    }

    #[track_caller]
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer { builder: &self.builder, scope: self.scope, location: Location::caller() }
    }

    /// Another output of the same node.
    pub(crate) fn output(&self, output: u32) -> Value {
        Value { reference: Reference { output, ..self.reference }, ..self.clone() }
    }

    /// Marks the value as one that is returned, under that name: letters, digits and `_`, unique in the session. Inside
    /// `steps`, one result for each step: `name/0`, `name/1`, ….
    #[track_caller]
    pub fn save(&self, name: &str) {
        self.writer().node(name, NodeKind::Save(self.reference));
    }

    /// Streams the value to the caller while the program runs, labelled with that name: letters, digits and `_`, unique
    /// in the session. For small values; see [`RunOptions::on_log`](crate::RunOptions). A written program calls it
    /// `print`, because PyTorch's `log` is the logarithm, which is [`Value::ln`] here.
    #[track_caller]
    pub fn log(&self, name: &str) {
        self.writer().node(name, NodeKind::Log(self.reference));
    }

    /// What a module of the model makes of the value, out of the model's own order: `hidden.apply("final_norm")`. It
    /// fires no hook point. A module that treats each token alone takes any leading dimensions; one that mixes tokens
    /// takes `[prompts, length, …]`.
    #[track_caller]
    pub fn apply(&self, module: &str) -> Value {
        self.writer().node("", NodeKind::Apply { module: module.to_owned(), input: self.reference })
    }

    /// Names the node that computes the value. Errors call it by that name, and the noise of a random constructor is
    /// keyed by it: a named one gives the same numbers however the program around it changes.
    #[must_use]
    pub fn named(self, name: &str) -> Value {
        self.builder.rename(self.node_id(), name);
        self
    }
}
