//! Going back: gradients of one value with respect to whatever is asked for.
//!
//! Each `backward` has a plan from the checker: the nodes that lead from what is asked for to the value that is gone back
//! from. From it follows, for each invoke, which stages of its pass lie between ([`way`]); only of these the pass keeps
//! what the way back reads ([`tape`]), as it goes. When the value is there, the way back runs: nodes' cotangents by the
//! operations' own rules ([`values`]), invokes stage by stage in reverse ([`walker`], [`stages`]). Each invoke is walked by
//! itself and stops where it must wait: for a getter's value to be finished, or for a gradient that the program writes.
//!
//! | module | holds |
//! | --- | --- |
//! | `reads` | what was read of an invoke, and what therefore has no gradient |
//! | `way` | which stages are gone back through |
//! | `tape` | what is kept of a pass for it |
//! | `again` | what was given up of it, computed again |
//! | `walker` | one invoke on the way back: hook points, versions, written gradients |
//! | `stages` | the vector-Jacobian product of each stage |
//! | `weights` | the gradients of weights that a program has set |
//! | `values` | cotangents of a program's values |
//! | `apply` | the vector-Jacobian product of an applied module |
//! | `sums` | sums of cotangents, each in one order |

mod again;
mod apply;
mod reads;
pub(crate) mod stages;
pub(crate) mod sums;
pub(crate) mod tape;
mod values;
mod walker;
pub(crate) mod way;
pub(crate) mod weights;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use pellucid_graph::check::GradientPlan;
use pellucid_graph::rules::weight;
use pellucid_graph::{GradientOf, NodeId, NodeKind, Operation, Value};
use pellucid_kernels::pool::Stopped;
use pellucid_models::Model;

use crate::error::{EngineError, Interruption};
use crate::job::{Job, OUTSIDE, Part, Step};
use crate::loaded::Loaded;
use crate::operations::{OperationError, gradients};
use crate::pass::Schedule;
use crate::slots::BufferPool;
use crate::tensor::Tensor;

pub(crate) use apply::apply_backward;
use reads::Reads;
pub(crate) use tape::Tape;
use values::{Complete, Values};
pub(crate) use walker::Trail;
use walker::Walker;
use way::Way;
pub(crate) use way::Ways;

/// Why a way back ends before its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A node's own rule failed.
    Node(NodeId, OperationError),
    /// A fault of the engine.
    Internal(String),
}

impl Failure {
    fn at(id: NodeId, error: OperationError) -> Failure {
        Failure::Node(id, error)
    }
}

impl From<Interruption> for Failure {
    fn from(interruption: Interruption) -> Failure {
        match interruption {
            Interruption::Internal(message) => Failure::Internal(message),
            Interruption::AllFailed => Failure::Internal("interrupted".into()),
        }
    }
}

/// Whether anything was done.
pub(crate) type Outcome = Result<bool, Failure>;

/// What a way back works with.
pub(crate) struct Desk<'d, 'a> {
    pub models: &'d [Loaded],
    pub model: &'d Model,
    pub schedule: &'d Schedule,
    pub job: &'d mut Job<'a>,
    pub pool: &'d mut BufferPool,
    /// When it has to make way for others.
    pub until: Option<Instant>,
    pub plan: &'d GradientPlan,
    /// What is set of each invoke, in program order.
    pub setters: &'d BTreeMap<usize, Vec<NodeId>>,
    reads: &'d Reads,
    values: &'d mut Values,
    left: &'d mut BTreeSet<(NodeId, Part)>,
}

impl Desk<'_, '_> {
    /// Gives a gradient to its node, and runs what can run then.
    fn deliver(&mut self, target: NodeId, gradient: Tensor) {
        self.job.deliver((OUTSIDE, target), vec![gradient], self.models, self.pool);
    }

    /// A gradient is that of nothing: whoever waits for it goes on without.
    fn lose(&mut self, target: NodeId) {
        self.job.lose((OUTSIDE, target), self.models, self.pool);
    }

