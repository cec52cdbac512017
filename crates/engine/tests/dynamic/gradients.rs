//! Gradients of what comes from a generation that may have stopped before: what was never computed has none, and is in no
//! other's way.

use super::{engine, numbers, refusal, run, tensor, trace};

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
fn conditions_skips_and_weights_of_other_invokes_are_in_no_gradient_s_way() {
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
        // On the way itself it is refused.
        let message = refusal(&engine, &trace(invokes, "", &format!("{detour},{}", way_back("p"))));
        assert!(message.contains("gradients do not flow through"), "{message}");
    }
}
