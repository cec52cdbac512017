//! Runs checked programs on models.

pub mod operations;
pub mod tensor;
