//! What is kept of an invoke's pass for the way back: the slots that vector-Jacobian products read, and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use pellucid_graph::DType;
use pellucid_models::stage::{Kernel, Slot, Stage, StageList, WeightId};

use crate::job::Instance;
use crate::pass::PassState;
use crate::plan::Segment;
use crate::slots::{Rows, SlotValue};

/// What is kept of one invoke's pass.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    /// Slots of rows; whether they were narrowed then.
    rows: HashMap<(Slot, bool), Kept<Rows>>,
    /// Scores and patterns, of each of the invoke's sequences.
    ragged: HashMap<Slot, Kept<Ragged>>,
    /// What the invoke edited, as it went on from there: what is computed again is edited again.
    edited: HashMap<Slot, SlotValue>,
    /// What was given up, by the first stage of each.
    given_up: BTreeMap<usize, Segment>,
    /// Scores and patterns that were there and were given up.
    materialised: HashSet<Slot>,
    /// Token ids and positions that embeddings read whose gradient is wanted.
    ids: HashMap<Slot, Vec<i64>>,
    /// What setters wrote: shape and number type.
    pub written: HashMap<Instance, (Vec<usize>, DType)>,
    /// The weights that a program has set and whose gradients are wanted.
    pub weights: BTreeSet<WeightId>,
    bytes: u64,
}

type Ragged = Vec<Option<Arc<Vec<f32>>>>;

/// What is kept, and the bytes that are counted for it: where it is another tape's as well, none.
#[derive(Debug)]
struct Kept<T> {
    values: T,
    bytes: u64,
}

/// Where the rows of those sequences stand.
fn rows_of(state: &PassState, sequences: &Range<usize>) -> Range<usize> {
    let first = state.rows.get(sequences.start).map_or(0, |rows| rows.start);
    let last = sequences.end.checked_sub(1).and_then(|last| state.rows.get(last));
    first..last.map_or(first, |rows| rows.end)
}

fn ragged_bytes(values: &Ragged) -> u64 {
    values.iter().flatten().map(|own| 4 * own.len() as u64).sum()
}

/// The slots of a stage that its vector-Jacobian product reads, where the gradients of those weights are wanted.
fn read_on_the_way_back(stage: &Stage, weights: &BTreeSet<WeightId>) -> Vec<Slot> {
    match &stage.kernel {
        Kernel::Embed { table: weight, .. } | Kernel::Linear { weight, .. } if weights.contains(weight) => {
            stage.inputs.clone()
        }
        Kernel::Hook { .. }
        | Kernel::Embed { .. }
        | Kernel::Linear { .. }
        | Kernel::Add
        | Kernel::Scale(_)
        | Kernel::View { .. }
        | Kernel::Rotary { .. } => Vec::new(),
        Kernel::Multiply | Kernel::NormApply(_) => stage.inputs.clone(),
        Kernel::SoftCap(_) | Kernel::Activation(_) => vec![stage.inputs[0]],
        Kernel::NormScale(_) => vec![stage.inputs[0], stage.outputs[0]],
        Kernel::AttentionScores(_) => stage.inputs.clone(),
        Kernel::AttentionPattern(_) => vec![stage.outputs[0]],
        Kernel::AttentionMixed(_) => vec![stage.inputs[1]],
    }
}

impl Tape {
    /// Nothing yet of a pass of which the gradients of those weights are wanted too.
    pub fn for_gradients_of(weights: BTreeSet<WeightId>) -> Tape {
        Tape { weights, ..Tape::default() }
    }

    /// Keeps what a stage that has just run needs on the way back, of those sequences; scores and patterns only if `ragged`.
    /// What is known of the same rows from another tape takes no more room. Gives back the bytes it takes.
    pub fn record(
        &mut self,
        stage: &Stage,
        state: &PassState,
        sequences: Range<usize>,
        ragged: bool,
        known: Option<&Tape>,
    ) -> u64 {
        let slots = read_on_the_way_back(stage, &self.weights);
        slots.into_iter().map(|slot| self.record_slot(slot, state, &sequences, ragged, known)).sum()
    }

    /// Keeps what a segment begins with, so that it can be computed again. Gives back the bytes it takes.
    pub fn record_root(
        &mut self,
        segment: &Segment,
        state: &PassState,
        sequences: Range<usize>,
        known: Option<&Tape>,
    ) -> u64 {
        self.record_slot(segment.root, state, &sequences, false, known)
    }

