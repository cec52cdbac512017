//! Losses: one number, or one for each element or row.

use crate::dtype::DType;
use crate::operation::OperationKind;
use crate::rules::promotion::{Strength, result_type};
use crate::rules::{RuleContext, RuleError, RuleResult, TRANSCENDENTAL, cost, shape_text};
use crate::shape::{Dimension, TensorType};

/// The result's shape, given that without a reduction.
fn reduced(context: &RuleContext<'_>, shape: Vec<Dimension>) -> Result<Vec<Dimension>, RuleError> {
    match context.text("reduction")? {
        "none" => Ok(shape),
        "mean" | "sum" => Ok(Vec::new()),
        "batchmean" if context.operation.kind == OperationKind::KlDiv => {
            if shape.is_empty() {
                return Err(context.error("has no batch to divide by: both are single numbers"));
            }
            Ok(Vec::new())
        }
        other => {
            let also = if context.operation.kind == OperationKind::KlDiv { ", batchmean" } else { "" };
            Err(context.error(format!("takes as `reduction` none, mean, sum{also}, not {other:?}")))
        }
    }
}

/// Cross-entropy and negative log-likelihood of classes: the classes are the input's dimension 1 (0 where it has one only),
/// the targets have all the others.
pub(crate) fn class_loss(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, target) = (context.tensor("input")?, context.tensor("target")?);
    context.float(&input)?;
    context.indices(&target)?;
    context.integer("ignore_index")?;
    if input.shape.is_empty() {
        return Err(context.error(format!("needs a dimension of classes, and {input} has none")));
    }
    let place = usize::from(input.shape.len() > 1);
    let mut others = input.shape.clone();
    let classes = others.remove(place);
    let fits = others.len() == target.shape.len()
        && others.iter().zip(&target.shape).all(|(size, given)| size.could_equal(given));
    if !fits {
        return Err(context
            .error(format!(
                "takes targets of the shape {} for {input}, whose dimension {place} is the classes, not {target}",
                shape_text(&others)
            ))
            .hint("targets are class numbers; bring logits to [rows, classes] and targets to [rows] with `reshape`"));
    }
    if let Some(weight) = context.optional_tensor("weight")? {
        let fits = matches!(&weight.shape[..], [size] if size.could_equal(&classes));
        if !fits || weight.dtype != input.dtype {
            return Err(context.error(format!(
                "takes a `weight` for each class, {}[{classes}], not {weight}",
                input.dtype
            )));
        }
    }
    if context.operation.kind == OperationKind::CrossEntropy {
        let smoothing = context.number("label_smoothing")?.as_f64();
        if !(0.0..=1.0).contains(&smoothing) {
            return Err(
                context.error(format!("takes as `label_smoothing` a number from 0 to 1, not {smoothing}"))
            );
        }
    }
    let shape = reduced(context, others)?;
    let weight = if context.operation.kind == OperationKind::CrossEntropy { TRANSCENDENTAL + 2 } else { 1 };
    let flops = cost(&input, weight);
    context.one(input.dtype, shape, flops)
}

/// Losses element by element, with broadcasting.
pub(crate) fn element_loss(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, target) = (context.tensor("input")?, context.tensor("target")?);
    let mut shape = context.broadcast_shapes(&input.shape, &target.shape)?;
    // PyTorch warns; here a loss of n² elements for n of either is refused, because nobody sees how large it is.
    if shape.len() != input.shape.len().max(target.shape.len())
        || ![&input, &target].into_iter().any(|side| {
            side.shape.len() == shape.len() && side.shape.iter().zip(&shape).all(|(a, b)| a.could_equal(b))
        })
    {
        return Err(context
            .error(format!("takes a `target` of the input's shape, or one of them broadcast to the other: {input} and {target}"))
            .hint("`expand` or `unsqueeze` them first"));
    }
    let mut tensors = vec![input, target];
    match context.operation.kind {
        OperationKind::KlDiv => {
            context.boolean("log_target")?;
        }
        OperationKind::BinaryCrossEntropyWithLogits => {
            if shape_text(&tensors[0].shape) != shape_text(&tensors[1].shape) {
                return Err(context.error(format!(
                    "takes a `target` of the input's shape: {} is not of that of {}",
                    tensors[1], tensors[0]
                )));
            }
            for name in ["weight", "pos_weight"] {
                let Some(weight) = context.optional_tensor(name)? else { continue };
                let together = context.broadcast_shapes(&shape, &weight.shape)?;
                if together.len() != shape.len()
                    || !together.iter().zip(&shape).all(|(a, b)| a.could_equal(b))
                {
                    return Err(context.error(format!(
                        "takes a `{name}` that broadcasts to {}, not {weight}",
                        shape_text(&shape)
                    )));
                }
                shape = together;
                tensors.push(weight);
            }
        }
        _ => {}
    }
    for tensor in &tensors {
        context.float(tensor)?;
    }
    let strength = |tensor: &TensorType| {
        if tensor.shape.is_empty() { Strength::ZeroDimensional } else { Strength::Tensor }
    };
    let dtype: DType = result_type(tensors.iter().map(|tensor| (tensor.dtype, strength(tensor))));
    let all = TensorType { dtype, shape: shape.clone() };
    context.within_limits(&all, "loss for each element")?;
    let shape = reduced(context, shape)?;
    context.one(dtype, shape, cost(&all, TRANSCENDENTAL))
}

/// The dimension that is compared goes.
pub(crate) fn cosine_similarity(context: &mut RuleContext<'_>) -> RuleResult {
    let (a, b) = (context.tensor("x1")?, context.tensor("x2")?);
    context.float(&a)?;
    context.float(&b)?;
    context.number("eps")?;
    let shape = context.broadcast_shapes(&a.shape, &b.shape)?;
    let mut all = TensorType { dtype: a.dtype.promote(b.dtype), shape };
    let place = context.axis(&all, context.integer("dim")?)?;
    let flops = cost(&all, 6);
    if place < all.shape.len() {
        all.shape.remove(place);
    }
    context.one(all.dtype, all.shape, flops)
}
