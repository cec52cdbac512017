//! The three types that operations compute in, and how number types promote.
//!
//! `f64` computes in `f64`; `f32`, `bf16` and `f16` in `f32`; whole numbers and truth values in `i64`. Results are
//! rounded (or wrapped) once, when they are stored.

use pellucid_graph::rules::promotion::{self, Strength};
use pellucid_graph::{DType, Scalar};

use super::Result;
use super::arguments::Operand;
use super::product::{Layout, multiply, multiply_singles};
use super::reduction::lanes;
use crate::tensor::{Elements, Stored, Tensor, stored_scalar, with_stored};

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Computation {
    Double,
    Single,
    Integer,
}

impl Computation {
    pub(crate) fn of(dtype: DType) -> Computation {
        match dtype {
            DType::F64 => Computation::Double,
            DType::F32 | DType::Bf16 | DType::F16 => Computation::Single,
            _ => Computation::Integer,
        }
    }
}

/// A type that operations compute in.
pub(crate) trait Number: Stored + Default {
    /// A tensor's elements, converted.
    fn elements(tensor: &Tensor) -> Result<Elements<'_, Self>>;
    /// In the type in which a result is stored.
    fn stored<T: Stored>(self) -> T;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// Rounded down. Only asked of integers whose divisor is not 0.
    fn floor_divide(self, other: Self) -> Self;
    /// With the divisor's sign. Only asked of integers whose divisor is not 0.
    fn remainder(self, other: Self) -> Self;
    fn power(self, exponent: Self) -> Self;
    fn is_nan(self) -> bool;
    /// The sum; of floats, accumulated in `f64` in an order that depends on nothing but their number.
    fn total(elements: &[Self]) -> Self;
    /// `out [rows, columns] = left [rows, inner] · right`, the sizes in that order; `out` must hold zeros.
    fn multiply(left: &[Self], right: &[Self], layout: Layout, out: &mut [Self], sizes: [usize; 3]);
}

macro_rules! float_number {
    ($type:ty, $elements:ident, $from:ident, $multiply:path) => {
        impl Number for $type {
            fn elements(tensor: &Tensor) -> Result<Elements<'_, Self>> {
                tensor.$elements()
            }
            fn stored<T: Stored>(self) -> T {
                T::$from(self)
            }
            fn plus(self, other: Self) -> Self {
                self + other
            }
            fn minus(self, other: Self) -> Self {
                self - other
            }
            fn times(self, other: Self) -> Self {
                self * other
            }
            fn floor_divide(self, other: Self) -> Self {
                if other == 0.0 {
                    return self / other;
                }
                // The remainder is exact, so the quotient is: PyTorch's (and Python's) own way.
                let remainder = self % other;
                let mut quotient = (self - remainder) / other;
                if remainder != 0.0 && (other < 0.0) != (remainder < 0.0) {
                    quotient -= 1.0;
                }
                if quotient == 0.0 {
                    return <$type>::copysign(0.0, self / other);
                }
                let floor = quotient.floor();
                if quotient - floor > 0.5 { floor + 1.0 } else { floor }
            }
            fn remainder(self, other: Self) -> Self {
                let remainder = self % other;
                if remainder != 0.0 && (other < 0.0) != (remainder < 0.0) {
                    remainder + other
                } else {
                    remainder
                }
            }
            fn power(self, exponent: Self) -> Self {
                self.powf(exponent)
            }
            fn is_nan(self) -> bool {
                <$type>::is_nan(self)
            }
            fn total(elements: &[Self]) -> Self {
                lanes(elements, |element| f64::from(element)) as $type
            }
            fn multiply(left: &[Self], right: &[Self], layout: Layout, out: &mut [Self], sizes: [usize; 3]) {
                $multiply(left, right, layout, out, sizes);
            }
        }
    };
}

float_number!(f32, singles, from_single, multiply_singles);
float_number!(f64, doubles, from_double, multiply);

