//! What an element takes, in operations of a processor that does 20 G in a second: one table for every kind of operation.
//!
//! A rule counts the arithmetic. That says little where memory is waited for, a library's function is called, a number type is converted or
//! a branch cannot be foreseen, so this table has beside it what each touched element took. `cargo xtask prices` measures every
//! kind on every number type, one thread, two million elements; `docs/records.md` has what it last found. A number here is meant to be within
//! a factor of about four of what is measured, either way, on the machine of that record: others differ by as much.

use crate::dtype::DType;
use crate::operation::{Argument, Operation, OperationKind};

/// What an operation takes beside the arithmetic that its rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// For each touched element, where it computes in `f32`.
    single: u64,
    /// The same in `f64`.
    double: u64,
    /// The same of whole numbers and truth values.
    whole: u64,
    /// What an element's number type does to that.
    by: By,
    /// For each operation that the rule counts, in quarters.
    quarters: u64,
    /// Bytes for each element while it runs, beside what it reads and makes.
    pub working_bytes: u64,
}

/// What an element's number type does to what the element takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Elements of 16 bits are made 32 bits wide, and the result narrow again.
    Conversion,
    /// What is wide takes longer.
    Width,
    /// Nothing: each is waited for.
    Nothing,
}

/// An element that is copied to where it is read next.
pub const COPIED: u64 = 4;
/// A byte of a result that is saved: made a part of a file, and written.
pub const WRITTEN: u64 = 24;
/// Times by which a copy out of another order takes longer where elements are walked one by one.
const BY_ONE: u64 = 4;
/// An element that is picked or written by itself, at a place that is not known before.
const SCATTERED: u64 = 180;
/// `f16` is converted by instructions that a plain build does not use; `bf16` by a shift.
const F16: u64 = 50;
const BF16: u64 = 8;

/// An element that is brought into row-major order: lines of the cache are read for a part of them.
pub fn turned(dtype: DType) -> u64 {
    4 + 4 * dtype.size()
}

/// What an operation adds that goes along another dimension than the last: rows are brought together first, and taken apart again where the
/// shape stays.
pub fn across(operation: &Operation, rank: usize) -> u64 {
    use OperationKind::*;
    let times = match operation.kind {
        Sum | Mean | Prod | Var | Std | Amax | Amin | Argmax | Argmin | Norm | Any | All | LogSumExp
        | CosineSimilarity => 1,
        CumSum | CumProd | Softmax | LogSoftmax | TopK | Sort | ArgSort => 2,
        _ => return 0,
    };
    let is_last = |place: i64| place == -1 || place.saturating_add(1) == rank as i64;
    let along_last = match operation.argument("dim") {
        Argument::Integers(places) => places.is_empty() || places.iter().any(|&place| is_last(place)),
        Argument::Scalar(place) => place.as_i64().is_none_or(is_last),
        // All of them; of what has a default, the last.
        _ => true,
    };
    if along_last { 0 } else { times }
}

/// What a kind of operation adds where what it reads does not lie in row-major order: it is brought into it first, a square at a time, or
/// what is read is walked one by one.
pub fn out_of_order(kind: OperationKind, dtype: DType) -> u64 {
    use OperationKind::*;
    match kind {
        // Nothing is read.
        Transpose | Permute | MoveDim | Squeeze | Unsqueeze | Expand | Split | Chunk | Detach | Diagonal => 0,
        // They have it in their price, whatever is read.
        Reshape | Flatten | Unflatten => 0,
        GetItem | IndexSelect | Pad | Flip => BY_ONE * turned(dtype),
        _ => turned(dtype),
    }
}

const fn each(single: u64, double: u64, whole: u64, by: By) -> Weight {
    Weight { single, double, whole, by, quarters: 4, working_bytes: 0 }
}

/// Computes: in `f32`, in `f64`, of whole numbers.
const fn computes(single: u64, double: u64, whole: u64) -> Weight {
    each(single, double, whole, By::Conversion)
}

/// The same as [`computes`], all of it in `f64`, whatever is read.
const fn in_double(all: u64) -> Weight {
    each(all, all, all, By::Conversion)
}

/// Copies elements that lie together; so much for one of 32 bits.
const fn copies(four_bytes: u64) -> Weight {
    each(four_bytes, four_bytes, four_bytes, By::Width)
}

/// Moves elements one by one.
const fn picks(one: u64) -> Weight {
    each(one, one, one, By::Nothing)
}

impl Weight {
    const fn working(self, bytes: u64) -> Weight {
        Weight { working_bytes: bytes, ..self }
    }

    const fn counted(self, quarters: u64) -> Weight {
        Weight { quarters, ..self }
    }

    /// For each touched element, of a first operand (or, without one, a result) of that number type.
    pub fn each(&self, dtype: DType) -> u64 {
        let least = u64::from(self.by == By::Conversion);
        let each = match (self.by, dtype) {
            (By::Width, _) => (self.single * dtype.size() / 4).max(u64::from(self.single > 0)),
            (By::Conversion, DType::F16) => self.single + F16,
            (By::Conversion, DType::Bf16) => self.single + BF16,
            (_, DType::F64) => self.double,
            (_, dtype) if dtype.is_float() => self.single,
            _ => self.whole,
        };
        // What the rule counts all of may be nothing, as over no dimensions; an element that is made costs something.
        each.max(least)
    }

