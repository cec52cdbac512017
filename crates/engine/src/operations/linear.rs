//! Linear algebra on the matrices of a batch, one by one, in `f64`, rounded once.

use pellucid_graph::{DType, OperationKind};
use pellucid_linalg::exponential::{OrthogonalMap, exponential, orthogonal};
use pellucid_linalg::solution::{Factored, determinant, pseudo_inverse};
use pellucid_linalg::{LinearError, Matrix, decomposition};

use super::arguments::Call;
use super::number::store;
use super::walk::{broadcast_shape, broadcast_strides, gather};
use super::{OperationError, Result};
use crate::tensor::{Tensor, element_count};

/// The matrices in a tensor's last two dimensions.
pub(super) struct Batch {
    /// The dimensions before those.
    pub(super) shape: Vec<usize>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    elements: Vec<f64>,
}

impl Batch {
    pub(super) fn new(call: &Call<'_>, tensor: &Tensor) -> Result<Batch> {
        let [shape @ .., rows, columns] = tensor.shape() else {
            return Err(call.error(format!("a tensor of shape {:?} is no matrix", tensor.shape())));
        };
        Ok(Batch { shape: shape.to_vec(), rows: *rows, columns: *columns, elements: tensor.to_vec_f64()? })
    }

    fn square(call: &Call<'_>, tensor: &Tensor) -> Result<Batch> {
        let batch = Batch::new(call, tensor)?;
        if batch.rows != batch.columns {
            return Err(call.error(format!("a matrix of shape {:?} is not square", tensor.shape())));
        }
        Ok(batch)
    }

    /// How many matrices there are.
    pub(super) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// A matrix by its place in row-major order.
    pub(super) fn matrix(&self, place: usize) -> Matrix {
        let size = self.rows * self.columns;
        let elements = self.elements.get(place * size..(place + 1) * size).unwrap_or(&[]);
        Matrix::from_rows(elements, self.rows, self.columns)
    }

    /// For each matrix of a larger batch to which this one is broadcast, its place in this one.
    pub(super) fn places(&self, shape: &[usize]) -> Vec<usize> {
        let places: Vec<usize> = (0..self.count()).collect();
        gather(&places, 0, shape, &broadcast_strides(&self.shape, shape))
    }
}

/// An error of one matrix.
pub(super) fn fault(call: &Call<'_>, error: LinearError, place: usize, count: usize) -> OperationError {
    let which = if count > 1 { format!(" (matrix {place} of the batch)") } else { String::new() };
    let fault = call.error(format!("{error}{which}"));
    match error {
        LinearError::Singular { .. } => {
            fault.hint("`pinv` and `lstsq` take singular matrices; or add a small multiple of `eye` first")
        }
        LinearError::NotPositiveDefinite { .. } => fault.hint("add a small multiple of `eye` first"),
        _ => fault,
    }
}

/// A tensor of one result for each matrix, all of one shape.
pub(super) fn packed(batch: &[usize], each: Vec<Vec<f64>>, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let all: Vec<usize> = batch.iter().chain(shape).copied().collect();
    element_count(&all)?;
    store(each.concat(), &all, dtype)
}

/// One result for each matrix.
fn each<T>(
    call: &Call<'_>,
    batch: &Batch,
    work: impl Fn(&Matrix) -> std::result::Result<T, LinearError>,
) -> Result<Vec<T>> {
    let count = batch.count();
    let mut results = Vec::with_capacity(count);
    for place in 0..count {
        pellucid_kernels::pool::checkpoint();
        results.push(work(&batch.matrix(place)).map_err(|error| fault(call, error, place, count))?);
    }
    Ok(results)
}

pub(super) fn qr(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let input = call.tensor(0)?;
    let batch = Batch::new(call, &input)?;
    let complete = match call.text(1)? {
        "reduced" => false,
        "complete" => true,
        other => return Err(call.error(format!("`mode` is reduced or complete, not {other:?}"))),
    };
    let kept = if complete { batch.rows } else { batch.rows.min(batch.columns) };
    let found = each(call, &batch, |a| decomposition::qr(a, complete))?;
    let q = found.iter().map(|qr| qr.q.to_rows()).collect();
    let r = found.iter().map(|qr| qr.r.to_rows()).collect();
    Ok(vec![
        packed(&batch.shape, q, &[batch.rows, kept], input.dtype())?,
        packed(&batch.shape, r, &[kept, batch.columns], input.dtype())?,
    ])
}

pub(super) fn svd(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (input, full) = (call.tensor(0)?, call.boolean(1)?);
    let batch = Batch::new(call, &input)?;
    let found = each(call, &batch, |a| decomposition::svd(a, full))?;
    let count = batch.rows.min(batch.columns);
    let (left, right) = if full { (batch.rows, batch.columns) } else { (count, count) };
    let u = found.iter().map(|svd| svd.u.to_rows()).collect();
    let vt = found.iter().map(|svd| svd.vt.to_rows()).collect();
    let s = found.into_iter().map(|svd| svd.s).collect();
    Ok(vec![
        packed(&batch.shape, u, &[batch.rows, left], input.dtype())?,
        packed(&batch.shape, s, &[count], input.dtype())?,
        packed(&batch.shape, vt, &[right, batch.columns], input.dtype())?,
    ])
}

pub(super) fn eigh(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let input = call.tensor(0)?;
    let batch = Batch::square(call, &input)?;
    let found = each(call, &batch, decomposition::eigh)?;
    let vectors = found.iter().map(|eigen| eigen.vectors.to_rows()).collect();
    let values = found.into_iter().map(|eigen| eigen.values).collect();
    Ok(vec![
        packed(&batch.shape, values, &[batch.rows], input.dtype())?,
        packed(&batch.shape, vectors, &[batch.rows, batch.rows], input.dtype())?,
    ])
}

