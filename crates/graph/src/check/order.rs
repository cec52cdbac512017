//! Soundness in time.
//!
//! For each invoke, the hook points that a program touches form a chain: by step, then by place in the schedule, then by
//! program order. A body of `steps` stands there at its first step, and at others where it meets what else the generation has
//! ([`super::meetings`]). A touch depends on every setter before it in its chain, and a setter on its value. A `backward` runs the
//! chains in reverse: a version's gradient depends on those of later versions and on what its getters' values went into.
//! A program is sound when this graph has no cycle, whatever the order of invokes. A cycle through one invoke alone is an
//! edit set from something computed later; both places are named. A longer one is printed as the chain it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Checker;
use super::gradients::GradientPlan;
use super::versions::{Chain, Touches, Version};
use crate::program::{GradientOf, NodeId, NodeKind};

#[cfg(test)]
mod tests;

/// When a node changes or reads an invoke: step, moment within the step, program order. A hook point's moment is one more
/// than its place in the schedule.
pub(super) type Event = (u64, usize, NodeId);

/// The moment before a step's first hook point: weights are set there.
const BEFORE: usize = 0;
/// The moment after a step's last hook point, when its token is chosen: generations are stopped there.
const AFTER: usize = usize::MAX;

/// Edits whose dependencies are walked one by one for a message; the rest of a bad program's are counted.
const EXPLAINED: usize = 16;

/// What must happen before what. The program's nodes come first, by their ids; behind them those of bodies at further steps,
/// and the gradients that a `backward` computes on its way.
struct Events {
    successors: Vec<Vec<usize>>,
    predecessors: Vec<Vec<usize>>,
    /// The node that each event is named after.
    nodes: Vec<NodeId>,
    /// How many events of bodies at further steps follow the program's nodes.
    of_bodies: usize,
}

impl Events {
    fn new(count: usize) -> Events {
        let nodes = (0..count).map(|position| NodeId(position as u32)).collect();
        Events {
            successors: vec![Vec::new(); count],
            predecessors: vec![Vec::new(); count],
            nodes,
            of_bodies: 0,
        }
    }

    fn edge(&mut self, before: usize, after: usize) {
        self.successors[before].push(after);
        self.predecessors[after].push(before);
    }

    fn event(&mut self, node: NodeId) -> usize {
        self.successors.push(Vec::new());
        self.predecessors.push(Vec::new());
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Which events never come, because they wait for one another.
    fn stuck(&self) -> Vec<bool> {
        let mut waiting: Vec<usize> = self.predecessors.iter().map(Vec::len).collect();
        let mut ready: Vec<usize> = (0..waiting.len()).filter(|&event| waiting[event] == 0).collect();
        while let Some(event) = ready.pop() {
            for &successor in &self.successors[event] {
                waiting[successor] -= 1;
                if waiting[successor] == 0 {
                    ready.push(successor);
                }
            }
        }
        waiting.iter().map(|&left| left > 0).collect()
    }
}

/// What a `backward` does at one version of a hook point.
#[derive(Default)]
struct Stop {
    /// Getters whose values' gradients are added.
    getters: Vec<NodeId>,
    /// Gradients read and written, in program order.
    targets: Vec<NodeId>,
}

impl Checker<'_> {
    /// The event of a node that touches an invoke, or reads its tokens: the invoke, and when. Inside `steps`, at the body's first step.
    pub(super) fn event(&self, id: NodeId) -> Option<(usize, Event)> {
        let checked = &self.nodes[id.index()];
        let (invoke, step, moment) = match &self.program.node(id).kind {
            NodeKind::Get(address) | NodeKind::Set { address, .. } => {
                (address.invoke, address.step, checked.place?.saturating_add(1))
            }
            NodeKind::Skip { invoke, step, .. } => (*invoke, *step, checked.place?.saturating_add(1)),
            NodeKind::SetWeight { invoke, .. } => (*invoke, None, BEFORE),
            NodeKind::Stop { invoke, .. } => (*invoke, None, AFTER),
            // After everything.
            NodeKind::Generated(invoke) => (*invoke, Some(u64::MAX), AFTER),
            _ => return None,
        };
        let first = checked.steps.map(|owner| match &self.program.node(owner).kind {
            NodeKind::Steps { steps, .. } => steps.from,
            _ => 0,
        });
        Some((invoke, (first.or(step).unwrap_or(0), moment, id)))
    }

