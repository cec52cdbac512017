//! Random examples of every operation through which a gradient flows, in `f64`, away from where it has no derivative.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use pellucid_engine::tensor::Tensor;
use pellucid_graph::{Argument, DType, IndexItem, NodeId, Operation, OperationKind, Scalar, Size, Value};

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
        numbers.normal(self.inputs[place].shape())
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
            _ => panic!("no examples of `{}`", kind.name()),
        }
    }
}

enum Item {
    Plain(IndexItem),
    Tensor(Tensor),
}

fn place(dim: i64, rank: usize) -> usize {
    (if dim < 0 { dim + rank.max(1) as i64 } else { dim }) as usize
}

fn pair(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let (a, b) = numbers.broadcasting();
    let first = if kind == Pow { numbers.positive(&a) } else { numbers.normal(&a) };
    let second = match kind {
        Div | Remainder => numbers.nonzero(&b),
        _ => numbers.normal(&b),
    };
    match numbers.below(6) {
        0 => Example::empty(kind).with(float(1.25)).of(second),
        1 => Example::empty(kind).of(first).with(float(1.75)),
        _ => Example::empty(kind).of(first).of(second),
    }
}

fn reduction(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let shape = numbers.shape(0, 3);
    let input = match kind {
        Norm | CumProd | Prod => numbers.nonzero(&shape),
        _ => numbers.normal(&shape),
    };
    // Zeros among the factors, where a quotient would fail.
    let input = if matches!(kind, CumProd | Prod) && numbers.chance() {
        let mut elements = input.to_vec_f64().unwrap();
        elements.iter_mut().for_each(|element| {
            if numbers.below(4) == 0 {
                *element = 0.0
            }
        });
        Tensor::from_f64(elements, &shape).unwrap()
    } else {
        input
    };
    let several = numbers.permutation(shape.len());
    let several = list(several.into_iter().take(1 + numbers.below(shape.len().max(1))));
    let one = integer(numbers.dim(shape.len()));
    let dims = match numbers.below(3) {
        0 if kind != LogSumExp => Argument::Absent,
        1 => several,
        _ => one.clone(),
    };
    let example = Example::empty(kind).of(input);
    let keep = truth(numbers.chance());
    match kind {
        CumSum | CumProd | Softmax | LogSoftmax => example.with(one),
        Prod => example.with(if numbers.chance() { one } else { Argument::Absent }).with(keep),
        Var | Std => {
            // The deviation of one element has no derivative: 0 keeps it apart from the others.
            let correction = if kind == Var { numbers.below(2) as f64 * 0.5 } else { 0.0 };
            example.with(dims).with(float(correction)).with(keep)
        }
        Norm => {
            let orders = [2.0, 1.0, 3.0, 0.5, 1.5, f64::INFINITY, f64::NEG_INFINITY, 0.0];
            example.with(float(orders[numbers.below(orders.len())])).with(dims).with(keep)
        }
        Sum => example.with(dims).with(keep).with(Argument::Absent),
        _ => example.with(dims).with(keep),
    }
}

fn einsum(numbers: &mut Numbers) -> Example {
    let (a, b, c) = (1 + numbers.below(3), 1 + numbers.below(3), 1 + numbers.below(3));
    let wide = numbers.shape(0, 2);
    let ([mut first, mut second], third) = ([numbers.narrower(&wide), numbers.narrower(&wide)], vec![b, c]);
    first.extend([a, b]);
    second.extend([b, c]);
    let (equation, shapes) = match numbers.below(10) {
        0 => ("...ij,...jk->...ik", vec![first, second]),
        1 => ("ij,jk,kl->il", vec![vec![a, b], third, vec![c, a]]),
        2 => ("ii->i", vec![vec![a, a]]),
        3 => ("ii", vec![vec![b, b]]),
        4 => ("ij->", vec![vec![a, b]]),
        5 => ("ijj,k->ki", vec![vec![a, b, b], vec![c]]),
        6 => ("ij,ij->i", vec![vec![a, b], vec![a, b]]),
        7 => ("i,j,i->j", vec![vec![a], vec![b], vec![a]]),
        8 => ("...ij,kl->...i", vec![first, vec![c, a]]),
        _ => ("ij,kj->ik", vec![vec![a, b], vec![c, 1]]),
    };
    let tensors = shapes.iter().map(|shape| numbers.normal(shape)).collect();
    Example::empty(OperationKind::Einsum).with(text(equation)).all(tensors)
}

