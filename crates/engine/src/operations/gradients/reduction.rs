//! Gradients of reductions and of running sums and products.

use pellucid_graph::{DType, OperationKind};

use super::super::Result;
use super::super::number::store;
use super::backward::{Backward, compute, expand, reshape, transpose, zeros};
use super::elementwise::{combined, sign};
use crate::tensor::Tensor;

/// What an operation reduces.
struct Reduced {
    input: Tensor,
    /// The reduced dimensions.
    places: Vec<i64>,
    /// Elements of one row.
    count: usize,
    /// The result's shape with the reduced dimensions kept, of size 1.
    kept: Vec<usize>,
}

impl Reduced {
    /// `dim`: the parameter that names the dimensions; none named: all.
    fn new(backward: &Backward<'_>, dim: usize) -> Result<Reduced> {
        let input = backward.call.tensor(0)?;
        let named = backward.call.optional_integers(dim)?.unwrap_or_default();
        let all = (0..input.rank()).collect();
        let places = if named.is_empty() { all } else { backward.call.dimensions(&named, input.rank())? };
        let reduced = |place: usize| places.contains(&place);
        let sizes = || input.shape().iter().copied().enumerate();
        let count = sizes().filter(|(place, _)| reduced(*place)).map(|(_, size)| size).product();
        let kept = sizes().map(|(place, size)| if reduced(place) { 1 } else { size }).collect();
        let places =
            places.iter().filter(|&&place| place < input.rank()).map(|&place| place as i64).collect();
        Ok(Reduced { places, count, kept, input })
    }

    /// A result, or its gradient, that can be broadcast to the input's shape.
    fn raised(&self, reduced: &Tensor) -> Result<Tensor> {
        reshape(reduced, &self.kept)
    }

    /// The same in the input's shape.
    fn repeated(&self, reduced: &Tensor) -> Result<Tensor> {
        expand(&self.raised(reduced)?, self.input.shape())
    }

    /// A reduction of a tensor of the input's shape, with the dimensions kept.
    fn reduce(&self, kind: OperationKind, tensor: &Tensor) -> Result<Tensor> {
        if self.places.is_empty() {
            return Ok(tensor.clone());
        }
        compute(kind, [tensor.into(), self.places.clone().into(), true.into()])
    }
}

pub(super) fn sum_or_mean(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let reduced = Reduced::new(backward, 1)?;
        let mut gradient = backward.cotangent()?;
        if backward.kind() == OperationKind::Mean {
            gradient = compute(OperationKind::Div, [(&gradient).into(), (reduced.count as f64).into()])?;
        }
        reduced.repeated(&gradient)
    })
}

/// `2 (x − mean) / (n − correction)`; of the standard deviation half of that, divided by it, and nothing where it is 0.
pub(super) fn variance(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let reduced = Reduced::new(backward, 1)?;
        let correction = backward.call.number(2)?.as_f64();
        let mut gradient = reduced.raised(&backward.cotangent()?)?.cast(DType::F64)?;
        if backward.kind() == OperationKind::Std {
            let result = reduced.raised(&backward.output(0)?)?;
            gradient =
                combined(&gradient, &result, &result, |g, y, _| if y == 0.0 { 0.0 } else { g / (2.0 * y) })?;
        }
        // With no degree of freedom left the factor is infinite, as in PyTorch.
        let factor = 2.0 / (reduced.count as f64 - correction).max(0.0);
        let wide = reduced.input.cast(DType::F64)?;
        let mean = reduced.reduce(OperationKind::Mean, &wide)?;
        let gradient = expand(&gradient, wide.shape())?;
        combined(&gradient, &wide, &mean, |g, x, mean| g * (factor * (x - mean)))
    })
}

/// Shared equally by all that are as extreme.
pub(super) fn extremum(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let reduced = Reduced::new(backward, 1)?;
        let (gradient, result) = (backward.cotangent()?, reduced.raised(&backward.output(0)?)?);
        shared(&reduced, &gradient, &reduced.input, &result)
    })
}

/// The gradient of each row shared equally by the elements that equal the row's result.
fn shared(reduced: &Reduced, gradient: &Tensor, elements: &Tensor, result: &Tensor) -> Result<Tensor> {
    let equal = compute(OperationKind::Eq, [elements.into(), result.into()])?;
    let count = reduced.reduce(OperationKind::Sum, &equal.cast(DType::F64)?)?;
    combined(&reduced.repeated(gradient)?, &equal, &count, |g, equal, count| g / count * equal)
}

