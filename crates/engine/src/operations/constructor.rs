//! Operations that make tensors from nothing but numbers.

use pellucid_graph::{DType, OperationKind, Scalar};

use super::Result;
use super::arguments::Call;
use super::number::store;
use super::order::now_and_then;
use crate::tensor::{Tensor, element_count, stored_scalar, with_stored};

/// A tensor of one number.
pub(super) fn filled(scalar: Scalar, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let count = element_count(shape)?;
    with_stored!(dtype, T => Tensor::from_stored(vec![stored_scalar::<T>(scalar, dtype); count], shape, dtype))
}

pub(super) fn zeros_or_ones(call: &Call<'_>) -> Result<Tensor> {
    let value = i64::from(call.kind() == OperationKind::Ones);
    filled(Scalar::Int(value), &call.shape(0)?, call.dtype(1)?)
}

pub(super) fn full(call: &Call<'_>) -> Result<Tensor> {
    let value = call.number(1)?;
    filled(value, &call.shape(0)?, call.optional_dtype(2)?.unwrap_or(value.dtype()))
}

pub(super) fn arange(call: &Call<'_>) -> Result<Tensor> {
    let (start, end, step) = (call.number(0)?, call.number(1)?, call.number(2)?);
    let integers = match (start.as_i64(), end.as_i64(), step.as_i64()) {
        (Some(start), Some(end), Some(step)) => Some((start, end, step)),
        _ => None,
    };
    let own = if integers.is_some() { DType::I64 } else { DType::F32 };
    let dtype = call.optional_dtype(3)?.unwrap_or(own);
    let fault = || {
        call.error(format!(
            "there is no way from {} to {} by {}",
            start.as_f64(),
            end.as_f64(),
            step.as_f64()
        ))
    };
    let count = match integers {
        Some((start, end, step)) => {
            let (distance, step) = (i128::from(end) - i128::from(start), i128::from(step));
            if step == 0 || (distance != 0 && (distance < 0) != (step < 0)) {
                return Err(fault());
            }
            usize::try_from((distance + step - step.signum()) / step).map_err(|_| fault())?
        }
        None => {
            let count = ((end.as_f64() - start.as_f64()) / step.as_f64()).ceil();
            if !(0.0..1e15).contains(&count) || step.as_f64() == 0.0 {
                return Err(fault());
            }
            count as usize
        }
    };
    element_count(&[count])?;
    match integers {
        Some((start, _, step)) => {
            let elements =
                (0..count as i64).map(|place| start.wrapping_add(place.wrapping_mul(step))).collect();
            store::<i64>(elements, &[count], dtype)
        }
        None => {
            let (start, step) = (start.as_f64(), step.as_f64());
            store::<f64>((0..count).map(|place| start + place as f64 * step).collect(), &[count], dtype)
        }
    }
}

pub(super) fn linspace(call: &Call<'_>) -> Result<Tensor> {
    let (start, end, steps, dtype) =
        (call.number(0)?.as_f64(), call.number(1)?.as_f64(), call.integer(2)?, call.dtype(3)?);
    let count = usize::try_from(steps).map_err(|_| call.error(format!("there cannot be {steps} steps")))?;
    element_count(&[count])?;
    let step = (end - start) / (count.max(2) - 1) as f64;
    // From both ends, so that both are met exactly.
    let element = |place: usize| {
        if place < count.div_ceil(2) {
            start + step * place as f64
        } else {
            end - step * (count - 1 - place) as f64
        }
    };
    store::<f64>((0..count).map(element).collect(), &[count], dtype)
}

pub(super) fn eye(call: &Call<'_>) -> Result<Tensor> {
    let rows = call.integer(0)?;
    let columns = call.optional_integer(1)?.unwrap_or(rows);
    let (Ok(rows), Ok(columns)) = (usize::try_from(rows), usize::try_from(columns)) else {
        return Err(call.error(format!("there is no matrix of {rows} by {columns}")));
    };
    let mut elements = vec![0i64; element_count(&[rows, columns])?];
    elements
        .iter_mut()
        .step_by(columns.saturating_add(1))
        .take(rows.min(columns))
        .for_each(|element| *element = 1);
    store(elements, &[rows, columns], call.dtype(2)?)
}

pub(super) fn one_hot(call: &Call<'_>) -> Result<Tensor> {
    let (input, classes) = (call.tensor(0)?, call.integer(1)?);
    let places = input.integers()?;
    let mut shape = input.shape().to_vec();
    shape.push(
        usize::try_from(classes).map_err(|_| call.error(format!("there cannot be {classes} classes")))?,
    );
    let mut elements = vec![0i64; element_count(&shape)?];
    for (row, &place) in places.iter().enumerate() {
        if place < 0 || place >= classes {
            return Err(call.error(format!("{place} is not one of {classes} classes")));
        }
        elements[row * classes as usize + place as usize] = 1;
    }
    Tensor::from_i64(elements, &shape)
}

pub(super) fn random(call: &Call<'_>) -> Result<Tensor> {
    let (shape, dtype) = (call.shape(0)?, call.dtype(1)?);
    if !dtype.is_float() {
        return Err(call.error(format!("there are no such numbers of type {dtype}")).hint("use randint"));
    }
    let count = element_count(&shape)?;
    let unit = 1.0 / (1u64 << 53) as f64;
    let elements: Vec<f64> = if call.kind() == OperationKind::Rand {
        let held = match dtype {
            DType::F64 => 53,
            DType::F32 => 24,
            DType::F16 => 11,
            _ => 8,
        };
        call.noise.map(count, |a, _| (a >> (64 - held)) as f64 / (1u64 << held) as f64)
    } else {
        call.noise.map(count, |a, b| {
            let radius = (-2.0 * (((a >> 11) + 1) as f64 * unit).ln()).sqrt();
            radius * (std::f64::consts::TAU * ((b >> 11) as f64 * unit)).cos()
        })
    };
    store(elements, &shape, dtype)
}

pub(super) fn random_integers(call: &Call<'_>) -> Result<Tensor> {
    let (low, high, shape, dtype) = (call.integer(0)?, call.integer(1)?, call.shape(2)?, call.dtype(3)?);
    if high <= low {
        return Err(call.error(format!("there is no number from {low} up to and without {high}")));
    }
    let range = u128::from(high.abs_diff(low));
    let number = |a, _| low.wrapping_add(((u128::from(a) * range) >> 64) as i64);
    let elements = call.noise.map(element_count(&shape)?, number);
    store::<i64>(elements, &shape, dtype)
}

pub(super) fn random_permutation(call: &Call<'_>) -> Result<Tensor> {
    let (asked, dtype) = (call.integer(0)?, call.dtype(1)?);
    let count = usize::try_from(asked).map_err(|_| call.error(format!("there are no {asked} places")))?;
    element_count(&[count])?;
    // Keys beside their places: what is compared lies together.
    let mut places: Vec<(u64, i64)> = call.noise.map(count, |a, _| (a, 0));
    places.iter_mut().enumerate().for_each(|(place, pair)| pair.1 = place as i64);
    places.sort_unstable_by(now_and_then(Ord::cmp));
    store(places.into_iter().map(|(_, place)| place).collect(), &[count], dtype)
}
