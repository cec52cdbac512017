//! Rotary position embedding.
#![allow(unsafe_code)]

use crate::attention::HeadsViewMut;
use crate::isa::Isa;
use crate::pool::{self, Shared};
use crate::simd::kernel;

/// Which components form the pairs that are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotaryStyle {
    /// Component i with i + half, as in GPT-NeoX and in transformers' Llama.
    Half,
    /// Component 2i with 2i + 1, as in GPT-J.
    Interleaved,
}

/// Cosines and sines for a run of tokens: `[tokens, pairs]` each.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    pairs: usize,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RotaryTable {
    /// A table of `scale · cos(position · frequency)` and the sines. The angle is an `f32` product, as in transformers;
    /// its cosine and sine are correct to the last bit or so. `scale` is 1 but for YaRN-like scalings.
    pub fn new(positions: &[usize], inverse_frequencies: &[f32], scale: f32) -> Self {
        let angles = || {
            positions.iter().flat_map(move |position| {
                inverse_frequencies.iter().map(move |frequency| f64::from(*position as f32 * frequency))
            })
        };
        Self {
            pairs: inverse_frequencies.len(),
            cosines: angles().map(|angle| angle.cos() as f32 * scale).collect(),
            sines: angles().map(|angle| angle.sin() as f32 * scale).collect(),
        }
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.cosines.len().checked_div(self.pairs).unwrap_or(0)
    }

    /// Pairs of components that are rotated: half the rotary dimensions.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// The cosines `[tokens, pairs]`.
    pub fn cosines(&self) -> &[f32] {
        &self.cosines
    }

    /// The sines `[tokens, pairs]`.
    pub fn sines(&self) -> &[f32] {
        &self.sines
    }
}

/// Rotates the first `2 * pairs` components of every head of every token, in place; the others stay.
///
/// A pair (a, b) becomes (a cos − b sin, b cos + a sin), each product rounded, as written.
///
/// # Panics
/// If the table is not for as many tokens, or has more pairs than a head has.
pub fn rotary(x: HeadsViewMut<'_>, table: &RotaryTable, style: RotaryStyle) {
    turn(x, table, style, false);
}

/// The vector-Jacobian product of [`rotary`]: turns the cotangents of its result back, in place.
///
/// A pair (a, b) becomes (a cos + b sin, b cos − a sin), times the table's scale as it stands in there: the transposed
/// map, and the inverse one where the scale is 1.
///
/// # Panics
/// As [`rotary`].
pub fn rotary_backward(cotangent: HeadsViewMut<'_>, table: &RotaryTable, style: RotaryStyle) {
    turn(cotangent, table, style, true);
}

fn turn(x: HeadsViewMut<'_>, table: &RotaryTable, style: RotaryStyle, back: bool) {
    let pairs = table.pairs;
    x.check("rotary's x");
    if pairs == 0 {
        return;
    }
    assert_eq!(x.tokens, table.tokens(), "rotary's tokens and its table's");
    assert!(2 * pairs <= x.size, "{pairs} rotary pairs in heads of {}", x.size);
    let isa = Isa::current();
    let (heads, size) = (x.heads, x.size);
    let (token_stride, head_stride) = (x.token_stride, x.head_stride);
    let data = Shared(x.data.as_mut_ptr());
    // Some thousand numbers a chunk.
    let tokens_per_chunk = (8192 / (heads * size).max(1)).max(1);
    pool::parallel(x.tokens.div_ceil(tokens_per_chunk), |chunk| {
        for token in chunk * tokens_per_chunk..((chunk + 1) * tokens_per_chunk).min(x.tokens) {
            let range = token * pairs..(token + 1) * pairs;
            let (cosines, sines) = (&table.cosines[range.clone()], &table.sines[range]);
            for head in 0..heads {
                let place = token * token_stride + head * head_stride;
                // SAFETY: the view was checked: this head's components lie within its data and overlap no other's;
                // each token is in one chunk; the data is exclusively borrowed until the loop ends.
                let row = unsafe { std::slice::from_raw_parts_mut(data.get().add(place), 2 * pairs) };
                match style {
                    RotaryStyle::Half => {
                        let (first, second) = row.split_at_mut(pairs);
                        turn_halves(isa, first, second, cosines, sines, back);
                    }
                    RotaryStyle::Interleaved => turn_neighbours(row, cosines, sines, back),
                }
            }
        }
    });
}

/// Multiplies the sines: 1, or −1 on the way back (exact, so `a − b (−sin)` is `a + b sin`).
fn sign(back: bool) -> f32 {
    if back { -1.0 } else { 1.0 }
}

kernel! {
    fn turn_halves[s: S](
        first: &mut [f32],
        second: &mut [f32],
        cosines: &[f32],
        sines: &[f32],
        back: bool,
    ) {
        let sign = sign(back);
        for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
            let sine = sign * sine;
            (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
        }
    }
}

fn turn_neighbours(row: &mut [f32], cosines: &[f32], sines: &[f32], back: bool) {
    let sign = sign(back);
    for ((pair, cosine), sine) in row.as_chunks_mut::<2>().0.iter_mut().zip(cosines).zip(sines) {
        let ([a, b], sine) = (*pair, sign * sine);
        *pair = [a * cosine - b * sine, b * cosine + a * sine];
    }
}
