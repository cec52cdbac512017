//! Reductions over a sweep's cells: one after another, in the cells' order, holding the accumulator alone.
//!
//! The order is that of the cells and nothing else, so the result does not depend on how cells share passes.

use super::region::RegionKind;
use super::{Bound, Expander};
use crate::operation::{Argument, OperationKind, Size};
use crate::program::{NodeId, Value};
use crate::scalar::Scalar;
use crate::surface::{Reduce, Reduction};

/// Where the nodes of a reduction are written: the reduction, and the cell that is being added.
#[derive(Clone, Copy)]
struct At {
    id: NodeId,
    cell: usize,
}

/// The running mean and sum of squared distances of samples, and how many there were.
#[derive(Clone, Copy)]
struct Moments {
    count: Value,
    mean: Value,
    squares: Value,
}

fn whole(number: i64) -> Argument {
    Argument::Scalar(Scalar::Int(number))
}

impl<'a> Expander<'a> {
    pub(super) fn reduce(&mut self, id: NodeId, reduce: &'a Reduce) {
        let in_sweep = self.frames.last().is_some_and(|frame| frame.kind == RegionKind::Sweep);
        if !in_sweep || self.steps == Some(self.frames.len()) {
            let hint = "put it into the body of the sweep itself, or of a trace in it".to_owned();
            return self.fault(id, "it stands in no sweep's body", Some(hint));
        }
        if reduce.reduction == Reduction::Covariance && !reduce.dim.is_empty() {
            let hint = "all dimensions but the last are samples: move the variables to the end".to_owned();
            return self.fault(id, "a covariance takes no `dim`", Some(hint));
        }
        if reduce.reduction == Reduction::TopK && (reduce.k == 0 || i64::try_from(reduce.k).is_err()) {
            return self.fault(id, format!("`k` is {}; it must be at least 1", reduce.k), None);
        }
        // Its value is known outside the sweep.
        self.depth[id.index()] = self.top().saturating_sub(1);
        let Some(values) = self.in_all_cells(id, reduce.value) else { return };
        let each = self.frames.last().map_or(1, |frame| frame.lengths.iter().product::<u64>()) as usize;
        let mut outputs: Vec<Vec<Value>> = Vec::new();
        for (around, values) in values.chunks(each.max(1)).enumerate() {
            let first = around * each;
            let Some(made) = self.fold(id, reduce, values, first) else { return };
            outputs.resize(made.len(), Vec::new());
            for (output, value) in outputs.iter_mut().zip(made) {
                output.push(value);
            }
        }
        self.bound[id.index()] = Bound::Outputs(outputs);
    }

    fn fold(&mut self, id: NodeId, reduce: &Reduce, values: &[Value], first: usize) -> Option<Vec<Value>> {
        let all = values.iter().enumerate().map(|(place, &value)| (At { id, cell: first + place }, value));
        let last = At { id, cell: first + values.len().saturating_sub(1) };
        let dim = || Argument::Integers(reduce.dim.clone());
        match reduce.reduction {
            Reduction::Sum | Reduction::Mean => {
                let (mut sum, mut count) = (None, None);
                for (at, value) in all {
                    let own = match reduce.dim.is_empty() {
                        // Truth values count as numbers from the first one on.
                        true => self.step(at, OperationKind::Mul, value, whole(1))?,
                        false => self.node(at, OperationKind::Sum, vec![Argument::Value(value), dim()])?,
                    };
                    sum = Some(self.added(at, sum, own)?);
                    if reduce.reduction == Reduction::Mean && !reduce.dim.is_empty() {
                        let own = self.count_of(at, value, &reduce.dim)?;
                        count = Some(self.added(at, count, own)?);
                    }
                }
                let count = count.map_or(whole(i64::try_from(values.len()).ok()?), Argument::Value);
                match reduce.reduction {
                    Reduction::Mean => Some(vec![self.step(last, OperationKind::Div, sum?, count)?]),
                    _ => Some(vec![sum?]),
                }
            }
            Reduction::Amin | Reduction::Amax => {
                let (within, between) = match reduce.reduction {
                    Reduction::Amin => (OperationKind::Amin, OperationKind::Minimum),
                    _ => (OperationKind::Amax, OperationKind::Maximum),
                };
                let mut extreme: Option<Value> = None;
                for (at, value) in all {
                    let own = match reduce.dim.is_empty() {
                        true => value,
                        false => self.node(at, within, vec![Argument::Value(value), dim()])?,
                    };
                    extreme = Some(match extreme {
                        None => own,
                        Some(extreme) => self.step(at, between, extreme, Argument::Value(own))?,
                    });
                }
                Some(vec![extreme?])
            }
            Reduction::Var if reduce.dim.is_empty() => self.variance(reduce, all, values.len(), last),
            Reduction::Var | Reduction::Covariance => {
                let mut moments: Option<Moments> = None;
                for (at, value) in all {
                    let own = match reduce.reduction {
                        Reduction::Var => self.moments_along(at, value, &reduce.dim)?,
                        _ => self.moments_of_rows(at, value)?,
                    };
                    let outer = reduce.reduction == Reduction::Covariance;
                    moments = Some(match moments {
                        None => own,
                        Some(moments) => self.combined(at, moments, own, outer)?,
                    });
                }
                let moments = moments?;
                let free =
                    self.step(last, OperationKind::Sub, moments.count, Argument::Scalar(reduce.correction))?;
                Some(vec![self.step(last, OperationKind::Div, moments.squares, Argument::Value(free))?])
            }
            Reduction::TopK => self.top_k(reduce, all, last),
        }
    }

