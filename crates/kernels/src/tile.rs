//! The register tile: a few rows times a few vectors of columns, summed over a run of steps.
//!
//! Matrix products, attention scores and attention mixing are all made of this one loop. Each output element is one
//! chain of multiply-adds over the steps in order, started from zero or from what the output holds; nothing about the
//! tile's shape can change an element's bits.
#![allow(unsafe_code)]

use crate::isa::{Isa, Kind};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{LANES, Portable, Simd};

/// Columns of a panel: the right side stands in panels of this many columns, one step of all columns after the other.
pub(crate) const PANEL: usize = 32;
/// Vectors in a panel.
pub(crate) const PANEL_VECTORS: usize = PANEL / LANES;

/// What a 32-bit word on either side of the product is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// One `f32`: a step is one k.
    Float,
    /// One `f32`, the left side's steps `left_step` words apart.
    TurnedFloat,
    /// Two bf16, the lower k in the low half: a step is two k.
    Bf16Pair,
}

/// One tile's operands. All strides are in words.
pub(crate) struct Tile {
    pub(crate) rows: usize,
    /// Vectors of columns: 1, 2, 4 or 8, at most what `shape` allows for `rows`.
    pub(crate) vectors: usize,
    pub(crate) steps: usize,
    /// The left side: row `r`, step `t` at `left + r * left_stride + t * left_step`.
    pub(crate) left: *const u32,
    pub(crate) left_stride: usize,
    /// 1 but for [`Words::TurnedFloat`], which reads a transposed left side.
    pub(crate) left_step: usize,
    /// The right side: vector `v`, step `t` at
    /// `right + (v / PANEL_VECTORS) * panel_stride + (v % PANEL_VECTORS) * LANES + t * step_stride`.
    pub(crate) right: *const u32,
    pub(crate) step_stride: usize,
    pub(crate) panel_stride: usize,
    /// The output: row `r`, vector `v` at `out + r * out_stride + v * LANES`.
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    /// Whether the chains continue from what the output holds.
    pub(crate) resume: bool,
}

/// The most rows of a tile on this instruction set.
pub(crate) fn max_rows(isa: Isa) -> usize {
    match isa.kind() {
        Kind::Portable => Portable::TILE_ROWS,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => Avx2::TILE_ROWS,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 | Kind::Avx512Bf16 => Avx512::<false>::TILE_ROWS,
    }
}

/// The most vectors of a tile of so many rows on this instruction set.
pub(crate) fn max_vectors(isa: Isa, rows: usize) -> usize {
    match isa.kind() {
        Kind::Portable => Portable::tile_vectors(rows),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => Avx2::tile_vectors(rows),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 | Kind::Avx512Bf16 => Avx512::<false>::tile_vectors(rows),
    }
}

/// Splits `rows` into as few tiles as may be, as even as may be: calls `each(first row, rows)`.
pub(crate) fn for_row_tiles(isa: Isa, rows: usize, mut each: impl FnMut(usize, usize)) {
    let tiles = rows.div_ceil(max_rows(isa));
    let mut first = 0;
    for tile in 0..tiles {
        let count = rows / tiles + usize::from(tile < rows % tiles);
        each(first, count);
        first += count;
    }
}

/// Splits vectors `from..to` into groups a tile of `rows` rows can take: calls `each(first vector, vectors)`.
pub(crate) fn for_vector_groups(
    isa: Isa,
    rows: usize,
    range: std::ops::Range<usize>,
    mut each: impl FnMut(usize, usize),
) {
    let most = max_vectors(isa, rows);
    let mut first = range.start;
    while first < range.end {
        let mut count = most;
        while count > range.end - first {
            count /= 2;
        }
        // A group may begin inside a panel only if it ends there: the panels' own stride applies from its start.
        if !first.is_multiple_of(PANEL_VECTORS) {
            count = 1;
        }
        each(first, count);
        first += count;
    }
}

/// What one word on either side means to the loop.
trait Product {
    /// Whether the left side's steps are one word apart, which the loop then knows while it is compiled.
    const UNIT_STEP: bool = true;
    fn step<S: Simd>(s: S, accumulator: S::Float, left: S::Int, right: S::Int) -> S::Float;
}

struct FloatProduct;

impl Product for FloatProduct {
    #[inline(always)]
    fn step<S: Simd>(s: S, accumulator: S::Float, left: S::Int, right: S::Int) -> S::Float {
        s.mul_add(s.bits_to_float(left), s.bits_to_float(right), accumulator)
    }
}

struct TurnedFloatProduct;

impl Product for TurnedFloatProduct {
    const UNIT_STEP: bool = false;
    #[inline(always)]
    fn step<S: Simd>(s: S, accumulator: S::Float, left: S::Int, right: S::Int) -> S::Float {
        FloatProduct::step(s, accumulator, left, right)
    }
}

struct Bf16Product;

impl Product for Bf16Product {
    #[inline(always)]
    fn step<S: Simd>(s: S, accumulator: S::Float, left: S::Int, right: S::Int) -> S::Float {
        s.dot_bf16(accumulator, left, right)
    }
}

