//! Which written gradients are seen: a `set_grad` shows in the gradients that come after it on the way back, which are those
//! of what its own place is computed from, and of the same version after it in program order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Checker;
use super::versions::{Chain, Touches};
use crate::program::{GradientOf, NodeId, NodeKind};

/// A place in an invoke: a version of a hook point, by its place and the setter that made it (the first node: the model).
type At = (Chain, (usize, NodeId));

/// One way back: the gradients that are written, and what nothing needed is known to reach or show yet.
#[derive(Default)]
struct Seen {
    /// Written gradients of values, by the value's node.
    values: HashMap<NodeId, BTreeSet<NodeId>>,
    /// Written gradients of versions of hook points.
    versions: HashMap<Chain, BTreeMap<(usize, NodeId), BTreeSet<NodeId>>>,
    getters: HashMap<Chain, BTreeSet<(usize, NodeId)>>,
    reached: BTreeSet<NodeId>,
}

/// The written gradients of a program, and what is found of them while the needed nodes are found.
#[derive(Default)]
pub(super) struct Shown {
    touches: Touches,
    /// Of each node, those that a gradient flows to it from.
    users: Vec<Vec<NodeId>>,
    ways: HashMap<NodeId, Seen>,
}

impl Checker<'_> {
    /// The written gradients of a program, before any node is known to be needed.
    pub(super) fn written_gradients(&self) -> Shown {
        let mut shown = Shown::default();
        let set = |id: &NodeId| matches!(self.program.node(*id).kind, NodeKind::SetGrad { .. });
        if !self.gradients.iter().any(|plan| plan.targets.iter().any(set)) {
            return shown;
        }
        shown.touches = self.model_touches();
        shown.users = self.flow_from();
        for plan in &self.gradients {
            let mut way = Seen::default();
            for &id in plan.targets.iter().filter(|id| set(id)) {
                match (self.at(id, &shown.touches), self.program.node(id).kind.gradient()) {
                    (Some((chain, version)), _) => {
                        way.versions.entry(chain).or_default().entry(version).or_default().insert(id);
                    }
                    (None, Some((_, GradientOf::Value(value)))) => {
                        way.values.entry(value.node).or_default().insert(id);
                    }
                    _ => {}
                }
            }
            for &id in &plan.path {
                let checked = &self.nodes[id.index()];
                if let (NodeKind::Get(address), Some(place)) = (&self.program.node(id).kind, checked.place) {
                    way.getters.entry((checked.trace, address.invoke)).or_default().insert((place, id));
                }
            }
            shown.ways.insert(plan.backward, way);
        }
        shown
    }

    /// The version whose gradient a node reads or writes, if it is that of a version.
    fn at(&self, target: NodeId, touches: &Touches) -> Option<At> {
        let (backward, of) = self.program.node(target).kind.gradient()?;
        let trace = self.nodes[backward.index()].trace;
        let (chain, (place, setter)) = self.version_of(target, of, trace, touches)?;
        Some((chain, (place, setter.unwrap_or(NodeId(0)))))
    }

    /// The written gradients that a needed `grad` shows, and no needed one before it.
    pub(super) fn shown_by(&self, grad: NodeId, shown: &mut Shown) -> Vec<NodeId> {
        let Shown { touches, users, ways } = shown;
        let NodeKind::Grad { backward, of } = &self.program.node(grad).kind else { return Vec::new() };
        let Some(way) = ways.get_mut(backward) else { return Vec::new() };
        let Ok(plan) = self.gradients.binary_search_by_key(backward, |plan| plan.backward) else {
            return Vec::new();
        };
        let plan = &self.gradients[plan];
        let own = self.at(grad, touches);
        let mut found = Vec::new();
        let mut open: Vec<NodeId> = Vec::new();
        let value = match of {
            GradientOf::Value(value) => Some(value.node),
            GradientOf::Hook(_) => None,
        };
        // The same gradient, written before.
        let same = match own {
            Some((chain, version)) => way.versions.get_mut(&chain).and_then(|all| all.get_mut(&version)),
            None => value.and_then(|value| way.values.get_mut(&value)),
        };
        if let Some(same) = same {
            let after = same.split_off(&grad);
            found.extend(std::mem::replace(same, after));
        }
        if let Some(value) = value {
            open.extend(&users[value.index()]);
        }
        if let Some((chain, version)) = own {
            // What comes after it; its own version's getters read it.
            way.pass(chain, version, false, &mut open, &mut found);
        }
        while let Some(id) = open.pop() {
            if !plan.goes_through(id) || !way.reached.insert(id) {
                continue;
            }
            found.extend(way.values.remove(&id).into_iter().flatten());
            if let Some((chain, from)) = self.seen_from(id) {
                way.pass(chain, from, true, &mut open, &mut found);
            }
            open.extend(&users[id.index()]);
        }
        found
    }
}

impl Seen {
    /// A version of a hook point matters: so does everything of the invoke after it; and its own gradient, if `itself`.
    fn pass(
        &mut self,
        chain: Chain,
        version: (usize, NodeId),
        itself: bool,
        open: &mut Vec<NodeId>,
        found: &mut Vec<NodeId>,
    ) {
        if let Some(left) = self.getters.get_mut(&chain) {
            open.extend(left.split_off(&version).into_iter().map(|(_, getter)| getter));
        }
        if let Some(left) = self.versions.get_mut(&chain) {
            let mut after = left.split_off(&version);
            if !itself && let Some(own) = after.remove(&version) {
                left.insert(version, own);
            }
            found.extend(after.into_values().flatten());
        }
    }
}
