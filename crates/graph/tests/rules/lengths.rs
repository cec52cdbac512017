//! Unknown lengths: what is linear in them stays exact, what is certain to be wrong is refused, the rest is taken.

use serde_json::json;

use crate::support::{outputs, tensor_type};

/// The shape that an index leaves of a tensor.
fn indexed(input: &str, index: serde_json::Value) -> String {
    outputs("getitem", json!({"input": input, "index": index}))
}

fn added(a: &str, b: &str) -> String {
    outputs("add", json!({"input": a, "other": b}))
}

fn reshaped(input: &str, shape: serde_json::Value) -> String {
    outputs("reshape", json!({"input": input, "shape": shape}))
}

#[test]
fn slices_are_exact_where_a_prompt_of_one_token_would_do() {
    for (index, expected) in [
        ("1:", "f32[L0 − 1]"),
        (":-1", "f32[L0 − 1]"),
        ("-1:", "f32[1]"),
        (":1", "f32[1]"),
        (":", "f32[L0]"),
        ("::1", "f32[L0]"),
        ("0:0", "f32[0]"),
        ("1:1", "f32[0]"),
        // Two tokens are not certain.
        ("2:", "f32[?100]"),
        (":5", "f32[?100]"),
        ("-2:", "f32[?100]"),
        ("::2", "f32[?100]"),
    ] {
        assert_eq!(indexed("f32[L0]", json!([index])), expected, "[{index}]");
    }
    assert_eq!(indexed("f32[L0 + 3]", json!(["2:"])), "f32[L0 + 1]");
    assert_eq!(indexed("f32[2*L0]", json!(["::2"])), "f32[L0]");
    assert_eq!(indexed("f32[2*L0 + 1]", json!(["::2"])), "f32[L0 + 1]");
    assert_eq!(indexed("f32[2*L0 + 1]", json!(["1::2"])), "f32[L0]");
    // A derived size may be 0.
    assert_eq!(indexed("f32[?1]", json!(["1:"])), "f32[?100]");
}

#[test]
fn places_are_taken_when_some_length_has_them() {
    assert_eq!(indexed("f32[2, L0, 64]", json!([":", -1])), "f32[2, 64]");
    assert_eq!(indexed("f32[2, L0, 64]", json!([":", 100])), "f32[2, 64]");
    assert_eq!(indexed("f32[2, L0, 64]", json!([":", -100])), "f32[2, 64]");
    assert!(indexed("f32[2, L0, 64]", json!([":", ":", 64])).starts_with("error"));
    assert_eq!(indexed("f32[L0, L0]", json!(["i64[3]", "i64[3]"])), "f32[3]");
    assert_eq!(indexed("f32[2, L0, 64]", json!(["i64[2]", "i64[L0]"])), "f32[2, 64]");
}

#[test]
fn broadcasting_keeps_what_is_known() {
    assert_eq!(added("f32[2, L0]", "f32[2, L0]"), "f32[2, L0]");
    assert_eq!(added("f32[2, L0]", "f32[2, 1]"), "f32[2, L0]");
    assert_eq!(added("f32[1]", "f32[L0]"), "f32[L0]");
    assert_eq!(added("f32[7]", "f32[L0]"), "f32[7]");
    assert_eq!(added("f32[L0]", "f32[L1]"), "f32[?100]");
    // A length and one more: fine for a prompt of one token.
    assert_eq!(added("f32[L0]", "f32[L0 + 1]"), "f32[?100]");
    // Neither can be 1, and they always differ.
    assert!(added("f32[L0 + 1]", "f32[L0 + 2]").starts_with("error"));
    assert!(added("f32[3]", "f32[2*L0]").starts_with("error"));
    assert!(added("f32[3]", "f32[L0 + 4]").starts_with("error"));
}

