//! The plain vector-Jacobian products, in `f64`.

use super::{Attention, AttentionShape, attention, erfc, softmax};
use crate::activation::Activation;
use crate::attention::AttentionOptions;

/// An activation's derivative.
pub fn activation_derivative(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Gelu => {
            let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            0.5 * erfc(-x / std::f64::consts::SQRT_2) + x * density
        }
        Activation::GeluTanh => {
            let factor = (2.0 / std::f64::consts::PI).sqrt();
            let y = sigmoid(2.0 * factor * (x + 0.044715 * x.powi(3)));
            y + x * y * (1.0 - y) * 2.0 * factor * (1.0 + 3.0 * 0.044715 * x * x)
        }
        Activation::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
        Activation::Relu => f64::from(x > 0.0),
        Activation::ReluSquared => 2.0 * x.max(0.0),
        Activation::Sigmoid => sigmoid(x) * (1.0 - sigmoid(x)),
        Activation::Tanh => 1.0 - x.tanh().powi(2),
    }
}

/// The cotangents of one row of a norm.
pub struct NormRow {
    /// Of the row, through the second step alone.
    pub through_apply: Vec<f64>,
    /// Of the scale.
    pub scale: f64,
    /// Of the row, in all.
    pub whole: Vec<f64>,
}

/// One row's layer norm (`centred`) or root-mean-square norm, given its scale: `weight` has its offset in it already.
pub fn norm_backward(row: &[f32], centred: bool, scale: f64, weight: &[f64], cotangent: &[f32]) -> NormRow {
    let width = row.len() as f64;
    let mean = if centred { row.iter().map(|x| f64::from(*x)).sum::<f64>() / width } else { 0.0 };
    let g: Vec<f64> = cotangent.iter().zip(weight).map(|(c, w)| f64::from(*c) * w / scale).collect();
    let g_mean = if centred { g.iter().sum::<f64>() / width } else { 0.0 };
    let through_apply: Vec<f64> = g.iter().map(|g| g - g_mean).collect();
    let of_scale = -g.iter().zip(row).map(|(g, x)| g * (f64::from(*x) - mean) / scale).sum::<f64>();
    let whole = through_apply
        .iter()
        .zip(row)
        .map(|(g, x)| g + of_scale * (f64::from(*x) - mean) / (width * scale))
        .collect();
    NormRow { through_apply, scale: of_scale, whole }
}

/// The cotangent of a softmax's argument, from its result's.
pub fn softmax_backward(probabilities: &[f64], cotangent: &[f64]) -> Vec<f64> {
    let mean: f64 = probabilities.iter().zip(cotangent).map(|(p, c)| p * c).sum();
    probabilities.iter().zip(cotangent).map(|(p, c)| p * (c - mean)).collect()
}

/// The cotangents that attention's backward functions give.
pub struct AttentionCotangents {
    /// `[heads, queries, context]`.
    pub pattern: Vec<f64>,
    /// `[heads, queries, context]`.
    pub scores: Vec<f64>,
    /// `[queries, heads, size]`.
    pub queries: Vec<f64>,
    /// `[context, key heads, size]`.
    pub keys: Vec<f64>,
    /// `[context, key heads, value size]`.
    pub values: Vec<f64>,
}

/// Attention's vector-Jacobian product, one number after the other: from the mixed values' cotangent
/// `[queries, heads, value size]`, for arguments as those of [`attention`].
pub fn attention_backward(
    shape: AttentionShape,
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    options: AttentionOptions,
    of_mixed: &[f32],
) -> AttentionCotangents {
    let AttentionShape { queries: count, context, heads, key_heads, size, value_size } = shape;
    let Attention { scores, .. } = attention(shape, queries, keys, values, options);
    let mut result = AttentionCotangents {
        pattern: Vec::new(),
        scores: Vec::new(),
        queries: vec![0.0; queries.len()],
        keys: vec![0.0; keys.len()],
        values: vec![0.0; values.len()],
    };
    for head in 0..heads {
        let key_head = head / (heads / key_heads);
        for query in 0..count {
            let scores = &scores[(head * count + query) * context..][..context];
            let pattern = softmax(scores);
            let of_mixed = &of_mixed[(query * heads + head) * value_size..][..value_size];
            let mut of_pattern = vec![0.0; context];
            for key in 0..context {
                for (i, of_mixed) in of_mixed.iter().enumerate() {
                    let place = (key * key_heads + key_head) * value_size + i;
                    of_pattern[key] += f64::from(*of_mixed) * f64::from(values[place]);
                    result.values[place] += pattern[key] * f64::from(*of_mixed);
                }
            }
            let of_scores = softmax_backward(&pattern, &of_pattern);
            for key in 0..context {
                if scores[key] == f64::NEG_INFINITY {
                    continue;
                }
                let slope = options.soft_cap.map_or(1.0, |cap| 1.0 - (scores[key] / f64::from(cap)).powi(2));
                let of_product = of_scores[key] * slope * f64::from(options.scale);
                for i in 0..size {
                    let (q, k) = ((query * heads + head) * size + i, (key * key_heads + key_head) * size + i);
                    result.queries[q] += of_product * f64::from(keys[k]);
                    result.keys[k] += of_product * f64::from(queries[q]);
                }
            }
            result.pattern.extend(of_pattern);
            result.scores.extend(of_scores);
        }
    }
    result
}
