//! Length sharing: from its first edit on an invoke computes only the positions that differ, or that are read.
//!
//! **Needs:** attention is causal. Every touch from the first edit on names its columns statically, from some column on: a
//! setter writes `index_put` of the same hook point's own value, a getter is indexed at columns, or is what such an
//! `index_put` changes. Scores, patterns and hook points whose heads stand before their positions count as touched
//! everywhere, as do nodes inside `steps`, skipped modules, and values that gradients need. Where anything else is done the
//! whole row forks.
//!
//! **Keeps:** a position depends on itself and those before it. Before the first column that is written all rows stay the
//! trunk's; the fork's own attend to the trunk's keys and values there, which are its own bit for bit. What a getter shows at
//! those columns reads 0 in the fork, but nothing looks at them: what is indexed away, or written back where no row stands,
//! changes nothing.

use pellucid_graph::{Argument, HookAddress, IndexItem, NodeId, NodeKind, Operation, OperationKind, Value};
use pellucid_models::stage::{HookLayout, Kernel};

use super::Asker;
use crate::job::{Instance, OUTSIDE};

/// `index_put`s that are followed, one on another.
const CHAIN: usize = 64;

/// The first column that any of those touches reads or writes.
pub(super) fn first_column(asker: &Asker<'_>, touches: impl Iterator<Item = (usize, Instance)>) -> usize {
    let last = asker.width.saturating_sub(1);
    touches.map(|(stage, instance)| asker.touched_from(stage, instance)).min().unwrap_or(last).min(last)
}

impl Asker<'_> {
    fn kind(&self, id: NodeId) -> &NodeKind {
        &self.program.program.node(id).kind
    }

    fn touched_from(&self, stage: usize, (step, id): Instance) -> usize {
        let tokens_first =
            matches!(self.list.stages[stage].kernel, Kernel::Hook { layout: HookLayout::Tokens, .. });
        if !tokens_first || step != OUTSIDE {
            return 0;
        }
        match self.kind(id) {
            NodeKind::Get(_) => self.read_from(id, CHAIN),
            NodeKind::Set { value, .. } => self.written_from(id, *value, CHAIN),
            _ => 0,
        }
    }

    /// The first column that is needed of what a node gives.
    fn read_from(&self, id: NodeId, chain: usize) -> usize {
        let (Some(users), true) = ((self.users)(id), chain > 0) else { return 0 };
        users.iter().map(|&user| self.used_from(id, user, chain)).min().unwrap_or(usize::MAX)
    }

    /// The same by one of those that read it.
    fn used_from(&self, id: NodeId, user: NodeId, chain: usize) -> usize {
        let (own, other) = (&self.program.nodes[id.index()], &self.program.nodes[user.index()]);
        if other.steps.is_some() || other.trace != own.trace {
            return 0;
        }
        match self.kind(user) {
            // What it writes of other rows is dropped: they have no place in the fork.
            NodeKind::Set { address, .. } if address.invoke == self.invoke => usize::MAX,
            NodeKind::Operation(operation) if changes(operation, id) => match operation.kind {
                OperationKind::GetItem => self.column(operation),
                OperationKind::IndexPut => self.read_from(user, chain - 1),
                _ => 0,
            },
            _ => 0,
        }
    }

    /// The first column at which a value differs that a setter writes to its hook point.
    fn written_from(&self, setter: NodeId, value: Value, chain: usize) -> usize {
        let NodeKind::Operation(operation) = self.kind(value.node) else { return 0 };
        let Some(Argument::Value(base)) = operation.arguments.first() else { return 0 };
        if operation.kind != OperationKind::IndexPut || chain == 0 || !changes(operation, base.node) {
            return 0;
        }
        let column = self.column(operation);
        match self.kind(base.node) {
            NodeKind::Get(address) if self.is_of(setter, base.node, address) => column,
            NodeKind::Operation(_) => column.min(self.written_from(setter, *base, chain - 1)),
            _ => 0,
        }
    }

    /// Whether a getter reads what a setter writes.
    fn is_of(&self, setter: NodeId, getter: NodeId, address: &HookAddress) -> bool {
        let (one, other) = (&self.program.nodes[setter.index()], &self.program.nodes[getter.index()]);
        address.invoke == self.invoke
            && (one.trace, one.place, one.steps) == (other.trace, other.place, other.steps)
            && one.place.is_some()
    }

    /// The first column that an index picks.
    fn column(&self, operation: &Operation) -> usize {
        let Some(Argument::Index(items)) = operation.arguments.get(1) else { return 0 };
        let [IndexItem::Integer(_) | IndexItem::Slice { .. }, column, ..] = items.as_slice() else { return 0 };
        let column = match column {
            IndexItem::Integer(column) => *column,
            IndexItem::Slice { start: Some(start), .. } => *start,
            _ => return 0,
        };
        let column = if column < 0 { column.saturating_add_unsigned(self.width as u64) } else { column };
        usize::try_from(column).unwrap_or(0)
    }
}

/// Whether a node's value is what an operation picks from or changes, and nothing else in it.
fn changes(operation: &Operation, id: NodeId) -> bool {
    let of = |value: &Value| value.node == id;
    let first = matches!(operation.arguments.first(), Some(Argument::Value(value)) if of(value));
    first
        && operation.arguments.iter().skip(1).all(|argument| match argument {
            Argument::Value(value) => !of(value),
            Argument::Index(items) => {
                !items.iter().any(|item| matches!(item, IndexItem::Tensor(value) if of(value)))
            }
            _ => true,
        })
}
