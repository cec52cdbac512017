//! Running checked programs together: which invokes share a pass, where each waits for another, what each reads and
//! writes on the way.
//!
//! Every invoke is a group of sequences with a place in time: its step, and the stage that comes next. All groups that
//! stand at the same stage walk on in one pass. At a hook point that a program touches its getters and setters run in
//! program order. A group whose setter waits for a value that another group has still to compute is parked there and
//! taken up when the value has come. So passes are cut just where the programs' own dependencies cut them; the checker
//! has made sure that some group can always go on.

use std::collections::BTreeMap;

use pellucid_graph::spec::Axis;
use pellucid_graph::{Generation, NodeId, NodeKind};
use pellucid_models::Model;
use pellucid_models::stage::{HookLayout, Kernel, Slot};

use crate::error::{EngineError, Interruption};
use crate::explain::{PassRecord, Passenger};
use crate::job::{GeneratedToken, Instance, Job, OUTSIDE, Progress};
use crate::nodes::Evaluator;
use crate::operations::{Noise, OperationError};
use crate::pass::{Parked, PassState, Schedule, Sequence, Visitor, walk};
use crate::sampling;
use crate::slots::{BufferPool, SlotValue};
use crate::tensor::Tensor;
use crate::view::{self, Member, Rectangle};

/// Tokens of one pass at most, unless one invoke alone has more.
const PASS_TOKENS: usize = 8192;

/// A getter or setter of the current step: its stage and instance, in the order in which they come.
type Touch = (usize, Instance);

/// One invoke on its way.
struct Group {
    job: usize,
    invoke: usize,
    body: Vec<NodeId>,
    name: String,
    generation: Option<Generation>,
    stop_tokens: Vec<u32>,
    prompts: Vec<Prompt>,
    /// The longest prompt's tokens.
    width: usize,
    step: u64,
    /// The last step that matters.
    last_step: u64,
    touches: Vec<Touch>,
    next_touch: usize,
    /// Where this step ends for it: the stage after the last that matters.
    end: usize,
    wants_token: bool,
    columns: Option<Vec<usize>>,
    place: Place,
    /// Touches outside `steps`, by step: (place, node).
    outside: BTreeMap<u64, Vec<(usize, NodeId)>>,
    generated_node: Vec<NodeId>,
}

struct Prompt {
    tokens: Vec<u32>,
    made: Vec<u32>,
    finished: bool,
    sequence: Option<Sequence>,
}

enum Place {
    /// Before the first stage of its step.
    Start,
    /// At a hook stage, before the touch that comes next.
    Parked(Vec<Parked>),
    /// In the current pass.
    Riding,
    Done,
}

/// Programs that run together, one trace of each.
pub(crate) struct Interleaver<'r, 'a> {
    pub model: &'r Model,
    pub schedule: &'r Schedule,
    pub jobs: &'r mut [Job<'a>],
    pub pool: &'r mut BufferPool,
    pub dry: bool,
    pub passes: Vec<PassRecord>,
    groups: Vec<Group>,
    /// The traces that were added: the job and the trace.
    traces: Vec<(usize, NodeId)>,
}

