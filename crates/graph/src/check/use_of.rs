//! Dead code: what is needed, and so what need not be computed. An edit that nobody sees is a mistake, never a silence.
//!
//! **Needs:** the graph alone: who reads what, when each event of an invoke comes, and what written gradients show (`shown`). Needed is what is
//! saved and logged, and what stops a generation; what these read, with the conditions that they stand under; and of an invoke that is
//! read, or whose tokens are, the edits that come before.
//!
//! **Keeps:** a node does nothing but give its value, and noise is keyed by a node's name, not by what was drawn before it: to leave one out
//! changes no other. What is left out does not fail either, in whichever way a program is run.

use std::collections::HashMap;

use super::Checker;
use super::order::Event;
use crate::program::{GradientOf, NodeId, NodeKind};

/// The setters of one invoke of one trace, latest last, and how many of them are known to be seen.
#[derive(Default)]
struct Setters {
    events: Vec<(Event, NodeId)>,
    seen: usize,
}

impl Checker<'_> {
    /// After which event a weight that is set shows: its module's input is still the same. Where embedding and unembedding
    /// are tied the parameter is the embedding's, the earlier of the two.
    pub(super) fn shows_from(&self, id: NodeId) -> Option<Event> {
        if !matches!(self.program.node(id).kind, NodeKind::SetWeight { .. }) {
            return None;
        }
        let spec = self.spec(id);
        let (module, _) = spec.parameters.get(self.nodes[id.index()].parameter?)?.name.rsplit_once('.')?;
        let input = spec.hook_points.iter().position(|hook| hook.module == module && hook.name == "input")?;
        // The moment of that hook point, after all that stands there.
        Some((0, input.saturating_add(1), NodeId(u32::MAX)))
    }

    /// Marks what saves, logs and seen setters need; faults where a setter is not seen, or nothing leaves a trace.
    pub(super) fn use_of(&mut self) {
        let mut setters: HashMap<(Option<NodeId>, usize), Setters> = HashMap::new();
        let mut open: Vec<NodeId> = Vec::new();
        let mut written = self.written_gradients();
        for position in 0..self.program.nodes.len() {
            let id = NodeId(position as u32);
            match &self.program.node(id).kind {
                NodeKind::Save(_) | NodeKind::Log(_) | NodeKind::Stop { .. } => open.push(id),
                NodeKind::Set { .. } | NodeKind::Skip { .. } | NodeKind::SetWeight { .. } => {
                    if let Some((invoke, event)) = self.event(id) {
                        let event = self.shows_from(id).unwrap_or(event);
                        let list = setters.entry((self.nodes[position].trace, invoke)).or_default();
                        list.events.push((event, id));
                    }
                }
                _ => {}
            }
        }
        for list in setters.values_mut() {
            list.events.sort();
        }
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut self.nodes[id.index()].needed, true) {
                continue;
            }
            open.extend(self.program.node(id).values().iter().map(|value| value.node));
            if let Some((backward, of)) = self.program.node(id).kind.gradient() {
                open.push(backward);
                if let GradientOf::Value(value) = of {
                    open.push(value.node);
                }
            }
            open.extend(self.shown_by(id, &mut written));
            let trace = self.nodes[id.index()].trace;
            // Reading a hook point shows every edit before it; generated tokens show all of them. Inside `steps` a body
            // reads at later steps too, where every edit of an earlier step shows.
            let seen_from = match &self.program.node(id).kind {
                NodeKind::Get(address) => {
                    let several = self.nodes[id.index()].steps.is_some();
                    self.event(id)
                        .map(|(_, event)| (address.invoke, if several { (u64::MAX, 0, id) } else { event }))
                }
                NodeKind::Generated(invoke) => Some((*invoke, (u64::MAX, usize::MAX, id))),
                _ => None,
            };
            if let Some((invoke, until)) = seen_from
                && let Some(list) = setters.get_mut(&(trace, invoke))
            {
                while list.events.get(list.seen).is_some_and(|(event, _)| *event < until) {
                    open.push(list.events[list.seen].1);
                    list.seen += 1;
                }
            }
        }
        let mut leaves = vec![false; self.program.nodes.len()];
        for (checked, node) in self.nodes.iter().zip(&self.program.nodes) {
            if let Some(trace) = checked.trace.filter(|_| {
                checked.needed && !matches!(node.kind, NodeKind::Trace(_) | NodeKind::Stop { .. })
            }) {
                leaves[trace.index()] = true;
            }
        }
        for (position, leaves) in leaves.into_iter().enumerate() {
            let id = NodeId(position as u32);
            match &self.program.node(id).kind {
                NodeKind::Set { .. } | NodeKind::Skip { .. } | NodeKind::SetWeight { .. }
                    if !self.nodes[position].needed && !self.program.node(id).optional =>
                {
                    let described = self.described(id);
                    let hint = "save something that is computed after it, or remove it".to_owned();
                    self.fault(
                        id,
                        format!(
                            "nothing that is saved comes after {described}, so setting it changes nothing"
                        ),
                        Some(hint),
                    );
                }
                NodeKind::SetGrad { .. } if !self.nodes[position].needed => {
                    let message = "no gradient that is used comes after it on the way back, so setting it changes nothing";
                    let hint =
                        "read the gradient of something that this is computed from, or remove it".to_owned();
                    self.fault(id, message, Some(hint));
                }
                NodeKind::Trace(_) if !leaves => {
                    self.fault(
                        id,
                        "nothing of this trace is saved",
                        Some("mark what you want back with `save`".into()),
                    );
                }
                _ => {}
            }
        }
    }
}
