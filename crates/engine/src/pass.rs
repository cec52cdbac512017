//! One pass: packed sequences walking a model's list of stages.
//!
//! The tokens of all sequences stand end to end; linear layers run on the packed rows, attention for each sequence. A
//! pass can begin and end at any stage; sequences can be parked at a hook point and taken up again in a later pass.
//! Every kernel gives a row the same bits whatever other rows there are, so nothing here changes a result.

mod fork;

use std::ops::Range;
use std::sync::Arc;

use pellucid_models::Model;
use pellucid_models::stage::{Kernel, ModuleStages, POSITIONS, Slot, SlotShape, StageList, TOKENS};

use crate::compute;
use crate::error::Interruption;
use crate::plan::unembedding;
pub(crate) use crate::sequence::Sequence;
use crate::slots::{BufferPool, Rows, SlotValue};
use crate::weights::{WeightSet, Weights};

/// What is known of a stage list beside the list itself: computed once for each model.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// The stage of each hook point, by its place.
    pub hook_stage: Vec<usize>,
    /// For each slot, the last stage that reads it.
    last_use: Vec<usize>,
    /// For each slot, how many stages read it.
    uses: Vec<usize>,
    /// For each module, the stage of its input hook point and that of its output, where all stages between can be left
    /// out when its output is given: nobody outside reads what they make.
    pub skippable: Vec<Option<(usize, usize)>>,
    /// The stage that computes the logits, if some of the vocabulary's columns can be computed alone.
    pub unembedding: Option<usize>,
    /// For each slot of ids, how many rows the smallest table has that they are looked up in.
    id_limit: Vec<u64>,
}

impl Schedule {
    /// What follows from a list of stages.
    pub fn new(list: &StageList) -> Schedule {
        let slots = list.slots as usize;
        let (mut last_use, mut uses) = (vec![0; slots], vec![0; slots]);
        let mut hook_stage = Vec::new();
        for (number, stage) in list.stages.iter().enumerate() {
            for slot in &stage.inputs {
                last_use[slot.0 as usize] = number;
                uses[slot.0 as usize] += 1;
            }
            if let Kernel::Hook { point, .. } = stage.kernel {
                if hook_stage.len() <= point {
                    hook_stage.resize(point + 1, 0);
                }
                hook_stage[point] = number;
            }
        }
        if let Some(logits) = list.logits {
            last_use[logits.0 as usize] = list.stages.len();
        }
        let skippable = list.modules.iter().map(|module| skippable(list, module, &last_use)).collect();
        let unembedding = unembedding(list);
        Schedule { hook_stage, last_use, uses, skippable, unembedding, id_limit: id_limits(list) }
    }

    /// Ids in that slot are below this.
    pub fn id_limit(&self, slot: Slot) -> u64 {
        self.id_limit[slot.0 as usize]
    }
}

/// The first stage of a module and that of its output hook point, if nothing outside depends on the stages between.
fn skippable(list: &StageList, module: &ModuleStages, last_use: &[usize]) -> Option<(usize, usize)> {
    let (from, output) = (module.range.start, module.range.end.checked_sub(1)?);
    let stage = list.stages.get(output)?;
    let given =
        matches!(stage.kernel, Kernel::Hook { .. }) && stage.outputs.first() == module.output.as_ref();
    // Where the pass narrows inside, its rows change there.
    let narrows = (from + 1..=output).contains(&list.token_wise_from);
    let closed = list.stages.get(from..output)?.iter().all(|stage| {
        stage.outputs.iter().all(|slot| last_use[slot.0 as usize] <= output && Some(*slot) != list.logits)
    });
    (given && closed && !narrows).then_some((from, output))
}

/// Ids reach their tables through hook points alone, so one walk backwards carries each table's bound to where its ids
/// come from.
fn id_limits(list: &StageList) -> Vec<u64> {
    let mut limits = vec![u64::MAX; list.slots as usize];
    for stage in list.stages.iter().rev() {
        let limit = match &stage.kernel {
            Kernel::Embed { table, offset, .. } => {
                let rows = list.weights[table.0 as usize].shape.first().copied().unwrap_or(0) as i64;
                u64::try_from(rows - offset).unwrap_or(0)
            }
            Kernel::Hook { .. } => limits[stage.outputs[0].0 as usize],
            _ => continue,
        };
        let own = &mut limits[stage.inputs[0].0 as usize];
        *own = (*own).min(limit);
    }
    limits
}

