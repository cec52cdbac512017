//! Generations, which share their prompt's step.

use super::{NAMES, alike, engine, generating, made, operations, run};

#[test]
fn a_steering_sweep_walks_its_prompt_once_as_far_as_the_edit() {
    let engine = engine();
    let steered = |at: usize, name: &str| {
        let by = at as f64 / 2.0 - 2.0;
        format!(
            r#"{{"op":"get","name":"h{name}","invoke":"{name}","hook":"layers.1.output"}},{{"op":"add","name":"s{name}","input":"h{name}","other":{by}}},
            {{"op":"set","invoke":"{name}","hook":"layers.1.output","value":"s{name}"}}"#
        )
    };
    let edits: Vec<String> = NAMES.iter().enumerate().map(|(at, name)| steered(at, name)).collect();
    let saved: Vec<String> = NAMES.iter().map(|name| made(name)).collect();
    let nodes = format!(r#"{{"op":"steps","body":[{}]}},{}"#, edits.join(","), saved.join(","));
    let program = generating(&engine, r#""max_new_tokens":6"#, &alike(&NAMES), &nodes);
    let results = run(&engine, &program);
    // One of those that leave the rows in common has these rows; five more tokens of each.
    assert_eq!(results.report.tokens, 8 * 7 + 8 * 5);
    let (shared, unshared) = operations(&engine, &program);
    println!("steering sweep: {unshared} → {shared} operations");
    // All of the first layer but one row in eight, of the prompt's 56 of 96 tokens.
    assert!(shared * 4 < unshared * 3, "{unshared} → {shared} operations");
    let told = engine.explain(&program).unwrap().to_string();
    let line = "with a as far as transformer.h.1.output, from there 7 own from column 0 on, after the last attention from column 6 on, until the end, logits at position 6";
    assert!(told.contains(line), "{told}");

    // Where only the prompt's last position is edited, only that position is theirs.
    let nudged = |at: usize, name: &str| {
        let edit = steered(at, name);
        edit.replace(r#""op":"add""#, r#""op":"index_put","index":[":",-1]"#)
            .replace(r#""other""#, r#""values""#)
    };
    let edits: Vec<String> = NAMES.iter().enumerate().map(|(at, name)| nudged(at, name)).collect();
    let (edits, saved) = (edits.join(","), saved.join(","));
    for nodes in [format!("{edits},{saved}"), format!(r#"{{"op":"steps","body":[{edits}]}},{saved}"#)] {
        let program = generating(&engine, r#""max_new_tokens":6"#, &alike(&NAMES), &nodes);
        assert_eq!(run(&engine, &program).report.tokens, 7 + 8 + 8 * 5);
        let (shared, unshared) = operations(&engine, &program);
        println!("steering at the last position: {unshared} → {shared} operations");
    }
}

#[test]
fn continuations_of_one_prompt_walk_it_once_and_draw_apart() {
    let engine = engine();
    let saved: Vec<String> = NAMES.iter().map(|name| made(name)).collect();
    let first = r#"{"op":"get","name":"l","invoke":"once","hook":"logits","step":0},{"op":"save","name":"once","value":"l"}"#;
    let invokes = alike(&[&NAMES[..], &["once"]].concat());
    let nodes = format!("{},{first}", saved.join(","));
    let program = generating(&engine, r#""max_new_tokens":6,"temperature":1.5"#, &invokes, &nodes);
    let results = run(&engine, &program);
    assert_eq!(results.report.tokens, 7 + 8 * 5);
    let drawn: std::collections::BTreeSet<Vec<i64>> =
        NAMES.iter().map(|name| results.tensors[*name].to_vec_i64().unwrap()).collect();
    assert!(drawn.len() > 4, "they drew the same: {drawn:?}");
    let (shared, unshared) = operations(&engine, &program);
    println!("continuations: {unshared} → {shared} operations");
    assert!(shared * 2 < unshared, "{unshared} → {shared} operations");
    let explanation = engine.explain(&program).unwrap();
    assert!(explanation.to_string().contains("b: 7 tokens, with a, "), "{explanation}");
    assert_eq!(explanation.passes[0].tokens, 7);
}

#[test]
fn who_reads_the_logits_of_shared_rows_leaves_them_to_who_draws_from_them() {
    let engine = engine();
    for index in [r#"[":",-1]"#, r#"[":",-2]"#, r#"[":",-1,3]"#, r#"[":"]"#] {
        let read = format!(
            r#"{{"op":"get","name":"l","invoke":"reads","hook":"output"}},{{"op":"getitem","name":"i","input":"l","index":{index}}},{{"op":"save","name":"reads","value":"i"}}"#
        );
        let nodes = format!("{read},{}", made("draws"));
        run(&engine, &generating(&engine, r#""max_new_tokens":3"#, &alike(&["reads", "draws"]), &nodes));
    }
}

#[test]
fn generations_whose_prompts_begin_alike_share_their_beginning() {
    let engine = engine();
    let invokes: Vec<String> = [[5, 1], [6, 2], [6, 3]]
        .iter()
        .zip(NAMES)
        .map(|([one, other], name)| format!(r#"{{"name":"{name}","tokens":[[1,2,3,4,{one},{other}]]}}"#))
        .collect();
    let saved: Vec<String> = NAMES[..3].iter().map(|name| made(name)).collect();
    let program = generating(&engine, r#""max_new_tokens":4"#, &invokes.join(","), &saved.join(","));
    assert_eq!(run(&engine, &program).report.tokens, 6 + 2 + 1 + 3 * 3);
}

#[test]
fn a_generation_that_waits_in_its_prompt_has_all_its_keys_when_it_goes_on() {
    let engine = engine();
    // `early` waits in the first layer for what `late` makes in the last; `plain` keeps the rows in common in the pass.
    let nodes = format!(
        r#"{{"op":"get","name":"v","invoke":"late","hook":"layers.1.output"}},{{"op":"getitem","name":"w","input":"v","index":[":",-1]}},
        {{"op":"get","name":"m","invoke":"early","hook":"layers.1.attention.input"}},{{"op":"index_put","name":"n","input":"m","index":[":",-2],"values":"w"}},
        {{"op":"set","invoke":"early","hook":"layers.1.attention.input","value":"n"}},{},{},{}"#,
        made("early"),
        made("late"),
        made("plain")
    );
    let invokes = alike(&["late", "early", "plain"]);
    let program = generating(&engine, r#""max_new_tokens":4"#, &invokes, &nodes);
    // The rows in common; two of `early`, once before it waits and once after.
    assert_eq!(run(&engine, &program).report.tokens, 7 + 2 + 2 + 3 * 3);
}
