//! Sorting and the largest few. Ties go to the lowest index.

use crate::dtype::DType;
use crate::rules::{ASSUMED_LENGTH, RuleContext, RuleError, RuleResult, cost};
use crate::shape::{Dimension, TensorType};

fn logarithm(count: u64) -> u64 {
    u64::from(u64::BITS - count.leading_zeros()).max(1)
}

/// The input and the dimension that is sorted; none: the input is a single number.
fn sorted(context: &RuleContext<'_>) -> Result<(TensorType, Option<usize>), RuleError> {
    let input = context.tensor("input")?;
    let place = context.axis(&input, context.integer("dim")?)?;
    let place = (place < input.shape.len()).then_some(place);
    Ok((input, place))
}

/// Values and places.
pub(crate) fn sort(context: &mut RuleContext<'_>) -> RuleResult {
    context.boolean("descending")?;
    let (input, place) = sorted(context)?;
    let count = place.map_or(1, |place| input.shape[place].assume(ASSUMED_LENGTH));
    let flops = cost(&input, logarithm(count));
    let places = TensorType { dtype: DType::I64, shape: input.shape.clone() };
    context.all(vec![input, places], flops)
}

/// Places only.
pub(crate) fn arg_sort(context: &mut RuleContext<'_>) -> RuleResult {
    let mut typed = sort(context)?;
    typed.outputs.remove(0);
    Ok(typed)
}

/// Values and places of the k largest or smallest.
pub(crate) fn top_k(context: &mut RuleContext<'_>) -> RuleResult {
    context.boolean("largest")?;
    let (mut input, place) = sorted(context)?;
    let k = context.size("k")?;
    if input.dtype == DType::Bool {
        return Err(context
            .error(format!("takes numbers, not the truth values {input}"))
            .hint("cast it first: `to(…, i64)`"));
    }
    let available = place.map_or_else(|| Dimension::known(1), |place| input.shape[place].clone());
    if Dimension::known(k).exceeds(&available)
        || available
            .upper()
            .is_some_and(|most| Dimension::known(k).exceeds(&Dimension::known(most.unsigned_abs())))
    {
        return Err(context.error(format!("asks for {k} of the {available} along a dimension of {input}")));
    }
    let flops = cost(&input, logarithm(k));
    if let Some(place) = place {
        input.shape[place] = Dimension::known(k);
    }
    let places = TensorType { dtype: DType::I64, shape: input.shape.clone() };
    context.all(vec![input, places], flops)
}
