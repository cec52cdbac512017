//! Random examples of every operation through which a gradient flows, in `f64`, away from where it has no derivative.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking, and uses a part"
)]

mod places;
mod values;

use pellucid_engine::tensor::Tensor;
use pellucid_graph::{Argument, DType, IndexItem, NodeId, Operation, OperationKind, Scalar, Size, Value};
use places::{gathering, indexing, moving};
use values::{einsum, linear, loss, pair, reduction};

/// Seeded numbers (SplitMix64).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64, label: &str) -> Numbers {
        let label =
            label.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ label)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Between −2 and 2.
    pub fn real(&mut self) -> f64 {
        self.unit() * 4.0 - 2.0
    }

    fn fill(&mut self, shape: &[usize], mut number: impl FnMut(&mut Self) -> f64) -> Tensor {
        let count = shape.iter().product::<usize>();
        Tensor::from_f64((0..count).map(|_| number(self)).collect(), shape).unwrap()
    }

    /// Numbers between −2 and 2.
    pub fn normal(&mut self, shape: &[usize]) -> Tensor {
        self.fill(shape, Numbers::real)
    }

    /// Numbers between 0.2 and 2.2.
    fn positive(&mut self, shape: &[usize]) -> Tensor {
        self.fill(shape, |numbers| numbers.unit() * 2.0 + 0.2)
    }

    /// Numbers at least 0.2 from 0.
    fn nonzero(&mut self, shape: &[usize]) -> Tensor {
        self.fill(shape, |numbers| (numbers.unit() * 2.0 + 0.2) * if numbers.chance() { 1.0 } else { -1.0 })
    }

    fn places(&mut self, shape: &[usize], below: usize) -> Tensor {
        let count = shape.iter().product::<usize>();
        Tensor::from_i64((0..count).map(|_| self.below(below) as i64).collect(), shape).unwrap()
    }

    fn mask(&mut self, shape: &[usize]) -> Tensor {
        let truths: Vec<bool> = (0..shape.iter().product::<usize>()).map(|_| self.chance()).collect();
        Tensor::from_bool(&truths, shape).unwrap()
    }

    fn shape(&mut self, least: usize, most: usize) -> Vec<usize> {
        let rank = least + self.below(most - least + 1);
        (0..rank).map(|_| 1 + self.below(4)).collect()
    }

    /// A shape that broadcasts to this one.
    fn narrower(&mut self, shape: &[usize]) -> Vec<usize> {
        let from = self.below(shape.len() + 1);
        shape[from..].iter().map(|&size| if self.below(3) == 0 { 1 } else { size }).collect()
    }

    /// Two shapes that broadcast together, often to something larger than either.
    fn broadcasting(&mut self) -> (Vec<usize>, Vec<usize>) {
        let shape = self.shape(0, 3);
        let (a, b) = (self.narrower(&shape), self.narrower(&shape));
        match self.below(3) {
            0 => (shape.clone(), b),
            1 => (a, shape),
            _ => (a, b),
        }
    }

    /// A dimension, counted from either end.
    fn dim(&mut self, rank: usize) -> i64 {
        let place = self.below(rank.max(1)) as i64;
        if self.chance() { place } else { place - rank.max(1) as i64 }
    }

    fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for place in (1..count).rev() {
            order.swap(place, self.below(place + 1));
        }
        order
    }
}

/// An operation on tensors, which are its values in order.
pub struct Example {
    pub operation: Operation,
    pub inputs: Vec<Tensor>,
}

fn integer(number: i64) -> Argument {
    Argument::Scalar(Scalar::Int(number))
}

fn size(number: usize) -> Argument {
    integer(number as i64)
}

fn truth(value: bool) -> Argument {
    Argument::Scalar(Scalar::Bool(value))
}

fn float(number: f64) -> Argument {
    Argument::Scalar(Scalar::Float(number))
}

fn list(numbers: impl IntoIterator<Item = usize>) -> Argument {
    Argument::Integers(numbers.into_iter().map(|number| number as i64).collect())
}

