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

    /// Two times 64 random bits for each of the first `count` elements.
    pub(super) fn bits(&self, count: usize) -> impl Iterator<Item = (u64, u64)> {
        let (stream, key) = (self.stream(), words(self.seed));
        (0..count as u64).map(move |element| {
            let ([e0, e1], [s0, s1]) = (words(element), words(stream));
            let [w0, w1, w2, w3] = philox([e0, e1, s0, s1], key);
            (u64::from(w0) | u64::from(w1) << 32, u64::from(w2) | u64::from(w3) << 32)
        })
    }
}

fn words(bits: u64) -> [u32; 2] {
    [bits as u32, (bits >> 32) as u32]
}

/// One block of Philox 4×32 with ten rounds.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let left = 0xD251_1F53u64 * u64::from(counter[0]);
        let right = 0xCD9E_8D57u64 * u64::from(counter[2]);
        let ([left_low, left_high], [right_low, right_high]) = (words(left), words(right));
        counter = [right_high ^ counter[1] ^ key[0], right_low, left_high ^ counter[3] ^ key[1], left_low];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}
