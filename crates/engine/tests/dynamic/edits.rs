//! Stacks of edits that traces and invokes use by name.

use super::{engine, integers, refusal, run, tensor, trace};

const ONE: &str = r#"{"name":"p","tokens":[[3,1,4,1,5]]}"#;
const LOGITS: &str =
    r#"{"op":"get","name":"l","invoke":"p","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#;

/// An edit that multiplies the stream after a block, then adds.
fn edit(name: &str, layer: usize, factor: f64, more: f64) -> String {
    format!(
        r#"{{"op":"edit","name":"{name}","body":[{{"op":"get","name":"h_{name}","hook":"layers.{layer}.output"}},
        {{"op":"mul","name":"m_{name}","input":"h_{name}","other":{factor:e}}},
        {{"op":"add","name":"a_{name}","input":"m_{name}","other":{more:e}}},
        {{"op":"set","name":"s_{name}","hook":"layers.{layer}.output","value":"a_{name}"}}]}}"#
    )
}

/// The same written by hand into a trace.
fn by_hand(name: &str, invoke: &str, layer: usize, factor: f64, more: f64) -> String {
    format!(
        r#"{{"op":"get","name":"h_{name}","invoke":"{invoke}","hook":"layers.{layer}.output"}},
        {{"op":"mul","name":"m_{name}","input":"h_{name}","other":{factor:e}}},
        {{"op":"add","name":"a_{name}","input":"m_{name}","other":{more:e}}},
        {{"op":"set","name":"s_{name}","invoke":"{invoke}","hook":"layers.{layer}.output","value":"a_{name}"}}"#
    )
}