    fn node(&mut self, at: At, kind: OperationKind, given: Vec<Argument>) -> Option<Value> {
        self.operation(at.id, at.cell, kind.name(), kind, given)
    }

    fn step(&mut self, at: At, kind: OperationKind, left: Value, right: Argument) -> Option<Value> {
        self.node(at, kind, vec![Argument::Value(left), right])
    }

    fn added(&mut self, at: At, sum: Option<Value>, own: Value) -> Option<Value> {
        match sum {
            None => Some(own),
            Some(sum) => self.step(at, OperationKind::Add, sum, Argument::Value(own)),
        }
    }

    /// How many samples a value has along some dimensions: 0-dimensional, i64.
    fn count_of(&mut self, at: At, value: Value, dim: &[i64]) -> Option<Value> {
        let sizes = dim.iter().map(|&dimension| Size::Of { value, dimension }).collect();
        let ones = vec![Argument::Sizes(sizes), whole(1), Argument::DType(crate::dtype::DType::I64)];
        let ones = self.node(at, OperationKind::Full, ones)?;
        self.node(at, OperationKind::Sum, vec![Argument::Value(ones)])
    }

    /// Welford's recurrence: mean += (x − mean) / k, squares += (x − old mean)(x − new mean).
    fn variance(
        &mut self,
        reduce: &Reduce,
        all: impl Iterator<Item = (At, Value)>,
        count: usize,
        last: At,
    ) -> Option<Vec<Value>> {
        let mut state: Option<(Value, Value)> = None;
        for (number, (at, value)) in all.enumerate() {
            let Some((mean, squares)) = state else {
                let none = self.step(at, OperationKind::Sub, value, Argument::Value(value))?;
                state = Some((value, none));
                continue;
            };
            let before = self.step(at, OperationKind::Sub, value, Argument::Value(mean))?;
            let part = self.step(at, OperationKind::Div, before, whole(number as i64 + 1))?;
            let mean = self.step(at, OperationKind::Add, mean, Argument::Value(part))?;
            let after = self.step(at, OperationKind::Sub, value, Argument::Value(mean))?;
            let product = self.step(at, OperationKind::Mul, before, Argument::Value(after))?;
            let squares = self.step(at, OperationKind::Add, squares, Argument::Value(product))?;
            state = Some((mean, squares));
        }
        let free = count as f64 - reduce.correction.as_f64();
        let free = Argument::Scalar(Scalar::Float(free.max(0.0)));
        Some(vec![self.step(last, OperationKind::Div, state?.1, free)?])
    }

