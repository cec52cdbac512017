//! An invoke's view of a hook point: `[prompts, length, …]`, its own rows only, padded on the left.
//!
//! Padding exists only here. Prompts of unequal length are a rectangle whose rows end together: pad cells read 0, writes
//! to them are dropped. The same holds for rows that an invoke leaves to others because nobody looks at them: what stands in
//! the pass are the last rows of each prompt.

use std::sync::Arc;

use pellucid_graph::DType;
use pellucid_graph::spec::Axis;
use pellucid_models::stage::{HookLayout, Slot};

use crate::operations::OperationError;
use crate::pass::PassState;
use crate::slots::SlotValue;
use crate::tensor::Tensor;

/// Where one prompt of an invoke stands in a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// Its sequence's place in the pass; none: it has finished, and reads 0.
    pub sequence: Option<usize>,
    /// Cells before its first token in the invoke's rectangle.
    pub padding: usize,
}

/// The rectangle of an invoke at a step.
#[derive(Clone, Debug)]
pub(crate) struct Rectangle {
    /// The invoke's prompts.
    pub members: Vec<Member>,
    /// The rectangle's width at this step; 1 after the prompt's step.
    pub length: usize,
    /// All tokens attended to, of the longest prompt.
    pub context: usize,
    /// Where only some columns of the rectangle are computed: which, in order.
    pub columns: Option<Vec<usize>>,
    /// Where only some columns of the vocabulary are read of logits: which.
    pub vocabulary: Option<Arc<[usize]>>,
}

type Result<T> = std::result::Result<T, OperationError>;

fn missing() -> OperationError {
    OperationError::new("the hook point's value is not there")
}

/// An invoke's view of a hook point that nothing reads after it: where the view is the whole buffer, the buffer itself
/// moves out, so that the logits of a long prompt are not copied.
pub(crate) fn take(
    state: &mut PassState,
    slot: Slot,
    layout: HookLayout,
    rectangle: &Rectangle,
) -> Result<Tensor> {
    let tokens = state.tokens();
    let everyone = rectangle.members.len() == state.sequences.len()
        && rectangle
            .members
            .iter()
            .enumerate()
            .all(|(at, member)| member.sequence == Some(at) && member.padding == 0);
    if let Some(vocabulary) = &rectangle.vocabulary {
        return read_columns(state, slot, rectangle, vocabulary);
    }
    let cells = rectangle.members.len() * rectangle.columns.as_ref().map_or(rectangle.length, Vec::len);
    if everyone
        && cells == tokens
        && layout == HookLayout::Tokens
        && let Some(SlotValue::Rows(rows)) = state.slot_mut(slot)
        && rows.is_row_contiguous()
        && rows.token_stride == rows.width()
        && rows.offset == 0
        && rows.buffer.len() == tokens * rows.width()
        && let Some(buffer) = Arc::get_mut(&mut rows.buffer)
    {
        let values = std::mem::take(buffer);
        let mut shape = vec![rectangle.members.len(), cells / rectangle.members.len().max(1)];
        shape.extend(rows.inner.iter().map(|dimension| dimension.0));
        return Tensor::from_f32(values, &shape);
    }
    read(state, slot, layout, rectangle)
}

