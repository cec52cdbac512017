//! Element by element: arithmetic, comparison, functions, choosing, casts.

use crate::dtype::DType;
use crate::operation::OperationKind;
use crate::rules::promotion::{Operand, result_type};
use crate::rules::{RuleContext, RuleError, RuleResult, TRANSCENDENTAL, cost};
use crate::shape::{Dimension, TensorType};

/// The two operands, their number type and their shape together.
fn pair(
    context: &mut RuleContext<'_>,
    first: &str,
    second: &str,
) -> Result<(Operand, Operand, TensorType), RuleError> {
    let (a, b) = (context.operand(first)?, context.operand(second)?);
    let shape = context.broadcast(&a, &b)?;
    let dtype = result_type([a.weighed(), b.weighed()]);
    Ok((a, b, TensorType { dtype, shape }))
}

/// Two operands of the promoted number type.
pub(crate) fn arithmetic(context: &mut RuleContext<'_>) -> RuleResult {
    let kind = context.operation.kind;
    let second = if kind == OperationKind::Pow { "exponent" } else { "other" };
    let (a, b, result) = pair(context, "input", second)?;
    let truth = a.dtype() == DType::Bool || b.dtype() == DType::Bool;
    if kind == OperationKind::Sub && truth {
        return Err(context
            .error(format!("takes no truth values: {a} minus {b}"))
            .hint("invert a mask with `logical_not`, tell two apart with `ne`, or cast with `to`"));
    }
    let numbers_only = match kind {
        OperationKind::FloorDivide | OperationKind::Remainder => true,
        // PyTorch takes a literal exponent of true: a copy.
        OperationKind::Pow => !matches!(b, Operand::Number(_)),
        _ => false,
    };
    if numbers_only && result.dtype == DType::Bool {
        return Err(context
            .error(format!("takes no truth values: {a} and {b}"))
            .hint("cast one of them first: `to(…, i64)`"));
    }
    if kind == OperationKind::Pow
        && !result.dtype.is_float()
        && let Operand::Number(exponent) = &b
        && exponent.as_i64().is_some_and(|exponent| exponent < 0)
    {
        return Err(context
            .error(format!("cannot raise integers {a} to the negative power {exponent}"))
            .hint("cast the base to a float, or write the exponent as one: -1.0"));
    }
    let weight = match kind {
        // These powers have a closed form.
        OperationKind::Pow if is_quick(result.dtype, &b) => 0,
        OperationKind::FloorDivide | OperationKind::Remainder => 4,
        _ => 1,
    };
    let flops = cost(&result, weight);
    context.one(result.dtype, result.shape, flops)
}

/// Whether a power with that exponent is a root or a few products.
fn is_quick(dtype: DType, exponent: &Operand) -> bool {
    let Operand::Number(number) = exponent else { return false };
    match dtype.is_float() {
        true => [2.0, 3.0, 0.5, -0.5, -1.0, -2.0].contains(&number.as_f64()),
        false => number.as_f64() <= 16.0,
    }
}

/// Division that always gives floats.
pub(crate) fn true_division(context: &mut RuleContext<'_>) -> RuleResult {
    let (_, _, result) = pair(context, "input", "other")?;
    let dtype = if result.dtype.is_float() { result.dtype } else { DType::F32 };
    let flops = cost(&result, 1);
    context.one(dtype, result.shape, flops)
}

/// Two operands give truth values.
pub(crate) fn comparison(context: &mut RuleContext<'_>) -> RuleResult {
    let (_, _, result) = pair(context, "input", "other")?;
    let flops = cost(&result, 1);
    context.one(DType::Bool, result.shape, flops)
}

/// One operand gives truth values.
pub(crate) fn predicate(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    let flops = cost(&input, 1);
    context.one(DType::Bool, input.shape, flops)
}

/// The number type stays, and is not bool.
pub(crate) fn same_number(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    if input.dtype == DType::Bool {
        let error = context.error(format!("takes numbers, not the truth values {input}"));
        return Err(match context.operation.kind {
            OperationKind::Neg => error.hint("invert a mask with `logical_not`"),
            _ => error.hint("cast it first: `to(…, i64)`"),
        });
    }
    let flops = cost(&input, 1);
    context.one(input.dtype, input.shape, flops)
}

