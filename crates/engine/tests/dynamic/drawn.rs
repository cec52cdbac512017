//! Tokens that are drawn, held to those that `golden/philox.py` draws from the generator's description.

use serde_json::{Value as Json, json};

use super::{engine, integers, run_text};

#[test]
fn a_script_elsewhere_draws_the_same_tokens() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/operations/drawn.json");
    let golden: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let engine = engine("gpt2");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        for swept in [false, true] {
            let made = |invoke: &str| {
                vec![
                    json!({"op": "steps", "body": [{"op": "set", "invoke": invoke, "hook": "logits", "value": "table"}]}),
                    json!({"op": "generated", "name": format!("made_{invoke}"), "invoke": invoke}),
                    json!({"op": "save", "name": invoke, "value": format!("made_{invoke}")}),
                ]
            };
            let invoke = |name: &str| json!({"name": name, "tokens": golden["prompts"][name]});
            let mut body = vec![
                json!({"op": "literal", "name": "table", "dtype": "f32", "shape": [96], "elements": golden["logits"]}),
            ];
            body.extend(made("a"));
            let mut invokes = vec![invoke("a")];
            let cells: Vec<usize> = (0..case["cells"].as_array().unwrap().len()).collect();
            match swept {
                true => body.push(
                    json!({"op": "sweep", "over": [{"cell": cells}], "invokes": [invoke("b")], "body": made("b")}),
                ),
                false => {
                    invokes.push(invoke("b"));
                    body.extend(made("b"));
                }
            }
            let mut generate = case["options"].clone();
            generate["max_new_tokens"] = golden["steps"].clone();
            generate["stop_tokens"] = json!([]);
            let program = json!({"pellucid": 1, "seed": case["seed"], "body": [
                {"op": "trace", "name": case["trace"], "invokes": invokes, "generate": generate, "body": body}]});
            let results = run_text(&engine, &program.to_string());
            let of_b = if swept { &case["cells"] } else { &case["invokes"]["b"] };
            for (name, expected) in [("a", &case["invokes"]["a"]), ("b", of_b)] {
                assert_eq!(integers(&results, name), flat(expected), "{name}: {case}");
            }
        }
    }
}

/// The integers of nested lists.
fn flat(json: &Json) -> Vec<i64> {
    match json {
        Json::Array(items) => items.iter().flat_map(flat).collect(),
        other => other.as_i64().into_iter().collect(),
    }
}