    fn moments_along(&mut self, at: At, value: Value, dim: &[i64]) -> Option<Moments> {
        let dims = || Argument::Integers(dim.to_vec());
        let count = self.count_of(at, value, dim)?;
        let mean = self.node(at, OperationKind::Mean, vec![Argument::Value(value), dims()])?;
        let biased = vec![Argument::Value(value), dims(), whole(0)];
        let variance = self.node(at, OperationKind::Var, biased)?;
        let squares = self.step(at, OperationKind::Mul, variance, Argument::Value(count))?;
        Some(Moments { count, mean, squares })
    }

    fn moments_of_rows(&mut self, at: At, value: Value) -> Option<Moments> {
        let last = Size::Of { value, dimension: -1 };
        let shape = Argument::Sizes(vec![Size::Literal(-1), last]);
        let rows = self.node(at, OperationKind::Reshape, vec![Argument::Value(value), shape])?;
        let count = self.count_of(at, rows, &[0])?;
        let mean =
            self.node(at, OperationKind::Mean, vec![Argument::Value(rows), Argument::Integers(vec![0])])?;
        let centred = self.step(at, OperationKind::Sub, rows, Argument::Value(mean))?;
        let turned = vec![Argument::Value(centred), whole(0), whole(1)];
        let turned = self.node(at, OperationKind::Transpose, turned)?;
        let squares = self.step(at, OperationKind::Matmul, turned, Argument::Value(centred))?;
        Some(Moments { count, mean, squares })
    }

    /// Moments of two sets of samples together (Chan, Golub and LeVeque, 1979).
    fn combined(&mut self, at: At, one: Moments, other: Moments, outer: bool) -> Option<Moments> {
        let count = self.step(at, OperationKind::Add, one.count, Argument::Value(other.count))?;
        let part = self.step(at, OperationKind::Div, other.count, Argument::Value(count))?;
        let distance = self.step(at, OperationKind::Sub, other.mean, Argument::Value(one.mean))?;
        let moved = self.step(at, OperationKind::Mul, distance, Argument::Value(part))?;
        let mean = self.step(at, OperationKind::Add, one.mean, Argument::Value(moved))?;
        let product = if outer { OperationKind::Outer } else { OperationKind::Mul };
        let between = self.step(at, product, distance, Argument::Value(distance))?;
        let weight = self.step(at, OperationKind::Mul, part, Argument::Value(one.count))?;
        let between = self.step(at, OperationKind::Mul, between, Argument::Value(weight))?;
        let squares = self.step(at, OperationKind::Add, one.squares, Argument::Value(other.squares))?;
        let squares = self.step(at, OperationKind::Add, squares, Argument::Value(between))?;
        Some(Moments { count, mean, squares })
    }

