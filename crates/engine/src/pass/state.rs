//! The sequences of a pass, what its slots hold, and how sequences leave it and are taken up again.

use std::ops::Range;
use std::sync::Arc;

use pellucid_models::Model;
use pellucid_models::stage::{POSITIONS, Slot, SlotShape, StageList, TOKENS};

use super::Schedule;
use crate::sequence::Sequence;
use crate::slots::{BufferPool, Rows, SlotValue};
use crate::weights::{WeightSet, Weights};

/// The sequences of a pass and what its slots hold.
pub(crate) struct PassState {
    /// The sequences, in packed order.
    pub sequences: Vec<Sequence>,
    /// Each sequence's rows.
    pub rows: Vec<Range<usize>>,
    /// Whether the narrowing stage has been passed: rows are then those of [`Sequence::narrow`].
    pub narrowed: bool,
    /// The weights that the sequences' programs have set, the same for all of them.
    pub weights: Option<Arc<WeightSet>>,
    pub(super) slots: Vec<Option<SlotValue>>,
}

/// Sequences taken out of a pass before a stage, to be taken up there again.
#[derive(Debug)]
pub(crate) struct Parked {
    /// Where they stand: the stage that comes next.
    pub stage: usize,
    /// The sequence.
    pub sequence: Sequence,
    /// Its rows of every slot that is still needed.
    slots: Vec<(usize, ParkedSlot)>,
    narrowed: bool,
}

#[derive(Debug)]
enum ParkedSlot {
    Rows(Vec<f32>, Vec<usize>),
    Ids(Vec<i64>),
    Ragged(Option<Arc<Vec<f32>>>),
}

impl Parked {
    /// A sequence before a stage at which a slot of its rows, `values`, is the only one that is alive.
    pub fn before(
        stage: usize,
        sequence: Sequence,
        (slot, values): (Slot, Vec<f32>),
        list: &StageList,
        schedule: &Schedule,
    ) -> Parked {
        let inner = match list.shapes.get(slot.0 as usize) {
            Some(SlotShape::Inner(inner)) => inner.clone(),
            _ => Vec::new(),
        };
        let mut slots = vec![(slot.0 as usize, ParkedSlot::Rows(values, inner))];
        let positions = (0..sequence.tokens.len()).map(|place| (sequence.start + place) as i64);
        for (slot, ids) in [(TOKENS, sequence.tokens.clone()), (POSITIONS, positions.collect())] {
            if schedule.last_use[slot.0 as usize] >= stage {
                slots.push((slot.0 as usize, ParkedSlot::Ids(ids)));
            }
        }
        Parked { stage, sequence, slots, narrowed: false }
    }

    /// Bytes of its rows. Keys and values, which a step may keep, are not among them.
    pub fn bytes(&self) -> u64 {
        let of_slot = |(_, held): &(usize, ParkedSlot)| match held {
            ParkedSlot::Rows(values, _) => 4 * values.len() as u64,
            ParkedSlot::Ids(ids) => 8 * ids.len() as u64,
            ParkedSlot::Ragged(values) => values.as_ref().map_or(0, |values| 4 * values.len() as u64),
        };
        self.slots.iter().map(of_slot).sum()
    }
}

impl PassState {
    /// Sequences at the beginning of the model.
    pub fn begin(list: &StageList, sequences: Vec<Sequence>) -> PassState {
        let mut slots: Vec<Option<SlotValue>> = (0..list.slots).map(|_| None).collect();
        let mut rows = Vec::with_capacity(sequences.len());
        let (mut tokens, mut positions) = (Vec::new(), Vec::new());
        for sequence in &sequences {
            let first = tokens.len();
            tokens.extend_from_slice(&sequence.tokens);
            positions.extend((0..sequence.tokens.len()).map(|place| (sequence.start + place) as i64));
            rows.push(first..tokens.len());
        }
        slots[TOKENS.0 as usize] = Some(SlotValue::Ids(Arc::new(tokens)));
        slots[POSITIONS.0 as usize] = Some(SlotValue::Ids(Arc::new(positions)));
        PassState { sequences, rows, narrowed: false, weights: None, slots }
    }

