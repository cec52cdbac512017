//! One invoke on the way back: from the last hook point that the loss is computed from, stage by stage, to the first whose
//! gradient is needed.
//!
//! At a hook point the versions are passed latest first. A version's cotangent is what comes from the stages after it, then
//! that of each getter that read it, in program order. Then it is finished: `grad` nodes are given it, `set_grad` nodes
//! replace it. A setter that made the version takes all of it along to the value it wrote; nothing goes on to the version
//! before, but what that one's getters bring.

use std::collections::BTreeMap;
use std::sync::Arc;

use pellucid_graph::{DType, GradientOf, NodeId, NodeKind};
use pellucid_models::stage::{HookLayout, Kernel, Slot, WeightId};

use super::again::Again;
use super::stages::Back;
use super::sums;
use super::tape::Tape;
use super::way::Way;
use super::weights::OfWeights;
use super::{Desk, Failure, Outcome};
use crate::job::OUTSIDE;
use crate::pass::{PassState, Sequence};
use crate::slots::{Rows, SlotValue};
use crate::tensor::Tensor;
use crate::view::{self, Member, Rectangle};
use crate::weights::{WeightSet, Weights, weight_id};

/// What there is of an invoke for the way back.
pub(crate) struct Trail<'t> {
    /// The prompts' lengths.
    pub lengths: Vec<usize>,
    /// The columns that were computed from the narrowing stage on; none: all.
    pub columns: Option<&'t [usize]>,
    pub tape: &'t Tape,
    /// The weights that the program has set for it.
    pub weights: Option<&'t Arc<WeightSet>>,
}

impl Trail<'_> {
    fn width(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    fn rectangle(&self, narrowed: bool) -> Rectangle {
        let width = self.width();
        let members = self.lengths.iter().enumerate();
        Rectangle {
            members: members
                .map(|(place, length)| Member { sequence: Some(place), padding: width - length })
                .collect(),
            length: width,
            context: width,
            columns: if narrowed { self.columns.map(<[usize]>::to_vec) } else { None },
            vocabulary: None,
        }
    }
}

/// One version of a hook point.
#[derive(Debug)]
struct Stop {
    /// Who made it; none: the model.
    setter: Option<NodeId>,
    getters: Vec<NodeId>,
    /// Gradients that are read and written, in program order.
    targets: Vec<NodeId>,
    /// Whether the getters' cotangents are added, and how many targets are done.
    done: (bool, usize),
}

/// One invoke on the way back.
pub(crate) struct Walker {
    pub invoke: usize,
    way: Arc<Way>,
    /// Slots hold cotangents.
    state: PassState,
    /// The stage that was gone back through last.
    at: usize,
    /// Versions of each hook stage, in order.
    stops: BTreeMap<usize, Vec<Stop>>,
    /// Gradients of weights that the program has set; none: they have been given.
    of_weights: Option<OfWeights>,
    /// What was computed again of the segment that it is in.
    again: Option<Again>,
}

impl Walker {
    /// An invoke at the end of its way, of which everything is known that the way goes back from.
    pub fn new(invoke: usize, way: Arc<Way>, trail: &Trail<'_>, desk: &mut Desk<'_, '_>) -> Walker {
        let setters = desk.setters.get(&invoke).into_iter().flatten();
        for &setter in setters.filter(|&&setter| desk.job.is_lost((OUTSIDE, setter))) {
            desk.values.lose(setter);
        }
        let list = desk.model.stages();
        let sequences = trail.lengths.iter().map(|&length| Sequence::new(vec![0; length]));
        let mut state = PassState::begin(list, sequences.collect());
        state.clear();
        let stops = stops(invoke, &way, desk);
        let of_weights = Some(OfWeights::of(&way.weights));
        let mut walker = Walker { invoke, at: way.end, way, state, stops, of_weights, again: None };
        if walker.at > list.token_wise_from {
            walker.state.narrowed = true;
            walker.rows(trail, true);
        }
        walker
    }

    /// Whether it is at its end.
    pub fn is_done(&self) -> bool {
        self.at <= self.way.first && self.of_weights.is_none()
    }