fn gathering(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let shape = numbers.shape(1, 3);
    let dim = numbers.dim(shape.len());
    let along = place(dim, shape.len());
    let input = numbers.normal(&shape);
    let mut index_shape: Vec<usize> = shape.iter().map(|&size| 1 + numbers.below(size)).collect();
    index_shape[along] = 1 + numbers.below(4);
    let example = Example::empty(kind).of(input);
    match kind {
        Gather => example.with(integer(dim)).of(numbers.places(&index_shape, shape[along])),
        IndexSelect => {
            let count = numbers.below(5);
            example.with(integer(dim)).of(numbers.places(&[count], shape[along]))
        }
        TakeAlongDim => {
            // Sizes of the input or 1, on either side.
            let mut own = shape.clone();
            for (at, size) in index_shape.iter_mut().enumerate().filter(|(at, _)| *at != along) {
                match numbers.below(3) {
                    0 => *size = 1,
                    1 => (*size, own[at]) = (shape[at], 1),
                    _ => *size = shape[at],
                }
            }
            let index = numbers.places(&index_shape, shape[along]);
            Example::empty(kind).of(numbers.normal(&own)).of(index).with(integer(dim))
        }
        _ => {
            // Two values written to one place have no derivative in PyTorch's sense, so places differ along `dim`.
            index_shape[along] = index_shape[along].min(shape[along]);
            let index = if kind == ScatterAdd {
                numbers.places(&index_shape, shape[along])
            } else {
                let order = numbers.permutation(shape[along]);
                let inner: usize = index_shape[along + 1..].iter().product();
                let count = index_shape.iter().product::<usize>();
                let places = (0..count).map(|at| order[at / inner % index_shape[along]] as i64).collect();
                Tensor::from_i64(places, &index_shape).unwrap()
            };
            let source_shape: Vec<usize> = index_shape.iter().map(|size| size + numbers.below(2)).collect();
            let example = example.with(integer(dim)).of(index);
            if kind == Scatter && numbers.below(4) == 0 {
                return example.with(float(0.5));
            }
            example.of(numbers.normal(&source_shape))
        }
    }
}

