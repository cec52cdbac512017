//! Any bytes that give a program are expanded and checked without a panic.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pellucid_fuzz::timed;
use pellucid_graph::check::{SpecIndex, check};
use pellucid_graph::expand::expand;
use pellucid_graph::{ModelSpec, Program};

static SPEC: LazyLock<ModelSpec> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../crates/graph/tests/specs/tiny-gpt2.json"))
        .expect("a specification")
});
static INDEX: LazyLock<SpecIndex<'static>> = LazyLock::new(|| SpecIndex::new(&SPEC));

fuzz_target!(|bytes: &[u8]| timed(|| {
    if let Ok(program) = Program::from_bytes(bytes)
        && let Err(faults) = expand(program, &INDEX).and_then(|program| check(program, &INDEX))
    {
        assert!(!faults.is_empty() && !faults.to_string().is_empty());
    }
}));
