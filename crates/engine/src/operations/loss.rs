//! Losses. Computed in `f64`, rounded once; sums run in an order that depends on nothing but the number of their terms.

use pellucid_graph::OperationKind;

use super::Result;
use super::arguments::{Call, Operand};
use super::number::{result_type, store};
use super::reduction::lanes;
use super::walk::{broadcast_shape, broadcast_strides, gather, walk};
use crate::tensor::{Tensor, element_count};

/// How the terms of a loss become its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    None,
    Mean,
    Sum,
    /// The sum divided by the first dimension's size.
    BatchMean,
}

impl Reduction {
    pub(super) fn new(call: &Call<'_>, place: usize) -> Result<Reduction> {
        match call.text(place)? {
            "none" => Ok(Reduction::None),
            "mean" => Ok(Reduction::Mean),
            "sum" => Ok(Reduction::Sum),
            "batchmean" if call.kind() == OperationKind::KlDiv => Ok(Reduction::BatchMean),
            other => Err(call.error(format!("`reduction` is none, mean or sum, not {other:?}"))),
        }
    }
}

/// A loss of logits or log-probabilities against class numbers.
pub(super) struct Classes {
    /// Rows of classes, in the order of the targets.
    pub(super) rows: Tensor,
    /// The dimensions of `rows` in the input's order.
    pub(super) back: Vec<usize>,
    pub(super) count: usize,
    weight: Option<Vec<f64>>,
    targets: Vec<i64>,
    ignored: i64,
    pub(super) reduction: Reduction,
    smoothing: f64,
    pub(super) shape: Vec<usize>,
}

/// What a row of classes is held to.
pub(super) struct Target {
    class: usize,
    /// The class's weight.
    pub(super) weight: f64,
}

impl Classes {
    pub(super) fn new(call: &Call<'_>) -> Result<Classes> {
        let (input, target) = (call.tensor(0)?, call.tensor(1)?);
        let place = usize::from(input.rank() > 1);
        let Some(&count) = input.shape().get(place) else {
            return Err(call.error("there is no dimension of classes"));
        };
        let others: Vec<usize> = (0..input.rank()).filter(|&other| other != place).collect();
        let shape: Vec<usize> = others.iter().map(|&other| input.shape()[other]).collect();
        if shape != target.shape() || target.dtype().is_float() {
            return Err(call.error(format!(
                "targets of {} {:?} are no class numbers for an input of shape {:?}",
                target.dtype(),
                target.shape(),
                input.shape()
            )));
        }
        let weight = call.optional_tensor(2)?.map(|weight| weight.to_vec_f64()).transpose()?;
        if weight.as_ref().is_some_and(|weight| weight.len() != count) {
            return Err(call.error(format!("there are {count} classes, and not as many weights")));
        }
        let order: Vec<usize> = others.into_iter().chain([place]).collect();
        let back = (0..order.len()).filter_map(|to| order.iter().position(|&from| from == to)).collect();
        let smooth = call.kind() == OperationKind::CrossEntropy;
        Ok(Classes {
            rows: input.view(input.data().permute(order)?),
            back,
            count,
            weight,
            targets: target.integers()?.into_vec(),
            ignored: call.integer(3)?,
            reduction: Reduction::new(call, 4)?,
            smoothing: if smooth { call.number(5)?.as_f64() } else { 0.0 },
            shape,
        })
    }

    /// The target of each row; none: it is ignored.
    pub(super) fn targets(&self, call: &Call<'_>) -> Result<Vec<Option<Target>>> {
        let target = |&class: &i64| {
            if class == self.ignored {
                return Ok(None);
            }
            match usize::try_from(class) {
                Ok(place) if place < self.count => {
                    Ok(Some(Target { class: place, weight: self.weight(place) }))
                }
                _ => Err(call
                    .error(format!("the target {class} is not one of the {} classes", self.count))
                    .hint(format!(
                        "classes count from 0; rows that do not count have `ignore_index`, {}",
                        self.ignored
                    ))),
            }
        };
        self.targets.iter().map(target).collect()
    }

