//! The two sides of a product, as its work items read them.
#![allow(unsafe_code)]

use std::ops::Range;

use crate::buffer::AlignedWords;
use crate::isa::Isa;
use crate::packed::{self, PackedMatrix, Precision, bf16_pair};
use crate::quantised::{Panels, Squares};
use crate::simd::{LANES, kernel};
use crate::tile::{PANEL, PANEL_VECTORS, Words};

/// Steps taken at once: a panel's block of so many stays in the second-level cache, the left rows' in the first.
pub(crate) const STEP_BLOCK: usize = 768;
/// Words between the left rows' blocks: a multiple of a cache line that does not map the rows onto the same sets.
pub(crate) const LEFT_STRIDE: usize = STEP_BLOCK + 16;
/// Vectors of a quantised weight that are unpacked at once where that is a square or more: 8 KB, which share the first-level
/// cache with the squares that they come from and with the left rows.
const UNPACKED_VECTORS: usize = 128;
/// Vectors of a square of as many columns as a tile takes, which is the most that is unpacked at once.
pub(crate) const MOST_UNPACKED_VECTORS: usize = 8 * PANEL;

/// The right side of a product: packed weights, or a plain `[k, n]` array whose columns fill whole vectors.
pub(crate) struct Right<'a> {
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) precision: Precision,
    words: &'a [u32],
    /// Words from one step to the next, within a panel.
    step_stride: usize,
    /// Words from one panel to the next.
    panel_stride: usize,
    /// How the words are unpacked, of a quantised weight.
    pub(crate) squares: Option<Squares>,
}

impl<'a> Right<'a> {
    pub(crate) fn packed(weights: &'a PackedMatrix) -> Self {
        Self {
            k: weights.k(),
            n: weights.n(),
            precision: weights.precision(),
            words: weights.words().words(),
            step_stride: PANEL,
            panel_stride: weights.panel_words(),
            squares: weights.squares(),
        }
    }

    /// The first columns of a `[k, width]` array, as many as fill whole vectors.
    pub(crate) fn plain(values: &'a [f32], k: usize, width: usize) -> Self {
        assert_eq!(values.len(), k * width, "a [{k}, {width}] array");
        // SAFETY: u32 has the size and alignment of f32, and every bit pattern is one.
        let words = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) };
        let n = width / LANES * LANES;
        Self {
            k,
            n,
            precision: Precision::F32,
            words,
            step_stride: width,
            panel_stride: PANEL,
            squares: None,
        }
    }

    pub(crate) fn panels(&self) -> Panels<'a> {
        Panels { words: self.words, stride: self.panel_stride }
    }

    pub(crate) fn steps(&self) -> usize {
        packed::steps(self.k, self.precision)
    }

    pub(crate) fn word_kind(&self) -> Words {
        match self.precision {
            Precision::F32 | Precision::Quantised => Words::Float,
            Precision::Bf16 => Words::Bf16Pair,
        }
    }

    /// Steps that a group of so many vectors takes at once.
    pub(crate) fn run(&self, vectors: usize) -> usize {
        if self.squares.is_some() {
            (UNPACKED_VECTORS / vectors.next_multiple_of(PANEL_VECTORS)).max(PANEL)
        } else {
            STEP_BLOCK
        }
    }

    /// Of a quantised weight, where a row alone can take so many vectors at once: its squares, and how many steps are whole
    /// ones.
    pub(crate) fn squares_for_a_row(&self, vectors: usize, steps: usize) -> Option<(Squares, usize)> {
        let whole = steps - steps % PANEL;
        let squares = self.squares?;
        (whole > 0 && vectors.is_multiple_of(Squares::ROW_VECTORS)).then_some((squares, whole))
    }

    /// Where a run of steps of some vectors is to be read, step stride and panel stride: where they lie, or `unpacked`.
    pub(crate) fn read(
        &self,
        isa: Isa,
        vector: usize,
        vectors: usize,
        steps: Range<usize>,
        unpacked: &mut AlignedWords,
    ) -> (*const u32, usize, usize) {
        let Some(squares) = self.squares else {
            return (self.start(vector, vectors, steps), self.step_stride, self.panel_stride);
        };
        assert!(steps.len() <= self.run(vectors), "a run has its room");
        let (range, count) = (vector..vector + vectors, steps.len());
        squares.unpack(isa, self.panels(), range, steps, unpacked.floats_mut());
        let side = vector % PANEL_VECTORS * LANES;
        (unpacked.words()[side..].as_ptr(), PANEL, count.next_multiple_of(PANEL) * PANEL)
    }

    /// Where a vector's run of steps begins. The run's last word is checked to be there.
    fn start(&self, vector: usize, vectors: usize, steps: Range<usize>) -> *const u32 {
        let of = |vector: usize| vector / PANEL_VECTORS * self.panel_stride + vector % PANEL_VECTORS * LANES;
        let last = of(vector + vectors - 1) + (steps.end.max(1) - 1) * self.step_stride + LANES;
        assert!(last <= self.words.len() || steps.is_empty(), "a right side's vectors lie within it");
        self.words.as_ptr().wrapping_add(of(vector) + steps.start * self.step_stride)
    }
}

/// The rows of the left side that a work item takes.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
}

impl Left<'_> {
    /// Copies the steps `from..to` of all rows to `block`, `LEFT_STRIDE` apart, in the weights' own number format.
    pub(crate) fn copy_steps(
        &self,
        isa: Isa,
        precision: Precision,
        k: usize,
        from: usize,
        to: usize,
        block: &mut [u32],
    ) {
        for (row, block) in block.chunks_mut(LEFT_STRIDE).take(self.rows).enumerate() {
            let x = &self.x[(self.first_row + row) * self.stride..][..k];
            match precision {
                Precision::F32 | Precision::Quantised => {
                    for (word, number) in block.iter_mut().zip(&x[from..to]) {
                        *word = number.to_bits();
                    }
                }
                Precision::Bf16 => round_pairs(isa, &x[2 * from..k.min(2 * to)], block),
            }
        }
    }
}

kernel! {
    /// Pairs of numbers rounded to bf16, one word a pair; a last number alone is paired with zero.
    fn round_pairs[s: S](numbers: &[f32], words: &mut [u32]) {
        let (pairs, odd) = numbers.as_chunks::<2>();
        for (word, [low, high]) in words.iter_mut().zip(pairs) {
            *word = bf16_pair(*low, *high);
        }
        if let [last] = odd {
            words[pairs.len()] = bf16_pair(*last, 0.0);
        }
    }
}
