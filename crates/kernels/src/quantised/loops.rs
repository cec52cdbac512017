//! The loops over squares, compiled for every kind of square on every instruction set.

use super::{BLOCK, BlockForm, HALF, bytes, floats};
use crate::simd::{LANES, Simd, kernel};
use crate::tile::{PANEL, PANEL_VECTORS};

/// Every kind of square's own loops: four bits or eight, with offsets or without, packed either way.
macro_rules! loops {
    ($($unpack:ident, $multiply:ident: $four_bits:literal, $offsets:literal, $transposed:literal;)*) => {$(
        kernel! {
            pub(super) fn $unpack[s: S](form: BlockForm, words: &[u32], side: usize, out: &mut [f32]) {
                let outs = out.as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0;
                for (square, out) in words.chunks_exact(form.square_words()).zip(outs) {
                    unpack_square::<S, $four_bits, $offsets, $transposed>(s, form, square, side, out);
                }
            }
        }
        kernel! {
            pub(super) fn $multiply[s: S](form: BlockForm, panels: [&[u32]; ROW_PANELS], row: &[f32], sums: &mut RowSums) {
                multiply_row::<S, $four_bits, $offsets, $transposed>(s, form, panels, row, sums);
            }
        }
    )*};
}

loops! {
    unpack_bytes, multiply_bytes: false, false, false;
    unpack_bytes_offsets, multiply_bytes_offsets: false, true, false;
    unpack_nibbles, multiply_nibbles: true, false, false;
    unpack_nibbles_offsets, multiply_nibbles_offsets: true, true, false;
    unpack_bytes_transposed, multiply_bytes_transposed: false, false, true;
    unpack_bytes_offsets_transposed, multiply_bytes_offsets_transposed: false, true, true;
    unpack_nibbles_transposed, multiply_nibbles_transposed: true, false, true;
    unpack_nibbles_offsets_transposed, multiply_nibbles_offsets_transposed: true, true, true;
}

/// A square as the loops read it.
#[derive(Clone, Copy)]
struct Square<'a> {
    header: &'a [[f32; PANEL]],
    /// A step's two vectors; or of four bits, two steps'.
    numbers: &'a [[[i8; LANES]; PANEL_VECTORS]],
    two_scales: bool,
}

impl<'a> Square<'a> {
    #[inline(always)]
    fn new<const FOUR_BITS: bool>(form: BlockForm, words: &'a [u32]) -> Self {
        let (header, numbers) = words.split_at(form.header_words());
        let (numbers, _) = bytes(numbers).as_chunks::<LANES>().0.as_chunks::<PANEL_VECTORS>();
        Self {
            header: floats(header).as_chunks().0,
            numbers: &numbers[..if FOUR_BITS { BLOCK / 2 } else { BLOCK }],
            two_scales: form.two_scales,
        }
    }

    /// The scales of a half. Forward, a scale is a column's, and a half is of steps. Transposed, it is a step's, and a half is
    /// of columns: a vector's.
    #[inline(always)]
    fn scales<const TRANSPOSED: bool>(self, half: usize, side: usize) -> &'a [f32; PANEL] {
        let own = if TRANSPOSED { side } else { half };
        &self.header[if self.two_scales { own } else { 0 }]
    }

    #[inline(always)]
    fn offsets<const OFFSETS: bool>(self) -> &'a [f32; PANEL] {
        if OFFSETS { &self.header[self.header.len() - 1] } else { &[0.0; PANEL] }
    }

    /// One side's whole numbers at an even step and the one after it.
    #[inline(always)]
    fn two_steps<S: Simd, const FOUR_BITS: bool, const OFFSETS: bool>(
        self,
        s: S,
        step: usize,
        side: usize,
    ) -> [S::Float; 2] {
        let both = if FOUR_BITS {
            let two = s.widen(&self.numbers[step / 2][side]);
            if OFFSETS {
                let mask = s.splat_int(15);
                [s.and(two, mask), s.and(s.shift_right::<4>(two), mask)]
            } else {
                [s.shift_right::<28>(s.shift_left::<28>(two)), s.shift_right::<4>(two)]
            }
        } else {
            [s.widen(&self.numbers[step][side]), s.widen(&self.numbers[step + 1][side])]
        };
        [s.int_to_float(both[0]), s.int_to_float(both[1])]
    }
}

