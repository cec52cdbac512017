//! Weights in blocks of small whole numbers, as quantised files hold them, packed for the matrix product as they are.
//!
//! Where a product has few rows, what it takes is the time in which its weights come from memory. Weights of four or
//! eight bits come in a fraction of the time of `f32`: a work item unpacks a run of them into a scratch that stays in
//! the first-level cache, and the `f32` tile goes on from there; a row alone multiplies with them in the registers, where
//! they are unpacked. What is unpacked is the number that a reader of the
//! file would have made of it beforehand, so a product's bits are those of the same weights packed as `f32`.
//!
//! # Layout
//!
//! Panels of 32 columns, as everywhere. A panel is a row of *squares* of 32 steps by 32 columns, one after the other:
//!
//! - 32 scales (`f32`), or twice as many where each half of a block has its own,
//! - 32 offsets (`f32`), where the form has them,
//! - the numbers: a step's 32 columns after the other, one byte each; or of four bits two steps in a byte, the earlier
//!   in its low half, so that one load gives sixteen columns of both.
//!
//! On the way forward a square's column is a block: a scale is one column's. On the way back (packed transposed) its
//! step is: a scale is one step's.
#![allow(unsafe_code)]

mod loops;

use std::ops::Range;

use crate::buffer::AlignedWords;
use crate::isa::Isa;
use crate::pool;
use crate::simd::LANES;
use crate::tile::{PANEL, PANEL_VECTORS};
use loops::ROW_PANELS;

/// Weights in a block, and the side of a square.
const BLOCK: usize = 32;
/// Weights that share a scale where each half of a block has its own.
const HALF: usize = BLOCK / 2;
const _: () =
    assert!(BLOCK == PANEL && HALF == LANES, "a square is as wide as a panel, its halves as a vector");

/// Thirty-two weights of one output, for as many inputs one after the other: whole numbers, what they are multiplied by,
/// and what is added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// The whole numbers, in the range of their [`BlockForm`].
    pub numbers: [i8; BLOCK],
    /// What the first sixteen are multiplied by, and the last sixteen.
    pub scales: [f32; 2],
    /// What is added to each product, if the form has it.
    pub offset: Option<f32>,
}

impl Block {
    /// The weights: each number times its scale, rounded once, plus the offset, rounded once more.
    ///
    /// The kernels add the offset in the same operation as they multiply, with a single rounding. For their results to
    /// be these, a form with offsets must have products that `f32` holds exactly, as those of all GGUF types are.
    pub fn weights(&self) -> [f32; BLOCK] {
        std::array::from_fn(|index| {
            let product = self.scales[index / HALF] * f32::from(self.numbers[index]);
            // Without an offset nothing is added: −0 + 0 is not −0.
            self.offset.map_or(product, |offset| product + offset)
        })
    }
}

/// What blocks of one weight have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockForm {
    /// Whether numbers are of four bits: from 0 to 15 with offsets, from −8 to 7 without. Else of eight, −128 to 127.
    pub four_bits: bool,
    /// Whether there are offsets.
    pub offsets: bool,
    /// Whether the halves of a block have scales of their own.
    pub two_scales: bool,
}

impl BlockForm {
    /// Bytes that a block of 32 weights takes when it is packed.
    pub fn block_bytes(self) -> usize {
        self.square_words() * size_of::<u32>() / PANEL
    }

    fn scale_words(self) -> usize {
        if self.two_scales { 2 * PANEL } else { PANEL }
    }

    fn header_words(self) -> usize {
        self.scale_words() + if self.offsets { PANEL } else { 0 }
    }

    fn square_words(self) -> usize {
        self.header_words() + BLOCK * PANEL / if self.four_bits { 8 } else { 4 }
    }

    fn holds(self, block: &Block) -> bool {
        let range = match (self.four_bits, self.offsets) {
            (true, true) => 0..=15,
            (true, false) => -8..=7,
            (false, _) => i8::MIN..=i8::MAX,
        };
        block.offset.is_some() == self.offsets
            && (self.two_scales || block.scales[0].to_bits() == block.scales[1].to_bits())
            && block.numbers.iter().all(|number| range.contains(number))
    }
}

/// The words of a packed matrix.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) words: &'a [u32],
    /// From one panel to the next.
    pub(crate) stride: usize,
}

