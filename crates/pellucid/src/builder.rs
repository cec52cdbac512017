//! What traces, invokes and values write into together: the program while it is being written.

use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_graph::fault::{Fault, Faults};
use pellucid_graph::program::Constant;
use pellucid_graph::{
    Argument, GradientOf, IndexItem, Node, NodeId, NodeKind, Operation, Program, Size, SourceLocation, Trace,
    Value as Reference,
};

use crate::value::Value;

/// The program of one session while it is being written. Every trace, invoke and value of the session shares it.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nodes in the order in which they were written; an unnamed node's name is empty until the program is finished.
    program: Program,
    /// The `steps` whose body is being written.
    open_steps: Option<NodeId>,
    faults: Faults,
}

/// The body that a node stands in: a trace's, or that of `steps` inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope {
    /// The trace.
    pub(crate) trace: NodeId,
    /// The `steps` inside the trace.
    pub(crate) steps: Option<NodeId>,
}

impl Builder {
    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while it held the lock left a whole node or none: the program is still sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is wrong; it is reported with everything else when the program is finished.
    pub(crate) fn fault(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Sets the seed of everything random in the program.
    pub(crate) fn set_seed(&self, seed: u64) {
        self.state().program.seed = seed;
    }

    /// Begins a trace.
    pub(crate) fn trace(&self, name: &str, location: &Location<'_>) -> NodeId {
        let mut state = self.state();
        let id = state.push(name.to_owned(), NodeKind::Trace(Trace::default()), location);
        state.program.body.push(id);
        id
    }

    /// Changes a trace: its invokes, its generation.
    pub(crate) fn with_trace<R>(&self, id: NodeId, change: impl FnOnce(&mut Trace) -> R) -> Option<R> {
        match &mut self.state().program.nodes[id.index()].kind {
            NodeKind::Trace(trace) => Some(change(trace)),
            _ => None,
        }
    }

    /// Adds a node at the end of a body. A node of the trace that is written while the body of a `steps` is open stands
    /// before that `steps`, whose nodes may read it.
    pub(crate) fn node(&self, scope: Scope, name: String, kind: NodeKind, location: &Location<'_>) -> NodeId {
        let mut state = self.state();
        let id = state.push(name, kind, location);
        let open = state.open_steps;
        let owner = scope.steps.unwrap_or(scope.trace);
        match &mut state.program.nodes[owner.index()].kind {
            NodeKind::Steps { body, .. } => body.push(id),
            NodeKind::Trace(trace) => {
                match open.and_then(|open| trace.body.iter().position(|&other| other == open)) {
                    Some(place) => trace.body.insert(place, id),
                    None => trace.body.push(id),
                }
            }
            _ => {}
        }
        id
    }

    /// Marks the body of a `steps` as the one that is being written, or that none is. Returns whether one was.
    pub(crate) fn set_open_steps(&self, steps: Option<NodeId>) -> bool {
        std::mem::replace(&mut self.state().open_steps, steps).is_some()
    }

    /// Whether the body of a `steps` is being written.
    pub(crate) fn has_open_steps(&self) -> bool {
        self.state().open_steps.is_some()
    }

    /// Names a node.
    pub(crate) fn rename(&self, id: NodeId, name: &str) {
        self.state().program.nodes[id.index()].name = name.to_owned();
    }

    /// Keeps a tensor that travels with the program, and gives the key under which it is kept.
    pub(crate) fn constant(&self, constant: Constant) -> String {
        let constants = &mut self.state().program.constants;
        let key = format!("constant_{}", constants.len());
        constants.insert(key.clone(), constant);
        key
    }

    /// The program, its nodes named and in program order: each body's nodes follow its owner.
    pub(crate) fn finish(&self) -> Result<Program, Faults> {
        let state = self.state();
        state.faults.clone().or(())?;
        let program = &state.program;
        let mut order = Vec::with_capacity(program.nodes.len());
        program.body.iter().for_each(|&id| append(program, id, &mut order));
        let mut places = vec![None; program.nodes.len()];
        for (place, id) in order.iter().enumerate() {
            places[id.index()] = Some(NodeId(place as u32));
        }
        let mut faults = Faults::default();
        let mut taken: std::collections::HashSet<&str> =
            program.nodes.iter().map(|node| node.name.as_str()).filter(|name| !name.is_empty()).collect();
        let mut names = Vec::with_capacity(order.len());
        for (place, id) in order.iter().enumerate() {
            let node = program.node(*id);
            let mut name = node.name.clone();
            if name.is_empty() {
                name = format!("{}_{place}", word(&node.kind));
                while taken.contains(name.as_str()) {
                    name.push('_');
                }
            } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                let fault = Fault::new("a name is made of the letters a to z and A to Z, digits and `_`");
                faults.push(fault.at_node(name.clone(), node.source.clone()));
            }
            if let Some(later) = node
                .kind
                .values()
                .iter()
                .find(|value| places[value.node.index()] >= Some(NodeId(place as u32)))
            {
                let what = word(&program.node(later.node).kind);
                let fault = Fault::new(format!("it reads a value (`{what}`) of a later trace"))
                    .with_hint("values flow from a trace to those after it: open the traces in the order in which they run");
                faults.push(fault.at_node(name.clone(), node.source.clone()));
            }
            names.push(name);
        }
        taken.clear();
        faults.or(())?;
        let moved = |id: NodeId| places[id.index()].unwrap_or(id);
        let nodes = order.iter().zip(names).map(|(id, name)| {
            let node = program.node(*id);
            let mut kind = node.kind.clone();
            renumber(&mut kind, &moved);
            Node { name, kind, source: node.source.clone() }
        });
        Ok(Program {
            model: program.model.clone(),
            seed: program.seed,
            nodes: nodes.collect(),
            body: program.body.iter().map(|&id| moved(id)).collect(),
            constants: program.constants.clone(),
        })
    }
}

