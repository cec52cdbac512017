//! Running checked programs together: which invokes share a pass, where each waits for another, what each reads and
//! writes on the way.
//!
//! Every invoke is a group of sequences with a place in time: its step, and the stage that comes next. All groups that
//! stand at the same stage walk on in one pass. At a hook point that a program touches its getters and setters run in
//! program order. A group whose setter waits for a value that another group has still to compute is parked there and
//! taken up when the value has come. So passes are cut just where the programs' own dependencies cut them; the checker
//! has made sure that some group can always go on.
//!
//! | module | holds |
//! | --- | --- |
//! | `group` | one invoke on its way: its prompts, its place, its rectangle |
//! | `touches` | which hook points a trace reads and writes of each invoke |
//! | `steps` | how a group's step begins and ends; the next tokens |
//! | `packing` | one pass: who rides, from where to where |
//! | `waiting` | invokes that wait for conditions and weights before they start, or for the word to stop |
//! | `back` | ways back, between the passes |
//! | `rider` | what happens at each touched hook point of a pass |

mod back;
mod group;
mod packing;
mod rider;
mod steps;
mod touches;
mod waiting;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use pellucid_graph::{NodeId, NodeKind};
use pellucid_models::{Model, ModelWeight};

use crate::error::EngineError;
use crate::explain::PassRecord;
use crate::job::{Instance, Job};
use crate::loaded::Loaded;
use crate::nodes::Evaluator;
use crate::operations::OperationError;
use crate::pass::Schedule;
use crate::reverse::{WayBack, Ways};
use crate::slots::BufferPool;
use crate::tensor::Tensor;

use group::{Group, Place};
pub(crate) use steps::stops;
use touches::Asked;
use waiting::SetWeight;
pub(crate) use waiting::stopped;

/// Programs that run together on one model, one trace of each.
pub(crate) struct Interleaver<'r, 'a> {
    /// The engine's models, and which of them these traces run on.
    models: &'r [Loaded],
    number: usize,
    pub model: &'r Model,
    pub schedule: &'r Schedule,
    pub jobs: &'r mut [Job<'a>],
    pub pool: &'r mut BufferPool,
    pub dry: bool,
    pub passes: Vec<PassRecord>,
    groups: Vec<Group>,
    /// The place of each job's invoke among the groups.
    places: HashMap<(usize, usize), usize>,
    /// What the gradients of each job's trace go back through.
    ways: HashMap<usize, Ways>,
    /// Ways back that have begun and not ended.
    backs: Vec<WayBack<'a>>,
    /// The traces that were added: the job and the trace.
    traces: Vec<(usize, NodeId)>,
    /// Weights that programs have set, while an invoke runs with them, with the bytes that they take.
    replaced: HashMap<SetWeight, (Weak<ModelWeight>, u64)>,
}

impl<'r, 'a> Interleaver<'r, 'a> {
    /// None where the engine has no model of that number.
    pub fn new(
        models: &'r [Loaded],
        number: usize,
        jobs: &'r mut [Job<'a>],
        pool: &'r mut BufferPool,
        dry: bool,
    ) -> Option<Self> {
        let loaded = models.get(number)?;
        Some(Interleaver {
            models,
            number,
            model: &loaded.model,
            schedule: &loaded.schedule,
            jobs,
            pool,
            dry,
            passes: Vec::new(),
            groups: Vec::new(),
            places: HashMap::new(),
            ways: HashMap::new(),
            backs: Vec::new(),
            traces: Vec::new(),
            replaced: HashMap::new(),
        })
    }

    /// Adds a trace of a job.
    pub fn add(&mut self, job: usize, trace_id: NodeId) {
        let program = self.jobs[job].program;
        let node = program.program.node(trace_id);
        let NodeKind::Trace(trace) = &node.kind else { return };
        self.traces.push((job, trace_id));
        let evaluator = Evaluator { models: self.models, program };
        self.jobs[job].begin_trace(&trace.body, &evaluator, self.pool);
        let bodies = trace.body.iter().copied();
        let steps: Arc<[NodeId]> =
            bodies.filter(|&id| matches!(program.program.node(id).kind, NodeKind::Steps { .. })).collect();
        let ways = Ways::of(program, trace_id, self.model.stages(), self.schedule);
        for (invoke, asked) in Asked::of(program, trace_id, trace).into_iter().enumerate() {
            let end_tokens = &self.model.spec().end_tokens;
            let named = (node.label(), trace);
            let mut group = Group::new(job, named, invoke, steps.clone(), asked, end_tokens);
            group.tracked = ways.tracked(invoke);
            self.places.insert((job, invoke), self.groups.len());
            self.groups.push(group);
        }
        if !ways.is_empty() {
            self.ways.insert(job, ways);
        }
    }

    /// Runs every trace that was added to its end.
    pub fn run(&mut self) -> Result<(), EngineError> {
        loop {
            for group in &mut self.groups {
                if self.jobs[group.job].failed.is_some() {
                    group.place = Place::Done;
                }
            }
            self.free_weights();
            self.settle();
            if self.go_back() {
                continue;
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
        let mut any = self.fail_stuck_on_the_way_back();
        for group in &self.groups {
            if matches!(group.place, Place::Done) {
                continue;
            }
            any = true;
            if let Some(id) = self.stuck_at(group) {
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
                let evaluator = Evaluator { models: self.models, program };
                for step in (0..total).filter(|&step| steps.contains(step, total)) {
                    if self.jobs[job].failed.is_none() {
                        self.jobs[job].begin_step(owner, body, step, &evaluator, self.pool);
                    }
                }
            }
        }
    }

    fn deliver(&mut self, job: usize, instance: Instance, outputs: Result<Vec<Tensor>, OperationError>) {
        let program = self.jobs[job].program;
        let evaluator = Evaluator { models: self.models, program };
        match outputs {
            Ok(outputs) => self.jobs[job].deliver(instance, outputs, &evaluator, self.pool),
            Err(error) => self.jobs[job].fail(instance.1, &error),
        }
    }
}
