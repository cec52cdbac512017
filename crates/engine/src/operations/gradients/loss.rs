//! Gradients of losses.

use pellucid_graph::OperationKind;

use super::super::Result;
use super::super::loss::{Classes, Compared, Pointwise, Reduction, length, log_sum_exp};
use super::super::number::store;
use super::super::reduction::lanes;
use super::backward::{Backward, reshape, transpose};
use crate::tensor::Tensor;

/// With `w` the classes' weights in a row's loss `−Σ w log p`: `Σw · softmax − w` of logits, `−w` of log-probabilities.
pub(super) fn class_loss(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let classes = Classes::new(&backward.call)?;
        let targets = classes.targets(&backward.call)?;
        let logits = backward.kind() == OperationKind::CrossEntropy;
        let gradient = backward.cotangent()?.to_vec_f64()?;
        let divisor = if classes.reduction == Reduction::Mean { classes.total(&targets) } else { 1.0 };
        let of_row = |row: usize| {
            let row = if classes.reduction == Reduction::None { row } else { 0 };
            gradient.get(row).copied().unwrap_or(0.0) / divisor
        };
        let elements = classes.rows.doubles()?;
        let mut out = vec![0.0; elements.len()];
        let mut weights = vec![0.0; classes.count];
        let length = classes.count.max(1);
        let rows = elements.chunks_exact(length).zip(out.chunks_exact_mut(length)).zip(&targets);
        for (row, ((x, out), target)) in rows.enumerate() {
            let Some(target) = target else { continue };
            classes.weigh(target, &mut weights);
            let g = of_row(row);
            if logits {
                let (shift, sum) = (log_sum_exp(x), lanes(&weights, |weight| weight));
                for (out, (x, weight)) in out.iter_mut().zip(x.iter().zip(&weights)) {
                    *out = g * (sum * (x - shift).exp() - weight);
                }
            } else {
                out.iter_mut().zip(&weights).for_each(|(out, weight)| *out = -g * weight);
            }
        }
        let out = store(out, classes.rows.shape(), classes.rows.dtype())?;
        Ok(out.view(out.data().permute(classes.back.clone())?))
    })
}

pub(super) fn element_loss(backward: &mut Backward<'_>) -> Result<()> {
    let kind = backward.kind();
    let loss = Pointwise::new(&backward.call)?;
    let cotangent = backward.cotangent()?;
    let gradient = cotangent.to_vec_f64()?;
    for parameter in [0, 1] {
        backward.give(parameter, |_| {
            let mut slopes = loss.slopes(kind, parameter);
            match loss.reduction {
                Reduction::None => slopes.iter_mut().zip(&gradient).for_each(|(slope, g)| *slope *= g),
                _ => {
                    let g = gradient.first().copied().unwrap_or(0.0) / loss.divisor();
                    slopes.iter_mut().for_each(|slope| *slope *= g);
                }
            }
            store(slopes, &loss.shape, cotangent.dtype())
        })?;
    }
    Ok(())
}

/// With lengths `a`, `b` and cosine `c`: of `x` it is `y / (a b) − c x / a²`.
pub(super) fn cosine_similarity(backward: &mut Backward<'_>) -> Result<()> {
    let compared = Compared::new(&backward.call)?;
    let gradient = backward.cotangent()?;
    let last = compared.shape.len().saturating_sub(1);
    // The gradient in the order of the compared rows: the compared dimension swapped with the last, then gone.
    let mut kept = compared.shape.clone();
    kept.iter_mut().skip(compared.place).take(1).for_each(|size| *size = 1);
    let mut raised = reshape(&gradient, &kept)?;
    if compared.place < last {
        raised = transpose(&raised, compared.place, last)?;
    }
    let gradient = raised.to_vec_f64()?;
    for which in [0, 1] {
        backward.give(which, |_| {
            let (own, other) = (&compared.pair[which], &compared.pair[1 - which]);
            let dtype = raised.dtype();
            if compared.length == 0 {
                return own.cast(dtype);
            }
            let (x, y) = (own.doubles()?, other.doubles()?);
            let mut out = Vec::with_capacity(x.len());
            let mut products = Vec::new();
            let rows = x.chunks_exact(compared.length).zip(y.chunks_exact(compared.length));
            for ((x, y), g) in rows.zip(&gradient) {
                products.clear();
                products.extend(x.iter().zip(y).map(|(x, y)| x * y));
                let (own, other) = (length(x), length(y).max(compared.epsilon));
                let floored = own.max(compared.epsilon);
                let cosine = lanes(&products, |product| product) / (floored * other);
                // As in PyTorch, the floor is no part of what is differentiated.
                let pull = if own == 0.0 { 0.0 } else { cosine / (floored * own) };
                out.extend(x.iter().zip(y).map(|(x, y)| g * (y / (floored * other) - pull * x)));
            }
            let found = store(out, own.shape(), dtype)?;
            if compared.place < last {
                transpose(&found, compared.place, last)
            } else {
                Ok::<Tensor, _>(found)
            }
        })?;
    }
    Ok(())
}
