//! A model's weights: named tensors in files that are mapped, not read.
//!
//! [`Source::resolve`] gives everything there is of a model named by a folder, a GGUF file or a hub's name.
//! [`Checkpoint`] opens a folder of safetensors or a GGUF file and gives [`RawTensor`]s under Hugging Face's names, with
//! Hugging Face's shapes and values. No header, however it was made, makes it panic or take memory out of proportion.

mod blocks;
mod checkpoint;
mod dequantize;
pub mod gguf;
pub(crate) mod near;
pub(crate) mod safetensors_files;
mod source;
mod tensor;

pub(crate) use blocks::OutputBlocks;
pub use checkpoint::Checkpoint;
pub use source::Source;
pub use tensor::{RawTensor, Restoration, TensorType};