    /// Does what takes so many operations at a node: now, or, if that is long and others wait, between passes. What came of it, if
    /// it was now.
    fn run_or_leave(
        &mut self,
        (id, part): (NodeId, Part),
        flops: u64,
        step: Step,
    ) -> Result<Option<Vec<Option<Tensor>>>, OperationError> {
        if self.job.is_long_on_the_way_back(id, flops) {
            self.left.insert((id, part));
            self.job.leave_on_the_way_back((self.plan.backward, id, part), flops, step);
            return Ok(None);
        }
        let Desk { models, pool, job, .. } = self;
        match pellucid_kernels::pool::stoppable(&job.stop, || step(models, pool)) {
            Ok(made) => made.map(Some),
            Err(Stopped) => {
                // Why it was stopped is why it failed.
                job.check_budget();
                Err(OperationError::new("it was stopped"))
            }
        }
    }

    /// The cotangent of each output of a node, of what its readers have brought.
    fn add_up(
        &mut self,
        id: NodeId,
        parts: Vec<Vec<Tensor>>,
    ) -> Result<Option<Vec<Option<Tensor>>>, OperationError> {
        let several = parts.iter().filter(|parts| parts.len() > 1).flatten();
        let elements = several.map(|part| part.elements() as u64).sum::<u64>();
        let step: Step = Box::new(move |_, _| parts.into_iter().map(sums::sum).collect());
        self.run_or_leave((id, Part::Sum), weight::COPIED.saturating_mul(elements), step)
    }

    /// Gives a gradient out that was made for its node.
    fn give_out(&mut self, target: NodeId, made: Vec<Option<Tensor>>) {
        if let Some(gradient) = made.into_iter().next().flatten() {
            self.deliver(target, gradient);
        }
    }

    /// Brings what a node's rule has given to the values that the node reads.
    fn bring(&mut self, id: NodeId, parts: Vec<Option<Tensor>>) {
        let program = self.job.program.clone();
        match &program.program.node(id).kind {
            NodeKind::Apply { input, .. } => {
                self.values.bring(*input, (id, 0), parts.into_iter().next().flatten());
            }
            NodeKind::Operation(own) => {
                let wanted = self.wanted(id, own);
                for (place, ((value, _), part)) in own.reads().iter().zip(parts).enumerate() {
                    if wanted[place] {
                        self.values.bring(*value, (id, place), part);
                    }
                }
            }
            _ => {}
        }
    }

    /// Of what an operation reads: what a gradient is wanted of.
    fn wanted(&self, id: NodeId, operation: &Operation) -> Vec<bool> {
        let flows = self.values.flows(self.job, id);
        let wanted = |(value, elements): &(Value, bool)| {
            *elements && flows.contains(value) && self.plan.goes_through(value.node)
        };
        operation.reads().iter().map(wanted).collect()
    }

    /// What readers have brought that is not added up yet counts as held.
    fn account(&mut self) {
        let (counted, held) = self.values.account();
        self.job.let_go(counted.saturating_sub(held));
        self.job.hold_for_way_back(held.saturating_sub(counted));
    }

