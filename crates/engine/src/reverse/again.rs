//! What was given up of a tape, computed again: one segment's activations, for one invoke (`plan::recompute`).

use pellucid_models::stage::StageList;

use super::tape::Tape;
use super::walker::Trail;
use super::{Desk, Failure};
use crate::error::Interruption;
use crate::job::Job;
use crate::pass::{PassState, Sequence, Visitor, walk};
use crate::plan::Segment;
use crate::slots::SlotValue;

/// The activations of a segment that were computed again.
pub(super) struct Again {
    pub segment: Segment,
    pub tape: Tape,
}

/// Edits what the invoke edited, and keeps what a way back reads.
struct Following<'t, 'j, 'a> {
    list: &'t StageList,
    /// What was kept the first time.
    kept: &'t Tape,
    /// The stages that are gone back through.
    stages: &'t [bool],
    again: Tape,
    job: &'j mut Job<'a>,
}

impl Visitor for Following<'_, '_, '_> {
    fn touches(&self, stage: usize) -> bool {
        self.list.stages[stage].outputs.iter().any(|&slot| self.kept.edited(slot).is_some())
    }

    fn sequence_touches(&self, stage: usize, _sequence: usize) -> bool {
        let own = &self.list.stages[stage];
        self.touches(stage)
            || own.inputs.iter().chain(&own.outputs).any(|&slot| self.kept.was_materialised(slot))
    }

    fn tracks(&self, stage: usize) -> bool {
        self.stages.get(stage).copied().unwrap_or(false)
    }

    fn record(&mut self, stage: usize, state: &PassState) {
        self.again.record(&self.list.stages[stage], state, 0..state.sequences.len(), true, Some(self.kept));
    }

    fn visit(&mut self, stage: usize, _point: usize, state: &mut PassState) -> Result<(), Interruption> {
        for &slot in &self.list.stages[stage].outputs {
            if let Some(edited) = self.kept.edited(slot) {
                state.put(slot, edited.clone());
            }
        }
        Ok(())
    }

    fn between(&mut self, _stage: usize, _state: &mut PassState) -> Result<(), Interruption> {
        self.job.check_budget();
        if self.job.failed.is_some() { Err(Interruption::AllFailed) } else { Ok(()) }
    }
}

impl Again {
    /// Walks a segment once more with the rows that it began with. What it takes is held until it is [let go](Again::let_go).
    pub fn compute(
        segment: &Segment,
        stages: &[bool],
        trail: &Trail<'_>,
        desk: &mut Desk<'_, '_>,
    ) -> Result<Again, Failure> {
        let list = desk.model.stages();
        let missing = || Failure::Internal("what a layer began with was not kept".into());
        let root = trail.tape.rows(segment.root, false).ok_or_else(missing)?;
        // Behind the embedding no tokens are read.
        let sequences = trail.lengths.iter().map(|&length| Sequence::new(vec![0; length]));
        let mut state = PassState::begin(list, sequences.collect());
        state.weights = trail.weights.cloned();
        state.put(segment.root, SlotValue::Rows(root.clone()));
        let again = Tape::for_gradients_of(trail.tape.weights.clone());
        let mut following = Following { list, kept: trail.tape, stages, again, job: desk.job };
        // Behind the last stage that is gone back through nothing is read.
        let range = segment.stages.clone();
        let read = stages.get(range.clone()).and_then(|own| own.iter().rposition(|&own| own));
        let range = range.start..read.map_or(range.start, |last| range.start + last + 1);
        walk(desk.model, desk.schedule, range, &mut state, desk.pool, &mut following)?;
        let tape = following.again;
        desk.job.results.report.recomputed_layers += 1;
        desk.job.hold_for_way_back(tape.bytes());
        Ok(Again { segment: segment.clone(), tape })
    }

    /// It has been gone back through.
    pub fn let_go(self, desk: &mut Desk<'_, '_>) {
        desk.job.let_go(self.tape.bytes());
    }
}
