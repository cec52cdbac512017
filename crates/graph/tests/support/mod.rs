//! What tests of this crate share, and tests of others may include.

#![allow(
    dead_code,
    unused_imports,
    clippy::expect_used,
    reason = "helpers of tests, of which each uses a part"
)]

pub(crate) mod arbitrary;

pub(crate) use arbitrary::{Choices, program, scalar};
use pellucid_graph::{ModelSpec, Program};
use proptest::prelude::*;

/// Well-formed programs; with constants only if asked for, as JSON alone holds none.
pub(crate) fn programs(constants: bool) -> impl Strategy<Value = Program> {
    prop::collection::vec(any::<u64>(), 0..300)
        .prop_map(move |list| program(&mut Choices::new(list), constants))
}

/// What the bundled model publishes of itself.
pub(crate) fn tiny_gpt2() -> ModelSpec {
    serde_json::from_str(include_str!("../specs/tiny-gpt2.json"))
        .expect("the specification in the repository")
}
