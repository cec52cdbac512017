//! Alike edits: setters of different invokes that write the same numbers, as far as the programs themselves say so.
//!
//! **Needs:** the invokes have had the same rows up to here. What a setter writes is followed back to literals, to operations that
//! draw nothing, to what the invoke has read of its own rows, and to nodes that both name. What stands under a condition is alike
//! nothing but itself, and so is a skipped module.
//!
//! **Keeps:** of equal operations on equal numbers the results are equal bit for bit. So rows into which alike edits are written go
//! on being one another's.

use std::collections::HashMap;

use pellucid_graph::check::CheckedProgram;
use pellucid_graph::{Argument, DType, NodeId, NodeKind, Operation, OperationKind, Scalar, Value};

use super::depth::edits;
use crate::job::{Instance, is_long};

/// Values that one is followed back through.
const DEPTH: usize = 32;
/// Elements of a literal and items of an argument that are compared; what has more is alike nothing but itself.
const ELEMENTS: usize = 64;

/// Values that are looked at for one program, the invokes together; each item of an argument counts as one. The rest are alike nothing
/// but themselves.
const LOOKED_AT: usize = 200_000;

/// What alike values have in common; of a program, each with a number of its own.
#[derive(Default)]
pub(crate) struct Alike {
    /// Whether what takes long is left for the time between passes: what is made of it is not there when others' rows go on.
    pub defers: bool,
    numbers: HashMap<Form, u32>,
    looked_at: usize,
    /// Those of the values of nodes, for the invoke that is asked about.
    known: HashMap<NodeId, u32>,
    /// At which stage each of its getters reads, and after how many edits there.
    reads: HashMap<NodeId, (usize, usize)>,
    /// The program's edits, by trace, invoke and hook point, in program order.
    written: Option<Written>,
}

/// What a value is made of; what it reads is told by numbers.
#[derive(PartialEq, Eq, Hash)]
enum Form {
    /// That of a node of which no more is known.
    Itself(NodeId),
    /// What the invoke reads at a stage, after so many edits there.
    Read(usize, usize),
    /// What is read of another of a trace: of which invoke, at which hook point and step, and after how many edits there.
    ReadOf(NodeId, usize, usize, u64, usize),
    /// A literal, with its elements' bits.
    Literal(DType, Vec<u64>, Vec<(u8, u64)>),
    /// An operation, its arguments as they are written, and which output of which values they name.
    Operation(OperationKind, String, Vec<(u32, u32)>),
    /// What the setters of a stage write, in order.
    Written(Vec<(u32, u32)>),
}

/// The invoke that is asked about: the program, its trace, and its number there.
#[derive(Clone, Copy)]
pub(crate) struct Edited<'a> {
    pub program: &'a CheckedProgram,
    pub trace: Option<NodeId>,
    pub invoke: usize,
}

impl Alike {
    /// An invoke is asked about, which touches this in the order of stages.
    pub fn begin(&mut self, program: &CheckedProgram, touches: &[(usize, Instance)]) {
        self.known.clear();
        self.reads.clear();
        for here in touches.chunk_by(|one, other| one.0 == other.0) {
            let mut edited = 0;
            for &(stage, (_, id)) in here {
                if edits(&program.program.node(id).kind) {
                    edited += 1;
                } else {
                    self.reads.insert(id, (stage, edited));
                }
            }
        }
    }

    /// A number that what the invoke touches at a stage has in common with what others do there who write the same; none: what is
    /// written is alike nothing.
    pub fn edits_of(&mut self, edited: Edited<'_>, here: &[(usize, Instance)]) -> Option<u32> {
        let mut written = Vec::new();
        for &(_, (_, id)) in here {
            let node = edited.program.program.node(id);
            match node.kind {
                NodeKind::Set { value, .. } if node.guards.is_empty() => {
                    written.push((self.of(edited, value.node, DEPTH), value.output));
                }
                _ if edits(&node.kind) => return None,
                _ => {}
            }
        }
        Some(self.number(Form::Written(written)))
    }

