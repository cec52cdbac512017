//! Weights that programs read and set.

use std::sync::Arc;

use pellucid_engine::{Engine, EngineError, RunOptions};
use pellucid_models::{Model, ModelOptions, Precision};

use super::support::{folder, model_names};
use super::{check, engine, numbers, refusal, run, tensor, trace};

const ONE: &str = r#"{"name":"p","tokens":[[3,1,4,1,5]]}"#;
const LOGITS: &str = r#"{"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#;

#[test]
fn every_parameter_reads_as_the_checkpoint_has_it() {
    for name in model_names() {
        let engine = engine(&name);
        let parameters = engine.model().spec().parameters.clone();
        let nodes: Vec<String> = parameters
            .iter()
            .enumerate()
            .map(|(number, parameter)| {
                format!(
                    r#"{{"op":"weight","name":"w{number}","parameter":"{}"}},{{"op":"save","name":"s{number}","value":"w{number}"}}"#,
                    parameter.name
                )
            })
            .collect();
        let results = run(&engine, &trace(ONE, "", &nodes.join(",")));
        for (number, parameter) in parameters.iter().enumerate() {
            let own = engine.model().parameter(&parameter.name).unwrap();
            let read = tensor(&results, &format!("s{number}"));
            assert_eq!(read.shape(), own.shape(), "{name}: {}", parameter.name);
            assert_eq!(read.to_vec_f32().unwrap(), own.to_f32(), "{name}: {}", parameter.name);
        }
    }
}

#[test]
fn a_part_of_a_parameter_is_what_its_index_takes_of_the_whole() {
    let engine = engine("gpt2");
    for index in
        ["[2]", "[-1,\"3:7\"]", "[\"1:5:2\",\":\"]", "[\":\",-2]", "[{\"tensor\":\"t\"}]", "[\"-3:\",null]"]
    {
        let nodes = format!(
            r#"{{"op":"literal","name":"t","dtype":"i64","shape":[2],"elements":[4,1]}},
            {{"op":"weight","name":"part","parameter":"transformer.wte.weight","index":{index}}},
            {{"op":"save","name":"one","value":"part"}},
            {{"op":"weight","name":"whole","parameter":"embed.weight"}},
            {{"op":"getitem","name":"taken","input":"whole","index":{index}}},
            {{"op":"save","name":"other","value":"taken"}}"#
        );
        let results = run(&engine, &trace(ONE, "", &nodes));
        assert!(tensor(&results, "one").is_same_bits(tensor(&results, "other")), "{index}");
    }
    let out = r#"{"op":"weight","name":"w","parameter":"embed.weight","index":[99999]},{"op":"save","name":"s","value":"w"}"#;
    assert!(refusal(&engine, &trace(ONE, "", out)).contains("99999"));
}

/// Each weight of a model set to itself leaves all as it was; to twice itself, it moves the logits of its invoke alone.
#[test]
fn a_set_weight_counts_for_its_own_invoke_alone() {
    for name in model_names() {
        let engine = engine(&name);
        let plain = run(&engine, &trace(ONE, "", LOGITS));
        for parameter in &engine.model().spec().parameters {
            let weight = &parameter.name;
            let two = format!(
                r#"{ONE},{{"name":"q","tokens":[[3,1,4,1,5]]}},{{"name":"r","tokens":[[3,1,4,1,5]]}}"#
            );
            let nodes = format!(
                r#"{{"op":"weight","name":"w","parameter":"{weight}"}},
                {{"op":"mul","name":"twice","input":"w","other":2.0}},
                {{"op":"add","name":"more","input":"twice","other":0.1}},
                {{"op":"set_weight","invoke":"q","parameter":"{weight}","value":"w"}},
                {{"op":"set_weight","invoke":"r","parameter":"{weight}","value":"more"}},
                {{"op":"get","name":"lp","invoke":"p","hook":"logits"}},{{"op":"save","name":"plain","value":"lp"}},
                {{"op":"get","name":"lq","invoke":"q","hook":"logits"}},{{"op":"save","name":"same","value":"lq"}},
                {{"op":"get","name":"lr","invoke":"r","hook":"logits"}},{{"op":"save","name":"moved","value":"lr"}}"#
            );
            let results = run(&engine, &trace(&two, "", &nodes));
            let logits = tensor(&plain, "logits");
            assert!(tensor(&results, "plain").is_same_bits(logits), "{name}: {weight}");
            assert!(tensor(&results, "same").is_same_bits(logits), "{name}: {weight}");
            assert!(!tensor(&results, "moved").is_same_bits(logits), "{name}: {weight} moves nothing");
        }
        assert!(
            tensor(&run(&engine, &trace(ONE, "", LOGITS)), "logits").is_same_bits(tensor(&plain, "logits"))
        );
    }
}

