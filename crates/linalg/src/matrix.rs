//! A dense matrix of `f64`.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use pellucid_kernels::{Stoppable, pool};

/// About so many multiply-adds of a product are done between two places where it can be stopped.
const UNSTOPPED: usize = 1 << 28;

/// A dense matrix. Shapes of operands must fit; whoever calls has checked them.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix(pub(crate) Mat<Stoppable>);

impl Matrix {
    /// Elements in row-major order; those that are missing are 0.
    pub fn from_rows(elements: &[f64], rows: usize, columns: usize) -> Matrix {
        Matrix::from_fn(rows, columns, |row, column| {
            elements.get(row * columns + column).copied().unwrap_or(0.0)
        })
    }

    /// The elements by a function of row and column.
    pub fn from_fn(rows: usize, columns: usize, element: impl Fn(usize, usize) -> f64) -> Matrix {
        Matrix(Mat::from_fn(rows, columns, |row, column| Stoppable(element(row, column))))
    }

    /// Zeros.
    pub fn zeros(rows: usize, columns: usize) -> Matrix {
        Matrix(Mat::zeros(rows, columns))
    }

    /// Ones on the diagonal, zeros elsewhere.
    pub fn identity(size: usize) -> Matrix {
        Matrix(Mat::identity(size, size))
    }

    /// These numbers on the diagonal.
    pub fn diagonal(numbers: &[f64]) -> Matrix {
        Matrix::from_fn(
            numbers.len(),
            numbers.len(),
            |row, column| if row == column { numbers[row] } else { 0.0 },
        )
    }

    /// The elements in row-major order.
    pub fn to_rows(&self) -> Vec<f64> {
        let mut elements = Vec::with_capacity(self.rows() * self.columns());
        for row in 0..self.rows() {
            elements.extend((0..self.columns()).map(|column| self.at(row, column)));
        }
        elements
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.0.nrows()
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.0.ncols()
    }

    /// An element. Panics outside of the matrix.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.0[(row, column)].0
    }

    /// Rows as columns.
    pub fn transposed(&self) -> Matrix {
        Matrix(self.0.transpose().to_owned())
    }

    /// The product.
    pub fn times(&self, other: &Matrix) -> Matrix {
        let (rows, columns) = (self.rows(), other.columns());
        let mut product = Mat::zeros(rows, columns);
        let wide = columns_at_once(rows, self.columns());
        for from in (0..columns).step_by(wide) {
            pool::checkpoint();
            let count = wide.min(columns - from);
            matmul(
                product.subcols_mut(from, count),
                Accum::Replace,
                self.view(),
                other.0.subcols(from, count),
                Stoppable(1.0),
                Par::Seq,
            );
        }
        Matrix(product)
    }

    /// The sum.
    pub fn plus(&self, other: &Matrix) -> Matrix {
        Matrix(&self.0 + &other.0)
    }

    /// The difference.
    pub fn minus(&self, other: &Matrix) -> Matrix {
        Matrix(&self.0 - &other.0)
    }

    /// Each element times a number.
    pub fn scaled(&self, factor: f64) -> Matrix {
        self.map(|_, _, element| element * factor)
    }

    /// A function of row, column and element.
    pub fn map(&self, function: impl Fn(usize, usize, f64) -> f64) -> Matrix {
        Matrix::from_fn(self.rows(), self.columns(), |row, column| {
            function(row, column, self.at(row, column))
        })
    }

    /// Each column times its number.
    pub fn with_columns_scaled(&self, factors: &[f64]) -> Matrix {
        self.map(|_, column, element| element * factors[column])
    }

    /// So many columns from one on.
    pub fn some_columns(&self, from: usize, count: usize) -> Matrix {
        Matrix(self.0.subcols(from, count).to_owned())
    }

    /// A part of the matrix.
    pub fn part(&self, row: usize, column: usize, rows: usize, columns: usize) -> Matrix {
        Matrix(self.0.submatrix(row, column, rows, columns).to_owned())
    }

    /// The two side by side.
    pub fn beside(&self, other: &Matrix) -> Matrix {
        let own = self.columns();
        Matrix::from_fn(self.rows(), own + other.columns(), |row, column| match column.checked_sub(own) {
            None => self.at(row, column),
            Some(column) => other.at(row, column),
        })
    }

    /// Elements above the diagonal gone.
    pub fn lower(&self) -> Matrix {
        self.map(|row, column, element| if column <= row { element } else { 0.0 })
    }

    /// Elements below the diagonal gone.
    pub fn upper(&self) -> Matrix {
        self.map(|row, column, element| if column >= row { element } else { 0.0 })
    }

    /// Whether no element is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        self.0.is_all_finite()
    }

    pub(crate) fn view(&self) -> MatRef<'_, Stoppable> {
        self.0.as_ref()
    }
}

/// How many columns of a product are computed at once, of so many rows, each element a sum of so many.
fn columns_at_once(rows: usize, inner: usize) -> usize {
    (UNSTOPPED / rows.saturating_mul(inner).max(1)).max(1).next_multiple_of(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_product_of_any_size_some_columns_are_computed_at_once() {
        assert_eq!(columns_at_once(0, 0), UNSTOPPED);
        assert_eq!(columns_at_once(1400, 1400), 192);
        // Larger than what is done at once, and than a number can say.
        assert_eq!(columns_at_once(1 << 15, 1 << 14), 64);
        assert_eq!(columns_at_once(usize::MAX, 2), 64);
    }
}
