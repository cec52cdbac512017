//! One program among those that run together: where it is in its traces, and the invokes of those that are running.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use pellucid_graph::check::CheckedProgram;
use pellucid_graph::{NodeId, NodeKind, Value};
use pellucid_models::ModelWeight;
use pellucid_models::stage::WeightId;

use super::group::{Group, Place};
use super::touches::Asked;
use super::{Left, milliseconds};
use crate::error::EngineError;
use crate::job::{Errand, Held, Instance, Job, Made, OUTSIDE, RunOptions};
use crate::loaded::Loaded;
use crate::operations::OperationError;
use crate::plan::{Alike, Collected, Rewrites, together};
use crate::reverse::{WayBack, Ways};
use crate::serve::{Ticket, Usage};
use crate::slots::BufferPool;
use crate::tensor::Tensor;

/// What all programs stand on.
#[derive(Clone, Copy)]
pub(super) struct Ground<'e> {
    /// The engine's models; the checker has numbered them.
    pub models: &'e [Loaded],
    /// Whether nothing is computed.
    pub dry: bool,
    pub rewrites: Rewrites,
}

/// One program.
pub(crate) struct Member<'a> {
    pub ticket: Ticket,
    /// Its number: of all programs that ever were here no other had it.
    pub serial: u64,
    pub job: Job<'a>,
    /// Whether it shares no pass.
    pub alone: bool,
    /// When it came.
    pub since: Instant,
    pub usage: Usage,
    /// Whether it has read or written at a hook point in the current pass.
    pub advanced: bool,
    /// Everybody's fair share when it came.
    pub came_at_flops: u64,
    /// Nodes of it that run on other threads, and when they began.
    pub away: Vec<(Errand, Arc<OnceLock<Instant>>)>,
    /// What tells these when it has left.
    pub presence: Presence,
    /// Whether everything of it has run.
    pub over: bool,
    traces: Vec<NodeId>,
    stage: Stage,
    /// The place among the engine's of the model of the running traces.
    pub(super) model: usize,
    /// The invokes of the running traces.
    pub(super) groups: Vec<Group>,
    /// What the gradients of the running trace go back through; then it runs alone.
    pub(super) ways: Ways,
    /// Ways back that have begun and not ended.
    pub(super) backs: Vec<WayBack>,
    /// Prompts of the running traces whose keys and values go into its cache.
    pub(super) collecting: Vec<Collected>,
    /// Which edits of its invokes are alike.
    pub(super) alike: Alike,
    /// Weights that it has set, while an invoke runs with them, with the bytes that they take.
    pub(super) replaced: HashMap<(Value, WeightId), (Weak<ModelWeight>, u64)>,
}

/// That a program is there: others can ask whether it has gone.
#[derive(Default)]
pub(crate) struct Presence(Arc<AtomicBool>);

impl Presence {
    /// Set once it has gone.
    pub fn gone(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How far a program is.
#[derive(Clone, Copy)]
enum Stage {
    /// Nothing of it has run.
    New,
    /// What stands between its traces begins.
    Session,
    /// The first of its traces of those places run.
    Traces { first: usize, end: usize },
    /// Their invokes are at their end.
    AfterTraces { first: usize, end: usize },
    /// All its traces are.
    Last,
}

impl<'a> Member<'a> {
    pub fn new(
        ticket: Ticket,
        serial: u64,
        program: Held<'a, CheckedProgram>,
        options: RunOptions,
        dry: bool,
    ) -> Member<'a> {
        let traces = program.program.traces().map(|(id, _)| id).collect();
        Member {
            ticket,
            serial,
            job: Job::new(program, options, dry),
            alone: false,
            since: Instant::now(),
            usage: Usage::default(),
            advanced: false,
            came_at_flops: 0,
            away: Vec::new(),
            presence: Presence::default(),
            over: false,
            traces,
            stage: Stage::New,
            model: 0,
            groups: Vec::new(),
            ways: Ways::default(),
            backs: Vec::new(),
            collecting: Vec::new(),
            alike: Alike::default(),
            replaced: HashMap::new(),
        }
    }

    /// Whether it leaves.
    pub fn has_ended(&self) -> bool {
        self.over || self.job.failed.is_some()
    }

    /// What came of it.
    pub fn into_left(mut self) -> Left<'a> {
        let program = self.job.program.clone();
        self.job.note_absent(&program.program.body, 1);
        self.job.results.provenance.seed = program.program.seed;
        // What ran elsewhere and is left there was its own too.
        for (_, begun) in &self.away {
            self.usage.measured_ms += begun.get().map_or(0.0, |begun| milliseconds(begun.elapsed()));
        }
        self.usage.seconds = self.since.elapsed().as_secs_f64();
        self.usage.nodes = self.job.nodes_done();
        let outcome = self.job.outcome();
        Left { ticket: self.ticket, outcome, usage: self.usage, rest: self }
    }

