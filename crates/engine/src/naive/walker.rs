//! How the judge walks: one invoke at a time, as far as somebody's value demands, and no further.

use std::sync::Arc;

use pellucid_graph::{Generation, HookAddress, NodeId, NodeKind, Prompts};
use pellucid_models::stage::{Kernel, StageList};

use super::Naive;
use super::watch::Watch;
use crate::error::Interruption;
use crate::interleave::{stopped, stops};
use crate::job::{Instance, OUTSIDE};
use crate::operations::{Noise, OperationError};
use crate::pass::{PassState, Sequence, Visitor, walk};
use crate::reverse::Tape;
use crate::sampling;
use crate::slots::SlotValue;
use crate::tensor::Tensor;
use crate::view::{self, Member, Rectangle, fit};
use crate::weights::{self, WeightSet};

/// Looks everywhere, so that nothing is fused and scores are always materialised; keeps everything for the way back if
/// there is one.
struct Everywhere<'t> {
    list: &'t StageList,
    tape: Option<&'t mut Tape>,
    watch: &'t Watch,
}

impl Visitor for Everywhere<'_> {
    fn tracks(&self, _stage: usize) -> bool {
        self.tape.is_some()
    }

    fn record(&mut self, stage: usize, state: &PassState) {
        if let Some(tape) = &mut self.tape {
            tape.record(&self.list.stages[stage], state, 0..state.sequences.len(), true, None);
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

    fn between(&mut self, _stage: usize, _state: &mut PassState) -> Result<(), Interruption> {
        if self.watch.over().is_some() { Err(Interruption::AllFailed) } else { Ok(()) }
    }
}

/// One invoke, walking on demand.
pub(super) struct Walker {
    /// What keys its sampling's noise: the trace's label, and the invoke's coordinates.
    noise: (String, Vec<u64>),
    generation: Option<Generation>,
    pub(super) prompts: Vec<Vec<u32>>,
    made: Vec<Vec<u32>>,
    finished: Vec<bool>,
    width: usize,
    step: u64,
    /// The stage that comes next.
    pub(super) stage: usize,
    state: PassState,
    /// Every getter and setter in order: step, stage, instance.
    pub(super) touches: Vec<(u64, usize, Instance)>,
    next: usize,
    /// What is kept for ways back.
    pub(super) tape: Tape,
    /// Generation has stopped: later steps never come.
    over: bool,
    /// What sets its weights, in order.
    pub(super) set: Vec<NodeId>,
    /// The same; none: they are set.
    setting: Option<Vec<NodeId>>,
    pub(super) weights: Option<Arc<WeightSet>>,
    /// What may stop its generation: at which step, and what.
    stops: Vec<(u64, NodeId)>,
}

/// How far an invoke has walked.
enum Walked {
    /// To where it was sent.
    There,
    /// Its generation has stopped before.
    Over,
    /// To where it needs a value.
    Needs(Instance),
}

impl Naive<'_> {
    pub(super) fn walker(&self, trace_id: NodeId, invoke: usize, total: u64) -> Walker {
        let program = &self.program.program;
        let NodeKind::Trace(trace) = &program.node(trace_id).kind else {
            return self.walker_of((String::new(), Vec::new()), None, Vec::new(), Vec::new());
        };
        let (mut touches, mut stops, mut setting) = (Vec::new(), Vec::new(), Vec::new());
        let mut touch = |id: NodeId, steps: &mut dyn Iterator<Item = (u64, u64)>| {
            let of = match &program.node(id).kind {
                NodeKind::Get(address) | NodeKind::Set { address, .. } => address.invoke,
                NodeKind::Skip { invoke, .. } => *invoke,
                _ => return,
            };
            let Some(place) =
                self.program.nodes[id.index()].place.filter(|_| self.program.nodes[id.index()].needed)
            else {
                return;
            };
            if of == invoke {
                for (step, key) in steps {
                    touches.push((step, self.schedule.hook_stage[place], (key, id)));
                }
            }
        };
        for &id in &trace.body {
            match &program.node(id).kind {
                NodeKind::Steps { steps, body } => {
                    let chosen = || (0..total).filter(move |&step| steps.contains(step, total));
                    for &inner in body {
                        touch(inner, &mut chosen().map(|step| (step, step)));
                        if matches!(&program.node(inner).kind, NodeKind::Stop { invoke: of, .. } if *of == invoke)
                        {
                            stops.extend(chosen().map(|step| (step, inner)));
                        }
                    }
                }
                NodeKind::Get(HookAddress { step, .. })
                | NodeKind::Set { address: HookAddress { step, .. }, .. }
                | NodeKind::Skip { step, .. } => {
                    touch(id, &mut std::iter::once((step.unwrap_or(0), OUTSIDE)));
                }
                NodeKind::SetWeight { invoke: of, .. }
                    if *of == invoke && self.program.nodes[id.index()].needed =>
                {
                    setting.push(id);
                }
                _ => {}
            }
        }
        touches.sort_by_key(|&(step, stage, (_, id))| (step, stage, id));
        let prompts = match &trace.invokes[invoke].prompts {
            Prompts::Tokens(tokens) => tokens.clone(),
            Prompts::Text { .. } | Prompts::Axis(_) => Vec::new(),
        };
        let label = program.node(trace_id).label().to_owned();
        let noise = (label, trace.invokes[invoke].noise_coordinates(invoke));
        let mut walker = self.walker_of(noise, trace.generation.clone(), prompts, touches);
        let parameters = setting.iter().filter_map(|id| self.program.nodes[id.index()].parameter);
        walker.tape.weights = parameters.filter_map(|parameter| weights::weight_id(parameter).ok()).collect();
        Walker { set: setting.clone(), setting: Some(setting), stops, ..walker }
    }

    fn walker_of(
        &self,
        noise: (String, Vec<u64>),
        generation: Option<Generation>,
        prompts: Vec<Vec<u32>>,
        touches: Vec<(u64, usize, Instance)>,
    ) -> Walker {
        let sequences = prompts.iter().map(|tokens| Sequence {
            keep_caches: true,
            ..Sequence::new(tokens.iter().map(|&token| i64::from(token)).collect())
        });
        Walker {
            noise,
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
            set: Vec::new(),
            setting: None,
            weights: None,
            stops: Vec::new(),
        }
    }

    /// Walks an invoke up to a touch. Gives back what must be computed first, if something must.
    pub(super) fn reach(
        &mut self,
        invoke: usize,
        until: Instance,
    ) -> Result<Option<Instance>, OperationError> {
        while !self.values.contains_key(&until) {
            let walker = &self.walkers[invoke];
            let Some(&(step, stage, instance)) = walker.touches.get(walker.next) else {
                self.values.insert(until, None);
                return Ok(None);
            };
            if self.values.contains_key(&instance) {
                // It failed.
                self.walkers[invoke].next += 1;
                continue;
            }
            let reads = !matches!(self.program.program.node(instance.1).kind, NodeKind::Get(_));
            if let Some(missing) = self.missing(instance).filter(|_| reads) {
                return Ok(Some(missing));
            }
            if let Some(missing) = self.set_weights(invoke)? {
                return Ok(Some(missing));
            }
            self.touching = Some(instance);
            let outputs = match self.advance(invoke, step, stage + 1)? {
                Walked::There => self.touch(invoke, stage, instance)?,
                Walked::Over => None,
                Walked::Needs(missing) => {
                    self.touching = None;
                    return Ok(Some(missing));
                }
            };
            self.touching = None;
            self.values.insert(instance, outputs);
            self.walkers[invoke].next += 1;
        }
        Ok(None)
    }

    pub(super) fn reach_end(
        &mut self,
        invoke: usize,
        instance: Instance,
    ) -> Result<Option<Instance>, OperationError> {
        if let Some(&(_, _, last)) = self.walkers[invoke].touches.last()
            && let Some(missing) = self.reach(invoke, last)?
        {
            return Ok(Some(missing));
        }
        if let Some(missing) = self.set_weights(invoke)? {
            return Ok(Some(missing));
        }
        let total =
            self.walkers[invoke].generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
        if let Walked::Needs(missing) = self.advance(invoke, total, 0)? {
            return Ok(Some(missing));
        }
        let made = &self.walkers[invoke].made;
        let width = total as usize;
        let cells = made
            .iter()
            .flat_map(|made| (0..width).map(|at| made.get(at).map_or(-1, |&token| i64::from(token))));
        let tensor = Tensor::from_i64(cells.collect(), &[made.len(), width])?;
        self.values.insert(instance, Some(vec![tensor]));
        Ok(None)
    }

    /// Sets the weights of an invoke before it walks. Gives back what must be computed first, if something must.
    fn set_weights(&mut self, invoke: usize) -> Result<Option<Instance>, OperationError> {
        let Some(setting) = &self.walkers[invoke].setting else { return Ok(None) };
        let unknown = |id: &NodeId| !self.values.contains_key(&(OUTSIDE, *id));
        if let Some(&id) = setting.iter().find(|id| unknown(id)) {
            return Ok(Some((OUTSIDE, id)));
        }
        let mut set = WeightSet::default();
        for &id in setting {
            let NodeKind::SetWeight { value, .. } = &self.program.program.node(id).kind else { continue };
            if let (Some(Some(_)), Some(value)) =
                (self.values.get(&(OUTSIDE, id)), self.there(*value, OUTSIDE))
            {
                let parameter = self.program.nodes[id.index()].parameter;
                let parameter =
                    parameter.ok_or_else(|| OperationError::new("its parameter was not found"))?;
                let replaced = weights::replaced(self.model, parameter, value)?;
                set.insert(weights::weight_id(parameter)?, Arc::new(replaced));
            }
        }
        let walker = &mut self.walkers[invoke];
        (walker.setting, walker.weights) = (None, Some(Arc::new(set)));
        walker.state.weights = walker.weights.clone();
        Ok(None)
    }

    /// Walks an invoke until `stage` comes next at `step`, unless generation stops before.
    fn advance(&mut self, invoke: usize, step: u64, stage: usize) -> Result<Walked, OperationError> {
        let list = self.model.stages();
        loop {
            let walker = &mut self.walkers[invoke];
            if walker.over {
                return Ok(Walked::Over);
            }
            let end = if walker.step < step { list.stages.len() } else { stage };
            if walker.stage < end {
                let range = walker.stage..end;
                let tape = (!self.program.gradients.is_empty()).then_some(&mut walker.tape);
                let mut visitor = Everywhere { list, tape, watch: &self.watch };
                walk(self.model, self.schedule, range, &mut walker.state, &mut self.pool, &mut visitor)
                    .map_err(|interruption| match interruption {
                        Interruption::Internal(message) => OperationError::new(message),
                        Interruption::AllFailed => OperationError::new("interrupted"),
                    })?;
                walker.stage = end;
            }
            if walker.step >= step {
                return Ok(Walked::There);
            }
            let now = self.walkers[invoke].step;
            let mut stops = self.walkers[invoke].stops.iter();
            if let Some(&stop) = stops.find(|stop| stop.0 == now && !self.values.contains_key(*stop)) {
                return Ok(Walked::Needs(stop));
            }
            self.next_step(invoke)?;
        }
    }

    fn next_step(&mut self, invoke: usize) -> Result<(), OperationError> {
        let list = self.model.stages();
        let stopped = self.stopped(invoke)?;
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
        for (prompt, stopped) in stopped.into_iter().enumerate() {
            if walker.finished[prompt] {
                continue;
            }
            let Some(mut sequence) = sequences.next() else { continue };
            let Some(SlotValue::Rows(rows)) = list.logits.and_then(|slot| walker.state.slot(slot)) else {
                return Err(OperationError::new("the logits are not there"));
            };
            let mut logits = vec![0.0; rows.width()];
            rows.copy_row(walker.state.rows[at].end - 1, &mut logits);
            logits.truncate(self.model.drawn_tokens());
            at += 1;
            let noise = Noise {
                seed: self.program.program.seed,
                label: walker.noise.0.clone(),
                coordinates: walker.noise.1.iter().copied().chain([prompt as u64, walker.step]).collect(),
            };
            let present: Vec<u32> =
                walker.prompts[prompt].iter().chain(&walker.made[prompt]).copied().collect();
            let token = sampling::choose(&logits, &present, &generation.sampling, &noise);
            walker.made[prompt].push(token);
            if stopped || stop_tokens.contains(&token) || stops(self.model, &generation, &walker.made[prompt])
            {
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
        walker.state.weights = walker.weights.clone();
        Ok(())
    }

    /// Which prompts of an invoke the program stops at its step.
    fn stopped(&mut self, invoke: usize) -> Result<Vec<bool>, OperationError> {
        let walker = &self.walkers[invoke];
        let (now, prompts) = (walker.step, walker.prompts.len());
        let mut all = vec![false; prompts];
        for stop in walker.stops.iter().filter(|stop| stop.0 == now) {
            let NodeKind::Stop { when, .. } = &self.program.program.node(stop.1).kind else { continue };
            let is_lost = !matches!(self.values.get(stop), Some(Some(_)));
            let Some(when) = self.there(*when, now).cloned().filter(|_| !is_lost) else { continue };
            let touching = self.touching.replace(*stop);
            for (all, stopped) in all.iter_mut().zip(stopped(&when, prompts)?) {
                *all |= stopped;
            }
            self.touching = touching;
        }
        Ok(all)
    }

    /// An invoke's rectangle at its step.
    pub(super) fn rectangle(&self, invoke: usize) -> Rectangle {
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
            vocabulary: None,
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
        let granted = self.is_granted(instance)?;
        let rectangle = self.rectangle(invoke);
        match &self.program.program.node(instance.1).kind {
            NodeKind::Set { value, .. } | NodeKind::Skip { value, .. } => {
                let given = self.there(*value, instance.0).cloned().filter(|_| granted);
                let Some(given) = given else { return Ok(None) };
                let hook = &self.model.spec().hook_points[point];
                let given = fit(&given, &hook.shape, hook.dtype, &rectangle)?;
                let state = &mut self.walkers[invoke].state;
                view::write(state, slot, layout, &rectangle, &given, self.schedule.id_limit(slot))?;
                Ok(Some(Vec::new()))
            }
            _ => Ok(Some(vec![view::read(&self.walkers[invoke].state, slot, layout, &rectangle)?])),
        }
    }
}