    /// The nodes that a node waits for before it does its work, each once: a list may name one value thousands of times. A getter
    /// reads whether or not its conditions hold.
    pub(super) fn waits_for(&self, id: NodeId) -> Vec<NodeId> {
        let node = self.program.node(id);
        if let NodeKind::Get(_) = node.kind {
            return Vec::new();
        }
        let mut once = HashSet::new();
        node.values().into_iter().map(|value| value.node).filter(|&read| once.insert(read)).collect()
    }

    /// Whether what comes after a node in its invoke waits for it.
    pub(super) fn changes(&self, id: NodeId) -> bool {
        matches!(
            self.program.node(id).kind,
            NodeKind::Set { .. } | NodeKind::Skip { .. } | NodeKind::SetWeight { .. } | NodeKind::Stop { .. }
        )
    }

    /// Refuses a program whose events depend on one another in a circle.
    pub(super) fn order(&mut self) {
        let events = self.events();
        let stuck = events.stuck();
        if stuck.contains(&true) {
            // A node is stuck where it is at any step.
            let count = self.program.nodes.len();
            let mut nodes = stuck[..count].to_vec();
            let bodies = count..count + events.of_bodies;
            bodies.filter(|&event| stuck[event]).for_each(|event| nodes[events.nodes[event].index()] = true);
            self.explain(&nodes, &stuck, &events);
        }
    }

    /// What must happen before what. Its edges are no more than a few for each node, value and meeting: no one is drawn that follows
    /// from others.
    fn events(&self) -> Events {
        let count = self.program.nodes.len();
        let mut events = Events::new(count);
        let waits: Vec<Vec<NodeId>> =
            (0..count).map(|position| self.waits_for(NodeId(position as u32))).collect();
        // The touches of each invoke, each with its place among the events.
        let mut chains: HashMap<Chain, Vec<(Event, usize)>> = HashMap::new();
        for (position, waits) in waits.iter().enumerate() {
            let id = NodeId(position as u32);
            for read in waits {
                events.edge(read.index(), position);
            }
            if let Some((invoke, event)) = self.event(id) {
                chains.entry((self.nodes[position].trace, invoke)).or_default().push((event, position));
            }
        }
        for meeting in self.meetings(&waits).into_values().flatten() {
            let own: HashMap<NodeId, usize> = meeting.body.iter().map(|&id| (id, events.event(id))).collect();
            for &id in &meeting.body {
                for read in &waits[id.index()] {
                    events.edge(own.get(read).copied().unwrap_or(read.index()), own[&id]);
                }
                if let Some((invoke, (_, moment, _))) = self.event(id) {
                    let chain = chains.entry((self.nodes[id.index()].trace, invoke)).or_default();
                    chain.push(((meeting.step, moment, id), own[&id]));
                }
            }
        }
        events.of_bodies = events.nodes.len() - count;
        for chain in chains.values_mut() {
            chain.sort();
            let mut last_setter: Option<usize> = None;
            for &((_, _, id), event) in chain.iter() {
                if let Some(setter) = last_setter {
                    events.edge(setter, event);
                }
                if self.changes(id) {
                    last_setter = Some(event);
                }
            }
        }
        if !self.gradients.is_empty() {
            let touches = self.model_touches();
            for plan in &self.gradients {
                self.way_back(plan, &touches, &mut events);
            }
        }
        events
    }

