//! The unembedding only at the vocabulary's columns that are read.
//!
//! **Needs:** an invoke takes one step, and generates no token; no gradient goes back through it; nothing is set of the unembedding's
//! result, or of what follows from it. Every value that is read of these is picked from, by itself or after its positions were:
//! by integers, by slices, or by index tensors that are literals (as in `logits[0, -1, a]`, or `logits[0, -1][[a, b]]`,
//! `index_select` and `gather` too). What it comes to pays: a product computes whole panels of columns, and so few are needed
//! that there is a panel of which none is. All that follows the unembedding treats each logit alone (a scale, a soft cap).
//!
//! **Keeps:** each element of a matrix product is one chain of multiply-adds over k, in order, whichever others are computed
//! beside it (`kernels::matmul_columns`). What was picked by its place in the vocabulary is picked by its place among the
//! columns that were computed: the same numbers, in the same order.

use std::sync::Arc;

use pellucid_graph::check::CheckedProgram;
use pellucid_graph::{Argument, DType, IndexItem, NodeId, NodeKind, Operation, OperationKind, Scalar, Value};
use pellucid_kernels::columns_computed;
use pellucid_models::stage::{Kernel, StageList};

use super::length::changes;

/// Indexings that are followed, one on another.
const CHAIN: usize = 8;
/// Columns that are read of one value, at most.
const MOST: usize = 1024;

/// The stage that computes the logits, if all that comes after it treats each logit alone.
pub(crate) fn unembedding(list: &StageList) -> Option<usize> {
    let mut slot = list.logits?;
    for (place, stage) in list.stages.iter().enumerate().rev() {
        if !stage.outputs.contains(&slot) {
            return None;
        }
        match stage.kernel {
            Kernel::Linear { .. } => return (place >= list.token_wise_from).then_some(place),
            Kernel::Hook { .. } | Kernel::Scale(_) | Kernel::SoftCap(_) => slot = *stage.inputs.first()?,
            _ => return None,
        }
    }
    None
}

/// Columns of a vocabulary of so many, if computing only these pays.
pub(crate) fn worthwhile(columns: &[usize], size: usize) -> bool {
    !columns.is_empty() && columns_computed(columns) < size
}

/// What is read of some getters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ColumnsRead {
    /// The columns of the vocabulary: what is picked as a run stands together, in its order.
    pub columns: Vec<usize>,
    /// The nodes that pick positions and hand on all of the vocabulary's columns.
    pub through: Vec<NodeId>,
}

/// The needed nodes that read a node's values; none: something else reads them too.
pub(crate) type Users<'u, 'a> = &'u dyn Fn(NodeId) -> Option<&'a [NodeId]>;

impl ColumnsRead {
    /// Adds what is read of a getter of logits, or of what was picked from one, if that is only some of their columns.
    pub fn read(&mut self, program: &CheckedProgram, users: Users<'_, '_>, getter: NodeId) -> Option<()> {
        self.follow(program, users, getter, CHAIN)
    }

    fn follow(
        &mut self,
        program: &CheckedProgram,
        users: Users<'_, '_>,
        id: NodeId,
        chain: usize,
    ) -> Option<()> {
        if chain == 0 || program.nodes[id.index()].steps.is_some() {
            return None;
        }
        for &user in users(id)? {
            let NodeKind::Operation(operation) = &program.program.node(user).kind else { return None };
            if program.nodes[user.index()].steps.is_some() {
                return None;
            }
            match picked(program, operation, id)? {
                Picked::All => {
                    self.through.push(user);
                    self.follow(program, users, user, chain - 1)?;
                }
                Picked::Run(run) => {
                    if place_of(&self.columns, &run).is_none() {
                        self.columns.extend(run);
                    }
                }
                Picked::By(_, columns) => {
                    for column in columns {
                        if !self.columns.contains(&column) {
                            self.columns.push(column);
                        }
                    }
                }
            }
            if self.columns.len() > MOST {
                return None;
            }
        }
        Some(())
    }
}

/// What an operation takes of the vocabulary.
#[derive(Debug, PartialEq, Eq)]
enum Picked {
    All,
    /// Columns in a row.
    Run(Vec<usize>),
    /// Columns by an index tensor.
    By(Value, Vec<usize>),
}

/// What an operation takes of the vocabulary's columns, the last dimension of a node's value; none: it does something else with
/// it.
fn picked(program: &CheckedProgram, operation: &Operation, id: NodeId) -> Option<Picked> {
    if !changes(operation, id) {
        return None;
    }
    let shape = &program.nodes[id.index()].outputs.first()?.shape;
    let (rank, size) = (shape.len(), usize::try_from(shape.last()?.value()?).ok()?);
    match (operation.kind, operation.arguments.as_slice()) {
        (OperationKind::GetItem, [_, Argument::Index(items)]) => {
            // A mask stands for as many dimensions as it has itself.
            let is_mask = |item: &IndexItem| match item {
                IndexItem::Tensor(value) => dtype(program, *value) == Some(DType::Bool),
                _ => false,
            };
            if items.iter().any(is_mask) {
                return None;
            }
            match last_item(items, rank).map(|place| &items[place]) {
                None | Some(IndexItem::Slice { start: None | Some(0), stop: None, step: 1 }) => {
                    // Behind a new one it would not be the last dimension any more.
                    (items.last() != Some(&IndexItem::NewAxis)).then_some(Picked::All)
                }
                Some(IndexItem::Integer(at)) => Some(Picked::Run(vec![column(*at, size)?])),
                Some(IndexItem::Slice { start, stop, step }) => sliced(*start, *stop, *step, size),
                Some(IndexItem::Tensor(value)) => {
                    // It would stand for something else in another place.
                    let times = items.iter().filter(|item| **item == IndexItem::Tensor(*value)).count();
                    if times == 1 { by_tensor(program, *value, size) } else { None }
                }
                Some(IndexItem::Ellipsis | IndexItem::NewAxis) => None,
            }
        }
        (
            OperationKind::IndexSelect | OperationKind::Gather,
            [_, Argument::Scalar(Scalar::Int(dimension)), Argument::Value(index)],
        ) => {
            let last = rank as i64 - 1;
            if *dimension == last || *dimension == -1 { by_tensor(program, *index, size) } else { None }
        }
        _ => None,
    }
}

