//! Softmax and the norms: each row by itself.

use pellucid_graph::{DType, OperationKind};

use super::Result;
use super::arguments::Call;
use super::number::{Computation, float_type, store};
use super::reduction::{along, lanes, mean};
use crate::tensor::Tensor;

pub(super) fn softmax(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let dimension = call.dimension(call.integer(1)?, input.rank())?;
    let dtype = float_type(input.dtype());
    let logarithm = call.kind() == OperationKind::LogSoftmax;
    along(&input, dimension, dtype, |length, data| {
        if dtype == DType::F64 {
            let mut elements = data.doubles()?.into_vec();
            elements.chunks_exact_mut(length).for_each(|row| softmax_of_doubles(row, logarithm));
            return store(elements, data.shape(), dtype);
        }
        let mut elements = data.singles()?.into_vec();
        elements.chunks_exact_mut(length).for_each(|row| softmax_of_singles(row, logarithm));
        store(elements, data.shape(), dtype)
    })
}

fn softmax_of_singles(row: &mut [f32], logarithm: bool) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |largest, &x| largest.max(x));
    if logarithm {
        let sum = lanes(row, |x| f64::from((x - largest).exp()));
        let shift = sum.ln() as f32;
        row.iter_mut().for_each(|x| *x = (*x - largest) - shift);
        return;
    }
    row.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum = lanes(row, f64::from) as f32;
    row.iter_mut().for_each(|x| *x /= sum);
}

fn softmax_of_doubles(row: &mut [f64], logarithm: bool) {
    let largest = row.iter().fold(f64::NEG_INFINITY, |largest, &x| largest.max(x));
    if logarithm {
        let shift = lanes(row, |x| (x - largest).exp()).ln();
        row.iter_mut().for_each(|x| *x = (*x - largest) - shift);
        return;
    }
    row.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum = lanes(row, |x| x);
    row.iter_mut().for_each(|x| *x /= sum);
}

/// The number of elements of the last dimensions that are normalised together, which must be `shape`.
fn row_length(call: &Call<'_>, input: &Tensor, shape: &[i64]) -> Result<usize> {
    let sizes: Option<Vec<usize>> = shape.iter().map(|&size| usize::try_from(size).ok()).collect();
    match sizes {
        Some(sizes) if !sizes.is_empty() && input.shape().ends_with(&sizes) => Ok(sizes.iter().product()),
        _ => Err(call.error(format!("a tensor of shape {:?} does not end in {shape:?}", input.shape()))),
    }
}

/// A scale or a shift, which must have as many elements as a row.
fn parameter(call: &Call<'_>, place: usize, length: usize) -> Result<Option<Vec<f64>>> {
    match call.optional_tensor(place)? {
        None => Ok(None),
        Some(tensor) if tensor.elements() == length => Ok(Some(tensor.to_vec_f64()?)),
        Some(tensor) => Err(call.error(format!(
            "a scale or shift of shape {:?} does not fit rows of {length} elements",
            tensor.shape()
        ))),
    }
}

pub(super) fn layer_norm(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let length = row_length(call, &input, &call.integers(1)?)?;
    let (weight, bias) = (parameter(call, 2, length)?, parameter(call, 3, length)?);
    let epsilon = call.number(4)?.as_f64();
    normalise(&input, length, weight.as_deref(), bias.as_deref(), |row| {
        let mean = mean(row);
        let variance = lanes(row, |x| (x - mean) * (x - mean)) / row.len() as f64;
        (mean, 1.0 / (variance + epsilon).sqrt())
    })
}

pub(super) fn rms_norm(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let length = row_length(call, &input, &call.integers(1)?)?;
    let weight = parameter(call, 2, length)?;
    // PyTorch's own default: the number type's distance from 1 to the next number, as it computes in.
    let epsilon = match (call.optional_number(3)?, Computation::of(input.dtype())) {
        (Some(epsilon), _) => epsilon.as_f64(),
        (None, Computation::Double) => f64::EPSILON,
        (None, _) => f64::from(f32::EPSILON),
    };
    normalise(&input, length, weight.as_deref(), None, |row| {
        let mean_square = lanes(row, |x| x * x) / row.len() as f64;
        (0.0, 1.0 / (mean_square + epsilon).sqrt())
    })
}

/// `(row - shift) * scale * weight + bias` for each row, the shift and scale found from the row.
fn normalise(
    input: &Tensor,
    length: usize,
    weight: Option<&[f64]>,
    bias: Option<&[f64]>,
    statistics: impl Fn(&[f64]) -> (f64, f64),
) -> Result<Tensor> {
    let mut elements = input.doubles()?.into_vec();
    for row in elements.chunks_exact_mut(length.max(1)) {
        let (shift, scale) = statistics(row);
        row.iter_mut().for_each(|x| *x = (*x - shift) * scale);
        if let Some(weight) = weight {
            row.iter_mut().zip(weight).for_each(|(x, weight)| *x *= weight);
        }
        if let Some(bias) = bias {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }
    store(elements, input.shape(), float_type(input.dtype()))
}
