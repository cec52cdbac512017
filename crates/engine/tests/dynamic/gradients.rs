//! Gradients of what comes from a generation that may have stopped before: what was never computed has none, and is in no
//! other's way.

use std::collections::BTreeSet;

use pellucid_engine::{Engine, Results, RunOptions};
use pellucid_graph::check::SpecIndex;

use super::support::model_names;
use super::{check, engine, numbers, refusal, run, session, tensor, trace};

/// `lost` is a number of a step that the generation does not reach.
fn stopped() -> String {
    trace(
        r#"{"name":"p","tokens":[[3,1,4]]}"#,
        r#""generate":{"max_new_tokens":3,"stop_tokens":[]},"#,
        r#"{"op":"literal","name":"now","dtype":"bool","shape":[],"elements":[true]},
        {"op":"steps","from":0,"to":1,"body":[{"op":"stop","name":"stop","when":"now"}]},
        {"op":"get","name":"later","hook":"layers.1.output","step":2},{"op":"mean","name":"lost","input":"later"},
        {"op":"generated","name":"made"},{"op":"save","name":"tokens","value":"made"}"#,
    )
}

fn after(nodes: &str) -> String {
    format!("{},{}", stopped(), trace(r#"{"name":"q","tokens":[[2,7,1,8],[9,2]]}"#, "", nodes))
}

const LOSS: &str = r#"{"op":"get","name":"l","hook":"logits"},
    {"op":"getitem","name":"five","input":"l","index":[":",-1,5]},{"op":"sum","name":"loss","input":"five"},
    {"op":"backward","name":"b","of":"loss"},"#;

#[test]
fn a_setter_of_what_never_came_is_in_no_gradient_s_way() {
    let engine = engine("gpt2");
    let gradients = r#"{"op":"grad","name":"e","backward":"b","hook":"embed.output"},{"op":"save","name":"early","value":"e"},
        {"op":"grad","name":"g","backward":"b","hook":"layers.1.output"},{"op":"save","name":"there","value":"g"},
        {"op":"grad","name":"v","backward":"b","of":"h"},{"op":"save","name":"read","value":"v"}"#;
    let read = r#"{"op":"get","name":"h","hook":"layers.1.output"},"#;
    let plain = run(&engine, &after(&format!("{read}{LOSS}{gradients}")));
    // Of its value alone, and of one that is computed from what was read before.
    for edit in [
        r#"{"op":"set","hook":"layers.1.output","value":"lost"},"#,
        r#"{"op":"add","name":"moved","input":"h","other":"lost"},{"op":"set","hook":"layers.1.output","value":"moved"},"#,
    ] {
        let beside = run(&engine, &after(&format!("{read}{edit}{LOSS}{gradients}")));
        for name in ["early", "there", "read"] {
            assert!(numbers(&plain, name).iter().any(|&value| value != 0.0));
            assert!(tensor(&beside, name).is_same_bits(tensor(&plain, name)), "{name}\n{edit}");
        }
    }
}

#[test]
fn a_way_back_from_what_never_came_gives_nothing() {
    let engine = engine("gpt2");
    let nodes = r#"{"op":"tanh","name":"m","input":"lost"},{"op":"mul","name":"loss","input":"m","other":2.0},
        {"op":"backward","name":"b","of":"loss"},{"op":"grad","name":"g","backward":"b","of":"m"},
        {"op":"get","name":"h","hook":"layers.1.output"},{"op":"add","name":"moved","input":"h","other":"g"},
        {"op":"set","hook":"layers.1.output","value":"moved"},
        {"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"},{"op":"save","name":"gradient","value":"g"}"#;
    let results = run(&engine, &after(nodes));
    assert_eq!(results.absent, ["gradient"]);
    let plain = run(
        &engine,
        &after(r#"{"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#),
    );
    assert!(tensor(&results, "logits").is_same_bits(tensor(&plain, "logits")));
}

#[test]
fn what_never_came_has_no_gradient_and_whoever_waits_for_it_goes_on() {
    let engine = engine("gpt2");
    let read = r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"mul","name":"scaled","input":"lost","other":2.0},
        {"op":"add","name":"moved","input":"h","other":"scaled"},{"op":"set","hook":"layers.0.output","value":"moved"},"#;
    // The last setter waits for the gradient of a value that never came, and sets nothing then.
    let rest = r#"{"op":"grad","name":"g","backward":"b","of":"scaled"},{"op":"save","name":"gradient","value":"g"},
        {"op":"mul","name":"w","input":"g","other":0.5},{"op":"set_grad","backward":"b","of":"scaled","value":"w"},
        {"op":"grad","name":"again","backward":"b","of":"scaled"},{"op":"save","name":"after","value":"again"},
        {"op":"set_grad","backward":"b","hook":"layers.1.output","value":"lost"},
        {"op":"grad","name":"e","backward":"b","hook":"embed.output"},{"op":"save","name":"early","value":"e"},
        {"op":"get","name":"o","hook":"logits"},{"op":"add","name":"o_","input":"o","other":"w"},
        {"op":"set","hook":"logits","value":"o_"},
        {"op":"get","name":"last","hook":"logits"},{"op":"save","name":"logits","value":"last"}"#;
    let results = run(&engine, &after(&format!("{read}{LOSS}{rest}")));
    let mut absent = results.absent.clone();
    absent.sort();
    assert_eq!(absent, ["after", "gradient"]);
    let plain = format!(
        r#"{LOSS}{{"op":"grad","name":"e","backward":"b","hook":"embed.output"}},{{"op":"save","name":"early","value":"e"}},
        {{"op":"save","name":"logits","value":"l"}}"#
    );
    let plain = run(&engine, &after(&plain));
    assert!(tensor(&results, "early").is_same_bits(tensor(&plain, "early")));
    assert!(tensor(&results, "logits").is_same_bits(tensor(&plain, "logits")));
}

#[test]
fn conditions_skips_and_weights_of_other_invokes_change_no_gradient() {
    let engine = engine("gpt2");
    let invokes = r#"{"name":"q","tokens":[[2,7,1,8]]},{"name":"p","tokens":[[3,1,4,1]]}"#;
    let way_back = |invoke: &str| {
        format!(
            r#"{{"op":"get","name":"h","invoke":"{invoke}","hook":"layers.1.output"}},
            {{"op":"get","name":"l","invoke":"{invoke}","hook":"logits"}},
            {{"op":"getitem","name":"loss","input":"l","index":[0,-1,5]}},{{"op":"backward","name":"b","of":"loss"}},
            {{"op":"grad","name":"g","backward":"b","of":"h"}},{{"op":"save","name":"gradient","value":"g"}},
            {{"op":"grad","name":"e","backward":"b","invoke":"{invoke}","hook":"embed.output"}},{{"op":"save","name":"early","value":"e"}},
            {{"op":"get","name":"o","invoke":"p","hook":"logits"}},{{"op":"save","name":"other","value":"o"}}"#
        )
    };
    let plain = run(&engine, &trace(invokes, "", &way_back("q")));
    assert!(numbers(&plain, "early").iter().any(|&value| value != 0.0));
    for detour in [
        r#"{"op":"weight","name":"w","parameter":"layers.2.mlp.c_proj.weight"},{"op":"mul","name":"half","input":"w","other":0.5},
        {"op":"set_weight","invoke":"p","parameter":"layers.2.mlp.c_proj.weight","value":"half"}"#,
        r#"{"op":"literal","name":"nothing","dtype":"f32","shape":[],"elements":[0.0]},
        {"op":"skip","invoke":"p","module":"layers.2.mlp","value":"nothing"}"#,
        r#"{"op":"get","name":"x","invoke":"p","hook":"layers.0.output"},{"op":"gt","name":"more","input":"x","other":0.0},
        {"op":"any","name":"some","input":"more"},{"op":"mul","name":"twice","input":"x","other":2.0},
        {"op":"cond","name":"c","condition":"some","then":{"body":[
            {"op":"set","invoke":"p","hook":"layers.0.output","value":"twice"}]}}"#,
    ] {
        let beside = run(&engine, &trace(invokes, "", &format!("{detour},{}", way_back("q"))));
        for name in ["gradient", "early"] {
            assert!(tensor(&beside, name).is_same_bits(tensor(&plain, name)), "{name}\n{detour}");
        }
        assert!(!tensor(&beside, "other").is_same_bits(tensor(&plain, "other")), "{detour}");
        // On the way itself it counts.
        let on_it = run(&engine, &trace(invokes, "", &format!("{detour},{}", way_back("p"))));
        assert!(numbers(&on_it, "early").iter().any(|&value| value != 0.0), "{detour}");
    }
}

const ONE: &str = r#"{"name":"p","tokens":[[2,7,1,8],[9,2]]}"#;

/// Saves a gradient of the last `backward`.
fn grad(name: &str, of: &str) -> String {
    format!(
        r#"{{"op":"grad","name":"{name}_","backward":"b",{of}}},{{"op":"save","name":"{name}","value":"{name}_"}},"#
    )
}

/// What the plan gives, without the judge.
fn planned(engine: &Engine, body: &str) -> Results {
    engine.run(&check(engine, body), &RunOptions::default()).unwrap_or_else(|error| panic!("{error}\n{body}"))
}

/// The parameters of a model, one of each kind.
fn parameters(engine: &Engine) -> Vec<(String, Vec<u64>)> {
    let mut seen = BTreeSet::new();
    let kind = |name: &str| name.chars().filter(|character| !character.is_ascii_digit()).collect::<String>();
    let all = engine.model().spec().parameters.iter();
    all.filter(|own| seen.insert(kind(&own.name))).map(|own| (own.name.clone(), own.shape.clone())).collect()
}

/// What a parameter is set to has its slope, whatever it is; and what lies before it has the slope of the model that runs with it.
#[test]
fn gradients_of_weights_that_are_set_and_of_what_comes_before_agree_with_differences() {
    let mut held = 0;
    for name in model_names() {
        let engine = engine(&name);
        for (parameter, shape) in parameters(&engine) {
            let at = |by: f64, along: f64| {
                let nodes = format!(
                    r#"{{"op":"weight","name":"w","parameter":"{parameter}"}},{{"op":"randn","name":"v","size":{shape:?}}},
                    {{"op":"mul","name":"far","input":"v","other":0.2}},{{"op":"add","name":"other","input":"w","other":"far"}},
                    {{"op":"mul","name":"dv","input":"v","other":{by:e}}},{{"op":"add","name":"moved","input":"other","other":"dv"}},
                    {{"op":"set_weight","parameter":"{parameter}","value":"moved"}},
                    {{"op":"get","name":"h","hook":"layers.0.input"}},{{"op":"tanh","name":"d","input":"h"}},
                    {{"op":"mul","name":"dd","input":"d","other":{along:e}}},{{"op":"add","name":"hh","input":"h","other":"dd"}},
                    {{"op":"set","hook":"layers.0.input","value":"hh"}},{LOSS}
                    {{"op":"grad","name":"g","backward":"b","of":"moved"}},{{"op":"mul","name":"gv","input":"g","other":"v"}},
                    {{"op":"sum","name":"gs","input":"gv"}},{{"op":"save","name":"of_weight","value":"gs"}},
                    {{"op":"grad","name":"e","backward":"b","hook":"layers.0.input"}},{{"op":"mul","name":"ed","input":"e","other":"d"}},
                    {{"op":"sum","name":"es","input":"ed"}},{{"op":"save","name":"of_stream","value":"es"}},
                    {{"op":"norm","name":"gn","input":"g"}},{{"op":"norm","name":"vn","input":"v"}},{{"op":"save","name":"length","value":"vn"}},
                    {{"op":"mul","name":"size_","input":"gn","other":0.1}},{{"op":"save","name":"size","value":"size_"}},
                    {{"op":"save","name":"loss_","value":"loss"}}"#
                );
                trace(ONE, "", &nodes)
            };
            let number = |body: &str, name: &str| numbers(&planned(&engine, body), name)[0];
            let here = run(&engine, &at(0.0, 0.0));
            for (of, step) in [("of_weight", 0.02 / numbers(&here, "length")[0]), ("of_stream", 1e-3)] {
                let moved = |step: f64| if of == "of_weight" { at(step, 0.0) } else { at(0.0, step) };
                let slope = |step: f64| {
                    (number(&moved(step), "loss_") - number(&moved(-step), "loss_")) / (2.0 * step)
                };
                let (measured, half, computed) = (slope(step), slope(step / 2.0), numbers(&here, of)[0]);
                // Where differences do not agree among themselves they say nothing.
                let scale = measured.abs().max(computed.abs()) + numbers(&here, "size")[0] + 1e-3;
                if (measured - half).abs() > 0.02 * scale {
                    continue;
                }
                held += 1;
                assert!(
                    (half - computed).abs() < 0.05 * scale,
                    "{name}: {parameter}, {of}: measured {measured} and {half}, computed {computed}"
                );
            }
        }
    }
    println!("{held} slopes held");
    assert!(held > 150, "only {held} slopes were held");
}

/// A linear layer's weight: the sum over all tokens of what enters times the cotangent of what leaves.
#[test]
fn the_gradient_of_a_linear_layer_s_weight_is_the_product_of_what_passes_it() {
    let engine = engine("gpt2");
    let nodes = format!(
        r#"{{"op":"weight","name":"w","parameter":"layers.1.mlp.c_proj.weight"}},{{"op":"mul","name":"twice","input":"w","other":2.0}},
        {{"op":"set_weight","parameter":"layers.1.mlp.c_proj.weight","value":"twice"}},
        {{"op":"get","name":"x","hook":"layers.1.mlp.c_proj.input"}},{LOSS}
        {{"op":"grad","name":"gy","backward":"b","hook":"layers.1.mlp.c_proj.output"}},
        {{"op":"einsum","name":"product","equation":"pti,pto->io","operands":["x","gy"]}},{{"op":"save","name":"expected","value":"product"}},
        {}{{"op":"mul","name":"half","input":"product","other":2.0}},{{"op":"save","name":"doubled","value":"half"}}"#,
        grad("set", r#""of":"twice""#) + &grad("own", r#""of":"w""#)
    );
    let results = run(&engine, &trace(ONE, "", &nodes));
    let close = |one: &str, other: &str| {
        let (one, other) = (numbers(&results, one), numbers(&results, other));
        let largest = other.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        let worst = one.iter().zip(&other).fold(0.0f64, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(largest > 0.0 && worst < 1e-5 * largest, "{worst} of {largest}");
    };
    close("set", "expected");
    close("own", "doubled");
}

/// Of two values of one parameter only the last is run with, unless its condition does not hold.
#[test]
fn only_the_value_that_an_invoke_runs_with_has_a_gradient() {
    let engine = engine("gpt2");
    let body = |above: f64| {
        let nodes = format!(
            r#"{{"op":"weight","name":"w","parameter":"layers.1.mlp.c_proj.weight"}},{{"op":"mul","name":"one","input":"w","other":2.0}},
            {{"op":"set_weight","parameter":"layers.1.mlp.c_proj.weight","value":"one"}},{{"op":"mul","name":"other","input":"w","other":0.5}},
            {{"op":"norm","name":"n","input":"w"}},{{"op":"gt","name":"more","input":"n","other":{above:?}}},
            {{"op":"cond","name":"c","condition":"more","then":{{"body":[
                {{"op":"set_weight","parameter":"layers.1.mlp.c_proj.weight","value":"other"}}]}}}},{LOSS}{}{}
            {{"op":"save","name":"loss_","value":"loss"}}"#,
            grad("first", r#""of":"one""#),
            grad("second", r#""of":"other""#)
        );
        trace(ONE, "", &nodes)
    };
    for (above, ran, overwritten) in [(0.0, "second", "first"), (1e9, "first", "second")] {
        let results = run(&engine, &body(above));
        assert!(numbers(&results, ran).iter().any(|&value| value != 0.0), "{ran}");
        assert!(numbers(&results, overwritten).iter().all(|&value| value == 0.0), "{overwritten}");
    }
    let unconditional = body(0.0)
        .replace(r#"{"op":"cond","name":"c","condition":"more","then":{"body":["#, "")
        .replace(r#""value":"other"}]}},"#, r#""value":"other"},"#);
    let message = refusal(&engine, &unconditional);
    assert!(message.contains("`loss` does not depend on `one`"), "{message}");
}

#[test]
fn the_gradient_of_a_skip_is_that_of_a_set_output_and_none_goes_into_the_module() {
    for name in model_names() {
        let engine = engine(&name);
        for module in ["layers.1.attention", "layers.1.mlp", "layers.1", "layers.0.norm_1", "final_norm"] {
            if SpecIndex::new(engine.model().spec()).module(module).is_none() {
                continue; // A family without that module.
            }
            let two = r#"{"name":"p","tokens":[[3,1,4,1,5]]},{"name":"q","tokens":[[2,7,1,8,2]]}"#;
            let loss = LOSS.replace(r#""hook""#, r#""invoke":"p","hook""#);
            let of = |node: &str| {
                let hooks = grad("from_there", r#""of":"h""#)
                    + &grad("there", &format!(r#""invoke":"p","hook":"{module}.output""#))
                    + &grad("of_q", r#""invoke":"q","hook":"layers.0.input""#);
                // What passes the module by has a gradient still.
                let before = match module {
                    "layers.1" | "final_norm" => String::new(),
                    _ => grad("before", r#""invoke":"p","hook":"layers.0.input""#),
                };
                let nodes = format!(
                    r#"{{"op":"get","name":"h","invoke":"q","hook":"{module}.output"}},{node},{loss}{hooks}{before}
                    {{"op":"save","name":"loss_","value":"loss"}}"#
                );
                trace(two, "", &nodes)
            };
            let skip = format!(r#"{{"op":"skip","name":"s","invoke":"p","module":"{module}","value":"h"}}"#);
            let set =
                format!(r#"{{"op":"set","name":"s","invoke":"p","hook":"{module}.output","value":"h"}}"#);
            let (skipped, set) = (run(&engine, &of(&skip)), run(&engine, &of(&set)));
            assert!(numbers(&skipped, "from_there").iter().any(|&value| value != 0.0), "{name}: {module}");
            assert!(numbers(&skipped, "of_q").iter().any(|&value| value != 0.0), "{name}: {module}");
            for key in set.tensors.keys() {
                assert!(tensor(&skipped, key).is_same_bits(tensor(&set, key)), "{name}: {module}: {key}");
            }
            let inside = grad("inside", &format!(r#""invoke":"p","hook":"{module}.input""#));
            let body = of(&skip).replace(
                r#"{"op":"save","name":"loss_""#,
                &format!(r#"{inside}{{"op":"save","name":"loss_""#),
            );
            assert!(refusal(&engine, &body).contains("which `s` skips"), "{name}: {module}");
        }
    }
}

/// A `cond` of which the condition holds where `above` is less than the size of something, else not.
fn cond(above: f64, then: &str, otherwise: &str) -> String {
    format!(
        r#"{{"op":"get","name":"x","hook":"layers.0.input"}},{{"op":"norm","name":"n","input":"x"}},
        {{"op":"gt","name":"more","input":"n","other":{above:?}}},
        {{"op":"cond","name":"c","condition":"more","then":{then},"else":{otherwise}}},"#
    )
}

/// As if the branch that ran stood there by itself.
#[test]
fn a_way_back_goes_through_the_branch_that_ran() {
    let engine = engine("gpt2");
    let set = |value: &str| format!(r#"{{"op":"set","hook":"layers.1.mlp.output","value":"{value}"}}"#);
    let then = format!(r#"{{"op":"tanh","name":"bent","input":"h"}},{}"#, set("bent"));
    let otherwise = format!(r#"{{"op":"mul","name":"less","input":"h","other":0.5}},{}"#, set("less"));
    let read = r#"{"op":"get","name":"h","hook":"layers.1.mlp.output"},"#;
    let skipping = r#"{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.25]},{"op":"skip","module":"layers.2.attention","value":"z"}"#;
    let weight = r#"{"op":"weight","name":"w","parameter":"final_norm.weight"},{"op":"mul","name":"w_","input":"w","other":3.0},
        {"op":"set_weight","parameter":"final_norm.weight","value":"w_"}"#;
    let saved = grad("early", r#""hook":"layers.0.mlp.post""#)
        + &grad("there", r#""hook":"layers.1.mlp.output""#)
        + r#"{"op":"save","name":"loss_","value":"loss"}"#;
    let of_h = grad("read", r#""of":"h""#);
    for (then, otherwise, of_h) in [
        (then.as_str(), otherwise.as_str(), of_h.as_str()),
        (then.as_str(), "", of_h.as_str()),
        (skipping, otherwise.as_str(), ""),
        (skipping, weight.replace("final_norm", "layers.2.norm_2").as_str(), ""),
    ] {
        let bodies = (format!(r#"{{"body":[{then}]}}"#), format!(r#"{{"body":[{otherwise}]}}"#));
        for (above, ran) in [(0.0, then), (1e9, otherwise)] {
            // A weight's condition has to be known before its invoke begins.
            let first = cond(above, &bodies.0, &bodies.1);
            let (invokes, first) = match otherwise.contains("set_weight") {
                false => (ONE.to_owned(), first),
                true => (
                    format!(r#"{ONE},{{"name":"q","tokens":[[4]]}}"#),
                    first.replace(r#""name":"x","hook""#, r#""name":"x","invoke":"q","hook""#),
                ),
            };
            let (first, ran) = match invokes == ONE {
                true => (first, ran.to_owned()),
                false => {
                    let named = |text: &str| {
                        text.replace(r#""op":"skip","#, r#""op":"skip","invoke":"p","#)
                            .replace(r#""op":"set_weight","#, r#""op":"set_weight","invoke":"p","#)
                            .replace(r#""op":"set","#, r#""op":"set","invoke":"p","#)
                    };
                    (named(&first), named(ran))
                }
            };
            let comma = if ran.is_empty() { "" } else { "," };
            let rest = format!("{LOSS}{of_h}{saved}");
            let (read, rest) = match invokes == ONE {
                true => (read.to_owned(), rest),
                false => {
                    let named = |text: &str| text.replace(r#""hook""#, r#""invoke":"p","hook""#);
                    (named(read), named(&rest))
                }
            };
            let conditional = run(&engine, &trace(&invokes, "", &format!("{read}{first}{rest}")));
            let plain = run(&engine, &trace(ONE, "", &format!("{read}{ran}{comma}{rest}")));
            for (name, expected) in &plain.tensors {
                assert!(numbers(&plain, name).iter().any(|&value| value != 0.0), "{name}\n{ran}");
                assert!(tensor(&conditional, name).is_same_bits(expected), "{name}\n{ran}");
            }
        }
    }
}

/// The value of two branches is one of them: all that comes to it goes there, and to the other nothing.
#[test]
fn what_was_not_chosen_has_no_gradient() {
    let engine = engine("gpt2");
    let read = r#"{"op":"get","name":"early","hook":"layers.1.input"},{"op":"get","name":"late","hook":"layers.2.output"},
        {"op":"sum","name":"of_early","input":"early"},{"op":"sum","name":"of_late","input":"late"},"#;
    let branch = |input: &str| {
        format!(
            r#"{{"body":[{{"op":"mul","name":"m_{input}","input":"{input}","other":3.0}}],"yields":["m_{input}"]}}"#
        )
    };
    let back = r#"{"op":"backward","name":"b","of":"c"},"#.to_owned()
        + &grad("a", r#""of":"of_early""#)
        + &grad("z", r#""of":"of_late""#)
        + &grad("first", r#""hook":"layers.0.input""#)
        + &grad("behind", r#""hook":"layers.2.mlp.output""#)
        + r#"{"op":"get","name":"o","hook":"logits"},{"op":"save","name":"logits","value":"o"}"#;
    for (above, chosen) in [(0.0, "early"), (1e9, "late")] {
        let first = cond(above, &branch("of_early"), &branch("of_late"));
        let results = run(&engine, &trace(ONE, "", &format!("{read}{first}{back}")));
        assert_eq!(numbers(&results, "a"), [if chosen == "early" { 3.0 } else { 0.0 }]);
        assert_eq!(numbers(&results, "z"), [if chosen == "late" { 3.0 } else { 0.0 }]);
        assert!(numbers(&results, "first").iter().any(|&value| value != 0.0));
        assert!(tensor(&results, "behind").elements() > 0);
    }
    // Read in the branch alone: what lies behind all that was read is gone back through by nobody.
    let inside = r#"{"body":[{"op":"get","name":"far","hook":"layers.2.output"},{"op":"sum","name":"s","input":"far"}],"yields":["s"]}"#;
    let near = r#"{"body":[],"yields":["of_early"]}"#;
    let read = r#"{"op":"get","name":"early","hook":"layers.1.input"},{"op":"sum","name":"of_early","input":"early"},"#;
    let back = r#"{"op":"backward","name":"b","of":"c"},{"op":"literal","name":"half","dtype":"f32","shape":[],"elements":[0.5]},
        {"op":"set_grad","backward":"b","hook":"layers.2.mlp.output","value":"half"},"#.to_owned()
        + &grad("first", r#""hook":"layers.0.input""#)
        + &grad("behind", r#""hook":"layers.2.mlp.post""#);
    let back = back.trim_end_matches(',');
    for (above, absent) in [(0.0, false), (1e9, true)] {
        let first = cond(above, inside, near);
        let results = run(&engine, &trace(ONE, "", &format!("{read}{first}{back}")));
        assert_eq!(results.absent.contains(&"behind".to_owned()), absent, "{above}");
        assert!(numbers(&results, "first").iter().any(|&value| value != 0.0));
    }
}

/// A whole way back under a condition.
#[test]
fn a_way_back_in_a_branch_runs_where_the_branch_does() {
    let engine = engine("gpt2");
    let inside = format!(
        r#"{{"body":[{LOSS}{}{{"op":"save","name":"loss_","value":"loss"}}]}}"#,
        grad("g", r#""hook":"layers.0.output""#)
    );
    let rest = r#"{"op":"get","name":"o","hook":"logits"},{"op":"save","name":"logits","value":"o"}"#;
    let body = |above: f64| trace(ONE, "", &format!(r#"{}{rest}"#, cond(above, &inside, r#"{"body":[]}"#)));
    let ran = run(&engine, &body(0.0));
    assert!(numbers(&ran, "g").iter().any(|&value| value != 0.0));
    let mut absent = run(&engine, &body(1e9)).absent;
    absent.sort();
    assert_eq!(absent, ["g", "loss_"]);
}

/// What is set to something else as a whole passes nothing on, and is refused rather than answered with 0: at every hook
/// point, only where moving it moves nothing.
#[test]
fn a_gradient_is_refused_only_where_moving_the_value_changes_nothing() {
    let (mut taken, mut refused, mut zero) = (0, 0, 0);
    for name in ["gpt2", "llama3", "gpt-neox", "opt-post-norm"] {
        let engine = engine(name);
        let index = SpecIndex::new(engine.model().spec());
        let hooks: Vec<String> = engine.model().spec().hook_points.iter().map(|hook| hook.path()).collect();
        for cut in [
            "layers.0.output",
            "layers.1.input",
            "layers.0.mlp.output",
            "layers.1.attention.output",
            "final_norm.output",
        ] {
            let Some(at) = index.hook(cut) else { continue };
            for (place, hook) in hooks.iter().enumerate().take(at) {
                let spec = &engine.model().spec().hook_points[place];
                if !spec.dtype.is_float() || spec.name == "scores" {
                    continue;
                }
                let nodes = |edit: &str, asked: &str| {
                    format!(
                        r#"{{"op":"get","name":"h","hook":"{hook}"}},{edit}
                        {{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.5]}},{{"op":"set","hook":"{cut}","value":"z"}},
                        {LOSS}{asked}{{"op":"get","name":"o","hook":"logits"}},{{"op":"save","name":"logits","value":"o"}}"#
                    )
                    .replace(if asked.is_empty() { r#"{"op":"backward","name":"b","of":"loss"},"# } else { "\n\n" }, "")
                };
                let logits = |edit: &str| planned(&engine, &trace(ONE, "", &nodes(edit, "")));
                let moved = format!(
                    r#"{{"op":"add","name":"far","input":"h","other":1.5}},{{"op":"mul","name":"more","input":"far","other":-2.0}},{{"op":"set","hook":"{hook}","value":"more"}},"#
                );
                let changes = !tensor(&logits(""), "logits").is_same_bits(tensor(&logits(&moved), "logits"));
                let asked = trace(ONE, "", &nodes("", &grad("g", &format!(r#""hook":"{hook}""#))));
                match engine.check(session(&asked)) {
                    Ok(_) => {
                        taken += 1;
                        let gradient = numbers(&planned(&engine, &asked), "g");
                        zero += usize::from(gradient.iter().all(|&value| value == 0.0));
                    }
                    Err(faults) => {
                        refused += 1;
                        let message = faults.0[0].to_string();
                        assert!(message.contains("does not depend on"), "{name}: {hook}: {message}");
                        assert!(!changes, "{name}: `{hook}` moves the logits behind `{cut}`");
                    }
                }
            }
        }
    }
    println!("{taken} gradients taken, of which {zero} are 0; {refused} refused");
    assert!(taken > 100 && refused > 100 && zero * 10 < taken, "{taken} {zero} {refused}");
}
