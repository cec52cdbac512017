//! Reductions, running sums, and what keeps the shape but works along dimensions.

use crate::dtype::DType;
use crate::operation::OperationKind;
use crate::rules::{RuleContext, RuleError, RuleResult, TRANSCENDENTAL, cost, listed, shape_text};
use crate::shape::{Dimension, TensorType};

/// What is reduced, and the shape that is left.
struct Reduction {
    input: TensorType,
    /// The reduced dimensions; a tensor without dimensions has none.
    reduced: Vec<usize>,
    shape: Vec<Dimension>,
}

impl Reduction {
    /// Whether it is known that there is nothing to reduce.
    fn is_empty(&self) -> bool {
        self.reduced.iter().any(|&place| self.input.shape[place].value() == Some(0))
    }
}

/// Reads `dim` and `keepdim`. No `dim`, or an empty list: over all.
fn reduction(context: &RuleContext<'_>) -> Result<Reduction, RuleError> {
    let input = context.tensor("input")?;
    let keep = context.boolean("keepdim")?;
    let named = context.optional_integers("dim")?;
    let one_only =
        matches!(context.operation.kind, OperationKind::Prod | OperationKind::Argmax | OperationKind::Argmin);
    if let Some(named) = named.as_ref().filter(|named| one_only && named.len() > 1) {
        return Err(context
            .error(format!("reduces one dimension or all of them, not several: {}", listed(named)))
            .hint("`flatten` the dimensions first"));
    }
    let mut reduced = match &named {
        Some(named) if !named.is_empty() => context.axes(&input, named)?,
        // Of an empty list PyTorch makes "over all", but for the reductions to truth values, where it means none.
        Some(_) if matches!(context.operation.kind, OperationKind::Any | OperationKind::All) => Vec::new(),
        _ => (0..input.shape.len()).collect(),
    };
    reduced.retain(|&place| place < input.shape.len());
    let mut shape = Vec::new();
    for (place, dimension) in input.shape.iter().enumerate() {
        match reduced.contains(&place) {
            false => shape.push(dimension.clone()),
            true if keep => shape.push(Dimension::known(1)),
            true => {}
        }
    }
    Ok(Reduction { input, reduced, shape })
}

/// Integers and truth values sum to i64.
fn summed(dtype: DType) -> DType {
    if dtype.is_float() { dtype } else { DType::I64 }
}

/// Sums and products.
pub(crate) fn sum(context: &mut RuleContext<'_>) -> RuleResult {
    let found = reduction(context)?;
    let asked = context.optional_dtype("dtype")?;
    let flops = cost(&found.input, 1);
    context.one(asked.unwrap_or(summed(found.input.dtype)), found.shape, flops)
}

/// Means, variances and norms: floats only.
pub(crate) fn mean(context: &mut RuleContext<'_>) -> RuleResult {
    let found = reduction(context)?;
    context.float(&found.input)?;
    let kind = context.operation.kind;
    let mut weight = match kind {
        OperationKind::Mean => 1,
        OperationKind::Norm => 0,
        _ => 4,
    };
    if kind == OperationKind::Norm {
        let p = context.number("p")?.as_f64();
        // Other orders take a power of each element.
        weight = u64::from(p.is_finite() && ![0.0, 1.0, 2.0].contains(&p));
        if found.is_empty() && (p < 0.0 || p.is_infinite()) {
            return Err(context.error(format!("of order {p} has no value for no elements: {}", found.input)));
        }
    }
    let flops = cost(&found.input, weight);
    context.one(found.input.dtype, found.shape, flops)
}

fn not_empty(context: &RuleContext<'_>, found: &Reduction) -> Result<(), RuleError> {
    if found.is_empty() {
        return Err(context.error(format!("of no elements has no value: {}", found.input)));
    }
    Ok(())
}

/// The largest and the smallest.
pub(crate) fn extremum(context: &mut RuleContext<'_>) -> RuleResult {
    let found = reduction(context)?;
    not_empty(context, &found)?;
    let flops = cost(&found.input, 1);
    context.one(found.input.dtype, found.shape, flops)
}

