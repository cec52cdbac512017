//! Gradients of what picks and writes at places. A place that is read several times sums what comes back, in the order of
//! reading.

use pellucid_graph::{DType, IndexItem, OperationKind};

use super::super::Result;
use super::super::arguments::Operand;
use super::super::indexing::{read_at, write_at};
use super::backward::{Backward, compute, expand, reshape, zeros};
use crate::tensor::Tensor;

/// Each value back to its place.
pub(super) fn sorted(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (input, places, gradient) =
            (backward.call.tensor(0)?, backward.output(1)?, backward.cotangent()?);
        let parameter = if backward.kind() == OperationKind::TopK { 2 } else { 1 };
        let dimension = backward.call.integer(parameter)?;
        let nothing = zeros(input.shape(), gradient.dtype())?;
        compute(
            OperationKind::Scatter,
            [(&nothing).into(), dimension.into(), (&places).into(), (&gradient).into()],
        )
    })
}

pub(super) fn gather(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (input, gradient) = (backward.call.tensor(0)?, backward.cotangent()?);
        let broadcasts = backward.kind() == OperationKind::TakeAlongDim;
        let (index, dim) = if broadcasts { (1, 2) } else { (2, 1) };
        let (mut index, dim) = (backward.call.tensor(index)?, backward.call.integer(dim)?);
        let mut shape = input.shape().to_vec();
        if broadcasts && input.rank() > 0 {
            // The dimensions apart from the one that is picked along are broadcast, so a part comes back for each.
            index = expand(&index, gradient.shape())?;
            let along = backward.call.dimension(dim, input.rank())?;
            for (place, (size, &wide)) in shape.iter_mut().zip(gradient.shape()).enumerate() {
                *size = if place == along { *size } else { wide };
            }
        }
        let nothing = zeros(&shape, gradient.dtype())?;
        compute(
            OperationKind::ScatterAdd,
            [(&nothing).into(), dim.into(), (&index).into(), (&gradient).into()],
        )
    })
}

/// What is written over comes from `src` alone; a place of `src` gets what comes back to where it was written, unless a
/// later one was written over it.
pub(super) fn scatter(backward: &mut Backward<'_>) -> Result<()> {
    let (input, dim, index) = (backward.call.tensor(0)?, backward.call.integer(1)?, backward.call.tensor(2)?);
    let gradient = backward.cotangent()?;
    let overwrites = backward.kind() == OperationKind::Scatter;
    backward.give(0, |_| {
        if !overwrites || index.elements() == 0 {
            return Ok(gradient.clone());
        }
        compute(OperationKind::Scatter, [(&gradient).into(), dim.into(), (&index).into(), 0i64.into()])
    })?;
    backward.give(3, |backward| {
        let Operand::Tensor(source) = backward.call.operand(3)? else { return Ok(gradient.clone()) };
        let nothing = zeros(source.shape(), gradient.dtype())?;
        if index.elements() == 0 {
            return Ok(nothing);
        }
        let mut picked = compute(OperationKind::Gather, [(&gradient).into(), dim.into(), (&index).into()])?;
        if overwrites {
            let numbers = Tensor::from_i64((0..index.elements() as i64).collect(), index.shape())?;
            let nothing = zeros(gradient.shape(), DType::I64)?;
            let left = [(&nothing).into(), dim.into(), (&index).into(), (&numbers).into()];
            let left = compute(OperationKind::Scatter, left)?;
            let found = compute(OperationKind::Gather, [(&left).into(), dim.into(), (&index).into()])?;
            picked = still_there(&found, &numbers, &picked)?;
        }
        if input.rank() == 0 || index.shape() == source.shape() {
            return reshape(&picked, source.shape());
        }
        // The rest of a `src` larger than the index was not written.
        let beyond = source.shape().iter().zip(index.shape()).rev();
        let pad = beyond.flat_map(|(&size, &used)| [0, size.saturating_sub(used) as i64]).collect::<Vec<_>>();
        compute(OperationKind::Pad, [(&picked).into(), pad.into()])
    })
}

pub(super) fn index_select(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (input, index, gradient) =
            (backward.call.tensor(0)?, backward.call.tensor(2)?, backward.cotangent()?);
        let dim = backward.call.integer(1)?;
        let place = backward.call.dimension(dim, input.rank())?;
        let mut raised = vec![1; input.rank()];
        raised.iter_mut().skip(place).take(1).for_each(|size| *size = index.elements());
        let index = expand(&reshape(&index, &raised)?, gradient.shape())?;
        let nothing = zeros(input.shape(), gradient.dtype())?;
        compute(
            OperationKind::ScatterAdd,
            [(&nothing).into(), dim.into(), (&index).into(), (&gradient).into()],
        )
    })
}

/// The gradients of those written values whose own number is still found where they were written; 0 for the others.
fn still_there(found: &Tensor, numbers: &Tensor, gradients: &Tensor) -> Result<Tensor> {
    let there = compute(OperationKind::Eq, [found.into(), numbers.into()])?;
    compute(OperationKind::Where, [(&there).into(), gradients.into(), 0i64.into()])
}

/// Whether an index can name a place twice.
fn repeats(items: &[IndexItem]) -> bool {
    items.iter().any(|item| matches!(item, IndexItem::Tensor(_)))
}

pub(super) fn get_item(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (input, items, gradient) =
            (backward.call.tensor(0)?, backward.call.index(1)?, backward.cotangent()?);
        let nothing = zeros(input.shape(), gradient.dtype())?;
        write_at(&backward.call, &nothing, items, &gradient, repeats(items))
    })
}

/// What is written over passes nothing to the input; a written value gets what comes back to its place, unless a later one
/// was written over it.
pub(super) fn index_put(backward: &mut Backward<'_>) -> Result<()> {
    let (items, accumulate) = (backward.call.index(1)?, backward.call.boolean(3)?);
    let gradient = backward.cotangent()?;
    backward.give(0, |backward| {
        if accumulate {
            return Ok(gradient.clone());
        }
        write_at(&backward.call, &gradient, items, &zeros(&[], gradient.dtype())?, false)
    })?;
    backward.give(2, |backward| {
        let call = &backward.call;
        let picked = read_at(call, &gradient, items)?;
        if accumulate || !repeats(items) {
            return Ok(picked);
        }
        let numbers = Tensor::from_i64((0..picked.elements() as i64).collect(), picked.shape())?;
        let left = write_at(call, &zeros(gradient.shape(), DType::I64)?, items, &numbers, false)?;
        still_there(&read_at(call, &left, items)?, &numbers, &picked)
    })
}
