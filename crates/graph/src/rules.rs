//! Shapes, number types and cost of each operation, by family of operations.
//!
//! A rule reads an operation's arguments and the types of the values it reads, and answers with the type of each output
//! and the operations it takes, or with what is wrong. Shapes and number types are PyTorch's. Where a length is not known
//! yet, a rule accepts what some lengths make valid; the engine applies the same rules again when lengths are known.
//!
//! | module | holds |
//! | --- | --- |
//! | [`promotion`] | the number type of several operands together |
//! | [`broadcast`] | the shape of several shapes together |
//! | [`index`] | what stands between the brackets of `x[...]`, made plain |
//! | [`equation`] | the equations of `einsum` |
//! | [`mod@solve`] | a shape of as many elements as another, with a size to infer |
//! | [`touch`] | the elements that an operation may have to touch |
//! | [`mod@weight`] | what each of them takes, and each operation that a rule counts |
//! | [`mod@room`] | what an operation holds while it runs |

pub mod broadcast;
pub mod equation;
pub mod index;
pub mod promotion;
pub mod room;
pub mod solve;
pub mod touch;
pub mod weight;

mod arguments;
mod batch;
mod constructor;
mod contraction;
mod elementwise;
mod indexing;
mod linear;
mod loss;
mod optimiser;
mod order;
mod product;
mod reduction;
mod shape;

use crate::dtype::DType;
use crate::limits;
use crate::operation::{Operation, OperationKind};
use crate::program::Value;
use crate::shape::{Dimension, Symbol, TensorType};

pub(crate) use batch::calls;
pub(crate) use constructor::{arange, eye, filled, full, linspace, one_hot, randperm};
pub(crate) use elementwise::{
    arithmetic, choose, clamp, comparison, float_only, masked_fill, predicate, same_number, same_type, to,
    transcendental, true_division,
};
pub(crate) use indexing::{gather, get_item, index_put, index_select, scatter, take_along_dim};
pub(crate) use linear::{determinant, eigh, orthogonal, pinv, qr, solve, square_matrix, svd};
pub(crate) use loss::{class_loss, cosine_similarity, element_loss};
pub(crate) use optimiser::{adam_step, clip_grad_norm, sgd_step};
pub(crate) use order::{arg_sort, sort, top_k};
pub(crate) use product::{einsum, matmul, outer};
pub(crate) use reduction::{
    along, arg_extremum, cumulative, extremum, log_sum_exp, mean, normalise, sum, truth,
};
pub(crate) use shape::{
    along_many, cat, chunk, diagonal, expand, flatten, move_dim, pad, permute, repeat, reshape, roll, split,
    squeeze, stack, transpose, triangle, unflatten, unsqueeze,
};

/// What a rule works on.
pub struct RuleContext<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// The type of each value that it reads.
    pub type_of: &'a dyn Fn(Value) -> TensorType,
    /// The next free symbol, for sizes that cannot be known yet.
    pub next_symbol: &'a mut u32,
}

