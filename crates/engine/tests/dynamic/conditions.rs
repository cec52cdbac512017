//! Conditions: two branches, of which one runs.

use super::{engine, failure, integers, numbers, refusal, run, tensor, trace};

const ONE: &str = r#"{"name":"p","tokens":[[3,1,4,1,5]]}"#;
const LOGITS: &str =
    r#"{"op":"get","name":"l","invoke":"p","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#;

/// A condition on the norm of the stream after the first block: whether it is above a number.
fn when(above: f64, then: &str, otherwise: &str) -> String {
    format!(
        r#"{{"op":"get","name":"h","invoke":"p","hook":"layers.0.output"}},{{"op":"norm","name":"size","input":"h"}},
        {{"op":"gt","name":"large","input":"size","other":{above:e}}},
        {{"op":"cond","name":"c","condition":"large","then":{then},"else":{otherwise}}}"#
    )
}

/// A branch that multiplies the stream after the second block.
fn scale(name: &str, factor: f64) -> String {
    format!(
        r#"{{"body":[{{"op":"get","name":"g{name}","invoke":"p","hook":"layers.1.output"}},
        {{"op":"mul","name":"m{name}","input":"g{name}","other":{factor:e}}},
        {{"op":"set","name":"s{name}","invoke":"p","hook":"layers.1.output","value":"m{name}"}},
        {{"op":"mean","name":"y{name}","input":"m{name}"}},{{"op":"save","name":"saved_{name}","value":"y{name}"}}],
        "yields":["y{name}"]}}"#
    )
}

