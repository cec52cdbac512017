//! The one table of operations: names and semantics are PyTorch's.
//!
//! Each operation is declared once, in `operations!`: its parameters as a signature, its rule (shapes, number types and
//! cost; see [`crate::rules`]), and whether it has a gradient. The engine's kernels match on [`OperationKind`], so an
//! operation without a kernel does not compile.
//!
//! A signature is `name(parameter: kind, …)`. Kinds:
//! `tensor` (a value), `operand` (a value or a literal number), `tensors` (a list of values), `number` (a literal),
//! `integer`, `integers` (a list, or one), `sizes` (a shape; items may be sizes of other values), `boolean`, `text`,
//! `dtype`, `index` (as in `x[...]`). `?` after the kind: may be absent. `= literal`: the default.

use std::sync::LazyLock;

pub use crate::reference::reference_markdown;

use crate::dtype::DType;
use crate::program::Value;
use crate::rules;
use crate::scalar::Scalar;

/// One use of an operation: its kind and an argument for each parameter of its signature, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Which operation.
    pub kind: OperationKind,
    /// One for each parameter.
    pub arguments: Vec<Argument>,
}

/// An argument of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// An optional parameter left out.
    Absent,
    /// A value of the program.
    Value(Value),
    /// A list of values.
    Values(Vec<Value>),
    /// A literal number; also `integer` and `boolean` parameters, and a lone number of an `integers` parameter.
    Scalar(Scalar),
    /// A list of whole numbers; of one, the same as that number.
    Integers(Vec<i64>),
    /// A shape.
    Sizes(Vec<Size>),
    /// A word: an equation of `einsum`, a mode.
    Text(String),
    /// A number type.
    DType(DType),
    /// What stands between the brackets of `x[...]`.
    Index(Vec<IndexItem>),
}

/// One item of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// A number; −1 where the operation infers it or leaves it as it is.
    Literal(i64),
    /// The size of another value along a dimension (negative: from the end).
    Of {
        /// Whose.
        value: Value,
        /// Along which dimension.
        dimension: i64,
    },
}

/// One item between the brackets of `x[...]`.
#[derive(Clone, Debug, PartialEq)]
pub enum IndexItem {
    /// One place; negative counts from the end. The dimension goes.
    Integer(i64),
    /// `start:stop:step` with a positive step, clamped as in Python.
    Slice {
        /// From here; none: the beginning.
        start: Option<i64>,
        /// Up to and without here; none: the end.
        stop: Option<i64>,
        /// The distance from one to the next, at least 1.
        step: i64,
    },
    /// `...`: as many whole dimensions as are left.
    Ellipsis,
    /// `None`: a new dimension of size 1.
    NewAxis,
    /// An index tensor of integers, or (in writing) a mask of bools; several broadcast together, as in NumPy.
    Tensor(Value),
}

/// The kind of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A value.
    Tensor,
    /// A value or a literal number.
    Operand,
    /// A list of values.
    Tensors,
    /// A literal number.
    Number,
    /// A literal whole number.
    Integer,
    /// A list of whole numbers, or one.
    Integers,
    /// A shape.
    Sizes,
    /// A truth value.
    Boolean,
    /// A word.
    Text,
    /// A number type.
    DType,
    /// An index.
    Index,
}

/// One parameter of a signature.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name, PyTorch's.
    pub name: &'static str,
    /// What it takes.
    pub kind: ParameterKind,
    /// What stands for it when left out; none: it is required.
    pub default: Option<Argument>,
}

/// One row of the table.
#[derive(Debug)]
pub struct OperationDefinition {
    /// Which operation.
    pub kind: OperationKind,
    /// Its name on the wire.
    pub name: &'static str,
    /// Its parameters, in PyTorch's order.
    pub parameters: Vec<Parameter>,
    /// Its shapes, number types and cost.
    rule: rules::Rule,
    /// The rule's name in [`rules`]: operations of one rule treat number types alike.
    pub rule_name: &'static str,
    /// Whether a gradient flows through it.
    pub differentiable: bool,
    /// One line for the reference.
    pub summary: &'static str,
    /// The signature as written.
    pub signature: &'static str,
}

