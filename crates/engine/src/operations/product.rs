//! Products of matrices.
//!
//! An element's sum runs over the contracted dimension in order, whatever the number of rows or matrices.

use super::Result;
use super::arguments::{Call, Operand};
use super::number::{Computation, Number, result_type, store};
use super::walk::{broadcast_shape, broadcast_strides, walk};
use crate::tensor::{Tensor, element_count};

/// `left [rows, inner]` times `right [inner, columns]`, added to `out [rows, columns]`.
pub(super) fn multiply<N: Number>(left: &[N], right: &[N], out: &mut [N], inner: usize, columns: usize) {
    if inner == 0 || columns == 0 {
        return;
    }
    for (row, sums) in left.chunks_exact(inner).zip(out.chunks_exact_mut(columns)) {
        for (&factor, line) in row.iter().zip(right.chunks_exact(columns)) {
            for (sum, &element) in sums.iter_mut().zip(line) {
                *sum = sum.plus(factor.times(element));
            }
        }
    }
}

pub(super) fn matmul(call: &Call<'_>) -> Result<Tensor> {
    let (mut left, mut right) = (call.tensor(0)?, call.tensor(1)?);
    let (left_rank, right_rank) = (left.rank(), right.rank());
    if left_rank == 0 || right_rank == 0 {
        return Err(call
            .error("both tensors must have at least one dimension")
            .hint("use mul for single numbers"));
    }
    let dtype = result_type(&[&Operand::Tensor(left.clone()), &Operand::Tensor(right.clone())]);
    // A vector on the left is a row, on the right a column; its dimension goes again at the end.
    if left_rank == 1 {
        left = left.view(left.data().unsqueeze(0)?);
    }
    if right_rank == 1 {
        right = right.view(right.data().unsqueeze(1)?);
    }
    let product = batched(call, &left.cast(dtype)?, &right.cast(dtype)?)?;
    let mut data = product.data().clone();
    if right_rank == 1 {
        data = data.squeeze(data.rank() - 1)?;
    }
    if left_rank == 1 {
        data = data.squeeze(data.rank() - if right_rank == 1 { 1 } else { 2 })?;
    }
    Ok(product.view(data))
}

/// The product of matrices in the last two dimensions; those before are broadcast.
pub(super) fn batched(call: &Call<'_>, left: &Tensor, right: &Tensor) -> Result<Tensor> {
    match Computation::of(left.dtype()) {
        Computation::Double => batched_as::<f64>(call, left, right),
        Computation::Single => batched_as::<f32>(call, left, right),
        Computation::Integer => batched_as::<i64>(call, left, right),
    }
}

fn batched_as<N: Number>(call: &Call<'_>, left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let fault = || {
        call.error(format!("the shapes {:?} and {:?} have no matrix product", left.shape(), right.shape()))
    };
    let ([left_batch @ .., rows, inner], [right_batch @ .., right_inner, columns]) =
        (left.shape(), right.shape())
    else {
        return Err(fault());
    };
    if inner != right_inner {
        return Err(fault());
    }
    let batch = broadcast_shape(&[left_batch, right_batch]).ok_or_else(fault)?;
    let shape: Vec<usize> = batch.iter().copied().chain([*rows, *columns]).collect();
    let mut out = vec![N::default(); element_count(&shape)?];
    let (a, b) = (N::elements(left)?, N::elements(right)?);
    let (left_size, right_size, size) = (rows * inner, inner * columns, rows * columns);
    let strides = [&broadcast_strides(left_batch, &batch)[..], &broadcast_strides(right_batch, &batch)[..]];
    let mut matrix = 0;
    walk(&batch, strides, [0, 0], |[at_left, at_right], count, [left_step, right_step]| {
        for step in 0..count as isize {
            let left_at = (at_left + step * left_step) as usize * left_size;
            let right_at = (at_right + step * right_step) as usize * right_size;
            multiply(
                &a[left_at..left_at + left_size],
                &b[right_at..right_at + right_size],
                &mut out[matrix * size..(matrix + 1) * size],
                *inner,
                *columns,
            );
            matrix += 1;
        }
    });
    store(out, &shape, left.dtype())
}

pub(super) fn outer(call: &Call<'_>) -> Result<Tensor> {
    let (left, right) = (call.tensor(0)?, call.tensor(1)?);
    let ([_], [_]) = (left.shape(), right.shape()) else {
        let message =
            format!("both must be vectors, not of shapes {:?} and {:?}", left.shape(), right.shape());
        return Err(call.error(message));
    };
    let dtype = result_type(&[&Operand::Tensor(left.clone()), &Operand::Tensor(right.clone())]);
    let (left, right) = (left.cast(dtype)?, right.cast(dtype)?);
    let column = left.view(left.data().unsqueeze(1)?);
    let row = right.view(right.data().unsqueeze(0)?);
    batched(call, &column, &row)
}
