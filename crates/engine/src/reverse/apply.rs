//! The vector-Jacobian product of an applied module. Its stages run once more, each by itself, and everything is kept; then
//! they are gone back through. Nothing of an application has to be kept on the way there.

use pellucid_models::Model;
use pellucid_models::stage::Kernel;

use super::stages::{Back, add, take};
use super::tape::Tape;
use crate::compute;
use crate::error::Interruption;
use crate::nodes::applied_state;
use crate::operations::OperationError;
use crate::pass::Schedule;
use crate::slots::BufferPool;
use crate::tensor::Tensor;
use crate::weights::Weights;

/// The cotangent of what a module was applied to, from that of its result.
pub(crate) fn apply_backward(
    model: &Model,
    schedule: &Schedule,
    module: usize,
    input: &Tensor,
    lengths: Option<&[usize]>,
    cotangent: &Tensor,
    pool: &mut BufferPool,
) -> Result<Tensor, OperationError> {
    let list = model.stages();
    let mut applied = applied_state(model, schedule, module, input, lengths)?;
    let (from, to) = (applied.from, applied.to);
    let width = |values: &Tensor| values.elements() / applied.leading.iter().product::<usize>().max(1);
    let (own, given) = (width(input), width(cotangent));
    let cotangent = applied.in_rows(cotangent.to_vec_f32()?, given);
    let state = &mut applied.state;
    let range = list.modules[module].range.clone();
    if state.tokens() == 0 {
        return super::sums::zeros(input.shape(), input.dtype());
    }
    let failed = |interruption| match interruption {
        Interruption::Internal(message) => OperationError::new(message),
        Interruption::AllFailed => OperationError::new("interrupted"),
    };
    let (mut tape, sequences) = (Tape::default(), state.sequences.len());
    for number in range.clone() {
        let stage = &list.stages[number];
        if let Kernel::Hook { .. } = stage.kernel {
            if let Some(value) = state.slot(stage.inputs[0]).cloned() {
                state.put(stage.outputs[0], value);
            }
        } else {
            compute::stage(model, stage, state, pool).map_err(failed)?;
            tape.record(stage, state, 0..sequences, true, None);
        }
    }
    state.clear();
    let wanted = vec![true; list.slots as usize];
    let weights = Weights::new(model, None);
    let back = Back { model, weights, tape: &tape, wanted: &wanted };
    add(list, state, to, cotangent, pool);
    for number in range.rev() {
        back.stage(number, state, pool).map_err(failed)?;
    }
    let values = take(state, from).map(|values| applied.in_cells(values, own));
    Tensor::from_f32(values.unwrap_or_else(|| vec![0.0; input.elements()]), input.shape())?
        .cast(input.dtype())
}
