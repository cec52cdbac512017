//! Conditions: what may be one, and what comes out of two branches.

use super::Checker;
use crate::dtype::DType;
use crate::program::{NodeId, Value};
use crate::shape::{Dimension, TensorType};

impl Checker<'_> {
    fn type_of(&self, value: Value) -> Option<&TensorType> {
        self.nodes[value.node.index()].outputs.get(value.output as usize)
    }

    /// The conditions under which a node runs are bools without dimensions.
    pub(super) fn guards(&mut self, id: NodeId) {
        for guard in &self.program.node(id).guards {
            self.condition(id, guard.condition);
        }
    }

    fn condition(&mut self, id: NodeId, condition: Value) {
        let Some(given) = self.type_of(condition) else { return };
        if given.dtype != DType::Bool || !given.shape.is_empty() {
            let hint =
                "a condition is one truth value: compare with `gt`, `eq`, …, and take `any` or `all` of it";
            let message = format!("its condition is {given}, not a bool without dimensions");
            if !self.faults.iter().any(|fault| fault.message == message) {
                self.fault(id, message, Some(hint.into()));
            }
        }
    }

    /// The type of what comes out of two branches: the same from both. Sizes that are not known yet are taken to be
    /// equal, and the engine makes sure.
    pub(super) fn merge(
        &mut self,
        id: NodeId,
        condition: Value,
        then: Value,
        otherwise: Value,
    ) -> Option<TensorType> {
        self.condition(id, condition);
        let (one, other) = (self.type_of(then)?.clone(), self.type_of(otherwise)?.clone());
        let fits = one.dtype == other.dtype
            && one.shape.len() == other.shape.len()
            && one.shape.iter().zip(&other.shape).all(|(one, other)| one.could_equal(other));
        if !fits {
            let hint =
                "both branches give a value of the same number type and shape: cast with `to`, or `expand`";
            self.fault(id, format!("its branches give {one} and {other}"), Some(hint.into()));
            return None;
        }
        let shape =
            one.shape.iter().zip(&other.shape).map(|(one, other)| match (one.value(), other.value()) {
                (Some(_), _) => one.clone(),
                (None, Some(_)) => other.clone(),
                (None, None) if one == other => one.clone(),
                (None, None) => Dimension::symbol(self.fresh()),
            });
        let shape = shape.collect();
        Some(TensorType { dtype: one.dtype, shape })
    }

    /// A generation is stopped by a bool for all prompts, or by one for each.
    pub(super) fn stop(&mut self, id: NodeId, invoke: usize, when: Value) {
        let Some(given) = self.type_of(when) else { return };
        let prompts = self.prompts(id, invoke);
        let fits = match given.shape.as_slice() {
            [] => true,
            [each] => each.could_equal(&prompts),
            _ => false,
        };
        if given.dtype != DType::Bool || !fits {
            let message = format!("it stops where {given} holds; that must be bool[] or bool[{prompts}]");
            self.fault(
                id,
                message,
                Some("one truth value for all prompts of the invoke, or one for each".into()),
            );
        }
    }
}
