//! What the planner's rewrites make of programs that people write, and that all of it is bit for bit what nobody planned.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod alike_edits;
mod generations;
mod owners;
#[path = "../support/mod.rs"]
mod support;

use pellucid_engine::{Engine, Results, Rewrites, RunOptions};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;

use support::Golden;

fn engine() -> Engine {
    Golden::open("gpt2").engine()
}

fn checked(engine: &Engine, invokes: &str, nodes: &str) -> CheckedProgram {
    let text =
        format!(r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{invokes}],"body":[{nodes}]}}]}}"#);
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    engine.check(program).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// Runs a program as it is planned, and holds it to the naive interpreter and to each rewrite alone.
fn run(engine: &Engine, program: &CheckedProgram) -> Results {
    let planned = engine.run(program, &RunOptions::default()).unwrap();
    let naive = engine.run_naive(program).unwrap();
    let alone = Rewrites { prefixes: true, ..Rewrites::NONE };
    let depth = Rewrites { depth: true, ..Rewrites::NONE };
    let columns = Rewrites { unembedding: true, ..Rewrites::NONE };
    let others = [Rewrites::NONE, depth, alone, columns].map(|rewrites| {
        let engine = engine.share().with_rewrites(rewrites);
        engine.run(program, &RunOptions::default()).unwrap()
    });
    for other in others.iter().chain([&naive]) {
        assert_eq!(planned.tensors.len(), other.tensors.len());
        for (name, tensor) in &planned.tensors {
            assert!(tensor.is_same_bits(&other.tensors[name]), "`{name}` differs");
        }
    }
    planned
}

const CLEAN: &str = r#"{"name":"clean","tokens":[[7,3,9,1,4,4,2]]}"#;

const CORRUPTED: &str = "[[8,3,9,5,4,4,2]]";

