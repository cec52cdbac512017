//! How a group's step begins and ends: what it touches, how far it walks, and the next tokens.

use std::collections::BTreeSet;
use std::ops::Range;

use pellucid_graph::{Generation, NodeId, NodeKind};
use pellucid_models::Model;

use super::group::{Group, Place};
use super::member::{Ground, Member};
use super::packing::Seat;
use crate::error::Interruption;
use crate::job::{GeneratedToken, Instance, OUTSIDE};
use crate::loaded::Loaded;
use crate::operations::{Noise, OperationError};
use crate::pass::PassState;
use crate::plan::{Alike, Asker, Outlook, Rewrites, end, positions};
use crate::sampling;
use crate::slots::{BufferPool, SlotValue};
use crate::tensor::Tensor;

/// Lets those invokes compute the same columns that have the same rows where these are narrowed. Gives back one of them.
pub(super) fn agree_on_columns(members: &mut [Member<'_>], there: &[Seat], from: usize) -> Option<Seat> {
    let mut all = Some(BTreeSet::new());
    for seat in there {
        let own = members[seat.member].groups[seat.invoke].columns.as_ref();
        all = all.zip(own).map(|(all, own)| all.into_iter().chain(own.iter().copied()).collect());
    }
    let all = all.map(|all| all.into_iter().collect::<Vec<usize>>());
    for seat in there {
        let member = &mut members[seat.member];
        if member.groups[seat.invoke].columns != all {
            member.set_columns(seat.invoke, all.clone(), from);
        }
    }
    there.first().copied()
}

impl Member<'_> {
    /// Finds what an invoke touches at its step, and how far it must walk.
    pub(super) fn begin_step(&mut self, invoke: usize, ground: Ground<'_>, pool: &mut BufferPool) {
        let Some(loaded) = ground.models.get(self.model) else { return };
        let mut touches: Vec<(usize, Instance)> = Vec::new();
        let group = &self.groups[invoke];
        let (step, total, bodies) = (group.step, group.total_steps(), group.steps.clone());
        for (place, id) in group.asked.outside.get(&step).into_iter().flatten() {
            touches.push((*place, (OUTSIDE, *id)));
        }
        for &owner in bodies.iter() {
            if self.open_step(owner, step, total, ground, pool) {
                let inner = self.groups[invoke].asked.inside.get(&owner).into_iter().flatten();
                touches.extend(inner.map(|&(place, id)| (place, (step, id))));
            }
        }
        touches.sort_by_key(|&(place, (_, id))| (place, id));
        let group = &mut self.groups[invoke];
        group.touches = touches
            .into_iter()
            .map(|(place, instance)| (loaded.schedule.hook_stage[place], instance))
            .collect();
        group.next_touch = 0;
        group.wants_token = step < group.last_step || !group.asked.generated.is_empty();
        let list = loaded.model.stages();
        group.end = end(&group.touches, group.wants_token, list.stages.len());
        let columns = self.columns(&self.groups[invoke], loaded);
        let group = &mut self.groups[invoke];
        (group.forked, group.partings) = (0, 0);
        self.set_columns(invoke, columns, list.token_wise_from);
        self.set_vocabulary(invoke, loaded, ground.rewrites);
        let mut alike = std::mem::take(&mut self.alike);
        let outlook = self.outlook(&self.groups[invoke], loaded, ground.rewrites, &mut alike);
        (self.groups[invoke].outlook, self.alike) = (outlook, alike);
        self.groups[invoke].cached = self.look_up(&self.groups[invoke], loaded, ground.rewrites);
        self.resume_from_cache(invoke, loaded, ground);
    }

    /// The columns of an invoke's rectangle that are computed from the narrowing stage on; none: all.
    pub(super) fn set_columns(&mut self, invoke: usize, columns: Option<Vec<usize>>, from: usize) {
        let group = &mut self.groups[invoke];
        group.columns = columns;
        let narrow: Vec<_> =
            group.prompts.iter().map(|prompt| group.narrow(prompt.tokens.len(), 0)).collect();
        for (prompt, narrow) in group.prompts.iter_mut().zip(narrow) {
            if let Some(sequence) = &mut prompt.sequence {
                sequence.narrow = narrow;
            }
        }
        for &(_, instance) in group.touches.iter().filter(|touch| touch.0 >= from) {
            match &group.columns {
                Some(columns) => self.job.narrowed.insert(instance, columns.clone()),
                None => self.job.narrowed.remove(&instance),
            };
        }
    }

    /// What is known of an invoke's rows before it walks. Those of a later step are one token after what it made itself: it
    /// shares none of them.
    fn outlook(&self, group: &Group, loaded: &Loaded, rewrites: Rewrites, alike: &mut Alike) -> Outlook {
        if group.step > 0 || rewrites == Rewrites::NONE {
            return Outlook::default();
        }
        let job = &self.job;
        let users = |id: NodeId| job.readers(id);
        let asker = Asker {
            program: &job.program,
            list: loaded.model.stages(),
            users: &users,
            invoke: group.invoke,
            width: group.width,
        };
        let others = rewrites.depth && self.groups.len() > 1;
        alike.defers = job.defers;
        let alike = others.then_some((alike, group.trace));
        let outlook = Outlook::of(&asker, &group.touches, rewrites, alike);
        // On the way back all of its rows are read.
        if group.goes_back() { outlook.whole() } else { outlook }
    }

    /// The columns of the rectangle that matter from the final norm on; none: all of them.
    fn columns(&self, group: &Group, loaded: &Loaded) -> Option<Vec<usize>> {
        let from = loaded.model.stages().token_wise_from;
        if group.step > 0 || group.end <= from {
            return None;
        }
        // A gradient there is that of the whole.
        if group.asked.gradients.iter().any(|&place| loaded.schedule.hook_stage[place] >= from) {
            return None;
        }
        let touches = group.touches.iter().filter(|touch| touch.0 >= from).map(|&(_, (_, id))| id);
        let users = |id: NodeId| self.job.users_of(id);
        positions(&self.job.program, &users, touches, group.wants_token, group.width)
    }

    /// An invoke has reached the end of its step, with its sequences in those places of the pass: it goes on to the next,
    /// or is done.
    pub(super) fn finish_step(
        &mut self,
        invoke: usize,
        state: &PassState,
        members: Range<usize>,
        ground: Ground<'_>,
        pool: &mut BufferPool,
    ) -> Result<(), Interruption> {
        let wants_token = self.groups[invoke].wants_token;
        if self.job.failed.is_none() && wants_token {
            self.next_tokens(invoke, state, members, ground)?;
        }
        // With the last step's token nothing is left to stop.
        let group = &self.groups[invoke];
        if wants_token && group.step < group.last_step && !self.stops_of(group).is_empty() {
            self.groups[invoke].place = Place::Deciding;
        } else {
            self.go_on(invoke, ground, pool);
        }
        Ok(())
    }

    /// The next step of an invoke, if there is one.
    pub(super) fn go_on(&mut self, invoke: usize, ground: Ground<'_>, pool: &mut BufferPool) {
        let group = &mut self.groups[invoke];
        let more = group.step < group.last_step && group.prompts.iter().any(|prompt| !prompt.finished);
        if more && self.job.failed.is_none() {
            group.step += 1;
            group.place = Place::Start;
            self.begin_step(invoke, ground, pool);
        } else {
            group.place = Place::Done;
            self.lose_steps(invoke, ground, pool);
            self.deliver_generated(invoke, ground, pool);
            let group = &mut self.groups[invoke];
            // A way back goes through what the pass ran with.
            if group.tracked.is_none() {
                group.weights = None;
            }
        }
    }

    /// What an invoke would have read at steps that it does not reach never comes.
    fn lose_steps(&mut self, invoke: usize, ground: Ground<'_>, pool: &mut BufferPool) {
        let group = &self.groups[invoke];
        let (steps, total, bodies) =
            (group.step + 1..=group.last_step, group.total_steps(), group.steps.clone());
        for step in steps {
            if self.job.failed.is_some() {
                return;
            }
            let outside = self.groups[invoke].asked.outside.get(&step).cloned();
            for (_, id) in outside.into_iter().flatten() {
                self.job.lose((OUTSIDE, id), ground.models, pool);
            }
            for &owner in bodies.iter() {
                if self.open_step(owner, step, total, ground, pool) {
                    let inside = self.groups[invoke].asked.inside.get(&owner).cloned();
                    for (_, id) in inside.into_iter().flatten() {
                        self.job.lose((step, id), ground.models, pool);
                    }
                }
            }
        }
    }

    /// Makes the nodes of a `steps` body known at a step of so many, if the body runs there.
    fn open_step(
        &mut self,
        owner: NodeId,
        step: u64,
        total: u64,
        ground: Ground<'_>,
        pool: &mut BufferPool,
    ) -> bool {
        let program = self.job.program.clone();
        let NodeKind::Steps { steps, .. } = &program.program.node(owner).kind else { return false };
        if !steps.contains(step, total) {
            return false;
        }
        self.job.begin_step(owner, step, ground.models, pool);
        true
    }

    /// Chooses the next token of each prompt, and makes its sequence ready for the next step.
    fn next_tokens(
        &mut self,
        invoke: usize,
        state: &PassState,
        mut members: Range<usize>,
        ground: Ground<'_>,
    ) -> Result<(), Interruption> {
        let Self { groups, job, .. } = self;
        let Some(loaded) = ground.models.get(self.model) else { return Ok(()) };
        let model = &loaded.model;
        let group = &mut groups[invoke];
        let Some(generation) = &group.generation else { return Ok(()) };
        for (prompt_number, prompt) in group.prompts.iter_mut().enumerate() {
            if prompt.finished {
                continue;
            }
            let Some(member) = members.next() else { continue };
            let token = if ground.dry {
                0
            } else {
                let row = state.rows[member].end.checked_sub(1);
                let logits = model.stages().logits.and_then(|slot| state.slot(slot));
                let (Some(row), Some(SlotValue::Rows(rows))) = (row, logits) else {
                    return Err(Interruption::missing("the logits"));
                };
                let mut logits = vec![0.0; rows.width()];
                rows.copy_row(row, &mut logits);
                logits.truncate(model.drawn_tokens());
                let (label, own) = &group.noise;
                let noise = Noise {
                    seed: job.program.program.seed,
                    label: label.clone(),
                    coordinates: own.iter().copied().chain([prompt_number as u64, group.step]).collect(),
                };
                let present: Vec<u32> = prompt.tokens.iter().chain(&prompt.made).copied().collect();
                sampling::choose(&logits, &present, &generation.sampling, &noise)
            };
            prompt.made.push(token);
            if !ground.dry {
                if let Some(on_token) = &job.options.on_token {
                    on_token(&GeneratedToken {
                        invoke: group.invoke,
                        prompt: prompt_number,
                        step: group.step,
                        token,
                    });
                }
                prompt.finished =
                    group.stop_tokens.contains(&token) || stops(model, generation, &prompt.made);
            }
            let goes_on = !prompt.finished && group.step < group.last_step;
            prompt.sequence = goes_on.then(|| state.sequences[member].then(token));
        }
        Ok(())
    }

    fn deliver_generated(&mut self, invoke: usize, ground: Ground<'_>, pool: &mut BufferPool) {
        let group = &self.groups[invoke];
        if group.asked.generated.is_empty() || self.job.failed.is_some() {
            return;
        }
        let made: Vec<&[u32]> = group.prompts.iter().map(|prompt| prompt.made.as_slice()).collect();
        let outputs = group.asked.generated.iter().map(|&id| (id, made_tokens(&made, group.total_steps())));
        for (id, tensor) in outputs.collect::<Vec<_>>() {
            self.deliver((OUTSIDE, id), tensor.map(|tensor| vec![tensor]), ground, pool);
        }
    }
}

/// The tokens that prompts made, `[prompts, steps]`, −1 behind them.
fn made_tokens(made: &[&[u32]], steps: u64) -> Result<Tensor, OperationError> {
    let width = usize::try_from(steps).unwrap_or(usize::MAX);
    let token = |made: &[u32], at: usize| made.get(at).map_or(-1, |&token| i64::from(token));
    let cells = made.iter().flat_map(|made| (0..width).map(move |at| token(made, at)));
    Tensor::from_i64(cells.collect(), &[made.len(), width])
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
