//! Programs that could never end, or that want what comes later: refused, with the places.

use super::*;

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
