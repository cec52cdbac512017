//! Invokes that are edited alike: they go on as one row until their edits differ.

use super::{
    NAMES, STEERED, alike, checked, edit, engine, generating, gradient, last_logit, made, metric, operations,
    run,
};

#[test]
fn what_is_edited_alike_goes_on_as_one_row_until_edits_differ() {
    let engine = engine();
    // Each is steered in the first layer, then patched at a position of its own in the second; nobody steers `plain`.
    let patched = |at: usize| format!(r#""op":"index_put","index":[":",{at}],"values":0.25"#);
    let invokes = alike(&[&NAMES[..7], &["plain"]].concat());
    let program = |steered: &dyn Fn(usize) -> String| {
        let cells = NAMES[..7].iter().enumerate().map(|(at, name)| {
            let (first, second) = ("layers.0.output", "layers.1.attention.input");
            [edit(name, first, &steered(at)), edit(name, second, &patched(at)), last_logit(name)].join(",")
        });
        let cells: Vec<String> = cells.collect();
        checked(&engine, &invokes, &format!("{},{}", cells.join(","), last_logit("plain")))
    };
    let program_of_one = program(&|_| STEERED.to_owned());
    // The prompt as it is, and steered; then of each cell the positions from its own on.
    assert_eq!(run(&engine, &program_of_one).report.tokens, 7 + 7 + (7 + 6 + 5 + 4 + 3 + 2 + 1));
    let explanation = engine.explain(&program_of_one).unwrap();
    assert_eq!(explanation.passes[0].tokens, 7 + 7 + 28, "{explanation}");
    let told = explanation.to_string();
    let line = "b: 7 tokens, with a as far as transformer.h.0.output, then with a as far as transformer.h.1.attn.input, from there 6 own from column 1 on";
    assert!(told.contains(line), "{told}");
    let differing = program(&|at| format!(r#""op":"add","other":0.{at}"#));
    assert_eq!(run(&engine, &differing).report.tokens, 7 + 7 * 7);
    let (one, other) = (operations(&engine, &program_of_one).0, operations(&engine, &differing).0);
    assert!(one < other, "{one} operations, and {other} where each is steered its own way");
    // Alike in all that is edited: then nobody parts.
    let twins: Vec<String> = NAMES
        .iter()
        .map(|name| [edit(name, "layers.0.output", STEERED), last_logit(name)].join(","))
        .collect();
    assert_eq!(run(&engine, &checked(&engine, &alike(&NAMES), &twins.join(","))).report.tokens, 7 + 7);
}

#[test]
fn what_is_read_before_and_after_an_edit_that_several_have_is_what_each_would_read() {
    let engine = engine();
    let hook = "layers.1.mlp.output";
    let both = |name: &str, factor: &str| {
        let seen = |tag: &str| {
            format!(
                r#"{{"op":"get","name":"{tag}{name}","invoke":"{name}","hook":"{hook}"}},{{"op":"save","name":"s{tag}{name}","value":"{tag}{name}"}}"#
            )
        };
        let (first, second) = (edit(name, hook, STEERED), edit(&format!("{name}2"), hook, factor));
        let second = second.replace(&format!(r#""invoke":"{name}2""#), &format!(r#""invoke":"{name}""#));
        [seen("before"), first, seen("between"), second, seen("after"), last_logit(name)].join(",")
    };
    let twice = r#""op":"mul","other":2.0"#;
    let thrice = r#""op":"mul","other":3.0"#;
    let nodes = [both("a", twice), both("b", twice), both("c", thrice)].join(",");
    // `a` and `b` have one row, `c` another: what is written last there is different.
    let program =
        checked(&engine, &alike(&["a", "b", "c", "plain"]), &format!("{nodes},{}", last_logit("plain")));
    assert_eq!(run(&engine, &program).report.tokens, 7 + 7 + 7);
}

#[test]
fn what_several_are_set_to_from_another_invoke_is_alike_and_may_have_to_be_waited_for() {
    let engine = engine();
    // Each is written its own getter of the same rows, once before these are edited and once after.
    let patched = |name: &str, from: &str| {
        format!(
            r#"{{"op":"get","name":"c{name}","invoke":"clean","hook":"{from}"}},{{"op":"getitem","name":"r{name}","input":"c{name}","index":[":",-2]}},{}"#,
            edit(
                name,
                "layers.1.attention.input",
                &format!(r#""op":"index_put","index":[":",-2],"values":"r{name}""#)
            )
        )
    };
    for (from, passes) in [("layers.1.attention.input", 1), ("layers.1.output", 2)] {
        let others: Vec<String> =
            ["a", "b"].iter().map(|name| [patched(name, from), last_logit(name)].join(",")).collect();
        let edited = edit("clean", from, STEERED);
        let late: Vec<String> =
            ["c", "d"].iter().map(|name| [patched(name, from), last_logit(name)].join(",")).collect();
        let invokes = alike(&["clean", "a", "b", "c", "d", "plain"]);
        let nodes =
            [others.join(","), edited, late.join(","), last_logit("clean"), last_logit("plain")].join(",");
        let results = run(&engine, &checked(&engine, &invokes, &nodes));
        assert_eq!(results.report.passes, passes, "{from}");
    }
}

#[test]
fn what_is_drawn_is_alike_nothing_but_itself() {
    let engine = engine();
    let shaken =
        |name: &str, noise: &str| edit(name, "layers.0.output", &format!(r#""op":"add","other":"{noise}""#));
    let hidden = engine.model().spec().sizes.hidden;
    let drawn = |name: &str| format!(r#"{{"op":"randn","name":"r{name}","size":[{hidden}]}}"#);
    let own =
        [drawn("a"), shaken("a", "ra"), drawn("b"), shaken("b", "rb"), last_logit("a"), last_logit("b")];
    let program = checked(&engine, &alike(&["a", "b"]), &own.join(","));
    assert_eq!(run(&engine, &program).report.tokens, 7 + 7);
    let results = run(&engine, &program);
    let saved: Vec<_> = results.tensors.values().collect();
    assert!(saved.len() == 2 && !saved[0].is_same_bits(saved[1]), "they were shaken alike");
    // One drawing for both is alike: they have one row from there on.
    let both = [drawn("a"), shaken("a", "ra"), shaken("b", "ra"), last_logit("a"), last_logit("b")];
    let program =
        checked(&engine, &alike(&["a", "b", "plain"]), &[both.join(","), last_logit("plain")].join(","));
    assert_eq!(run(&engine, &program).report.tokens, 7 + 7);
}

#[test]
fn generations_that_are_steered_alike_walk_their_prompt_as_one() {
    let engine = engine();
    let edits: Vec<String> = NAMES.iter().map(|name| edit(name, "layers.0.output", STEERED)).collect();
    let saved: Vec<String> = NAMES.iter().map(|name| made(name)).collect();
    let nodes = format!(r#"{{"op":"steps","body":[{}]}},{}"#, edits.join(","), saved.join(","));
    let invokes = alike(&[&NAMES[..], &["plain"]].concat());
    let nodes = format!("{nodes},{}", made("plain"));
    let program = generating(&engine, r#""max_new_tokens":4,"temperature":1.5"#, &invokes, &nodes);
    assert_eq!(run(&engine, &program).report.tokens, 7 + 7 + 9 * 3);
}

#[test]
fn gradients_of_what_is_edited_alike_go_back_through_one_row_each_its_own_way() {
    let engine = engine();
    let cells: Vec<String> = NAMES
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let hook = ["layers.0.attention.input", "layers.1.output"][at % 2];
            [edit(name, "layers.0.output", STEERED), metric(name, at as u32, 9), gradient(name, hook)]
                .join(",")
        })
        .collect();
    let program = checked(&engine, &alike(&NAMES), &cells.join(","));
    assert_eq!(run(&engine, &program).report.tokens, 7 + 7);
}
