//! Methods for what works element by element.

use pellucid_graph::{Argument, DType, OperationKind, Scalar};

use super::arguments::{absent, scalar, text};
use super::{Given, Operand, Value};

macro_rules! unary {
    ($($(#[$doc:meta])* $method:ident $kind:ident;)*) => {
        impl Value {
            $($(#[$doc])*
            #[track_caller]
            pub fn $method(&self) -> Value {
                self.writer().operation(OperationKind::$kind, [Given::Value(self)])
            })*
        }
    };
}

unary! {
    /// The magnitude.
    abs Abs;
    /// −1, 0 or 1.
    sign Sign;
    /// Rounded down.
    floor Floor;
    /// Rounded up.
    ceil Ceil;
    /// Rounded to the nearest, halves to even.
    round Round;
    /// Rounded toward 0.
    trunc Trunc;
    /// e to its power.
    exp Exp;
    /// `exp(x) - 1`.
    expm1 Expm1;
    /// The natural logarithm. To stream a value while the program runs, see [`Value::log`].
    ln Log;
    /// The logarithm to base 2.
    log2 Log2;
    /// `ln(1 + x)`.
    log1p Log1p;
    /// The square root.
    sqrt Sqrt;
    /// `1 / sqrt(x)`.
    rsqrt Rsqrt;
    /// `1 / x`.
    reciprocal Reciprocal;
    /// The sine.
    sin Sin;
    /// The cosine.
    cos Cos;
    /// The hyperbolic tangent.
    tanh Tanh;
    /// `1 / (1 + exp(-x))`.
    sigmoid Sigmoid;
    /// The error function.
    erf Erf;
    /// `max(x, 0)`.
    relu Relu;
    /// `x * sigmoid(x)`.
    silu Silu;
    /// `ln(1 + exp(x))`.
    softplus Softplus;
    /// Whether it is 0; also `!x`.
    logical_not LogicalNot;
    /// Whether it is not a number.
    isnan IsNan;
    /// Whether it is an infinity.
    isinf IsInf;
    /// Whether it is neither an infinity nor NaN.
    isfinite IsFinite;
}

macro_rules! binary {
    ($($(#[$doc:meta])* $method:ident $kind:ident;)*) => {
        impl Value {
            $($(#[$doc])*
            #[track_caller]
            pub fn $method(&self, other: impl Into<Operand>) -> Value {
                self.writer().operation(OperationKind::$kind, [Given::Value(self), Given::Operand(other.into())])
            })*
        }
    };
}

binary! {
    /// Divided and rounded down.
    floor_divide FloorDivide;
    /// The remainder with the divisor's sign; also `x % y`.
    remainder Remainder;
    /// To the power of `other`.
    pow Pow;
    /// The larger of two; NaN wins.
    maximum Maximum;
    /// The smaller of two; NaN wins.
    minimum Minimum;
    /// Whether they are equal, place by place.
    eq Eq;
    /// Whether they differ, place by place.
    ne Ne;
    /// Whether it is less than `other`, place by place.
    lt Lt;
    /// Whether it is at most `other`, place by place.
    le Le;
    /// Whether it is greater than `other`, place by place.
    gt Gt;
    /// Whether it is at least `other`, place by place.
    ge Ge;
    /// Whether both are not 0; also `x & y`.
    logical_and LogicalAnd;
    /// Whether one is not 0; also `x | y`.
    logical_or LogicalOr;
    /// Whether just one is not 0; also `x ^ y`.
    logical_xor LogicalXor;
}

impl Value {
    /// Kept between two numbers.
    #[track_caller]
    pub fn clamp(&self, min: impl Into<Scalar>, max: impl Into<Scalar>) -> Value {
        self.writer().operation(OperationKind::Clamp, [Given::Value(self), scalar(min), scalar(max)])
    }

    /// Kept at or above a number.
    #[track_caller]
    pub fn clamp_min(&self, min: impl Into<Scalar>) -> Value {
        self.writer().operation(OperationKind::Clamp, [Given::Value(self), scalar(min), absent()])
    }

    /// Kept at or below a number.
    #[track_caller]
    pub fn clamp_max(&self, max: impl Into<Scalar>) -> Value {
        self.writer().operation(OperationKind::Clamp, [Given::Value(self), absent(), scalar(max)])
    }

    /// The Gaussian error linear unit, exact.
    #[track_caller]
    pub fn gelu(&self) -> Value {
        self.writer().operation(OperationKind::Gelu, [Given::Value(self), text("none")])
    }

    /// The Gaussian error linear unit in its approximation by tanh, as GPT-2 uses it.
    #[track_caller]
    pub fn gelu_tanh(&self) -> Value {
        self.writer().operation(OperationKind::Gelu, [Given::Value(self), text("tanh")])
    }

    /// Of a condition: `input` where it holds, else `other`. PyTorch's `where`.
    #[track_caller]
    pub fn where_cond(&self, input: impl Into<Operand>, other: impl Into<Operand>) -> Value {
        let arguments = [Given::Value(self), Given::Operand(input.into()), Given::Operand(other.into())];
        self.writer().operation(OperationKind::Where, arguments)
    }

    /// `value` where the mask holds, else as it is.
    #[track_caller]
    pub fn masked_fill(&self, mask: &Value, value: impl Into<Operand>) -> Value {
        let arguments = [Given::Value(self), Given::Value(mask), Given::Operand(value.into())];
        self.writer().operation(OperationKind::MaskedFill, arguments)
    }

    /// In another number type.
    #[track_caller]
    pub fn to(&self, dtype: DType) -> Value {
        self.writer().operation(OperationKind::To, [Given::Value(self), Given::Plain(Argument::DType(dtype))])
    }
}
