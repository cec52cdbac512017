//! Gradients: every family held to transformers' own, and every rule of the language about them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

mod support;

use std::collections::BTreeMap;

use pellucid_engine::{Engine, RunOptions, Tensor};
use pellucid_graph::DType;
use support::{Golden, Tally, model_names, program};

/// A gradient may differ by so much of the largest at its hook point.
const GRADIENTS: f64 = 1e-5;
/// The loss of the golden gradients: one logit difference at the last position.
const LOSS: &str = r#"{"op":"get","name":"l","hook":"logits"},
    {"op":"getitem","name":"five","input":"l","index":[0,-1,5]},{"op":"getitem","name":"nine","input":"l","index":[0,-1,9]},
    {"op":"sub","name":"loss","input":"five","other":"nine"},{"op":"backward","name":"b","of":"loss"}"#;

/// Runs a program both ways, and once more with nothing kept of any layer that can be computed again; what it saves, which must be
/// the same bit for bit.
fn run(engine: &Engine, invokes: &[(&str, &[Vec<u32>])], nodes: &str) -> BTreeMap<String, Tensor> {
    let checked = engine.check(program(invokes, nodes)).unwrap_or_else(|faults| panic!("{faults}\n{nodes}"));
    let planned =
        engine.run(&checked, &RunOptions::default()).unwrap_or_else(|error| panic!("{error}\n{nodes}"));
    let naive = engine.run_naive(&checked).unwrap_or_else(|error| panic!("{error}\n{nodes}"));
    let again = RunOptions { kept_bytes: Some(0), ..RunOptions::default() };
    let again = engine.run(&checked, &again).unwrap_or_else(|error| panic!("{error}\n{nodes}"));
    for (name, tensor) in &planned.tensors {
        assert!(
            tensor.is_same_bits(&again.tensors[name]),
            "`{name}` differs where it is computed again\n{nodes}"
        );
    }
    assert_eq!(planned.tensors.keys().collect::<Vec<_>>(), naive.tensors.keys().collect::<Vec<_>>());
    for (name, tensor) in &planned.tensors {
        assert!(
            tensor.is_same_bits(&naive.tensors[name]),
            "`{name}` differs: planned {:?}, naive {:?}\n{nodes}",
            head(tensor),
            head(&naive.tensors[name])
        );
    }
    planned.tensors.into_iter().collect()
}

fn head(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec_f32().unwrap().into_iter().take(12).collect()
}

fn faults(engine: &Engine, invokes: &[(&str, &[Vec<u32>])], nodes: &str) -> String {
    match engine.check(program(invokes, nodes)) {
        Ok(_) => panic!("accepted: {nodes}"),
        Err(faults) => faults.to_string(),
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec_f64().unwrap()
}

fn relative(one: &Tensor, other: &[f64]) -> f64 {
    let one = values(one);
    assert_eq!(one.len(), other.len());
    let largest = other.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    one.iter().zip(other).fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs())) / largest
}

fn gradients_of(name: &str) -> BTreeMap<String, support::Expected> {
    let folder = support::folder().join(name);
    let Ok(bytes) = std::fs::read(folder.join("gradients.safetensors")) else { return BTreeMap::new() };
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let read = |key: &str| {
        let view = file.tensor(key).unwrap();
        let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
        support::Expected { shape: view.shape().to_vec(), values: values.collect() }
    };
    let mut gradients: BTreeMap<String, support::Expected> =
        file.names().into_iter().map(|key| (key.to_owned(), read(key))).collect();
    if let Some(aliases) = json["gradient_aliases"].as_object() {
        for (alias, target) in aliases {
            gradients.insert(alias.clone(), read(target.as_str().unwrap()));
        }
    }
    let name = |key: String| key.strip_prefix("gradient.").unwrap_or(&key).to_owned();
    gradients.into_iter().map(|(key, expected)| (name(key), expected)).collect()
}

