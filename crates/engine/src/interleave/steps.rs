//! How a group's step begins and ends: what it touches, how far it walks, and the next tokens.

use pellucid_graph::{Generation, NodeId, NodeKind};
use pellucid_models::Model;

use super::Interleaver;
use super::group::{Group, Place};
use crate::error::EngineError;
use crate::job::{GeneratedToken, Instance, OUTSIDE};
use crate::nodes::Evaluator;
use crate::operations::Noise;
use crate::pass::{PassState, Sequence};
use crate::sampling;
use crate::slots::SlotValue;
use crate::tensor::Tensor;

impl Interleaver<'_, '_> {
    /// Finds what a group touches at its step, and how far it must walk.
    pub(super) fn begin_step(&mut self, group: &mut Group) {
        let mut touches: Vec<(usize, Instance)> = Vec::new();
        for (place, id) in group.asked.outside.get(&group.step).into_iter().flatten() {
            touches.push((*place, (OUTSIDE, *id)));
        }
        for &owner in group.steps.iter() {
            if self.open_step(group, owner, group.step) {
                let inner = group.asked.inside.get(&owner).into_iter().flatten();
                touches.extend(inner.map(|&(place, id)| (place, (group.step, id))));
            }
        }
        touches.sort_by_key(|&(place, (_, id))| (place, id));
        group.touches = touches
            .into_iter()
            .map(|(place, instance)| (self.schedule.hook_stage[place], instance))
            .collect();
        group.next_touch = 0;
        group.wants_token = group.step < group.last_step || !group.asked.generated.is_empty();
        let list = self.model.stages();
        group.end = if group.wants_token {
            list.stages.len()
        } else {
            group.touches.last().map_or(0, |touch| touch.0 + 1)
        };
        group.columns = self.columns(group);
        let columns = group.columns.clone();
        for prompt in &mut group.prompts {
            let Some(sequence) = &mut prompt.sequence else { continue };
            let padding = group.width - prompt.tokens.len();
            sequence.narrow = columns.as_ref().map(|columns| {
                columns.iter().filter(|&&column| column >= padding).map(|column| column - padding).collect()
            });
        }
        if let Some(columns) = &group.columns {
            for &(stage, instance) in &group.touches {
                if stage >= list.token_wise_from {
                    self.jobs[group.job].narrowed.insert(instance, columns.clone());
                }
            }
        }
    }

    /// The columns of the rectangle that matter from the final norm on; none: all of them.
    fn columns(&self, group: &Group) -> Option<Vec<usize>> {
        let from = self.model.stages().token_wise_from;
        if group.step > 0 || group.end <= from {
            return None;
        }
        // A gradient there is that of the whole.
        if group.asked.gradients.iter().any(|&place| self.schedule.hook_stage[place] >= from) {
            return None;
        }
        let job = &self.jobs[group.job];
        let mut columns = if group.wants_token { vec![group.width - 1] } else { Vec::new() };
        for &(_, (_, id)) in group.touches.iter().filter(|touch| touch.0 >= from) {
            match job.program.program.node(id).kind {
                NodeKind::Get(_) => columns.extend(job.columns_read(id, group.width)?),
                _ => return None,
            }
        }
        columns.sort_unstable();
        columns.dedup();
        (columns.len() < group.width && !columns.is_empty()).then_some(columns)
    }

    /// A group has reached the end of its step: it goes on to the next, or is done.
    pub(super) fn finish_step(
        &mut self,
        number: usize,
        state: &mut PassState,
        members: &[usize],
    ) -> Result<(), EngineError> {
        let mut group = std::mem::take(&mut self.groups[number]);
        if self.jobs[group.job].failed.is_none() && group.wants_token {
            self.next_tokens(&mut group, state, members)?;
        }
        // With the last step's token nothing is left to stop.
        if group.wants_token && group.step < group.last_step && !self.stops_of(&group).is_empty() {
            group.place = Place::Deciding;
        } else {
            self.go_on(&mut group);
        }
        self.groups[number] = group;
        Ok(())
    }

    /// The next step of a group, if there is one.
    pub(super) fn go_on(&mut self, group: &mut Group) {
        let more = group.step < group.last_step && group.prompts.iter().any(|prompt| !prompt.finished);
        if more && self.jobs[group.job].failed.is_none() {
            group.step += 1;
            group.place = Place::Start;
            self.begin_step(group);
        } else {
            group.place = Place::Done;
            self.lose_steps(group);
            self.deliver_generated(group);
            group.weights = None;
        }
    }

