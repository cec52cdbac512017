//! The vector-Jacobian products of the norms, whole and in the same two steps.
//!
//! With g = cotangent · (weight + offset) / scale and x̂ = (x − mean) / scale (the mean is 0 in a root-mean-square norm):
//! the second step gives g − mean(g) to x (g in a root-mean-square norm) and −Σ g x̂ to the scale; the first gives
//! the scale's cotangent · x̂ / width to x. The whole is the sum of both, bit for bit, in that order.

use super::Norm;
use crate::isa::Isa;
use crate::pool::{self, Shared};
use crate::reduce::{rows_per_chunk, sum_row, total};
use crate::simd::{LANES, Simd, kernel};

/// Σ g (x − shift), by position modulo 64.
#[inline(always)]
fn centred_product<S: Simd>(s: S, g: &[f32], x: &[f32], shift: f32) -> f32 {
    let shifts = s.splat(shift);
    let mut sums = [s.splat(0.0); 4];
    let (g_chunks, g_tail) = g.as_chunks::<LANES>();
    let (x_chunks, x_tail) = x.as_chunks::<LANES>();
    for (index, (g, x)) in g_chunks.iter().zip(x_chunks).enumerate() {
        let sum = &mut sums[index % 4];
        *sum = s.mul_add(s.load(g), s.sub(s.load(x), shifts), *sum);
    }
    if !g_tail.is_empty() {
        // Lanes beyond the row hold g = 0 and x = shift.
        let sum = &mut sums[g_chunks.len() % 4];
        *sum = s.mul_add(s.load_part(g_tail, 0.0), s.sub(s.load_part(x_tail, shift), shifts), *sum);
    }
    total(s, sums)
}

kernel! {
    /// `out = cotangent · (weight + offset) / scale`, its mean taken away where the norm has a mean; gives the scale's
    /// cotangent.
    fn apply_kernel[s: S](
        x: &[f32],
        shift: f32,
        scale: f32,
        weight: &[f32],
        offset: f32,
        centred: bool,
        cotangent: &[f32],
        out: &mut [f32],
    ) -> f32 {
        let (scales, offsets) = (s.splat(scale), s.splat(offset));
        let (chunks, tail) = out.as_chunks_mut::<LANES>();
        let (weight_chunks, weight_tail) = weight.as_chunks::<LANES>();
        let (cotangent_chunks, cotangent_tail) = cotangent.as_chunks::<LANES>();
        for ((out, weight), cotangent) in chunks.iter_mut().zip(weight_chunks).zip(cotangent_chunks) {
            s.store(s.div(s.mul(s.load(cotangent), s.add(s.load(weight), offsets)), scales), out);
        }
        if !tail.is_empty() {
            let (cotangent, weight) = (s.load_part(cotangent_tail, 0.0), s.load_part(weight_tail, 0.0));
            s.store_part(s.div(s.mul(cotangent, s.add(weight, offsets)), scales), tail);
        }
        let of_scale = -(centred_product(s, out, x, shift) / scale);
        if centred {
            let mean = sum_row(s, out) / out.len() as f32;
            for value in out.iter_mut() {
                *value -= mean;
            }
        }
        of_scale
    }
}

kernel! {
    /// `out = of_scale / (width · scale) · (x − shift)`, or that added to what `out` holds.
    fn scale_kernel[s: S](x: &[f32], shift: f32, scale: f32, of_scale: f32, add: bool, out: &mut [f32]) {
        let factor = of_scale / (x.len() as f32 * scale);
        if add {
            for (out, x) in out.iter_mut().zip(x) {
                *out += factor * (x - shift);
            }
        } else {
            for (out, x) in out.iter_mut().zip(x) {
                *out = factor * (x - shift);
            }
        }
    }
}

/// What the second step and the whole have in common.
#[derive(Clone, Copy)]
struct Rows<'a> {
    norm: Norm,
    x: &'a [f32],
    scale: &'a [f32],
    weight: &'a [f32],
    offset: f32,
    cotangent: &'a [f32],
}

