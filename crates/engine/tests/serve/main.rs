//! Programs that come and go while an engine serves: each result is to the bit what it is alone, whoever is there; no
//! program waits long for others; what goes wrong with one is its own.
//!
//! `PELLUCID_PROGRAMS=N` tries N programs for each model, `PELLUCID_SEED` begins elsewhere, `PELLUCID_MODEL` names one model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../support/random/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod random;
#[path = "../support/mod.rs"]
mod support;

mod back;
mod exact;
mod fair;
mod faults;
mod script;