    /// The place of its running trace, of several the one whose turn it is, and how many it has.
    pub fn traces(&self) -> (usize, usize) {
        let place = match self.stage {
            Stage::New | Stage::Session => 0,
            Stage::Traces { first, .. } | Stage::AfterTraces { first, .. } => {
                let turn = self.job.trace.and_then(|trace| self.traces.binary_search(&trace).ok());
                turn.unwrap_or(first)
            }
            Stage::Last => self.traces.len(),
        };
        (place, self.traces.len())
    }

    /// The place among its traces of that of an invoke.
    pub(super) fn place_of(&self, invoke: usize) -> Option<usize> {
        let trace = self.groups.get(invoke)?.trace?;
        self.traces.binary_search(&trace).ok()
    }

    /// Goes on as far as it can without a pass, or until its time is over for now.
    pub(super) fn settle(&mut self, ground: Ground<'_>, pool: &mut BufferPool, until: Option<Instant>) {
        if self.over {
            return;
        }
        if let Stage::New = self.stage {
            // What stands between traces runs as soon as what it reads is there.
            self.job.begin_session(ground.models, pool);
            self.stage = Stage::Session;
            if self.job.failed.is_none() && !self.job.is_beginning() {
                self.begin_traces(0, ground, pool);
            }
        }
        loop {
            self.job.check_budget();
            // What has not begun as a whole is gone on with when it is the program's turn.
            if self.job.failed.is_some() || self.job.is_beginning() {
                return;
            }
            if let Stage::Session = self.stage {
                self.begin_traces(0, ground, pool);
                continue;
            }
            self.drop_cut_off();
            self.free_weights();
            let moved = self.start_and_decide(ground, pool) | self.go_back(ground, pool, until);
            if moved && !self.backs.is_empty() && until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
            if moved || self.next_turn() {
                continue;
            }
            if self.can_walk() || self.job.has_deferred() || !self.away.is_empty() {
                return;
            }
            match self.stage {
                _ if self.is_stuck() => self.fail_stuck(),
                Stage::New | Stage::Session => return,
                Stage::Traces { first, end } => {
                    self.remaining_steps(ground, pool);
                    self.stage = Stage::AfterTraces { first, end };
                }
                Stage::AfterTraces { first, end } => {
                    self.keep_prefixes(ground);
                    self.end_traces(first..end);
                    self.begin_traces(end, ground, pool);
                }
                Stage::Last => {
                    self.over = true;
                    return;
                }
            }
        }
    }

    /// Whether one of its invokes can go on in a pass.
    fn can_walk(&self) -> bool {
        self.groups.iter().any(|group| self.is_ready(group))
    }

    /// Whether an invoke can go on in a pass.
    pub(super) fn is_ready(&self, group: &Group) -> bool {
        match &group.place {
            _ if self.gives_up(group) || self.is_full() => false,
            Place::Start | Place::Cut(_) => true,
            Place::Parked(_) => {
                let touch = group.touches.get(group.next_touch);
                touch.is_some_and(|touch| self.job.is_ready(touch.1))
            }
            Place::Waiting | Place::Deciding | Place::Riding | Place::Done => false,
        }
    }

