//! Attention: keys and values into their places, scores and pattern where they are looked at, mixed values.
//!
//! A sequence that begins with another's keys and values (a [`Prefix`]) gives the bits that it
//! would give with all rows of its own: scores are blocked by positions counted from the sequence's first token, and no
//! kernel asks how the positions came into a store.

use std::collections::HashMap;
use std::sync::Arc;

use pellucid_kernels::attention::{attention_fused, attention_mixed, attention_scores as scores_kernel};
use pellucid_kernels::{HeadsView, HeadsViewMut, Isa, KeyValueStore, pool};
use pellucid_models::stage::{Attention, Stage};

use super::{Done, heads_view, options, rows};
use crate::error::Interruption;
use crate::pass::PassState;
use crate::sequence::{Prefix, Sequence, Tail};
use crate::slots::{BufferPool, Rows, SlotValue};

/// Puts keys and values into the caches, and computes the scores of the sequences that want them.
pub(crate) fn attention_scores(
    attention: &Attention,
    stage: &Stage,
    wanted: &[bool],
    state: &mut PassState,
) -> Done {
    let query = rows(state, stage.inputs[0])?.clone();
    let key = rows(state, stage.inputs[1])?.clone();
    let value = rows(state, stage.inputs[2])?.clone();
    let mut all = vec![None; state.sequences.len()];
    let ranges = state.rows.clone();
    for (number, sequence) in state.sequences.iter_mut().enumerate() {
        let (first, tokens) = (ranges[number].start, ranges[number].len());
        let (keys, values) = (heads_view(&key, first, tokens)?, heads_view(&value, first, tokens)?);
        keep(attention, sequence, keys, values, wanted[number])?;
        if wanted[number] {
            let store = sequence.caches[attention.layer].as_deref();
            let store = store.ok_or_else(|| Interruption::missing("a cache"))?;
            let mut scores = vec![0.0; attention.heads * tokens * (sequence.start + tokens)];
            let query = heads_view(&query, first, tokens)?;
            scores_kernel(query, store, sequence.start, options(attention), &mut scores);
            all[number] = Some(Arc::new(scores));
        }
    }
    state.put(stage.outputs[0], SlotValue::Ragged(all));
    Ok(())
}

/// Keeps a sequence's keys and values of a layer until its values are mixed: in a store of its own; or, where another's
/// come first, nobody looks, and no next step needs them, by themselves.
fn keep(
    attention: &Attention,
    sequence: &mut Sequence,
    keys: HeadsView<'_>,
    values: HeadsView<'_>,
    wanted: bool,
) -> Done {
    let layer = attention.layer;
    let empty = || KeyValueStore::new(attention.key_value_heads, attention.head_size, attention.head_size);
    if sequence.caches.len() <= layer {
        sequence.caches.resize_with(layer + 1, || None);
    }
    match &sequence.prefix {
        Some(_) if !wanted && sequence.publishes.is_none() && !sequence.keep_caches => {
            sequence.tail = Some(Tail::of(keys, values));
            return Ok(());
        }
        Some(prefix) => {
            let mut store = empty();
            store.reserve(sequence.start + keys.tokens);
            if !prefix.copy_first(layer, sequence.start, &mut store) {
                return Err(Interruption::missing("a prefix's keys"));
            }
            store.append(keys, values);
            sequence.caches[layer] = Some(Arc::new(store));
        }
        None => {
            let store = sequence.caches[layer].get_or_insert_with(|| Arc::new(empty()));
            Arc::make_mut(store).append(keys, values);
        }
    }
    if let Some(publishes) = &sequence.publishes {
        publishes.put(layer, sequence.caches[layer].clone());
    }
    Ok(())
}

/// A store in which sequences with the same prefix take turns: the prefix is copied once for all of them.
struct Turns {
    /// Whose keys and values stand in it, and up to which position.
    of: Option<(Arc<Prefix>, usize)>,
    store: KeyValueStore,
}

impl Turns {
    fn of(attention: &Attention) -> Turns {
        let (heads, size) = (attention.key_value_heads, attention.head_size);
        Turns { of: None, store: KeyValueStore::new(heads, size, size) }
    }