#[test]
fn gradients_at_every_hook_point_are_transformers_own() {
    let mut failures = String::new();
    let mut held = 0;
    for name in model_names() {
        let expected = gradients_of(&name);
        if expected.is_empty() {
            continue;
        }
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let known: Vec<String> = engine.model().spec().hook_points.iter().map(|hook| hook.path()).collect();
        let mut tally = Tally::new(&name);
        let nodes: Vec<String> = expected
            .keys()
            .enumerate()
            .map(|(place, hook)| {
                assert!(known.contains(hook), "{name}: {hook}");
                format!(r#"{{"op":"grad","name":"g{place}","backward":"b","hook":"{hook}"}},{{"op":"save","name":"s{place}","value":"g{place}"}}"#)
            })
            .collect();
        let found = run(&engine, &[("p", &[golden.prompt(0)])], &format!("{LOSS},{}", nodes.join(",")));
        for (place, (hook, expected)) in expected.iter().enumerate() {
            tally.relative(&format!("gradient of {hook}"), &found[&format!("s{place}")], expected, GRADIENTS);
            held += 1;
        }
        failures.push_str(&tally.failures());
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(held > 600, "only {held} gradients were held to transformers'");
}

#[test]
fn one_gradient_alone_has_the_same_bits_as_all_together() {
    for name in ["gpt2", "gemma2", "llama3", "opt-post-norm"] {
        let golden = Golden::open(name);
        let engine = golden.engine();
        let hooks: Vec<String> = gradients_of(name).into_keys().collect();
        let node = |place: usize| {
            let hook = &hooks[place];
            format!(
                r#"{{"op":"grad","name":"g{place}","backward":"b","hook":"{hook}"}},{{"op":"save","name":"s{place}","value":"g{place}"}}"#
            )
        };
        let all: Vec<String> = (0..hooks.len()).map(node).collect();
        let together = run(&engine, &[("p", &[golden.prompt(0)])], &format!("{LOSS},{}", all.join(",")));
        for place in (0..hooks.len()).step_by(3) {
            let text = format!("{LOSS},{}", node(place));
            let checked = engine.check(program(&[("p", &[golden.prompt(0)])], &text)).unwrap();
            let alone = engine.run(&checked, &RunOptions::default()).unwrap();
            let key = format!("s{place}");
            assert!(alone.tensors[&key].is_same_bits(&together[&key]), "{name}: {}", hooks[place]);
        }
    }
}

/// The directional derivative by central differences against the gradient's: through the rest of the model in f32.
#[test]
fn finite_differences_agree_at_every_kind_of_hook_point() {
    for name in ["gpt2", "gemma3", "qwen3", "gpt-neox", "opt"] {
        let golden = Golden::open(name);
        let engine = golden.engine();
        let mut seen = std::collections::BTreeSet::new();
        for hook in gradients_of(name).into_keys() {
            let kind: String = hook.chars().filter(|character| !character.is_ascii_digit()).collect();
            // −∞ cannot be moved; a divisor is at most as large as rounding lets it be measured.
            if hook.ends_with(".scores") || !seen.insert(kind) {
                continue;
            }
            let spec = engine.model().spec().hook_points.iter().find(|point| point.path() == hook).unwrap();
            let sizes: Vec<String> =
                (0..spec.shape.len()).map(|dim| format!(r#"{{"size_of":"h","dim":{dim}}}"#)).collect();
            let size = sizes.join(",");
            let at = |step: &str| {
                format!(
                    r#"{{"op":"get","name":"h","hook":"{hook}"}},{{"op":"randn","name":"v","size":[{size}]}},
                    {{"op":"mul","name":"dv","input":"v","other":{step}}},{{"op":"add","name":"hv","input":"h","other":"dv"}},
                    {{"op":"set","hook":"{hook}","value":"hv"}},{LOSS},
                    {{"op":"grad","name":"g","backward":"b","hook":"{hook}"}},
                    {{"op":"mul","name":"gv","input":"g","other":"v"}},{{"op":"sum","name":"along","input":"gv"}},
                    {{"op":"norm","name":"size","input":"g"}},{{"op":"norm","name":"length","input":"v"}},
                    {{"op":"save","name":"loss_","value":"loss"}},{{"op":"save","name":"along_","value":"along"}},
                    {{"op":"save","name":"size_","value":"size"}},{{"op":"save","name":"length_","value":"length"}}"#
                )
            };
            let prompt = golden.prompt(0);
            let number = |found: &BTreeMap<String, Tensor>, name: &str| values(&found[name])[0];
            let here = run(&engine, &[("p", std::slice::from_ref(&prompt))], &at("0.0"));
            let step = 0.02 / number(&here, "length_").max(1.0);
            let up = run(&engine, &[("p", std::slice::from_ref(&prompt))], &at(&format!("{step}")));
            let down = run(&engine, &[("p", std::slice::from_ref(&prompt))], &at(&format!("{}", -step)));
            let measured = (number(&up, "loss_") - number(&down, "loss_")) / (2.0 * step);
            let computed = number(&here, "along_");
            let scale = number(&here, "size_") + 1e-3;
            assert!(
                (measured - computed).abs() < 0.05 * scale + 1e-6 / step,
                "{name}: {hook}: measured {measured}, computed {computed}, size {scale}"
            );
        }
    }
}

fn tiny() -> (Golden, Engine) {
    let golden = Golden::open("gpt2");
    let engine = golden.engine();
    (golden, engine)
}

#[test]
fn a_gradient_follows_a_value_that_was_read_before_it_was_replaced() {
    let (golden, engine) = tiny();
    let prompt = [golden.prompt(0)];
    // h is read, scaled and written back; its first version's gradient goes through the edit, the second's flows on.
    let nodes = format!(
        r#"{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"mul","name":"half","input":"h","other":0.5}},
        {{"op":"set","hook":"layers.0.output","value":"half"}},{{"op":"get","name":"after","hook":"layers.0.output"}},
        {LOSS},
        {{"op":"grad","name":"g","backward":"b","of":"h"}},{{"op":"save","name":"first","value":"g"}},
        {{"op":"grad","name":"ga","backward":"b","of":"after"}},{{"op":"save","name":"second","value":"ga"}},
        {{"op":"grad","name":"gh","backward":"b","hook":"layers.0.output"}},{{"op":"save","name":"flowed","value":"gh"}},
        {{"op":"grad","name":"gv","backward":"b","of":"half"}},{{"op":"save","name":"value","value":"gv"}}"#
    );
    let found = run(&engine, &[("p", &prompt)], &nodes);
    assert!(found["second"].is_same_bits(&found["flowed"]));
    assert!(found["value"].is_same_bits(&found["flowed"]));
    let half: Vec<f64> = values(&found["flowed"]).iter().map(|value| value * 0.5).collect();
    assert!(relative(&found["first"], &half) < 1e-6);
    assert!(values(&found["first"]).iter().any(|&value| value != 0.0));
    // Read before, and used beside: both paths count.
    let nodes = r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"mul","name":"half","input":"h","other":0.5},
        {"op":"set","hook":"layers.0.output","value":"half"},
        {"op":"get","name":"l","hook":"logits"},{"op":"getitem","name":"five","input":"l","index":[0,-1,5]},
        {"op":"sum","name":"side","input":"h"},{"op":"add","name":"loss","input":"five","other":"side"},
        {"op":"backward","name":"b","of":"loss"},{"op":"backward","name":"main","of":"five"},
        {"op":"grad","name":"g","backward":"b","of":"h"},{"op":"save","name":"both","value":"g"},
        {"op":"grad","name":"gm","backward":"main","of":"h"},{"op":"save","name":"main_","value":"gm"}"#.to_string();
    let found = run(&engine, &[("p", &prompt)], &nodes);
    let expected: Vec<f64> = values(&found["main_"]).iter().map(|value| value + 1.0).collect();
    assert!(relative(&found["both"], &expected) < 1e-6);
}

#[test]
fn a_replaced_hook_point_passes_nothing_on_to_what_was_before() {
    let (golden, engine) = tiny();
    let nodes = format!(
        r#"{{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.0]}},
        {{"op":"set","hook":"layers.1.mlp.output","value":"z"}},{LOSS},
        {{"op":"grad","name":"g","backward":"b","hook":"layers.1.mlp.output"}},{{"op":"save","name":"there","value":"g"}},
        {{"op":"grad","name":"g0","backward":"b","hook":"layers.1.output"}},{{"op":"save","name":"after","value":"g0"}},
        {{"op":"grad","name":"g1","backward":"b","hook":"layers.1.norm_2.input"}},{{"op":"save","name":"before","value":"g1"}}"#
    );
    let found = run(&engine, &[("p", &[golden.prompt(0)])], &nodes);
    assert!(values(&found["there"]).iter().any(|&value| value != 0.0));
    assert!(found["after"].is_same_bits(&found["there"]));
    // What passes it by goes on, what went into it does not.
    let inside = nodes.replace("layers.1.norm_2.input", "layers.1.mlp.input");
    let message = faults(&engine, &[("p", &[golden.prompt(0)])], &inside);
    assert!(message.contains("`loss` does not depend on `layers.1.mlp.input`"), "{message}");
}

#[test]
fn written_gradients_flow_on() {
    let (golden, engine) = tiny();
    let prompt = [golden.prompt(0)];
    let nodes = |edit: &str| {
        format!(
            r#"{LOSS},{edit}{{"op":"grad","name":"g1","backward":"b","hook":"layers.1.input"}},{{"op":"save","name":"late","value":"g1"}},
            {{"op":"grad","name":"g0","backward":"b","hook":"embed.output"}},{{"op":"save","name":"early","value":"g0"}}"#
        )
    };
    let plain = run(&engine, &[("p", &prompt)], &nodes(""));
    let doubled = run(
        &engine,
        &[("p", &prompt)],
        &nodes(
            r#"{"op":"grad","name":"g","backward":"b","hook":"layers.1.input"},{"op":"mul","name":"w","input":"g","other":2.0},
            {"op":"set_grad","backward":"b","hook":"layers.1.input","value":"w"},"#,
        ),
    );
    let twice = |tensor: &Tensor| values(tensor).iter().map(|value| value * 2.0).collect::<Vec<_>>();
    assert!(relative(&doubled["late"], &twice(&plain["late"])) < 1e-6, "a grad after it reads the new one");
    assert!(relative(&doubled["early"], &twice(&plain["early"])) < 1e-6);
    let zeroed = run(
        &engine,
        &[("p", &prompt)],
        &nodes(
            r#"{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.0]},
            {"op":"set_grad","backward":"b","hook":"layers.1.input","value":"z"},"#,
        ),
    );
    assert!(values(&zeroed["early"]).iter().all(|&value| value == 0.0));
    // The gradient of an intermediate value.
    let nodes = r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"mul","name":"m","input":"h","other":1.0},
        {"op":"set","hook":"layers.0.output","value":"m"},"#;
    let edit = r#"{"op":"grad","name":"gm","backward":"b","of":"m"},{"op":"neg","name":"n","input":"gm"},
        {"op":"set_grad","backward":"b","of":"m","value":"n"},
        {"op":"grad","name":"after","backward":"b","of":"m"},{"op":"save","name":"after_","value":"after"},
        {"op":"grad","name":"gh","backward":"b","of":"h"},{"op":"save","name":"through","value":"gh"},"#;
    let save = r#"{"op":"save","name":"before_","value":"gm"}"#;
    let found = run(&engine, &[("p", &prompt)], &format!("{nodes}{LOSS},{edit}{save}"));
    let minus: Vec<f64> = values(&found["before_"]).iter().map(|value| -value).collect();
    assert!(relative(&found["after_"], &minus) < 1e-7);
    assert!(relative(&found["through"], &minus) < 1e-7);
}

/// The key is not computed from the query, though it comes after it: what is written as the query's gradient goes on all the
/// same, to the value that was set there and to what the model's own query was computed from.
#[test]
fn a_gradient_can_be_written_where_none_comes_from_the_loss() {
    let (golden, engine) = tiny();
    let prompt = [golden.prompt(0)];
    let read = r#"{"op":"get","name":"q","hook":"layers.1.attention.query"},"#;
    let edit = r#"{"op":"mul","name":"m","input":"q","other":1.0},{"op":"set","hook":"layers.1.attention.query","value":"m"},"#;
    let loss = r#"{"op":"get","name":"k","hook":"layers.1.attention.key"},{"op":"mul","name":"kk","input":"k","other":"k"},
        {"op":"sum","name":"loss","input":"kk"},"#;
    let write = r#"{"op":"literal","name":"w","dtype":"f32","shape":[],"elements":[0.5]},{"op":"backward","name":"b","of":"loss"},
        {"op":"set_grad","backward":"b","hook":"layers.1.attention.query","value":"w"},"#;
    // The same as a loss: 0.5 for each element of the query.
    let add = r#"{"op":"sum","name":"all","input":"q"},{"op":"mul","name":"part","input":"all","other":0.5},
        {"op":"add","name":"both","input":"loss","other":"part"},{"op":"backward","name":"b","of":"both"},"#;
    let early = r#"{"op":"grad","name":"e","backward":"b","hook":"embed.output"},{"op":"save","name":"early","value":"e"}"#;
    let value =
        r#",{"op":"grad","name":"v","backward":"b","of":"m"},{"op":"save","name":"value","value":"v"}"#;
    let one: [(&str, &[Vec<u32>]); 1] = [("p", &prompt)];
    let expected = values(&run(&engine, &one, &format!("{read}{loss}{add}{early}"))["early"]);
    let keys = r#"{"op":"backward","name":"b","of":"loss"},"#;
    let only_keys = run(&engine, &one, &format!("{loss}{keys}{early}"));
    assert!(relative(&only_keys["early"], &expected) > 1e-3, "the query matters");
    let own = run(&engine, &one, &format!("{loss}{write}{early}"));
    assert!(relative(&own["early"], &expected) < GRADIENTS);
    let set = run(&engine, &one, &format!("{read}{edit}{loss}{write}{early}{value}"));
    assert!(relative(&set["early"], &expected) < GRADIENTS);
    assert!(values(&set["value"]).iter().all(|&value| value == 0.5));
}

#[test]
fn gradients_cross_invokes_in_either_direction() {
    let (golden, engine) = tiny();
    let (one, other) = (golden.prompt(0), golden.prompt(3));
    // From a late layer of `a` into an early one of `b`: on the way back from b's early layer to a's late one.
    let nodes = r#"{"op":"get","name":"late","invoke":"a","hook":"layers.1.output"},
        {"op":"set","invoke":"b","hook":"layers.0.input","value":"late"},
        {"op":"get","name":"l","invoke":"b","hook":"logits"},{"op":"getitem","name":"loss","input":"l","index":[0,-1,5]},
        {"op":"backward","name":"back","of":"loss"},
        {"op":"grad","name":"ga","backward":"back","invoke":"a","hook":"embed.output"},{"op":"save","name":"a_","value":"ga"},
        {"op":"grad","name":"gl","backward":"back","of":"late"},{"op":"save","name":"late_","value":"gl"},
        {"op":"grad","name":"gb","backward":"back","invoke":"b","hook":"layers.0.input"},{"op":"save","name":"b_","value":"gb"}"#;
    let found =
        run(&engine, &[("a", std::slice::from_ref(&one)), ("b", std::slice::from_ref(&other))], nodes);
    assert!(found["late_"].is_same_bits(&found["b_"]));
    assert!(values(&found["a_"]).iter().any(|&value| value != 0.0));
    // A written gradient of one invoke from a gradient of the other, further down: each waits for the other in turn.
    let nodes = r#"{"op":"get","name":"la","invoke":"a","hook":"logits"},{"op":"get","name":"lb","invoke":"b","hook":"logits"},
        {"op":"getitem","name":"ea","input":"la","index":[0,-1,5]},{"op":"getitem","name":"eb","input":"lb","index":[0,-1,5]},
        {"op":"add","name":"loss","input":"ea","other":"eb"},{"op":"backward","name":"back","of":"loss"},
        {"op":"grad","name":"g","backward":"back","invoke":"b","hook":"layers.0.output"},
        {"op":"set_grad","backward":"back","invoke":"a","hook":"layers.1.output","value":"g"},
        {"op":"grad","name":"ga","backward":"back","invoke":"a","hook":"layers.1.output"},{"op":"save","name":"a_","value":"ga"},
        {"op":"save","name":"b_","value":"g"},
        {"op":"grad","name":"e","backward":"back","invoke":"a","hook":"embed.output"},{"op":"save","name":"e_","value":"e"}"#;
    let found =
        run(&engine, &[("a", std::slice::from_ref(&one)), ("b", std::slice::from_ref(&other))], nodes);
    assert!(found["a_"].is_same_bits(&found["b_"]));
    // A gradient of one invoke steers the other's forward pass.
    let nodes = r#"{"op":"get","name":"la","invoke":"a","hook":"logits"},{"op":"getitem","name":"loss","input":"la","index":[0,-1,5]},
        {"op":"backward","name":"back","of":"loss"},{"op":"grad","name":"g","backward":"back","invoke":"a","hook":"layers.1.input"},
        {"op":"get","name":"h","invoke":"b","hook":"layers.1.input"},{"op":"add","name":"moved","input":"h","other":"g"},
        {"op":"set","invoke":"b","hook":"layers.1.input","value":"moved"},
        {"op":"get","name":"lb","invoke":"b","hook":"logits"},{"op":"save","name":"logits_","value":"lb"}"#;
    let found = run(&engine, &[("a", std::slice::from_ref(&one)), ("b", std::slice::from_ref(&one))], nodes);
    let clean = golden.tensor("logits.0").unwrap();
    assert!(relative(&found["logits_"], &clean.values) > 1e-4, "the edit moves something");
}

#[test]
fn a_gradient_from_an_early_loss_steers_the_same_pass_further_up() {
    let (golden, engine) = tiny();
    let nodes = r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"mul","name":"hh","input":"h","other":"h"},
        {"op":"sum","name":"loss","input":"hh"},{"op":"backward","name":"b","of":"loss"},
        {"op":"grad","name":"g","backward":"b","hook":"embed.output"},
        {"op":"set","hook":"layers.1.mlp.output","value":"g"},
        {"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits_","value":"l"},{"op":"save","name":"g_","value":"g"}"#;
    let found = run(&engine, &[("p", &[golden.prompt(0)])], nodes);
    assert!(values(&found["g_"]).iter().any(|&value| value != 0.0));
}

#[test]
fn several_ways_back_of_one_pass_and_given_cotangents() {
    let (golden, engine) = tiny();
    let nodes = r#"{"op":"get","name":"l","hook":"logits"},{"op":"getitem","name":"last","input":"l","index":[0,-1,"5:9"]},
        {"op":"literal","name":"c","dtype":"f32","shape":[4],"elements":[1.0,-2.0,0.5,0.0]},
        {"op":"backward","name":"all","of":"last","cotangent":"c"},
        {"op":"grad","name":"g","backward":"all","hook":"layers.0.mlp.post"},{"op":"save","name":"all_","value":"g"},
        {"op":"mul","name":"weighted","input":"last","other":"c"},{"op":"sum","name":"loss","input":"weighted"},
        {"op":"backward","name":"sum_","of":"loss"},
        {"op":"grad","name":"gs","backward":"sum_","hook":"layers.0.mlp.post"},{"op":"save","name":"by_sum","value":"gs"},
        {"op":"getitem","name":"one","input":"last","index":[0]},{"op":"backward","name":"first","of":"one"},
        {"op":"grad","name":"gf","backward":"first","hook":"layers.1.ln_1.scale"},{"op":"save","name":"scale_","value":"gf"}"#;
    let nodes = nodes.replace("layers.1.ln_1.scale", "layers.1.norm_1.scale");
    let found = run(&engine, &[("p", &[golden.prompt(0)])], &nodes);
    assert!(relative(&found["all_"], &values(&found["by_sum"])) < 1e-6);
    assert!(values(&found["scale_"]).iter().any(|&value| value != 0.0));
}

#[test]
fn a_batch_of_unequal_prompts_has_the_gradients_of_its_prompts() {
    let (golden, engine) = tiny();
    let prompts: Vec<Vec<u32>> = (0..3).map(|number| golden.prompt(number)).collect();
    let nodes = r#"{"op":"get","name":"l","hook":"logits"},{"op":"getitem","name":"each","input":"l","index":[":",-1,5]},
        {"op":"sum","name":"loss","input":"each"},{"op":"backward","name":"b","of":"loss"},
        {"op":"grad","name":"g","backward":"b","hook":"layers.0.output"},{"op":"save","name":"h_","value":"g"},
        {"op":"grad","name":"gp","backward":"b","hook":"layers.1.attention.pattern"},{"op":"save","name":"p_","value":"gp"}"#;
    let batch = run(&engine, &[("all", &prompts)], nodes);
    let (cells, shape) = (batch["h_"].to_vec_f32().unwrap(), batch["h_"].shape().to_vec());
    for (number, prompt) in prompts.iter().enumerate() {
        let alone = run(&engine, &[("one", std::slice::from_ref(prompt))], nodes)["h_"].to_vec_f32().unwrap();
        let row = &cells[number * shape[1] * shape[2]..(number + 1) * shape[1] * shape[2]];
        let (padding, real) = row.split_at((shape[1] - prompt.len()) * shape[2]);
        assert!(padding.iter().all(|&cell| cell == 0.0));
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(real), bits(&alone), "prompt {number}");
    }
}

