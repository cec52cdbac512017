//! Getters whose value has only some columns of their rectangle: those that somebody reads.

use pellucid_graph::{Argument, IndexItem, NodeKind, Operation, OperationKind};

use super::{Instance, Job};
use crate::nodes::prompts_of;
use crate::operations::OperationError;
use crate::plan::{Among, among, columns_of};

impl Job<'_> {
    /// The `getitem` of a getter whose value has only some columns, with the places of its own among those.
    pub fn in_narrowed_columns(&self, (step, id): Instance) -> Option<Operation> {
        let NodeKind::Operation(operation) = self.kind(id) else { return None };
        if operation.kind != OperationKind::GetItem || self.narrowed.is_empty() {
            return None;
        }
        let Some(Argument::Value(input)) = operation.arguments.first() else { return None };
        let columns = self.narrowed.get(&self.at(input.node, step))?;
        let mut operation = operation.clone();
        if let Some(Argument::Index(items)) = operation.arguments.get_mut(1)
            && let Some(item @ (IndexItem::Integer(_) | IndexItem::Slice { .. })) = items.get_mut(1)
        {
            let wanted = columns_of(item, self.narrow_width((step, input.node))?)?;
            // All of them are there, and stand together.
            let place = columns.binary_search(&wanted.start).ok()? as i64;
            *item = match item {
                IndexItem::Integer(_) => IndexItem::Integer(place),
                _ => {
                    IndexItem::Slice { start: Some(place), stop: Some(place + wanted.len() as i64), step: 1 }
                }
            };
        }
        Some(operation)
    }

    /// What picks from a value that has only some columns of the vocabulary, as it picks from these; `operation` stands for its own.
    pub fn among_read_columns(
        &self,
        (step, id): Instance,
        operation: Option<&Operation>,
    ) -> Result<Option<Among>, OperationError> {
        let (false, NodeKind::Operation(own)) = (self.vocabulary.is_empty(), self.kind(id)) else {
            return Ok(None);
        };
        let Some(Argument::Value(input)) = own.arguments.first() else { return Ok(None) };
        let Some(columns) = self.vocabulary.get(&self.at(input.node, step)) else { return Ok(None) };
        let among = among(&self.program, operation.unwrap_or(own), input.node, columns);
        among.map(Some).ok_or_else(|| OperationError::new("a column of the vocabulary was not computed"))
    }

    /// The full width of the rectangle that a getter reads.
    fn narrow_width(&self, (_, id): Instance) -> Option<usize> {
        let NodeKind::Get(address) = self.kind(id) else { return None };
        let prompts = prompts_of(&self.program, id, address.invoke);
        prompts.iter().map(Vec::len).max()
    }
}
