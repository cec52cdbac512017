//! The vector-Jacobian products of attention: from the mixed values' cotangent to those of queries, keys and values.
//!
//! One arithmetic, whether scores and pattern were materialised or not: [`attention_backward`] gives bit for bit what
//! [`attention_mixed_backward`], [`attention_pattern_backward`] and [`attention_scores_backward`] give one after the
//! other, for finite numbers. The pattern's cotangent is one chain over a value's components, a query's one over
//! the keys in order, a key's and a value's one over the rows that see it: the queries in order, and for each the query
//! heads that share the key head. A key or query that is masked adds nothing to a chain, so that no bit depends on how
//! many rows are taken together.

use std::cell::RefCell;
use std::ops::Range;

use super::{AttentionOptions, Block, HeadsView, HeadsViewMut, Layer, Operands, Rows, SERIAL_WORK, Target};
use super::{add_zero, check_queries};
use crate::buffer::AlignedWords;
use crate::elementwise;
use crate::isa::Isa;
use crate::key_value::KeyValueStore;
use crate::math;
use crate::pool::{self, Shared};
use crate::reduce::{ROUND, softmax_row_backward_on, softmax_row_on};
use crate::simd::{LANES, kernel};
use crate::tile::{self, PANEL, PANEL_VECTORS, Words};

/// Rows whose pattern is held at a time.
const BLOCK_ROWS: usize = 104;
/// Keys whose cotangents one work item adds to.
const KEY_CHUNK: usize = 52;

kernel! {
    /// What a product's cotangent is of its score's: scale, times 1 − tanh² of the product scaled over the cap.
    fn cap_factors[s: S](products: &[f32], scale: f32, cap: f32, factors: &mut [f32]) {
        let (scale, cap) = (s.splat(scale), s.splat(cap));
        let (chunks, tail) = factors.as_chunks_mut::<LANES>();
        let (product_chunks, product_tail) = products.as_chunks::<LANES>();
        for (chunk, products) in chunks.iter_mut().zip(product_chunks) {
            let slope = math::softcap_derivative(s, s.mul(s.load(products), scale), cap);
            s.store(s.mul(scale, slope), chunk);
        }
        if !tail.is_empty() {
            let slope = math::softcap_derivative(s, s.mul(s.load_part(product_tail, 0.0), scale), cap);
            s.store_part(s.mul(scale, slope), tail);
        }
    }
}

kernel! {
    fn multiply[s: S](values: &mut [f32], factors: &[f32]) {
        for (value, factor) in values.iter_mut().zip(factors) {
            *value *= factor;
        }
    }
}

kernel! {
    fn multiply_by[s: S](values: &mut [f32], factor: f32) {
        for value in values.iter_mut() {
            *value *= factor;
        }
    }
}

/// `out[r, column] = Σ_t left[r, t] · right[t, column]`, or that added to what `out` holds, one chain over t each.
struct Product<'a> {
    isa: Isa,
    rows: usize,
    steps: usize,
    left: &'a [f32],
    left_stride: usize,
    /// From one step of the left side to the next: 1, or the left array's own stride where it is read transposed (its
    /// rows are then 1 apart).
    left_step: usize,
    right: &'a [f32],
    step_stride: usize,
    panel_stride: usize,
    /// Columns, in vectors.
    vectors: usize,
    resume: bool,
}