/// Copies an invoke's view of a hook point out.
pub(crate) fn read(
    state: &PassState,
    slot: Slot,
    layout: HookLayout,
    rectangle: &Rectangle,
) -> Result<Tensor> {
    if let Some(vocabulary) = &rectangle.vocabulary {
        return read_columns(state, slot, rectangle, vocabulary);
    }
    let value = state.slot(slot).ok_or_else(missing)?;
    let prompts = rectangle.members.len();
    match (value, layout) {
        (SlotValue::Ids(ids), _) => {
            let mut out = vec![0i64; prompts * rectangle.length];
            for (member, out) in rectangle.members.iter().zip(out.chunks_exact_mut(rectangle.length.max(1))) {
                let Some(sequence) = member.sequence else { continue };
                let rows = state.rows[sequence].clone();
                out[rectangle.length - rows.len()..].copy_from_slice(&ids[rows]);
            }
            Tensor::from_i64(out, &[prompts, rectangle.length])
        }
        (SlotValue::Rows(rows), HookLayout::HeadsFirst) => {
            let inner: Vec<usize> = rows.inner.iter().map(|dimension| dimension.0).collect();
            let (heads, rest) =
                (inner.first().copied().unwrap_or(1), inner.iter().skip(1).product::<usize>());
            let mut out = vec![0.0; prompts * heads * rectangle.length * rest];
            let mut row = vec![0.0; heads * rest];
            for (prompt, member) in rectangle.members.iter().enumerate() {
                let Some(sequence) = member.sequence else { continue };
                let range = state.rows[sequence].clone();
                let first = rectangle.length - range.len();
                for (place, token) in range.enumerate() {
                    rows.copy_row(token, &mut row);
                    for head in 0..heads {
                        let at = ((prompt * heads + head) * rectangle.length + first + place) * rest;
                        out[at..at + rest].copy_from_slice(&row[head * rest..(head + 1) * rest]);
                    }
                }
            }
            let mut shape = vec![prompts, heads, rectangle.length];
            shape.extend(inner.iter().skip(1));
            Tensor::from_f32(out, &shape)
        }
        (SlotValue::Rows(rows), _) => {
            let width = rows.width();
            let columns = rectangle.columns.as_ref().map_or(rectangle.length, Vec::len);
            let whole = match rectangle.members.as_slice() {
                [Member { sequence: Some(sequence), .. }] => Some(state.rows[*sequence].clone()),
                _ => None,
            };
            let out = match whole {
                // One prompt that fills its rectangle: nothing to clear first.
                Some(range)
                    if range.len() == columns && rows.is_row_contiguous() && rows.token_stride == width =>
                {
                    let start = rows.offset + range.start * width;
                    rows.buffer[start..start + columns * width].to_vec()
                }
                _ => {
                    let mut out = vec![0.0; prompts * columns * width];
                    for (prompt, member) in rectangle.members.iter().enumerate() {
                        let Some(sequence) = member.sequence else { continue };
                        let range = state.rows[sequence].clone();
                        let place = columns - range.len();
                        let at = (prompt * columns + place) * width;
                        rows.copy_rows(range.start, range.len(), &mut out[at..at + range.len() * width]);
                    }
                    out
                }
            };
            let mut shape = vec![prompts, columns];
            shape.extend(rows.inner.iter().map(|dimension| dimension.0));
            Tensor::from_f32(out, &shape)
        }
        (SlotValue::Ragged(all), _) => {
            let heads = rectangle.members.iter().find_map(|member| {
                let sequence = member.sequence?;
                let tokens = state.sequences[sequence].tokens.len();
                let context = state.sequences[sequence].start + tokens;
                all[sequence].as_ref().map(|values| values.len() / (tokens * context).max(1))
            });
            let heads = heads.ok_or_else(missing)?;
            let (length, context) = (rectangle.length, rectangle.context);
            let mut out = vec![0.0; prompts * heads * length * context];
            for (prompt, member) in rectangle.members.iter().enumerate() {
                let Some(sequence) = member.sequence else { continue };
                let values = all[sequence].as_ref().ok_or_else(missing)?;
                let tokens = state.sequences[sequence].tokens.len();
                let own = state.sequences[sequence].start + tokens;
                for (line, from) in values.chunks_exact(own).enumerate() {
                    let (head, query) = (line / tokens, line % tokens);
                    let at = ((prompt * heads + head) * length + length - tokens + query) * context + context
                        - own;
                    out[at..at + own].copy_from_slice(from);
                }
            }
            Tensor::from_f32(out, &[prompts, heads, length, context])
        }
    }
}

/// Copies those columns of the vocabulary out of an invoke's logits, wherever each prompt's rows have them.
fn read_columns(
    state: &PassState,
    slot: Slot,
    rectangle: &Rectangle,
    vocabulary: &[usize],
) -> Result<Tensor> {
    let Some(SlotValue::Rows(rows)) = state.slot(slot) else { return Err(missing()) };
    let (prompts, own) = (rectangle.members.len(), vocabulary.len());
    let columns = rectangle.columns.as_ref().map_or(rectangle.length, Vec::len);
    let mut out = vec![0.0; prompts * columns * own];
    let mut row = vec![0.0; rows.width()];
    for (prompt, member) in rectangle.members.iter().enumerate() {
        let Some(sequence) = member.sequence else { continue };
        let place = |column: usize| match &state.sequences[sequence].vocabulary {
            Some(there) => there.iter().position(|&other| other == column),
            None => (column < row.len()).then_some(column),
        };
        let places: Vec<usize> =
            vocabulary.iter().map(|&column| place(column)).collect::<Option<_>>().ok_or_else(missing)?;
        let range = state.rows[sequence].clone();
        let first = columns - range.len();
        for (cell, token) in range.enumerate() {
            rows.copy_row(token, &mut row);
            let out = &mut out[(prompt * columns + first + cell) * own..][..own];
            for (out, &place) in out.iter_mut().zip(&places) {
                *out = row[place];
            }
        }
    }
    Tensor::from_f32(out, &[prompts, columns, own])
}

