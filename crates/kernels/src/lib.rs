//! Pellucid: kernels.
