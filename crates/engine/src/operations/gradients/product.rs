//! Gradients of products.

use pellucid_graph::rules::equation::{Bound, Equation};
use pellucid_graph::shape::Symbol;
use pellucid_graph::{Dimension, OperationKind};

use super::super::Result;
use super::super::einsum::contraction;
use super::super::walk::contiguous_strides;
use super::backward::{Backward, compute, expand, reshape, turned};
use crate::tensor::{Tensor, element_count, with_stored};

/// A tensor with a new dimension of size 1 at `place`.
fn raised(tensor: &Tensor, place: usize) -> Result<Tensor> {
    Ok(tensor.view(tensor.data().unsqueeze(place)?))
}

fn times(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    compute(OperationKind::Matmul, [left.into(), right.into()])
}

/// `∂A = ∂C · Bᵀ`, `∂B = Aᵀ · ∂C`, with vectors as matrices of one row or column.
pub(super) fn matmul(backward: &mut Backward<'_>) -> Result<()> {
    let (a, b) = (backward.call.tensor(0)?, backward.call.tensor(1)?);
    let mut gradient = backward.cotangent()?;
    if b.rank() == 1 {
        gradient = raised(&gradient, gradient.rank())?;
    }
    if a.rank() == 1 {
        gradient = raised(&gradient, gradient.rank().saturating_sub(1))?;
    }
    let left = if a.rank() == 1 { raised(&a, 0)? } else { a.clone() };
    let right = if b.rank() == 1 { raised(&b, 1)? } else { b.clone() };
    // A row vector's gradient is [..., 1, inner], which sums to [inner] by itself.
    backward.give(0, |_| times(&gradient, &turned(&right)?))?;
    backward.give(1, |_| {
        let columns = gradient.shape().last().copied().unwrap_or(1);
        let inner = left.shape().last().copied().unwrap_or(1);
        let batch = right.rank().saturating_sub(2);
        let single = right.shape().iter().take(batch).all(|&size| size == 1);
        let product = if single && inner * columns > 0 {
            // One matrix for all: every row of every batch counts, in order.
            let rows = left.elements() / inner;
            let left = reshape(&left, &[rows, inner])?;
            times(&turned(&left)?, &reshape(&gradient, &[rows, columns])?)?
        } else {
            times(&turned(&left)?, &gradient)?
        };
        if b.rank() == 1 {
            return Ok(product.view(product.data().squeeze(product.rank() - 1)?));
        }
        Ok(product)
    })
}

pub(super) fn outer(backward: &mut Backward<'_>) -> Result<()> {
    let (a, b) = (backward.call.tensor(0)?, backward.call.tensor(1)?);
    let gradient = backward.cotangent()?;
    backward.give(0, |_| times(&gradient, &b))?;
    backward.give(1, |_| times(&a, &gradient))
}

/// The gradient of an operand is the sum of products of the cotangent and the other operands over the labels that the
/// operand does not have; repeated along labels that only it has, and put on the diagonal where it has one twice.
pub(super) fn einsum(backward: &mut Backward<'_>) -> Result<()> {
    let (text, tensors) = (backward.call.text(0)?, backward.call.tensors(1)?);
    let shapes: Vec<Vec<Dimension>> = tensors
        .iter()
        .map(|tensor| tensor.shape().iter().map(|&size| Dimension::known(size as u64)).collect())
        .collect();
    let shapes: Vec<&[Dimension]> = shapes.iter().map(Vec::as_slice).collect();
    let bound = Equation::parse(text)?.bind(&shapes, &mut || Symbol::derived(0))?;
    let gradient = backward.cotangent()?;
    for operand in 0..tensors.len() {
        backward.give_item(1, operand, |_| of_operand(&bound, &tensors, operand, &gradient))?;
    }
    Ok(())
}

fn of_operand(bound: &Bound, tensors: &[Tensor], operand: usize, gradient: &Tensor) -> Result<Tensor> {
    let size_of = |label: usize| bound.sizes.get(label).and_then(Dimension::value).unwrap_or(1) as usize;
    let mut factors = vec![gradient.clone()];
    let mut labels = vec![bound.output.clone()];
    for (place, (tensor, own)) in tensors.iter().zip(&bound.operands).enumerate() {
        if place != operand {
            factors.push(tensor.clone());
            labels.push(own.clone());
        }
    }
    // Where a factor has size 1 and the label has not, it does not bring the label in.
    let brought = |label: usize| {
        factors.iter().zip(&labels).any(|(factor, own)| {
            own.iter().zip(factor.shape()).any(|(&other, &size)| other == label && size == size_of(label))
        })
    };
    let (tensor, own) = (&tensors[operand], &bound.operands[operand]);
    let mut distinct: Vec<(usize, usize)> = Vec::new();
    for (&label, &size) in own.iter().zip(tensor.shape()) {
        if !distinct.iter().any(|(other, _)| *other == label) {
            distinct.push((label, size));
        }
    }
    // A dimension of size 1 that was repeated is summed.
    let kept = |&&(label, size): &&(usize, usize)| size == size_of(label) && brought(label);
    let output: Vec<usize> = distinct.iter().filter(kept).map(|(label, _)| *label).collect();
    let sum = contraction(
        &Bound { operands: labels.clone(), output: output.clone(), sizes: bound.sizes.clone() },
        &factors,
    )?;
    let raised: Vec<usize> =
        distinct.iter().map(|(label, size)| if output.contains(label) { *size } else { 1 }).collect();
    let shape: Vec<usize> = distinct.iter().map(|(_, size)| *size).collect();
    let full = expand(&reshape(&sum, &raised)?, &shape)?;
    if distinct.len() == own.len() {
        return Ok(full);
    }
    let distinct: Vec<usize> = distinct.into_iter().map(|(label, _)| label).collect();
    on_diagonal(&full, &distinct, own, tensor.shape())
}

/// Zeros with the elements at the places where equal labels have equal indices.
fn on_diagonal(elements: &Tensor, distinct: &[usize], own: &[usize], shape: &[usize]) -> Result<Tensor> {
    let mut strides = vec![0isize; distinct.len()];
    for (label, stride) in own.iter().zip(contiguous_strides(shape)) {
        for (other, sum) in distinct.iter().zip(&mut strides) {
            if other == label {
                *sum += stride;
            }
        }
    }
    with_stored!(elements.dtype(), T => {
        let mut target: Vec<T> = vec![T::default(); element_count(shape)?];
        elements.with_strided::<T, _>(|source, start, from| {
            super::super::shape::copy_strided(source, start as isize, from, &mut target, 0, &strides, elements.shape());
        })?;
        Tensor::from_stored(target, shape, elements.dtype())
    })
}
