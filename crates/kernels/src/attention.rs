//! Causal attention of one sequence in one layer.
//!
//! One algorithm, whether its scores and pattern are looked at or not: [`attention_fused`] gives bit for bit what
//! [`attention_scores`], [`attention_pattern`] and [`attention_mixed`] give one after the other. A score is one chain of
//! multiply-adds over the head's components; the softmax sums its row by position modulo 64, counted from the sequence's
//! first token; an output component is one chain over the positions in order. None of these depends on how many
//! queries are asked for together, or on what comes after a query's position.
#![allow(unsafe_code)]

mod backward;

pub use backward::{
    attention_backward, attention_mixed_backward, attention_pattern_backward, attention_scores_backward,
};

use std::cell::RefCell;
use std::ops::Range;

use crate::buffer::AlignedWords;
use crate::isa::Isa;
use crate::key_value::KeyValueStore;
use crate::math;
use crate::pool::{self, Shared};
use crate::reduce::{ROUND, all_finite_on, softmax_row_on};
use crate::simd::{LANES, kernel, map_lanes};
use crate::tile::{self, PANEL, PANEL_VECTORS, Tile, Words};

/// `[tokens, heads, size]` numbers with strides between tokens and heads.
#[derive(Clone, Copy, Debug)]
pub struct HeadsView<'a> {
    /// The numbers, the first token's first head first.
    pub data: &'a [f32],
    /// Tokens.
    pub tokens: usize,
    /// Heads of a token.
    pub heads: usize,
    /// Components of a head, contiguous.
    pub size: usize,
    /// From one token's start to the next.
    pub token_stride: usize,
    /// From one head's start to the next.
    pub head_stride: usize,
}

/// As [`HeadsView`], to write to. Heads of tokens must not overlap.
#[derive(Debug)]
pub struct HeadsViewMut<'a> {
    /// The numbers, the first token's first head first.
    pub data: &'a mut [f32],
    /// Tokens.
    pub tokens: usize,
    /// Heads of a token.
    pub heads: usize,
    /// Components of a head, contiguous.
    pub size: usize,
    /// From one token's start to the next.
    pub token_stride: usize,
    /// From one head's start to the next.
    pub head_stride: usize,
}

impl<'a> HeadsView<'a> {
    /// Heads side by side in each token's row, `token_stride` from one token to the next.
    pub fn new(data: &'a [f32], tokens: usize, heads: usize, size: usize, token_stride: usize) -> Self {
        Self { data, tokens, heads, size, token_stride, head_stride: size }
    }

    pub(crate) fn row(&self, token: usize, head: usize) -> &'a [f32] {
        &self.data[token * self.token_stride + head * self.head_stride..][..self.size]
    }

    fn check(&self, what: &str) {
        if self.tokens > 0 && self.heads > 0 {
            let end = (self.tokens - 1) * self.token_stride + (self.heads - 1) * self.head_stride + self.size;
            assert!(self.data.len() >= end, "{what}: {} numbers, {end} needed", self.data.len());
        }
    }
}

impl<'a> HeadsViewMut<'a> {
    /// Heads side by side in each token's row, `token_stride` from one token to the next.
    pub fn new(data: &'a mut [f32], tokens: usize, heads: usize, size: usize, token_stride: usize) -> Self {
        Self { data, tokens, heads, size, token_stride, head_stride: size }
    }

    /// Checks that the view lies within its data and that no two heads of tokens overlap.
    pub(crate) fn check(&self, what: &str) {
        let view = HeadsView {
            data: self.data,
            tokens: self.tokens,
            heads: self.heads,
            size: self.size,
            token_stride: self.token_stride,
            head_stride: self.head_stride,
        };
        view.check(what);
        let apart = |outer: (usize, usize), inner: (usize, usize)| {
            (inner.1 <= 1 || inner.0 >= self.size)
                && (outer.1 <= 1 || inner.1 == 0 || outer.0 >= (inner.1 - 1) * inner.0 + self.size)
        };
        let (tokens, heads) = ((self.token_stride, self.tokens), (self.head_stride, self.heads));
        assert!(apart(tokens, heads) || apart(heads, tokens), "{what}: heads of tokens overlap");
    }
}

