//! Length sharing: from its first edit on an invoke computes only the positions that differ, or that are read.
//!
//! **Needs:** attention is causal. Every touch from the first edit on names its columns statically, from some column on: a
//! setter writes `index_put` of the same hook point's own value, a getter is indexed at columns, or is what such an
//! `index_put` changes. Scores, patterns and hook points whose heads stand before their positions count as touched
//! everywhere, as do skipped modules, values that gradients need, and those that leave the `steps` in which they are made. An invoke that a gradient goes
//! back through has all its rows, for they are read on the way back. Where anything else is done the whole row forks. Of a
//! generation it is the prompt's step that is looked at; at the end of it the last column is read in any case.
//!
//! **Keeps:** a position depends on itself and those before it. Before the first column that is written all rows stay the
//! trunk's; the fork's own attend to the trunk's keys and values there, which are its own bit for bit. What a getter shows at
//! those columns reads 0 in the fork, but nothing looks at them: what is indexed away, or written back where no row stands,
//! changes nothing.

use pellucid_graph::{
    Argument, HookAddress, IndexItem, NodeId, NodeKind, Operation, OperationKind, Scalar, Value,
};
use pellucid_models::stage::{HookLayout, Kernel};

use super::Asker;
use crate::job::Instance;

/// `index_put`s that are followed, one on another.
const CHAIN: usize = 64;

/// The first column that a touch reads or writes.
pub(super) fn touched_from(asker: &Asker<'_>, (stage, instance): (usize, Instance)) -> usize {
    asker.touched_from(stage, instance)
}