impl Rows<'_> {
    /// One row; gives the scale's cotangent.
    fn apply(&self, isa: Isa, row: usize, out: &mut [f32]) -> f32 {
        let width = self.weight.len();
        let x = &self.x[row * width..][..width];
        let shift = self.norm.shift(isa, x);
        let centred = matches!(self.norm, Norm::Layer);
        let cotangent = &self.cotangent[row * width..][..width];
        apply_kernel(isa, x, shift, self.scale[row], self.weight, self.offset, centred, cotangent, out)
    }

    fn for_rows(&self, out: &mut [f32], body: impl Fn(Isa, usize, &mut [f32]) + Sync) {
        let width = self.weight.len();
        assert!(width > 0 && self.x.len() == self.scale.len() * width, "one scale for each row of {width}");
        assert_eq!(self.x.len(), self.cotangent.len(), "a norm's input and its output's cotangent");
        assert_eq!(self.x.len(), out.len(), "a norm's input and its cotangent");
        let isa = Isa::current();
        let rows = rows_per_chunk(width);
        pool::parallel_chunks(out, rows * width, |index, out| {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                body(isa, index * rows + row, out);
            }
        });
    }

    #[allow(unsafe_code)]
    fn second_step(&self, of_scale: &mut [f32], out: &mut [f32]) {
        assert_eq!(of_scale.len(), self.scale.len(), "a cotangent for each scale");
        let of_scale = Shared(of_scale.as_mut_ptr());
        self.for_rows(out, |isa, row, out| {
            let value = self.apply(isa, row, out);
            // SAFETY: row is below the scales' checked number, each row comes once, and the cotangents are exclusively
            // borrowed until the loop ends.
            unsafe { of_scale.get().add(row).write(value) };
        });
    }

    fn whole(&self, out: &mut [f32]) {
        let width = self.weight.len();
        self.for_rows(out, |isa, row, out| {
            let of_scale = self.apply(isa, row, out);
            let x = &self.x[row * width..][..width];
            scale_kernel(isa, x, self.norm.shift(isa, x), self.scale[row], of_scale, true, out);
        });
    }

    /// The weight's cotangent Σ cotangent · x̂, and the bias's Σ cotangent, each one chain over the rows in order.
    fn of_weights(&self, of_weight: &mut [f32], of_bias: Option<&mut [f32]>) {
        let width = of_weight.len();
        assert!(width > 0 && self.x.len() == self.scale.len() * width, "one scale for each row of {width}");
        assert_eq!(self.x.len(), self.cotangent.len(), "a norm's input and its output's cotangent");
        let isa = Isa::current();
        let shifts: Vec<f32> = self.x.chunks_exact(width).map(|x| self.norm.shift(isa, x)).collect();
        pool::parallel_chunks(of_weight, STRIP, |strip, sums| {
            sums.fill(0.0);
            for (row, shift) in shifts.iter().enumerate() {
                let place = row * width + strip * STRIP;
                let (x, cotangent) = (&self.x[place..][..sums.len()], &self.cotangent[place..][..sums.len()]);
                weight_kernel(isa, x, *shift, self.scale[row], cotangent, sums);
            }
        });
        if let Some(of_bias) = of_bias {
            crate::reduce::sum_of_rows(self.cotangent, width, of_bias);
        }
    }
}

/// Columns of which one thread adds up all rows.
const STRIP: usize = 256;

kernel! {
    /// `sums += cotangent · (x − shift) / scale`.
    fn weight_kernel[s: S](x: &[f32], shift: f32, scale: f32, cotangent: &[f32], sums: &mut [f32]) {
        for ((sum, x), cotangent) in sums.iter_mut().zip(x).zip(cotangent) {
            *sum += cotangent * ((x - shift) / scale);
        }
    }
}

fn first_step(norm: Norm, x: &[f32], width: usize, scale: &[f32], of_scale: &[f32], out: &mut [f32]) {
    assert!(width > 0 && x.len() == scale.len() * width, "one scale for each row of {width}");
    assert_eq!(scale.len(), of_scale.len(), "a cotangent for each scale");
    assert_eq!(x.len(), out.len(), "a norm's input and its cotangent");
    let isa = Isa::current();
    let rows = rows_per_chunk(width);
    pool::parallel_chunks(out, rows * width, |index, out| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let row = index * rows + row;
            let x = &x[row * width..][..width];
            scale_kernel(isa, x, norm.shift(isa, x), scale[row], of_scale[row], false, out);
        }
    });
}

