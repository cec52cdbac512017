//! Gradients of softmax and the norms: each row by itself; those of scale and shift are summed over the rows in order.

use pellucid_graph::{DType, OperationKind, Scalar};

use super::super::Result;
use super::super::number::{Computation, store};
use super::super::reduction::{lanes, mean};
use super::backward::Backward;
use super::reduction::rows;

pub(super) fn softmax(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (gradient, output) = (backward.cotangent()?, backward.output(0)?);
        let place = backward.call.dimension(backward.call.integer(1)?, output.rank())?;
        let logarithm = backward.kind() == OperationKind::LogSoftmax;
        let mut products = Vec::new();
        rows([&gradient, &output], place, |[g, y], out| {
            if logarithm {
                let sum = lanes(g, |g| g);
                out.iter_mut().zip(g.iter().zip(y)).for_each(|(out, (g, y))| *out = g - y.exp() * sum);
                return;
            }
            products.clear();
            products.extend(g.iter().zip(y).map(|(g, y)| g * y));
            let sum = lanes(&products, |product| product);
            out.iter_mut().zip(g.iter().zip(y)).for_each(|(out, (g, y))| *out = (g - sum) * y);
        })
    })
}

/// Layer norm and RMS norm. With `x̂` the normalised row, `s` its scale and `h = g · weight`: the input's gradient is
/// `s (h − mean(h) − x̂ mean(h x̂))`, without `mean(h)` where no mean was taken off.
pub(super) fn norm(backward: &mut Backward<'_>) -> Result<()> {
    let call = backward.call;
    let layer_norm = backward.kind() == OperationKind::LayerNorm;
    let (input, gradient, weight) = (call.tensor(0)?, backward.cotangent()?, call.optional_tensor(2)?);
    let length: usize = call.integers(1)?.iter().map(|&size| usize::try_from(size).unwrap_or(0)).product();
    let epsilon = call.optional_number(if layer_norm { 4 } else { 3 })?.map(Scalar::as_f64);
    let default = match Computation::of(input.dtype()) {
        Computation::Double => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    };
    let epsilon = epsilon.unwrap_or(default);
    let scales = weight.as_ref().map_or_else(|| Ok(vec![1.0; length]), |weight| weight.to_vec_f64())?;
    let (x, g) = (input.doubles()?, gradient.doubles()?);
    let mut out = vec![0.0; x.len()];
    let (mut of_weight, mut of_bias) = (vec![0.0; length], vec![0.0; length]);
    let (mut normal, mut pulled, mut products) = (vec![0.0; length], vec![0.0; length], vec![0.0; length]);
    let together = x.chunks_exact(length.max(1)).zip(g.chunks_exact(length.max(1)));
    for ((x, g), out) in together.zip(out.chunks_exact_mut(length.max(1))) {
        let shift = if layer_norm { mean(x) } else { 0.0 };
        let scale = 1.0 / (lanes(x, |x| (x - shift) * (x - shift)) / length as f64 + epsilon).sqrt();
        for (place, (&x, &g)) in x.iter().zip(g).enumerate() {
            normal[place] = (x - shift) * scale;
            pulled[place] = g * scales[place];
            products[place] = pulled[place] * normal[place];
            of_weight[place] += g * normal[place];
            of_bias[place] += g;
        }
        let off = if layer_norm { mean(&pulled) } else { 0.0 };
        let along = mean(&products);
        for (place, out) in out.iter_mut().enumerate() {
            *out = scale * (pulled[place] - off - normal[place] * along);
        }
    }
    drop((x, g));
    backward.give(0, |_| store(out, input.shape(), input.dtype()))?;
    let parameter = |elements: Vec<f64>, place: usize| {
        let shape = call.optional_tensor(place)?.map_or_else(Vec::new, |tensor| tensor.shape().to_vec());
        store(elements, &shape, DType::F64)
    };
    backward.give(2, |_| parameter(of_weight, 2))?;
    if layer_norm {
        backward.give(3, |_| parameter(of_bias, 3))?;
    }
    Ok(())
}
