//! Rewrites that look at what is read: of nodes, of stages, of positions and of columns.

use pellucid_engine::{Rewrites, RunOptions};

use super::{PROMPT, checked, engine, hold, off_and_on, read, told, trace};

#[test]
fn dead_code() {
    let node = |saved: &str| {
        let nodes = r#"{"op":"get","name":"low","hook":"layers.0.output"},{"op":"mean","name":"low_mean","input":"low"},
            {"op":"get","name":"high","hook":"layers.3.output"},{"op":"softmax","name":"high_part","input":"high","dim":-1},
            {"op":"mean","name":"high_mean","input":"high_part"},{"op":"save","name":"result","value":"low_mean"}"#;
        trace(&[("p", PROMPT)], &format!("{nodes}{saved}"))
    };
    let all = node(r#",{"op":"save","name":"other","value":"high_mean"}"#);
    hold(
        "dead_code",
        "Where `high_mean` is not saved, three nodes are left out, and with them the layers that they looked at.",
        &[("all is saved", told(&engine(), &all)), ("half of it is", told(&engine(), &node("")))],
    );
}

#[test]
fn early_exit() {
    let (high, low) = (read("high", "logits", r#"[":"]"#), read("low", "layers.1.output", r#"[":"]"#));
    let other = "[[8,8,8,1,4]]";
    let both = trace(&[("high", PROMPT), ("low", other)], &format!("{high},{low}"));
    hold(
        "early_exit",
        "`low` leaves after layer 1; alone it leaves nothing of the model to be walked from there on.",
        &[
            ("beside one that goes on", told(&engine(), &both)),
            ("alone", told(&engine(), &trace(&[("low", other)], &low))),
        ],
    );
}

#[test]
fn positions() {
    let of = |index: &str| told(&engine(), &trace(&[("p", PROMPT)], &read("p", "logits", index)));
    hold(
        "positions",
        "The final norm and the unembedding are computed at one position of seven, and so much less is read; or at those of a slice.",
        &[
            ("all are read", of(r#"[":"]"#)),
            ("the last is read", of(r#"[":",-1]"#)),
            ("two in the middle are read", of(r#"[":","2:4"]"#)),
        ],
    );
}

#[test]
fn last_layer() {
    let off = Rewrites { last_layer: false, ..Rewrites::ALL };
    // The second half of the prompt is read of the last block, the last position of the logits.
    let nodes = format!(
        r#"{},{{"op":"get","name":"block","hook":"layers.3.output"}},{{"op":"getitem","name":"late","input":"block","index":[":","4:"]}},
        {{"op":"save","name":"late_saved","value":"late"}}"#,
        read("p", "logits", r#"[":",-1]"#)
    );
    hold(
        "last_layer",
        "After the last layer's attention three positions of seven are computed, and from the final norm on one.",
        &off_and_on(off, &trace(&[("p", PROMPT)], &nodes)),
    );
    let picked = [read("p", "logits", r#"[":",1]"#), read("p", "logits", r#"[":",4]"#).replace("p_", "q_")];
    hold(
        "last_layer_at_what_is_read",
        "Where nothing is read but logits, after the last layer's attention only their positions are computed: two of seven.",
        &off_and_on(off, &trace(&[("p", PROMPT)], &picked.join(","))),
    );
}

#[test]
fn vocabulary_columns() {
    let off = Rewrites { unembedding: false, ..Rewrites::ALL };
    let body = trace(&[("p", PROMPT)], &read("p", "logits", r#"[0,-1,3]"#));
    hold(
        "vocabulary_columns",
        "Of 96 logits at the last position only one is computed.",
        &off_and_on(off, &body),
    );
}

#[test]
fn reduction_in_place() {
    let body = |saved: &str| {
        let nodes = format!(
            r#"{{"op":"get","name":"stream","hook":"layers.1.output"}},{{"op":"mean","name":"mean","input":"stream"}},
            {{"op":"get","name":"pattern","hook":"layers.2.attention.pattern"}},{{"op":"amax","name":"most","input":"pattern","dim":-1}},
            {{"op":"save","name":"one","value":"mean"}},{{"op":"save","name":"other","value":"{saved}"}}"#
        );
        told(&engine(), &trace(&[("p", PROMPT)], &nodes))
    };
    hold(
        "reduction_in_place",
        "What is only reduced is free again when the pass has ended, pattern and stream; a pattern that is saved is not.",
        &[("the pattern is saved", body("pattern")), ("its maximum is", body("most"))],
    );
}

#[test]
fn backward() {
    let body = |hook: &str| {
        let nodes = format!(
            r#"{{"op":"get","name":"l","invoke":"p","hook":"logits"}},{{"op":"getitem","name":"loss","input":"l","index":[0,-1,3]}},
            {{"op":"backward","name":"way","of":"loss"}},
            {{"op":"grad","name":"g","backward":"way","invoke":"p","hook":"{hook}"}},{{"op":"save","name":"gradient","value":"g"}},{}"#,
            read("q", "logits", r#"[0,-1]"#)
        );
        told(&engine(), &trace(&[("p", PROMPT), ("q", "[[5,5,1]]")], &nodes))
    };
    hold(
        "backward",
        "The later the earliest gradient that is read, the fewer stages are kept and gone back through; of `q` none is.",
        &[
            ("the gradient of the embedding's result", body("layers.0.input")),
            ("that of the last layer's input", body("layers.3.input")),
        ],
    );
}

#[test]
fn recomputation() {
    let nodes = r#"{"op":"get","name":"l","hook":"logits"},{"op":"getitem","name":"loss","input":"l","index":[0,-1,3]},
        {"op":"backward","name":"way","of":"loss"},{"op":"grad","name":"g","backward":"way","hook":"layers.0.input"},
        {"op":"save","name":"gradient","value":"g"}"#;
    let engine = engine();
    let program = checked(&engine, &trace(&[("p", PROMPT)], nodes));
    let plan = |memory_bytes: Option<u64>| {
        let options = RunOptions { memory_bytes, ..RunOptions::default() };
        let plan = engine.explain_with(&program, &options).unwrap();
        let layers = engine.run(&program, &options).unwrap().report.recomputed_layers;
        format!("{plan}(a run computes {layers} layers again)\n")
    };
    let (least, more) = (program.price.peak_bytes, program.price.kept_bytes);
    hold(
        "recomputation",
        "Where all is kept no layer is computed again; where there is no room beside what must be held, all are that can be.",
        &[
            ("with all the memory that it wants", plan(None)),
            ("with room for a half of what it would keep", plan(Some(least + more / 2))),
            ("with room for none of it", plan(Some(least))),
        ],
    );
}
