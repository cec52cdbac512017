//! The traps that a system of interventions falls into, one by one: edits that do nothing, padding that is counted,
//! saved values that change afterwards, steps that are lost, programs that wait for one another, neighbours that suffer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

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
fn a_body_of_steps_runs_at_the_steps_that_it_names_and_no_other() {
    let engine = engine("gpt2");
    for (range, expected) in [
        (r#""from":1,"to":3"#, vec![1, 2]),
        (r#""from":0,"to":5,"every":2"#, vec![0, 2, 4]),
        (r#""from":3"#, vec![3, 4]),
    ] {
        let results = generate(
            &engine,
            &[("p", &[vec![1, 2, 3]])],
            r#""max_new_tokens":5,"stop_tokens":[]"#,
            &format!(
                r#"{{"op":"steps","name":"some",{range},"body":[{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"save","name":"s","value":"h"}}]}},
                {{"op":"generated","name":"t"}},{{"op":"save","name":"made","value":"t"}}"#
            ),
        );
        let mut names: Vec<&str> =
            results.tensors.keys().map(String::as_str).filter(|name| name.starts_with("s/")).collect();
        names.sort_unstable();
        let expected: Vec<String> = expected.iter().map(|step| format!("s/{step}")).collect();
        assert_eq!(names, expected, "{range}");
        assert!(results.absent.is_empty(), "{:?}", results.absent);
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
fn each_step_reads_what_a_longer_prompt_would() {
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let prompts = [golden.prompt(1), golden.prompt(2)];
        let read = ["layers.1.attention.key", "layers.1.output", "logits"];
        let reads: Vec<String> = read
            .iter()
            .enumerate()
            .map(|(place, hook)| {
                format!(
                    r#"{{"op":"get","name":"g{place}","hook":"{hook}"}},{{"op":"getitem","name":"i{place}","input":"g{place}","index":[":",-1]}},
                    {{"op":"save","name":"s{place}","value":"i{place}"}}"#
                )
            })
            .collect();
        let generated = generate(
            &engine,
            &[("p", &prompts)],
            r#""max_new_tokens":5,"stop_tokens":[]"#,
            &format!(
                r#"{{"op":"steps","name":"all","body":[{}]}},{{"op":"generated","name":"t"}},{{"op":"save","name":"made","value":"t"}}"#,
                reads.join(",")
            ),
        );
        let made = generated.tensors["made"].to_vec_i64().unwrap();
        for step in 0..5 {
            for (number, prompt) in prompts.iter().enumerate() {
                let mut longer = prompt.clone();
                longer.extend(made[number * 5..number * 5 + step].iter().map(|&token| token as u32));
                let whole = run(&engine, &[("p", &[longer])], &reads.join(","));
                for (place, hook) in read.iter().enumerate() {
                    let alone = numbers(&whole, &format!("s{place}"));
                    let own = numbers(&generated, &format!("s{place}/{step}"));
                    let own = &own[number * alone.len()..(number + 1) * alone.len()];
                    assert_eq!(bits(own), bits(&alone), "{name}: {hook} of prompt {number} at step {step}");
                }
            }
        }
    }
}

#[test]
fn the_cache_holds_keys_and_values_after_their_setters() {
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let prompt = golden.prompt(1);
        for point in ["key", "value"] {
            let hook = format!("layers.1.attention.{point}");
            let edit = |get: &str, set: &str| {
                format!(
                    r#"{{"op":"get","name":"k","hook":"{hook}"{get}}},{{"op":"index_put","name":"e","input":"k","index":[":",2],"values":1.5}},
                    {{"op":"set","hook":"{hook}"{set},"value":"e"}}"#
                )
            };
            let generated = generate(
                &engine,
                &[("p", std::slice::from_ref(&prompt))],
                r#""max_new_tokens":3,"stop_tokens":[]"#,
                &format!(
                    r#"{},{{"op":"get","name":"l","hook":"logits","step":2}},{{"op":"save","name":"logits","value":"l"}},
                    {{"op":"generated","name":"t"}},{{"op":"save","name":"made","value":"t"}}"#,
                    edit(r#","step":0"#, r#","step":0"#)
                ),
            );
            // The same edit of the same position, all tokens at once.
            let mut longer = prompt.clone();
            longer.extend(
                generated.tensors["made"].to_vec_i64().unwrap()[..2].iter().map(|&token| token as u32),
            );
            let nodes = format!(
                r#"{},{{"op":"get","name":"l","hook":"logits"}},{{"op":"getitem","name":"i","input":"l","index":[":","-1:"]}},
                {{"op":"save","name":"logits","value":"i"}}"#,
                edit("", "")
            );
            let whole = run(&engine, &[("p", &[longer.clone()])], &nodes);
            assert!(generated.tensors["logits"].is_same_bits(&whole.tensors["logits"]), "{name}: {point}");
            let clean = numbers(&run(&engine, &[("p", &[longer])], LOGITS), "logits");
            let edited = numbers(&generated, "logits");
            let last = &clean[clean.len() - edited.len()..];
            assert!(
                last.iter().zip(&edited).any(|(a, b)| (a - b).abs() > 1e-4),
                "{name}: the edit does nothing"
            );
        }
    }
}

#[test]
fn at_every_step_a_getter_after_a_setter_reads_what_was_set() {
    let engine = engine("qwen3");
    let golden = Golden::open("qwen3");
    let prompts = [golden.prompt(0), golden.prompt(2)];
    let results = generate(
        &engine,
        &[("p", &prompts)],
        r#""max_new_tokens":4,"stop_tokens":[]"#,
        r#"{"op":"steps","name":"all","body":[
            {"op":"get","name":"a","hook":"layers.1.mlp.post"},{"op":"save","name":"before","value":"a"},
            {"op":"mul","name":"b","input":"a","other":2.0},{"op":"set","hook":"layers.1.mlp.post","value":"b"},
            {"op":"get","name":"c","hook":"layers.1.mlp.post"},{"op":"save","name":"after","value":"c"}]},
           {"op":"generated","name":"t"},{"op":"save","name":"made","value":"t"}"#,
    );
    for step in 0..4 {
        let doubled: Vec<f32> =
            numbers(&results, &format!("before/{step}")).iter().map(|value| value * 2.0).collect();
        assert_eq!(bits(&numbers(&results, &format!("after/{step}"))), bits(&doubled), "step {step}");
        assert!(doubled.iter().any(|value| *value != 0.0));
    }
}

/// The token that a prompt makes first, greedily.
fn first_token(engine: &Engine, prompt: &[u32]) -> u32 {
    let results = generate(
        engine,
        &[("p", &[prompt.to_vec()])],
        r#""max_new_tokens":1,"stop_tokens":[]"#,
        r#"{"op":"generated","name":"t"},{"op":"save","name":"made","value":"t"}"#,
    );
    results.tensors["made"].to_vec_i64().unwrap()[0] as u32
}

#[test]
fn a_step_lost_to_stopping_is_absent_and_so_is_what_is_made_of_it() {
    let golden = Golden::open("gpt2");
    let engine = golden.engine();
    let prompt = golden.prompt(0);
    let stop = first_token(&engine, &prompt);
    let other =
        (0..4).map(|number| golden.prompt(number)).find(|other| first_token(&engine, other) != stop).unwrap();
    let options = format!(r#""max_new_tokens":3,"stop_tokens":[{stop}]"#);
    let nodes = r#"{"op":"get","name":"late","invoke":"p","hook":"layers.1.output","step":2},
        {"op":"mean","name":"mean","input":"late"},{"op":"save","name":"lost","value":"mean"},
        {"op":"get","name":"h","invoke":"q","hook":"layers.2.output","step":1},
        {"op":"add","name":"sum","input":"h","other":"mean"},
        {"op":"set","invoke":"q","hook":"layers.2.output","step":1,"value":"sum"},
        {"op":"steps","name":"all","body":[{"op":"get","name":"x","invoke":"p","hook":"layers.0.output"},
            {"op":"save","name":"each","value":"x"}]},
        {"op":"generated","name":"g","invoke":"p"},{"op":"save","name":"made","value":"g"},
        {"op":"get","name":"l","invoke":"q","hook":"logits","step":1},{"op":"save","name":"logits","value":"l"}"#;
    let checked =
        check(&engine, generation(&[("p", &[prompt]), ("q", std::slice::from_ref(&other))], &options, nodes));
    let results = engine.run(&checked, &RunOptions::default()).unwrap();
    let mut absent = results.absent.clone();
    absent.sort();
    assert_eq!(absent, ["each/1", "each/2", "lost"]);
    assert_eq!(results.tensors["made"].to_vec_i64().unwrap(), [i64::from(stop)]);
    // A setter of what never comes sets nothing, and its invoke goes on.
    let plain = generate(
        &engine,
        &[("q", &[other])],
        &options,
        r#"{"op":"get","name":"l","hook":"logits","step":1},{"op":"save","name":"logits","value":"l"}"#,
    );
    assert!(results.tensors["logits"].is_same_bits(&plain.tensors["logits"]));
    let naive = engine.run_naive(&checked).unwrap();
    assert!(naive.tensors["logits"].is_same_bits(&plain.tensors["logits"]));
}

#[test]
fn a_prompt_that_has_stopped_is_frozen_and_reads_0() {
    let golden = Golden::open("llama2");
    let engine = golden.engine();
    let prompts: Vec<Vec<u32>> = (0..4).map(|number| golden.prompt(number)).collect();
    let firsts: Vec<u32> = prompts.iter().map(|prompt| first_token(&engine, prompt)).collect();
    let going_on = (0..4).find(|&number| firsts[number] != firsts[0]).unwrap();
    let nodes = r#"{"op":"get","name":"h","hook":"layers.1.output","step":1},{"op":"save","name":"h1","value":"h"},
        {"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#;
    let options = format!(r#""max_new_tokens":2,"stop_tokens":[{}]"#, firsts[0]);
    let both = generate(&engine, &[("p", &[prompts[0].clone(), prompts[going_on].clone()])], &options, nodes);
    let alone = generate(&engine, &[("p", &[prompts[going_on].clone()])], &options, nodes);
    let made = both.tensors["made"].to_vec_i64().unwrap();
    assert_eq!(made[..2], [i64::from(firsts[0]), -1]);
    let (both, alone) = (numbers(&both, "h1"), numbers(&alone, "h1"));
    assert!(both[..alone.len()].iter().all(|value| *value == 0.0));
    assert_eq!(bits(&both[alone.len()..]), bits(&alone));
}

#[test]
fn sampled_tokens_do_not_depend_on_who_else_is_there() {
    let golden = Golden::open("mistral");
    let engine = golden.engine();
    let nodes = r#"{"op":"generated","name":"g","invoke":"p"},{"op":"save","name":"made","value":"g"},
        {"op":"steps","name":"all","body":[{"op":"randn","name":"noise","size":[3]},{"op":"save","name":"n","value":"noise"}]}"#;
    let options = r#""max_new_tokens":6,"temperature":3.0,"stop_tokens":[]"#;
    let own = check(&engine, generation(&[("p", &[golden.prompt(0), golden.prompt(2)])], options, nodes));
    let mut seeded = own.clone();
    seeded.program.seed = 99;
    let defaults = RunOptions::default();
    let alone = engine.run(&own, &defaults).unwrap();
    let together = engine.run_together(&[(&seeded, &defaults), (&own, &defaults), (&own, &defaults)]);
    for outcome in &together[1..] {
        let outcome = outcome.as_ref().unwrap();
        assert!(alone.tensors["made"].is_same_bits(&outcome.tensors["made"]));
        assert!(alone.tensors["n/2"].is_same_bits(&outcome.tensors["n/2"]));
    }
    let other = together[0].as_ref().unwrap();
    assert!(!alone.tensors["made"].is_same_bits(&other.tensors["made"]), "the seed decides");
    assert!(!alone.tensors["n/2"].is_same_bits(&alone.tensors["n/3"]), "noise differs from step to step");
}

fn refused(engine: &Engine, program: Program) -> String {
    match engine.check(program) {
        Ok(_) => panic!("it was taken"),
        Err(faults) => faults.to_string(),
    }
}

#[test]
fn an_edit_from_what_comes_later_is_refused_with_both_places() {
    let engine = engine("gpt2");
    let text = program(
        &[("p", &[vec![1, 2, 3]])],
        &format!(
            r#"{{"op":"get","name":"late","hook":"layers.2.output","source":{{"file":"a.py","line":7}}}},
            {{"op":"set","name":"early","hook":"layers.0.output","value":"late","source":{{"file":"a.py","line":8}}}},{LOGITS}"#
        ),
    );
    let message = refused(&engine, text);
    for part in ["layers.0.output", "layers.2.output", "computed later", "a.py:7", "a.py:8"] {
        assert!(message.contains(part), "{part} is not in\n{message}");
    }
}

#[test]
fn a_true_circle_of_edits_is_refused_as_the_chain_it_is() {
    let engine = engine("gpt2");
    let prompts: &[(&str, &[Vec<u32>])] = &[("a", &[vec![1, 2]]), ("b", &[vec![3, 4]])];
    let nodes = |late: &str| {
        format!(
            r#"{{"op":"get","name":"x","invoke":"a","hook":"layers.2.output"}},{{"op":"set","invoke":"b","hook":"layers.0.output","value":"x"}},
            {{"op":"get","name":"y","invoke":"b","hook":"{late}"}},{{"op":"set","invoke":"a","hook":"layers.1.output","value":"y"}},
            {{"op":"get","name":"l","invoke":"a","hook":"logits"}},{{"op":"save","name":"la","value":"l"}},
            {{"op":"get","name":"m","invoke":"b","hook":"logits"}},{{"op":"save","name":"lb","value":"m"}}"#
        )
    };
    let message = refused(&engine, program(prompts, &nodes("layers.2.output")));
    for part in
        ["wait for one another", "layers.0.output", "layers.1.output", "invoke `a`", "invoke `b`", "→"]
    {
        assert!(message.contains(part), "{part} is not in\n{message}");
    }
    // Needing each other at different depths is no circle.
    let results = run(
        &engine,
        prompts,
        r#"{"op":"get","name":"x","invoke":"a","hook":"layers.0.output"},{"op":"set","invoke":"b","hook":"layers.0.output","value":"x"},
        {"op":"get","name":"y","invoke":"b","hook":"layers.2.output"},{"op":"set","invoke":"a","hook":"layers.2.output","value":"y"},
        {"op":"get","name":"l","invoke":"a","hook":"logits"},{"op":"save","name":"la","value":"l"},
        {"op":"get","name":"m","invoke":"b","hook":"logits"},{"op":"save","name":"lb","value":"m"}"#,
    );
    // Both have the same stream in the end: what b made of a's.
    assert!(results.tensors["la"].is_same_bits(&results.tensors["lb"]));
}

/// Two bodies that are sound each for itself, one from the first step on and one from the second: where both run, each
/// invoke waits for what the other computes after its own edit.
#[test]
fn bodies_that_need_one_another_where_they_meet_are_refused() {
    let engine = engine("gpt2");
    let prompts: &[(&str, &[Vec<u32>])] = &[("a", &[vec![1, 2]]), ("b", &[vec![3, 4]])];
    let body = |from: u64, every: u64, (target, set): (&str, u64), (source, read): (&str, u64)| {
        let name = format!("{target}{from}");
        format!(
            r#"{{"op":"steps","name":"s_{name}","from":{from},"every":{every},"body":[
            {{"op":"get","name":"r_{name}","invoke":"{source}","hook":"layers.{read}.output"}},{{"op":"mean","name":"m_{name}","input":"r_{name}"}},
            {{"op":"get","name":"h_{name}","invoke":"{target}","hook":"layers.{set}.output"}},
            {{"op":"add","name":"v_{name}","input":"h_{name}","other":"m_{name}"}},
            {{"op":"set","name":"e_{name}","invoke":"{target}","hook":"layers.{set}.output","value":"v_{name}"}}]}},"#
        )
    };
    let rest = r#"{"op":"generated","name":"g","invoke":"a"},{"op":"save","name":"ga","value":"g"},
        {"op":"generated","name":"h","invoke":"b"},{"op":"save","name":"gb","value":"h"}"#;
    let program = |bodies: String| {
        generation(prompts, r#""max_new_tokens":6,"stop_tokens":[]"#, &format!("{bodies}{rest}"))
    };
    let circle = |from, every| body(0, 2, ("a", 1), ("b", 1)) + &body(from, every, ("b", 0), ("a", 2));
    // At step 2, at step 4, and at step 2 again.
    for (from, every) in [(1, 1), (1, 3), (2, 9)] {
        let message = refused(&engine, program(circle(from, every)));
        for part in ["wait for one another", "layers.0.output", "layers.1.output", "invoke `a`", "invoke `b`"]
        {
            assert!(message.contains(part), "{part} is not in\n{message}");
        }
    }
    // An edit of one named step.
    let named = r#"{"op":"get","name":"late","invoke":"a","hook":"layers.2.output","step":4},
        {"op":"set","invoke":"b","hook":"layers.0.output","step":4,"value":"late"},"#;
    let message = refused(&engine, program(body(0, 2, ("a", 1), ("b", 1)) + named));
    assert!(message.contains("wait for one another"), "{message}");
    // They never meet: at even steps and at odd ones.
    let checked = check(&engine, program(circle(1, 2)));
    let planned = engine.run(&checked, &RunOptions::default()).unwrap();
    let naive = engine.run_naive(&checked).unwrap();
    for (name, tensor) in &planned.tensors {
        assert!(tensor.is_same_bits(&naive.tensors[name]), "{name}");
    }
}

#[test]
fn an_edit_from_the_tokens_that_it_helps_to_make_is_refused() {
    let engine = engine("gpt2");
    let prompts: &[(&str, &[Vec<u32>])] = &[("a", &[vec![1, 2]]), ("b", &[vec![3, 4]])];
    let tokens = r#"{"op":"generated","name":"g","invoke":"a"},{"op":"save","name":"ga","value":"g"},
        {"op":"to","name":"f","input":"g","dtype":"f32"},{"op":"mean","name":"m","input":"f"},"#;
    let set = |invoke: &str, value: &str| {
        format!(r#"{{"op":"set","invoke":"{invoke}","hook":"layers.1.output","step":2,"value":"{value}"}},"#)
    };
    let rest = r#"{"op":"generated","name":"h","invoke":"b"},{"op":"save","name":"gb","value":"h"}"#;
    let program = |edits: String| {
        generation(prompts, r#""max_new_tokens":4,"stop_tokens":[]"#, &format!("{tokens}{edits}{rest}"))
    };
    let message = refused(&engine, program(set("a", "m")));
    assert!(message.contains("`g`") && message.contains("which is computed later"), "{message}");
    let read = r#"{"op":"get","name":"x","invoke":"b","hook":"layers.2.output","step":2},{"op":"mean","name":"mx","input":"x"},"#;
    let message = refused(&engine, program(set("b", "m") + read + &set("a", "mx")));
    assert!(message.contains("wait for one another") && message.contains("`g`"), "{message}");
    // From another's tokens it may come.
    let checked = check(&engine, program(set("b", "m")));
    let planned = engine.run(&checked, &RunOptions::default()).unwrap();
    assert!(planned.tensors["gb"].is_same_bits(&engine.run_naive(&checked).unwrap().tensors["gb"]));
}

#[test]
fn a_circle_across_the_steps_of_a_body_is_refused() {
    let engine = engine("gpt2");
    // At each step b is set from a; at step 1 a is set from what b reads at step 3.
    let circle = generation(
        &[("a", &[vec![1, 2]]), ("b", &[vec![3, 4]])],
        r#""max_new_tokens":4,"stop_tokens":[]"#,
        r#"{"op":"steps","name":"all","body":[{"op":"get","name":"x","invoke":"a","hook":"layers.2.output"},
            {"op":"mean","name":"mx","input":"x"},{"op":"get","name":"hx","invoke":"b","hook":"layers.0.output"},
            {"op":"add","name":"sx","input":"hx","other":"mx"},{"op":"set","invoke":"b","hook":"layers.0.output","value":"sx"}]},
           {"op":"get","name":"y","invoke":"b","hook":"layers.1.output","step":3},
           {"op":"set","invoke":"a","hook":"layers.1.output","step":1,"value":"y"},
           {"op":"generated","name":"g","invoke":"a"},{"op":"save","name":"ga","value":"g"},
           {"op":"generated","name":"h","invoke":"b"},{"op":"save","name":"gb","value":"h"}"#,
    );
    assert!(refused(&engine, circle).contains("wait for one another"));
}

/// Programs that fail on their values, each in another way, and the node at fault.
fn failing(engine: &Engine) -> Vec<(CheckedProgram, &'static str)> {
    let prompt: &[(&str, &[Vec<u32>])] = &[("p", &[vec![5, 6, 7]])];
    let learned = engine.model().spec().hook_points.iter().any(|hook| hook.path() == "transformer.wpe.input");
    let mut programs = vec![
        (
            r#"{"op":"tokens","name":"t"},{"op":"get","name":"h","hook":"layers.1.output"},
            {"op":"index_select","name":"bad","input":"h","dim":1,"index":"i"},{"op":"save","name":"s","value":"bad"}"#
                .replace(r#""name":"t"}"#, r#""name":"t"},{"op":"reshape","name":"i","input":"t","shape":[-1]}"#),
            "bad",
        ),
        (
            r#"{"op":"get","name":"h","hook":"embed.input"},{"op":"mul","name":"m","input":"h","other":1000},
            {"op":"set","name":"bad","hook":"embed.input","value":"m"},"#
                .to_owned()
                + LOGITS,
            "bad",
        ),
    ];
    if learned {
        // Below the vocabulary, but beyond the table of positions.
        programs.push((
            r#"{"op":"get","name":"h","hook":"transformer.wpe.input"},{"op":"add","name":"m","input":"h","other":70},
            {"op":"set","name":"bad","hook":"transformer.wpe.input","value":"m"},"#
                .to_owned()
                + LOGITS,
            "bad",
        ));
    }
    programs.into_iter().map(|(nodes, node)| (check(engine, program(prompt, &nodes)), node)).collect()
}

#[test]
fn a_module_is_computed_after_all_where_what_it_is_skipped_for_never_comes() {
    let golden = Golden::open("gpt2");
    let engine = golden.engine();
    let prompt = golden.prompt(0);
    let stop = first_token(&engine, &prompt);
    let other =
        (0..4).map(|number| golden.prompt(number)).find(|other| first_token(&engine, other) != stop).unwrap();
    let options = format!(r#""max_new_tokens":3,"stop_tokens":[{stop}]"#);
    let logits = r#"{"op":"get","name":"l","invoke":"q","hook":"logits","step":0},{"op":"save","name":"logits","value":"l"}"#;
    let skip = r#"{"op":"get","name":"early","invoke":"q","hook":"layers.2.input"},
        {"op":"mean","name":"size","input":"early"},{"op":"mul","name":"nothing","input":"size","other":0.0},
        {"op":"get","name":"own","invoke":"p","hook":"layers.1.output"},{"op":"add","name":"same","input":"own","other":"nothing"},
        {"op":"set","invoke":"p","hook":"layers.1.output","value":"same"},
        {"op":"get","name":"late","invoke":"p","hook":"layers.1.output","step":2},
        {"op":"mean","name":"mean","input":"late"},
        {"op":"skip","name":"s","invoke":"q","module":"layers.2.mlp","value":"mean"},"#;
    // `p` waits for `q`, which is alone where the module begins; that `p` then stops, and the value never comes, shows later.
    let invokes: &[(&str, &[Vec<u32>])] = &[("p", &[prompt]), ("q", &[other])];
    let skipping = check(&engine, generation(invokes, &options, &[skip, logits].concat()));
    let skipped = engine.run(&skipping, &RunOptions::default()).unwrap();
    let plain = generate(&engine, invokes, &options, logits);
    assert!(skipped.tensors["logits"].is_same_bits(&plain.tensors["logits"]));
    assert!(engine.run_naive(&skipping).unwrap().tensors["logits"].is_same_bits(&plain.tensors["logits"]));
}

#[test]
fn a_neighbours_failure_is_its_own() {
    for name in ["gpt2", "opt", "gemma3"] {
        let engine = engine(name);
        let defaults = RunOptions::default();
        // It looks where the others fail, and goes on.
        let looks = r#"{"op":"get","name":"e","hook":"embed.input"},{"op":"save","name":"ids","value":"e"},
            {"op":"get","name":"h","hook":"layers.1.output"},{"op":"save","name":"hidden","value":"h"},"#;
        let plain =
            check(&engine, program(&[("p", &[vec![9, 8, 7, 6], vec![3]])], &[looks, LOGITS].concat()));
        let alone = engine.run(&plain, &defaults).unwrap();
        let failing = failing(&engine);
        let mut crowd: Vec<(&CheckedProgram, &RunOptions)> = vec![(&plain, &defaults)];
        for (program, _) in &failing {
            crowd.push((program, &defaults));
            crowd.push((&plain, &defaults));
        }
        let outcomes = engine.run_together(&crowd);
        for outcome in outcomes.iter().step_by(2) {
            let results = outcome.as_ref().unwrap_or_else(|error| panic!("{name}: {error}"));
            for (saved, value) in &alone.tensors {
                assert!(results.tensors[saved].is_same_bits(value), "{name}: {saved}");
            }
        }
        for (outcome, (program, node)) in outcomes.iter().skip(1).step_by(2).zip(&failing) {
            let Err(EngineError::Node(fault)) = outcome else { panic!("{name}: {outcome:?}") };
            assert_eq!(fault.node.as_deref(), Some(*node), "{name}: {fault}");
            let naive = engine.run_naive(program);
            assert!(
                matches!(&naive, Err(EngineError::Node(other)) if other.message == fault.message),
                "{name}: {naive:?}"
            );
        }
    }
}

#[test]
fn cancellation_is_honoured_between_modules_and_reaches_nobody_else() {
    let engine = engine("llama3");
    let long = check(
        &engine,
        generation(
            &[("p", &[vec![1, 2, 3]])],
            r#""max_new_tokens":40,"stop_tokens":[]"#,
            r#"{"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#,
        ),
    );
    let defaults = RunOptions::default();
    let alone = engine.run(&long, &defaults).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let cancel = Arc::new(AtomicBool::new(false));
    let (counted, raised) = (calls.clone(), cancel.clone());
    let options = RunOptions {
        cancel: Some(cancel.clone()),
        on_progress: Some(Arc::new(move |_| {
            if counted.fetch_add(1, Ordering::Relaxed) == 10 {
                raised.store(true, Ordering::Relaxed);
            }
        })),
        ..RunOptions::default()
    };
    assert!(matches!(engine.run(&long, &options), Err(EngineError::Cancelled)));
    // Raised at the eleventh stage of the first pass; it is seen at the next.
    assert!(calls.load(Ordering::Relaxed) <= 12, "{} stages ran", calls.load(Ordering::Relaxed));
    calls.store(0, Ordering::Relaxed);
    cancel.store(false, Ordering::Relaxed);
    let outcomes = engine.run_together(&[(&long, &options), (&long, &defaults)]);
    assert!(matches!(&outcomes[0], Err(EngineError::Cancelled)));
    assert!(outcomes[1].as_ref().unwrap().tensors["made"].is_same_bits(&alone.tensors["made"]));
}

#[test]
fn time_and_memory_that_a_program_was_not_given_are_not_taken() {
    let engine = engine("llama3");
    let prompt: &[(&str, &[Vec<u32>])] = &[("p", &[vec![1, 2, 3]])];
    let endless = check(
        &engine,
        generation(
            prompt,
            r#""max_new_tokens":60,"stop_tokens":[]"#,
            r#"{"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#,
        ),
    );
    let hurried = RunOptions { seconds: Some(1e-6), ..RunOptions::default() };
    assert!(matches!(engine.run(&endless, &hurried), Err(EngineError::DeadlineExceeded { .. })));

    // A value that is larger than the budget is refused before it is made: making this one would end the process.
    let large = check(
        &engine,
        program(
            prompt,
            r#"{"op":"ones","name":"o","size":[1000000,1000,2],"dtype":"f64"},{"op":"sum","name":"s","input":"o"},{"op":"save","name":"v","value":"s"}"#,
        ),
    );
    let bounded = RunOptions { memory_bytes: Some(1 << 20), ..RunOptions::default() };
    let plain = check(&engine, program(prompt, LOGITS));
    let alone = engine.run(&plain, &RunOptions::default()).unwrap();
    let outcomes = engine.run_together(&[(&large, &bounded), (&plain, &bounded)]);
    assert!(
        matches!(&outcomes[0], Err(EngineError::MemoryExceeded { needed, allowed }) if *needed >= 16_000_000_000 && *allowed == 1 << 20),
        "{:?}",
        outcomes[0].as_ref().map(|_| ())
    );
    assert!(outcomes[1].as_ref().unwrap().tensors["logits"].is_same_bits(&alone.tensors["logits"]));

    // Saved values are held to the end, and count.
    let saves: Vec<String> = (0..40)
        .map(|number| format!(r#"{{"op":"zeros","name":"z{number}","size":[1000]}},{{"op":"save","name":"s{number}","value":"z{number}"}}"#))
        .collect();
    let many = check(&engine, program(prompt, &saves.join(",")));
    let few = RunOptions { memory_bytes: Some(100_000), ..RunOptions::default() };
    assert!(matches!(engine.run(&many, &few), Err(EngineError::MemoryExceeded { .. })));
    assert!(engine.run(&many, &RunOptions { memory_bytes: Some(200_000), ..RunOptions::default() }).is_ok());
}

#[test]
fn what_is_freed_is_given_back_to_the_budget() {
    let engine = engine("gpt2");
    // Each value is read once: no two need be there together but the last and the next.
    let chain: Vec<String> = (0..50)
        .map(|number| format!(r#"{{"op":"add","name":"v{}","input":"v{number}","other":1.0}}"#, number + 1))
        .collect();
    let nodes = format!(
        r#"{{"op":"zeros","name":"v0","size":[1000]}},{},{{"op":"mean","name":"m","input":"v50"}},{{"op":"save","name":"s","value":"m"}}"#,
        chain.join(",")
    );
    let checked = check(&engine, program(&[("p", &[vec![1]])], &nodes));
    let results = engine.run(&checked, &RunOptions { memory_bytes: Some(10_000), ..RunOptions::default() });
    let results = results.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(numbers(&results, "s"), [50.0]);
    assert!(results.report.peak_value_bytes <= 10_000, "{}", results.report.peak_value_bytes);
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
