//! What the kernel tests share: reproducible numbers, and one run on each instruction set.
#![allow(dead_code)]

use pellucid_kernels::Isa;
use pellucid_kernels::philox::Stream;

/// Normal numbers that depend on the seed alone.
pub(crate) fn normal(seed: u64, count: usize) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    Stream { key: 0x0070_656c_6c75_6369, stream: seed }.fill_normal(0, &mut numbers);
    numbers
}

/// Runs `body` on every path this CPU has.
pub(crate) fn on_every_isa(mut body: impl FnMut(Isa)) {
    for isa in Isa::available() {
        isa.scope(|| body(isa));
    }
}

/// The numbers' bits: NaN equals NaN, 0 differs from −0.
pub(crate) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// Asserts equality bit for bit, naming the first difference.
#[track_caller]
pub(crate) fn assert_same_bits(what: &str, left: &[f32], right: &[f32]) {
    assert_eq!(left.len(), right.len(), "{what}: lengths");
    for (index, (a, b)) in left.iter().zip(right).enumerate() {
        assert!(a.to_bits() == b.to_bits(), "{what}: element {index}: {a:e} and {b:e}");
    }
}