impl RuleContext<'_> {
    /// A size that cannot be known yet, and that is not a length itself: it may turn out to be 0.
    pub fn fresh(&mut self) -> Symbol {
        let symbol = Symbol::derived(*self.next_symbol);
        *self.next_symbol = self.next_symbol.saturating_add(1);
        symbol
    }

    /// The same as a dimension.
    pub fn fresh_dimension(&mut self) -> Dimension {
        Dimension::symbol(self.fresh())
    }

    /// The number types that decide what an element takes: those of what is read; of a cast also what is made; without operands what is made.
    pub(crate) fn dtypes<'b>(&'b self, outputs: &'b [TensorType]) -> impl Iterator<Item = DType> + 'b {
        let read = self.operation.values();
        let made = read.is_empty() || self.operation.kind == OperationKind::To;
        let made = outputs.iter().filter(move |_| made).map(|output| output.dtype);
        read.into_iter().map(|value| (self.type_of)(value).dtype).chain(made)
    }

    /// The first of these.
    pub(crate) fn dtype_read(&self, outputs: &[TensorType]) -> DType {
        self.dtypes(outputs).next().unwrap_or(DType::F32)
    }

    /// The result of one output.
    fn one(&self, dtype: DType, shape: Vec<Dimension>, flops: u64) -> RuleResult {
        self.all(vec![TensorType { dtype, shape }], flops)
    }

    /// The result, if it is within the limits.
    fn all(&self, outputs: Vec<TensorType>, flops: u64) -> RuleResult {
        if outputs.len() > limits::LIST_ARGUMENTS {
            return Err(self.error(format!(
                "makes {} results, and {} is the most",
                outputs.len(),
                limits::LIST_ARGUMENTS
            )));
        }
        for output in &outputs {
            self.within_limits(output, "result")?;
        }
        Ok(Typed { outputs, flops })
    }

    /// Whether a tensor has as few dimensions and elements as are allowed.
    fn within_limits(&self, tensor: &TensorType, what: &str) -> Result<(), RuleError> {
        if tensor.shape.len() > limits::DIMENSIONS {
            let dimensions = tensor.shape.len();
            return Err(self
                .error(format!(
                    "makes a {what} of {dimensions} dimensions, and {} is the most",
                    limits::DIMENSIONS
                ))
                .hint("merge dimensions with `reshape` or `flatten` first"));
        }
        // Sizes of 0 count as 1, so that strides cannot overflow either; terms count by their factors.
        let size = |dimension: &Dimension| {
            let factors = dimension.terms().iter().map(|term| term.1.unsigned_abs());
            let known = if dimension.terms().is_empty() { dimension.constant().unsigned_abs() } else { 1 };
            factors.fold(known.max(dimension.minimum()).max(1), u64::max)
        };
        let elements = tensor.shape.iter().fold(1u64, |product, next| product.saturating_mul(size(next)));
        if elements > limits::TENSOR_ELEMENTS {
            return Err(self.error(format!(
                "makes a {what} {tensor}, of more elements than the {} that are allowed",
                limits::TENSOR_ELEMENTS
            )));
        }
        Ok(())
    }

    /// An error of this operation: `text` goes on from its name.
    fn error(&self, text: impl std::fmt::Display) -> RuleError {
        RuleError { message: format!("`{}` {text}", self.operation.kind.name()), hint: None }
    }
}

/// What a rule finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Typed {
    /// The type of each output.
    pub outputs: Vec<TensorType>,
    /// Floating-point (or integer) operations; unknown lengths counted as [`ASSUMED_LENGTH`]. Of a rule those of the arithmetic; of a
    /// row of the table what all of it takes ([`weight`]). What is a view whatever the layout costs nothing.
    pub flops: u64,
}

/// What a length is taken to be, for prices, while it is not known.
pub const ASSUMED_LENGTH: u64 = 128;

/// Operations for one element of an exponential, a sine, a power.
const TRANSCENDENTAL: u64 = 8;

/// Why an operation cannot take these arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    /// What is wrong, with the shapes or types at fault.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl RuleError {
    /// An error that says what is wrong.
    pub fn new(message: impl Into<String>) -> Self {
        RuleError { message: message.into(), hint: None }
    }

    /// The same error with what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a rule answers.
pub type RuleResult = Result<Typed, RuleError>;

/// An operation's rule.
pub type Rule = fn(&mut RuleContext<'_>) -> RuleResult;

/// The cost of so many operations for each element.
fn cost(tensor: &TensorType, weight: u64) -> u64 {
    tensor.elements(ASSUMED_LENGTH).saturating_mul(weight)
}

/// A shape as it is printed: `[2, 3, L0]`.
fn shape_text(shape: &[Dimension]) -> String {
    let sizes: Vec<_> = shape.iter().map(Dimension::to_string).collect();
    format!("[{}]", sizes.join(", "))
}

/// A list of whole numbers as it is printed; of a long one the beginning.
fn listed(numbers: &[i64]) -> String {
    const PRINTED: usize = 10;
    match numbers.get(..PRINTED) {
        Some(first) if numbers.len() > PRINTED => {
            let first: Vec<_> = first.iter().map(i64::to_string).collect();
            format!("[{}, … {} in all]", first.join(", "), numbers.len())
        }
        _ => format!("{numbers:?}"),
    }
}