/// Patching one head's mixed values at the last position, for every layer and head, as it is first written down.
fn every_head(layers: u64, heads: u64) -> (String, String) {
    let (mut invokes, mut nodes) = (vec![CLEAN.to_owned()], Vec::new());
    for layer in 0..layers {
        for head in 0..heads {
            let at = format!("{layer}_{head}");
            let hook = format!("layers.{layer}.attention.mixed");
            invokes.push(format!(r#"{{"name":"p{at}","tokens":{CORRUPTED}}}"#));
            nodes.push(format!(
                r#"{{"op":"get","name":"c{at}","invoke":"clean","hook":"{hook}"}},{{"op":"getitem","name":"z{at}","input":"c{at}","index":[":",-1,{head}]}},
                {{"op":"get","name":"m{at}","invoke":"p{at}","hook":"{hook}"}},{{"op":"index_put","name":"n{at}","input":"m{at}","index":[":",-1,{head}],"values":"z{at}"}},
                {{"op":"set","invoke":"p{at}","hook":"{hook}","value":"n{at}"}},{{"op":"get","name":"l{at}","invoke":"p{at}","hook":"logits"}},
                {{"op":"getitem","name":"a{at}","input":"l{at}","index":[":",-1,0]}},{{"op":"save","name":"s{at}","value":"a{at}"}}"#
            ));
        }
    }
    (invokes.join(","), nodes.join(","))
}

/// A getter of an invoke's hook point, something done to it, and the setter of that.
fn edit(name: &str, hook: &str, operation: &str) -> String {
    let id = format!("{name}{}", hook.replace('.', "_"));
    format!(
        r#"{{"op":"get","name":"h{id}","invoke":"{name}","hook":"{hook}"}},{{"name":"e{id}","input":"h{id}",{operation}}},
        {{"op":"set","invoke":"{name}","hook":"{hook}","value":"e{id}"}}"#
    )
}

const STEERED: &str = r#""op":"add","other":0.5"#;

fn last_logit(name: &str) -> String {
    format!(
        r#"{{"op":"get","name":"l{name}","invoke":"{name}","hook":"logits"}},{{"op":"getitem","name":"{name}","input":"l{name}","index":[0,-1,3]}},{{"op":"save","value":"{name}"}}"#
    )
}

/// A program of one trace that generates.
fn generating(engine: &Engine, generate: &str, invokes: &str, nodes: &str) -> CheckedProgram {
    let text = format!(
        r#"{{"pellucid":1,"seed":5,"body":[{{"op":"trace","name":"t","invokes":[{invokes}],"generate":{{{generate},"stop_tokens":[]}},"body":[{nodes}]}}]}}"#
    );
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    engine.check(program).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// Invokes of one prompt by those names.
fn alike(names: &[&str]) -> String {
    let invokes: Vec<String> =
        names.iter().map(|name| format!(r#"{{"name":"{name}","tokens":{CORRUPTED}}}"#)).collect();
    invokes.join(",")
}

/// What an invoke has generated is saved.
fn made(name: &str) -> String {
    format!(
        r#"{{"op":"generated","name":"g{name}","invoke":"{name}"}},{{"op":"save","name":"{name}","value":"g{name}"}}"#
    )
}

/// Operations of the passes as they are planned, and without any rewrite.
fn operations(engine: &Engine, program: &CheckedProgram) -> (u64, u64) {
    let unshared = engine.share().with_rewrites(Rewrites::NONE);
    (engine.explain(program).unwrap().flops(), unshared.explain(program).unwrap().flops())
}

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// The difference of two logits at the last position, and what goes back from it.
fn metric(name: &str, one: u32, other: u32) -> String {
    format!(
        r#"{{"op":"get","name":"l{name}","invoke":"{name}","hook":"logits"}},{{"op":"getitem","name":"o{name}","input":"l{name}","index":[0,-1,{one}]}},
        {{"op":"getitem","name":"w{name}","input":"l{name}","index":[0,-1,{other}]}},{{"op":"sub","name":"d{name}","input":"o{name}","other":"w{name}"}},
        {{"op":"backward","name":"b{name}","of":"d{name}"}}"#
    )
}

fn gradient(name: &str, hook: &str) -> String {
    format!(
        r#"{{"op":"grad","name":"q{name}","backward":"b{name}","invoke":"{name}","hook":"{hook}"}},{{"op":"save","name":"{name}","value":"q{name}"}}"#
    )
}

#[test]
fn patching_every_head_costs_one_position_for_each_cell() {
    let engine = engine();
    let sizes = &engine.model().spec().sizes;
    let (layers, heads) = (sizes.layers, sizes.heads);
    let (invokes, nodes) = every_head(layers, heads);
    let program = checked(&engine, &invokes, &nodes);
    let results = run(&engine, &program);
    assert_eq!(results.report.passes, 1);
    // The clean prompt, the corrupted one, and one position of each cell.
    assert_eq!(results.report.tokens, 7 + 7 + layers * heads);
    let unshared = engine.share().with_rewrites(Rewrites::NONE);
    let unshared = unshared.run(&program, &RunOptions::default()).unwrap();
    assert_eq!(unshared.report.tokens, 7 * (1 + layers * heads));
}

#[test]
fn a_sweep_costs_what_its_cells_written_out_cost() {
    let engine = engine();
    let sizes = &engine.model().spec().sizes;
    let (layers, heads) = (sizes.layers, sizes.heads);
    let sweep = format!(
        r#"{{"op":"sweep","name":"grid","over":[{{"layer":{{"range":[0,{layers}]}}}},{{"head":{{"range":[0,{heads}]}}}}],
        "invokes":[{{"name":"p","tokens":{CORRUPTED}}}],
        "body":[{{"op":"get","name":"c","invoke":"clean","hook":"layers.{{layer}}.attention.mixed"}},
        {{"op":"getitem","name":"z","input":"c","index":[":",-1,{{"tensor":"head"}}]}},
        {{"op":"get","name":"m","invoke":"p","hook":"layers.{{layer}}.attention.mixed"}},
        {{"op":"index_put","name":"n","input":"m","index":[":",-1,{{"tensor":"head"}}],"values":"z"}},
        {{"op":"set","invoke":"p","hook":"layers.{{layer}}.attention.mixed","value":"n"}},
        {{"op":"get","name":"l","invoke":"p","hook":"logits"}},{{"op":"getitem","name":"a","input":"l","index":[0,-1,0]}}],
        "yields":["a"]}},{{"op":"save","name":"out","value":"grid"}}"#
    );
    let program = checked(&engine, CLEAN, &sweep);
    let results = run(&engine, &program);
    assert_eq!((results.report.passes, results.report.tokens), (1, 7 + 7 + layers * heads));
    let (invokes, nodes) = every_head(layers, heads);
    let written_out = run(&engine, &checked(&engine, &invokes, &nodes));
    let swept = results.tensors["out"].to_vec_f32().unwrap();
    let cells = (0..layers).flat_map(|layer| (0..heads).map(move |head| format!("s{layer}_{head}")));
    for (cell, value) in cells.zip(swept) {
        assert_eq!(written_out.tensors[&cell].to_vec_f32().unwrap()[0].to_bits(), value.to_bits(), "{cell}");
    }
    let explanation = engine.explain(&program).unwrap();
    let told = explanation.to_string();
    let line = format!(
        "{} × p: 7 tokens each, shared as far as transformer.h.0.attn.mixed … transformer.h.{}.attn.mixed, from there 1 own from column 6 on, until lm_head.output, logits of 1 vocabulary column at position 6",
        layers * heads,
        layers - 1
    );
    assert!(told.contains(&line), "{told}");
    assert_eq!(explanation.passes[0].tokens as u64, results.report.tokens);
    assert!(explanation.naive_flops() > 3 * explanation.flops(), "{told}");
    let json = serde_json::to_string(&explanation).unwrap();
    assert_eq!(serde_json::from_str::<pellucid_engine::Explanation>(&json).unwrap(), explanation);
}

#[test]
fn an_invoke_that_waits_finds_the_shared_keys_when_it_goes_on() {
    let engine = engine();
    // `early` waits at the first layer for what `late` makes in the last, and only then attends to the rows that they had
    // in common. `third` keeps these rows in the pass.
    let invokes: Vec<String> = ["late", "early", "third"]
        .iter()
        .map(|name| format!(r#"{{"name":"{name}","tokens":{CORRUPTED}}}"#))
        .collect();
    let nodes = r#"{"op":"get","name":"v","invoke":"late","hook":"layers.1.output"},{"op":"getitem","name":"w","input":"v","index":[":",-1]},
        {"op":"get","name":"m","invoke":"early","hook":"layers.0.attention.input"},{"op":"index_put","name":"n","input":"m","index":[":",-2],"values":"w"},
        {"op":"set","invoke":"early","hook":"layers.0.attention.input","value":"n"},
        {"op":"get","name":"k","invoke":"late","hook":"layers.0.mlp.output"},{"op":"index_put","name":"j","input":"k","index":[":",-1],"values":0.25},
        {"op":"set","invoke":"late","hook":"layers.0.mlp.output","value":"j"},
        {"op":"get","name":"l","invoke":"early","hook":"logits"},{"op":"getitem","name":"a","input":"l","index":[":",-1]},{"op":"save","name":"early","value":"a"},
        {"op":"get","name":"t","invoke":"third","hook":"logits"},{"op":"save","name":"third","value":"t"}"#;
    let program = checked(&engine, &invokes.join(","), nodes);
    let results = run(&engine, &program);
    assert_eq!(results.report.passes, 2);
    // The rows in common; one of `late`; two of `early`, once before it waits and once after.
    assert_eq!(results.report.tokens, 7 + 1 + 2 + 2);
}

#[test]
fn prompts_that_begin_alike_share_their_beginning() {
    let engine = engine();
    let endings = [[5, 1], [6, 2], [6, 3]];
    let invokes: Vec<String> = endings
        .iter()
        .enumerate()
        .map(|(number, [one, other])| {
            format!(r#"{{"name":"p{number}","tokens":[[1,2,3,4,{one},{other}],[1,2,3,9]]}}"#)
        })
        .collect();
    let nodes: Vec<String> = (0..endings.len())
        .map(|number| {
            format!(
                r#"{{"op":"get","name":"l{number}","invoke":"p{number}","hook":"logits"}},{{"op":"getitem","name":"a{number}","input":"l{number}","index":[":",-1]}},
                {{"op":"save","name":"s{number}","value":"a{number}"}}"#
            )
        })
        .collect();
    let program = checked(&engine, &invokes.join(","), &nodes.join(","));
    let results = run(&engine, &program);
    // The first whole. Then two positions after four shared ones, then one after five; and the last of the second prompts.
    assert_eq!(results.report.tokens, (6 + 4) + (2 + 1) + (1 + 1));
    // Who reads a hook point as a whole has all its rows.
    let all = nodes.join(",").replace(r#""index":[":",-1]"#, r#""index":[":",":"]"#);
    let program = checked(&engine, &invokes.join(","), &all);
    assert_eq!(run(&engine, &program).report.tokens, 3 * (6 + 4));
}

#[test]
fn interpolations_between_two_values_share_what_lies_below_them() {
    let engine = engine();
    let nodes: Vec<String> = NAMES
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let part = (at + 1) as f64 / 8.0;
            format!(
                r#"{{"op":"get","name":"h{name}","invoke":"{name}","hook":"layers.1.output"}},{{"op":"mul","name":"p{name}","input":"h{name}","other":{part}}},
                {{"op":"set","invoke":"{name}","hook":"layers.1.output","value":"p{name}"}},{},{}"#,
                metric(name, 5, 9),
                gradient(name, "layers.1.output")
            )
        })
        .collect();
    let program = checked(&engine, &alike(&NAMES), &nodes.join(","));
    assert_eq!(run(&engine, &program).report.tokens, 8 * 7);
    let (shared, unshared) = operations(&engine, &program);
    println!("interpolations: {unshared} → {shared} operations");
    assert!(shared * 2 < unshared, "{unshared} → {shared} operations");
}

#[test]
fn metrics_of_one_prompt_go_back_through_rows_that_are_computed_and_kept_once() {
    let engine = engine();
    let nodes: Vec<String> = NAMES
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let hook = ["layers.0.mlp.output", "layers.1.attention.input"][at % 2];
            format!("{},{}", metric(name, at as u32, 9), gradient(name, hook))
        })
        .collect();
    // Another looks at the pattern, and one is patched at its last position: these are of the same rows too.
    let others = r#"{"op":"get","name":"pattern","invoke":"looks","hook":"layers.1.attention.pattern"},{"op":"save","name":"looks","value":"pattern"},
        {"op":"get","name":"x","invoke":"patched","hook":"layers.1.attention.input"},{"op":"index_put","name":"y","input":"x","index":[":",-1],"values":0.5},
        {"op":"set","invoke":"patched","hook":"layers.1.attention.input","value":"y"},
        {"op":"get","name":"z","invoke":"patched","hook":"logits"},{"op":"getitem","name":"last","input":"z","index":[0,-1]},{"op":"save","name":"patched","value":"last"}"#;
    let invokes = alike(&[&NAMES[..], &["looks", "patched"]].concat());
    let program = checked(&engine, &invokes, &format!("{},{others}", nodes.join(",")));
    let results = run(&engine, &program);
    assert_eq!((results.report.passes, results.report.tokens), (1, 7 + 1));
    let (shared, unshared) = operations(&engine, &program);
    println!("metrics: {unshared} → {shared} operations");
    assert!(shared * 5 < unshared, "{unshared} → {shared} operations");
    let unplanned = engine.share().with_rewrites(Rewrites::NONE);
    let unplanned = unplanned.run(&program, &RunOptions::default()).unwrap();
    let (held, without) = (results.report.peak_value_bytes, unplanned.report.peak_value_bytes);
    println!("metrics: {without} → {held} bytes held");
    assert!(held * 3 < without, "{without} → {held} bytes held");
    let told = engine.explain(&program).unwrap().to_string();
    assert!(told.contains("b: 7 tokens, with a, until lm_head.output"), "{told}");
}

#[test]
fn of_the_last_layer_and_the_logits_only_what_is_picked_is_computed() {
    let engine = engine();
    let prompts =
        r#"{"name":"p","tokens":[[7,3,9,1,4,4,2],[8,3,9]]},{"name":"q","tokens":[[7,3,9,1,4,4,2],[8,3,9]]}"#;
    let read = |invoke: &str, hook: &str, tag: &str, index: &str| {
        format!(
            r#"{{"op":"get","name":"g{tag}","invoke":"{invoke}","hook":"{hook}"}},{{"op":"getitem","name":"i{tag}","input":"g{tag}","index":{index}}},{{"op":"save","name":"s{tag}","value":"i{tag}"}}"#
        )
    };
    let operations = |nodes: &str| {
        let program = checked(&engine, prompts, nodes);
        run(&engine, &program);
        engine.explain(&program).unwrap().flops()
    };
    // Columns 0 and 1 are padding of the second prompt, and 4 its first token.
    let mut all = u64::MAX;
    for indices in [
        vec![r#"[":"]"#],
        vec![r#"[":","1:6"]"#],
        vec![r#"[":",1]"#, r#"[1,4]"#, r#"[":",-1]"#],
        vec![r#"[0,"-6:-4"]"#],
        vec![r#"[":",2]"#],
    ] {
        let reads: Vec<String> = indices
            .iter()
            .enumerate()
            .map(|(at, index)| read("p", "logits", &format!("p{at}"), index))
            .collect();
        let fewer = operations(&reads.join(","));
        assert!(fewer < all, "{indices:?}: {fewer} operations, {all} for more");
        all = fewer;
    }
    // Beside one that is read, or edited, between the last attention and the final norm.
    for other in [
        read("q", "layers.1.output", "q", r#"[":","3:5"]"#),
        edit("q", "layers.1.mlp.output", r#""op":"index_put","index":[":",3],"values":0.5"#),
    ] {
        let reads =
            [other, read("q", "logits", "last", r#"[":",-1]"#), read("p", "logits", "p", r#"[":","1:3"]"#)];
        operations(&reads.join(","));
    }
    // A slice of nothing, and one with steps.
    for index in [r#"[":","5:2"]"#, r#"[":","0:6:2"]"#] {
        operations(&read("p", "logits", "p", index));
    }
    // Of a generation the prompt's step, whose last position is drawn from.
    let first = r#"{"op":"get","name":"l","invoke":"a","hook":"logits","step":0},{"op":"getitem","name":"i","input":"l","index":[0,"1:3"]},{"op":"save","name":"s","value":"i"}"#;
    let program = generating(
        &engine,
        r#""max_new_tokens":4"#,
        &alike(&["a", "b"]),
        &[first, &made("a"), &made("b")].join(","),
    );
    run(&engine, &program);
}

#[test]
fn who_forks_with_all_its_rows_goes_on_attending_to_what_stands_before_them() {
    let engine = engine();
    // `a` and `c` are over after the first layer; `b`, which begins like `a` and like which `c` begins, is edited there.
    let invokes = r#"{"name":"a","tokens":[[1,2,3,4]]},{"name":"b","tokens":[[1,2,3,9,5]]},{"name":"c","tokens":[[1,2,3,9,5,7]]}"#;
    let low = |name: &str| {
        format!(
            r#"{{"op":"get","name":"h{name}","invoke":"{name}","hook":"layers.0.output"}},{{"op":"getitem","name":"{name}","input":"h{name}","index":[0,-1]}},{{"op":"save","value":"{name}"}}"#
        )
    };
    let edited = edit("b", "layers.0.output", r#""op":"index_put","index":[":",-1],"values":0.5"#);
    run(&engine, &checked(&engine, invokes, &[low("a"), edited, last_logit("b"), low("c")].join(",")));
}

#[test]
fn a_plan_tells_all_the_logits_that_those_read_who_have_rows_in_common() {
    let engine = engine();
    let last = |name: &str, index: &str| {
        format!(
            r#"{{"op":"get","name":"l{name}","invoke":"{name}","hook":"logits"}},{{"op":"getitem","name":"{name}","input":"l{name}","index":[0,{index}]}},{{"op":"save","value":"{name}"}}"#
        )
    };
    let each: Vec<String> =
        NAMES[..7].iter().enumerate().map(|(at, name)| last(name, &at.to_string())).collect();
    let each = checked(&engine, &alike(&NAMES[..7]), &each.join(","));
    assert_eq!(run(&engine, &each).report.tokens, 7);
    let all = checked(&engine, &alike(&["all"]), &last("all", r#"":""#));
    let flops = |program: &CheckedProgram| engine.explain(program).unwrap().flops();
    assert_eq!(flops(&each), flops(&all), "{}", engine.explain(&each).unwrap());
    let one = checked(&engine, &alike(&["a"]), &last("a", "0"));
    assert!(flops(&one) < flops(&all));
}

#[test]
fn passes_hold_as_many_rows_as_there_is_memory_for() {
    let engine = engine();
    let sizes = &engine.model().spec().sizes;
    let invokes: Vec<String> =
        (0..40).map(|at| format!(r#"{{"name":"p{at}","tokens":[[{at},3,9,5,4,4,2]]}}"#)).collect();
    let nodes: Vec<String> = (0..40).map(|at| last_logit(&format!("p{at}"))).collect();
    let program = checked(&engine, &invokes.join(","), &nodes.join(","));
    let alone = run(&engine, &program);
    assert_eq!(alone.report.passes, 1);
    // A token has at least its residual stream and what an MLP makes of it, in f32.
    let prompt = 4 * 7 * sizes.hidden * 5;
    for (bytes, least) in [(1, 40), (10 * prompt, 4), (1 << 40, 1)] {
        let narrow = run(&engine.share().with_pass_bytes(bytes), &program);
        assert!(narrow.report.passes >= least && narrow.report.tokens == alone.report.tokens);
        assert!(least > 1 || narrow.report.passes == 1);
        for (name, tensor) in &alone.tensors {
            assert!(tensor.is_same_bits(&narrow.tensors[name]), "`{name}` differs");
        }
    }
}
