//! Weights packed once for the matrix product.
//!
//! The columns stand in panels of 32, zero-filled at the end; a panel holds all its columns for k = 0, then for k = 1,
//! and so on (bf16: two k at a time, the lower in the low half of a 32-bit word). A product then streams a panel from
//! front to back, and the same layout serves every instruction set. Blocks of whole numbers have a layout of their own
//! within a panel: `quantised.rs`.

use std::ops::Range;

use half::{bf16, f16};

use crate::buffer::AlignedWords;
use crate::pool;
use crate::quantised::{Block, BlockForm, Squares};
use crate::tile::PANEL;

/// How a packed weight is stored, and with it how its products are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit weights and activations.
    F32,
    /// bf16 weights; activations rounded to bf16 (to nearest, ties to even); sums in f32. The path `avx512-bf16` uses the
    /// processor's own dot product, which adds two products at a time and takes subnormal numbers for zero.
    Bf16,
    /// What its source has in blocks of whole numbers stays so ([`PackedMatrix::pack_blocks`]), and is unpacked where a
    /// product reaches it: its bits are those of `F32`. What comes as numbers is stored as `F32`.
    Quantised,
}

/// The number format of a weight's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NumberFormat {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of a single.
    Bf16,
}

impl NumberFormat {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// How a weight's source lies in memory; `k` counts inputs, `n` outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightLayout {
    /// `[n, k]`: the rows are outputs, as in a "linear" layer (y = x Wᵀ).
    OutputMajor,
    /// `[k, n]`: the rows are inputs, as in GPT-2's Conv1D (y = x W).
    InputMajor,
}

/// A weight where it lies: little-endian numbers, row-major, of any alignment (a memory-mapped file, most often).
#[derive(Clone, Copy, Debug)]
pub struct WeightSource<'a> {
    /// The numbers' bytes.
    pub bytes: &'a [u8],
    /// What the bytes are.
    pub format: NumberFormat,
    /// Which index runs fastest.
    pub layout: WeightLayout,
}

impl<'a> WeightSource<'a> {
    /// A source of numbers in memory.
    #[allow(unsafe_code)]
    pub fn from_f32(values: &'a [f32], layout: WeightLayout) -> Self {
        const { assert!(cfg!(target_endian = "little"), "weights are read as little-endian bytes") };
        // SAFETY: floats are four initialised bytes each, and a byte needs no alignment.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        Self { bytes, format: NumberFormat::F32, layout }
    }

    /// Writes `out.len()` numbers from `start` on.
    fn numbers(&self, start: usize, out: &mut [f32]) {
        let size = self.format.size();
        let bytes = &self.bytes[start * size..(start + out.len()) * size];
        match self.format {
            NumberFormat::F32 => {
                for (slot, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *slot = f32::from_le_bytes(*bytes);
                }
            }
            NumberFormat::F16 => {
                for (slot, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *slot = f16::from_le_bytes(*bytes).to_f32();
                }
            }
            NumberFormat::Bf16 => {
                for (slot, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *slot = bf16::from_le_bytes(*bytes).to_f32();
                }
            }
        }
    }
}

/// A weight `[k, n]` in the layout the matrix product wants.
#[derive(Clone)]
pub struct PackedMatrix {
    k: usize,
    n: usize,
    precision: Precision,
    /// How the words are to be read, of a quantised weight.
    squares: Option<Squares>,
    words: AlignedWords,
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PackedMatrix")
            .field("k", &self.k)
            .field("n", &self.n)
            .field("precision", &self.precision)
            .finish_non_exhaustive()
    }
}

impl PackedMatrix {
    /// Packs a weight of `k` inputs and `n` outputs, on the pool.
    ///
    /// # Panics
    /// If the source is not of `k * n` numbers.
    pub fn pack(k: usize, n: usize, source: &WeightSource<'_>, precision: Precision) -> Self {
        Self::pack_side_by_side(k, &[(n, *source)], precision)
    }

    /// [`pack`](Self::pack) of `f32` numbers in memory, stored as `f32`.
    ///
    /// # Panics
    /// If there are not `k * n` numbers.
    pub fn pack_f32(k: usize, n: usize, values: &[f32], layout: WeightLayout) -> Self {
        Self::pack(k, n, &WeightSource::from_f32(values, layout), Precision::F32)
    }