    /// The store with a sequence's keys and values.
    fn take(&mut self, layer: usize, sequence: &Sequence) -> Option<&KeyValueStore> {
        let (prefix, tail) = (sequence.prefix.as_ref()?, sequence.tail.as_ref()?);
        let stands =
            self.of.as_ref().is_some_and(|(of, until)| Arc::ptr_eq(of, prefix) && sequence.start <= *until);
        let store = &mut self.store;
        if !stands {
            self.of = None;
            store.reserve(sequence.start + sequence.tokens.len());
            if !prefix.copy_first(layer, sequence.start, store) {
                return None;
            }
        }
        self.of = Some((prefix.clone(), sequence.start));
        store.truncate(sequence.start);
        tail.append_to(store);
        Some(store)
    }
}

/// A sequence that begins with another's keys and values.
struct Turn<'a> {
    sequence: &'a Sequence,
    query: HeadsView<'a>,
    /// None once it is computed.
    own: Option<HeadsViewMut<'a>>,
}

/// Sequences for one thread, at least: they are short.
const TURNS: usize = 4;

/// Mixes the values of sequences that begin with others', several threads at a time.
fn take_turns(attention: &Attention, turns: &mut [Turn<'_>]) -> Done {
    let each = turns.len().div_ceil(pool::threads().max(1)).max(TURNS);
    let isa = Isa::current();
    pool::parallel_chunks(turns, each, |_, turns| {
        isa.scope(|| {
            let mut stand = Turns::of(attention);
            for Turn { sequence, query, own } in turns {
                if let Some(store) = stand.take(attention.layer, sequence)
                    && let Some(own) = own.take()
                {
                    attention_fused(*query, store, sequence.start, options(attention), own);
                }
            }
        });
    });
    if turns.iter().all(|turn| turn.own.is_none()) { Ok(()) } else { Err(Interruption::missing("a prefix")) }
}

/// Mixes values: from the pattern where a sequence has one, else by the fused kernel.
pub(super) fn mixed(
    attention: &Attention,
    stage: &Stage,
    state: &mut PassState,
    buffers: &mut BufferPool,
) -> Done {
    let tokens = state.tokens();
    let query = rows(state, stage.inputs[0])?.clone();
    let Some(SlotValue::Ragged(all)) = state.slot(stage.inputs[1]).cloned() else {
        return Err(Interruption::missing("attention's pattern"));
    };
    let (heads, size) = (attention.heads, attention.head_size);
    let width = heads * size;
    let mut out = buffers.take(tokens * width);
    let mut turns: Vec<Turn<'_>> = Vec::new();
    let mut rest = out.as_mut_slice();
    for (number, (sequence, range)) in state.sequences.iter().zip(&state.rows).enumerate() {
        let (rows, after) = std::mem::take(&mut rest).split_at_mut(range.len() * width);
        rest = after;
        let own = HeadsViewMut::new(rows, range.len(), heads, size, width);
        let query = heads_view(&query, range.start, range.len())?;
        let store = sequence.caches.get(attention.layer).and_then(Option::as_deref);
        match (store, &all[number]) {
            (None, _) => turns.push(Turn { sequence, query, own: Some(own) }),
            (Some(store), Some(pattern)) => {
                attention_mixed(pattern, store, sequence.start, options(attention), own);
            }
            (Some(store), None) => attention_fused(query, store, sequence.start, options(attention), own),
        }
    }
    take_turns(attention, &mut turns)?;
    forget(attention.layer, state);
    state.put(stage.outputs[0], SlotValue::Rows(Rows::contiguous(out, &[heads, size])));
    Ok(())
}

/// Lets keys and values of a layer go that nobody needs any more.
fn forget(layer: usize, state: &mut PassState) {
    let mut holders: HashMap<*const Prefix, (Arc<Prefix>, usize)> = HashMap::new();
    for sequence in &mut state.sequences {
        sequence.tail = None;
        if !sequence.keep_caches && layer < sequence.caches.len() {
            sequence.caches[layer] = None;
        }
        for prefix in sequence.prefix.iter().chain(&sequence.publishes) {
            holders.entry(Arc::as_ptr(prefix)).or_insert_with(|| (prefix.clone(), 0)).1 += 1;
        }
    }
    for (prefix, here) in holders.into_values() {
        // One more is the one counted here; if others hold it, they are parked before this layer or later.
        if Arc::strong_count(&prefix) == here + 1 {
            prefix.put(layer, None);
        }
    }
}