    fn weight(&self, class: usize) -> f64 {
        self.weight.as_ref().and_then(|weight| weight.get(class).copied()).unwrap_or(1.0)
    }

    /// How much each class of a row counts: the loss is minus the sum of these times log-probabilities.
    pub(super) fn weigh(&self, target: &Target, out: &mut [f64]) {
        let share = self.smoothing / self.count.max(1) as f64;
        for (class, out) in out.iter_mut().enumerate() {
            *out = if share == 0.0 { 0.0 } else { share * self.weight(class) };
        }
        out.iter_mut()
            .skip(target.class)
            .take(1)
            .for_each(|out| *out += (1.0 - self.smoothing) * target.weight);
    }

    /// What a mean divides by: the weights of the rows that count.
    pub(super) fn total(&self, targets: &[Option<Target>]) -> f64 {
        let weights: Vec<f64> =
            targets.iter().map(|target| target.as_ref().map_or(0.0, |target| target.weight)).collect();
        lanes(&weights, |weight| weight)
    }
}

/// `log Σ exp` of a row.
pub(super) fn log_sum_exp(row: &[f64]) -> f64 {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shift = if largest.is_finite() { largest } else { 0.0 };
    lanes(row, |x| (x - shift).exp()).ln() + shift
}

pub(super) fn class_loss(call: &Call<'_>) -> Result<Tensor> {
    let classes = Classes::new(call)?;
    let targets = classes.targets(call)?;
    let logits = call.kind() == OperationKind::CrossEntropy;
    let elements = classes.rows.doubles()?;
    let mut weights = vec![0.0; classes.count];
    let mut losses = Vec::with_capacity(targets.len());
    for (row, target) in elements.chunks_exact(classes.count.max(1)).zip(&targets) {
        let Some(target) = target else {
            losses.push(0.0);
            continue;
        };
        let shift = if logits { log_sum_exp(row) } else { 0.0 };
        classes.weigh(target, &mut weights);
        // What does not count may be infinite.
        let terms = row.iter().zip(&weights).filter(|(_, weight)| **weight != 0.0);
        losses.push(terms.fold(0.0, |sum, (x, weight)| sum - weight * (x - shift)));
    }
    let dtype = classes.rows.dtype();
    match classes.reduction {
        Reduction::None => store(losses, &classes.shape, dtype),
        Reduction::Mean => store(vec![lanes(&losses, |loss| loss) / classes.total(&targets)], &[], dtype),
        _ => store(vec![lanes(&losses, |loss| loss)], &[], dtype),
    }
}

/// The operands of a loss element by element, each broadcast to the common shape.
pub(super) struct Pointwise {
    pub(super) shape: Vec<usize>,
    pub(super) input: Vec<f64>,
    pub(super) target: Vec<f64>,
    /// A weight for each element; none: 1.
    weight: Option<Vec<f64>>,
    /// How much a target of 1 counts beside one of 0; none: as much.
    pos_weight: Option<Vec<f64>>,
    pub(super) reduction: Reduction,
    log_target: bool,
}

impl Pointwise {
    pub(super) fn new(call: &Call<'_>) -> Result<Pointwise> {
        let (input, target) = (call.tensor(0)?, call.tensor(1)?);
        let binary = call.kind() == OperationKind::BinaryCrossEntropyWithLogits;
        let (weight, pos_weight) =
            if binary { (call.optional_tensor(2)?, call.optional_tensor(4)?) } else { (None, None) };
        let extra = [&weight, &pos_weight].into_iter().flatten().map(Tensor::shape);
        let shapes: Vec<&[usize]> = [input.shape(), target.shape()].into_iter().chain(extra).collect();
        let shape = broadcast_shape(&shapes);
        let shape =
            shape.ok_or_else(|| call.error(format!("the shapes {shapes:?} do not broadcast together")))?;
        element_count(&shape)?;
        let full = |tensor: &Tensor| -> Result<Vec<f64>> {
            let elements = tensor.doubles()?;
            if tensor.shape() == shape {
                return Ok(elements.into_vec());
            }
            Ok(gather(&elements, 0, &shape, &broadcast_strides(tensor.shape(), &shape)))
        };
        Ok(Pointwise {
            input: full(&input)?,
            target: full(&target)?,
            weight: weight.as_ref().map(full).transpose()?,
            pos_weight: pos_weight.as_ref().map(full).transpose()?,
            reduction: Reduction::new(call, if binary { 3 } else { 2 })?,
            log_target: call.kind() == OperationKind::KlDiv && call.boolean(3)?,
            shape,
        })
    }

