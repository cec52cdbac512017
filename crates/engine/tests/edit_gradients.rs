//! Gradients through edits, held to plain PyTorch: the cases of `golden/make_edit_gradients.py`, each as a program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

mod support;

use std::collections::BTreeSet;

use pellucid_engine::RunOptions;
use safetensors::SafeTensors;
use support::{Expected, Golden, Tally, program_with};

/// A gradient may differ by so much of its largest element.
const GRADIENTS: f64 = 1e-5;
/// A single number, the value that is gone back from or the sum of a gradient, may differ by so much.
const NUMBERS: f64 = 1e-4;

/// One case of the golden file: its name, whether it has a second invoke, the nodes until `total`, the value that is gone
/// back from, what stands behind the `backward`, and of what it gives gradients under which names.
struct Case {
    name: &'static str,
    second: bool,
    nodes: String,
    behind: &'static str,
    gradients: Vec<(&'static str, &'static str)>,
}

/// Sets layer 0's down projection to its half.
const HALF_OF_A_WEIGHT: &str = r#"{"op":"weight","name":"w","parameter":"layers.0.DOWN.weight"},
    {"op":"mul","name":"weight","input":"w","other":0.5},
    {"op":"set_weight","invoke":"p","parameter":"layers.0.DOWN.weight","value":"weight"},"#;
const VECTOR: &str = r#"{"op":"constant","name":"vector","key":"vector"},"#;
const TOTAL: &str = r#"{"op":"add","name":"total","input":"loss","other":0.0}"#;