/// How a packed matrix's squares are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Squares {
    form: BlockForm,
    /// Packed from outputs to inputs: a block is a step's.
    transposed: bool,
}

impl Squares {
    /// Words of a panel of so many steps.
    pub(crate) fn panel_words(self, steps: usize) -> usize {
        steps.div_ceil(BLOCK) * self.form.square_words()
    }

    /// Packs a weight of `k` inputs and `n` outputs, on the pool: forward a `[k, n]` matrix, transposed one of `[n, k]`.
    /// `block(output, index)` gives the weights of inputs `32 * index` and on.
    pub(crate) fn pack(
        form: BlockForm,
        transposed: bool,
        (k, n): (usize, usize),
        block: impl Fn(usize, usize) -> Block + Sync,
    ) -> (Self, AlignedWords) {
        assert!(k.is_multiple_of(BLOCK), "{k} inputs in blocks of {BLOCK}");
        let squares = Self { form, transposed };
        let (steps, columns) = if transposed { (n, k) } else { (k, n) };
        let panel_words = squares.panel_words(steps);
        let mut words = AlignedWords::zeroed(columns.div_ceil(PANEL) * panel_words);
        if panel_words > 0 {
            pool::parallel_chunks(words.words_mut(), panel_words, |panel, words| {
                for (index, square) in words.chunks_exact_mut(form.square_words()).enumerate() {
                    let (outputs, inputs) = if transposed { (index, panel) } else { (panel, index) };
                    for place in 0..BLOCK.min(n - outputs * BLOCK) {
                        let block = block(outputs * BLOCK + place, inputs);
                        assert!(form.holds(&block), "{block:?} in {form:?}");
                        squares.put(square, place, &block);
                    }
                }
            });
        }
        (squares, words)
    }

    /// Writes the block at `place` of a square: a column, or transposed a step.
    fn put(self, square: &mut [u32], place: usize, block: &Block) {
        square[place] = block.scales[0].to_bits();
        if self.form.two_scales {
            square[PANEL + place] = block.scales[1].to_bits();
        }
        if let Some(offset) = block.offset {
            square[self.form.scale_words() + place] = offset.to_bits();
        }
        let bytes = bytes_mut(&mut square[self.form.header_words()..]);
        for (index, number) in block.numbers.iter().enumerate() {
            let (step, column) = if self.transposed { (place, index) } else { (index, place) };
            if self.form.four_bits {
                let shift = step % 2 * 4;
                let byte = &mut bytes[step / 2 * PANEL + column];
                *byte = *byte & !(15 << shift) | (number & 15) << shift;
            } else {
                bytes[step * PANEL + column] = *number;
            }
        }
    }

    /// The weight at a step and column of a panel.
    pub(crate) fn weight(self, panel: &[u32], step: usize, column: usize) -> f32 {
        let square = &panel[step / BLOCK * self.form.square_words()..][..self.form.square_words()];
        let step = step % BLOCK;
        let (place, index) = if self.transposed { (step, column) } else { (column, step) };
        let (header, numbers) = square.split_at(self.form.header_words());
        let bytes = bytes(numbers);
        let number = if self.form.four_bits {
            let byte = bytes[step / 2 * PANEL + column];
            let (low, high) =
                if self.form.offsets { (byte & 15, byte >> 4 & 15) } else { (byte << 4 >> 4, byte >> 4) };
            if step.is_multiple_of(2) { low } else { high }
        } else {
            bytes[step * PANEL + column]
        };
        let scale = header[if self.form.two_scales { index / HALF * PANEL } else { 0 } + place];
        let product = f32::from_bits(scale) * f32::from(number);
        if self.form.offsets {
            product + f32::from_bits(header[self.form.scale_words() + place])
        } else {
            product
        }
    }