/// The place of the largest or smallest; over all: the place in row-major order.
pub(crate) fn arg_extremum(context: &mut RuleContext<'_>) -> RuleResult {
    let found = reduction(context)?;
    not_empty(context, &found)?;
    if found.input.dtype == DType::Bool {
        return Err(context
            .error(format!("takes numbers, not the truth values {}", found.input))
            .hint("cast it first: `to(…, i64)`"));
    }
    let flops = cost(&found.input, 1);
    context.one(DType::I64, found.shape, flops)
}

/// Whether any or all are not 0. Of u8, as in PyTorch, u8.
pub(crate) fn truth(context: &mut RuleContext<'_>) -> RuleResult {
    let found = reduction(context)?;
    let dtype = if found.input.dtype == DType::U8 { DType::U8 } else { DType::Bool };
    let flops = cost(&found.input, 1);
    context.one(dtype, found.shape, flops)
}

/// Integers and truth values become f32.
pub(crate) fn log_sum_exp(context: &mut RuleContext<'_>) -> RuleResult {
    let found = reduction(context)?;
    let dtype = if found.input.dtype.is_float() { found.input.dtype } else { DType::F32 };
    let flops = cost(&found.input, TRANSCENDENTAL + 2);
    context.one(dtype, found.shape, flops)
}

/// Running sums and products: the shape stays.
pub(crate) fn cumulative(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    context.axis(&input, context.integer("dim")?)?;
    let flops = cost(&input, 1);
    context.one(summed(input.dtype), input.shape, flops)
}

/// Softmax and its logarithm: floats only, the shape stays.
pub(crate) fn along(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    context.axis(&input, context.integer("dim")?)?;
    context.float(&input)?;
    let flops = cost(&input, TRANSCENDENTAL + 4);
    context.one(input.dtype, input.shape, flops)
}

/// Layer norm and RMS norm: the last dimensions are named by their sizes.
pub(crate) fn normalise(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    let named = context.integers("normalized_shape")?;
    context.float(&input)?;
    if named.is_empty() {
        return Err(context.error("needs at least one size in `normalized_shape`"));
    }
    let size = |&size: &i64| u64::try_from(size).ok().map(Dimension::known);
    let normalized: Vec<Dimension> =
        named.iter().map(size).collect::<Option<_>>().ok_or_else(|| {
            context.error(format!("takes sizes in `normalized_shape`, not {}", listed(&named)))
        })?;
    let leading = input.shape.len().checked_sub(normalized.len());
    let last = leading.and_then(|leading| input.shape.get(leading..));
    let fits = last.is_some_and(|last| last.iter().zip(&normalized).all(|(a, b)| a.could_equal(b)));
    if !fits {
        return Err(context
            .error(format!(
                "normalises over {}, but {input} does not end in these sizes",
                shape_text(&normalized)
            ))
            .hint("`normalized_shape` is the sizes of the last dimensions, not their places"));
    }
    let layer_norm = context.operation.kind == OperationKind::LayerNorm;
    let weight = context.optional_tensor("weight")?;
    let bias = if layer_norm { context.optional_tensor("bias")? } else { None };
    let mut parameter: Option<DType> = None;
    for (name, tensor) in [("weight", weight), ("bias", bias)] {
        let Some(tensor) = tensor else { continue };
        let fits = tensor.shape.len() == normalized.len()
            && tensor.shape.iter().zip(&normalized).all(|(a, b)| a.could_equal(b));
        if !fits {
            return Err(
                context.error(format!("takes a `{name}` of shape {}, not {tensor}", shape_text(&normalized)))
            );
        }
        context.float(&tensor)?;
        // As in PyTorch: RMS norm's weight may be of any float type, layer norm's of the input's, or f32 for a half type.
        let mixed = input.dtype.size() == 2 && tensor.dtype == DType::F32;
        let agrees = parameter.is_none_or(|before| before == tensor.dtype);
        if layer_norm && !(agrees && (tensor.dtype == input.dtype || mixed)) {
            return Err(context
                .error(format!("of {input} takes no `{name}` of {}", tensor.dtype))
                .hint(format!("cast it first: `to(…, {})`", input.dtype)));
        }
        parameter = Some(tensor.dtype);
    }
    let flops = cost(&input, 8);
    context.one(input.dtype, input.shape, flops)
}
