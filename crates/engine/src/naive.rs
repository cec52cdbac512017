//! The judge: a second, simple interpreter, with nothing clever in it.
//!
//! One invoke at a time, each a coroutine that walks as far as somebody's value demands. No packing of invokes, no fused
//! kernels, no early exit, every logit computed. It shares the kernels and the reading and writing of hook points with
//! the planned run, and nothing of its planning: whatever the planner does, results must be the same bit for bit.

mod gradients;

use std::collections::HashMap;

use pellucid_graph::check::CheckedProgram;
use pellucid_graph::{Generation, NodeId, NodeKind, Prompts};
use pellucid_models::Model;
use pellucid_models::stage::{Kernel, StageList};

use crate::error::{EngineError, Interruption};
use crate::interleave::stops;
use crate::job::{Instance, OUTSIDE};
use crate::nodes::Evaluator;
use crate::operations::{Noise, OperationError};
use crate::pass::{PassState, Schedule, Sequence, Visitor, walk};
use crate::results::{LogEntry, Results};
use crate::reverse::Tape;
use crate::sampling;
use crate::slots::{BufferPool, SlotValue};
use crate::tensor::Tensor;
use crate::view::{self, Member, Rectangle, fit};
use gradients::Back;

/// Looks everywhere, so that nothing is fused and scores are always materialised; keeps everything for the way back if
/// there is one.
struct Everywhere<'t> {
    list: &'t StageList,
    tape: Option<&'t mut Tape>,
}

impl Visitor for Everywhere<'_> {
    fn tracks(&self, _stage: usize) -> bool {
        self.tape.is_some()
    }

    fn record(&mut self, stage: usize, state: &PassState) {
        if let Some(tape) = &mut self.tape {
            tape.record(&self.list.stages[stage], state, 0..state.sequences.len());
        }
    }

    fn touches(&self, _stage: usize) -> bool {
        true
    }

    fn sequence_touches(&self, _stage: usize, _sequence: usize) -> bool {
        true
    }

    fn visit(&mut self, _stage: usize, _point: usize, _state: &mut PassState) -> Result<(), Interruption> {
        Ok(())
    }

    fn between(&mut self, _stage: usize, _state: &PassState) -> Result<(), Interruption> {
        Ok(())
    }
}

/// One invoke, walking on demand.
struct Walker {
    invoke: usize,
    name: String,
    generation: Option<Generation>,
    prompts: Vec<Vec<u32>>,
    made: Vec<Vec<u32>>,
    finished: Vec<bool>,
    width: usize,
    step: u64,
    /// The stage that comes next.
    stage: usize,
    state: PassState,
    /// Every getter and setter in order: step, stage, instance.
    touches: Vec<(u64, usize, Instance)>,
    next: usize,
    /// What is kept for ways back.
    tape: Tape,
    /// Generation has stopped: later steps never come.
    over: bool,
}

/// Runs a program the simple way.
pub(crate) struct Naive<'a> {
    pub model: &'a Model,
    pub schedule: &'a Schedule,
    pub program: &'a CheckedProgram,
    /// What is known: none, where generation had stopped before.
    values: HashMap<Instance, Option<Vec<Tensor>>>,
    walkers: Vec<Walker>,
    /// Each `backward` that was asked for a gradient.
    backs: HashMap<NodeId, Back>,
    results: Results,
    pool: BufferPool,
    /// The getter or setter at work: an error on the way to a later one is its own.
    touching: Option<NodeId>,
}

impl<'a> Naive<'a> {
    pub fn new(model: &'a Model, schedule: &'a Schedule, program: &'a CheckedProgram) -> Self {
        Naive {
            model,
            schedule,
            program,
            values: HashMap::new(),
            walkers: Vec::new(),
            backs: HashMap::new(),
            results: Results::default(),
            pool: BufferPool::default(),
            touching: None,
        }
    }

    pub fn run(mut self) -> Result<Results, EngineError> {
        let program = self.program;
        for (id, trace) in program.program.traces() {
            let total = trace.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
            self.walkers = (0..trace.invokes.len()).map(|invoke| self.walker(id, invoke, total)).collect();
            for &node in trace.body.iter() {
                match &program.program.node(node).kind {
                    NodeKind::Steps { steps, body } => {
                        for step in (0..total).filter(|&step| steps.contains(step, total)) {
                            for &inner in body {
                                self.need((step, inner))?;
                            }
                        }
                    }
                    _ => self.need((OUTSIDE, node))?,
                }
            }
        }
        Ok(self.results)
    }

