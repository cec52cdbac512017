//! Products of matrices and more.

use crate::dtype::DType;
use crate::rules::equation::Equation;
use crate::rules::promotion::{Strength, result_type};
use crate::rules::{ASSUMED_LENGTH, RuleContext, RuleError, RuleResult, cost};
use crate::shape::{Dimension, TensorType};

/// Products sum in one number type: PyTorch does not promote here.
fn one_number_type(context: &RuleContext<'_>, tensors: &[TensorType]) -> Result<DType, RuleError> {
    let dtype = tensors.first().map_or(DType::F32, |tensor| tensor.dtype);
    if let Some(other) = tensors.iter().find(|tensor| tensor.dtype != dtype) {
        let wide = result_type([(dtype, Strength::Tensor), (other.dtype, Strength::Tensor)]);
        return Err(context
            .error(format!("takes tensors of one number type, not {} and {other}", tensors[0]))
            .hint(format!("cast them first: `to(…, {wide})`")));
    }
    if dtype == DType::Bool {
        return Err(context
            .error(format!("takes numbers, not the truth values {}", tensors[0]))
            .hint("cast them first: `to(…, f32)`"));
    }
    Ok(dtype)
}

/// Columns of doubles below which a product takes as long as with so many.
const FEW_COLUMNS: u64 = 8;
/// Elements of a matrix on the right below which it is multiplied in plain loops.
const SMALL_MATRIX: u64 = 4_096;

/// Columns of what is on the right of a product; of a vector 1.
fn columns_of(right: &TensorType) -> u64 {
    if right.shape.len() < 2 { 1 } else { right.shape.last().map_or(1, |size| size.assume(ASSUMED_LENGTH)) }
}

/// The matrix product: one dimension is a row on the left, a column on the right.
pub(crate) fn matmul(context: &mut RuleContext<'_>) -> RuleResult {
    let (a, b) = (context.tensor("input")?, context.tensor("other")?);
    let (Some(inner_a), Some(inner_b)) = (a.shape.last(), b.shape.get(b.shape.len().saturating_sub(2)))
    else {
        return Err(context
            .error(format!("multiplies matrices and vectors, not single numbers: {a} times {b}"))
            .hint("use `mul`"));
    };
    let Some(inner) = context.same_size(inner_a, inner_b) else {
        return Err(context
            .error(format!(
                "cannot multiply {a} by {b}: the left's last size {inner_a} is not the right's {inner_b}"
            ))
            .hint("a [..., n, k] is multiplied by a [..., k, m]; `transpose` one of them"));
    };
    let dtype = one_number_type(context, &[a.clone(), b.clone()])?;
    let rows = a.shape.len().checked_sub(2).map(|place| a.shape[place].clone());
    let columns = (b.shape.len() >= 2).then(|| b.shape[b.shape.len() - 1].clone());
    let batch = |shape: &[Dimension]| shape[..shape.len().saturating_sub(2)].to_vec();
    let mut shape = context.broadcast_shapes(&batch(&a.shape), &batch(&b.shape))?;
    shape.extend(rows);
    shape.extend(columns);
    let result = TensorType { dtype, shape };
    let (inner, columns) = (inner.assume(ASSUMED_LENGTH), columns_of(&b));
    // Products with few columns, or with a small matrix, take plain loops: about as much for each as so many more.
    let slower = match dtype {
        DType::F64 if columns < FEW_COLUMNS => FEW_COLUMNS / columns.max(1),
        DType::F32 | DType::F16 | DType::Bf16
            if columns > 1 && inner.saturating_mul(columns) < SMALL_MATRIX =>
        {
            8
        }
        _ => 1,
    };
    let flops = cost(&result, inner.saturating_mul(2).saturating_mul(slower));
    context.one(result.dtype, result.shape, flops)
}

/// The outer product.
pub(crate) fn outer(context: &mut RuleContext<'_>) -> RuleResult {
    let (a, b) = (context.tensor("input")?, context.tensor("other")?);
    for vector in [&a, &b] {
        if vector.shape.len() != 1 {
            return Err(context
                .error(format!("multiplies vectors, of one dimension each, not {vector}"))
                .hint("write it as `mul` of an `unsqueeze`"));
        }
    }
    let result =
        TensorType { dtype: a.dtype.promote(b.dtype), shape: vec![a.shape[0].clone(), b.shape[0].clone()] };
    let flops = cost(&result, 1);
    context.one(result.dtype, result.shape, flops)
}

/// Sums of products, operand by operand from the left.
pub(crate) fn einsum(context: &mut RuleContext<'_>) -> RuleResult {
    let tensors = context.tensors("operands")?;
    let equation = Equation::parse(context.text("equation")?)?;
    let shapes: Vec<&[Dimension]> = tensors.iter().map(|tensor| tensor.shape.as_slice()).collect();
    let bound = equation.bind(&shapes, &mut || context.fresh())?;
    let dtype = one_number_type(context, &tensors)?;
    let mut flops = 0u64;
    for step in bound.steps() {
        let sizes = |labels: &[usize]| labels.iter().map(|&label| bound.sizes[label].clone()).collect();
        let all = TensorType { dtype, shape: sizes(&step.labels) };
        flops = flops.saturating_add(cost(&all, 2));
        context.within_limits(&TensorType { dtype, shape: sizes(&step.kept) }, "intermediate result")?;
    }
    let sums = bound.sizes.len() > bound.output.len();
    // PyTorch sums a lone operand with `sum`, which widens integers.
    let dtype = if tensors.len() == 1 && sums && dtype.is_integer() { DType::I64 } else { dtype };
    let shape = bound.output.iter().map(|&label| bound.sizes[label].clone()).collect();
    context.one(dtype, shape, flops)
}
