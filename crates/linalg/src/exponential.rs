//! The matrix exponential, and orthogonal matrices made of free parameters.

use crate::solution::{Factored, solve_gradient};
use crate::{LinearError, Matrix};

/// The coefficients of the Padé approximant of degree 13 (Higham, "The scaling and squaring method for the matrix exponential
/// revisited", 2005), and the largest norm for which it is exact to `f64`.
const PADE: [f64; 14] = [
    64_764_752_532_480_000.0,
    32_382_376_266_240_000.0,
    7_771_770_303_897_600.0,
    1_187_353_796_428_800.0,
    129_060_195_264_000.0,
    10_559_470_521_600.0,
    670_442_572_800.0,
    33_522_128_640.0,
    1_323_241_920.0,
    40_840_800.0,
    960_960.0,
    16_380.0,
    182.0,
    1.0,
];
const PADE_NORM: f64 = 5.371_920_351_148_152;

/// The exponential of a square matrix.
pub fn exponential(a: &Matrix) -> Result<Matrix, LinearError> {
    if !a.is_finite() {
        return Err(LinearError::NotFinite);
    }
    let size = a.rows();
    let column = |column: usize| (0..size).map(|row| a.at(row, column).abs()).sum::<f64>();
    let norm = (0..size).map(column).fold(0.0, f64::max);
    // Beyond 2¹⁰²⁴ everything overflows anyway.
    let halvings = if norm > PADE_NORM { (norm / PADE_NORM).log2().ceil().min(1_100.0) as i32 } else { 0 };
    let a = a.scaled(0.5f64.powi(halvings));
    let identity = Matrix::identity(size);
    let a2 = a.times(&a);
    let a4 = a2.times(&a2);
    let a6 = a4.times(&a2);
    let sum = |coefficients: [usize; 4]| {
        let [c6, c4, c2, c0] = coefficients.map(|place| PADE[place]);
        a6.scaled(c6).plus(&a4.scaled(c4)).plus(&a2.scaled(c2)).plus(&identity.scaled(c0))
    };
    let high = |coefficients: [usize; 3]| {
        let [c6, c4, c2] = coefficients.map(|place| PADE[place]);
        a6.times(&a6.scaled(c6).plus(&a4.scaled(c4)).plus(&a2.scaled(c2)))
    };
    let odd = a.times(&high([13, 11, 9]).plus(&sum([7, 5, 3, 1])));
    let even = high([12, 10, 8]).plus(&sum([6, 4, 2, 0]));
    let mut result = Factored::new(&even.minus(&odd))?.solve(&even.plus(&odd));
    for _ in 0..halvings {
        result = result.times(&result);
    }
    Ok(result)
}

/// The gradient of a matrix, given that of its exponential: the upper right part of the exponential of
/// `[[Aᵀ, G], [0, Aᵀ]]`.
pub fn exponential_gradient(a: &Matrix, gradient: &Matrix) -> Result<Matrix, LinearError> {
    let size = a.rows();
    let block = Matrix::from_fn(size * 2, size * 2, |row, column| match (row < size, column < size) {
        (true, true) => a.at(column, row),
        (true, false) => gradient.at(row, column - size),
        (false, true) => 0.0,
        (false, false) => a.at(column - size, row - size),
    });
    Ok(exponential(&block)?.part(0, size, size, size))
}

/// How an orthogonal matrix is made of a free one, as in `torch.nn.utils.parametrizations.orthogonal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrthogonalMap {
    /// The exponential of the skew-symmetric matrix that has the parameters below its diagonal.
    MatrixExponential,
    /// `(1 + S/2)(1 − S/2)⁻¹` of the same.
    Cayley,
    /// A product of reflections whose vectors are the columns below the diagonal; the diagonal's signs are the columns'.
    Householder,
}

/// A matrix of that shape with orthonormal columns (or rows, if it is wide).
pub fn orthogonal(a: &Matrix, map: OrthogonalMap) -> Result<Matrix, LinearError> {
    if a.rows() < a.columns() {
        return Ok(orthogonal(&a.transposed(), map)?.transposed());
    }
    if !a.is_finite() {
        return Err(LinearError::NotFinite);
    }
    let (rows, columns) = (a.rows(), a.columns());
    match map {
        OrthogonalMap::MatrixExponential => Ok(exponential(&skew(a))?.some_columns(0, columns)),
        OrthogonalMap::Cayley => {
            let half = skew(a).scaled(0.5);
            let identity = Matrix::identity(rows);
            Ok(Factored::new(&identity.minus(&half))?.solve(&identity.plus(&half)).some_columns(0, columns))
        }
        OrthogonalMap::Householder => {
            // Only the last is kept: all of them are as many matrices as there are columns.
            let all = (0..columns).rev().fold(first_columns(rows, columns), |so_far, column| {
                let (vector, tau) = reflection(a, column);
                apply(&vector, tau, &so_far)
            });
            Ok(all.with_columns_scaled(&diagonal_signs(a)))
        }
    }
}

