//! Which hook points a trace reads and writes of each of its invokes.

use std::collections::BTreeMap;

use pellucid_graph::check::CheckedProgram;
use pellucid_graph::{NodeId, NodeKind, Trace};

use crate::job::Instance;

/// A getter, setter or skip of the current step: its stage and instance, in the order in which they come.
pub(crate) type Touch = (usize, Instance);

/// What a trace asks of one invoke: getters, setters and skips that are needed, each with its hook point's place.
#[derive(Clone, Default)]
pub(crate) struct Asked {
    /// Those outside `steps`, by step.
    pub outside: BTreeMap<u64, Vec<(usize, NodeId)>>,
    /// Those inside `steps`, by the node that owns the body.
    pub inside: BTreeMap<NodeId, Vec<(usize, NodeId)>>,
    /// Places of hook points whose gradients are read or written.
    pub gradients: Vec<usize>,
    /// Nodes that read the tokens it generates.
    pub generated: Vec<NodeId>,
    /// Nodes that set its weights.
    pub weights: Vec<NodeId>,
    /// Nodes that may stop its generation, by the node that owns the `steps` body.
    pub stops: BTreeMap<NodeId, Vec<NodeId>>,
}

impl Asked {
    /// What a trace asks of each of its invokes: one walk over its nodes, however many invokes there are.
    pub fn of(program: &CheckedProgram, trace_id: NodeId, trace: &Trace) -> Vec<Asked> {
        let mut all = vec![Asked::default(); trace.invokes.len()];
        let needed = |id: &&NodeId| program.nodes[id.index()].needed;
        for &id in &trace.body {
            match &program.program.node(id).kind {
                NodeKind::Steps { body, .. } => {
                    for &inner in body.iter().filter(needed) {
                        if let NodeKind::Stop { invoke, .. } = &program.program.node(inner).kind
                            && let Some(asked) = all.get_mut(*invoke)
                        {
                            asked.stops.entry(id).or_default().push(inner);
                        }
                        if let Some((invoke, _, place)) = touch(program, inner)
                            && let Some(asked) = all.get_mut(invoke)
                        {
                            asked.inside.entry(id).or_default().push((place, inner));
                        }
                    }
                }
                NodeKind::Generated(invoke) if program.nodes[id.index()].needed => {
                    if let Some(asked) = all.get_mut(*invoke) {
                        asked.generated.push(id);
                    }
                }
                NodeKind::SetWeight { invoke, .. } if program.nodes[id.index()].needed => {
                    if let Some(asked) = all.get_mut(*invoke) {
                        asked.weights.push(id);
                    }
                }
                _ if program.nodes[id.index()].needed => {
                    if let Some((invoke, step, place)) = touch(program, id)
                        && let Some(asked) = all.get_mut(invoke)
                    {
                        asked.outside.entry(step).or_default().push((place, id));
                    }
                }
                _ => {}
            }
        }
        // Gradients may be asked for anywhere: after the trace, or in a later one.
        for &id in program.gradients.iter().flat_map(|plan| &plan.targets).filter(needed) {
            let Some((id, address)) = program.program.gradient_at(id) else { continue };
            let own = program.nodes[id.index()].trace.is_some_and(|own| own == trace_id);
            if let (true, Some(asked), Some(place)) =
                (own, all.get_mut(address.invoke), program.nodes[id.index()].place)
            {
                asked.gradients.push(place);
            }
        }
        all
    }

    /// Leaves out what is known never to come.
    pub fn retain(&mut self, mut comes: impl FnMut(NodeId) -> bool) {
        for touches in self.outside.values_mut().chain(self.inside.values_mut()) {
            touches.retain(|&(_, id)| comes(id));
        }
        self.outside.retain(|_, touches| !touches.is_empty());
        self.inside.retain(|_, touches| !touches.is_empty());
        self.generated.retain(|&id| comes(id));
    }

    /// The nodes outside `steps` for which the invoke runs, if there are no others.
    pub fn all_outside(&self) -> Option<impl Iterator<Item = NodeId>> {
        let touches = self.outside.values().flatten().map(|&(_, id)| id);
        self.inside.is_empty().then(|| touches.chain(self.generated.iter().copied()))
    }

    /// The last step of a generation of `total` steps that matters; none: the invoke does not run.
    pub fn last_step(&self, program: &CheckedProgram, total: u64) -> Option<u64> {
        let mut last = self.outside.keys().next_back().copied();
        if !self.generated.is_empty() {
            last = last.max(Some(total.saturating_sub(1)));
        }
        for &owner in self.inside.keys() {
            if let NodeKind::Steps { steps, .. } = &program.program.node(owner).kind {
                last = last.max((0..total).rev().find(|&step| steps.contains(step, total)));
            }
        }
        last
    }
}

/// The invoke, step and place of a getter, setter or skip.
fn touch(program: &CheckedProgram, id: NodeId) -> Option<(usize, u64, usize)> {
    let (invoke, step) = match &program.program.node(id).kind {
        NodeKind::Get(address) | NodeKind::Set { address, .. } => (address.invoke, address.step),
        NodeKind::Skip { invoke, step, .. } => (*invoke, *step),
        _ => return None,
    };
    Some((invoke, step.unwrap_or(0), program.nodes[id.index()].place?))
}