/// How scores are made of products, and which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionOptions {
    /// Times the dot product; most often 1/√(head size).
    pub scale: f32,
    /// c: a score s becomes c tanh(s / c), before the mask.
    pub soft_cap: Option<f32>,
    /// w, at least 1: a query at position p sees keys p − w < j ≤ p.
    pub window: Option<usize>,
}

impl AttentionOptions {
    /// Scores times `scale`, every earlier key seen.
    pub fn scaled(scale: f32) -> Self {
        Self { scale, soft_cap: None, window: None }
    }

    /// The keys that a query at `position` sees.
    fn seen(&self, position: usize) -> Range<usize> {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        first..position + 1
    }
}

/// Multiply-adds below which a call is not worth waking the pool.
const SERIAL_WORK: usize = 1 << 16;
/// Keys from which a block takes this many tiles of rows.
const LONG_CONTEXT: usize = 1024;
const LONG_TILES: usize = 3;

/// What one call works on; the same for every block of it.
struct Layer<'a> {
    isa: Isa,
    queries: usize,
    heads: usize,
    /// Query heads that share a key head.
    group: usize,
    store: &'a KeyValueStore,
    start: usize,
    options: AttentionOptions,
}

/// Rows of one work item: queries × the query heads of one key head, the heads of a query together.
#[derive(Clone, Copy)]
struct Block {
    key_head: usize,
    first: usize,
    rows: usize,
}

impl<'a> Layer<'a> {
    fn new(
        queries: usize,
        heads: usize,
        store: &'a KeyValueStore,
        start: usize,
        options: AttentionOptions,
    ) -> Self {
        assert!(
            store.heads() > 0 && heads.is_multiple_of(store.heads()),
            "{heads} query heads over {} key heads",
            store.heads()
        );
        assert!(
            start + queries <= store.len(),
            "queries at positions {start}..{} of {} keys",
            start + queries,
            store.len()
        );
        assert!(options.window != Some(0), "a window of no keys: a query sees at least its own");
        let group = heads / store.heads();
        Self { isa: Isa::current(), queries, heads, group, store, start, options }
    }

    fn context(&self) -> usize {
        self.start + self.queries
    }

    /// (query, query head) of a block's row.
    fn place(&self, block: Block, row: usize) -> (usize, usize) {
        let index = block.first + row;
        (index / self.group, block.key_head * self.group + index % self.group)
    }

    /// Runs `body` on every block, on the pool where there is work enough.
    fn for_blocks(&self, body: impl Fn(Block) + Sync) {
        let rows = self.queries * self.group;
        let work = self.queries * self.heads * self.context() * self.store.head_size();
        let threads = if work < SERIAL_WORK { 1 } else { pool::threads() };
        let key_heads = self.store.heads();
        // Over a long context several tiles of rows share a block, which reads keys and values from far once for all
        // of them; as long as there are blocks enough. A few rows over few key heads are split among the threads.
        let tile = tile::max_rows(self.isa);
        let long = self.context() >= LONG_CONTEXT && rows * key_heads >= 16 * LONG_TILES * tile * threads;
        let blocks = rows
            .div_ceil(if long { LONG_TILES * tile } else { tile })
            .max(threads.div_ceil(key_heads))
            .min(rows);
        let items = key_heads * blocks;
        pool::with_threads(threads, || {
            pool::parallel(items, |item| {
                let block = item % blocks;
                let (first, end) = (block * rows / blocks, (block + 1) * rows / blocks);
                body(Block { key_head: item / blocks, first, rows: end - first });
            });
        });
    }