    /// The events of one `backward`: the gradient of every node on its path, and of every version that it stops at.
    fn way_back(&self, plan: &GradientPlan, touches: &Touches, events: &mut Events) {
        let NodeKind::Backward { of, .. } = self.program.node(plan.backward).kind else { return };
        let trace = self.nodes[plan.backward.index()].trace;
        let own: BTreeMap<NodeId, usize> = plan.path.iter().map(|&id| (id, events.event(id))).collect();
        if let Some(&loss) = own.get(&of.node) {
            events.edge(plan.backward.index(), loss);
        }
        let mut stops: BTreeMap<(Chain, Version), Stop> = BTreeMap::new();
        // Gradients of values that are written.
        let mut of_values: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for &target in &plan.targets {
            events.edge(plan.backward.index(), target.index());
            let Some((_, target_of)) = self.program.node(target).kind.gradient() else { continue };
            match (self.version_of(target, target_of, trace, touches), target_of) {
                (Some(stop), _) => stops.entry(stop).or_default().targets.push(target),
                (None, GradientOf::Value(value)) => of_values.entry(value.node).or_default().push(target),
                (None, GradientOf::Hook(_)) => {}
            }
        }
        for &id in &plan.path {
            if let Some(stop) = self.version_read(id, trace, touches) {
                stops.entry(stop).or_default().getters.push(id);
            }
            if let (Some((invoke, _)), Some(place)) =
                (self.program.node(id).kind.written(), self.nodes[id.index()].place)
            {
                stops.entry(((trace, invoke), (place, Some(id)))).or_default();
            }
        }
        // What leaves a node: its gradient, or what was last written in its place.
        let mut leaves: HashMap<NodeId, usize> = HashMap::new();
        for (&id, &event) in &own {
            let written = self.in_order(event, of_values.get(&id).map_or(&[], Vec::as_slice), events);
            leaves.insert(id, written);
            for read in self.flowing(id) {
                if let Some(&into) = own.get(&read.node) {
                    events.edge(written, into);
                }
            }
        }
        let mut later: BTreeMap<Chain, usize> = BTreeMap::new();
        for ((chain, (_, setter)), stop) in stops.into_iter().rev() {
            let node = stop.targets.first().or(stop.getters.first()).copied().or(setter);
            let event = events.event(node.unwrap_or(plan.backward));
            events.edge(plan.backward.index(), event);
            for getter in stop.getters {
                leaves.get(&getter).into_iter().for_each(|&from| events.edge(from, event));
            }
            if let Some(from) = later.remove(&chain) {
                events.edge(from, event);
            }
            let written = self.in_order(event, &stop.targets, events);
            if let Some(&setter) = setter.and_then(|setter| own.get(&setter)) {
                events.edge(written, setter);
            }
            later.insert(chain, written);
        }
        // The gradient of a weight is there when its invoke has been gone back through.
        for (&id, &event) in &own {
            if let NodeKind::SetWeight { invoke, .. } = self.program.node(id).kind
                && let Some(&from) = later.get(&(trace, invoke))
            {
                events.edge(from, event);
            }
        }
    }

    /// Gradients that are read and written at one place, in program order after `event`: each comes after the last one written before it,
    /// and so after all of them. Gives the last: what goes on from there comes after it.
    fn in_order(&self, event: usize, targets: &[NodeId], events: &mut Events) -> usize {
        let mut written = event;
        for target in targets {
            events.edge(written, target.index());
            if matches!(self.program.node(*target).kind, NodeKind::SetGrad { .. }) {
                written = target.index();
            }
        }
        written
    }

    fn explain(&mut self, nodes: &[bool], stuck: &[bool], events: &Events) {
        let edits = (0..nodes.len()).filter(|&position| nodes[position]);
        let edits = edits.map(|position| NodeId(position as u32));
        let kind = |id: &NodeId| &self.program.node(*id).kind;
        let edits: Vec<NodeId> =
            edits.filter(|id| self.changes(*id) || matches!(kind(id), NodeKind::SetGrad { .. })).collect();
        let before = self.faults.len();
        for &edit in edits.iter().take(EXPLAINED) {
            if let Some(source) = self.later_source(edit, nodes) {
                let (set, read) = (self.described(edit), self.described(source));
                let line = self
                    .program
                    .node(source)
                    .source
                    .as_ref()
                    .map(|source| format!(" (read at {}:{})", source.file, source.line));
                let line = line.unwrap_or_default();
                let (message, hint) = match kind(&edit) {
                    NodeKind::SetGrad { .. } => (
                        format!("{set} is set from {read}, which is computed later on the way back{line}"),
                        "read a gradient at a later hook point, or go back a second time with another `backward`; to change one hook point after another, write a `loop` that goes over them from the last to the first (`\"range\": [3, -1, -1]`) in place of a pattern",
                    ),
                    NodeKind::Stop { .. } => (
                        format!("{set} waits for {read}, which is computed later{line}"),
                        "read an earlier hook point, or give the reader an invoke of its own: values may flow from one invoke to another",
                    ),
                    _ => (
                        format!("{set} is set from {read}, which is computed later{line}"),
                        "read an earlier hook point, or give the reader an invoke of its own: values may flow from one invoke to another",
                    ),
                };
                self.fault(edit, message, Some(hint.into()));
            }
        }
        if self.faults.len() == before
            && let Some(cycle) = self.cycle(stuck, events)
        {
            let names: Vec<String> = cycle.iter().map(|&id| self.described(id)).collect();
            let Some(&first) = cycle.first() else { return };
            let message = format!(
                "these edits wait for one another: {} → {}",
                names.join(" → "),
                names.first().cloned().unwrap_or_default()
            );
            self.fault(
                first,
                message,
                Some("break the circle: let one of them be set from an earlier hook point".into()),
            );
        }
    }