    /// The k largest along a new last dimension, and the cells that they come from: `[…, k]` and
    /// `[…, k, coordinates]`. Equals: the earlier cell first.
    fn top_k(
        &mut self,
        reduce: &Reduce,
        all: impl Iterator<Item = (At, Value)>,
        last: At,
    ) -> Option<Vec<Value>> {
        let samples = !reduce.dim.is_empty();
        let k = i64::try_from(reduce.k).ok()?;
        let mut state: Option<(Value, Value, Option<Value>)> = None;
        for (number, (at, value)) in all.enumerate() {
            let number = number as i64;
            let rows = match samples {
                false => self.node(at, OperationKind::Unsqueeze, vec![Argument::Value(value), whole(-1)])?,
                true => self.samples_last(at, value, &reduce.dim)?,
            };
            // What is there so far, and how long it is.
            let (together, kept) = match (state, samples) {
                (None, false) => (rows, None),
                (None, true) => {
                    // So that there are k even where the first cell has fewer samples.
                    let least = if reduce.largest { f64::NEG_INFINITY } else { f64::INFINITY };
                    let pad = vec![
                        Argument::Value(rows),
                        Argument::Integers(vec![k, 0]),
                        Argument::Scalar(Scalar::Float(least)),
                    ];
                    (self.node(at, OperationKind::Pad, pad)?, None)
                }
                (Some((values, ..)), _) => {
                    let both = vec![Argument::Values(vec![values, rows]), whole(-1)];
                    (self.node(at, OperationKind::Cat, both)?, Some(if samples { k } else { k.min(number) }))
                }
            };
            let most = if samples { k } else { k.min(number + 1) };
            let given = vec![
                Argument::Value(together),
                whole(most),
                whole(-1),
                Argument::Scalar(Scalar::Bool(reduce.largest)),
            ];
            let values = self.node(at, OperationKind::TopK, given)?;
            let places = Value { node: values.node, output: 1 };
            let (cells, elements) = match (state, kept) {
                (Some((_, cells, elements)), Some(kept)) => {
                    let old = self.step(at, OperationKind::Lt, places, whole(kept))?;
                    let clamped = vec![Argument::Value(places), Argument::Absent, whole(kept - 1)];
                    let clamped = self.node(at, OperationKind::Clamp, clamped)?;
                    let chosen = |expander: &mut Self, from: Value, new: Argument| {
                        let given = vec![Argument::Value(from), whole(-1), Argument::Value(clamped)];
                        let before = expander.node(at, OperationKind::Gather, given)?;
                        let given = vec![Argument::Value(old), Argument::Value(before), new];
                        expander.node(at, OperationKind::Where, given)
                    };
                    let cells = chosen(self, cells, whole(number))?;
                    let elements = match elements {
                        None => None,
                        Some(elements) => {
                            let own = self.step(at, OperationKind::Sub, places, whole(kept))?;
                            Some(chosen(self, elements, Argument::Value(own))?)
                        }
                    };
                    (cells, elements)
                }
                _ if samples => {
                    // The padding stands before the samples, and comes from nowhere.
                    let own = self.step(at, OperationKind::Sub, places, whole(k))?;
                    let own = vec![Argument::Value(own), whole(-1), Argument::Absent];
                    let elements = self.node(at, OperationKind::Clamp, own)?;
                    let cells = vec![Argument::Value(elements), Argument::Absent, whole(0)];
                    (self.node(at, OperationKind::Clamp, cells)?, Some(elements))
                }
                _ => (self.step(at, OperationKind::Mul, places, whole(0))?, None),
            };
            state = Some((values, cells, elements));
        }
        let (values, cells, elements) = state?;
        let origins = self.origins(last, cells, elements)?;
        Some(vec![values, origins])
    }

    /// The coordinates of cells by number, along a new last dimension; −1 where there is none.
    fn origins(&mut self, at: At, cells: Value, elements: Option<Value>) -> Option<Value> {
        let lengths = self.frames.last().map(|frame| frame.lengths.clone())?;
        let mut stride: u64 = lengths.iter().product();
        let mut coordinates = Vec::with_capacity(lengths.len() + 1);
        let missing = match elements {
            None => None,
            Some(_) => Some(self.step(at, OperationKind::Lt, cells, whole(0))?),
        };
        for &length in &lengths {
            stride /= length.max(1);
            let along =
                self.step(at, OperationKind::FloorDivide, cells, whole(i64::try_from(stride).ok()?))?;
            let mut along =
                self.step(at, OperationKind::Remainder, along, whole(i64::try_from(length).ok()?))?;
            if let Some(missing) = missing {
                let given = vec![Argument::Value(missing), whole(-1), Argument::Value(along)];
                along = self.node(at, OperationKind::Where, given)?;
            }
            coordinates.push(along);
        }
        coordinates.extend(elements);
        self.node(at, OperationKind::Stack, vec![Argument::Values(coordinates), whole(-1)])
    }

    /// The dimensions of samples moved behind the others, and made one.
    fn samples_last(&mut self, at: At, value: Value, dim: &[i64]) -> Option<Value> {
        let count = i64::try_from(dim.len()).ok()?;
        let destination = Argument::Integers((-count..0).collect());
        let given = vec![Argument::Value(value), Argument::Integers(dim.to_vec()), destination];
        let moved = self.node(at, OperationKind::MoveDim, given)?;
        match dim.len() {
            1 => Some(moved),
            _ => {
                self.node(at, OperationKind::Flatten, vec![Argument::Value(moved), whole(-count), whole(-1)])
            }
        }
    }
}
