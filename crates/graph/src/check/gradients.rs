//! What each `backward` goes through: the nodes that lead from something whose gradient is asked for to the value that is
//! gone back from. Nothing else is kept or computed on the way back.
//!
//! Within the `backward`'s own trace gradients flow through the model: an edit of an invoke reaches every hook point of it
//! that is read later. What an earlier trace read of its model is a constant, and so is a gradient: a program in which
//! that would leave a part of a gradient out is refused. Of two branches both are gone through: which one ran is known later.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Checker;
use super::versions::{Chain, Moment, Reads, Touches, Unread};
use crate::limits;
use crate::program::{GradientOf, NodeId, NodeKind, Value};

/// What one `backward` goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GradientPlan {
    /// The node.
    pub backward: NodeId,
    /// The `grad` and `set_grad` nodes of it, in program order.
    pub targets: Vec<NodeId>,
    /// Every node with a value whose gradient is needed, sorted: what is computed from a target and leads to the value
    /// that is gone back from. Setters stand here for the values that they write.
    pub path: Vec<NodeId>,
}

impl GradientPlan {
    /// Whether the gradient of a node's value is needed.
    pub fn goes_through(&self, id: NodeId) -> bool {
        self.path.binary_search(&id).is_ok()
    }
}

/// What is found on the way back from some values.
#[derive(Default)]
struct Ancestors {
    nodes: BTreeSet<NodeId>,
    /// Of each invoke, the getters found.
    reads: HashMap<Chain, Reads>,
    /// Getters of other traces, through whose models nobody went.
    elsewhere: Vec<NodeId>,
    /// Gradients that were come to.
    gradients: Vec<NodeId>,
    /// Edits that were looked through.
    edits: usize,
}

/// How far a walk back goes.
#[derive(Clone, Copy, PartialEq)]
enum Through {
    /// Through what gradients flow through.
    Gradients,
    /// Through other traces' models too.
    Traces,
    /// Through everything that has an effect.
    Everything,
}

