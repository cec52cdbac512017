//! Operations evaluated at once, outside of any program.

use pellucid_engine::Tensor;
use pellucid_engine::operations::{self, Noise, OperationError};
use pellucid_graph::{Operation, Value};

use crate::error::Result;

/// The outputs of an operation on tensors that are there: its values are the tensors, by the numbers of their nodes. What is
/// random in it is keyed by the seed and by `number`, how many such operations came before.
///
/// ```
/// use pellucid::{Program, Tensor, evaluate};
/// use pellucid_graph::NodeKind;
///
/// # fn main() -> pellucid::Result<()> {
/// // The first node stands for the tensor.
/// let text = br#"{ "pellucid": 1, "body": [
///     { "op": "zeros", "name": "x", "size": [] }, { "op": "softmax", "name": "y", "input": "x", "dim": 0 }] }"#;
/// let program = Program::from_json(text)?;
/// let NodeKind::Operation(softmax) = &program.nodes[1].kind else { return Ok(()) };
/// let x = Tensor::from_f32(vec![1.0, 1.0], &[2])?;
/// assert_eq!(evaluate(softmax, &[x], 0, 0)?[0].to_vec_f32()?, [0.5, 0.5]);
/// assert!(evaluate(softmax, &[], 0, 0).is_err());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Tensor`](crate::Error::Tensor) where the operation cannot take them.
pub fn evaluate(operation: &Operation, tensors: &[Tensor], seed: u64, number: u64) -> Result<Vec<Tensor>> {
    if let Some(missing) = operation.values().iter().find(|value| value.node.index() >= tensors.len()) {
        let message = format!("there is no tensor {} of {}", missing.node.index(), tensors.len());
        return Err(OperationError::new(message).into());
    }
    let values = |value: Value| tensors[value.node.index()].clone();
    let noise = Noise { seed, label: operation.kind.name().to_owned(), coordinates: vec![number] };
    Ok(operations::evaluate(operation, &values, &noise)?)
}