    fn at(&self, id: NodeId, step: u64) -> Instance {
        (if self.program.nodes[id.index()].steps.is_some() { step } else { OUTSIDE }, id)
    }

    fn walker(&self, trace_id: NodeId, invoke: usize, total: u64) -> Walker {
        let program = &self.program.program;
        let NodeKind::Trace(trace) = &program.node(trace_id).kind else {
            return self.walker_of(trace_id, invoke, None, Vec::new(), Vec::new());
        };
        let mut touches = Vec::new();
        let mut touch = |id: NodeId, steps: &mut dyn Iterator<Item = (u64, u64)>| {
            let (NodeKind::Get(address) | NodeKind::Set { address, .. }) = &program.node(id).kind else {
                return;
            };
            let Some(place) =
                self.program.nodes[id.index()].place.filter(|_| self.program.nodes[id.index()].needed)
            else {
                return;
            };
            if address.invoke == invoke {
                for (step, key) in steps {
                    touches.push((step, self.schedule.hook_stage[place], (key, id)));
                }
            }
        };
        for &id in &trace.body {
            match &program.node(id).kind {
                NodeKind::Steps { steps, body } => {
                    for &inner in body {
                        touch(
                            inner,
                            &mut (0..total)
                                .filter(|&step| steps.contains(step, total))
                                .map(|step| (step, step)),
                        );
                    }
                }
                NodeKind::Get(address) | NodeKind::Set { address, .. } => {
                    touch(id, &mut std::iter::once((address.step.unwrap_or(0), OUTSIDE)));
                }
                _ => {}
            }
        }
        touches.sort_by_key(|&(step, stage, (_, id))| (step, stage, id));
        let prompts = match &trace.invokes[invoke].prompts {
            Prompts::Tokens(tokens) => tokens.clone(),
            Prompts::Text { .. } => Vec::new(),
        };
        self.walker_of(trace_id, invoke, trace.generation.clone(), prompts, touches)
    }

    fn walker_of(
        &self,
        trace_id: NodeId,
        invoke: usize,
        generation: Option<Generation>,
        prompts: Vec<Vec<u32>>,
        touches: Vec<(u64, usize, Instance)>,
    ) -> Walker {
        let sequences = prompts.iter().map(|tokens| Sequence {
            tokens: tokens.iter().map(|&token| i64::from(token)).collect(),
            start: 0,
            caches: Vec::new(),
            keep_caches: true,
            narrow: None,
        });
        Walker {
            invoke,
            name: self.program.program.node(trace_id).name.clone(),
            generation,
            made: vec![Vec::new(); prompts.len()],
            finished: vec![false; prompts.len()],
            width: prompts.iter().map(Vec::len).max().unwrap_or(0),
            step: 0,
            stage: 0,
            state: PassState::begin(self.model.stages(), sequences.collect()),
            prompts,
            touches,
            next: 0,
            tape: Tape::default(),
            over: false,
        }
    }

    /// Computes a node and whatever it needs.
    fn need(&mut self, instance: Instance) -> Result<(), EngineError> {
        let mut open = vec![instance];
        while let Some(&instance) = open.last() {
            let (step, id) = instance;
            let node = self.program.program.node(id);
            if self.values.contains_key(&instance) || !self.program.nodes[id.index()].needed {
                open.pop();
                continue;
            }
            let done = match &node.kind {
                NodeKind::Get(address) | NodeKind::Set { address, .. } => {
                    self.reach(address.invoke, instance)
                }
                NodeKind::Generated(invoke) => self.reach_end(*invoke, instance),
                NodeKind::Grad { backward, .. } => {
                    let reads = self.program.program.node(*backward).kind.values();
                    let missing = reads.iter().map(|value| (OUTSIDE, value.node));
                    match missing.into_iter().find(|read| !self.values.contains_key(read)) {
                        Some(missing) => Ok(Some(missing)),
                        None => self.gradient(id).map(|()| None),
                    }
                }
                kind => {
                    let missing = kind
                        .values()
                        .into_iter()
                        .map(|value| self.at(value.node, step))
                        .find(|read| !self.values.contains_key(read));
                    match missing {
                        Some(missing) => Ok(Some(missing)),
                        None => self.compute(instance).map(|()| None),
                    }
                }
            };
            match done {
                Ok(Some(missing)) => open.push(missing),
                Ok(None) => {
                    open.pop();
                }
                Err(error) => {
                    let node = self.touching.map_or(node, |id| self.program.program.node(id));
                    return Err(EngineError::Node(Box::new(error.at(node))));
                }
            }
        }
        Ok(())
    }

