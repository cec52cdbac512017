//! Literal numbers in a program.

use crate::dtype::DType;

const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

/// A literal number: weak in promotion, as a Python number is in PyTorch.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// A truth value.
    Bool(bool),
    /// An integer; its default type as a tensor is `i64`.
    Int(i64),
    /// A floating-point number; its default type as a tensor is `f32`.
    Float(f64),
}

impl Scalar {
    /// The value as `f64`; a truth value is 0 or 1.
    pub fn as_f64(self) -> f64 {
        match self {
            Scalar::Bool(value) => f64::from(u8::from(value)),
            Scalar::Int(value) => value as f64,
            Scalar::Float(value) => value,
        }
    }

    /// The number type it has by itself, and its category in promotion.
    pub fn dtype(self) -> DType {
        match self {
            Scalar::Bool(_) => DType::Bool,
            Scalar::Int(_) => DType::I64,
            Scalar::Float(_) => DType::F32,
        }
    }

    /// Whether it becomes that number type without overflow. As in PyTorch, small negative integers wrap round in `u8`,
    /// fractions are cut off, and everything becomes a truth value.
    pub fn fits(self, dtype: DType) -> bool {
        let (low, high) = match dtype {
            DType::Bool | DType::F64 => return true,
            DType::F32 => (f64::from(f32::MIN), f64::from(f32::MAX)),
            DType::Bf16 => (half::bf16::MIN.to_f64(), half::bf16::MAX.to_f64()),
            DType::F16 => (half::f16::MIN.to_f64(), half::f16::MAX.to_f64()),
            DType::I64 => (-TWO_TO_63, TWO_TO_63),
            DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            DType::U8 => (if matches!(self, Scalar::Float(_)) { 0.0 } else { -255.0 }, 255.0),
        };
        match self {
            Scalar::Float(value) if dtype.is_float() => !value.is_finite() || (low..=high).contains(&value),
            Scalar::Float(value) => (low..=high).contains(&value) && value < TWO_TO_63,
            Scalar::Int(_) if dtype == DType::I64 => true,
            Scalar::Bool(_) | Scalar::Int(_) => (low..=high).contains(&self.as_f64()),
        }
    }

    /// On which side of an integer type it lies: −1 below all that the type holds, 1 above, 0 within. In other types 0.
    pub fn side(self, dtype: DType) -> i8 {
        let (low, high) = match dtype {
            DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            DType::U8 => (0.0, 255.0),
            _ => return 0,
        };
        let number = self.as_f64();
        i8::from(number > high) - i8::from(number < low)
    }

    /// Whether it becomes that number type as itself, up to the rounding of floats: in integer types fractions, negative
    /// numbers in `u8` and all that is out of range do not. Everything becomes a truth value.
    pub fn is_kept_by(self, dtype: DType) -> bool {
        let number = self.as_f64();
        let whole = dtype.is_float() || dtype == DType::Bool || number.fract() == 0.0;
        self.fits(dtype) && whole && (dtype != DType::U8 || number >= 0.0)
    }

    /// The value as an integer, if it is one.
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Scalar::Bool(value) => Some(i64::from(value)),
            Scalar::Int(value) => Some(value),
            Scalar::Float(_) => None,
        }
    }
}

/// Two literals are equal when they are the same to the bit, so that a program with a NaN equals itself.
impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Scalar::Bool(a), Scalar::Bool(b)) => a == b,
            (Scalar::Int(a), Scalar::Int(b)) => a == b,
            (Scalar::Float(a), Scalar::Float(b)) => a.to_bits() == b.to_bits(),
            _ => false,
        }
    }
}

impl Eq for Scalar {}

impl std::fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Bool(value) => write!(formatter, "{value}"),
            Scalar::Int(value) => write!(formatter, "{value}"),
            Scalar::Float(value) => write!(formatter, "{value:?}"),
        }
    }
}

macro_rules! scalar_from {
    ($($type:ty => $variant:ident),*) => {
        $(impl From<$type> for Scalar {
            fn from(number: $type) -> Self {
                Scalar::$variant(number.into())
            }
        })*
    };
}

scalar_from!(f64 => Float, f32 => Float, i64 => Int, i32 => Int, u32 => Int, u8 => Int, bool => Bool);
