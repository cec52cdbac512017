//! Products of matrices.
//!
//! An element's sum runs over the contracted dimension in order, whatever the number of rows or matrices.

use pellucid_kernels::{WeightLayout, pool};

use super::Result;
use super::arguments::{Call, Operand};
use super::number::{Computation, Number, result_type, store};
use super::walk::{broadcast_shape, broadcast_strides, walk};
use crate::tensor::{Tensor, element_count};

/// How the right matrix of a product lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[inner, columns]`.
    InnerFirst,
    /// `[columns, inner]`.
    ColumnsFirst,
}

/// Elements of a right matrix (of more than one column) below which the packed kernel does not pay. The choice may depend on that matrix alone:
/// the two sum in different ways, and a row must not depend on how many others there are.
const PACKED_FROM: usize = 4_096;

/// `out [rows, columns] = left [rows, inner] · right`, of `f32`.
pub(super) fn multiply_singles(
    left: &[f32],
    right: &[f32],
    layout: Layout,
    out: &mut [f32],
    sizes: [usize; 3],
) {
    let [rows, inner, columns] = sizes;
    if columns == 1 && inner > 0 {
        for (row, product) in left.chunks_exact(inner).zip(out) {
            *product = dot(row, right);
        }
        return;
    }
    if inner * columns < PACKED_FROM || rows == 0 {
        return multiply(left, right, layout, out, sizes);
    }
    let layout = match layout {
        Layout::InnerFirst => WeightLayout::InputMajor,
        Layout::ColumnsFirst => WeightLayout::OutputMajor,
    };
    pellucid_kernels::matmul_f32(left, right, layout, rows, inner, columns, out);
}

/// The sum of the products, accumulated in `f64` (in which each product is exact), in eight lanes.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut lanes = [0.0f64; 8];
    for (left, right) in left.chunks(8).zip(right.chunks(8)) {
        for (lane, (&a, &b)) in lanes.iter_mut().zip(left.iter().zip(right)) {
            *lane += f64::from(a) * f64::from(b);
        }
    }
    (((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))) as f32
}

/// `out [rows, columns] = left [rows, inner] · right`, in plain loops. `out` must hold zeros.
pub(super) fn multiply<N: Number>(left: &[N], right: &[N], layout: Layout, out: &mut [N], sizes: [usize; 3]) {
    let [_, inner, columns] = sizes;
    if inner == 0 || columns == 0 {
        return;
    }
    for (row, sums) in left.chunks_exact(inner).zip(out.chunks_exact_mut(columns)) {
        pool::checkpoint();
        match layout {
            Layout::InnerFirst => {
                for (&factor, line) in row.iter().zip(right.chunks_exact(columns)) {
                    for (sum, &element) in sums.iter_mut().zip(line) {
                        *sum = sum.plus(factor.times(element));
                    }
                }
            }
            Layout::ColumnsFirst => {
                for (sum, line) in sums.iter_mut().zip(right.chunks_exact(inner)) {
                    *sum = row.iter().zip(line).fold(*sum, |sum, (&a, &b)| sum.plus(a.times(b)));
                }
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

/// The product of matrices in the last two dimensions; those before are broadcast. Both of one number type.
fn batched(call: &Call<'_>, left: &Tensor, right: &Tensor) -> Result<Tensor> {
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
    // A transposed view of a matrix that lies in row-major order is read as it lies.
    let turned = right.view(right.data().transpose(right.rank() - 2, right.rank() - 1)?);
    let is_turned = !right.data().is_contiguous() && turned.data().is_contiguous();
    let (layout, right) =
        if is_turned { (Layout::ColumnsFirst, &turned) } else { (Layout::InnerFirst, right) };
    let (a, b) = (N::elements(left)?, N::elements(right)?);
    if right_batch.iter().all(|&size| size == 1) {
        // One right matrix for all: every row of the batch is a row of one product.
        let all_rows = left_batch.iter().product::<usize>() * rows;
        N::multiply(&a, &b, layout, &mut out, [all_rows, *inner, *columns]);
        return store(out, &shape, left.dtype());
    }
    let (left_size, right_size, size) = (rows * inner, inner * columns, rows * columns);
    let strides = [&broadcast_strides(left_batch, &batch)[..], &broadcast_strides(right_batch, &batch)[..]];
    let mut matrix = 0;
    walk(&batch, strides, [0, 0], |[at_left, at_right], count, [left_step, right_step]| {
        for step in 0..count as isize {
            let left_at = (at_left + step * left_step) as usize * left_size;
            let right_at = (at_right + step * right_step) as usize * right_size;
            N::multiply(
                &a[left_at..left_at + left_size],
                &b[right_at..right_at + right_size],
                layout,
                &mut out[matrix * size..(matrix + 1) * size],
                [*rows, *inner, *columns],
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