    /// Sets where each sequence's rows stand. Gives back the place of each narrowed row among all.
    fn rows(&mut self, trail: &Trail<'_>, narrowed: bool) -> Vec<usize> {
        let width = trail.width();
        let (mut end, mut places, mut first) = (0, Vec::new(), 0);
        let mut rows = Vec::with_capacity(trail.lengths.len());
        for &length in &trail.lengths {
            let padding = width - length;
            let before = places.len();
            match trail.columns {
                Some(columns) => places.extend(
                    columns
                        .iter()
                        .filter(|&&column| column >= padding)
                        .map(|column| first + column - padding),
                ),
                None => places.extend(first..first + length),
            }
            let own = if narrowed { places.len() - before } else { length };
            rows.push(end..end + own);
            end += own;
            first += length;
        }
        self.state.rows = rows;
        places
    }

    /// From here down, all tokens again: those that were not computed have no cotangent.
    fn widen(&mut self, trail: &Trail<'_>) {
        self.state.narrowed = false;
        let places = self.rows(trail, false);
        if trail.columns.is_none() {
            return;
        }
        let tokens = self.state.tokens();
        self.state.change_rows(|rows| {
            let width = rows.width();
            let mut out = vec![0.0; tokens * width];
            for (&place, values) in places.iter().zip(rows.buffer.chunks_exact(width.max(1))) {
                out[place * width..(place + 1) * width].copy_from_slice(values);
            }
            out
        });
    }

