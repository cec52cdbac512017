//! The gradient rules of the operations: vector-Jacobian products.
//!
//! Where a derivative is a choice (ties of `amax`, `abs` at 0, bounds of `clamp`, `norm` at 0, places that are named
//! twice), the choice is PyTorch's. A rule is made of the operations' own kernels wherever they say it, so sums run in an
//! order that depends on nothing but their own length here too; derivatives of functions are computed in `f64` and rounded
//! once. A gradient has its operand's number type and shape.
//!
//! | module | holds |
//! | --- | --- |
//! | `backward` | what a rule reads and gives; operations on tensors, for rules |
//! | `elementwise`, `reduction`, `normalisation`, `product`, `loss`, `linear` | what computes |
//! | `gathering`, `shape` | what moves elements |

mod backward;
mod elementwise;
mod gathering;
mod linear;
mod loss;
mod normalisation;
mod product;
mod reduction;
mod shape;

use pellucid_graph::{Operation, OperationKind, Value};

use super::arguments::Call;
use super::{Noise, OperationError, Result};
use crate::tensor::Tensor;
use backward::Backward;

/// The gradients of what an operation reads, given those of its outputs.
///
/// - `inputs`: the tensor of each value that the operation reads, in the order of [`Operation::values`];
/// - `outputs`: what [`super::evaluate`] made of them;
/// - `cotangents`: the gradient of each output, of its shape and number type; none stands for zeros;
/// - `wanted`: which of `inputs` need a gradient.
///
/// One result for each of `inputs`, of its shape and number type; none where it is not wanted, where no gradient flows
/// (indices, sizes, masks, whole numbers), and everywhere when no output has a cotangent.
pub fn vjp(
    operation: &Operation,
    inputs: &[Tensor],
    outputs: &[Tensor],
    cotangents: &[Option<Tensor>],
    wanted: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let values = operation.values();
    let name = operation.kind.name();
    if inputs.len() != values.len() || wanted.len() != values.len() || cotangents.len() != outputs.len() {
        return Err(OperationError::new(format!(
            "the gradient of {name}: {} inputs and {} wishes for {} values, {} cotangents for {} outputs",
            inputs.len(),
            wanted.len(),
            values.len(),
            cotangents.len(),
            outputs.len()
        )));
    }
    if cotangents.iter().all(Option::is_none) {
        return Ok(vec![None; values.len()]);
    }
    for (cotangent, output) in cotangents.iter().zip(outputs) {
        if let Some(cotangent) = cotangent
            && cotangent.shape() != output.shape()
        {
            return Err(OperationError::new(format!(
                "the gradient of {name}: an output of shape {:?} has a cotangent of shape {:?}",
                output.shape(),
                cotangent.shape()
            )));
        }
    }
    let empty = Tensor::from_f32(Vec::new(), &[0])?;
    // Every value that a rule can ask for stands among `values`.
    let lookup = |value: Value| {
        let place = values.iter().position(|other| *other == value);
        place.and_then(|place| inputs.get(place)).unwrap_or(&empty).clone()
    };
    let noise = Noise::default();
    let call = Call::new(operation, &lookup, &noise);
    let mut backward = Backward::new(call, operation, inputs, outputs, cotangents, wanted);
    match rule(operation.kind, &mut backward) {
        Ok(()) => Ok(backward.found()),
        Err(error) => Err(OperationError { message: format!("on the way back, {}", error.message), ..error }),
    }
}

/// The rule of an operation. What has none is listed too, so that a new operation is not forgotten.
fn rule(kind: OperationKind, backward: &mut Backward<'_>) -> Result<()> {
    use OperationKind::*;
    match kind {
        Add | Sub | Mul | Div | Remainder => elementwise::arithmetic(backward),
        Pow | Maximum | Minimum => elementwise::pair(backward),
        Neg | Abs | Sign | Floor | Ceil | Round | Trunc | Exp | Expm1 | Log | Log2 | Log1p | Sqrt | Rsqrt
        | Reciprocal | Sin | Cos | Tanh | Sigmoid | Erf | Relu | Gelu | Silu | Softplus => {
            elementwise::function(backward)
        }
        Clamp => elementwise::clamp(backward),
        Where => elementwise::choose(backward),
        MaskedFill => elementwise::masked_fill(backward),
        Sum | Mean => reduction::sum_or_mean(backward),
        Prod | CumProd => reduction::product(backward),
        Var | Std => reduction::variance(backward),
        Amax | Amin => reduction::extremum(backward),
        Norm => reduction::norm(backward),
        LogSumExp => reduction::log_sum_exp(backward),
        CumSum => reduction::running_sum(backward),
        Softmax | LogSoftmax => normalisation::softmax(backward),
        LayerNorm | RmsNorm => normalisation::norm(backward),
        CosineSimilarity => loss::cosine_similarity(backward),
        CrossEntropy | NllLoss => loss::class_loss(backward),
        KlDiv | MseLoss | BinaryCrossEntropyWithLogits => loss::element_loss(backward),
        Matmul => product::matmul(backward),
        Einsum => product::einsum(backward),
        Outer => product::outer(backward),
        Qr => linear::qr(backward),
        Svd => linear::svd(backward),
        Eigh => linear::eigh(backward),
        Cholesky | Inv | Pinv | MatrixExp | Orthogonal => linear::matrix(backward),
        Solve | Lstsq => linear::solve(backward),
        Det | SlogDet => linear::determinant(backward),
        TopK | Sort => gathering::sorted(backward),
        Gather | TakeAlongDim => gathering::gather(backward),
        Scatter | ScatterAdd => gathering::scatter(backward),
        IndexSelect => gathering::index_select(backward),
        GetItem => gathering::get_item(backward),
        IndexPut => gathering::index_put(backward),
        Reshape | Flatten | Unflatten | Squeeze | Unsqueeze => shape::reshaped(backward),
        Transpose | Permute | MoveDim => shape::permuted(backward),
        Expand => backward.give(0, |backward| backward.cotangent()),
        Repeat => shape::repeat(backward),
        Cat => shape::cat(backward),
        Stack => shape::stack(backward),
        Split | Chunk => shape::pieces(backward),
        Pad => shape::pad(backward),
        Flip | Roll | Tril | Triu => shape::moved(backward),
        Diagonal => shape::diagonal(backward),
        To => backward.give(0, |backward| backward.cotangent()),
        FloorDivide | Eq | Ne | Lt | Le | Gt | Ge | LogicalAnd | LogicalOr | LogicalXor | LogicalNot
        | IsNan | IsInf | IsFinite | Argmax | Argmin | Any | All | ArgSort | Zeros | Ones | Full | Arange
        | Linspace | Eye | OneHot | Randn | Rand | Randint | Randperm | SgdStep | AdamStep | ClipGradNorm
        | Detach => Ok(()),
    }
}
