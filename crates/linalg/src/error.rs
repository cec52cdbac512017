//! Why a matrix has no such decomposition or solution.

/// Why a matrix has no such decomposition or solution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinearError {
    /// An element is NaN or infinite.
    #[error("the matrix holds NaN or an infinity")]
    NotFinite,
    /// Elimination met a zero that no row could replace.
    #[error("the matrix is singular: its column {column} depends on those before it")]
    Singular {
        /// The first such column.
        column: usize,
    },
    /// A leading minor of the matrix is not positive.
    #[error("the matrix is not positive definite: its leading minor of order {order} is not positive")]
    NotPositiveDefinite {
        /// How many rows and columns that minor has.
        order: usize,
    },
    /// The iteration did not arrive.
    #[error("the decomposition does not converge")]
    NoConvergence,
}
