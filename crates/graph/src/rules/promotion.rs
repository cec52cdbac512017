//! The number type of several operands together: PyTorch's `result_type`.

use crate::dtype::DType;
use crate::program::Value;
use crate::scalar::Scalar;
use crate::shape::{Dimension, TensorType};

/// How much an operand's number type weighs. Within a category (bool, integer, float) the stronger operand decides alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// A tensor of at least one dimension.
    Tensor,
    /// A tensor without dimensions.
    ZeroDimensional,
    /// A literal number.
    Literal,
}

/// A value or a literal number.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A value: which, and its type.
    Tensor(Value, TensorType),
    /// A literal number.
    Number(Scalar),
}

impl Operand {
    /// Its number type and how much that weighs.
    pub fn weighed(&self) -> (DType, Strength) {
        match self {
            Operand::Tensor(_, tensor) if tensor.shape.is_empty() => {
                (tensor.dtype, Strength::ZeroDimensional)
            }
            Operand::Tensor(_, tensor) => (tensor.dtype, Strength::Tensor),
            Operand::Number(number) => (number.dtype(), Strength::Literal),
        }
    }

    /// Its number type by itself.
    pub fn dtype(&self) -> DType {
        self.weighed().0
    }

    /// Its shape; a number has none.
    pub fn shape(&self) -> &[Dimension] {
        match self {
            Operand::Tensor(_, tensor) => &tensor.shape,
            Operand::Number(_) => &[],
        }
    }
}

impl std::fmt::Display for Operand {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Operand::Tensor(_, tensor) => write!(formatter, "{tensor}"),
            Operand::Number(number) => write!(formatter, "{number}"),
        }
    }
}

/// The number type of several operands together (`torch.result_type`); of none, `f32`.
pub fn result_type(operands: impl IntoIterator<Item = (DType, Strength)>) -> DType {
    let (mut tensors, mut scalars, mut literals) = (None, None, None);
    for (dtype, strength) in operands {
        let class = match strength {
            Strength::Tensor => &mut tensors,
            Strength::ZeroDimensional => &mut scalars,
            Strength::Literal => &mut literals,
        };
        *class = Some(class.map_or(dtype, |before: DType| before.promote(dtype)));
    }
    combine(tensors, combine(scalars, literals)).unwrap_or(DType::F32)
}

/// A stronger class decides, unless the weaker one is of a higher category.
fn combine(stronger: Option<DType>, weaker: Option<DType>) -> Option<DType> {
    match (stronger, weaker) {
        (Some(stronger), Some(weaker)) if weaker.category() > stronger.category() => {
            Some(stronger.promote(weaker))
        }
        (Some(stronger), _) => Some(stronger),
        (None, weaker) => weaker,
    }
}