impl Number for i64 {
    fn elements(tensor: &Tensor) -> Result<Elements<'_, Self>> {
        tensor.integers()
    }
    fn stored<T: Stored>(self) -> T {
        T::from_integer(self)
    }
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    fn minus(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }
    fn times(self, other: Self) -> Self {
        self.wrapping_mul(other)
    }
    fn floor_divide(self, other: Self) -> Self {
        if other == 0 {
            return 0;
        }
        let quotient = self.wrapping_div(other);
        let remainder = self.wrapping_rem(other);
        if remainder != 0 && (other < 0) != (remainder < 0) { quotient - 1 } else { quotient }
    }
    fn remainder(self, other: Self) -> Self {
        if other == 0 {
            return 0;
        }
        let remainder = self.wrapping_rem(other);
        if remainder != 0 && (other < 0) != (remainder < 0) { remainder + other } else { remainder }
    }
    fn power(self, exponent: Self) -> Self {
        match (self, exponent) {
            (1, _) => 1,
            (-1, _) => 1 - 2 * (exponent & 1),
            (_, ..0) => 0,
            _ => {
                let (mut power, mut base, mut left) = (1i64, self, exponent);
                while left > 0 {
                    if left & 1 == 1 {
                        power = power.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    left >>= 1;
                }
                power
            }
        }
    }
    fn is_nan(self) -> bool {
        false
    }
    fn total(elements: &[Self]) -> Self {
        elements.iter().fold(0, |sum, &element| sum.wrapping_add(element))
    }
    fn multiply(left: &[Self], right: &[Self], layout: Layout, out: &mut [Self], sizes: [usize; 3]) {
        multiply(left, right, layout, out, sizes);
    }
}

/// A tensor of computed elements, rounded or wrapped to the number type.
pub(crate) fn store<N: Number>(elements: Vec<N>, shape: &[usize], dtype: DType) -> Result<Tensor> {
    if crate::tensor::stored_type(dtype) == N::DTYPE {
        return Tensor::from_stored(elements, shape, dtype);
    }
    if dtype == DType::Bool {
        let truths = elements.iter().map(|&element| u8::from(element != N::default())).collect();
        return Tensor::from_stored::<u8>(truths, shape, dtype);
    }
    with_stored!(dtype, T => {
        // From borrowed elements: collecting into the vector's own memory is not vectorised.
        Tensor::from_stored::<T>(elements.iter().map(|element| element.stored()).collect(), shape, dtype)
    })
}

/// A literal in a type that operations compute in.
pub(crate) fn number<N: Number>(scalar: Scalar) -> N {
    match scalar {
        Scalar::Bool(value) => N::from_integer(i64::from(value)),
        Scalar::Int(value) => N::from_integer(value),
        Scalar::Float(value) => N::from_double(value),
    }
}

/// A literal rounded to a number type, in a type that operations compute in.
pub(crate) fn rounded<N: Number>(scalar: Scalar, dtype: DType) -> N {
    with_stored!(dtype, T => {
        let stored: T = stored_scalar(scalar, dtype);
        match Computation::of(dtype) {
            Computation::Double => N::from_double(stored.double()),
            Computation::Single => N::from_single(stored.single()),
            Computation::Integer => N::from_integer(stored.integer()),
        }
    })
}

/// The number type of several operands together (`torch.result_type`).
pub(crate) fn result_type(operands: &[&Operand]) -> DType {
    promotion::result_type(operands.iter().map(|operand| match operand {
        Operand::Tensor(tensor) if tensor.rank() > 0 => (tensor.dtype(), Strength::Tensor),
        Operand::Tensor(tensor) => (tensor.dtype(), Strength::ZeroDimensional),
        Operand::Scalar(scalar) => (scalar.dtype(), Strength::Literal),
    }))
}

/// The number type in which a function with a real result computes: floats stay, all else becomes `f32`.
pub(crate) fn float_type(dtype: DType) -> DType {
    if dtype.is_float() { dtype } else { DType::F32 }
}