/// The vector-Jacobian product of [`layer_norm_scale`](super::layer_norm_scale): from the scale's cotangent `[rows]` to
/// that of `x` `[rows, width]`, in `out`.
///
/// # Panics
/// If the lengths do not fit.
pub fn layer_norm_scale_backward(x: &[f32], width: usize, scale: &[f32], of_scale: &[f32], out: &mut [f32]) {
    first_step(Norm::Layer, x, width, scale, of_scale, out);
}

/// The vector-Jacobian product of [`layer_norm_apply`](super::layer_norm_apply): from the result's `cotangent`
/// `[rows, width]` to that of `scale` `[rows]`, in `of_scale`, and of `x`, in `out`.
///
/// # Panics
/// If the lengths do not fit.
pub fn layer_norm_apply_backward(
    x: &[f32],
    scale: &[f32],
    weight: &[f32],
    cotangent: &[f32],
    of_scale: &mut [f32],
    out: &mut [f32],
) {
    Rows { norm: Norm::Layer, x, scale, weight, offset: 0.0, cotangent }.second_step(of_scale, out);
}

/// The vector-Jacobian product of [`layer_norm`](super::layer_norm), whose scales `[rows]` are given: from the result's
/// `cotangent` `[rows, width]` to that of `x`, in `out`.
///
/// # Panics
/// If the lengths do not fit.
pub fn layer_norm_backward(x: &[f32], scale: &[f32], weight: &[f32], cotangent: &[f32], out: &mut [f32]) {
    Rows { norm: Norm::Layer, x, scale, weight, offset: 0.0, cotangent }.whole(out);
}

/// The cotangents of a layer norm's weight and bias `[width]`: one chain over the rows in order.
///
/// # Panics
/// If the lengths do not fit.
pub fn layer_norm_weight_backward(
    x: &[f32],
    scale: &[f32],
    cotangent: &[f32],
    of_weight: &mut [f32],
    of_bias: Option<&mut [f32]>,
) {
    Rows { norm: Norm::Layer, x, scale, weight: &[], offset: 0.0, cotangent }.of_weights(of_weight, of_bias);
}

/// The vector-Jacobian product of [`rms_norm_scale`](super::rms_norm_scale): from the scale's cotangent `[rows]` to that
/// of `x` `[rows, width]`, in `out`.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm_scale_backward(x: &[f32], width: usize, scale: &[f32], of_scale: &[f32], out: &mut [f32]) {
    first_step(Norm::Rms, x, width, scale, of_scale, out);
}

/// The vector-Jacobian product of [`rms_norm_apply`](super::rms_norm_apply): from the result's `cotangent`
/// `[rows, width]` to that of `scale` `[rows]`, in `of_scale`, and of `x`, in `out`.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm_apply_backward(
    x: &[f32],
    scale: &[f32],
    weight: &[f32],
    weight_offset: f32,
    cotangent: &[f32],
    of_scale: &mut [f32],
    out: &mut [f32],
) {
    Rows { norm: Norm::Rms, x, scale, weight, offset: weight_offset, cotangent }.second_step(of_scale, out);
}

/// The vector-Jacobian product of [`rms_norm`](super::rms_norm), whose scales `[rows]` are given: from the result's
/// `cotangent` `[rows, width]` to that of `x`, in `out`.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm_backward(
    x: &[f32],
    scale: &[f32],
    weight: &[f32],
    weight_offset: f32,
    cotangent: &[f32],
    out: &mut [f32],
) {
    Rows { norm: Norm::Rms, x, scale, weight, offset: weight_offset, cotangent }.whole(out);
}

/// The cotangent of a root-mean-square norm's weight `[width]`: one chain over the rows in order.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm_weight_backward(x: &[f32], scale: &[f32], cotangent: &[f32], of_weight: &mut [f32]) {
    Rows { norm: Norm::Rms, x, scale, weight: &[], offset: 0.0, cotangent }.of_weights(of_weight, None);
}
