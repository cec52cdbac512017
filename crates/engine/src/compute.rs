//! The seam between stages and kernels: what each stage calls on the CPU.
//!
//! A second implementation (a GPU's) stands beside this file: it walks the same stages over slots of its own.

mod attention;
mod unembedding;

use std::sync::Arc;

use pellucid_kernels::attention::attention_pattern;
use pellucid_kernels::rotary::{RotaryStyle, RotaryTable};
use pellucid_kernels::{AttentionOptions, Epilogue, HeadsView, HeadsViewMut, PackedMatrix, Residual};
use pellucid_kernels::{activation, elementwise, matmul, norm as norms, rotary};
use pellucid_models::stage::{ActivationKind, Attention, Kernel, Norm, NormKind, POSITIONS, Slot, Stage};
use pellucid_models::{Model, ModelWeight};

pub(crate) use attention::attention_scores;
pub(crate) use unembedding::unembed;

use crate::error::Interruption;
use crate::pass::PassState;
use crate::slots::{BufferPool, Rows, SlotValue};

/// What follows a linear layer in the same kernel.
#[derive(Default)]
pub(crate) struct Then {
    pub activation: Option<ActivationKind>,
    /// A slot that is added.
    pub residual: Option<Slot>,
}

type Done = Result<(), Interruption>;

fn rows(state: &PassState, slot: Slot) -> Result<&Rows, Interruption> {
    match state.slot(slot) {
        Some(SlotValue::Rows(rows)) => Ok(rows),
        _ => Err(Interruption::missing("a slot of rows")),
    }
}

fn ids(state: &PassState, slot: Slot) -> Result<Arc<Vec<i64>>, Interruption> {
    match state.slot(slot) {
        Some(SlotValue::Ids(ids)) => Ok(ids.clone()),
        _ => Err(Interruption::missing("a slot of ids")),
    }
}

fn sizes(rows: &Rows) -> Vec<usize> {
    rows.inner.iter().map(|dimension| dimension.0).collect()
}

/// Rows with each token's elements end to end: the slot's own where they are, else a copy.
fn flat(rows: &Rows, tokens: usize) -> Rows {
    if rows.is_row_contiguous() { rows.clone() } else { Rows::contiguous(rows.packed(tokens), &sizes(rows)) }
}

/// Rows end to end: the slot's own where they are, else a copy.
fn dense(rows: &Rows, tokens: usize) -> Rows {
    if rows.is_row_contiguous()
        && rows.token_stride == rows.width()
        && rows.offset == 0
        && rows.buffer.len() == tokens * rows.width()
    {
        rows.clone()
    } else {
        Rows::contiguous(rows.packed(tokens), &sizes(rows))
    }
}

pub(crate) fn activation_of(kind: ActivationKind) -> pellucid_kernels::Activation {
    match kind {
        ActivationKind::Gelu => pellucid_kernels::Activation::Gelu,
        ActivationKind::GeluTanh => pellucid_kernels::Activation::GeluTanh,
        ActivationKind::Silu => pellucid_kernels::Activation::Silu,
        ActivationKind::Relu => pellucid_kernels::Activation::Relu,
    }
}

/// A linear stage's rows, weight and bias.
fn operands<'a>(
    model: &'a Model,
    stage: &Stage,
    state: &'a PassState,
) -> Result<(Rows, &'a PackedMatrix, Option<&'a [f32]>), Interruption> {
    let Kernel::Linear { weight, bias, .. } = &stage.kernel else {
        return Err(Interruption::missing("a linear stage's weight"));
    };
    let x = flat(rows(state, stage.inputs[0])?, state.tokens());
    let weights = state.weights(model);
    let packed = weights
        .get(*weight)
        .and_then(ModelWeight::packed)
        .ok_or_else(|| Interruption::missing("a linear layer's weight"))?;
    Ok((x, packed, bias.and_then(|bias| weights.vector(bias))))
}

/// A linear layer, with what follows it.
pub(crate) fn linear(
    model: &Model,
    stage: &Stage,
    then: &Then,
    output: Slot,
    state: &mut PassState,
    pool: &mut BufferPool,
) -> Done {
    let (x, packed, bias) = operands(model, stage, state)?;
    let tokens = state.tokens();
    let residual = match then.residual {
        Some(slot) => Some(flat(rows(state, slot)?, tokens)),
        None => None,
    };
    let width = packed.n();
    let mut out = pool.take(tokens * width);
    let epilogue = Epilogue {
        bias,
        activation: then.activation.map(activation_of),
        residual: residual
            .as_ref()
            .map(|rows| Residual { values: rows.strided(), row_stride: rows.token_stride }),
    };
    matmul(x.strided(), x.token_stride, tokens, packed, &epilogue, &mut out, width);
    state.put(output, SlotValue::Rows(Rows::contiguous(out, &[width])));
    Ok(())
}

