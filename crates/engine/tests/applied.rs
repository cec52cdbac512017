//! Applied modules: their gradients are those of the modules in their own place, and a batch of prompts of unequal length
//! gives what its prompts give one by one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

mod support;

use std::collections::BTreeMap;

use pellucid_engine::{Engine, RunOptions, Tensor};
use pellucid_graph::check::SpecIndex;
use pellucid_graph::spec::Application;
use support::{Golden, engines, program};

/// Runs a program both ways; what it saves, which must be the same bit for bit.
fn run(engine: &Engine, invokes: &[(&str, &[Vec<u32>])], nodes: &str) -> BTreeMap<String, Tensor> {
    let checked = engine.check(program(invokes, nodes)).unwrap_or_else(|faults| panic!("{faults}\n{nodes}"));
    let planned =
        engine.run(&checked, &RunOptions::default()).unwrap_or_else(|error| panic!("{error}\n{nodes}"));
    let naive = engine.run_naive(&checked).unwrap_or_else(|error| panic!("{error}\n{nodes}"));
    for (name, tensor) in &planned.tensors {
        assert!(tensor.is_same_bits(&naive.tensors[name]), "`{name}`: planned and naive differ\n{nodes}");
    }
    planned.tensors.into_iter().collect()
}

fn faults(engine: &Engine, invokes: &[(&str, &[Vec<u32>])], nodes: &str) -> String {
    match engine.check(program(invokes, nodes)) {
        Ok(_) => panic!("accepted: {nodes}"),
        Err(faults) => faults.to_string(),
    }
}

/// Those modules of the last layer that the model has, and whether they attend.
fn modules(engine: &Engine) -> Vec<(String, bool)> {
    let spec = engine.model().spec();
    let index = SpecIndex::new(spec);
    let layer = spec.sizes.layers - 1;
    let names = ["attention", "mlp", ""].map(|part| format!("layers.{layer}.{part}"));
    let names = names.iter().map(|name| name.trim_end_matches('.'));
    names
        .filter_map(|name| {
            let module = &spec.modules[index.module(name)?];
            let whole =
                ["input", "output"].iter().all(|hook| index.hook(&format!("{name}.{hook}")).is_some());
            let applied = module.applied != Application::None && whole;
            applied.then(|| (name.to_owned(), module.applied == Application::Sequence))
        })
        .collect()
}

/// The gradient of the sum of squares of a module's output by the module's input: where the module stands, and applied.
fn both_gradients(module: &str) -> String {
    format!(
        r#"{{"op":"get","name":"h","hook":"{module}.input"}},
        {{"op":"get","name":"own","hook":"{module}.output"}},{{"op":"apply","name":"applied","module":"{module}","input":"h"}},
        {{"op":"mul","name":"a2","input":"own","other":"own"}},{{"op":"sum","name":"a","input":"a2"}},
        {{"op":"mul","name":"b2","input":"applied","other":"applied"}},{{"op":"sum","name":"b","input":"b2"}},
        {{"op":"backward","name":"back_a","of":"a"}},{{"op":"backward","name":"back_b","of":"b"}},
        {{"op":"grad","name":"g_a","backward":"back_a","of":"h"}},{{"op":"grad","name":"g_b","backward":"back_b","of":"h"}},
        {{"op":"save","name":"value_own","value":"own"}},{{"op":"save","name":"value_applied","value":"applied"}},
        {{"op":"save","name":"own_gradient","value":"g_a"}},{{"op":"save","name":"applied_gradient","value":"g_b"}}"#
    )
}

/// The largest difference of two tensors, relative to the largest element of the second.
fn relative(one: &Tensor, other: &Tensor) -> f64 {
    let (one, other) = (one.to_vec_f64().unwrap(), other.to_vec_f64().unwrap());
    assert_eq!(one.len(), other.len());
    let largest = other.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    one.iter().zip(&other).fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs())) / largest
}

/// Attention is applied with its scores and pattern made, and gone back through step by step; where it stands it is one
/// kernel. The sums are the same, in another order.
const ORDER_OF_SUMS: f64 = 2e-6;

