//! The kernels of the language's operations: PyTorch's values and number types, on tensors of known shape.
//!
//! | module | holds |
//! | --- | --- |
//! | `arguments`, `number` | reading arguments; the types that operations compute in, and promotion |
//! | `walk` | strided operands, broadcasting |
//! | `elementwise`, `reduction`, `normalisation`, `product`, `einsum`, `order`, `loss`, `optimiser`, `linear` | what computes |
//! | `indexing`, `gathering`, `shape`, `constructor` | what moves and makes elements |
//! | [`noise`] | the generator of everything random |
//! | [`gradients`] | the way back: a vector-Jacobian product of each operation |
//!
//! **Invariants.** Nothing here panics, whatever the arguments. `f16` and `bf16` are computed in `f32` and rounded once
//! for each operation. Sums run in an order that depends on nothing but their own length, never on other rows or on
//! threads. Nothing here asks how much memory there is: whoever calls knows an operation's result from its rule.

mod arguments;
mod constructor;
mod einsum;
mod elementwise;
mod error;
mod gathering;
pub mod gradients;
mod indexing;
mod linear;
mod loss;
pub mod noise;
mod normalisation;
mod number;
mod optimiser;
mod order;
mod product;
mod reduction;
mod shape;
pub(crate) mod walk;

use pellucid_graph::{Operation, OperationKind, Value};

pub use error::OperationError;
pub use noise::Noise;

use crate::tensor::Tensor;
use arguments::Call;

pub(crate) type Result<T> = std::result::Result<T, OperationError>;

/// Evaluates an operation: its outputs, most often one.
///
/// `values` gives the tensor of each value that the operation reads; `noise` keys the generator of `rand` and its kin,
/// and is not looked at by others. Errors are those that only the values can show (an index out of range, an integer
/// divided by 0), and anything that a checker should have refused before.
pub fn evaluate(
    operation: &Operation,
    values: &dyn Fn(Value) -> Tensor,
    noise: &Noise,
) -> Result<Vec<Tensor>> {
    use OperationKind::*;
    let call = &Call::new(operation, values, noise);
    let output = match operation.kind {
        Add | Sub | Mul | FloorDivide | Remainder | Pow | Maximum | Minimum => elementwise::arithmetic(call),
        Div => elementwise::true_division(call),
        Eq | Ne | Lt | Le | Gt | Ge => elementwise::comparison(call),
        LogicalAnd | LogicalOr | LogicalXor => elementwise::logic(call),
        LogicalNot | IsNan | IsInf | IsFinite => elementwise::predicate(call),
        Neg | Abs | Sign | Floor | Ceil | Round | Trunc | Relu => elementwise::same_type(call),
        Clamp => elementwise::clamp(call),
        Exp | Expm1 | Log | Log2 | Log1p | Sqrt | Rsqrt | Reciprocal | Sin | Cos | Tanh | Sigmoid | Erf
        | Gelu | Silu | Softplus => elementwise::float_function(call),
        Where => elementwise::choose(call),
        MaskedFill => elementwise::masked_fill(call),
        Sum | Prod => reduction::sum_or_product(call),
        Mean | Var | Std | Norm | LogSumExp => reduction::statistic(call),
        Amax | Amin => reduction::extremum(call),
        Argmax | Argmin => reduction::place_of_extremum(call),
        Any | All => reduction::truth(call),
        CumSum | CumProd => reduction::cumulative(call),
        Softmax | LogSoftmax => normalisation::softmax(call),
        LayerNorm => normalisation::layer_norm(call),
        RmsNorm => normalisation::rms_norm(call),
        CosineSimilarity => loss::cosine_similarity(call),
        CrossEntropy | NllLoss => loss::class_loss(call),
        KlDiv | MseLoss | BinaryCrossEntropyWithLogits => loss::element_loss(call),
        Matmul => product::matmul(call),
        Einsum => einsum::einsum(call),
        Outer => product::outer(call),
        Qr => return linear::qr(call),
        Svd => return linear::svd(call),
        Eigh => return linear::eigh(call),
        Cholesky | Inv | MatrixExp => linear::square_matrix(call),
        Solve | Lstsq => linear::solve(call),
        Pinv => linear::pinv(call),
        Det => linear::det(call),
        SlogDet => return linear::slogdet(call),
        Orthogonal => linear::orthogonal_matrix(call),
        TopK => return order::top_k(call),
        Sort => return order::sort(call),
        ArgSort => return order::arg_sort(call),
        Gather => gathering::gather(call),
        TakeAlongDim => gathering::take_along_dim(call),
        Scatter | ScatterAdd => gathering::scatter(call),
        IndexSelect => gathering::index_select(call),
        GetItem => indexing::get_item(call),
        IndexPut => indexing::index_put(call),
        Reshape => shape::reshape(call),
        Flatten => shape::flatten(call),
        Unflatten => shape::unflatten(call),
        Transpose => shape::transpose(call),
        Permute => shape::permute(call),
        MoveDim => shape::move_dim(call),
        Squeeze => shape::squeeze(call),
        Unsqueeze => shape::unsqueeze(call),
        Expand => shape::expand(call),
        Repeat => shape::repeat(call),
        Cat => shape::cat(call),
        Stack => shape::stack(call),
        Split => return shape::split(call),
        Chunk => return shape::chunk(call),
        Pad => shape::pad(call),
        Flip => shape::flip(call),
        Roll => shape::roll(call),
        Tril | Triu => shape::triangle(call),
        Diagonal => shape::diagonal(call),
        SgdStep => return optimiser::sgd_step(call),
        AdamStep => return optimiser::adam_step(call),
        ClipGradNorm => return optimiser::clip_grad_norm(call),
        Zeros | Ones => constructor::zeros_or_ones(call),
        Full => constructor::full(call),
        Arange => constructor::arange(call),
        Linspace => constructor::linspace(call),
        Eye => constructor::eye(call),
        OneHot => constructor::one_hot(call),
        Randn | Rand => constructor::random(call),
        Randint => constructor::random_integers(call),
        Randperm => constructor::random_permutation(call),
        Detach => call.tensor(0),
        To => call.tensor(0)?.cast(call.dtype(1)?),
    };
    Ok(vec![output?])
}
