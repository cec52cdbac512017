//! What is laid over a model by a program: LoRA adapters, sparse autoencoders, steering vectors.
//!
//! Each is a macro: it writes getters, operations and setters into the caller's own trace, which is checked, explained and
//! run like any other. The model that others use is never touched.

mod lora;
mod sparse_autoencoder;
mod steering;

pub use lora::{Lora, LoraMatrices, LoraPair, LoraValues};
pub use sparse_autoencoder::{AutoencoderParts, AutoencoderValues, SparseAutoencoder, Splice};
pub use steering::Steering;

use pellucid_engine::Tensor;
use pellucid_models::adapters::Array;

use crate::error::Result;

fn tensor(array: &Array) -> Result<Tensor> {
    Ok(Tensor::from_f32(array.numbers.clone(), &array.shape)?)
}
