//! Reading and writing at places: by index, by gathering, by scattering.

use crate::dtype::DType;
use crate::operation::OperationKind;
use crate::rules::index::{self, Access, Part, Plan};
use crate::rules::promotion::Operand;
use crate::rules::{ASSUMED_LENGTH, RuleContext, RuleError, RuleResult, broadcast, cost, shape_text};
use crate::shape::{Dimension, TensorType};

fn planned(context: &mut RuleContext<'_>, input: &TensorType, access: Access) -> Result<Plan, RuleError> {
    let items = context.index("index")?;
    let type_of = context.type_of;
    let plan = index::plan(items, &input.shape, access, type_of, &mut || context.fresh());
    plan.map_err(|error| RuleError {
        message: format!("`{}`: {}", context.operation.kind.name(), error.message),
        ..error
    })
}

/// Reads at an index.
pub(crate) fn get_item(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    let plan = planned(context, &input, Access::Read)?;
    let result = TensorType { dtype: input.dtype, shape: plan.shape };
    let flops = if picks_last(&plan.parts) { cost(&result, 1) } else { 0 };
    context.one(result.dtype, result.shape, flops)
}

/// Writes at an index: the value is cast to the input's number type and expands to the places.
pub(crate) fn index_put(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    let values = context.operand("values")?;
    context.boolean("accumulate")?;
    let plan = planned(context, &input, Access::Write)?;
    if let Operand::Number(number) = values {
        context.fits(number, input.dtype)?;
    }
    // As in PyTorch, leading sizes of 1 too many do no harm.
    let mut given = values.shape();
    while given.len() > plan.shape.len() && given[0].could_be(1) {
        given = &given[1..];
    }
    if !broadcast::expands(given, &plan.shape) {
        return Err(context
            .error(format!("writes {values} where the places are {}", shape_text(&plan.shape)))
            .hint("sizes must be equal, or 1 in the value, from the last dimension on"));
    }
    let one_by_one = picks_last(&plan.parts);
    let places = TensorType { dtype: input.dtype, shape: plan.shape };
    context.within_limits(&places, "written part")?;
    // Every place is written, however many of them are the same.
    let sizes: Vec<u64> = input.shape.iter().map(|size| size.assume(ASSUMED_LENGTH)).collect();
    let cells = index::named(context.index("index")?, &sizes, context.type_of, ASSUMED_LENGTH).cells;
    let flops = cost(&places, 1).max(cells).saturating_mul(if one_by_one { 10 } else { 1 });
    context.one(input.dtype, input.shape, flops)
}

/// Whether places along the last dimension are picked: one element at a time, not a run of them.
fn picks_last(parts: &[Part]) -> bool {
    let is_place = |part: &&Part| matches!(part, Part::Place { .. } | Part::PlaceOf { .. } | Part::New);
    let last = parts.iter().rev().find(|part| !is_place(part));
    matches!(last, Some(Part::Picked { .. } | Part::Masked { .. }))
}

/// The input, the dimension, and an index of as many dimensions.
fn along(context: &RuleContext<'_>, name: &str) -> Result<(TensorType, usize, TensorType), RuleError> {
    let (input, index) = (context.tensor("input")?, context.tensor(name)?);
    let place = context.axis(&input, context.integer("dim")?)?;
    context.indices(&index)?;
    if input.shape.len().max(1) != index.shape.len().max(1) && !is_empty(&index) {
        return Err(context
            .error(format!("takes an index of as many dimensions as {input}, not {index}"))
            .hint("`unsqueeze` and `expand` it, or pick whole slices with `index_select`"));
    }
    Ok((input, place, index))
}

/// Refuses an index that is known to point somewhere where there are no places.
fn reaches(
    context: &RuleContext<'_>,
    index: &TensorType,
    input: &TensorType,
    place: usize,
) -> Result<(), RuleError> {
    let nowhere = input.shape.get(place).is_some_and(|size| size.value() == Some(0));
    if nowhere && index.shape.iter().all(|size| size.minimum() > 0) {
        return Err(context
            .error(format!("points with {index} into dimension {place} of {input}, which has no places")));
    }
    Ok(())
}

/// Whether an index fits inside a tensor apart from one dimension.
fn inside(index: &TensorType, tensor: &TensorType, apart: Option<usize>) -> bool {
    let sizes = index.shape.iter().zip(&tensor.shape).enumerate();
    sizes.filter(|(place, _)| Some(*place) != apart).all(|(_, (index, size))| !index.exceeds(size))
}

