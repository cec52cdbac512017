//! Shapes, number types and cost of each operation, by family of operations.
use crate::operation::Operation;
use crate::program::Value;
use crate::shape::{Symbol, TensorType};

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
    /// A size that cannot be known yet.
    pub fn fresh(&mut self) -> Symbol {
        let symbol = Symbol(*self.next_symbol);
        *self.next_symbol += 1;
        symbol
    }
}

/// What a rule finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Typed {
    /// The type of each output.
    pub outputs: Vec<TensorType>,
    /// Floating-point (or integer) operations; unknown lengths counted as [`ASSUMED_LENGTH`].
    pub flops: u64,
}

/// What a length is taken to be, for prices, while it is not known.
pub const ASSUMED_LENGTH: u64 = 128;

/// Why an operation cannot take these arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    /// What is wrong, with the shapes or types at fault.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// An operation's rule.
pub type Rule = fn(&mut RuleContext<'_>) -> Result<Typed, RuleError>;

macro_rules! unwritten { ($($name:ident)*) => { $(
    #[allow(missing_docs, reason = "placeholder until the rules land")]
    pub fn $name(_context: &mut RuleContext<'_>) -> Result<Typed, RuleError> {
        Err(RuleError { message: "this operation's rule is not written yet".into(), hint: None })
    }
)* } }
unwritten! { arithmetic true_division comparison predicate same_number same_type clamp transcendental float_only choose masked_fill sum mean extremum arg_extremum truth log_sum_exp cumulative along normalise matmul einsum outer top_k sort arg_sort gather scatter index_select take_along_dim get_item index_put reshape flatten unflatten transpose permute move_dim squeeze unsqueeze expand repeat cat stack split chunk pad along_many roll triangle diagonal filled full arange linspace eye one_hot randperm to }
