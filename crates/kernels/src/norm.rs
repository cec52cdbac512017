//! Layer normalisation and root-mean-square normalisation, whole or in two steps with the divisor between them.
//!
//! The whole is the two steps: [`layer_norm`] gives bit for bit what [`layer_norm_scale`] and [`layer_norm_apply`] give,
//! and the same for `rms`, forward and backward. Rows are contiguous.

mod backward;

pub use backward::{
    layer_norm_apply_backward, layer_norm_backward, layer_norm_scale_backward, layer_norm_weight_backward,
    rms_norm_apply_backward, rms_norm_backward, rms_norm_scale_backward, rms_norm_weight_backward,
};

use crate::isa::Isa;
use crate::pool::{self, Shared};
use crate::reduce::{rows_per_chunk, sum_row, total};
use crate::simd::{LANES, Simd, fold_lanes, kernel};

kernel! {
    fn mean_kernel[s: S](x: &[f32]) -> f32 {
        sum_row(s, x) / x.len() as f32
    }
}

kernel! {
    /// √(mean of (x − shift)² + epsilon).
    fn scale_kernel[s: S](x: &[f32], shift: f32, epsilon: f32) -> f32 {
        // Lanes beyond the row hold `shift`, so that they add nothing.
        let shifts = s.splat(shift);
        let sums = fold_lanes!(s, x, fill: shift, start: 0.0, |sum, x| {
            let centred = s.sub(x, shifts);
            s.mul_add(centred, centred, sum)
        });
        (total(s, sums) / x.len() as f32 + epsilon).sqrt()
    }
}

/// (x − shift) / scale · (weight + offset).
#[inline(always)]
fn normal<S: Simd>(
    s: S,
    (shift, scale, offset): (S::Float, S::Float, S::Float),
    x: S::Float,
    weight: S::Float,
) -> S::Float {
    s.mul(s.div(s.sub(x, shift), scale), s.add(weight, offset))
}

kernel! {
    /// `out = (x − shift) / scale · (weight + offset) + bias`.
    fn apply_kernel[s: S](
        x: &[f32],
        shift: f32,
        scale: f32,
        weight: &[f32],
        offset: f32,
        bias: Option<&[f32]>,
        out: &mut [f32],
    ) {
        let parts = (s.splat(shift), s.splat(scale), s.splat(offset));
        let (chunks, tail) = out.as_chunks_mut::<LANES>();
        let (x_chunks, x_tail) = x.as_chunks::<LANES>();
        let (weight_chunks, weight_tail) = weight.as_chunks::<LANES>();
        if let Some(bias) = bias {
            let (bias_chunks, bias_tail) = bias.as_chunks::<LANES>();
            for (((out, x), weight), bias) in chunks.iter_mut().zip(x_chunks).zip(weight_chunks).zip(bias_chunks) {
                s.store(s.add(normal(s, parts, s.load(x), s.load(weight)), s.load(bias)), out);
            }
            if !tail.is_empty() {
                let value = normal(s, parts, s.load_part(x_tail, 0.0), s.load_part(weight_tail, 0.0));
                s.store_part(s.add(value, s.load_part(bias_tail, 0.0)), tail);
            }
        } else {
            for ((out, x), weight) in chunks.iter_mut().zip(x_chunks).zip(weight_chunks) {
                s.store(normal(s, parts, s.load(x), s.load(weight)), out);
            }
            if !tail.is_empty() {
                s.store_part(normal(s, parts, s.load_part(x_tail, 0.0), s.load_part(weight_tail, 0.0)), tail);
            }
        }
    }
}

/// What a norm is, beside its weights.
#[derive(Clone, Copy)]
enum Norm {
    Layer,
    Rms,
}

impl Norm {
    fn shift(self, isa: Isa, x: &[f32]) -> f32 {
        match self {
            Self::Layer => mean_kernel(isa, x),
            Self::Rms => 0.0,
        }
    }
}

fn scales(norm: Norm, x: &[f32], width: usize, epsilon: f32, scale: &mut [f32]) {
    assert_eq!(x.len(), scale.len() * width, "one scale for each row of {width}");
    let isa = Isa::current();
    let rows = rows_per_chunk(width);
    pool::parallel_chunks(scale, rows, |index, scale| {
        for (row, slot) in scale.iter_mut().enumerate() {
            let x = &x[(index * rows + row) * width..][..width];
            *slot = scale_kernel(isa, x, norm.shift(isa, x), epsilon);
        }
    });
}

