//! Invokes that wait between passes: before their first step for weights that are set, and for conditions on which it
//! depends whether they run at all; after a step for the word to stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use pellucid_graph::{NodeId, NodeKind, Value};
use pellucid_kernels::PackedMatrix;
use pellucid_models::stage::WeightId;

use super::group::{Group, Place};
use super::member::{Ground, Member};
use crate::job::{Instance, OUTSIDE};
use crate::loaded::Loaded;
use crate::operations::OperationError;
use crate::slots::BufferPool;
use crate::tensor::Tensor;
use crate::weights::{self, WeightSet};

/// A weight that is set: the program's number, the value, and the parameter in whose place it is.
pub(super) type SetWeight = (u64, Value, WeightId);

impl Member<'_> {
    /// Lets the invokes go on whose waiting is over, and those that go on because of them. Whether any did.
    pub(super) fn start_and_decide(&mut self, ground: Ground<'_>, pool: &mut BufferPool) -> bool {
        let (mut changed, mut moved) = (true, false);
        while std::mem::take(&mut changed) {
            for invoke in 0..self.groups.len() {
                if self.job.failed.is_some() {
                    return moved;
                }
                let group = &self.groups[invoke];
                let (starts, decides) = match group.place {
                    Place::Waiting => (self.can_start(group), false),
                    Place::Deciding => (false, self.can_decide(group)),
                    _ => continue,
                };
                if starts {
                    self.start(invoke, ground, pool);
                } else if decides {
                    self.decide(invoke, ground, pool);
                }
                changed |= starts || decides;
            }
            moved |= changed;
        }
        moved
    }

    /// The node for which a group waits that can never go on.
    pub(super) fn stuck_at(&self, group: &Group) -> Option<NodeId> {
        let job = &self.job;
        match group.place {
            Place::Waiting => group.asked.weights.iter().copied().find(|&id| !job.is_ready((OUTSIDE, id))),
            Place::Deciding => {
                self.stops_of(group).into_iter().find(|&stop| !job.is_ready(stop)).map(|stop| stop.1)
            }
            _ => group.touches.get(group.next_touch).map(|touch| touch.1.1),
        }
    }

    fn can_start(&self, group: &Group) -> bool {
        let job = &self.job;
        if !group.asked.weights.iter().all(|&id| job.is_ready((OUTSIDE, id))) {
            return false;
        }
        let Some(asked) = group.asked.all_outside() else { return true };
        let asked: Vec<NodeId> = asked.collect();
        // Something for which it runs in any case, or nothing for which it may still run.
        asked.iter().any(|&id| job.is_granted((OUTSIDE, id)))
            || asked.iter().all(|&id| job.is_lost((OUTSIDE, id)))
    }

    fn start(&mut self, invoke: usize, ground: Ground<'_>, pool: &mut BufferPool) {
        let Self { job, groups, .. } = self;
        let group = &mut groups[invoke];
        group.asked.retain(|id| !job.is_never((OUTSIDE, id)));
        let Some(last_step) = group.asked.last_step(&job.program, group.total_steps()) else {
            // Nothing of the invoke is needed: it does not run.
            group.place = Place::Done;
            for instance in group.asked.weights.iter().map(|&id| (OUTSIDE, id)) {
                if !job.is_lost(instance) {
                    job.applied(instance);
                }
            }
            return;
        };
        group.last_step = last_step;
        let keeps = group.keeps_caches();
        for prompt in &mut group.prompts {
            if let Some(sequence) = &mut prompt.sequence {
                sequence.keep_caches = keeps;
            }
        }
        group.place = Place::Start;
        if let Some(loaded) = ground.models.get(self.model) {
            self.set_weights(invoke, loaded, ground.dry);
        }
        self.begin_step(invoke, ground, pool);
    }

    /// Makes the weights of an invoke ready to run with. Of several in one parameter's place the last counts.
    fn set_weights(&mut self, invoke: usize, loaded: &Loaded, dry: bool) {
        let ids = self.groups[invoke].asked.weights.clone();
        let program = self.job.program.clone();
        let mut chosen: BTreeMap<WeightId, (NodeId, Value)> = BTreeMap::new();
        for &id in &ids {
            let NodeKind::SetWeight { value, .. } = &program.program.node(id).kind else { continue };
            if self.job.is_lost((OUTSIDE, id)) {
                continue;
            }
            let parameter = program.nodes[id.index()].parameter;
            let weight = parameter
                .ok_or_else(|| OperationError::new("its parameter was not found"))
                .and_then(weights::weight_id);
            match weight {
                Ok(weight) => {
                    chosen.insert(weight, (id, *value));
                }
                Err(error) => self.job.fail(id, &error),
            }
        }
        let mut set = WeightSet::default();
        for (&weight, &(id, value)) in &chosen {
            self.groups[invoke].weights_key.push((self.serial, value, weight));
            self.job.at_node = Some(id);
            if dry {
                continue;
            }
            if let Err(error) = self.replace(&mut set, (value, weight), loaded) {
                self.job.fail(id, &error);
            }
        }
        self.groups[invoke].weights = (!chosen.is_empty()).then(|| Arc::new(set));
        for instance in ids.into_iter().map(|id| (OUTSIDE, id)) {
            if !self.job.is_lost(instance) {
                self.job.applied(instance);
            }
        }
    }

    /// Puts a value into a weight's place: the same weight as before, where another invoke still runs with it.
    fn replace(
        &mut self,
        set: &mut WeightSet,
        key: (Value, WeightId),
        loaded: &Loaded,
    ) -> Result<(), OperationError> {
        let (value, weight) = key;
        if let Some(known) = self.replaced.get(&key).and_then(|(known, _)| known.upgrade()) {
            set.insert(weight, known);
            return Ok(());
        }
        let tensor = self.job.value(value, OUTSIDE);
        let tensor = tensor.ok_or_else(|| OperationError::new("the value is not there"))?;
        // The numbers, once more in the form that runs, and in the one that is gone back through.
        let forms = if self.job.program.gradients.is_empty() { 8 } else { 12 };
        if !self.job.has_room_for((tensor.elements() as u64).saturating_mul(forms)) {
            return Ok(());
        }
        let made = Arc::new(weights::replaced(&loaded.model, weight.0 as usize, &tensor)?);
        let again = if forms == 8 { 0 } else { made.packed().map_or(0, PackedMatrix::size_in_bytes) };
        let bytes = (made.bytes() + again) as u64;
        self.job.hold(bytes);
        self.replaced.insert(key, (Arc::downgrade(&made), bytes));
        set.insert(weight, made);
        Ok(())
    }

    /// Weights with which nobody runs any more are free.
    pub(super) fn free_weights(&mut self) {
        let (replaced, job) = (&mut self.replaced, &mut self.job);
        replaced.retain(|_, (weight, bytes)| {
            let held = weight.strong_count() > 0;
            if !held {
                job.let_go(*bytes);
            }
            held
        });
    }

    /// The stops of a group's current step.
    pub(super) fn stops_of(&self, group: &Group) -> Vec<Instance> {
        let program = &self.job.program;
        let (step, total) = (group.step, group.total_steps());
        let chosen =
            group.asked.stops.iter().filter(|(owner, _)| match &program.program.node(**owner).kind {
                NodeKind::Steps { steps, .. } => steps.contains(step, total),
                _ => false,
            });
        chosen.flat_map(|(_, stops)| stops).map(|&id| (step, id)).collect()
    }

    fn can_decide(&self, group: &Group) -> bool {
        let job = &self.job;
        self.stops_of(group).into_iter().all(|stop| job.is_ready(stop))
    }

    /// Ends the prompts that the program stops at this step.
    fn decide(&mut self, invoke: usize, ground: Ground<'_>, pool: &mut BufferPool) {
        for stop in self.stops_of(&self.groups[invoke]) {
            let Self { job, groups, .. } = self;
            let NodeKind::Stop { when, .. } = job.program.program.node(stop.1).kind else { continue };
            if job.is_lost(stop) {
                continue;
            }
            job.at_node = Some(stop.1);
            let when = job.value(when, stop.0);
            job.applied(stop);
            // In a dry run no stop is taken to hold.
            let Some(when) = when else { continue };
            let prompts = &mut groups[invoke].prompts;
            match stopped(&when, prompts.len()) {
                Err(error) => job.fail(stop.1, &error),
                Ok(stopped) => {
                    for (prompt, _) in prompts.iter_mut().zip(stopped).filter(|(_, stopped)| *stopped) {
                        prompt.finished = true;
                        prompt.sequence = None;
                    }
                }
            }
        }
        self.go_on(invoke, ground, pool);
    }
}

/// Which of so many prompts a stop ends: all of them or none, or those for which it holds.
pub(crate) fn stopped(when: &Tensor, prompts: usize) -> Result<Vec<bool>, OperationError> {
    let holds = when.truths()?;
    match (when.rank(), holds.as_slice()) {
        (0, &[holds]) => Ok(vec![holds; prompts]),
        (1, holds) if holds.len() == prompts => Ok(holds.to_vec()),
        _ => Err(OperationError::new(format!(
            "it stops where a tensor of shape {:?} holds, but the invoke has {prompts} prompts",
            when.shape()
        ))),
    }
}