fn indexing(kind: OperationKind, numbers: &mut Numbers) -> Example {
    let shape = numbers.shape(1, 3);
    let writing = kind == OperationKind::IndexPut;
    let mut items = Vec::new();
    let mut pointed: Option<usize> = None;
    let (mut at, mut repeats) = (0, false);
    while at < shape.len() {
        let length = shape[at] as i64;
        match numbers.below(if writing { 7 } else { 6 }) {
            0 => items.push(Item::Plain(IndexItem::Integer(
                numbers.below(shape[at]) as i64 - numbers.below(2) as i64 * length,
            ))),
            1 => {
                let (start, stop) = (numbers.below(3) as i64 - 1, length - numbers.below(2) as i64);
                items.push(Item::Plain(IndexItem::Slice {
                    start: Some(start),
                    stop: Some(stop),
                    step: 1 + numbers.below(2) as i64,
                }));
            }
            2 => {
                items.push(Item::Plain(IndexItem::NewAxis));
                continue;
            }
            3 | 4 => {
                // Index tensors of one length, so that they broadcast together; they may name a place twice.
                let count = *pointed.get_or_insert(1 + numbers.below(3));
                repeats |= count > 1;
                items.push(Item::Tensor(numbers.places(&[count], shape[at])));
            }
            5 => {
                items.push(Item::Plain(IndexItem::Ellipsis));
                break;
            }
            _ if pointed.is_none() => {
                pointed = Some(0);
                items.push(Item::Tensor(numbers.mask(&shape[at..at + 1])));
            }
            _ => items.push(Item::Plain(IndexItem::Integer(0))),
        }
        at += 1;
    }
    let masked = pointed == Some(0);
    let example = Example::empty(kind).of(numbers.normal(&shape));
    if !writing {
        return example.index(items);
    }
    if masked && items.iter().filter(|item| matches!(item, Item::Tensor(_))).count() > 1 {
        // A mask and index tensors broadcast only where as many places hold: left to the golden cases.
        items.retain(|item| matches!(item, Item::Plain(_)));
        items.push(Item::Plain(IndexItem::Ellipsis));
        let count = items.iter().filter(|item| matches!(item, Item::Plain(IndexItem::Ellipsis))).count();
        if count > 1 {
            items.pop();
        }
    }
    let accumulate = repeats || numbers.chance();
    let example = example.index(items);
    // The values broadcast to the places: their shape is known where no mask counts.
    let probe = Operation {
        kind: OperationKind::GetItem,
        arguments: vec![Argument::Value(Value::from(NodeId(0))), example.operation.arguments[1].clone()],
    };
    let lookup = |value: Value| example.inputs[value.node.index()].clone();
    let read = pellucid_engine::operations::evaluate(&probe, &lookup, &Default::default());
    let values = match read {
        Ok(read) => numbers.narrower(read[0].shape()),
        Err(_) => Vec::new(),
    };
    example.of(numbers.normal(&values)).with(truth(accumulate))
}

fn moving(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let least = match kind {
        Tril | Triu | Diagonal => 2,
        Split | Chunk | Cat | Flip | Roll | Pad | Unflatten | MoveDim | Squeeze => 1,
        _ => 0,
    };
    let mut shape = numbers.shape(least, 3);
    let rank = shape.len();
    let dim = numbers.dim(rank);
    let along = place(dim, rank);
    let count = shape.iter().product::<usize>();
    let sizes =
        |shape: &[usize]| Argument::Sizes(shape.iter().map(|&size| Size::Literal(size as i64)).collect());
    if kind == Unflatten {
        let split = [1 + numbers.below(3), 1 + numbers.below(3)];
        shape[along] = split[0] * split[1];
        return Example::empty(kind).of(numbers.normal(&shape)).with(integer(dim)).with(sizes(&split));
    }
    let example = Example::empty(kind).of(numbers.normal(&shape));
    match kind {
        Reshape => {
            let mut reversed = shape.clone();
            reversed.reverse();
            example.with(if numbers.chance() { sizes(&[count]) } else { sizes(&reversed) })
        }
        Flatten => example.with(integer(0)).with(integer(-1)),
        Transpose => {
            let other = numbers.dim(rank);
            example.with(integer(dim)).with(integer(other))
        }
        Permute => {
            let order = numbers.permutation(rank);
            example.with(list(order))
        }
        MoveDim => {
            let (from, to) = (numbers.permutation(rank), numbers.permutation(rank));
            let moved = 1 + numbers.below(rank);
            example.with(list(from.into_iter().take(moved))).with(list(to.into_iter().take(moved)))
        }
        Squeeze => example.with(if numbers.chance() { integer(dim) } else { Argument::Absent }),
        Unsqueeze => example.with(integer(numbers.dim(rank + 1))),
        Expand => {
            let narrow = numbers.narrower(&shape);
            Example::empty(kind).of(numbers.normal(&narrow)).with(sizes(&shape))
        }
        Repeat => {
            let repeats = (0..rank + numbers.below(2)).map(|_| 1 + numbers.below(3)).collect::<Vec<_>>();
            example.with(list(repeats))
        }
        Cat => {
            let mut other = shape.clone();
            other[along] = 1 + numbers.below(3);
            let tensors = vec![numbers.normal(&shape), numbers.normal(&other), numbers.normal(&[0])];
            Example::empty(kind).all(tensors).with(integer(dim))
        }
        Stack => {
            let tensors = (0..1 + numbers.below(3)).map(|_| numbers.normal(&shape)).collect();
            Example::empty(kind).all(tensors).with(integer(numbers.dim(rank + 1)))
        }
        Split if numbers.chance() => {
            let first = numbers.below(shape[along]);
            example.with(list([first, shape[along] - first])).with(integer(dim))
        }
        Split => example.with(size(1 + numbers.below(3))).with(integer(dim)),
        Chunk => example.with(size(1 + numbers.below(3))).with(integer(dim)),
        Pad => {
            let sides = (0..2 * (1 + numbers.below(rank)))
                .map(|side| if side % 2 == 0 { numbers.below(3) as i64 } else { numbers.below(2) as i64 });
            let mut sides: Vec<i64> = sides.collect();
            // Cut off at one end, where something is left.
            if shape[rank - 1] > 1 && numbers.chance() {
                sides[1] = -1;
            }
            example.with(Argument::Integers(sides)).with(float(0.5))
        }
        Flip => example.with(list([along])),
        Roll if numbers.chance() => example.with(integer(2)).with(Argument::Integers(Vec::new())),
        Roll => example.with(integer(numbers.below(5) as i64 - 2)).with(list([along])),
        Tril | Triu => example.with(integer(numbers.below(4) as i64 - 2)),
        _ => {
            let order = numbers.permutation(rank);
            example.with(integer(numbers.below(4) as i64 - 2)).with(size(order[0])).with(size(order[1]))
        }
    }
}

