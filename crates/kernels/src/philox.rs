//! Philox 4×32-10: a counter-based random number generator (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as
//! easy as 1, 2, 3", SC 2011). A number is a function of the key, the stream and its index, and of nothing else.
//!
//! # Derivations, for a script elsewhere
//!
//! A [`Stream`] is a 64-bit `key` and a 64-bit `stream`. Block `b` (64 bits) is
//! `philox4x32([b mod 2^32, b div 2^32, stream mod 2^32, stream div 2^32], [key mod 2^32, key div 2^32])`, four words.
//!
//! - `uniform(i)`: word `i mod 4` of block `i div 4`, shifted right by 8, times 2⁻²⁴: in [0, 1), exact in `f32`.
//! - `normal(i)`: with `(a, b)` the words `(0, 1)` of block `i div 4` if `i mod 4 < 2`, else the words `(2, 3)`:
//!   `u = (a + 0.5) · 2⁻³²`, `v = b · 2⁻³²`, `r = √(−2 ln u)`; then `r cos(2πv)` for even `i`, `r sin(2πv)` for odd `i`,
//!   all in `f64`, rounded to `f32` at the end.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The generator's function: ten rounds on a counter under a key.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut words = counter;
    let mut key = key;
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let first = u64::from(MULTIPLIERS[0]) * u64::from(words[0]);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(words[2]);
        words = [
            (second >> 32) as u32 ^ words[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ words[3] ^ key[1],
            first as u32,
        ];
    }
    words
}

/// A stream of random numbers: element `i` is a function of `i`, the key and the stream's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The key: the seed, most often.
    pub key: u64,
    /// Which of the key's streams.
    pub stream: u64,
}

impl Stream {
    /// Block `index`: elements `4 * index` to `4 * index + 3`.
    pub fn block(self, index: u64) -> [u32; 4] {
        philox4x32(
            [index as u32, (index >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32],
            [self.key as u32, (self.key >> 32) as u32],
        )
    }

    /// Word `index`: 32 random bits.
    pub fn word(self, index: u64) -> u32 {
        self.block(index / 4)[(index % 4) as usize]
    }

    /// Element `index`, uniform in [0, 1) in steps of 2⁻²⁴.
    pub fn uniform(self, index: u64) -> f32 {
        uniform_of(self.word(index))
    }

    /// Element `index`, normally distributed.
    pub fn normal(self, index: u64) -> f32 {
        normals_of(self.block(index / 4))[(index % 4) as usize]
    }

    /// Elements `start`, `start + 1`, … of the uniform numbers.
    pub fn fill_uniform(self, start: u64, out: &mut [f32]) {
        self.fill(start, out, |words| words.map(uniform_of));
    }

    /// Elements `start`, `start + 1`, … of the normal numbers.
    pub fn fill_normal(self, start: u64, out: &mut [f32]) {
        self.fill(start, out, normals_of);
    }

    fn fill(self, start: u64, out: &mut [f32], numbers: impl Fn([u32; 4]) -> [f32; 4]) {
        let mut index = start;
        let mut rest = out;
        while !rest.is_empty() {
            let offset = (index % 4) as usize;
            let count = rest.len().min(4 - offset);
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&numbers(self.block(index / 4))[offset..offset + count]);
            rest = later;
            index += count as u64;
        }
    }
}

fn uniform_of(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

fn normals_of(words: [u32; 4]) -> [f32; 4] {
    const STEP: f64 = 1.0 / 4_294_967_296.0;
    let pair = |a: u32, b: u32| {
        let radius = (-2.0 * ((f64::from(a) + 0.5) * STEP).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * (f64::from(b) * STEP)).sin_cos();
        [(radius * cosine) as f32, (radius * sine) as f32]
    };
    let ([a, b], [c, d]) = (pair(words[0], words[1]), pair(words[2], words[3]));
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors of the Random123 distribution (`kat_vectors`, philox4x32 10).
    #[test]
    fn the_published_vectors_come_out() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn filling_in_pieces_gives_the_elements_one_by_one() {
        let stream = Stream { key: 0x1234_5678_9abc_def0, stream: 7 << 33 | 5 };
        let mut normals = [0.0; 23];
        let mut uniforms = [0.0; 23];
        stream.fill_normal(u64::from(u32::MAX) * 4 - 2, &mut normals[..9]);
        stream.fill_normal(u64::from(u32::MAX) * 4 + 7, &mut normals[9..]);
        stream.fill_uniform(3, &mut uniforms);
        for i in 0..23 {
            assert_eq!(normals[i as usize], stream.normal(u64::from(u32::MAX) * 4 - 2 + i));
            assert_eq!(uniforms[i as usize], stream.uniform(3 + i));
        }
    }

    #[test]
    fn the_moments_are_those_of_the_distributions() {
        let stream = Stream { key: 1, stream: 2 };
        let mut numbers = vec![0.0; 100_000];
        let moments = |numbers: &[f32]| {
            let mean = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / numbers.len() as f64;
            let variance =
                numbers.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / numbers.len() as f64;
            (mean, variance)
        };
        stream.fill_normal(0, &mut numbers);
        let (mean, variance) = moments(&numbers);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "normal: {mean}, {variance}");
        stream.fill_uniform(0, &mut numbers);
        let (mean, variance) = moments(&numbers);
        assert!(
            (mean - 0.5).abs() < 0.005 && (variance - 1.0 / 12.0).abs() < 0.002,
            "uniform: {mean}, {variance}"
        );
        assert!(numbers.iter().all(|x| (0.0..1.0).contains(x)));
    }
}