#[test]
fn the_branch_that_holds_runs_and_the_other_leaves_nothing() {
    for name in ["gpt2", "llama3", "gemma2"] {
        let engine = engine(name);
        for (above, taken, lost, factor) in [(0.0, "a", "b", 2.0), (1e30, "b", "a", -1.5)] {
            let both = when(above, &scale("a", 2.0), &scale("b", -1.5));
            let nodes = format!(r#"{both},{{"op":"save","name":"yielded","value":"c"}},{LOGITS}"#);
            let results = run(&engine, &trace(ONE, "", &nodes));
            assert_eq!(results.absent, [format!("saved_{lost}")], "{name}");
            let plain = format!(
                r#"{{"op":"get","name":"g","invoke":"p","hook":"layers.1.output"}},
                {{"op":"mul","name":"m","input":"g","other":{factor:e}}},
                {{"op":"set","invoke":"p","hook":"layers.1.output","value":"m"}},{LOGITS}"#
            );
            let plain = run(&engine, &trace(ONE, "", &plain));
            assert!(tensor(&results, "logits").is_same_bits(tensor(&plain, "logits")), "{name}");
            assert!(
                tensor(&results, "yielded").is_same_bits(tensor(&results, &format!("saved_{taken}"))),
                "{name}"
            );
        }
    }
}

#[test]
fn a_hook_point_whose_setter_does_not_run_keeps_its_value() {
    let engine = engine("gpt2");
    let plain = run(&engine, &trace(ONE, "", LOGITS));
    let nodes = format!(
        "{},{LOGITS}",
        when(1e30, &scale("a", 2.0), r#"{"body":[]}"#).replace(r#""yields":["ya"]"#, r#""yields":[]"#)
    );
    let results = run(&engine, &trace(ONE, "", &nodes));
    assert!(tensor(&results, "logits").is_same_bits(tensor(&plain, "logits")));
    // Without the other branch it is the same.
    let without = nodes.replace(r#","else":{"body":[]}"#, "");
    assert!(without.len() < nodes.len());
    assert!(
        tensor(&run(&engine, &trace(ONE, "", &without)), "logits").is_same_bits(tensor(&plain, "logits"))
    );
}

#[test]
fn what_would_fail_in_the_branch_that_is_lost_does_not() {
    let engine = engine("gpt2");
    let failing = r#"{"body":[{"op":"literal","name":"far","dtype":"i64","shape":[1],"elements":[9999]},
        {"op":"getitem","name":"one","input":"h","index":[":",":",{"tensor":"far"}]},{"op":"save","name":"s","value":"one"}]}"#;
    let nodes = format!("{},{LOGITS}", when(1e30, failing, r#"{"body":[]}"#));
    assert_eq!(run(&engine, &trace(ONE, "", &nodes)).absent, ["s"]);
    let nodes = format!("{},{LOGITS}", when(0.0, failing, r#"{"body":[]}"#));
    assert!(failure(&engine, &trace(ONE, "", &nodes)).starts_with("`one`"));
}

#[test]
fn conditions_nest_and_stand_in_the_steps_of_a_generation() {
    let engine = engine("llama3");
    // At each step the stream is turned round where its mean is above 0, and by nested conditions again where it is below
    // and small.
    let nodes = r#"{"op":"steps","body":[
        {"op":"get","name":"h","hook":"layers.0.output"},{"op":"mean","name":"m","input":"h"},
        {"op":"gt","name":"above","input":"m","other":0.0},
        {"op":"gt","name":"small","input":"m","other":-0.01},
        {"op":"neg","name":"n","input":"h"},{"op":"mul","name":"t","input":"h","other":2.0},
        {"op":"cond","name":"c","condition":"above",
            "then":{"body":[{"op":"set","name":"s1","hook":"layers.0.output","value":"n"}],"yields":["n"]},
            "else":{"body":[{"op":"cond","name":"d","condition":"small",
                "then":{"body":[{"op":"set","name":"s2","hook":"layers.0.output","value":"t"},
                    {"op":"save","name":"inner","value":"m"}],"yields":["t"]},
                "else":{"body":[],"yields":["h"]}}],"yields":["d"]}},
        {"op":"get","name":"after","hook":"layers.0.output"},
        {"op":"sub","name":"left","input":"after","other":"c"},{"op":"save","name":"difference","value":"left"},
        {"op":"save","name":"mean","value":"m"}]},
        {"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#;
    let generate = r#""generate":{"max_new_tokens":6,"stop_tokens":[]},"#;
    let results = run(&engine, &trace(ONE, generate, nodes));
    for step in 0..6 {
        let difference = numbers(&results, &format!("difference/{step}"));
        assert!(
            difference.iter().all(|&value| value == 0.0),
            "step {step}: the branch's value is not what was set"
        );
        let mean = numbers(&results, &format!("mean/{step}"))[0];
        let runs = mean <= 0.0 && mean > -0.01;
        assert_eq!(results.tensors.contains_key(&format!("inner/{step}")), runs, "step {step}: mean {mean}");
        assert_eq!(results.absent.contains(&format!("inner/{step}")), !runs, "step {step}");
    }
    assert_eq!(integers(&results, "made").len(), 6);
}

#[test]
fn a_stop_stands_under_a_condition() {
    let engine = engine("gpt2");
    let generate = r#""generate":{"max_new_tokens":5,"stop_tokens":[]},"#;
    let nodes = |above: &str| {
        format!(
            r#"{{"op":"literal","name":"now","dtype":"bool","shape":[],"elements":[true]}},
            {{"op":"steps","from":1,"body":[
            {{"op":"get","name":"h","hook":"layers.1.output"}},{{"op":"norm","name":"size","input":"h"}},
            {{"op":"gt","name":"large","input":"size","other":{above}}},
            {{"op":"cond","condition":"large","then":{{"body":[{{"op":"stop","when":"now"}}]}}}}]}},
            {{"op":"generated","name":"g"}},{{"op":"save","name":"made","value":"g"}}"#
        )
    };
    let made = |above: &str| {
        let made = integers(&run(&engine, &trace(ONE, generate, &nodes(above))), "made");
        made.iter().filter(|&&token| token != -1).count()
    };
    assert_eq!(made("0.0"), 2);
    assert_eq!(made("1e30"), 5);
}

#[test]
fn invokes_and_traces_of_a_branch_that_is_lost_do_not_run() {
    let engine = engine("gpt2");
    let two = format!(r#"{ONE},{{"name":"q","tokens":[[2,7,1,8]]}}"#);
    let other = |name: &str| {
        format!(
            r#"{{"body":[{{"op":"get","name":"q{name}","invoke":"q","hook":"logits"}},{{"op":"mean","name":"v{name}","input":"q{name}"}}],"yields":["v{name}"]}}"#
        )
    };
    let constant =
        r#"{"body":[{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.0]}],"yields":["z"]}"#;
    let of = |above: f64| {
        let nodes =
            format!(r#"{},{{"op":"save","name":"yielded","value":"c"}}"#, when(above, &other("a"), constant));
        run(&engine, &trace(&two, "", &nodes)).report
    };
    // Five tokens of the first invoke, and four of the second where its branch runs.
    assert_eq!((of(1e30).tokens, of(0.0).tokens), (5, 9));

    // The same with traces of their own.
    let first = trace(
        ONE,
        "",
        r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"norm","name":"size","input":"h"},{"op":"save","name":"s","value":"size"}"#,
    );
    let second = trace(
        r#"{"tokens":[[2,7,1,8]]}"#,
        "",
        r#"{"op":"get","name":"k","hook":"logits"},{"op":"mean","name":"v","input":"k"},{"op":"save","name":"inner","value":"v"}"#,
    );
    for (above, tokens) in [("1e30", 5), ("0.0", 9)] {
        let body = format!(
            r#"{first},{{"op":"gt","name":"large","input":"size","other":{above}}},
            {{"op":"cond","name":"c","condition":"large","then":{{"body":[{second}],"yields":["v"]}},
            "else":{{"body":[],"yields":["size"]}}}},{{"op":"save","name":"yielded","value":"c"}}"#
        );
        let results = run(&engine, &body);
        assert_eq!(results.report.tokens, tokens);
        let taken = if tokens == 9 { "inner" } else { "s" };
        assert!(tensor(&results, "yielded").is_same_bits(tensor(&results, taken)));
        assert_eq!(results.absent.len(), usize::from(tokens == 5));
    }
}

#[test]
fn a_setter_waits_for_its_condition_as_for_its_value() {
    let engine = engine("gpt2");
    // The condition comes from a later layer than the setter's: refused, with both places.
    let nodes = r#"{"op":"get","name":"late","hook":"layers.1.output"},{"op":"mean","name":"m","input":"late"},
        {"op":"gt","name":"c","input":"m","other":0.0},{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.0]},
        {"op":"cond","condition":"c","then":{"body":[{"op":"set","name":"s","hook":"layers.0.output","value":"z"}]}}"#;
    let message = refusal(&engine, &trace(ONE, "", &format!("{nodes},{LOGITS}")));
    assert!(
        message.contains("`layers.0.output` is set from `layers.1.output`, which is computed later"),
        "{message}"
    );
    // From another invoke it is waited for.
    let two = format!(r#"{{"name":"q","tokens":[[2,7,1,8]]}},{ONE}"#);
    let nodes = nodes
        .replace(r#""hook":"layers.1.output""#, r#""invoke":"q","hook":"layers.1.output""#)
        .replace(r#""hook":"layers.0.output""#, r#""invoke":"p","hook":"layers.0.output""#);
    run(&engine, &trace(&two, "", &format!("{nodes},{LOGITS}")));
}

#[test]
fn both_branches_are_checked_before_anything_runs() {
    let engine = engine("gpt2");
    let unknown = r#"{"body":[{"op":"get","name":"x","invoke":"p","hook":"layers.0.otput"},{"op":"save","name":"s","value":"x"}]}"#;
    let message = refusal(&engine, &trace(ONE, "", &when(0.0, r#"{"body":[]}"#, unknown)));
    assert!(message.contains("has no hook point"), "{message}");
    // Yields of different shapes; of different number.
    let other = r#"{"body":[],"yields":["h"]}"#;
    let saved = r#"{"op":"save","name":"y","value":"c"}"#;
    let message =
        refusal(&engine, &trace(ONE, "", &format!("{},{saved}", when(0.0, &scale("a", 1.0), other))));
    assert!(message.contains("its branches give f32[] and f32[1, 5, "), "{message}");
    let message = refusal(
        &engine,
        &trace(ONE, "", &format!("{},{LOGITS}", when(0.0, &scale("a", 1.0), r#"{"body":[]}"#))),
    );
    assert!(message.contains("yield 1 and 0 values"), "{message}");
    // A condition that is no truth value.
    let nodes =
        when(0.0, &scale("a", 1.0), &scale("b", 1.0)).replace(r#""condition":"large""#, r#""condition":"h""#);
    let message = refusal(&engine, &trace(ONE, "", &format!("{nodes},{LOGITS}")));
    assert!(message.contains("not a bool without dimensions"), "{message}");
}

#[test]
fn what_a_branch_makes_is_not_seen_outside_it() {
    let text = format!(
        r#"{{"pellucid":1,"body":[{}]}}"#,
        trace(
            ONE,
            "",
            &format!(
                r#"{},{{"op":"save","name":"y","value":"ma"}}"#,
                when(0.0, &scale("a", 1.0), &scale("b", 1.0))
            )
        )
    );
    let faults = pellucid_graph::Program::from_json(text.as_bytes()).unwrap_err().to_string();
    assert!(faults.contains("`ma` is made inside a `cond` body, and cannot be seen outside it"), "{faults}");
    assert!(faults.contains("yield it in both branches"), "{faults}");
}

#[test]
fn a_skip_in_one_branch_leaves_the_module_to_the_other() {
    let engine = engine("gpt2");
    let skip = r#"{"body":[{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.0]},
        {"op":"skip","name":"k","invoke":"p","module":"layers.1.mlp","value":"z"}]}"#;
    let touch = r#"{"body":[{"op":"get","name":"x","invoke":"p","hook":"layers.1.mlp.pre"},{"op":"save","name":"pre","value":"x"}]}"#;
    let plain = run(&engine, &trace(ONE, "", LOGITS));
    let of = |above: f64| run(&engine, &trace(ONE, "", &format!("{},{LOGITS}", when(above, skip, touch))));
    let (skipped, touched) = (of(0.0), of(1e30));
    assert_eq!(skipped.absent, ["pre"]);
    assert!(tensor(&touched, "logits").is_same_bits(tensor(&plain, "logits")));
    assert!(!tensor(&skipped, "logits").is_same_bits(tensor(&plain, "logits")));
}

#[test]
fn a_weight_is_set_under_a_condition_that_another_invoke_gives() {
    let engine = engine("gpt2");
    let two = format!(r#"{{"name":"q","tokens":[[3,1,4,1,5]]}},{ONE}"#);
    let set = r#"{"body":[{"op":"weight","name":"w","parameter":"final_norm.weight"},{"op":"mul","name":"t","input":"w","other":2.0},
        {"op":"set_weight","name":"k","invoke":"p","parameter":"final_norm.weight","value":"t"}]}"#;
    let plain = run(&engine, &trace(ONE, "", LOGITS));
    let of = |above: f64| {
        let nodes = when(above, set, r#"{"body":[]}"#)
            .replace(r#""invoke":"p","hook":"layers.0.output""#, r#""invoke":"q","hook":"layers.0.output""#);
        run(&engine, &trace(&two, "", &format!("{nodes},{LOGITS}")))
    };
    assert!(tensor(&of(1e30), "logits").is_same_bits(tensor(&plain, "logits")));
    assert!(!tensor(&of(0.0), "logits").is_same_bits(tensor(&plain, "logits")));
}

#[test]
fn each_cell_of_a_sweep_has_its_own_branch() {
    let engine = engine("gpt2");
    let nodes = r#"{"op":"sweep","name":"grid","over":[{"layer":[0,1]},{"limit":[0.0,1e30]}],"invokes":[{"name":"p","tokens":[[3,1,4,1,5]]}],
        "body":[{"op":"get","name":"h","invoke":"p","hook":"layers.{layer}.output"},{"op":"norm","name":"size","input":"h"},
            {"op":"gt","name":"large","input":"size","other":"limit"},{"op":"mul","name":"t","input":"h","other":2.0},
            {"op":"cond","name":"c","condition":"large","then":{"body":[{"op":"set","name":"s","invoke":"p","hook":"layers.{layer}.output","value":"t"}],
                "yields":["size"]},"else":{"body":[{"op":"neg","name":"n","input":"size"}],"yields":["n"]}},
            {"op":"get","name":"l","invoke":"p","hook":"logits"},{"op":"getitem","name":"last","input":"l","index":[0,-1]}],
        "yields":["c","last"]},{"op":"save","name":"sizes","value":"grid"},{"op":"save","name":"logits","value":"grid.1"}"#;
    let invokes = r#"{"name":"other","tokens":[[1]]}"#;
    let results = run(&engine, &trace(invokes, "", nodes));
    let sizes = numbers(&results, "sizes");
    assert_eq!(sizes.len(), 4);
    assert!(sizes[0] > 0.0 && sizes[1] == -sizes[0] && sizes[2] > 0.0 && sizes[3] == -sizes[2], "{sizes:?}");
    let plain = numbers(
        &run(
            &engine,
            &trace(
                ONE,
                "",
                r#"{"op":"get","name":"l","hook":"logits"},{"op":"getitem","name":"x","input":"l","index":[0,-1]},{"op":"save","name":"logits","value":"x"}"#,
            ),
        ),
        "logits",
    );
    let logits = numbers(&results, "logits");
    let width = plain.len();
    assert_eq!(logits[width..2 * width], plain[..]);
    assert_ne!(logits[..width], plain[..]);
}

#[test]
fn what_a_branch_saves_of_outside_is_absent_where_it_does_not_run() {
    let engine = engine("gpt2");
    for region in ["sweep", "loop"] {
        for (values, runs) in
            [("1.0,2.0", true), ("1.0,-1.0", false), ("-1.0,1.0", false), ("-1.0,-1.0", false)]
        {
            let body = format!(
                r#"{{"op":"literal","name":"x","dtype":"f32","shape":[],"elements":[3.0]}},
                {{"op":"{region}","name":"r","over":[{{"f":[{values}]}}],"body":[
                    {{"op":"gt","name":"w","input":"f","other":0.0}},
                    {{"op":"cond","name":"c","condition":"w","then":{{"body":[{{"op":"save","name":"s","value":"x"}}]}}}},
                    {{"op":"save","name":"t","value":"f"}}]}}"#
            );
            let results = run(&engine, &body);
            assert_eq!(numbers(&results, "t").len(), 2);
            match runs {
                true => assert_eq!(numbers(&results, "s"), [3.0, 3.0], "{region}"),
                false => assert_eq!(results.absent, ["s"], "{region} over {values}"),
            }
        }
    }
}
