//! What the wire promises: programs come through unchanged, hand-written forms mean what they say, and every fault is
//! reported with its place.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

use pellucid_graph::{
    Argument, DType, IndexItem, NodeKind, Program, Prompts, Scalar, Size, StepSelection, Value,
    program::Constant,
};

const TOUR: &str = include_str!("programs/tour.json");

fn named<'p>(program: &'p Program, name: &str) -> &'p NodeKind {
    &program.nodes.iter().find(|node| node.name == name).unwrap().kind
}

fn arguments(program: &Program, name: &str) -> Vec<Argument> {
    match named(program, name) {
        NodeKind::Operation(operation) => operation.arguments.clone(),
        other => panic!("{other:?}"),
    }
}

/// A program of one trace with one invoke and that body.
fn with_body(body: &str) -> String {
    format!(
        r#"{{"pellucid": 1, "body": [{{"op": "trace", "invokes": [{{"prompt": "a"}}], "body": [
            {{"op": "get", "name": "h", "hook": "embed.output"}}, {body}]}}]}}"#
    )
}

fn faults(text: &str) -> String {
    Program::from_json(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_hand_written_program_means_what_it_says() {
    let program = Program::from_json(TOUR.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
    let (_, trace) = program.traces().next().unwrap();
    assert_eq!(trace.invokes.len(), 3);
    assert_eq!(
        trace.invokes[1].prompts,
        Prompts::Text { texts: vec!["a".into(), "b".into()], special_tokens: false }
    );
    assert_eq!(trace.invokes[2].prompts, Prompts::Tokens(vec![vec![1, 2, 3]]));
    let generation = trace.generation.as_ref().unwrap();
    assert_eq!((generation.max_new_tokens, generation.sampling.top_k), (20, Some(50)));
    assert_eq!(
        arguments(&program, "last")[1],
        Argument::Index(vec![IndexItem::Slice { start: None, stop: None, step: 1 }, IndexItem::Integer(-1)])
    );
    // A number with a fraction is a float, one without is an integer; a default that is left out is filled in.
    assert_eq!(arguments(&program, "twice")[1], Argument::Scalar(Scalar::Float(2.0)));
    assert_eq!(
        arguments(&program, "top")[2..],
        [Argument::Scalar(Scalar::Int(-1)), Argument::Scalar(Scalar::Bool(true))]
    );
    let NodeKind::Save(Value { output: 1, .. }) = named(&program, "top_places") else { panic!() };
    let NodeKind::Steps { steps, body } = named(&program, "later") else { panic!() };
    assert_eq!((*steps, body.len()), (StepSelection { from: 1, to: Some(5), every: 2 }, 2));
    // Pre-order: the node that owns a body stands before it, and the body's nodes follow it at once.
    let owner = program.nodes.iter().position(|node| node.name == "later").unwrap();
    assert_eq!(body[0].index(), owner + 1);
    let second = program.traces().nth(1).unwrap().1;
    assert_eq!(program.node(second.body[0]).name, "again");
}

#[test]
fn the_canonical_form_is_a_fixed_point_in_both_layouts() {
    let program = Program::from_json(TOUR.as_bytes()).unwrap();
    for text in [program.to_json(), program.to_json_pretty()] {
        let again = Program::from_json(text.as_bytes()).unwrap();
        assert_eq!(again, program);
        assert_eq!([again.to_json(), again.to_json_pretty()], [program.to_json(), program.to_json_pretty()]);
    }
    insta::assert_snapshot!(program.to_json_pretty());
}

#[test]
fn the_short_forms_are_the_long_ones() {
    let program = Program::from_json(
        with_body(
            r#"{"op": "sum", "name": "a", "input": "h", "dim": -1}, {"op": "sum", "name": "b", "input": "h", "dim": [-1]},
            {"op": "getitem", "name": "c", "input": "h", "index": "1:9:2"},
            {"op": "getitem", "name": "d", "input": "h", "index": null},
            {"op": "getitem", "name": "e", "input": "h", "index": ["...", {"tensor": "a"}]},
            {"op": "reshape", "name": "f", "input": "h", "shape": [{"size_of": "a", "dim": 0}, -1]},
            {"op": "movedim", "name": "g", "input": "h", "source_": 0, "destination": 1,
             "source": {"file": "x.py", "line": 3}},
            {"op": "sum", "name": "i", "input": "h", "dim": null, "dtype": "f64"}"#,
        )
        .as_bytes(),
    )
    .unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(arguments(&program, "a"), arguments(&program, "b"));
    let slice = IndexItem::Slice { start: Some(1), stop: Some(9), step: 2 };
    assert_eq!(arguments(&program, "c")[1], Argument::Index(vec![slice]));
    assert_eq!(arguments(&program, "d")[1], Argument::Index(vec![IndexItem::NewAxis]));
    let Argument::Value(h) = arguments(&program, "a")[0] else { panic!() };
    let a = Value { node: pellucid_graph::NodeId(h.node.0 + 1), output: 0 };
    assert_eq!(arguments(&program, "e")[1], Argument::Index(vec![IndexItem::Ellipsis, IndexItem::Tensor(a)]));
    let sizes = vec![Size::Of { value: a, dimension: 0 }, Size::Literal(-1)];
    assert_eq!(arguments(&program, "f")[1], Argument::Sizes(sizes));
    assert_eq!(arguments(&program, "g")[1], Argument::Integers(vec![0]));
    assert_eq!(program.nodes.iter().find(|node| node.name == "g").unwrap().source.as_ref().unwrap().line, 3);
    assert_eq!(arguments(&program, "i")[1], Argument::Absent);
    assert_eq!(arguments(&program, "i")[3], Argument::DType(DType::F64));
}

#[test]
fn numbers_are_exact() {
    let program = Program::from_json(
        with_body(
            r#"{"op": "literal", "name": "l", "dtype": "f64", "shape": [9], "elements": [{"float": "nan"},
            {"float": "inf"}, {"float": "-inf"}, -0.0, 1e300, {"int": "9223372036854775807"}, -9223372036854775808,
            9007199254740993, true]}"#,
        )
        .as_bytes(),
    )
    .unwrap_or_else(|faults| panic!("{faults}"));
    let NodeKind::Literal { elements, .. } = named(&program, "l") else { panic!() };
    let expected = [
        Scalar::Float(f64::NAN),
        Scalar::Float(f64::INFINITY),
        Scalar::Float(f64::NEG_INFINITY),
        Scalar::Float(-0.0),
        Scalar::Float(1e300),
        Scalar::Int(i64::MAX),
        Scalar::Int(i64::MIN),
        Scalar::Int(9007199254740993),
        Scalar::Bool(true),
    ];
    assert_eq!(elements, &expected);
    // Beyond 2^53 they are written as texts, so that readers whose numbers are all floats keep them.
    assert!(program.to_json().contains(r#"{"int":"9007199254740993"}"#));
    assert_eq!(Program::from_json(program.to_json().as_bytes()).unwrap(), program);
    for seed in ["18446744073709551615", r#"{"int": "18446744073709551615"}"#] {
        let text = format!(r#"{{"pellucid": 1, "seed": {seed}, "body": []}}"#);
        assert_eq!(Program::from_json(text.as_bytes()).unwrap().seed, u64::MAX);
    }
}

#[test]
fn nameless_nodes_and_invokes_get_names_that_clash_with_none() {
    let text = r#"{"pellucid": 1, "body": [{"op": "trace", "invokes": [{"prompt": "a"}, {"name": "i0", "prompt": "b"}],
        "body": [{"op": "get", "invoke": "i0", "hook": "embed.output"}, {"op": "get", "name": "n1", "invoke": "i0", "hook": "x"}]}]}"#;
    let program = Program::from_json(text.as_bytes()).unwrap();
    let names: Vec<_> = program.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["n0", "n2", "n1"]);
    let (_, trace) = program.traces().next().unwrap();
    assert_eq!([&trace.invokes[0].name, &trace.invokes[1].name], ["i1", "i0"]);
}

