//! The traps that a system of interventions falls into, one by one: edits that do nothing, padding that is counted,
//! saved values that change afterwards, steps that are lost, programs that wait for one another, neighbours that suffer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod neighbours;
mod refusals;
mod steps;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pellucid_engine::{Engine, EngineError, Results, RunOptions, Tensor};
use pellucid_graph::check::CheckedProgram;
use pellucid_graph::spec::Axis;
use pellucid_graph::{DType, Program};
use support::{Golden, model_names, program};

fn engine(name: &str) -> Engine {
    Golden::open(name).engine()
}

fn check(engine: &Engine, program: Program) -> CheckedProgram {
    engine.check(program).unwrap_or_else(|faults| panic!("{faults}"))
}

fn run(engine: &Engine, invokes: &[(&str, &[Vec<u32>])], nodes: &str) -> Results {
    let checked = check(engine, program(invokes, nodes));
    engine.run(&checked, &RunOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// A trace that generates, from the JSON of its options and of its nodes.
fn generation(invokes: &[(&str, &[Vec<u32>])], options: &str, nodes: &str) -> Program {
    let invokes: Vec<String> = invokes
        .iter()
        .map(|(name, prompts)| format!(r#"{{"name":"{name}","tokens":{prompts:?}}}"#))
        .collect();
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{}],"generate":{{{options}}},"body":[{nodes}]}}]}}"#,
        invokes.join(",")
    );
    Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