    /// Whether its time is over for now.
    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// One `backward` on its way.
pub(crate) struct WayBack {
    /// The place of its plan in the program's.
    plan: usize,
    values: Values,
    /// The invokes that are gone back through as soon as it is known what was read of them.
    waiting: Vec<(usize, Arc<Way>)>,
    walkers: Vec<Walker>,
    /// Gradients of nodes' own values, by node; those of getters are read and written where they are passed.
    targets: BTreeMap<NodeId, Vec<NodeId>>,
    setters: BTreeMap<usize, Vec<NodeId>>,
    reads: Reads,
    /// Nodes whose cotangent is complete but that wait for a written gradient: the cotangents, and how many of the
    /// node's targets are done.
    open: VecDeque<(Complete, usize)>,
    /// What takes long and runs between passes.
    left: BTreeSet<(NodeId, Part)>,
    /// Whether its time was over before it had gone as far as it can.
    late: bool,
}

/// What an interleaver lends to a way back.
pub(crate) struct Lent<'d, 'a> {
    pub models: &'d [Loaded],
    pub model: &'d Model,
    pub schedule: &'d Schedule,
    pub job: &'d mut Job<'a>,
    pub pool: &'d mut BufferPool,
    /// When it has to make way for others; none: it need not.
    pub until: Option<Instant>,
}

impl WayBack {
    /// A `backward` whose value is there, by its plan's place, with the ways of its trace's invokes.
    pub fn begin(
        number: usize,
        ways: &Ways,
        setters: BTreeMap<usize, Vec<NodeId>>,
        lent: &mut Lent<'_, '_>,
    ) -> Result<WayBack, Failure> {
        let program = lent.job.program.clone();
        let plan = program.gradients.get(number);
        let plan = plan.ok_or_else(|| Failure::Internal("a way back without its plan".into()))?;
        let NodeKind::Backward { of, cotangent } = program.program.node(plan.backward).kind else {
            return Err(Failure::Internal("a way back without its node".into()));
        };
        let failed = |error| Failure::at(plan.backward, error);
        let missing = || OperationError::new("the value that it goes back from is not there");
        let value = lent.job.value(of, OUTSIDE).ok_or_else(missing).map_err(failed)?;
        let seed = match cotangent {
            Some(cotangent) => {
                let sent = lent.job.value(cotangent, OUTSIDE).ok_or_else(missing).map_err(failed)?;
                if sent.shape() != value.shape() {
                    let message = format!(
                        "the value has shape {:?}, but its cotangent {:?}",
                        value.shape(),
                        sent.shape()
                    );
                    return Err(failed(OperationError::new(message)));
                }
                sent.cast(value.dtype()).map_err(failed)?
            }
            None => {
                let one = Tensor::from_f64(vec![1.0; value.elements()], value.shape());
                one.and_then(|one| one.cast(value.dtype())).map_err(failed)?
            }
        };
        lent.job.applied((OUTSIDE, plan.backward));
        // A value that never came has no gradient: whoever waits for it goes on without.
        for &target in &plan.targets {
            if let Some((_, GradientOf::Value(value))) = program.program.node(target).kind.gradient()
                && lent.job.is_lost((OUTSIDE, value.node))
            {
                lent.job.lose((OUTSIDE, target), lent.models, lent.pool);
            }
        }
        let mut targets: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        let trace = program.nodes[plan.backward.index()].trace;
        for &target in &plan.targets {
            if let Some((_, GradientOf::Value(value))) = program.program.node(target).kind.gradient() {
                let getter = matches!(program.program.node(value.node).kind, NodeKind::Get(_));
                if !(getter && trace.is_some() && program.nodes[value.node.index()].trace == trace) {
                    targets.entry(value.node).or_default().push(target);
                }
            }
        }
        let values = Values::new(plan, lent.job, of, seed);
        let waiting = ways.of_backward(plan.backward).map(|(invoke, way)| (invoke, way.clone())).collect();
        let (reads, walkers, open) = (reads::of_plan(lent.job, plan), Vec::new(), VecDeque::new());
        let left = BTreeSet::new();
        Ok(WayBack {
            plan: number,
            values,
            waiting,
            walkers,
            targets,
            setters,
            reads,
            open,
            left,
            late: false,
        })
    }

    /// Whether everything that was asked for has been given.
    pub fn is_done(&self, job: &Job<'_>) -> bool {
        let walked = self.waiting.is_empty() && self.walkers.is_empty();
        let gone = self.open.is_empty() && self.left.is_empty() && self.values.is_empty();
        job.failed.is_some() || (walked && gone)
    }

    /// Whether its time was over before it had gone as far as it can.
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// It is over: its program holds nothing for it any more.
    pub fn end(&self, job: &mut Job<'_>) {
        job.let_go(self.values.counted());
    }

    /// Its plan's place in the program's.
    pub fn plan(&self) -> usize {
        self.plan
    }

    /// Goes on as far as it can. Whether it got anywhere.
    pub fn advance<'t>(
        &mut self,
        trail: &'t dyn Fn(usize) -> Option<Trail<'t>>,
        lent: &mut Lent<'_, '_>,
    ) -> bool {
        let mut moved = false;
        self.late = false;
        loop {
            match self.once(trail, lent) {
                Ok(true) if lent.job.failed.is_none() => {
                    moved = true;
                    if lent.until.is_some_and(|until| Instant::now() >= until) {
                        self.late = true;
                        return true;
                    }
                }
                Ok(_) => return moved,
                Err(Failure::Node(id, error)) => {
                    lent.job.fail(id, &error);
                    return true;
                }
                Err(Failure::Internal(message)) => {
                    lent.job.failed.get_or_insert(EngineError::Internal(message));
                    return true;
                }
            }
        }
    }

