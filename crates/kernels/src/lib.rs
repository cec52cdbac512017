//! Pellucid: kernels.

pub mod mapped_file;