/// Of the p-norm; 0 where the norm is 0.
pub(super) fn norm(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let reduced = Reduced::new(backward, 2)?;
        let p = backward.call.number(1)?.as_f64();
        let (gradient, norm) = (backward.cotangent()?, reduced.raised(&backward.output(0)?)?);
        if p.is_infinite() {
            let magnitudes = compute(OperationKind::Abs, [(&reduced.input).into()])?;
            let gradient = shared(&reduced, &gradient, &magnitudes, &norm)?;
            return combined(&gradient, &reduced.input, &norm, |g, x, _| g * sign(x));
        }
        let gradient = reduced.repeated(&gradient)?;
        let along = |slope: &dyn Fn(f64, f64) -> f64| {
            combined(
                &gradient,
                &reduced.input,
                &norm,
                |g, x, norm| if norm == 0.0 { 0.0 } else { g * slope(x, norm) },
            )
        };
        if p == 0.0 {
            zeros(reduced.input.shape(), gradient.dtype())
        } else if p == 1.0 {
            combined(&gradient, &reduced.input, &norm, |g, x, _| g * sign(x))
        } else if p == 2.0 {
            along(&|x, norm| x / norm)
        } else {
            along(&|x, norm| if x == 0.0 { 0.0 } else { sign(x) * (x.abs() / norm).powf(p - 1.0) })
        }
    })
}

pub(super) fn log_sum_exp(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let reduced = Reduced::new(backward, 1)?;
        let result = reduced.raised(&backward.output(0)?)?;
        let gradient = reduced.repeated(&backward.cotangent()?)?;
        combined(&gradient, &reduced.input, &result, |g, x, y| g * (x - y).exp())
    })
}

/// Runs `work` on rows along a dimension: those of each tensor (all of one shape), and the result's.
pub(super) fn rows<const N: usize>(
    tensors: [&Tensor; N],
    place: usize,
    mut work: impl FnMut([&[f64]; N], &mut [f64]),
) -> Result<Tensor> {
    let first = tensors[0];
    let (shape, dtype) = (first.shape(), first.dtype());
    let last = shape.len().saturating_sub(1);
    if first.elements() == 0 {
        return Ok(first.clone());
    }
    let length = shape.get(place).copied().unwrap_or(1).max(1);
    let mut moved = Vec::with_capacity(N);
    for tensor in tensors {
        moved.push(if place < last { transpose(tensor, place, last)? } else { tensor.clone() });
    }
    let elements: Vec<_> = moved.iter().map(Tensor::doubles).collect::<Result<_>>()?;
    let mut out = vec![0.0; first.elements()];
    for (at, row) in out.chunks_exact_mut(length).enumerate() {
        let of = |which: usize| {
            elements.get(which).and_then(|all| all.get(at * length..(at + 1) * length)).unwrap_or(&[])
        };
        work(std::array::from_fn(of), row);
    }
    let moved_shape = moved.first().map_or_else(|| shape.to_vec(), |tensor| tensor.shape().to_vec());
    let out = store(out, &moved_shape, dtype)?;
    if place < last { transpose(&out, place, last) } else { Ok(out) }
}

/// Sums from the end.
pub(super) fn running_sum(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let gradient = backward.cotangent()?;
        let place = backward.call.dimension(backward.call.integer(1)?, gradient.rank())?;
        rows([&gradient], place, |[g], out| {
            let mut sum = 0.0;
            for (out, g) in out.iter_mut().zip(g).rev() {
                sum += g;
                *out = sum;
            }
        })
    })
}

/// Of products, running or not: exact where elements are 0, because nothing is divided by them.
pub(super) fn product(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (input, gradient) = (backward.call.tensor(0)?, backward.cotangent()?);
        let running = backward.kind() == OperationKind::CumProd;
        let Some(dim) = backward.call.optional_integer(1)? else {
            let flat = reshape(&input, &[input.elements()])?;
            let gradient = expand(&reshape(&gradient, &[1])?, flat.shape())?;
            return reshape(
                &rows([&gradient, &flat], 0, |[g, x], out| others(g, x, out, false))?,
                input.shape(),
            );
        };
        let place = backward.call.dimension(dim, input.rank())?;
        let gradient = if running { gradient } else { Reduced::new(backward, 1)?.repeated(&gradient)? };
        rows([&gradient, &input], place, |[g, x], out| others(g, x, out, running))
    })
}

/// For each element the product of those before it, times what follows: of a whole product the others' product; of a
/// running one `Σ_i g_i · Π_{k<j≤i} x_j`, which from the end is `r_k = g_k + x_{k+1} · r_{k+1}`.
fn others(g: &[f64], x: &[f64], out: &mut [f64], running: bool) {
    let mut before = 1.0;
    for (out, x) in out.iter_mut().zip(x) {
        *out = before;
        before *= x;
    }
    // From the end: of a whole product the product so far, of a running one the sum so far times the next element.
    let mut after = if running { 0.0 } else { 1.0 };
    for ((out, g), x) in out.iter_mut().zip(g).zip(x).rev() {
        if running {
            let sum = g + after;
            *out *= sum;
            after = x * sum;
        } else {
            *out *= g * after;
            after *= x;
        }
    }
}