#[test]
fn neighbours_change_no_bit() {
    let (golden, engine) = tiny();
    let with = |hook: &str, number: usize| {
        let text = format!(
            r#"{LOSS},{{"op":"grad","name":"g","backward":"b","hook":"{hook}"}},{{"op":"save","name":"s","value":"g"}}"#
        );
        engine.check(program(&[("p", &[golden.prompt(number)])], &text)).unwrap()
    };
    let forward = engine
        .check(program(
            &[("p", &[golden.prompt(3)])],
            r#"{"op":"get","name":"l","hook":"logits"},{"op":"save","name":"s","value":"l"}"#,
        ))
        .unwrap();
    let programs =
        [with("embed.output", 0), forward, with("layers.1.mlp.pre", 1), with("layers.0.attention.scores", 2)];
    let options = RunOptions::default();
    let together: Vec<_> = programs.iter().map(|program| (program, &options)).collect();
    for (program, together) in programs.iter().zip(engine.run_together(&together)) {
        let alone = engine.run(program, &options).unwrap();
        assert!(alone.tensors["s"].is_same_bits(&together.unwrap().tensors["s"]));
    }
}

#[test]
fn gradients_go_through_applied_modules() {
    let (golden, engine) = tiny();
    // The model's own last part, applied to what enters it, must have the model's own gradient.
    let nodes = format!(
        r#"{{"op":"get","name":"h","hook":"final_norm.input"}},{{"op":"apply","name":"n","module":"final_norm","input":"h"}},
        {{"op":"apply","name":"u","module":"unembed","input":"n"}},
        {{"op":"getitem","name":"e5","input":"u","index":[0,-1,5]}},{{"op":"getitem","name":"e9","input":"u","index":[0,-1,9]}},
        {{"op":"sub","name":"lens","input":"e5","other":"e9"}},{{"op":"backward","name":"back","of":"lens"}},
        {{"op":"grad","name":"gl","backward":"back","of":"h"}},{{"op":"save","name":"lens_","value":"gl"}},
        {LOSS},{{"op":"grad","name":"g","backward":"b","of":"h"}},{{"op":"save","name":"own_","value":"g"}},
        {{"op":"apply","name":"layer","module":"layers.1","input":"h"}},{{"op":"sum","name":"ls","input":"layer"}},
        {{"op":"backward","name":"bl","of":"ls"}},{{"op":"grad","name":"gg","backward":"bl","hook":"layers.0.mlp.post"}},
        {{"op":"save","name":"block_","value":"gg"}}"#
    );
    let found = run(&engine, &[("p", &[golden.prompt(0)])], &nodes);
    assert!(relative(&found["lens_"], &values(&found["own_"])) < 1e-6);
    assert!(values(&found["block_"]).iter().any(|&value| value != 0.0));
}