    /// Goes on as far as it can.
    pub fn advance(&mut self, trail: &Trail<'_>, desk: &mut Desk<'_, '_>) -> Outcome {
        let list = desk.model.stages();
        let mut moved = false;
        let weights = Weights::new(desk.model, trail.weights.map(Arc::as_ref));
        while self.at > self.way.first {
            if moved && desk.is_late() {
                return Ok(true);
            }
            let number = self.at - 1;
            let stage = &list.stages[number];
            if let Kernel::Hook { point, layout } = stage.kernel {
                let to = stage.outputs[0];
                let hook = Hook { point, layout, slot: to };
                while self.stops.get(&number).is_some_and(|stops| !stops.is_empty()) {
                    let before = moved;
                    let passed = self.stop(number, &hook, trail, desk, &mut moved)?;
                    if !passed {
                        return Ok(moved || before);
                    }
                }
                let back = Back { model: desk.model, weights, tape: trail.tape, wanted: &self.way.slots };
                back.hook(stage, &mut self.state, desk.pool);
            } else if self.way.stages[number] {
                self.compute_again(number, trail, desk)?;
                if desk.job.failed.is_some() {
                    return Ok(true);
                }
                let tape = self.again.as_ref().map_or(trail.tape, |again| &again.tape);
                let back = Back { model: desk.model, weights, tape, wanted: &self.way.slots };
                if let Some(sums) = &mut self.of_weights {
                    let before = sums.bytes();
                    back.of_weights(stage, &self.state, sums, desk.pool).map_err(Failure::from)?;
                    desk.job.hold_for_way_back(sums.bytes() - before);
                }
                back.stage(number, &mut self.state, desk.pool).map_err(Failure::from)?;
                desk.job.check_budget();
                if desk.job.failed.is_some() {
                    return Ok(true);
                }
            }
            if number == list.token_wise_from {
                self.widen(trail);
            }
            self.at = number;
            moved = true;
        }
        if let Some(again) = self.again.take() {
            again.let_go(desk);
        }
        if let Some(sums) = self.of_weights.take() {
            self.give_weights(sums, desk)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Sees to it that what a stage reads is there: where it was given up, its segment is computed again, and the one before it is
    /// let go.
    fn compute_again(
        &mut self,
        stage: usize,
        trail: &Trail<'_>,
        desk: &mut Desk<'_, '_>,
    ) -> Result<(), Failure> {
        let segment = trail.tape.given_up(stage);
        if self.again.as_ref().map(|again| &again.segment) == segment {
            return Ok(());
        }
        if let Some(again) = self.again.take() {
            again.let_go(desk);
        }
        if let Some(segment) = segment {
            self.again = Some(Again::compute(segment, &self.way.stages, trail, desk)?);
        }
        Ok(())
    }

    /// Everything has been gone back through: the gradients of weights that were set are known. Of several values of one
    /// parameter the last was run with.
    fn give_weights(&self, mut sums: OfWeights, desk: &mut Desk<'_, '_>) -> Result<(), Failure> {
        let program = desk.job.program.clone();
        desk.job.let_go(sums.bytes());
        let setters = desk.setters.get(&self.invoke).map_or(&[][..], Vec::as_slice);
        for &setter in setters.iter().rev().filter(|&&setter| !desk.job.is_lost((OUTSIDE, setter))) {
            let NodeKind::SetWeight { value, .. } = program.program.node(setter).kind else { continue };
            let failed = |error| Failure::at(setter, error);
            let weight: Option<WeightId> =
                program.nodes[setter.index()].parameter.map(weight_id).transpose().map_err(failed)?;
            let own = weight
                .and_then(|weight| Some((weight, desk.model.weight(weight)?.parameter().shape().to_vec())));
            let cotangent = match own {
                Some((weight, shape)) => sums.take(weight, &shape).map_err(failed)?,
                None => None,
            };
            let output = program.nodes[value.node.index()].outputs.get(value.output as usize);
            let dtype = output.map_or(DType::F32, |output| output.dtype);
            desk.values.of_weight(setter, cotangent, dtype)?;
        }
        Ok(())
    }

    /// Passes the latest version that is left at a hook point; false where it has to wait.
    fn stop(
        &mut self,
        number: usize,
        hook: &Hook,
        trail: &Trail<'_>,
        desk: &mut Desk<'_, '_>,
        moved: &mut bool,
    ) -> Result<bool, Failure> {
        let rectangle = trail.rectangle(self.state.narrowed);
        let Some(stop) = self.stops.get_mut(&number).and_then(|stops| stops.last_mut()) else {
            return Ok(true);
        };
        if !stop.done.0 {
            if !stop.getters.iter().all(|getter| desk.values.is_finished(*getter)) {
                return Ok(false);
            }
            for &getter in &stop.getters {
                if let Some(cotangent) = desk.values.take_finished(getter) {
                    hook.add(&mut self.state, &rectangle, &cotangent, trail, desk)
                        .map_err(|error| Failure::at(getter, error))?;
                }
            }
            stop.done.0 = true;
            *moved = true;
        }
        while let Some(&target) = stop.targets.get(stop.done.1) {
            let failed = |error| Failure::at(target, error);
            match &desk.job.program.program.node(target).kind {
                _ if desk.job.is_lost((OUTSIDE, target)) => {}
                NodeKind::SetGrad { value, .. } => {
                    if !desk.job.is_ready((OUTSIDE, target)) {
                        return Ok(false);
                    }
                    if let Some(given) = desk.job.value(*value, OUTSIDE) {
                        let axes = &desk.model.spec().hook_points[hook.point].shape;
                        let given = view::fit(&given, axes, DType::F32, &rectangle).map_err(failed)?;
                        hook.ensure(&mut self.state, trail, desk);
                        view::write(&mut self.state, hook.slot, hook.layout, &rectangle, &given, u64::MAX)
                            .map_err(failed)?;
                    }
                    desk.job.applied((OUTSIDE, target));
                }
                _ => {
                    hook.ensure(&mut self.state, trail, desk);
                    let read = view::read(&self.state, hook.slot, hook.layout, &rectangle).map_err(failed)?;
                    let read = sums::given_out(&read, DType::F32).map_err(failed)?;
                    desk.deliver(target, read);
                }
            }
            stop.done.1 += 1;
            *moved = true;
            if desk.job.failed.is_some() {
                return Ok(false);
            }
        }
        if let Some(setter) = stop.setter {
            let held = self.state.slot(hook.slot).is_some();
            let cotangent = if held && desk.values.waits_for(setter) {
                let read = view::read(&self.state, hook.slot, hook.layout, &rectangle);
                Some(read.map_err(|error| Failure::at(setter, error))?)
            } else {
                None
            };
            if let Some(value) = self.state.take(hook.slot) {
                desk.pool.give(value);
            }
            desk.values.of_setter(setter, cotangent, trail.tape)?;
        }
        if let Some(stops) = self.stops.get_mut(&number) {
            stops.pop();
        }
        *moved = true;
        Ok(true)
    }
}

/// A hook stage.
struct Hook {
    point: usize,
    layout: HookLayout,
    slot: Slot,
}

impl Hook {
    /// Puts zeros where there is no cotangent.
    fn ensure(&self, state: &mut PassState, trail: &Trail<'_>, desk: &Desk<'_, '_>) {
        if state.slot(self.slot).is_some() {
            return;
        }
        let list = desk.model.stages();
        let value = match list.shapes.get(self.slot.0 as usize) {
            Some(pellucid_models::stage::SlotShape::Context { heads }) => SlotValue::Ragged(
                trail
                    .lengths
                    .iter()
                    .map(|length| Some(Arc::new(vec![0.0; heads * length * length])))
                    .collect(),
            ),
            Some(pellucid_models::stage::SlotShape::Inner(inner)) => {
                let width: usize = inner.iter().product();
                SlotValue::Rows(Rows::contiguous(vec![0.0; state.tokens() * width], inner))
            }
            _ => return,
        };
        state.put(self.slot, value);
    }

    /// Adds a getter's cotangent.
    fn add(
        &self,
        state: &mut PassState,
        rectangle: &Rectangle,
        cotangent: &Tensor,
        trail: &Trail<'_>,
        desk: &Desk<'_, '_>,
    ) -> Result<(), crate::operations::OperationError> {
        self.ensure(state, trail, desk);
        let held = view::read(state, self.slot, self.layout, rectangle)?;
        if let Some(total) = sums::sum(vec![held, cotangent.cast(DType::F32)?])? {
            view::write(state, self.slot, self.layout, rectangle, &total, u64::MAX)?;
        }
        Ok(())
    }
}

/// The versions at each hook stage of an invoke that a `backward` has to do with.
fn stops(invoke: usize, way: &Way, desk: &Desk<'_, '_>) -> BTreeMap<usize, Vec<Stop>> {
    let program = &desk.job.program;
    let trace = program.nodes[desk.plan.backward.index()].trace;
    let stage = |id: NodeId| {
        let checked = &program.nodes[id.index()];
        let own = checked.trace == trace;
        checked.place.filter(|_| own).and_then(|place| desk.schedule.hook_stage.get(place)).copied()
    };
    let mut stops: BTreeMap<usize, Vec<Stop>> = BTreeMap::new();
    let version =
        |setter: Option<NodeId>| Stop { setter, getters: Vec::new(), targets: Vec::new(), done: (false, 0) };
    // Every setter cuts, whether its value has a gradient or not, and a skip as well.
    for &id in desk.setters.get(&invoke).into_iter().flatten() {
        if let Some(stage) = stage(id)
            && stage < way.end
            && !desk.job.is_lost((OUTSIDE, id))
        {
            stops.entry(stage).or_insert_with(|| vec![version(None)]).push(version(Some(id)));
        }
    }
    let mut at = |stage: usize, reader: Option<NodeId>, put: &dyn Fn(&mut Stop)| {
        let versions = stops.entry(stage).or_insert_with(|| vec![version(None)]);
        let seen = versions.iter_mut().filter(|stop| reader.is_none() || stop.setter < reader);
        if let Some(stop) = seen.last() {
            put(stop);
        }
    };
    for &id in &desk.plan.path {
        if let NodeKind::Get(address) = &program.program.node(id).kind
            && address.invoke == invoke
            && desk.values.goes_through(id)
            && let Some(stage) = stage(id)
        {
            at(stage, Some(id), &|stop| stop.getters.push(id));
        }
    }
    for &target in &desk.plan.targets {
        match program.program.node(target).kind.gradient() {
            Some((_, GradientOf::Hook(address))) if address.invoke == invoke => {
                if let Some(stage) = stage(target) {
                    at(stage, None, &|stop| stop.targets.push(target));
                }
            }
            Some((_, GradientOf::Value(value))) => {
                if let NodeKind::Get(address) = &program.program.node(value.node).kind
                    && address.invoke == invoke
                    && let Some(stage) = stage(value.node)
                {
                    at(stage, Some(value.node), &|stop| stop.targets.push(target));
                }
            }
            _ => {}
        }
    }
    stops
}
