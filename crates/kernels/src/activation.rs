//! Activation functions over slices.
//!
//! Bounds against the exact function, held by tests: error at most 6 ulp of the result for both forms of gelu and 4 for the
//! others, plus 3e-37; for the tanh form of gelu below zero, where it is x / (1 + e^y), another 3 y ulp. `relu` and its
//! square are exact.

mod backward;

pub use backward::apply_backward;

use crate::isa::Isa;
use crate::math;
use crate::pool;
use crate::simd::{LANES, Simd, kernel, map_lanes};

/// An element-wise function between layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x Φ(x), with the normal distribution's Φ.
    Gelu,
    /// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
    GeluTanh,
    /// x / (1 + e⁻ˣ).
    Silu,
    /// max(x, 0).
    Relu,
    /// max(x, 0)².
    ReluSquared,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Self; 7] =
        [Self::Gelu, Self::GeluTanh, Self::Silu, Self::Relu, Self::ReluSquared, Self::Sigmoid, Self::Tanh];
}

/// Numbers a chunk of a parallel element-wise loop has: enough to be worth handing out, few enough to stay in cache.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Runs `body` over parts of a slice, on the pool where it is long.
pub(crate) fn for_parts(values: &mut [f32], body: impl Fn(&mut [f32]) + Sync) {
    if values.len() <= CHUNK {
        body(values);
    } else {
        pool::parallel_chunks(values, CHUNK, |_, part| body(part));
    }
}

/// One activation over a slice. The slice's place does not matter to an element's bits.
#[inline(always)]
fn activate<S: Simd>(s: S, activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Gelu => map_lanes!(s, values, |x| math::gelu(s, x)),
        Activation::GeluTanh => map_lanes!(s, values, |x| math::gelu_tanh(s, x)),
        Activation::Silu => map_lanes!(s, values, |x| math::silu(s, x)),
        Activation::Relu => map_lanes!(s, values, |x| math::relu(s, x)),
        Activation::ReluSquared => map_lanes!(s, values, |x| {
            let y = math::relu(s, x);
            s.mul(y, y)
        }),
        Activation::Sigmoid => map_lanes!(s, values, |x| math::sigmoid(s, x)),
        Activation::Tanh => map_lanes!(s, values, |x| math::tanh(s, x)),
    }
}

kernel! {
    fn apply_kernel[s: S](activation: Activation, values: &mut [f32]) {
        activate(s, activation, values);
    }
}

kernel! {
    /// `values = activation(values + bias) + residual`, on this thread alone.
    pub(crate) fn finish_on[s: S](
        bias: Option<&[f32]>,
        activation: Option<Activation>,
        residual: Option<&[f32]>,
        values: &mut [f32],
    ) {
        if let Some(bias) = bias {
            for (value, bias) in values.iter_mut().zip(bias) {
                *value += bias;
            }
        }
        if let Some(activation) = activation {
            activate(s, activation, values);
        }
        if let Some(residual) = residual {
            for (value, residual) in values.iter_mut().zip(residual) {
                *value += residual;
            }
        }
    }
}

kernel! {
    fn multiply_kernel[s: S](values: &mut [f32], by: &[f32]) {
        let (chunks, tail) = values.as_chunks_mut::<LANES>();
        let (by_chunks, by_tail) = by.as_chunks::<LANES>();
        for (chunk, by) in chunks.iter_mut().zip(by_chunks) {
            s.store(s.mul(s.load(chunk), s.load(by)), chunk);
        }
        for (value, by) in tail.iter_mut().zip(by_tail) {
            *value *= by;
        }
    }
}

/// [`apply`] on this thread alone.
pub(crate) fn apply_on(isa: Isa, activation: Activation, values: &mut [f32]) {
    apply_kernel(isa, activation, values);
}

/// Replaces every number by the activation's value, on the pool where there are many.
pub fn apply(activation: Activation, values: &mut [f32]) {
    let isa = Isa::current();
    for_parts(values, |part| apply_on(isa, activation, part));
}

/// `out = activation(gate) * up`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn gate_up(gate: &[f32], up: &[f32], activation: Activation, out: &mut [f32]) {
    assert_eq!(gate.len(), out.len(), "gate_up's gate and out");
    assert_eq!(up.len(), out.len(), "gate_up's up and out");
    let isa = Isa::current();
    pool::parallel_chunks(out, CHUNK, |index, out| {
        let range = index * CHUNK..index * CHUNK + out.len();
        out.copy_from_slice(&gate[range.clone()]);
        apply_on(isa, activation, out);
        multiply_kernel(isa, out, &up[range]);
    });
}

/// `out = activation(gate) * up` for rows that hold gate and up side by side: `x` is `[rows, 2 * width]` (`row_stride`
/// from one row to the next), `out` `[rows, width]`.
///
/// # Panics
/// If a slice is too short.
pub fn gate_up_rows(
    x: &[f32],
    row_stride: usize,
    rows: usize,
    width: usize,
    activation: Activation,
    out: &mut [f32],
) {
    assert_eq!(out.len(), rows * width, "gate_up_rows' out is [{rows}, {width}]");
    assert!(
        rows == 0 || (row_stride >= 2 * width || rows == 1) && x.len() >= (rows - 1) * row_stride + 2 * width,
        "gate_up_rows' x is too short for {rows} rows of 2 * {width} (stride {row_stride})"
    );
    if width == 0 {
        return;
    }
    let isa = Isa::current();
    let rows_per_chunk = CHUNK.div_ceil(width);
    pool::parallel_chunks(out, rows_per_chunk * width, |index, out| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let x = &x[(index * rows_per_chunk + row) * row_stride..][..2 * width];
            out.copy_from_slice(&x[..width]);
            apply_on(isa, activation, out);
            multiply_kernel(isa, out, &x[width..]);
        }
    });
}
