//! What an operation holds while it runs beside what it reads and makes, in bytes, as the engine's code has it.
//!
//! The engine computes in three types: `f64`, `f32` (also what has 16 bits) and `i64` (whole numbers and truth values). What is stored in
//! another is widened first, whole, and the result made narrow at the end; losses and optimisers compute in `f64` whatever is
//! read. An operand that is a view of something smaller is copied when it is read: that has its room in the view's own price.

use super::batch::decomposed;
use super::contraction::{Contraction, contraction, packed};
use super::equation::Equation;
use super::index::named;
use super::promotion::{Strength, result_type};
use super::weight;
use crate::dtype::DType;
use crate::operation::{Argument, IndexItem, Operation, OperationKind};
use crate::program::Value;
use crate::shape::{Dimension, Symbol, TensorType};

/// What is less need not be asked for: so much is left beside every program.
pub const NEGLIGIBLE: u64 = 1 << 16;

/// A run of cells of a tensor: where it begins, its length, and how far it is from one to the next; in a list that grows.
const RUN_BYTES: u64 = 3 * 24;
/// The target of a row with its weight, in a list that grows; its number, its loss and its weight once more.
const TARGET_BYTES: u64 = 3 * 24 + 3 * 8;

/// An operation with the types of what it reads and makes.
pub(crate) struct Room<'a> {
    pub operation: &'a Operation,
    pub type_of: &'a dyn Fn(Value) -> TensorType,
    pub outputs: &'a [TensorType],
    /// What lengths that are not known are taken to be.
    pub assumed: u64,
}

/// Bytes that an operation holds while it runs, at most, beside what it reads and makes; lengths that are not known yet are taken to be
/// `assumed`.
pub fn working_bytes(
    operation: &Operation,
    type_of: &dyn Fn(Value) -> TensorType,
    outputs: &[TensorType],
    assumed: u64,
) -> u64 {
    let room = Room::new(operation, type_of, outputs, assumed);
    let read = operation.values().into_iter().map(|value| room.elements(&type_of(value))).max();
    let elements = read.unwrap_or(0).max(outputs.first().map_or(0, |output| room.elements(output)));
    let weighed = elements.saturating_mul(weight::weight(operation.kind, DType::F32).working_bytes);
    let held = room.held();
    weighed.max(if held > NEGLIGIBLE { held } else { 0 })
}

/// The size of an element in the type that is computed in.
fn width(dtype: DType) -> u64 {
    match dtype {
        DType::F32 | DType::Bf16 | DType::F16 => 4,
        _ => 8,
    }
}

/// Whether elements are computed with as they are stored.
fn is_plain(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::I64)
}

/// The shape of several shapes together: the largest size of each dimension, counted from the last.
pub(crate) fn together(shapes: &[Vec<u64>]) -> Vec<u64> {
    let rank = shapes.iter().map(Vec::len).max().unwrap_or(0);
    (0..rank)
        .rev()
        .map(|from_end| {
            let sizes =
                shapes.iter().filter_map(|shape| shape.len().checked_sub(from_end + 1).map(|at| shape[at]));
            // A size of 1 is repeated, also none times.
            sizes
                .reduce(|a, b| {
                    if a == 1 {
                        b
                    } else if b == 1 {
                        a
                    } else {
                        a.max(b)
                    }
                })
                .unwrap_or(1)
        })
        .collect()
}

pub(crate) fn product(sizes: &[u64]) -> u64 {
    sizes.iter().fold(1, |product: u64, &size| product.saturating_mul(size))
}