/// Whether it is known that an index has no places at all.
fn is_empty(index: &TensorType) -> bool {
    index.shape.iter().any(|size| size.value() == Some(0))
}

/// The index's shape, the input's numbers.
pub(crate) fn gather(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, place, index) = along(context, "index")?;
    reaches(context, &index, &input, place)?;
    if !is_empty(&index) && !inside(&index, &input, Some(place)) {
        return Err(context
            .error(format!("takes an index no larger than {input} apart from dimension {place}, not {index}"))
            .hint("to broadcast, use `take_along_dim`"));
    }
    let flops = cost(&index, 1);
    context.one(input.dtype, index.shape, flops)
}

/// The input with places overwritten or added to.
pub(crate) fn scatter(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, place, index) = along(context, "index")?;
    reaches(context, &index, &input, place)?;
    let source = context.operand("src")?;
    if !is_empty(&index) && !inside(&index, &input, Some(place)) {
        return Err(context.error(format!(
            "takes an index no larger than {input} apart from dimension {place}, not {index}"
        )));
    }
    match &source {
        Operand::Number(number) if context.operation.kind == OperationKind::Scatter => {
            context.fits(*number, input.dtype)?;
        }
        Operand::Number(_) => return Err(context.error("takes as `src` a tensor")),
        Operand::Tensor(_, source) => {
            if source.dtype != input.dtype {
                return Err(context
                    .error(format!("writes into {input} the same number type, not {source}"))
                    .hint(format!("cast it first: `to(…, {})`", input.dtype)));
            }
            let dimensions = source.shape.len().max(1) == index.shape.len().max(1);
            let fits = dimensions && inside(&index, source, None);
            if !is_empty(&index) && !fits {
                return Err(
                    context.error(format!("takes an index no larger than `src` {source}, not {index}"))
                );
            }
        }
    }
    let flops = cost(&input, 1).saturating_add(cost(&index, 1));
    context.one(input.dtype, input.shape, flops)
}

/// One dimension replaced by the index's places.
pub(crate) fn index_select(context: &mut RuleContext<'_>) -> RuleResult {
    let (mut input, index) = (context.tensor("input")?, context.tensor("index")?);
    let place = context.axis(&input, context.integer("dim")?)?;
    context.indices(&index)?;
    if index.shape.len() > 1 {
        return Err(context
            .error(format!("takes an index of one dimension, not {index}"))
            .hint("read with an index tensor: `x[index]`"));
    }
    reaches(context, &index, &input, place)?;
    let count = index.shape.first().cloned().unwrap_or_else(|| Dimension::known(1));
    match input.shape.get_mut(place) {
        Some(size) => *size = count,
        None if count.could_be(1) => {}
        None => {
            return Err(context.error(format!("picks one place of the single number {input}, not {count}")));
        }
    }
    // Along the last dimension one element at a time, not a run of them.
    let flops = if place + 1 >= input.shape.len() { cost(&input, 1) } else { 0 };
    context.one(input.dtype, input.shape, flops)
}

/// Gathering where the other dimensions broadcast.
pub(crate) fn take_along_dim(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, place, index) = along(context, "indices")?;
    if index.dtype != DType::I64 {
        return Err(context
            .error(format!("takes indices of i64, not {index}"))
            .hint("cast it first: `to(…, i64)`"));
    }
    if input.shape.len() != index.shape.len() {
        return Err(context.error(format!("takes an index of as many dimensions as {input}, not {index}")));
    }
    let (mut ours, mut theirs) = (input.shape.clone(), index.shape.clone());
    let mut count = None;
    if let (Some(size), Some(places)) = (ours.get_mut(place), theirs.get_mut(place)) {
        *size = Dimension::known(1);
        count = Some(std::mem::replace(places, Dimension::known(1)));
    }
    let mut shape = context.broadcast_shapes(&ours, &theirs)?;
    if let (Some(size), Some(count)) = (shape.get_mut(place), count) {
        *size = count;
    }
    let result = TensorType { dtype: input.dtype, shape };
    reaches(context, &result, &input, place)?;
    let flops = cost(&result, 1);
    context.one(result.dtype, result.shape, flops)
}