#[test]
fn all_faults_are_reported_together_each_with_its_place() {
    insta::assert_snapshot!(faults(&with_body(
        r#"{"op": "getitem", "name": "last", "input": "h", "indx": [":", -1]},
        {"op": "softmx", "name": "p", "input": "h", "dim": -1},
        {"op": "mul", "name": "twice", "input": "lost", "other": 2.0},
        {"op": "add", "input": "after", "other": "h", "source": {"file": "ioi.py", "line": 12, "text": "  y = after + h"}},
        {"op": "relu", "name": "after", "input": "h"},
        {"op": "relu", "name": "after", "input": "after"},
        {"op": "relu", "name": "self", "input": "self"},
        {"op": "set", "name": "s", "hook": "x.output", "value": "h", "invoke": "clean"},
        {"op": "save", "value": "s"},
        {"op": "topk", "input": "h", "k": 2.0},
        {"op": "to", "input": "h", "dtype": "float32"},
        {"op": "getitem", "input": "h", "index": ["idx", "1:2:0"]},
        {"op": "steps", "body": [{"op": "relu", "name": "inner", "input": "h"}]},
        {"op": "save", "value": "inner"},
        {"op": "save", "value": "h.output"},
        {"op": "trace", "invokes": [], "body": []},
        {"op": "literal", "dtype": "f32", "shape": [2, 2], "elements": [1, 2, 3]},
        {"op": "constant", "key": "steer"},
        {"op": "save", "name": "a-b", "value": "h", "value": "h"},
        17, {"name": "x"}"#
    )));
}