#[test]
fn values_that_are_computed_have_gradients_too() {
    let (golden, engine) = tiny();
    let nodes = r#"{"op":"literal","name":"v","dtype":"f64","shape":[3],"elements":[1.0,2.0,3.0]},
        {"op":"mul","name":"vv","input":"v","other":"v"},{"op":"sum","name":"s","input":"vv"},
        {"op":"get","name":"h","hook":"embed.output"},{"op":"getitem","name":"x","input":"h","index":[0,0,0]},
        {"op":"mul","name":"loss","input":"s","other":"x"},{"op":"backward","name":"b","of":"loss"},
        {"op":"grad","name":"g","backward":"b","of":"v"},{"op":"save","name":"v_","value":"g"},
        {"op":"grad","name":"gl","backward":"b","of":"loss"},{"op":"save","name":"loss_","value":"gl"},
        {"op":"save","name":"x_","value":"x"},{"op":"topk","name":"t","input":"v","k":1},
        {"op":"sum","name":"ts","input":"t"},{"op":"backward","name":"bt","of":"ts"},
        {"op":"grad","name":"gt","backward":"bt","of":"v"},{"op":"save","name":"t_","value":"gt"}"#;
    let found = run(&engine, &[("p", &[golden.prompt(0)])], nodes);
    let x = values(&found["x_"])[0];
    assert_eq!(found["v_"].dtype(), DType::F64);
    assert!(relative(&found["v_"], &[2.0 * x, 4.0 * x, 6.0 * x]) < 1e-6);
    assert_eq!(values(&found["loss_"]), [1.0]);
    assert_eq!(values(&found["t_"]), [0.0, 0.0, 1.0]);
}

