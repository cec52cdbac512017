//! Weights that are read and set.

use super::Checker;
use crate::dtype::DType;
use crate::operation::{Argument, IndexItem, Operation, OperationKind};
use crate::program::{NodeId, Value};
use crate::rules::{RuleContext, RuleError};
use crate::shape::TensorType;

impl Checker<'_> {
    /// A parameter's type, in the checkpoint's layout.
    fn parameter_type(&self, id: NodeId) -> Option<TensorType> {
        let parameter = self.spec(id).parameters.get(self.nodes[id.index()].parameter?)?;
        Some(TensorType::known(DType::F32, &parameter.shape))
    }

    /// The type of a parameter that is read, or of a part of it.
    pub(super) fn weight(&mut self, id: NodeId, index: Option<&[IndexItem]>) -> Option<TensorType> {
        let whole = self.parameter_type(id)?;
        let Some(items) = index else { return Some(whole) };
        // A part of a parameter is what `getitem` gives of it.
        let own = Value::from(id);
        let arguments = vec![Argument::Value(own), Argument::Index(items.to_vec())];
        let operation = Operation { kind: OperationKind::GetItem, arguments };
        let nodes = &self.nodes;
        let type_of = |value: Value| {
            if value == own {
                return whole.clone();
            }
            nodes[value.node.index()].outputs[value.output as usize].clone()
        };
        let mut context =
            RuleContext { operation: &operation, type_of: &type_of, next_symbol: &mut self.next_symbol };
        match OperationKind::GetItem.definition().typed(&mut context) {
            Ok(typed) => typed.outputs.into_iter().next(),
            Err(RuleError { message, hint }) => {
                self.fault(id, message, hint);
                None
            }
        }
    }

    /// A parameter is set to one of its own shape.
    pub(super) fn set_weight(&mut self, id: NodeId, value: Value) {
        let Some(whole) = self.parameter_type(id) else { return };
        let given = self.nodes[value.node.index()].outputs[value.output as usize].clone();
        let fits = given.shape.len() == whole.shape.len()
            && given.shape.iter().zip(&whole.shape).all(|(given, own)| given.could_equal(own));
        if !fits || !given.dtype.is_float() {
            let hint = "a parameter is set whole, in the checkpoint's layout; to change a part, use `index_put` on the `weight` read";
            self.fault(id, format!("the parameter is {whole}, but it is set to {given}"), Some(hint.into()));
        }
    }
}
