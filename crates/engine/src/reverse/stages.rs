//! The vector-Jacobian product of each stage: the seam between the way back and the kernels, as `compute` is on the way
//! there.
//!
//! On the way back a pass's slots hold cotangents. A stage takes that of its output and adds to those of its inputs. A row
//! whose cotangent is all 0 is passed over: nothing comes of it, whatever the row's values are. So a token that nobody
//! reads costs nothing, and whether it was computed at all (the unembedding is narrowed to what is read) does not show.

use std::ops::Range;
use std::sync::Arc;

use pellucid_kernels::attention::{
    attention_backward, attention_mixed_backward, attention_pattern_backward, attention_scores_backward,
};
use pellucid_kernels::rotary::{RotaryStyle, RotaryTable, rotary_backward};
use pellucid_kernels::{
    Epilogue, HeadsView, HeadsViewMut, KeyValueStore, activation, elementwise, matmul, norm,
};
use pellucid_models::stage::{Attention, Kernel, Norm, NormKind, Slot, SlotShape, Stage, StageList};
use pellucid_models::{Model, ModelWeight};

use super::tape::Tape;
use crate::compute::{activation_of, heads_view, options};
use crate::error::Interruption;
use crate::pass::PassState;
use crate::slots::{BufferPool, Rows, SlotValue};
use crate::weights::Weights;

type Done = Result<(), Interruption>;

/// What the way back through a pass reads.
pub(crate) struct Back<'a> {
    pub model: &'a Model,
    /// Those that the pass ran with.
    pub weights: Weights<'a>,
    pub tape: &'a Tape,
    /// Of each slot: whether its cotangent is wanted.
    pub wanted: &'a [bool],
}

/// What a slot holds for a token.
fn inner(list: &StageList, slot: Slot) -> Vec<usize> {
    match list.shapes.get(slot.0 as usize) {
        Some(SlotShape::Inner(sizes)) => sizes.clone(),
        _ => Vec::new(),
    }
}

/// The cotangent of a slot of rows, taken out. On the way back rows stand end to end.
pub(crate) fn take(state: &mut PassState, slot: Slot) -> Option<Vec<f32>> {
    match state.take(slot)? {
        SlotValue::Rows(rows) => Some(Arc::unwrap_or_clone(rows.buffer)),
        _ => None,
    }
}

/// Adds to the cotangent of a slot of rows, end to end.
pub(crate) fn add(
    list: &StageList,
    state: &mut PassState,
    slot: Slot,
    values: Vec<f32>,
    pool: &mut BufferPool,
) {
    if let Some(SlotValue::Rows(rows)) = state.slot_mut(slot)
        && let Some(buffer) = Arc::get_mut(&mut rows.buffer)
    {
        elementwise::add(buffer, &values);
        pool.give(SlotValue::Rows(Rows::contiguous(values, &[])));
    } else {
        state.put(slot, SlotValue::Rows(Rows::contiguous(values, &inner(list, slot))));
    }
}

/// The rows of `width` that are not all 0.
pub(super) fn rows_that_matter(values: &[f32], width: usize) -> Vec<usize> {
    let rows = values.chunks_exact(width.max(1)).enumerate();
    rows.filter(|(_, row)| row.iter().any(|&value| value != 0.0)).map(|(row, _)| row).collect()
}

/// Those rows, end to end.
pub(super) fn gather(values: &[f32], width: usize, rows: &[usize], pool: &mut BufferPool) -> Vec<f32> {
    let mut out = pool.take(rows.len() * width);
    for (&row, out) in rows.iter().zip(out.chunks_exact_mut(width.max(1))) {
        out.copy_from_slice(&values[row * width..(row + 1) * width]);
    }
    out
}

/// Rows back in their places among `count`, the others 0.
fn scatter(values: &[f32], width: usize, rows: &[usize], count: usize, pool: &mut BufferPool) -> Vec<f32> {
    let mut out = pool.take(count * width);
    out.fill(0.0);
    for (&row, values) in rows.iter().zip(values.chunks_exact(width.max(1))) {
        out[row * width..(row + 1) * width].copy_from_slice(values);
    }
    out
}

