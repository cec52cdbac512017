//! Every family held to transformers: specifications to its module trees, stage lists to its values.

#![allow(clippy::unwrap_used, clippy::panic)]

mod folder;
mod interpreter;
mod specification;
mod values;