fn text(word: &str) -> Argument {
    Argument::Text(word.to_owned())
}

impl Example {
    fn empty(kind: OperationKind) -> Example {
        Example { operation: Operation { kind, arguments: Vec::new() }, inputs: Vec::new() }
    }

    fn value(&mut self, tensor: Tensor) -> Value {
        self.inputs.push(tensor);
        Value::from(NodeId(self.inputs.len() as u32 - 1))
    }

    /// The example with one more argument, a tensor.
    fn of(mut self, tensor: Tensor) -> Example {
        let value = self.value(tensor);
        self.operation.arguments.push(Argument::Value(value));
        self
    }

    fn all(mut self, tensors: Vec<Tensor>) -> Example {
        let values = tensors.into_iter().map(|tensor| self.value(tensor)).collect();
        self.operation.arguments.push(Argument::Values(values));
        self
    }

    fn with(mut self, argument: Argument) -> Example {
        self.operation.arguments.push(argument);
        self
    }

    fn index(mut self, items: Vec<Item>) -> Example {
        let items = items
            .into_iter()
            .map(|item| match item {
                Item::Plain(item) => item,
                Item::Tensor(tensor) => IndexItem::Tensor(self.value(tensor)),
            })
            .collect();
        self.with(Argument::Index(items))
    }

    pub fn unary(kind: OperationKind, input: Tensor) -> Example {
        Example::empty(kind).of(input)
    }

    /// A direction in which an operand may be moved.
    pub fn direction(&self, place: usize, numbers: &mut Numbers) -> Tensor {
        let shape = self.inputs[place].shape();
        let direction = numbers.normal(shape);
        let symmetric = matches!(self.operation.kind, OperationKind::Eigh | OperationKind::Cholesky);
        if symmetric { mirrored(&direction, |a, b| a + b) } else { direction }
    }