impl Product<'_> {
    fn run(&self, out: &mut [f32], out_stride: usize) {
        if self.rows == 0 || self.vectors == 0 || self.steps == 0 {
            return;
        }
        let last = self.vectors - 1;
        let left = (self.rows - 1) * self.left_stride + (self.steps - 1) * self.left_step + 1;
        let right = last / PANEL_VECTORS * self.panel_stride
            + last % PANEL_VECTORS * LANES
            + (self.steps - 1) * self.step_stride
            + LANES;
        let width = self.vectors * LANES;
        assert!(left <= self.left.len() && right <= self.right.len(), "a product's sides hold all its steps");
        assert!(self.rows == 1 || out_stride >= width, "a product's rows do not overlap");
        assert!((self.rows - 1) * out_stride + width <= out.len(), "a product's result holds all its rows");
        let tiles = Operands {
            isa: self.isa,
            words: if self.left_step == 1 { Words::Float } else { Words::TurnedFloat },
            steps: self.steps,
            left_step: self.left_step,
            step_stride: self.step_stride,
            panel_stride: self.panel_stride,
            resume: self.resume,
        };
        let tile_rows = self.rows.min(tile::max_rows(self.isa));
        let out = out.as_mut_ptr();
        tile::for_vector_groups(self.isa, tile_rows, 0..self.vectors, |vector, count| {
            let place = vector / PANEL_VECTORS * self.panel_stride + vector % PANEL_VECTORS * LANES;
            // SAFETY: both sides hold every row, vector and step, and the result every row and vector (asserted
            // above); the result is exclusively borrowed.
            unsafe {
                tiles.run(
                    (self.rows, count),
                    (self.left.as_ptr().cast(), self.left_stride),
                    self.right.as_ptr().add(place).cast(),
                    (out.add(vector * LANES), out_stride),
                );
            }
        });
    }
}

/// What a key head's work needs, kept between calls.
#[derive(Default)]
struct Scratch {
    /// The keys, `[context, size]`.
    keys: Rows,
    /// The values, `[panel][component][32 positions]`.
    value_panels: AlignedWords,
    /// A block's queries.
    queries: Rows,
    /// The cotangents of its mixed values.
    mixed: Rows,
    /// Its pattern, the cotangents of its products, and where scores are capped the factors between these and the
    /// scores', side by side.
    work: Rows,
    /// The cotangents of keys and values, side by side.
    sums: Rows,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// Rows of a work item inside a key head's work.
    static ITEM: RefCell<Rows> = RefCell::default();
}

/// Which cotangents a run over the keys adds to.
#[derive(Clone, Copy)]
struct Sums {
    keys: bool,
    values: bool,
    /// Whether a row's weights may be other than 0 only at the keys that it sees.
    masked: bool,
}

