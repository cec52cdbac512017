//! What an operation allocates is no more than its results and the room that its price has for the way to them.
//!
//! The one test of this binary: all that the process allocates is counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use peak_alloc::PeakAlloc;
use pellucid_engine::operations::{Noise, evaluate};
use pellucid_engine::tensor::Tensor;
use pellucid_graph::rules::room::working_bytes;
use pellucid_graph::{
    Argument, DType, IndexItem, NodeId, Operation, OperationKind, Scalar, TensorType, Value,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes that an operation may take beside what it has room for: for its arguments, and for what the pool keeps.
const LITTLE: u64 = 1 << 17;

fn type_of(tensor: &Tensor) -> TensorType {
    let shape: Vec<u64> = tensor.shape().iter().map(|&size| size as u64).collect();
    TensorType::known(tensor.dtype(), &shape)
}

/// A tensor of ones and zeros, the diagonals of whose matrices are larger.
fn tensor(dtype: DType, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let columns = shape.last().copied().unwrap_or(1);
    let number = |at: usize| {
        f64::from(u8::from(at.is_multiple_of(3)))
            + f64::from(u8::from(at / columns % columns == at % columns))
    };
    let number = |at: usize| if dtype.is_float() { number(at) } else { 0.0 };
    Tensor::from_f64((0..count).map(number).collect(), shape).unwrap().cast(dtype).unwrap()
}

/// An argument by what stands for it: `v0` a value, `v0,v1` a list of them, `@v0,v1` an index, a number, a list of whole numbers in brackets,
/// a number type, or a text.
fn argument(text: &str) -> Argument {
    let value = |name: &str| Value::from(NodeId(name.trim_start_matches('v').parse().unwrap()));
    if let Some(items) = text.strip_prefix('@') {
        return Argument::Index(items.split(',').map(|item| IndexItem::Tensor(value(item))).collect());
    }
    if let Some(places) = text.strip_prefix('[') {
        let places = places.trim_end_matches(']').split(',');
        return Argument::Integers(places.map(|place| place.parse().unwrap()).collect());
    }
    if text.starts_with('v') && text.contains(',') {
        return Argument::Values(text.split(',').map(value).collect());
    }
    if text.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok()) {
        return Argument::Value(value(text));
    }
    if let Some(dtype) = DType::from_name(text) {
        return Argument::DType(dtype);
    }
    match (text.parse::<i64>(), text) {
        (Ok(number), _) => Argument::Scalar(Scalar::Int(number)),
        (_, "true") => Argument::Scalar(Scalar::Bool(true)),
        _ => Argument::Text(text.to_owned()),
    }
}

fn operation(name: &str, given: &[(&str, &str)]) -> Operation {
    let kind = OperationKind::from_name(name).unwrap();
    let parameters = kind.definition().parameters.iter();
    let arguments = parameters.map(|parameter| {
        let own = given.iter().find(|(name, _)| *name == parameter.name);
        own.map_or_else(|| parameter.default.clone().unwrap_or(Argument::Absent), |(_, text)| argument(text))
    });
    Operation { kind, arguments: arguments.collect() }
}

/// An operation, its arguments, and its operands.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(DType, &'a [usize])]);

/// What is wrong with an operation's room.
fn fault((name, given, operands): &Case<'_>) -> Option<String> {
    let operation = operation(name, given);
    let tensors: Vec<Tensor> = operands.iter().map(|(dtype, shape)| tensor(*dtype, shape)).collect();
    let values = |value: Value| tensors[value.node.index()].clone();
    let what = format!("{name} {given:?} of {operands:?}");
    // Once before: what is kept for later calls is no part of one.
    drop(evaluate(&operation, &values, &Noise::default()).unwrap_or_else(|error| panic!("{what}: {error}")));
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let outputs = evaluate(&operation, &values, &Noise::default()).unwrap();
    let taken = ALLOCATOR.peak_usage().saturating_sub(before) as u64;
    let types: Vec<TensorType> = outputs.iter().map(type_of).collect();
    let made: u64 = outputs.iter().map(Tensor::bytes_len).sum();
    let room = working_bytes(&operation, &|value: Value| type_of(&tensors[value.node.index()]), &types, 1);
    (taken > made + room + LITTLE)
        .then(|| format!("{what}: took {taken}, has room for {room} beside the {made} that it made"))
}