impl Asker<'_> {
    fn kind(&self, id: NodeId) -> &NodeKind {
        &self.program.program.node(id).kind
    }

    /// Of a touch inside `steps` it is the prompt's step that is asked about.
    fn touched_from(&self, stage: usize, (_, id): Instance) -> usize {
        let tokens_first =
            matches!(self.list.stages[stage].kernel, Kernel::Hook { layout: HookLayout::Tokens, .. });
        if !tokens_first {
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
        if other.steps != own.steps || other.trace != own.trace {
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
        let [IndexItem::Integer(_) | IndexItem::Slice { .. }, column, ..] = items.as_slice() else {
            return 0;
        };
        match column {
            IndexItem::Integer(column) => self.left_column(*column),
            IndexItem::Slice { start: Some(start), .. } => self.left_column(*start),
            // A sweep's axis is a literal in each of its cells.
            IndexItem::Tensor(value) => match self.kind(value.node) {
                NodeKind::Literal { elements, .. } => {
                    let columns = elements.iter().map(|element| match element {
                        Scalar::Int(column) => self.left_column(*column),
                        _ => 0,
                    });
                    columns.min().unwrap_or(0)
                }
                _ => 0,
            },
            _ => 0,
        }
    }

    fn left_column(&self, column: i64) -> usize {
        let column = if column < 0 { column.saturating_add_unsigned(self.width as u64) } else { column };
        usize::try_from(column).unwrap_or(0)
    }
}

/// Whether a node's value is what an operation picks from or changes, and nothing else in it.
pub(super) fn changes(operation: &Operation, id: NodeId) -> bool {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pellucid_graph::check::SpecIndex;
    use pellucid_graph::{NodeId, NodeKind, Program};
    use pellucid_models::{Model, ModelOptions};

    use super::Asker;
    use crate::job::OUTSIDE;
    use crate::plan::{Outlook, Rewrites};

    /// The outlook of an invoke of six tokens that does this, and stands beside another.
    fn outlook(nodes: &str) -> Outlook {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models/gpt2");
        let model = Arc::new(Model::open(folder, &ModelOptions::default()).unwrap());
        let text = format!(
            r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"name":"p","tokens":[[1,2,3,4,5,6]]}},{{"name":"q","tokens":[[1,2,3,4,5,6]]}}],"body":[{nodes}]}}]}}"#
        );
        let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
        let index = SpecIndex::new(model.spec());
        let checked =
            pellucid_graph::check::check(program, &index).unwrap_or_else(|faults| panic!("{faults}"));
        let mut users = vec![Vec::new(); checked.nodes.len()];
        for (place, node) in checked.program.nodes.iter().enumerate() {
            node.values().iter().for_each(|value| users[value.node.index()].push(NodeId(place as u32)));
        }
        let list = model.stages();
        let schedule = crate::pass::Schedule::new(list);
        let mut touches = Vec::new();
        for (place, node) in checked.program.nodes.iter().enumerate() {
            let of_first = match &node.kind {
                NodeKind::Get(address) | NodeKind::Set { address, .. } => address.invoke == 0,
                NodeKind::Skip { invoke, .. } => *invoke == 0,
                _ => false,
            };
            if let (true, Some(hook)) = (of_first, checked.nodes[place].place) {
                touches.push((schedule.hook_stage[hook], (OUTSIDE, NodeId(place as u32))));
            }
        }
        touches.sort_by_key(|&(stage, (_, id))| (stage, id));
        let asker = Asker {
            program: &checked,
            list,
            users: &|id| Some(users[id.index()].as_slice()),
            invoke: 0,
            width: 6,
        };
        Outlook::of(&asker, &touches, Rewrites::ALL, None)
    }

    /// The column with which its rows begin where it is edited.
    fn parted(outlook: &Outlook) -> usize {
        outlook.edits.first().expect("an edit").column
    }

    const LAST: &str = r#"{"op":"get","name":"l","invoke":"p","hook":"logits"},{"op":"getitem","name":"o","input":"l","index":[0,-1]},{"op":"save","value":"o"}"#;

    fn edited(index: &str, value: &str) -> Outlook {
        outlook(&format!(
            r#"{{"op":"get","name":"h","invoke":"p","hook":"layers.1.output"}},
            {{"op":"index_put","name":"e","input":"h","index":{index},"values":0.5}},
            {{"op":"set","invoke":"p","hook":"layers.1.output","value":"{value}"}},{LAST}"#
        ))
    }

    #[test]
    fn an_edit_of_some_columns_differs_from_the_first_of_them_on() {
        for (index, column) in [
            (r#"[":",-1]"#, 5),
            (r#"[":",2]"#, 2),
            (r#"[0,-2]"#, 4),
            (r#"[":","-3:"]"#, 3),
            (r#"[":",":3"]"#, 0),
            (r#"[":",":",3]"#, 0),
            (r#"["...",3]"#, 0),
        ] {
            assert_eq!(parted(&edited(index, "e")), column, "{index}");
        }
    }

    #[test]
    fn what_is_read_or_written_in_another_way_needs_the_whole_row() {
        let start = r#"{"op":"get","name":"h","invoke":"p","hook":"layers.1.output"},
            {"op":"index_put","name":"e","input":"h","index":[":",-1],"values":0.5},"#;
        let set = r#"{"op":"set","invoke":"p","hook":"layers.1.output","value":"e"},"#;
        assert_eq!(parted(&outlook(&format!("{start}{set}{LAST}"))), 5);
        for other in [
            // What was changed is read as a whole, or goes elsewhere; what it is put into is another hook point's value.
            format!(r#"{start}{set}{{"op":"save","name":"x","value":"e"}},{LAST}"#),
            format!(
                r#"{start}{set}{{"op":"set","invoke":"q","hook":"layers.1.output","value":"e"}},{{"op":"get","name":"r","invoke":"q","hook":"logits"}},{{"op":"save","value":"r"}},{LAST}"#
            ),
            format!(r#"{start}{{"op":"set","invoke":"p","hook":"layers.2.output","value":"e"}},{LAST}"#),
            format!(
                r#"{start}{set}{{"op":"get","name":"w","invoke":"p","hook":"layers.2.output"}},{{"op":"save","value":"w"}},{LAST}"#
            ),
            format!(
                r#"{start}{set}{{"op":"get","name":"w","invoke":"p","hook":"layers.2.attention.pattern"}},{{"op":"getitem","name":"x","input":"w","index":[":",-1]}},{{"op":"save","value":"x"}},{LAST}"#
            ),
            format!(
                r#"{start}{set}{{"op":"mul","name":"x","input":"h","other":2.0}},{{"op":"save","value":"x"}},{LAST}"#
            ),
        ] {
            assert_eq!(parted(&outlook(&other)), 0, "{other}");
        }
        // What is read before the edit is the shared row's.
        let before =
            r#"{"op":"get","name":"w","invoke":"p","hook":"layers.0.output"},{"op":"save","value":"w"},"#;
        let outlook = outlook(&format!("{before}{start}{set}{LAST}"));
        assert_eq!((parted(&outlook), outlook.first_column), (5, 0));
    }
}
