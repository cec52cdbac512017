//! No arguments, however hostile, make a rule panic or answer beyond the limits; slices agree with a plain model.

use std::collections::HashMap;

use pellucid_graph::operation::ParameterKind;
use pellucid_graph::rules::equation::Equation;
use pellucid_graph::rules::index::slice;
use pellucid_graph::rules::{ASSUMED_LENGTH, broadcast, promotion, solve};
use pellucid_graph::shape::Symbol;
use pellucid_graph::{
    Argument, DType, Dimension, IndexItem, NodeId, Operation, Scalar, Size, TensorType, limits, operation,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::{Call, apply};

fn integer() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => -4..8i64,
        1 => select(vec![i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, 1 << 40, 1 << 41, 1 << 62, -(1 << 62)]),
        1 => any::<i64>(),
    ]
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        integer().prop_map(Scalar::Int),
        any::<bool>().prop_map(Scalar::Bool),
        select(vec![0.5, -1.5, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-300])
            .prop_map(Scalar::Float),
    ]
}

fn dimension() -> impl Strategy<Value = Dimension> {
    let number = prop_oneof![8 => 0..5u64, 1 => select(vec![1 << 20, 1 << 40, u64::MAX])];
    let symbol = prop_oneof![(0..3u32).prop_map(Symbol), (0..3u32).prop_map(Symbol::derived)];
    prop_oneof![
        4 => number.clone().prop_map(Dimension::known),
        1 => (symbol, select(vec![1, 1, 2, -1, i64::MAX, i64::MIN]), integer())
            .prop_map(|(symbol, factor, offset)| Dimension::symbol(symbol).times(factor).offset(offset)),
    ]
}

fn tensor_type() -> impl Strategy<Value = TensorType> {
    let dtype = prop_oneof![3 => Just(DType::F32), 2 => Just(DType::I64), 1 => Just(DType::Bool), 1 => select(DType::ALL.to_vec())];
    (dtype, prop::collection::vec(dimension(), 0..5)).prop_map(|(dtype, shape)| TensorType { dtype, shape })
}

/// How many different values there are.
const VALUES: u32 = 4;

fn value() -> BoxedStrategy<pellucid_graph::Value> {
    (0..VALUES).prop_map(|node| NodeId(node).into()).boxed()
}

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![
        3 => integer().prop_map(Size::Literal),
        1 => (value(), integer()).prop_map(|(value, dimension)| Size::Of { value, dimension }),
    ]
}

fn index_item() -> impl Strategy<Value = IndexItem> {
    let bound = || prop::option::of(integer());
    prop_oneof![
        integer().prop_map(IndexItem::Integer),
        (bound(), bound(), prop_oneof![1..3i64, integer()])
            .prop_map(|(start, stop, step)| IndexItem::Slice { start, stop, step }),
        Just(IndexItem::Ellipsis),
        Just(IndexItem::NewAxis),
        value().prop_map(IndexItem::Tensor),
    ]
}

/// An argument of the kind that the parameter takes, more often than not.
fn argument(kind: ParameterKind) -> BoxedStrategy<Argument> {
    let right = match kind {
        ParameterKind::Tensor => value().prop_map(Argument::Value).boxed(),
        ParameterKind::Operand => {
            prop_oneof![value().prop_map(Argument::Value), scalar().prop_map(Argument::Scalar)].boxed()
        }
        ParameterKind::Tensors => prop::collection::vec(value(), 0..4).prop_map(Argument::Values).boxed(),
        ParameterKind::Number => scalar().prop_map(Argument::Scalar).boxed(),
        ParameterKind::Integer => integer().prop_map(|number| Argument::Scalar(Scalar::Int(number))).boxed(),
        ParameterKind::Integers => {
            prop::collection::vec(integer(), 0..5).prop_map(Argument::Integers).boxed()
        }
        ParameterKind::Sizes => prop::collection::vec(size(), 0..10).prop_map(Argument::Sizes).boxed(),
        ParameterKind::Boolean => {
            any::<bool>().prop_map(|truth| Argument::Scalar(Scalar::Bool(truth))).boxed()
        }
        ParameterKind::Text => prop_oneof![
            select(vec!["none", "tanh", "ij,jk->ik", "...i->i", "ii"]).prop_map(str::to_owned),
            "[a-c.,> -]{0,12}",
            any::<String>(),
        ]
        .prop_map(Argument::Text)
        .boxed(),
        ParameterKind::DType => select(DType::ALL.to_vec()).prop_map(Argument::DType).boxed(),
        ParameterKind::Index => prop::collection::vec(index_item(), 0..6).prop_map(Argument::Index).boxed(),
    };
    let any = prop_oneof![
        4 => Just(Argument::Absent),
        1 => scalar().prop_map(Argument::Scalar),
        1 => prop::collection::vec(integer(), 0..5).prop_map(Argument::Integers),
        1 => value().prop_map(Argument::Value),
    ];
    prop_oneof![8 => right, 1 => any].boxed()
}

