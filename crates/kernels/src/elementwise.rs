//! Element-wise functions over contiguous `f32`, and transposing copies.
//!
//! Bounds against the exact functions, held by tests: `exp`, `log`, `tanh` 1.5 ulp, `erf` 2.5 ulp, subnormal results
//! included.

use crate::activation::{CHUNK, for_parts};
use crate::isa::Isa;
use crate::math;
use crate::pool::{self, Shared};
use crate::simd::{LANES, kernel, map_lanes};

#[derive(Clone, Copy)]
enum Unary {
    Exp,
    Log,
    Tanh,
    Erf,
}

kernel! {
    fn unary_kernel[s: S](function: Unary, values: &mut [f32]) {
        match function {
            Unary::Exp => map_lanes!(s, values, |x| math::exp(s, x)),
            Unary::Log => map_lanes!(s, values, |x| math::log(s, x)),
            Unary::Tanh => map_lanes!(s, values, |x| math::tanh(s, x)),
            Unary::Erf => map_lanes!(s, values, |x| math::erf(s, x)),
        }
    }
}

kernel! {
    fn softcap_kernel[s: S](values: &mut [f32], cap: f32) {
        let cap = s.splat(cap);
        map_lanes!(s, values, |x| math::softcap(s, x, cap));
    }
}

kernel! {
    fn softcap_backward_kernel[s: S](x: &[f32], cap: f32, cotangent: &mut [f32]) {
        let cap = s.splat(cap);
        let (chunks, tail) = cotangent.as_chunks_mut::<LANES>();
        let (x_chunks, x_tail) = x.as_chunks::<LANES>();
        for (chunk, x) in chunks.iter_mut().zip(x_chunks) {
            s.store(s.mul(s.load(chunk), math::softcap_derivative(s, s.load(x), cap)), chunk);
        }
        if !tail.is_empty() {
            let slope = math::softcap_derivative(s, s.load_part(x_tail, 0.0), cap);
            s.store_part(s.mul(s.load_part(tail, 0.0), slope), tail);
        }
    }
}

fn unary(function: Unary, values: &mut [f32]) {
    let isa = Isa::current();
    for_parts(values, |part| unary_kernel(isa, function, part));
}

/// eˣ, in place.
pub fn exp(values: &mut [f32]) {
    unary(Unary::Exp, values);
}

/// The natural logarithm, in place: −∞ at zero, NaN below.
pub fn log(values: &mut [f32]) {
    unary(Unary::Log, values);
}

/// The hyperbolic tangent, in place.
pub fn tanh(values: &mut [f32]) {
    unary(Unary::Tanh, values);
}

/// The error function, in place.
pub fn erf(values: &mut [f32]) {
    unary(Unary::Erf, values);
}

/// `cap * tanh(x / cap)`, in place.
pub fn softcap(values: &mut [f32], cap: f32) {
    let isa = Isa::current();
    for_parts(values, |part| softcap_kernel(isa, part, cap));
}

/// The vector-Jacobian product of [`softcap`]: the `cotangent` of its result becomes that of its argument `x`, in place.
///
/// # Panics
/// If the lengths differ.
pub fn softcap_backward(x: &[f32], cap: f32, cotangent: &mut [f32]) {
    let isa = Isa::current();
    binary(cotangent, x, |cotangent, x| softcap_backward_kernel(isa, x, cap, cotangent));
}

kernel! {
    fn add_kernel[s: S](values: &mut [f32], others: &[f32]) {
        for (value, other) in values.iter_mut().zip(others) {
            *value += other;
        }
    }
}

kernel! {
    fn mul_kernel[s: S](values: &mut [f32], others: &[f32]) {
        for (value, other) in values.iter_mut().zip(others) {
            *value *= other;
        }
    }
}

kernel! {
    fn add_scaled_kernel[s: S](values: &mut [f32], others: &[f32], factor: f32) {
        let (chunks, tail) = values.as_chunks_mut::<LANES>();
        let (other_chunks, other_tail) = others.as_chunks::<LANES>();
        let factor = s.splat(factor);
        for (chunk, other) in chunks.iter_mut().zip(other_chunks) {
            s.store(s.mul_add(factor, s.load(other), s.load(chunk)), chunk);
        }
        if !tail.is_empty() {
            let result = s.mul_add(factor, s.load_part(other_tail, 0.0), s.load_part(tail, 0.0));
            s.store_part(result, tail);
        }
    }
}

fn binary(values: &mut [f32], others: &[f32], body: impl Fn(&mut [f32], &[f32]) + Sync) {
    assert_eq!(values.len(), others.len(), "an element-wise operation on slices of two lengths");
    pool::parallel_chunks(values, CHUNK, |index, part| {
        let others = &others[index * CHUNK..][..part.len()];
        body(part, others);
    });
}

/// `values += others`.
///
/// # Panics
/// If the lengths differ.
pub fn add(values: &mut [f32], others: &[f32]) {
    let isa = Isa::current();
    binary(values, others, |values, others| add_kernel(isa, values, others));
}

/// `values *= others`.
///
/// # Panics
/// If the lengths differ.
pub fn mul(values: &mut [f32], others: &[f32]) {
    let isa = Isa::current();
    binary(values, others, |values, others| mul_kernel(isa, values, others));
}

/// `values += factor * others` (one rounding where the instruction set has a fused multiply-add).
///
/// # Panics
/// If the lengths differ.
pub fn add_scaled(values: &mut [f32], others: &[f32], factor: f32) {
    let isa = Isa::current();
    binary(values, others, |values, others| add_scaled_kernel(isa, values, others, factor));
}

/// Copies the transpose of `from` `[rows, columns]` (rows `from_stride` apart) to `to` `[columns, rows]` (rows
/// `to_stride` apart).
///
/// # Panics
/// If a slice is too short or a stride below its width.
#[allow(unsafe_code)]
pub fn transpose(
    from: &[f32],
    from_stride: usize,
    rows: usize,
    columns: usize,
    to: &mut [f32],
    to_stride: usize,
) {
    const BLOCK: usize = 16;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(from_stride >= columns && to_stride >= rows, "transpose: a stride below its width");
    assert!(from.len() >= (rows - 1) * from_stride + columns, "transpose: the source is too short");
    assert!(to.len() >= (columns - 1) * to_stride + rows, "transpose: the target is too short");
    // Strips of the target's rows: disjoint for each chunk.
    let strip = BLOCK * (CHUNK / (BLOCK * rows)).max(1);
    let target = Shared(to.as_mut_ptr());
    pool::parallel(columns.div_ceil(strip), |chunk| {
        let end = (strip * (chunk + 1)).min(columns);
        for first_row in (0..rows).step_by(BLOCK) {
            for first_column in (strip * chunk..end).step_by(BLOCK) {
                for column in first_column..(first_column + BLOCK).min(end) {
                    for row in first_row..(first_row + BLOCK).min(rows) {
                        // SAFETY: (column, row) lies within the target's checked length, its column belongs to this
                        // chunk alone, and the target is exclusively borrowed until the loop ends.
                        unsafe {
                            target
                                .get()
                                .add(column * to_stride + row)
                                .write(from[row * from_stride + column]);
                        }
                    }
                }
            }
        }
    });
}
