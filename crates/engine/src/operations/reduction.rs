//! Reductions over some dimensions, or over all.
//!
//! Floats accumulate in `f64`, in an order that depends on nothing but the number of elements.

use pellucid_graph::{DType, OperationKind};

use pellucid_kernels::{pool, reduce};

use super::arguments::Call;
use super::number::{Computation, Number, float_type, store};
use super::{OperationError, Result};
use crate::tensor::{Stored, Tensor};

/// Elements of the rows that one thread reduces at a time.
const ROWS_TOGETHER: usize = 32 * 1024;

/// A tensor seen as rows that are reduced to one element each.
pub(super) struct Rows {
    /// The tensor with the reduced dimensions last.
    data: Tensor,
    /// Elements of a row.
    length: usize,
    /// How many rows.
    count: usize,
    /// The result's shape.
    pub(super) shape: Vec<usize>,
}

impl Rows {
    /// `dimensions`: none, or none of them, for all.
    pub(super) fn new(
        call: &Call<'_>,
        input: &Tensor,
        dimensions: Option<Vec<i64>>,
        keep: bool,
    ) -> Result<Rows> {
        let rank = input.rank();
        let mut reduced = vec![false; rank];
        match dimensions.as_deref() {
            // Of an empty list PyTorch makes "over all", but for the reductions to truth values, where it means none.
            Some([]) if matches!(call.kind(), OperationKind::Any | OperationKind::All) => {}
            None | Some([]) => reduced.fill(true),
            Some(dimensions) => {
                for place in call.dimensions(dimensions, rank)? {
                    reduced.iter_mut().skip(place).take(1).for_each(|flag| *flag = true);
                }
            }
        }
        let (last, first): (Vec<usize>, Vec<usize>) = (0..rank).partition(|&place| reduced[place]);
        let length = last.iter().map(|&place| input.shape()[place]).product();
        let count = first.iter().map(|&place| input.shape()[place]).product();
        let shape = (0..rank)
            .filter(|&place| keep || !reduced[place])
            .map(|place| if reduced[place] { 1 } else { input.shape()[place] })
            .collect();
        let order: Vec<usize> = first.into_iter().chain(last).collect();
        let data = if order.is_sorted() { input.clone() } else { input.view(input.data().permute(order)?) };
        Ok(Rows { data, length, count, shape })
    }

    /// One result for each row.
    pub(super) fn map<N: Number, R: Default + Clone + Send>(
        &self,
        function: impl Fn(&[N]) -> R + Sync,
    ) -> Result<Vec<R>> {
        let elements = N::elements(&self.data)?;
        let elements: &[N] = &elements;
        let mut results = vec![R::default(); self.count];
        let together = ROWS_TOGETHER.div_ceil(self.length.max(1));
        pool::parallel_chunks(&mut results, together, |chunk, results| {
            for (row, result) in results.iter_mut().enumerate() {
                let start = (chunk * together + row) * self.length;
                *result = function(&elements[start..start + self.length]);
            }
        });
        Ok(results)
    }

    /// One `f64` for each row of floats (or of whole numbers as floats).
    fn map_floats(
        &self,
        single: impl Fn(&[f32]) -> f64 + Sync,
        double: impl Fn(&[f64]) -> f64 + Sync,
    ) -> Result<Vec<f64>> {
        match Computation::of(self.data.dtype()) {
            Computation::Single => self.map(single),
            _ => self.map(double),
        }
    }
}

/// The sum of a function of the elements, in eight interleaved lanes that are then added as a tree.
pub(super) fn lanes<T: Copy>(elements: &[T], function: impl Fn(T) -> f64) -> f64 {
    let mut lanes = [0.0f64; 8];
    let chunks = elements.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &element) in lanes.iter_mut().zip(chunk) {
            *lane += function(element);
        }
    }
    for (lane, &element) in lanes.iter_mut().zip(rest) {
        *lane += function(element);
    }
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

/// The mean; NaN where there are no elements.
pub(super) fn mean<T: Stored>(elements: &[T]) -> f64 {
    lanes(elements, T::double) / elements.len() as f64
}

