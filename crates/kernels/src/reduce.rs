//! Reductions over the rows of a contiguous `[rows, width]` array, and what is made of them.
//!
//! A row's sum has one fixed shape: four accumulators of sixteen lanes take the numbers in turn (position modulo 64),
//! and are then added pairwise. It depends on the row alone.

use crate::isa::Isa;
use crate::math;
use crate::pool;
use crate::simd::{LANES, Simd, fold_lanes, kernel, map_lanes};

/// Numbers in one round of the accumulators.
pub(crate) const ROUND: usize = 4 * LANES;

/// Adds up the accumulators of [`fold_lanes!`].
#[inline(always)]
pub(crate) fn total<S: Simd>(s: S, sums: [S::Float; 4]) -> f32 {
    s.sum_lanes(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[inline(always)]
pub(crate) fn sum_row<S: Simd>(s: S, values: &[f32]) -> f32 {
    total(s, fold_lanes!(s, values, fill: 0.0, start: 0.0, |sum, x| s.add(sum, x)))
}

/// The greatest number of a row; NaN may be passed over.
#[inline(always)]
fn max_row<S: Simd>(s: S, values: &[f32]) -> f32 {
    let least = f32::NEG_INFINITY;
    let sums = fold_lanes!(s, values, fill: least, start: least, |sum, x| s.max(x, sum));
    s.max_lanes(s.max(s.max(sums[0], sums[1]), s.max(sums[2], sums[3])))
}

/// Replaces each number by e^(x − shift) and gives their sum.
#[inline(always)]
fn exp_row<S: Simd>(s: S, values: &mut [f32], shift: f32) -> f32 {
    let shift = s.splat(shift);
    let mut sums = [s.splat(0.0); 4];
    let (rounds, rest) = values.as_chunks_mut::<ROUND>();
    for round in rounds {
        let (vectors, _) = round.as_chunks_mut::<LANES>();
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            let e = math::exp(s, s.sub(s.load(vector), shift));
            s.store(e, vector);
            *sum = s.add(*sum, e);
        }
    }
    let (vectors, tail) = rest.as_chunks_mut::<LANES>();
    let index = vectors.len();
    for (sum, vector) in sums.iter_mut().zip(vectors) {
        let e = math::exp(s, s.sub(s.load(vector), shift));
        s.store(e, vector);
        *sum = s.add(*sum, e);
    }
    if !tail.is_empty() {
        let e = math::exp(s, s.sub(s.load_part(tail, 0.0), shift));
        s.store_part(e, tail);
        // Lanes beyond the row must add nothing.
        sums[index] = s.add(sums[index], s.load_part(tail, 0.0));
    }
    total(s, sums)
}

/// Σ e^(x − shift).
#[inline(always)]
fn sum_exp_row<S: Simd>(s: S, values: &[f32], shift: f32) -> f32 {
    let shift = s.splat(shift);
    let least = f32::NEG_INFINITY;
    let sums =
        fold_lanes!(s, values, fill: least, start: 0.0, |sum, x| s.add(sum, math::exp(s, s.sub(x, shift))));
    total(s, sums)
}

kernel! {
    /// The softmax of one row, in place, on this thread.
    pub(crate) fn softmax_row_on[s: S](values: &mut [f32]) {
        let greatest = max_row(s, values);
        let factor = s.splat(1.0 / exp_row(s, values, greatest));
        map_lanes!(s, values, |x| s.mul(x, factor));
    }
}

kernel! {
    fn log_softmax_row_kernel[s: S](values: &mut [f32]) {
        let greatest = max_row(s, values);
        let log_sum = s.splat(sum_exp_row(s, values, greatest).ln());
        let greatest = s.splat(greatest);
        map_lanes!(s, values, |x| s.sub(s.sub(x, greatest), log_sum));
    }
}

kernel! {
    fn log_sum_exp_row_kernel[s: S](values: &[f32]) -> f32 {
        let greatest = max_row(s, values);
        if greatest.is_infinite() {
            // −∞: the sum is empty; +∞: it is infinite. A NaN beside them must win.
            return if values.iter().any(|x| x.is_nan()) { f32::NAN } else { greatest };
        }
        greatest + sum_exp_row(s, values, greatest).ln()
    }
}

kernel! {
    /// Whether no number is infinite or NaN.
    pub(crate) fn all_finite_on[s: S](values: &[f32]) -> bool {
        // Zero times a finite number is a zero; times another it is NaN, and stays it in a sum.
        let zero = s.splat(0.0);
        total(s, fold_lanes!(s, values, fill: 0.0, start: 0.0, |sum, x| s.mul_add(x, zero, sum))) == 0.0
    }
}

kernel! {
    fn sum_row_kernel[s: S](values: &[f32]) -> f32 {
        sum_row(s, values)
    }
}

fn check_rows(length: usize, width: usize) {
    assert!(
        if width == 0 { length == 0 } else { length.is_multiple_of(width) },
        "{length} numbers in rows of {width}"
    );
}

/// Rows that make a chunk worth handing to a thread.
pub(crate) fn rows_per_chunk(width: usize) -> usize {
    (8 * 1024_usize).div_ceil(width.max(1))
}

fn for_rows(values: &mut [f32], width: usize, body: impl Fn(&mut [f32]) + Sync) {
    check_rows(values.len(), width);
    if width == 0 {
        return;
    }
    pool::parallel_chunks(values, rows_per_chunk(width) * width, |_, chunk| {
        chunk.chunks_exact_mut(width).for_each(&body);
    });
}

fn reduce_rows(values: &[f32], width: usize, out: &mut [f32], body: impl Fn(&[f32]) -> f32 + Sync) {
    assert_eq!(values.len(), out.len() * width, "one result for each row of {width}");
    let rows = rows_per_chunk(width);
    pool::parallel_chunks(out, rows, |index, out| {
        for (row, slot) in out.iter_mut().enumerate() {
            *slot = body(&values[(index * rows + row) * width..][..width]);
        }
    });
}

/// The softmax of each row, in place. NaN where a row is −∞ throughout or holds NaN or +∞, as in PyTorch.
///
/// # Panics
/// If the length is not a multiple of `width`.
pub fn softmax(values: &mut [f32], width: usize) {
    let isa = Isa::current();
    for_rows(values, width, |row| softmax_row_on(isa, row));
}

/// The logarithm of the softmax of each row, in place.
///
/// # Panics
/// If the length is not a multiple of `width`.
pub fn log_softmax(values: &mut [f32], width: usize) {
    let isa = Isa::current();
    for_rows(values, width, |row| log_softmax_row_kernel(isa, row));
}

/// log Σ eˣ of each row of `[rows, width]`, to `out` `[rows]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn log_sum_exp(values: &[f32], width: usize, out: &mut [f32]) {
    let isa = Isa::current();
    reduce_rows(values, width, out, |row| log_sum_exp_row_kernel(isa, row));
}

/// The sum of each row of `[rows, width]`, to `out` `[rows]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn sum(values: &[f32], width: usize, out: &mut [f32]) {
    let isa = Isa::current();
    reduce_rows(values, width, out, |row| sum_row_kernel(isa, row));
}

/// The mean of each row of `[rows, width]`, to `out` `[rows]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn mean(values: &[f32], width: usize, out: &mut [f32]) {
    let isa = Isa::current();
    reduce_rows(values, width, out, |row| sum_row_kernel(isa, row) / width as f32);
}
