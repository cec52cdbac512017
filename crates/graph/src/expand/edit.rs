//! Edits: written out for each invoke that uses them, before the nodes of its trace.

use std::collections::HashSet;

use super::{Expander, Visible};
use crate::fault::quote;
use crate::limits;
use crate::program::{NodeId, NodeKind, StepSelection};
use crate::surface::Edit;

/// An edit that is being written out.
#[derive(Clone, Copy)]
pub(super) struct Inlining {
    /// How many have been written out before.
    pub(super) number: u64,
    /// The place of the invoke among those that its trace has.
    pub(super) place: u64,
}

impl<'a> Expander<'a> {
    /// Writes the edits of an invoke out, in order: those of its trace, then its own.
    pub(super) fn inline_edits(&mut self, owner: NodeId, own: &'a [NodeId], place: usize) {
        let all = self.edits.iter().chain(own).copied().collect::<Vec<_>>();
        let Some(flat) = self.flattened(owner, &all) else { return };
        for edit in flat {
            let NodeKind::Edit(Edit { body, .. }) = &self.source.node(edit).kind else { continue };
            let invoke = self.visible.get(place).map(Visible::alone);
            let seen = std::mem::replace(&mut self.visible, invoke.into_iter().collect());
            let around = self.inlining.replace(Inlining { number: self.inlined, place: place as u64 });
            self.inlined += 1;
            self.inline(edit, body);
            self.inlining = around;
            self.visible = seen;
        }
    }

    /// The edits with those that they bring with them, each before the one that brings it.
    fn flattened(&mut self, owner: NodeId, edits: &[NodeId]) -> Option<Vec<NodeId>> {
        let mut flat = Vec::new();
        // Whether an edit's own edits are in the list already.
        let mut open: Vec<(NodeId, NodeId, bool)> =
            edits.iter().rev().map(|&edit| (owner, edit, false)).collect();
        let mut steps = 0;
        while let Some((from, edit, entered)) = open.pop() {
            steps += 1;
            let stands = self.source.nodes.get(edit.index()).map(|node| &node.kind);
            let Some(NodeKind::Edit(Edit { edits, .. })) = stands.filter(|_| edit < from) else {
                self.fault(from, "it uses an edit that does not stand before it", None);
                return None;
            };
            if flat.len() >= limits::EDITS || steps > 4 * limits::EDITS {
                self.fault(owner, format!("more than {} edits of one invoke", limits::EDITS), None);
                return None;
            }
            if entered {
                flat.push(edit);
            } else {
                open.push((from, edit, true));
                open.extend(edits.iter().rev().map(|&inner| (edit, inner, false)));
            }
        }
        Some(flat)
    }

    /// Writes one edit out. In a generation it counts at every step; but weights are set for all steps at once, so they,
    /// and what they are made of, stand outside.
    fn inline(&mut self, edit: NodeId, body: &[NodeId]) {
        for &id in body {
            if let Some(what) = not_in_an_edit(&self.source.node(id).kind) {
                let message = format!("{what} stands in the edit {}", quote(&self.source.node(edit).name));
                return self.fault(
                    id,
                    message,
                    Some("an edit reads, computes and sets, at every step".into()),
                );
            }
        }
        if !self.generating {
            return self.body(body);
        }
        let outside = self.made_into_weights(body);
        let (before, within): (Vec<NodeId>, Vec<NodeId>) = body.iter().partition(|id| outside.contains(*id));
        self.body(&before);
        if within.is_empty() {
            return;
        }
        let steps = StepSelection { from: 0, to: None, every: 1 };
        let Some(core) = self.emit(edit, 0, "", NodeKind::Steps { steps, body: Vec::new() }) else { return };
        let around = self.steps.replace(self.frames.len());
        let body = self.inside(core, &within);
        self.steps = around;
        self.nodes[core.index()].kind = NodeKind::Steps { steps, body };
    }

    /// The nodes of a body that set weights, and those of it that they depend on.
    fn made_into_weights(&self, body: &[NodeId]) -> HashSet<NodeId> {
        let own: HashSet<NodeId> = body.iter().copied().collect();
        let sets = |id: &NodeId| matches!(self.source.node(*id).kind, NodeKind::SetWeight { .. });
        let mut open: Vec<NodeId> = body.iter().copied().filter(sets).collect();
        let mut found = HashSet::new();
        while let Some(id) = open.pop() {
            if own.contains(&id) && found.insert(id) {
                open.extend(self.source.node(id).kind.values().iter().map(|value| value.node));
            }
        }
        found
    }
}

/// What a node is that cannot stand in an edit.
fn not_in_an_edit(kind: &NodeKind) -> Option<&'static str> {
    Some(match kind {
        NodeKind::Save(_) | NodeKind::Cache(_) => "a save",
        NodeKind::Log(_) => "a `print`",
        NodeKind::Steps { .. } => "a `steps`",
        NodeKind::Stop { .. } => "a `stop`",
        NodeKind::Generated(_) => "a `generated`",
        NodeKind::Backward { .. } => "a `backward`",
        NodeKind::Grad { .. } | NodeKind::GradAll(_) => "a `grad`",
        NodeKind::SetGrad { .. } | NodeKind::SetGradAll(_) => "a `set_grad`",
        NodeKind::Sweep(_) | NodeKind::Loop(_) | NodeKind::Reduce(_) => "a sweep or loop",
        _ => return None,
    })
}