    fn once<'t>(
        &mut self,
        trail: &'t dyn Fn(usize) -> Option<Trail<'t>>,
        lent: &mut Lent<'_, '_>,
    ) -> Outcome {
        let mut moved = false;
        let program = lent.job.program.clone();
        let plan = program.gradients.get(self.plan);
        let plan = plan.ok_or_else(|| Failure::Internal("a way back without its plan".into()))?;
        let mut desk = Desk {
            models: lent.models,
            model: lent.model,
            schedule: lent.schedule,
            job: lent.job,
            pool: lent.pool,
            until: lent.until,
            plan,
            setters: &self.setters,
            reads: &self.reads,
            values: &mut self.values,
            left: &mut self.left,
        };
        for (id, part, made) in desk.job.gone_through(plan.backward) {
            desk.left.remove(&(id, part));
            match part {
                Part::Sum => self.open.push_back(((id, made), 0)),
                Part::Target => desk.give_out(id, made),
                Part::Rule => desk.bring(id, made),
            }
            moved = true;
        }
        while let Some((id, parts)) =
            desk.values.next_complete(|id| program.nodes[id.index()].outputs.len().max(1))
        {
            if let Some(cotangents) = desk.add_up(id, parts).map_err(|error| Failure::at(id, error))? {
                self.open.push_back(((id, cotangents), 0));
            }
            moved = true;
            if desk.is_late() {
                return Ok(true);
            }
        }
        for _ in 0..self.open.len() {
            if moved && desk.is_late() {
                return Ok(true);
            }
            let Some(((id, mut cotangents), done)) = self.open.pop_front() else { break };
            let targets = self.targets.get(&id).map_or(&[][..], Vec::as_slice);
            let reached = targets_of_value(targets, done, &mut cotangents, &mut desk)?;
            if desk.job.failed.is_some() {
                return Ok(true);
            }
            moved |= reached > done;
            if reached < targets.len() {
                self.open.push_back(((id, cotangents), reached));
            } else {
                node(id, cotangents, &mut desk)?;
                moved = true;
            }
            desk.account();
        }
        for (invoke, way) in std::mem::take(&mut self.waiting) {
            if reads::are_known(invoke, &desk) {
                let trail = trail(invoke);
                let trail = trail.ok_or_else(|| Failure::Internal("an invoke that did not run".into()))?;
                reads::lose_what_did_not_run(invoke, &mut desk);
                self.walkers.push(Walker::new(invoke, way, &trail, &mut desk));
                moved = true;
            } else {
                self.waiting.push((invoke, way));
            }
        }
        for walker in &mut self.walkers {
            let trail = trail(walker.invoke);
            let trail = trail.ok_or_else(|| Failure::Internal("an invoke that did not run".into()))?;
            moved |= walker.advance(&trail, &mut desk)?;
            if desk.job.failed.is_some() {
                return Ok(true);
            }
        }
        desk.account();
        self.walkers.retain(|walker| !walker.is_done());
        Ok(moved)
    }
}

/// Reads and writes the gradients of a node's own value; gives back how many of the targets are done.
fn targets_of_value(
    targets: &[NodeId],
    mut done: usize,
    cotangents: &mut [Option<Tensor>],
    desk: &mut Desk<'_, '_>,
) -> Result<usize, Failure> {
    let program = desk.job.program.clone();
    while let Some(&target) = targets.get(done) {
        if desk.job.is_lost((OUTSIDE, target)) {
            done += 1;
            continue;
        }
        let failed = |error| Failure::at(target, error);
        let kind = &program.program.node(target).kind;
        let Some((_, GradientOf::Value(of))) = kind.gradient() else { return Ok(targets.len()) };
        let missing = || failed(OperationError::new("the value that it is the gradient of is not there"));
        if desk.job.is_lost((OUTSIDE, of.node)) {
            desk.lose(target);
            continue;
        }
        // Nothing came of a value that is still to come, but it has a gradient of its shape.
        if !desk.job.is_settled((OUTSIDE, of.node)) {
            return Ok(done);
        }
        let value = desk.job.value(*of, OUTSIDE).ok_or_else(missing)?;
        let (shape, dtype) = (value.shape().to_vec(), value.dtype());
        let place = of.output as usize;
        if let NodeKind::SetGrad { value, .. } = kind {
            if !desk.job.is_ready((OUTSIDE, target)) {
                return Ok(done);
            }
            if let (Some(given), Some(cotangent)) =
                (desk.job.value(*value, OUTSIDE), cotangents.get_mut(place))
            {
                *cotangent = Some(sums::fit(&given, &shape, dtype).map_err(failed)?);
            }
            desk.job.applied((OUTSIDE, target));
        } else {
            let cotangent = cotangents.get(place).cloned().flatten();
            let flops = weight::COPIED.saturating_mul(value.elements() as u64);
            let step: Step = Box::new(move |_, _| {
                let gradient = match &cotangent {
                    Some(cotangent) => sums::given_out(cotangent, dtype),
                    None => sums::zeros(&shape, dtype),
                };
                Ok(vec![Some(gradient?)])
            });
            if let Some(made) = desk.run_or_leave((target, Part::Target), flops, step).map_err(failed)? {
                desk.give_out(target, made);
            }
        }
        done += 1;
        if desk.job.failed.is_some() {
            return Ok(done);
        }
    }
    Ok(done)
}