impl Back<'_> {
    pub(super) fn list(&self) -> &StageList {
        self.model.stages()
    }

    fn wants(&self, slot: Slot) -> bool {
        self.wanted.get(slot.0 as usize).copied().unwrap_or(false)
    }

    fn add(&self, state: &mut PassState, slot: Slot, values: Vec<f32>, pool: &mut BufferPool) {
        if self.wants(slot) {
            add(self.list(), state, slot, values, pool);
        }
    }

    /// What a slot of rows held on the way there, end to end.
    pub(super) fn kept(&self, state: &PassState, slot: Slot) -> Result<Vec<f32>, Interruption> {
        let rows = self.tape.rows(slot, state.narrowed);
        let rows = rows.ok_or_else(|| Interruption::missing("a value of the way there"))?;
        Ok(rows.packed(state.tokens()))
    }

    /// Goes back through one stage.
    pub fn stage(&self, number: usize, state: &mut PassState, pool: &mut BufferPool) -> Done {
        let stage = &self.list().stages[number];
        let output = stage.outputs[0];
        if let Kernel::AttentionScores(_) | Kernel::AttentionPattern(_) | Kernel::AttentionMixed(_) =
            stage.kernel
        {
            return self.attention(number, state, pool);
        }
        if let Kernel::Hook { .. } = stage.kernel {
            self.hook(stage, state, pool);
            return Ok(());
        }
        let Some(mut cotangent) = take(state, output) else { return Ok(()) };
        match &stage.kernel {
            Kernel::Embed { .. } | Kernel::Hook { .. } => {}
            Kernel::Linear { .. } if !self.wants(stage.inputs[0]) => {}
            Kernel::Linear { weight, .. } => {
                let packed = self.weights.get(*weight).and_then(ModelWeight::packed_transposed);
                let packed = packed.ok_or_else(|| Interruption::missing("a linear layer's weight"))?;
                let (width, n) = (packed.n(), packed.k());
                let count = cotangent.len() / n.max(1);
                let rows = rows_that_matter(&cotangent, n);
                let whole = rows.len() == count;
                if !whole {
                    cotangent = gather(&cotangent, n, &rows, pool);
                }
                let mut out = pool.take(rows.len() * width);
                matmul(&cotangent, n, rows.len(), packed, &Epilogue::default(), &mut out, width);
                if !whole {
                    out = scatter(&out, width, &rows, count, pool);
                }
                self.add(state, stage.inputs[0], out, pool);
            }
            Kernel::Add => {
                for (place, &slot) in stage.inputs.iter().enumerate().rev() {
                    let own = if place == 0 { std::mem::take(&mut cotangent) } else { cotangent.clone() };
                    self.add(state, slot, own, pool);
                }
            }
            Kernel::Multiply => {
                let width = inner(self.list(), output).iter().product();
                for (slot, other) in [(stage.inputs[0], stage.inputs[1]), (stage.inputs[1], stage.inputs[0])]
                {
                    if self.wants(slot) {
                        let other = self.kept(state, other)?;
                        let own = by_rows(&cotangent, &other, width, pool, |own, other| {
                            elementwise::mul(own, other);
                        });
                        self.add(state, slot, own, pool);
                    }
                }
            }
            Kernel::Scale(factor) => {
                cotangent.iter_mut().for_each(|value| *value *= factor);
                self.add(state, stage.inputs[0], cotangent, pool);
            }
            Kernel::SoftCap(cap) => {
                let width = inner(self.list(), output).iter().product();
                let x = self.kept(state, stage.inputs[0])?;
                let own = by_rows(&cotangent, &x, width, pool, |own, x| {
                    elementwise::softcap_backward(x, *cap, own)
                });
                self.add(state, stage.inputs[0], own, pool);
            }
            Kernel::Activation(kind) => {
                let width = inner(self.list(), output).iter().product();
                let (kind, x) = (activation_of(*kind), self.kept(state, stage.inputs[0])?);
                let own =
                    by_rows(&cotangent, &x, width, pool, |own, x| activation::apply_backward(kind, x, own));
                self.add(state, stage.inputs[0], own, pool);
            }
            Kernel::NormScale(norm) => {
                let (x, scale) = (self.kept(state, stage.inputs[0])?, self.kept(state, output)?);
                let out = norm_scale(norm, &x, &scale, &cotangent, pool);
                self.add(state, stage.inputs[0], out, pool);
            }
            Kernel::NormApply(norm) => {
                let (x, scale) = (self.kept(state, stage.inputs[0])?, self.kept(state, stage.inputs[1])?);
                let (of_x, of_scale) = self.norm_apply(norm, &x, &scale, &cotangent, pool);
                self.add(state, stage.inputs[0], of_x, pool);
                self.add(state, stage.inputs[1], of_scale, pool);
            }
            Kernel::View { offset, dimensions } => {
                if self.wants(stage.inputs[0]) {
                    let width: usize = inner(self.list(), stage.inputs[0]).iter().product();
                    let own: usize = dimensions.iter().map(|dimension| dimension.0).product();
                    let mut out = pool.take(cotangent.len() / own.max(1) * width);
                    out.fill(0.0);
                    spread(&cotangent, width, *offset, dimensions, &mut out);
                    self.add(state, stage.inputs[0], out, pool);
                }
            }
            Kernel::Rotary { table } => {
                let sizes = inner(self.list(), output);
                let &[heads, size] = sizes.as_slice() else {
                    return Err(Interruption::missing("heads to rotate"));
                };
                let angles = self.list().rotary.get(*table);
                let angles = angles.ok_or_else(|| Interruption::missing("a rotary table"))?;
                let places = state.sequences.iter().zip(&state.rows);
                let places: Vec<usize> =
                    places.flat_map(|(sequence, rows)| sequence.start..sequence.start + rows.len()).collect();
                let table = RotaryTable::new(&places, &angles.inverse_frequencies, angles.scale);
                let heads = HeadsViewMut::new(&mut cotangent, places.len(), heads, size, heads * size);
                rotary_backward(heads, &table, RotaryStyle::Half);
                self.add(state, stage.inputs[0], cotangent, pool);
            }
            Kernel::AttentionScores(_) | Kernel::AttentionPattern(_) | Kernel::AttentionMixed(_) => {}
        }
        Ok(())
    }

    /// A hook point's cotangent goes on to the slot that it came from: rows, or scores and patterns.
    pub fn hook(&self, stage: &Stage, state: &mut PassState, pool: &mut BufferPool) {
        let Some(value) = state.take(stage.outputs[0]) else { return };
        let from = stage.inputs[0];
        match value {
            value if !self.wants(from) => pool.give(value),
            SlotValue::Rows(rows) => {
                add(self.list(), state, from, Arc::unwrap_or_clone(rows.buffer), pool);
            }
            other => state.put(from, other),
        }
    }

    /// The cotangents of a norm's input (by its second step alone) and of its divisor.
    fn norm_apply(
        &self,
        norm: &Norm,
        x: &[f32],
        scale: &[f32],
        cotangent: &[f32],
        pool: &mut BufferPool,
    ) -> (Vec<f32>, Vec<f32>) {
        let width = x.len() / scale.len().max(1);
        let ones = vec![1.0 - norm.weight_offset; width];
        let weight = norm.weight.and_then(|weight| self.weights.vector(weight)).unwrap_or(&ones);
        let rows = rows_that_matter(cotangent, width);
        let own = gather(cotangent, width, &rows, pool);
        let (x, scales) = (gather(x, width, &rows, pool), gather(scale, 1, &rows, pool));
        let (mut of_x, mut of_scale) = (pool.take(own.len()), pool.take(rows.len()));
        match norm.kind {
            NormKind::Layer => {
                norm::layer_norm_apply_backward(&x, &scales, weight, &own, &mut of_scale, &mut of_x);
            }
            NormKind::Rms => {
                let offset = norm.weight_offset;
                norm::rms_norm_apply_backward(&x, &scales, weight, offset, &own, &mut of_scale, &mut of_x);
            }
        }
        let count = scale.len();
        (scatter(&of_x, width, &rows, count, pool), scatter(&of_scale, 1, &rows, count, pool))
    }

    /// Goes back through a stage of attention, sequence by sequence. Where scores and pattern were not materialised, the
    /// last stage goes back through all three.
    fn attention(&self, number: usize, state: &mut PassState, pool: &mut BufferPool) -> Done {
        let stages = &self.list().stages;
        let stage = &stages[number];
        let (input, output) = (stage.inputs[0], stage.outputs[0]);
        match &stage.kernel {
            Kernel::AttentionMixed(attention) => {
                let Some(cotangent) = take(state, output) else { return Ok(()) };
                let scores = stages[..number]
                    .iter()
                    .rev()
                    .find(|stage| matches!(stage.kernel, Kernel::AttentionScores(_)));
                let scores = scores.ok_or_else(|| Interruption::missing("attention's scores"))?;
                let mut heads = Heads::new(self, attention, scores, state, pool)?;
                let pattern = stage.inputs[1];
                let mut of_patterns = vec![None; state.sequences.len()];
                let mut fused = false;
                for (place, range) in state.rows.iter().cloned().enumerate() {
                    let width = attention.heads * attention.head_size;
                    let own = &cotangent[range.start * width..range.end * width];
                    let of_mixed =
                        HeadsView::new(own, range.len(), attention.heads, attention.head_size, width);
                    match self.tape.ragged(pattern, place) {
                        Some(pattern) => {
                            let mut of_pattern = vec![0.0; pattern.len()];
                            heads.mixed_backward(range, pattern, of_mixed, &mut of_pattern)?;
                            of_patterns[place] = Some(Arc::new(of_pattern));
                        }
                        None => {
                            fused = true;
                            heads.backward(range, of_mixed)?;
                        }
                    }
                }
                let (of_query, of_key, of_value) = heads.into_cotangents();
                if fused {
                    self.add(state, scores.inputs[0], of_query, pool);
                    self.add(state, scores.inputs[1], of_key, pool);
                }
                if of_patterns.iter().any(Option::is_some) {
                    state.put(pattern, SlotValue::Ragged(of_patterns));
                }
                self.add(state, stage.inputs[2], of_value, pool);
            }
            Kernel::AttentionPattern(_) => {
                let Some(SlotValue::Ragged(mut all)) = state.take(output) else { return Ok(()) };
                for (place, cotangent) in all.iter_mut().enumerate() {
                    let (Some(own), Some(pattern)) = (cotangent, self.tape.ragged(output, place)) else {
                        continue;
                    };
                    let context = state.sequences[place].start + state.sequences[place].tokens.len();
                    let own: &mut Vec<f32> = Arc::make_mut(own);
                    attention_pattern_backward(pattern, context, own);
                }
                state.put(input, SlotValue::Ragged(all));
            }
            Kernel::AttentionScores(attention) => {
                let Some(SlotValue::Ragged(all)) = state.take(output) else { return Ok(()) };
                let mut heads = Heads::new(self, attention, stage, state, pool)?;
                for (range, of_scores) in state.rows.iter().cloned().zip(&all) {
                    if let Some(of_scores) = of_scores {
                        heads.scores_backward(range, of_scores)?;
                    }
                }
                let (of_query, of_key, _) = heads.into_cotangents();
                self.add(state, stage.inputs[0], of_query, pool);
                self.add(state, stage.inputs[1], of_key, pool);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Writes rows of a view to their places in rows of `width`: each element of a token stands at `offset` and its place
/// times the dimensions' strides.
fn spread(values: &[f32], width: usize, offset: usize, dimensions: &[(usize, usize)], out: &mut [f32]) {
    let own: usize = dimensions.iter().map(|dimension| dimension.0).product();
    let places: Vec<usize> = (0..own)
        .map(|place| {
            let (mut rest, mut at) = (place, offset);
            for &(size, stride) in dimensions.iter().rev() {
                at += rest % size.max(1) * stride;
                rest /= size.max(1);
            }
            at
        })
        .collect();
    for (values, out) in values.chunks_exact(own.max(1)).zip(out.chunks_exact_mut(width.max(1))) {
        for (&value, &place) in values.iter().zip(&places) {
            out[place] = value;
        }
    }
}

/// An element-wise product on rows that matter: `cotangent` becomes that of `x` by `kernel`, in place.
fn by_rows(
    cotangent: &[f32],
    x: &[f32],
    width: usize,
    pool: &mut BufferPool,
    kernel: impl Fn(&mut [f32], &[f32]),
) -> Vec<f32> {
    let rows = rows_that_matter(cotangent, width);
    let count = cotangent.len() / width.max(1);
    let mut own = gather(cotangent, width, &rows, pool);
    if rows.len() == count {
        kernel(&mut own, x);
        return own;
    }
    kernel(&mut own, &gather(x, width, &rows, pool));
    scatter(&own, width, &rows, count, pool)
}

fn norm_scale(norm: &Norm, x: &[f32], scale: &[f32], cotangent: &[f32], pool: &mut BufferPool) -> Vec<f32> {
    let width = x.len() / scale.len().max(1);
    let rows = rows_that_matter(cotangent, 1);
    let own = gather(cotangent, 1, &rows, pool);
    let (x, scales) = (gather(x, width, &rows, pool), gather(scale, 1, &rows, pool));
    let mut out = pool.take(x.len());
    match norm.kind {
        NormKind::Layer => norm::layer_norm_scale_backward(&x, width, &scales, &own, &mut out),
        NormKind::Rms => norm::rms_norm_scale_backward(&x, width, &scales, &own, &mut out),
    }
    scatter(&out, width, &rows, scale.len(), pool)
}

/// Queries, keys and values of one layer on the way back, and their cotangents.
struct Heads<'a> {
    attention: &'a Attention,
    query: &'a Rows,
    key: &'a Rows,
    value: &'a Rows,
    of_query: Vec<f32>,
    of_key: Vec<f32>,
    of_value: Vec<f32>,
}

impl<'a> Heads<'a> {
    fn new(
        back: &'a Back<'_>,
        attention: &'a Attention,
        scores: &Stage,
        state: &PassState,
        pool: &mut BufferPool,
    ) -> Result<Heads<'a>, Interruption> {
        let kept = |place: usize| {
            let rows = scores.inputs.get(place).and_then(|slot| back.tape.rows(*slot, state.narrowed));
            rows.ok_or_else(|| Interruption::missing("attention's query, key or value"))
        };
        let tokens = state.tokens();
        let mut zeros = |heads: usize| {
            let mut out = pool.take(tokens * heads * attention.head_size);
            out.fill(0.0);
            out
        };
        Ok(Heads {
            attention,
            query: kept(0)?,
            key: kept(1)?,
            value: kept(2)?,
            of_query: zeros(attention.heads),
            of_key: zeros(attention.key_value_heads),
            of_value: zeros(attention.key_value_heads),
        })
    }

    fn into_cotangents(self) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        (self.of_query, self.of_key, self.of_value)
    }

    /// A sequence's keys and values as attention reads them.
    fn store(&self, range: &Range<usize>) -> Result<KeyValueStore, Interruption> {
        let attention = self.attention;
        let mut store =
            KeyValueStore::new(attention.key_value_heads, attention.head_size, attention.head_size);
        let (first, tokens) = (range.start, range.len());
        store.append(heads_view(self.key, first, tokens)?, heads_view(self.value, first, tokens)?);
        Ok(store)
    }

    fn backward(&mut self, range: Range<usize>, of_mixed: HeadsView<'_>) -> Done {
        let store = self.store(&range)?;
        let (heads, shared, size) =
            (self.attention.heads, self.attention.key_value_heads, self.attention.head_size);
        attention_backward(
            heads_view(self.query, range.start, range.len())?,
            &store,
            0,
            options(self.attention),
            of_mixed,
            part(&mut self.of_query, &range, heads, size),
            part(&mut self.of_key, &range, shared, size),
            part(&mut self.of_value, &range, shared, size),
        );
        Ok(())
    }

    fn mixed_backward(
        &mut self,
        range: Range<usize>,
        pattern: &[f32],
        of_mixed: HeadsView<'_>,
        of_pattern: &mut [f32],
    ) -> Done {
        let store = self.store(&range)?;
        let (shared, size) = (self.attention.key_value_heads, self.attention.head_size);
        let of_value = part(&mut self.of_value, &range, shared, size);
        attention_mixed_backward(pattern, &store, 0, of_mixed, of_pattern, of_value);
        Ok(())
    }

    fn scores_backward(&mut self, range: Range<usize>, of_scores: &[f32]) -> Done {
        let store = self.store(&range)?;
        let (heads, shared, size) =
            (self.attention.heads, self.attention.key_value_heads, self.attention.head_size);
        attention_scores_backward(
            heads_view(self.query, range.start, range.len())?,
            &store,
            0,
            options(self.attention),
            of_scores,
            part(&mut self.of_query, &range, heads, size),
            part(&mut self.of_key, &range, shared, size),
        );
        Ok(())
    }
}

/// A sequence's rows of a cotangent, by heads.
fn part<'v>(values: &'v mut [f32], range: &Range<usize>, heads: usize, size: usize) -> HeadsViewMut<'v> {
    let width = heads * size;
    HeadsViewMut::new(&mut values[range.start * width..range.end * width], range.len(), heads, size, width)
}