    /// A function of each element's input, target, weight and weight of positives.
    pub(super) fn map(&self, function: impl Fn(f64, f64, f64, f64) -> f64) -> Vec<f64> {
        let at = |weights: &Option<Vec<f64>>, place: usize| {
            weights.as_ref().and_then(|weights| weights.get(place).copied()).unwrap_or(1.0)
        };
        let pairs = self.input.iter().zip(&self.target).enumerate();
        pairs
            .map(|(place, (&x, &t))| function(x, t, at(&self.weight, place), at(&self.pos_weight, place)))
            .collect()
    }

    /// The loss of each element.
    fn losses(&self, kind: OperationKind) -> Vec<f64> {
        match kind {
            OperationKind::MseLoss => self.map(|x, t, _, _| (x - t) * (x - t)),
            OperationKind::KlDiv if self.log_target => self.map(|x, t, _, _| t.exp() * (t - x)),
            // 0 log 0 is 0.
            OperationKind::KlDiv => self.map(|x, t, _, _| if t == 0.0 { -t * x } else { t * t.ln() - t * x }),
            _ => self.map(|x, t, weight, positive| {
                weight * ((1.0 - t) * x + (1.0 + (positive - 1.0) * t) * softplus(-x))
            }),
        }
    }

    /// The gradients of each element's loss by the input (0) or the target (1). Weights are constants, as in PyTorch.
    pub(super) fn slopes(&self, kind: OperationKind, of: usize) -> Vec<f64> {
        match (kind, of) {
            (OperationKind::MseLoss, 0) => self.map(|x, t, _, _| 2.0 * (x - t)),
            (OperationKind::MseLoss, _) => self.map(|x, t, _, _| 2.0 * (t - x)),
            (OperationKind::KlDiv, 0) if self.log_target => self.map(|_, t, _, _| -t.exp()),
            (OperationKind::KlDiv, 0) => self.map(|_, t, _, _| -t),
            (OperationKind::KlDiv, _) if self.log_target => self.map(|x, t, _, _| t.exp() * (t - x + 1.0)),
            (OperationKind::KlDiv, _) => self.map(|x, t, _, _| t.ln() + 1.0 - x),
            (_, 0) => self.map(|x, t, weight, positive| {
                weight * ((1.0 - t) - (1.0 + (positive - 1.0) * t) / (1.0 + x.exp()))
            }),
            _ => self.map(|x, _, weight, positive| weight * ((positive - 1.0) * softplus(-x) - x)),
        }
    }

    /// What the sum of the losses is divided by.
    pub(super) fn divisor(&self) -> f64 {
        match self.reduction {
            Reduction::Mean => self.input.len() as f64,
            Reduction::BatchMean => self.shape.first().copied().unwrap_or(1) as f64,
            _ => 1.0,
        }
    }
}

/// `log(1 + exp(x))`, which neither overflows nor loses a small result.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

pub(super) fn element_loss(call: &Call<'_>) -> Result<Tensor> {
    let places =
        if call.kind() == OperationKind::BinaryCrossEntropyWithLogits { &[0, 1, 2, 4][..] } else { &[0, 1] };
    let mut operands = Vec::new();
    for &place in places {
        operands.extend(call.optional_tensor(place)?.map(Operand::Tensor));
    }
    let dtype = result_type(&operands.iter().collect::<Vec<_>>());
    if !dtype.is_float() {
        return Err(call.error(format!("needs floating-point numbers, not {dtype}")));
    }
    let loss = Pointwise::new(call)?;
    let losses = loss.losses(call.kind());
    match loss.reduction {
        Reduction::None => store(losses, &loss.shape, dtype),
        _ => store(vec![lanes(&losses, |loss| loss) / loss.divisor()], &[], dtype),
    }
}