/// The number type stays.
pub(crate) fn same_type(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    let flops = cost(&input, 1);
    context.one(input.dtype, input.shape, flops)
}

/// The bounds' number types count as literals do.
pub(crate) fn clamp(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.operand("input")?;
    let bounds = [context.optional_number("min")?, context.optional_number("max")?];
    if bounds.iter().all(Option::is_none) {
        return Err(context.error("needs `min`, `max`, or both"));
    }
    let literals = bounds.into_iter().flatten().map(|bound| Operand::Number(bound).weighed());
    let dtype = result_type(std::iter::once(input.weighed()).chain(literals));
    if dtype == DType::Bool {
        return Err(context.error(format!("takes numbers, not the truth values {input}")));
    }
    if dtype.is_integer() {
        for (name, bound, out) in [("min", bounds[0], 1), ("max", bounds[1], -1)] {
            if bound.is_some_and(|bound| bound.side(dtype) == out) {
                let beyond = if out > 0 { "greatest" } else { "least" };
                return Err(context
                    .error(format!(
                        "has a `{name}` beyond the {beyond} number of {dtype}: nothing is left of {input}"
                    ))
                    .hint("cast with `to` before, to a type that holds the bound"));
            }
        }
    }
    let result = TensorType { dtype, shape: input.shape().to_vec() };
    let flops = cost(&result, 2);
    context.one(result.dtype, result.shape, flops)
}

/// Floats stay as they are; integers and truth values become f32.
pub(crate) fn transcendental(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    let dtype = if input.dtype.is_float() { input.dtype } else { DType::F32 };
    let flops = cost(&input, TRANSCENDENTAL);
    context.one(dtype, input.shape, flops)
}

/// Floats only.
pub(crate) fn float_only(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    context.float(&input)?;
    if context.operation.kind == OperationKind::Gelu {
        let approximate = context.text("approximate")?;
        if !matches!(approximate, "none" | "tanh") {
            return Err(context.error(format!("takes as `approximate` none or tanh, not {approximate:?}")));
        }
    }
    let flops = cost(&input, TRANSCENDENTAL);
    context.one(input.dtype, input.shape, flops)
}

/// Refuses what is not a mask.
pub(super) fn mask(context: &RuleContext<'_>, mask: &TensorType, name: &str) -> Result<(), RuleError> {
    if mask.dtype == DType::Bool {
        return Ok(());
    }
    Err(context
        .error(format!("takes as `{name}` truth values, not {mask}"))
        .hint("compare it first: `ne(…, 0)`"))
}

/// The condition's shape counts too; the two choices promote.
pub(crate) fn choose(context: &mut RuleContext<'_>) -> RuleResult {
    let condition = context.tensor("condition")?;
    mask(context, &condition, "condition")?;
    let (_, _, choices) = pair(context, "input", "other")?;
    let shape = context.broadcast_shapes(&condition.shape, &choices.shape)?;
    let result = TensorType { dtype: choices.dtype, shape };
    let flops = cost(&result, 1);
    context.one(result.dtype, result.shape, flops)
}

/// The input's number type stays; the value is one number.
pub(crate) fn masked_fill(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, chosen) = (context.tensor("input")?, context.tensor("mask")?);
    mask(context, &chosen, "mask")?;
    match context.operand("value")? {
        Operand::Number(number) => context.fits(number, input.dtype)?,
        Operand::Tensor(_, value) if value.shape.is_empty() => {}
        Operand::Tensor(_, value) => {
            return Err(context
                .error(format!("fills with one number, not with {value}"))
                .hint("choose between two tensors with `where`"));
        }
    }
    let shape: Vec<Dimension> = context.broadcast_shapes(&input.shape, &chosen.shape)?;
    let result = TensorType { dtype: input.dtype, shape };
    let flops = cost(&result, 1);
    context.one(result.dtype, result.shape, flops)
}

/// The number type that is asked for.
pub(crate) fn to(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, dtype) = (context.tensor("input")?, context.dtype("dtype")?);
    let flops = cost(&input, 1);
    context.one(dtype, input.shape, flops)
}