fn loss(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let reduction = text(["mean", "sum", "none"][numbers.below(3)]);
    let example = Example::empty(kind);
    match kind {
        CosineSimilarity => {
            let shape = loop {
                let (a, b) = numbers.broadcasting();
                if !a.is_empty() && !b.is_empty() {
                    break (a, b);
                }
            };
            let rank = shape.0.len().max(shape.1.len());
            let dim = numbers.dim(rank);
            example
                .of(numbers.nonzero(&shape.0))
                .of(numbers.nonzero(&shape.1))
                .with(integer(dim))
                .with(float(1e-8))
        }
        CrossEntropy | NllLoss => {
            let shape = numbers.shape(1, 3);
            let place = usize::from(shape.len() > 1);
            let mut others = shape.clone();
            let classes = others.remove(place);
            let ignored = numbers.below(classes + 2) as i64 - 1;
            let target = numbers.places(&others, classes);
            // Of rows that are all ignored the mean is NaN.
            let some = target.to_vec_i64().unwrap().iter().any(|&class| class != ignored);
            let example = example.of(numbers.normal(&shape)).of(target);
            let example = match numbers.chance() {
                true => example.of(numbers.positive(&[classes])),
                false => example.with(Argument::Absent),
            };
            let example = example.with(integer(ignored)).with(if some { reduction } else { text("sum") });
            if kind == NllLoss { example } else { example.with(float([0.0, 0.3][numbers.below(2)])) }
        }
        KlDiv | MseLoss => {
            let (a, b) = numbers.broadcasting();
            let example = example.of(numbers.normal(&a));
            if kind == MseLoss {
                return example.of(numbers.normal(&b)).with(reduction);
            }
            let reduction =
                if numbers.below(4) == 0 && a.len().max(b.len()) > 0 { text("batchmean") } else { reduction };
            example.of(numbers.positive(&b)).with(reduction).with(truth(numbers.chance()))
        }
        _ => {
            let shape = numbers.shape(0, 3);
            let example = example.of(numbers.normal(&shape)).of(numbers.positive(&shape));
            let (a, b) = (numbers.narrower(&shape), numbers.narrower(&shape));
            let example = if numbers.chance() {
                example.of(numbers.positive(&a))
            } else {
                example.with(Argument::Absent)
            };
            let example = example.with(reduction);
            if numbers.chance() { example.of(numbers.positive(&b)) } else { example.with(Argument::Absent) }
        }
    }
}
