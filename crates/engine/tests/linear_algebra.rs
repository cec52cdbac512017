//! Linear algebra on batches: each matrix by itself, clear errors, and a bound on what one matrix may take.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod random_examples;

use pellucid_engine::operations::gradients::vjp;
use pellucid_engine::operations::{Noise, OperationError, evaluate};
use pellucid_engine::tensor::Tensor;
use pellucid_graph::rules::RuleContext;
use pellucid_graph::{Argument, DType, NodeId, Operation, OperationKind, Scalar, TensorType, Value};
use random_examples::Numbers;

fn value(place: u32) -> Argument {
    Argument::Value(Value::from(NodeId(place)))
}

fn run(kind: OperationKind, inputs: &[Tensor]) -> Result<Vec<Tensor>, OperationError> {
    let arguments = (0..inputs.len() as u32).map(value).collect();
    let lookup = |value: Value| inputs[value.node.index()].clone();
    evaluate(&Operation { kind, arguments }, &lookup, &Noise::default())
}

fn at(tensor: &Tensor, place: usize) -> Tensor {
    Tensor::new(tensor.data().get(place).unwrap(), tensor.dtype()).unwrap()
}

const KINDS: [OperationKind; 12] = [
    OperationKind::Qr,
    OperationKind::Svd,
    OperationKind::Eigh,
    OperationKind::Cholesky,
    OperationKind::Solve,
    OperationKind::Lstsq,
    OperationKind::Inv,
    OperationKind::Pinv,
    OperationKind::Det,
    OperationKind::SlogDet,
    OperationKind::MatrixExp,
    OperationKind::Orthogonal,
];

/// Positive definite matrices, so that every operation takes them.
fn definite(numbers: &mut Numbers, count: usize, size: usize) -> Tensor {
    let noise = numbers.normal(&[count, size, size]).to_vec_f64().unwrap();
    let element = |place: usize| {
        let (matrix, row, column) = (place / (size * size), place / size % size, place % size);
        let of = |row: usize, column: usize| noise[(matrix * size + row) * size + column];
        let product: f64 = (0..size).map(|inner| of(row, inner) * of(column, inner)).sum();
        if row == column { product + 1.0 } else { product }
    };
    Tensor::from_f64((0..count * size * size).map(element).collect(), &[count, size, size]).unwrap()
}

#[test]
fn a_matrix_is_the_same_alone_and_in_a_batch_forth_and_back() {
    let mut numbers = Numbers::new(3, "batch");
    for (kind, size) in KINDS.into_iter().flat_map(|kind| [(kind, 3), (kind, 17)]) {
        for dtype in [DType::F64, DType::F32] {
            let mut inputs = vec![definite(&mut numbers, 3, size).cast(dtype).unwrap()];
            if matches!(kind, OperationKind::Solve | OperationKind::Lstsq) {
                inputs.push(numbers.normal(&[3, size, 2]).cast(dtype).unwrap());
            }
            let arguments = (0..inputs.len() as u32).map(value).collect();
            let operation = Operation { kind, arguments };
            let wanted = vec![true; inputs.len()];
            let all = run(kind, &inputs).unwrap();
            let cotangents: Vec<Tensor> =
                all.iter().map(|output| numbers.normal(output.shape()).cast(dtype).unwrap()).collect();
            let some = |tensors: &[Tensor]| tensors.iter().cloned().map(Some).collect::<Vec<_>>();
            let back = vjp(&operation, &inputs, &all, &some(&cotangents), &wanted).unwrap();
            for place in 0..3 {
                let one: Vec<Tensor> = inputs.iter().map(|input| at(input, place)).collect();
                let alone = run(kind, &one).unwrap();
                for (all, alone) in all.iter().zip(&alone) {
                    assert!(at(all, place).is_same_bits(alone), "{} of size {size}", kind.name());
                }
                let own: Vec<Tensor> = cotangents.iter().map(|cotangent| at(cotangent, place)).collect();
                let alone = vjp(&operation, &one, &alone, &some(&own), &wanted).unwrap();
                for (all, alone) in back.iter().zip(&alone) {
                    let (all, alone) = (all.as_ref().unwrap(), alone.as_ref().unwrap());
                    assert!(at(all, place).is_same_bits(alone), "the gradient of {}", kind.name());
                }
            }
        }
    }
}

#[test]
fn what_has_no_answer_says_which_matrix_and_what_to_do() {
    let singular = Tensor::from_f64(vec![1.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 4.0], &[2, 2, 2]).unwrap();
    let error = run(OperationKind::Inv, std::slice::from_ref(&singular)).unwrap_err();
    assert_eq!(
        error.message,
        "inv: the matrix is singular: its column 1 depends on those before it (matrix 1 of the batch)"
    );
    assert!(error.hint.unwrap().contains("`pinv`"));
    let error = run(OperationKind::Cholesky, &[at(&singular, 1)]).unwrap_err();
    assert_eq!(
        error.message,
        "cholesky: the matrix is not positive definite: its leading minor of order 2 is not positive"
    );
    let infinite = Tensor::from_f64(vec![1.0, f64::INFINITY, 0.0, 1.0], &[2, 2]).unwrap();
    for kind in KINDS.into_iter().filter(|kind| !matches!(kind, OperationKind::Solve | OperationKind::Lstsq))
    {
        // Those that read the lower triangle do not see it.
        if !matches!(kind, OperationKind::Eigh | OperationKind::Cholesky) {
            let error = run(kind, std::slice::from_ref(&infinite)).unwrap_err();
            assert!(error.message.contains("NaN or an infinity"), "{}: {error}", kind.name());
        }
    }
}

#[test]
fn a_matrix_too_large_to_wait_for_is_refused_before_anything_runs() {
    let rule = |kind: OperationKind, shape: &[u64]| {
        let mut operation = Operation { kind, arguments: vec![value(0)] };
        if kind == OperationKind::Svd {
            operation.arguments.push(Argument::Scalar(Scalar::Bool(false)));
        }
        let type_of = |_: Value| TensorType::known(DType::F32, shape);
        let mut context = RuleContext { operation: &operation, type_of: &type_of, next_symbol: &mut 0 };
        kind.definition().typed(&mut context)
    };
    let error = rule(OperationKind::Svd, &[2, 8192, 8192]).unwrap_err();
    assert!(error.message.starts_with("`svd` of a matrix [8192, 8192] takes 10995116277760 operations"));
    assert!(rule(OperationKind::Svd, &[2, 768, 768]).is_ok());
    assert!(rule(OperationKind::Inv, &[2048, 2048]).is_ok());
    assert!(rule(OperationKind::Svd, &[1 << 20, 64]).is_err());
    // Many small ones are priced, not refused.
    assert!(rule(OperationKind::Svd, &[1 << 16, 64, 64]).unwrap().flops > 1 << 36);
}