impl OperationDefinition {
    /// The place of the parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<usize> {
        self.parameters.iter().position(|parameter| parameter.name == name)
    }

    /// Applies its rule. What the rule counts is what the operation computes; the price weighs it, and adds what each element takes that
    /// it may have to touch ([`rules::weight`]), and what each of many small matrices takes.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    pub fn typed(&self, context: &mut rules::RuleContext<'_>) -> rules::RuleResult {
        let mut typed = (self.rule)(context)?;
        let weight = rules::weight::weight(self.kind, context.dtype_read(&typed.outputs));
        let rank =
            context.operation.values().first().map_or(0, |&input| (context.type_of)(input).shape.len());
        let across = rules::weight::across(context.operation, rank);
        let each = |dtype| weight.each(dtype).saturating_add(across * rules::weight::turned(dtype));
        let each = context.dtypes(&typed.outputs).map(each).max().unwrap_or(0);
        let moved = rules::touch::touched(context, &typed.outputs).saturating_mul(each);
        let computed = weight.counts(typed.flops);
        let calls = rules::calls(context, &typed.outputs);
        typed.flops = moved.saturating_add(computed).saturating_add(calls);
        Ok(typed)
    }
}

macro_rules! operations {
    ($($(#[$group:meta])* $kind:ident $signature:literal $rule:path, $gradient:ident, $summary:literal;)*) => {
        /// Every operation of the language.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum OperationKind { $(#[doc = $summary] $kind,)* }

        static TABLE: LazyLock<Vec<OperationDefinition>> = LazyLock::new(|| vec![
            $(define(OperationKind::$kind, $signature, ($rule, stringify!($rule)), stringify!($gradient) == "gradient", $summary),)*
        ]);
    };
}

operations! {
    // Element-wise arithmetic, with broadcasting.
    Add "add(input: operand, other: operand)" rules::arithmetic, gradient, "`input + other`";
    Sub "sub(input: operand, other: operand)" rules::arithmetic, gradient, "`input - other`";
    Mul "mul(input: operand, other: operand)" rules::arithmetic, gradient, "`input * other`";
    Div "div(input: operand, other: operand)" rules::true_division, gradient, "`input / other`, always a float";
    FloorDivide "floor_divide(input: operand, other: operand)" rules::arithmetic, none, "`input // other`, rounded down";
    Remainder "remainder(input: operand, other: operand)" rules::arithmetic, gradient, "`input % other`, with the divisor's sign";
    Pow "pow(input: operand, exponent: operand)" rules::arithmetic, gradient, "`input ** exponent`";
    Maximum "maximum(input: operand, other: operand)" rules::arithmetic, gradient, "the larger of two; NaN wins";
    Minimum "minimum(input: operand, other: operand)" rules::arithmetic, gradient, "the smaller of two; NaN wins";
    // Comparison and logic.
    Eq "eq(input: operand, other: operand)" rules::comparison, none, "`input == other`";
    Ne "ne(input: operand, other: operand)" rules::comparison, none, "`input != other`";
    Lt "lt(input: operand, other: operand)" rules::comparison, none, "`input < other`";
    Le "le(input: operand, other: operand)" rules::comparison, none, "`input <= other`";
    Gt "gt(input: operand, other: operand)" rules::comparison, none, "`input > other`";
    Ge "ge(input: operand, other: operand)" rules::comparison, none, "`input >= other`";
    LogicalAnd "logical_and(input: operand, other: operand)" rules::comparison, none, "both are not 0";
    LogicalOr "logical_or(input: operand, other: operand)" rules::comparison, none, "one is not 0";
    LogicalXor "logical_xor(input: operand, other: operand)" rules::comparison, none, "just one is not 0";
    LogicalNot "logical_not(input: tensor)" rules::predicate, none, "it is 0";
    IsNan "isnan(input: tensor)" rules::predicate, none, "it is not a number";
    IsInf "isinf(input: tensor)" rules::predicate, none, "it is an infinity";
    IsFinite "isfinite(input: tensor)" rules::predicate, none, "it is neither an infinity nor NaN";
    // Element-wise functions that keep the number type.
    Neg "neg(input: tensor)" rules::same_number, gradient, "`-input`";
    Abs "abs(input: tensor)" rules::same_number, gradient, "the magnitude";
    Sign "sign(input: tensor)" rules::same_type, gradient, "−1, 0 or 1";
    Floor "floor(input: tensor)" rules::same_number, gradient, "rounded down";
    Ceil "ceil(input: tensor)" rules::same_number, gradient, "rounded up";
    Round "round(input: tensor)" rules::same_number, gradient, "rounded to the nearest, halves to even";
    Trunc "trunc(input: tensor)" rules::same_number, gradient, "rounded toward 0";
    Clamp "clamp(input: tensor, min: number?, max: number?)" rules::clamp, gradient, "kept between two numbers";
    // Element-wise functions whose result is a float.
    Exp "exp(input: tensor)" rules::transcendental, gradient, "e to its power";
    Expm1 "expm1(input: tensor)" rules::transcendental, gradient, "`exp(input) - 1`";
    Log "log(input: tensor)" rules::transcendental, gradient, "the natural logarithm";
    Log2 "log2(input: tensor)" rules::transcendental, gradient, "the logarithm to base 2";
    Log1p "log1p(input: tensor)" rules::transcendental, gradient, "`log(1 + input)`";
    Sqrt "sqrt(input: tensor)" rules::transcendental, gradient, "the square root";
    Rsqrt "rsqrt(input: tensor)" rules::transcendental, gradient, "`1 / sqrt(input)`";
    Reciprocal "reciprocal(input: tensor)" rules::transcendental, gradient, "`1 / input`";
    Sin "sin(input: tensor)" rules::transcendental, gradient, "the sine";
    Cos "cos(input: tensor)" rules::transcendental, gradient, "the cosine";
    Tanh "tanh(input: tensor)" rules::transcendental, gradient, "the hyperbolic tangent";
    Sigmoid "sigmoid(input: tensor)" rules::transcendental, gradient, "`1 / (1 + exp(-input))`";
    Erf "erf(input: tensor)" rules::transcendental, gradient, "the error function";
    // Activations.
    Relu "relu(input: tensor)" rules::same_number, gradient, "`max(input, 0)`";
    Gelu "gelu(input: tensor, approximate: text = none)" rules::float_only, gradient, "the Gaussian error linear unit; `approximate`: none or tanh";
    Silu "silu(input: tensor)" rules::float_only, gradient, "`input * sigmoid(input)`";
    Softplus "softplus(input: tensor)" rules::float_only, gradient, "`log(1 + exp(input))`";
    // Choosing.
    Where "where(condition: tensor, input: operand, other: operand)" rules::choose, gradient, "`input` where the condition holds, else `other`";
    MaskedFill "masked_fill(input: tensor, mask: tensor, value: operand)" rules::masked_fill, gradient, "`value` where the mask holds, else `input`";
    // Reductions. No `dim`: over all.
    Sum "sum(input: tensor, dim: integers?, keepdim: boolean = false, dtype: dtype?)" rules::sum, gradient, "the sum";
    Mean "mean(input: tensor, dim: integers?, keepdim: boolean = false)" rules::mean, gradient, "the mean";
    Prod "prod(input: tensor, dim: integer?, keepdim: boolean = false)" rules::sum, gradient, "the product";
    Var "var(input: tensor, dim: integers?, correction: number = 1, keepdim: boolean = false)" rules::mean, gradient, "the variance";
    Std "std(input: tensor, dim: integers?, correction: number = 1, keepdim: boolean = false)" rules::mean, gradient, "the standard deviation";
    Amax "amax(input: tensor, dim: integers?, keepdim: boolean = false)" rules::extremum, gradient, "the largest";
    Amin "amin(input: tensor, dim: integers?, keepdim: boolean = false)" rules::extremum, gradient, "the smallest";
    Argmax "argmax(input: tensor, dim: integer?, keepdim: boolean = false)" rules::arg_extremum, none, "the place of the largest, the lowest of equals";
    Argmin "argmin(input: tensor, dim: integer?, keepdim: boolean = false)" rules::arg_extremum, none, "the place of the smallest, the lowest of equals";
    Norm "norm(input: tensor, p: number = 2, dim: integers?, keepdim: boolean = false)" rules::mean, gradient, "the p-norm of the elements";
    Any "any(input: tensor, dim: integers?, keepdim: boolean = false)" rules::truth, none, "whether one is not 0";
    All "all(input: tensor, dim: integers?, keepdim: boolean = false)" rules::truth, none, "whether none is 0";
    LogSumExp "logsumexp(input: tensor, dim: integers, keepdim: boolean = false)" rules::log_sum_exp, gradient, "`log(sum(exp(input)))`";
    CumSum "cumsum(input: tensor, dim: integer)" rules::cumulative, gradient, "the running sum";
    CumProd "cumprod(input: tensor, dim: integer)" rules::cumulative, gradient, "the running product";
    // Normalisations.
    Softmax "softmax(input: tensor, dim: integer)" rules::along, gradient, "exponentials that sum to 1 along a dimension";
    LogSoftmax "log_softmax(input: tensor, dim: integer)" rules::along, gradient, "the logarithm of softmax";
    LayerNorm "layer_norm(input: tensor, normalized_shape: integers, weight: tensor?, bias: tensor?, eps: number = 0.00001)" rules::normalise, gradient, "mean 0 and variance 1 over the last dimensions, then scaled and shifted";
    RmsNorm "rms_norm(input: tensor, normalized_shape: integers, weight: tensor?, eps: number?)" rules::normalise, gradient, "mean square 1 over the last dimensions, then scaled";
    CosineSimilarity "cosine_similarity(x1: tensor, x2: tensor, dim: integer = 1, eps: number = 0.00000001)" rules::cosine_similarity, gradient, "the cosine of the angle between two along a dimension";
    // Losses. `reduction`: mean, sum or none.
    CrossEntropy "cross_entropy(input: tensor, target: tensor, weight: tensor?, ignore_index: integer = -100, reduction: text = mean, label_smoothing: number = 0)" rules::class_loss, gradient, "of logits against class numbers; classes are dimension 1";
    NllLoss "nll_loss(input: tensor, target: tensor, weight: tensor?, ignore_index: integer = -100, reduction: text = mean)" rules::class_loss, gradient, "of log-probabilities against class numbers; classes are dimension 1";
    KlDiv "kl_div(input: tensor, target: tensor, reduction: text = mean, log_target: boolean = false)" rules::element_loss, gradient, "`target * (log(target) - input)`: the divergence from log-probabilities; `reduction` also batchmean";
    MseLoss "mse_loss(input: tensor, target: tensor, reduction: text = mean)" rules::element_loss, gradient, "the squared difference";
    BinaryCrossEntropyWithLogits "binary_cross_entropy_with_logits(input: tensor, target: tensor, weight: tensor?, reduction: text = mean, pos_weight: tensor?)" rules::element_loss, gradient, "of logits against probabilities";
    // Products.
    Matmul "matmul(input: tensor, other: tensor)" rules::matmul, gradient, "the matrix product, batched and broadcast";
    Einsum "einsum(equation: text, operands: tensors)" rules::einsum, gradient, "sums of products by the Einstein convention";
    Outer "outer(input: tensor, other: tensor)" rules::outer, gradient, "the outer product of two vectors";
    // Linear algebra: matrices in the last two dimensions, `torch.linalg`'s values.
    Qr "qr(input: tensor, mode: text = reduced)" rules::qr, gradient, "`Q` with orthonormal columns and upper triangular `R`; `mode`: reduced or complete";
    Svd "svd(input: tensor, full_matrices: boolean = true)" rules::svd, gradient, "left singular vectors, singular values from the largest, right singular vectors as rows";
    Eigh "eigh(input: tensor)" rules::eigh, gradient, "of symmetric matrices, given by their lower triangles: eigenvalues from the smallest, and eigenvectors as columns";
    Cholesky "cholesky(input: tensor)" rules::square_matrix, gradient, "lower triangular `L` of a positive definite `L Lᵀ`, given by its lower triangle";
    Solve "solve(A: tensor, B: tensor)" rules::solve, gradient, "`X` of `A X = B`";
    Lstsq "lstsq(A: tensor, B: tensor, rcond: number?)" rules::solve, gradient, "the smallest `X` for which `A X` is nearest to `B`";
    Inv "inv(input: tensor)" rules::square_matrix, gradient, "the inverse";
    Pinv "pinv(input: tensor, rtol: number?)" rules::pinv, gradient, "the pseudo-inverse; singular values up to `rtol` times the largest count as 0";
    Det "det(input: tensor)" rules::determinant, gradient, "the determinant";
    SlogDet "slogdet(input: tensor)" rules::determinant, gradient, "the determinant's sign, and the logarithm of its magnitude";
    MatrixExp "matrix_exp(input: tensor)" rules::square_matrix, gradient, "the matrix exponential";
    Orthogonal "orthogonal(input: tensor, orthogonal_map: text = matrix_exp)" rules::orthogonal, gradient, "a matrix with orthonormal columns (rows, if wide) from free parameters below the diagonal; also cayley or householder";
    // Order.
    TopK "topk(input: tensor, k: integer, dim: integer = -1, largest: boolean = true)" rules::top_k, gradient, "the k largest (or smallest), sorted, and their places; the lowest of equals first";
    Sort "sort(input: tensor, dim: integer = -1, descending: boolean = false)" rules::sort, gradient, "sorted, and the places; equals stay in order";
    ArgSort "argsort(input: tensor, dim: integer = -1, descending: boolean = false)" rules::arg_sort, none, "the places that would sort it; equals stay in order";
    // Gathering and scattering.
    Gather "gather(input: tensor, dim: integer, index: tensor)" rules::gather, gradient, "picks along a dimension, place by place";
    Scatter "scatter(input: tensor, dim: integer, index: tensor, src: operand)" rules::scatter, gradient, "writes along a dimension, place by place; later wins";
    ScatterAdd "scatter_add(input: tensor, dim: integer, index: tensor, src: tensor)" rules::scatter, gradient, "adds along a dimension, place by place, in order";
    IndexSelect "index_select(input: tensor, dim: integer, index: tensor)" rules::index_select, gradient, "picks whole slices along a dimension";
    TakeAlongDim "take_along_dim(input: tensor, indices: tensor, dim: integer)" rules::take_along_dim, gradient, "gather with broadcasting";
    GetItem "getitem(input: tensor, index: index)" rules::get_item, gradient, "`input[index]`";
    IndexPut "index_put(input: tensor, index: index, values: operand, accumulate: boolean = false)" rules::index_put, gradient, "`input` with `input[index] = values` (or `+=`); later wins";
    // Shape.
    Reshape "reshape(input: tensor, shape: sizes)" rules::reshape, gradient, "the same elements in another shape";
    Flatten "flatten(input: tensor, start_dim: integer = 0, end_dim: integer = -1)" rules::flatten, gradient, "some dimensions made one";
    Unflatten "unflatten(input: tensor, dim: integer, sizes: sizes)" rules::unflatten, gradient, "one dimension made several";
    Transpose "transpose(input: tensor, dim0: integer, dim1: integer)" rules::transpose, gradient, "two dimensions swapped";
    Permute "permute(input: tensor, dims: integers)" rules::permute, gradient, "dimensions in another order";
    MoveDim "movedim(input: tensor, source: integers, destination: integers)" rules::move_dim, gradient, "dimensions moved elsewhere";
    Squeeze "squeeze(input: tensor, dim: integers?)" rules::squeeze, gradient, "dimensions of size 1 gone";
    Unsqueeze "unsqueeze(input: tensor, dim: integer)" rules::unsqueeze, gradient, "a new dimension of size 1";
    Expand "expand(input: tensor, size: sizes)" rules::expand, gradient, "dimensions of size 1 repeated; −1 leaves one as it is";
    Repeat "repeat(input: tensor, repeats: integers)" rules::repeat, gradient, "tiled";
    Cat "cat(tensors: tensors, dim: integer = 0)" rules::cat, gradient, "joined along a dimension";
    Stack "stack(tensors: tensors, dim: integer = 0)" rules::stack, gradient, "joined along a new dimension";
    Split "split(input: tensor, split_size: integers, dim: integer = 0)" rules::split, gradient, "cut into pieces of a size, or of several sizes";
    Chunk "chunk(input: tensor, chunks: integer, dim: integer = 0)" rules::chunk, gradient, "cut into so many pieces";
    Pad "pad(input: tensor, pad: integers, value: number = 0)" rules::pad, gradient, "constants around it; pairs from the last dimension on";
    Flip "flip(input: tensor, dims: integers)" rules::along_many, gradient, "reversed along dimensions";
    Roll "roll(input: tensor, shifts: integers, dims: integers)" rules::roll, gradient, "shifted round along dimensions";
    Tril "tril(input: tensor, diagonal: integer = 0)" rules::triangle, gradient, "0 above a diagonal";
    Triu "triu(input: tensor, diagonal: integer = 0)" rules::triangle, gradient, "0 below a diagonal";
    Diagonal "diagonal(input: tensor, offset: integer = 0, dim1: integer = 0, dim2: integer = 1)" rules::diagonal, gradient, "a diagonal, as the last dimension";
    // One step of training.
    SgdStep "sgd_step(parameter: tensor, gradient: tensor, lr: operand, momentum_buffer: tensor?, momentum: number = 0, dampening: number = 0, weight_decay: number = 0, nesterov: boolean = false)" rules::sgd_step, none, "gradient descent: the new parameter and momentum buffer; no buffer: the first step";
    AdamStep "adam_step(parameter: tensor, gradient: tensor, exp_avg: tensor, exp_avg_sq: tensor, step: operand, lr: operand, beta1: number = 0.9, beta2: number = 0.999, eps: number = 0.00000001, weight_decay: number = 0, decoupled: boolean = false)" rules::adam_step, none, "Adam (`decoupled`: AdamW): the new parameter, and the means of the gradient and its square; `step` counts from 1";
    ClipGradNorm "clip_grad_norm(gradients: tensors, max_norm: number, norm_type: number = 2)" rules::clip_grad_norm, none, "each gradient, scaled where their norm together is above `max_norm`; last that norm";
    // Constructors.
    Zeros "zeros(size: sizes, dtype: dtype = f32)" rules::filled, none, "zeros";
    Ones "ones(size: sizes, dtype: dtype = f32)" rules::filled, none, "ones";
    Full "full(size: sizes, fill_value: number, dtype: dtype?)" rules::full, none, "one number everywhere";
    Arange "arange(start: number, end: number, step: number = 1, dtype: dtype?)" rules::arange, none, "numbers from start up to and without end";
    Linspace "linspace(start: number, end: number, steps: integer, dtype: dtype = f32)" rules::linspace, none, "evenly spaced numbers, both ends included";
    Eye "eye(n: integer, m: integer?, dtype: dtype = f32)" rules::eye, none, "ones on the diagonal";
    OneHot "one_hot(input: tensor, num_classes: integer)" rules::one_hot, none, "1 at each number's place";
    Randn "randn(size: sizes, dtype: dtype = f32)" rules::filled, none, "seeded standard normal numbers";
    Rand "rand(size: sizes, dtype: dtype = f32)" rules::filled, none, "seeded numbers from 0 to 1";
    Randint "randint(low: integer, high: integer, size: sizes, dtype: dtype = i64)" rules::filled, none, "seeded whole numbers from low up to and without high";
    Randperm "randperm(n: integer, dtype: dtype = i64)" rules::randperm, none, "a seeded permutation";
    // Number types and gradients.
    Detach "detach(input: tensor)" rules::same_type, none, "the same numbers; no gradient flows back";
    To "to(input: tensor, dtype: dtype)" rules::to, gradient, "another number type";
}

/// Every operation, in the table's order.
pub fn table() -> &'static [OperationDefinition] {
    &TABLE
}

impl OperationKind {
    /// The operation's row of the table.
    pub fn definition(self) -> &'static OperationDefinition {
        &TABLE[self as usize]
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// Whether what it gives is drawn: keyed by the program's seed and the node's name and cell.
    pub fn is_random(self) -> bool {
        use OperationKind::{Rand, Randint, Randn, Randperm};
        matches!(self, Rand | Randn | Randint | Randperm)
    }

    /// The operation of that name.
    pub fn from_name(name: &str) -> Option<OperationKind> {
        TABLE.iter().find(|definition| definition.name == name).map(|definition| definition.kind)
    }
}

impl Operation {
    /// The argument of the parameter of that name; `Absent` when there is none.
    pub fn argument(&self, name: &str) -> &Argument {
        let place = self.kind.definition().parameter(name);
        place.and_then(|place| self.arguments.get(place)).unwrap_or(&Argument::Absent)
    }

    /// Every value the operation reads, in argument order, to be changed.
    pub fn for_each_value_mut(&mut self, change: &mut dyn FnMut(&mut Value)) {
        for argument in &mut self.arguments {
            match argument {
                Argument::Value(value) => change(value),
                Argument::Values(list) => list.iter_mut().for_each(&mut *change),
                Argument::Sizes(sizes) => {
                    for size in sizes {
                        if let Size::Of { value, .. } = size {
                            change(value);
                        }
                    }
                }
                Argument::Index(items) => {
                    for item in items {
                        if let IndexItem::Tensor(value) = item {
                            change(value);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Every value the operation reads, in argument order.
    pub fn values(&self) -> Vec<Value> {
        self.arguments.iter().flat_map(Argument::values).collect()
    }

    /// The same, and whether its elements are read (else: only one of its sizes).
    pub fn reads(&self) -> Vec<(Value, bool)> {
        let reads = |argument: &Argument| {
            let elements = !matches!(argument, Argument::Sizes(_));
            argument.values().into_iter().map(move |value| (value, elements)).collect::<Vec<_>>()
        };
        self.arguments.iter().flat_map(reads).collect()
    }
}

impl Argument {
    /// The values that the argument names, in order.
    pub fn values(&self) -> Vec<Value> {
        match self {
            Argument::Value(value) => vec![*value],
            Argument::Values(list) => list.clone(),
            Argument::Sizes(sizes) => sizes
                .iter()
                .filter_map(|size| match size {
                    Size::Of { value, .. } => Some(*value),
                    Size::Literal(_) => None,
                })
                .collect(),
            Argument::Index(items) => items
                .iter()
                .filter_map(|item| match item {
                    IndexItem::Tensor(value) => Some(*value),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// Reads a row's signature. A malformed one is a mistake in the table above, found by this module's test.
fn define(
    kind: OperationKind,
    signature: &'static str,
    (rule, rule_path): (rules::Rule, &'static str),
    differentiable: bool,
    summary: &'static str,
) -> OperationDefinition {
    let (name, rest) = signature.split_once('(').unwrap_or((signature, ""));
    let list = rest.trim_end_matches(')');
    let parameters = list.split(", ").filter(|text| !text.is_empty()).map(parameter).collect();
    let rule_name = rule_path.rsplit("::").next().unwrap_or(rule_path).trim();
    OperationDefinition { kind, name, parameters, rule, rule_name, differentiable, summary, signature }
}

fn parameter(text: &'static str) -> Parameter {
    let (name, rest) = text.split_once(": ").unwrap_or((text, "tensor"));
    let (kind, default) = match rest.split_once(" = ") {
        Some((kind, default)) => (kind, Some(default)),
        None => (rest, None),
    };
    let (kind, optional) = match kind.strip_suffix('?') {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    let kind = match kind {
        "operand" => ParameterKind::Operand,
        "tensors" => ParameterKind::Tensors,
        "number" => ParameterKind::Number,
        "integer" => ParameterKind::Integer,
        "integers" => ParameterKind::Integers,
        "sizes" => ParameterKind::Sizes,
        "boolean" => ParameterKind::Boolean,
        "text" => ParameterKind::Text,
        "dtype" => ParameterKind::DType,
        "index" => ParameterKind::Index,
        _ => ParameterKind::Tensor,
    };
    let default = match default {
        None if optional => Some(Argument::Absent),
        None => None,
        Some(literal) => Some(match kind {
            ParameterKind::Boolean => Argument::Scalar(Scalar::Bool(literal == "true")),
            ParameterKind::Integer => Argument::Scalar(Scalar::Int(literal.parse().unwrap_or(0))),
            ParameterKind::Number => match literal.parse::<i64>() {
                Ok(integer) => Argument::Scalar(Scalar::Int(integer)),
                Err(_) => Argument::Scalar(Scalar::Float(literal.parse().unwrap_or(0.0))),
            },
            ParameterKind::DType => DType::from_name(literal).map_or(Argument::Absent, Argument::DType),
            _ => Argument::Text(literal.to_owned()),
        }),
    };
    Parameter { name, kind, default }
}