#[test]
fn a_set_embedding_is_a_tied_unembedding_too() {
    let engine = engine("gpt2");
    let plain = numbers(&run(&engine, &trace(ONE, "", LOGITS)), "logits");
    // With the unembedding 0 all logits are; with the embedding restored by hand the stream is as it was.
    let nodes = format!(
        r#"{{"op":"weight","name":"w","parameter":"lm_head.weight"}},{{"op":"mul","name":"none","input":"w","other":0.0}},
        {{"op":"set_weight","parameter":"lm_head.weight","value":"none"}},
        {{"op":"get","name":"e","hook":"embed.output"}},{{"op":"save","name":"embedded","value":"e"}},{LOGITS}"#
    );
    let results = run(&engine, &trace(ONE, "", &nodes));
    assert!(plain.iter().any(|&logit| logit != 0.0));
    assert!(numbers(&results, "logits").iter().all(|&logit| logit == 0.0));
    assert!(numbers(&results, "embedded").iter().all(|&value| value == 0.0), "the tie is broken");
}

#[test]
fn the_last_weight_set_counts_and_a_generation_keeps_it() {
    let engine = engine("llama3");
    let generate = r#""generate":{"max_new_tokens":5,"stop_tokens":[]},"#;
    let made = r#"{"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#;
    let weight = "layers.1.mlp.down_proj.weight";
    let set = |factor: &str| {
        format!(
            r#"{{"op":"mul","name":"m{0}","input":"w","other":{1}}},{{"op":"set_weight","parameter":"model.{weight}","value":"m{0}"}}"#,
            factor.replace(['.', '-'], "_"),
            factor
        )
    };
    let read = format!(r#"{{"op":"weight","name":"w","parameter":"model.{weight}"}}"#);
    let twice = run(&engine, &trace(ONE, generate, &format!("{read},{},{made}", set("-3.0"))));
    let last = run(&engine, &trace(ONE, generate, &format!("{read},{},{},{made}", set("5.0"), set("-3.0"))));
    assert!(tensor(&twice, "made").is_same_bits(tensor(&last, "made")));
}

#[test]
fn a_weight_may_come_from_another_invoke_but_not_from_its_own() {
    let engine = engine("gpt2");
    let two = format!(r#"{ONE},{{"name":"q","tokens":[[2,7,1]]}}"#);
    let nodes = |from: &str| {
        format!(
            r#"{{"op":"get","name":"h","invoke":"{from}","hook":"layers.0.output"}},
            {{"op":"mean","name":"bias","input":"h","dim":[0,1]}},
            {{"op":"set_weight","invoke":"p","parameter":"final_norm.bias","value":"bias"}},
            {{"op":"get","name":"l","invoke":"p","hook":"logits"}},{{"op":"save","name":"logits","value":"l"}}"#
        )
    };
    run(&engine, &trace(&two, "", &nodes("q")));
    let message = refusal(&engine, &trace(&two, "", &nodes("p")));
    assert!(message.contains("`final_norm.bias` of invoke `p` is set from `layers.0.output`"), "{message}");
    let wrong = nodes("q").replace("\"dim\":[0,1]", "\"dim\":[0]");
    assert!(
        refusal(&engine, &trace(&two, "", &wrong)).contains("the parameter is"),
        "a wrong shape is taken"
    );
    let unknown = nodes("q").replace("final_norm.bias", "transformer.ln_f.bais");
    assert!(refusal(&engine, &trace(&two, "", &unknown)).contains("did you mean `transformer.ln_f.bias`?"));
}

#[test]
fn set_weights_are_held_within_the_memory_given_and_freed_after_their_last_invoke() {
    let engine = engine("gpt2");
    let weight = "transformer.h.0.mlp.c_fc.weight";
    let bytes = 4 * engine.model().parameter(weight).unwrap().shape().iter().product::<usize>() as u64;
    let one = |number: usize| {
        trace(
            ONE,
            "",
            &format!(
                r#"{{"op":"weight","name":"w{number}","parameter":"{weight}"}},
            {{"op":"mul","name":"m{number}","input":"w{number}","other":0.5}},
            {{"op":"set_weight","parameter":"{weight}","value":"m{number}"}},
            {{"op":"get","name":"l{number}","hook":"layers.0.mlp.output"}},{{"op":"save","name":"s{number}","value":"l{number}"}}"#
            ),
        )
    };
    let several: Vec<String> = (0..6).map(one).collect();
    let run_with = |body: &str, memory: u64| {
        let options = RunOptions { memory_bytes: Some(memory), ..RunOptions::default() };
        engine.run(&check(&engine, body), &options)
    };
    let alone = run_with(&one(0), 1 << 30).unwrap().report.peak_value_bytes;
    let after_one_another = run_with(&several.join(","), 1 << 30).unwrap().report.peak_value_bytes;
    assert!(after_one_another < alone + 2 * bytes, "{after_one_another} against {alone}");
    assert!(matches!(run_with(&one(0), 3 * bytes), Err(EngineError::MemoryExceeded { .. })));
}

#[test]
fn weights_that_are_set_are_held_as_the_models_own() {
    let path = folder().join("llama3");
    let options = ModelOptions { precision: Precision::Bf16, ..ModelOptions::default() };
    let engine = Engine::new(Arc::new(Model::open(path.to_str().unwrap(), &options).unwrap()));
    let plain = run(&engine, &trace(ONE, "", LOGITS));
    let nodes = format!(
        r#"{{"op":"weight","name":"w","parameter":"layers.0.mlp.up_proj.weight"}},
        {{"op":"set_weight","parameter":"layers.0.mlp.up_proj.weight","value":"w"}},{LOGITS}"#
    );
    assert!(tensor(&run(&engine, &trace(ONE, "", &nodes)), "logits").is_same_bits(tensor(&plain, "logits")));
}

#[test]
fn a_weight_of_which_nothing_is_read_is_refused() {
    let set = |parameter: &str, read: &str| {
        let nodes = format!(
            r#"{{"op":"weight","name":"w","parameter":"{parameter}"}},{{"op":"mul","name":"half","input":"w","other":0.5}},
            {{"op":"get","name":"before","hook":"{read}"}},{{"op":"save","name":"early","value":"before"}},
            {{"op":"set_weight","parameter":"{parameter}","value":"half"}},
            {{"op":"get","name":"h","hook":"{read}"}},{{"op":"save","name":"out","value":"h"}}"#
        );
        trace(ONE, "", &nodes)
    };
    let gpt2 = engine("gpt2");
    let parameter = "layers.1.mlp.c_proj.weight";
    for read in ["layers.0.output", "layers.1.mlp.c_proj.input", "embed.output"] {
        let message = refusal(&gpt2, &set(parameter, read));
        assert!(
            message.contains("nothing that is saved comes after `layers.1.mlp.c_proj.weight`"),
            "{read}: {message}"
        );
    }
    // From its module's output on it shows, wherever in the program the getter stands.
    for read in ["layers.1.mlp.c_proj.output", "layers.1.output", "logits"] {
        let results = run(&gpt2, &set(parameter, read));
        assert!(tensor(&results, "early").is_same_bits(tensor(&results, "out")), "{read}");
        let plain = run(
            &gpt2,
            &trace(
                ONE,
                "",
                &format!(
                    r#"{{"op":"get","name":"h","hook":"{read}"}},{{"op":"save","name":"out","value":"h"}}"#
                ),
            ),
        );
        assert!(!tensor(&results, "out").is_same_bits(tensor(&plain, "out")), "{read}");
    }
    // A tied unembedding is the embedding, which comes first.
    run(&gpt2, &set("unembed.weight", "layers.0.output"));
}