/// In f32, 10⁹ − 10⁹ + 1 is 1 in this order, and 0 in any other that begins with the 1.
#[test]
fn what_readers_bring_is_added_in_program_order() {
    let (golden, engine) = tiny();
    let nodes = r#"{"op":"ones","name":"x","size":[2]},
        {"op":"mul","name":"a","input":"x","other":1000000000.0},{"op":"mul","name":"b","input":"x","other":-1000000000.0},
        {"op":"mul","name":"c","input":"x","other":1.0},{"op":"add","name":"ab","input":"a","other":"b"},
        {"op":"add","name":"abc","input":"ab","other":"c"},{"op":"sum","name":"loss","input":"abc"},
        {"op":"backward","name":"back","of":"loss"},{"op":"grad","name":"g","backward":"back","of":"x"},
        {"op":"save","name":"gradient","value":"g"}"#;
    let found = run(&engine, &[("p", &[golden.prompt(0)])], nodes);
    assert_eq!(values(&found["gradient"]), [1.0, 1.0]);
}

#[test]
fn what_an_earlier_trace_read_is_a_value_like_any_other() {
    let (golden, engine) = tiny();
    let tokens = golden.prompt(0);
    let text = format!(
        r#"{{"pellucid":1,"body":[
        {{"op":"trace","name":"first","invokes":[{{"name":"p","tokens":[{tokens:?}]}}],"body":[{{"op":"get","name":"h","hook":"layers.0.output"}}]}},
        {{"op":"trace","name":"second","invokes":[{{"name":"p","tokens":[{tokens:?}]}}],"body":[{{"op":"tanh","name":"t","input":"h"}},
        {{"op":"backward","name":"b","of":"h","cotangent":"t"}},{{"op":"grad","name":"g","backward":"b","of":"h"}},{{"op":"save","name":"s","value":"g"}},{{"op":"save","name":"expected","value":"t"}}]}}]}}"#
    );
    let checked = engine.check(pellucid_graph::Program::from_bytes(text.as_bytes()).unwrap()).unwrap();
    for results in
        [engine.run(&checked, &RunOptions::default()).unwrap(), engine.run_naive(&checked).unwrap()]
    {
        assert!(results.tensors["s"].is_same_bits(&results.tensors["expected"]));
    }
}