    /// What a group would have read at steps that it does not reach never comes.
    fn lose_steps(&mut self, group: &Group) {
        for step in group.step + 1..=group.last_step {
            if self.jobs[group.job].failed.is_some() {
                return;
            }
            for &(_, id) in group.asked.outside.get(&step).into_iter().flatten() {
                self.lose(group.job, (OUTSIDE, id));
            }
            for &owner in group.steps.iter() {
                if self.open_step(group, owner, step) {
                    for &(_, id) in group.asked.inside.get(&owner).into_iter().flatten() {
                        self.lose(group.job, (step, id));
                    }
                }
            }
        }
    }

    /// Makes the nodes of a `steps` body known at a step, if the body runs there.
    fn open_step(&mut self, group: &Group, owner: NodeId, step: u64) -> bool {
        let program = self.jobs[group.job].program;
        let NodeKind::Steps { steps, body } = &program.program.node(owner).kind else { return false };
        if !steps.contains(step, group.total_steps()) {
            return false;
        }
        let evaluator = Evaluator { models: self.models, program };
        self.jobs[group.job].begin_step(owner, body, step, &evaluator, self.pool);
        true
    }

    /// Chooses the next token of each prompt, and makes its sequence ready for the next step.
    fn next_tokens(
        &mut self,
        group: &mut Group,
        state: &mut PassState,
        members: &[usize],
    ) -> Result<(), EngineError> {
        let Some(generation) = &group.generation else { return Ok(()) };
        let mut members = members.iter();
        for (prompt_number, prompt) in group.prompts.iter_mut().enumerate() {
            if prompt.finished {
                continue;
            }
            let Some(&member) = members.next() else { continue };
            let token = if self.dry {
                0
            } else {
                let row = state.rows[member].end.checked_sub(1);
                let logits = self.model.stages().logits.and_then(|slot| state.slot(slot));
                let (Some(row), Some(SlotValue::Rows(rows))) = (row, logits) else {
                    return Err(EngineError::Internal("the logits are not there".into()));
                };
                let mut logits = vec![0.0; rows.width()];
                rows.copy_row(row, &mut logits);
                let (label, own) = &group.noise;
                let noise = Noise {
                    seed: self.jobs[group.job].program.program.seed,
                    label: label.clone(),
                    coordinates: own.iter().copied().chain([prompt_number as u64, group.step]).collect(),
                };
                let present: Vec<u32> = prompt.tokens.iter().chain(&prompt.made).copied().collect();
                sampling::choose(&logits, &present, &generation.sampling, &noise)
            };
            prompt.made.push(token);
            if !self.dry {
                if let Some(on_token) = &self.jobs[group.job].options.on_token {
                    on_token(&GeneratedToken {
                        invoke: group.invoke,
                        prompt: prompt_number,
                        step: group.step,
                        token,
                    });
                }
                prompt.finished =
                    group.stop_tokens.contains(&token) || stops(self.model, generation, &prompt.made);
            }
            let empty = Sequence {
                tokens: Vec::new(),
                start: 0,
                caches: Vec::new(),
                keep_caches: false,
                narrow: None,
            };
            let mut sequence = std::mem::replace(&mut state.sequences[member], empty);
            sequence.start += sequence.tokens.len();
            sequence.tokens = vec![i64::from(token)];
            sequence.narrow = None;
            prompt.sequence = (!prompt.finished).then_some(sequence);
        }
        Ok(())
    }

    fn deliver_generated(&mut self, group: &Group) {
        if group.asked.generated.is_empty() || self.jobs[group.job].failed.is_some() {
            return;
        }
        let made = group.prompts.iter().map(|prompt| prompt.made.len()).max().unwrap_or(0);
        let mut cells = vec![-1i64; made * group.prompts.len()];
        for (prompt, cells) in group.prompts.iter().zip(cells.chunks_exact_mut(made.max(1))) {
            for (cell, &token) in cells.iter_mut().zip(&prompt.made) {
                *cell = i64::from(token);
            }
        }
        for &id in &group.asked.generated {
            let outputs = Tensor::from_i64(cells.clone(), &[group.prompts.len(), made]);
            self.deliver(group.job, (OUTSIDE, id), outputs.map(|tensor| vec![tensor]));
        }
    }
}

/// Whether what a prompt has made ends with one of the texts that stop it.
pub(crate) fn stops(model: &Model, generation: &Generation, made: &[u32]) -> bool {
    if generation.stop_texts.is_empty() {
        return false;
    }
    let Some(text) = model.tokenizer().and_then(|tokenizer| tokenizer.decode(made, false).ok()) else {
        return false;
    };
    generation.stop_texts.iter().any(|stop| !stop.is_empty() && text.contains(stop.as_str()))
}
