//! Model families as stage lists, with the specification each publishes; weights, tokenizers.
//!
//! **Invariant:** this crate knows nothing of programs or users, and no family has a forward function.

pub mod stage;