/// A norm whose divisor nobody looks at.
pub(crate) fn norm(
    model: &Model,
    norm: &Norm,
    input: Slot,
    output: Slot,
    state: &mut PassState,
    pool: &mut BufferPool,
) -> Done {
    let tokens = state.tokens();
    let x = dense(rows(state, input)?, tokens);
    let width = x.inner.last().map_or(1, |dimension| dimension.0);
    let ones;
    let weights = state.weights(model);
    let weight = match norm.weight.and_then(|weight| weights.vector(weight)) {
        Some(weight) => weight,
        None => {
            ones = vec![1.0 - norm.weight_offset; width];
            &ones
        }
    };
    let mut out = pool.take(x.buffer.len());
    match norm.kind {
        NormKind::Layer => {
            let bias = norm.bias.and_then(|bias| weights.vector(bias));
            norms::layer_norm(&x.buffer, norm.epsilon, weight, bias, None, &mut out);
        }
        NormKind::Rms => norms::rms_norm(&x.buffer, norm.epsilon, weight, norm.weight_offset, None, &mut out),
    }
    state.put(output, SlotValue::Rows(Rows::contiguous(out, &sizes(&x))));
    Ok(())
}

/// Every other stage by itself.
pub(crate) fn stage(model: &Model, stage: &Stage, state: &mut PassState, pool: &mut BufferPool) -> Done {
    let tokens = state.tokens();
    let output = stage.outputs[0];
    match &stage.kernel {
        Kernel::Hook { .. } => Ok(()),
        Kernel::Embed { table, offset, scale } => {
            let ids = ids(state, stage.inputs[0])?;
            let rows =
                state.weights(model).get(*table).ok_or_else(|| Interruption::missing("an embedding"))?;
            let (count, width) = rows.table_shape().ok_or_else(|| Interruption::missing("an embedding"))?;
            let mut out = pool.take(tokens * width);
            for (&id, row) in ids.iter().zip(out.chunks_exact_mut(width.max(1))) {
                let place = usize::try_from(id.saturating_add(*offset)).ok().filter(|&place| place < count);
                let place = place
                    .ok_or_else(|| Interruption::Internal(format!("row {id} of an embedding of {count}")))?;
                rows.table_row(place, row);
                if *scale != 1.0 {
                    row.iter_mut().for_each(|value| *value *= scale);
                }
            }
            model.release_table(*table);
            state.put(output, SlotValue::Rows(Rows::contiguous(out, &[width])));
            Ok(())
        }
        Kernel::Linear { .. } => linear(model, stage, &Then::default(), output, state, pool),
        Kernel::Add => binary(stage, state, pool, elementwise::add),
        Kernel::Multiply => binary(stage, state, pool, elementwise::mul),
        Kernel::Scale(factor) => {
            unary(stage, state, pool, |values| values.iter_mut().for_each(|value| *value *= factor))
        }
        Kernel::SoftCap(cap) => unary(stage, state, pool, |values| elementwise::softcap(values, *cap)),
        Kernel::Activation(kind) => {
            unary(stage, state, pool, |values| activation::apply(activation_of(*kind), values))
        }
        Kernel::NormScale(norm) => {
            let x = dense(rows(state, stage.inputs[0])?, tokens);
            let mut inner = sizes(&x);
            let width = inner.last().copied().unwrap_or(1);
            let mut scale = pool.take(x.buffer.len() / width.max(1));
            match norm.kind {
                NormKind::Layer => norms::layer_norm_scale(&x.buffer, width, norm.epsilon, &mut scale),
                NormKind::Rms => norms::rms_norm_scale(&x.buffer, width, norm.epsilon, &mut scale),
            }
            if let Some(last) = inner.last_mut() {
                *last = 1;
            }
            state.put(output, SlotValue::Rows(Rows::contiguous(scale, &inner)));
            Ok(())
        }
        Kernel::NormApply(norm) => {
            let x = dense(rows(state, stage.inputs[0])?, tokens);
            let scale = dense(rows(state, stage.inputs[1])?, tokens);
            let width = x.inner.last().map_or(1, |dimension| dimension.0);
            let ones = vec![1.0 - norm.weight_offset; width];
            let weights = state.weights(model);
            let weight = norm.weight.and_then(|weight| weights.vector(weight)).unwrap_or(&ones);
            let mut out = pool.take(x.buffer.len());
            match norm.kind {
                NormKind::Layer => {
                    let bias = norm.bias.and_then(|bias| weights.vector(bias));
                    norms::layer_norm_apply(&x.buffer, &scale.buffer, weight, bias, &mut out);
                }
                NormKind::Rms => {
                    norms::rms_norm_apply(&x.buffer, &scale.buffer, weight, norm.weight_offset, &mut out)
                }
            }
            state.put(output, SlotValue::Rows(Rows::contiguous(out, &sizes(&x))));
            Ok(())
        }
        Kernel::View { offset, dimensions } => {
            let x = flat(rows(state, stage.inputs[0])?, tokens);
            let view = Rows { offset: x.offset + offset, inner: dimensions.clone(), ..x };
            state.put(output, SlotValue::Rows(view));
            Ok(())
        }
        Kernel::Rotary { table } => rotate(model, *table, stage, state, pool),
        Kernel::AttentionScores(attention) => {
            let all = vec![true; state.sequences.len()];
            attention::attention_scores(attention, stage, &all, state)
        }
        Kernel::AttentionPattern(_) => {
            let Some(SlotValue::Ragged(mut all)) = state.slot(stage.inputs[0]).cloned() else {
                return Err(Interruption::missing("attention's scores"));
            };
            for (sequence, scores) in state.sequences.iter().zip(&mut all) {
                if let Some(scores) = scores {
                    let context = sequence.start + sequence.tokens.len();
                    let scores: &mut Vec<f32> = Arc::make_mut(scores);
                    attention_pattern(scores, context);
                }
            }
            state.put(output, SlotValue::Ragged(all));
            Ok(())
        }
        Kernel::AttentionMixed(attention) => attention::mixed(attention, stage, state, pool),
    }
}