/// A vector of weights from whole numbers, in the order of [`Block::weights`](super::Block::weights).
#[inline(always)]
fn weigh<S: Simd, const OFFSETS: bool>(s: S, whole: S::Float, scale: S::Float, offset: S::Float) -> S::Float {
    if OFFSETS { s.mul_add(scale, whole, offset) } else { s.mul(scale, whole) }
}

/// Unpacks one side, a vector's columns, of a square.
#[inline(always)]
fn unpack_square<S: Simd, const FOUR_BITS: bool, const OFFSETS: bool, const TRANSPOSED: bool>(
    s: S,
    form: BlockForm,
    words: &[u32],
    side: usize,
    out: &mut [[[f32; LANES]; PANEL_VECTORS]; BLOCK],
) {
    let side = side % PANEL_VECTORS;
    let square = Square::new::<FOUR_BITS>(form, words);
    let offsets = square.offsets::<OFFSETS>();
    for half in 0..BLOCK / HALF {
        let scales = square.scales::<TRANSPOSED>(half, side);
        let mut scale = s.load(&scales.as_chunks().0[side]);
        let mut offset = s.load(&offsets.as_chunks().0[side]);
        for pair in 0..HALF / 2 {
            let step = half * HALF + 2 * pair;
            let both = square.two_steps::<S, FOUR_BITS, OFFSETS>(s, step, side);
            for odd in 0..2 {
                if TRANSPOSED {
                    (scale, offset) = (s.splat(scales[step + odd]), s.splat(offsets[step + odd]));
                }
                s.store(weigh::<S, OFFSETS>(s, both[odd], scale, offset), &mut out[step + odd][side]);
            }
        }
    }
}

/// Panels that a row alone is multiplied with at once: four chains, as many as hide what a multiply-add takes.
pub(super) const ROW_PANELS: usize = 2;
/// A row's sums in those panels.
pub(super) type RowSums = [[[f32; LANES]; PANEL_VECTORS]; ROW_PANELS];

/// Adds a row's products with some squares of two panels to its sums, the steps in order: what the tile would do with
/// unpacked weights.
#[inline(always)]
fn multiply_row<S: Simd, const FOUR_BITS: bool, const OFFSETS: bool, const TRANSPOSED: bool>(
    s: S,
    form: BlockForm,
    panels: [&[u32]; ROW_PANELS],
    row: &[f32],
    sums: &mut RowSums,
) {
    let words = form.square_words();
    let mut chains = [[s.splat(0.0); PANEL_VECTORS]; ROW_PANELS];
    for (chain, sum) in chains.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *chain = s.load(sum);
    }
    let squares = panels[0].chunks_exact(words).zip(panels[1].chunks_exact(words));
    for ((first, second), row) in squares.zip(row.as_chunks::<BLOCK>().0) {
        let squares = [Square::new::<FOUR_BITS>(form, first), Square::new::<FOUR_BITS>(form, second)];
        for half in 0..BLOCK / HALF {
            let mut scales = [[s.splat(0.0); PANEL_VECTORS]; ROW_PANELS];
            let mut offsets = scales;
            if !TRANSPOSED {
                for panel in 0..ROW_PANELS {
                    for side in 0..PANEL_VECTORS {
                        let own = squares[panel].scales::<TRANSPOSED>(half, side);
                        scales[panel][side] = s.load(&own.as_chunks().0[side]);
                        let own = squares[panel].offsets::<OFFSETS>();
                        offsets[panel][side] = s.load(&own.as_chunks().0[side]);
                    }
                }
            }
            for pair in 0..HALF / 2 {
                let step = half * HALF + 2 * pair;
                let elements = [s.splat(row[step]), s.splat(row[step + 1])];
                for panel in 0..ROW_PANELS {
                    for side in 0..PANEL_VECTORS {
                        let both = squares[panel].two_steps::<S, FOUR_BITS, OFFSETS>(s, step, side);
                        for odd in 0..2 {
                            let (scale, offset) = if TRANSPOSED {
                                let scales = squares[panel].scales::<TRANSPOSED>(half, side);
                                let offsets = squares[panel].offsets::<OFFSETS>();
                                (s.splat(scales[step + odd]), s.splat(offsets[step + odd]))
                            } else {
                                (scales[panel][side], offsets[panel][side])
                            };
                            let weights = weigh::<S, OFFSETS>(s, both[odd], scale, offset);
                            chains[panel][side] = s.mul_add(elements[odd], weights, chains[panel][side]);
                        }
                    }
                }
            }
        }
    }
    for (chain, sum) in chains.as_flattened().iter().zip(sums.as_flattened_mut()) {
        s.store(*chain, sum);
    }
}