/// Who watches a pass.
pub(crate) trait Visitor {
    /// Whether a sequence of the pass reads or writes the hook point at that stage.
    fn touches(&self, stage: usize) -> bool;
    /// Whether that sequence does.
    fn sequence_touches(&self, stage: usize, sequence: usize) -> bool;
    /// Where the pass goes on when every sequence in it is given the output of a module that begins at that stage: the
    /// stage of its output's hook point.
    fn skips(&self, _stage: usize) -> Option<usize> {
        None
    }
    /// The vocabulary's columns that are read of a sequence's logits; none: all.
    fn vocabulary(&self, _sequence: usize) -> Option<Arc<[usize]>> {
        None
    }
    /// Whether what a stage reads is needed on the way back from it.
    fn tracks(&self, _stage: usize) -> bool {
        false
    }
    /// Called after each such stage, while its inputs are still there.
    fn record(&mut self, _stage: usize, _state: &PassState) {}
    /// Called at each touched hook point, in order.
    fn visit(&mut self, stage: usize, point: usize, state: &mut PassState) -> Result<(), Interruption>;
    /// Called between stages that compute: the place to stop for cancellation and deadlines. Sequences may leave here.
    fn between(&mut self, stage: usize, state: &mut PassState) -> Result<(), Interruption>;
}

/// A visitor for whom nothing is of interest: applied modules fire no hook points.
pub(crate) struct NoVisitor;

impl Visitor for NoVisitor {
    fn touches(&self, _stage: usize) -> bool {
        false
    }

    fn sequence_touches(&self, _stage: usize, _sequence: usize) -> bool {
        false
    }

    fn visit(&mut self, _stage: usize, _point: usize, _state: &mut PassState) -> Result<(), Interruption> {
        Ok(())
    }