pub(super) fn sum_or_product(call: &Call<'_>) -> Result<Tensor> {
    let mut input = call.tensor(0)?;
    let is_sum = call.kind() == OperationKind::Sum;
    if is_sum && let Some(dtype) = call.optional_dtype(3)? {
        input = input.cast(dtype)?;
    }
    let dtype = match input.dtype() {
        asked if is_sum && call.optional_dtype(3)?.is_some() => asked,
        float if float.is_float() => float,
        _ => DType::I64,
    };
    let rows = Rows::new(call, &input, call.optional_integers(1)?, call.boolean(2)?)?;
    match (Computation::of(input.dtype()), is_sum) {
        (Computation::Integer, true) => store(
            rows.map(|row: &[i64]| row.iter().fold(0i64, |sum, &x| sum.wrapping_add(x)))?,
            &rows.shape,
            dtype,
        ),
        (Computation::Integer, false) => store(
            rows.map(|row: &[i64]| row.iter().fold(1i64, |sum, &x| sum.wrapping_mul(x)))?,
            &rows.shape,
            dtype,
        ),
        (_, true) => {
            let sums = rows.map_floats(|row| lanes(row, f64::from), |row| lanes(row, |x| x))?;
            store(sums, &rows.shape, dtype)
        }
        (_, false) => {
            let products = rows
                .map_floats(|row| row.iter().map(|&x| f64::from(x)).product(), |row| row.iter().product())?;
            store(products, &rows.shape, dtype)
        }
    }
}

pub(super) fn statistic(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let dtype = float_type(input.dtype());
    match call.kind() {
        OperationKind::Mean => {
            let rows = Rows::new(call, &input, call.optional_integers(1)?, call.boolean(2)?)?;
            store(rows.map_floats(mean, mean)?, &rows.shape, dtype)
        }
        OperationKind::LogSumExp => {
            let rows = Rows::new(call, &input, Some(call.integers(1)?), call.boolean(2)?)?;
            if dtype == DType::F64 || rows.length == 0 {
                return store(rows.map(log_sum_exp::<f64>)?, &rows.shape, dtype);
            }
            let mut results = vec![0.0; rows.count];
            reduce::log_sum_exp(&rows.data.singles()?, rows.length, &mut results);
            store(results, &rows.shape, dtype)
        }
        OperationKind::Norm => {
            let p = call.number(1)?.as_f64();
            let rows = Rows::new(call, &input, call.optional_integers(2)?, call.boolean(3)?)?;
            store(rows.map_floats(|row| norm(row, p), |row| norm(row, p))?, &rows.shape, dtype)
        }
        kind => {
            let correction = call.number(2)?.as_f64();
            let rows = Rows::new(call, &input, call.optional_integers(1)?, call.boolean(3)?)?;
            let mut results =
                rows.map_floats(|row| variance(row, correction), |row| variance(row, correction))?;
            if kind == OperationKind::Std {
                results.iter_mut().for_each(|result| *result = result.sqrt());
            }
            store(results, &rows.shape, dtype)
        }
    }
}

fn log_sum_exp<T: Stored>(row: &[T]) -> f64 {
    let largest = row.iter().fold(f64::NEG_INFINITY, |largest, x| largest.max(x.double()));
    // An infinite largest would make NaN of the differences.
    let shift = if largest.is_finite() { largest } else { 0.0 };
    lanes(row, |x| (x.double() - shift).exp()).ln() + shift
}

fn variance<T: Stored>(row: &[T], correction: f64) -> f64 {
    let mean = mean(row);
    let squares = lanes(row, |x| {
        let difference = x.double() - mean;
        difference * difference
    });
    squares / (row.len() as f64 - correction).max(0.0)
}

pub(super) fn norm<T: Stored>(row: &[T], p: f64) -> f64 {
    let magnitude = |x: T| x.double().abs();
    if p == f64::INFINITY {
        row.iter().map(|&x| magnitude(x)).reduce(|a, b| extreme(a, b, true)).unwrap_or(0.0)
    } else if p == f64::NEG_INFINITY {
        row.iter().map(|&x| magnitude(x)).reduce(|a, b| extreme(a, b, false)).unwrap_or(f64::INFINITY)
    } else if p == 0.0 {
        lanes(row, |x| f64::from(u8::from(x.double() != 0.0)))
    } else if p == 1.0 {
        lanes(row, magnitude)
    } else if p == 2.0 {
        lanes(row, |x| x.double() * x.double()).sqrt()
    } else {
        lanes(row, |x| magnitude(x).powf(p)).powf(1.0 / p)
    }
}

/// The more extreme of two, NaN before all.
fn extreme<N: Number>(a: N, b: N, largest: bool) -> N {
    if a.is_nan() {
        a
    } else if b.is_nan() || (if largest { b > a } else { b < a }) {
        b
    } else {
        a
    }
}

pub(super) fn extremum(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let largest = call.kind() == OperationKind::Amax;
    let rows = Rows::new(call, &input, call.optional_integers(1)?, call.boolean(2)?)?;
    if rows.length == 0 && rows.count > 0 {
        return Err(no_elements(call));
    }
    match Computation::of(input.dtype()) {
        Computation::Double => extrema::<f64>(&rows, largest, input.dtype()),
        Computation::Single => extrema::<f32>(&rows, largest, input.dtype()),
        Computation::Integer => extrema::<i64>(&rows, largest, input.dtype()),
    }
}

