//! Methods for linear algebra on the matrices in the last two dimensions.

use pellucid_graph::OperationKind;

use super::arguments::{absent, boolean, text};
use super::{Given, Value};

/// How [`Value::orthogonal`] makes an orthogonal matrix of a free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrthogonalMap {
    /// The exponential of a skew-symmetric matrix.
    #[default]
    MatrixExp,
    /// Cayley's transform of the same.
    Cayley,
    /// A product of reflections.
    Householder,
}

/// Linear algebra.
impl Value {
    /// `Q` with orthonormal columns and upper triangular `R`, whose diagonal is not negative.
    #[track_caller]
    pub fn qr(&self) -> (Value, Value) {
        let results = self.writer().operation(OperationKind::Qr, [Given::Value(self), text("reduced")]);
        (results.output(0), results.output(1))
    }

    /// Left singular vectors as columns, singular values from the largest, right singular vectors as rows: as many of
    /// each as there are singular values.
    #[track_caller]
    pub fn svd(&self) -> (Value, Value, Value) {
        let results = self.writer().operation(OperationKind::Svd, [Given::Value(self), boolean(false)]);
        (results.output(0), results.output(1), results.output(2))
    }

    /// Eigenvalues from the smallest, and eigenvectors as columns, of a symmetric matrix.
    #[track_caller]
    pub fn eigh(&self) -> (Value, Value) {
        let results = self.writer().operation(OperationKind::Eigh, [Given::Value(self)]);
        (results.output(0), results.output(1))
    }

    /// Lower triangular `L` of a positive definite `L Lᵀ`.
    #[track_caller]
    pub fn cholesky(&self) -> Value {
        self.writer().operation(OperationKind::Cholesky, [Given::Value(self)])
    }

    /// `X` of `self X = other`; `other` is a matrix, or a vector.
    #[track_caller]
    pub fn solve(&self, other: &Value) -> Value {
        self.writer().operation(OperationKind::Solve, [Given::Value(self), Given::Value(other)])
    }

    /// The smallest `X` for which `self X` is nearest to `other`.
    #[track_caller]
    pub fn lstsq(&self, other: &Value) -> Value {
        self.writer().operation(OperationKind::Lstsq, [Given::Value(self), Given::Value(other), absent()])
    }

    /// The inverse.
    #[track_caller]
    pub fn inv(&self) -> Value {
        self.writer().operation(OperationKind::Inv, [Given::Value(self)])
    }

    /// The pseudo-inverse.
    #[track_caller]
    pub fn pinv(&self) -> Value {
        self.writer().operation(OperationKind::Pinv, [Given::Value(self), absent()])
    }

    /// The determinant.
    #[track_caller]
    pub fn det(&self) -> Value {
        self.writer().operation(OperationKind::Det, [Given::Value(self)])
    }

    /// The determinant's sign, and the logarithm of its magnitude.
    #[track_caller]
    pub fn slogdet(&self) -> (Value, Value) {
        let results = self.writer().operation(OperationKind::SlogDet, [Given::Value(self)]);
        (results.output(0), results.output(1))
    }

    /// The matrix exponential.
    #[track_caller]
    pub fn matrix_exp(&self) -> Value {
        self.writer().operation(OperationKind::MatrixExp, [Given::Value(self)])
    }

    /// A matrix of the same shape with orthonormal columns (rows, if it is wide), made of the numbers below the diagonal:
    /// what is trained is free, what is used is orthogonal.
    #[track_caller]
    pub fn orthogonal(&self, map: OrthogonalMap) -> Value {
        let map = match map {
            OrthogonalMap::MatrixExp => "matrix_exp",
            OrthogonalMap::Cayley => "cayley",
            OrthogonalMap::Householder => "householder",
        };
        self.writer().operation(OperationKind::Orthogonal, [Given::Value(self), text(map)])
    }
}
