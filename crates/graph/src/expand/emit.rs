//! Writing the expanded program: its nodes with their names and origins, counted against the limits.

use std::fmt::Write as _;

use super::Expander;
use crate::fault::Fault;
use crate::limits;
use crate::operation::{Argument, Operation, OperationKind};
use crate::program::{Node, NodeId, NodeKind, Origin, Value};

impl Expander<'_> {
    /// Adds a node to the body that is being written. Its name is the surface node's, with the cell, and with `part`
    /// where it is not the node itself but belongs to it. None where there are too many.
    pub(super) fn emit(&mut self, id: NodeId, cell: usize, part: &str, kind: NodeKind) -> Option<NodeId> {
        let source = self.source.node(id);
        let (name, origin) = match (self.top(), part, self.inlining) {
            (0, "", None) => (source.name.clone(), None),
            _ => {
                let invoke = self.inlining.map(|inlining| inlining.place);
                let coordinates: Vec<u64> =
                    invoke.into_iter().chain(self.coordinates(cell).iter().copied()).collect();
                let mut name = source.name.clone();
                if !coordinates.is_empty() {
                    name.push('@');
                    push_dotted(&mut name, &coordinates);
                }
                // An edit is written out again and again.
                if let Some(inlining) = self.inlining {
                    let _ = write!(name, "^{}", inlining.number);
                }
                // A helper is told from its kin by its place.
                if !part.is_empty() {
                    let _ = write!(name, "~{part}{}", self.nodes.len());
                }
                (name, Some(Origin { label: source.name.clone(), coordinates }))
            }
        };
        self.emit_named(id, cell, name, origin, kind)
    }

    pub(super) fn emit_named(
        &mut self,
        id: NodeId,
        cell: usize,
        name: String,
        origin: Option<Origin>,
        kind: NodeKind,
    ) -> Option<NodeId> {
        let source = self.source.node(id).source.clone();
        let weight = weight_of(&kind)
            + name.len()
            + source
                .as_ref()
                .map_or(0, |source| source.file.len() + source.text.as_ref().map_or(0, String::len));
        if !self.spend(id, weight) {
            return None;
        }
        if self.nodes.len() >= limits::EXPANDED_NODES {
            self.too_many_nodes(id);
            return None;
        }
        let core = NodeId(self.nodes.len() as u32);
        // What owns a body runs if something in the body does.
        let owns = matches!(kind, NodeKind::Trace(_) | NodeKind::Steps { .. });
        let guards = if owns { Vec::new() } else { self.guards(id, cell) };
        let optional = self.inlining.is_some();
        self.nodes.push(Node { source, origin, guards, optional, ..Node::new(name, kind) });
        if let Some((_, body)) = self.open.last_mut() {
            body.push(core);
        }
        Some(core)
    }

    pub(super) fn operation(
        &mut self,
        id: NodeId,
        cell: usize,
        part: &str,
        kind: OperationKind,
        given: Vec<Argument>,
    ) -> Option<Value> {
        let rest = kind.definition().parameters.iter().skip(given.len());
        let rest: Vec<Argument> =
            rest.map(|parameter| parameter.default.clone().unwrap_or(Argument::Absent)).collect();
        let arguments = given.into_iter().chain(rest).collect();
        self.emit(id, cell, part, NodeKind::Operation(Operation { kind, arguments })).map(Value::from)
    }

    fn too_many_nodes(&mut self, id: NodeId) {
        if !std::mem::replace(&mut self.full, true) {
            let message = format!(
                "written out, the program has more than {} nodes, the most that are taken",
                limits::EXPANDED_NODES
            );
            self.fault(id, message, Some("sweep over fewer cells, or in several programs".into()));
        }
    }

    /// Counts bytes of the expanded program; false where there are too many.
    pub(super) fn spend(&mut self, id: NodeId, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > limits::EXPANDED_BYTES && !std::mem::replace(&mut self.full, true) {
            let message = format!(
                "written out for every cell, the program takes more than {} bytes, the most that are taken",
                limits::EXPANDED_BYTES
            );
            let hint = "move literals and prompts that are the same in every cell out of the sweep, or sweep over fewer cells";
            self.fault(id, message, Some(hint.into()));
        }
        !self.full
    }

    pub(super) fn fault(&mut self, id: NodeId, message: impl Into<String>, hint: Option<String>) {
        let node = self.source.node(id);
        let fault = Fault { hint, ..Fault::new(message) };
        self.faults.push(fault.at_node(&node.name, node.source.clone()));
    }
}

/// About how many bytes a node's own lists and texts take.
fn weight_of(kind: &NodeKind) -> usize {
    let lists = match kind {
        NodeKind::Operation(operation) => operation
            .arguments
            .iter()
            .map(|argument| match argument {
                Argument::Values(values) => 8 * values.len(),
                Argument::Integers(integers) => 8 * integers.len(),
                Argument::Sizes(sizes) => 32 * sizes.len(),
                Argument::Index(items) => 48 * items.len(),
                Argument::Text(text) => text.len(),
                _ => 0,
            })
            .sum::<usize>(),
        NodeKind::Literal { shape, elements, .. } => 16 * elements.len() + 8 * shape.len(),
        NodeKind::Constant(key) => key.len(),
        NodeKind::Get(address) | NodeKind::Set { address, .. } => address.hook.len(),
        NodeKind::Apply { module, .. } | NodeKind::Skip { module, .. } => module.len(),
        NodeKind::Weight { parameter, index } => parameter.len() + 48 * index.as_ref().map_or(0, Vec::len),
        NodeKind::SetWeight { parameter, .. } => parameter.len(),
        _ => 0,
    };
    lists + 256
}

/// `2.0`.
pub(super) fn dotted(coordinates: &[u64]) -> String {
    let mut text = String::new();
    push_dotted(&mut text, coordinates);
    text
}

fn push_dotted(text: &mut String, coordinates: &[u64]) {
    for (place, coordinate) in coordinates.iter().enumerate() {
        let dot = if place == 0 { "" } else { "." };
        // A string takes all that is written to it.
        let _ = write!(text, "{dot}{coordinate}");
    }
}