    /// Parked sequences, all at the same stage, packed again.
    pub fn resume(list: &StageList, parked: Vec<Parked>) -> PassState {
        let mut slots: Vec<Option<SlotValue>> = (0..list.slots).map(|_| None).collect();
        let narrowed = parked.first().is_some_and(|parked| parked.narrowed);
        let (mut sequences, mut rows, mut end) = (Vec::new(), Vec::new(), 0);
        let count = parked.len();
        for (number, parked) in parked.into_iter().enumerate() {
            let length = if parked.narrowed {
                parked.sequence.narrow.as_ref().map_or(parked.sequence.tokens.len(), Vec::len)
            } else {
                parked.sequence.tokens.len()
            };
            rows.push(end..end + length);
            end += length;
            sequences.push(parked.sequence);
            for (slot, value) in parked.slots {
                match (value, &mut slots[slot]) {
                    (ParkedSlot::Rows(values, inner), entry @ None) => {
                        *entry = Some(SlotValue::Rows(Rows::contiguous(values, &inner)));
                    }
                    (ParkedSlot::Rows(values, _), Some(SlotValue::Rows(rows))) => {
                        if let Some(buffer) = Arc::get_mut(&mut rows.buffer) {
                            buffer.extend_from_slice(&values);
                        }
                    }
                    (ParkedSlot::Ids(values), entry @ None) => {
                        *entry = Some(SlotValue::Ids(Arc::new(values)))
                    }
                    (ParkedSlot::Ids(values), Some(SlotValue::Ids(ids))) => {
                        Arc::make_mut(ids).extend_from_slice(&values)
                    }
                    (ParkedSlot::Ragged(values), entry) => {
                        let entry = entry.get_or_insert_with(|| SlotValue::Ragged(vec![None; count]));
                        if let SlotValue::Ragged(all) = entry {
                            all[number] = values;
                        }
                    }
                    _ => {}
                }
            }
        }
        PassState { sequences, rows, narrowed, weights: None, slots }
    }

    /// Packed tokens.
    pub fn tokens(&self) -> usize {
        self.rows.last().map_or(0, |rows| rows.end)
    }

    /// The weights that stages run with.
    pub fn weights<'s>(&'s self, model: &'s Model) -> Weights<'s> {
        Weights::new(model, self.weights.as_deref())
    }

    /// A slot's value.
    pub fn slot(&self, slot: Slot) -> Option<&SlotValue> {
        self.slots[slot.0 as usize].as_ref()
    }

    /// A slot's value, to write.
    pub fn slot_mut(&mut self, slot: Slot) -> Option<&mut SlotValue> {
        self.slots[slot.0 as usize].as_mut()
    }

    /// Puts a value into a slot.
    pub fn put(&mut self, slot: Slot, value: SlotValue) {
        self.slots[slot.0 as usize] = Some(value);
    }

    /// Fills a slot with zeros: what a skipped module leaves for its given output to be written over.
    pub(super) fn stand_in(&mut self, list: &StageList, slot: Slot, pool: &mut BufferPool) {
        let SlotShape::Inner(inner) = &list.shapes[slot.0 as usize] else { return };
        let mut values = pool.take(self.tokens() * inner.iter().product::<usize>());
        values.fill(0.0);
        self.put(slot, SlotValue::Rows(Rows::contiguous(values, inner)));
    }

    /// Takes a value out of a slot.
    pub fn take(&mut self, slot: Slot) -> Option<SlotValue> {
        self.slots[slot.0 as usize].take()
    }

    /// Empties every slot.
    pub fn clear(&mut self) {
        self.slots.iter_mut().for_each(|slot| *slot = None);
    }

    /// Gives every slot of rows the rows that `change` makes of it, end to end.
    pub fn change_rows(&mut self, change: impl Fn(&Rows) -> Vec<f32>) {
        for value in self.slots.iter_mut().flatten() {
            if let SlotValue::Rows(rows) = value {
                let inner: Vec<usize> = rows.inner.iter().map(|dimension| dimension.0).collect();
                *rows = Rows::contiguous(change(rows), &inner);
            }
        }
    }