    fn compute(&mut self, instance: Instance) -> Result<(), OperationError> {
        let (step, id) = instance;
        let kind = &self.program.program.node(id).kind;
        let mut read: HashMap<pellucid_graph::Value, Tensor> = HashMap::new();
        for value in kind.values() {
            match self.values.get(&self.at(value.node, step)) {
                Some(Some(outputs)) if outputs.len() > value.output as usize => {
                    read.insert(value, outputs[value.output as usize].clone());
                }
                _ => {
                    // What it reads was lost to stopping, and so is it.
                    if matches!(kind, NodeKind::Save(_)) {
                        let name = &self.program.program.node(id).name;
                        self.results.absent.push(if step == OUTSIDE {
                            name.clone()
                        } else {
                            format!("{name}/{step}")
                        });
                    }
                    self.values.insert(instance, None);
                    return Ok(());
                }
            }
        }
        let name = self.program.program.node(id).name.clone();
        let outputs = match kind {
            NodeKind::Save(value) => {
                let name = if step == OUTSIDE { name } else { format!("{name}/{step}") };
                self.results.tensors.insert(name, read[value].contiguous()?);
                Vec::new()
            }
            NodeKind::Log(value) => {
                let step = (step != OUTSIDE).then_some(step);
                self.results.logs.push(LogEntry { name, step, value: read[value].clone() });
                Vec::new()
            }
            NodeKind::Trace(_)
            | NodeKind::Steps { .. }
            | NodeKind::Backward { .. }
            | NodeKind::SetGrad { .. } => Vec::new(),
            _ => {
                let evaluator =
                    Evaluator { model: self.model, schedule: self.schedule, program: self.program };
                let coordinates: Vec<u64> = if step == OUTSIDE { Vec::new() } else { vec![step] };
                evaluator.evaluate(id, None, &coordinates, &|value| read[&value].clone(), &mut self.pool)?
            }
        };
        self.values.insert(instance, Some(outputs));
        Ok(())
    }

    /// Walks an invoke up to a touch. Gives back what must be computed first, if something must.
    fn reach(&mut self, invoke: usize, until: Instance) -> Result<Option<Instance>, OperationError> {
        while !self.values.contains_key(&until) {
            let walker = &self.walkers[invoke];
            let Some(&(step, stage, instance)) = walker.touches.get(walker.next) else {
                self.values.insert(until, None);
                return Ok(None);
            };
            let kind = &self.program.program.node(instance.1).kind;
            if let NodeKind::Set { value, .. } = kind {
                let read = self.at(value.node, instance.0);
                if !self.values.contains_key(&read) {
                    return Ok(Some(read));
                }
            }
            self.touching = Some(instance.1);
            let reached = self.advance(invoke, step, stage + 1)?;
            let outputs = if reached { self.touch(invoke, stage, instance)? } else { None };
            self.touching = None;
            self.values.insert(instance, outputs);
            self.walkers[invoke].next += 1;
        }
        Ok(None)
    }

    fn reach_end(&mut self, invoke: usize, instance: Instance) -> Result<Option<Instance>, OperationError> {
        if let Some(&(_, _, last)) = self.walkers[invoke].touches.last()
            && let Some(missing) = self.reach(invoke, last)?
        {
            return Ok(Some(missing));
        }
        let total =
            self.walkers[invoke].generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
        self.advance(invoke, total, 0)?;
        let made = &self.walkers[invoke].made;
        let width = made.iter().map(Vec::len).max().unwrap_or(0);
        let cells = made
            .iter()
            .flat_map(|made| (0..width).map(|at| made.get(at).map_or(-1, |&token| i64::from(token))));
        let tensor = Tensor::from_i64(cells.collect(), &[made.len(), width])?;
        self.values.insert(instance, Some(vec![tensor]));
        Ok(None)
    }

