//! How the judge walks an invoke back: through every stage, from behind what was read to where somebody asks.

use std::sync::Arc;

use pellucid_graph::{DType, GradientOf, NodeId, NodeKind};
use pellucid_models::stage::{HookLayout, Kernel, Slot, SlotShape};

use super::super::Naive;
use super::Result;
use crate::job::OUTSIDE;
use crate::operations::OperationError;
use crate::pass::{PassState, Sequence};
use crate::reverse::stages::Back as StageBack;
use crate::reverse::sums;
use crate::reverse::weights::OfWeights;
use crate::slots::{Rows, SlotValue};
use crate::view;
use crate::weights::{self, Weights};

/// An invoke that is walked back; slots hold cotangents.
pub(super) struct Walk {
    state: PassState,
    /// The stage that was gone back through last.
    at: usize,
    /// Touches of the stage at hand that are left, in program order.
    left: Option<Vec<NodeId>>,
    /// Gradients of the weights that were set.
    of_weights: OfWeights,
    /// Whether the gradients of the version at hand were given out.
    given: bool,
}

impl Naive<'_> {
    /// Walks an invoke back until the gradient `until` is given out or the cotangent of the setter `until` is known.
    pub(super) fn walk_back(&mut self, backward: NodeId, invoke: usize, until: NodeId) -> Result<()> {
        let mut walk = match self.back(backward)?.walks.insert(invoke, None) {
            Some(Some(walk)) => walk,
            Some(None) => {
                let message = "it waits for a gradient that waits for this one itself";
                return Err(OperationError::new(message));
            }
            None => self.begin_walk(backward, invoke)?,
        };
        let outcome = loop {
            // A setter has a value too, that of the way there.
            let setter = self.program.program.node(until).kind.gradient().is_none();
            let reached = match setter {
                true => self.back(backward)?.written.contains_key(&until),
                false => self.values.contains_key(&(OUTSIDE, until)),
            };
            if reached {
                break Ok(());
            }
            if walk.at == 0 && walk.left.is_none() {
                match self.end_walk(backward, invoke, &mut walk) {
                    Ok(()) if self.back(backward)?.written.contains_key(&until) => break Ok(()),
                    Ok(()) => break Err(OperationError::new("the way back ended before it")),
                    Err(error) => break Err(error),
                }
            }
            if let Err(error) = self.step_back(backward, invoke, &mut walk) {
                break Err(error);
            }
        };
        self.back(backward)?.walks.insert(invoke, Some(walk));
        outcome
    }

    /// At the beginning of an invoke the gradients of its weights are known: of several values of one parameter, that of the
    /// last.
    fn end_walk(&mut self, backward: NodeId, invoke: usize, walk: &mut Walk) -> Result<()> {
        for id in self.walkers[invoke].set.clone().into_iter().rev() {
            let cotangent = match self.program.nodes[id.index()].parameter {
                Some(parameter) if !self.is_lost(id) => {
                    let weight = weights::weight_id(parameter)?;
                    let shape = self.model.weight(weight).map(|weight| weight.parameter().shape().to_vec());
                    walk.of_weights.take(weight, &shape.unwrap_or_default())?
                }
                _ => None,
            };
            self.back(backward)?.written.insert(id, cotangent);
        }
        Ok(())
    }

    /// An invoke behind every stage that anybody reads.
    fn begin_walk(&mut self, backward: NodeId, invoke: usize) -> Result<Walk> {
        let list = self.model.stages();
        let sequences =
            self.walkers[invoke].prompts.iter().map(|tokens| Sequence::new(vec![0; tokens.len()]));
        let mut state = PassState::begin(list, sequences.collect());
        state.clear();
        let _ = self.back(backward)?;
        // Nothing was walked beyond the walker's own stage.
        let at = self.walkers[invoke].stage.max(1);
        let of_weights = OfWeights::of(&self.walkers[invoke].tape.weights);
        Ok(Walk { state, at: at.min(list.stages.len()), left: None, of_weights, given: false })
    }

    /// One stage back, or at a hook point one touch.
    fn step_back(&mut self, backward: NodeId, invoke: usize, walk: &mut Walk) -> Result<()> {
        let (model, list) = (self.model, self.model.stages());
        if walk.left.is_none() {
            walk.at -= 1;
            walk.state.narrowed = walk.at >= list.token_wise_from;
            let stage = &list.stages[walk.at];
            if !matches!(stage.kernel, Kernel::Hook { .. }) {
                let wanted = vec![true; list.slots as usize];
                let walker = &self.walkers[invoke];
                let weights = Weights::new(model, walker.weights.as_deref());
                let back = StageBack { model, weights, tape: &walker.tape, wanted: &wanted };
                let (state, pool) = (&mut walk.state, &mut self.pool);
                let done = back.of_weights(stage, state, &mut walk.of_weights, pool);
                return done.and_then(|()| back.stage(walk.at, state, pool)).map_err(|interruption| {
                    match interruption {
                        crate::error::Interruption::Internal(message) => OperationError::new(message),
                        crate::error::Interruption::AllFailed => OperationError::new("interrupted"),
                    }
                });
            }
            walk.left = Some(self.touches_at(backward, invoke, walk.at)?);
            walk.given = false;
        }
        let stage = &list.stages[walk.at];
        let Kernel::Hook { point, layout } = stage.kernel else { return Ok(()) };
        let to = stage.outputs[0];
        let rectangle = self.rectangle(invoke);
        // The getters of the latest version that is left, in program order.
        let left = walk.left.clone().unwrap_or_default();
        let setter = |id: &NodeId| self.program.program.node(*id).kind.written().is_some();
        let version = left.iter().rposition(setter);
        let getters = &left[version.map_or(0, |place| place + 1)..];
        for &getter in getters {
            let cotangent = self.cotangent(backward, getter)?.first().cloned().flatten();
            if let Some(cotangent) = cotangent {
                self.ensure(&mut walk.state, to);
                let held = view::read(&walk.state, to, layout, &rectangle)?;
                if let Some(total) = sums::sum(vec![held, cotangent])? {
                    view::write(&mut walk.state, to, layout, &rectangle, &total, u64::MAX)?;
                }
            }
        }
        let made_by = version.map(|place| left[place]);
        self.give_out(backward, invoke, (walk.at, made_by), (point, layout, to), walk)?;
        if let Some(place) = version {
            let cotangent = match walk.state.slot(to) {
                Some(_) => Some(view::read(&walk.state, to, layout, &rectangle)?),
                None => None,
            };
            let _ = walk.state.take(to);
            self.back(backward)?.written.insert(left[place], cotangent);
            walk.left = Some(left[..place].to_vec());
            return Ok(());
        }
        walk.left = None;
        let wanted = vec![true; list.slots as usize];
        let walker = &self.walkers[invoke];
        let weights = Weights::new(model, walker.weights.as_deref());
        let back = StageBack { model, weights, tape: &walker.tape, wanted: &wanted };
        back.hook(stage, &mut walk.state, &mut self.pool);
        Ok(())
    }

    /// Gradients of a version are given out and written, in program order.
    fn give_out(
        &mut self,
        backward: NodeId,
        invoke: usize,
        (stage, made_by): (usize, Option<NodeId>),
        (point, layout, slot): (usize, HookLayout, Slot),
        walk: &mut Walk,
    ) -> Result<()> {
        let program = self.program;
        let rectangle = self.rectangle(invoke);
        let setters: Vec<NodeId> = self
            .touches_at(backward, invoke, stage)?
            .into_iter()
            .filter(|id| program.program.node(*id).kind.written().is_some())
            .collect();
        for target in self.back(backward)?.targets.clone() {
            let kind = &program.program.node(target).kind;
            let Some((_, of)) = kind.gradient() else { continue };
            if self.invoke_of(backward, of) != Some(invoke) {
                continue;
            }
            let (id, version) = match of {
                GradientOf::Hook(_) => (target, setters.last()),
                GradientOf::Value(value) => {
                    (value.node, setters.iter().rfind(|setter| **setter < value.node))
                }
            };
            let own = program.nodes[id.index()].place.map(|place| self.schedule.hook_stage[place]);
            if own != Some(stage) || version.copied() != made_by || self.is_lost(target) {
                continue;
            }
            self.ensure(&mut walk.state, slot);
            if let NodeKind::SetGrad { value, .. } = kind {
                if let Some(given) = self.demand(target, *value)? {
                    let axes = &self.model.spec().hook_points[point].shape;
                    let given = view::fit(&given, axes, DType::F32, &rectangle)?;
                    view::write(&mut walk.state, slot, layout, &rectangle, &given, u64::MAX)?;
                }
            } else {
                let read = view::read(&walk.state, slot, layout, &rectangle)?;
                let gradient = sums::given_out(&read, DType::F32)?;
                self.values.insert((OUTSIDE, target), Some(vec![gradient]));
            }
        }
        Ok(())
    }

    /// The setters of an invoke at a stage that set something, and the getters that matter, in program order.
    fn touches_at(&mut self, backward: NodeId, invoke: usize, stage: usize) -> Result<Vec<NodeId>> {
        let program = self.program;
        let touches = self.walkers[invoke].touches.clone().into_iter();
        let at: Vec<NodeId> = touches.filter(|touch| touch.1 == stage).map(|(_, _, (_, id))| id).collect();
        let back = self.back(backward)?;
        let matters = |id: &NodeId| match &program.program.node(*id).kind {
            NodeKind::Get(_) => back.ancestors.contains(id),
            _ => true,
        };
        let at: Vec<NodeId> = at.into_iter().filter(matters).collect();
        Ok(at.into_iter().filter(|id| !self.is_lost(*id)).collect())
    }

    fn ensure(&self, state: &mut PassState, slot: Slot) {
        if state.slot(slot).is_some() {
            return;
        }
        let value = match self.model.stages().shapes.get(slot.0 as usize) {
            Some(SlotShape::Context { heads }) => {
                let lengths = state.rows.iter().map(|rows| rows.len());
                SlotValue::Ragged(
                    lengths.map(|length| Some(Arc::new(vec![0.0; heads * length * length]))).collect(),
                )
            }
            Some(SlotShape::Inner(inner)) => {
                let width: usize = inner.iter().product();
                SlotValue::Rows(Rows::contiguous(vec![0.0; state.tokens() * width], inner))
            }
            _ => return,
        };
        state.put(slot, value);
    }
}