    /// Whether an invoke goes no farther: its program has failed, or is cut off before its trace.
    pub(super) fn gives_up(&self, group: &Group) -> bool {
        self.job.failed.is_some() || group.trace.is_some_and(|trace| self.job.is_cut_off(trace))
    }

    /// Takes the invokes off their way where the program is cut off.
    fn drop_cut_off(&mut self) {
        for invoke in 0..self.groups.len() {
            if self.groups[invoke].trace.is_some_and(|trace| self.job.is_cut_off(trace)) {
                drop(self.goes_to(invoke, Place::Done));
            }
        }
    }

    /// An invoke waits with its rows, which the program holds as it holds values.
    pub(super) fn waits_at(&mut self, invoke: usize, place: Place) {
        drop(self.goes_to(invoke, place));
        self.job.hold(self.groups[invoke].place.bytes());
    }

    /// An invoke goes elsewhere; gives where it was, with the rows that the program holds no longer.
    pub(super) fn goes_to(&mut self, invoke: usize, place: Place) -> Place {
        let before = std::mem::replace(&mut self.groups[invoke].place, place);
        self.job.let_go(before.bytes());
        before
    }

    /// The next of the traces that run together has its turn, if all of the one before it is over.
    fn next_turn(&mut self) -> bool {
        let mut own = self.groups.iter().filter(|group| group.trace == self.job.trace);
        let is_over = own.all(|group| matches!(group.place, Place::Done));
        is_over && !self.job.has_deferred() && self.away.is_empty() && self.job.next_turn()
    }

    /// Begins the trace of that place, if there is one, and those that run together with it.
    fn begin_traces(&mut self, first: usize, ground: Ground<'_>, pool: &mut BufferPool) {
        let (job, program) = (&self.job, self.job.program.clone());
        let (held, allowed) = (job.held_bytes(), job.options.memory_bytes);
        // What is still to be made between traces is not among what is held: then nothing is known of the room for several.
        let traces = ground.rewrites.traces && !job.has_deferred();
        let end = first + together(&program, first, held, allowed, Rewrites { traces, ..ground.rewrites });
        let traces = self.traces.get(first..end).unwrap_or_default().to_vec();
        if traces.is_empty() {
            self.stage = Stage::Last;
            return;
        }
        self.stage = Stage::Traces { first, end };
        self.job.begin_turns(&traces);
        for id in traces {
            if self.job.failed.is_none() && !self.job.is_cut_off(id) {
                self.begin_trace(id, ground, pool);
            }
        }
    }

    fn begin_trace(&mut self, id: NodeId, ground: Ground<'_>, pool: &mut BufferPool) {
        let program = self.job.program.clone();
        let node = program.program.node(id);
        let NodeKind::Trace(trace) = &node.kind else { return };
        self.model = program.nodes[id.index()].model;
        let Some(loaded) = ground.models.get(self.model) else {
            let error = OperationError::new("its model is not loaded");
            return self.job.fail(id, &error);
        };
        self.job.begin_trace(id, ground.models, pool);
        let bodies = trace.body.iter().copied();
        let steps: Arc<[NodeId]> =
            bodies.filter(|&id| matches!(program.program.node(id).kind, NodeKind::Steps { .. })).collect();
        self.ways = Ways::of(&program, id, loaded.model.stages(), &loaded.schedule);
        let end_tokens = &loaded.model.spec().end_tokens;
        for (invoke, asked) in Asked::of(&program, id, trace).into_iter().enumerate() {
            let mut group = Group::new(
                (id, node.label(), trace),
                (invoke, self.groups.len()),
                steps.clone(),
                asked,
                end_tokens,
            );
            group.tracked = self.ways.tracked(invoke);
            group.tape.weights = self.ways.weights(invoke);
            self.groups.push(group);
        }
    }