impl Layer<'_> {
    /// Runs `body` for each key head: in parallel where there are enough of them, else one by one, and the loops inside
    /// are parallel.
    fn for_key_heads(&self, body: impl Fn(usize, &mut Scratch) + Sync) {
        let work = self.queries * self.heads * self.context() * self.store.head_size();
        let threads = if work < SERIAL_WORK { 1 } else { pool::threads() };
        let heads = self.store.heads();
        let run = |head| SCRATCH.with_borrow_mut(|scratch| body(head, scratch));
        pool::with_threads(threads, || {
            if heads >= threads { pool::parallel(heads, run) } else { (0..heads).for_each(run) }
        });
    }

    /// A key head's rows, a block at a time.
    fn backward_blocks(&self, key_head: usize) -> impl Iterator<Item = Block> {
        let rows = self.queries * self.group;
        (0..rows).step_by(BLOCK_ROWS).map(move |first| Block {
            key_head,
            first,
            rows: BLOCK_ROWS.min(rows - first),
        })
    }

    fn position(&self, block: Block, row: usize) -> usize {
        self.start + (block.first + row) / self.group
    }

    /// The keys that some row of a block sees.
    fn union(&self, block: Block) -> Range<usize> {
        self.options.seen(self.position(block, 0)).start..self.position(block, block.rows - 1) + 1
    }

    /// The rows of a block that see some of the keys.
    fn rows_that_see(&self, block: Block, keys: &Range<usize>) -> Range<usize> {
        let row_of = |position: usize| {
            (position.saturating_sub(self.start) * self.group).saturating_sub(block.first).min(block.rows)
        };
        let end = self.options.window.map_or(block.rows, |window| {
            let last = keys.end.saturating_add(window).saturating_sub(1);
            if last >= self.context() { block.rows } else { row_of(last) }
        });
        row_of(keys.start)..end
    }

    /// Width of the parts of a work row, one for each key of the context.
    fn part(&self) -> usize {
        self.context().next_multiple_of(PANEL) + LANES
    }

    fn key_width(&self) -> usize {
        self.store.head_size().next_multiple_of(LANES)
    }

    /// Runs `body` on tiles of a block's work rows, in parallel unless the key heads are.
    fn for_tiles(
        &self,
        block: Block,
        work: &mut Rows,
        body: impl Fn(Block, usize, &mut [f32], usize) + Sync,
    ) {
        let rows = tile::max_rows(self.isa);
        let stride = work.stride;
        pool::parallel_chunks(
            &mut work.words.floats_mut()[..block.rows * stride],
            rows * stride,
            |index, part| {
                let tile = Block { first: block.first + index * rows, rows: part.len() / stride, ..block };
                body(tile, index * rows, part, stride);
            },
        );
    }

    fn copy_rows(&self, block: Block, from: HeadsView<'_>, to: &mut Rows) {
        to.resize(block.rows, from.size);
        for row in 0..block.rows {
            let (query, head) = self.place(block, row);
            to.row_mut(row)[..from.size].copy_from_slice(from.row(query, head));
        }
    }

    fn turn_keys(&self, key_head: usize, keys: &mut Rows) {
        let (size, context) = (self.store.head_size(), self.context());
        keys.resize(context, size);
        let stride = keys.stride;
        let panels = self.store.key_panels(key_head).floats();
        for (panel, rows) in keys.words.floats_mut().chunks_mut(PANEL * stride).enumerate() {
            let positions = PANEL.min(context - panel * PANEL);
            let from = &panels[panel * size * PANEL..(panel + 1) * size * PANEL];
            elementwise::transpose(from, PANEL, size, positions, rows, stride);
        }
    }

    fn turn_values(&self, key_head: usize, panels: &mut AlignedWords) {
        let (size, width) = (self.store.value_head_size(), self.store.value_width());
        let context = self.context();
        panels.resize(context.div_ceil(PANEL) * size * PANEL);
        let values = self.store.values(key_head).floats();
        if size == 0 {
            return;
        }
        for (panel, out) in panels.floats_mut().chunks_mut(size * PANEL).enumerate() {
            let positions = PANEL.min(context - panel * PANEL);
            if positions < PANEL {
                out.fill(0.0);
            }
            let from = &values[panel * PANEL * width..][..(positions - 1) * width + size];
            elementwise::transpose(from, width, positions, size, out, PANEL);
        }
    }

    /// Products of a tile's rows with panels of positions `keys`, at their own places in `out`.
    fn panel_products(
        &self,
        rows: usize,
        left: (&[f32], usize),
        (panels, size): (&[f32], usize),
        keys: &Range<usize>,
        (out, out_stride): (&mut [f32], usize),
    ) {
        let (first, last) = (keys.start / PANEL, keys.end.div_ceil(PANEL));
        Product {
            isa: self.isa,
            rows,
            steps: size,
            left: left.0,
            left_stride: left.1,
            left_step: 1,
            right: &panels[first * size * PANEL..],
            step_stride: PANEL,
            panel_stride: size * PANEL,
            vectors: (last - first) * PANEL_VECTORS,
            resume: false,
        }
        .run(&mut out[first * PANEL..], out_stride);
    }

    /// Turns the cotangents of a tile's scores (in the work rows' second part) into those of its products: 0 at the keys
    /// of `keys` that a row does not see.
    fn finish_products(&self, tile: Block, keys: &Range<usize>, work: &mut [f32], stride: usize) {
        let part = self.part();
        for (row, work) in work.chunks_mut(stride).take(tile.rows).enumerate() {
            let seen = self.options.seen(self.position(tile, row));
            let (_, rest) = work.split_at_mut(part);
            let (cotangents, rest) = rest.split_at_mut(part);
            match self.options.soft_cap {
                Some(_) => multiply(self.isa, &mut cotangents[seen.clone()], &rest[seen.clone()]),
                None => multiply_by(self.isa, &mut cotangents[seen.clone()], self.options.scale),
            }
            clear(cotangents, keys, &seen);
        }
    }

    /// The factors between scores' and products' cotangents, from the products in the work rows' first part.
    fn find_factors(&self, tile: Block, work: &mut [f32], stride: usize) {
        let part = self.part();
        if let Some(cap) = self.options.soft_cap {
            for (row, work) in work.chunks_mut(stride).take(tile.rows).enumerate() {
                let seen = self.options.seen(self.position(tile, row));
                let (products, rest) = work.split_at_mut(2 * part);
                cap_factors(self.isa, &products[seen.clone()], self.options.scale, cap, &mut rest[seen]);
            }
        }
    }

    /// The queries' cotangents of a tile: those of its products times the keys.
    fn of_queries(&self, tile: Block, keys: &Rows, (work, stride): (&[f32], usize), target: &Target) {
        let union = self.union(tile);
        ITEM.with_borrow_mut(|item| {
            item.resize(tile.rows, self.key_width());
            let out_stride = item.stride;
            Product {
                isa: self.isa,
                rows: tile.rows,
                steps: union.len(),
                left: &work[self.part() + union.start..],
                left_stride: stride,
                left_step: 1,
                right: &keys.words.floats()[union.start * keys.stride..],
                step_stride: keys.stride,
                panel_stride: PANEL,
                vectors: self.key_width() / LANES,
                resume: false,
            }
            .run(item.words.floats_mut(), out_stride);
            add_zero(self.isa, item.words.floats_mut());
            target.write(self, tile, item);
        });
    }

    /// Adds what a block's rows give to the cotangents of `keys` and of their values.
    fn add_up(&self, block: Block, keys: Range<usize>, which: Sums, scratch: &mut Scratch) {
        let Scratch { queries, mixed, work, sums, .. } = scratch;
        let (work, queries, mixed) = (&*work, &*queries, &*mixed);
        let stride = sums.stride;
        let sums = &mut sums.words.floats_mut()[keys.start * stride..keys.end * stride];
        pool::parallel_chunks(sums, KEY_CHUNK * stride, |chunk, sums| {
            let first = keys.start + chunk * KEY_CHUNK;
            let count = sums.len() / stride;
            let rows = match which.masked {
                true => self.rows_that_see(block, &(first..first + count)),
                false => 0..block.rows,
            };
            let product = |part: usize, right: &Rows, width: usize, out: &mut [f32]| {
                Product {
                    isa: self.isa,
                    rows: count,
                    steps: rows.len(),
                    left: &work.words.floats()[rows.start * work.stride + part + first..],
                    left_stride: 1,
                    left_step: work.stride,
                    right: &right.words.floats()[rows.start * right.stride..],
                    step_stride: right.stride,
                    panel_stride: PANEL,
                    vectors: width / LANES,
                    resume: true,
                }
                .run(out, stride);
            };
            if rows.is_empty() {
                return;
            }
            if which.keys {
                product(self.part(), queries, self.key_width(), sums);
            }
            if which.values {
                product(0, mixed, self.store.value_width(), &mut sums[self.key_width()..]);
            }
        });
    }

    /// Makes room for the cotangents of keys and values, all 0.
    fn begin_sums(&self, sums: &mut Rows) {
        sums.resize(self.context(), self.key_width() + self.store.value_width());
        sums.words.words_mut().fill(0);
    }

    /// Writes the cotangents of one key head's keys and values.
    fn write_sums(&self, key_head: usize, sums: &mut Rows, keys: Option<&Target>, values: Option<&Target>) {
        // An underflow can leave −0, which a masked row's +0 would turn to +0: one sign for all ways.
        add_zero(self.isa, sums.words.floats_mut());
        let width = self.key_width();
        for position in 0..self.context() {
            let row = sums.row(position);
            if let Some(keys) = keys {
                keys.write_row(position, key_head, row);
            }
            if let Some(values) = values {
                values.write_row(position, key_head, &row[width..]);
            }
        }
    }
}

