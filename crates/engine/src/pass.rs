//! One pass: packed sequences walking a model's list of stages.
//!
//! The tokens of all sequences stand end to end; linear layers run on the packed rows, attention for each sequence. A
//! pass can begin and end at any stage; sequences can be parked at a hook point and taken up again in a later pass.
//! Every kernel gives a row the same bits whatever other rows there are, so nothing here changes a result.

mod fork;
mod schedule;
mod state;

use std::ops::Range;
use std::sync::Arc;

use pellucid_models::Model;
use pellucid_models::stage::{Kernel, Slot, StageList};

use crate::compute;
use crate::error::Interruption;
pub(crate) use crate::sequence::Sequence;
use crate::slots::BufferPool;
pub(crate) use schedule::Schedule;
pub(crate) use state::{Parked, PassState};

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
                && !visitor.tracks(number)
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

/// Whether what comes after a stage is the middle of an attention: keys and values are in their places, and are still read.
pub(crate) fn is_within_attention(list: &StageList, number: usize) -> bool {
    let mut after = list.stages.iter().skip(number).map(|stage| &stage.kernel);
    let next = after.find(|kernel| !matches!(kernel, Kernel::Hook { .. }));
    matches!(next, Some(Kernel::AttentionPattern(_) | Kernel::AttentionMixed(_)))
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
