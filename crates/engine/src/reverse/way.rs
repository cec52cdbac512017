//! Backward only where it is needed: which stages a gradient goes back through, for one invoke. These are those that lie between
//! something whose gradient is needed and something that the loss is computed from. Nothing else is recorded on the way there or
//! computed on the way back.
//!
//! **Needs:** before the pass begins it is known which gradients are read or written, and by which nodes they come from the loss
//! (`check::gradients`). What is set, and weights that are set, are ends of a way as gradients that are read are.
//!
//! **Keeps:** a gradient depends on those of what is computed from it, as far as these come from the loss: all such stages are on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pellucid_graph::check::{CheckedProgram, GradientPlan};
use pellucid_graph::{NodeId, NodeKind};
use pellucid_models::stage::{Kernel, StageList, WeightId};

use crate::pass::Schedule;
use crate::weights::weight_id;

/// The way back through one invoke's pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// Of each stage: whether a gradient goes back through it.
    pub stages: Vec<bool>,
    /// Of each slot: whether it is computed from something whose gradient is needed.
    pub slots: Vec<bool>,
    /// The first stage that is gone back through.
    pub first: usize,
    /// The stage after the last.
    pub end: usize,
    /// The weights that were set and whose gradients are needed.
    pub weights: BTreeSet<WeightId>,
}

/// Where gradients enter and leave a pass, and the weights of which they are needed.
type Ends = (BTreeSet<usize>, BTreeSet<usize>, BTreeSet<WeightId>);

/// The ways of the `backward`s of one trace: for each, by invoke.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    trace: Option<NodeId>,
    ways: BTreeMap<NodeId, BTreeMap<usize, Arc<Way>>>,
}

impl Ways {
    /// What the gradients of a trace need. Invokes that are alike share what is found.
    pub fn of(program: &CheckedProgram, trace: NodeId, list: &StageList, schedule: &Schedule) -> Ways {
        let mut found = Ways { trace: Some(trace), ..Ways::default() };
        let mut alike: BTreeMap<Ends, Arc<Way>> = BTreeMap::new();
        for plan in &program.gradients {
            let checked = &program.nodes[plan.backward.index()];
            if checked.trace != Some(trace) || !checked.needed {
                continue;
            }
            let ways = ends(program, plan, trace, list, schedule).into_iter().map(|(invoke, ends)| {
                let way = alike.entry(ends).or_insert_with_key(|ends| Arc::new(way(list, ends)));
                (invoke, way.clone())
            });
            found.ways.insert(plan.backward, ways.collect());
        }
        found
    }

    /// Whether there is none, or none left.
    pub fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }

    /// A `backward` has come to its end.
    pub fn end(&mut self, backward: NodeId) {
        self.ways.remove(&backward);
    }

    /// The invokes that a `backward` goes back through, and the way in each.
    pub fn of_backward(&self, backward: NodeId) -> impl Iterator<Item = (usize, &Arc<Way>)> {
        self.ways.get(&backward).into_iter().flatten().map(|(&invoke, way)| (invoke, way))
    }

    /// The stages of each way back through an invoke of a trace.
    pub fn through(&self, trace: Option<NodeId>, invoke: usize) -> impl Iterator<Item = &[bool]> {
        let ways = self.ways.values().filter(move |_| trace == self.trace);
        ways.filter_map(move |ways| Some(ways.get(&invoke)?.stages.as_slice()))
    }

    /// The stages of an invoke that some `backward` goes back through; none: it is not tracked.
    pub fn tracked(&self, invoke: usize) -> Option<Arc<[bool]>> {
        let mut tracked: Option<Vec<bool>> = None;
        for way in self.ways.values().filter_map(|ways| ways.get(&invoke)) {
            match &mut tracked {
                None => tracked = Some(way.stages.clone()),
                Some(tracked) => tracked.iter_mut().zip(&way.stages).for_each(|(all, own)| *all |= own),
            }
        }
        tracked.filter(|tracked| tracked.contains(&true)).map(Arc::from)
    }

    /// The weights set for an invoke whose gradients some `backward` needs.
    pub fn weights(&self, invoke: usize) -> BTreeSet<WeightId> {
        let ways = self.ways.values().filter_map(|ways| ways.get(&invoke));
        ways.flat_map(|way| way.weights.iter().copied()).collect()
    }
}

