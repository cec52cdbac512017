//! What programs with gradients are refused for: by the wire, and by the checker.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

mod support;

use pellucid_graph::check::{SpecIndex, check};
use pellucid_graph::{Faults, NodeKind, Program};

/// A program of one trace with those nodes.
fn text(nodes: &str) -> String {
    let trace = r#"{"op": "trace", "invokes": [{"name": "p", "tokens": [[1, 2, 3]]}], "body": "#;
    format!(r#"{{"pellucid": 1, "body": [{trace}[{nodes}]}}]}}"#)
}

const LOSS: &str = r#"{"op": "get", "name": "h", "hook": "layers.2.output"}, {"op": "sum", "name": "loss", "input": "h"},
    {"op": "backward", "name": "b", "of": "loss"}"#;

fn message(outcome: Result<(), Faults>) -> String {
    match outcome {
        Ok(()) => panic!("accepted"),
        Err(faults) => faults.to_string(),
    }
}

#[test]
fn the_wire_refuses_gradients_of_nothing_and_of_two_things() {
    let cases = [
        (r#"{"op": "grad", "name": "g", "backward": "b"}"#, "needs the field `of` or the field `hook`"),
        (
            r#"{"op": "grad", "name": "g", "backward": "b", "of": "h", "hook": "logits"}"#,
            "both `of` and `hook`",
        ),
        (r#"{"op": "grad", "name": "g", "backward": "b", "of": "h", "invoke": "p"}"#, "belongs to no invoke"),
        (r#"{"op": "grad", "name": "g", "backward": "h", "of": "h"}"#, "`h` is not a `backward`"),
        (
            r#"{"op": "grad", "name": "g", "backward": "later", "of": "h"}, {"op": "backward", "name": "later", "of": "loss"}"#,
            "does not stand before it",
        ),
        (r#"{"op": "grad", "name": "g", "backward": "c", "of": "h"}"#, "there is no `backward` `c`"),
        (r#"{"op": "set_grad", "backward": "b", "of": "h"}"#, "needs the field `value`"),
        (r#"{"op": "grad", "name": "g", "backward": "b", "hook": "logits", "step": 1}"#, "step"),
        (r#"{"op": "save", "name": "s", "value": "b"}"#, "`b` is a `backward`, which has no value"),
    ];
    for (nodes, expected) in cases {
        let refused = Program::from_json(text(&format!("{LOSS}, {nodes}")).as_bytes());
        let message = message(refused.map(|_| ()));
        assert!(message.contains(expected), "{message}\n{nodes}");
    }
}

#[test]
fn the_checker_refuses_what_cannot_be_gone_back_from() {
    let spec = support::tiny_gpt2();
    let index = SpecIndex::new(&spec);
    let grad = r#"{"op": "grad", "name": "g", "backward": "b", "hook": "layers.0.output"}, {"op": "save", "name": "s", "value": "g"}"#;
    let cases = [
        (format!(r#"{LOSS}, {{"op": "save", "name": "s", "value": "loss"}}"#), "nobody asks for a gradient"),
        (
            format!(
                r#"{{"op": "tokens", "name": "t"}}, {{"op": "backward", "name": "b", "of": "t"}}, {grad}"#
            ),
            "which has no gradient",
        ),
        (
            format!(
                r#"{{"op": "get", "name": "h", "hook": "layers.2.output"}}, {{"op": "ones", "name": "c", "size": [2]}},
            {{"op": "backward", "name": "b", "of": "h", "cotangent": "c"}}, {grad}"#
            ),
            "but its cotangent is",
        ),
        (
            format!(
                r#"{LOSS}, {{"op": "grad", "name": "g", "backward": "b", "hook": "layers.3.output"}}, {{"op": "save", "name": "s", "value": "g"}}"#
            ),
            "does not depend on `layers.3.output`",
        ),
        (
            format!(
                r#"{LOSS}, {{"op": "grad", "name": "g", "backward": "b", "hook": "layers.9.output"}}, {{"op": "save", "name": "s", "value": "g"}}"#
            ),
            "no hook point `layers.9.output`",
        ),
        (
            format!(
                r#"{LOSS}, {{"op": "ones", "name": "w", "size": [7]}}, {{"op": "set_grad", "backward": "b", "of": "h", "value": "w"}}, {grad}"#
            ),
            "the gradient of `h` is",
        ),
        (
            format!(
                r#"{LOSS}, {{"op": "grad", "name": "low", "backward": "b", "hook": "layers.0.output"}},
            {{"op": "set_grad", "backward": "b", "hook": "layers.1.output", "value": "low"}}, {grad}"#
            ),
            "which is computed later on the way back",
        ),
    ];
    for (nodes, expected) in cases {
        let program = Program::from_json(text(&nodes).as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
        let message = message(check(program, &index).map(|_| ()));
        assert!(message.contains(expected), "{message}\n{nodes}");
    }
}

/// Where a setter replaces all that a hook point passes on, nothing before it has a gradient, and that is said.
#[test]
fn what_was_replaced_as_a_whole_has_no_gradient() {
    let mut spec = support::tiny_gpt2();
    spec.capabilities.push("weights".into());
    let index = SpecIndex::new(&spec);
    let constant = r#"{"op": "ones", "name": "c", "size": [1]}, "#;
    let set = |hook: &str| format!(r#"{constant}{{"op": "set", "hook": "{hook}", "value": "c"}}, "#);
    let asked = |of: &str| {
        format!(
            r#", {{"op": "grad", "name": "g", "backward": "b", {of}}}, {{"op": "save", "name": "s", "value": "g"}}"#
        )
    };
    let read = r#"{"op": "get", "name": "before", "hook": "layers.1.output"}, {"op": "detach", "name": "d", "input": "before"},
        {"op": "set", "hook": "layers.1.output", "value": "d"}, "#;
    let skip = format!(r#"{constant}{{"op": "skip", "name": "k", "module": "layers.1", "value": "c"}}, "#);
    let weight = r#"{"op": "weight", "name": "w", "parameter": "layers.0.mlp.c_fc.weight"}, {"op": "mul", "name": "one", "input": "w", "other": 2.0},
        {"op": "set_weight", "parameter": "layers.0.mlp.c_fc.weight", "value": "one"}, "#;
    let cases = [
        (set("layers.1.output"), r#""hook": "layers.0.output""#, "goes on behind `layers.1.output`"),
        (set("layers.1.input"), r#""hook": "layers.0.mlp.post""#, "goes on behind `layers.1.input`"),
        (
            set("layers.1.mlp.output"),
            r#""hook": "layers.1.mlp.post""#,
            "goes on behind `layers.1.mlp.output`",
        ),
        (skip.clone(), r#""hook": "layers.0.output""#, "goes on behind `layers.1.output`"),
        (skip, r#""hook": "layers.1.mlp.post""#, "which `k` skips"),
        (read.to_owned(), r#""hook": "layers.0.output""#, "only through `d` (`detach`)"),
        (read.to_owned(), r#""of": "before""#, "only through `d` (`detach`)"),
        (format!("{weight}{}", set("layers.0.output")), r#""of": "one""#, "does not depend on `one`"),
    ];
    for (edit, of, expected) in cases {
        let nodes = format!("{edit}{LOSS}{}", asked(of));
        let program = Program::from_json(text(&nodes).as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
        let message = message(check(program, &index).map(|_| ()));
        assert!(message.contains(expected), "{message}\n{nodes}");
    }
    // What is beside it, behind it, or set from what was there has one.
    let from = r#"{"op": "get", "name": "before", "hook": "layers.1.output"}, {"op": "set", "hook": "layers.1.output", "value": "before"}, "#;
    for (edit, of) in [
        (set("layers.1.output"), r#""hook": "layers.1.output""#),
        (set("layers.1.output"), r#""hook": "layers.2.mlp.post""#),
        (set("layers.1.mlp.output"), r#""hook": "layers.0.output""#),
        (set("layers.1.mlp.output"), r#""hook": "layers.1.attention.output""#),
        (from.to_owned(), r#""hook": "layers.0.output""#),
        (weight.to_owned(), r#""of": "w""#),
        (
            format!(
                "{weight}{}",
                set("layers.0.mlp.output").replace("layers.0.mlp.output", "layers.1.mlp.output")
            ),
            r#""of": "one""#,
        ),
    ] {
        let nodes = format!("{edit}{LOSS}{}", asked(of));
        let program = Program::from_json(text(&nodes).as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
        check(program, &index).unwrap_or_else(|faults| panic!("{faults}\n{nodes}"));
    }
}

#[test]
fn a_generation_has_no_gradients() {
    let spec = support::tiny_gpt2();
    let trace = r#"{"op": "trace", "invokes": [{"name": "p", "tokens": [[1, 2, 3]]}], "generate": {"max_new_tokens": 3}, "body": "#;
    let grad = r#"{"op": "grad", "name": "g", "backward": "b", "hook": "layers.0.output"}, {"op": "save", "name": "s", "value": "g"}"#;
    let text = format!(r#"{{"pellucid": 1, "body": [{trace}[{LOSS}, {grad}]}}]}}"#);
    let program = Program::from_json(text.as_bytes()).unwrap();
    let message = message(check(program, &SpecIndex::new(&spec)).map(|_| ()));
    assert!(message.contains("across the steps of a generation"), "{message}");
}

/// What each `backward` goes through is what leads from its targets to its value, and nothing else.
#[test]
fn a_plan_holds_just_the_nodes_between() {
    let spec = support::tiny_gpt2();
    let nodes = r#"{"op": "get", "name": "early", "hook": "layers.0.output"}, {"op": "mul", "name": "scaled", "input": "early", "other": 2.0},
        {"op": "set", "name": "edit", "hook": "layers.1.output", "value": "scaled"}, {"op": "get", "name": "late", "hook": "layers.3.output"},
        {"op": "get", "name": "aside", "hook": "layers.2.mlp.output"}, {"op": "mul", "name": "both", "input": "late", "other": "aside"},
        {"op": "argmax", "name": "choice", "input": "both"}, {"op": "sum", "name": "loss", "input": "both"},
        {"op": "backward", "name": "b", "of": "loss"},
        {"op": "grad", "name": "g", "backward": "b", "hook": "layers.2.mlp.post"}, {"op": "save", "name": "s", "value": "g"},
        {"op": "save", "name": "c", "value": "choice"},
        {"op": "backward", "name": "b2", "of": "loss"}, {"op": "grad", "name": "g2", "backward": "b2", "of": "early"},
        {"op": "save", "name": "s2", "value": "g2"}"#;
    let program = Program::from_json(text(nodes).as_bytes()).unwrap();
    let checked = check(program, &SpecIndex::new(&spec)).unwrap_or_else(|faults| panic!("{faults}"));
    let names = |plan: usize| -> Vec<&str> {
        let path = checked.gradients[plan].path.iter();
        path.map(|id| checked.program.node(*id).name.as_str()).collect()
    };
    assert_eq!(names(0), ["late", "aside", "both", "loss"]);
    assert_eq!(names(1), ["early", "scaled", "edit", "late", "aside", "both", "loss"]);
    let backward = |plan: usize| &checked.program.node(checked.gradients[plan].backward).kind;
    assert!((0..2).all(|plan| matches!(backward(plan), NodeKind::Backward { .. })));
}

/// A written gradient is seen by gradients that come after it on the way back, and of its own place after it in the program.
#[test]
fn a_written_gradient_that_nothing_shows_is_refused() {
    let spec = support::tiny_gpt2();
    let index = SpecIndex::new(&spec);
    let nodes = |written: &str, read: &str| {
        text(&format!(
            r#"{{"op": "get", "name": "early", "hook": "layers.0.output"}}, {{"op": "get", "name": "h", "hook": "layers.2.output"}},
            {{"op": "mul", "name": "twice", "input": "h", "other": 2.0}}, {{"op": "tanh", "name": "bent", "input": "twice"}},
            {{"op": "sum", "name": "loss", "input": "bent"}}, {{"op": "backward", "name": "b", "of": "loss"}},
            {{"op": "literal", "name": "z", "dtype": "f32", "shape": [], "elements": [0.0]}},
            {written}, {read}, {{"op": "save", "name": "s", "value": "g"}}"#
        ))
    };
    let grad = |of: &str| format!(r#"{{"op": "grad", "name": "g", "backward": "b", {of}}}"#);
    let set = |of: &str| format!(r#"{{"op": "set_grad", "backward": "b", {of}, "value": "z"}}"#);
    let at = |layer: u64| format!(r#""hook": "layers.{layer}.output""#);
    let of = |value: &str| format!(r#""of": "{value}""#);
    // From the latest to the earliest on the way back.
    let way = [of("loss"), of("bent"), of("twice"), of("h"), at(2), at(1), of("early"), at(0)];
    let same = |one: usize, other: usize| [3, 6].contains(&one.min(other)) && one.abs_diff(other) == 1;
    let taken = |text: String| {
        let program = Program::from_json(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
        check(program, &index).map_err(|faults| faults.to_string())
    };
    for (place, written) in way.iter().enumerate() {
        for (reader, read) in way.iter().enumerate() {
            let outcome = taken(nodes(&set(written), &grad(read)));
            let seen = reader >= place || same(place, reader);
            match outcome {
                Ok(_) => assert!(seen, "{written} is not seen by {read}"),
                Err(message) => {
                    assert!(
                        !seen && message.contains("so setting it changes nothing"),
                        "{written}, {read}: {message}"
                    );
                }
            }
        }
        // Read before it is written: the old one.
        let both = nodes(&grad(written), &set(written));
        assert!(taken(both).unwrap_err().contains("changes nothing"), "{written}");
    }
    // One that only another's value shows is seen by what shows that; and a way back of which nothing is used shows nothing.
    let chain = format!(
        r#"{}, {{"op": "grad", "name": "low", "backward": "b", "of": "twice"}}, {{"op": "set_grad", "backward": "b", "of": "h", "value": "low"}}"#,
        set(&of("bent"))
    );
    assert!(taken(nodes(&chain, &grad(&at(1)))).is_ok());
    let unused =
        format!(r#"{}, {{"op": "grad", "name": "unused", "backward": "b", "of": "h"}}"#, set(&of("twice")));
    assert!(taken(nodes(&unused, &grad(&of("loss")))).unwrap_err().contains("changes nothing"));
}
