//! Whatever the arguments, an operation gives tensors or an error; tensors have the types that the rules promise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pellucid_engine::operations::{Noise, evaluate};
use pellucid_engine::tensor::Tensor;
use pellucid_graph::operation::{ParameterKind, table};
use pellucid_graph::rules::RuleContext;
use pellucid_graph::{Argument, DType, IndexItem, NodeId, Operation, Scalar, Size, TensorType, Value};
use proptest::prelude::*;

/// Tensors of every number type and of awkward shapes, some of them views.
fn pool() -> Vec<Tensor> {
    let shapes: [&[usize]; 12] = [
        &[],
        &[1],
        &[3],
        &[4],
        &[0],
        &[2, 3],
        &[3, 3],
        &[3, 1],
        &[2, 0, 3],
        &[2, 3, 4],
        &[1, 2, 1, 3],
        &[5, 2],
    ];
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e30, -1e30];
    let mut pool = Vec::new();
    for (which, shape) in shapes.into_iter().enumerate() {
        for (place, dtype) in DType::ALL.into_iter().enumerate() {
            let count: usize = shape.iter().product();
            let number = |at: usize| match (at + which) % 9 {
                0 if dtype.is_float() => special[(at + place) % special.len()],
                step => step as f64 - 3.0,
            };
            let elements = (0..count).map(number).collect();
            pool.push(Tensor::from_f64(elements, shape).unwrap().cast(dtype).unwrap());
            // Good indices: 0, 1, 2, 0, …
            let small = (0..count).map(|at| (at % 3) as f64).collect();
            pool.push(Tensor::from_f64(small, shape).unwrap().cast(dtype).unwrap());
        }
    }
    let views: Vec<Tensor> = pool
        .iter()
        .filter(|tensor| tensor.rank() >= 2)
        .flat_map(|tensor| {
            let turned = tensor.data().transpose(0, 1).unwrap();
            let cut = tensor.data().narrow(0, tensor.shape()[0] - 1, 1).unwrap();
            let spread = cut.broadcast_left(2).unwrap();
            [turned, cut, spread].map(|view| Tensor::new(view, tensor.dtype()).unwrap())
        })
        .collect();
    pool.extend(views);
    pool
}

/// Decisions, read from bytes; 0 when they are used up.
struct Choices<'a> {
    bytes: std::slice::Iter<'a, u8>,
    tensors: u32,
}

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        let [high, low] = [(); 2].map(|()| usize::from(self.bytes.next().copied().unwrap_or(0)));
        (high * 256 + low) % count
    }

    fn value(&mut self) -> Value {
        Value::from(NodeId(self.below(self.tensors as usize) as u32))
    }

    fn integer(&mut self) -> i64 {
        const FAR: [i64; 5] = [i64::MIN, i64::MAX, i64::MIN + 1, 1 << 40, -(1 << 40)];
        match self.below(12) {
            0 => FAR[self.below(FAR.len())],
            _ => self.below(9) as i64 - 3,
        }
    }

    fn scalar(&mut self) -> Scalar {
        const ODD: [f64; 6] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5, -2.25, 1e300];
        match self.below(4) {
            0 => Scalar::Float(ODD[self.below(ODD.len())]),
            1 => Scalar::Bool(self.below(2) == 1),
            _ => Scalar::Int(self.integer()),
        }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(5)).map(|_| item(self)).collect()
    }

    fn index_item(&mut self) -> IndexItem {
        let some = |this: &mut Self| (this.below(2) == 0).then(|| this.integer());
        match self.below(6) {
            0 => IndexItem::Ellipsis,
            1 => IndexItem::NewAxis,
            2 => IndexItem::Integer(self.integer()),
            3 => IndexItem::Tensor(self.value()),
            _ => IndexItem::Slice { start: some(self), stop: some(self), step: self.integer() },
        }
    }

    fn argument(&mut self, kind: ParameterKind) -> Argument {
        // Now and then something that the parameter does not take.
        let kind = match self.below(40) {
            0 => ParameterKind::Index,
            1 => ParameterKind::Number,
            2 => return Argument::Absent,
            _ => kind,
        };
        match kind {
            ParameterKind::Tensor => Argument::Value(self.value()),
            ParameterKind::Operand if self.below(2) == 0 => Argument::Value(self.value()),
            ParameterKind::Operand | ParameterKind::Number => Argument::Scalar(self.scalar()),
            ParameterKind::Tensors => Argument::Values(self.list(Choices::value)),
            ParameterKind::Integer => Argument::Scalar(Scalar::Int(self.integer())),
            ParameterKind::Integers if self.below(2) == 0 => Argument::Scalar(Scalar::Int(self.integer())),
            ParameterKind::Integers => Argument::Integers(self.list(Choices::integer)),
            ParameterKind::Sizes => Argument::Sizes(self.list(|this| match this.below(4) {
                0 => Size::Of { value: this.value(), dimension: this.integer() },
                _ => Size::Literal(this.integer()),
            })),
            ParameterKind::Boolean => Argument::Scalar(Scalar::Bool(self.below(2) == 1)),
            ParameterKind::Text => {
                const TEXTS: [&str; 12] = [
                    "none",
                    "tanh",
                    "",
                    "->",
                    "ij,jk->ik",
                    "ij,jk",
                    "...i,i...",
                    "ii->i",
                    "i,i->",
                    "ij->ji",
                    "a,b,c",
                    "i...,...->...",
                ];
                Argument::Text(TEXTS[self.below(TEXTS.len())].to_owned())
            }
            ParameterKind::DType => Argument::DType(DType::ALL[self.below(8)]),
            ParameterKind::Index => Argument::Index(self.list(Choices::index_item)),
        }
    }
}

fn type_of(tensor: &Tensor) -> TensorType {
    let shape: Vec<u64> = tensor.shape().iter().map(|&size| size as u64).collect();
    TensorType::known(tensor.dtype(), &shape)
}

/// Where a tensor's elements are stored.
fn storage(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.data().storage_and_layout();
    std::ptr::from_ref(&*storage).addr()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_arguments_give_tensors_of_the_promised_types_or_an_error(bytes in prop::collection::vec(any::<u8>(), 4..80)) {
        thread_local! { static POOL: Vec<Tensor> = pool() }
        POOL.with(|pool| -> Result<(), TestCaseError> {
            let mut choices = Choices { bytes: bytes.iter(), tensors: pool.len() as u32 };
            let definition = &table()[choices.below(table().len())];
            let arguments =
                definition.parameters.iter().map(|parameter| choices.argument(parameter.kind)).collect();
            let operation = Operation { kind: definition.kind, arguments };
            let values = |value: Value| pool[value.node.index()].clone();
            let outputs = evaluate(&operation, &values, &Noise::default());

            let type_of_value = |value: Value| type_of(&pool[value.node.index()]);
            let mut context = RuleContext { operation: &operation, type_of: &type_of_value, next_symbol: &mut 0 };
            if let (Ok(outputs), Ok(typed)) = (outputs, definition.typed(&mut context)) {
                let ours: Vec<TensorType> = outputs.iter().map(type_of).collect();
                prop_assert_eq!(ours, typed.outputs, "{:?}", operation);
                // What is not a view of what there was has been copied or made: that has its price.
                let views: Vec<usize> = pool.iter().map(storage).collect();
                let made = outputs.iter().filter(|output| !views.contains(&storage(output)));
                let made: u64 = made.map(|output| output.elements() as u64).sum();
                prop_assert!(typed.flops >= made, "{:?}: {} for {}", operation, typed.flops, made);
            }
            Ok(())
        })?;
    }
}
