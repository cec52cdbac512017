//! What was read of an invoke on the way to a value: an invoke is gone back through once that is known.

use std::collections::BTreeMap;

use pellucid_graph::check::GradientPlan;
use pellucid_graph::{GradientOf, NodeId, NodeKind};

use super::Desk;
use crate::job::{Job, OUTSIDE};

/// The getters on a way back, by invoke.
pub(super) type Reads = BTreeMap<usize, Vec<NodeId>>;

pub(super) fn of_plan(job: &Job<'_>, plan: &GradientPlan) -> Reads {
    let trace = job.program.nodes[plan.backward.index()].trace;
    let mut reads = Reads::new();
    for &id in plan.path.iter().filter(|id| job.program.nodes[id.index()].trace == trace) {
        if let NodeKind::Get(address) = &job.program.program.node(id).kind {
            reads.entry(address.invoke).or_default().push(id);
        }
    }
    reads
}

/// A hook point after everything that was read of its invoke for the value has no gradient: conditions have chosen something
/// else, and the invoke need not have run so far.
pub(super) fn lose_what_did_not_run(invoke: usize, desk: &mut Desk<'_, '_>) {
    let program = desk.job.program.clone();
    let place = |id: NodeId| program.nodes[id.index()].place;
    if !desk.job.has_lost() {
        return;
    }
    let reads = desk.reads.get(&invoke).into_iter().flatten().copied();
    let there = reads.filter(|&id| !desk.job.is_lost((OUTSIDE, id)));
    let last = there.filter_map(|id| Some((place(id)?, id))).max();
    let trace = program.nodes[desk.plan.backward.index()].trace;
    let reads_of = |id: NodeId| match &program.program.node(id).kind {
        NodeKind::Get(address) => address.invoke == invoke && program.nodes[id.index()].trace == trace,
        _ => false,
    };
    for &target in &desk.plan.targets {
        // The hook point, and who reads it: a gradient of the hook point itself is that of what flowed on.
        let (at, reader) = match program.program.node(target).kind.gradient() {
            Some((_, GradientOf::Hook(address))) if address.invoke == invoke => (target, None),
            Some((_, GradientOf::Value(value))) if reads_of(value.node) => (value.node, Some(value.node)),
            _ => continue,
        };
        let setters = desk.setters.get(&invoke).into_iter().flatten().copied();
        let version = setters.filter(|&setter| {
            let before = reader.is_none_or(|reader| setter < reader);
            before && place(setter) == place(at) && !desk.job.is_lost((OUTSIDE, setter))
        });
        let version = place(at).map(|place| (place, version.max().unwrap_or(NodeId(0))));
        if reader.is_some_and(|reader| desk.job.is_lost((OUTSIDE, reader))) || last <= version {
            desk.lose(target);
        }
    }
}

/// Whether everything that a way back goes back from in an invoke was read, or never comes.
pub(super) fn are_known(invoke: usize, desk: &Desk<'_, '_>) -> bool {
    let mut reads = desk.reads.get(&invoke).into_iter().flatten();
    reads.all(|&getter| desk.job.is_settled((OUTSIDE, getter)))
}
