//! What each `backward` goes through: the nodes that lead from something whose gradient is asked for to the value that is
//! gone back from. Nothing else is kept or computed on the way back.
//!
//! Within the `backward`'s own trace gradients flow through the model: an edit of an invoke reaches every hook point of it
//! that is read later. What an earlier trace read of its model is a constant, and so is a gradient: a program in which
//! that would leave a part of a gradient out is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Checker;
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

/// An invoke of a trace.
pub(super) type Chain = (Option<NodeId>, usize);

/// A version of a hook point: its place, and the setter that made it (none: the model itself).
pub(super) type Version = (usize, Option<NodeId>);

/// Where the touches of each invoke stand, each list sorted: (place, node).
#[derive(Default)]
pub(super) struct Touches {
    setters: HashMap<Chain, Vec<(usize, NodeId)>>,
}

impl Touches {
    /// The version of the hook point at that place that a node at `reader` in program order sees.
    fn version(&self, chain: Chain, place: usize, reader: Option<NodeId>) -> Version {
        let setters = self.setters.get(&chain).map_or(&[][..], Vec::as_slice);
        let end = match reader {
            Some(reader) => setters.partition_point(|&touch| touch < (place, reader)),
            None => setters.partition_point(|&(at, _)| at <= place),
        };
        let last = end.checked_sub(1).map(|last| setters[last]);
        (place, last.filter(|&(at, _)| at == place).map(|(_, setter)| setter))
    }
}

/// What is found on the way back from some values.
#[derive(Default)]
struct Ancestors {
    nodes: BTreeSet<NodeId>,
    /// Of each invoke, the getters found.
    getters: HashMap<Chain, BTreeSet<(usize, NodeId)>>,
    /// Getters of other traces, through whose models nobody went.
    elsewhere: Vec<NodeId>,
    /// Gradients that were come to.
    gradients: Vec<NodeId>,
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
    /// The touches of the program's hook points outside generations.
    pub(super) fn model_touches(&self) -> Touches {
        let mut touches = Touches::default();
        for position in 0..self.program.nodes.len() {
            let id = NodeId(position as u32);
            if let (NodeKind::Set { address, .. }, Some(place)) =
                (&self.program.node(id).kind, self.nodes[position].place)
            {
                let chain = (self.nodes[position].trace, address.invoke);
                touches.setters.entry(chain).or_default().push((place, id));
            }
        }
        touches.setters.values_mut().for_each(|setters| setters.sort_unstable());
        touches
    }

    /// The version of a hook point that a gradient is that of, if it is one of `trace`.
    pub(super) fn version_of(
        &self,
        target: NodeId,
        of: &GradientOf,
        trace: Option<NodeId>,
        touches: &Touches,
    ) -> Option<(Chain, Version)> {
        match of {
            GradientOf::Hook(address) => {
                let chain = (trace, address.invoke);
                Some((chain, touches.version(chain, self.nodes[target.index()].place?, None)))
            }
            GradientOf::Value(value) => self.version_read(value.node, trace, touches),
        }
    }

    /// The version that a getter of `trace` reads.
    pub(super) fn version_read(
        &self,
        getter: NodeId,
        trace: Option<NodeId>,
        touches: &Touches,
    ) -> Option<(Chain, Version)> {
        let NodeKind::Get(address) = &self.program.node(getter).kind else { return None };
        let checked = &self.nodes[getter.index()];
        let chain = (trace, address.invoke);
        let own = checked.trace == trace && trace.is_some();
        own.then_some(())?;
        Some((chain, touches.version(chain, checked.place?, Some(getter))))
    }

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
        self.refuse_detours(&targets, &touches, &mut work);
        if !self.faults.is_empty() {
            return;
        }
        let mut users: Vec<Vec<NodeId>> = vec![Vec::new(); self.program.nodes.len()];
        for (position, node) in self.program.nodes.iter().enumerate() {
            for value in node.kind.values() {
                users[value.node.index()].push(NodeId(position as u32));
            }
        }
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

