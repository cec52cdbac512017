//! Matrix products with packed weights.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Range;

use crate::activation::{self, Activation};
use crate::buffer::AlignedWords;
use crate::elementwise;
use crate::isa::Isa;
use crate::operands::{LEFT_STRIDE, Left, MOST_UNPACKED_VECTORS, Right, STEP_BLOCK};
use crate::packed::{PackedMatrix, WeightLayout};
use crate::pool::{self, Shared};
use crate::simd::LANES;
use crate::tile::{self, PANEL, PANEL_VECTORS, Tile};

/// Rows of one work item at most: their block (300 KB) shares the second-level cache with a panel's.
const ROW_BLOCK: usize = 104;
/// Rows up to which a user's `[k, n]` array is read where it lies: packing costs about as much as so many rows.
const PLAIN_ROWS: usize = 26;
/// Multiply-adds below which a product is not worth waking the pool.
const SERIAL_WORK: usize = 1 << 16;

/// What is added to a product, and done to it: `activation(x W + bias) + residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[n]`.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Option<Activation>,
    /// Added last.
    pub residual: Option<Residual<'a>>,
}

impl Epilogue<'_> {
    fn is_empty(&self) -> bool {
        self.bias.is_none() && self.activation.is_none() && self.residual.is_none()
    }
}

/// Rows that are added to a product's rows.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// `[rows, n]`.
    pub values: &'a [f32],
    /// From one row's start to the next.
    pub row_stride: usize,
}

fn strided_length(rows: usize, stride: usize, width: usize) -> usize {
    if rows == 0 { 0 } else { (rows - 1) * stride + width }
}

fn check_strided(what: &str, length: usize, rows: usize, stride: usize, width: usize) {
    assert!(rows <= 1 || stride >= width, "{what}: a row stride of {stride} for rows of {width}");
    let needed = strided_length(rows, stride, width);
    assert!(
        length >= needed,
        "{what}: {length} numbers for {rows} rows of {width} (stride {stride}): {needed}"
    );
}

/// `out = activation(x · weights + bias) + residual`, for `x` `[rows, k]` and `out` `[rows, n]`.
///
/// Each element is one chain of multiply-adds over k in order, then the bias, the activation, the residual: its bits
/// depend on its own row and column alone.
///
/// A linear layer's vector-Jacobian product is a product too: of the result's cotangent with the same weight packed the
/// other way round (its source read in the other [`WeightLayout`]), in the weight's own precision: with bf16 weights the
/// cotangent is rounded to bf16 as the inputs are, sums are `f32`.
///
/// # Panics
/// If a slice is too short for its rows, or the bias is not `[n]`.
pub fn matmul(
    x: &[f32],
    x_row_stride: usize,
    rows: usize,
    weights: &PackedMatrix,
    epilogue: &Epilogue<'_>,
    out: &mut [f32],
    out_row_stride: usize,
) {
    product(x, x_row_stride, rows, &Right::packed(weights), epilogue, out, out_row_stride);
}

/// [`matmul`] for any right side.
fn product(
    x: &[f32],
    x_row_stride: usize,
    rows: usize,
    right: &Right<'_>,
    epilogue: &Epilogue<'_>,
    out: &mut [f32],
    out_row_stride: usize,
) {
    let (k, n) = (right.k, right.n);
    check_strided("matmul's x", x.len(), rows, x_row_stride, k);
    check_strided("matmul's out", out.len(), rows, out_row_stride, n);
    if let Some(bias) = epilogue.bias {
        assert_eq!(bias.len(), n, "matmul's bias");
    }
    if let Some(residual) = epilogue.residual {
        check_strided("matmul's residual", residual.values.len(), rows, residual.row_stride, n);
    }
    if rows == 0 || n == 0 {
        return;
    }
    let isa = Isa::current();
    let panels = n.div_ceil(PANEL);
    let row_blocks = rows.div_ceil(ROW_BLOCK);
    let threads = if rows * k * n < SERIAL_WORK { 1 } else { pool::threads() };
    // Several items for each thread, so that one that is held up does not hold up the whole.
    let panels_per_item = if threads == 1 {
        panels
    } else {
        (panels * row_blocks).div_ceil(threads * 8).clamp(1, 32).next_multiple_of(4).min(panels)
    };
    let panel_items = panels.div_ceil(panels_per_item);
    let out = Shared(out.as_mut_ptr());
    pool::with_threads(threads, || {
        pool::parallel(row_blocks * panel_items, |item| {
            let first_row = item / panel_items * rows / row_blocks;
            let end_row = (item / panel_items + 1) * rows / row_blocks;
            let first_panel = item % panel_items * panels_per_item;
            let end_panel = (first_panel + panels_per_item).min(panels);
            // SAFETY: items cover disjoint rectangles of `out`, all within the lengths checked above, and `out` is
            // exclusively borrowed until the loop ends.
            unsafe {
                product_block(
                    isa,
                    Left { x, stride: x_row_stride, first_row, rows: end_row - first_row },
                    right,
                    first_panel..end_panel,
                    epilogue,
                    out.get().add(first_row * out_row_stride + first_panel * PANEL),
                    out_row_stride,
                );
            }
        });
    });
}

