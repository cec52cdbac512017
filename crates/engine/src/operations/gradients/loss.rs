//! Gradients of losses.

use pellucid_graph::OperationKind;

use super::super::Result;
use super::super::loss::{Classes, Compared, Pointwise, Reduction, length, log_sum_exp, product};
use super::super::number::store;
use super::super::reduction::lanes;
use super::backward::Backward;

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

/// With lengths `a`, `b` and cosine `c`: of `x` it is `y / (a b) − c x / a²`. A row that is compared several times sums its
/// parts in the order of the result.
pub(super) fn cosine_similarity(backward: &mut Backward<'_>) -> Result<()> {
    let compared = Compared::new(&backward.call)?;
    let gradient = backward.cotangent()?.to_vec_f64()?;
    for which in [0, 1] {
        backward.give(which, |backward| {
            let operand = backward.call.tensor(which)?;
            let (own, other) = (&compared.sides[which], &compared.sides[1 - which]);
            let mut out = vec![0.0; operand.elements()];
            let (mut x, mut y, mut products) = (Vec::new(), Vec::new(), Vec::new());
            let mut gradients = gradient.iter();
            compared.pairs(|a, b| {
                let (start, opposite) = if which == 0 { (a, b) } else { (b, a) };
                own.row(start, compared.length, &mut x);
                other.row(opposite, compared.length, &mut y);
                products.clone_from(&x);
                let (mine, theirs) = (length(&x), length(&y).max(compared.epsilon));
                let floored = mine.max(compared.epsilon);
                let cosine = product(&mut products, &y) / (floored * theirs);
                // As in PyTorch, the floor is no part of what is differentiated.
                let pull = if mine == 0.0 { 0.0 } else { cosine / (floored * mine) };
                let g = gradients.next().copied().unwrap_or(0.0);
                for (count, (x, y)) in x.iter().zip(&y).enumerate() {
                    let place = own.place(start, count);
                    if let Some(out) = out.get_mut(place) {
                        *out += g * (y / (floored * theirs) - pull * x);
                    }
                }
            });
            store(out, operand.shape(), operand.dtype())
        })?;
    }
    Ok(())
}
