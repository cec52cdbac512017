//! What methods of values take: numbers or values, dimensions, shapes.

use std::ops::RangeFull;

use pellucid_graph::{Argument, Scalar, Size as GraphSize};

use super::{Value, Writer};

/// A value or a literal number.
#[derive(Clone, Debug)]
pub enum Operand {
    /// A value of the program.
    Value(Value),
    /// A literal: weak in promotion, as a Python number is in PyTorch.
    Scalar(Scalar),
}

impl From<Value> for Operand {
    fn from(value: Value) -> Self {
        Operand::Value(value)
    }
}

impl From<&Value> for Operand {
    fn from(value: &Value) -> Self {
        Operand::Value(value.clone())
    }
}

macro_rules! operand_from {
    ($($type:ty),*) => {
        $(impl From<$type> for Operand {
            fn from(number: $type) -> Self {
                Operand::Scalar(number.into())
            }
        })*
    };
}

operand_from!(f64, f32, i64, i32, u32, u8, bool, Scalar);

/// Dimensions of a tensor: one, several, or `..` for all. A negative one counts from the end.
#[derive(Clone, Debug)]
pub struct Dimensions(Option<Vec<i64>>);

impl Dimensions {
    pub(crate) fn argument(self) -> Argument {
        self.0.map_or(Argument::Absent, Argument::Integers)
    }
}

/// One dimension of a tensor, or `..` for all of them as one. A negative one counts from the end.
#[derive(Clone, Copy, Debug)]
pub struct Dimension(Option<i64>);

impl Dimension {
    pub(crate) fn argument(self) -> Argument {
        self.0.map_or(Argument::Absent, |dimension| Argument::Scalar(Scalar::Int(dimension)))
    }
}

impl From<RangeFull> for Dimensions {
    fn from(_: RangeFull) -> Self {
        Dimensions(None)
    }
}

impl From<RangeFull> for Dimension {
    fn from(_: RangeFull) -> Self {
        Dimension(None)
    }
}

/// Sizes of a shape. A size may be that of another value, which may not be known before the prompt is tokenised: see
/// [`Value::size`] and [`shape!`](crate::shape).
#[derive(Clone, Debug)]
pub struct Shape(Vec<Size>);

/// One size of a shape.
#[derive(Clone, Debug)]
pub enum Size {
    /// A number; −1 where the operation infers it or leaves it as it is.
    Literal(i64),
    /// The size of a value along a dimension (negative: from the end).
    Of(Value, i64),
}

impl Shape {
    pub(crate) fn resolve(self, writer: &mut Writer<'_>) -> Vec<GraphSize> {
        let resolved = self.0.into_iter().map(|size| match size {
            Size::Literal(number) => GraphSize::Literal(number),
            Size::Of(value, dimension) => GraphSize::Of { value: writer.read(&value), dimension },
        });
        resolved.collect()
    }
}

impl<const N: usize> From<[Size; N]> for Shape {
    fn from(sizes: [Size; N]) -> Self {
        Shape(sizes.into())
    }
}

impl From<Vec<Size>> for Shape {
    fn from(sizes: Vec<Size>) -> Self {
        Shape(sizes)
    }
}

macro_rules! from_integers {
    ($($type:ty),*) => {
        $(
            impl From<$type> for Dimension {
                fn from(number: $type) -> Self {
                    Dimension(Some(number as i64))
                }
            }

            impl From<$type> for Dimensions {
                fn from(number: $type) -> Self {
                    Dimensions(Some(vec![number as i64]))
                }
            }

            impl<const N: usize> From<[$type; N]> for Dimensions {
                fn from(numbers: [$type; N]) -> Self {
                    Dimensions(Some(numbers.into_iter().map(|number| number as i64).collect()))
                }
            }

            impl From<&[$type]> for Dimensions {
                fn from(numbers: &[$type]) -> Self {
                    Dimensions(Some(numbers.iter().map(|&number| number as i64).collect()))
                }
            }

            impl From<Vec<$type>> for Dimensions {
                fn from(numbers: Vec<$type>) -> Self {
                    Dimensions::from(numbers.as_slice())
                }
            }

            impl From<$type> for Size {
                fn from(number: $type) -> Self {
                    Size::Literal(number as i64)
                }
            }

            impl<const N: usize> From<[$type; N]> for Shape {
                fn from(numbers: [$type; N]) -> Self {
                    Shape(numbers.into_iter().map(Size::from).collect())
                }
            }

            impl From<&[$type]> for Shape {
                fn from(numbers: &[$type]) -> Self {
                    Shape(numbers.iter().map(|&number| Size::from(number)).collect())
                }
            }

            impl From<Vec<$type>> for Shape {
                fn from(numbers: Vec<$type>) -> Self {
                    Shape::from(numbers.as_slice())
                }
            }
        )*
    };
}

from_integers!(i32, i64, usize);

/// A shape whose items are numbers and sizes of values: `shape![2, value.size(1), -1]`.
#[macro_export]
macro_rules! shape {
    ($($size:expr),* $(,)?) => {
        $crate::Shape::from([$($crate::Size::from($size)),*])
    };
}
