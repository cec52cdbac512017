//! What a program holds, and whether more fits into its memory.

use pellucid_graph::rules::room::{NEGLIGIBLE, working_bytes};
use pellucid_graph::{NodeId, NodeKind, Value};

use super::{Instance, Job};
use crate::error::EngineError;

impl Job<'_> {
    /// Bytes held beside values: what passes keep for ways back.
    pub fn hold_for_way_back(&mut self, bytes: u64) {
        self.hold(bytes);
    }

    /// Bytes that it held are free.
    pub fn let_go(&mut self, bytes: u64) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    /// It holds so many bytes more.
    pub fn hold(&mut self, bytes: u64) {
        self.held_bytes += bytes;
        self.results.report.peak_value_bytes = self.results.report.peak_value_bytes.max(self.held_bytes);
        if let Some(allowed) = self.options.memory_bytes
            && self.held_bytes > allowed
            && self.failed.is_none()
        {
            self.failed = Some(EngineError::MemoryExceeded { needed: self.held_bytes, allowed });
        }
    }

    /// Bytes that it holds now.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Whether what a node makes fits into the program's memory beside what it holds, with what it needs on the way: asked before it is made.
    pub(super) fn has_room(&mut self, id: NodeId) -> bool {
        let nodes = &self.program.nodes;
        let outputs = &nodes[id.index()].outputs;
        let made = outputs.iter().fold(0u64, |sum, output| sum.saturating_add(output.bytes(1)));
        let type_of = |value: Value| nodes[value.node.index()].outputs[value.output as usize].clone();
        let working = match &self.program.program.node(id).kind {
            NodeKind::Operation(operation) if self.options.memory_bytes.is_some() => {
                working_bytes(operation, &type_of, outputs, 1)
            }
            _ => 0,
        };
        let working = if working > NEGLIGIBLE { working } else { 0 };
        self.has_room_for(made.saturating_add(working))
    }

    /// Whether so many bytes fit into the program's memory beside what it holds; it fails where they do not.
    pub fn has_room_for(&mut self, bytes: u64) -> bool {
        if let Some(allowed) = self.options.memory_bytes {
            let needed = self.held_bytes.saturating_add(bytes);
            if needed > allowed {
                self.failed.get_or_insert(EngineError::MemoryExceeded { needed, allowed });
            }
        }
        self.failed.is_none()
    }

    /// Bytes of what a getter gives of a rectangle of `width` columns: of those columns, and of the vocabulary, that it has.
    pub fn bytes_given(&self, instance: Instance, width: usize) -> u64 {
        let Some(output) = self.program.nodes[instance.1.index()].outputs.first() else { return 0 };
        let mut bytes = output.bytes(1);
        if let Some(columns) = self.narrowed.get(&instance) {
            bytes = bytes / (width as u64).max(1) * columns.len() as u64;
        }
        let all = output.shape.last().and_then(pellucid_graph::Dimension::value);
        match (self.vocabulary.get(&instance), all) {
            (Some(columns), Some(all)) => bytes / all.max(1) * columns.len() as u64,
            _ => bytes,
        }
    }
}