#[test]
fn an_edit_is_what_its_nodes_are_in_the_trace_and_order_counts() {
    let engine = engine("gpt2");
    let both = format!("{},{}", edit("e", 0, 2.0, 0.0), edit("f", 0, 1.0, 0.5));
    for (edits, first, second) in [
        (r#"["e","f"]"#, by_hand("x", "p", 0, 2.0, 0.0), by_hand("y", "p", 0, 1.0, 0.5)),
        (r#"["f","e"]"#, by_hand("x", "p", 0, 1.0, 0.5), by_hand("y", "p", 0, 2.0, 0.0)),
    ] {
        let used = run(&engine, &format!("{both},{}", trace(ONE, &format!(r#""edits":{edits},"#), LOGITS)));
        let hand = run(&engine, &trace(ONE, "", &format!("{first},{second},{LOGITS}")));
        assert!(tensor(&used, "logits").is_same_bits(tensor(&hand, "logits")), "{edits}");
    }
}

#[test]
fn edits_of_one_invoke_leave_the_others_as_they_are_and_the_model_too() {
    let engine = engine("gpt2");
    let two = format!(r#"{},{{"name":"q","tokens":[[3,1,4,1,5]]}}"#, ONE.replace('}', r#","edits":["e"]}"#));
    let nodes = r#"{"op":"get","name":"lp","invoke":"p","hook":"logits"},{"op":"save","name":"edited","value":"lp"},
        {"op":"get","name":"lq","invoke":"q","hook":"logits"},{"op":"save","name":"plain","value":"lq"}"#;
    let results = run(&engine, &format!("{},{}", edit("e", 0, 2.0, 0.0), trace(&two, "", nodes)));
    let plain = run(&engine, &trace(ONE, "", LOGITS));
    let hand = run(&engine, &trace(ONE, "", &format!("{},{LOGITS}", by_hand("x", "p", 0, 2.0, 0.0))));
    assert!(tensor(&results, "plain").is_same_bits(tensor(&plain, "logits")));
    assert!(tensor(&results, "edited").is_same_bits(tensor(&hand, "logits")));
}

#[test]
fn edits_bring_edits_and_stand_before_the_trace_itself() {
    let engine = engine("gpt2");
    // `g` brings `e`, then adds; the trace's own getter sees both, its own setter comes last.
    let g = edit("g", 0, 1.0, 0.5).replacen(r#""body""#, r#""edits":["e"],"body""#, 1);
    let own = by_hand("own", "p", 0, -1.0, 0.0);
    let used = run(
        &engine,
        &format!(
            "{},{g},{}",
            edit("e", 0, 2.0, 0.0),
            trace(ONE, r#""edits":["g"],"#, &format!("{own},{LOGITS}"))
        ),
    );
    let hand =
        format!("{},{},{own},{LOGITS}", by_hand("x", "p", 0, 2.0, 0.0), by_hand("y", "p", 0, 1.0, 0.5));
    let hand = run(&engine, &trace(ONE, "", &hand));
    assert!(tensor(&used, "logits").is_same_bits(tensor(&hand, "logits")));
}

#[test]
fn an_edit_counts_at_every_step_of_a_generation_and_its_weights_for_all_of_them() {
    let engine = engine("llama3");
    let generate = r#""generate":{"max_new_tokens":5,"stop_tokens":[]},"#;
    let made = r#"{"op":"generated","name":"g","invoke":"p"},{"op":"save","name":"made","value":"g"}"#;
    let weights = r#"{"op":"edit","name":"w","invoke":"x","body":[
        {"op":"weight","name":"own","parameter":"layers.1.mlp.down_proj.weight"},
        {"op":"mul","name":"turned","input":"own","other":-2.0},
        {"op":"set_weight","name":"set","invoke":"x","parameter":"layers.1.mlp.down_proj.weight","value":"turned"}]}"#;
    let body = format!(
        "{},{weights},{}",
        edit("e", 0, -1.5, 0.0),
        trace(ONE, &format!(r#""edits":["e","w"],{generate}"#), made)
    );
    let used = run(&engine, &body);
    let hand = format!(
        r#"{{"op":"weight","name":"own","parameter":"layers.1.mlp.down_proj.weight"}},
        {{"op":"mul","name":"turned","input":"own","other":-2.0}},
        {{"op":"set_weight","name":"set","invoke":"p","parameter":"layers.1.mlp.down_proj.weight","value":"turned"}},
        {{"op":"steps","body":[{}]}},{made}"#,
        by_hand("x", "p", 0, -1.5, 0.0)
    );
    let hand = run(&engine, &trace(ONE, generate, &hand));
    assert_eq!(integers(&used, "made"), integers(&hand, "made"));
    let plain = run(&engine, &trace(ONE, generate, made));
    assert_ne!(integers(&used, "made"), integers(&plain, "made"), "the edits did nothing");
}

#[test]
fn an_edit_that_a_trace_does_not_reach_is_no_mistake() {
    let engine = engine("gpt2");
    let early = r#"{"op":"get","name":"h","invoke":"p","hook":"layers.0.output"},{"op":"save","name":"early","value":"h"}"#;
    let results =
        run(&engine, &format!("{},{}", edit("e", 1, 2.0, 0.0), trace(ONE, r#""edits":["e"],"#, early)));
    let plain = run(&engine, &trace(ONE, "", early));
    assert!(tensor(&results, "early").is_same_bits(tensor(&plain, "early")));
}

#[test]
fn noise_of_an_edit_is_its_own_in_each_invoke_and_the_same_in_each_run() {
    let engine = engine("gpt2");
    let noise = r#"{"op":"edit","name":"e","body":[{"op":"get","name":"h","hook":"layers.0.output"},
        {"op":"randn","name":"n","size":[1,5,1]},{"op":"add","name":"a","input":"h","other":"n"},{"op":"set","hook":"layers.0.output","value":"a"}]}"#;
    let two = format!(r#"{ONE},{{"name":"q","tokens":[[3,1,4,1,5]]}}"#);
    let nodes = r#"{"op":"get","name":"lp","invoke":"p","hook":"logits"},{"op":"save","name":"one","value":"lp"},
        {"op":"get","name":"lq","invoke":"q","hook":"logits"},{"op":"save","name":"other","value":"lq"}"#;
    let body = format!("{noise},{}", trace(&two, r#""edits":["e"],"#, nodes));
    let results = run(&engine, &body);
    assert!(
        !tensor(&results, "one").is_same_bits(tensor(&results, "other")),
        "two invokes have the same noise"
    );
    assert!(tensor(&run(&engine, &body), "one").is_same_bits(tensor(&results, "one")));
    // Beside another invoke or alone.
    let alone = run(&engine, &format!("{noise},{}", trace(ONE, r#""edits":["e"],"#, LOGITS)));
    assert!(tensor(&alone, "logits").is_same_bits(tensor(&results, "one")));
}

#[test]
fn what_cannot_stand_in_an_edit_is_refused() {
    let engine = engine("gpt2");
    let with = |node: &str| {
        format!(
            r#"{{"op":"edit","name":"e","body":[{{"op":"get","name":"h","hook":"layers.0.output"}},{node}]}},{}"#,
            trace(ONE, r#""edits":["e"],"#, LOGITS)
        )
    };
    let message = refusal(&engine, &with(r#"{"op":"save","name":"s","value":"h"}"#));
    assert!(message.contains("a save stands in the edit `e`"), "{message}");
    let later = format!("{},{}", trace(ONE, r#""edits":["e"],"#, LOGITS), edit("e", 0, 1.0, 0.0));
    let text = format!(r#"{{"pellucid":1,"body":[{later}]}}"#);
    let faults = pellucid_graph::Program::from_json(text.as_bytes()).unwrap_err().to_string();
    assert!(faults.contains("no edit `e` stands before"), "{faults}");
}