    fn between(&mut self, _stage: usize, _state: &mut PassState) -> Result<(), Interruption> {
        Ok(())
    }
}

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
    slots: Vec<Option<SlotValue>>,
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
    fn stand_in(&mut self, list: &StageList, slot: Slot, pool: &mut BufferPool) {
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
    fn keep_rows(&mut self, kept: &[usize]) {
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
    fn narrow(&mut self) {
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

/// Walks stages `range` of the model. Stops early, before a stage, when no sequence is left.
pub(crate) fn walk(
    model: &Model,
    schedule: &Schedule,
    range: Range<usize>,
    state: &mut PassState,
    pool: &mut BufferPool,
    visitor: &mut dyn Visitor,
) -> Result<(), Interruption> {
    let list = model.stages();
    let mut number = range.start;
    while number < range.end && !state.sequences.is_empty() {
        if number == list.token_wise_from && !state.narrowed && range.end > number {
            state.narrow();
        }
        let stage = &list.stages[number];
        let skipped = visitor.skips(number).filter(|&output| output > number && output < range.end);
        if let Some(output) = skipped {
            state.stand_in(list, list.stages[output].inputs[0], pool);
        }
        let next = match &stage.kernel {
            _ if skipped.is_some() => skipped.unwrap_or(number + 1),
            Kernel::Hook { point, .. } => {
                // The value moves on, unless a later stage still reads the slot that it comes from.
                let (from, to) = (stage.inputs[0], stage.outputs[0]);
                let value = if schedule.last_use[from.0 as usize] > number {
                    state.slot(from).cloned()
                } else {
                    state.take(from)
                };
                if let Some(value) = value {
                    state.put(to, value);
                }
                if visitor.touches(number) {
                    visitor.visit(number, *point, state)?;
                }
                number + 1
            }
            _ => {
                visitor.between(number, state)?;
                if state.sequences.is_empty() {
                    break;
                }
                compute_stage(model, schedule, number, range.end, state, pool, visitor)?
            }
        };
        for done in number..next {
            if visitor.tracks(done) {
                visitor.record(done, state);
            }
        }
        for done in number..next {
            for slot in &list.stages[done].inputs {
                if schedule.last_use[slot.0 as usize] <= done
                    && let Some(value) = state.take(*slot)
                {
                    pool.give(value);
                }
            }
        }
        number = next;
    }
    Ok(())
}

/// The stages from `number` on that are one kernel when nobody looks between them: (the next stage to run, the last
/// fused one).
fn compute_stage(
    model: &Model,
    schedule: &Schedule,
    number: usize,
    end: usize,
    state: &mut PassState,
    pool: &mut BufferPool,
    visitor: &mut dyn Visitor,
) -> Result<usize, Interruption> {
    let list = model.stages();
    let stage = &list.stages[number];
    match &stage.kernel {
        Kernel::Linear { .. } if schedule.unembedding == Some(number) => {
            for (place, sequence) in state.sequences.iter_mut().enumerate() {
                sequence.vocabulary = visitor.vocabulary(place);
            }
            compute::unembed(model, stage, state, pool)?;
            Ok(number + 1)
        }
        Kernel::Linear { .. } => {
            // The activation or the residual sum that follows, if nobody looks at what lies between.
            let fused = follow(list, schedule, number, end, visitor);
            let mut next = number + 1;
            let mut output = stage.outputs[0];
            let mut then = compute::Then::default();
            if let Some((at, slot)) = fused {
                let following = &list.stages[at];
                match &following.kernel {
                    // On the way back its argument is read.
                    Kernel::Activation(kind) if !visitor.tracks(at) => {
                        then.activation = Some(*kind);
                        (next, output) = (at + 1, following.outputs[0]);
                    }
                    Kernel::Add => {
                        let other = if following.inputs[0] == slot {
                            following.inputs[1]
                        } else {
                            following.inputs[0]
                        };
                        if other != slot && state.slot(other).is_some() {
                            then.residual = Some(other);
                            (next, output) = (at + 1, following.outputs[0]);
                        }
                    }
                    _ => {}
                }
            }
            compute::linear(model, stage, &then, output, state, pool)?;
            Ok(next)
        }
        Kernel::NormScale(norm) => {
            if let Some((at, _)) = follow(list, schedule, number, end, visitor)
                && let Kernel::NormApply(_) = list.stages[at].kernel
                && list.stages[at].inputs[0] == stage.inputs[0]
                && !visitor.tracks(at)
            {
                compute::norm(model, norm, stage.inputs[0], list.stages[at].outputs[0], state, pool)?;
                return Ok(at + 1);
            }
            compute::stage(model, stage, state, pool)?;
            Ok(number + 1)
        }
        Kernel::AttentionScores(attention) => {
            let hooks = attention_hooks(list, number);
            let wanted: Vec<bool> = (0..state.sequences.len())
                .map(|sequence| hooks.iter().any(|&stage| visitor.sequence_touches(stage, sequence)))
                .collect();
            compute::attention_scores(attention, stage, &wanted, state)?;
            Ok(number + 1)
        }
        _ => {
            compute::stage(model, stage, state, pool)?;
            Ok(number + 1)
        }
    }
}

/// The next stage that computes, and the slot under which it sees this stage's output, when only hook points that nobody
/// touches lie between and nobody else reads the value.
fn follow(
    list: &StageList,
    schedule: &Schedule,
    number: usize,
    end: usize,
    visitor: &dyn Visitor,
) -> Option<(usize, Slot)> {
    let mut slot = list.stages[number].outputs[0];
    for (at, stage) in list.stages.iter().enumerate().take(end).skip(number + 1) {
        if schedule.uses[slot.0 as usize] != 1 || Some(slot) == list.logits || at == list.token_wise_from {
            return None;
        }
        match &stage.kernel {
            Kernel::Hook { .. } if stage.inputs[0] == slot && !visitor.touches(at) => slot = stage.outputs[0],
            Kernel::Hook { .. } => return None,
            _ => return stage.inputs.contains(&slot).then_some((at, slot)),
        }
    }
    None
}

/// The stage at which the scores are computed of the attention that a stage is of; none: it is of none.
pub(crate) fn attention_of(list: &StageList, number: usize) -> Option<usize> {
    let stage = list.stages.get(number)?;
    matches!(stage.kernel, Kernel::AttentionPattern(_) | Kernel::AttentionMixed(_)).then_some(())?;
    list.stages[..number].iter().rposition(|stage| matches!(stage.kernel, Kernel::AttentionScores(_)))
}

/// The hook stages of scores and pattern of the attention whose scores are computed at that stage.
pub(crate) fn attention_hooks(list: &StageList, number: usize) -> Vec<usize> {
    let mut hooks = Vec::new();
    for (at, stage) in list.stages.iter().enumerate().skip(number + 1) {
        match stage.kernel {
            Kernel::Hook { .. } => hooks.push(at),
            Kernel::AttentionPattern(_) => {}
            _ => break,
        }
    }
    hooks
}
