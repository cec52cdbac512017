//! Views keep what they are views of.

use super::super::Checker;
use super::ASSUMED_LENGTH;
use crate::limits::COPIED_VIEW;
use crate::operation::OperationKind;
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
                            touches(operation) == Touches::Nothing
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
            let is_large = checked.outputs.iter().any(|output| output.bytes(ASSUMED_LENGTH) > COPIED_VIEW);
            kept.push(source.filter(|_| is_large).map(|source| kept[source].unwrap_or(source)));
        }
        kept
    }
}