/// One of two tensors whose rows are compared, broadcast without a copy.
pub(super) struct Side {
    elements: Vec<f64>,
    /// How far it is from one row to the next, along each dimension of the result.
    strides: Vec<isize>,
    /// How far it is from one element of a row to the next.
    step: isize,
}

impl Side {
    /// A row, by the place of its first element.
    pub(super) fn row(&self, start: usize, length: usize, row: &mut Vec<f64>) {
        row.clear();
        let places = (0..length).map(|count| self.place(start, count));
        row.extend(places.map(|place| self.elements.get(place).copied().unwrap_or(0.0)));
    }

    /// The place of an element of a row.
    pub(super) fn place(&self, start: usize, count: usize) -> usize {
        start + count * self.step.unsigned_abs()
    }
}

/// Two tensors whose rows along a dimension are compared.
pub(super) struct Compared {
    pub(super) sides: [Side; 2],
    /// Elements of a row.
    pub(super) length: usize,
    /// The result's shape.
    pub(super) shape: Vec<usize>,
    /// The least that a length counts as.
    pub(super) epsilon: f64,
}

impl Compared {
    pub(super) fn new(call: &Call<'_>) -> Result<Compared> {
        let (a, b) = (call.tensor(0)?, call.tensor(1)?);
        let full = broadcast_shape(&[a.shape(), b.shape()]).ok_or_else(|| {
            call.error(format!("the shapes {:?} and {:?} do not broadcast together", a.shape(), b.shape()))
        })?;
        let place = call.dimension(call.integer(2)?, full.len())?;
        let side = |tensor: &Tensor| -> Result<Side> {
            let mut strides = broadcast_strides(tensor.shape(), &full);
            let step = if place < strides.len() { strides.remove(place) } else { 0 };
            Ok(Side { elements: tensor.to_vec_f64()?, strides, step })
        };
        let sides = [side(&a)?, side(&b)?];
        let mut shape = full;
        let length = if place < shape.len() { shape.remove(place) } else { 1 };
        element_count(&shape)?;
        Ok(Compared { sides, length, shape, epsilon: call.number(3)?.as_f64() })
    }

    /// Calls `visit` with the places where a pair of rows begins, in the order of the result.
    pub(super) fn pairs(&self, mut visit: impl FnMut(usize, usize)) {
        let strides = [&self.sides[0].strides[..], &self.sides[1].strides[..]];
        walk(&self.shape, strides, [0, 0], |[a, b], count, [step_a, step_b]| {
            for at in 0..count as isize {
                visit((a + at * step_a) as usize, (b + at * step_b) as usize);
            }
        });
    }
}

pub(super) fn cosine_similarity(call: &Call<'_>) -> Result<Tensor> {
    let compared = Compared::new(call)?;
    let dtype = call.tensor(0)?.dtype().promote(call.tensor(1)?.dtype());
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut cosines = Vec::with_capacity(element_count(&compared.shape)?);
    compared.pairs(|a, b| {
        compared.sides[0].row(a, compared.length, &mut x);
        compared.sides[1].row(b, compared.length, &mut y);
        let lengths = length(&x).max(compared.epsilon) * length(&y).max(compared.epsilon);
        cosines.push(product(&mut x, &y) / lengths);
    });
    store(cosines, &compared.shape, dtype)
}

/// The inner product; it uses up its left side.
pub(super) fn product(x: &mut [f64], y: &[f64]) -> f64 {
    x.iter_mut().zip(y).for_each(|(x, y)| *x *= y);
    lanes(x, |product| product)
}

/// The Euclidean length.
pub(super) fn length(row: &[f64]) -> f64 {
    lanes(row, |x| x * x).sqrt()
}