    /// Walks an invoke until `stage` comes next at `step`; false when generation stops before.
    fn advance(&mut self, invoke: usize, step: u64, stage: usize) -> Result<bool, OperationError> {
        let list = self.model.stages();
        loop {
            let walker = &mut self.walkers[invoke];
            if walker.over {
                return Ok(false);
            }
            let end = if walker.step < step { list.stages.len() } else { stage };
            if walker.stage < end {
                let range = walker.stage..end;
                let tape = (!self.program.gradients.is_empty()).then_some(&mut walker.tape);
                let mut visitor = Everywhere { list, tape };
                walk(self.model, self.schedule, range, &mut walker.state, &mut self.pool, &mut visitor)
                    .map_err(|interruption| match interruption {
                        Interruption::Internal(message) => OperationError::new(message),
                        Interruption::AllFailed => OperationError::new("interrupted"),
                    })?;
                walker.stage = end;
            }
            if walker.step >= step {
                return Ok(true);
            }
            self.next_step(invoke)?;
        }
    }

    fn next_step(&mut self, invoke: usize) -> Result<(), OperationError> {
        let list = self.model.stages();
        let walker = &mut self.walkers[invoke];
        let Some(generation) = walker.generation.clone() else {
            walker.over = true;
            return Ok(());
        };
        let stop_tokens =
            generation.stop_tokens.clone().unwrap_or_else(|| self.model.spec().end_tokens.clone());
        let mut sequences = std::mem::take(&mut walker.state.sequences).into_iter();
        let mut going_on = Vec::new();
        let mut at = 0;
        for prompt in 0..walker.prompts.len() {
            if walker.finished[prompt] {
                continue;
            }
            let Some(mut sequence) = sequences.next() else { continue };
            let Some(SlotValue::Rows(rows)) = list.logits.and_then(|slot| walker.state.slot(slot)) else {
                return Err(OperationError::new("the logits are not there"));
            };
            let mut logits = vec![0.0; rows.width()];
            rows.copy_row(walker.state.rows[at].end - 1, &mut logits);
            at += 1;
            let noise = Noise {
                seed: self.program.program.seed,
                label: walker.name.clone(),
                coordinates: vec![walker.invoke as u64, prompt as u64, walker.step],
            };
            let present: Vec<u32> =
                walker.prompts[prompt].iter().chain(&walker.made[prompt]).copied().collect();
            let token = sampling::choose(&logits, &present, &generation.sampling, &noise);
            walker.made[prompt].push(token);
            if stop_tokens.contains(&token) || stops(self.model, &generation, &walker.made[prompt]) {
                walker.finished[prompt] = true;
                continue;
            }
            sequence.start += sequence.tokens.len();
            sequence.tokens = vec![i64::from(token)];
            going_on.push(sequence);
        }
        walker.step += 1;
        walker.stage = 0;
        walker.over = going_on.is_empty() || walker.step >= generation.max_new_tokens;
        walker.state = PassState::begin(list, going_on);
        Ok(())
    }

    /// An invoke's rectangle at its step.
    fn rectangle(&self, invoke: usize) -> Rectangle {
        let walker = &self.walkers[invoke];
        let mut sequences = 0..walker.prompts.len();
        let members = walker.prompts.iter().zip(&walker.finished).map(|(tokens, &finished)| Member {
            sequence: if finished { None } else { sequences.next() },
            padding: if walker.step == 0 { walker.width - tokens.len() } else { 0 },
        });
        Rectangle {
            members: members.collect(),
            length: if walker.step == 0 { walker.width } else { 1 },
            context: walker.width + walker.step as usize,
            columns: None,
        }
    }

    /// Reads or writes a hook point at which an invoke stands.
    fn touch(
        &mut self,
        invoke: usize,
        stage: usize,
        instance: Instance,
    ) -> Result<Option<Vec<Tensor>>, OperationError> {
        let list = self.model.stages();
        let Kernel::Hook { point, layout } = list.stages[stage].kernel else {
            return Err(OperationError::new("no hook point stands there"));
        };
        let slot = list.stages[stage].outputs[0];
        let rectangle = self.rectangle(invoke);
        match &self.program.program.node(instance.1).kind {
            NodeKind::Set { value, .. } => {
                let read = self.values.get(&self.at(value.node, instance.0)).cloned().flatten();
                let walker = &mut self.walkers[invoke];
                if let Some(given) = read.as_ref().and_then(|outputs| outputs.get(value.output as usize)) {
                    let hook = &self.model.spec().hook_points[point];
                    let given = fit(given, &hook.shape, hook.dtype, &rectangle)?;
                    view::write(
                        &mut walker.state,
                        slot,
                        layout,
                        &rectangle,
                        &given,
                        self.schedule.id_limit(slot),
                    )?;
                }
                Ok(Some(Vec::new()))
            }
            _ => Ok(Some(vec![view::read(&self.walkers[invoke].state, slot, layout, &rectangle)?])),
        }
    }
}
