//! Linear systems, inverse, determinant, pseudo-inverse.

use faer::linalg::solvers::{PartialPivLu, Solve};
use pellucid_kernels::Stoppable;

use crate::decomposition::svd;
use crate::{LinearError, Matrix};

/// A square matrix ready to be solved with.
pub struct Factored {
    lu: Option<PartialPivLu<Stoppable>>,
    size: usize,
}

impl Factored {
    /// Elimination with row exchange. An error where the matrix is singular to the last bit.
    pub fn new(a: &Matrix) -> Result<Factored, LinearError> {
        if !a.is_finite() {
            return Err(LinearError::NotFinite);
        }
        let size = a.rows();
        if size == 0 {
            return Ok(Factored { lu: None, size });
        }
        let lu = a.view().partial_piv_lu();
        match (0..size).find(|&place| lu.U()[(place, place)].0 == 0.0) {
            Some(column) => Err(LinearError::Singular { column }),
            None => Ok(Factored { lu: Some(lu), size }),
        }
    }

    /// `X` of `A X = B`.
    pub fn solve(&self, b: &Matrix) -> Matrix {
        match &self.lu {
            Some(lu) if b.columns() > 0 => Matrix(lu.solve(&b.0)),
            _ => b.clone(),
        }
    }

    /// `X` of `Aᵀ X = B`.
    pub fn solve_transposed(&self, b: &Matrix) -> Matrix {
        match &self.lu {
            Some(lu) if b.columns() > 0 => Matrix(lu.solve_transpose(&b.0)),
            _ => b.clone(),
        }
    }

    /// The inverse.
    pub fn inverse(&self) -> Matrix {
        self.solve(&Matrix::identity(self.size))
    }

    /// The determinant's sign, and the logarithm of its magnitude.
    pub fn log_determinant(&self) -> (f64, f64) {
        let Some(lu) = &self.lu else { return (1.0, 0.0) };
        let pivots = (0..self.size).map(|place| lu.U()[(place, place)].0);
        let (sign, logarithm) =
            pivots.fold((1.0, 0.0), |(sign, sum), pivot| (sign * pivot.signum(), sum + pivot.abs().ln()));
        (sign * parity(lu.P().arrays().0), logarithm)
    }

    fn determinant(&self) -> f64 {
        let Some(lu) = &self.lu else { return 1.0 };
        (0..self.size).map(|place| lu.U()[(place, place)].0).product::<f64>() * parity(lu.P().arrays().0)
    }
}

/// 1 of an even permutation, −1 of an odd one.
fn parity(permutation: &[usize]) -> f64 {
    let mut seen = vec![false; permutation.len()];
    let mut sign = 1.0;
    for start in 0..permutation.len() {
        let (mut at, mut length) = (start, 0);
        while !seen[at] {
            seen[at] = true;
            at = permutation[at];
            length += 1;
        }
        if length > 0 && length % 2 == 0 {
            sign = -sign;
        }
    }
    sign
}

/// The gradients of `A` and `B`, given `X` of `A X = B` and its gradient.
pub fn solve_gradient(a: &Factored, x: &Matrix, of_x: &Matrix) -> (Matrix, Matrix) {
    let of_b = a.solve_transposed(of_x);
    (of_b.times(&x.transposed()).scaled(-1.0), of_b)
}

/// The gradient of `A`, given its inverse and that one's gradient.
pub fn inverse_gradient(inverse: &Matrix, of_inverse: &Matrix) -> Matrix {
    let turned = inverse.transposed();
    turned.times(of_inverse).times(&turned).scaled(-1.0)
}

/// The determinant; 0 of a singular matrix.
pub fn determinant(a: &Matrix) -> Result<f64, LinearError> {
    match Factored::new(a) {
        Ok(factored) => Ok(factored.determinant()),
        Err(LinearError::Singular { .. }) => Ok(0.0),
        Err(error) => Err(error),
    }
}

/// The cofactors of a square matrix: the gradient of its determinant, of singular matrices too.
///
/// With `A = U diag(S) Vᵀ`: `det(U) det(V) · U diag(Π_{j≠i} s_j) Vᵀ`.
pub fn cofactors(a: &Matrix) -> Result<Matrix, LinearError> {
    let found = svd(a, false)?;
    let sign = determinant(&found.u)?.signum() * determinant(&found.vt)?.signum();
    let others = |place: usize| {
        let rest = found.s.iter().enumerate().filter(|(other, _)| *other != place);
        sign * rest.map(|(_, s)| s).product::<f64>()
    };
    let products: Vec<f64> = (0..found.s.len()).map(others).collect();
    Ok(found.u.with_columns_scaled(&products).times(&found.vt))
}

/// The pseudo-inverse: singular values of at most `rtol` times the largest count as 0.
pub fn pseudo_inverse(a: &Matrix, rtol: f64) -> Result<Matrix, LinearError> {
    let found = svd(a, false)?;
    let least = rtol * found.s.first().copied().unwrap_or(0.0);
    let inverse: Vec<f64> = found.s.iter().map(|&s| if s > least { 1.0 / s } else { 0.0 }).collect();
    Ok(found.vt.transposed().with_columns_scaled(&inverse).times(&found.u.transposed()))
}

/// The gradient of `A`, given its pseudo-inverse and that one's gradient, at constant rank (Golub and Pereyra, 1973).
pub fn pseudo_inverse_gradient(a: &Matrix, inverse: &Matrix, of_inverse: &Matrix) -> Matrix {
    let (turned, of_turned) = (inverse.transposed(), of_inverse.transposed());
    // −(A⁺ᵀ G A⁺ᵀ) + (1 − A A⁺) Gᵀ A⁺ A⁺ᵀ + A⁺ᵀ A⁺ Gᵀ (1 − A⁺ A), G the gradient of A⁺.
    let through = turned.times(of_inverse).times(&turned).scaled(-1.0);
    let right = of_turned.times(inverse).times(&turned);
    let left = turned.times(inverse).times(&of_turned);
    let right = right.minus(&a.times(inverse).times(&right));
    let left = left.minus(&left.times(inverse).times(a));
    through.plus(&right).plus(&left)
}
