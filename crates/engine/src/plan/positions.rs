//! Positions: from the final norm on only those are computed that are read.
//!
//! **Needs:** every stage from there on treats each token alone (`StageList::token_wise_from`). It is the prompt's step: later ones have
//! one position. Nothing is set there, and no gradient is asked for there. Everything that reads a getter there picks
//! positions of it by an integer or a slice without steps (`logits[:, -1]`, `logits[:, 3:6]`). An invoke that draws a token reads its
//! last position.
//!
//! **Keeps:** a row there depends on itself alone. What was picked by its columns is picked by their places among those that were
//! computed (`job::columns`). Invokes that share rows compute what any of them reads (`Member::agree_on_columns`).
//!
//! Of the last layer fewer positions than all are computed by `last_layer`.

use std::ops::Range;

use pellucid_graph::check::CheckedProgram;
use pellucid_graph::{Argument, IndexItem, NodeId, NodeKind, OperationKind, Value};

/// The columns of a rectangle of `width` that are read by those touches; none: all of them.
pub(crate) fn positions<'a>(
    program: &CheckedProgram,
    users: &dyn Fn(NodeId) -> &'a [NodeId],
    touches: impl Iterator<Item = NodeId>,
    draws: bool,
    width: usize,
) -> Option<Vec<usize>> {
    // Where what is picked begins and ends, added up: readers may be many, and their slices wide.
    let mut steps = vec![0_i64; width + 1];
    let mut pick = |columns: Range<usize>| {
        steps[columns.start] += 1;
        steps[columns.end] -= 1;
    };
    if draws {
        pick(width.checked_sub(1)?..width);
    }
    for id in touches {
        match program.program.node(id).kind {
            NodeKind::Get(_) => {
                for &user in users(id) {
                    pick(picked(program, id, user, width)?);
                }
            }
            _ => return None,
        }
    }
    let mut many = 0;
    let columns = (0..width).filter(|&column| {
        many += steps[column];
        many > 0
    });
    let columns: Vec<usize> = columns.collect();
    (columns.len() < width && !columns.is_empty()).then_some(columns)
}

/// The columns that one of a getter's readers takes.
fn picked(program: &CheckedProgram, id: NodeId, user: NodeId, width: usize) -> Option<Range<usize>> {
    let NodeKind::Operation(operation) = &program.program.node(user).kind else { return None };
    if operation.kind != OperationKind::GetItem {
        return None;
    }
    let Some(Argument::Index(items)) = operation.arguments.get(1) else { return None };
    let [IndexItem::Slice { .. } | IndexItem::Integer(_), column, rest @ ..] = items.as_slice() else {
        return None;
    };
    // The getter must be what is indexed, not an index.
    let reads_elsewhere = rest.iter().any(|item| matches!(item, IndexItem::Tensor(_)));
    if reads_elsewhere || operation.arguments.first() != Some(&Argument::Value(Value { node: id, output: 0 }))
    {
        return None;
    }
    columns(column, width)
}

/// The columns that an index takes of so many; none: not some that stand together.
pub(crate) fn columns(index: &IndexItem, width: usize) -> Option<Range<usize>> {
    let all = i64::try_from(width).ok()?;
    let from_left = |column: i64| if column < 0 { all.saturating_add(column) } else { column };
    match index {
        IndexItem::Integer(column) => {
            let column = usize::try_from(from_left(*column)).ok().filter(|&column| column < width)?;
            Some(column..column + 1)
        }
        IndexItem::Slice { start, stop, step: 1 } => {
            let place = |column: i64| usize::try_from(from_left(column).clamp(0, all)).ok();
            let (start, stop) = (place(start.unwrap_or(0))?, place(stop.unwrap_or(all))?);
            (start < stop).then_some(start..stop)
        }
        _ => None,
    }
}
