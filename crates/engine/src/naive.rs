//! The judge: a second, simple interpreter, with nothing clever in it.
//!
//! One invoke at a time, each a coroutine that walks as far as somebody's value demands. No packing of invokes, no fused
//! kernels, no early exit, every logit computed. It shares the kernels and the reading and writing of hook points with
//! the planned run, and nothing of its planning: whatever the planner does, results must be the same bit for bit.

mod gradients;
mod walker;
mod watch;

use std::collections::{HashMap, HashSet};

use pellucid_graph::check::CheckedProgram;
use pellucid_graph::fault::Fault;
use pellucid_graph::{Guard, NodeId, NodeKind, Value};
use pellucid_models::Model;

use crate::error::{EngineError, Failure};
use crate::job::{Instance, OUTSIDE, RunOptions};
use crate::loaded::Loaded;
use crate::nodes::Evaluator;
use crate::operations::OperationError;
use crate::pass::Schedule;
use crate::results::{LogEntry, Results};
use crate::slots::BufferPool;
use crate::tensor::Tensor;
use gradients::Back;
use walker::Walker;
use watch::Watch;

/// Runs a program the simple way.
pub(crate) struct Naive<'a> {
    models: &'a [Loaded],
    /// The model of the current trace.
    model: &'a Model,
    schedule: &'a Schedule,
    program: &'a CheckedProgram,
    /// What is known: none, where generation had stopped before.
    values: HashMap<Instance, Option<Vec<Tensor>>>,
    walkers: Vec<Walker>,
    /// Each `backward` that was asked for a gradient.
    backs: HashMap<NodeId, Back>,
    results: Results,
    /// The trace that is running, and every saved name with its node.
    trace: Option<NodeId>,
    saved: Vec<(String, NodeId)>,
    pool: BufferPool,
    /// The getter or setter at work, or the node whose rule is: an error on the way to a later one is its own.
    touching: Option<Instance>,
    /// What failed, where the run goes on after failures.
    faults: Option<Vec<Fault>>,
    watch: Watch,
}

impl<'a> Naive<'a> {
    /// `first` is the first of the models.
    pub fn new(models: &'a [Loaded], first: &'a Loaded, program: &'a CheckedProgram) -> Self {
        Naive {
            models,
            model: &first.model,
            schedule: &first.schedule,
            program,
            values: HashMap::new(),
            walkers: Vec::new(),
            backs: HashMap::new(),
            results: Results::default(),
            trace: None,
            saved: Vec::new(),
            pool: BufferPool::default(),
            touching: None,
            faults: None,
            watch: Watch::default(),
        }
    }

    /// The run may be cancelled and have too little time, and tells what it logs. Its memory is not watched.
    pub fn watched(self, options: &RunOptions) -> Self {
        Naive { watch: Watch::new(options), ..self }
    }

    /// Everything that fails by itself: the program goes on after a failure as if what failed had been lost.
    pub fn faults(mut self) -> Result<Vec<Fault>, EngineError> {
        self.faults = Some(Vec::new());
        self.walk()?;
        Ok(self.faults.unwrap_or_default())
    }

    /// Runs the program to its end; a failure keeps what earlier traces saved.
    pub fn run(mut self) -> Result<Results, Box<Failure>> {
        match self.walk() {
            Ok(()) => Ok(self.results),
            Err(error) => Err(Failure::new(error, self.program, self.trace, self.results, &self.saved)),
        }
    }

