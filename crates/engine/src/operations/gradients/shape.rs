//! Gradients of what moves elements: the same move backwards.

use pellucid_graph::OperationKind;

use super::super::Result;
use super::super::shape::{copy_strided, joined};
use super::super::walk::contiguous_strides;
use super::backward::{Backward, compute, reshape, transpose, zeros};
use crate::tensor::{Tensor, element_count, with_stored};

pub(super) fn reshaped(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| reshape(&backward.cotangent()?, backward.call.tensor(0)?.shape()))
}

pub(super) fn permuted(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (call, gradient) = (&backward.call, backward.cotangent()?);
        if gradient.rank() == 0 {
            return Ok(gradient);
        }
        match backward.kind() {
            OperationKind::Transpose => {
                let places =
                    [call.integer(1)?, call.integer(2)?].map(|place| call.dimension(place, gradient.rank()));
                let [first, second] = places;
                transpose(&gradient, first?, second?)
            }
            OperationKind::MoveDim => compute(
                OperationKind::MoveDim,
                [(&gradient).into(), call.integers(2)?.into(), call.integers(1)?.into()],
            ),
            _ => {
                let order = call.dimensions(&call.integers(1)?, gradient.rank())?;
                let mut back = vec![0i64; order.len()];
                for (to, &from) in order.iter().enumerate() {
                    back.iter_mut().skip(from).take(1).for_each(|place| *place = to as i64);
                }
                compute(OperationKind::Permute, [(&gradient).into(), back.into()])
            }
        }
    })
}

/// The sum over the tiles.
pub(super) fn repeat(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (input, gradient, repeats) =
            (backward.call.tensor(0)?, backward.cotangent()?, backward.call.integers(1)?);
        let new = repeats.len().saturating_sub(input.rank());
        let (mut shape, mut tiles) = (Vec::new(), Vec::new());
        for (place, &count) in repeats.iter().enumerate() {
            tiles.push(shape.len() as i64);
            shape.push(usize::try_from(count).unwrap_or(0));
            shape.extend(place.checked_sub(new).and_then(|place| input.shape().get(place)));
        }
        if tiles.is_empty() {
            return Ok(gradient);
        }
        if shape.len() > 2 * pellucid_graph::limits::DIMENSIONS {
            return Err(backward.call.error("there are too many dimensions"));
        }
        compute(OperationKind::Sum, [(&reshape(&gradient, &shape)?).into(), tiles.into()])
    })
}

/// A part of a gradient along a dimension.
fn part(gradient: &Tensor, place: usize, start: usize, length: usize) -> Result<Tensor> {
    Ok(gradient.view(gradient.data().narrow(place, start, length)?))
}

pub(super) fn cat(backward: &mut Backward<'_>) -> Result<()> {
    let (tensors, gradient) = (backward.call.tensors(0)?, backward.cotangent()?);
    let place = backward.call.dimension(backward.call.integer(1)?, gradient.rank())?;
    let mut start = 0;
    for (item, tensor) in tensors.iter().enumerate() {
        // Empty vectors are passed over, whatever the others' shapes.
        let skipped = tensor.shape() == [0];
        let length = if skipped { 0 } else { tensor.shape().get(place).copied().unwrap_or(0) };
        backward.give_item(0, item, |_| {
            if skipped { zeros(&[0], gradient.dtype()) } else { part(&gradient, place, start, length) }
        })?;
        start += length;
    }
    Ok(())
}

pub(super) fn stack(backward: &mut Backward<'_>) -> Result<()> {
    let (count, gradient) = (backward.call.tensors(0)?.len(), backward.cotangent()?);
    let place = backward.call.dimension(backward.call.integer(1)?, gradient.rank())?;
    for item in 0..count {
        backward.give_item(0, item, |_| {
            let part = part(&gradient, place, item, 1)?;
            Ok(part.view(part.data().squeeze(place)?))
        })?;
    }
    Ok(())
}

/// The pieces joined again; zeros for those without a gradient.
pub(super) fn pieces(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let input = backward.call.tensor(0)?;
        let place = backward.call.dimension(backward.call.integer(2)?, input.rank())?;
        let mut parts = Vec::new();
        for piece in 0..backward.outputs() {
            parts.push(backward.cotangent_of(piece)?);
        }
        joined(&backward.call, &parts, place)
    })
}

/// What was added is cut off, and the other way round.
pub(super) fn pad(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let back: Vec<i64> =
            backward.call.integers(1)?.iter().map(|amount| amount.saturating_neg()).collect();
        compute(OperationKind::Pad, [(&backward.cotangent()?).into(), back.into()])
    })
}

/// Flips and triangles are their own gradients, a roll's is the roll back.
pub(super) fn moved(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (kind, call, gradient) = (backward.kind(), &backward.call, backward.cotangent()?);
        match kind {
            OperationKind::Roll => {
                let back: Vec<i64> = call.integers(1)?.iter().map(|shift| shift.saturating_neg()).collect();
                compute(kind, [(&gradient).into(), back.into(), call.integers(2)?.into()])
            }
            OperationKind::Flip => compute(kind, [(&gradient).into(), call.integers(1)?.into()]),
            _ => compute(kind, [(&gradient).into(), call.integer(1)?.into()]),
        }
    })
}

/// Zeros with the gradient on the diagonal.
pub(super) fn diagonal(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (call, gradient) = (&backward.call, backward.cotangent()?);
        let input = call.tensor(0)?;
        let offset = isize::try_from(call.integer(1)?).unwrap_or(0);
        let places = call.dimensions(&[call.integer(2)?, call.integer(3)?], input.rank())?;
        let shape = input.shape();
        with_stored!(gradient.dtype(), T => {
            let mut target: Vec<T> = vec![T::default(); element_count(shape)?];
            if gradient.elements() > 0 {
                let own = contiguous_strides(shape);
                let (down, right) = (own[places[0]], own[places[1]]);
                let mut strides: Vec<isize> =
                    (0..own.len()).filter(|place| !places.contains(place)).map(|place| own[place]).collect();
                strides.push(down + right);
                let first = (-offset).max(0) * down + offset.max(0) * right;
                gradient.with_strided::<T, _>(|source, start, from| {
                    copy_strided(source, start as isize, from, &mut target, first, &strides, gradient.shape());
                })?;
            }
            Tensor::from_stored(target, shape, gradient.dtype())
        })
    })
}
