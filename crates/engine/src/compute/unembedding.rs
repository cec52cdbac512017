//! The unembedding: of each sequence the columns of the vocabulary that are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use pellucid_kernels::{Epilogue, matmul, matmul_columns};
use pellucid_models::Model;
use pellucid_models::stage::Stage;

use super::{Done, Then, linear, operands};
use crate::pass::PassState;
use crate::slots::{BufferPool, Rows, SlotValue};

/// The unembedding. The rows of a sequence of which only some columns are read have these, one after another, at their
/// beginning, and zeros behind them; rows are as wide as the widest has to be.
pub(crate) fn unembed(model: &Model, stage: &Stage, state: &mut PassState, pool: &mut BufferPool) -> Done {
    if state.sequences.iter().all(|sequence| sequence.vocabulary.is_none()) {
        return linear(model, stage, &Then::default(), stage.outputs[0], state, pool);
    }
    // The rows of each set of columns.
    let mut alike: BTreeMap<Option<Arc<[usize]>>, Vec<usize>> = BTreeMap::new();
    for (sequence, rows) in state.sequences.iter().zip(&state.rows) {
        alike.entry(sequence.vocabulary.clone()).or_default().extend(rows.clone());
    }
    let (x, packed, bias) = operands(model, stage, state)?;
    let tokens = state.tokens();
    let many = |columns: &Option<Arc<[usize]>>| columns.as_ref().map_or(packed.n(), |columns| columns.len());
    let width = alike.keys().map(many).max().unwrap_or(0);
    let mut out = pool.take(tokens * width);
    out.fill(0.0);
    for (columns, places) in &alike {
        let own = many(columns);
        let mut inputs = pool.take(places.len() * packed.k());
        for (&place, input) in places.iter().zip(inputs.chunks_exact_mut(packed.k().max(1))) {
            x.copy_row(place, input);
        }
        let mut product = pool.take(places.len() * own);
        match columns {
            Some(columns) => {
                matmul_columns(&inputs, packed.k(), places.len(), packed, bias, columns, &mut product);
            }
            None => {
                let epilogue = Epilogue { bias, ..Epilogue::default() };
                matmul(&inputs, packed.k(), places.len(), packed, &epilogue, &mut product, own);
            }
        }
        for (&place, logits) in places.iter().zip(product.chunks_exact(own.max(1))) {
            out[place * width..][..own].copy_from_slice(logits);
        }
        for buffer in [inputs, product] {
            pool.give(SlotValue::Rows(Rows::contiguous(buffer, &[own])));
        }
    }
    state.put(stage.outputs[0], SlotValue::Rows(Rows::contiguous(out, &[width])));
    Ok(())
}
