//! Random operations: every one of the table, on whatever values there are.

use pellucid_graph::operation;
use pellucid_graph::operation::ParameterKind;
use pellucid_graph::{Argument, DType, IndexItem, OperationKind, Scalar, Size};

use super::{Builder, Draft, Known, NodeKind, number, whole};

/// Operations that want matrices of a kind that values at hand seldom are.
const LINEAR_ALGEBRA: [&str; 12] = [
    "qr",
    "svd",
    "eigh",
    "cholesky",
    "solve",
    "lstsq",
    "inv",
    "pinv",
    "det",
    "slogdet",
    "matrix_exp",
    "orthogonal",
];

/// A symmetric, positive definite matrix that depends on a value, wherever a matrix is asked for: 2 I + tanh(mean) / 10.
fn of_matrices(
    definition: &operation::OperationDefinition,
    input: &Known,
    draft: &mut Draft,
) -> Vec<Argument> {
    let value =
        draft.operation(OperationKind::To, vec![Argument::Value(input.value), Argument::DType(DType::F32)]);
    let mean = draft.operation(OperationKind::Mean, vec![Argument::Value(value)]);
    let bounded = draft.operation(OperationKind::Tanh, vec![Argument::Value(mean)]);
    let small = draft.operation(OperationKind::Mul, vec![Argument::Value(bounded), number(0.1)]);
    let unit = draft.operation(OperationKind::Eye, vec![whole(3)]);
    let unit = draft.operation(OperationKind::Mul, vec![Argument::Value(unit), number(2.0)]);
    let matrix = draft.operation(OperationKind::Add, vec![Argument::Value(unit), Argument::Value(small)]);
    let of = |parameter: &operation::Parameter| parameter.default.clone().unwrap_or(Argument::Value(matrix));
    definition.parameters.iter().map(of).collect()
}