#[test]
fn gradients_through_applied_modules_are_those_of_the_modules_where_they_stand() {
    let (mut attending, mut token_wise, mut worst) = (0, 0, 0.0_f64);
    for (name, engine) in engines() {
        let prompts: [&[Vec<u32>]; 2] =
            [&[vec![5, 9, 3, 7, 2]], &[vec![5, 9, 3, 7, 2], vec![8], vec![4, 1, 6]]];
        for (module, attends) in modules(&engine) {
            for prompts in prompts {
                let found = run(&engine, &[("p", prompts)], &both_gradients(&module));
                let own = found["value_own"].clone();
                if !attends && prompts.len() > 1 {
                    // A module by tokens is applied to the cells that are none, too.
                    continue;
                }
                assert!(found["value_applied"].is_same_bits(&own), "{name}: {module} gives something else");
                let (own, applied) = (&found["own_gradient"], &found["applied_gradient"]);
                assert!(own.to_vec_f64().unwrap().iter().any(|value| value.abs() > 1e-6), "{name}: {module}");
                if attends {
                    attending += 1;
                    let difference = relative(applied, own);
                    worst = worst.max(difference);
                    assert!(difference <= ORDER_OF_SUMS, "{name}: {module}: {difference:e}");
                } else {
                    token_wise += 1;
                    assert!(applied.is_same_bits(own), "{name}: {module}: {:e}", relative(applied, own));
                }
            }
        }
    }
    println!(
        "{attending} gradients of modules that attend, at most {worst:.1e} apart; {token_wise} by tokens, to the bit"
    );
    if std::env::var("PELLUCID_MODEL").is_err() {
        assert!(attending >= 40 && token_wise >= 10, "{attending} and {token_wise}");
    }
}

/// A batch's result at one prompt: the cells that are its tokens.
fn prompt_of(tensor: &Tensor, prompt: usize, length: usize) -> Vec<u64> {
    let (width, rest) = (tensor.shape()[1], tensor.shape()[2..].iter().product::<usize>());
    let values = tensor.to_vec_f64().unwrap();
    let first = (prompt * width + width - length) * rest;
    values[first..(prompt + 1) * width * rest].iter().map(|value| value.to_bits()).collect()
}

#[test]
fn modules_applied_to_a_batch_give_what_its_prompts_give_one_by_one() {
    let prompts = vec![vec![5, 9, 3, 7, 2], vec![8], vec![4, 1, 6]];
    let mut compared = 0;
    for (name, engine) in engines() {
        for (module, _) in modules(&engine).into_iter().filter(|(_, attends)| *attends) {
            // Computed with, so that cells that are no tokens do not read 0, and from another invoke too.
            let nodes = format!(
                r#"{{"op":"get","name":"x","invoke":"q","hook":"{module}.input"}},{{"op":"get","name":"y","invoke":"p","hook":"{module}.input"}},
                {{"op":"mul","name":"z","input":"x","other":0.5}},{{"op":"add","name":"w","input":"y","other":"z"}},
                {{"op":"add","name":"h","input":"w","other":0.25}},
                {{"op":"apply","name":"applied","module":"{module}","input":"h"}},
                {{"op":"apply","name":"twice","module":"{module}","input":"applied"}},
                {{"op":"tanh","name":"bent","input":"twice"}},{{"op":"sum","name":"loss","input":"bent"}},
                {{"op":"backward","name":"b","of":"loss"}},{{"op":"grad","name":"g","backward":"b","of":"h"}},
                {{"op":"save","name":"gradient","value":"g"}},{{"op":"save","name":"value","value":"applied"}},
                {{"op":"save","name":"again","value":"twice"}}"#
            );
            let batch = run(&engine, &[("p", &prompts), ("q", &prompts)], &nodes);
            for (place, prompt) in prompts.iter().enumerate() {
                let own = [prompt.clone()];
                let alone = run(&engine, &[("p", &own), ("q", &own)], &nodes);
                for saved in ["value", "again", "gradient"] {
                    compared += 1;
                    assert_eq!(
                        prompt_of(&batch[saved], place, prompt.len()),
                        prompt_of(&alone[saved], 0, prompt.len()),
                        "{name}: {module}: `{saved}` of prompt {place}"
                    );
                }
            }
            for saved in ["value", "again", "gradient"] {
                let all = batch[saved].to_vec_f64().unwrap();
                let rest = all.len() / (prompts.len() * 5);
                assert!(
                    all[5 * rest..9 * rest].iter().all(|&value| value == 0.0),
                    "{name}: {module}: {saved}"
                );
            }
        }
    }
    println!("{compared} results compared");
    assert!(std::env::var("PELLUCID_MODEL").is_ok() || compared >= 200, "only {compared} results compared");
}