    /// A random example. What an operation leaves out has its default.
    pub fn new(kind: OperationKind, numbers: &mut Numbers) -> Example {
        use OperationKind::*;
        let empty = Example::empty(kind);
        match kind {
            Add | Sub | Mul | Maximum | Minimum | Remainder | Div | Pow => pair(kind, numbers),
            Neg | Abs | Sign | Floor | Ceil | Round | Trunc | Exp | Expm1 | Sin | Cos | Tanh | Sigmoid
            | Erf | Relu | Silu | Softplus => {
                let shape = numbers.shape(0, 3);
                empty.of(numbers.normal(&shape))
            }
            Log | Log2 | Log1p | Sqrt | Rsqrt => {
                let shape = numbers.shape(0, 3);
                empty.of(numbers.positive(&shape))
            }
            Reciprocal => {
                let shape = numbers.shape(0, 3);
                empty.of(numbers.nonzero(&shape))
            }
            Gelu => {
                let shape = numbers.shape(0, 3);
                empty.of(numbers.normal(&shape)).with(text(if numbers.chance() { "none" } else { "tanh" }))
            }
            Clamp => {
                let shape = numbers.shape(0, 3);
                let bound = |holds: bool, at: f64| if holds { float(at) } else { Argument::Absent };
                let which = numbers.below(3);
                empty.of(numbers.normal(&shape)).with(bound(which != 1, -0.5)).with(bound(which != 0, 0.75))
            }
            Where => {
                let (a, b) = numbers.broadcasting();
                let mask = numbers.narrower(&a);
                let example = empty.of(numbers.mask(&mask)).of(numbers.normal(&a));
                if numbers.below(4) == 0 { example.with(float(0.5)) } else { example.of(numbers.normal(&b)) }
            }
            MaskedFill => {
                let (a, b) = numbers.broadcasting();
                empty.of(numbers.normal(&a)).of(numbers.mask(&b)).of(numbers.normal(&[]))
            }
            Sum | Mean | Prod | Var | Std | Amax | Amin | Norm | LogSumExp | CumSum | CumProd | Softmax
            | LogSoftmax => reduction(kind, numbers),
            LayerNorm | RmsNorm => {
                let shape = numbers.shape(1, 3);
                let from = numbers.below(shape.len());
                // A row of one element is 0 whatever it is.
                let sizes = shape[from..].to_vec();
                let mut example = empty.of(numbers.normal(&shape)).with(list(sizes.clone()));
                for _ in 0..if kind == LayerNorm { 2 } else { 1 } {
                    example = match numbers.below(3) {
                        0 => example.with(Argument::Absent),
                        _ => example.of(numbers.normal(&sizes)),
                    };
                }
                example.with(float(0.1))
            }
            Matmul => {
                let (inner, rows, columns) =
                    (1 + numbers.below(4), 1 + numbers.below(3), 1 + numbers.below(3));
                let (mut a, mut b) = numbers.broadcasting();
                match numbers.below(4) {
                    0 => (a, b) = (vec![inner], vec![inner]),
                    1 => {
                        a.extend([rows, inner]);
                        b = vec![inner];
                    }
                    2 => {
                        a = vec![inner];
                        b.extend([inner, columns]);
                    }
                    _ => {
                        a.extend([rows, inner]);
                        b.extend([inner, columns]);
                    }
                }
                empty.of(numbers.normal(&a)).of(numbers.normal(&b))
            }
            Outer => {
                let (a, b) = (1 + numbers.below(4), 1 + numbers.below(4));
                empty.of(numbers.normal(&[a])).of(numbers.normal(&[b]))
            }
            Einsum => einsum(numbers),
            TopK | Sort => {
                let shape = numbers.shape(0, 3);
                let dim = numbers.dim(shape.len());
                let example = empty.of(numbers.normal(&shape));
                let flag = truth(numbers.chance());
                if kind == Sort {
                    return example.with(integer(dim)).with(flag);
                }
                let length = shape.get(place(dim, shape.len())).copied().unwrap_or(1);
                example.with(size(1 + numbers.below(length))).with(integer(dim)).with(flag)
            }
            Gather | Scatter | ScatterAdd | IndexSelect | TakeAlongDim => gathering(kind, numbers),
            GetItem | IndexPut => indexing(kind, numbers),
            Reshape | Flatten | Unflatten | Transpose | Permute | MoveDim | Squeeze | Unsqueeze | Expand
            | Repeat | Cat | Stack | Split | Chunk | Pad | Flip | Roll | Tril | Triu | Diagonal => {
                moving(kind, numbers)
            }
            To => {
                let shape = numbers.shape(0, 3);
                empty.of(numbers.normal(&shape)).with(Argument::DType(DType::F64))
            }
            CosineSimilarity | CrossEntropy | NllLoss | KlDiv | MseLoss | BinaryCrossEntropyWithLogits => {
                loss(kind, numbers)
            }
            Qr | Svd | Eigh | Cholesky | Solve | Lstsq | Inv | Pinv | Det | SlogDet | MatrixExp
            | Orthogonal => linear(kind, numbers),
            _ => panic!("no examples of `{}`", kind.name()),
        }
    }
}

/// A function of each element of square matrices and its mirror image across the diagonal.
fn mirrored(tensor: &Tensor, function: impl Fn(f64, f64) -> f64) -> Tensor {
    let size = tensor.shape()[tensor.rank() - 1];
    let elements = tensor.to_vec_f64().unwrap();
    let mirror = |at: usize| {
        let (matrix, row, column) = (at / (size * size), at / size % size, at % size);
        elements[(matrix * size + column) * size + row]
    };
    let found = elements.iter().enumerate().map(|(at, &element)| function(element, mirror(at))).collect();
    Tensor::from_f64(found, tensor.shape()).unwrap()
}

enum Item {
    Plain(IndexItem),
    Tensor(Tensor),
}

fn place(dim: i64, rank: usize) -> usize {
    (if dim < 0 { dim + rank.max(1) as i64 } else { dim }) as usize
}