impl Builder<'_> {
    pub(super) fn some_operation(&mut self) {
        let kind = self.dice.of(operation::table()).kind;
        self.an_operation(kind);
    }

    /// That operation, of values that there are.
    pub(super) fn an_operation(&mut self, kind: OperationKind) {
        let definition = kind.definition();
        let wants_integers = matches!(definition.kind, OperationKind::OneHot);
        let wants_classes = matches!(definition.kind, OperationKind::CrossEntropy | OperationKind::NllLoss);
        let wants_matrix = matches!(
            definition.kind,
            OperationKind::Tril | OperationKind::Triu | OperationKind::Diagonal | OperationKind::Matmul
        );
        let wants_vector = definition.kind == OperationKind::Outer;
        let input = self
            .some_value(|known| {
                (!wants_matrix || known.shape.len() >= 2)
                    && (!wants_vector || known.shape.len() == 1)
                    && (!wants_integers || !known.dtype.is_float())
                    && (!wants_classes
                        || known.dtype.is_float() && known.shape.len() == 2 && !known.shape.contains(&None))
            })
            .or_else(|| self.some_value(|_| true));
        let Some(input) = input else { return self.getter() };
        let mut draft = self.draft();
        let arguments = if LINEAR_ALGEBRA.contains(&definition.name) && input.dtype.is_float() {
            Some(of_matrices(definition, &input, &mut draft))
        } else {
            self.arguments(definition, &input, &mut draft)
        };
        let Some(arguments) = arguments else { return };
        draft.add(NodeKind::Operation(pellucid_graph::Operation { kind: definition.kind, arguments }));
        self.put(draft);
    }

    fn arguments(
        &mut self,
        definition: &operation::OperationDefinition,
        input: &Known,
        draft: &mut Draft,
    ) -> Option<Vec<Argument>> {
        let kind = definition.kind;
        let mut arguments: Vec<Argument> = Vec::new();
        for (place, parameter) in definition.parameters.iter().enumerate() {
            if let Some(default) = &parameter.default
                && self.dice.chance(0.4)
                && !(kind == OperationKind::Full && parameter.name == "dtype")
            {
                arguments.push(default.clone());
                continue;
            }
            let argument = match self.special(kind, parameter.name, input, &arguments, draft) {
                Some(argument) => argument,
                None => self.by_kind(parameter.kind, place, kind, input, draft)?,
            };
            arguments.push(argument);
        }
        Some(arguments)
    }

    /// Arguments that only some values make sense for.
    fn special(
        &mut self,
        kind: OperationKind,
        name: &str,
        input: &Known,
        before: &[Argument],
        draft: &mut Draft,
    ) -> Option<Argument> {
        use OperationKind::*;
        let rank = input.shape.len();
        let dim = || match before.get(1) {
            Some(Argument::Scalar(scalar)) => {
                let dim = scalar.as_f64() as i64;
                Some(if dim < 0 { dim + rank as i64 } else { dim } as usize)
            }
            _ => None,
        };
        Some(match (kind, name) {
            (Gather | Scatter | ScatterAdd | TakeAlongDim, "index" | "indices") => {
                // For `take_along_dim` the dimension comes after: places that every dimension has.
                let shape: Vec<u64> = input.shape.iter().map(|size| size.unwrap_or(1)).collect();
                let along = match dim() {
                    Some(dim) => shape.get(dim).copied()?,
                    None => shape.iter().copied().min()?,
                };
                // And there sizes of 1 fit whatever they are beside.
                let most = if kind == TakeAlongDim && self.dice.chance(0.75) { 1 } else { 3 };
                let own: Vec<u64> = shape.iter().map(|&size| self.dice.below(size.min(most)) + 1).collect();
                self.places(&own, along, draft)
            }
            (IndexSelect, "index") => {
                let along = input.shape.get(dim()?).copied().flatten()?;
                let count = self.dice.range(1, 4);
                self.places(&[count], along, draft)
            }
            (ScatterAdd, "src") => Argument::Value(input.value),
            (Scatter, "src") if self.dice.chance(0.5) => Argument::Value(input.value),
            (OneHot, "num_classes") => whole(200),
            (OneHot, "input") => {
                let capped = draft.operation(
                    Clamp,
                    vec![Argument::Value(input.value), whole(0), whole(if self.fails() { 300 } else { 150 })],
                );
                Argument::Value(capped)
            }
            (FloorDivide | Remainder, "other") => match input.dtype.is_float() {
                true => number(0.75),
                false => whole(if self.fails() { 0 } else { 3 }),
            },
            (Pow, "exponent") => match self.dice.below(3) {
                0 => whole(2),
                1 => number(0.5),
                _ => number(3.0),
            },
            (Where, "condition") | (MaskedFill, "mask") => {
                Argument::Value(draft.operation(Gt, vec![Argument::Value(input.value), number(0.1)]))
            }
            (Where, "input") => Argument::Value(input.value),
            (CrossEntropy | NllLoss, "target") => {
                let count = input.shape.first().copied().flatten()?;
                let classes = input.shape.get(1).copied().flatten()?.min(4);
                let classes: Vec<i64> = (0..count).map(|_| self.dice.below(classes.max(1)) as i64).collect();
                Argument::Value(draft.integers(&[count], classes.into_iter()))
            }
            (CrossEntropy | NllLoss | BinaryCrossEntropyWithLogits, "weight" | "pos_weight") => {
                Argument::Absent
            }
            (CrossEntropy, "ignore_index") => whole(*self.dice.of(&[-100, 1])),
            (CrossEntropy, "label_smoothing") => number(0.25),
            (KlDiv | MseLoss | BinaryCrossEntropyWithLogits, "target") | (CosineSimilarity, "x2") => {
                let same = |known: &Known| known.shape == input.shape && known.dtype == input.dtype;
                Argument::Value(self.some_value(same)?.value)
            }
            (_, "reduction") => Argument::Text((*self.dice.of(&["mean", "sum", "none"])).into()),
            (SgdStep | AdamStep, "gradient" | "momentum_buffer" | "exp_avg" | "exp_avg_sq") => {
                Argument::Value(input.value)
            }
            (SgdStep, "nesterov") => Argument::Scalar(Scalar::Bool(false)),
            (SgdStep | AdamStep, "lr") => number(0.125),
            (AdamStep, "step") => whole(self.dice.range(1, 5) as i64),
            (SgdStep | AdamStep, "momentum" | "dampening" | "weight_decay" | "beta1" | "beta2") => {
                number(0.5)
            }
            (AdamStep, "eps") => number(0.001),
            (ClipGradNorm, "max_norm") => number(0.5),
            (ClipGradNorm, "norm_type") => number(2.0),
            (LayerNorm | RmsNorm, "normalized_shape") => {
                let last = input.shape.last().copied().flatten()?;
                Argument::Integers(vec![last as i64])
            }
            (LayerNorm | RmsNorm, "weight" | "bias") => Argument::Absent,
            (Gelu, "approximate") => Argument::Text((*self.dice.of(&["none", "tanh"])).into()),
            (Matmul, "other") => {
                let turned =
                    draft.operation(Transpose, vec![Argument::Value(input.value), whole(-1), whole(-2)]);
                Argument::Value(turned)
            }
            (Einsum, "equation") => {
                let text = match rank {
                    1 => *self.dice.of(&["a,a->", "a,b->ab", "a,a->a"]),
                    2 => *self.dice.of(&["ab,ab->a", "ab,cb->ac", "ab,ab->ba"]),
                    3 => *self.dice.of(&["abc,abc->ab", "abc,abd->acd", "abc,adc->abd"]),
                    4 => *self.dice.of(&["abcd,abed->abce", "abcd,abcd->abd", "abcd,abcd->dcba"]),
                    _ => return None,
                };
                Argument::Text(text.into())
            }
            (Einsum, "operands") => Argument::Values(vec![input.value, input.value]),
            (Outer, "other") => Argument::Value(input.value),
            (Cat | Stack, "tensors") => {
                let count = self.dice.range(1, 4);
                let same = |known: &Known| known.shape == input.shape;
                let others = (1..count).filter_map(|_| self.some_value(same)).map(|known| known.value);
                let others: Vec<_> = others.collect();
                Argument::Values(std::iter::once(input.value).chain(others).collect())
            }
            (Reshape, "shape") => {
                let sizes: Vec<i64> = match self.dice.below(3) {
                    0 => vec![-1],
                    1 => vec![1, -1],
                    _ => input.shape.iter().rev().map(|size| size.map_or(-1, |size| size as i64)).collect(),
                };
                Argument::Sizes(sizes.into_iter().map(Size::Literal).collect())
            }
            (Unflatten, "sizes") => {
                Argument::Sizes(vec![Size::Literal(*self.dice.of(&[1, 2])), Size::Literal(-1)])
            }
            (Expand, "size") => {
                let sizes = (0..rank).map(|_| Size::Literal(-1));
                let more = self.dice.range(1, 3) as i64;
                Argument::Sizes(std::iter::once(Size::Literal(more)).chain(sizes).collect())
            }
            (Repeat, "repeats") => {
                Argument::Integers((0..rank.max(1)).map(|_| self.dice.range(1, 3) as i64).collect())
            }
            (Pad, "pad") => Argument::Integers((0..2).map(|_| self.dice.below(3) as i64).collect()),
            (Permute, "dims") => {
                let mut dims: Vec<i64> = (0..rank as i64).collect();
                for at in (1..dims.len()).rev() {
                    dims.swap(at, self.dice.below(at as u64 + 1) as usize);
                }
                Argument::Integers(dims)
            }
            (MoveDim, "source" | "destination") => {
                Argument::Integers(vec![self.dice.below(rank.max(1) as u64) as i64])
            }
            (Roll, "shifts" | "dims") => Argument::Integers(vec![self.dice.below(rank.max(1) as u64) as i64]),
            (Split, "split_size") => Argument::Integers(vec![self.dice.range(1, 4) as i64]),
            (Chunk, "chunks") => whole(self.dice.range(1, 4) as i64),
            (TopK, "k") => whole(1),
            (Diagonal, "dim1") => whole(-2),
            (Diagonal, "dim2") => whole(-1),
            (Arange, "start") => whole(0),
            (Arange, "end") => whole(self.dice.range(1, 8) as i64),
            (Arange, "step") => whole(self.dice.range(1, 3) as i64),
            (Linspace, "steps") | (Eye, "n" | "m") | (Randperm, "n") => whole(self.dice.range(1, 6) as i64),
            (Randint, "low") => whole(0),
            (Randint, "high") => whole(7),
            (_, "size") if matches!(kind, Zeros | Ones | Full | Randn | Rand | Randint) => {
                // Often the size of another value.
                let sizes = (0..rank.min(4)).map(|dimension| match input.shape[dimension] {
                    Some(size) if self.dice.chance(0.5) => Size::Literal(size as i64),
                    _ => Size::Of { value: input.value, dimension: dimension as i64 },
                });
                Argument::Sizes(sizes.collect())
            }
            (_, "dtype") => {
                let floats = [DType::F32, DType::F32, DType::F64, DType::Bf16, DType::F16];
                let all =
                    [DType::F32, DType::F64, DType::Bf16, DType::F16, DType::I64, DType::I32, DType::Bool];
                match kind {
                    Randn | Rand | Linspace | Full => Argument::DType(*self.dice.of(&floats)),
                    Randint | Randperm | Arange => Argument::DType(DType::I64),
                    Sum => Argument::Absent,
                    _ => Argument::DType(*self.dice.of(&all)),
                }
            }
            (Clamp, "min") => number(-1.0),
            (Clamp, "max") => number(1.0),
            (Var | Std, "correction") => whole(0),
            (Norm, "p") => whole(*self.dice.of(&[1, 2])),
            (RmsNorm | LayerNorm, "eps") => number(0.001),
            _ => return None,
        })
    }

    /// Whether this operation may fail on its values: at most one of a program may.
    fn fails(&mut self) -> bool {
        let fails = self.wishes.may_fail && !self.danger && self.dice.chance(0.5);
        self.danger |= fails;
        fails
    }

    /// An index tensor of that shape whose elements are places below `along`; now and then one that is not.
    fn places(&mut self, shape: &[u64], along: u64, draft: &mut Draft) -> Argument {
        let count = shape.iter().product::<u64>();
        let mut elements: Vec<i64> = (0..count).map(|_| self.dice.below(along.max(1)) as i64).collect();
        if self.fails()
            && let Some(last) = elements.last_mut()
        {
            *last = along as i64 + 5;
        }
        Argument::Value(draft.integers(shape, elements.into_iter()))
    }

    fn by_kind(
        &mut self,
        parameter: ParameterKind,
        place: usize,
        kind: OperationKind,
        input: &Known,
        draft: &mut Draft,
    ) -> Option<Argument> {
        let rank = input.shape.len() as u64;
        let dim = |builder: &mut Self| builder.dice.below(2 * rank.max(1)) as i64 - rank.max(1) as i64;
        Some(match parameter {
            ParameterKind::Tensor | ParameterKind::Operand if place == 0 => Argument::Value(input.value),
            ParameterKind::Operand if self.dice.chance(0.4) => match input.dtype.is_float() {
                true => number(self.dice.range(1, 40) as f64 / 16.0 - 1.0),
                false => whole(self.dice.range(1, 4) as i64),
            },
            ParameterKind::Tensor | ParameterKind::Operand => {
                let same = |known: &Known| known.shape == input.shape || known.shape.is_empty();
                let other = match self.dice.chance(0.8) {
                    true => self.some_value(same),
                    false => self.some_value(|_| true),
                };
                Argument::Value(other?.value)
            }
            ParameterKind::Tensors => Argument::Values(vec![input.value]),
            ParameterKind::Number => number(self.dice.range(1, 40) as f64 / 16.0 - 1.0),
            ParameterKind::Integer => whole(dim(self)),
            ParameterKind::Integers => Argument::Integers(vec![dim(self)]),
            ParameterKind::Sizes => Argument::Sizes(vec![Size::Literal(-1)]),
            ParameterKind::Boolean => Argument::Scalar(Scalar::Bool(self.dice.chance(0.5))),
            ParameterKind::Text => Argument::Text("none".into()),
            ParameterKind::DType => Argument::DType(DType::F32),
            ParameterKind::Index => {
                let _ = kind;
                Argument::Index(self.index_items(input, draft))
            }
        })
    }

    fn index_items(&mut self, input: &Known, draft: &mut Draft) -> Vec<IndexItem> {
        let mut items = Vec::new();
        let mut tensors = 0;
        let taken = self.dice.below(input.shape.len() as u64 + 1) as usize;
        let from_the_end = self.dice.chance(0.3);
        if from_the_end {
            items.push(IndexItem::Ellipsis);
        }
        let first = if from_the_end { input.shape.len() - taken } else { 0 };
        for &size in &input.shape[first..first + taken] {
            let item = match (self.dice.below(8), size) {
                (0, Some(size)) if tensors < 2 => {
                    tensors += 1;
                    let shape = [self.dice.range(1, 4)];
                    match self.places(&shape, size, draft) {
                        Argument::Value(value) => IndexItem::Tensor(value),
                        _ => IndexItem::Integer(0),
                    }
                }
                (1, _) => IndexItem::NewAxis,
                (2..5, Some(size)) if size > 0 => {
                    let at = self.dice.below(2 * size) as i64 - size as i64;
                    IndexItem::Integer(at)
                }
                (2..5, None) => IndexItem::Integer(-1),
                _ => {
                    let start = self.dice.chance(0.5).then(|| self.dice.below(4) as i64 - 2);
                    let stop = self.dice.chance(0.3).then(|| self.dice.below(9) as i64 - 1);
                    IndexItem::Slice { start, stop, step: self.dice.range(1, 3) as i64 }
                }
            };
            items.push(item);
        }
        if items.is_empty() {
            items.push(IndexItem::Ellipsis);
        }
        items
    }
}
