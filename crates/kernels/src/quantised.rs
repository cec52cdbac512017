//! Weights in blocks of small whole numbers, as quantised files hold them, packed for the matrix product as they are.
//!
//! Where a product has few rows, what it takes is the time in which its weights come from memory. Weights of four or
//! eight bits come in a fraction of the time of `f32`: a work item unpacks a run of them into a scratch that stays in
//! the first-level cache, and the `f32` tile goes on from there. What is unpacked is the number that a reader of the
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

use std::ops::Range;

use crate::buffer::AlignedWords;
use crate::isa::Isa;
use crate::pool;
use crate::simd::{LANES, Simd, kernel};
use crate::tile::{PANEL, PANEL_VECTORS};

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

    /// Unpacks the steps of whole vectors, which begin with a panel's first or are one: to `out` a panel after the other,
    /// in each a step's 32 columns after the other. `steps` must begin at a square, and is rounded up to whole ones.
    pub(crate) fn unpack(
        self,
        isa: Isa,
        words: &[u32],
        panel_words: usize,
        vectors: Range<usize>,
        steps: Range<usize>,
        out: &mut [f32],
    ) {
        debug_assert!(steps.start.is_multiple_of(BLOCK));
        let (first, count) = (steps.start / BLOCK, steps.len().div_ceil(BLOCK));
        if count == 0 {
            return;
        }
        let words_of = |vector: usize| {
            let start = vector / PANEL_VECTORS * panel_words + first * self.form.square_words();
            &words[start..start + count * self.form.square_words()]
        };
        let first_panel = vectors.start / PANEL_VECTORS;
        for vector in vectors {
            let place = (vector / PANEL_VECTORS - first_panel) * count * BLOCK * PANEL;
            let out = &mut out[place..place + count * BLOCK * PANEL];
            let (words, side) = (words_of(vector), vector % PANEL_VECTORS);
            match (self.form.four_bits, self.form.offsets, self.transposed) {
                (false, false, false) => bytes_scaled(isa, self.form, words, side, out),
                (false, true, false) => bytes_with_offsets(isa, self.form, words, side, out),
                (true, false, false) => nibbles_scaled(isa, self.form, words, side, out),
                (true, true, false) => nibbles_with_offsets(isa, self.form, words, side, out),
                (false, false, true) => bytes_scaled_transposed(isa, self.form, words, side, out),
                (false, true, true) => bytes_with_offsets_transposed(isa, self.form, words, side, out),
                (true, false, true) => nibbles_scaled_transposed(isa, self.form, words, side, out),
                (true, true, true) => nibbles_with_offsets_transposed(isa, self.form, words, side, out),
            }
        }
    }
}

/// Every kind of square's own loop: four bits or eight, with offsets or without, packed either way.
macro_rules! unpacking {
    ($($name:ident: $four_bits:literal, $offsets:literal, $transposed:literal;)*) => {$(
        kernel! {
            fn $name[s: S](form: BlockForm, words: &[u32], side: usize, out: &mut [f32]) {
                let outs = out.as_chunks_mut::<LANES>().0.as_chunks_mut::<PANEL_VECTORS>().0.as_chunks_mut::<BLOCK>().0;
                for (square, out) in words.chunks_exact(form.square_words()).zip(outs) {
                    unpack_square::<S, $four_bits, $offsets, $transposed>(s, form, square, side, out);
                }
            }
        }
    )*};
}

unpacking! {
    bytes_scaled: false, false, false;
    bytes_with_offsets: false, true, false;
    nibbles_scaled: true, false, false;
    nibbles_with_offsets: true, true, false;
    bytes_scaled_transposed: false, false, true;
    bytes_with_offsets_transposed: false, true, true;
    nibbles_scaled_transposed: true, false, true;
    nibbles_with_offsets_transposed: true, true, true;
}

/// Unpacks one side, a vector's columns, of a square.
#[inline(always)]
fn unpack_square<S: Simd, const FOUR_BITS: bool, const OFFSETS: bool, const TRANSPOSED: bool>(
    s: S,
    form: BlockForm,
    square: &[u32],
    side: usize,
    out: &mut [[[f32; LANES]; PANEL_VECTORS]; BLOCK],
) {
    let side = side % PANEL_VECTORS;
    let (header, numbers) = square.split_at(form.header_words());
    let (header, _) = floats(header).as_chunks::<PANEL>();
    // A step's two vectors; or of four bits, two steps'.
    let (numbers, _) = bytes(numbers).as_chunks::<LANES>().0.as_chunks::<PANEL_VECTORS>();
    let numbers = &numbers[..if FOUR_BITS { BLOCK / 2 } else { BLOCK }];
    let vector = |row: &[f32; PANEL]| s.load(&row.as_chunks().0[side]);
    let offset_row = if OFFSETS { header[header.len() - 1] } else { [0.0; PANEL] };
    for half in 0..BLOCK / HALF {
        // Forward, a scale is a column's, and a half is of steps. Transposed, it is a step's, and a half is of columns:
        // a vector's.
        let own = if TRANSPOSED { side } else { half };
        let scale_row = &header[if form.two_scales { own } else { 0 }];
        let (column_scales, column_offsets) = (vector(scale_row), vector(&offset_row));
        for pair in 0..HALF / 2 {
            let step = half * HALF + 2 * pair;
            let both = if FOUR_BITS {
                let two = s.widen(&numbers[step / 2][side]);
                if OFFSETS {
                    let mask = s.splat_int(15);
                    [s.and(two, mask), s.and(s.shift_right::<4>(two), mask)]
                } else {
                    [s.shift_right::<28>(s.shift_left::<28>(two)), s.shift_right::<4>(two)]
                }
            } else {
                [s.widen(&numbers[step][side]), s.widen(&numbers[step + 1][side])]
            };
            for odd in 0..2 {
                let (scale, offset) = if TRANSPOSED {
                    (s.splat(scale_row[step + odd]), s.splat(offset_row[step + odd]))
                } else {
                    (column_scales, column_offsets)
                };
                let whole = s.int_to_float(both[odd]);
                let weights = if OFFSETS { s.mul_add(scale, whole, offset) } else { s.mul(scale, whole) };
                s.store(weights, &mut out[step + odd][side]);
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