/// A column that may be counted from the end.
fn column(at: i64, size: usize) -> Option<usize> {
    let counted = if at < 0 { at.saturating_add_unsigned(size as u64) } else { at };
    usize::try_from(counted).ok().filter(|&column| column < size)
}

fn sliced(start: Option<i64>, stop: Option<i64>, step: i64, size: usize) -> Option<Picked> {
    let counted = |at: i64| if at < 0 { at.saturating_add_unsigned(size as u64) } else { at };
    let clamped = |at: i64| usize::try_from(counted(at).max(0)).unwrap_or(size).min(size);
    let (start, stop) = (start.map_or(0, clamped), stop.map_or(size, clamped));
    let step = usize::try_from(step).ok().filter(|&step| step > 0)?;
    let run = (start..stop.max(start)).step_by(step);
    (run.len() <= MOST).then(|| Picked::Run(run.collect()))
}

fn by_tensor(program: &CheckedProgram, value: Value, size: usize) -> Option<Picked> {
    let NodeKind::Literal { elements, .. } = &program.program.node(value.node).kind else { return None };
    let columns = elements.iter().map(|element| match element {
        Scalar::Int(at) => column(*at, size),
        _ => None,
    });
    Some(Picked::By(value, columns.collect::<Option<_>>()?))
}

fn dtype(program: &CheckedProgram, value: Value) -> Option<DType> {
    let outputs = &program.nodes[value.node.index()].outputs;
    outputs.get(value.output as usize).map(|output| output.dtype)
}

/// An operation on a node's value, of whose columns only those are there: as it picks the same ones from these. Beside it an
/// index tensor of its own that is to have other elements. None: it reads others.
pub(crate) fn among(
    program: &CheckedProgram,
    operation: &Operation,
    id: NodeId,
    columns: &[usize],
) -> Option<Among> {
    let mut operation = operation.clone();
    let mut index = None;
    match picked(program, &operation, id)? {
        Picked::All => {}
        Picked::Run(run) => {
            let rank = program.nodes[id.index()].outputs.first()?.shape.len();
            let Some(Argument::Index(items)) = operation.arguments.get_mut(1) else { return None };
            let at = last_item(items, rank)?;
            let place = place_of(columns, &run)? as i64;
            items[at] = match items[at] {
                IndexItem::Integer(_) => IndexItem::Integer(place),
                _ => {
                    let stop = Some(place + run.len() as i64);
                    IndexItem::Slice { start: Some(place), stop, step: 1 }
                }
            };
        }
        Picked::By(value, own) => {
            let places = own.iter().map(|column| Some(place_of(columns, &[*column])? as i64));
            index = Some((value, places.collect::<Option<_>>()?));
        }
    }
    Some(Among { operation, index })
}

/// An operation made to pick from some columns alone.
#[derive(Debug)]
pub(crate) struct Among {
    pub operation: Operation,
    /// An index tensor, and the elements that it is to have.
    pub index: Option<(Value, Vec<i64>)>,
}

/// The item of an index that stands for the last of so many dimensions; none: it is taken whole.
fn last_item(items: &[IndexItem], rank: usize) -> Option<usize> {
    let of_dimension = |item: &IndexItem| !matches!(item, IndexItem::Ellipsis | IndexItem::NewAxis);
    if items.iter().filter(|item| of_dimension(item)).count() == rank {
        return items.iter().rposition(of_dimension);
    }
    let last = items.iter().rposition(|item| *item != IndexItem::NewAxis)?;
    (items.contains(&IndexItem::Ellipsis) && of_dimension(&items[last])).then_some(last)
}

/// Where columns stand together in a row, among others.
pub(crate) fn place_of(columns: &[usize], run: &[usize]) -> Option<usize> {
    if run.is_empty() {
        return Some(0);
    }
    columns.windows(run.len()).position(|window| window == run)
}

/// The columns that some of those that read the same rows read; none: one of them reads all, or so many that it does not pay.
pub(crate) fn together<'a>(
    readers: impl Iterator<Item = Option<&'a Arc<[usize]>>>,
    size: usize,
) -> Option<Arc<[usize]>> {
    let mut all: Option<Arc<[usize]>> = None;
    for own in readers {
        let own = own?;
        all = Some(match all {
            None => own.clone(),
            Some(all) if all == *own => all,
            Some(all) => {
                let mut columns = all.to_vec();
                columns.extend(own.iter().filter(|column| !all.contains(column)));
                columns.into()
            }
        });
    }
    all.filter(|columns| worthwhile(columns, size))
}

#[cfg(test)]
mod tests;
