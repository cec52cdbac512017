//! Gradients of linear algebra, matrix by matrix.

use pellucid_graph::OperationKind;
use pellucid_linalg::decomposition::{
    Eigen, Qr, Svd, cholesky_gradient, eigh_gradient, qr_gradient, svd_gradient,
};
use pellucid_linalg::exponential::{exponential_gradient, orthogonal_gradient};
use pellucid_linalg::solution::{
    Factored, cofactors, inverse_gradient, pseudo_inverse, pseudo_inverse_gradient, solve_gradient,
};
use pellucid_linalg::{LinearError, Matrix};

use super::super::Result;
use super::super::linear::{Batch, System, fault, map, packed, tolerance};
use super::backward::Backward;
use crate::tensor::Tensor;

/// The numbers that stand in a row for each matrix: singular values, eigenvalues.
fn row(tensor: &Tensor, place: usize) -> Result<Vec<f64>> {
    let length = tensor.shape().last().copied().unwrap_or(0);
    Ok(tensor.to_vec_f64()?.get(place * length..(place + 1) * length).unwrap_or(&[]).to_vec())
}

/// The gradient of the first operand, matrix by matrix.
fn give(
    backward: &mut Backward<'_>,
    of: impl Fn(&Backward<'_>, &Matrix, usize) -> Result<std::result::Result<Matrix, LinearError>>,
) -> Result<()> {
    backward.give(0, |backward| {
        let input = backward.call.tensor(0)?;
        let batch = Batch::new(&backward.call, &input)?;
        let count = batch.count();
        let mut each = Vec::with_capacity(count);
        for place in 0..count {
            let found = of(backward, &batch.matrix(place), place)?;
            each.push(found.map_err(|error| fault(&backward.call, error, place, count))?.to_rows());
        }
        packed(&batch.shape, each, &[batch.rows, batch.columns], input.dtype())
    })
}

/// Matrices of a tensor, or of its cotangent.
fn output(backward: &Backward<'_>, which: usize) -> Result<[Batch; 2]> {
    Ok([
        Batch::new(&backward.call, &backward.output(which)?)?,
        Batch::new(&backward.call, &backward.cotangent_of(which)?)?,
    ])
}

pub(super) fn qr(backward: &mut Backward<'_>) -> Result<()> {
    let ([q, of_q], [r, of_r]) = (output(backward, 0)?, output(backward, 1)?);
    if q.columns > r.columns && r.columns < q.rows {
        return Err(backward
            .call
            .error(
                "a complete decomposition of a tall matrix has no gradient: its last columns are arbitrary",
            )
            .hint("take `mode` reduced"));
    }
    give(backward, |_, _, place| {
        let found = Qr { q: q.matrix(place), r: r.matrix(place) };
        Ok(Ok(qr_gradient(&found, &of_q.matrix(place), &of_r.matrix(place))))
    })
}

pub(super) fn svd(backward: &mut Backward<'_>) -> Result<()> {
    let ([u, of_u], [vt, of_vt]) = (output(backward, 0)?, output(backward, 2)?);
    let (s, of_s) = (backward.output(1)?, backward.cotangent_of(1)?);
    give(backward, |_, _, place| {
        let found = Svd { u: u.matrix(place), s: row(&s, place)?, vt: vt.matrix(place) };
        Ok(Ok(svd_gradient(&found, &of_u.matrix(place), &row(&of_s, place)?, &of_vt.matrix(place))))
    })
}

pub(super) fn eigh(backward: &mut Backward<'_>) -> Result<()> {
    let [vectors, of_vectors] = output(backward, 1)?;
    let (values, of_values) = (backward.output(0)?, backward.cotangent_of(0)?);
    give(backward, |_, _, place| {
        let found = Eigen { values: row(&values, place)?, vectors: vectors.matrix(place) };
        Ok(Ok(eigh_gradient(&found, &row(&of_values, place)?, &of_vectors.matrix(place))))
    })
}

/// Of Cholesky, the inverse, the exponential, the pseudo-inverse and orthogonal matrices.
pub(super) fn matrix(backward: &mut Backward<'_>) -> Result<()> {
    let kind = backward.kind();
    let [result, gradient] = output(backward, 0)?;
    let map = if kind == OperationKind::Orthogonal { Some(map(&backward.call)?) } else { None };
    give(backward, |_, input, place| {
        let (result, gradient) = (result.matrix(place), gradient.matrix(place));
        Ok(match (kind, map) {
            (_, Some(map)) => orthogonal_gradient(input, map, &gradient),
            (OperationKind::Cholesky, _) => Ok(cholesky_gradient(&result, &gradient)),
            (OperationKind::Inv, _) => Ok(inverse_gradient(&result, &gradient)),
            (OperationKind::Pinv, _) => Ok(pseudo_inverse_gradient(input, &result, &gradient)),
            _ => exponential_gradient(input, &gradient),
        })
    })
}

/// Of the determinant and of its logarithm; its sign is flat.
pub(super) fn determinant(backward: &mut Backward<'_>) -> Result<()> {
    let logarithm = backward.kind() == OperationKind::SlogDet;
    let gradient = backward.cotangent_of(usize::from(logarithm))?.to_vec_f64()?;
    give(backward, |_, input, place| {
        let g = gradient.get(place).copied().unwrap_or(0.0);
        if !logarithm {
            return Ok(cofactors(input).map(|cofactors| cofactors.scaled(g)));
        }
        Ok(Factored::new(input).map(|factored| factored.inverse().transposed().scaled(g)))
    })
}

/// Of linear systems and least squares, both sides.
pub(super) fn solve(backward: &mut Backward<'_>) -> Result<()> {
    let (call, input) = (backward.call, backward.call.tensor(0)?);
    let system = System::new(&call)?;
    let least_squares = backward.kind() == OperationKind::Lstsq;
    let tolerance = if least_squares { tolerance(&call, 2, &input)? } else { 0.0 };
    let raised = |tensor: Tensor| -> Result<Batch> {
        let tensor =
            if system.vector { tensor.view(tensor.data().unsqueeze(tensor.rank())?) } else { tensor };
        Batch::new(&call, &tensor)
    };
    let (solution, gradient) = (raised(backward.output(0)?)?, raised(backward.cotangent()?)?);
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    let places = system.a.places(&system.shape).into_iter().zip(system.b.places(&system.shape));
    let count = system.a.count();
    for (place, (a_place, b_place)) in places.enumerate() {
        let (a, b, gradient) = (system.a.matrix(a_place), system.b.matrix(b_place), gradient.matrix(place));
        let found = if least_squares {
            pseudo_inverse(&a, tolerance).map(|inverse| {
                let of_inverse = gradient.times(&b.transposed());
                (pseudo_inverse_gradient(&a, &inverse, &of_inverse), inverse.transposed().times(&gradient))
            })
        } else {
            Factored::new(&a).map(|factored| solve_gradient(&factored, &solution.matrix(place), &gradient))
        };
        let (a, b) = found.map_err(|error| fault(&call, error, a_place, count))?;
        of_a.push(a.to_rows());
        of_b.push(b.to_rows());
    }
    let dtype = input.dtype();
    backward.give(0, |_| packed(&system.shape, of_a, &[system.a.rows, system.a.columns], dtype))?;
    let side = if system.vector { vec![system.b.rows] } else { vec![system.b.rows, system.b.columns] };
    backward.give(1, |_| packed(&system.shape, of_b, &side, dtype))
}
