//! What a program holds, and whether more fits into its memory.

use std::collections::HashMap;

use pellucid_graph::limits::COPIED_VIEW;
use pellucid_graph::rules::room::{NEGLIGIBLE, working_bytes};
use pellucid_graph::{NodeId, NodeKind, Value};

use super::{Instance, Job};
use crate::error::EngineError;
use crate::operations::OperationError;
use crate::tensor::Tensor;

/// Views, and what they keep.
#[derive(Default)]
pub(super) struct Views {
    /// Of a view that is there: what it is a view of, and its bytes.
    of: HashMap<Instance, (Instance, u64)>,
    kept: HashMap<Instance, Kept>,
}

/// What is kept by the views of it.
#[derive(Default)]
struct Kept {
    views: usize,
    /// Bytes of these, which count by themselves.
    view_bytes: u64,
    /// Bytes of what they are views of.
    stored_bytes: u64,
    /// Bytes that count for it beside its views', since it is there for them alone.
    counted: u64,
}

impl Job<'_> {
    /// What a node made is stored by itself, or counts as a view of what the node read: that stays in memory as long as the view does.
    pub(super) fn note_views(
        &mut self,
        instance: Instance,
        outputs: &mut [Tensor],
    ) -> Result<(), OperationError> {
        // All of one node together: however many pieces, no more than that is copied.
        let parts = outputs.iter().filter(|output| output.is_part());
        let is_small = parts.map(Tensor::bytes_len).sum::<u64>() <= COPIED_VIEW;
        for output in outputs.iter_mut().filter(|output| output.is_part()) {
            let (bytes, stored_bytes) = (output.bytes_len(), output.stored_bytes());
            let mut reads = self.reads(instance.1).into_iter();
            let source = reads.find_map(|value| {
                let read = self.value(value, instance.0)?;
                output.shares_storage(&read).then(|| self.at(value.node, instance.0))
            });
            match source {
                Some(source) if !is_small => {
                    let root = self.views.of.get(&source).map_or(source, |(root, _)| *root);
                    let (_, own) = self.views.of.entry(instance).or_insert((root, 0));
                    *own += bytes;
                    let kept = self.views.kept.entry(root).or_default();
                    kept.views += usize::from(*own == bytes);
                    kept.view_bytes += bytes;
                    kept.stored_bytes = stored_bytes;
                }
                _ => *output = output.compact()?,
            }
        }
        Ok(())
    }

    /// Values that nobody will read any more: they are free, unless there are views of them.
    pub(super) fn forget_values(&mut self, instance: Instance, values: &[Tensor]) {
        self.let_go(values.iter().map(Tensor::bytes_len).sum());
        self.count_kept(instance);
        let Some((root, bytes)) = self.views.of.remove(&instance) else { return };
        if let Some(kept) = self.views.kept.get_mut(&root) {
            kept.views -= 1;
            kept.view_bytes -= bytes;
        }
        self.count_kept(root);
    }

    /// Counts what is there for its views alone.
    fn count_kept(&mut self, root: Instance) {
        let is_there = self.values.contains_key(&root);
        let Some(kept) = self.views.kept.get_mut(&root) else { return };
        let before = kept.counted;
        let after = if is_there { 0 } else { kept.stored_bytes.saturating_sub(kept.view_bytes) };
        kept.counted = after;
        if kept.views == 0 {
            self.views.kept.remove(&root);
            return self.let_go(before);
        }
        self.let_go(before);
        self.hold(after);
    }

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