fn call() -> impl Strategy<Value = Call> {
    let kinds = operation::table().iter().map(|definition| definition.kind).collect::<Vec<_>>();
    select(kinds).prop_flat_map(|kind| {
        let arguments: Vec<_> =
            kind.definition().parameters.iter().map(|parameter| argument(parameter.kind)).collect();
        // Now and then one is missing altogether.
        (0..20usize, prop::collection::vec(tensor_type(), VALUES as usize)).prop_flat_map(
            move |(missing, types)| {
                arguments.clone().prop_map(move |mut arguments| {
                    if missing == 0 {
                        arguments.pop();
                    }
                    Call { operation: Operation { kind, arguments }, types: types.clone() }
                })
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn any_arguments_give_an_answer_within_the_limits(call in call()) {
        match apply(&call) {
            Ok(typed) => {
                prop_assert!(typed.outputs.len() <= limits::LIST_ARGUMENTS);
                for output in &typed.outputs {
                    prop_assert!(output.shape.len() <= limits::DIMENSIONS, "{output}");
                    if let Some(sizes) = output.sizes() {
                        let elements = sizes.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
                        prop_assert!(elements.is_some_and(|count| count <= limits::TENSOR_ELEMENTS), "{output}");
                    }
                    let negative = output.shape.iter().any(|size| size.upper().is_some_and(|most| most < 0));
                    prop_assert!(!negative || call.types.iter().any(|given| given.shape.iter().any(|size| size.upper().is_some_and(|most| most < 0))), "{output}");
                }
            }
            Err(error) => prop_assert!(!error.message.is_empty()),
        }
    }
}

proptest! {
    /// A slice takes the places that a plain walk over the clamped range takes.
    #[test]
    fn slices_agree_with_a_walk(
        size in 0..9u64,
        start in prop::option::of(-12..12i64),
        stop in prop::option::of(-12..12i64),
        step in 1..4u64,
    ) {
        let clamp = |place: i64| (if place < 0 { place + size as i64 } else { place }).clamp(0, size as i64);
        let walked = (clamp(start.unwrap_or(0))..clamp(stop.unwrap_or(size as i64))).step_by(step as usize).count() as u64;
        let (_, length) = slice(&Dimension::known(size), start, stop, step, &mut || Symbol(0));
        prop_assert_eq!(length, Dimension::known(walked));
    }

    /// What a rule says of an unknown length holds for every length.
    #[test]
    fn slices_of_unknown_lengths_hold_for_every_length(
        factor in 1..3i64,
        offset in 0..3i64,
        start in prop::option::of(-4..5i64),
        stop in prop::option::of(-4..5i64),
        step in 1..4u64,
    ) {
        let size = Dimension::symbol(Symbol(0)).times(factor).offset(offset);
        let (first, length) = slice(&size, start, stop, step, &mut || Symbol::derived(0));
        for assumed in 1..20 {
            let known = Dimension::known(size.assume(assumed));
            let (known_first, known_length) = slice(&known, start, stop, step, &mut || Symbol::derived(0));
            for (form, known) in [(&first, &known_first), (&length, &known_length)] {
                if form.terms().iter().all(|term| !term.0.is_derived()) {
                    prop_assert_eq!(form.assume(assumed), known.assume(assumed), "{} at {}", form, assumed);
                }
            }
        }
    }

    /// A solved shape has as many elements, whatever the length.
    #[test]
    fn solved_shapes_have_as_many_elements(
        from in prop::collection::vec(prop_oneof![(1..5u64).prop_map(Dimension::known), Just(Dimension::symbol(Symbol(0)))], 0..4),
        to in prop::collection::vec(prop::option::of(prop_oneof![(1..5u64).prop_map(Dimension::known), Just(Dimension::symbol(Symbol(0)))]), 0..4),
    ) {
        let Ok(solved) = solve::solve(&from, &to, &mut || Symbol::derived(0)) else { return Ok(()) };
        let derived = solved.iter().any(|size| size.terms().iter().any(|term| term.0.is_derived()));
        let assumed_some = from.iter().chain(&solved).any(|size| size.value().is_none());
        let elements = |shape: &[Dimension], length| shape.iter().map(|size| size.assume(length)).product::<u64>();
        if !derived && (to.contains(&None) || !assumed_some) {
            for length in 1..6 {
                prop_assert_eq!(elements(&from, length), elements(&solved, length), "{:?} {:?}", from, solved);
            }
        }
    }

    /// Known shapes broadcast alike by both functions.
    #[test]
    fn broadcasting_known_sizes_agrees(a in prop::collection::vec(0..4u64, 0..4), b in prop::collection::vec(0..4u64, 0..4)) {
        let forms = |sizes: &[u64]| sizes.iter().copied().map(Dimension::known).collect::<Vec<_>>();
        let general = broadcast::shapes(&forms(&a), &forms(&b), &mut || Symbol(0)).ok();
        prop_assert_eq!(general, broadcast::sizes(&a, &b).map(|sizes| forms(&sizes)));
    }

    /// Promotion does not mind the order.
    #[test]
    fn promotion_is_symmetric(
        types in prop::collection::vec((select(DType::ALL.to_vec()), select(vec![
            promotion::Strength::Tensor, promotion::Strength::ZeroDimensional, promotion::Strength::Literal,
        ])), 1..5),
    ) {
        let reversed = types.iter().rev().copied();
        prop_assert_eq!(promotion::result_type(types.clone()), promotion::result_type(reversed));
    }

    /// The steps of an einsum lose no label that is needed, and end with the result's.
    #[test]
    fn einsum_steps_end_with_the_result(equation in "[a-d]{0,3}(,[a-d]{0,3}){0,2}") {
        let Ok(parsed) = Equation::parse(&equation) else { return Ok(()) };
        let sizes: HashMap<u8, u64> = (b'a'..=b'd').zip(2..).collect();
        let shapes: Vec<Vec<Dimension>> =
            equation.split(',').map(|word| word.bytes().map(|letter| Dimension::known(sizes[&letter])).collect()).collect();
        let shapes: Vec<&[Dimension]> = shapes.iter().map(Vec::as_slice).collect();
        let bound = parsed.bind(&shapes, &mut || Symbol(0)).expect("sizes fit");
        let mut last = bound.steps().pop().expect("a step for each operand").kept;
        let mut output = bound.output.clone();
        last.sort_unstable();
        output.sort_unstable();
        prop_assert_eq!(last, output);
    }
}

#[test]
fn costs_follow_what_is_done() {
    use crate::support::rule;
    use serde_json::json;
    let cost = |name, arguments| rule(name, arguments).map(|typed| typed.flops).unwrap_or(0);
    // Four times the sizes of a product are eight times the work, whatever the elements add.
    let product =
        |rows: u64| cost("matmul", json!({"input": format!("f32[{rows}, 512]"), "other": "f32[512, 512]"}));
    assert!(product(512) - product(256) >= 2 * 256 * 512 * 512 / 4);
    let of_unknown = cost("matmul", json!({"input": "f32[L0, 4]", "other": "f32[4, 7]"}));
    let of_assumed = json!({"input": format!("f32[{ASSUMED_LENGTH}, 4]"), "other": "f32[4, 7]"});
    assert_eq!(of_unknown, cost("matmul", of_assumed));
    let chain =
        json!({"equation": "ij,jk,kl->il", "operands": ["f32[20, 30]", "f32[30, 40]", "f32[40, 50]"]});
    assert!(cost("einsum", chain) >= 2 * (20 * 30 + 20 * 30 * 40 + 20 * 40 * 50) / 4);
    for view in [
        ("transpose", json!({"input": "f32[2, 1024]", "dim0": 0, "dim1": 1})),
        ("detach", json!({"input": "f32[2, 1024]"})),
        ("getitem", json!({"input": "f32[8, 1024]", "index": [3]})),
    ] {
        assert_eq!(cost(view.0, view.1), 0, "{}", view.0);
    }
    // What is a view of some layouts is a copy of others.
    for (name, arguments) in [
        ("reshape", json!({"input": "u8[2, 1024]", "shape": [-1]})),
        ("flatten", json!({"input": "u8[2, 1024]"})),
        ("unflatten", json!({"input": "u8[2, 1024]", "dim": 1, "sizes": [2, -1]})),
    ] {
        assert!(cost(name, arguments) >= 2 * 1024, "{name}");
    }
    // What is picked one by one takes longer than runs of it, and what is not read takes nothing.
    let picked = |index| cost("getitem", json!({"input": "f32[1024, 1024]", "index": index}));
    let index = "i64[1024]";
    assert!(picked(json!([":", index])) > 5 * picked(json!([index])));
    assert!(picked(json!([index])) >= 1024 * 1024 && picked(json!(["::2"])) >= 512 * 1024);
    let put = |input| cost("index_put", json!({"input": input, "index": [":", "i64[4096]"], "values": 0}));
    assert!(put("f32[4096, 1]") > 4 * 4096 * 4096, "every place is written, however many are the same");
    let diagonal = cost("diagonal", json!({"input": "f32[8, 1024]"}));
    assert!((8..1024).contains(&diagonal), "{diagonal}");
    // Rows that do not lie together are brought together first.
    let sum = |dimension: i64| cost("sum", json!({"input": "f32[1024, 1024]", "dim": dimension}));
    assert!(sum(0) > 2 * sum(1) && sum(-1) == sum(1));
    // Where nothing comes of it what is read costs all the same.
    assert!(cost("mul", json!({"input": "u8[4096, 1]", "other": "f32[1, 0]"})) >= 4096);
    assert!(cost("index_select", json!({"input": "f32[5, 0]", "dim": 0, "index": "i64[4096]"})) >= 4096);
}

#[test]
fn costs_follow_what_was_measured() {
    use crate::support::rule;
    use serde_json::json;
    const COUNT: u64 = 1 << 20;
    let each = |name, arguments| rule(name, arguments).map(|typed| typed.flops / COUNT).unwrap_or(0);
    let of = |dtype: &str| json!({"input": format!("{dtype}[1024, 1024]")});
    let add = each("add", json!({"input": "f32[1024, 1024]", "other": 1}));
    // From `docs/records.md`: times that an addition takes, about.
    assert!((1..10).contains(&add), "{add}");
    assert!(each("floor", of("f32")) > 20 * add && each("floor", of("i32")) < 10 * add);
    assert!(each("tanh", of("f64")) > 20 * each("tanh", of("f32")));
    assert!(each("neg", of("f16")) > 5 * each("neg", of("f32")));
    assert!(each("sort", of("f32")) > 50 * add && each("sort", of("i64")) > each("sort", of("f32")));
    assert!(each("randn", json!({"size": [1024, 1024]})) > 50 * add);
    assert!(each("randperm", json!({"n": COUNT})) > 100 * add);
    let power = |exponent: f64| each("pow", json!({"input": "f32[1024, 1024]", "exponent": exponent}));
    assert!(power(1.7) > 10 * power(2.0));
    let norm = |p: f64| each("norm", json!({"input": "f32[1024, 1024]", "p": p}));
    assert!(norm(3.0) > 10 * norm(2.0));
    let product = |dtype: &str| {
        each(
            "matmul",
            json!({"input": format!("{dtype}[1024, 1024]"), "other": format!("{dtype}[1024, 256]")}),
        )
    };
    assert!(product("i64") > 10 * product("f32") && product("f64") > 5 * product("f32"));
}

#[test]
fn no_kind_of_operation_is_without_a_weight_but_views() {
    use pellucid_graph::DType;
    use pellucid_graph::operation::table;
    use pellucid_graph::rules::weight::weight;
    let views =
        ["transpose", "permute", "movedim", "squeeze", "unsqueeze", "expand", "split", "chunk", "detach"];
    for definition in table() {
        for dtype in DType::ALL {
            let weight = weight(definition.kind, dtype);
            let takes = weight.each(dtype) + weight.counts(8);
            assert_eq!(takes == 0, views.contains(&definition.name), "{} of {dtype}", definition.name);
        }
    }
}
