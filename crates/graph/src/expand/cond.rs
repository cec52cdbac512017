//! Conditions: both branches written out, each node with the condition under which it runs.

use super::{Bound, Expander};
use crate::program::{Guard, NodeId, NodeKind, Value};
use crate::surface::{Branch, Cond};

/// A branch that is being expanded.
pub(super) struct Guarding {
    /// In how many frames its condition lives.
    depth: usize,
    /// The condition in each cell there.
    conditions: Vec<Value>,
    holds: bool,
}

impl<'a> Expander<'a> {
    pub(super) fn cond(&mut self, id: NodeId, cond: &'a Cond) {
        let Some(conditions) = self.in_all_cells(id, cond.condition) else { return };
        let Some(then) = self.branch(id, cond.then, &conditions, true) else { return };
        let otherwise = match cond.otherwise {
            Some(otherwise) => self.branch(id, otherwise, &conditions, false),
            None => Some(Vec::new()),
        };
        let Some(otherwise) = otherwise.filter(|_| !self.full) else { return };
        if then.len() != otherwise.len() {
            let message = format!(
                "its branches yield {} and {} values; both must yield as many",
                then.len(),
                otherwise.len()
            );
            let hint = "a branch can also yield a value from outside: what it was before";
            return self.fault(id, message, Some(hint.into()));
        }
        let mut outputs = Vec::with_capacity(then.len());
        for (then, otherwise) in then.into_iter().zip(otherwise) {
            let mut merged = Vec::with_capacity(conditions.len());
            for (cell, (then, otherwise)) in then.into_iter().zip(otherwise).enumerate() {
                let Some(&condition) = conditions.get(cell) else { return };
                let kind = NodeKind::Merge { condition, then, otherwise };
                match self.emit(id, cell, "merge", kind) {
                    Some(node) => merged.push(node.into()),
                    None => return,
                }
            }
            outputs.push(merged);
        }
        self.bound[id.index()] = Bound::Outputs(outputs);
    }

    /// Expands a branch; of each of its yields, the value in every cell.
    fn branch(
        &mut self,
        id: NodeId,
        branch: NodeId,
        conditions: &[Value],
        holds: bool,
    ) -> Option<Vec<Vec<Value>>> {
        let NodeKind::Branch(Branch { body, yields }) = &self.source.node(branch).kind else {
            self.fault(id, "one of its branches is none", None);
            return None;
        };
        self.guarding.push(Guarding { depth: self.top(), conditions: conditions.to_vec(), holds });
        self.body(body);
        let yields = self.yields(id, yields);
        self.guarding.pop();
        // What was made in a branch is seen nowhere else.
        for node in body {
            self.bound[node.index()] = Bound::Nothing;
        }
        yields
    }

    /// The conditions under which a node of a cell of the innermost frame runs: those that it has itself, and those of the
    /// branches around it.
    pub(super) fn guards(&self, id: NodeId, cell: usize) -> Vec<Guard> {
        let own = |guard: &Guard| Some(Guard { condition: self.resolve(guard.condition, cell)?, ..*guard });
        let own = self.source.node(id).guards.iter().filter_map(own);
        let of = |guarding: &Guarding| {
            let cell = self.outer_cell(cell, guarding.depth)?;
            Some(Guard { condition: *guarding.conditions.get(cell)?, holds: guarding.holds })
        };
        own.chain(self.guarding.iter().filter_map(of)).collect()
    }
}
