//! Modules that are skipped.

use super::support::model_names;
use super::{engine, numbers, refusal, run, tensor, trace};
use pellucid_graph::check::SpecIndex;

const ONE: &str = r#"{"name":"p","tokens":[[3,1,4,1,5]]}"#;
const LOGITS: &str = r#"{"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#;

#[test]
fn a_skipped_module_gives_what_a_set_output_gives() {
    for name in model_names() {
        let engine = engine(&name);
        for module in
            ["layers.1.attention", "layers.1.mlp", "layers.1", "layers.0.norm_1", "final_norm", "embed"]
        {
            if SpecIndex::new(engine.model().spec()).module(module).is_none() {
                continue; // A family without that module.
            }
            let value = format!(r#"{{"op":"get","name":"h","invoke":"q","hook":"{module}.output"}}"#);
            let two = format!(r#"{ONE},{{"name":"q","tokens":[[2,7,1,8,2]]}}"#);
            let logits = LOGITS.replace(r#""hook""#, r#""invoke":"p","hook""#);
            let of = |node: &str| trace(&two, "", &format!("{value},{node},{logits}"));
            let skipped = run(
                &engine,
                &of(&format!(r#"{{"op":"skip","name":"s","invoke":"p","module":"{module}","value":"h"}}"#)),
            );
            let set = run(
                &engine,
                &of(&format!(
                    r#"{{"op":"set","name":"s","invoke":"p","hook":"{module}.output","value":"h"}}"#
                )),
            );
            assert!(tensor(&skipped, "logits").is_same_bits(tensor(&set, "logits")), "{name}: {module}");
        }
    }
}

#[test]
fn a_skip_moves_its_own_invoke_and_no_other() {
    let engine = engine("gpt2");
    let plain = run(&engine, &trace(ONE, "", LOGITS));
    let two = format!(r#"{{"name":"q","tokens":[[2,7,1,8]]}},{ONE}"#);
    let nodes = r#"{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.0]},
        {"op":"skip","invoke":"q","module":"layers.1.mlp","value":"z"},
        {"op":"get","name":"l","invoke":"p","hook":"logits"},{"op":"save","name":"logits","value":"l"},
        {"op":"get","name":"m","invoke":"q","hook":"layers.1.mlp.output"},{"op":"save","name":"mlp","value":"m"},
        {"op":"get","name":"k","invoke":"q","hook":"logits"},{"op":"save","name":"other","value":"k"}"#;
    let results = run(&engine, &trace(&two, "", nodes));
    assert!(tensor(&results, "logits").is_same_bits(tensor(&plain, "logits")));
    assert!(numbers(&results, "mlp").iter().all(|&value| value == 0.0));
    let alone = run(&engine, &trace(r#"{"name":"q","tokens":[[2,7,1,8]]}"#, "", LOGITS));
    assert!(!tensor(&results, "other").is_same_bits(tensor(&alone, "logits")), "the skip did nothing");
}

#[test]
fn skips_at_steps_of_a_generation() {
    let engine = engine("llama3");
    let nodes = r#"{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.0]},
        {"op":"steps","from":1,"body":[
            {"op":"skip","module":"layers.0.mlp","value":"z"},
            {"op":"get","name":"m","hook":"layers.0.mlp.output"},{"op":"save","name":"mlp","value":"m"}]},
        {"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#;
    let generate = r#""generate":{"max_new_tokens":4,"stop_tokens":[]},"#;
    let results = run(&engine, &trace(ONE, generate, nodes));
    assert!(numbers(&results, "mlp/3").iter().all(|&value| value == 0.0));
}

#[test]
fn what_a_skip_leaves_out_cannot_be_touched() {
    let engine = engine("gpt2");
    let skip = r#"{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.0]},
        {"op":"skip","name":"s","module":"layers.1.attention","value":"z"}"#;
    for hook in
        ["layers.1.attention.input", "layers.1.attention.pattern", "transformer.h.1.attn.c_proj.output"]
    {
        let nodes = format!(
            r#"{skip},{{"op":"get","name":"x","hook":"{hook}"}},{{"op":"save","name":"saved","value":"x"}},{LOGITS}"#
        );
        let message = refusal(&engine, &trace(ONE, "", &nodes));
        assert!(message.contains("is inside `transformer.h.1.attn`, which `s` skips"), "{message}");
    }
    // What stands beside it can, and its output.
    for hook in ["layers.1.norm_1.output", "layers.1.attention.output", "layers.1.mlp.input"] {
        let nodes = format!(
            r#"{skip},{{"op":"get","name":"x","hook":"{hook}"}},{{"op":"save","name":"saved","value":"x"}},{LOGITS}"#
        );
        run(&engine, &trace(ONE, "", &nodes));
    }
    let generate = r#""generate":{"max_new_tokens":4,"stop_tokens":[]},"#;
    let message = refusal(&engine, &trace(ONE, generate, &format!("{skip},{LOGITS}")));
    assert!(message.contains("cannot be skipped in a generation"), "{message}");
    let wrong = LOGITS.to_owned()
        + r#",{"op":"skip","name":"s","module":"layers.1.mlp","value":"l"},{"op":"get","name":"m","hook":"output"},{"op":"save","name":"more","value":"m"}"#;
    let message = refusal(&engine, &trace(ONE, "", &wrong));
    assert!(message.contains("but it is set to"), "{message}");
}
