//! Tensors from nothing.

use crate::dtype::DType;
use crate::limits;
use crate::operation::OperationKind;
use crate::rules::{RuleContext, RuleError, RuleResult, cost};
use crate::scalar::Scalar;
use crate::shape::{Dimension, TensorType};

fn made(context: &RuleContext<'_>, dtype: DType, shape: Vec<Dimension>, weight: u64) -> RuleResult {
    let result = TensorType { dtype, shape };
    let flops = cost(&result, weight);
    context.one(result.dtype, result.shape, flops)
}

/// Zeros, ones, and noise.
pub(crate) fn filled(context: &mut RuleContext<'_>) -> RuleResult {
    let (shape, dtype) = (context.sizes("size")?, context.dtype("dtype")?);
    match context.operation.kind {
        OperationKind::Randn | OperationKind::Rand if !dtype.is_float() => {
            return Err(context
                .error(format!("makes floating-point numbers, not {dtype}"))
                .hint("use `randint`"));
        }
        OperationKind::Randint => {
            let (low, high) = (context.integer("low")?, context.integer("high")?);
            if low >= high {
                return Err(context
                    .error(format!("has no numbers from {low} up to and without {high}"))
                    .hint("`high` must be larger than `low`"));
            }
            for end in [low, high - 1] {
                let outside = match dtype {
                    DType::U8 => !(0..=255).contains(&end),
                    DType::Bool => !(0..=1).contains(&end),
                    _ => !Scalar::Int(end).fits(dtype),
                };
                if outside {
                    return Err(context.error(format!("makes {end}, which is out of range for {dtype}")));
                }
            }
        }
        _ => {}
    }
    made(context, dtype, shape, 1)
}

/// One number everywhere: its own number type, unless another is asked for.
pub(crate) fn full(context: &mut RuleContext<'_>) -> RuleResult {
    let (shape, value) = (context.sizes("size")?, context.number("fill_value")?);
    let dtype = context.optional_dtype("dtype")?.unwrap_or(value.dtype());
    context.fits(value, dtype)?;
    made(context, dtype, shape, 1)
}

fn numeric(context: &RuleContext<'_>, dtype: DType) -> Result<(), RuleError> {
    if dtype == DType::Bool {
        return Err(context.error("makes numbers, not truth values").hint("compare the result: `ne(…, 0)`"));
    }
    Ok(())
}

/// i64 where all three are integers, else f32.
pub(crate) fn arange(context: &mut RuleContext<'_>) -> RuleResult {
    let (start, end, step) = (context.number("start")?, context.number("end")?, context.number("step")?);
    let whole = [start, end, step].iter().all(|number| number.as_i64().is_some());
    let dtype = context.optional_dtype("dtype")?.unwrap_or(if whole { DType::I64 } else { DType::F32 });
    numeric(context, dtype)?;
    let range = format!("from {start} to {end} by {step}");
    if [start, end, step].iter().any(|number| !number.as_f64().is_finite()) {
        return Err(context.error(format!("has no last number: {range}")));
    }
    if step.as_f64() == 0.0 {
        return Err(context.error(format!("never moves: {range}")).hint("`step` must not be 0"));
    }
    let count = match (start.as_i64(), end.as_i64(), step.as_i64()) {
        (Some(start), Some(end), Some(step)) => {
            let (distance, step) = (i128::from(end) - i128::from(start), i128::from(step));
            if distance.signum() * step.signum() < 0 {
                None
            } else {
                Some(u64::try_from(distance.unsigned_abs().div_ceil(step.unsigned_abs())).unwrap_or(u64::MAX))
            }
        }
        _ => {
            let distance = end.as_f64() - start.as_f64();
            // Casts of floats saturate.
            (distance * step.as_f64().signum() >= 0.0).then(|| (distance / step.as_f64()).ceil() as u64)
        }
    };
    let count = count.ok_or_else(|| {
        context
            .error(format!("never arrives: {range}"))
            .hint("the sign of `step` must lead from `start` to `end`")
    })?;
    if count > limits::TENSOR_ELEMENTS {
        let most = limits::TENSOR_ELEMENTS;
        return Err(context.error(format!("has {count} numbers {range}, and {most} is the most")));
    }
    if count > 0 {
        context.fits(start, dtype)?;
    }
    made(context, dtype, vec![Dimension::known(count)], 1)
}

/// Evenly spaced numbers.
pub(crate) fn linspace(context: &mut RuleContext<'_>) -> RuleResult {
    let (start, end) = (context.number("start")?, context.number("end")?);
    let (steps, dtype) = (context.size("steps")?, context.dtype("dtype")?);
    numeric(context, dtype)?;
    context.fits(start, dtype)?;
    context.fits(end, dtype)?;
    made(context, dtype, vec![Dimension::known(steps)], 2)
}

/// n rows, m columns; no m: as many as rows.
pub(crate) fn eye(context: &mut RuleContext<'_>) -> RuleResult {
    let rows = context.size("n")?;
    let columns = match context.optional_integer("m")? {
        Some(_) => context.size("m")?,
        None => rows,
    };
    let dtype = context.dtype("dtype")?;
    made(context, dtype, vec![Dimension::known(rows), Dimension::known(columns)], 1)
}

/// A new last dimension, one place for each class.
pub(crate) fn one_hot(context: &mut RuleContext<'_>) -> RuleResult {
    let (mut input, classes) = (context.tensor("input")?, context.integer("num_classes")?);
    if input.dtype != DType::I64 {
        return Err(context
            .error(format!("takes class numbers of i64, not {input}"))
            .hint("cast it first: `to(…, i64)`"));
    }
    if classes < 1 {
        return Err(context
            .error(format!("needs `num_classes` of at least 1, not {classes}"))
            .hint("it cannot be inferred: shapes do not depend on data"));
    }
    input.shape.push(Dimension::known(classes.unsigned_abs()));
    made(context, DType::I64, input.shape, 1)
}

/// The numbers from 0 to n − 1 in some order.
pub(crate) fn randperm(context: &mut RuleContext<'_>) -> RuleResult {
    let (count, dtype) = (context.size("n")?, context.dtype("dtype")?);
    numeric(context, dtype)?;
    let last = Scalar::Int(i64::try_from(count).unwrap_or(i64::MAX).saturating_sub(1));
    if count > 0 {
        context.fits(last, dtype)?;
    }
    // They are sorted.
    let comparisons = u64::from(u64::BITS - count.leading_zeros());
    made(context, dtype, vec![Dimension::known(count)], comparisons)
}