/// Sets to 0 what lies in `keys` but not in `seen`.
fn clear(row: &mut [f32], keys: &Range<usize>, seen: &Range<usize>) {
    row[keys.start.min(seen.start)..seen.start].fill(0.0);
    row[seen.end..keys.end.max(seen.end)].fill(0.0);
}

fn check_keys(keys: &HeadsViewMut<'_>, layer: &Layer<'_>, size: usize, what: &str) {
    keys.check(what);
    assert_eq!(
        (keys.tokens, keys.heads, keys.size),
        (layer.context(), layer.store.heads(), size),
        "{what} are [context, key heads, size]"
    );
}

fn check_rows(rows: &HeadsView<'_>, layer: &Layer<'_>, size: usize, what: &str) {
    rows.check(what);
    assert_eq!(
        (rows.tokens, rows.heads, rows.size),
        (layer.queries, layer.heads, size),
        "{what} are [queries, heads, size]"
    );
}

/// The vector-Jacobian product of [`attention_fused`](super::attention_fused): from the mixed values' cotangent
/// `of_mixed` `[queries, heads, value head size]` to those of the queries, `of_queries` `[queries, heads, head size]`, the
/// keys, `of_keys` `[context, key heads, head size]`, and the values, `of_values` `[context, key heads, value head size]`.
///
/// The pattern is computed anew, block by block, with the bits it had; nothing of `[queries, context]` is materialised.
/// The context is `start + queries` keys, those of the store's first positions.
///
/// # Panics
/// If shapes do not fit.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    queries: HeadsView<'_>,
    store: &KeyValueStore,
    start: usize,
    options: AttentionOptions,
    of_mixed: HeadsView<'_>,
    of_queries: HeadsViewMut<'_>,
    of_keys: HeadsViewMut<'_>,
    of_values: HeadsViewMut<'_>,
) {
    check_queries(&queries, store);
    let layer = Layer::new(queries.tokens, queries.heads, store, start, options);
    check_rows(&of_mixed, &layer, store.value_head_size(), "the mixed values' cotangents");
    check_queries_target(&of_queries, &layer);
    check_keys(&of_keys, &layer, store.head_size(), "the keys' cotangents");
    check_keys(&of_values, &layer, store.value_head_size(), "the values' cotangents");
    let (of_queries, of_keys, of_values) =
        (Target::new(of_queries), Target::new(of_keys), Target::new(of_values));
    let parts = if options.soft_cap.is_some() { 3 } else { 2 };
    layer.for_key_heads(|key_head, scratch| {
        layer.turn_keys(key_head, &mut scratch.keys);
        layer.turn_values(key_head, &mut scratch.value_panels);
        layer.begin_sums(&mut scratch.sums);
        let key_panels = store.key_panels(key_head).floats();
        for block in layer.backward_blocks(key_head) {
            layer.copy_rows(block, queries, &mut scratch.queries);
            layer.copy_rows(block, of_mixed, &mut scratch.mixed);
            scratch.work.resize(block.rows, parts * layer.part());
            let union = layer.union(block);
            let Scratch { keys, value_panels, queries, mixed, work, .. } = scratch;
            let (keys, value_panels, queries, mixed) = (&*keys, value_panels.floats(), &*queries, &*mixed);
            layer.for_tiles(block, work, |tile, first, work, stride| {
                let seen = layer.union(tile);
                let left = (&queries.words.floats()[first * queries.stride..], queries.stride);
                let panels = (key_panels, store.head_size());
                layer.panel_products(tile.rows, left, panels, &seen, (work, stride));
                layer.find_factors(tile, work, stride);
                let left = (&mixed.words.floats()[first * mixed.stride..], mixed.stride);
                let panels = (value_panels, store.value_head_size());
                layer.panel_products(tile.rows, left, panels, &seen, (&mut work[layer.part()..], stride));
                for (row, work) in work.chunks_mut(stride).take(tile.rows).enumerate() {
                    let position = layer.position(tile, row);
                    let seen = options.seen(position);
                    // As in the forward kernel: from where a round of the softmax's lanes begins, to a whole vector.
                    let range = seen.start / ROUND * ROUND..seen.end.next_multiple_of(LANES);
                    let (pattern, cotangents) = work.split_at_mut(layer.part());
                    layer.finish_scores(position, range.start, &mut pattern[range.clone()]);
                    softmax_row_on(layer.isa, &mut pattern[range.clone()]);
                    softmax_row_backward_on(layer.isa, &pattern[range.clone()], &mut cotangents[range]);
                    clear(pattern, &union, &seen);
                }
                layer.finish_products(tile, &union, work, stride);
                layer.of_queries(tile, keys, (work, stride), &of_queries);
            });
            layer.add_up(block, union, Sums { keys: true, values: true, masked: true }, scratch);
        }
        layer.write_sums(key_head, &mut scratch.sums, Some(&of_keys), Some(&of_values));
    });
}