fn sum(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

impl<'a> Room<'a> {
    pub fn new(
        operation: &'a Operation,
        type_of: &'a dyn Fn(Value) -> TensorType,
        outputs: &'a [TensorType],
        assumed: u64,
    ) -> Room<'a> {
        Room { operation, type_of, outputs, assumed }
    }

    /// The tensor at a place of the arguments, if there is one.
    pub fn tensor(&self, place: usize) -> Option<TensorType> {
        match self.operation.arguments.get(place) {
            Some(Argument::Value(value)) => Some((self.type_of)(*value)),
            _ => None,
        }
    }

    /// The tensors of a list at a place of the arguments.
    pub fn listed(&self, place: usize) -> Vec<TensorType> {
        match self.operation.arguments.get(place) {
            Some(Argument::Values(values)) => values.iter().map(|&value| (self.type_of)(value)).collect(),
            Some(Argument::Value(value)) => vec![(self.type_of)(*value)],
            _ => Vec::new(),
        }
    }

    /// All tensors that are arguments by themselves.
    fn tensors(&self) -> Vec<TensorType> {
        (0..self.operation.arguments.len()).filter_map(|place| self.tensor(place)).collect()
    }

    pub fn sizes(&self, tensor: &TensorType) -> Vec<u64> {
        tensor.shape.iter().map(|size| size.assume(self.assumed)).collect()
    }

    pub fn elements(&self, tensor: &TensorType) -> u64 {
        tensor.elements(self.assumed)
    }

    /// So many bytes for each element.
    fn each(&self, tensor: &TensorType, bytes: u64) -> u64 {
        self.elements(tensor).saturating_mul(bytes)
    }

    fn made(&self) -> TensorType {
        self.outputs.first().cloned().unwrap_or(TensorType { dtype: DType::F32, shape: Vec::new() })
    }

    /// A tensor read to compute with in a common number type.
    fn read(&self, tensor: &TensorType, common: DType) -> u64 {
        if tensor.dtype == common {
            return self.each(tensor, if is_plain(common) { 0 } else { width(common) });
        }
        // Cast, and copied once more to be computed with; what is cast may be widened first.
        let widened = if is_plain(tensor.dtype) { 0 } else { width(tensor.dtype) };
        self.each(tensor, common.size().saturating_add(width(common).max(widened)))
    }

    /// A tensor read as `f64`.
    fn doubles(&self, tensor: &TensorType) -> u64 {
        if tensor.dtype == DType::F64 { 0 } else { self.each(tensor, 8) }
    }

    /// A result before it is made narrow.
    fn wide(&self, result: &TensorType) -> u64 {
        if is_plain(result.dtype) { 0 } else { self.each(result, width(result.dtype)) }
    }

    /// The number type of all operands together.
    fn common(&self) -> DType {
        result_type(self.operation.arguments.iter().filter_map(|argument| match argument {
            Argument::Value(value) => {
                let tensor = (self.type_of)(*value);
                let strength =
                    if tensor.shape.is_empty() { Strength::ZeroDimensional } else { Strength::Tensor };
                Some((tensor.dtype, strength))
            }
            Argument::Scalar(number) => Some((number.dtype(), Strength::Literal)),
            _ => None,
        }))
    }

    /// The copy in which the reduced dimensions are the last, where they are others.
    fn brought_together(&self, tensor: &TensorType) -> u64 {
        let rank = tensor.shape.len() as i64;
        let places: Vec<i64> = match self.operation.argument("dim") {
            Argument::Integers(places) => places.clone(),
            Argument::Scalar(place) => place.as_i64().into_iter().collect(),
            _ => return 0,
        };
        let reduced: Vec<bool> =
            (0..rank).map(|at| places.contains(&at) || places.contains(&(at - rank))).collect();
        // All of them, or the last: they lie together already.
        if reduced.is_sorted() { 0 } else { self.each(tensor, tensor.dtype.size()) }
    }

    /// The steps of an `einsum`.
    pub fn contraction(&self) -> Option<Contraction> {
        let operands = self.listed(1);
        let Some(Argument::Text(text)) = self.operation.arguments.first() else { return None };
        let shapes: Vec<&[Dimension]> = operands.iter().map(|operand| operand.shape.as_slice()).collect();
        let bound = Equation::parse(text).ok()?.bind(&shapes, &mut || Symbol::derived(0)).ok()?;
        let converted = operands.first().is_some_and(|first| !is_plain(first.dtype));
        Some(contraction(&bound, &operands, converted, self.assumed))
    }

    /// What is held beside operands and results.
    fn held(&self) -> u64 {
        use OperationKind::*;
        let first = self.tensor(0);
        let made = self.made();
        let of_first = |bytes: &dyn Fn(&TensorType) -> u64| first.as_ref().map_or(0, bytes);
        match self.operation.kind {
            Add | Sub | Mul | FloorDivide | Remainder | Pow | Maximum | Minimum | Div | Outer => {
                let read = self.tensors().into_iter().map(|tensor| self.read(&tensor, made.dtype));
                sum(read).saturating_add(self.wide(&made))
            }
            Matmul => {
                let read = self.tensors().into_iter().map(|tensor| self.read(&tensor, tensor.dtype));
                let right = self.tensor(1).map(|right| self.sizes(&right));
                let packed = right.map_or(0, |right| match right.as_slice() {
                    [.., inner, columns] => packed(*inner, *columns).saturating_mul(width(made.dtype)),
                    _ => 0,
                });
                sum(read).saturating_add(self.wide(&made)).saturating_add(packed)
            }
            Eq | Ne | Lt | Le | Gt | Ge => {
                let common = self.common();
                sum(self.tensors().into_iter().map(|tensor| self.read(&tensor, common)))
            }
            LogicalAnd | LogicalOr | LogicalXor | LogicalNot => {
                sum(self.tensors().into_iter().map(|tensor| self.elements(&tensor)))
            }
            IsNan | IsInf | IsFinite => of_first(&|input| {
                let read = if input.dtype.is_float() { self.doubles(input) } else { 0 };
                read.saturating_add(self.elements(input))
            }),
            Neg | Abs | Sign | Floor | Ceil | Round | Trunc | Relu | Clamp => {
                of_first(&|input| self.read(input, made.dtype)).saturating_add(self.wide(&made))
            }
            Exp | Expm1 | Log | Log2 | Log1p | Sqrt | Rsqrt | Reciprocal | Sin | Cos | Tanh | Sigmoid
            | Erf | Gelu | Silu | Softplus => of_first(&|input| match input.dtype {
                DType::F64 | DType::F32 => 0,
                DType::Bf16 | DType::F16 => self.each(input, 8),
                _ => self.each(input, 4),
            }),
            Where => {
                let condition = of_first(&|condition| self.elements(condition));
                let others = [self.tensor(1), self.tensor(2)].into_iter().flatten();
                let others = others.filter(|tensor| tensor.dtype != made.dtype);
                sum(others.map(|tensor| self.read(&tensor, made.dtype))).saturating_add(condition)
            }
            MaskedFill => self.tensor(1).map_or(0, |mask| self.elements(&mask)),
            Sum | Prod => of_first(&|input| {
                let asked = match self.operation.argument("dtype") {
                    Argument::DType(dtype) => *dtype,
                    _ => input.dtype,
                };
                let sums =
                    if matches!(made.dtype, DType::F64 | DType::I64) { 0 } else { self.each(&made, 8) };
                self.read(input, asked).saturating_add(self.brought_together(input)).saturating_add(sums)
            }),
            Mean | Var | Std | Norm | LogSumExp => of_first(&|input| {
                let read = match input.dtype {
                    DType::F64 | DType::F32 => 0,
                    DType::Bf16 | DType::F16 => 4,
                    _ => 8,
                };
                let results = if made.dtype == DType::F64 { 0 } else { self.each(&made, 8) };
                sum([self.each(input, read), self.brought_together(input), results])
            }),
            Amax | Amin | Argmax | Argmin => of_first(&|input| {
                sum([self.read(input, input.dtype), self.brought_together(input), self.wide(&made)])
            }),
            // Truths, twice, and as whole numbers.
            Any | All => of_first(&|input| self.each(input, 2 + 8)).saturating_add(self.each(&made, 3)),
            Softmax | LogSoftmax => of_first(&|input| {
                let narrow = matches!(input.dtype, DType::Bf16 | DType::F16);
                let moved = if weight::across(self.operation, input.shape.len()) > 0 {
                    self.each(input, input.dtype.size().max(made.dtype.size()))
                } else {
                    0
                };
                self.each(input, if narrow { 4 } else { 0 }).saturating_add(moved)
            }),
            LayerNorm | RmsNorm => of_first(&|input| {
                let narrow = matches!(input.dtype, DType::Bf16 | DType::F16);
                let parameters = [self.tensor(2), self.tensor(3)].into_iter().flatten();
                let parameters = sum(parameters.map(|parameter| self.each(&parameter, 8)));
                let length = match self.operation.argument("normalized_shape") {
                    Argument::Integers(sizes) => {
                        sizes.iter().fold(1, |product: u64, size| product.saturating_mul(size.unsigned_abs()))
                    }
                    _ => self.elements(input),
                };
                sum([self.each(input, if narrow { 8 } else { 0 }), parameters, length.saturating_mul(4)])
            }),
            CosineSimilarity => {
                let sides = self.tensors();
                let shapes: Vec<Vec<u64>> = sides.iter().map(|side| self.sizes(side)).collect();
                let row = together(&shapes).into_iter().max().unwrap_or(1).saturating_mul(32);
                let cosines = if made.dtype == DType::F64 { 0 } else { self.each(&made, 8) };
                sum(sides.iter().map(|side| self.each(side, 8)).chain([row, cosines]))
            }
            CrossEntropy | NllLoss => of_first(&|input| {
                // Of more than two dimensions the classes are brought to the end first.
                let moved = if input.shape.len() > 2 { input.dtype.size() } else { 0 };
                let read = if input.dtype == DType::F64 { 0 } else { 8 };
                let targets = self.tensor(1).map_or(0, |target| self.each(&target, TARGET_BYTES));
                let classes = input.shape.get(usize::from(input.shape.len() > 1));
                let classes = classes.map_or(1, |size| size.assume(self.assumed)).saturating_mul(16);
                sum([self.each(input, moved + read), targets, classes])
            }),
            KlDiv | MseLoss | BinaryCrossEntropyWithLogits => {
                let operands = self.tensors();
                let shapes: Vec<Vec<u64>> = operands.iter().map(|operand| self.sizes(operand)).collect();
                let all = product(&together(&shapes)).saturating_mul(8);
                // Each is read before it is broadcast.
                let own = operands.iter().map(|operand| self.doubles(operand)).filter(|&own| own < all).max();
                all.saturating_mul(operands.len() as u64 + 1).saturating_add(own.unwrap_or(0))
            }
            Einsum => {
                let Some(found) = self.contraction() else { return 0 };
                let bytes = self.listed(1).first().map_or(8, |first| width(first.dtype));
                let result = self.each(&made, made.dtype.size());
                if bytes == made.dtype.size() && is_plain(made.dtype) {
                    return found.peak.saturating_mul(bytes).saturating_sub(result);
                }
                // What is made narrow at the end stands beside the result.
                let last = found.result.saturating_mul(bytes);
                found.peak.saturating_mul(bytes).saturating_sub(result).max(last)
            }
            Qr | Svd | Eigh | Cholesky | Inv | Det | SlogDet | Pinv | MatrixExp | Orthogonal | Solve
            | Lstsq => decomposed(self),
            Gather | TakeAlongDim => self.each(&made, 16),
            Scatter => {
                let index = self.tensor(2).map_or(0, |index| self.each(&index, 16 + made.dtype.size()));
                let same = matches!(self.operation.arguments.get(3), Some(Argument::Value(_)));
                if same { self.tensor(2).map_or(0, |index| self.each(&index, 16)) } else { index }
            }
            ScatterAdd => sum([
                self.tensor(2).map_or(0, |index| self.each(&index, 16)),
                of_first(&|input| self.read(input, input.dtype)),
                self.tensor(3).map_or(0, |source| self.read(&source, source.dtype)),
            ]),
            IndexSelect => {
                let index = self.tensor(2).map_or(0, |index| self.each(&index, 16));
                let rank = made.shape.len() as i64;
                let place = match self.operation.argument("dim") {
                    Argument::Scalar(place) => place.as_i64().unwrap_or(0),
                    _ => 0,
                };
                let place = if place < 0 { place + rank } else { place };
                let mut others = self.sizes(&made);
                others.retain({
                    let mut at = -1;
                    move |_| {
                        at += 1;
                        at != place
                    }
                });
                let last = others.iter().rev().copied().find(|&size| size != 1).unwrap_or(1);
                index.saturating_add((product(&others) / last.max(1)).saturating_mul(RUN_BYTES))
            }
            GetItem => of_first(&|input| self.pointed(input).0),
            IndexPut => of_first(&|input| self.written(input)),
            Cat | Stack => {
                let values = self.operation.values();
                let tensors = self.listed(0);
                let cast = tensors.iter().filter(|tensor| tensor.dtype != made.dtype);
                let cast = sum(cast.map(|tensor| self.each(tensor, made.dtype.size() + 8)));
                // What stands in the list more than once may be copied as often, and has room for one copy.
                let mut seen = std::collections::HashSet::new();
                let again = values.iter().zip(&tensors).filter(|(value, _)| !seen.insert(**value));
                sum(again.map(|(_, tensor)| self.each(tensor, made.dtype.size()))).saturating_add(cast)
            }
            // Pieces are copied out of their dimension; beside them stands what was rolled before.
            Roll => match self.operation.argument("dims") {
                Argument::Integers(places) if places.is_empty() => 0,
                Argument::Integers(places) => {
                    self.each(&made, made.dtype.size() * places.len().min(2) as u64)
                }
                _ => self.each(&made, made.dtype.size()),
            },
            // In doubles: the parameter, its momenta, and the gradient. Of doubles the results themselves.
            SgdStep | AdamStep => {
                let count = if self.operation.kind == SgdStep { 2 } else { 3 };
                let own = of_first(&|parameter| self.doubles(parameter)).saturating_mul(count);
                let others = self.tensors().into_iter().skip(1).map(|tensor| self.doubles(&tensor));
                own.saturating_add(others.fold(0, u64::max))
            }
            ClipGradNorm => sum(self.listed(0).iter().map(|gradient| self.doubles(gradient))),
            Arange | Linspace if !matches!(made.dtype, DType::F64 | DType::I64) => self.each(&made, 8),
            Arange | Linspace => 0,
            Eye if made.dtype != DType::I64 => self.each(&made, 8),
            Eye => 0,
            OneHot => of_first(&|input| self.read(input, input.dtype)),
            To => of_first(&|input| match input.dtype {
                dtype if dtype == made.dtype => 0,
                _ if made.dtype == DType::Bool => self.elements(input),
                dtype if is_plain(dtype) => 0,
                dtype => self.each(input, width(dtype)),
            }),
            // What is drawn, sorted or summed up has its room in the table of weights.
            Randn | Rand | Randint | Randperm | Sort | ArgSort | TopK | CumSum | CumProd => 0,
            // The result is written as it is read.
            Reshape | Flatten | Unflatten | Repeat | Pad | Flip | Tril | Triu | Diagonal | Zeros | Ones
            | Full => 0,
            Transpose | Permute | MoveDim | Squeeze | Unsqueeze | Expand | Split | Chunk | Detach => 0,
        }
    }

    /// What index tensors that point into a tensor hold; and how many cells they name, or a mask can name.
    fn pointed(&self, input: &TensorType) -> (u64, u64) {
        let items = self.operation.arguments.iter().find_map(|argument| match argument {
            Argument::Index(items) => Some(items.as_slice()),
            _ => None,
        });
        let Some(items) = items else { return (0, 0) };
        let named = named(items, &self.sizes(input), self.type_of, self.assumed);
        let own = items.iter().map(|item| match item {
            // Widened, and how far each points; of a mask its truths, and in a list that grows.
            IndexItem::Tensor(value) => {
                let pointing = (self.type_of)(*value);
                self.each(&pointing, if pointing.dtype == DType::Bool { 1 + 3 * 8 } else { 16 })
            }
            _ => 0,
        });
        let Some(places) = named.places else { return (0, named.cells) };
        // How far all of them point together, and one of them at each place.
        let table = places.saturating_mul(16);
        (sum(own).saturating_add(table).saturating_add(named.runs.saturating_mul(RUN_BYTES)), named.cells)
    }

    /// What writing at an index holds.
    fn written(&self, input: &TensorType) -> u64 {
        let (pointed, cells) = self.pointed(input);
        let adds =
            matches!(self.operation.argument("accumulate"), Argument::Scalar(flag) if flag.as_f64() != 0.0);
        let values = self.tensor(2);
        let cast = values.as_ref().filter(|values| values.dtype != input.dtype);
        let cast = cast.map_or(0, |values| self.read(values, input.dtype));
        let is_narrow = adds && !is_plain(input.dtype);
        let wide = if is_narrow { width(input.dtype) } else { 0 };
        // Values are read as they are where there is one for each cell, else each is copied to its cells.
        let whole = values.is_some_and(|values| self.elements(&values) == cells);
        let points = pointed > 0 || adds;
        let read = if whole || !points { 0 } else { input.dtype.size() };
        sum([pointed, cast, self.each(input, wide), cells.saturating_mul(read.saturating_add(wide))])
    }
}
