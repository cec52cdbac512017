//! The hot CPU loops of transformer inference, each beside a plain [`mod@reference`] version.
//!
//! Everything works on flat row-major slices of `f32`; weights are packed once into a [`PackedMatrix`] of `f32`, bf16
//! or blocks of small whole numbers. The crate knows nothing of models, and it is the only one of the workspace that may use `unsafe`.
//!
//! # The one law: batch invariance
//!
//! The bits of an output row do not depend on how many other rows there are, on where the row stands in a tile, or on
//! the number of threads. Every element of a matrix product is one chain of multiply-adds over `k = 0, 1, …` in order,
//! the vector lanes running along the output's columns; every reduction over a row has one fixed tree that depends on
//! the row alone. Different instruction sets ([`Isa`]) may give different bits; one instruction set never does.
//!
//! Each kernel's vector-Jacobian product stands beside it, under its name with `_backward`, and keeps the same law.
//!
//! A programmer's error (a slice of the wrong length) panics with a message; nothing else does.
//!
//! ```
//! use pellucid_kernels::{Activation, Epilogue, PackedMatrix, Precision, WeightLayout, WeightSource, matmul};
//!
//! // y = relu(x W^T + b) for a "linear" weight [n = 2, k = 3].
//! let weight = [1.0, 2.0, 3.0, -1.0, 0.5, 0.0];
//! let source = WeightSource::from_f32(&weight, WeightLayout::OutputMajor);
//! let packed = PackedMatrix::pack(3, 2, &source, Precision::F32);
//! let epilogue = Epilogue { bias: Some(&[0.5, 0.25]), activation: Some(Activation::Relu), ..Epilogue::default() };
//! let mut y = [0.0; 2];
//! matmul(&[1.0, 1.0, 1.0], 3, 1, &packed, &epilogue, &mut y, 2);
//! assert_eq!(y, [6.5, 0.0]);
//! ```

pub mod activation;
mod allocator;
pub mod attention;
mod buffer;
pub mod elementwise;
mod isa;
mod key_value;
pub mod mapped_file;
mod math;
mod matmul;
pub mod norm;
mod operands;
mod packed;
pub mod philox;
pub mod pool;
mod quantised;
pub mod reduce;
pub mod reference;
pub mod rotary;
mod simd;
mod stoppable;
mod tile;

pub use activation::Activation;
pub use allocator::keep_freed_memory;
pub use attention::{AttentionOptions, HeadsView, HeadsViewMut};
pub use isa::Isa;
pub use key_value::KeyValueStore;
pub use matmul::{
    Epilogue, Residual, columns_computed, matmul, matmul_columns, matmul_f32, matmul_weight_backward,
};
pub use packed::{NumberFormat, PackedMatrix, Precision, WeightLayout, WeightSource};
pub use quantised::{Block, BlockForm};
pub use stoppable::Stoppable;
