//! Generation: every step reads and writes what is its own, stops are kept to, and what they cut off is absent.

use super::*;

#[test]
fn a_body_of_steps_runs_at_the_steps_that_it_names_and_no_other() {
    let engine = engine("gpt2");
    for (range, expected) in [
        (r#""from":1,"to":3"#, vec![1, 2]),
        (r#""from":0,"to":5,"every":2"#, vec![0, 2, 4]),
        (r#""from":3"#, vec![3, 4]),
    ] {
        let results = generate(
            &engine,
            &[("p", &[vec![1, 2, 3]])],
            r#""max_new_tokens":5,"stop_tokens":[]"#,
            &format!(
                r#"{{"op":"steps","name":"some",{range},"body":[{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"save","name":"s","value":"h"}}]}},
                {{"op":"generated","name":"t"}},{{"op":"save","name":"made","value":"t"}}"#
            ),
        );
        let mut names: Vec<&str> =
            results.tensors.keys().map(String::as_str).filter(|name| name.starts_with("s/")).collect();
        names.sort_unstable();
        let expected: Vec<String> = expected.iter().map(|step| format!("s/{step}")).collect();
        assert_eq!(names, expected, "{range}");
        assert!(results.absent.is_empty(), "{:?}", results.absent);
    }
}

#[test]
fn each_step_reads_what_a_longer_prompt_would() {
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let prompts = [golden.prompt(1), golden.prompt(2)];
        let read = ["layers.1.attention.key", "layers.1.output", "logits"];
        let reads: Vec<String> = read
            .iter()
            .enumerate()
            .map(|(place, hook)| {
                format!(
                    r#"{{"op":"get","name":"g{place}","hook":"{hook}"}},{{"op":"getitem","name":"i{place}","input":"g{place}","index":[":",-1]}},
                    {{"op":"save","name":"s{place}","value":"i{place}"}}"#
                )
            })
            .collect();
        let generated = generate(
            &engine,
            &[("p", &prompts)],
            r#""max_new_tokens":5,"stop_tokens":[]"#,
            &format!(
                r#"{{"op":"steps","name":"all","body":[{}]}},{{"op":"generated","name":"t"}},{{"op":"save","name":"made","value":"t"}}"#,
                reads.join(",")
            ),
        );
        let made = generated.tensors["made"].to_vec_i64().unwrap();
        for step in 0..5 {
            for (number, prompt) in prompts.iter().enumerate() {
                let mut longer = prompt.clone();
                longer.extend(made[number * 5..number * 5 + step].iter().map(|&token| token as u32));
                let whole = run(&engine, &[("p", &[longer])], &reads.join(","));
                for (place, hook) in read.iter().enumerate() {
                    let alone = numbers(&whole, &format!("s{place}"));
                    let own = numbers(&generated, &format!("s{place}/{step}"));
                    let own = &own[number * alone.len()..(number + 1) * alone.len()];
                    assert_eq!(bits(own), bits(&alone), "{name}: {hook} of prompt {number} at step {step}");
                }
            }
        }
    }
}

#[test]
fn the_cache_holds_keys_and_values_after_their_setters() {
    for name in model_names() {
        let golden = Golden::open(&name);
        let engine = golden.engine();
        let prompt = golden.prompt(1);
        for point in ["key", "value"] {
            let hook = format!("layers.1.attention.{point}");
            let edit = |get: &str, set: &str| {
                format!(
                    r#"{{"op":"get","name":"k","hook":"{hook}"{get}}},{{"op":"index_put","name":"e","input":"k","index":[":",2],"values":1.5}},
                    {{"op":"set","hook":"{hook}"{set},"value":"e"}}"#
                )
            };
            let generated = generate(
                &engine,
                &[("p", std::slice::from_ref(&prompt))],
                r#""max_new_tokens":3,"stop_tokens":[]"#,
                &format!(
                    r#"{},{{"op":"get","name":"l","hook":"logits","step":2}},{{"op":"save","name":"logits","value":"l"}},
                    {{"op":"generated","name":"t"}},{{"op":"save","name":"made","value":"t"}}"#,
                    edit(r#","step":0"#, r#","step":0"#)
                ),
            );
            // The same edit of the same position, all tokens at once.
            let mut longer = prompt.clone();
            longer.extend(
                generated.tensors["made"].to_vec_i64().unwrap()[..2].iter().map(|&token| token as u32),
            );
            let nodes = format!(
                r#"{},{{"op":"get","name":"l","hook":"logits"}},{{"op":"getitem","name":"i","input":"l","index":[":","-1:"]}},
                {{"op":"save","name":"logits","value":"i"}}"#,
                edit("", "")
            );
            let whole = run(&engine, &[("p", &[longer.clone()])], &nodes);
            assert!(generated.tensors["logits"].is_same_bits(&whole.tensors["logits"]), "{name}: {point}");
            let clean = numbers(&run(&engine, &[("p", &[longer])], LOGITS), "logits");
            let edited = numbers(&generated, "logits");
            let last = &clean[clean.len() - edited.len()..];
            assert!(
                last.iter().zip(&edited).any(|(a, b)| (a - b).abs() > 1e-4),
                "{name}: the edit does nothing"
            );
        }
    }
}

#[test]
fn at_every_step_a_getter_after_a_setter_reads_what_was_set() {
    let engine = engine("qwen3");
    let golden = Golden::open("qwen3");
    let prompts = [golden.prompt(0), golden.prompt(2)];
    let results = generate(
        &engine,
        &[("p", &prompts)],
        r#""max_new_tokens":4,"stop_tokens":[]"#,
        r#"{"op":"steps","name":"all","body":[
            {"op":"get","name":"a","hook":"layers.1.mlp.post"},{"op":"save","name":"before","value":"a"},
            {"op":"mul","name":"b","input":"a","other":2.0},{"op":"set","hook":"layers.1.mlp.post","value":"b"},
            {"op":"get","name":"c","hook":"layers.1.mlp.post"},{"op":"save","name":"after","value":"c"}]},
           {"op":"generated","name":"t"},{"op":"save","name":"made","value":"t"}"#,
    );
    for step in 0..4 {
        let doubled: Vec<f32> =
            numbers(&results, &format!("before/{step}")).iter().map(|value| value * 2.0).collect();
        assert_eq!(bits(&numbers(&results, &format!("after/{step}"))), bits(&doubled), "step {step}");
        assert!(doubled.iter().any(|value| *value != 0.0));
    }
}

/// The token that a prompt makes first, greedily.
fn first_token(engine: &Engine, prompt: &[u32]) -> u32 {
    let results = generate(
        engine,
        &[("p", &[prompt.to_vec()])],
        r#""max_new_tokens":1,"stop_tokens":[]"#,
        r#"{"op":"generated","name":"t"},{"op":"save","name":"made","value":"t"}"#,
    );
    results.tensors["made"].to_vec_i64().unwrap()[0] as u32
}

/// A prompt, another that begins with a different token, and the first one's token, with which it stops.
fn one_that_stops(golden: &Golden, engine: &Engine) -> (Vec<u32>, Vec<u32>, u32) {
    let prompt = golden.prompt(0);
    let stop = first_token(engine, &prompt);
    let mut others = (1..4).map(|number| golden.prompt(number));
    let other = others.find(|other| first_token(engine, other) != stop).unwrap();
    (prompt, other, stop)
}

#[test]
fn a_step_lost_to_stopping_is_absent_and_so_is_what_is_made_of_it() {
    let golden = Golden::open("gpt2");
    let engine = golden.engine();
    let (prompt, other, stop) = one_that_stops(&golden, &engine);
    let options = format!(r#""max_new_tokens":3,"stop_tokens":[{stop}]"#);
    let nodes = r#"{"op":"get","name":"late","invoke":"p","hook":"layers.1.output","step":2},
        {"op":"mean","name":"mean","input":"late"},{"op":"save","name":"lost","value":"mean"},
        {"op":"get","name":"h","invoke":"q","hook":"layers.2.output","step":1},
        {"op":"add","name":"sum","input":"h","other":"mean"},
        {"op":"set","invoke":"q","hook":"layers.2.output","step":1,"value":"sum"},
        {"op":"steps","name":"all","body":[{"op":"get","name":"x","invoke":"p","hook":"layers.0.output"},
            {"op":"save","name":"each","value":"x"}]},
        {"op":"generated","name":"g","invoke":"p"},{"op":"save","name":"made","value":"g"},
        {"op":"get","name":"l","invoke":"q","hook":"logits","step":1},{"op":"save","name":"logits","value":"l"}"#;
    let checked =
        check(&engine, generation(&[("p", &[prompt]), ("q", std::slice::from_ref(&other))], &options, nodes));
    let results = engine.run(&checked, &RunOptions::default()).unwrap();
    let mut absent = results.absent.clone();
    absent.sort();
    assert_eq!(absent, ["each/1", "each/2", "lost"]);
    assert_eq!(results.tensors["made"].to_vec_i64().unwrap(), [i64::from(stop), -1, -1]);
    // A setter of what never comes sets nothing, and its invoke goes on.
    let plain = generate(
        &engine,
        &[("q", &[other])],
        &options,
        r#"{"op":"get","name":"l","hook":"logits","step":1},{"op":"save","name":"logits","value":"l"}"#,
    );
    assert!(results.tensors["logits"].is_same_bits(&plain.tensors["logits"]));
    let naive = engine.run_naive(&checked).unwrap();
    assert!(naive.tensors["logits"].is_same_bits(&plain.tensors["logits"]));
}

#[test]
fn a_module_is_computed_after_all_where_what_it_is_skipped_for_never_comes() {
    let golden = Golden::open("gpt2");
    let engine = golden.engine();
    let (prompt, other, stop) = one_that_stops(&golden, &engine);
    let options = format!(r#""max_new_tokens":3,"stop_tokens":[{stop}]"#);
    let logits = r#"{"op":"get","name":"l","invoke":"q","hook":"logits","step":0},{"op":"save","name":"logits","value":"l"}"#;
    let skip = r#"{"op":"get","name":"early","invoke":"q","hook":"layers.2.input"},
        {"op":"mean","name":"size","input":"early"},{"op":"mul","name":"nothing","input":"size","other":0.0},
        {"op":"get","name":"own","invoke":"p","hook":"layers.1.output"},{"op":"add","name":"same","input":"own","other":"nothing"},
        {"op":"set","invoke":"p","hook":"layers.1.output","value":"same"},
        {"op":"get","name":"late","invoke":"p","hook":"layers.1.output","step":2},
        {"op":"mean","name":"mean","input":"late"},
        {"op":"skip","name":"s","invoke":"q","module":"layers.2.mlp","value":"mean"},"#;
    // `p` waits for `q`, which is alone where the module begins; that `p` then stops, and the value never comes, shows later.
    let invokes: &[(&str, &[Vec<u32>])] = &[("p", &[prompt]), ("q", &[other])];
    let skipping = check(&engine, generation(invokes, &options, &[skip, logits].concat()));
    let skipped = engine.run(&skipping, &RunOptions::default()).unwrap();
    let plain = generate(&engine, invokes, &options, logits);
    assert!(skipped.tensors["logits"].is_same_bits(&plain.tensors["logits"]));
    assert!(engine.run_naive(&skipping).unwrap().tensors["logits"].is_same_bits(&plain.tensors["logits"]));
}

#[test]
fn a_prompt_that_has_stopped_is_frozen_and_reads_0() {
    let golden = Golden::open("llama2");
    let engine = golden.engine();
    let prompts: Vec<Vec<u32>> = (0..4).map(|number| golden.prompt(number)).collect();
    let firsts: Vec<u32> = prompts.iter().map(|prompt| first_token(&engine, prompt)).collect();
    let going_on = (0..4).find(|&number| firsts[number] != firsts[0]).unwrap();
    let nodes = r#"{"op":"get","name":"h","hook":"layers.1.output","step":1},{"op":"save","name":"h1","value":"h"},
        {"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#;
    let options = format!(r#""max_new_tokens":2,"stop_tokens":[{}]"#, firsts[0]);
    let both = generate(&engine, &[("p", &[prompts[0].clone(), prompts[going_on].clone()])], &options, nodes);
    let alone = generate(&engine, &[("p", &[prompts[going_on].clone()])], &options, nodes);
    let made = both.tensors["made"].to_vec_i64().unwrap();
    assert_eq!(made[..2], [i64::from(firsts[0]), -1]);
    let (both, alone) = (numbers(&both, "h1"), numbers(&alone, "h1"));
    assert!(both[..alone.len()].iter().all(|value| *value == 0.0));
    assert_eq!(bits(&both[alone.len()..]), bits(&alone));
}

#[test]
fn sampled_tokens_do_not_depend_on_who_else_is_there() {
    let golden = Golden::open("mistral");
    let engine = golden.engine();
    let nodes = r#"{"op":"generated","name":"g","invoke":"p"},{"op":"save","name":"made","value":"g"},
        {"op":"steps","name":"all","body":[{"op":"randn","name":"noise","size":[3]},{"op":"save","name":"n","value":"noise"}]}"#;
    let options = r#""max_new_tokens":6,"temperature":3.0,"stop_tokens":[]"#;
    let own = check(&engine, generation(&[("p", &[golden.prompt(0), golden.prompt(2)])], options, nodes));
    let mut seeded = own.clone();
    seeded.program.seed = 99;
    let defaults = RunOptions::default();
    let alone = engine.run(&own, &defaults).unwrap();
    let together = engine.run_together(&[(&seeded, &defaults), (&own, &defaults), (&own, &defaults)]);
    for outcome in &together[1..] {
        let outcome = outcome.as_ref().unwrap();
        assert!(alone.tensors["made"].is_same_bits(&outcome.tensors["made"]));
        assert!(alone.tensors["n/2"].is_same_bits(&outcome.tensors["n/2"]));
    }
    let other = together[0].as_ref().unwrap();
    assert!(!alone.tensors["made"].is_same_bits(&other.tensors["made"]), "the seed decides");
    assert!(!alone.tensors["n/2"].is_same_bits(&alone.tensors["n/3"]), "noise differs from step to step");
}

/// A copy of a golden model with a tokenizer of so many tokens, fewer than its embedding has rows.
fn with_tokenizer(name: &str, tokens: usize) -> Engine {
    let folder = std::env::temp_dir().join(format!("pellucid-padded-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(support::folder().join(name).join(file), folder.join(file)).unwrap();
    }
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..tokens).map(|token| (format!("t{token}"), token.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "t0" }
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let model = pellucid_models::Model::open(folder.to_str().unwrap(), &Default::default()).unwrap();
    std::fs::remove_dir_all(&folder).ok();
    Engine::new(Arc::new(model))
}

#[test]
fn padded_vocabulary_rows_never_win() {
    for name in ["gpt2", "qwen2"] {
        let (bare, padded) = (engine(name), with_tokenizer(name, 11));
        let rows = bare.model().spec().sizes.vocabulary;
        assert!(rows > 12 && padded.model().spec().sizes.vocabulary == rows);
        for sampling in
            ["", r#","temperature":1.0"#, r#","temperature":1.0,"top_k":3,"repetition_penalty":1.3"#]
        {
            let options = format!(r#""max_new_tokens":3,"stop_tokens":[]{sampling}"#);
            // The last row, which stands for no token, is made by far the most probable.
            let nodes = r#"{"op":"steps","body":[{"op":"get","name":"l","hook":"logits"},
                {"op":"index_put","name":"high","input":"l","index":["...",-1],"values":1000.0},
                {"op":"set","hook":"logits","value":"high"}]},
                {"op":"generated","name":"t"},{"op":"save","name":"made","value":"t"}"#;
            let prompts: &[(&str, &[Vec<u32>])] = &[("p", &[vec![1, 2, 3], vec![4, 5]])];
            let program = generation(prompts, &options, nodes);
            let made = |engine: &Engine| {
                let checked = check(engine, program.clone());
                let planned = engine.run(&checked, &RunOptions::default()).unwrap();
                let naive = engine.run_naive(&checked).unwrap();
                assert!(planned.tensors["made"].is_same_bits(&naive.tensors["made"]), "{name} {sampling}");
                planned.tensors["made"].to_vec_i64().unwrap()
            };
            assert_eq!(made(&bare), [rows as i64 - 1; 6], "without a tokenizer every row counts");
            let drawn = made(&padded);
            assert!(drawn.iter().all(|token| (0..11).contains(token)), "{name} {sampling}: {drawn:?}");
        }
    }
}
