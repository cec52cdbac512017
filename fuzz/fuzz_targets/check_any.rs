//! Any well-formed program is expanded and checked without a panic: the bytes are the choices of the tests' own generator, so that
//! the fuzzer spends its time behind the parser.
#![no_main]

#[path = "../../crates/graph/tests/support/arbitrary.rs"]
#[allow(dead_code)]
mod arbitrary;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pellucid_fuzz::timed;
use pellucid_graph::ModelSpec;
use pellucid_graph::check::{SpecIndex, check};
use pellucid_graph::expand::expand;

static SPEC: LazyLock<ModelSpec> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../crates/graph/tests/specs/tiny-gpt2.json"))
        .expect("a specification")
});
static INDEX: LazyLock<SpecIndex<'static>> = LazyLock::new(|| SpecIndex::new(&SPEC));

fuzz_target!(|bytes: &[u8]| timed(|| {
    // Most choices are among a few: one byte each, and eight where all are 255.
    let mut list = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        match (first, after.split_first_chunk::<8>()) {
            (255, Some((whole, after))) => {
                list.push(u64::from_le_bytes(*whole));
                rest = after;
            }
            _ => {
                list.push(u64::from(first));
                rest = after;
            }
        }
    }
    let program = arbitrary::program(&mut arbitrary::Choices::new(list), true);
    if let Err(faults) = expand(program, &INDEX).and_then(|program| check(program, &INDEX)) {
        assert!(!faults.is_empty() && !faults.to_string().is_empty());
    }
}));
