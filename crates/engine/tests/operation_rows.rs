//! Rows long enough for every fast path, against plain definitions; and a row alone against the same row among others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pellucid_engine::operations::{Noise, evaluate};
use pellucid_engine::tensor::Tensor;
use pellucid_graph::{Argument, DType, IndexItem, NodeId, Operation, OperationKind, Scalar, Value};
use proptest::prelude::*;

fn run(name: &str, inputs: &[Tensor], arguments: Vec<Argument>) -> Vec<Tensor> {
    let values = (0..inputs.len()).map(|at| Argument::Value(Value::from(NodeId(at as u32))));
    run_with(name, inputs, values.chain(arguments).collect())
}

fn run_with(name: &str, inputs: &[Tensor], arguments: Vec<Argument>) -> Vec<Tensor> {
    let operation = Operation { kind: OperationKind::from_name(name).unwrap(), arguments };
    evaluate(&operation, &|value| inputs[value.node.index()].clone(), &Noise::default()).unwrap()
}

fn integer(value: i64) -> Argument {
    Argument::Scalar(Scalar::Int(value))
}

fn truth(value: bool) -> Argument {
    Argument::Scalar(Scalar::Bool(value))
}

fn tensor(elements: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_f32(elements.to_vec(), shape).unwrap()
}

/// Few different values, so that many are equal; now and then NaN, infinities and −0.
fn element() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => (-6i8..6).prop_map(|step| f32::from(step) / 4.0),
        1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0]),
    ]
}