fn generate(engine: &Engine, invokes: &[(&str, &[Vec<u32>])], options: &str, nodes: &str) -> Results {
    let checked = check(engine, generation(invokes, options, nodes));
    engine.run(&checked, &RunOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn numbers(results: &Results, name: &str) -> Vec<f32> {
    let tensor = results.tensors.get(name).unwrap_or_else(|| panic!("`{name}` is not among the results"));
    tensor.to_vec_f32().unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

const LOGITS: &str = r#"{"op":"get","name":"l","hook":"output"},{"op":"save","name":"logits","value":"l"}"#;

#[test]
fn an_edit_of_any_hook_point_moves_the_logits() {
    let mut still = Vec::new();
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let prompt = [golden.prompt(0)];
        let clean = numbers(&run(&engine, &[("p", &prompt)], LOGITS), "logits");
        for hook in &engine.model().spec().hook_points {
            let path = hook.path();
            // Different noise for every element: softmax and norms do not see what is added to all, or multiplies all.
            let edit = if hook.dtype == DType::I64 {
                r#"{"op":"flip","name":"edited","input":"h","dims":[1]}"#.to_owned()
            } else {
                let sizes: Vec<String> =
                    (0..hook.shape.len()).map(|dim| format!(r#"{{"size_of":"h","dim":{dim}}}"#)).collect();
                format!(
                    r#"{{"op":"randn","name":"noise","size":[{}]}},{{"op":"add","name":"edited","input":"h","other":"noise"}}"#,
                    sizes.join(",")
                )
            };
            let nodes = format!(
                r#"{{"op":"get","name":"h","hook":"{path}"}},{edit},{{"op":"set","hook":"{path}","value":"edited"}},{LOGITS}"#
            );
            let edited = numbers(&run(&engine, &[("p", &prompt)], &nodes), "logits");
            let moved = clean.iter().zip(&edited).any(|(clean, edited)| (clean - edited).abs() > 1e-4);
            if !moved {
                still.push(format!("{name}: {path}"));
            }
        }
    }
    assert!(still.is_empty(), "edits that move nothing:\n{}", still.join("\n"));
}

#[test]
fn a_hook_point_reads_the_same_whatever_is_done_after_it() {
    // What was read before an edit is not the edit's to change, and an input's edit is not seen by what came before.
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let prompt = [golden.prompt(0)];
        let read = |path: &str, saved: &str| {
            format!(
                r#"{{"op":"get","name":"{saved}_","hook":"{path}"}},{{"op":"save","name":"{saved}","value":"{saved}_"}}"#
            )
        };
        let (before, point) = ("layers.0.output", "layers.1.input");
        let plain =
            run(&engine, &[("p", &prompt)], &format!("{},{}", read(before, "before"), read(point, "point")));
        let nodes = format!(
            r#"{},{{"op":"mul","name":"more","input":"point_","other":3.0}},{{"op":"set","hook":"{point}","value":"more"}},{},{},
            {{"op":"set","hook":"{point}","value":"point_"}},{}"#,
            read(point, "point"),
            read(before, "before"),
            read(point, "second"),
            read(point, "third"),
        );
        let edited = run(&engine, &[("p", &prompt)], &nodes);
        assert!(
            plain.tensors["point"].is_same_bits(&edited.tensors["point"]),
            "{name}: a saved value changed"
        );
        assert!(
            plain.tensors["before"].is_same_bits(&edited.tensors["before"]),
            "{name}: the edit reached back"
        );
        let tripled: Vec<f32> = numbers(&plain, "point").iter().map(|value| value * 3.0).collect();
        assert_eq!(bits(&numbers(&edited, "second")), bits(&tripled), "{name}: a getter after a setter");
        assert!(plain.tensors["point"].is_same_bits(&edited.tensors["third"]), "{name}: the second setter");
    }
}

#[test]
fn what_is_written_is_what_is_read_and_what_a_hook_point_holds_changes_nothing() {
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let (prompts, other) = ([golden.prompt(0), golden.prompt(2)], [golden.prompt(1)]);
        let invokes: &[(&str, &[Vec<u32>])] = &[("other", &other), ("p", &prompts)];
        let hooks = &engine.model().spec().hook_points;
        let logits = LOGITS.replacen(r#""name""#, r#""invoke":"p","name""#, 1);
        // Every hook point of the pass is set to what it holds already.
        let same: Vec<String> = (0..hooks.len())
            .map(|place| {
                let path = hooks[place].path();
                format!(
                    r#"{{"op":"get","name":"h{place}","invoke":"p","hook":"{path}"}},{{"op":"set","invoke":"p","hook":"{path}","value":"h{place}"}}"#
                )
            })
            .collect();
        let clean = run(&engine, invokes, &logits);
        let set = run(&engine, invokes, &format!("{},{logits}", same.join(",")));
        assert!(clean.tensors["logits"].is_same_bits(&set.tensors["logits"]), "{name}");
        // Every hook point is set to something else in every element, and read again.
        let changed: Vec<String> = (0..hooks.len())
            .map(|place| {
                let path = hooks[place].path();
                let change = if hooks[place].dtype == DType::I64 {
                    format!(r#"{{"op":"flip","name":"e{place}","input":"h{place}","dims":[1]}}"#)
                } else {
                    let sizes: Vec<String> = (0..hooks[place].shape.len())
                        .map(|dim| format!(r#"{{"size_of":"h{place}","dim":{dim}}}"#))
                        .collect();
                    format!(r#"{{"op":"rand","name":"e{place}","size":[{}]}}"#, sizes.join(","))
                };
                format!(
                    r#"{{"op":"get","name":"h{place}","invoke":"other","hook":"{path}"}},{change},
                    {{"op":"set","invoke":"other","hook":"{path}","value":"e{place}"}},
                    {{"op":"get","name":"a{place}","invoke":"other","hook":"{path}"}},
                    {{"op":"save","name":"written{place}","value":"e{place}"}},{{"op":"save","name":"read{place}","value":"a{place}"}}"#
                )
            })
            .collect();
        let results = run(&engine, invokes, &changed.join(","));
        for (place, hook) in hooks.iter().enumerate() {
            let (written, read) =
                (&results.tensors[&format!("written{place}")], &results.tensors[&format!("read{place}")]);
            assert!(written.is_same_bits(read), "{name}: {}", hook.path());
        }
    }
}

#[test]
fn pad_cells_read_0_and_what_is_written_to_them_is_dropped() {
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let prompts = [golden.prompt(0), golden.prompt(2)];
        let padding = prompts[0].len() - prompts[1].len();
        let nodes = |edit: &str| {
            format!(
                r#"{{"op":"get","name":"h","hook":"layers.1.output"}},{{"op":"save","name":"stream","value":"h"}},{edit}
                {{"op":"get","name":"i","hook":"layers.1.output"}},{{"op":"save","name":"after","value":"i"}},
                {{"op":"get","name":"m","hook":"layers.1.attention.mixed"}},{{"op":"save","name":"mixed","value":"m"}},
                {{"op":"get","name":"s","hook":"layers.1.attention.pattern"}},{{"op":"save","name":"pattern","value":"s"}},{LOGITS}"#
            )
        };
        let clean = run(&engine, &[("p", &prompts)], &nodes(""));
        // Columns that are padding for the second prompt, written for it alone.
        let edit = format!(
            r#"{{"op":"index_put","name":"e","input":"h","index":[1,":{padding}"],"values":7.0}},
            {{"op":"set","hook":"layers.1.output","value":"e"}},"#
        );
        let edited = run(&engine, &[("p", &prompts)], &nodes(&edit));
        assert!(
            clean.tensors["logits"].is_same_bits(&edited.tensors["logits"]),
            "{name}: padding reached the logits"
        );
        assert!(clean.tensors["after"].is_same_bits(&edited.tensors["after"]), "{name}: a pad cell was kept");
        for saved in ["stream", "mixed", "logits"] {
            let tensor = &clean.tensors[saved];
            let cells = tensor.to_vec_f32().unwrap();
            let (second, column) = (cells.len() / 2, cells.len() / 2 / prompts[0].len());
            assert!(
                cells[second..second + padding * column].iter().all(|&cell| cell == 0.0),
                "{name}: {saved}"
            );
            assert!(cells[second + padding * column..].iter().any(|&cell| cell != 0.0), "{name}: {saved}");
        }
        let [_, heads, length, context] = clean.tensors["pattern"].shape()[..] else { panic!() };
        let pattern = numbers(&clean, "pattern");
        for (line, row) in pattern.chunks_exact(context).enumerate().skip(heads * length) {
            let query = line % length;
            let real = query >= padding;
            assert!(row[..padding].iter().all(|&cell| cell == 0.0), "{name}: a pad cell is attended to");
            let sum: f32 = row.iter().sum();
            assert!((sum - f32::from(u8::from(real))).abs() < 1e-5, "{name}: query {query} sums to {sum}");
        }
    }
}

#[test]
fn the_last_position_of_every_prompt_is_the_last_column() {
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let prompts: Vec<Vec<u32>> = (0..3).map(|number| golden.prompt(number)).collect();
        let nodes = r#"{"op":"get","name":"h","hook":"layers.1.output"},{"op":"getitem","name":"a","input":"h","index":[":",-1]},
            {"op":"save","name":"stream","value":"a"},{"op":"get","name":"l","hook":"logits"},
            {"op":"getitem","name":"b","input":"l","index":[":",-1]},{"op":"save","name":"last","value":"b"},
            {"op":"getitem","name":"c","input":"l","index":[":",-2]},{"op":"save","name":"before","value":"c"}"#;
        let batch = run(&engine, &[("p", &prompts)], nodes);
        for (number, prompt) in prompts.iter().enumerate() {
            let alone = run(&engine, &[("p", std::slice::from_ref(prompt))], nodes);
            let whole = numbers(&run(&engine, &[("p", std::slice::from_ref(prompt))], LOGITS), "logits");
            for saved in ["stream", "last", "before"] {
                let width = alone.tensors[saved].elements();
                let own = &numbers(&batch, saved)[number * width..(number + 1) * width];
                assert_eq!(bits(own), bits(&numbers(&alone, saved)), "{name}: {saved} of prompt {number}");
            }
            let vocabulary = alone.tensors["last"].elements();
            assert_eq!(bits(&numbers(&alone, "last")), bits(&whole[whole.len() - vocabulary..]), "{name}");
        }
    }
}

#[test]
fn lengths_mask_and_tokens_say_what_is_real() {
    let engine = engine("llama3");
    let prompts = [vec![5, 6, 7], vec![9]];
    let results = run(
        &engine,
        &[("other", &[vec![1, 2, 3, 4]]), ("p", &prompts)],
        r#"{"op":"lengths","name":"n","invoke":"p"},{"op":"save","name":"lengths","value":"n"},
           {"op":"mask","name":"m","invoke":"p"},{"op":"save","name":"mask","value":"m"},
           {"op":"tokens","name":"t","invoke":"p"},{"op":"save","name":"tokens","value":"t"},
           {"op":"get","name":"i","invoke":"p","hook":"embed.input"},{"op":"save","name":"ids","value":"i"}"#,
    );
    let integers = |name: &str| results.tensors[name].to_vec_i64().unwrap();
    assert_eq!(integers("lengths"), [3, 1]);
    assert_eq!(integers("mask"), [1, 1, 1, 0, 0, 1]);
    assert_eq!(results.tensors["mask"].dtype(), DType::Bool);
    assert_eq!(integers("tokens"), [5, 6, 7, 0, 0, 9]);
    assert_eq!(integers("ids"), [5, 6, 7, 0, 0, 9]);
}

#[test]
fn query_heads_read_the_key_and_value_head_of_their_own_group() {
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let sizes = &engine.model().spec().sizes;
        let group = (sizes.heads / sizes.key_value_heads) as usize;
        let prompt = [golden.prompt(0)];
        let read = r#"{"op":"get","name":"m","hook":"layers.1.attention.mixed"},{"op":"save","name":"mixed","value":"m"}"#;
        let clean = run(&engine, &[("p", &prompt)], read);
        let [_, length, heads, size] = clean.tensors["mixed"].shape()[..] else { panic!() };
        for (point, edited_head) in [("value", 0), ("key", sizes.key_value_heads as usize - 1)] {
            let nodes = format!(
                r#"{{"op":"get","name":"v","hook":"layers.1.attention.{point}"}},
                {{"op":"index_put","name":"e","input":"v","index":[":",3,{edited_head}],"values":0.5}},
                {{"op":"set","hook":"layers.1.attention.{point}","value":"e"}},{read}"#
            );
            let edited = run(&engine, &[("p", &prompt)], &nodes);
            let (clean, edited) = (numbers(&clean, "mixed"), numbers(&edited, "mixed"));
            for head in 0..heads {
                let moved = (0..length).any(|token| {
                    let at = (token * heads + head) * size;
                    clean[at..at + size] != edited[at..at + size]
                });
                assert_eq!(
                    moved,
                    head / group == edited_head,
                    "{name}: head {head} of {heads}, {point} of {edited_head}"
                );
            }
            // Nothing before the edited position sees it.
            assert_eq!(bits(&clean[..3 * heads * size]), bits(&edited[..3 * heads * size]), "{name}");
        }
    }
}

#[test]
fn hook_points_have_the_shapes_that_the_model_publishes() {
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let prompts = [golden.prompt(1), golden.prompt(2)];
        let nodes: Vec<String> = engine
            .model()
            .spec()
            .hook_points
            .iter()
            .enumerate()
            .map(|(place, hook)| {
                format!(r#"{{"op":"get","name":"g{place}","hook":"{}"}},{{"op":"save","name":"s{place}","value":"g{place}"}}"#, hook.path())
            })
            .collect();
        let body = format!(r#"{{"op":"steps","name":"all","body":[{}]}}"#, nodes.join(","));
        let results = generate(&engine, &[("p", &prompts)], r#""max_new_tokens":3,"stop_tokens":[]"#, &body);
        for (place, hook) in engine.model().spec().hook_points.iter().enumerate() {
            for step in 0..3usize {
                let tensor: &Tensor = &results.tensors[&format!("s{place}/{step}")];
                let width = prompts[0].len();
                let wanted: Vec<usize> = hook
                    .shape
                    .iter()
                    .map(|axis| match axis {
                        Axis::Prompts => 2,
                        Axis::Length => {
                            if step == 0 {
                                width
                            } else {
                                1
                            }
                        }
                        Axis::Context => width + step,
                        Axis::Size(size) => *size as usize,
                    })
                    .collect();
                assert_eq!(tensor.shape(), wanted, "{name}: {} at step {step}", hook.path());
                assert_eq!(tensor.dtype(), hook.dtype);
            }
        }
    }
}
