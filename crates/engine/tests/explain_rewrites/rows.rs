//! Rewrites that share rows.

use std::sync::Arc;

use pellucid_engine::{Engine, PrefixCache, Rewrites, RunOptions};

use super::{PROMPT, checked, engine, hold, off_and_on, patch, read, trace, with};

#[test]
fn depth_sharing() {
    // What is read as a whole leaves nothing for length sharing.
    let nodes = [
        read("clean", "logits", r#"[":"]"#),
        patch("early", "layers.0.output", r#"[":",-1]"#),
        read("early", "logits", r#"[":"]"#),
        patch("late", "layers.2.output", r#"[":",-1]"#),
        read("late", "logits", r#"[":"]"#),
    ];
    let body = trace(&[("clean", PROMPT), ("early", PROMPT), ("late", PROMPT)], &nodes.join(","));
    let off = Rewrites { depth: false, length: false, ..Rewrites::ALL };
    hold(
        "depth_sharing",
        "`early` and `late` have no rows but those of `clean` until they are edited, after layers 0 and 2.",
        &off_and_on(off, &body),
    );
}

#[test]
fn depth_sharing_of_what_is_edited_alike() {
    let hook = "layers.0.output";
    let nodes = [
        read("clean", "logits", r#"[":"]"#),
        patch("one", hook, r#"[":",2]"#),
        patch("one", "layers.2.output", r#"[":",4]"#).replace("one_", "one_late_"),
        read("one", "logits", r#"[":"]"#),
        patch("two", hook, r#"[":",2]"#),
        read("two", "logits", r#"[":"]"#),
        patch("other", hook, r#"[":",3]"#),
        read("other", "logits", r#"[":"]"#),
    ];
    let prompts = [("clean", PROMPT), ("one", PROMPT), ("two", PROMPT), ("other", PROMPT)];
    let off = Rewrites { depth: false, length: false, ..Rewrites::ALL };
    hold(
        "depth_sharing_of_what_is_edited_alike",
        "`one` and `two` are edited alike after layer 0: they go on as one row until `one` is edited after layer 2.",
        &off_and_on(off, &trace(&prompts, &nodes.join(","))),
    );
}

#[test]
fn length_sharing() {
    let nodes = [
        read("clean", "logits", r#"[":",-1]"#),
        patch("one", "layers.1.output", r#"[":",-1]"#),
        read("one", "logits", r#"[":",-1]"#),
        patch("three", "layers.1.output", r#"[":",4]"#),
        read("three", "logits", r#"[":",-1]"#),
    ];
    let body = trace(&[("clean", PROMPT), ("one", PROMPT), ("three", PROMPT)], &nodes.join(","));
    let off = Rewrites { length: false, ..Rewrites::ALL };
    hold(
        "length_sharing",
        "Edited at the last column an invoke has one row of its own, edited at column 4 three; else all seven.",
        &off_and_on(off, &body),
    );
}

#[test]
fn common_prefixes() {
    let prompts = [("one", "[[7,3,9,1,4,4,2]]"), ("two", "[[7,3,9,1,4,8,8]]"), ("three", "[[7,3,9,5]]")];
    let nodes = prompts.map(|(name, _)| read(name, "logits", r#"[":",-1]"#));
    let off = Rewrites { prefixes: false, ..Rewrites::ALL };
    hold(
        "common_prefixes",
        "`two` begins with five positions of `one`, `three` with three.",
        &off_and_on(off, &trace(&prompts, &nodes.join(","))),
    );
}

#[test]
fn resumption() {
    let body = format!(
        r#"{{"op":"trace","invokes":[{{"name":"clean","tokens":[[7,3,9,1,4,4,8]]}}],"body":[
        {{"op":"sweep","name":"grid","over":[{{"layer":{{"range":[0,4]}}}}],"invokes":[{{"name":"p","tokens":{PROMPT}}}],"body":[
            {{"op":"get","name":"from","invoke":"clean","hook":"layers.{{layer}}.output"}},
            {{"op":"getitem","name":"row","input":"from","index":[":",-1]}},
            {{"op":"get","name":"to","invoke":"p","hook":"layers.{{layer}}.output"}},
            {{"op":"index_put","name":"put","input":"to","index":[":",-1],"values":"row"}},
            {{"op":"set","invoke":"p","hook":"layers.{{layer}}.output","value":"put"}},
            {{"op":"get","name":"l","invoke":"p","hook":"logits"}},
            {{"op":"getitem","name":"one","input":"l","index":[0,-1]}}],
        "yields":["one"]}},{{"op":"save","name":"out","value":"grid"}}]}}"#
    );
    // With length sharing each would have but one row of its own.
    let resumed = Rewrites { length: false, prefixes: false, ..Rewrites::ALL };
    let off = Rewrites { depth: false, ..resumed };
    let plan = |rewrites: Rewrites| super::told(&with(rewrites), &body);
    hold(
        "resumption",
        "Each of four cells starts at its layer from the shared row's residual stream; with length sharing at one position.",
        &[
            ("each from its tokens", plan(off)),
            ("each from its layer", plan(resumed)),
            ("with all rewrites", plan(Rewrites::ALL)),
        ],
    );
}

#[test]
fn traces_together() {
    let one = |layer: usize| {
        let (set, saved) = (
            patch("p", &format!("layers.{layer}.output"), r#"[":",-1]"#),
            read("p", "logits", r#"[":",-1]"#),
        );
        let named = |text: String| text.replace(r#""p_"#, &format!(r#""p{layer}_"#));
        trace(&[("p", PROMPT)], &named(format!("{set},{saved}")))
    };
    let off = Rewrites { traces: false, ..Rewrites::ALL };
    hold(
        "traces_together",
        "Three traces that do not depend on one another are one pass, and their invokes share rows.",
        &off_and_on(off, &[one(0), one(1), one(2)].join(",")),
    );
}

#[test]
fn cached_prefixes() {
    let engine = engine();
    let body = trace(
        &[("p", PROMPT)],
        &format!("{},{}", patch("p", "layers.1.output", r#"[":",-1]"#), read("p", "logits", r#"[":",-1]"#)),
    );
    let longer = trace(&[("p", "[[7,3,9,1,4,4,2,8,6]]")], &read("p", "logits", r#"[":",-1]"#));
    let (own, other) = (Arc::new(PrefixCache::default()), Arc::new(PrefixCache::default()));
    let options =
        |cache: &Arc<PrefixCache>| RunOptions { prefixes: Some(cache.clone()), ..RunOptions::default() };
    let plan = |engine: &Engine, body: &str, cache: &Arc<PrefixCache>| {
        engine.explain_with(&checked(engine, body), &options(cache)).unwrap().to_string()
    };
    let cold = plan(&engine, &body, &own);
    engine.run(&checked(&engine, &body), &options(&own)).unwrap();
    // The same model, so what is there could be taken.
    let off = engine.share().with_rewrites(Rewrites { cache: false, ..Rewrites::ALL });
    hold(
        "cached_prefixes",
        "After a run its owner's next one goes on where the first was edited; a longer prompt begins with the first's. Nobody else's does.",
        &[
            ("before anything ran", cold),
            ("after a run", plan(&engine, &body, &own)),
            ("a longer prompt", plan(&engine, &longer, &own)),
            ("after the run, without the rewrite", plan(&off, &body, &own)),
            ("after the run, with another owner's cache", plan(&engine, &body, &other)),
        ],
    );
}
