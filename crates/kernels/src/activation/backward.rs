//! The activations' derivatives.
//!
//! Each from the activation's argument alone. Error against the exact derivative, held by tests: at most 8e-7, times the
//! derivative's own size where that is above one.

use super::{Activation, CHUNK};
use crate::isa::Isa;
use crate::math;
use crate::pool;
use crate::simd::{LANES, Simd, kernel};

/// The derivative at x.
#[inline(always)]
fn derivative<S: Simd>(s: S, activation: Activation, x: S::Float) -> S::Float {
    let (zero, one) = (s.splat(0.0), s.splat(1.0));
    match activation {
        Activation::Gelu => math::gelu_derivative(s, x),
        Activation::GeluTanh => math::gelu_tanh_derivative(s, x),
        Activation::Silu => math::silu_derivative(s, x),
        // At 0 the derivative is taken to be 0, as in PyTorch.
        Activation::Relu => s.select(s.less(zero, x), one, zero),
        Activation::ReluSquared => {
            let y = math::relu(s, x);
            s.add(y, y)
        }
        Activation::Sigmoid => {
            let y = math::sigmoid(s, x);
            s.mul(y, s.sub(one, y))
        }
        Activation::Tanh => {
            let y = math::tanh(s, x);
            s.sub(one, s.mul(y, y))
        }
    }
}

kernel! {
    fn backward_kernel[s: S](activation: Activation, x: &[f32], cotangent: &mut [f32]) {
        let (chunks, tail) = cotangent.as_chunks_mut::<LANES>();
        let (x_chunks, x_tail) = x.as_chunks::<LANES>();
        for (chunk, x) in chunks.iter_mut().zip(x_chunks) {
            s.store(s.mul(s.load(chunk), derivative(s, activation, s.load(x))), chunk);
        }
        if !tail.is_empty() {
            let slope = derivative(s, activation, s.load_part(x_tail, 0.0));
            s.store_part(s.mul(s.load_part(tail, 0.0), slope), tail);
        }
    }
}

/// The vector-Jacobian product of [`apply`](super::apply): the `cotangent` of its result becomes that of its argument `x`,
/// in place.
///
/// # Panics
/// If the lengths differ.
pub fn apply_backward(activation: Activation, x: &[f32], cotangent: &mut [f32]) {
    assert_eq!(x.len(), cotangent.len(), "an activation's argument and its result's cotangent");
    let isa = Isa::current();
    pool::parallel_chunks(cotangent, CHUNK, |index, part| {
        backward_kernel(isa, activation, &x[index * CHUNK..][..part.len()], part);
    });
}
