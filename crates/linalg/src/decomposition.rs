//! QR, singular values, eigenvalues of symmetric matrices, Cholesky.
//!
//! Gradients are those of `torch.linalg`; where two singular values (or eigenvalues) are equal, or a matrix has not full
//! rank, they are not finite.

use faer::Side;
use faer::linalg::solvers::LltError;

use crate::{LinearError, Matrix};

fn finite(matrix: &Matrix) -> Result<(), LinearError> {
    if matrix.is_finite() { Ok(()) } else { Err(LinearError::NotFinite) }
}

/// `A = Q R`.
#[derive(Clone, Debug)]
pub struct Qr {
    /// Orthonormal columns: as many as the shorter side of `A`, or as its rows.
    pub q: Matrix,
    /// Upper triangular, as many rows as `q` has columns.
    pub r: Matrix,
}

/// The QR decomposition; `complete`: with as many columns of `Q` as there are rows.
pub fn qr(a: &Matrix, complete: bool) -> Result<Qr, LinearError> {
    finite(a)?;
    let (rows, columns) = (a.rows(), a.columns());
    let short = rows.min(columns);
    let kept = if complete { rows } else { short };
    if short == 0 {
        let q = if complete { Matrix::identity(rows) } else { Matrix::zeros(rows, 0) };
        return Ok(Qr { q, r: Matrix::zeros(kept, columns) });
    }
    let found = a.view().qr();
    let q = Matrix(if complete { found.compute_Q() } else { found.compute_thin_Q() });
    let thin = found.thin_R();
    let negative: Vec<f64> = (0..kept)
        .map(|place| if place < short && thin[(place, place)].0 < 0.0 { -1.0 } else { 1.0 })
        .collect();
    let r = Matrix::from_fn(kept, columns, |row, column| {
        if row < short && column >= row { thin[(row, column)].0 * negative[row] } else { 0.0 }
    });
    Ok(Qr { q: q.with_columns_scaled(&negative), r })
}

/// The gradient of `A`, given those of `Q` and `R` of a decomposition that is not complete, or whose `A` is square or wide.
pub fn qr_gradient(qr: &Qr, of_q: &Matrix, of_r: &Matrix) -> Matrix {
    let (q, r) = (&qr.q, &qr.r);
    let (size, columns) = (q.columns(), r.columns());
    if size == 0 || columns == 0 {
        return Matrix::zeros(q.rows(), columns);
    }
    if columns <= size {
        return tall_qr_gradient(q, r, of_q, of_r);
    }
    // A = [X Y]: X = Q U, and V = Qᵀ Y follows from Y and Q.
    let (u, of_u) = (r.some_columns(0, size), of_r.some_columns(0, size));
    let (v, of_v) = (r.some_columns(size, columns - size), of_r.some_columns(size, columns - size));
    let y = q.times(&v);
    let of_x = tall_qr_gradient(q, &u, &of_q.plus(&y.times(&of_v.transposed())), &of_u);
    of_x.beside(&q.times(&of_v))
}

/// `(∂Q + Q (M + Mᵀ with the diagonal halved)) R⁻ᵀ`, `M` the upper triangle of `∂R Rᵀ − Qᵀ ∂Q`.
fn tall_qr_gradient(q: &Matrix, r: &Matrix, of_q: &Matrix, of_r: &Matrix) -> Matrix {
    let upper = of_r.times(&r.transposed()).minus(&q.transposed().times(of_q)).upper();
    let symmetric = upper
        .map(|row, column, element| if row == column { element } else { element + upper.at(column, row) });
    let mut right = of_q.plus(&q.times(&symmetric)).transposed();
    r.view().solve_upper_triangular_in_place(&mut right.0);
    right.transposed()
}

/// `A = U diag(S) Vᵀ`.
#[derive(Clone, Debug)]
pub struct Svd {
    /// Orthonormal columns: as many as there are singular values, or as `A` has rows.
    pub u: Matrix,
    /// Singular values, the largest first.
    pub s: Vec<f64>,
    /// Orthonormal rows.
    pub vt: Matrix,
}

/// The singular value decomposition; `full`: with square `U` and `Vᵀ`.
pub fn svd(a: &Matrix, full: bool) -> Result<Svd, LinearError> {
    finite(a)?;
    let (rows, columns) = (a.rows(), a.columns());
    let count = rows.min(columns);
    if count == 0 {
        let empty = |size: usize| if full { Matrix::identity(size) } else { Matrix::zeros(size, 0) };
        return Ok(Svd { u: empty(rows), s: Vec::new(), vt: empty(columns).transposed() });
    }
    let found = if full { a.view().svd() } else { a.view().thin_svd() };
    let found = found.map_err(|_| LinearError::NoConvergence)?;
    let (u, v) = (Matrix(found.U().to_owned()), Matrix(found.V().to_owned()));
    let mut signs = signs(&u);
    signs.truncate(count);
    let sign = |place: usize| signs.get(place).copied().unwrap_or(1.0);
    Ok(Svd {
        u: u.map(|_, column, element| element * sign(column)),
        s: (0..count).map(|place| found.S()[place].0).collect(),
        vt: v.transposed().map(|row, _, element| element * sign(row)),
    })
}

