//! Models whose weights stay in the blocks of their GGUF file: every result is that of unpacked weights, to the bit.

use std::path::Path;
use std::sync::Arc;

use pellucid_engine::Engine;
use pellucid_models::{Model, ModelOptions, Precision};

use super::{assert_same, run, trace};

const FILES: [&str; 4] = ["quantised-llama", "quantised-gpt2", "quantised-gptneox", "quantised-k"];
/// One token alone, a few, and as many as fill more than a tile.
const INVOKES: &str = r#"{"name":"p","tokens":[[3,1,4,1,5]]},{"name":"q","tokens":[[2]]},
    {"name":"r","tokens":[[7,3,9,2,6,5,3,5,8,9,7,9,3,2,3,8,4,6,2,6],[1,4,1,4,2,1,3]]}"#;

fn both(name: &str) -> [Engine; 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../golden/gguf/{name}.gguf"));
    [Precision::F32, Precision::Quantised].map(|precision| {
        let options = ModelOptions { precision, ..ModelOptions::default() };
        Engine::new(Arc::new(Model::open(path.to_str().unwrap(), &options).unwrap()))
    })
}

/// Runs a program on both, each planned and naive; all must agree.
fn same(name: &str, body: &str) {
    let [plain, quantised] = both(name).map(|engine| run(&engine, body));
    assert!(!plain.tensors.is_empty());
    assert_same(&quantised, &plain, name);
    assert_eq!(
        (plain.provenance.weights.as_str(), quantised.provenance.weights.as_str()),
        ("f32", "quantised")
    );
}

#[test]
fn logits_and_what_is_read_inside_are_the_same() {
    for name in FILES {
        let nodes: Vec<String> = ["p", "q", "r"]
            .map(|invoke| {
                format!(
                    r#"{{"op":"get","name":"l{invoke}","invoke":"{invoke}","hook":"logits"}},{{"op":"save","name":"logits_{invoke}","value":"l{invoke}"}},
                    {{"op":"get","name":"a{invoke}","invoke":"{invoke}","hook":"layers.0.attention.pattern"}},{{"op":"save","name":"pattern_{invoke}","value":"a{invoke}"}},
                    {{"op":"get","name":"m{invoke}","invoke":"{invoke}","hook":"layers.0.mlp.post"}},{{"op":"save","name":"post_{invoke}","value":"m{invoke}"}}"#
                )
            })
            .into();
        same(name, &trace(INVOKES, "", &nodes.join(",")));
    }
}

#[test]
fn gradients_are_the_same() {
    for name in FILES {
        let nodes = r#"{"op":"get","name":"h","hook":"layers.0.input"},
            {"op":"get","name":"l","hook":"logits"},{"op":"sum","name":"loss","input":"l"},
            {"op":"backward","name":"b","of":"loss"},
            {"op":"grad","name":"g","backward":"b","of":"h"},{"op":"save","name":"at_the_start","value":"g"},
            {"op":"grad","name":"k","backward":"b","hook":"layers.0.mlp.post"},{"op":"save","name":"at_the_mlp","value":"k"}"#;
        same(name, &trace(r#"{"name":"p","tokens":[[3,1,4,1,5],[9,2,6,5,3]]}"#, "", nodes));
    }
}

#[test]
fn generations_are_the_same() {
    for name in FILES {
        let generate = r#""generate":{"max_new_tokens":9,"stop_tokens":[]},"#;
        let nodes = r#"{"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#;
        same(name, &trace(r#"{"name":"p","tokens":[[3,1,4],[1,5,9,2]]}"#, generate, nodes));
    }
}

#[test]
fn a_weight_is_read_and_set_to_itself_without_a_trace() {
    for name in FILES {
        let [_, quantised] = both(name);
        let logits = r#"{"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#;
        let one = r#"{"name":"p","tokens":[[3,1,4,1,5]]}"#;
        let plain = run(&quantised, &trace(one, "", logits));
        for parameter in &quantised.model().spec().parameters {
            let parameter = &parameter.name;
            let nodes = format!(
                r#"{{"op":"weight","name":"w","parameter":"{parameter}"}},{{"op":"set_weight","parameter":"{parameter}","value":"w"}},{logits}"#
            );
            assert_same(&run(&quantised, &trace(one, "", &nodes)), &plain, &format!("{name}: {parameter}"));
        }
    }
}