    /// `count` squares of a panel, from `first` on.
    fn squares<'a>(self, panels: Panels<'a>, panel: usize, first: usize, count: usize) -> &'a [u32] {
        let start = panel * panels.stride + first * self.form.square_words();
        &panels.words[start..start + count * self.form.square_words()]
    }

    /// Unpacks the steps of whole vectors, which begin with a panel's first or are one: to `out` a panel after the other,
    /// in each a step's 32 columns after the other. `steps` must begin at a square, and is rounded up to whole ones.
    pub(crate) fn unpack(
        self,
        isa: Isa,
        panels: Panels<'_>,
        vectors: Range<usize>,
        steps: Range<usize>,
        out: &mut [f32],
    ) {
        debug_assert!(steps.start.is_multiple_of(BLOCK));
        let (first, count) = (steps.start / BLOCK, steps.len().div_ceil(BLOCK));
        if count == 0 {
            return;
        }
        let first_panel = vectors.start / PANEL_VECTORS;
        for vector in vectors {
            let place = (vector / PANEL_VECTORS - first_panel) * count * BLOCK * PANEL;
            let out = &mut out[place..place + count * BLOCK * PANEL];
            let words = self.squares(panels, vector / PANEL_VECTORS, first, count);
            let side = vector % PANEL_VECTORS;
            match (self.form.four_bits, self.form.offsets, self.transposed) {
                (false, false, false) => loops::unpack_bytes(isa, self.form, words, side, out),
                (false, true, false) => loops::unpack_bytes_offsets(isa, self.form, words, side, out),
                (true, false, false) => loops::unpack_nibbles(isa, self.form, words, side, out),
                (true, true, false) => loops::unpack_nibbles_offsets(isa, self.form, words, side, out),
                (false, false, true) => loops::unpack_bytes_transposed(isa, self.form, words, side, out),
                (false, true, true) => {
                    loops::unpack_bytes_offsets_transposed(isa, self.form, words, side, out)
                }
                (true, false, true) => loops::unpack_nibbles_transposed(isa, self.form, words, side, out),
                (true, true, true) => {
                    loops::unpack_nibbles_offsets_transposed(isa, self.form, words, side, out)
                }
            }
        }
    }

    /// Vectors that [`multiply`](Self::multiply) takes at once, from a panel's first.
    pub(crate) const ROW_VECTORS: usize = ROW_PANELS * PANEL_VECTORS;

    /// Adds the products of a row's elements at `steps`, whole squares, to its sums `[vectors, LANES]`, which are a multiple of
    /// [`ROW_VECTORS`](Self::ROW_VECTORS).
    pub(crate) fn multiply(
        self,
        isa: Isa,
        panels: Panels<'_>,
        first_vector: usize,
        steps: Range<usize>,
        row: &[f32],
        sums: &mut [f32],
    ) {
        debug_assert!(steps.start.is_multiple_of(BLOCK) && steps.len() == row.len());
        debug_assert!(first_vector.is_multiple_of(PANEL_VECTORS) && row.len().is_multiple_of(BLOCK));
        let (first, count) = (steps.start / BLOCK, steps.len() / BLOCK);
        let (sums, _) = sums.as_chunks_mut::<LANES>().0.as_chunks_mut().0.as_chunks_mut::<ROW_PANELS>();
        for (place, sums) in sums.iter_mut().enumerate() {
            let first_panel = first_vector / PANEL_VECTORS + place * ROW_PANELS;
            let panels = std::array::from_fn(|panel| self.squares(panels, first_panel + panel, first, count));
            match (self.form.four_bits, self.form.offsets, self.transposed) {
                (false, false, false) => loops::multiply_bytes(isa, self.form, panels, row, sums),
                (false, true, false) => loops::multiply_bytes_offsets(isa, self.form, panels, row, sums),
                (true, false, false) => loops::multiply_nibbles(isa, self.form, panels, row, sums),
                (true, true, false) => loops::multiply_nibbles_offsets(isa, self.form, panels, row, sums),
                (false, false, true) => loops::multiply_bytes_transposed(isa, self.form, panels, row, sums),
                (false, true, true) => {
                    loops::multiply_bytes_offsets_transposed(isa, self.form, panels, row, sums)
                }
                (true, false, true) => loops::multiply_nibbles_transposed(isa, self.form, panels, row, sums),
                (true, true, true) => {
                    loops::multiply_nibbles_offsets_transposed(isa, self.form, panels, row, sums)
                }
            }
        }
    }
}

fn floats(words: &[u32]) -> &[f32] {
    // SAFETY: f32 has the size and alignment of u32, and every bit pattern is one.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
}

fn bytes(words: &[u32]) -> &[i8] {
    // SAFETY: a word is four initialised bytes, and a byte needs no alignment.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

fn bytes_mut(words: &mut [u32]) -> &mut [i8] {
    // SAFETY: as in `bytes`; every four bytes are a word too, and the borrow is passed on.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}
