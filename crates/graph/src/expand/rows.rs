//! How many rows a value has: what the types of the program say that is written so far.

use super::Expander;
use crate::check;
use crate::fault::quote;
use crate::limits;
use crate::program::{NodeId, NodeKind, Program, SameType, Value};

impl Expander<'_> {
    /// The number of rows of the value that a parameter goes over; none where a fault was noted.
    pub(super) fn count_of_rows(&mut self, parameter: NodeId, value: Value) -> Option<u64> {
        let values = self.in_all_cells(parameter, value)?;
        let (&first, others) = values.split_first()?;
        // Every cell has the same grid.
        for &next in others.iter().filter(|&&next| next != first) {
            let what = format!("rows of {}", self.source.node(parameter).name);
            self.same_types.push(SameType { at: next.node, what, first, next });
        }
        if let Some(&known) = self.rows.get(&parameter) {
            return Some(known);
        }
        if self.rows.len() >= limits::ROW_AXES {
            let message = format!("more than {} parameters go over rows of values", limits::ROW_AXES);
            self.fault(parameter, message, None);
            return None;
        }
        let name = quote(&self.source.node(value.node).name);
        let size = match self.type_of(first) {
            Some(known) => match known.shape.first() {
                Some(size) => size.value().ok_or_else(|| {
                    (
                        format!("how many rows {name} has is not known before it runs"),
                        "slice it to a known size",
                    )
                }),
                None => {
                    Err((format!("{name} has no rows: it has no dimensions"), "give it one with `unsqueeze`"))
                }
            },
            None => {
                Err((format!("the shape of {name} is not known"), "what it is computed from is at fault"))
            }
        };
        match size {
            Ok(size) => {
                self.rows.insert(parameter, size);
                Some(size)
            }
            Err((message, hint)) => {
                self.fault(parameter, message, Some(hint.into()));
                None
            }
        }
    }

    fn type_of(&mut self, value: Value) -> Option<crate::shape::TensorType> {
        for (owner, body) in &self.open {
            let Some(owner) = owner else { continue };
            match &mut self.nodes[owner.index()].kind {
                NodeKind::Trace(trace) => {
                    trace.body.clone_from(body);
                    trace.invokes.clone_from(&self.invokes);
                }
                NodeKind::Steps { body: own, .. } => own.clone_from(body),
                _ => {}
            }
        }
        let program = Program {
            nodes: std::mem::take(&mut self.nodes),
            body: self.open.first().map(|(_, body)| body.clone()).unwrap_or_default(),
            constants: self.source.constants.clone(),
            ..Program::default()
        };
        let known = check::type_of(&program, self.models, value);
        self.nodes = program.nodes;
        known
    }
}