impl State {
    fn push(&mut self, name: String, kind: NodeKind, location: &Location<'_>) -> NodeId {
        let id = NodeId(self.program.nodes.len() as u32);
        self.program.nodes.push(Node { name, kind, source: Some(source(location)) });
        id
    }
}

/// A place in the caller's own source.
pub(crate) fn source(location: &Location<'_>) -> SourceLocation {
    SourceLocation { file: location.file().to_owned(), line: location.line(), text: None }
}

/// Resolves a value in the program of `builder`: a value of another program is a fault.
pub(crate) fn resolve(builder: &Arc<Builder>, value: &Value, location: &Location<'_>) -> Option<Reference> {
    if Arc::ptr_eq(builder, value.builder()) {
        return Some(value.reference());
    }
    let fault = Fault::new("it reads a value that belongs to another program").with_hint(
        "to let values flow from trace to trace, open the traces in one session (`model.session()`); to bring in a \
         result of an earlier run, use `trace.constant`",
    );
    builder.fault(Fault { source: Some(source(location)), ..fault });
    None
}

fn append(program: &Program, id: NodeId, order: &mut Vec<NodeId>) {
    order.push(id);
    match &program.node(id).kind {
        NodeKind::Trace(Trace { body, .. }) | NodeKind::Steps { body, .. } => {
            body.iter().for_each(|&child| append(program, child, order));
        }
        _ => {}
    }
}

/// The word that an unnamed node's name begins with.
fn word(kind: &NodeKind) -> &'static str {
    match kind {
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
        NodeKind::Save(_) => "save",
        NodeKind::Log(_) => "log",
        NodeKind::Backward { .. } => "backward",
        NodeKind::Grad { .. } => "grad",
        NodeKind::SetGrad { .. } => "set_grad",
    }
}

/// Gives every reference of a node its new place.
fn renumber(kind: &mut NodeKind, moved: &dyn Fn(NodeId) -> NodeId) {
    let value = |value: &mut Reference| value.node = moved(value.node);
    match kind {
        NodeKind::Trace(Trace { body, .. }) | NodeKind::Steps { body, .. } => {
            body.iter_mut().for_each(|id| *id = moved(*id));
        }
        NodeKind::Set { value: read, .. } | NodeKind::Save(read) | NodeKind::Log(read) => value(read),
        NodeKind::Apply { input, .. } => value(input),
        NodeKind::Backward { of, cotangent } => std::iter::once(of).chain(cotangent).for_each(value),
        NodeKind::Grad { backward, of } => {
            *backward = moved(*backward);
            if let GradientOf::Value(read) = of {
                value(read);
            }
        }
        NodeKind::SetGrad { backward, of, value: read } => {
            *backward = moved(*backward);
            value(read);
            if let GradientOf::Value(read) = of {
                value(read);
            }
        }
        NodeKind::Operation(Operation { arguments, .. }) => {
            for argument in arguments {
                match argument {
                    Argument::Value(read) => value(read),
                    Argument::Values(list) => list.iter_mut().for_each(value),
                    Argument::Sizes(sizes) => sizes.iter_mut().for_each(|size| {
                        if let Size::Of { value: read, .. } = size {
                            value(read);
                        }
                    }),
                    Argument::Index(items) => items.iter_mut().for_each(|item| {
                        if let IndexItem::Tensor(read) = item {
                            value(read);
                        }
                    }),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}
