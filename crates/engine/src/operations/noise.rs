//! The generator of everything random: counter-based, so that any element can be made by itself, anywhere.
//!
//! # How to make the same numbers elsewhere
//! Philox 4×32-10 (Salmon et al., 2011), one block of four 32-bit words `w0 w1 w2 w3` for each element:
//! - key: the program's seed, low word first;
//! - counter: the element's place in row-major order (64 bits, low word first), then the *stream* (64 bits, low word
//!   first);
//! - stream: FNV-1a (64 bits) of the node's label in UTF-8, then the byte 255, then each coordinate as 8 little-endian
//!   bytes. Coordinates are what a node is evaluated at: step, iteration, cell of a sweep; none outside of those.
//!
//! With `a = w0 + 2³²·w1` and `b = w2 + 2³²·w3`:
//! - `rand`: the uppermost bits of `a`, as many as the number type can hold below 1 (53, 24, 11 of `f16`, 8 of `bf16`),
//!   divided by 2 to their number;
//! - `randn`: `sqrt(-2 ln u) · cos(2π v)` in `f64`, `u = ((a >> 11) + 1) / 2⁵³`, `v = (b >> 11) / 2⁵³`, then rounded;
//! - `randint`: `low + floor(a · (high - low) / 2⁶⁴)`, exactly;
//! - `randperm`: the places 0 … n−1 sorted by `a`, equals in order.
//!
//! `golden/philox.py` is such an elsewhere, and the tests hold this module to it.

use pellucid_kernels::philox::philox4x32;
use pellucid_kernels::pool;

/// What keys the generator for one evaluation of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// The program's seed.
    pub seed: u64,
    /// The node's stable label: its name.
    pub label: String,
    /// What the node is evaluated at: step, iteration, cell of a sweep.
    pub coordinates: Vec<u64>,
}

impl Noise {
    /// The 64 bits that set this node's numbers apart from every other's under the same seed.
    pub fn stream(&self) -> u64 {
        let coordinates = self.coordinates.iter().flat_map(|coordinate| coordinate.to_le_bytes());
        self.label.bytes().chain([255]).chain(coordinates).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// One number from 0 up to and without 1, of 53 bits.
    pub(crate) fn uniform(&self) -> f64 {
        (self.bits(0).0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Two times 64 random bits of an element.
    fn bits(&self, element: u64) -> (u64, u64) {
        Stream { stream: self.stream(), key: words(self.seed) }.bits(element)
    }

    /// A function of the random bits of each of the first `count` elements.
    pub(super) fn map<T: Default + Clone + Send>(
        &self,
        count: usize,
        function: impl Fn(u64, u64) -> T + Sync,
    ) -> Vec<T> {
        const TOGETHER: usize = 2_048;
        let stream = Stream { stream: self.stream(), key: words(self.seed) };
        let mut results = vec![T::default(); count];
        pool::parallel_chunks(&mut results, TOGETHER, |chunk, results| {
            for (place, result) in results.iter_mut().enumerate() {
                let (a, b) = stream.bits((chunk * TOGETHER + place) as u64);
                *result = function(a, b);
            }
        });
        results
    }
}

#[derive(Clone, Copy)]
struct Stream {
    stream: u64,
    key: [u32; 2],
}

impl Stream {
    fn bits(self, element: u64) -> (u64, u64) {
        let ([e0, e1], [s0, s1]) = (words(element), words(self.stream));
        let [w0, w1, w2, w3] = philox4x32([e0, e1, s0, s1], self.key);
        (u64::from(w0) | u64::from(w1) << 32, u64::from(w2) | u64::from(w3) << 32)
    }
}

fn words(bits: u64) -> [u32; 2] {
    [bits as u32, (bits >> 32) as u32]
}
