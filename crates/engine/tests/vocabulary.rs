//! Where only some columns of the vocabulary are read of logits, only these are computed: what that spares, what stands in its way,
//! and that every bit stays.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;

use pellucid_engine::{Engine, Explanation, Results, Rewrites, RunOptions};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;
use pellucid_models::{Model, ModelOptions};

use support::{Golden, folder, model_names};

fn checked(engine: &Engine, body: &str) -> CheckedProgram {
    let text = format!(r#"{{"pellucid":1,"body":[{body}]}}"#);
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    engine.check(program).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// A trace of such invokes, each by its name and prompts.
fn trace(invokes: &[(&str, &str)], nodes: &str) -> String {
    let invokes: Vec<String> =
        invokes.iter().map(|(name, tokens)| format!(r#"{{"name":"{name}","tokens":{tokens}}}"#)).collect();
    format!(r#"{{"op":"trace","invokes":[{}],"body":[{nodes}]}}"#, invokes.join(","))
}

/// What is picked of an invoke's logits, saved as `s` and its name.
fn read(name: &str, invoke: &str, index: &str) -> String {
    format!(
        r#"{{"op":"get","name":"l{name}","invoke":"{invoke}","hook":"logits"}},
        {{"op":"getitem","name":"{name}","input":"l{name}","index":{index}}},{{"op":"save","name":"s{name}","value":"{name}"}}"#
    )
}

fn off(engine: &Engine) -> Engine {
    engine.share().with_rewrites(Rewrites { unembedding: false, ..Rewrites::ALL })
}

/// Runs a program as it is planned, and holds it to the naive interpreter and to runs without this rewrite, and with it alone.
fn run(engine: &Engine, program: &CheckedProgram, what: &str) -> Results {
    let run = |engine: &Engine| engine.run(program, &RunOptions::default()).unwrap();
    let planned = run(engine);
    let alone = Rewrites { unembedding: true, ..Rewrites::NONE };
    let others =
        [run(&off(engine)), run(&engine.share().with_rewrites(alone)), engine.run_naive(program).unwrap()];
    for (other, name) in others.iter().zip(["without it", "it alone", "naive"]) {
        assert_eq!(planned.tensors.len(), other.tensors.len());
        for (saved, tensor) in &planned.tensors {
            let other = &other.tensors[saved];
            assert!(tensor.is_same_bits(other), "{what}, {name}: `{saved}` is {tensor:?}, not {other:?}");
        }
    }
    planned
}

/// Of each invoke that rides: how many columns of the vocabulary are computed.
fn columns(plan: &Explanation) -> Vec<(String, Option<usize>)> {
    let passengers = plan.passes.iter().flat_map(|pass| &pass.passengers);
    passengers.map(|passenger| (passenger.invoke.clone(), passenger.vocabulary)).collect()
}

const SHORT: &str = "[[5,9,2]]";
const PROMPT: &str = "[[8,3,9,5,4]]";
const TWO: &str = "[[8,3,9,5,4],[7,1]]";

/// Invokes that read some columns, the same, others, all, of equal prompts and unequal ones.
fn mixed() -> String {
    let set = r#"{"op":"get","name":"h","invoke":"q","hook":"layers.1.output"},{"op":"index_put","name":"e","input":"h","index":[":",-1],"values":0.5},{"op":"set","invoke":"q","hook":"layers.1.output","value":"e"}"#;
    let nodes = [
        r#"{"op":"literal","name":"few","dtype":"i64","shape":[2,2],"elements":[33,-64,0,33]}"#.to_owned(),
        read("a", "p", "[0,-1,3]"),
        read("b", "p", r#"[0,-1,{"tensor":"few"}]"#),
        set.to_owned(),
        read("c", "q", r#"[":","-2:","40:43"]"#),
        read("d", "r", r#"["...",70]"#),
        read("e2", "s", r#"[0]"#),
        read("f", "t", r#"[":",-1,95]"#),
        r#"{"op":"getitem","name":"g","input":"lf","index":[1]},{"op":"getitem","name":"g1","input":"g","index":[-2,":4"]},{"op":"save","name":"sg","value":"g1"}"#.to_owned(),
    ];
    let invokes = [("p", PROMPT), ("q", PROMPT), ("r", PROMPT), ("s", SHORT), ("t", TWO)];
    trace(&invokes, &nodes.join(","))
}

#[test]
fn in_every_family_only_the_columns_that_are_read_are_computed_to_the_same_bits() {
    for name in model_names() {
        let engine = Golden::open(&name).engine();
        let program = checked(&engine, &mixed());
        run(&engine, &program, &name);
        let plan = engine.explain(&program).unwrap();
        let expected = [("p", Some(4)), ("q", Some(3)), ("r", Some(1)), ("s", None), ("t", Some(5))];
        let expected: Vec<(String, Option<usize>)> =
            expected.iter().map(|(invoke, columns)| ((*invoke).to_owned(), *columns)).collect();
        assert_eq!(columns(&plan), expected, "{name}");
        let whole = off(&engine).explain(&program).unwrap();
        assert!(columns(&whole).iter().all(|one| one.1.is_none()));
        assert!(plan.flops() < whole.flops() && plan.bytes() < whole.bytes(), "{name}");
        assert_eq!((plan.naive_flops(), plan.passes.len()), (whole.naive_flops(), whole.passes.len()));
    }
}

#[test]
fn half_width_weights_give_the_same_bits_too() {
    let path = folder().join("gemma2");
    let options = ModelOptions { precision: pellucid_models::Precision::Bf16, ..ModelOptions::default() };
    let engine = Engine::new(Arc::new(Model::open(path.to_str().unwrap(), &options).unwrap()));
    run(&engine, &checked(&engine, &mixed()), "bf16");
}

#[test]
fn quantised_weights_give_the_same_bits_too() {
    let path = folder().join("../gguf/quantised-llama.gguf");
    let options =
        ModelOptions { precision: pellucid_models::Precision::Quantised, ..ModelOptions::default() };
    let engine = Engine::new(Arc::new(Model::open(path.to_str().unwrap(), &options).unwrap()));
    run(&engine, &checked(&engine, &mixed()), "quantised");
}

#[test]
fn without_anyone_who_reads_them_all_a_pass_has_only_those_columns() {
    let engine = Golden::open("gemma2").engine();
    // Each cell its own: as many sets of columns as there are cells.
    let cells: Vec<(String, String)> =
        (0..40).map(|cell| (format!("p{cell}"), format!("[[8,3,{},5,4]]", cell + 1))).collect();
    let invokes: Vec<(&str, &str)> =
        cells.iter().map(|(name, tokens)| (name.as_str(), tokens.as_str())).collect();
    let nodes: Vec<String> = cells
        .iter()
        .enumerate()
        .map(|(cell, (name, _))| {
            let (one, other) = (cell * 2, 95 - cell);
            format!(
                "{},{}",
                read(&format!("a{cell}"), name, &format!("[0,-1,{one}]")),
                read(&format!("b{cell}"), name, &format!("[0,-1,{other}]"))
            )
        })
        .collect();
    let program = checked(&engine, &trace(&invokes, &nodes.join(",")));
    let results = run(&engine, &program, "cells");
    assert_eq!((results.report.passes, results.tensors.len()), (1, 80));
    let plan = engine.explain(&program).unwrap();
    assert!(columns(&plan).iter().all(|one| one.1 == Some(2)), "{plan}");
    assert!(plan.to_string().contains(", logits of 2 vocabulary columns at position 4"), "{plan}");
    let json = serde_json::to_string(&plan).unwrap();
    assert!(json.contains(r#""vocabulary":2"#));
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), plan);
}

#[test]
fn readers_of_the_same_rows_have_each_others_columns_too() {
    let engine = Golden::open("llama3").engine();
    // No edit: all three read the same rows.
    let invokes = [("p", PROMPT), ("q", PROMPT), ("r", PROMPT)];
    let reads = [read("a", "p", "[0,-1,3]"), read("b", "q", "[0,-1,40]"), read("c", "r", "[0,-2,7]")];
    let program = checked(&engine, &trace(&invokes, &reads.join(",")));
    let results = run(&engine, &program, "shared rows");
    assert_eq!(results.report.tokens, 5);
    // One more, and every part of the vocabulary is read of these rows: then all of it is computed.
    let more = [read("d", "p", "[0,-1,70]"), read("e2", "q", "[0,-1,39]")];
    let program = checked(&engine, &trace(&invokes, &format!("{},{}", reads.join(","), more.join(","))));
    run(&engine, &program, "shared rows, everywhere");
}

#[test]
fn an_unembedding_that_was_set_is_read_at_those_columns() {
    let engine = Golden::open("gpt-neox").engine();
    let spec = engine.model().spec();
    let unembedding = spec.parameters.iter().rev().find(|parameter| parameter.shape.first() == Some(&96));
    let name = &unembedding.unwrap().name;
    let nodes = format!(
        r#"{{"op":"weight","name":"w","parameter":"{name}"}},{{"op":"mul","name":"w2","input":"w","other":-1.5}},
        {{"op":"set_weight","invoke":"p","parameter":"{name}","value":"w2"}},{},{}"#,
        read("a", "p", "[0,-1,3]"),
        read("b", "q", "[0,-1,3]")
    );
    let program = checked(&engine, &trace(&[("p", PROMPT), ("q", PROMPT)], &nodes));
    let results = run(&engine, &program, "set weights");
    assert!(!results.tensors["sa"].is_same_bits(&results.tensors["sb"]));
    let plan = engine.explain(&program).unwrap();
    assert!(columns(&plan).iter().all(|one| one.1 == Some(1)), "{plan}");
}

#[test]
fn what_is_set_generated_or_gone_back_through_needs_them_all() {
    let engine = Golden::open("gpt2").engine();
    let few = read("a", "p", "[0,-1,3]");
    let set =
        r#"{"op":"ones","name":"m","size":[1,5,96]},{"op":"set","invoke":"p","hook":"logits","value":"m"}"#;
    let backward = r#"{"op":"get","name":"l","invoke":"p","hook":"logits"},{"op":"getitem","name":"a","input":"l","index":[0,-1,3]},
        {"op":"backward","name":"back","of":"a"},{"op":"grad","name":"g","backward":"back","invoke":"p","hook":"layers.0.output"},{"op":"save","name":"sg","value":"g"}"#;
    let generated = format!(
        r#"{{"op":"trace","invokes":[{{"name":"p","tokens":{PROMPT}}}],"generate":{{"max_new_tokens":3}},"body":[{few},
        {{"op":"generated","name":"made","invoke":"p"}},{{"op":"save","name":"tokens","value":"made"}}]}}"#
    );
    for body in
        [trace(&[("p", PROMPT)], &format!("{set},{few}")), trace(&[("p", PROMPT)], backward), generated]
    {
        let program = checked(&engine, &body);
        run(&engine, &program, &body);
        let plan = engine.explain(&program).unwrap();
        assert!(columns(&plan).iter().all(|one| one.1.is_none()), "{body}\n{plan}");
    }
}

#[test]
fn a_column_that_is_not_there_is_the_same_error() {
    let engine = Golden::open("gpt2").engine();
    let nodes = format!(
        r#"{{"op":"literal","name":"far","dtype":"i64","shape":[1],"elements":[96]}},{},{}"#,
        read("a", "p", "[0,-1,3]"),
        read("b", "p", r#"[0,-1,{"tensor":"far"}]"#)
    );
    let program = checked(&engine, &trace(&[("p", PROMPT)], &nodes));
    let planned = engine.run(&program, &RunOptions::default()).unwrap_err();
    assert_eq!(planned.to_string(), engine.run_naive(&program).unwrap_err().to_string());
    assert!(planned.to_string().contains("96"), "{planned}");
}
