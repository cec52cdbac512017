//! Attacks on the service, as `docs/security.md` lists them: every one is refused, bounded or harmless, and the service works on
//! for everybody else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails its test"
)]

mod costs;
mod ending;
mod framing;
mod harness;
mod keys;
mod limits;
mod models;
mod neighbours;
mod programs;
mod requests;
mod tokens;