fn check_queries_target(of_queries: &HeadsViewMut<'_>, layer: &Layer<'_>) {
    of_queries.check("the queries' cotangents");
    assert_eq!(
        (of_queries.tokens, of_queries.heads, of_queries.size),
        (layer.queries, layer.heads, layer.store.head_size()),
        "the queries' cotangents are [queries, heads, head size]"
    );
}

/// The vector-Jacobian product of [`attention_mixed`](super::attention_mixed): from the mixed values' cotangent
/// `of_mixed` `[queries, heads, value head size]` to that of the pattern, `of_pattern` `[heads, queries, context]`, at every
/// key of the context, seen or not, and that of the values, `of_values` `[context, key heads, value head size]`.
///
/// # Panics
/// If shapes do not fit.
pub fn attention_mixed_backward(
    pattern: &[f32],
    store: &KeyValueStore,
    start: usize,
    of_mixed: HeadsView<'_>,
    of_pattern: &mut [f32],
    of_values: HeadsViewMut<'_>,
) {
    // Neither scale nor mask matters to what a pattern mixes.
    let layer = Layer::new(of_mixed.tokens, of_mixed.heads, store, start, AttentionOptions::scaled(1.0));
    let context = layer.context();
    check_rows(&of_mixed, &layer, store.value_head_size(), "the mixed values' cotangents");
    check_keys(&of_values, &layer, store.value_head_size(), "the values' cotangents");
    let length = layer.heads * layer.queries * context;
    assert!(
        pattern.len() == length && of_pattern.len() == length,
        "a pattern and its cotangent are [heads, queries, context]"
    );
    let of_values = Target::new(of_values);
    let of_pattern = Target::of_contexts(of_pattern, &layer);
    layer.for_key_heads(|key_head, scratch| {
        layer.turn_values(key_head, &mut scratch.value_panels);
        layer.begin_sums(&mut scratch.sums);
        for block in layer.backward_blocks(key_head) {
            layer.copy_rows(block, of_mixed, &mut scratch.mixed);
            scratch.work.resize(block.rows, 2 * layer.part());
            let Scratch { value_panels, mixed, work, .. } = scratch;
            let (value_panels, mixed) = (value_panels.floats(), &*mixed);
            layer.for_tiles(block, work, |tile, first, work, stride| {
                let left = (&mixed.words.floats()[first * mixed.stride..], mixed.stride);
                let panels = (value_panels, store.value_head_size());
                let out = (&mut work[layer.part()..], stride);
                layer.panel_products(tile.rows, left, panels, &(0..context), out);
                for (row, work) in work.chunks_mut(stride).take(tile.rows).enumerate() {
                    let (query, head) = layer.place(tile, row);
                    let own = &pattern[(head * layer.queries + query) * context..][..context];
                    work[..context].copy_from_slice(own);
                    of_pattern.write_row(query, head, &work[layer.part()..]);
                }
            });
            let which = Sums { keys: false, values: true, masked: false };
            layer.add_up(block, 0..context, which, scratch);
        }
        layer.write_sums(key_head, &mut scratch.sums, None, Some(&of_values));
    });
}