    /// Packs several weights of the same `k` as one: their outputs stand side by side, in the order given (queries,
    /// keys and values of an attention layer; gate and up of a gated one).
    ///
    /// # Panics
    /// If a source is not of `k` times its own number of outputs.
    pub fn pack_side_by_side(k: usize, parts: &[(usize, WeightSource<'_>)], precision: Precision) -> Self {
        for (index, (n, source)) in parts.iter().enumerate() {
            assert_eq!(
                source.bytes.len(),
                k * n * source.format.size(),
                "weight source {index}: bytes for [{k} inputs, {n} outputs] in {:?}",
                source.format
            );
        }
        let columns: Vec<Column<'_>> = parts
            .iter()
            .flat_map(|(n, source)| (0..*n).map(move |index| Column { source, index, width: *n }))
            .collect();
        Self::pack_columns(k, &columns, precision)
    }

    /// Packs `f32` columns `range` of a `[k, n]` array.
    pub(crate) fn pack_range(k: usize, n: usize, values: &[f32], range: Range<usize>) -> Self {
        assert_eq!(values.len(), k * n, "a [{k}, {n}] array");
        let source = WeightSource::from_f32(values, WeightLayout::InputMajor);
        let columns: Vec<_> = range.map(|index| Column { source: &source, index, width: n }).collect();
        Self::pack_columns(k, &columns, Precision::F32)
    }

    /// Packs a weight of `k` inputs and `n` outputs that lies in blocks, as it is, on the pool. `block(output, index)` gives
    /// the weights of inputs `32 * index` and on. A product's bits are those of the same [`weights`](Block::weights) packed
    /// as `f32`.
    ///
    /// # Panics
    /// If `k` is not a multiple of 32, or a block is not of the form.
    pub fn pack_blocks(
        k: usize,
        n: usize,
        form: BlockForm,
        block: impl Fn(usize, usize) -> Block + Sync,
    ) -> Self {
        let (squares, words) = Squares::pack(form, false, (k, n), block);
        Self { k, n, precision: Precision::Quantised, squares: Some(squares), words }
    }

    /// [`pack_blocks`](Self::pack_blocks) the other way round, for the way back: of a weight of `k` inputs and `n` outputs,
    /// given in the same way, a matrix of `n` inputs and `k` outputs.
    ///
    /// # Panics
    /// As [`pack_blocks`](Self::pack_blocks).
    pub fn pack_blocks_transposed(
        k: usize,
        n: usize,
        form: BlockForm,
        block: impl Fn(usize, usize) -> Block + Sync,
    ) -> Self {
        let (squares, words) = Squares::pack(form, true, (k, n), block);
        Self { k: n, n: k, precision: Precision::Quantised, squares: Some(squares), words }
    }

    fn pack_columns(k: usize, columns: &[Column<'_>], precision: Precision) -> Self {
        // Numbers are in no blocks.
        let precision = if precision == Precision::Quantised { Precision::F32 } else { precision };
        let (n, steps) = (columns.len(), steps(k, precision));
        let mut words = AlignedWords::zeroed(n.div_ceil(PANEL) * steps * PANEL);
        if steps > 0 {
            pool::parallel_chunks(words.words_mut(), steps * PANEL, |panel, out| {
                let first = panel * PANEL;
                pack_panel(k, &columns[first..(first + PANEL).min(n)], precision, out);
            });
        }
        Self { k, n, precision, squares: None, words }
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// How the weights are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Memory held, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.words.capacity_bytes()
    }

    /// The weight at input `k`, output `n`, as stored; of a quantised one, what it stands for.
    ///
    /// # Panics
    /// If an index is out of range.
    pub fn weight(&self, k: usize, n: usize) -> f32 {
        assert!(k < self.k && n < self.n, "weight ({k}, {n}) of a [{}, {}] matrix", self.k, self.n);
        let panel = (n / PANEL) * self.panel_words();
        if let Some(squares) = self.squares {
            return squares.weight(&self.words.words()[panel..], k, n % PANEL);
        }
        match self.precision {
            Precision::F32 | Precision::Quantised => {
                f32::from_bits(self.words.words()[panel + k * PANEL + n % PANEL])
            }
            Precision::Bf16 => {
                let pair = self.words.words()[panel + (k / 2) * PANEL + n % PANEL];
                f32::from_bits(if k.is_multiple_of(2) { pair << 16 } else { pair & 0xffff_0000 })
            }
        }
    }

    /// Words of a panel.
    pub(crate) fn panel_words(&self) -> usize {
        let steps = steps(self.k, self.precision);
        self.squares.map_or(steps * PANEL, |squares| squares.panel_words(steps))
    }

    pub(crate) fn squares(&self) -> Option<Squares> {
        self.squares
    }

    pub(crate) fn words(&self) -> &AlignedWords {
        &self.words
    }
}

/// Steps of a product over `k`: one k each, or two.
pub(crate) fn steps(k: usize, precision: Precision) -> usize {
    match precision {
        Precision::F32 | Precision::Quantised => k,
        Precision::Bf16 => k.div_ceil(2),
    }
}

/// A number's bits rounded to bf16: to nearest, ties to even; a NaN stays one. Without branches, so that loops over it
/// are vectorised.
#[inline(always)]
pub(crate) fn bf16_bits(number: f32) -> u32 {
    let bits = number.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if number.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// Two numbers rounded to bf16, the first in the low half.
#[inline(always)]
pub(crate) fn bf16_pair(low: f32, high: f32) -> u32 {
    bf16_bits(low) | bf16_bits(high) << 16
}

/// Where a packed column comes from.
#[derive(Clone, Copy)]
struct Column<'a> {
    source: &'a WeightSource<'a>,
    index: usize,
    /// Columns in all of the source.
    width: usize,
}

/// Packs one panel's columns. The k are taken in runs, so that the panel is written from a block that stays in cache.
fn pack_panel(k: usize, columns: &[Column<'_>], precision: Precision, out: &mut [u32]) {
    const RUN: usize = 64;
    let mut block = vec![0.0_f32; RUN * PANEL];
    for start in (0..k).step_by(RUN) {
        let run = RUN.min(k - start);
        if run < RUN {
            block.fill(0.0);
        }
        let mut lane = 0;
        for part in columns.chunk_by(|a, b| std::ptr::eq(a.source, b.source)) {
            let Column { source, index: first_column, width } = part[0];
            match source.layout {
                WeightLayout::OutputMajor => {
                    let mut numbers = [0.0; RUN];
                    for column in 0..part.len() {
                        source.numbers((first_column + column) * k + start, &mut numbers[..run]);
                        for (t, number) in numbers[..run].iter().enumerate() {
                            block[t * PANEL + lane + column] = *number;
                        }
                    }
                }
                WeightLayout::InputMajor => {
                    for t in 0..run {
                        let out = &mut block[t * PANEL + lane..][..part.len()];
                        source.numbers((start + t) * width + first_column, out);
                    }
                }
            }
            lane += part.len();
        }
        match precision {
            Precision::F32 | Precision::Quantised => {
                let out = &mut out[start * PANEL..(start + run) * PANEL];
                for (word, number) in out.iter_mut().zip(&block) {
                    *word = number.to_bits();
                }
            }
            Precision::Bf16 => {
                let out = &mut out[start / 2 * PANEL..(start + run).div_ceil(2) * PANEL];
                for (pair, out) in out.chunks_exact_mut(PANEL).enumerate() {
                    for (lane, word) in out.iter_mut().enumerate() {
                        *word =
                            bf16_pair(block[2 * pair * PANEL + lane], block[(2 * pair + 1) * PANEL + lane]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bf16_bits;

    /// The nearer of the two bf16 numbers around a number, found by their distances.
    fn nearest(number: f32) -> u32 {
        let value = |bits: u32| f64::from(f32::from_bits(bits << 16));
        let below = number.to_bits() >> 16;
        let distance = |bits: u32| (value(bits) - f64::from(number)).abs();
        match distance(below).total_cmp(&distance(below + 1)) {
            std::cmp::Ordering::Less => below,
            std::cmp::Ordering::Greater => below + 1,
            std::cmp::Ordering::Equal => below + below % 2,
        }
    }

    #[test]
    fn bf16_is_the_nearest_and_of_two_as_near_the_even_one() {
        for number in [1.0, 1.003_906_3, 1.005, 1.011_718_8, -1.005, 0.1, -3e-39, 1e-45, 3.3e38] {
            assert_eq!(bf16_bits(number), nearest(number), "{number}");
        }
        for seed in 0..20_000u32 {
            let number = f32::from_bits(seed.wrapping_mul(2_654_435_761) & 0xbfff_ffff);
            assert_eq!(bf16_bits(number), nearest(number), "{number}");
        }
        assert_eq!(bf16_bits(f32::INFINITY), 0x7f80);
        assert_eq!(bf16_bits(f32::MAX), 0x7f80);
        assert!(f32::from_bits(bf16_bits(f32::from_bits(0x7f80_0001)) << 16).is_nan());
    }
}