    /// What the value of an edit comes from at a later time: for a setter a getter of its own invoke; for a setter of a
    /// gradient a gradient of the same `backward` further down.
    fn later_source(&self, edit: NodeId, stuck: &[bool]) -> Option<NodeId> {
        let kind = |id: NodeId| &self.program.node(id).kind;
        let trace = self.nodes[edit.index()].trace;
        let own = self.event(edit);
        let own_gradient = kind(edit).gradient().map(|(backward, _)| backward);
        let mut seen = vec![false; self.program.nodes.len()];
        let mut open: Vec<NodeId> = self.waits_for(edit);
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut seen[id.index()], true) || !stuck[id.index()] {
                continue;
            }
            if let (Some((invoke, event)), Some((other, when))) = (own, self.event(id))
                && other == invoke
                && self.nodes[id.index()].trace == trace
                && (when.0, when.1) > (event.0, event.1)
            {
                return Some(id);
            }
            let gradient = kind(id).gradient().map(|(backward, _)| backward);
            if gradient.is_some() && gradient == own_gradient {
                return Some(id);
            }
            open.extend(self.waits_for(id));
            open.extend(gradient);
        }
        None
    }

    /// A circle of setters, getters and gradients, in the order in which one needs the other.
    fn cycle(&self, stuck: &[bool], events: &Events) -> Option<Vec<NodeId>> {
        // Every stuck event waits for a stuck one: following those edges must come back to one already passed.
        let mut path: Vec<usize> = Vec::new();
        let mut passed: HashMap<usize, usize> = HashMap::new();
        let mut at = stuck.iter().position(|&stuck| stuck)?;
        loop {
            if let Some(&from) = passed.get(&at) {
                let named = |id: &NodeId| {
                    self.event(*id).is_some() || self.program.node(*id).kind.gradient().is_some()
                };
                let nodes = path[from..].iter().rev().map(|&event| events.nodes[event]).filter(named);
                let mut once = BTreeSet::new();
                return Some(nodes.filter(|&id| once.insert(id)).collect());
            }
            passed.insert(at, path.len());
            path.push(at);
            at = events.predecessors[at].iter().copied().find(|&event| stuck[event])?;
        }
    }

    /// What a node touches, in words.
    pub(super) fn described(&self, id: NodeId) -> String {
        let node = self.program.node(id);
        let of_hook = |address: &crate::program::HookAddress| {
            (format!("`{}`", address.hook), address.invoke, address.step)
        };
        let ((what, invoke, step), gradient) = match &node.kind {
            NodeKind::Get(address) | NodeKind::Set { address, .. } => (of_hook(address), false),
            NodeKind::Skip { invoke, module, step, .. } => {
                ((format!("`{module}.output`"), *invoke, *step), false)
            }
            NodeKind::SetWeight { invoke, parameter, .. } => {
                ((format!("`{parameter}`"), *invoke, None), false)
            }
            NodeKind::Stop { invoke, .. } | NodeKind::Generated(invoke) => {
                ((format!("`{}`", node.label()), *invoke, None), false)
            }
            NodeKind::Grad { of, .. } | NodeKind::SetGrad { of, .. } => match of {
                GradientOf::Hook(address) => (of_hook(address), true),
                GradientOf::Value(value) => match &self.program.node(value.node).kind {
                    NodeKind::Get(address) => (of_hook(address), true),
                    _ => return format!("the gradient of `{}`", self.program.node(value.node).label()),
                },
            },
            _ => return format!("`{}`", node.label()),
        };
        let invokes = self.trace_of(id).map_or(1, |trace| trace.invokes.len());
        let of = match self.trace_of(id).and_then(|trace| trace.invokes.get(invoke)) {
            Some(invoke) if invokes > 1 => format!(" of invoke `{}`", invoke.label()),
            _ => String::new(),
        };
        let step = step.map(|step| format!(" at step {step}")).unwrap_or_default();
        let prefix = if gradient { "the gradient of " } else { "" };
        format!("{prefix}{what}{of}{step}")
    }
}
