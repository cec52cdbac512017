//! Sums of cotangents, each in one order: contributions one by one, a broadcast's parts in row-major order.

use pellucid_graph::DType;

use crate::operations::OperationError;
use crate::tensor::{Stored, Tensor, with_stored};

type Result<T> = std::result::Result<T, OperationError>;

/// The sum of tensors of one shape and number type, added in the order given; 16-bit sums are rounded at each step.
pub(crate) fn sum(parts: Vec<Tensor>) -> Result<Option<Tensor>> {
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return Ok(None) };
    let Some(second) = parts.next() else { return Ok(Some(first)) };
    let (shape, dtype) = (first.shape().to_vec(), first.dtype());
    with_stored!(dtype, T => {
        let mut total: Vec<T> = first.read::<T>()?.into_vec();
        for part in std::iter::once(second).chain(parts) {
            if part.shape() != shape || part.dtype() != dtype {
                return Err(OperationError::new("gradients of one value differ in shape or number type"));
            }
            let part = part.read::<T>()?;
            for (sum, &part) in total.iter_mut().zip(part.iter()) {
                *sum = match dtype {
                    DType::F64 => T::from_double(sum.double() + part.double()),
                    _ => T::from_single(sum.single() + part.single()),
                };
            }
        }
        Ok(Some(Tensor::from_stored(total, &shape, dtype)?))
    })
}

/// The gradient of a value of that shape and number type, from that of what it was expanded to: each element is one chain
/// over the places it went to, in row-major order.
pub(crate) fn sum_to(expanded: &Tensor, shape: &[usize], dtype: DType) -> Result<Tensor> {
    if expanded.shape() == shape {
        return expanded.cast(dtype);
    }
    let wide = expanded.shape().to_vec();
    let lead = wide.len().checked_sub(shape.len());
    let lead = lead.ok_or_else(|| OperationError::new("a gradient has fewer dimensions than its value"))?;
    // Strides of the value's own elements along the expanded dimensions; 0 where it was repeated.
    let mut strides = vec![0usize; wide.len()];
    let mut stride = 1;
    for (dimension, &size) in shape.iter().enumerate().rev() {
        if size != 1 {
            strides[lead + dimension] = stride;
        }
        stride *= size;
    }
    let mut sums = vec![0f64; shape.iter().product()];
    let single = expanded.dtype() != DType::F64;
    let values = expanded.doubles()?;
    let mut place = vec![0usize; wide.len()];
    let mut at = 0usize;
    for &value in values.iter() {
        if let Some(sum) = sums.get_mut(at) {
            *sum = if single { f64::from(*sum as f32 + value as f32) } else { *sum + value };
        }
        for dimension in (0..wide.len()).rev() {
            place[dimension] += 1;
            at += strides[dimension];
            if place[dimension] < wide[dimension] {
                break;
            }
            at -= strides[dimension] * wide[dimension];
            place[dimension] = 0;
        }
    }
    Tensor::from_f64(sums, shape)?.cast(dtype)
}

/// A gradient as it is given out: of the value's number type, without negative zeros, so that it does not show
/// how many parts that were 0 went into it.
pub(crate) fn given_out(gradient: &Tensor, dtype: DType) -> Result<Tensor> {
    let gradient = gradient.cast(dtype)?;
    with_stored!(dtype, T => {
        let mut elements: Vec<T> = gradient.read::<T>()?.into_vec();
        let zero = T::from_integer(0);
        elements.iter_mut().filter(|element| **element == zero).for_each(|element| *element = zero);
        Tensor::from_stored(elements, gradient.shape(), dtype)
    })
}

/// A gradient that is 0.
pub(crate) fn zeros(shape: &[usize], dtype: DType) -> Result<Tensor> {
    Tensor::from_f64(vec![0.0; shape.iter().product()], shape)?.cast(dtype)
}

/// A written gradient: of the value's number type and shape.
pub(crate) fn fit(value: &Tensor, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let value = value.cast(dtype)?;
    if value.shape() == shape {
        return value.contiguous();
    }
    let expanded = value.data().broadcast_as(shape).map_err(|_| {
        OperationError::new(format!(
            "the gradient has shape {shape:?}, but it is set to shape {:?}",
            value.shape()
        ))
    })?;
    Tensor::new(expanded, dtype)?.contiguous()
}