#[test]
fn a_later_trace_takes_the_gradient_of_a_whole_value_of_which_one_column_was_read() {
    let (golden, engine) = tiny();
    let tokens = golden.prompt(0);
    let text = format!(
        r#"{{"pellucid":1,"body":[
        {{"op":"trace","name":"first","invokes":[{{"name":"p","tokens":[{tokens:?}]}}],"body":[{{"op":"get","name":"l","hook":"logits"}},
        {{"op":"getitem","name":"last","input":"l","index":[":",-1]}}]}},
        {{"op":"trace","name":"second","invokes":[{{"name":"p","tokens":[{tokens:?}]}}],"body":[{{"op":"sum","name":"loss","input":"last"}},
        {{"op":"backward","name":"b","of":"loss"}},{{"op":"grad","name":"g","backward":"b","of":"l"}},{{"op":"save","name":"s","value":"g"}}]}}]}}"#
    );
    let checked = engine.check(pellucid_graph::Program::from_bytes(text.as_bytes()).unwrap()).unwrap();
    let planned = engine.run(&checked, &RunOptions::default()).unwrap();
    let naive = engine.run_naive(&checked).unwrap();
    assert!(planned.tensors["s"].is_same_bits(&naive.tensors["s"]));
    assert_eq!(planned.tensors["s"].shape()[1], tokens.len());
    let found = values(&planned.tensors["s"]);
    let (before, last) = found.split_at(found.len() / tokens.len() * (tokens.len() - 1));
    assert!(before.iter().all(|&value| value == 0.0) && last.iter().all(|&value| value == 1.0));
}

