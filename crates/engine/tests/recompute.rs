//! Layers that are computed again on the way back, where there is no room to keep what it reads of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use pellucid_engine::{Engine, EngineError, Results, RunOptions};
use pellucid_graph::check::CheckedProgram;
use pellucid_models::{Model, ModelOptions};
use support::{folder, program};

const LAYERS: u64 = 8;

/// A model of that family with eight layers.
fn deep(family: &str, layers: &str) -> Engine {
    let config = std::fs::read(folder().join(family).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config[layers] = LAYERS.into();
    // One for each layer, where a family tells them.
    config.as_object_mut().unwrap().remove("layer_types");
    config["initializer_range"] = 0.2.into();
    Engine::new(Arc::new(Model::random(config, 3, &ModelOptions::default()).unwrap()))
}

fn deep_ones() -> Vec<(&'static str, Engine)> {
    [
        ("gpt2", "n_layer"),
        ("llama3", "num_hidden_layers"),
        ("gpt-neox", "num_hidden_layers"),
        ("gemma2", "num_hidden_layers"),
    ]
    .map(|(family, layers)| (family, deep(family, layers)))
    .into()
}

fn check(engine: &Engine, prompts: &[Vec<u32>], nodes: &str) -> CheckedProgram {
    engine.check(program(&[("p", prompts)], nodes)).unwrap_or_else(|faults| panic!("{faults}\n{nodes}"))
}

fn same(one: &Results, other: &Results, what: &str) {
    assert_eq!(one.tensors.keys().collect::<Vec<_>>(), other.tensors.keys().collect::<Vec<_>>());
    for (name, tensor) in &one.tensors {
        assert!(tensor.is_same_bits(&other.tensors[name]), "{what}: `{name}` differs");
    }
}

/// A run in which nothing is kept that can be computed again; it gives what one gives that keeps all.
fn with_nothing_kept(engine: &Engine, checked: &CheckedProgram, what: &str) -> Results {
    let kept = engine.run(checked, &RunOptions::default()).unwrap();
    let nothing = RunOptions { kept_bytes: Some(0), ..RunOptions::default() };
    let again = engine.run(checked, &nothing).unwrap();
    same(&kept, &again, what);
    again
}

/// The gradients of a loss at the beginning, in the middle and late, with what is edited on the way there.
fn gradients(edits: &str) -> String {
    let mut nodes = format!(
        r#"{edits}{{"op":"get","name":"l","hook":"logits"}},{{"op":"getitem","name":"one","input":"l","index":[":",-1,5]}},
        {{"op":"sum","name":"loss","input":"one"}},{{"op":"backward","name":"b","of":"loss"}}"#
    );
    for layer in [0, 3, 7] {
        nodes.push_str(&format!(
            r#",{{"op":"grad","name":"g{layer}","backward":"b","hook":"layers.{layer}.output"}},{{"op":"save","name":"s{layer}","value":"g{layer}"}}"#
        ));
    }
    nodes
}

fn prompts() -> Vec<Vec<u32>> {
    vec![(1..40).collect(), (5..30).collect()]
}

/// Halves what a hook point has.
fn halved(hook: &str, name: &str) -> String {
    format!(
        r#"{{"op":"get","name":"{name}","hook":"{hook}"}},{{"op":"mul","name":"{name}_half","input":"{name}","other":0.5}},
        {{"op":"set","hook":"{hook}","value":"{name}_half"}},"#
    )
}

#[test]
fn as_many_layers_are_computed_again_as_there_is_no_room_for_and_the_bits_are_the_same() {
    for (family, engine) in deep_ones() {
        let checked = check(&engine, &prompts(), &gradients(""));
        let run = |memory: u64| {
            let options = RunOptions { memory_bytes: Some(memory), ..RunOptions::default() };
            engine.run(&checked, &options).unwrap_or_else(|error| panic!("{family}, {memory} bytes: {error}"))
        };
        let (least, more) = (checked.price.peak_bytes, checked.price.kept_bytes);
        assert!(more > 0, "{family}");
        let kept = run(least + more);
        assert_eq!(kept.report.recomputed_layers, 0, "{family}");
        // The last layer is never given up, and before the first one's output nothing is gone back through.
        let again = run(least);
        same(&kept, &again, family);
        assert_eq!(again.report.recomputed_layers, LAYERS - 2, "{family}");
        assert!(
            again.report.peak_value_bytes < kept.report.peak_value_bytes * 3 / 4,
            "{family}: {} bytes, of {}",
            again.report.peak_value_bytes,
            kept.report.peak_value_bytes
        );
        let some = run(least + more / 2);
        same(&kept, &some, family);
        assert!(
            (1..LAYERS - 2).contains(&some.report.recomputed_layers),
            "{family}: {}",
            some.report.recomputed_layers
        );
        same(&kept, &engine.run_naive(&checked).unwrap(), family);
    }
}

#[test]
fn what_was_edited_is_edited_again() {
    for (family, engine) in deep_ones() {
        let hooks = [
            "layers.2.output",
            "layers.4.mlp.output",
            "layers.4.attention.pattern",
            "layers.5.attention.mixed",
        ];
        for hook in hooks {
            let checked = check(&engine, &prompts(), &gradients(&halved(hook, "h")));
            let again = with_nothing_kept(&engine, &checked, &format!("{family}, {hook}"));
            assert_eq!(again.report.recomputed_layers, LAYERS - 2, "{family}, {hook}");
        }
    }
}

#[test]
fn a_skipped_module_and_a_pattern_that_is_looked_at_are_as_they_were() {
    let (_, engine) = deep_ones().swap_remove(0);
    let skipped = r#"{"op":"get","name":"x","hook":"layers.3.output"},{"op":"skip","module":"layers.4","value":"x"},
        {"op":"get","name":"seen","hook":"layers.5.attention.pattern"},{"op":"save","name":"pattern","value":"seen"},"#;
    let checked = check(&engine, &prompts(), &gradients(skipped));
    let again = with_nothing_kept(&engine, &checked, "skipped");
    assert!(again.report.recomputed_layers > 0);
}

#[test]
fn what_does_not_fit_even_so_is_told() {
    let (_, engine) = deep_ones().swap_remove(0);
    let checked = check(&engine, &prompts(), &gradients(""));
    let least = engine
        .run(&checked, &RunOptions { kept_bytes: Some(0), ..RunOptions::default() })
        .unwrap()
        .report
        .peak_value_bytes;
    let run =
        |bytes| engine.run(&checked, &RunOptions { memory_bytes: Some(bytes), ..RunOptions::default() });
    assert!(run(least).is_ok());
    match run(least - 1) {
        Err(EngineError::MemoryExceeded { allowed, .. }) => assert_eq!(allowed, least - 1),
        other => panic!("{other:?}"),
    }
}

/// One invoke is edited in its fourth layer by what another reads in its sixth: it waits there, and is taken up again.
#[test]
fn what_was_edited_after_a_wait_is_edited_again() {
    for (family, engine) in deep_ones() {
        let nodes = r#"{"op":"get","name":"late","invoke":"other","hook":"layers.5.output"},{"op":"mean","name":"much","input":"late"},
            {"op":"get","name":"h","invoke":"p","hook":"layers.3.mlp.output"},{"op":"add","name":"more","input":"h","other":"much"},
            {"op":"set","invoke":"p","hook":"layers.3.mlp.output","value":"more"},
            {"op":"get","name":"l","invoke":"p","hook":"logits"},{"op":"getitem","name":"one","input":"l","index":[":",-1,5]},
            {"op":"sum","name":"loss","input":"one"},{"op":"backward","name":"b","of":"loss"},
            {"op":"grad","name":"g","backward":"b","invoke":"p","hook":"layers.0.output"},{"op":"save","name":"s","value":"g"}"#;
        let checked =
            engine.check(program(&[("p", &prompts()), ("other", &[vec![3, 4, 5]])], nodes)).unwrap();
        let again = with_nothing_kept(&engine, &checked, family);
        assert!(again.report.recomputed_layers >= LAYERS - 2, "{family}: {}", again.report.recomputed_layers);
    }
}

/// Nothing behind a norm's divisor is gone back through, so that nobody asks for what is computed with it.
#[test]
fn what_is_gone_back_from_may_be_the_divisor_of_a_norm() {
    for (family, engine) in deep_ones() {
        let hook = match family {
            "gpt2" => "transformer.h.4.ln_1.scale",
            "gpt-neox" => "gpt_neox.layers.4.input_layernorm.scale",
            _ => "model.layers.4.input_layernorm.scale",
        };
        let nodes = format!(
            r#"{{"op":"get","name":"divisor","hook":"{hook}"}},{{"op":"sum","name":"loss","input":"divisor"}},{{"op":"backward","name":"b","of":"loss"}},
            {{"op":"grad","name":"g","backward":"b","hook":"layers.0.output"}},{{"op":"save","name":"s","value":"g"}}"#
        );
        let checked = check(&engine, &prompts(), &nodes);
        let again = with_nothing_kept(&engine, &checked, family);
        assert!(again.report.recomputed_layers > 0, "{family}");
    }
}

/// An edit behind the end of one way back and before the beginning of another: no way goes through it, but what comes after it depends on it.
#[test]
fn an_edit_between_two_ways_back_is_not_lost() {
    for (family, engine) in deep_ones() {
        let nodes = r#"{"op":"get","name":"mixed","hook":"layers.4.attention.mixed"},{"op":"sum","name":"first","input":"mixed"},
            {"op":"backward","name":"a","of":"first"},{"op":"grad","name":"ga","backward":"a","hook":"layers.0.output"},{"op":"save","name":"sa","value":"ga"},
            {"op":"get","name":"o","hook":"layers.4.attention.output"},{"op":"mul","name":"half","input":"o","other":0.5},
            {"op":"set","hook":"layers.4.attention.output","value":"half"},
            {"op":"get","name":"l","hook":"logits"},{"op":"getitem","name":"one","input":"l","index":[":",-1,5]},{"op":"sum","name":"loss","input":"one"},
            {"op":"backward","name":"b","of":"loss"},{"op":"grad","name":"gb","backward":"b","hook":"layers.4.mlp.output"},
            {"op":"grad","name":"gp","backward":"b","hook":"layers.4.mlp.input"},{"op":"save","name":"sb","value":"gb"},{"op":"save","name":"sp","value":"gp"}"#;
        let checked = check(&engine, &prompts(), nodes);
        let again = with_nothing_kept(&engine, &checked, family);
        assert!(again.report.recomputed_layers > 0, "{family}");
    }
}

/// What an edit has made is kept beside, and has its price, also where it is written from a value of one number.
#[test]
fn edits_of_every_pattern_have_their_price() {
    for (family, engine) in deep_ones() {
        let edits: Vec<String> = (0..LAYERS)
            .map(|layer| {
                format!(r#"{{"op":"set","hook":"layers.{layer}.attention.pattern","value":"part"}},"#)
            })
            .collect();
        let edits = format!(
            r#"{{"op":"literal","name":"part","dtype":"f32","shape":[],"elements":[0.02]}},{}"#,
            edits.join("")
        );
        let checked = check(&engine, &[(1..60).collect()], &gradients(&edits));
        let kept = engine.run(&checked, &RunOptions::default()).unwrap();
        let memory = RunOptions { memory_bytes: Some(checked.price.peak_bytes), ..RunOptions::default() };
        let again = engine.run(&checked, &memory).unwrap_or_else(|error| panic!("{family}: {error}"));
        same(&kept, &again, family);
    }
}

/// A way back that begins late is priced by what lies between, and never holds more than its price.
#[test]
fn a_way_back_costs_no_more_than_it_is_priced_at_wherever_its_earliest_gradient_is() {
    for (family, engine) in deep_ones() {
        let priced = |hook: &str, of: &str| {
            let nodes = format!(
                r#"{{"op":"get","name":"l","hook":"{of}"}},{{"op":"sum","name":"loss","input":"l"}},{{"op":"backward","name":"b","of":"loss"}},
                {{"op":"grad","name":"g","backward":"b","hook":"{hook}"}},{{"op":"sum","name":"all","input":"g"}},{{"op":"save","name":"s","value":"all"}}"#
            );
            let checked = check(&engine, &prompts(), &nodes);
            let (least, more) = (checked.price.peak_bytes, checked.price.kept_bytes);
            let [free, tight] = [None, Some(least)].map(|memory_bytes| {
                let options = RunOptions { memory_bytes, ..RunOptions::default() };
                let ran = engine.run(&checked, &options);
                ran.unwrap_or_else(|error| panic!("{family}, {of} to {hook}: {error}"))
            });
            same(&free, &tight, hook);
            let held = free.report.peak_value_bytes;
            assert!(held <= least + more, "{family}, {of} to {hook}: {held} held, of {least} and {more}");
            checked.price
        };
        let mut before: Option<pellucid_graph::check::Price> = None;
        for hook in [
            "embed.output",
            "layers.0.output",
            "layers.3.mlp.output",
            "layers.5.input",
            "layers.7.output",
            "final_norm.input",
        ] {
            let price = priced(hook, "logits");
            if let Some(before) = before.replace(price) {
                assert!(
                    price.flops <= before.flops && price.kept_bytes <= before.kept_bytes,
                    "{family}, {hook}"
                );
            }
        }
        let (all, last) = (priced("embed.output", "logits"), priced("layers.7.input", "logits"));
        let layers =
            (all.flops - last.flops) as f64 / (all.flops - priced("layers.6.input", "logits").flops) as f64;
        assert!((layers - 7.0 / 6.0).abs() < 1e-6, "{family}: {layers}");
        // What lies behind what the loss is computed from costs nothing either.
        let early = priced("embed.output", "layers.1.output");
        assert!(
            early.flops < all.flops && early.kept_bytes < all.kept_bytes / 2,
            "{family}: {early:?} of {all:?}"
        );
    }
}