/// For each column −1 where its element of the largest magnitude is negative.
fn signs(matrix: &Matrix) -> Vec<f64> {
    let sign = |column: usize| {
        let mut largest = 0.0f64;
        for row in 0..matrix.rows() {
            let element = matrix.at(row, column);
            // What rounding alone tells apart counts as equal, so that a sign does not hang on the last bit.
            if element.abs() > largest.abs() * (1.0 + 1e-9) {
                largest = element;
            }
        }
        if largest < 0.0 { -1.0 } else { 1.0 }
    };
    (0..matrix.columns()).map(sign).collect()
}

/// The gradient of `A`, given those of `U`, `S` and `Vᵀ`, of which only as many columns and rows count as there are
/// singular values: what a full decomposition adds is arbitrary.
pub fn svd_gradient(svd: &Svd, of_u: &Matrix, of_s: &[f64], of_vt: &Matrix) -> Matrix {
    let (rows, columns, count) = (svd.u.rows(), svd.vt.columns(), svd.s.len());
    if count == 0 {
        return Matrix::zeros(rows, columns);
    }
    let (u, of_u) = (svd.u.some_columns(0, count), of_u.some_columns(0, count));
    let (v, of_v) = (svd.vt.transposed().some_columns(0, count), of_vt.transposed().some_columns(0, count));
    let s = &svd.s;
    let (ut, vt) = (u.transposed(), v.transposed());
    let skew = |inner: Matrix| {
        let turned = inner.transposed();
        inner.minus(&turned).map(|row, column, element| {
            if row == column { 0.0 } else { element / ((s[column] - s[row]) * (s[column] + s[row])) }
        })
    };
    let from_u = skew(ut.times(&of_u)).with_columns_scaled(s);
    let from_v = skew(vt.times(&of_v)).map(|row, _, element| element * s[row]);
    let inner =
        from_u.plus(&from_v).map(|row, column, element| if row == column { of_s[row] } else { element });
    let mut gradient = u.times(&inner).times(&vt);
    let inverse: Vec<f64> = s.iter().map(|s| 1.0 / s).collect();
    if rows > count {
        let outside = of_u.minus(&u.times(&ut.times(&of_u))).with_columns_scaled(&inverse);
        gradient = gradient.plus(&outside.times(&vt));
    }
    if columns > count {
        let outside = of_v.minus(&v.times(&vt.times(&of_v))).with_columns_scaled(&inverse);
        gradient = gradient.plus(&u.times(&outside.transposed()));
    }
    gradient
}

/// `A = V diag(values) Vᵀ` of a symmetric `A`.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// Eigenvalues, the smallest first.
    pub values: Vec<f64>,
    /// An orthonormal eigenvector in each column.
    pub vectors: Matrix,
}

/// Eigenvalues and eigenvectors of the symmetric matrix that has this lower triangle.
pub fn eigh(a: &Matrix) -> Result<Eigen, LinearError> {
    let symmetric = a.map(|row, column, element| if column <= row { element } else { a.at(column, row) });
    finite(&symmetric)?;
    if a.rows() == 0 {
        return Ok(Eigen { values: Vec::new(), vectors: Matrix::zeros(0, 0) });
    }
    let found = symmetric.view().self_adjoint_eigen(Side::Lower).map_err(|_| LinearError::NoConvergence)?;
    let vectors = Matrix(found.U().to_owned());
    let values = (0..a.rows()).map(|place| found.S()[place].0).collect();
    Ok(Eigen { values, vectors: vectors.with_columns_scaled(&signs(&vectors)) })
}

/// The gradient of `A`, symmetric, given those of its eigenvalues and eigenvectors.
pub fn eigh_gradient(eigen: &Eigen, of_values: &[f64], of_vectors: &Matrix) -> Matrix {
    let (values, vectors) = (&eigen.values, &eigen.vectors);
    let turned = vectors.transposed();
    let pulled = turned.times(of_vectors);
    // Only the skew part turns eigenvectors, so the gradient is symmetric.
    let inner = pulled.map(|row, column, element| {
        if row == column {
            of_values[row]
        } else {
            0.5 * (element - pulled.at(column, row)) / (values[column] - values[row])
        }
    });
    vectors.times(&inner).times(&turned)
}

/// The lower triangular `L` of `A = L Lᵀ`, for the symmetric matrix that has this lower triangle.
pub fn cholesky(a: &Matrix) -> Result<Matrix, LinearError> {
    finite(&a.lower())?;
    if a.rows() == 0 {
        return Ok(Matrix::zeros(0, 0));
    }
    match a.view().llt(Side::Lower) {
        Ok(found) => Ok(Matrix(found.L().to_owned()).lower()),
        Err(LltError::NonPositivePivot { index }) => {
            Err(LinearError::NotPositiveDefinite { order: index.saturating_add(1) })
        }
    }
}

/// The gradient of `A`, symmetric, given that of `L`.
pub fn cholesky_gradient(l: &Matrix, of_l: &Matrix) -> Matrix {
    if l.rows() == 0 {
        return l.clone();
    }
    let product = l.transposed().times(of_l).lower();
    let halved = product.map(|row, column, element| if row == column { element / 2.0 } else { element });
    // L⁻ᵀ Φ L⁻¹, then its symmetric part.
    let mut left = halved;
    l.view().transpose().solve_upper_triangular_in_place(&mut left.0);
    let mut right = left.transposed();
    l.view().transpose().solve_upper_triangular_in_place(&mut right.0);
    right.plus(&right.transposed()).scaled(0.5)
}