/// Weights of a norm: `weight + offset` multiplies, `bias` is added.
#[derive(Clone, Copy)]
struct Affine<'a> {
    weight: &'a [f32],
    offset: f32,
    bias: Option<&'a [f32]>,
}

impl Affine<'_> {
    fn check(&self, x: &[f32], out: &[f32]) -> usize {
        let width = self.weight.len();
        assert!(width > 0 && x.len().is_multiple_of(width), "{} numbers in rows of {width}", x.len());
        assert_eq!(x.len(), out.len(), "a norm's input and output");
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), width, "a norm's bias");
        }
        width
    }
}

fn apply(norm: Norm, x: &[f32], scale: &[f32], affine: Affine<'_>, out: &mut [f32]) {
    let width = affine.check(x, out);
    assert_eq!(x.len(), scale.len() * width, "one scale for each row of {width}");
    let isa = Isa::current();
    let rows = rows_per_chunk(width);
    pool::parallel_chunks(out, rows * width, |index, out| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let row = index * rows + row;
            let x = &x[row * width..][..width];
            let shift = norm.shift(isa, x);
            apply_kernel(isa, x, shift, scale[row], affine.weight, affine.offset, affine.bias, out);
        }
    });
}

#[allow(unsafe_code)]
fn whole(
    norm: Norm,
    x: &[f32],
    epsilon: f32,
    affine: Affine<'_>,
    scale: Option<&mut [f32]>,
    out: &mut [f32],
) {
    let width = affine.check(x, out);
    if let Some(scale) = &scale {
        assert_eq!(x.len(), scale.len() * width, "one scale for each row of {width}");
    }
    let isa = Isa::current();
    let rows = rows_per_chunk(width);
    let scales = scale.map(|scale| Shared(scale.as_mut_ptr()));
    pool::parallel_chunks(out, rows * width, |index, out| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let row = index * rows + row;
            let x = &x[row * width..][..width];
            let shift = norm.shift(isa, x);
            let scale = scale_kernel(isa, x, shift, epsilon);
            apply_kernel(isa, x, shift, scale, affine.weight, affine.offset, affine.bias, out);
            if let Some(scales) = scales {
                // SAFETY: row is below the scales' checked number, each row comes once, and the scales are exclusively
                // borrowed until the loop ends.
                unsafe { scales.get().add(row).write(scale) };
            }
        }
    });
}

/// √(variance + epsilon) of each row of `x` `[rows, width]`, to `scale` `[rows]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn layer_norm_scale(x: &[f32], width: usize, epsilon: f32, scale: &mut [f32]) {
    scales(Norm::Layer, x, width, epsilon, scale);
}

/// `out = (x − mean) / scale · weight + bias`, for `x` and `out` `[rows, width]`, `scale` `[rows]`, the others `[width]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn layer_norm_apply(x: &[f32], scale: &[f32], weight: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    apply(Norm::Layer, x, scale, Affine { weight, offset: 0.0, bias }, out);
}

/// Layer normalisation of each row; the scales go to `scale` `[rows]` if one is given.
///
/// # Panics
/// If the lengths do not fit.
pub fn layer_norm(
    x: &[f32],
    epsilon: f32,
    weight: &[f32],
    bias: Option<&[f32]>,
    scale: Option<&mut [f32]>,
    out: &mut [f32],
) {
    whole(Norm::Layer, x, epsilon, Affine { weight, offset: 0.0, bias }, scale, out);
}

/// √(mean square + epsilon) of each row of `x` `[rows, width]`, to `scale` `[rows]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm_scale(x: &[f32], width: usize, epsilon: f32, scale: &mut [f32]) {
    scales(Norm::Rms, x, width, epsilon, scale);
}

/// `out = x / scale · (weight + weight_offset)`; the offset is 0, or 1 in Gemma's norms.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm_apply(x: &[f32], scale: &[f32], weight: &[f32], weight_offset: f32, out: &mut [f32]) {
    apply(Norm::Rms, x, scale, Affine { weight, offset: weight_offset, bias: None }, out);
}

/// Root-mean-square normalisation of each row; the scales go to `scale` `[rows]` if one is given.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm(
    x: &[f32],
    epsilon: f32,
    weight: &[f32],
    weight_offset: f32,
    scale: Option<&mut [f32]>,
    out: &mut [f32],
) {
    whole(Norm::Rms, x, epsilon, Affine { weight, offset: weight_offset, bias: None }, scale, out);
}