#[test]
fn sizes_to_infer_are_solved() {
    assert_eq!(reshaped("f32[2, L0, 64]", json!([2, -1, 4, 16])), "f32[2, L0, 4, 16]");
    assert_eq!(reshaped("f32[2, L0, 64]", json!([-1, 64])), "f32[2·L0, 64]");
    assert_eq!(reshaped("f32[2, L0 - 1, 64]", json!([-1])), "f32[128·L0 − 128]");
    assert_eq!(reshaped("f32[2*L0, 64]", json!([2, -1, 64])), "f32[2, L0, 64]");
    assert_eq!(reshaped("f32[L0, L1, 4]", json!([{"size_of": "f32[L0]", "dim": 0}, -1])), "f32[L0, 4·L1]");
    assert_eq!(reshaped("f32[L0, L1]", json!([-1])), "f32[?100]");
    assert_eq!(reshaped("f32[L0, 3]", json!([-1, 2])), "f32[?100, 2]");
    assert_eq!(reshaped("f32[L0, 64]", json!([10, 64])), "f32[10, 64]");
    assert!(reshaped("f32[L0, 64]", json!([10, 63])).starts_with("error"));
    let size = json!({"size_of": "f32[2, L0]", "dim": -1});
    assert_eq!(reshaped("f32[2, L0, 64]", json!([2, size, 8, 8])), "f32[2, L0, 8, 8]");
    assert_eq!(outputs("flatten", json!({"input": "f32[2, L0, 64]", "end_dim": 1})), "f32[2·L0, 64]");
    assert_eq!(
        outputs("unflatten", json!({"input": "f32[6*L0]", "dim": 0, "sizes": [-1, 3]})),
        "f32[2·L0, 3]"
    );
}

#[test]
fn lengths_pass_through_every_family() {
    let scores = outputs(
        "einsum",
        json!({"equation": "bqhd,bkhd->bhqk", "operands": ["f32[2, L0, 4, 16]", "f32[2, L0, 4, 16]"]}),
    );
    assert_eq!(scores, "f32[2, 4, L0, L0]");
    let product = json!({"input": "f32[2, L0, 64]", "other": "f32[64, 8]"});
    assert_eq!(outputs("matmul", product), "f32[2, L0, 8]");
    assert_eq!(outputs("mean", json!({"input": "f32[2, L0, 64]", "dim": [1]})), "f32[2, 64]");
    let joined = json!({"tensors": ["f32[2, L0]", "f32[2, 3]", "f32[2, L1]"], "dim": 1});
    assert_eq!(outputs("cat", joined), "f32[2, L0 + L1 + 3]");
    assert_eq!(outputs("stack", json!({"tensors": ["f32[L0]", "f32[5]"]})), "f32[2, 5]");
    assert!(outputs("stack", json!({"tensors": ["f32[L0]", "f32[L0 - 1]"]})).starts_with("error"));
    assert_eq!(outputs("topk", json!({"input": "f32[2, L0]", "k": 5})), "f32[2, 5] i64[2, 5]");
    assert_eq!(outputs("expand", json!({"input": "f32[L0, 1]", "size": [-1, 7]})), "f32[L0, 7]");
    assert_eq!(outputs("repeat", json!({"input": "f32[L0]", "repeats": [2, 3]})), "f32[2, 3·L0]");
    assert_eq!(outputs("pad", json!({"input": "f32[L0]", "pad": [1, -2]})), "f32[L0 − 1]");
    assert_eq!(outputs("diagonal", json!({"input": "f32[L0, L0]", "offset": -1})), "f32[L0 − 1]");
    assert_eq!(outputs("zeros", json!({"size": [{"size_of": "f32[2, L0]", "dim": 1}, 3]})), "f32[L0, 3]");
    assert_eq!(outputs("split", json!({"input": "f32[L0]", "split_size": [2, 3]})), "f32[2] f32[3]");
    assert!(outputs("split", json!({"input": "f32[L0]", "split_size": 2})).starts_with("error"));
    assert!(outputs("squeeze", json!({"input": "f32[1, L0]"})).starts_with("error"));
    assert_eq!(outputs("squeeze", json!({"input": "f32[1, L0 + 1]"})), "f32[L0 + 1]");
    let written = json!({"input": "f32[2, L0, 64]", "index": ["bool[2, L0]"], "values": "f32[64]"});
    assert_eq!(outputs("index_put", written), "f32[2, L0, 64]");
}

#[test]
fn sums_of_many_lengths_do_not_grow_without_end() {
    let many = |count: usize| {
        let tensors: Vec<_> = (0..count).map(|number| format!("f32[L{number}]")).collect();
        outputs("cat", json!({"tensors": tensors}))
    };
    assert_eq!(many(3), "f32[L0 + L1 + L2]");
    assert_eq!(many(1000), "f32[?100]");
}

#[test]
fn forms_print_as_they_are_read() {
    for text in ["f32[]", "i64[2, L0]", "bool[?3, 2]"] {
        assert_eq!(tensor_type(text).map(|read| read.to_string()).as_deref(), Some(text));
    }
}
