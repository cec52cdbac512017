//! Views keep what they are views of.

use super::super::Checker;
use super::ASSUMED_LENGTH;
use crate::limits::COPIED_VIEW;
use crate::operation::{Argument, IndexItem, Operation, OperationKind};
use crate::program::NodeKind;
use crate::rules::touch::{Touches, touches};

impl Checker<'_> {
    /// Of each node: the one whose values stay in memory as long as its own, because these are views of a part of them.
    pub(super) fn kept_by_views(&self) -> Vec<Option<usize>> {
        let mut kept: Vec<Option<usize>> = Vec::with_capacity(self.nodes.len());
        for (position, checked) in self.nodes.iter().enumerate() {
            let source = match &self.program.nodes[position].kind {
                NodeKind::Operation(operation) => {
                    let source = operation.values().first().map(|value| value.node.index());
                    source.filter(|&source| match operation.kind {
                        OperationKind::GetItem | OperationKind::Split | OperationKind::Chunk => {
                            touches(operation) == Touches::Nothing && !self.is_narrowed(source, operation)
                        }
                        OperationKind::Reshape
                        | OperationKind::Flatten
                        | OperationKind::Unflatten
                        | OperationKind::To => kept[source].is_some(),
                        _ => touches(operation) == Touches::Nothing && kept[source].is_some(),
                    })
                }
                _ => None,
            };
            let bytes = checked.outputs.iter().map(|output| output.bytes(ASSUMED_LENGTH));
            let is_large = bytes.fold(0, u64::saturating_add) > COPIED_VIEW;
            kept.push(source.filter(|_| is_large).map(|source| kept[source].unwrap_or(source)));
        }
        kept
    }

    /// Whether a getter gives only the columns that its readers index: then there is nothing else to keep.
    fn is_narrowed(&self, source: usize, operation: &Operation) -> bool {
        let columns = operation.arguments.iter().find_map(|argument| match argument {
            Argument::Index(items) => items.get(1),
            _ => None,
        });
        let indexes = match columns {
            Some(IndexItem::Integer(_)) => true,
            Some(IndexItem::Slice { start, stop, .. }) => start.is_some() || stop.is_some(),
            _ => false,
        };
        indexes && matches!(self.program.nodes[source].kind, NodeKind::Get(_))
    }
}