/// Goes back through one node: its cotangent is finished.
fn node(id: NodeId, mut cotangents: Vec<Option<Tensor>>, desk: &mut Desk<'_, '_>) -> Result<(), Failure> {
    let failed = |error| Failure::at(id, error);
    let program = desk.job.program.clone();
    match &program.program.node(id).kind {
        NodeKind::Get(_) => {
            let cotangent = if cotangents.is_empty() { None } else { cotangents.swap_remove(0) };
            desk.values.finish_getter(id, cotangent);
        }
        NodeKind::Apply { input, .. } => {
            if !desk.plan.goes_through(input.node) {
                return Ok(());
            }
            let checked = &program.nodes[id.index()];
            let (module, lengths, model) = (checked.module, checked.lengths.clone(), checked.model);
            let (value, cotangent) = (desk.job.value(*input, OUTSIDE), cotangents.first().cloned().flatten());
            let (Some(module), Some(value), Some(cotangent)) = (module, value, cotangent) else {
                desk.values.bring(*input, (id, 0), None);
                return Ok(());
            };
            let rule: Step = Box::new(move |models, pool| {
                let loaded = models.get(model);
                let loaded = loaded.ok_or_else(|| OperationError::new("its model is not loaded"))?;
                let (model, schedule) = (&*loaded.model, &loaded.schedule);
                let lengths = lengths.as_deref();
                Ok(vec![Some(apply_backward(model, schedule, module, &value, lengths, &cotangent, pool)?)])
            });
            let flops = checked.flops.saturating_mul(2);
            if let Some(parts) = desk.run_or_leave((id, Part::Rule), flops, rule).map_err(failed)? {
                desk.bring(id, parts);
            }
        }
        NodeKind::Operation(own) => {
            let operation = desk.job.in_narrowed_columns((OUTSIDE, id)).unwrap_or_else(|| own.clone());
            let wanted = desk.wanted(id, &operation);
            if cotangents.iter().all(Option::is_none) {
                desk.bring(id, vec![None; wanted.len()]);
                return Ok(());
            }
            let missing = || failed(OperationError::new("a value of the way there is not there"));
            let reads = operation.reads();
            let inputs: Option<Vec<Tensor>> =
                reads.iter().map(|(value, _)| desk.job.value(*value, OUTSIDE)).collect();
            let outputs = desk.job.outputs((OUTSIDE, id)).ok_or_else(missing)?;
            let inputs = inputs.ok_or_else(missing)?;
            let dtypes = cotangents.iter_mut().zip(&outputs);
            dtypes.for_each(|(cotangent, output)| {
                if !output.dtype().is_float() {
                    *cotangent = None;
                }
            });
            // A product for each operand; and whatever was a view there is written, or added up, here.
            let elements = inputs.iter().chain(&outputs).map(|tensor| tensor.elements() as u64).sum::<u64>();
            let flops = program.nodes[id.index()].flops.saturating_mul(2);
            let flops = flops.saturating_add(weight::COPIED.saturating_mul(elements));
            let rule: Step =
                Box::new(move |_, _| gradients::vjp(&operation, &inputs, &outputs, &cotangents, &wanted));
            if let Some(parts) = desk.run_or_leave((id, Part::Rule), flops, rule).map_err(failed)? {
                desk.bring(id, parts);
            }
        }
        NodeKind::Merge { .. } => {
            if let Some(picked) = desk.values.picked(id) {
                let cotangent = if cotangents.is_empty() { None } else { cotangents.swap_remove(0) };
                desk.values.bring(picked, (id, 0), cotangent);
            }
        }
        // A setter's cotangent came from the walker and has gone on; nothing is behind a literal or a constant.
        _ => {}
    }
    Ok(())
}