    fn record_slot(
        &mut self,
        slot: Slot,
        state: &PassState,
        sequences: &Range<usize>,
        ragged: bool,
        known: Option<&Tape>,
    ) -> u64 {
        let before = self.bytes;
        let rows = rows_of(state, sequences);
        match state.slot(slot) {
            Some(SlotValue::Rows(values)) => {
                let known = known.and_then(|known| known.rows(slot, state.narrowed));
                self.rows.entry((slot, state.narrowed)).or_insert_with(|| {
                    let bytes = if known.is_some() { 0 } else { 4 * (values.width() * rows.len()) as u64 };
                    self.bytes += bytes;
                    let part = || values.part(rows.start, rows.len(), state.tokens());
                    Kept { values: known.cloned().unwrap_or_else(part), bytes }
                });
            }
            Some(SlotValue::Ragged(all)) if ragged => {
                let values = all.get(sequences.clone()).unwrap_or_default().to_vec();
                let known = known.is_some_and(|known| known.ragged.contains_key(&slot));
                self.ragged.entry(slot).or_insert_with(|| {
                    let bytes = if known { 0 } else { ragged_bytes(&values) };
                    self.bytes += bytes;
                    Kept { values, bytes }
                });
            }
            Some(SlotValue::Ids(ids)) => {
                let own = ids.get(rows).unwrap_or_default();
                self.ids.entry(slot).or_insert_with(|| {
                    self.bytes += 8 * own.len() as u64;
                    own.to_vec()
                });
            }
            _ => {}
        }
        self.bytes - before
    }

    /// Keeps what an invoke has made of a hook point's value, for those sequences, so that what comes after it can be computed
    /// again. Gives back the bytes it takes.
    pub fn record_edit(&mut self, stage: &Stage, state: &PassState, sequences: Range<usize>) -> u64 {
        let Some(&slot) = stage.outputs.first() else { return 0 };
        let rows = rows_of(state, &sequences);
        let (value, bytes) = match state.slot(slot) {
            Some(SlotValue::Rows(values)) => {
                let bytes = 4 * (values.width() * rows.len()) as u64;
                (SlotValue::Rows(values.part(rows.start, rows.len(), state.tokens())), bytes)
            }
            Some(SlotValue::Ragged(all)) => {
                let own = all.get(sequences).unwrap_or_default().to_vec();
                let bytes = ragged_bytes(&own);
                (SlotValue::Ragged(own), bytes)
            }
            _ => return 0,
        };
        self.edited.insert(slot, value);
        self.bytes += bytes;
        bytes
    }

    /// Gives up what was kept of a segment, if it can be computed again: if what it began with is kept. Gives back the bytes that
    /// are free.
    pub fn give_up(&mut self, segment: &Segment, list: &StageList) -> u64 {
        let before = self.bytes;
        let known = self.given_up.contains_key(&segment.stages.start);
        if known || !self.rows.contains_key(&(segment.root, false)) {
            return 0;
        }
        for stage in list.stages.get(segment.stages.clone()).unwrap_or_default() {
            for slot in read_on_the_way_back(stage, &self.weights) {
                if slot == segment.root {
                    continue;
                }
                let rows = self.rows.remove(&(slot, false)).map_or(0, |kept| kept.bytes);
                let ragged = self.ragged.remove(&slot).map_or(0, |kept| {
                    if kept.values.iter().any(Option::is_some) {
                        self.materialised.insert(slot);
                    }
                    kept.bytes
                });
                self.bytes -= rows + ragged;
            }
        }
        self.given_up.insert(segment.stages.start, segment.clone());
        before - self.bytes
    }

    /// The segment with a stage, if it was given up.
    pub fn given_up(&self, stage: usize) -> Option<&Segment> {
        let (_, segment) = self.given_up.range(..=stage).next_back()?;
        segment.stages.contains(&stage).then_some(segment)
    }

    /// What the invoke made of a hook point's value.
    pub fn edited(&self, slot: Slot) -> Option<&SlotValue> {
        self.edited.get(&slot)
    }

    /// Whether scores or a pattern were there: given up, or kept since, by who was taken up again within the segment.
    pub fn was_materialised(&self, slot: Slot) -> bool {
        let kept = self.ragged.get(&slot).is_some_and(|kept| kept.values.iter().any(Option::is_some));
        kept || self.materialised.contains(&slot)
    }

    /// A slot's rows.
    pub fn rows(&self, slot: Slot, narrowed: bool) -> Option<&Rows> {
        self.rows.get(&(slot, narrowed)).map(|kept| &kept.values)
    }

    /// A slot's token ids or positions.
    pub fn ids(&self, slot: Slot) -> Option<&[i64]> {
        self.ids.get(&slot).map(Vec::as_slice)
    }

    /// A sequence's scores or pattern, where they were materialised.
    pub fn ragged(&self, slot: Slot, sequence: usize) -> Option<&Arc<Vec<f32>>> {
        self.ragged.get(&slot)?.values.get(sequence)?.as_ref()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