fn larger(a: f32, b: f32) -> bool {
    if a.is_nan() { !b.is_nan() } else { a > b }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_is_that_of_a_stable_sort(row in prop::collection::vec(element(), 1..150), k in 0usize..150, wide: bool) {
        let input = tensor(&row, &[row.len()]).cast(if wide { DType::F64 } else { DType::F32 }).unwrap();
        for descending in [false, true] {
            let mut expected: Vec<i64> = (0..row.len() as i64).collect();
            expected.sort_by(|&a, &b| {
                let (a, b) = (row[a as usize], row[b as usize]);
                let order = larger(a, b).cmp(&larger(b, a));
                if descending { order.reverse() } else { order }
            });
            let sorted = run("sort", std::slice::from_ref(&input), vec![integer(-1), truth(descending)]);
            prop_assert_eq!(&sorted[1].to_vec_i64().unwrap(), &expected);
            let k = k.min(row.len());
            let arguments = vec![integer(k as i64), integer(0), truth(descending)];
            let top = run("topk", std::slice::from_ref(&input), arguments);
            prop_assert_eq!(&top[1].to_vec_i64().unwrap(), &expected[..k]);
            let picked: Vec<u64> = expected[..k].iter().map(|&at| f64::from(row[at as usize]).to_bits()).collect();
            let values: Vec<u64> = top[0].to_vec_f64().unwrap().iter().map(|value| value.to_bits()).collect();
            prop_assert_eq!(values, picked);
        }
        let first = |better: &dyn Fn(f32, f32) -> bool| {
            (0..row.len()).find(|&at| !row.iter().any(|&other| better(other, row[at]))).unwrap() as i64
        };
        let largest = run("argmax", std::slice::from_ref(&input), vec![integer(0)]);
        prop_assert_eq!(largest[0].to_vec_i64().unwrap(), [first(&larger)]);
        // NaN is the extreme on both sides.
        let smaller = |a: f32, b: f32| if a.is_nan() { !b.is_nan() } else { a < b };
        let smallest = run("argmin", std::slice::from_ref(&input), vec![integer(0)]);
        prop_assert_eq!(smallest[0].to_vec_i64().unwrap(), [first(&smaller)]);
    }

    #[test]
    fn transposed_views_are_read_in_their_own_order(rows in 1usize..60, columns in 1usize..60, layers in 1usize..4) {
        let count = layers * rows * columns;
        let elements: Vec<i64> = (0..count as i64).collect();
        let input = Tensor::from_i64(elements, &[layers, rows, columns]).unwrap();
        for (first, second) in [(1, 2), (0, 2), (0, 1)] {
            let turned = run("transpose", std::slice::from_ref(&input), vec![integer(first), integer(second)]);
            let mut expected = Vec::new();
            let mut sizes = [layers, rows, columns];
            sizes.swap(first as usize, second as usize);
            for a in 0..sizes[0] {
                for b in 0..sizes[1] {
                    for c in 0..sizes[2] {
                        let mut at = [a, b, c];
                        at.swap(first as usize, second as usize);
                        expected.push(((at[0] * rows + at[1]) * columns + at[2]) as i64);
                    }
                }
            }
            prop_assert_eq!(turned[0].to_vec_i64().unwrap(), expected);
        }
    }

    #[test]
    fn a_row_is_the_same_alone_and_among_others(
        (rows, width) in (2usize..40, 1usize..200),
        columns in 1usize..100,
        seed: u32,
    ) {
        let number = |at: usize| {
            let mixed = (at as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
            (mixed >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let all: Vec<f32> = (0..rows * width).map(number).collect();
        let other = tensor(&(0..width * columns).map(|at| number(at + 7)).collect::<Vec<_>>(), &[width, columns]);
        let vector = tensor(&(0..width).map(|at| number(at + 3)).collect::<Vec<_>>(), &[width]);
        let normalised = vec![integer(width as i64)];
        let value = |at: u32| Argument::Value(Value::from(NodeId(at)));
        let equation = |text: &str| {
            let operands = Argument::Values(vec![Value::from(NodeId(0)), Value::from(NodeId(1))]);
            vec![Argument::Text(text.to_owned()), operands]
        };
        let cases: Vec<(&str, Tensor, Vec<Argument>)> = vec![
            ("softmax", vector.clone(), vec![value(0), integer(-1)]),
            ("log_softmax", vector.clone(), vec![value(0), integer(-1)]),
            ("layer_norm", vector.clone(), [vec![value(0)], normalised.clone(), vec![value(1)]].concat()),
            ("rms_norm", vector.clone(), [vec![value(0)], normalised, vec![value(1)]].concat()),
            ("sum", vector.clone(), vec![value(0), integer(-1)]),
            ("mean", vector.clone(), vec![value(0), integer(-1)]),
            ("var", vector.clone(), vec![value(0), integer(-1)]),
            ("norm", vector.clone(), vec![value(0), integer(2), integer(-1)]),
            ("logsumexp", vector.clone(), vec![value(0), integer(-1)]),
            ("cumsum", vector.clone(), vec![value(0), integer(-1)]),
            ("gelu", vector.clone(), vec![value(0)]),
            ("exp", vector.clone(), vec![value(0)]),
            ("tanh", vector.clone(), vec![value(0)]),
            ("matmul", vector.clone(), vec![value(0), value(1)]),
            ("einsum", vector.clone(), equation("ri,i->r")),
            ("matmul", other.clone(), vec![value(0), value(1)]),
            ("einsum", other.clone(), equation("ri,ic->rc")),
        ];
        let together = tensor(&all, &[rows, width]);
        let last = IndexItem::Integer(rows as i64 - 1);
        for (name, second, arguments) in cases {
            let many = run_with(name, &[together.clone(), second.clone()], arguments.clone()).remove(0);
            let one = tensor(&all[(rows - 1) * width..], &[1, width]);
            let alone = run_with(name, &[one, second], arguments).remove(0);
            let many = run("getitem", &[many], vec![Argument::Index(vec![last.clone()])]).remove(0);
            let alone = run("getitem", &[alone], vec![Argument::Index(vec![IndexItem::Integer(0)])]).remove(0);
            prop_assert!(many.is_same_bits(&alone), "{}", name);
        }
    }
}
