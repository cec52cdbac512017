//! Decompositions and solutions of small dense matrices, and their gradients, in `f64`.
//!
//! | module | holds |
//! | --- | --- |
//! | [`matrix`] | the matrix, its products and sums |
//! | [`decomposition`] | QR, singular values, eigenvalues of symmetric matrices, Cholesky |
//! | [`solution`] | linear systems, inverse, determinant, pseudo-inverse |
//! | [`exponential`] | the matrix exponential, and orthogonal matrices made of free parameters |
//!
//! The loops are `faer`'s, on one thread, over numbers with which they can be stopped on the way
//! ([`pellucid_kernels::pool::stoppable`]). A crate of its own, because its generic code is slow to compile and seldom
//! changes.
//!
//! **Signs** that a decomposition leaves free are fixed: `R` of a QR decomposition has no negative number on its diagonal;
//! of a left singular vector, and of an eigenvector, the element largest in magnitude (the first of equals) is positive.
//!
//! **Invariant:** one matrix in, one result out, whatever stands beside it; nothing here panics on numbers, whatever they
//! are.

pub mod decomposition;
mod error;
pub mod exponential;
pub mod matrix;
pub mod solution;

pub use error::LinearError;
pub use matrix::Matrix;