    /// So many operations that the rule counted.
    pub fn counts(&self, operations: u64) -> u64 {
        match self.quarters {
            4 => operations,
            1 => operations / 4,
            quarters => operations.saturating_mul(quarters / 4),
        }
    }
}

/// The weight of a kind of operation that computes in that number type.
pub fn weight(kind: OperationKind, dtype: DType) -> Weight {
    use OperationKind::*;
    match kind {
        Add | Sub | Mul | Div | Maximum | Minimum => computes(3, 10, 20),
        Eq | Ne | Lt | Le | Gt | Ge => computes(3, 8, 16),
        LogicalAnd | LogicalOr | LogicalXor | LogicalNot => computes(3, 10, 3),
        IsNan | IsInf | IsFinite => computes(7, 7, 1),
        Neg | Abs | Sign | Relu => computes(2, 6, 14),
        Clamp => computes(16, 16, 16),
        // Functions of the C library, one call for each.
        Floor | Ceil | Round => computes(240, 280, 6),
        Trunc => computes(20, 40, 6),
        FloorDivide => computes(290, 320, 80),
        Remainder => computes(80, 200, 80),
        // What the rule counts is a power that has no closed form.
        Pow => computes(4, 6, 30).counted(4 * 170),
        Expm1 | Log1p => computes(300, 240, 320),
        Log2 => computes(30, 60, 90),
        Sin | Cos => computes(130, 340, 220),
        Softplus => computes(480, 800, 480),
        // Vectorised in `f32` only.
        Exp => computes(0, 70, 0),
        Log => computes(2, 70, 2),
        Sigmoid | Silu => computes(0, 90, 0),
        Tanh => computes(2, 680, 2),
        Erf => computes(6, 480, 6),
        Gelu => computes(4, 260, 4),
        Sqrt | Rsqrt | Reciprocal => computes(2, 14, 4),
        // By a branch that cannot be foreseen; some types are chosen without one.
        Where | MaskedFill => picks(40),
        Sum | Mean | Var | Std => computes(2, 4, 8),
        Prod => computes(14, 16, 16),
        // What the rule counts are powers that have no closed form.
        Norm => computes(2, 4, 4).counted(4 * 260),
        Amax | Amin | Argmax | Argmin => computes(8, 14, 10),
        Any | All => computes(8, 12, 8),
        LogSumExp | Softmax | LogSoftmax => computes(0, 120, 0),
        CumSum | CumProd => in_double(20).working(8),
        LayerNorm | RmsNorm => computes(0, 20, 0),
        CosineSimilarity => computes(30, 80, 0),
        CrossEntropy => in_double(110),
        NllLoss => in_double(12),
        KlDiv => in_double(150),
        MseLoss => in_double(30),
        BinaryCrossEntropyWithLogits => in_double(550),
        // Packed kernels for `f32` and what is narrower; plain loops for others, and for small matrices on the right.
        Matmul | Einsum => match dtype {
            DType::F64 => computes(4, 8, 8).counted(12),
            dtype if dtype.is_float() => computes(4, 8, 8).counted(1),
            _ => computes(4, 8, 16).counted(32),
        },
        Outer => computes(3, 8, 16),
        Qr | Svd | Eigh | Cholesky | Solve | Lstsq | Inv | Pinv | Det | SlogDet => in_double(8),
        MatrixExp | Orthogonal => in_double(8).counted(1),
        // Comparisons, most of them foreseen wrongly, and places beside the values. The rule counts comparisons.
        Sort | ArgSort => computes(60, 60, 60)
            .counted(if matches!(dtype, DType::F32 | DType::F16 | DType::Bf16) { 4 * 50 } else { 4 * 120 })
            .working(24),
        TopK => computes(260, 420, 480).working(24),
        Gather | Scatter | TakeAlongDim => picks(SCATTERED),
        ScatterAdd => in_double(220),
        // What the rule counts is picked one by one.
        GetItem | IndexSelect => copies(4).counted(4 * 70),
        // What the rule counts is written; alone it is counted as many times as it takes longer than in a run.
        IndexPut => copies(12).counted(16),
        // Of some layouts it is a copy.
        Reshape | Flatten | Unflatten => picks(turned(dtype)),
        Transpose | Permute | MoveDim | Squeeze | Unsqueeze | Expand | Split | Chunk | Detach => {
            picks(0).counted(0)
        }
        Repeat | Cat | Stack => copies(4),
        Pad | Flip | Roll | Tril | Triu => copies(3),
        Diagonal => picks(turned(dtype)),
        SgdStep => computes(20, 16, 0),
        AdamStep => computes(36, 30, 0),
        ClipGradNorm => computes(36, 44, 0),
        Zeros | Ones | Full | OneHot => copies(1),
        Arange | Linspace | Eye => in_double(6),
        Randn => in_double(800).working(8),
        Rand => in_double(320).working(8),
        Randint => in_double(230).working(8),
        // Keys beside the places are sorted: sixteen bytes for each. The rule counts comparisons.
        Randperm => picks(100).counted(4 * 54).working(24),
        To => computes(5, 8, 15),
    }
}
