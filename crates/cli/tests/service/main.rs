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
#[path = "../../../models/tests/hub/server.rs"]
mod hub;
mod kills;
mod life;
mod limits;
mod loading;
mod operators;
mod packing;
mod prefixes;
#[allow(dead_code, reason = "the engine's tests use more of it")]
#[path = "../../../engine/tests/support/random/mod.rs"]
mod random;
mod raw;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod traces;
