//! Model families as stage lists, with the specification each publishes; weights, tokenizers.
//!
//! **Invariant:** this crate knows nothing of programs or users, and no family has a forward function.

pub mod error;
pub mod stage;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};