    /// The running traces are at their end.
    fn end_traces(&mut self, places: Range<usize>) {
        // What was kept for ways back that never began.
        self.groups.drain(..).for_each(|group| self.job.let_go(group.tape.bytes()));
        let program = self.job.program.clone();
        for &id in self.traces.get(places).unwrap_or_default() {
            for plan in &program.gradients {
                let own = program.nodes[plan.backward.index()].trace == Some(id);
                if own && self.job.is_lost((OUTSIDE, plan.backward)) {
                    self.job.end_way_back(plan);
                }
            }
            if let NodeKind::Trace(trace) = &program.program.node(id).kind {
                let total = trace.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
                self.job.note_absent(&trace.body, total);
            }
        }
    }

    /// Steps that no invoke walked to: what their bodies compute from outside is there all the same. A trace that has any runs
    /// alone.
    fn remaining_steps(&mut self, ground: Ground<'_>, pool: &mut BufferPool) {
        let program = self.job.program.clone();
        let Some(NodeKind::Trace(trace)) = self.job.trace.map(|id| &program.program.node(id).kind) else {
            return;
        };
        let total = trace.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
        for &owner in &trace.body {
            let NodeKind::Steps { steps, body } = &program.program.node(owner).kind else { continue };
            if ground.dry || !body.iter().any(|id| program.nodes[id.index()].needed) {
                continue;
            }
            for step in (0..total).filter(|&step| steps.contains(step, total)) {
                if self.job.failed.is_none() {
                    self.job.begin_step(owner, step, ground.models, pool);
                }
            }
        }
    }

    /// Whether something of it waits, and nothing of it goes on.
    fn is_stuck(&self) -> bool {
        !self.backs.is_empty() || self.groups.iter().any(|group| !matches!(group.place, Place::Done))
    }

    /// It waits for itself for ever: it fails. The checker should have refused it.
    fn fail_stuck(&mut self) {
        self.fail_stuck_on_the_way_back();
        let waiting = self.groups.iter().find(|group| !matches!(group.place, Place::Done));
        let Some(group) = waiting else { return };
        let (seat, invoke, node) = (group.seat, group.label.clone(), self.stuck_at(group));
        if let Some(id) = node {
            let error = OperationError::new("it waits for a value that waits for this edit itself");
            self.job.fail(id, &error);
        }
        // Whatever it was that it waited for, it does not go on.
        if !self.gives_up(&self.groups[seat]) {
            let message = format!("invoke `{invoke}` waits for a value that never comes");
            self.job.failed = Some(EngineError::Internal(message));
        }
    }

    /// A node's outputs, or why it has none.
    pub(super) fn deliver(
        &mut self,
        instance: Instance,
        outputs: Result<Vec<Tensor>, OperationError>,
        ground: Ground<'_>,
        pool: &mut BufferPool,
    ) {
        match outputs {
            Ok(outputs) => self.job.deliver(instance, outputs, ground.models, pool),
            Err(error) => self.job.fail(instance.1, &error),
        }
    }

    /// What a task made, or why it made nothing.
    pub(super) fn deliver_made(
        &mut self,
        errand: Errand,
        made: Made,
        ground: Ground<'_>,
        pool: &mut BufferPool,
    ) {
        match made {
            Ok(made) => self.job.deliver_made(errand, made, ground.models, pool),
            Err(error) => self.job.fail(errand.instance.1, &error),
        }
    }

    /// What is set of an invoke that takes one step, in program order: by setters, by skips, and its weights.
    pub(super) fn setters_of(&self, invoke: usize) -> Vec<NodeId> {
        let program = &self.job.program;
        let asked = &self.groups[invoke].asked;
        let touches = asked.outside.values().flatten().map(|&(_, id)| id);
        let mut setters: Vec<NodeId> =
            touches.filter(|&id| program.program.node(id).kind.written().is_some()).collect();
        setters.extend(&asked.weights);
        setters.sort_unstable();
        setters
    }

    /// The setters of those invokes.
    pub(super) fn setters(&self, invokes: impl Iterator<Item = usize>) -> BTreeMap<usize, Vec<NodeId>> {
        invokes
            .filter(|&invoke| invoke < self.groups.len())
            .map(|invoke| (invoke, self.setters_of(invoke)))
            .collect()
    }
}