fn binary(
    stage: &Stage,
    state: &mut PassState,
    pool: &mut BufferPool,
    kernel: fn(&mut [f32], &[f32]),
) -> Done {
    let tokens = state.tokens();
    let left = rows(state, stage.inputs[0])?;
    let right = dense(rows(state, stage.inputs[1])?, tokens);
    let mut out = pool.take(tokens * left.width());
    left.copy_rows(0, tokens, &mut out);
    kernel(&mut out, &right.buffer);
    let inner = sizes(left);
    state.put(stage.outputs[0], SlotValue::Rows(Rows::contiguous(out, &inner)));
    Ok(())
}

fn unary(stage: &Stage, state: &mut PassState, pool: &mut BufferPool, kernel: impl Fn(&mut [f32])) -> Done {
    let tokens = state.tokens();
    let x = rows(state, stage.inputs[0])?;
    let mut out = pool.take(tokens * x.width());
    x.copy_rows(0, tokens, &mut out);
    kernel(&mut out);
    let inner = sizes(x);
    state.put(stage.outputs[0], SlotValue::Rows(Rows::contiguous(out, &inner)));
    Ok(())
}

fn rotate(model: &Model, table: usize, stage: &Stage, state: &mut PassState, pool: &mut BufferPool) -> Done {
    let tokens = state.tokens();
    let positions = ids(state, POSITIONS)?;
    let x = rows(state, stage.inputs[0])?;
    let inner = sizes(x);
    let (heads, size) = match inner.as_slice() {
        [heads, size] => (*heads, *size),
        _ => return Err(Interruption::missing("heads to rotate")),
    };
    let mut out = pool.take(tokens * heads * size);
    x.copy_rows(0, tokens, &mut out);
    let angles = model.stages().rotary.get(table).ok_or_else(|| Interruption::missing("a rotary table"))?;
    let places: Vec<usize> =
        positions.iter().map(|&position| usize::try_from(position).unwrap_or(0)).collect();
    let table = RotaryTable::new(&places, &angles.inverse_frequencies, angles.scale);
    rotary::rotary(HeadsViewMut::new(&mut out, tokens, heads, size, heads * size), &table, RotaryStyle::Half);
    state.put(stage.outputs[0], SlotValue::Rows(Rows::contiguous(out, &inner)));
    Ok(())
}

pub(crate) fn heads_view(rows: &Rows, first: usize, tokens: usize) -> Result<HeadsView<'_>, Interruption> {
    match rows.inner.as_slice() {
        &[(heads, head_stride), (size, 1)] => Ok(HeadsView {
            data: &rows.buffer[(rows.offset + first * rows.token_stride).min(rows.buffer.len())..],
            tokens,
            heads,
            size,
            token_stride: rows.token_stride,
            head_stride,
        }),
        _ => Err(Interruption::missing("a view by heads")),
    }
}

pub(crate) fn options(attention: &Attention) -> AttentionOptions {
    AttentionOptions { scale: attention.scale, soft_cap: attention.soft_cap, window: attention.window }
}