/// Cholesky, the inverse, the exponential.
pub(super) fn square_matrix(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let batch = Batch::square(call, &input)?;
    let found = each(call, &batch, |a| match call.kind() {
        OperationKind::Cholesky => decomposition::cholesky(a),
        OperationKind::Inv => Ok(Factored::new(a)?.inverse()),
        _ => exponential(a),
    })?;
    let found = found.iter().map(Matrix::to_rows).collect();
    packed(&batch.shape, found, &[batch.rows, batch.rows], input.dtype())
}

pub(super) fn det(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let batch = Batch::square(call, &input)?;
    packed(&batch.shape, vec![each(call, &batch, determinant)?], &[], input.dtype())
}

pub(super) fn slogdet(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let input = call.tensor(0)?;
    let batch = Batch::square(call, &input)?;
    let (signs, logarithms): (Vec<f64>, Vec<f64>) = each(call, &batch, |a| match Factored::new(a) {
        Ok(factored) => Ok(factored.log_determinant()),
        Err(LinearError::Singular { .. }) => Ok((0.0, f64::NEG_INFINITY)),
        Err(error) => Err(error),
    })?
    .into_iter()
    .unzip();
    Ok(vec![
        packed(&batch.shape, vec![signs], &[], input.dtype())?,
        packed(&batch.shape, vec![logarithms], &[], input.dtype())?,
    ])
}

/// The share of the largest singular value at which a smaller one counts as 0: PyTorch's own default, from the number
/// type's precision.
pub(super) fn tolerance(call: &Call<'_>, place: usize, input: &Tensor) -> Result<f64> {
    let sides = input.shape().iter().rev().take(2).copied().max().unwrap_or(0);
    let epsilon = if input.dtype() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    Ok(call.optional_number(place)?.map_or(epsilon * sides as f64, |given| given.as_f64()))
}

pub(super) fn pinv(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let batch = Batch::new(call, &input)?;
    let tolerance = tolerance(call, 1, &input)?;
    let found = each(call, &batch, |a| pseudo_inverse(a, tolerance))?;
    let found = found.iter().map(Matrix::to_rows).collect();
    packed(&batch.shape, found, &[batch.columns, batch.rows], input.dtype())
}

/// The two sides of a system.
pub(super) struct System {
    pub(super) a: Batch,
    pub(super) b: Batch,
    /// Whether the right side is a vector for each matrix.
    pub(super) vector: bool,
    /// The batch of both together.
    pub(super) shape: Vec<usize>,
}

impl System {
    pub(super) fn new(call: &Call<'_>) -> Result<System> {
        let (left, right) = (call.tensor(0)?, call.tensor(1)?);
        let a = if call.kind() == OperationKind::Solve {
            Batch::square(call, &left)?
        } else {
            Batch::new(call, &left)?
        };
        let vector =
            right.rank() == 1 || (right.rank() + 1 == left.rank() && left.shape().starts_with(right.shape()));
        let raised = if vector { right.view(right.data().unsqueeze(right.rank())?) } else { right.clone() };
        let b = Batch::new(call, &raised)?;
        let shape = broadcast_shape(&[&a.shape, &b.shape]);
        match shape {
            Some(shape) if a.rows == b.rows => Ok(System { a, b, vector, shape }),
            _ => Err(call.error(format!(
                "the sides of shapes {:?} and {:?} do not go together",
                left.shape(),
                right.shape()
            ))),
        }
    }

    /// The solution's dimensions after the batch's.
    pub(super) fn solution(&self) -> Vec<usize> {
        if self.vector { vec![self.a.columns] } else { vec![self.a.columns, self.b.columns] }
    }
}

pub(super) fn solve(call: &Call<'_>) -> Result<Tensor> {
    let (input, system) = (call.tensor(0)?, System::new(call)?);
    let least_squares = call.kind() == OperationKind::Lstsq;
    let tolerance = if least_squares { tolerance(call, 2, &input)? } else { 0.0 };
    // Each left side is decomposed once, however many right sides it has.
    enum Ready {
        Factored(Factored),
        Inverse(Matrix),
    }
    let ready = each(call, &system.a, |a| match least_squares {
        true => Ok(Ready::Inverse(pseudo_inverse(a, tolerance)?)),
        false => Ok(Ready::Factored(Factored::new(a)?)),
    })?;
    let places = system.a.places(&system.shape).into_iter().zip(system.b.places(&system.shape));
    let solutions = places.filter_map(|(a, b)| {
        let b = system.b.matrix(b);
        Some(match ready.get(a)? {
            Ready::Factored(factored) => factored.solve(&b).to_rows(),
            Ready::Inverse(inverse) => inverse.times(&b).to_rows(),
        })
    });
    packed(&system.shape, solutions.collect(), &system.solution(), input.dtype())
}

pub(super) fn map(call: &Call<'_>) -> Result<OrthogonalMap> {
    match call.text(1)? {
        "matrix_exp" => Ok(OrthogonalMap::MatrixExponential),
        "cayley" => Ok(OrthogonalMap::Cayley),
        "householder" => Ok(OrthogonalMap::Householder),
        other => {
            Err(call.error(format!("`orthogonal_map` is matrix_exp, cayley or householder, not {other:?}")))
        }
    }
}

pub(super) fn orthogonal_matrix(call: &Call<'_>) -> Result<Tensor> {
    let (input, map) = (call.tensor(0)?, map(call)?);
    let batch = Batch::new(call, &input)?;
    let found = each(call, &batch, |a| orthogonal(a, map))?;
    let found = found.iter().map(Matrix::to_rows).collect();
    packed(&batch.shape, found, &[batch.rows, batch.columns], input.dtype())
}
