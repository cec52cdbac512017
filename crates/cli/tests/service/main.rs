//! The service as its users meet it: the real program on loopback, with the bundled model.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails its test"
)]

mod attacks;
mod crash;
mod faults;
mod harness;
mod life;
mod limits;
mod operators;
mod packing;
mod prefixes;
mod raw;
#[path = "../support/mod.rs"]
mod support;
mod traces;
