//! The plain versions: straight loops in `f64`, rounded once at the end. They say what each kernel computes, and tests
//! hold the kernels to them.

mod backward;

pub use backward::{
    AttentionCotangents, NormRow, activation_derivative, attention_backward, norm_backward, softmax_backward,
};

use crate::activation::Activation;
use crate::attention::AttentionOptions;
use crate::packed::{PackedMatrix, Precision};

/// [`matmul`](crate::matmul()) without the epilogue, rows contiguous: `x` `[rows, k]`, result `[rows, n]`.
pub fn matmul(x: &[f32], rows: usize, weights: &PackedMatrix) -> Vec<f64> {
    let (k, n) = (weights.k(), weights.n());
    let rounded = |value: f32| match weights.precision() {
        Precision::F32 | Precision::Quantised => f64::from(value),
        Precision::Bf16 => f64::from(half::bf16::from_f32(value)),
    };
    let mut out = Vec::with_capacity(rows * n);
    for row in 0..rows {
        for column in 0..n {
            let product = |i| rounded(x[row * k + i]) * f64::from(weights.weight(i, column));
            out.push((0..k).map(product).sum());
        }
    }
    out
}

/// One activation.
pub fn activation(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => x * 0.5 * erfc(-x / std::f64::consts::SQRT_2),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            x / (1.0 + (-2.0 * u).exp())
        }
        Activation::Silu => x / (1.0 + (-x).exp()),
        // Not `max`, which would drop a NaN.
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::ReluSquared => {
            if x < 0.0 {
                0.0
            } else {
                x * x
            }
        }
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

/// The error function: its power series, or one less the complement.
pub fn erf(x: f64) -> f64 {
    if x.abs() > 2.0 {
        return 1.0_f64.copysign(x) - erfc(x.abs()).copysign(x);
    }
    // 2/√π Σ (−1)ⁿ x^(2n+1) / (n! (2n+1))
    let (mut term, mut sum) = (x, x);
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// The complementary error function: one less the series, or a continued fraction where that would cancel.
pub fn erfc(x: f64) -> f64 {
    if x < 2.0 {
        return if x < -2.0 { 2.0 - erfc(-x) } else { 1.0 - erf(x) };
    }
    // e^(−x²)/√π · 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …))))
    let mut fraction = x;
    for n in (1..200).rev() {
        fraction = x + f64::from(n) / 2.0 / fraction;
    }
    (-x * x).exp() / (fraction * std::f64::consts::PI.sqrt())
}

/// The softmax of one row.
pub fn softmax(row: &[f64]) -> Vec<f64> {
    let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = row.iter().map(|x| (x - greatest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// A row's layer norm scale, √(variance + ε).
pub fn layer_norm_scale(row: &[f32], epsilon: f64) -> f64 {
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len() as f64;
    let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / row.len() as f64;
    (variance + epsilon).sqrt()
}

/// A row's layer norm.
pub fn layer_norm(row: &[f32], epsilon: f64, weight: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len() as f64;
    let scale = layer_norm_scale(row, epsilon);
    row.iter()
        .enumerate()
        .map(|(i, x)| {
            (f64::from(*x) - mean) / scale * f64::from(weight[i])
                + bias.map_or(0.0, |bias| f64::from(bias[i]))
        })
        .collect()
}

/// A row's root-mean-square norm scale, √(mean square + ε).
pub fn rms_norm_scale(row: &[f32], epsilon: f64) -> f64 {
    (row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / row.len() as f64 + epsilon).sqrt()
}

/// A row's root-mean-square norm.
pub fn rms_norm(row: &[f32], epsilon: f64, weight: &[f32], weight_offset: f64) -> Vec<f64> {
    let scale = rms_norm_scale(row, epsilon);
    row.iter().zip(weight).map(|(x, w)| f64::from(*x) / scale * (f64::from(*w) + weight_offset)).collect()
}

/// Attention's three results for contiguous queries `[queries, heads, size]`, keys `[context, key heads, size]` and
/// values `[context, key heads, value size]`, the first query at position `context - queries`: scores and pattern
/// `[heads, queries, context]`, mixed values `[queries, heads, value size]`.
pub struct Attention {
    /// Scaled, capped, masked.
    pub scores: Vec<f64>,
    /// Their softmax.
    pub pattern: Vec<f64>,
    /// The values, mixed by it.
    pub mixed: Vec<f64>,
}

/// The sizes of [`attention`]'s arguments.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Queries.
    pub queries: usize,
    /// Keys and values.
    pub context: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub key_heads: usize,
    /// Components of a query and a key.
    pub size: usize,
    /// Components of a value.
    pub value_size: usize,
}

/// Attention, one number after the other.
pub fn attention(
    shape: AttentionShape,
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    options: AttentionOptions,
) -> Attention {
    let AttentionShape { queries: count, context, heads, key_heads, size, value_size } = shape;
    let start = context - count;
    let mut result =
        Attention { scores: Vec::new(), pattern: Vec::new(), mixed: vec![0.0; count * heads * value_size] };
    for head in 0..heads {
        let key_head = head / (heads / key_heads);
        for query in 0..count {
            let position = start + query;
            let score = |key: usize| {
                if key > position || options.window.is_some_and(|window| key + window <= position) {
                    return f64::NEG_INFINITY;
                }
                let product = |i| {
                    f64::from(queries[(query * heads + head) * size + i])
                        * f64::from(keys[(key * key_heads + key_head) * size + i])
                };
                let score = (0..size).map(product).sum::<f64>() * f64::from(options.scale);
                options.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
            };
            let scores: Vec<f64> = (0..context).map(score).collect();
            let pattern = softmax(&scores);
            for i in 0..value_size {
                result.mixed[(query * heads + head) * value_size + i] = (0..context)
                    .map(|key| {
                        pattern[key] * f64::from(values[(key * key_heads + key_head) * value_size + i])
                    })
                    .sum();
            }
            result.scores.extend(scores);
            result.pattern.extend(pattern);
        }
    }
    result
}