thread_local! {
    /// The left rows' block, and what of a quantised right side is unpacked.
    static SCRATCH: RefCell<(AlignedWords, AlignedWords)> = RefCell::default();
}

/// One work item of a product.
///
/// # Safety
/// `out` must be writable for `left.rows` rows, `out_stride` apart, of the columns of `panels` (those below n; the first
/// of them stands at `out` itself), which nobody else touches meanwhile.
unsafe fn product_block(
    isa: Isa,
    left: Left<'_>,
    weights: &Right<'_>,
    panels: Range<usize>,
    epilogue: &Epilogue<'_>,
    out: *mut f32,
    out_stride: usize,
) {
    SCRATCH.with_borrow_mut(|(block, unpacked)| {
        block.resize(left.rows * LEFT_STRIDE);
        if weights.squares.is_some() {
            unpacked.resize(MOST_UNPACKED_VECTORS * LANES);
        }
        let (steps, n) = (weights.steps(), weights.n);
        let first_column = panels.start * PANEL;
        // Vectors that hold columns; the last panel may have one of padding only.
        let vectors = panels.start * PANEL_VECTORS..(panels.end * PANEL_VECTORS).min(n.div_ceil(LANES));
        let mut edge = [0.0_f32; EDGE];
        let mut from = 0;
        loop {
            let to = (from + STEP_BLOCK).min(steps);
            left.copy_steps(isa, weights.precision, weights.k, from, to, block.words_mut());
            // One group of vectors after the other, all row tiles for each: its panel block is read from memory once.
            let group_rows = left.rows.div_ceil(left.rows.div_ceil(tile::max_rows(isa)));
            tile::for_vector_groups(isa, group_rows, vectors.clone(), |vector, count| {
                let column = vector * LANES;
                let width = (count * LANES).min(n - column);
                let mut first = from;
                loop {
                    // A row alone multiplies with whole squares where they lie.
                    let alone =
                        if left.rows == 1 { weights.squares_for_a_row(count, to - first) } else { None };
                    let run = alone.map_or(weights.run(count), |(_, steps)| steps);
                    let end = (first + run).min(to);
                    let (right, step_stride, panel_stride) = match alone {
                        Some(_) => (std::ptr::null(), 0, 0),
                        None => weights.read(isa, vector, count, first..end, unpacked),
                    };
                    tile::for_row_tiles(isa, left.rows, |row, rows| {
                        // SAFETY: the rows and columns below n of this rectangle are ours (this function's contract).
                        let target = unsafe { out.add(row * out_stride + column - first_column) };
                        let whole = width == count * LANES;
                        let (tile_out, tile_stride) =
                            if whole { (target, out_stride) } else { (edge.as_mut_ptr(), count * LANES) };
                        if !whole && first > 0 {
                            // SAFETY: as above; `edge` holds the largest tile.
                            unsafe { copy_rows(target, out_stride, tile_out, tile_stride, rows, width) };
                        }
                        match alone {
                            Some((squares, _)) => {
                                // SAFETY: the output is either ours or the local edge, `count` vectors of it.
                                let sums = unsafe { std::slice::from_raw_parts_mut(tile_out, count * LANES) };
                                if first == 0 {
                                    sums.fill(0.0);
                                }
                                let row = &block.floats()[first - from..end - from];
                                squares.multiply(isa, weights.panels(), vector, first..end, row, sums);
                            }
                            // SAFETY: `read` has checked the right side or unpacked it, the left block holds `to - from`
                            // steps of every row, and the output is either ours or the local edge.
                            None => unsafe {
                                let tile = Tile {
                                    rows,
                                    vectors: count,
                                    steps: end - first,
                                    left: block.as_ptr().add(row * LEFT_STRIDE + first - from),
                                    left_stride: LEFT_STRIDE,
                                    left_step: 1,
                                    right,
                                    step_stride,
                                    panel_stride,
                                    out: tile_out,
                                    out_stride: tile_stride,
                                    resume: first > 0,
                                };
                                tile::run(isa, weights.word_kind(), &tile);
                            },
                        }
                        if !whole {
                            // SAFETY: as above.
                            unsafe { copy_rows(tile_out, tile_stride, target, out_stride, rows, width) };
                        }
                        if end == steps && !epilogue.is_empty() {
                            let place = Place { row: left.first_row + row, rows, column, width };
                            // SAFETY: the rows and columns of this rectangle are ours, as above.
                            unsafe { finish(isa, epilogue, place, target, out_stride) };
                        }
                    });
                    first = end;
                    if first == to {
                        break;
                    }
                }
            });
            from = to;
            if from == steps {
                break;
            }
        }
    });
}