impl<'r, 'a> Interleaver<'r, 'a> {
    pub fn new(
        model: &'r Model,
        schedule: &'r Schedule,
        jobs: &'r mut [Job<'a>],
        pool: &'r mut BufferPool,
        dry: bool,
    ) -> Self {
        Interleaver {
            model,
            schedule,
            jobs,
            pool,
            dry,
            passes: Vec::new(),
            groups: Vec::new(),
            traces: Vec::new(),
        }
    }

    /// Adds a trace of a job.
    pub fn add(&mut self, job: usize, trace_id: NodeId) {
        let program = self.jobs[job].program;
        let NodeKind::Trace(trace) = &program.program.node(trace_id).kind else { return };
        let body = &trace.body;
        self.traces.push((job, trace_id));
        let evaluator = Evaluator { model: self.model, schedule: self.schedule, program };
        self.jobs[job].begin_trace(body, &evaluator, self.pool);
        let total = trace.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
        for (number, invoke) in trace.invokes.iter().enumerate() {
            let outside = self.jobs[job].touches(body, number);
            let mut last_step = outside.keys().next_back().copied();
            let mut generated_node = Vec::new();
            for &id in body.iter().filter(|id| program.nodes[id.index()].needed) {
                if matches!(program.program.node(id).kind, NodeKind::Generated(invoke) if invoke == number) {
                    generated_node.push(id);
                    last_step = Some(total - 1);
                }
            }
            for &id in body {
                let NodeKind::Steps { steps, body } = &program.program.node(id).kind else { continue };
                if !self.jobs[job].touches(body, number).is_empty()
                    && let Some(last) = (0..total).rev().find(|&step| steps.contains(step, total))
                {
                    last_step = last_step.max(Some(last));
                }
            }
            // Nothing of the invoke is needed: it does not run.
            let Some(last_step) = last_step else { continue };
            let tokens: &[Vec<u32>] = match &invoke.prompts {
                pellucid_graph::Prompts::Tokens(tokens) => tokens,
                pellucid_graph::Prompts::Text { .. } => &[],
            };
            let width = tokens.iter().map(Vec::len).max().unwrap_or(0);
            let prompts = tokens.iter().map(|tokens| Prompt {
                tokens: tokens.clone(),
                made: Vec::new(),
                finished: false,
                sequence: Some(Sequence {
                    tokens: tokens.iter().map(|&token| i64::from(token)).collect(),
                    start: 0,
                    caches: Vec::new(),
                    keep_caches: last_step > 0,
                    narrow: None,
                }),
            });
            let stop_tokens = trace.generation.as_ref().and_then(|generation| generation.stop_tokens.clone());
            let mut group = Group {
                job,
                invoke: number,
                body: body.clone(),
                name: program.program.node(trace_id).name.clone(),
                generation: trace.generation.clone(),
                stop_tokens: stop_tokens.unwrap_or_else(|| self.model.spec().end_tokens.clone()),
                prompts: prompts.collect(),
                width,
                step: 0,
                last_step,
                touches: Vec::new(),
                next_touch: 0,
                end: 0,
                wants_token: false,
                columns: None,
                place: Place::Start,
                outside,
                generated_node,
            };
            self.begin_step(&mut group);
            self.groups.push(group);
        }
    }

    /// Finds what a group touches at its step, and how far it must walk.
    fn begin_step(&mut self, group: &mut Group) {
        let program = self.jobs[group.job].program;
        let total = group.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
        let mut touches: Vec<(usize, Instance)> = Vec::new();
        for (place, id) in group.outside.get(&group.step).into_iter().flatten() {
            touches.push((*place, (OUTSIDE, *id)));
        }
        for &owner in &group.body {
            let NodeKind::Steps { steps, body } = &program.program.node(owner).kind else { continue };
            if !steps.contains(group.step, total) {
                continue;
            }
            let evaluator = Evaluator { model: self.model, schedule: self.schedule, program };
            self.jobs[group.job].begin_step(owner, body, group.step, &evaluator, self.pool);
            for (_, inner) in self.jobs[group.job].touches(body, group.invoke) {
                touches.extend(inner.into_iter().map(|(place, id)| (place, (group.step, id))));
            }
        }
        touches.sort_by_key(|&(place, (_, id))| (place, id));
        group.touches = touches
            .into_iter()
            .map(|(place, instance)| (self.schedule.hook_stage[place], instance))
            .collect();
        group.next_touch = 0;
        group.wants_token = group.step < group.last_step || !group.generated_node.is_empty();
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

    /// Runs every trace that was added to its end.
    pub fn run(&mut self) -> Result<(), EngineError> {
        loop {
            for group in &mut self.groups {
                if self.jobs[group.job].failed.is_some() {
                    group.place = Place::Done;
                }
            }
            match self.next_pass() {
                Some((stage, riders)) => self.pass(stage, riders)?,
                None if self.fail_stuck() => {}
                None => {
                    self.remaining_steps();
                    return Ok(());
                }
            }
        }
    }

    /// Programs whose invokes wait for one another for ever fail, each by itself. The checker should have refused them.
    fn fail_stuck(&mut self) -> bool {
        let mut any = false;
        for group in &self.groups {
            if matches!(group.place, Place::Done) {
                continue;
            }
            any = true;
            if let Some(&(_, (_, id))) = group.touches.get(group.next_touch) {
                let error = OperationError::new("it waits for a value that waits for this edit itself");
                self.jobs[group.job].fail(id, &error);
            }
            // Whatever it was that it waited for, it does not go on.
            self.jobs[group.job].failed.get_or_insert_with(|| {
                EngineError::Internal(format!("invoke {} waits for a value that never comes", group.invoke))
            });
        }
        any
    }

    /// Steps that no invoke walked to: what their bodies compute from outside is there all the same.
    fn remaining_steps(&mut self) {
        for (job, trace_id) in std::mem::take(&mut self.traces) {
            let program = self.jobs[job].program;
            let NodeKind::Trace(trace) = &program.program.node(trace_id).kind else { continue };
            let total = trace.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
            for &owner in &trace.body {
                let NodeKind::Steps { steps, body } = &program.program.node(owner).kind else { continue };
                if self.dry || !body.iter().any(|id| program.nodes[id.index()].needed) {
                    continue;
                }
                let evaluator = Evaluator { model: self.model, schedule: self.schedule, program };
                for step in (0..total).filter(|&step| steps.contains(step, total)) {
                    if self.jobs[job].failed.is_none() {
                        self.jobs[job].begin_step(owner, body, step, &evaluator, self.pool);
                    }
                }
            }
        }
    }

    /// The groups that walk next: all that can go on from the earliest stage.
    fn next_pass(&self) -> Option<(usize, Vec<usize>)> {
        let mut ready: Vec<(usize, bool, usize)> = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            match &group.place {
                Place::Start => ready.push((0, false, number)),
                Place::Parked(parked) => {
                    let instance = group.touches.get(group.next_touch).map(|touch| touch.1);
                    if instance.is_some_and(|instance| self.jobs[group.job].is_ready(instance)) {
                        ready.push((parked.first().map_or(0, |parked| parked.stage), true, number));
                    }
                }
                Place::Riding | Place::Done => {}
            }
        }
        let (stage, resumed) = ready.iter().map(|&(stage, resumed, _)| (stage, resumed)).min()?;
        let mut riders = Vec::new();
        let mut tokens = 0;
        for (_, _, number) in ready.into_iter().filter(|&(at, parked, _)| (at, parked) == (stage, resumed)) {
            let own: usize = self.groups[number]
                .prompts
                .iter()
                .filter(|prompt| !prompt.finished)
                .map(|prompt| if self.groups[number].step == 0 { prompt.tokens.len() } else { 1 })
                .sum();
            if !riders.is_empty() && tokens + own > PASS_TOKENS {
                break;
            }
            tokens += own;
            riders.push(number);
        }
        Some((stage, riders))
    }

    fn pass(&mut self, stage: usize, riders: Vec<usize>) -> Result<(), EngineError> {
        let list = self.model.stages();
        let mut owners = Vec::new();
        let mut starting = Vec::new();
        let mut resuming = Vec::new();
        for &number in &riders {
            let group = &mut self.groups[number];
            match std::mem::replace(&mut group.place, Place::Riding) {
                Place::Parked(parked) => {
                    for parked in parked {
                        owners.push(number);
                        resuming.push(parked);
                    }
                }
                _ => {
                    for prompt in &mut group.prompts {
                        if let Some(sequence) = prompt.sequence.take_if(|_| !prompt.finished) {
                            owners.push(number);
                            starting.push(sequence);
                        }
                    }
                }
            }
        }
        let resumed = !resuming.is_empty();
        let mut state =
            if resumed { PassState::resume(list, resuming) } else { PassState::begin(list, starting) };
        let end = riders.iter().map(|&number| self.groups[number].end).max().unwrap_or(0);
        let passengers = riders.iter().map(|&number| {
            let group = &self.groups[number];
            Passenger {
                invoke: group.invoke,
                step: group.step,
                prompts: owners.iter().filter(|&&owner| owner == number).count(),
                tokens: owners
                    .iter()
                    .zip(&state.sequences)
                    .filter(|(owner, _)| **owner == number)
                    .map(|(_, sequence)| sequence.tokens.len())
                    .sum(),
                columns: group.columns.clone(),
                until: group.end,
            }
        });
        self.passes.push(PassRecord {
            from: stage,
            to: end,
            passengers: passengers.collect(),
            parked: Vec::new(),
        });
        let mut riding: Vec<usize> = riders.iter().map(|&number| self.groups[number].job).collect();
        riding.dedup();
        for &job in &riding {
            let report = &mut self.jobs[job].results.report;
            report.passes += 1;
        }
        for (owner, sequence) in owners.iter().zip(&state.sequences) {
            self.jobs[self.groups[*owner].job].results.report.tokens += sequence.tokens.len() as u64;
        }
        let outcome = self.walk(stage, end, resumed, &mut state, owners);
        match outcome {
            Ok(owners) => self.finish_pass(&mut state, &owners),
            Err(Interruption::AllFailed) => Ok(()),
            Err(Interruption::Internal(message)) => Err(EngineError::Internal(message)),
        }
    }

    /// Walks the pass; gives back whose the sequences are that reached its end.
    fn walk(
        &mut self,
        stage: usize,
        end: usize,
        resumed: bool,
        state: &mut PassState,
        owners: Vec<usize>,
    ) -> Result<Vec<usize>, Interruption> {
        let (model, schedule, dry) = (self.model, self.schedule, self.dry);
        let mut pool = std::mem::take(self.pool);
        let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, &number) in owners.iter().enumerate() {
            if place > 0 && owners[place - 1] == number {
                continue;
            }
            let group = &self.groups[number];
            for (at, _) in &group.touches[group.next_touch..] {
                let groups = touched.entry(*at).or_default();
                if groups.last() != Some(&number) {
                    groups.push(number);
                }
            }
        }
        let stages: Vec<usize> = touched.keys().copied().collect();
        let mut rider = Rider { run: self, owners, touched, scratch: BufferPool::default() };
        let mut outcome = Ok(());
        if resumed {
            outcome = rider.visit_stage(stage, state);
        }
        let from = if resumed { stage + 1 } else { stage };
        if outcome.is_ok() {
            outcome = if dry {
                stages
                    .iter()
                    .filter(|&&at| at >= from && at < end)
                    .try_for_each(|&at| rider.visit_stage(at, state))
            } else {
                walk(model, schedule, from..end, state, &mut pool, &mut rider)
            };
        }
        let owners = std::mem::take(&mut rider.owners);
        *self.pool = pool;
        outcome.map(|()| owners)
    }

    /// Groups that reached the end of their step go on to the next, or are done.
    fn finish_pass(&mut self, state: &mut PassState, owners: &[usize]) -> Result<(), EngineError> {
        let mut numbers: Vec<usize> = owners.to_vec();
        numbers.dedup();
        for number in numbers {
            let members: Vec<usize> = (0..owners.len()).filter(|&at| owners[at] == number).collect();
            self.finish_step(number, state, &members)?;
        }
        Ok(())
    }

    fn finish_step(
        &mut self,
        number: usize,
        state: &mut PassState,
        members: &[usize],
    ) -> Result<(), EngineError> {
        let mut group = std::mem::replace(&mut self.groups[number], Group::empty());
        if self.jobs[group.job].failed.is_none() && group.wants_token {
            self.next_tokens(&mut group, state, members)?;
        }
        let more = group.step < group.last_step && group.prompts.iter().any(|prompt| !prompt.finished);
        if more && self.jobs[group.job].failed.is_none() {
            group.step += 1;
            group.place = Place::Start;
            self.begin_step(&mut group);
        } else {
            group.place = Place::Done;
            self.lose_steps(&group);
            self.deliver_generated(&group);
        }
        self.groups[number] = group;
        Ok(())
    }

    /// What a group would have read at steps that it does not reach never comes.
    fn lose_steps(&mut self, group: &Group) {
        let program = self.jobs[group.job].program;
        let total = group.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
        for step in group.step + 1..=group.last_step {
            if self.jobs[group.job].failed.is_some() {
                return;
            }
            for &(_, id) in group.outside.get(&step).into_iter().flatten() {
                self.jobs[group.job].lose((OUTSIDE, id));
            }
            for &owner in &group.body {
                let NodeKind::Steps { steps, body } = &program.program.node(owner).kind else { continue };
                if !steps.contains(step, total) {
                    continue;
                }
                let evaluator = Evaluator { model: self.model, schedule: self.schedule, program };
                self.jobs[group.job].begin_step(owner, body, step, &evaluator, self.pool);
                for (_, touches) in self.jobs[group.job].touches(body, group.invoke) {
                    touches.into_iter().for_each(|(_, id)| self.jobs[group.job].lose((step, id)));
                }
            }
        }
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
                let noise = Noise {
                    seed: self.jobs[group.job].program.program.seed,
                    label: group.name.clone(),
                    coordinates: vec![group.invoke as u64, prompt_number as u64, group.step],
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
        if group.generated_node.is_empty() || self.jobs[group.job].failed.is_some() {
            return;
        }
        let made = group.prompts.iter().map(|prompt| prompt.made.len()).max().unwrap_or(0);
        let mut cells = vec![-1i64; made * group.prompts.len()];
        for (prompt, cells) in group.prompts.iter().zip(cells.chunks_exact_mut(made.max(1))) {
            for (cell, &token) in cells.iter_mut().zip(&prompt.made) {
                *cell = i64::from(token);
            }
        }
        for &id in &group.generated_node {
            let outputs = Tensor::from_i64(cells.clone(), &[group.prompts.len(), made]);
            self.deliver(group.job, (OUTSIDE, id), outputs.map(|tensor| vec![tensor]));
        }
    }

    fn deliver(&mut self, job: usize, instance: Instance, outputs: Result<Vec<Tensor>, OperationError>) {
        let program = self.jobs[job].program;
        let evaluator = Evaluator { model: self.model, schedule: self.schedule, program };
        match outputs {
            Ok(outputs) => self.jobs[job].deliver(instance, outputs, &evaluator, self.pool),
            Err(error) => self.jobs[job].fail(instance.1, &error),
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

impl Group {
    /// What stands in a group's place while it is being worked on.
    fn empty() -> Group {
        Group {
            job: 0,
            invoke: 0,
            body: Vec::new(),
            name: String::new(),
            generation: None,
            stop_tokens: Vec::new(),
            prompts: Vec::new(),
            width: 0,
            step: 0,
            last_step: 0,
            touches: Vec::new(),
            next_touch: 0,
            end: 0,
            wants_token: false,
            columns: None,
            place: Place::Done,
            outside: BTreeMap::new(),
            generated_node: Vec::new(),
        }
    }

    /// The group's rectangle; `owners` says whose each sequence of the pass is.
    fn rectangle(&self, number: usize, owners: &[usize], narrowed: bool) -> Rectangle {
        let mut sequences = (0..owners.len()).filter(|&at| owners[at] == number);
        let members = self.prompts.iter().map(|prompt| Member {
            sequence: if prompt.finished { None } else { sequences.next() },
            padding: if self.step == 0 { self.width - prompt.tokens.len() } else { 0 },
        });
        Rectangle {
            members: members.collect(),
            length: if self.step == 0 { self.width } else { 1 },
            context: self.width + self.step as usize,
            columns: if narrowed { self.columns.clone() } else { None },
        }
    }
}

/// Watches one pass for its groups.
struct Rider<'v, 'r, 'a> {
    run: &'v mut Interleaver<'r, 'a>,
    /// The group of each sequence of the pass.
    owners: Vec<usize>,
    /// The groups that touch a hook point in this pass, by its stage.
    touched: BTreeMap<usize, Vec<usize>>,
    /// Buffers for what nodes compute while the pass has the others.
    scratch: BufferPool,
}

impl Rider<'_, '_, '_> {
    fn visit_stage(&mut self, stage: usize, state: &mut PassState) -> Result<(), Interruption> {
        let kernel = &self.run.model.stages().stages[stage];
        let Kernel::Hook { point, layout } = kernel.kernel else { return Ok(()) };
        let groups = self.touched.get(&stage).cloned().unwrap_or_default();
        // All touches of this hook point, program by program, in program order.
        let mut touches: Vec<(usize, NodeId, usize, Instance)> = Vec::new();
        for &number in &groups {
            let group = &self.run.groups[number];
            if !matches!(group.place, Place::Riding) {
                continue;
            }
            let own = group.touches[group.next_touch..].iter().take_while(|touch| touch.0 == stage);
            touches.extend(own.map(|&(_, instance)| (group.job, instance.1, number, instance)));
        }
        touches.sort_by_key(|&(job, id, number, _)| (job, id, number));
        // The one touch with which the pass ends may take the value along instead of copying it.
        let last = touches.len() == 1
            && self.run.passes.last().is_some_and(|pass| pass.to == stage + 1)
            && groups.iter().all(|&number| !self.run.groups[number].wants_token);
        let mut blocked: Vec<usize> = Vec::new();
        for (job, id, number, instance) in touches {
            if self.run.jobs[job].failed.is_some() || blocked.contains(&number) {
                continue;
            }
            match &self.run.jobs[job].program.program.node(id).kind {
                NodeKind::Get(_) => {
                    let outputs = if self.run.dry {
                        Ok(Vec::new())
                    } else {
                        let rectangle =
                            self.run.groups[number].rectangle(number, &self.owners, state.narrowed);
                        let slot = kernel.outputs[0];
                        let value = if last {
                            view::take(state, slot, layout, &rectangle)
                        } else {
                            view::read(state, slot, layout, &rectangle)
                        };
                        value.map(|tensor| vec![tensor])
                    };
                    std::mem::swap(self.run.pool, &mut self.scratch);
                    self.run.deliver(job, instance, outputs);
                    std::mem::swap(self.run.pool, &mut self.scratch);
                    self.run.groups[number].next_touch += 1;
                }
                NodeKind::Set { .. } if !self.run.jobs[job].is_ready(instance) => blocked.push(number),
                NodeKind::Set { value, .. } => {
                    if !self.run.dry {
                        let written = self.run.jobs[job].value(*value, instance.0);
                        let outcome = match written {
                            Some(written) => {
                                self.write(state, kernel.outputs[0], point, layout, number, &written)
                            }
                            None if self.run.jobs[job].is_lost(instance) => Ok(()),
                            None => Err(OperationError::new("the value is not there")),
                        };
                        if let Err(error) = outcome {
                            self.run.jobs[job].fail(id, &error);
                        }
                    }
                    self.run.jobs[job].applied(instance);
                    self.run.groups[number].next_touch += 1;
                }
                _ => {}
            }
        }
        self.leave(stage, state, &groups, &blocked)
    }

    fn write(
        &mut self,
        state: &mut PassState,
        slot: Slot,
        point: usize,
        layout: HookLayout,
        number: usize,
        value: &Tensor,
    ) -> Result<(), OperationError> {
        let rectangle = self.run.groups[number].rectangle(number, &self.owners, state.narrowed);
        let hook = &self.run.model.spec().hook_points[point];
        let value = fit(value, &hook.shape, hook.dtype, &rectangle)?;
        view::write(state, slot, layout, &rectangle, &value, self.run.schedule.id_limit(slot))
    }

    /// Parks the groups that must wait, and lets those go that are at their end or whose program has failed.
    fn leave(
        &mut self,
        stage: usize,
        state: &mut PassState,
        groups: &[usize],
        blocked: &[usize],
    ) -> Result<(), Interruption> {
        let mut leaving: Vec<usize> = Vec::new();
        for &number in groups {
            let group = &self.run.groups[number];
            let failed = self.run.jobs[group.job].failed.is_some();
            let over = group.next_touch >= group.touches.len() && !group.wants_token;
            if matches!(group.place, Place::Riding) && (failed || over || blocked.contains(&number)) {
                leaving.push(number);
            }
        }
        if leaving.is_empty() {
            return Ok(());
        }
        for &number in &leaving {
            let sequences: Vec<usize> =
                (0..self.owners.len()).filter(|&at| self.owners[at] == number).collect();
            let parked = if blocked.contains(&number) { state.park(&sequences, stage) } else { Vec::new() };
            if parked.is_empty() {
                state.remove(&sequences);
            }
            self.owners.retain(|&owner| owner != number);
            let group = &mut self.run.groups[number];
            if self.run.jobs[group.job].failed.is_some() {
                group.place = Place::Done;
            } else if blocked.contains(&number) {
                group.place = Place::Parked(parked);
                if let Some(record) = self.run.passes.last_mut() {
                    record.parked.push((stage, group.invoke));
                }
            } else {
                // Early exit: nothing above matters to it.
                let finished = self.run.finish_step(number, state, &[]);
                finished.map_err(|error| Interruption::Internal(error.to_string()))?;
            }
        }
        Ok(())
    }
}

impl Visitor for Rider<'_, '_, '_> {
    fn touches(&self, stage: usize) -> bool {
        self.touched.contains_key(&stage)
    }

    fn sequence_touches(&self, stage: usize, sequence: usize) -> bool {
        self.touched.get(&stage).is_some_and(|groups| groups.contains(&self.owners[sequence]))
    }

    fn visit(&mut self, stage: usize, _point: usize, state: &mut PassState) -> Result<(), Interruption> {
        self.visit_stage(stage, state)
    }

    fn between(&mut self, stage: usize, _state: &PassState) -> Result<(), Interruption> {
        let mut alive = false;
        let passes = self.run.passes.len();
        let end = self.run.passes.last().map_or(1, |pass| pass.to).max(1);
        for &number in &self.owners {
            let job = &mut self.run.jobs[self.run.groups[number].job];
            job.check_budget();
            alive |= job.failed.is_none();
            if let Some(on_progress) = &job.options.on_progress {
                on_progress(&Progress { passes, part: stage as f64 / end as f64 });
            }
        }
        if alive { Ok(()) } else { Err(Interruption::AllFailed) }
    }
}

/// A value as a hook point's: cast to its number type, expanded to its shape.
pub(crate) fn fit(
    value: &Tensor,
    axes: &[Axis],
    dtype: pellucid_graph::DType,
    rectangle: &Rectangle,
) -> Result<Tensor, OperationError> {
    let shape: Vec<usize> = axes
        .iter()
        .map(|axis| match axis {
            Axis::Prompts => rectangle.members.len(),
            Axis::Length => rectangle.length,
            Axis::Context => rectangle.context,
            Axis::Size(size) => *size as usize,
        })
        .collect();
    let value = value.cast(dtype)?;
    if value.shape() == shape {
        return Ok(value);
    }
    let expanded = value.data().broadcast_as(shape.as_slice()).map_err(|_| {
        OperationError::new(format!(
            "the hook point has shape {shape:?}, but it is set to shape {:?}",
            value.shape()
        ))
    })?;
    Tensor::new(expanded, dtype)
}