    /// Dot products of the block's queries with the keys `keys` (widened to whole panels), at their own positions in
    /// the rows of `scores`.
    fn products(
        &self,
        block: Block,
        queries: HeadsView<'_>,
        keys: Range<usize>,
        scores: &mut Rows,
        left: &mut Rows,
    ) {
        let size = self.store.head_size();
        left.resize(block.rows, size);
        for row in 0..block.rows {
            let (query, head) = self.place(block, row);
            left.row_mut(row)[..size].copy_from_slice(queries.row(query, head));
        }
        let panels = self.store.key_panels(block.key_head);
        let vectors = keys.start / PANEL * PANEL_VECTORS..keys.end.div_ceil(PANEL) * PANEL_VECTORS;
        assert!(vectors.end * LANES <= scores.stride && vectors.end * LANES * size <= panels.len());
        let tiles = Operands {
            isa: self.isa,
            words: Words::Float,
            steps: size,
            left_step: 1,
            step_stride: PANEL,
            panel_stride: size * PANEL,
            resume: false,
        };
        tile::for_vector_groups(
            self.isa,
            block.rows.min(tile::max_rows(self.isa)),
            vectors,
            |vector, count| {
                let right = vector / PANEL_VECTORS * size * PANEL + vector % PANEL_VECTORS * LANES;
                // SAFETY: the left rows hold `size` numbers each; the vectors lie within the key panels and within the
                // scores' rows (asserted above).
                unsafe {
                    tiles.run(
                        (block.rows, count),
                        (left.words.as_ptr(), left.stride),
                        panels.as_ptr().add(right),
                        (scores.words.floats_mut().as_mut_ptr().add(vector * LANES), scores.stride),
                    );
                }
            },
        );
    }

    /// Scales, caps and masks a row of products that begins at key `first`: −∞ at every key of the row that `position`
    /// does not see.
    fn finish_scores(&self, position: usize, first: usize, row: &mut [f32]) {
        let seen = self.options.seen(position);
        let seen = seen.start - first..seen.end - first;
        row[..seen.start].fill(f32::NEG_INFINITY);
        row[seen.end..].fill(f32::NEG_INFINITY);
        scale_and_cap(self.isa, &mut row[seen], self.options.scale, self.options.soft_cap);
    }

    /// Mixes values: rows of `pattern` (at their own positions) times the values of the keys each row sees.
    fn mix(&self, block: Block, pattern: &mut Rows, seen: impl Fn(usize) -> Range<usize>, mixed: &mut Rows) {
        mixed.resize(block.rows, self.store.value_width());
        mixed.words.words_mut().fill(0);
        let starts = || (0..block.rows).map(|row| seen(row).start);
        let ends = || (0..block.rows).map(|row| seen(row).end);
        let (first, common_start) = (starts().min().unwrap_or(0), starts().max().unwrap_or(0));
        let (common_end, last) = (ends().min().unwrap_or(0), ends().max().unwrap_or(0));
        if common_start >= common_end {
            for row in 0..block.rows {
                self.mix_run(block, row..row + 1, pattern, seen(row), mixed);
            }
        } else if self.finite(block, first..common_start) && self.finite(block, common_end..last) {
            // A key that some rows do not see has weight zero in those, and zero times a finite value changes nothing.
            for row in 0..block.rows {
                let seen = seen(row);
                let weights = pattern.row_mut(row);
                weights[first..seen.start].fill(0.0);
                weights[seen.end..last].fill(0.0);
            }
            self.mix_run(block, 0..block.rows, pattern, first..last, mixed);
        } else {
            // Keys that all rows see are taken together; before and after them each row goes on by itself. The order
            // of the keys is the same for every row.
            for row in 0..block.rows {
                self.mix_run(block, row..row + 1, pattern, seen(row).start..common_start, mixed);
            }
            self.mix_run(block, 0..block.rows, pattern, common_start..common_end, mixed);
            for row in 0..block.rows {
                self.mix_run(block, row..row + 1, pattern, common_end..seen(row).end, mixed);
            }
        }
        // An underflow can leave −0, which a masked key's +0 would turn to +0: one sign for all ways.
        add_zero(self.isa, mixed.words.floats_mut());
    }