fn no_elements(call: &Call<'_>) -> OperationError {
    call.error("there is no extreme among no elements").hint("reduce over a dimension that is not empty")
}

fn extrema<N: Number>(rows: &Rows, largest: bool, dtype: DType) -> Result<Tensor> {
    let results =
        rows.map(|row: &[N]| row.iter().copied().reduce(|a, b| extreme(a, b, largest)).unwrap_or_default())?;
    store(results, &rows.shape, dtype)
}

pub(super) fn place_of_extremum(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let largest = call.kind() == OperationKind::Argmax;
    let dimensions = call.optional_integer(1)?.map(|dimension| vec![dimension]);
    let rows = Rows::new(call, &input, dimensions, call.boolean(2)?)?;
    if rows.length == 0 && rows.count > 0 {
        return Err(no_elements(call));
    }
    let places = match Computation::of(input.dtype()) {
        Computation::Double => rows.map(|row: &[f64]| place(row, largest))?,
        Computation::Single => rows.map(|row: &[f32]| place(row, largest))?,
        Computation::Integer => rows.map(|row: &[i64]| place(row, largest))?,
    };
    Tensor::from_i64(places, &rows.shape)
}

/// The first place of the most extreme element; the first NaN, if there is one.
fn place<N: Number>(row: &[N], largest: bool) -> i64 {
    // A search for the extreme, in lanes, and one for its place: both without a branch on every element.
    let mut lanes = [row.first().copied().unwrap_or_default(); 16];
    let mut is_nan = false;
    let chunks = row.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &element) in lanes.iter_mut().zip(chunk) {
            let further = if largest { element > *lane } else { element < *lane };
            *lane = if further { element } else { *lane };
            is_nan |= element.is_nan();
        }
    }
    is_nan |= rest.iter().any(|element| element.is_nan());
    if is_nan || lanes[0].is_nan() {
        return row.iter().position(|element| element.is_nan()).unwrap_or(0) as i64;
    }
    let best = lanes.into_iter().chain(rest.iter().copied()).reduce(|a, b| extreme(a, b, largest));
    row.iter().position(|&element| Some(element) == best).unwrap_or(0) as i64
}

pub(super) fn truth(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let all = call.kind() == OperationKind::All;
    let truths = Tensor::from_bool(&input.truths()?, input.shape())?;
    let rows = Rows::new(call, &truths, call.optional_integers(1)?, call.boolean(2)?)?;
    let holds = |row: &[i64]| if all { !row.contains(&0) } else { row.contains(&1) };
    let result = Tensor::from_bool(&rows.map(holds)?, &rows.shape)?;
    // PyTorch keeps u8, its truth values of old.
    if input.dtype() == DType::U8 { result.cast(DType::U8) } else { Ok(result) }
}

pub(super) fn cumulative(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let dimension = call.dimension(call.integer(1)?, input.rank())?;
    let dtype = if input.dtype().is_float() { input.dtype() } else { DType::I64 };
    let is_sum = call.kind() == OperationKind::CumSum;
    along(&input, dimension, dtype, |length, data| match Computation::of(dtype) {
        Computation::Integer => {
            let mut elements = data.integers()?.into_vec();
            for row in elements.chunks_exact_mut(length) {
                let mut so_far = i64::from(!is_sum);
                for element in row {
                    so_far =
                        if is_sum { so_far.wrapping_add(*element) } else { so_far.wrapping_mul(*element) };
                    *element = so_far;
                }
            }
            store(elements, data.shape(), dtype)
        }
        _ => {
            let mut elements = data.doubles()?.into_vec();
            for row in elements.chunks_exact_mut(length) {
                let mut so_far = if is_sum { 0.0 } else { 1.0 };
                for element in row {
                    so_far = if is_sum { so_far + *element } else { so_far * *element };
                    *element = so_far;
                }
            }
            store(elements, data.shape(), dtype)
        }
    })
}

/// Runs `work` on rows along a dimension, given the rows' length (at least 1) and a tensor with that dimension last, and
/// puts the dimension of its result (of the same shape) back in its place.
pub(super) fn along(
    input: &Tensor,
    dimension: usize,
    dtype: DType,
    work: impl FnOnce(usize, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if input.elements() == 0 {
        return input.cast(dtype);
    }
    let rank = input.rank();
    let length = input.shape().get(dimension).copied().unwrap_or(1);
    if dimension + 1 >= rank {
        return work(length, input);
    }
    let moved = work(length, &input.view(input.data().transpose(dimension, rank - 1)?))?;
    moved.view(moved.data().transpose(dimension, rank - 1)?).contiguous()
}
