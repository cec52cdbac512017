//! What begins a computation without a hook point: tensors of the caller, filled and random ones, joined values.

use pellucid_engine::Tensor;
use pellucid_graph::program::Constant;
use pellucid_graph::{Argument, DType, NodeKind, OperationKind, Scalar};

use super::arguments::{absent, scalar};
use super::{Given, Shape, Value, Writer};
use crate::edit::EditBody;
use crate::region::Cell;
use crate::session::Session;
use crate::steps::Steps;
use crate::trace::Trace;

fn dtype(dtype: DType) -> Given<'static> {
    Given::Plain(Argument::DType(dtype))
}

impl Writer<'_> {
    fn literal(&self, elements: Vec<Scalar>, shape: &[u64]) -> Value {
        let float = elements.iter().any(|element| matches!(element, Scalar::Float(_)));
        let truths =
            !elements.is_empty() && elements.iter().all(|element| matches!(element, Scalar::Bool(_)));
        let dtype = if truths {
            DType::Bool
        } else if float || elements.is_empty() {
            DType::F32
        } else {
            DType::I64
        };
        self.node("", NodeKind::Literal { dtype, shape: shape.to_vec(), elements })
    }

    fn constant(&self, tensor: &Tensor) -> Value {
        let shape = tensor.shape().iter().map(|&size| size as u64).collect();
        let bytes = tensor.to_bytes().unwrap_or_else(|error| {
            let fault = pellucid_graph::fault::Fault::new(format!("the constant cannot be read: {error}"));
            self.builder.fault(fault);
            Vec::new()
        });
        let key = self.builder.constant(Constant { dtype: tensor.dtype(), shape, bytes });
        self.node("", NodeKind::Constant(key))
    }
}

macro_rules! constructors {
    ($($owner:ident),*) => {
        $(
            /// Values that begin a computation without a hook point.
            impl $owner {
                /// A small tensor of numbers in row-major order, written in the program itself: f32 if one of them is
                /// a float, else i64, or bool. For large tensors see [`Self::constant`].
                #[track_caller]
                pub fn literal<T: Into<Scalar>>(&self, elements: impl IntoIterator<Item = T>, shape: &[u64]) -> Value {
                    self.writer().literal(elements.into_iter().map(Into::into).collect(), shape)
                }

                /// A tensor of the caller, such as a result of an earlier run. It travels with the program, bit for bit.
                #[track_caller]
                pub fn constant(&self, tensor: &Tensor) -> Value {
                    self.writer().constant(tensor)
                }

                /// Zeros, f32.
                #[track_caller]
                pub fn zeros(&self, shape: impl Into<Shape>) -> Value {
                    let arguments = [Given::Sizes(shape.into()), dtype(DType::F32)];
                    self.writer().operation(OperationKind::Zeros, arguments)
                }

                /// Ones, f32.
                #[track_caller]
                pub fn ones(&self, shape: impl Into<Shape>) -> Value {
                    let arguments = [Given::Sizes(shape.into()), dtype(DType::F32)];
                    self.writer().operation(OperationKind::Ones, arguments)
                }

                /// One number everywhere: f32, i64 or bool as the number is.
                #[track_caller]
                pub fn full(&self, shape: impl Into<Shape>, number: impl Into<Scalar>) -> Value {
                    self.writer().operation(OperationKind::Full, [Given::Sizes(shape.into()), scalar(number), absent()])
                }

                /// Whole numbers from `start` up to and without `end`, i64.
                #[track_caller]
                pub fn arange(&self, start: i64, end: i64) -> Value {
                    let arguments = [scalar(start), scalar(end), scalar(1i64), absent()];
                    self.writer().operation(OperationKind::Arange, arguments)
                }

                /// So many evenly spaced numbers, both ends included, f32.
                #[track_caller]
                pub fn linspace(&self, start: f64, end: f64, steps: i64) -> Value {
                    let arguments = [scalar(start), scalar(end), scalar(steps), dtype(DType::F32)];
                    self.writer().operation(OperationKind::Linspace, arguments)
                }

                /// `[n, n]`, f32: ones on the diagonal.
                #[track_caller]
                pub fn eye(&self, n: i64) -> Value {
                    self.writer().operation(OperationKind::Eye, [scalar(n), absent(), dtype(DType::F32)])
                }

                /// Standard normal numbers, f32. They depend on the session's seed and the node's name: see
                /// [`Value::named`].
                #[track_caller]
                pub fn randn(&self, shape: impl Into<Shape>) -> Value {
                    let arguments = [Given::Sizes(shape.into()), dtype(DType::F32)];
                    self.writer().operation(OperationKind::Randn, arguments)
                }

                /// Numbers from 0 to 1, f32, seeded as [`Self::randn`].
                #[track_caller]
                pub fn rand(&self, shape: impl Into<Shape>) -> Value {
                    let arguments = [Given::Sizes(shape.into()), dtype(DType::F32)];
                    self.writer().operation(OperationKind::Rand, arguments)
                }

                /// Whole numbers from `low` up to and without `high`, i64, seeded as [`Self::randn`].
                #[track_caller]
                pub fn randint(&self, low: i64, high: i64, shape: impl Into<Shape>) -> Value {
                    let arguments = [scalar(low), scalar(high), Given::Sizes(shape.into()), dtype(DType::I64)];
                    self.writer().operation(OperationKind::Randint, arguments)
                }

                /// The numbers from 0 up to and without `n` in a random order, i64, seeded as [`Self::randn`].
                #[track_caller]
                pub fn randperm(&self, n: i64) -> Value {
                    self.writer().operation(OperationKind::Randperm, [scalar(n), dtype(DType::I64)])
                }

                /// Values joined along a dimension.
                #[track_caller]
                pub fn cat<'a>(&self, values: impl IntoIterator<Item = &'a Value>, along: i64) -> Value {
                    let arguments = [Given::Values(values.into_iter().collect()), scalar(along)];
                    self.writer().operation(OperationKind::Cat, arguments)
                }

                /// Values joined along a new dimension.
                #[track_caller]
                pub fn stack<'a>(&self, values: impl IntoIterator<Item = &'a Value>, along: i64) -> Value {
                    let arguments = [Given::Values(values.into_iter().collect()), scalar(along)];
                    self.writer().operation(OperationKind::Stack, arguments)
                }

                /// Sums of products by the Einstein convention: `trace.einsum("bqd,bkd->bqk", [&query, &key])`.
                #[track_caller]
                pub fn einsum<'a>(&self, equation: &str, values: impl IntoIterator<Item = &'a Value>) -> Value {
                    let equation = Given::Plain(Argument::Text(equation.to_owned()));
                    let arguments = [equation, Given::Values(values.into_iter().collect())];
                    self.writer().operation(OperationKind::Einsum, arguments)
                }
            }
        )*
    };
}

constructors!(Trace, Steps, Session, Cell, EditBody);
