//! `+ - * / %`, unary `-`, and `& | ^ !` between values and numbers.

use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Rem, Sub};

use pellucid_graph::OperationKind;

use super::{Given, Operand, Value};

macro_rules! binary_operators {
    ($($trait:ident $method:ident $kind:ident),*) => {
        $(
            impl<T: Into<Operand>> $trait<T> for &Value {
                type Output = Value;

                #[track_caller]
                fn $method(self, other: T) -> Value {
                    let arguments = [Given::Value(self), Given::Operand(other.into())];
                    self.writer().operation(OperationKind::$kind, arguments)
                }
            }

            impl<T: Into<Operand>> $trait<T> for Value {
                type Output = Value;

                #[track_caller]
                fn $method(self, other: T) -> Value {
                    let arguments = [Given::Value(&self), Given::Operand(other.into())];
                    self.writer().operation(OperationKind::$kind, arguments)
                }
            }

            binary_operators!(@left $trait $method $kind f64);
            binary_operators!(@left $trait $method $kind f32);
            binary_operators!(@left $trait $method $kind i64);
            binary_operators!(@left $trait $method $kind i32);
            binary_operators!(@left $trait $method $kind bool);
        )*
    };
    (@left $trait:ident $method:ident $kind:ident $number:ty) => {
        impl $trait<&Value> for $number {
            type Output = Value;

            #[track_caller]
            fn $method(self, other: &Value) -> Value {
                let arguments = [Given::Operand(self.into()), Given::Value(other)];
                other.writer().operation(OperationKind::$kind, arguments)
            }
        }

        impl $trait<Value> for $number {
            type Output = Value;

            #[track_caller]
            fn $method(self, other: Value) -> Value {
                let arguments = [Given::Operand(self.into()), Given::Value(&other)];
                other.writer().operation(OperationKind::$kind, arguments)
            }
        }
    };
}

binary_operators! {
    Add add Add,
    Sub sub Sub,
    Mul mul Mul,
    Div div Div,
    Rem rem Remainder,
    BitAnd bitand LogicalAnd,
    BitOr bitor LogicalOr,
    BitXor bitxor LogicalXor
}

macro_rules! unary_operators {
    ($($trait:ident $method:ident $kind:ident),*) => {
        $(
            impl $trait for &Value {
                type Output = Value;

                #[track_caller]
                fn $method(self) -> Value {
                    self.writer().operation(OperationKind::$kind, [Given::Value(self)])
                }
            }

            impl $trait for Value {
                type Output = Value;

                #[track_caller]
                fn $method(self) -> Value {
                    self.writer().operation(OperationKind::$kind, [Given::Value(&self)])
                }
            }
        )*
    };
}

unary_operators!(Neg neg Neg, Not not LogicalNot);
