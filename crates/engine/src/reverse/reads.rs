//! What was read of an invoke on the way to a value: an invoke is gone back through once that is known.

use pellucid_graph::check::GradientPlan;
use pellucid_graph::{GradientOf, NodeId, NodeKind};

use super::Desk;
use crate::job::{Job, OUTSIDE};

/// The getters of an invoke that are on a way back.
fn getters<'g>(job: &'g Job<'_>, plan: &'g GradientPlan, invoke: usize) -> impl Iterator<Item = NodeId> + 'g {
    let trace = job.program.nodes[plan.backward.index()].trace;
    plan.path.iter().copied().filter(move |id| {
        let own = job.program.nodes[id.index()].trace == trace;
        matches!(&job.program.program.node(*id).kind, NodeKind::Get(address) if own && address.invoke == invoke)
    })
}

/// A hook point after everything that was read of its invoke for the value has no gradient: conditions have chosen something
/// else, and the invoke need not have run so far.
pub(super) fn lose_what_did_not_run(invoke: usize, desk: &mut Desk<'_, '_>) {
    let program = desk.job.program.clone();
    let place = |id: NodeId| program.nodes[id.index()].place;
    let there = getters(desk.job, desk.plan, invoke).filter(|&id| !desk.job.is_lost((OUTSIDE, id)));
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
    getters(desk.job, desk.plan, invoke).all(|getter| desk.job.is_settled((OUTSIDE, getter)))
}