/// Where gradients enter and leave each invoke's pass: stages where values or weights are set, or gradients asked for; and
/// those where values are read, or gradients written.
fn ends(
    program: &CheckedProgram,
    plan: &GradientPlan,
    trace: NodeId,
    list: &StageList,
    schedule: &Schedule,
) -> BTreeMap<usize, Ends> {
    let mut by_invoke: BTreeMap<usize, Ends> = BTreeMap::new();
    let stage = |id: NodeId| {
        let checked = &program.nodes[id.index()];
        let own = checked.trace == Some(trace);
        checked.place.filter(|_| own).and_then(|place| schedule.hook_stage.get(place)).copied()
    };
    for &id in &plan.path {
        let kind = &program.program.node(id).kind;
        if let (Some((invoke, _)), Some(stage)) = (kind.written(), stage(id)) {
            by_invoke.entry(invoke).or_default().0.insert(stage);
        } else if let (NodeKind::Get(address), Some(stage)) = (kind, stage(id)) {
            by_invoke.entry(address.invoke).or_default().1.insert(stage);
        } else if let NodeKind::SetWeight { invoke, .. } = kind
            && let Some(Ok(weight)) = program.nodes[id.index()].parameter.map(weight_id)
        {
            let (starts, _, weights) = by_invoke.entry(*invoke).or_default();
            if weights.insert(weight) {
                let stages = list.stages.iter().enumerate();
                starts.extend(stages.filter(|(_, stage)| reads(&stage.kernel, weight)).map(|(at, _)| at));
            }
        }
    }
    for &target in &plan.targets {
        let Some((id, address)) = program.program.gradient_at(target) else { continue };
        if let Some(stage) = stage(id) {
            let (starts, ends, _) = by_invoke.entry(address.invoke).or_default();
            starts.insert(stage);
            // What is written there goes on, whether or not anything came there from the loss.
            if matches!(program.program.node(target).kind, NodeKind::SetGrad { .. }) {
                ends.insert(stage);
            }
        }
    }
    by_invoke
}

/// Whether gradients flow through a kernel: ids have none.
fn flows(kernel: &Kernel) -> bool {
    !matches!(kernel, Kernel::Embed { .. })
}

/// Whether a kernel reads a weight.
fn reads(kernel: &Kernel, weight: WeightId) -> bool {
    match kernel {
        Kernel::Embed { table, .. } => *table == weight,
        Kernel::Linear { weight: own, bias, .. } => *own == weight || *bias == Some(weight),
        Kernel::NormApply(norm) => norm.weight == Some(weight) || norm.bias == Some(weight),
        _ => false,
    }
}

fn way(list: &StageList, (starts, ends, weights): &Ends) -> Way {
    let mut slots = vec![false; list.slots as usize];
    for (number, stage) in list.stages.iter().enumerate() {
        let reached = flows(&stage.kernel) && stage.inputs.iter().any(|slot| slots[slot.0 as usize]);
        let begins = starts.contains(&number);
        stage.outputs.iter().for_each(|slot| slots[slot.0 as usize] = reached || begins);
    }
    let mut leads = vec![false; list.slots as usize];
    let mut stages = vec![false; list.stages.len()];
    for (number, stage) in list.stages.iter().enumerate().rev() {
        let read = ends.contains(&number);
        let output = stage.outputs.iter().any(|slot| leads[slot.0 as usize]) || read;
        stages[number] = output && stage.outputs.iter().any(|slot| slots[slot.0 as usize]);
        if output {
            stage.outputs.iter().chain(&stage.inputs).for_each(|slot| leads[slot.0 as usize] = true);
        }
    }
    // What attention's last stage reads on the way back is kept at its first.
    for number in (0..stages.len()).filter(|&number| stages[number]).collect::<Vec<_>>() {
        if let Kernel::AttentionMixed(_) = list.stages[number].kernel {
            let scores = list.stages[..number]
                .iter()
                .rposition(|stage| matches!(stage.kernel, Kernel::AttentionScores(_)));
            scores.into_iter().for_each(|scores| stages[scores] = true);
        }
    }
    // Every hook point that somebody asks at is passed, even if nothing of it comes to the loss.
    let first = starts.first().into_iter().chain(ends.first()).min().copied().unwrap_or(0);
    let end = starts.last().into_iter().chain(ends.last()).max().map_or(0, |last| last + 1);
    Way { stages, slots, first, end, weights: weights.clone() }
}
