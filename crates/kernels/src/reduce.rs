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
    /// `cotangent = probability · (cotangent − Σ probability · cotangent)`, on this thread. A probability of 0 takes no
    /// part, whatever its cotangent, and gets 0: masked places may be left out of a row.
    pub(crate) fn softmax_row_backward_on[s: S](probabilities: &[f32], cotangent: &mut [f32]) {
        let zero = s.splat(0.0);
        let mut sums = [zero; 4];
        let (chunks, tail) = cotangent.as_chunks_mut::<LANES>();
        let (p_chunks, p_tail) = probabilities.as_chunks::<LANES>();
        for (index, (chunk, p)) in chunks.iter_mut().zip(p_chunks).enumerate() {
            let p = s.load(p);
            let value = s.select(s.less(zero, p), s.load(chunk), s.mul(p, zero));
            s.store(value, chunk);
            sums[index % 4] = s.mul_add(p, value, sums[index % 4]);
        }
        let whole = chunks.len();
        if !tail.is_empty() {
            let p = s.load_part(p_tail, 0.0);
            let value = s.select(s.less(zero, p), s.load_part(tail, 0.0), s.mul(p, zero));
            s.store_part(value, tail);
            sums[whole % 4] = s.mul_add(p, value, sums[whole % 4]);
        }
        let mean = s.splat(total(s, sums));
        for (chunk, p) in chunks.iter_mut().zip(p_chunks) {
            s.store(s.mul(s.load(p), s.sub(s.load(chunk), mean)), chunk);
        }
        if !tail.is_empty() {
            let value = s.mul(s.load_part(p_tail, 0.0), s.sub(s.load_part(tail, 0.0), mean));
            s.store_part(value, tail);
        }
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

/// The vector-Jacobian product of [`softmax`]: with its result's rows `probabilities`, the `cotangent` of the result
/// becomes that of the argument, in place: p (c − Σ p c).
///
/// A probability of 0 takes no part, whatever its cotangent.
///
/// # Panics
/// If the lengths differ or are not a multiple of `width`.
pub fn softmax_backward(probabilities: &[f32], width: usize, cotangent: &mut [f32]) {
    assert_eq!(probabilities.len(), cotangent.len(), "a softmax's result and its cotangent");
    check_rows(cotangent.len(), width);
    if width == 0 {
        return;
    }
    let isa = Isa::current();
    let length = rows_per_chunk(width) * width;
    pool::parallel_chunks(cotangent, length, |index, part| {
        let probabilities = &probabilities[index * length..][..part.len()];
        for (probabilities, row) in probabilities.chunks_exact(width).zip(part.chunks_exact_mut(width)) {
            softmax_row_backward_on(isa, probabilities, row);
        }
    });
}

kernel! {
    fn add_row_kernel[s: S](row: &[f32], sums: &mut [f32]) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
}

/// The sum of all rows of `[rows, width]`, to `out` `[width]`: each column one chain over the rows in order. What a
/// bias's cotangent is made of.
///
/// # Panics
/// If the lengths do not fit.
pub fn sum_of_rows(values: &[f32], width: usize, out: &mut [f32]) {
    /// Columns of which one thread adds up all rows.
    const STRIP: usize = 512;
    assert_eq!(out.len(), width, "the sum of rows of {width}");
    check_rows(values.len(), width);
    let isa = Isa::current();
    pool::parallel_chunks(out, STRIP, |strip, sums| {
        sums.fill(0.0);
        for row in values.chunks_exact(width) {
            add_row_kernel(isa, &row[strip * STRIP..][..sums.len()], sums);
        }
    });
}