#[test]
fn refusals_say_what_and_why() {
    let (golden, engine) = tiny();
    let prompt = [golden.prompt(0)];
    let two: [(&str, &[Vec<u32>]); 2] = [("a", &prompt), ("b", &prompt)];
    let one: [(&str, &[Vec<u32>]); 1] = [("a", &prompt)];
    let early = r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"sum","name":"loss","input":"h"},{"op":"backward","name":"b","of":"loss"},"#;
    let cases = [
        // What the loss does not depend on.
        (&one[..], format!(r#"{early}{{"op":"grad","name":"g","backward":"b","hook":"layers.1.output"}},{{"op":"save","name":"s","value":"g"}}"#), "does not depend on `layers.1.output`"),
        // Only through a choice.
        (&one[..], r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"argmax","name":"m","input":"h"},{"op":"to","name":"f","input":"m","dtype":"f32"},
            {"op":"backward","name":"b","of":"f"},{"op":"grad","name":"g","backward":"b","of":"h"},{"op":"save","name":"s","value":"g"}"#.to_owned(), "only through"),
        // Not one number.
        (&one[..], r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"backward","name":"b","of":"h"},{"op":"grad","name":"g","backward":"b","hook":"embed.output"},{"op":"save","name":"s","value":"g"}"#.to_owned(), "not one number"),
        // Backwards in time, on the way back.
        (&one[..], format!(r#"{LOSS},{{"op":"grad","name":"g","backward":"b","hook":"layers.0.output"}},{{"op":"set_grad","backward":"b","hook":"layers.1.output","value":"g"}},
            {{"op":"grad","name":"e","backward":"b","hook":"embed.output"}},{{"op":"save","name":"s","value":"e"}}"#), "later on the way back"),
        // An edit of the forward pass from a gradient that depends on it.
        (&one[..], format!(r#"{LOSS},{{"op":"grad","name":"g","backward":"b","hook":"layers.0.output"}},{{"op":"set","hook":"layers.0.output","value":"g"}},
            {{"op":"save","name":"s","value":"loss"}}"#), "which is computed later"),
        // A gradient of a gradient.
        (&one[..], format!(r#"{early}{{"op":"grad","name":"g","backward":"b","hook":"embed.output"}},{{"op":"mul","name":"gg","input":"g","other":"g"}},{{"op":"sum","name":"again","input":"gg"}},
            {{"op":"get","name":"h1","hook":"embed.output"}},{{"op":"sum","name":"hs","input":"h1"}},{{"op":"add","name":"both","input":"again","other":"hs"}},
            {{"op":"backward","name":"b2","of":"both"}},{{"op":"grad","name":"g2","backward":"b2","of":"h1"}},{{"op":"save","name":"s","value":"g2"}}"#), "gradients of gradients"),
        // Another invoke's.
        (&two[..], r#"{"op":"get","name":"h","invoke":"a","hook":"layers.0.output"},{"op":"sum","name":"loss","input":"h"},{"op":"backward","name":"b","of":"loss"},
            {"op":"grad","name":"g","backward":"b","invoke":"b","hook":"embed.output"},{"op":"save","name":"s","value":"g"}"#.to_owned(), "does not depend on `embed.output`"),
        // Token ids.
        (&one[..], format!(r#"{early}{{"op":"grad","name":"g","backward":"b","hook":"embed.input"}},{{"op":"save","name":"s","value":"g"}}"#), "only floats have gradients"),
    ];
    for (invokes, nodes, expected) in cases {
        let message = faults(&engine, invokes, &nodes);
        assert!(message.contains(expected), "{message}\n{nodes}");
    }
}

#[test]
fn activations_are_kept_only_between_the_loss_and_the_earliest_gradient() {
    let (golden, engine) = tiny();
    let held = |hook: &str| {
        let text = format!(
            r#"{LOSS},{{"op":"grad","name":"g","backward":"b","hook":"{hook}"}},{{"op":"save","name":"s","value":"g"}}"#
        );
        let checked = engine.check(program(&[("p", &[golden.prompt(0)])], &text)).unwrap();
        engine.run(&checked, &RunOptions::default()).unwrap().report.peak_value_bytes
    };
    // Of a gradient of the logits nothing of the model is kept; what the loss's own nodes bring is held in all three.
    let (none, late, early) = (held("logits"), held("final_norm.input"), held("embed.output"));
    assert!((late - none) * 3 < early - none, "none {none}, late {late}, early {early}");
}

/// Experiment 21: gradients that are zeroed and doubled on the way back, held to PyTorch's hooks.
#[test]
fn gradient_surgery_is_pytorch_s() {
    let golden = root().join("golden/experiments/gradient_surgery");
    let json = std::fs::read(golden.with_extension("json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let bytes = std::fs::read(golden.with_extension("safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let engine = bundled();
    let ids: Vec<u32> = serde_json::from_value(json["prompt"]["ids"].clone()).unwrap();
    let (answer, wrong) = (&json["answer"], &json["wrong"]);
    for (name, surgery) in json["surgery"].as_object().unwrap() {
        let mut nodes = format!(
            r#"{{"op":"get","name":"l","hook":"logits"}},{{"op":"getitem","name":"answer","input":"l","index":[0,-1,{answer}]}},
            {{"op":"getitem","name":"wrong","input":"l","index":[0,-1,{wrong}]}},
            {{"op":"sub","name":"loss","input":"answer","other":"wrong"}},{{"op":"backward","name":"b","of":"loss"}}"#
        );
        for (place, cut) in surgery.as_array().unwrap().iter().enumerate() {
            let (hook, factor) = (&cut["hook_point"], &cut["factor"]);
            nodes.push_str(&format!(
                r#",{{"op":"grad","name":"g{place}","backward":"b","hook":{hook}}},{{"op":"mul","name":"w{place}","input":"g{place}","other":{factor}}},
                {{"op":"set_grad","backward":"b","hook":{hook},"value":"w{place}"}}"#
            ));
        }
        nodes.push_str(
            r#",{"op":"grad","name":"e","backward":"b","hook":"transformer.wte.output"},{"op":"save","name":"embeddings","value":"e"}"#,
        );
        for layer in 0..4 {
            nodes.push_str(&format!(
                r#",{{"op":"grad","name":"r{layer}","backward":"b","hook":"transformer.h.{layer}.input"}},
                {{"op":"norm","name":"n{layer}","input":"r{layer}","dim":-1}},{{"op":"save","name":"norms{layer}","value":"n{layer}"}}"#
            ));
        }
        let found = run(&engine, &[("p", std::slice::from_ref(&ids))], &nodes);
        let expected = |key: &str| -> Vec<f64> {
            let view = file.tensor(&format!("{name}.{key}")).unwrap();
            let bytes = view.data().as_chunks::<4>().0;
            bytes.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
        };
        assert!(relative(&found["embeddings"], &expected("embeddings")) < 1e-4, "{name}");
        let norms = expected("norms");
        for (layer, norms) in norms.chunks(ids.len()).enumerate() {
            assert!(relative(&found[&format!("norms{layer}")], norms) < 1e-4, "{name}, layer {layer}");
        }
    }
}

fn root() -> std::path::PathBuf {
    std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn bundled() -> Engine {
    let model = root().join("models/tiny-gpt2/model");
    let model =
        pellucid_models::Model::open(model.to_str().unwrap(), &pellucid_models::ModelOptions::default());
    Engine::new(std::sync::Arc::new(model.unwrap()))
}

#[test]
fn the_example_of_the_language_s_reference_runs() {
    let text = std::fs::read_to_string(root().join("docs/language.md")).unwrap();
    let section = text.split("## Gradients").nth(1).unwrap();
    let example = section.split("```json").nth(1).unwrap().split("```").next().unwrap();
    let engine = bundled();
    let checked = engine.check(pellucid_graph::Program::from_bytes(example.as_bytes()).unwrap());
    let checked = checked.unwrap_or_else(|faults| panic!("{faults}"));
    let found = engine.run(&checked, &RunOptions::default()).unwrap();
    let naive = engine.run_naive(&checked).unwrap();
    for name in ["hidden_gradient", "head_gradient"] {
        assert!(found.tensors[name].is_same_bits(&naive.tensors[name]));
        assert!(values(&found.tensors[name]).iter().any(|&value| value != 0.0), "{name}");
    }
}