/// # Safety
/// As [`run`], for `R` rows and `V` vectors.
#[inline(always)]
unsafe fn fixed<S: Simd, P: Product, const R: usize, const V: usize>(s: S, tile: &Tile) {
    // SAFETY: every pointer below is one that the caller vouches for (see `run`): left for R rows of `steps` words,
    // right for V vectors of `steps` steps, out for R rows of V vectors.
    unsafe {
        let mut sums = [[s.splat(0.0); V]; R];
        if tile.resume {
            for (r, row) in sums.iter_mut().enumerate() {
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = s.load_pointer(tile.out.add(r * tile.out_stride + v * LANES));
                }
            }
        }
        let mut right = [tile.right.cast::<f32>(); V];
        for (v, pointer) in right.iter_mut().enumerate() {
            *pointer = pointer.add((v / PANEL_VECTORS) * tile.panel_stride + (v % PANEL_VECTORS) * LANES);
        }
        let left = tile.left;
        let left_stride = tile.left_stride;
        let left_step = if P::UNIT_STEP { 1 } else { tile.left_step };
        let step_stride = tile.step_stride;
        for step in 0..tile.steps {
            let mut columns = [s.splat_int(0); V];
            for (v, column) in columns.iter_mut().enumerate() {
                *column = s.float_to_bits(s.load_pointer(right[v].add(step * step_stride)));
            }
            for (r, row) in sums.iter_mut().enumerate() {
                let element = s.splat_int(left.add(r * left_stride + step * left_step).read() as i32);
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = P::step(s, *sum, element, columns[v]);
                }
            }
        }
        for (r, row) in sums.iter().enumerate() {
            for (v, sum) in row.iter().enumerate() {
                s.store_pointer(*sum, tile.out.add(r * tile.out_stride + v * LANES));
            }
        }
    }
}

/// Calls the tile of the right shape. Shapes an instruction set never asks for are left out of its code.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn any<S: Simd, P: Product>(s: S, tile: &Tile) {
    macro_rules! shapes {
        ($(($rows:literal, $vectors:literal)),* $(,)?) => {
            match (tile.rows, tile.vectors) {
                $(($rows, $vectors) if $rows <= S::TILE_ROWS && $vectors <= S::tile_vectors($rows) => {
                    // SAFETY: the caller's contract, at exactly this shape.
                    unsafe { fixed::<S, P, $rows, $vectors>(s, tile) }
                })*
                (rows, vectors) => unreachable!("no register tile of {rows} rows by {vectors} vectors"),
            }
        };
    }
    shapes!(
        (1, 8),
        (1, 4),
        (1, 2),
        (1, 1),
        (2, 8),
        (2, 4),
        (2, 2),
        (2, 1),
        (3, 8),
        (3, 4),
        (3, 2),
        (3, 1),
        (4, 4),
        (4, 2),
        (4, 1),
        (5, 4),
        (5, 2),
        (5, 1),
        (6, 4),
        (6, 2),
        (6, 1),
        (7, 2),
        (7, 1),
        (8, 2),
        (8, 1),
        (9, 2),
        (9, 1),
        (10, 2),
        (10, 1),
        (11, 2),
        (11, 1),
        (12, 2),
        (12, 1),
        (13, 2),
        (13, 1),
    )
}

#[cfg(target_arch = "x86_64")]
mod compiled {
    use super::*;

    /// # Safety
    /// As [`run`], on a CPU with AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<P: Product>(tile: &Tile) {
        // SAFETY: the caller's contract.
        unsafe { any::<_, P>(Avx2::new(), tile) }
    }

    /// # Safety
    /// As [`run`], on a CPU with AVX-512 F, BW, VL and DQ.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    pub(super) unsafe fn avx512<P: Product>(tile: &Tile) {
        // SAFETY: the caller's contract.
        unsafe { any::<_, P>(Avx512::<false>::new(), tile) }
    }

    /// # Safety
    /// As [`run`], on a CPU with AVX-512 F, BW, VL, DQ and BF16.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
    pub(super) unsafe fn avx512_bf16(tile: &Tile) {
        // SAFETY: the caller's contract.
        unsafe { any::<_, Bf16Product>(Avx512::<true>::new(), tile) }
    }
}

/// Computes one tile.
///
/// # Safety
/// `left` must be readable for `rows` rows of `steps` words (`left_stride` and `left_step` apart; `left_step` is 1 but for
/// [`Words::TurnedFloat`]), `right` for `vectors` vectors of `steps` steps, laid out
/// as [`Tile`] says; `out` must be writable for `rows` rows of `vectors * LANES` floats, initialised where `resume`,
/// and nobody else may touch those floats meanwhile.
pub(crate) unsafe fn run(isa: Isa, words: Words, tile: &Tile) {
    // SAFETY: the caller's contract; an `Isa` of a kind exists only where the CPU has its features.
    unsafe {
        match (isa.kind(), words) {
            (Kind::Portable, Words::Float) => any::<_, FloatProduct>(Portable, tile),
            (Kind::Portable, Words::TurnedFloat) => any::<_, TurnedFloatProduct>(Portable, tile),
            (Kind::Portable, Words::Bf16Pair) => any::<_, Bf16Product>(Portable, tile),
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx2, Words::Float) => compiled::avx2::<FloatProduct>(tile),
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx2, Words::TurnedFloat) => compiled::avx2::<TurnedFloatProduct>(tile),
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx2, Words::Bf16Pair) => compiled::avx2::<Bf16Product>(tile),
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512 | Kind::Avx512Bf16, Words::Float) => compiled::avx512::<FloatProduct>(tile),
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512 | Kind::Avx512Bf16, Words::TurnedFloat) => {
                compiled::avx512::<TurnedFloatProduct>(tile)
            }
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512, Words::Bf16Pair) => compiled::avx512::<Bf16Product>(tile),
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512Bf16, Words::Bf16Pair) => compiled::avx512_bf16(tile),
        }
    }
}