    fn walk(&mut self) -> Result<(), EngineError> {
        let program = self.program;
        for &id in &program.program.body {
            let NodeKind::Trace(trace) = &program.program.node(id).kind else {
                self.need((OUTSIDE, id))?;
                continue;
            };
            self.trace = Some(id);
            if let Some(loaded) = self.models.get(program.nodes[id.index()].model) {
                (self.model, self.schedule) = (&loaded.model, &loaded.schedule);
            }
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
        Ok(())
    }

    fn at(&self, id: NodeId, step: u64) -> Instance {
        (if self.program.nodes[id.index()].steps.is_some() { step } else { OUTSIDE }, id)
    }

    /// Computes a node and whatever it needs. Nodes that wait for one another, which the checker should have refused, are an
    /// error.
    fn need(&mut self, instance: Instance) -> Result<(), EngineError> {
        let mut open = vec![instance];
        let mut waiting = HashSet::from([instance]);
        while let Some(&instance) = open.last() {
            let (_, id) = instance;
            if let Some(error) = self.watch.over() {
                return Err(error);
            }
            let node = self.program.program.node(id);
            if self.values.contains_key(&instance) || !self.program.nodes[id.index()].needed {
                open.pop();
                continue;
            }
            let done = match &node.kind {
                NodeKind::Get(address) | NodeKind::Set { address, .. } => {
                    self.reach(address.invoke, instance)
                }
                NodeKind::Skip { invoke, .. } => self.reach(*invoke, instance),
                NodeKind::Generated(invoke) => self.reach_end(*invoke, instance),
                NodeKind::Grad { backward, .. } => self.need_gradient(id, *backward),
                _ => match self.missing(instance) {
                    Some(missing) => Ok(Some(missing)),
                    None => self.compute(instance).map(|()| None),
                },
            };
            match done {
                Ok(Some(missing)) if waiting.insert(missing) => open.push(missing),
                Ok(Some(missing)) => {
                    let label = |id: NodeId| self.program.program.node(id).label();
                    return Err(EngineError::Internal(format!(
                        "`{}` and `{}` wait for one another",
                        label(id),
                        label(missing.1)
                    )));
                }
                Ok(None) if self.values.contains_key(&instance) => {
                    open.pop();
                    waiting.remove(&instance);
                }
                Ok(None) => {
                    let message = format!("`{}` was computed, but has no value", node.label());
                    return Err(EngineError::Internal(message));
                }
                Err(error) => {
                    // Where it was interrupted that is why it failed.
                    if let Some(error) = self.watch.over() {
                        return Err(error);
                    }
                    let failed = self.touching.take().unwrap_or(instance);
                    let fault = error.at(self.program.program.node(failed.1));
                    let Some(faults) = &mut self.faults else {
                        return Err(EngineError::Node(Box::new(fault)));
                    };
                    faults.push(fault);
                    // What failed on the way back is there all the same; the gradient is not.
                    let lost = if self.values.contains_key(&failed) { instance } else { failed };
                    self.values.insert(lost, None);
                }
            }
        }
        Ok(())
    }

    /// The first value that a node waits for and that is not known: one that it reads, or a condition.
    fn missing(&self, (step, id): Instance) -> Option<Instance> {
        let values = self.program.program.node(id).values().into_iter();
        values.map(|value| self.at(value.node, step)).find(|read| !self.values.contains_key(read))
    }

    /// Whether a node outside `steps` was lost. A getter reads whether or not its conditions hold, and is lost where not.
    fn is_lost(&self, id: NodeId) -> bool {
        let never = |guard: &Guard| match self.values.get(&(OUTSIDE, guard.condition.node)) {
            None => false,
            Some(_) => {
                !matches!(self.truth(guard.condition, OUTSIDE), Ok(Some(holds)) if holds == guard.holds)
            }
        };
        matches!(self.values.get(&(OUTSIDE, id)), Some(None))
            || (self.program.nodes[id.index()].steps.is_none()
                && self.program.program.node(id).guards.iter().any(never))
    }

    /// A value that is known and was not lost.
    fn there(&self, value: Value, step: u64) -> Option<&Tensor> {
        self.values.get(&self.at(value.node, step))?.as_ref()?.get(value.output as usize)
    }

    /// Whether a known condition holds; none: it was lost.
    fn truth(&self, condition: Value, step: u64) -> Result<Option<bool>, OperationError> {
        let Some(tensor) = self.there(condition, step) else { return Ok(None) };
        Ok(tensor.truths()?.first().copied())
    }

    /// Whether all conditions of a node hold.
    fn is_granted(&self, (step, id): Instance) -> Result<bool, OperationError> {
        for guard in &self.program.program.node(id).guards {
            if self.truth(guard.condition, step)? != Some(guard.holds) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn compute(&mut self, instance: Instance) -> Result<(), OperationError> {
        let (step, id) = instance;
        let kind = &self.program.program.node(id).kind;
        if let NodeKind::Merge { condition, then, otherwise } = kind {
            let picked = match self.truth(*condition, step)? {
                Some(true) => self.there(*then, step),
                Some(false) => self.there(*otherwise, step),
                None => None,
            };
            let granted = self.is_granted(instance)?;
            let outputs = picked.filter(|_| granted).map(|tensor| vec![tensor.clone()]);
            self.values.insert(instance, outputs);
            return Ok(());
        }
        let mut read: HashMap<Value, Tensor> = HashMap::new();
        let granted = self.is_granted(instance)?;
        for value in kind.values() {
            match self.values.get(&self.at(value.node, step)) {
                Some(Some(outputs)) if granted && outputs.len() > value.output as usize => {
                    read.insert(value, outputs[value.output as usize].clone());
                }
                _ => {
                    // What it reads was lost, or it is not to run: so is it.
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
        let node = self.program.program.node(id);
        let name = node.name.clone();
        let outputs = match kind {
            NodeKind::Save(value) => {
                let name = if step == OUTSIDE { name } else { format!("{name}/{step}") };
                self.saved.push((name.clone(), id));
                self.results.tensors.insert(name, read[value].contiguous()?);
                Vec::new()
            }
            NodeKind::Log(value) => {
                let step = (step != OUTSIDE).then_some(step);
                let (name, coordinates) = (node.label().to_owned(), node.coordinates().to_vec());
                let entry = LogEntry { name, coordinates, step, value: read[value].clone() };
                self.watch.log(&entry);
                self.results.logs.push(entry);
                Vec::new()
            }
            NodeKind::Trace(_)
            | NodeKind::Steps { .. }
            | NodeKind::SetWeight { .. }
            | NodeKind::Stop { .. }
            | NodeKind::Backward { .. }
            | NodeKind::SetGrad { .. } => Vec::new(),
            _ if !granted => {
                self.values.insert(instance, None);
                return Ok(());
            }
            _ => {
                let evaluator = Evaluator { models: self.models, program: self.program };
                let step = (step != OUTSIDE).then_some(step);
                let pool = &mut self.pool;
                let evaluate = || evaluator.evaluate(id, None, step, &|value| read[&value].clone(), pool);
                self.watch.stoppable(evaluate)?
            }
        };
        self.values.insert(instance, Some(outputs));
        Ok(())
    }
}