/// The vector-Jacobian product of [`attention_pattern`](super::attention_pattern): with the `pattern` it gave, the
/// pattern's cotangent becomes the scores', in place. A masked key, whose weight is 0, takes no part.
///
/// # Panics
/// If the lengths differ or are not a multiple of `context`.
pub fn attention_pattern_backward(pattern: &[f32], context: usize, cotangent: &mut [f32]) {
    if !pattern.is_empty() || !cotangent.is_empty() {
        assert!(context > 0, "rows of no scores");
        crate::reduce::softmax_backward(pattern, context, cotangent);
    }
}

/// The vector-Jacobian product of [`attention_scores`](super::attention_scores): from the scores' cotangent `of_scores`
/// `[heads, queries, context]` to those of the queries, `of_queries` `[queries, heads, head size]`, and the keys, `of_keys`
/// `[context, key heads, head size]`. A masked score is a constant: its cotangent goes nowhere.
///
/// # Panics
/// If shapes do not fit.
pub fn attention_scores_backward(
    queries: HeadsView<'_>,
    store: &KeyValueStore,
    start: usize,
    options: AttentionOptions,
    of_scores: &[f32],
    of_queries: HeadsViewMut<'_>,
    of_keys: HeadsViewMut<'_>,
) {
    check_queries(&queries, store);
    let layer = Layer::new(queries.tokens, queries.heads, store, start, options);
    let context = layer.context();
    check_queries_target(&of_queries, &layer);
    check_keys(&of_keys, &layer, store.head_size(), "the keys' cotangents");
    assert_eq!(
        of_scores.len(),
        layer.heads * layer.queries * context,
        "the scores' cotangents are [heads, queries, context]"
    );
    let (of_queries, of_keys) = (Target::new(of_queries), Target::new(of_keys));
    let capped = options.soft_cap.is_some();
    layer.for_key_heads(|key_head, scratch| {
        layer.turn_keys(key_head, &mut scratch.keys);
        layer.begin_sums(&mut scratch.sums);
        let key_panels = store.key_panels(key_head).floats();
        for block in layer.backward_blocks(key_head) {
            layer.copy_rows(block, queries, &mut scratch.queries);
            scratch.work.resize(block.rows, if capped { 3 } else { 2 } * layer.part());
            let union = layer.union(block);
            let Scratch { keys, queries, work, .. } = scratch;
            let (keys, queries) = (&*keys, &*queries);
            layer.for_tiles(block, work, |tile, first, work, stride| {
                if capped {
                    let left = (&queries.words.floats()[first * queries.stride..], queries.stride);
                    let panels = (key_panels, store.head_size());
                    layer.panel_products(tile.rows, left, panels, &layer.union(tile), (work, stride));
                    layer.find_factors(tile, work, stride);
                }
                for (row, work) in work.chunks_mut(stride).take(tile.rows).enumerate() {
                    let (query, head) = layer.place(tile, row);
                    let own = &of_scores[(head * layer.queries + query) * context..][..context];
                    work[layer.part()..][..context].copy_from_slice(own);
                }
                layer.finish_products(tile, &union, work, stride);
                layer.of_queries(tile, keys, (work, stride), &of_queries);
            });
            layer.add_up(block, union, Sums { keys: true, values: false, masked: true }, scratch);
        }
        layer.write_sums(key_head, &mut scratch.sums, Some(&of_keys), None);
    });
}

impl Target {
    /// Rows of scores or of a pattern, `[heads, queries, context]`, whose length was checked.
    fn of_contexts(rows: &mut [f32], layer: &Layer<'_>) -> Self {
        let context = layer.context();
        Self {
            data: Shared(rows.as_mut_ptr()),
            size: context,
            token_stride: context,
            head_stride: layer.queries * context,
        }
    }
}
