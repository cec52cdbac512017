//! The rules of the operations: against PyTorch's results, with unknown lengths, with hostile arguments, and their messages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod golden;
mod lengths;
mod messages;
mod properties;
mod support;