/// Floats of the largest register tile of any instruction set: 13 rows of 2 vectors.
const EDGE: usize = 26 * LANES;

/// # Safety
/// Both sides must be valid for `rows` rows of `width` floats at their strides, and must not overlap.
unsafe fn copy_rows(
    from: *const f32,
    from_stride: usize,
    to: *mut f32,
    to_stride: usize,
    rows: usize,
    width: usize,
) {
    for row in 0..rows {
        // SAFETY: the caller's contract.
        unsafe {
            std::ptr::copy_nonoverlapping(from.add(row * from_stride), to.add(row * to_stride), width);
        }
    }
}

/// Rows and columns of a product that a tile made.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    rows: usize,
    column: usize,
    width: usize,
}

/// Bias, activation and residual.
///
/// # Safety
/// `out` must be writable for the place's rows, `stride` apart, which nobody else touches meanwhile.
unsafe fn finish(isa: Isa, epilogue: &Epilogue<'_>, place: Place, out: *mut f32, stride: usize) {
    for row in 0..place.rows {
        // SAFETY: the caller's contract.
        let out = unsafe { std::slice::from_raw_parts_mut(out.add(row * stride), place.width) };
        let columns = place.column..place.column + place.width;
        let residual = epilogue
            .residual
            .map(|residual| &residual.values[(place.row + row) * residual.row_stride..][columns.clone()]);
        activation::finish_on(
            isa,
            epilogue.bias.map(|bias| &bias[columns]),
            epilogue.activation,
            residual,
            out,
        );
    }
}

/// Some columns of a product: `out[row, i] = (x · weights + bias)[row, columns[i]]`, to `out` `[rows, columns.len()]`; the
/// bits are those of [`matmul`].
///
/// For reading the logits of a few tokens without the whole vocabulary. Columns may repeat and come in any order; the
/// fewer vectors of sixteen they fall into, the better.
///
/// # Panics
/// If a slice is too short for its rows or `out` has another length, the bias is not `[n]`, or a column is not below n.
pub fn matmul_columns(
    x: &[f32],
    x_row_stride: usize,
    rows: usize,
    weights: &PackedMatrix,
    bias: Option<&[f32]>,
    columns: &[usize],
    out: &mut [f32],
) {
    let (k, n) = (weights.k(), weights.n());
    check_strided("matmul_columns' x", x.len(), rows, x_row_stride, k);
    assert_eq!(out.len(), rows * columns.len(), "matmul_columns' out");
    if let Some(bias) = bias {
        assert_eq!(bias.len(), n, "matmul_columns' bias");
    }
    for column in columns {
        assert!(*column < n, "matmul_columns: column {column} of {n}");
    }
    if rows == 0 || columns.is_empty() {
        return;
    }
    let isa = Isa::current();
    // (column, its place in `columns`), by column, so that columns of one panel are computed together.
    let mut order: Vec<(usize, usize)> = columns.iter().copied().enumerate().map(|(i, c)| (c, i)).collect();
    order.sort_unstable();
    let groups: Vec<&[(usize, usize)]> = order.chunk_by(|a, b| a.0 / PANEL == b.0 / PANEL).collect();
    let right = Right::packed(weights);
    let row_blocks = rows.div_ceil(ROW_BLOCK);
    let threads = if rows * k * groups.len() * PANEL < SERIAL_WORK { 1 } else { pool::threads() };
    let out = Shared(out.as_mut_ptr());
    pool::with_threads(threads, || {
        pool::parallel(groups.len() * row_blocks, |item| {
            let group = groups[item / row_blocks];
            let first_row = item % row_blocks * rows / row_blocks;
            let block_rows = (item % row_blocks + 1) * rows / row_blocks - first_row;
            let panel = group[0].0 / PANEL;
            let valid = PANEL.min(n - panel * PANEL);
            let mut scratch = [0.0; ROW_BLOCK * PANEL];
            // SAFETY: the scratch holds the block's rows, PANEL apart.
            unsafe {
                product_block(
                    isa,
                    Left { x, stride: x_row_stride, first_row, rows: block_rows },
                    &right,
                    panel..panel + 1,
                    &Epilogue::default(),
                    scratch.as_mut_ptr(),
                    PANEL,
                );
            }
            for row in 0..block_rows {
                let sums = &scratch[row * PANEL..][..valid];
                for (column, place) in group {
                    let sum = sums[column % PANEL];
                    let value = bias.map_or(sum, |bias| sum + bias[*column]);
                    // SAFETY: place is below columns.len(), each place belongs to one group, and each row to one block; the
                    // row is in range by the check above.
                    unsafe { out.get().add((first_row + row) * columns.len() + place).write(value) };
                }
            }
        });
    });
}