#[test]
fn an_operation_allocates_no_more_than_it_has_room_for() {
    use DType::{Bf16, Bool, F16, F32, F64, I32, I64, U8};
    const N: usize = 1 << 18;
    let two = &[("input", "v0"), ("other", "v1")][..];
    let one = &[("input", "v0")][..];
    let cases: &[Case<'_>] = &[
        ("add", two, &[(U8, &[N]), (U8, &[N])]),
        ("add", two, &[(F32, &[N]), (F32, &[N])]),
        ("mul", two, &[(Bf16, &[N]), (Bf16, &[N])]),
        ("sub", two, &[(U8, &[N]), (F64, &[N])]),
        ("div", two, &[(U8, &[N]), (I32, &[N])]),
        ("remainder", two, &[(F16, &[N]), (F32, &[N])]),
        ("eq", two, &[(U8, &[N]), (I32, &[N])]),
        ("logical_and", two, &[(Bool, &[N]), (F32, &[N])]),
        ("isnan", one, &[(F16, &[N])]),
        ("isnan", one, &[(F32, &[N])]),
        ("abs", one, &[(I32, &[N])]),
        ("clamp", &[("input", "v0"), ("min", "0")], &[(U8, &[N])]),
        ("exp", one, &[(F16, &[N])]),
        ("exp", one, &[(Bool, &[N])]),
        ("sin", one, &[(Bf16, &[N])]),
        (
            "where",
            &[("condition", "v0"), ("input", "v1"), ("other", "v2")],
            &[(Bool, &[N]), (U8, &[N]), (F32, &[N])],
        ),
        ("masked_fill", &[("input", "v0"), ("mask", "v1"), ("value", "1")], &[(F32, &[N]), (Bool, &[N])]),
        ("sum", one, &[(U8, &[N])]),
        ("sum", &[("input", "v0"), ("dim", "0")], &[(F32, &[512, 512])]),
        ("sum", &[("input", "v0"), ("dim", "1")], &[(F32, &[N, 1])]),
        ("sum", &[("input", "v0"), ("dtype", "f64")], &[(Bf16, &[N])]),
        ("mean", &[("input", "v0"), ("dim", "0")], &[(Bf16, &[512, 512])]),
        ("amax", &[("input", "v0"), ("dim", "[0]")], &[(U8, &[512, 512])]),
        ("argmax", &[("input", "v0"), ("dim", "0")], &[(I32, &[512, 512])]),
        ("any", &[("input", "v0"), ("dim", "0")], &[(Bool, &[512, 512])]),
        ("logsumexp", &[("input", "v0"), ("dim", "[1]")], &[(F16, &[512, 512])]),
        ("cumsum", &[("input", "v0"), ("dim", "0")], &[(Bf16, &[512, 512])]),
        ("softmax", &[("input", "v0"), ("dim", "0")], &[(F32, &[512, 512])]),
        ("softmax", &[("input", "v0"), ("dim", "1")], &[(Bf16, &[512, 512])]),
        ("layer_norm", &[("input", "v0"), ("normalized_shape", "[512]")], &[(Bf16, &[512, 512])]),
        ("layer_norm", &[("input", "v0"), ("normalized_shape", "[512]")], &[(F32, &[512, 512])]),
        (
            "cosine_similarity",
            &[("x1", "v0"), ("x2", "v1"), ("dim", "2")],
            &[(F32, &[512, 1, 4]), (F32, &[1, 512, 4])],
        ),
        ("cross_entropy", &[("input", "v0"), ("target", "v1")], &[(F32, &[512, 512]), (I64, &[512])]),
        ("nll_loss", &[("input", "v0"), ("target", "v1")], &[(F32, &[4, 2, N / 8]), (I32, &[4, N / 8])]),
        ("mse_loss", &[("input", "v0"), ("target", "v1")], &[(Bf16, &[N]), (Bf16, &[1])]),
        ("kl_div", &[("input", "v0"), ("target", "v1"), ("reduction", "none")], &[(F32, &[N]), (F32, &[N])]),
        (
            "binary_cross_entropy_with_logits",
            &[("input", "v0"), ("target", "v1"), ("weight", "v2"), ("pos_weight", "v3")],
            &[(F32, &[512, 512]), (F32, &[512, 512]), (F32, &[512, 512]), (F32, &[512])],
        ),
        ("matmul", two, &[(Bf16, &[512, 512]), (Bf16, &[512, 512])]),
        ("matmul", two, &[(F32, &[512, 512]), (F32, &[512, 512])]),
        ("matmul", two, &[(F32, &[40, 65_536]), (F32, &[65_536, 2])]),
        ("matmul", two, &[(I32, &[N / 4, 2, 2]), (I32, &[N / 4, 2, 2])]),
        ("outer", two, &[(U8, &[512]), (U8, &[512])]),
        (
            "einsum",
            &[("equation", "i,j,i,j->"), ("operands", "v0,v1,v0,v1")],
            &[(F32, &[512]), (F32, &[512])],
        ),
        (
            "einsum",
            &[("equation", "ij,jk->ki"), ("operands", "v0,v1")],
            &[(U8, &[512, 512]), (U8, &[512, 512])],
        ),
        (
            "einsum",
            &[("equation", "ij,ik->jk"), ("operands", "v0,v1")],
            &[(F32, &[512, 512]), (F32, &[512, 512])],
        ),
        (
            "einsum",
            &[("equation", "ii,ij->i"), ("operands", "v0,v1")],
            &[(Bf16, &[512, 512]), (Bf16, &[512, 1])],
        ),
        (
            "einsum",
            &[("equation", "ijk,j->ki"), ("operands", "v0,v1")],
            &[(F64, &[64, 64, 64]), (F64, &[64])],
        ),
        ("svd", one, &[(F32, &[4096, 1, 1])]),
        ("svd", one, &[(F32, &[512, 3, 5])]),
        ("qr", one, &[(F64, &[512, 5, 3])]),
        ("eigh", one, &[(F32, &[512, 4, 4])]),
        ("cholesky", one, &[(F64, &[4096, 1, 1])]),
        ("inv", one, &[(F32, &[4096, 1, 1])]),
        ("pinv", one, &[(F32, &[512, 5, 3])]),
        ("det", one, &[(F32, &[N, 1, 1])]),
        ("slogdet", one, &[(F32, &[N, 1, 1])]),
        ("solve", &[("A", "v0"), ("B", "v1")], &[(F32, &[4096, 1, 1]), (F32, &[4096, 1, 1])]),
        ("lstsq", &[("A", "v0"), ("B", "v1")], &[(F32, &[512, 4, 3]), (F32, &[512, 4, 2])]),
        ("matrix_exp", one, &[(F32, &[512, 3, 3])]),
        ("orthogonal", &[("input", "v0"), ("orthogonal_map", "householder")], &[(F32, &[64, 64])]),
        ("orthogonal", &[("input", "v0"), ("orthogonal_map", "cayley")], &[(F32, &[256, 16])]),
        ("orthogonal", one, &[(F32, &[128, 64])]),
        ("svd", one, &[(F32, &[128, 128])]),
        ("sort", &[("input", "v0"), ("dim", "0")], &[(U8, &[512, 512])]),
        ("argsort", &[("input", "v0"), ("dim", "0")], &[(F64, &[512, 512])]),
        ("topk", &[("input", "v0"), ("k", "3"), ("dim", "0")], &[(Bf16, &[512, 512])]),
        ("gather", &[("input", "v0"), ("dim", "0"), ("index", "v1")], &[(F32, &[4]), (I32, &[N])]),
        (
            "take_along_dim",
            &[("input", "v0"), ("indices", "v1"), ("dim", "1")],
            &[(F32, &[512, 4]), (I64, &[1, 512])],
        ),
        (
            "index_select",
            &[("input", "v0"), ("dim", "1"), ("index", "v1")],
            &[(F32, &[4, 4, 4]), (I32, &[N / 16])],
        ),
        (
            "scatter",
            &[("input", "v0"), ("dim", "0"), ("index", "v1"), ("src", "1")],
            &[(F32, &[4]), (I32, &[N])],
        ),
        (
            "scatter_add",
            &[("input", "v0"), ("dim", "0"), ("index", "v1"), ("src", "v2")],
            &[(U8, &[N]), (I64, &[N]), (U8, &[N])],
        ),
        (
            "getitem",
            &[("input", "v0"), ("index", "@v1,v2")],
            &[(U8, &[1, 1]), (I64, &[512, 1]), (I64, &[1, 512])],
        ),
        (
            "index_put",
            &[("input", "v0"), ("index", "@v1,v2"), ("values", "1")],
            &[(U8, &[1, 1, 1]), (I64, &[512, 1]), (I64, &[1, 512])],
        ),
        (
            "index_put",
            &[("input", "v0"), ("index", "@v1"), ("values", "v2"), ("accumulate", "true")],
            &[(Bf16, &[N, 2]), (I64, &[N]), (F32, &[2])],
        ),
        ("index_put", &[("input", "v0"), ("index", "@v1"), ("values", "1")], &[(F32, &[N]), (Bool, &[N])]),
        ("cat", &[("tensors", "v0,v1,v0")], &[(U8, &[N]), (F32, &[N])]),
        ("roll", &[("input", "v0"), ("shifts", "[1,2]"), ("dims", "[0,1]")], &[(F32, &[512, 512])]),
        (
            "adam_step",
            &[
                ("parameter", "v0"),
                ("gradient", "v0"),
                ("exp_avg", "v0"),
                ("exp_avg_sq", "v0"),
                ("step", "1"),
                ("lr", "1"),
            ],
            &[(F32, &[N])],
        ),
        ("sgd_step", &[("parameter", "v0"), ("gradient", "v0"), ("lr", "1")], &[(F32, &[N])]),
        ("clip_grad_norm", &[("gradients", "v0,v1"), ("max_norm", "1")], &[(F32, &[N]), (Bf16, &[N])]),
        ("one_hot", &[("input", "v0"), ("num_classes", "2")], &[(I32, &[N])]),
        ("to", &[("input", "v0"), ("dtype", "f32")], &[(U8, &[N])]),
        ("to", &[("input", "v0"), ("dtype", "bool")], &[(Bf16, &[N])]),
    ];
    // On one thread: what each keeps for its next product is no part of one, and is there from the first on.
    let faults =
        pellucid_kernels::pool::with_threads(1, || cases.iter().filter_map(fault).collect::<Vec<_>>());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