impl Checker<'_> {
    /// Finds what each `backward` goes through; faults where a gradient is asked for of what does not matter.
    pub(super) fn gradients(&mut self) {
        let mut targets: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for (position, node) in self.program.nodes.iter().enumerate() {
            let id = NodeId(position as u32);
            if let NodeKind::Backward { .. } = &node.kind {
                targets.entry(id).or_default();
            } else if let Some((backward, _)) = node.kind.gradient() {
                targets.entry(backward).or_default().push(id);
            }
        }
        // Nodes without a type are at fault already.
        if targets.is_empty() || !self.faults.is_empty() {
            return;
        }
        let touches = self.model_touches();
        let mut work = 0;
        let users = self.flow_from();
        for (backward, targets) in targets {
            if work > limits::WAY_BACK_NODES {
                let hint = "go back in fewer traces, or from one sum of the values".to_owned();
                let message = format!(
                    "the program's `backward`s go through more than {} nodes together",
                    limits::WAY_BACK_NODES
                );
                return self.fault(backward, message, Some(hint));
            }
            if targets.is_empty() {
                let hint = "read one with `grad`, or remove it".to_owned();
                self.fault(backward, "nobody asks for a gradient of this `backward`", Some(hint));
            } else if let Some(plan) = self.plan(backward, targets, &touches, &users, &mut work) {
                self.gradients.push(plan);
            }
        }
    }

    fn plan(
        &mut self,
        backward: NodeId,
        targets: Vec<NodeId>,
        touches: &Touches,
        users: &[Vec<NodeId>],
        work: &mut usize,
    ) -> Option<GradientPlan> {
        let NodeKind::Backward { of: loss, .. } = self.program.node(backward).kind else { return None };
        let trace = self.nodes[backward.index()].trace;
        // Nothing before a target's own trace can be computed from it.
        let first = |target: &NodeId| match self.program.node(*target).kind.gradient() {
            Some((_, GradientOf::Value(value))) => {
                self.nodes[value.node.index()].trace.unwrap_or(value.node).min(value.node)
            }
            _ => trace.unwrap_or(*target),
        };
        let first = targets.iter().map(first).min()?;
        let found = self.ancestors(&[loss.node], first, trace, Through::Gradients, touches);
        *work += targets.len() + found.edits;
        let values = |id: &NodeId| self.program.node(*id).kind.values().len();
        *work += found.nodes.iter().map(|id| 1 + users[id.index()].len().max(values(id))).sum::<usize>();
        let before = self.faults.len();
        for &target in &targets {
            if !self.is_found(target, trace, &found, touches) {
                self.fault_without_gradient(target, loss, first, trace, touches);
            }
        }
        if self.faults.len() > before {
            return None;
        }
        self.refuse_partial(backward, loss, &targets, first, &found, touches)?;
        let path = self.path(&targets, trace, &found, touches, users);
        Some(GradientPlan { backward, targets, path })
    }

    /// Everything that those nodes are computed from, down to node `first`.
    fn ancestors(
        &self,
        from: &[NodeId],
        first: NodeId,
        trace: Option<NodeId>,
        through: Through,
        touches: &Touches,
    ) -> Ancestors {
        let mut found = Ancestors::default();
        let mut unread: HashMap<Chain, Unread> = HashMap::new();
        let mut open = from.to_vec();
        while let Some(id) = open.pop() {
            if id < first || !found.nodes.insert(id) {
                continue;
            }
            let node = self.program.node(id);
            if through == Through::Everything {
                open.extend(node.guards.iter().map(|guard| guard.condition.node));
            }
            match &node.kind {
                NodeKind::Get(address) => {
                    let checked = &self.nodes[id.index()];
                    let Some(place) = checked.place else { continue };
                    if checked.trace != trace && through == Through::Gradients {
                        found.elsewhere.push(id);
                        continue;
                    }
                    let chain = (checked.trace, address.invoke);
                    let unread = unread.entry(chain).or_insert_with(|| {
                        let unread = touches.unread(chain);
                        found.edits += unread.count;
                        unread
                    });
                    let (edits, flows) = touches.read(chain, (place, id), unread);
                    open.extend(edits);
                    let reads = found.reads.entry(chain).or_default();
                    reads.getters.insert((place, id));
                    if flows {
                        reads.flowing.insert((place, id));
                    }
                }
                NodeKind::Grad { backward, .. } => {
                    found.gradients.push(id);
                    if through == Through::Everything {
                        open.extend(
                            self.program.node(*backward).kind.values().iter().map(|value| value.node),
                        );
                    }
                }
                _ => match through {
                    Through::Everything => open.extend(node.kind.values().iter().map(|value| value.node)),
                    _ => open.extend(self.flowing(id).iter().map(|value| value.node)),
                },
            }
        }
        found
    }

    /// The values that a node reads and to which a gradient flows from it, each once. All together: a list may name thousands.
    pub(super) fn flowing(&self, id: NodeId) -> BTreeSet<Value> {
        let kind = &self.program.node(id).kind;
        let read: Vec<Value> = match kind {
            NodeKind::Set { .. }
            | NodeKind::Skip { .. }
            | NodeKind::SetWeight { .. }
            | NodeKind::Apply { .. }
            // A condition is no float.
            | NodeKind::Merge { .. } => kind.values(),
            NodeKind::Operation(operation) => {
                let result = self.nodes[id.index()].outputs.first();
                if !operation.kind.definition().differentiable
                    || !result.is_some_and(|result| result.dtype.is_float())
                {
                    return BTreeSet::new();
                }
                let elements = operation.reads().into_iter().filter(|(_, elements)| *elements);
                elements.map(|(value, _)| value).collect()
            }
            _ => return BTreeSet::new(),
        };
        let float = |value: &Value| {
            let outputs = &self.nodes[value.node.index()].outputs;
            outputs.get(value.output as usize).is_some_and(|output| output.dtype.is_float())
        };
        read.into_iter().filter(float).collect()
    }

    /// Of each node, those that read it and from which a gradient flows to it, each once.
    pub(super) fn flow_from(&self) -> Vec<Vec<NodeId>> {
        let mut from: Vec<Vec<NodeId>> = vec![Vec::new(); self.program.nodes.len()];
        for position in 0..self.program.nodes.len() {
            let id = NodeId(position as u32);
            for value in self.flowing(id) {
                let readers = &mut from[value.node.index()];
                if readers.last() != Some(&id) {
                    readers.push(id);
                }
            }
        }
        from
    }

    /// Whether what a gradient is asked of is among those ancestors, or is a hook point that the model goes through on
    /// the way to one of their getters.
    fn is_found(&self, target: NodeId, trace: Option<NodeId>, found: &Ancestors, touches: &Touches) -> bool {
        let Some((_, of)) = self.program.node(target).kind.gradient() else { return false };
        if let GradientOf::Value(value) = of
            && found.nodes.contains(&value.node)
        {
            return true;
        }
        let Some((chain, version)) = self.version_of(target, of, trace, touches) else {
            return false;
        };
        found.reads.get(&chain).is_some_and(|reads| touches.is_read(chain, version, reads))
    }

    /// Says why there is no gradient.
    fn fault_without_gradient(
        &mut self,
        target: NodeId,
        loss: Value,
        first: NodeId,
        trace: Option<NodeId>,
        touches: &Touches,
    ) {
        let Some((_, of)) = self.program.node(target).kind.gradient() else { return };
        let loss_name = self.program.node(loss.node).name.clone();
        let what = match of {
            GradientOf::Value(value) => format!("`{}`", self.program.node(value.node).name),
            GradientOf::Hook(address) => format!("`{}`", address.hook),
        };
        let all = self.ancestors(&[loss.node], first, trace, Through::Everything, touches);
        if !self.is_found(target, trace, &all, touches) {
            let version = self.version_of(target, of, trace, touches);
            let cut = version.and_then(|(chain, version)| touches.cut(chain, version));
            let hint = match cut {
                Some(setter) => format!(
                    "nothing of it goes on behind {}, which is set to something else there",
                    self.described(setter)
                ),
                None => {
                    "it must be read or set before what the loss is computed from, in the same invoke".into()
                }
            };
            let message = format!("`{loss_name}` does not depend on {what}, so there is no gradient");
            return self.fault(target, message, Some(hint));
        }
        let through = self.ancestors(&[loss.node], first, trace, Through::Traces, touches);
        if self.is_found(target, trace, &through, touches) {
            let hint = "put both into one trace: values may flow between its invokes in any order";
            let message = format!(
                "`{loss_name}` depends on {what} through the model of an earlier trace, where gradients do not flow"
            );
            return self.fault(target, message, Some(hint.into()));
        }
        // Something on the way has no gradient: the last such node in program order is named.
        let blocks = |id: &&NodeId| {
            let flowing = self.flowing(**id);
            through.nodes.contains(*id)
                && self.program.node(**id).kind.values().iter().any(|value| !flowing.contains(value))
        };
        let names =
            all.nodes.iter().rev().filter(blocks).filter_map(|id| match &self.program.node(*id).kind {
                NodeKind::Operation(operation) => {
                    Some(format!("`{}` (`{}`)", self.program.node(*id).name, operation.kind.name()))
                }
                NodeKind::Apply { .. } | NodeKind::Set { .. } => {
                    Some(format!("`{}`, which takes integers", self.program.node(*id).name))
                }
                NodeKind::Merge { .. } => {
                    Some(format!("`{}`, which picks by it", self.program.node(*id).label()))
                }
                _ => None,
            });
        let names: Vec<String> = names.take(3).collect();
        let message = match names.is_empty() {
            true => format!("`{loss_name}` depends on {what} only by way of a gradient"),
            false => format!(
                "`{loss_name}` depends on {what} only through {}, where no gradient flows",
                names.join(" and ")
            ),
        };
        self.fault(target, message, Some("gradients flow through floats, and not through choices".into()));
    }

    /// Refuses a gradient of which a part would be left out: one that also flows through a gradient, or through the model
    /// of an earlier trace.
    fn refuse_partial(
        &mut self,
        backward: NodeId,
        loss: Value,
        targets: &[NodeId],
        first: NodeId,
        found: &Ancestors,
        touches: &Touches,
    ) -> Option<()> {
        let trace = self.nodes[backward.index()].trace;
        let loss_name = self.program.node(loss.node).name.clone();
        // A gradient of this very `backward` is a circle, which is refused as such.
        let own = |id: &NodeId| {
            let of = self.program.node(*id).kind.gradient();
            of.is_some_and(|(of, _)| of == backward)
        };
        let gradients: Vec<NodeId> = found.gradients.iter().copied().filter(|id| !own(id)).collect();
        if !gradients.is_empty() {
            let sources: Vec<NodeId> = gradients
                .iter()
                .filter_map(|&id| self.program.node(id).kind.gradient())
                .flat_map(|(backward, _)| self.program.node(backward).kind.values())
                .map(|value| value.node)
                .collect();
            let behind = self.ancestors(&sources, first, trace, Through::Everything, touches);
            if targets.iter().any(|&target| self.is_found(target, trace, &behind, touches)) {
                let gradient = self.program.node(*gradients.first()?).name.clone();
                let message = format!(
                    "`{loss_name}` is computed from the gradient `{gradient}`, which depends on what this gradient is \
                     asked of: gradients of gradients are not computed"
                );
                let hint = format!("if `{gradient}` is meant as a constant, put a `detach` behind it");
                self.fault(backward, message, Some(hint));
                return None;
            }
        }
        if !found.elsewhere.is_empty() {
            let mut behind = self.ancestors(&found.elsewhere, first, None, Through::Traces, touches);
            // The getters themselves are where a gradient may well be asked for.
            found.elsewhere.iter().for_each(|getter| {
                behind.nodes.remove(getter);
            });
            let values = |target: &&NodeId| match self.program.node(**target).kind.gradient() {
                Some((_, GradientOf::Value(value))) => behind.nodes.contains(&value.node),
                _ => false,
            };
            if let Some(&target) = targets.iter().find(values) {
                let message = format!(
                    "`{loss_name}` also depends on this through the model of an earlier trace, where gradients do not flow"
                );
                let hint = "put both into one trace: values may flow between its invokes in any order";
                self.fault(target, message, Some(hint.into()));
                return None;
            }
        }
        Some(())
    }

    /// The ancestors that are computed from a target.
    fn path(
        &self,
        targets: &[NodeId],
        trace: Option<NodeId>,
        found: &Ancestors,
        touches: &Touches,
        users: &[Vec<NodeId>],
    ) -> Vec<NodeId> {
        let mut path: BTreeSet<NodeId> = BTreeSet::new();
        let mut open: Vec<NodeId> = Vec::new();
        // Of each invoke, the getters that are not yet known to be reached.
        let reads = found.reads.iter().map(|(chain, reads)| (*chain, reads.getters.clone()));
        let mut getters: HashMap<Chain, BTreeSet<Moment>> = reads.collect();
        let mut activate = |chain: Chain, after: Moment, open: &mut Vec<NodeId>| {
            if let Some(left) = getters.get_mut(&chain) {
                open.extend(left.split_off(&after).into_iter().map(|(_, getter)| getter));
            }
        };
        for &target in targets {
            let Some((_, of)) = self.program.node(target).kind.gradient() else { continue };
            if let GradientOf::Value(value) = of {
                open.push(value.node);
            }
            if let Some((chain, (place, setter))) = self.version_of(target, of, trace, touches) {
                activate(chain, (place, setter.unwrap_or(NodeId(0))), &mut open);
            }
        }
        while let Some(id) = open.pop() {
            if !found.nodes.contains(&id) || !path.insert(id) {
                continue;
            }
            if let Some((chain, from)) = self.seen_from(id) {
                activate(chain, from, &mut open);
            }
            open.extend(users[id.index()].iter().filter(|user| found.nodes.contains(user)));
        }
        path.into_iter().collect()
    }
}
