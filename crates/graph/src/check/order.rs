//! Soundness in time.
//!
//! For each invoke, the hook points that a program touches form a chain: by step, then by place in the schedule, then by
//! program order. A touch depends on every setter before it in its chain, and a setter on its value. A program is sound
//! when this graph has no cycle, whatever the order of invokes. A cycle through one invoke alone is an edit set from
//! something computed later; both places are named. A longer one is printed as the chain it is.

use std::collections::HashMap;

use super::Checker;
use crate::program::{NodeId, NodeKind};

/// When a hook point is touched: step, place in the schedule, program order.
pub(super) type Event = (u64, usize, NodeId);

/// Setters whose dependencies are walked one by one for a message; the rest of a bad program's are counted.
const EXPLAINED: usize = 16;

impl Checker<'_> {
    /// The event of a getter or setter: its invoke, and when. Inside `steps`, at the body's first step.
    pub(super) fn event(&self, id: NodeId) -> Option<(usize, Event)> {
        let (NodeKind::Get(address) | NodeKind::Set { address, .. }) = &self.program.node(id).kind else {
            return None;
        };
        let checked = &self.nodes[id.index()];
        let first = checked.steps.map(|owner| match &self.program.node(owner).kind {
            NodeKind::Steps { steps, .. } => steps.from,
            _ => 0,
        });
        Some((address.invoke, (first.or(address.step).unwrap_or(0), checked.place?, id)))
    }

    /// Refuses a program whose events depend on one another in a circle.
    pub(super) fn order(&mut self) {
        let count = self.program.nodes.len();
        let mut successors: Vec<Vec<NodeId>> = vec![Vec::new(); count];
        let mut waiting = vec![0usize; count];
        let edge = |from: NodeId, to: NodeId, successors: &mut Vec<Vec<NodeId>>, waiting: &mut Vec<usize>| {
            successors[from.index()].push(to);
            waiting[to.index()] += 1;
        };
        let mut chains: HashMap<(Option<NodeId>, usize), Vec<Event>> = HashMap::new();
        for position in 0..count {
            let id = NodeId(position as u32);
            for value in self.program.node(id).kind.values() {
                edge(value.node, id, &mut successors, &mut waiting);
            }
            if let Some((invoke, event)) = self.event(id) {
                chains.entry((self.nodes[position].trace, invoke)).or_default().push(event);
            }
        }
        for chain in chains.values_mut() {
            chain.sort();
            let mut last_setter: Option<NodeId> = None;
            for &(_, _, id) in chain.iter() {
                if let Some(setter) = last_setter {
                    edge(setter, id, &mut successors, &mut waiting);
                }
                if matches!(self.program.node(id).kind, NodeKind::Set { .. }) {
                    last_setter = Some(id);
                }
            }
        }
        let mut ready: Vec<usize> = (0..count).filter(|&position| waiting[position] == 0).collect();
        while let Some(position) = ready.pop() {
            for successor in std::mem::take(&mut successors[position]) {
                waiting[successor.index()] -= 1;
                if waiting[successor.index()] == 0 {
                    ready.push(successor.index());
                }
            }
        }
        let stuck: Vec<bool> = waiting.iter().map(|&left| left > 0).collect();
        if stuck.contains(&true) {
            self.explain(&stuck, &chains);
        }
    }

    fn explain(&mut self, stuck: &[bool], chains: &HashMap<(Option<NodeId>, usize), Vec<Event>>) {
        let setters: Vec<NodeId> = (0..stuck.len())
            .filter(|&position| stuck[position])
            .map(|position| NodeId(position as u32))
            .filter(|&id| matches!(self.program.node(id).kind, NodeKind::Set { .. }))
            .collect();
        let before = self.faults.len();
        for &setter in setters.iter().take(EXPLAINED) {
            if let Some(getter) = self.later_source(setter, stuck) {
                let (set, read) = (self.described(setter), self.described(getter));
                let line = self
                    .program
                    .node(getter)
                    .source
                    .as_ref()
                    .map(|source| format!(" (read at {}:{})", source.file, source.line));
                let message =
                    format!("{set} is set from {read}, which is computed later{}", line.unwrap_or_default());
                self.fault(setter, message, Some("read an earlier hook point, or give the reader an invoke of its own: values may flow from one invoke to another".into()));
            }
        }
        if self.faults.len() == before
            && let Some(cycle) = self.cycle(stuck, chains)
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

    /// A getter of the setter's own invoke, at a later time, that the setter's value comes from.
    fn later_source(&self, setter: NodeId, stuck: &[bool]) -> Option<NodeId> {
        let (invoke, event) = self.event(setter)?;
        let trace = self.nodes[setter.index()].trace;
        let mut seen = vec![false; stuck.len()];
        let mut open: Vec<NodeId> =
            self.program.node(setter).kind.values().iter().map(|value| value.node).collect();
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut seen[id.index()], true) || !stuck[id.index()] {
                continue;
            }
            if let Some((other, when)) = self.event(id)
                && other == invoke
                && self.nodes[id.index()].trace == trace
                && (when.0, when.1) > (event.0, event.1)
            {
                return Some(id);
            }
            open.extend(self.program.node(id).kind.values().iter().map(|value| value.node));
        }
        None
    }

    /// A circle of setters and getters, in the order in which one needs the other.
    fn cycle(
        &self,
        stuck: &[bool],
        chains: &HashMap<(Option<NodeId>, usize), Vec<Event>>,
    ) -> Option<Vec<NodeId>> {
        let mut previous_setter: HashMap<NodeId, NodeId> = HashMap::new();
        for chain in chains.values() {
            let mut last = None;
            for &(_, _, id) in chain {
                if let Some(setter) = last {
                    previous_setter.insert(id, setter);
                }
                if matches!(self.program.node(id).kind, NodeKind::Set { .. }) {
                    last = Some(id);
                }
            }
        }
        // Every stuck node waits for a stuck one: following those edges must come back to a node already passed.
        let mut path: Vec<NodeId> = Vec::new();
        let mut passed: HashMap<NodeId, usize> = HashMap::new();
        let mut at = NodeId(stuck.iter().position(|&stuck| stuck)? as u32);
        loop {
            if let Some(&from) = passed.get(&at) {
                let events = path[from..].iter().rev().copied().filter(|&id| self.event(id).is_some());
                return Some(events.collect());
            }
            passed.insert(at, path.len());
            path.push(at);
            let needs = self.program.node(at).kind.values().into_iter().map(|value| value.node);
            at = needs.chain(previous_setter.get(&at).copied()).find(|id| stuck[id.index()])?;
        }
    }

    /// A getter's or setter's hook point in words.
    pub(super) fn described(&self, id: NodeId) -> String {
        let (NodeKind::Get(address) | NodeKind::Set { address, .. }) = &self.program.node(id).kind else {
            return format!("`{}`", self.program.node(id).name);
        };
        let invokes = self.trace_of(id).map_or(1, |trace| trace.invokes.len());
        let of = match self.trace_of(id).and_then(|trace| trace.invokes.get(address.invoke)) {
            Some(invoke) if invokes > 1 => format!(" of invoke `{}`", invoke.name),
            _ => String::new(),
        };
        let step = address.step.map(|step| format!(" at step {step}")).unwrap_or_default();
        format!("`{}`{of}{step}", address.hook)
    }
}