#[test]
fn what_is_not_a_program_is_refused_in_one_sentence() {
    let form = "a program is `{\"pellucid\": 1, \"body\": [ … ]}`";
    for (text, expected, hint) in [
        ("", "not JSON: EOF while parsing a value at line 1 column 0", form),
        ("[]", "expected a program, found a list\n  at the top", form),
        ("{}", "a program needs the field `pellucid`, its version\n  at the top", "write \"pellucid\": 1"),
        (
            r#"{"pellucid": 2, "regions": []}"#,
            "a program of version 2; this build reads version 1\n  at /pellucid",
            "use the pellucid that reads version 2",
        ),
        (r#"{"pellucid": 1} x"#, "not JSON: trailing characters at line 1 column 17", form),
        (r#"{"pellucid": 1}"#, "a program needs the field `body`\n  at the top", form),
    ] {
        let said = faults(text);
        let (what, to_do) = said.split_once("\n  hint: ").unwrap();
        assert_eq!(what, expected);
        assert!(to_do.starts_with(hint), "{said}");
    }
}

#[test]
fn an_earlier_trace_s_values_can_be_named_by_a_later_one() {
    let text = r#"{"pellucid": 1, "body": [
        {"op": "trace", "invokes": [{"prompt": "a"}], "body": [{"op": "get", "name": "h", "hook": "x"}]},
        {"op": "trace", "invokes": [{"prompt": "a"}], "body": [{"op": "save", "value": "h"}]}]}"#;
    assert!(Program::from_json(text.as_bytes()).is_ok());
}

#[test]
fn constants_travel_in_safetensors() {
    let text =
        with_body(r#"{"op": "constant", "name": "v", "key": "steer/α"}, {"op": "constant", "key": "mask"}"#);
    assert!(faults(&text).contains("no constant `steer/α` travels with the program"));
    let json = text.replace("steer/α", "x").replace("mask", "x");
    let json = json.replace(r#""op": "constant", "name": "v", "key": "x""#, r#""op": "relu", "input": "h""#);
    let json = json.replace(r#""op": "constant", "key": "x""#, r#""op": "relu", "input": "h""#);
    let mut program = Program::from_json(json.as_bytes()).unwrap();
    for dtype in DType::ALL {
        let bytes = vec![1; 6 * dtype.size() as usize];
        program.constants.insert(dtype.name().into(), Constant { dtype, shape: vec![2, 3], bytes });
    }
    let scalar = Constant { dtype: DType::F32, shape: vec![], bytes: 1.5_f32.to_le_bytes().to_vec() };
    program.constants.insert("steer/α".into(), scalar);
    program
        .constants
        .insert("nothing".into(), Constant { dtype: DType::I64, shape: vec![4, 0], bytes: vec![] });
    let last = program.nodes.len() - 1;
    program.nodes[last].kind = NodeKind::Constant("steer/α".into());
    let bytes = program.to_safetensors().unwrap();
    assert_eq!(Program::from_safetensors(&bytes).unwrap(), program);
    assert_eq!(Program::from_bytes(&bytes).unwrap(), program);
    assert_eq!(program.to_bytes().unwrap(), bytes);
    program.constants.clear();
    program.nodes[last].kind = NodeKind::Tokens(0);
    assert_eq!(Program::from_bytes(&program.to_bytes().unwrap()).unwrap(), program);
}