/// How many columns [`matmul_columns`] computes for those: all of each panel in which one of them stands.
pub fn columns_computed(columns: &[usize]) -> usize {
    let mut panels: Vec<usize> = columns.iter().map(|column| column / PANEL).collect();
    panels.sort_unstable();
    panels.dedup();
    panels.len() * PANEL
}

/// `out = a · b` for user tensors: `a` `[m, k]`, `out` `[m, n]`, and `b` `[k, n]` or (output-major) `[n, k]`; packed on
/// the fly where that pays, with the bits of [`matmul`].
///
/// # Panics
/// If a slice's length is not its shape's.
pub fn matmul_f32(
    a: &[f32],
    b: &[f32],
    b_layout: WeightLayout,
    m: usize,
    k: usize,
    n: usize,
    out: &mut [f32],
) {
    assert_eq!(a.len(), m * k, "matmul_f32's a is [{m}, {k}]");
    assert_eq!(b.len(), k * n, "matmul_f32's b is of {k} by {n}");
    assert_eq!(out.len(), m * n, "matmul_f32's out is [{m}, {n}]");
    if b_layout == WeightLayout::InputMajor && m <= PLAIN_ROWS {
        let right = Right::plain(b, k, n);
        let whole = right.n;
        product(a, k, m, &right, &Epilogue::default(), out, n);
        if whole < n && m > 0 {
            let rest = PackedMatrix::pack_range(k, n, b, whole..n);
            product(a, k, m, &Right::packed(&rest), &Epilogue::default(), &mut out[whole..], n);
        }
    } else {
        let packed = PackedMatrix::pack_f32(k, n, b, b_layout);
        matmul(a, k, m, &packed, &Epilogue::default(), out, n);
    }
}

/// The cotangent of a linear layer's weight: the sum over the rows, in order, of `x` `[rows, k]` times `cotangent`
/// `[rows, n]` (of the layer's result), to `out` in the weight's own layout, `[n, k]` or `[k, n]`.
///
/// Each element is one chain of multiply-adds over the rows in order. The layer's other cotangent, that of `x`, is a
/// [`matmul`] of `cotangent` with the same weight packed the other way round.
///
/// # Panics
/// If a slice's length is not its shape's.
pub fn matmul_weight_backward(
    x: &[f32],
    cotangent: &[f32],
    rows: usize,
    k: usize,
    n: usize,
    layout: WeightLayout,
    out: &mut [f32],
) {
    assert_eq!(x.len(), rows * k, "matmul_weight_backward's x is [{rows}, {k}]");
    assert_eq!(cotangent.len(), rows * n, "matmul_weight_backward's cotangent is [{rows}, {n}]");
    let (left, height, right, width) = match layout {
        WeightLayout::OutputMajor => (cotangent, n, x, k),
        WeightLayout::InputMajor => (x, k, cotangent, n),
    };
    let mut turned = vec![0.0; left.len()];
    elementwise::transpose(left, height, rows, height, &mut turned, rows);
    matmul_f32(&turned, right, WeightLayout::InputMajor, height, rows, width, out);
}
