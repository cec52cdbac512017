//! What sweeps, loops, reductions and wildcards become, and what is refused of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

mod support;

use pellucid_graph::check::{CheckedProgram, SpecIndex, check};
use pellucid_graph::{Faults, GradientOf, NodeKind, Program, Prompts, expand};

fn checked(body: &str) -> Result<CheckedProgram, Faults> {
    let text = format!(r#"{{ "pellucid": 1, "body": [{body}] }}"#);
    let spec = support::tiny_gpt2();
    let index = SpecIndex::new(&spec);
    check(expand::expand(Program::from_json(text.as_bytes())?, &index)?, &index)
}

fn sound(body: &str) -> CheckedProgram {
    checked(body).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The messages of a program that is refused.
fn refused(body: &str) -> String {
    match checked(body) {
        Ok(_) => panic!("it was taken: {body}"),
        Err(faults) => faults.to_string(),
    }
}

/// The names of the nodes that a program becomes.
fn names(program: &Program) -> Vec<&str> {
    program.nodes.iter().map(|node| node.name.as_str()).collect()
}

/// The type of what is saved under a name.
fn saved(checked: &CheckedProgram, name: &str) -> String {
    let node = checked.program.nodes.iter().find(|node| node.name == name);
    let Some(NodeKind::Save(value)) = node.map(|node| &node.kind) else {
        panic!("nothing is saved as {name}")
    };
    checked.nodes[value.node.index()].outputs[value.output as usize].to_string()
}

const PATCHING: &str = r#"{ "op": "trace", "name": "t",
    "invokes": [{ "name": "clean", "tokens": [[1, 2, 3]] }],
    "body": [{ "op": "sweep", "name": "grid",
      "over": [{ "layer": [0, 1, 2] }, { "position": { "range": [0, 3] } }],
      "invokes": [{ "name": "patched", "tokens": [[3, 2, 1]] }],
      "body": [
        { "op": "get", "name": "from", "invoke": "clean", "hook": "layers.{layer}.output" },
        { "op": "getitem", "name": "row", "input": "from", "index": [":", { "tensor": "position" }] },
        { "op": "get", "name": "to", "invoke": "patched", "hook": "layers.{layer}.output" },
        { "op": "index_put", "name": "put", "input": "to", "index": [":", { "tensor": "position" }], "values": "row" },
        { "op": "set", "invoke": "patched", "hook": "layers.{layer}.output", "value": "put" },
        { "op": "get", "name": "logits", "invoke": "patched", "hook": "logits" },
        { "op": "getitem", "name": "one", "input": "logits", "index": [0, -1, 5] }],
      "yields": ["one"] },
      { "op": "save", "name": "out", "value": "grid" }] }"#;

#[test]
fn a_sweep_is_one_trace_with_the_invokes_of_all_cells() {
    let checked = sound(PATCHING);
    let program = &checked.program;
    let (_, trace) = program.traces().next().unwrap();
    assert_eq!(trace.invokes.len(), 1 + 9);
    assert_eq!(trace.invokes[1 + 5].name, "patched@1.2");
    assert_eq!(trace.invokes[1 + 5].noise_coordinates(6), [1, 2, 1]);
    assert_eq!(saved(&checked, "out"), "f32[3, 3]");
    // Reading the clean prompt does not depend on the position: three getters, not nine.
    let read = |label| program.nodes.iter().filter(|node| node.label() == label).count();
    assert_eq!((read("from"), read("row"), read("to")), (3, 9, 9));
    let put = program.nodes.iter().find(|node| node.name == "put@2.1").unwrap();
    assert_eq!((put.label(), put.coordinates()), ("put", &[2, 1][..]));
}

#[test]
fn names_of_expanded_nodes_are_unique() {
    let checked = sound(PATCHING);
    let mut all = names(&checked.program);
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn cells_of_a_session_s_sweep_share_its_traces() {
    let checked = sound(
        r#"{ "op": "sweep", "name": "grid", "over": [{ "pair": { "token_lists": [[1, 2], [3, 4, 5]] }, "head": [0, 1] }],
             "body": [
               { "op": "trace", "invokes": [{ "name": "a", "prompt": { "axis": "pair" } }], "body": [
                 { "op": "get", "name": "m", "hook": "layers.0.attention.mixed" },
                 { "op": "getitem", "name": "h", "input": "m", "index": [0, -1, { "tensor": "head" }] },
                 { "op": "save", "name": "each", "value": "h" }] },
               { "op": "mul", "name": "twice", "input": "h", "other": 2 }],
             "yields": ["twice"] },
           { "op": "save", "name": "out", "value": "grid" }"#,
    );
    let traces: Vec<_> = checked.program.traces().collect();
    assert_eq!(traces.len(), 1);
    let invokes = &traces[0].1.invokes;
    assert_eq!(invokes[1].prompts, Prompts::Tokens(vec![vec![3, 4, 5]]));
    assert_eq!(saved(&checked, "each"), saved(&checked, "out"));
}

#[test]
fn a_loop_carries_values_and_saves_one_for_each_iteration() {
    let checked = sound(
        r#"{ "op": "zeros", "name": "start", "size": [4] },
           { "op": "loop", "name": "training", "count": 3, "carry": { "x": "start" }, "body": [
               { "op": "add", "name": "y", "input": "x", "other": "i" },
               { "op": "save", "name": "history", "value": "y" }], "next": { "x": "y" } },
           { "op": "save", "name": "out", "value": "training" }"#,
    );
    assert_eq!(saved(&checked, "out"), "f32[4]");
    assert_eq!(saved(&checked, "history"), "f32[3, 4]");
    let additions = checked.program.nodes.iter().filter(|node| node.label() == "y");
    assert_eq!(additions.map(|node| node.coordinates()[0]).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn what_is_saved_in_loops_and_sweeps_has_their_order_of_nesting() {
    let body = r#"{ "op": "sweep", "over": [{ "a": [1, 2] }], "body": [
        { "op": "loop", "over": [{ "b": [1, 2, 3] }], "body": [
          { "op": "sweep", "over": [{ "c": [1, 2, 3, 4] }], "body": [
            { "op": "loop", "over": [{ "d": [1, 2, 3, 4, 5] }], "body": [
              { "op": "add", "name": "x", "input": "a", "other": "d" },
              { "op": "save", "name": "out", "value": "x" }] }] }] }] }"#;
    assert_eq!(saved(&sound(body), "out"), "i64[2, 3, 4, 5]");
}

#[test]
fn rows_of_a_value_are_an_axis() {
    let checked = sound(
        r#"{ "op": "randn", "name": "directions", "size": [3, 6] },
           { "op": "sweep", "name": "s", "over": [{ "row": { "rows_of": "directions" }, "scale": [1.5, 2, 4] }], "body": [
               { "op": "mul", "name": "y", "input": "row", "other": "scale" }], "yields": ["y", "row"] },
           { "op": "save", "name": "out", "value": "s" },
           { "op": "save", "name": "rows", "value": "s.1" }"#,
    );
    assert_eq!((saved(&checked, "out"), saved(&checked, "rows")), ("f32[3, 6]".into(), "f32[3, 6]".into()));
}

#[test]
fn reductions_have_the_shapes_they_promise() {
    let each = |reduction: &str, more: &str| {
        sound(&format!(
            r#"{{ "op": "sweep", "over": [{{ "a": [1, 2] }}, {{ "b": [1, 2, 3] }}], "body": [
                {{ "op": "randn", "name": "x", "size": [5, 4] }},
                {{ "op": "reduce", "name": "r", "reduction": "{reduction}", "value": "x" {more} }}] }},
               {{ "op": "save", "name": "out", "value": "r" }}"#
        ))
    };
    for reduction in ["sum", "mean", "var", "amin", "amax"] {
        assert_eq!(saved(&each(reduction, ""), "out"), "f32[5, 4]", "{reduction}");
        assert_eq!(saved(&each(reduction, r#", "dim": 0"#), "out"), "f32[4]", "{reduction}");
    }
    assert_eq!(saved(&each("covariance", ""), "out"), "f32[4, 4]");
    assert_eq!(saved(&each("topk", r#", "k": 2"#), "out"), "f32[5, 4, 2]");
    assert_eq!(saved(&each("topk", r#", "k": 7, "dim": [0]"#), "out"), "f32[4, 7]");
    let origins = |more: &str| {
        let body = format!(
            r#"{{ "op": "sweep", "over": [{{ "a": [1, 2] }}, {{ "b": [1, 2, 3] }}], "body": [
                {{ "op": "randn", "name": "x", "size": [5, 4] }},
                {{ "op": "reduce", "name": "r", "reduction": "topk", "value": "x", "k": 2 {more} }}] }},
               {{ "op": "save", "name": "out", "value": "r.1" }}"#
        );
        saved(&sound(&body), "out")
    };
    assert_eq!(origins(""), "i64[5, 4, 2, 2]");
    assert_eq!(origins(r#", "dim": [0, 1]"#), "i64[2, 3]");
}

#[test]
fn wildcards_stand_for_hook_points_in_the_schedule_s_order() {
    let trace = |body: &str| {
        format!(r#"{{ "op": "trace", "invokes": [{{ "tokens": [[1, 2]] }}], "body": [{body}] }}"#)
    };
    let all = sound(&trace(
        r#"{ "op": "get", "name": "all", "hook": "layers.*.output", "except": ["layers[1,2].output"] },
           { "op": "save", "name": "out", "value": "all" },
           { "op": "get", "name": "some", "hook": "layers[0:3:2].attention.pattern" },
           { "op": "save", "name": "patterns", "value": "some" },
           { "op": "cache", "name": "c", "pattern": "layers.0.**", "except": ["**.scores"] }"#,
    ));
    let layers = support::tiny_gpt2().sizes.layers;
    assert!(saved(&all, "out").starts_with(&format!("f32[{}, 1, 2,", layers - 2)), "{}", saved(&all, "out"));
    assert!(saved(&all, "patterns").starts_with("f32[2, 1,"));
    let names = names(&all.program);
    assert!(names.contains(&"c/transformer.h.0.attn.pattern"));
    assert!(!names.iter().any(|name| name.starts_with("c/") && name.contains("scores")));
    let each = sound(
        &trace(
            r#"{ "op": "get", "name": "all", "hook": "layers.*.attention.output" },
           { "op": "mul", "name": "half", "input": "all", "other": 0.5 },
           { "op": "set", "hook": "layers.*.attention.output", "value": "half", "each": true },
           { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "out", "value": "l" }"#,
        )
        .replace("\"all\", \"hook\"", "\"all\", \"invoke\": \"a\", \"hook\"")
        .replace(
            r#"[{ "tokens": [[1, 2]] }]"#,
            r#"[{ "name": "a", "tokens": [[1, 2]] }, { "name": "b", "tokens": [[1, 2]] }]"#,
        )
        .replace("\"op\": \"set\"", "\"op\": \"set\", \"invoke\": \"b\"")
        .replace("\"l\", \"hook\"", "\"l\", \"invoke\": \"b\", \"hook\""),
    );
    let set = each.program.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Set { .. }));
    assert_eq!(set.count() as u64, layers);
}

#[test]
fn one_fault_in_many_cells_is_one_fault() {
    let message = refused(&PATCHING.replace("[0, 1, 2]", "[1, 77, 99]"));
    insta::assert_snapshot!(message);
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let sweep = |over: &str, body: &str, yields: &str| {
        format!(
            r#"{{ "op": "zeros", "name": "z", "size": [2] }},
               {{ "op": "sweep", "name": "s", "over": {over}, "body": [{body}], "yields": [{yields}] }},
               {{ "op": "save", "name": "out", "value": "s" }}"#
        )
    };
    let add = r#"{ "op": "add", "name": "x", "input": "a", "other": 1 }"#;
    let mut messages = Vec::new();
    let mut all = |what: &str, body: &str| {
        let message = refused(body);
        assert!(message.len() < 4_000, "{message}");
        messages.push(format!("# {what}\n{message}"));
    };
    all("an empty axis", &sweep(r#"[{ "a": [] }]"#, add, r#""x""#));
    all("an empty range", &sweep(r#"[{ "a": { "range": [3, 1] } }]"#, add, r#""x""#));
    all("no axis", &sweep("[]", add, r#""x""#));
    all("an axis without a parameter", &sweep("[{}]", add, r#""x""#));
    all("zipped parameters of unequal length", &sweep(r#"[{ "a": [1, 2], "b": [1] }]"#, add, r#""x""#));
    all("a huge axis", &sweep(r#"[{ "a": { "range": [0, 9000000000000000000] } }]"#, add, r#""x""#));
    all(
        "axes that multiply",
        &sweep(r#"[{ "a": { "range": [0, 100000] } }, { "b": { "range": [0, 100000] } }]"#, add, r#""x""#),
    );
    all("a parameter by the name of a node", &sweep(r#"[{ "z": [1] }]"#, "", ""));
    all(
        "an unknown parameter",
        &sweep(
            r#"[{ "a": [1, 2] }]"#,
            r#"{ "op": "apply", "name": "x", "module": "layers.{b}.mlp", "input": "z" }"#,
            r#""x""#,
        ),
    );
    all(
        "a value of one cell",
        &format!(
            r#"{}, {{ "op": "save", "name": "y", "value": "x" }}"#,
            sweep(r#"[{ "a": [1, 2] }]"#, add, r#""x""#)
        ),
    );
    all(
        "a yield that is not there",
        &sweep(r#"[{ "a": [1, 2] }]"#, add, r#""x""#).replace(r#""value": "s""#, r#""value": "s.1""#),
    );
    all("prompts as a value", &sweep(r#"[{ "a": { "texts": ["x"] } }]"#, add, r#""x""#));
    all("rows of nothing", &sweep(r#"[{ "a": { "rows_of": "one" } }]"#, add, r#""x""#).replace(
        r#"{ "op": "zeros""#, r#"{ "op": "literal", "name": "one", "dtype": "f32", "shape": [], "elements": [1.0] }, { "op": "zeros""#));
    all(
        "rows of an unknown number",
        r#"{ "op": "trace", "invokes": [{ "prompt": "x" }], "body": [
        { "op": "tokens", "name": "t" }, { "op": "getitem", "name": "row", "input": "t", "index": [0] },
        { "op": "sweep", "name": "s", "over": [{ "a": { "rows_of": "row" } }], "body": [
          { "op": "add", "name": "x", "input": "a", "other": 1 }], "yields": ["x"] },
        { "op": "save", "name": "out", "value": "s" }] }"#,
    );
    all(
        "a carried value that grows",
        r#"{ "op": "zeros", "name": "z", "size": [2] },
        { "op": "loop", "name": "l", "count": 3, "carry": { "x": "z" }, "body": [
          { "op": "cat", "name": "y", "tensors": ["x", "x"] }], "next": { "x": "y" } },
        { "op": "save", "name": "out", "value": "l" }"#,
    );
    all(
        "next without carry, and carry without next",
        r#"{ "op": "zeros", "name": "z", "size": [2] },
        { "op": "loop", "name": "l", "count": 3, "carry": { "x": "z", "w": "z" }, "body": [
          { "op": "add", "name": "y", "input": "x", "other": 1 }], "next": { "x": "y", "v": "y" } }"#,
    );
    all("over and count", r#"{ "op": "loop", "over": [{ "a": [1] }], "count": 3, "body": [] }"#);
    all(
        "an edit of what cells share",
        r#"{ "op": "trace", "invokes": [{ "name": "p", "tokens": [[1, 2]] }], "body": [
        { "op": "sweep", "over": [{ "layer": [0, 1] }], "body": [
          { "op": "get", "name": "h", "invoke": "p", "hook": "layers.{layer}.output" },
          { "op": "set", "invoke": "p", "hook": "layers.{layer}.output", "value": "h" }] },
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "out", "value": "l" }] }"#,
    );
    all(
        "a pattern of nothing",
        r#"{ "op": "trace", "invokes": [{ "tokens": [[1, 2]] }], "body": [
        { "op": "get", "name": "h", "hook": "layers.*.atention.output" }, { "op": "save", "name": "out", "value": "h" }] }"#,
    );
    all(
        "a pattern that is none",
        r#"{ "op": "trace", "invokes": [{ "tokens": [[1, 2]] }], "body": [
        { "op": "get", "name": "h", "hook": "layers[0:x].output" }, { "op": "save", "name": "out", "value": "h" }] }"#,
    );
    all(
        "a reduction outside a sweep",
        r#"{ "op": "zeros", "name": "z", "size": [2] },
        { "op": "reduce", "name": "r", "reduction": "mean", "value": "z" }"#,
    );
    all(
        "a reduction read inside its sweep",
        &sweep(
            r#"[{ "a": [1, 2] }]"#,
            r#"{ "op": "reduce", "name": "r", "reduction": "sum", "value": "a" },
           { "op": "add", "name": "x", "input": "r", "other": 1 }"#,
            r#""x""#,
        ),
    );
    insta::assert_snapshot!(messages.join("\n\n"));
}

#[test]
fn copies_of_large_literals_are_refused_before_they_are_made() {
    let elements = vec!["1.0"; 60_000].join(",");
    // The literal itself is shared by all cells, an operation on it would be too: what differs is the cell.
    let prompts = vec!["\"0123456789abcdef0123456789abcdef\""; 20_000].join(",");
    let body = format!(
        r#"{{ "op": "trace", "invokes": [{{ "name": "p", "tokens": [[1]] }}], "body": [
            {{ "op": "literal", "name": "big", "dtype": "f32", "shape": [60000], "elements": [{elements}] }},
            {{ "op": "sweep", "name": "s", "over": [{{ "a": {{ "range": [0, 20000] }} }}],
               "invokes": [{{ "name": "q", "prompts": [{}] }}], "body": [
                {{ "op": "get", "name": "l", "invoke": "q", "hook": "logits" }}], "yields": ["l"] }},
            {{ "op": "save", "name": "out", "value": "s" }}] }}"#,
        &prompts[..35 * 10_000 - 1]
    );
    assert!(refused(&body).contains("takes more than"), "{}", refused(&body));
}

#[test]
fn a_loop_that_becomes_too_large_is_refused_before_it_is_made() {
    let add = |number: usize, input: &str| {
        format!(r#"{{ "op": "add", "name": "n{number}", "input": "{input}", "other": 1.0 }}"#)
    };
    let one = r#"{ "op": "literal", "name": "one", "dtype": "f32", "shape": [], "elements": [1.0] }"#;
    let repeated = |count: usize, body: &str| {
        format!(
            r#"{one}, {{ "op": "loop", "name": "z", "count": {count}, "carry": {{ "c": "one" }}, "body": [{body}], "next": {{ "c": "n1" }} }},
               {{ "op": "save", "name": "s", "value": "z" }}"#
        )
    };
    let swept = |count: usize, body: &str| {
        format!(
            r#"{{ "op": "sweep", "name": "z", "over": [{{ "k": {{ "range": [0, {count}] }} }}], "body": [{body}], "yields": ["n1"] }},
               {{ "op": "save", "name": "s", "value": "z" }}"#
        )
    };
    let two = format!("{}, {}", add(0, "c"), add(1, "n0"));
    let of_cell = format!("{}, {}", add(0, "k"), add(1, "n0"));
    let within = format!(
        r#"{{ "op": "sweep", "name": "w", "over": [{{ "k": {{ "range": [0, 500] }} }}], "body": [{}], "yields": ["n0"] }},
           {{ "op": "sum", "name": "t", "input": "w" }}, {}"#,
        add(0, "k"),
        add(1, "c")
    );
    for body in [repeated(140_000, &two), swept(140_000, &of_cell), repeated(530, &within)] {
        let message = refused(&body);
        // The expander itself would say that it has more, when it has made them all.
        assert!(message.contains("at least") && message.contains("nodes"), "{message}");
    }
    // What is the same in every cell is there once, and not counted for each.
    let alike = format!(r#"{one}, {}"#, swept(200_000, &format!("{}, {}", add(0, "one"), add(1, "n0"))));
    let message = checked(&alike).map_or_else(|faults| faults.to_string(), |_| String::new());
    assert!(!message.contains("at least"), "{message}");
    // Each that runs has its price.
    let price = sound(&repeated(100, &two)).price;
    assert!((200..210).contains(&price.nodes), "{price:?}");
}

#[test]
fn a_loop_that_begins_later_is_the_rest_of_the_whole_one() {
    let body = |from: &str| {
        sound(&format!(
            r#"{{ "op": "zeros", "name": "start", "size": [2] }},
               {{ "op": "loop", "name": "k", "over": [{{ "a": {{ "range": [0, 2] }} }}, {{ "b": [5, 6, 7] }}], {from}
                 "carry": {{ "x": "start" }}, "body": [
                   {{ "op": "randn", "name": "noise", "size": [2] }},
                   {{ "op": "mul", "name": "scaled", "input": "noise", "other": "b" }},
                   {{ "op": "add", "name": "y", "input": "x", "other": "scaled" }},
                   {{ "op": "save", "name": "each", "value": "y" }}], "next": {{ "x": "y" }} }},
               {{ "op": "save", "name": "out", "value": "k" }}"#
        ))
    };
    let cells = |checked: &CheckedProgram| -> Vec<Vec<u64>> {
        let drawn = checked.program.nodes.iter().filter(|node| node.label() == "noise");
        drawn.map(|node| node.coordinates().to_vec()).collect()
    };
    let (whole, rest) = (body(""), body(r#""from": 4,"#));
    assert_eq!((saved(&whole, "each"), saved(&rest, "each")), ("f32[2, 3, 2]".into(), "f32[2, 2]".into()));
    assert_eq!(cells(&rest), [[1, 1], [1, 2]]);
    assert_eq!(cells(&rest), cells(&whole)[4..]);
    // None is left: the loop is what it began as, and nothing is saved inside.
    let none = body(r#""from": 6,"#);
    assert_eq!((saved(&none, "out"), cells(&none).len()), ("f32[2]".into(), 0));
    assert!(!names(&none.program).contains(&"each"));
    // Only what runs counts: a training of very many steps may be gone on with.
    let long = r#"{ "op": "zeros", "name": "start", "size": [1] },
        { "op": "loop", "name": "k", "count": 1000000000002, "from": 1000000000000, "carry": { "x": "start" }, "body": [
            { "op": "add", "name": "y", "input": "x", "other": "i" }], "next": { "x": "y" } },
        { "op": "save", "name": "out", "value": "k" }"#;
    let program = sound(long).program;
    assert_eq!(program.nodes.iter().filter(|node| node.label() == "y").count(), 2);
    let beyond = long.replace("1000000000002", "7");
    assert!(
        refused(&beyond).contains("it begins at iteration 1000000000000, but has only 7"),
        "{}",
        refused(&beyond)
    );
}

#[test]
fn a_number_of_a_list_must_be_there() {
    let trace = |nodes: &str| {
        format!(
            r#"{{ "op": "trace", "invokes": [{{ "name": "p", "tokens": [[1, 2, 3]] }}], "body": [{nodes},
                {{ "op": "get", "name": "l", "hook": "logits" }}, {{ "op": "save", "name": "logits", "value": "l" }}] }}"#
        )
    };
    let set = |hook: &str, except: &str| {
        trace(&format!(
            r#"{{ "op": "zeros", "name": "z", "size": [] }},
               {{ "op": "set", "hook": "{hook}", "value": "z", "except": [{except}] }}"#
        ))
    };
    for (hook, except, missing) in [
        ("layers[2,9].mlp.output", "", "9"),
        ("layers[0,-1].mlp.output", "", "-1"),
        ("**.h[0,1,7].mlp.output", "", "7"),
        ("layers.*.mlp.output", r#""layers[3,4].**""#, "4"),
    ] {
        let message = refused(&set(hook, except));
        assert!(
            message.contains(&format!("` {missing}, but no hook point that matches has it")),
            "{message}"
        );
    }
    // A slice takes what there is, and so does a list of what there is.
    let setters = |body: &str| {
        let program = sound(body).program;
        program.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Set { .. })).count()
    };
    assert_eq!(setters(&set("layers[2:9].mlp.output", "")), 2);
    assert_eq!(setters(&set("layers[0, 3].mlp.output", r#""layers[3].**""#)), 1);
}

#[test]
fn gradients_by_pattern_are_those_of_each_hook_point() {
    let trace = |nodes: &str| {
        format!(
            r#"{{ "op": "trace", "invokes": [{{ "name": "p", "tokens": [[1, 2, 3]] }}], "body": [
                {{ "op": "get", "name": "l", "hook": "logits" }}, {{ "op": "mean", "name": "loss", "input": "l" }},
                {{ "op": "backward", "name": "b", "of": "loss" }}, {nodes}] }}"#
        )
    };
    let read = sound(&trace(
        r#"{ "op": "grad", "name": "g", "backward": "b", "hook": "layers.*.output", "except": ["layers.1.**"] },
           { "op": "save", "name": "out", "value": "g" }"#,
    ));
    let hooks: Vec<&str> = read
        .program
        .nodes
        .iter()
        .filter_map(|node| match &node.kind {
            NodeKind::Grad { of: GradientOf::Hook(address), .. } => Some(address.hook.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(hooks, ["transformer.h.0.output", "transformer.h.2.output", "transformer.h.3.output"]);
    assert!(saved(&read, "out").starts_with("f32[3, 1, 3, "), "{}", saved(&read, "out"));
    let written = sound(&trace(
        r#"{ "op": "zeros", "name": "z", "size": [4, 1, 1, 1] },
           { "op": "set_grad", "backward": "b", "hook": "layers.*.mlp.output", "value": "z", "each": true },
           { "op": "grad", "name": "g", "backward": "b", "hook": "layers.0.input" },
           { "op": "save", "name": "out", "value": "g" }"#,
    ));
    let count =
        |is: fn(&NodeKind) -> bool| written.program.nodes.iter().filter(|node| is(&node.kind)).count();
    assert_eq!(count(|kind| matches!(kind, NodeKind::SetGrad { .. })), 4);
    let message = refused(&trace(
        r#"{ "op": "grad", "name": "g", "backward": "b", "of": "l", "except": ["layers.0.**"] },
           { "op": "save", "name": "out", "value": "g" }"#,
    ));
    assert!(message.contains("`except` goes with `hook`"), "{message}");
    let message = refused(&trace(
        r#"{ "op": "zeros", "name": "z", "size": [] },
           { "op": "set_grad", "backward": "b", "hook": "layers.0.output", "value": "z", "each": true },
           { "op": "grad", "name": "g", "backward": "b", "hook": "layers.0.input" },
           { "op": "save", "name": "out", "value": "g" }"#,
    ));
    assert!(message.contains("`each` is said with a pattern"), "{message}");
}

#[test]
fn a_way_back_does_not_stand_in_an_edit() {
    let message = refused(
        r#"{ "op": "edit", "name": "e", "body": [
                { "op": "get", "name": "h", "hook": "layers.1.output" }, { "op": "mean", "name": "m", "input": "h" },
                { "op": "backward", "name": "b", "of": "m" }, { "op": "grad", "name": "g", "backward": "b", "of": "h" },
                { "op": "set", "hook": "layers.2.output", "value": "g" }] },
            { "op": "trace", "edits": ["e"], "invokes": [{ "tokens": [[1, 2]] }], "body": [
                { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "out", "value": "l" }] }"#,
    );
    assert!(message.contains("a `backward` stands in the edit `e`"), "{message}");
}
