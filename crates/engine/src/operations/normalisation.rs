//! Softmax and the norms: each row by itself.

use pellucid_graph::{DType, OperationKind, Scalar};
use pellucid_kernels::{norm, reduce};

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
        if logarithm {
            reduce::log_softmax(&mut elements, length)
        } else {
            reduce::softmax(&mut elements, length)
        }
        store(elements, data.shape(), dtype)
    })
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
fn parameter(call: &Call<'_>, place: usize, length: usize) -> Result<Option<Tensor>> {
    match call.optional_tensor(place)? {
        None => Ok(None),
        Some(tensor) if tensor.elements() == length => Ok(Some(tensor)),
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
    if Computation::of(input.dtype()) == Computation::Double {
        return normalise_doubles(&input, length, weight, bias, |row| {
            let mean = mean(row);
            (mean, 1.0 / (lanes(row, |x| (x - mean) * (x - mean)) / row.len() as f64 + epsilon).sqrt())
        });
    }
    let weight = weight.map_or_else(|| Ok(vec![1.0; length]), |weight| weight.to_vec_f32())?;
    let bias = bias.map(|bias| bias.to_vec_f32()).transpose()?;
    normalise_singles(&input, length, |rows, out| {
        norm::layer_norm(rows, epsilon as f32, &weight, bias.as_deref(), None, out);
    })
}

pub(super) fn rms_norm(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let length = row_length(call, &input, &call.integers(1)?)?;
    let weight = parameter(call, 2, length)?;
    let epsilon = call.optional_number(3)?.map(Scalar::as_f64);
    // PyTorch's own default: from 1 to the next number of the type in which it computes.
    if Computation::of(input.dtype()) == Computation::Double {
        let epsilon = epsilon.unwrap_or(f64::EPSILON);
        return normalise_doubles(&input, length, weight, None, |row| {
            (0.0, 1.0 / (lanes(row, |x| x * x) / row.len() as f64 + epsilon).sqrt())
        });
    }
    let epsilon = epsilon.map_or(f32::EPSILON, |epsilon| epsilon as f32);
    let weight = weight.map_or_else(|| Ok(vec![1.0; length]), |weight| weight.to_vec_f32())?;
    normalise_singles(&input, length, |rows, out| norm::rms_norm(rows, epsilon, &weight, 0.0, None, out))
}

/// Runs a kernel from rows to rows of `f32`.
fn normalise_singles(
    input: &Tensor,
    length: usize,
    kernel: impl FnOnce(&[f32], &mut [f32]),
) -> Result<Tensor> {
    let rows = input.singles()?;
    let mut out = vec![0.0; rows.len()];
    if length > 0 && !rows.is_empty() {
        kernel(&rows, &mut out);
    }
    store(out, input.shape(), float_type(input.dtype()))
}

/// `(row - shift) * scale * weight + bias` for each row, the shift and scale found from the row.
fn normalise_doubles(
    input: &Tensor,
    length: usize,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    statistics: impl Fn(&[f64]) -> (f64, f64),
) -> Result<Tensor> {
    let weight = weight.map(|weight| weight.to_vec_f64()).transpose()?;
    let bias = bias.map(|bias| bias.to_vec_f64()).transpose()?;
    let mut elements = input.doubles()?.into_vec();
    for row in elements.chunks_exact_mut(length.max(1)) {
        let (shift, scale) = statistics(row);
        row.iter_mut().for_each(|x| *x = (*x - shift) * scale);
        if let Some(weight) = &weight {
            row.iter_mut().zip(weight).for_each(|(x, weight)| *x *= weight);
        }
        if let Some(bias) = &bias {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }
    store(elements, input.shape(), input.dtype())
}