    /// Gradients do not flow through what depends on a condition, nor through invokes with skipped modules or other weights:
    /// a `backward` whose value has such on its way is refused, since it would leave a part of the gradient out.
    fn refuse_detours(
        &mut self,
        targets: &BTreeMap<NodeId, Vec<NodeId>>,
        touches: &Touches,
        work: &mut usize,
    ) {
        let mut detours: HashMap<Option<NodeId>, Vec<NodeId>> = HashMap::new();
        for (position, node) in self.program.nodes.iter().enumerate() {
            let is_detour = matches!(
                node.kind,
                NodeKind::Skip { .. } | NodeKind::SetWeight { .. } | NodeKind::Merge { .. }
            );
            if is_detour || !node.guards.is_empty() {
                detours.entry(self.nodes[position].trace).or_default().push(NodeId(position as u32));
            }
        }
        for (&backward, targets) in targets {
            let trace = self.nodes[backward.index()].trace;
            let Some(detours) = detours.get(&trace).filter(|_| *work <= limits::WAY_BACK_NODES) else {
                continue;
            };
            // Everything that the value, and what is asked and written of its gradients, comes from in its trace.
            let mut from = vec![backward];
            let mut chains: BTreeSet<usize> = BTreeSet::new();
            for &target in targets {
                from.push(target);
                match self.program.node(target).kind.gradient() {
                    Some((_, GradientOf::Value(value))) => from.push(value.node),
                    Some((_, GradientOf::Hook(address))) => drop(chains.insert(address.invoke)),
                    None => {}
                }
            }
            let found =
                self.ancestors(&from, trace.unwrap_or(NodeId(0)), trace, Through::Everything, touches);
            let own = found.getters.keys().filter(|(of, _)| *of == trace);
            chains.extend(own.map(|(_, invoke)| *invoke));
            *work += found.nodes.len() + detours.len();
            let met = |id: &&NodeId| match &self.program.node(**id).kind {
                NodeKind::Skip { invoke, .. } | NodeKind::SetWeight { invoke, .. } => chains.contains(invoke),
                _ => found.nodes.contains(*id),
            };
            if let Some(&detour) = detours.iter().find(met) {
                let name = self.program.node(detour).label();
                let message = format!(
                    "gradients do not flow through conditions, skips or weights that are set, and `{name}` is one on their way"
                );
                let hint =
                    "go back in a trace of its own: values that it reads of others are constants to it";
                self.fault(backward, message, Some(hint.into()));
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
        *work += targets.len();
        *work += found.nodes.iter().map(|id| 1 + users[id.index()].len()).sum::<usize>();
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
        // Of each invoke, how many of its setters are known to matter.
        let mut seen: HashMap<Chain, usize> = HashMap::new();
        let mut open = from.to_vec();
        while let Some(id) = open.pop() {
            if id < first || !found.nodes.insert(id) {
                continue;
            }
            match &self.program.node(id).kind {
                NodeKind::Get(address) => {
                    let checked = &self.nodes[id.index()];
                    let Some(place) = checked.place else { continue };
                    if checked.trace != trace && through == Through::Gradients {
                        found.elsewhere.push(id);
                        continue;
                    }
                    let chain = (checked.trace, address.invoke);
                    found.getters.entry(chain).or_default().insert((place, id));
                    let setters = touches.setters.get(&chain).map_or(&[][..], Vec::as_slice);
                    let seen = seen.entry(chain).or_default();
                    while setters.get(*seen).is_some_and(|&touch| touch < (place, id)) {
                        open.push(setters[*seen].1);
                        *seen += 1;
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
                _ => {
                    let values = self.program.node(id).kind.values();
                    let flows = |value: &&Value| through == Through::Everything || self.flows(id, **value);
                    open.extend(values.iter().filter(flows).map(|value| value.node));
                }
            }
        }
        found
    }

    /// Whether a gradient flows from a node to a value that it reads.
    pub(super) fn flows(&self, id: NodeId, value: Value) -> bool {
        let outputs = &self.nodes[value.node.index()].outputs;
        let float = outputs.get(value.output as usize).is_some_and(|output| output.dtype.is_float());
        match &self.program.node(id).kind {
            NodeKind::Set { .. } | NodeKind::Apply { .. } => float,
            NodeKind::Operation(operation) => {
                let result = self.nodes[id.index()].outputs.first();
                float
                    && operation.kind.definition().differentiable
                    && result.is_some_and(|result| result.dtype.is_float())
                    && operation.reads().contains(&(value, true))
            }
            _ => false,
        }
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
        let Some((chain, (place, setter))) = self.version_of(target, of, trace, touches) else {
            return false;
        };
        let after = (place, setter.unwrap_or(NodeId(0)));
        found.getters.get(&chain).and_then(|getters| getters.last()).is_some_and(|last| *last > after)
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
            let traces = "it must be read or set before what the loss is computed from, in the same invoke";
            return self.fault(
                target,
                format!("`{loss_name}` does not depend on {what}, so there is no gradient"),
                Some(traces.into()),
            );
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
            through.nodes.contains(*id)
                && self.program.node(**id).kind.values().iter().any(|value| !self.flows(**id, *value))
        };
        let names =
            all.nodes.iter().rev().filter(blocks).filter_map(|id| match &self.program.node(*id).kind {
                NodeKind::Operation(operation) => {
                    Some(format!("`{}` (`{}`)", self.program.node(*id).name, operation.kind.name()))
                }
                NodeKind::Apply { .. } | NodeKind::Set { .. } => {
                    Some(format!("`{}`, which takes integers", self.program.node(*id).name))
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
        let mut getters: HashMap<Chain, BTreeSet<(usize, NodeId)>> = found.getters.clone();
        let mut activate = |chain: Chain, after: (usize, NodeId), open: &mut Vec<NodeId>| {
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
            if let NodeKind::Set { address, .. } = &self.program.node(id).kind
                && let Some(place) = self.nodes[id.index()].place
            {
                activate((self.nodes[id.index()].trace, address.invoke), (place, id), &mut open);
            }
            for &user in &users[id.index()] {
                let values = self.program.node(user).kind.values();
                if found.nodes.contains(&user)
                    && values.iter().any(|value| value.node == id && self.flows(user, *value))
                {
                    open.push(user);
                }
            }
        }
        path.into_iter().collect()
    }
}