    /// Takes sequences out before a stage, to be taken up there again. What stays of them is to be removed.
    pub fn park(&mut self, leaving: &[usize], stage: usize) -> Vec<Parked> {
        let mut parked: Vec<Parked> = Vec::with_capacity(leaving.len());
        for &number in leaving {
            let rows = self.rows[number].clone();
            let mut slots = Vec::new();
            for (slot, value) in self.slots.iter().enumerate() {
                let held = match value {
                    None => continue,
                    Some(SlotValue::Rows(view)) => {
                        let mut values = vec![0.0; rows.len() * view.width()];
                        view.copy_rows(rows.start, rows.len(), &mut values);
                        ParkedSlot::Rows(values, view.inner.iter().map(|dimension| dimension.0).collect())
                    }
                    Some(SlotValue::Ids(ids)) => ParkedSlot::Ids(ids[rows.clone()].to_vec()),
                    Some(SlotValue::Ragged(all)) => ParkedSlot::Ragged(all[number].clone()),
                };
                slots.push((slot, held));
            }
            let sequence = std::mem::take(&mut self.sequences[number]);
            parked.push(Parked { stage, sequence, slots, narrowed: self.narrowed });
        }
        parked
    }

    /// Takes sequences out for good; `leaving` is sorted.
    pub fn remove(&mut self, leaving: &[usize]) {
        if leaving.len() == self.sequences.len() {
            self.sequences.clear();
            self.rows.clear();
            self.slots.iter_mut().for_each(|slot| *slot = None);
            return;
        }
        let staying: Vec<usize> =
            (0..self.sequences.len()).filter(|number| leaving.binary_search(number).is_err()).collect();
        let kept: Vec<Range<usize>> = staying.iter().map(|&number| self.rows[number].clone()).collect();
        self.keep_rows(&kept.iter().cloned().flatten().collect::<Vec<_>>());
        for value in self.slots.iter_mut().flatten() {
            if let SlotValue::Ragged(all) = value {
                *all = staying.iter().map(|&number| all[number].take()).collect();
            }
        }
        let mut end = 0;
        self.rows = kept
            .iter()
            .map(|rows| {
                end += rows.len();
                end - rows.len()..end
            })
            .collect();
        let mut number = 0;
        self.sequences.retain(|_| {
            number += 1;
            leaving.binary_search(&(number - 1)).is_err()
        });
    }

    /// Keeps only those rows of every slot.
    pub(super) fn keep_rows(&mut self, kept: &[usize]) {
        for value in self.slots.iter_mut().flatten() {
            match value {
                SlotValue::Rows(view) => {
                    let width = view.width();
                    let mut values = vec![0.0; kept.len() * width];
                    for (&row, out) in kept.iter().zip(values.chunks_exact_mut(width.max(1))) {
                        view.copy_row(row, out);
                    }
                    let inner: Vec<usize> = view.inner.iter().map(|dimension| dimension.0).collect();
                    *view = Rows::contiguous(values, &inner);
                }
                SlotValue::Ids(ids) => *ids = Arc::new(kept.iter().map(|&row| ids[row]).collect()),
                SlotValue::Ragged(_) => {}
            }
        }
    }

    /// From here on, only the tokens that somebody reads.
    pub(super) fn narrow(&mut self) {
        self.narrowed = true;
        if self.sequences.iter().all(|sequence| sequence.narrow.is_none()) {
            return;
        }
        let mut kept = Vec::new();
        let mut ranges = Vec::with_capacity(self.rows.len());
        for (sequence, rows) in self.sequences.iter().zip(&self.rows) {
            let first = kept.len();
            match &sequence.narrow {
                Some(tokens) => kept.extend(tokens.iter().map(|token| rows.start + token)),
                None => kept.extend(rows.clone()),
            }
            ranges.push(first..kept.len());
        }
        self.keep_rows(&kept);
        self.rows = ranges;
    }
}