    /// Whether the values of a run of keys are all finite.
    fn finite(&self, block: Block, keys: Range<usize>) -> bool {
        let width = self.store.value_width();
        let values = &self.store.values(block.key_head).floats()[keys.start * width..keys.end * width];
        all_finite_on(self.isa, values)
    }

    /// Goes on with the mix of some rows over a run of keys.
    fn mix_run(
        &self,
        block: Block,
        rows: Range<usize>,
        pattern: &Rows,
        keys: Range<usize>,
        mixed: &mut Rows,
    ) {
        if keys.is_empty() {
            return;
        }
        assert!(keys.end <= pattern.stride && keys.end <= self.store.len() && rows.end <= pattern.count);
        let values = self.store.values(block.key_head);
        let width = self.store.value_width();
        let tiles = Operands {
            isa: self.isa,
            words: Words::Float,
            steps: keys.len(),
            left_step: 1,
            step_stride: width,
            panel_stride: PANEL,
            resume: true,
        };
        let tile_rows = rows.len().min(tile::max_rows(self.isa));
        tile::for_vector_groups(self.isa, tile_rows, 0..width / LANES, |vector, count| {
            let column = vector * LANES;
            // SAFETY: the pattern's rows reach `keys.end`; the store holds `width` numbers for each of its positions;
            // the mixed rows are at least `width` wide (asserted above, and by `resize` in `mix`).
            unsafe {
                tiles.run(
                    (rows.len(), count),
                    (pattern.words.as_ptr().add(rows.start * pattern.stride + keys.start), pattern.stride),
                    values.as_ptr().add(keys.start * width + column),
                    (
                        mixed.words.floats_mut().as_mut_ptr().add(rows.start * mixed.stride + column),
                        mixed.stride,
                    ),
                );
            }
        });
    }
}

kernel! {
    /// `scores * scale`, then `cap * tanh(scores / cap)`.
    fn scale_and_cap[s: S](scores: &mut [f32], scale: f32, soft_cap: Option<f32>) {
        let scale = s.splat(scale);
        if let Some(cap) = soft_cap {
            let cap = s.splat(cap);
            map_lanes!(s, scores, |x| math::softcap(s, s.mul(x, scale), cap));
        } else {
            map_lanes!(s, scores, |x| s.mul(x, scale));
        }
    }
}

kernel! {
    fn add_zero[s: S](values: &mut [f32]) {
        map_lanes!(s, values, |x| s.add(x, s.splat(0.0)));
    }
}

/// What the tiles of one run have in common.
struct Operands {
    isa: Isa,
    words: Words,
    steps: usize,
    left_step: usize,
    step_stride: usize,
    panel_stride: usize,
    resume: bool,
}

impl Operands {
    /// # Safety
    /// As [`tile::run`] for each tile of the `rows`, of one group of vectors.
    unsafe fn run(
        &self,
        (rows, vectors): (usize, usize),
        (left, left_stride): (*const u32, usize),
        right: *const u32,
        (out, out_stride): (*mut f32, usize),
    ) {
        tile::for_row_tiles(self.isa, rows, |row, rows| {
            // SAFETY: the caller's contract.
            unsafe {
                let tile = Tile {
                    rows,
                    vectors,
                    steps: self.steps,
                    left: left.add(row * left_stride),
                    left_stride,
                    left_step: self.left_step,
                    right,
                    step_stride: self.step_stride,
                    panel_stride: self.panel_stride,
                    out: out.add(row * out_stride),
                    out_stride,
                    resume: self.resume,
                };
                tile::run(self.isa, self.words, &tile);
            }
        });
    }
}

/// Scratch rows, kept between calls.
#[derive(Default)]
struct Rows {
    words: AlignedWords,
    stride: usize,
    count: usize,
}

