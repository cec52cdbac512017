//! What is kept of an invoke's pass for the way back: the slots that vector-Jacobian products read, and nothing else.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use pellucid_graph::DType;
use pellucid_models::stage::{Kernel, Slot, Stage, WeightId};

use crate::job::Instance;
use crate::pass::PassState;
use crate::slots::{Rows, SlotValue};

/// What is kept of one invoke's pass.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    /// Slots of rows; whether they were narrowed then.
    rows: HashMap<(Slot, bool), Rows>,
    /// Scores and patterns, of each of the invoke's sequences.
    ragged: HashMap<Slot, Vec<Option<Arc<Vec<f32>>>>>,
    /// Token ids and positions that embeddings read whose gradient is wanted.
    ids: HashMap<Slot, Vec<i64>>,
    /// What setters wrote: shape and number type.
    pub written: HashMap<Instance, (Vec<usize>, DType)>,
    /// The weights that a program has set and whose gradients are wanted.
    pub weights: BTreeSet<WeightId>,
    bytes: u64,
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
        let before = self.bytes;
        let first = state.rows.get(sequences.start).map_or(0, |rows| rows.start);
        let end =
            sequences.end.checked_sub(1).and_then(|last| state.rows.get(last)).map_or(first, |rows| rows.end);
        for slot in read_on_the_way_back(stage, &self.weights) {
            match state.slot(slot) {
                Some(SlotValue::Rows(rows)) => {
                    let place = (slot, state.narrowed);
                    let bytes = 4 * (rows.width() * (end - first)) as u64;
                    let known = known.and_then(|known| known.rows.get(&place));
                    self.rows.entry(place).or_insert_with(|| {
                        known.cloned().unwrap_or_else(|| {
                            self.bytes += bytes;
                            rows.part(first, end - first, state.tokens())
                        })
                    });
                }
                Some(SlotValue::Ragged(all)) if ragged => {
                    let own = all.get(sequences.clone()).unwrap_or_default().to_vec();
                    let known = known.is_some_and(|known| known.ragged.contains_key(&slot));
                    self.ragged.entry(slot).or_insert_with(|| {
                        if !known {
                            self.bytes += own.iter().flatten().map(|own| 4 * own.len() as u64).sum::<u64>();
                        }
                        own
                    });
                }
                Some(SlotValue::Ids(ids)) => {
                    let own = ids.get(first..end).unwrap_or_default();
                    self.ids.entry(slot).or_insert_with(|| {
                        self.bytes += 8 * own.len() as u64;
                        own.to_vec()
                    });
                }
                _ => {}
            }
        }
        self.bytes - before
    }

    /// A slot's rows.
    pub fn rows(&self, slot: Slot, narrowed: bool) -> Option<&Rows> {
        self.rows.get(&(slot, narrowed))
    }

    /// A slot's token ids or positions.
    pub fn ids(&self, slot: Slot) -> Option<&[i64]> {
        self.ids.get(&slot).map(Vec::as_slice)
    }

    /// A sequence's scores or pattern, where they were materialised.
    pub fn ragged(&self, slot: Slot, sequence: usize) -> Option<&Arc<Vec<f32>>> {
        self.ragged.get(&slot)?.get(sequence)?.as_ref()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