#[test]
fn what_may_hold_cells_that_are_no_tokens_is_not_attended_to() {
    let engine = Golden::open("gpt2").engine();
    let unequal: &[Vec<u32>] = &[vec![5, 9, 3, 7, 2], vec![8, 1, 3]];
    let (equal, single): (&[Vec<u32>], &[Vec<u32>]) =
        (&[vec![5, 9, 3, 7, 2], vec![8, 1, 3, 4, 4]], &[vec![1, 2, 3, 4, 5]]);
    let invokes = [("u", unequal), ("e", equal), ("s", single)];
    let end =
        r#"{"op":"apply","name":"y","module":"layers.1","input":"x"},{"op":"save","name":"s","value":"y"}"#;
    let get = |name: &str, invoke: &str| {
        format!(r#"{{"op":"get","name":"{name}","invoke":"{invoke}","hook":"layers.0.output"}}"#)
    };
    let h = get("h", "u");
    let refused = [
        // A part of the columns or of the prompts, or both in other places.
        format!(r#"{h},{{"op":"getitem","name":"x","input":"h","index":[":","1:"]}}"#),
        format!(r#"{h},{{"op":"getitem","name":"x","input":"h","index":["0:1"]}}"#),
        format!(r#"{h},{{"op":"roll","name":"x","input":"h","shifts":[1],"dims":[1]}}"#),
        format!(r#"{h},{{"op":"flip","name":"x","input":"h","dims":[0]}}"#),
        // With the columns of other prompts.
        format!(r#"{h},{},{{"op":"add","name":"x","input":"h","other":"k"}}"#, get("k", "e")),
        format!(r#"{h},{},{{"op":"add","name":"x","input":"h","other":"k"}}"#, get("k", "s")),
        format!(
            r#"{h},{{"op":"zeros","name":"k","size":[2,5,1]}},{{"op":"add","name":"x","input":"h","other":"k"}}"#
        ),
    ];
    for nodes in refused {
        let message = faults(&engine, &invokes, &format!("{nodes},{end}"));
        assert!(message.contains("comes from prompts of unequal length"), "{message}\n{nodes}");
    }
    let taken = [
        format!(r#"{h},{{"op":"mul","name":"x","input":"h","other":2.0}}"#),
        format!(r#"{h},{{"op":"getitem","name":"x","input":"h","index":[":","-1:"]}}"#),
        // What is no longer of single tokens, on prompts of one length.
        format!(
            r#"{h},{},{{"op":"mean","name":"m","input":"h","dim":[0,1]}},{{"op":"add","name":"x","input":"k","other":"m"}}"#,
            get("k", "e")
        ),
        format!(
            r#"{h},{{"op":"literal","name":"i","dtype":"i64","shape":[2],"elements":[1,2]}},{{"op":"getitem","name":"rows","input":"h","index":[0,{{"tensor":"i"}}]}},
            {{"op":"mean","name":"m","input":"rows","dim":0}},{{"op":"add","name":"x","input":"h","other":"m"}}"#
        ),
        format!(r#"{},{{"op":"roll","name":"x","input":"h","shifts":[1],"dims":[1]}}"#, get("h", "e")),
        format!(r#"{},{},{{"op":"add","name":"x","input":"h","other":"k"}}"#, get("h", "e"), get("k", "s")),
    ];
    for nodes in taken {
        let found = run(&engine, &invokes, &format!("{nodes},{end}"));
        assert!(found["s"].to_vec_f64().unwrap().iter().all(|value| value.is_finite()), "{nodes}");
    }
}
