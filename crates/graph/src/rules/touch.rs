//! The elements that an operation may have to touch, whatever it computes: each has its price ([`super::weight`]).

use super::room::together;
use super::{ASSUMED_LENGTH, RuleContext, cost};
use crate::operation::{Argument, IndexItem, Operation, OperationKind};
use crate::program::Value;
use crate::shape::TensorType;

/// What an operation does with the elements that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touches {
    /// None of them, whatever their layout: the result is a view.
    Nothing,
    /// Of its first operand only those that come into the result; all of the others, which say which.
    Places,
    /// All of them.
    All,
}

/// What an operation touches with these arguments.
pub fn touches(operation: &Operation) -> Touches {
    use OperationKind::*;
    match operation.kind {
        Transpose | Permute | MoveDim | Squeeze | Unsqueeze | Expand | Split | Chunk | Detach => {
            Touches::Nothing
        }
        GetItem => {
            let copied =
                |item: &IndexItem| matches!(item, IndexItem::Tensor(_) | IndexItem::Slice { step: 2.., .. });
            let index = operation.arguments.iter().find_map(|argument| match argument {
                Argument::Index(items) => Some(items),
                _ => None,
            });
            if index.is_some_and(|items| items.iter().any(copied)) {
                Touches::Places
            } else {
                Touches::Nothing
            }
        }
        Gather | TakeAlongDim | IndexSelect | Diagonal | Pad => Touches::Places,
        _ => Touches::All,
    }
}

/// How many elements that is, at most: of the largest operand, of lists those of all together, or of the results. Sizes that are not
/// known are taken to be [`super::ASSUMED_LENGTH`].
pub fn touched(context: &RuleContext<'_>, outputs: &[TensorType]) -> u64 {
    let touches = touches(context.operation);
    if touches == Touches::Nothing {
        return 0;
    }
    let elements = |value: &Value| cost(&(context.type_of)(*value), 1);
    let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0_u64, u64::saturating_add);
    let first = usize::from(touches == Touches::Places);
    let read = context.operation.arguments.iter().skip(first).map(|argument| match argument {
        Argument::Value(value) => elements(value),
        Argument::Values(values) => sum(&mut values.iter().map(elements)),
        Argument::Index(items) => sum(&mut items.iter().map(|item| match item {
            IndexItem::Tensor(value) => elements(value),
            _ => 0,
        })),
        _ => 0,
    });
    let touched = read.fold(sum(&mut outputs.iter().map(|output| cost(output, 1))), u64::max);
    // Rows are compared with one another, each as often as there are others.
    if context.operation.kind == OperationKind::CosineSimilarity {
        let sides = context.operation.values().into_iter().map(|side| (context.type_of)(side).shape);
        let sizes = sides.map(|shape| shape.iter().map(|size| size.assume(ASSUMED_LENGTH)).collect());
        let compared = together(&sizes.collect::<Vec<Vec<u64>>>()).into_iter().fold(1, u64::saturating_mul);
        return touched.max(compared);
    }
    touched
}
