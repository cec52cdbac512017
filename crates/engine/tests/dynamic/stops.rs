//! Generations that their program stops.

use super::{engine, failure, integers, refusal, run, trace};

const TWO: &str = r#"{"name":"p","tokens":[[3,1,4,1,5],[9,2,6]]}"#;
const SIX: &str = r#""generate":{"max_new_tokens":6,"stop_tokens":[]},"#;
const GENERATED: &str = r#"{"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#;

fn with_stop(when: &str) -> String {
    let nodes = format!(
        r#"{{"op":"steps","body":[
            {{"op":"get","name":"l","hook":"logits"}},
            {{"op":"getitem","name":"last","input":"l","index":[":",-1]}},
            {{"op":"save","name":"logits","value":"last"}},{when}]}},{GENERATED}"#
    );
    trace(TWO, SIX, &nodes)
}

#[test]
fn a_stop_ends_just_the_prompts_for_which_it_holds_after_their_token() {
    let engine = engine("gpt2");
    let free = run(&engine, &trace(TWO, SIX, GENERATED));
    let free = integers(&free, "made");
    assert_eq!(free.len(), 12);

    // The second prompt, at the third step.
    let when = r#"{"op":"literal","name":"which","dtype":"bool","shape":[2],"elements":[false,true]}"#;
    let nodes = format!(
        r#"{when},{{"op":"steps","from":2,"to":3,"body":[{{"op":"stop","name":"s","when":"which"}}]}},{GENERATED}"#
    );
    let made = integers(&run(&engine, &trace(TWO, SIX, &nodes)), "made");
    assert_eq!(made[..6], free[..6]);
    assert_eq!(made[6..9], free[6..9]);
    assert_eq!(made[9..], [-1, -1, -1]);

    // Both, at once: the steps that are left are lost, and said to be.
    let all = r#"{"op":"literal","name":"now","dtype":"bool","shape":[],"elements":[true]},
        {"op":"stop","name":"s","when":"now"}"#;
    let results = run(&engine, &with_stop(all));
    let made = [free[0], -1, -1, -1, -1, -1, free[6], -1, -1, -1, -1, -1];
    assert_eq!(integers(&results, "made"), made);
    assert_eq!(results.absent, ["logits/1", "logits/2", "logits/3", "logits/4", "logits/5"]);
}

#[test]
fn a_stop_depends_on_what_its_step_computes() {
    let engine = engine("llama3");
    let free = integers(&run(&engine, &with_stop(r#"{"op":"argmax","name":"best","input":"last"}"#)), "made");
    // Stop where a chosen token was just made: what the stop tokens of a generation do, written by hand.
    let wanted = free[1];
    let by_hand = format!(
        r#"{{"op":"argmax","name":"best","input":"last","dim":-1}},
        {{"op":"eq","name":"is","input":"best","other":{wanted}}},
        {{"op":"stop","name":"s","when":"is"}}"#
    );
    let by_hand = run(&engine, &with_stop(&by_hand));
    let by_token = SIX.replace("[]", &format!("[{wanted}]"));
    let by_token = run(&engine, &trace(TWO, &by_token, GENERATED));
    assert_eq!(integers(&by_hand, "made"), integers(&by_token, "made"));
    assert!(integers(&by_hand, "made").contains(&-1), "nothing was stopped");
}

#[test]
fn a_stop_can_wait_for_another_invoke() {
    let engine = engine("gpt2");
    let invokes = r#"{"name":"a","tokens":[[3,1,4]]},{"name":"b","tokens":[[2,7,1,8]]}"#;
    // `b` ends where the norm of `a`'s stream falls below what it was at first: whichever way, one of the two prompts waits.
    let nodes = r#"{"op":"steps","body":[
        {"op":"get","name":"h","invoke":"a","hook":"layers.1.output"},
        {"op":"getitem","name":"last","input":"h","index":[0,-1]},
        {"op":"norm","name":"size","input":"last"},
        {"op":"lt","name":"small","input":"size","other":1e9},
        {"op":"stop","name":"s","invoke":"b","when":"small"}]},
        {"op":"generated","name":"g","invoke":"b"},{"op":"save","name":"made","value":"g"},
        {"op":"generated","name":"ga","invoke":"a"},{"op":"save","name":"made_a","value":"ga"}"#;
    let results = run(&engine, &trace(invokes, SIX, nodes));
    assert_eq!(integers(&results, "made")[1..], [-1; 5]);
    assert!(!integers(&results, "made_a").contains(&-1));
}

#[test]
fn what_is_no_stop_is_refused() {
    let engine = engine("gpt2");
    let outside = format!(
        r#"{{"op":"literal","name":"now","dtype":"bool","shape":[],"elements":[true]}},
        {{"op":"stop","name":"s","when":"now"}},{GENERATED}"#
    );
    let message = refusal(&engine, &trace(TWO, SIX, &outside));
    assert!(message.contains("put it into the body of a `steps`"), "{message}");
    for (dtype, shape, elements) in [("f32", "[2]", "[0.0,1.0]"), ("bool", "[3]", "[true,true,true]")] {
        let when = format!(
            r#"{{"op":"literal","name":"now","dtype":"{dtype}","shape":{shape},"elements":{elements}}},
            {{"op":"stop","name":"s","when":"now"}}"#
        );
        let message = refusal(&engine, &with_stop(&when));
        assert!(message.contains("that must be bool[] or bool[2]"), "{message}");
    }
    // An error on its way stays the node's own.
    let failing = r#"{"op":"literal","name":"far","dtype":"i64","shape":[1],"elements":[99999]},
        {"op":"getitem","name":"one","input":"last","index":[":",{"tensor":"far"}]},
        {"op":"gt","name":"is","input":"one","other":0.0},
        {"op":"any","name":"now","input":"is"},{"op":"stop","name":"s","when":"now"}"#;
    let message = failure(&engine, &with_stop(failing));
    assert!(message.starts_with("`one`"), "{message}");
}