impl Rows {
    /// Rows of at least `width` numbers, a whole number of panels and one cache line apart, with whatever numbers there
    /// were.
    fn resize(&mut self, count: usize, width: usize) {
        // The extra line keeps rows of a power of two from sharing cache sets.
        self.stride = width.next_multiple_of(2 * PANEL) + LANES;
        self.count = count;
        self.words.resize(count * self.stride);
    }

    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.words.floats_mut()[row * self.stride..][..self.stride]
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.words.floats()[row * self.stride..][..self.stride]
    }
}

#[derive(Default)]
struct Scratch {
    left: Rows,
    scores: Rows,
    mixed: Rows,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Runs `body` with this thread's scratch rows.
fn with_scratch<R>(body: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(body)
}

/// Scores `[heads, queries, context]`: scaled, capped, −∞ where masked; the context is `start + queries` keys.
///
/// `queries` is `[queries, heads, head size]`, the first at position `start`; the store must hold their keys already.
///
/// # Panics
/// If shapes do not fit.
pub fn attention_scores(
    queries: HeadsView<'_>,
    store: &KeyValueStore,
    start: usize,
    options: AttentionOptions,
    scores: &mut [f32],
) {
    check_queries(&queries, store);
    let layer = Layer::new(queries.tokens, queries.heads, store, start, options);
    let context = layer.context();
    assert_eq!(scores.len(), layer.heads * layer.queries * context, "scores are [heads, queries, context]");
    let out = Shared(scores.as_mut_ptr());
    layer.for_blocks(|block| {
        with_scratch(|scratch| {
            let last = layer.start + layer.place(block, block.rows - 1).0;
            scratch.scores.resize(block.rows, context);
            layer.products(block, queries, 0..last + 1, &mut scratch.scores, &mut scratch.left);
            for row in 0..block.rows {
                let (query, head) = layer.place(block, row);
                // SAFETY: each (head, query) is in one block only, its row lies within `scores` (length checked), which
                // is exclusively borrowed until the loop ends.
                let out = unsafe {
                    std::slice::from_raw_parts_mut(
                        out.get().add((head * layer.queries + query) * context),
                        context,
                    )
                };
                out.copy_from_slice(&scratch.scores.row(row)[..context]);
                layer.finish_scores(layer.start + query, 0, out);
            }
        });
    });
}

/// The softmax of each row of `context` scores, in place. A row of −∞ throughout gives NaN, as in PyTorch.
///
/// # Panics
/// If the length is not a multiple of `context`.
pub fn attention_pattern(scores: &mut [f32], context: usize) {
    if !scores.is_empty() {
        assert!(
            context > 0 && scores.len().is_multiple_of(context),
            "{} scores in rows of {context}",
            scores.len()
        );
        crate::reduce::softmax(scores, context);
    }
}

/// Values mixed by a pattern `[heads, queries, context]`, to `out` `[queries, heads, value head size]`.
///
/// A pattern may have been changed: keys that a query does not see take part wherever its row gives one of them a weight
/// that is not 0. Where it gives none, their values are not touched, as in [`attention_fused`]: 0 times infinity would be
/// NaN, and looking at a pattern would change what it mixes. The context is `start + queries` keys.
///
/// # Panics
/// If shapes do not fit.
pub fn attention_mixed(
    pattern: &[f32],
    store: &KeyValueStore,
    start: usize,
    options: AttentionOptions,
    out: HeadsViewMut<'_>,
) {
    out.check("mixed values");
    assert_eq!(out.size, store.value_head_size(), "the value head size");
    let layer = Layer::new(out.tokens, out.heads, store, start, options);
    let context = layer.context();
    assert_eq!(
        pattern.len(),
        layer.heads * layer.queries * context,
        "a pattern is [heads, queries, context]"
    );
    let target = Target::new(out);
    layer.for_blocks(|block| {
        with_scratch(|scratch| {
            scratch.scores.resize(block.rows, context);
            let weights = |row| {
                let (query, head) = layer.place(block, row);
                &pattern[(head * layer.queries + query) * context..][..context]
            };
            for row in 0..block.rows {
                scratch.scores.row_mut(row)[..context].copy_from_slice(weights(row));
            }
            let taken = |row| {
                let seen = options.seen(layer.start + layer.place(block, row).0);
                let outside = |weight: &f32| *weight != 0.0;
                let first = weights(row)[..seen.start].iter().position(outside).unwrap_or(seen.start);
                let last = weights(row)[seen.end..].iter().rposition(outside);
                first..last.map_or(seen.end, |last| seen.end + last + 1)
            };
            layer.mix(block, &mut scratch.scores, taken, &mut scratch.mixed);
            target.write(&layer, block, &scratch.mixed);
        });
    });
}

/// Scores, pattern and mixed values in one pass, nothing of `[queries, context]` materialised: to `out`
/// `[queries, heads, value head size]`, bit for bit what the three separate functions give for finite keys and values.
/// Keys and values that a query does not see are not touched for it.
///
/// # Panics
/// If shapes do not fit.
pub fn attention_fused(
    queries: HeadsView<'_>,
    store: &KeyValueStore,
    start: usize,
    options: AttentionOptions,
    out: HeadsViewMut<'_>,
) {
    check_queries(&queries, store);
    out.check("mixed values");
    assert_eq!(
        (out.tokens, out.heads, out.size),
        (queries.tokens, queries.heads, store.value_head_size()),
        "mixed values are [queries, heads, value head size]"
    );
    let layer = Layer::new(queries.tokens, queries.heads, store, start, options);
    let target = Target::new(out);
    layer.for_blocks(|block| {
        with_scratch(|scratch| {
            let position = |row| layer.start + layer.place(block, row).0;
            let keys = options.seen(position(0)).start..position(block.rows - 1) + 1;
            scratch.scores.resize(block.rows, keys.end);
            layer.products(block, queries, keys, &mut scratch.scores, &mut scratch.left);
            for row in 0..block.rows {
                let seen = options.seen(position(row));
                // The softmax's lanes are counted from the sequence's first token: begin where a round of them does.
                let first = seen.start / ROUND * ROUND;
                // And end with a whole vector: the keys in between are masked, and get weight zero.
                let scores = &mut scratch.scores.row_mut(row)[first..seen.end.next_multiple_of(LANES)];
                layer.finish_scores(position(row), first, scores);
                softmax_row_on(layer.isa, scores);
            }
            layer.mix(block, &mut scratch.scores, |row| options.seen(position(row)), &mut scratch.mixed);
            target.write(&layer, block, &scratch.mixed);
        });
    });
}

fn check_queries(queries: &HeadsView<'_>, store: &KeyValueStore) {
    queries.check("queries");
    assert_eq!(queries.size, store.head_size(), "the queries' and the keys' head size");
}

/// Where blocks write their mixed values.
struct Target {
    data: Shared<f32>,
    size: usize,
    token_stride: usize,
    head_stride: usize,
}

impl Target {
    /// From a view that was checked.
    fn new(out: HeadsViewMut<'_>) -> Self {
        Self {
            data: Shared(out.data.as_mut_ptr()),
            size: out.size,
            token_stride: out.token_stride,
            head_stride: out.head_stride,
        }
    }

    fn write(&self, layer: &Layer<'_>, block: Block, mixed: &Rows) {
        for row in 0..block.rows {
            let (query, head) = layer.place(block, row);
            self.write_row(query, head, mixed.row(row));
        }
    }

    /// Writes the first numbers of `row` as a token's head.
    fn write_row(&self, token: usize, head: usize, row: &[f32]) {
        let place = token * self.token_stride + head * self.head_stride;
        // SAFETY: the view was checked: the row lies within its data and overlaps no other row; each (token, head) is
        // written by one block only; the data is exclusively borrowed by the calling function.
        let out = unsafe { std::slice::from_raw_parts_mut(self.data.get().add(place), self.size) };
        out.copy_from_slice(&row[..self.size]);
    }
}