    fn number(&mut self, form: Form) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(form).or_insert(next)
    }

    /// The number of what a node gives.
    fn of(&mut self, edited: Edited<'_>, id: NodeId, depth: usize) -> u32 {
        if let Some(&known) = self.known.get(&id) {
            return known;
        }
        let form = self.form(edited, id, depth).unwrap_or(Form::Itself(id));
        let number = self.number(form);
        self.known.insert(id, number);
        number
    }

    fn form(&mut self, edited: Edited<'_>, id: NodeId, depth: usize) -> Option<Form> {
        let node = edited.program.program.node(id);
        self.looked_at += 1;
        if depth == 0
            || self.looked_at > LOOKED_AT
            || !node.guards.is_empty()
            || edited.program.nodes[id.index()].trace != edited.trace
        {
            return None;
        }
        match &node.kind {
            NodeKind::Get(address) if address.invoke == edited.invoke => {
                self.reads.get(&id).map(|&(stage, edits)| Form::Read(stage, edits))
            }
            NodeKind::Get(address) if edited.program.nodes[id.index()].steps.is_none() => {
                let place = edited.program.nodes[id.index()].place?;
                let written = self.written.get_or_insert_with(|| written_in(edited.program));
                let written = written.get(&(edited.trace, address.invoke, place));
                let edits = written.map_or(0, |written| written.partition_point(|&edit| edit < id));
                Some(Form::ReadOf(edited.trace?, address.invoke, place, address.step.unwrap_or(0), edits))
            }
            NodeKind::Literal { dtype, shape, elements } if elements.len() <= ELEMENTS => {
                let bits = |element: &Scalar| match *element {
                    Scalar::Bool(value) => (0, u64::from(value)),
                    Scalar::Int(value) => (1, value.cast_unsigned()),
                    Scalar::Float(value) => (2, value.to_bits()),
                };
                Some(Form::Literal(*dtype, shape.clone(), elements.iter().map(bits).collect()))
            }
            NodeKind::Operation(_) if self.defers && is_long(edited.program, id) => None,
            NodeKind::Operation(operation) if !operation.kind.is_random() && is_short(operation) => {
                let named = operation.values().into_iter();
                self.looked_at += named.len();
                let named = named.map(|value| (self.of(edited, value.node, depth - 1), value.output));
                let named = named.collect();
                Some(Form::Operation(operation.kind, written(operation), named))
            }
            _ => None,
        }
    }
}

type Written = HashMap<(Option<NodeId>, usize, usize), Vec<NodeId>>;

/// A program's edits, by trace, invoke and hook point.
fn written_in(program: &CheckedProgram) -> Written {
    let mut written = Written::new();
    for (number, (node, checked)) in program.program.nodes.iter().zip(&program.nodes).enumerate() {
        let invoke = match &node.kind {
            NodeKind::Set { address, .. } => address.invoke,
            NodeKind::Skip { invoke, .. } => *invoke,
            _ => continue,
        };
        if let Some(place) = checked.place {
            written.entry((checked.trace, invoke, place)).or_default().push(NodeId(number as u32));
        }
    }
    written
}

/// An operation's arguments as they are written, without the names of values.
fn written(operation: &Operation) -> String {
    let mut operation = operation.clone();
    let nobody = Value { node: NodeId(0), output: 0 };
    operation.for_each_value_mut(&mut |value| *value = nobody);
    // A number's own digits are written, as many as it takes to tell it from every other.
    format!("{:?}", operation.arguments)
}

fn is_short(operation: &Operation) -> bool {
    operation.arguments.iter().all(|argument| match argument {
        Argument::Values(items) => items.len() <= ELEMENTS,
        Argument::Integers(items) => items.len() <= ELEMENTS,
        Argument::Sizes(items) => items.len() <= ELEMENTS,
        Argument::Index(items) => items.len() <= ELEMENTS,
        Argument::Text(text) => text.len() <= ELEMENTS,
        _ => true,
    })
}