/// The gradient of the parameters, given that of the orthogonal matrix.
pub fn orthogonal_gradient(a: &Matrix, map: OrthogonalMap, gradient: &Matrix) -> Result<Matrix, LinearError> {
    if a.rows() < a.columns() {
        return Ok(orthogonal_gradient(&a.transposed(), map, &gradient.transposed())?.transposed());
    }
    let (rows, columns) = (a.rows(), a.columns());
    let padded = Matrix::from_fn(
        rows,
        rows,
        |row, column| if column < columns { gradient.at(row, column) } else { 0.0 },
    );
    let of_skew = match map {
        OrthogonalMap::MatrixExponential => exponential_gradient(&skew(a), &padded)?,
        OrthogonalMap::Cayley => {
            let half = skew(a).scaled(0.5);
            let identity = Matrix::identity(rows);
            let factored = Factored::new(&identity.minus(&half))?;
            let solution = factored.solve(&identity.plus(&half));
            let (of_left, of_right) = solve_gradient(&factored, &solution, &padded);
            of_right.minus(&of_left).scaled(0.5)
        }
        OrthogonalMap::Householder => return Ok(householder_gradient(a, gradient)),
    };
    Ok(of_skew.minus(&of_skew.transposed()).lower().some_columns(0, columns))
}

/// The skew-symmetric matrix with these numbers below the diagonal.
fn skew(a: &Matrix) -> Matrix {
    let columns = a.columns();
    Matrix::from_fn(a.rows(), a.rows(), |row, column| {
        if row > column && column < columns {
            a.at(row, column)
        } else if column > row && row < columns {
            -a.at(column, row)
        } else {
            0.0
        }
    })
}

fn first_columns(rows: usize, columns: usize) -> Matrix {
    Matrix::from_fn(rows, columns, |row, column| f64::from(u8::from(row == column)))
}

fn diagonal_signs(a: &Matrix) -> Vec<f64> {
    (0..a.columns()).map(|place| if a.at(place, place) < 0.0 { -1.0 } else { 1.0 }).collect()
}

/// The vector of a reflection `1 − τ v vᵀ`, and `τ = 2 / |v|²`.
fn reflection(a: &Matrix, column: usize) -> (Matrix, f64) {
    let vector = Matrix::from_fn(a.rows(), 1, |row, _| match row.cmp(&column) {
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => 1.0,
        std::cmp::Ordering::Greater => a.at(row, column),
    });
    let tau = 2.0 / (0..a.rows()).map(|row| vector.at(row, 0) * vector.at(row, 0)).sum::<f64>();
    (vector, tau)
}

fn apply(vector: &Matrix, tau: f64, to: &Matrix) -> Matrix {
    to.minus(&vector.scaled(tau).times(&vector.transposed().times(to)))
}

/// The first columns of the unit matrix after the last reflection, after the last two, … and after all.
fn reflected(a: &Matrix) -> Vec<Matrix> {
    let mut so_far = first_columns(a.rows(), a.columns());
    let mut all = Vec::with_capacity(a.columns());
    for column in (0..a.columns()).rev() {
        let (vector, tau) = reflection(a, column);
        so_far = apply(&vector, tau, &so_far);
        all.push(so_far.clone());
    }
    all
}

fn householder_gradient(a: &Matrix, gradient: &Matrix) -> Matrix {
    let (rows, columns) = (a.rows(), a.columns());
    let after = reflected(a);
    let mut of_columns = Vec::with_capacity(columns);
    let mut gradient = gradient.with_columns_scaled(&diagonal_signs(a));
    for column in 0..columns {
        // W = (1 − τ v vᵀ) W', with W' what the later reflections made.
        let (vector, tau) = reflection(a, column);
        let before = match (columns - 1 - column).checked_sub(1) {
            Some(place) => after[place].clone(),
            None => first_columns(rows, columns),
        };
        let (of_w, with_w) = (gradient.transposed().times(&vector), before.transposed().times(&vector));
        let of_tau = -(0..columns).map(|place| of_w.at(place, 0) * with_w.at(place, 0)).sum::<f64>();
        let of_vector = gradient.times(&with_w).plus(&before.times(&of_w)).scaled(-tau);
        // τ = 2 / |v|² moves with the vector.
        of_columns.push(of_vector.minus(&vector.scaled(of_tau * tau * tau)));
        gradient = apply(&vector, tau, &gradient);
    }
    Matrix::from_fn(
        rows,
        columns,
        |row, column| if row > column { of_columns[column].at(row, 0) } else { 0.0 },
    )
}