/// Writes a value, already of the view's shape, to an invoke's rows of a hook point; ids must be below `id_limit`.
pub(crate) fn write(
    state: &mut PassState,
    slot: Slot,
    layout: HookLayout,
    rectangle: &Rectangle,
    value: &Tensor,
    id_limit: u64,
) -> Result<()> {
    let tokens = state.tokens();
    let ranges = state.rows.clone();
    let lengths: Vec<(usize, usize)> =
        state.sequences.iter().map(|sequence| (sequence.tokens.len(), sequence.start)).collect();
    let length = rectangle.length;
    match state.slot_mut(slot).ok_or_else(missing)? {
        SlotValue::Ids(ids) => {
            let values = value.to_vec_i64()?;
            let ids = Arc::make_mut(ids);
            for (member, values) in rectangle.members.iter().zip(values.chunks_exact(length.max(1))) {
                let Some(sequence) = member.sequence else { continue };
                let range = ranges[sequence].clone();
                let first = length - range.len();
                for (place, &id) in range.zip(&values[first..]) {
                    if id < 0 || id as u64 >= id_limit {
                        return Err(OperationError::new(format!(
                            "{id} is set where ids go from 0 to {}",
                            id_limit.saturating_sub(1)
                        )));
                    }
                    ids[place] = id;
                }
            }
            Ok(())
        }
        SlotValue::Rows(rows) => {
            let inner: Vec<usize> = rows.inner.iter().map(|dimension| dimension.0).collect();
            let width = rows.width();
            value.with_f32(|values| {
                if layout == HookLayout::HeadsFirst {
                    let heads = inner.first().copied().unwrap_or(1);
                    let rest = width / heads.max(1);
                    let mut row = vec![0.0; width];
                    for (prompt, member) in rectangle.members.iter().enumerate() {
                        let Some(sequence) = member.sequence else { continue };
                        let range = ranges[sequence].clone();
                        let first = length - range.len();
                        for (place, token) in range.enumerate() {
                            for head in 0..heads {
                                let at = ((prompt * heads + head) * length + first + place) * rest;
                                row[head * rest..(head + 1) * rest].copy_from_slice(&values[at..at + rest]);
                            }
                            rows.write_row(tokens, token, &row);
                        }
                    }
                    return;
                }
                let columns = rectangle.columns.as_ref().map_or(length, Vec::len);
                for (prompt, member) in rectangle.members.iter().enumerate() {
                    let Some(sequence) = member.sequence else { continue };
                    let range = ranges[sequence].clone();
                    let first = columns - range.len();
                    for (place, token) in range.enumerate() {
                        let at = (prompt * columns + first + place) * width;
                        rows.write_row(tokens, token, &values[at..at + width]);
                    }
                }
            })
        }
        SlotValue::Ragged(all) => value.with_f32(|values| {
            let prompts = rectangle.members.len();
            let heads = values.len() / (prompts * length * rectangle.context).max(1);
            for (prompt, member) in rectangle.members.iter().enumerate() {
                let Some(sequence) = member.sequence else { continue };
                let (tokens, start) = lengths[sequence];
                let own = start + tokens;
                let Some(target) = &mut all[sequence] else { continue };
                let target = Arc::make_mut(target);
                for (line, to) in target.chunks_exact_mut(own).enumerate() {
                    let (head, query) = (line / tokens, line % tokens);
                    let at = ((prompt * heads + head) * length + length - tokens + query) * rectangle.context
                        + rectangle.context
                        - own;
                    to.copy_from_slice(&values[at..at + own]);
                }
            }
        }),
    }
}

/// A value as a hook point's: cast to its number type, expanded to its shape.
pub(crate) fn fit(value: &Tensor, axes: &[Axis], dtype: DType, rectangle: &Rectangle) -> Result<Tensor> {
    let shape: Vec<usize> = axes
        .iter()
        .map(|axis| match axis {
            Axis::Prompts => rectangle.members.len(),
            Axis::Length => rectangle.length,
            Axis::Context => rectangle.context,
            Axis::Size(size) => *size as usize,
        })
        .collect();
    let value = value.cast(dtype)?;
    if value.shape() == shape {
        return Ok(value);
    }
    let expanded = value.data().broadcast_as(shape.as_slice()).map_err(|_| {
        OperationError::new(format!(
            "the hook point has shape {shape:?}, but it is set to shape {:?}",
            value.shape()
        ))
    })?;
    Tensor::new(expanded, dtype)
}