const EARLY: (&str, &str) = ("early", r#""invoke":"p","hook":"embed.output""#);
const LAYER_0: (&str, &str) = ("layer_0", r#""invoke":"p","hook":"layers.0.output""#);
const LAYER_1: (&str, &str) = ("layer_1", r#""invoke":"p","hook":"layers.1.output""#);

/// The difference of two logits at the last position, of one invoke's logits or of what is unembedded.
fn difference(logits: &str, name: &str) -> String {
    format!(
        r#"{{"op":"getitem","name":"{name}_5","input":"{logits}","index":[0,-1,5]}},
        {{"op":"getitem","name":"{name}_9","input":"{logits}","index":[0,-1,9]}},
        {{"op":"sub","name":"{name}","input":"{name}_5","other":"{name}_9"}},"#
    )
}

fn loss(invoke: &str, name: &str) -> String {
    let logits = format!("{name}_logits");
    let get = format!(r#"{{"op":"get","name":"{logits}","invoke":"{invoke}","hook":"logits"}},"#);
    get + &difference(&logits, name)
}

/// `value` goes through the final norm and the unembedding.
fn lens(value: &str) -> String {
    format!(
        r#"{{"op":"apply","name":"normed","module":"final_norm","input":"{value}"}},
        {{"op":"apply","name":"unembedded","module":"unembed","input":"normed"}},{}"#,
        difference("unembedded", "lens")
    )
}

/// A condition on the size of layer 0's stream.
fn condition(name: &'static str, above: f64) -> Case {
    let own = loss("p", "loss");
    case(
        name,
        format!(
            r#"{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"norm","name":"size","input":"h"}},
            {{"op":"gt","name":"large","input":"size","other":{above:e}}},
            {{"op":"cond","name":"c","condition":"large",
              "then":{{"body":[{{"op":"mul","name":"half","input":"h","other":0.5}},
                {{"op":"set","hook":"layers.0.output","value":"half"}}],"yields":["half"]}},
              "else":{{"body":[{{"op":"tanh","name":"bent","input":"h"}},
                {{"op":"set","hook":"layers.0.output","value":"bent"}}],"yields":["bent"]}}}},
            {{"op":"mean","name":"later","input":"c","dim":1,"keepdim":true}},
            {{"op":"get","name":"m","hook":"layers.2.mlp.output"}},{{"op":"add","name":"m_","input":"m","other":"later"}},
            {{"op":"set","hook":"layers.2.mlp.output","value":"m_"}},{own}{TOTAL}"#
        ),
        vec![EARLY, ("layer_0", r#""of":"h""#), ("set", LAYER_0.1), ("later", r#""of":"later""#)],
    )
}

fn case(name: &'static str, nodes: String, gradients: Vec<(&'static str, &'static str)>) -> Case {
    Case { name, second: false, nodes, behind: "", gradients }
}

fn weights() -> Vec<Case> {
    let own = loss("p", "loss");
    let two = loss("q", "two");
    vec![
        case(
            "weight_in_a_block",
            format!(
                r#"{{"op":"weight","name":"w","parameter":"layers.1.DOWN.weight"}},{{"op":"mul","name":"half","input":"w","other":0.5}},
                {{"op":"constant","name":"matrix","key":"matrix"}},{{"op":"add","name":"weight","input":"half","other":"matrix"}},
                {{"op":"set_weight","parameter":"layers.1.DOWN.weight","value":"weight"}},{own}{TOTAL}"#
            ),
            vec![EARLY, LAYER_0, LAYER_1, ("weight", r#""of":"weight""#)],
        ),
        case(
            "part_of_a_weight",
            format!(
                r#"{{"op":"weight","name":"w","parameter":"layers.1.VALUE.weight"}},
                {{"op":"weight","name":"part","parameter":"layers.1.VALUE.weight","index":["1:3"]}},
                {{"op":"mul","name":"twice","input":"part","other":2.0}},{{"op":"constant","name":"more","key":"rows"}},
                {{"op":"add","name":"rows","input":"twice","other":"more"}},
                {{"op":"index_put","name":"new","input":"w","index":["1:3"],"values":"rows"}},
                {{"op":"set_weight","parameter":"layers.1.VALUE.weight","value":"new"}},{own}{TOTAL}"#
            ),
            vec![EARLY, ("rows", r#""of":"rows""#)],
        ),
        case(
            "weight_of_a_norm",
            format!(
                r#"{{"op":"literal","name":"factor","dtype":"f32","shape":[],"elements":[1.5]}},
                {{"op":"weight","name":"w","parameter":"layers.2.norm_1.weight"}},{{"op":"mul","name":"scaled","input":"w","other":"factor"}},
                {{"op":"tanh","name":"weight","input":"scaled"}},
                {{"op":"set_weight","parameter":"layers.2.norm_1.weight","value":"weight"}},{own}{TOTAL}"#
            ),
            vec![EARLY, ("factor", r#""of":"factor""#), ("weight", r#""of":"weight""#)],
        ),
        case(
            "tied_embedding",
            format!(
                r#"{{"op":"weight","name":"w","parameter":"embed.weight"}},{{"op":"mul","name":"less","input":"w","other":0.75}},
                {{"op":"add","name":"table","input":"less","other":0.01}},
                {{"op":"set_weight","parameter":"embed.weight","value":"table"}},{own}{TOTAL}"#
            ),
            vec![LAYER_1, ("table", r#""of":"table""#)],
        ),
        Case {
            second: true,
            ..case(
                "two_passes_with_one_weight",
                format!(
                    r#"{HALF_OF_A_WEIGHT}{{"op":"set_weight","invoke":"q","parameter":"layers.0.DOWN.weight","value":"weight"}},
                    {own}{two}{{"op":"mul","name":"half_of_two","input":"two","other":0.5}},
                    {{"op":"add","name":"total","input":"loss","other":"half_of_two"}}"#
                ),
                vec![
                    EARLY,
                    ("other", r#""invoke":"q","hook":"embed.output""#),
                    ("weight", r#""of":"weight""#),
                ],
            )
        },
    ]
}

fn skips() -> Vec<Case> {
    let own = loss("p", "loss");
    vec![
        case(
            "skipped_mlp",
            format!(
                r#"{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"tanh","name":"bent","input":"h"}},
                {{"op":"mul","name":"given","input":"bent","other":0.5}},
                {{"op":"skip","module":"layers.1.mlp","value":"given"}},{own}{TOTAL}"#
            ),
            vec![EARLY, LAYER_0, ("given", r#""of":"given""#)],
        ),
        case(
            "skipped_attention",
            format!(r#"{VECTOR}{{"op":"skip","module":"layers.1.attention","value":"vector"}},{own}{TOTAL}"#),
            vec![EARLY, ("layer_2", r#""hook":"layers.2.output""#), ("vector", r#""of":"vector""#)],
        ),
        case(
            "skipped_block",
            format!(
                r#"{VECTOR}{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"mul","name":"given","input":"h","other":1.5}},
                {{"op":"skip","module":"layers.1","value":"given"}},{{"op":"get","name":"after","hook":"layers.1.output"}},
                {{"op":"add","name":"moved","input":"after","other":"vector"}},
                {{"op":"set","hook":"layers.1.output","value":"moved"}},{own}{TOTAL}"#
            ),
            vec![EARLY, LAYER_0, ("given", r#""of":"given""#), ("set", LAYER_1.1)],
        ),
    ]
}

fn setters() -> Vec<Case> {
    let own = loss("p", "loss");
    let lens_of_layer_0 = lens("h");
    vec![
        case(
            "modules_out_of_order",
            format!(
                r#"{{"op":"get","name":"h","hook":"layers.0.output"}},{own}{lens_of_layer_0}
                {{"op":"mul","name":"scaled","input":"h","other":0.5}},
                {{"op":"apply","name":"applied","module":"layers.2.mlp","input":"scaled"}},
                {{"op":"pow","name":"squares","input":"applied","exponent":2}},{{"op":"mean","name":"size","input":"squares"}},
                {{"op":"mul","name":"half_of_lens","input":"lens","other":0.5}},
                {{"op":"add","name":"both","input":"loss","other":"half_of_lens"}},
                {{"op":"add","name":"total","input":"both","other":"size"}}"#
            ),
            vec![EARLY, LAYER_0, ("scaled", r#""of":"scaled""#), ("applied", r#""of":"applied""#)],
        ),
        case(
            "setters",
            format!(
                r#"{VECTOR}{{"op":"get","name":"read","hook":"layers.1.output"}},
                {{"op":"index_put","name":"moved","input":"read","index":[":",-1],"values":"vector","accumulate":true}},
                {{"op":"set","hook":"layers.1.output","value":"moved"}},
                {{"op":"tanh","name":"bent","input":"read"}},{{"op":"mul","name":"half","input":"bent","other":0.5}},
                {{"op":"get","name":"m","hook":"layers.2.mlp.output"}},{{"op":"add","name":"m_","input":"m","other":"half"}},
                {{"op":"set","hook":"layers.2.mlp.output","value":"m_"}},{own}{TOTAL}"#
            ),
            vec![EARLY, ("vector", r#""of":"vector""#), ("read", r#""of":"read""#), ("set", LAYER_1.1)],
        ),
        case(
            "overwritten",
            format!(
                r#"{VECTOR}{{"op":"get","name":"a","hook":"layers.1.output"}},{{"op":"mul","name":"first","input":"a","other":"vector"}},
                {{"op":"set","hook":"layers.1.output","value":"first"}},{{"op":"get","name":"again","hook":"layers.1.output"}},
                {{"op":"tanh","name":"bent","input":"again"}},{{"op":"detach","name":"constant","input":"again"}},
                {{"op":"add","name":"second","input":"bent","other":"constant"}},
                {{"op":"set","hook":"layers.1.output","value":"second"}},{own}{TOTAL}"#
            ),
            vec![EARLY, ("first", r#""of":"first""#), ("second", r#""of":"second""#)],
        ),
        case(
            "inside_attention",
            format!(
                r#"{{"op":"get","name":"pattern","hook":"layers.1.attention.pattern"}},{{"op":"mul","name":"less","input":"pattern","other":0.5}},
                {{"op":"add","name":"more","input":"less","other":0.1}},
                {{"op":"index_put","name":"flat","input":"more","index":[":",0],"values":0.0}},
                {{"op":"set","hook":"layers.1.attention.pattern","value":"flat"}},{own}{TOTAL}"#
            ),
            vec![EARLY, ("pattern", r#""of":"pattern""#), ("flat", r#""hook":"layers.1.attention.pattern""#)],
        ),
        Case {
            second: true,
            ..case(
                "patched",
                format!(
                    r#"{{"op":"get","name":"source","invoke":"q","hook":"layers.1.output"}},
                    {{"op":"getitem","name":"row","input":"source","index":[":",3]}},{{"op":"mul","name":"twice","input":"row","other":2.0}},
                    {{"op":"get","name":"own","invoke":"p","hook":"layers.1.output"}},
                    {{"op":"index_put","name":"put","input":"own","index":[":",3],"values":"twice"}},
                    {{"op":"set","invoke":"p","hook":"layers.1.output","value":"put"}},{own}{TOTAL}"#
                ),
                vec![
                    EARLY,
                    ("other", r#""invoke":"q","hook":"embed.output""#),
                    ("source", r#""of":"source""#),
                    ("patched", LAYER_1.1),
                ],
            )
        },
        Case {
            behind: r#"{"op":"grad","name":"read","backward":"b","hook":"layers.1.output"},{"op":"save","name":"s_layer_1","value":"read"},
                {"op":"tanh","name":"bent","input":"read"},{"op":"mul","name":"written","input":"bent","other":2.0},
                {"op":"set_grad","backward":"b","hook":"layers.1.output","value":"written"}"#,
            ..case(
                "written_gradient",
                format!("{HALF_OF_A_WEIGHT}{own}{TOTAL}"),
                vec![EARLY, LAYER_0, ("weight", r#""of":"weight""#)],
            )
        },
    ]
}

fn all_of_it() -> Case {
    let (own, lens) = (loss("p", "loss"), lens("late"));
    case(
        "all_of_it",
        format!(
            r#"{VECTOR}{HALF_OF_A_WEIGHT}{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"norm","name":"size","input":"h"}},
            {{"op":"gt","name":"large","input":"size","other":0.1}},
            {{"op":"cond","name":"c","condition":"large","then":{{"body":[{{"op":"add","name":"moved","input":"h","other":"vector"}},
              {{"op":"set","hook":"layers.0.output","value":"moved"}}]}}}},
            {{"op":"mul","name":"given","input":"h","other":"vector"}},{{"op":"skip","module":"layers.1.mlp","value":"given"}},
            {{"op":"get","name":"late","hook":"layers.1.output"}},
            {{"op":"get","name":"o","hook":"layers.2.output"}},{{"op":"tanh","name":"o_","input":"o"}},
            {{"op":"set","hook":"layers.2.output","value":"o_"}},{own}{lens}
            {{"op":"add","name":"total","input":"loss","other":"lens"}}"#
        ),
        vec![
            EARLY,
            LAYER_1,
            ("layer_0", r#""of":"h""#),
            ("vector", r#""of":"vector""#),
            ("weight", r#""of":"weight""#),
            ("given", r#""of":"given""#),
            ("set", r#""hook":"layers.2.output""#),
        ],
    )
}

fn cases() -> Vec<Case> {
    let mut cases = weights();
    cases.extend(skips());
    cases.extend([condition("condition_holds", 0.1), condition("condition_fails", 1e6)]);
    cases.extend(setters());
    cases.push(all_of_it());
    cases
}

#[test]
fn gradients_through_edits_are_pytorch_s() {
    let mut failures = String::new();
    for (model, down, value) in
        [("gpt2", "mlp.c_proj", "attention.c_attn"), ("llama3", "mlp.down_proj", "attention.v_proj")]
    {
        let engine = Golden::open(model).engine();
        let folder = support::folder().join("../edits");
        let golden: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join(format!("{model}.json"))).unwrap()).unwrap();
        let bytes = std::fs::read(folder.join(format!("{model}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let expected = |name: String| {
            let view = file.tensor(&name).unwrap();
            let floats = view.data().as_chunks::<4>().0.iter();
            let values = floats.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
            Expected { shape: view.shape().to_vec(), values }
        };
        let prompt =
            |key: &str| -> Vec<Vec<u32>> { vec![serde_json::from_value(golden[key].clone()).unwrap()] };
        let (first, second) = (prompt("tokens"), prompt("other"));
        let mut tally = Tally::new(model);
        let mut named = BTreeSet::new();
        for case in cases() {
            let name = case.name;
            named.insert(name.to_owned());
            let read = |(key, of): &(&str, &str)| {
                format!(
                    r#"{{"op":"grad","name":"g_{key}","backward":"b",{of}}},{{"op":"save","name":"s_{key}","value":"g_{key}"}}"#
                )
            };
            let back =
                r#"{"op":"save","name":"s_loss","value":"total"},{"op":"backward","name":"b","of":"total"}"#;
            let mut parts = vec![case.nodes.clone(), back.to_owned()];
            parts.extend((!case.behind.is_empty()).then(|| case.behind.to_owned()));
            parts.extend(case.gradients.iter().map(read));
            let nodes = parts.join(",").replace("DOWN", down).replace("VALUE", value);
            let mut invokes = vec![("p", first.as_slice())];
            if case.second {
                invokes.push(("q", second.as_slice()));
            }
            let given = |key: &str| (key.to_owned(), file.tensor(&format!("given.{key}")).unwrap());
            let used = ["matrix", "rows", "vector"].into_iter();
            let constants = used.filter(|key| nodes.contains(&format!(r#""key":"{key}""#))).map(given);
            let checked = engine
                .check(program_with(&invokes, &nodes, constants.collect()))
                .unwrap_or_else(|faults| panic!("{model}, {name}: {faults}\n{nodes}"));
            let planned = engine
                .run(&checked, &RunOptions::default())
                .unwrap_or_else(|error| panic!("{model}, {name}: {error}\n{nodes}"));
            let naive = engine.run_naive(&checked).unwrap();
            let of: BTreeSet<String> =
                serde_json::from_value(golden["cases"][name]["gradients_of"].clone()).unwrap();
            let saved = planned.tensors.keys().map(|key| key.trim_start_matches("s_").to_owned());
            let gradients = saved.filter(|key| key != "loss").collect::<BTreeSet<_>>();
            assert_eq!(gradients, of, "{model}, {name}");
            for (key, tensor) in &planned.tensors {
                let of = key.trim_start_matches("s_");
                let what = format!("gradient through {name}: {of}");
                tally.same_bits(&what, tensor, &naive.tensors[key]);
                let golden = expected(format!("{name}.{of}"));
                match golden.shape.is_empty() {
                    true => tally.absolute(&what, tensor, &golden, NUMBERS),
                    false => tally.relative(&what, tensor, &golden, GRADIENTS),
                }
            }
        }
        let all: BTreeSet<String> = golden["cases"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(named, all, "every golden case is a program here");
        failures.push_str(&tally.failures());
    }
    assert!(failures.is_empty(), "{failures}");
}
