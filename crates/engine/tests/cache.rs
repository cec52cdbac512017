//! The cache of prefixes: what ran before is not computed again, for its owner alone, and never a bit differs.
//!
//! `PELLUCID_PROGRAMS=N` tries N programs for each model, `PELLUCID_SEED` begins elsewhere, `PELLUCID_MODEL` names one model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "support/random/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod random;
mod support;

use std::sync::Arc;

use pellucid_engine::{Engine, PrefixCache, Results, Rewrites, RunOptions};
use pellucid_graph::check::{CheckedProgram, SpecIndex};
use pellucid_graph::{Program, Prompts};

use random::crowd::Crowd;
use random::outcomes::difference_from_naive;
use random::{Builder, Wishes};
use support::{Golden, engines};

fn with(cache: &Arc<PrefixCache>) -> RunOptions {
    RunOptions { prefixes: Some(cache.clone()), ..RunOptions::default() }
}

fn checked(engine: &Engine, tokens: &str, nodes: &str) -> CheckedProgram {
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"tokens":{tokens}}}],"body":[{nodes},
        {{"op":"get","name":"l","hook":"logits"}},{{"op":"getitem","name":"a","input":"l","index":[":",-1]}},{{"op":"save","name":"out","value":"a"}}]}}]}}"#
    );
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    engine.check(program).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// An edit of one column after the first layer.
fn edited(engine: &Engine, tokens: &str, column: i64, value: f64) -> CheckedProgram {
    let nodes = format!(
        r#"{{"op":"get","name":"h","hook":"layers.1.output"}},{{"op":"index_put","name":"e","input":"h","index":[":",{column}],"values":{value}}},
        {{"op":"set","hook":"layers.1.output","value":"e"}}"#
    );
    checked(engine, tokens, &nodes)
}

/// Runs a program with a cache, and holds it to the naive interpreter. Tokens that were computed, and those that were not.
fn run(engine: &Engine, program: &CheckedProgram, cache: &Arc<PrefixCache>) -> (u64, u64) {
    let results: Results = engine.run(program, &with(cache)).unwrap();
    let naive = engine.run_naive(program).unwrap();
    assert_eq!(results.tensors.len(), naive.tensors.len());
    for (name, tensor) in &results.tensors {
        assert!(tensor.is_same_bits(&naive.tensors[name]), "`{name}` differs");
    }
    (results.report.tokens, results.report.cached_tokens)
}

const PROMPT: &str = "[[7,3,9,1,4,4,2,8]]";

#[test]
fn who_edits_one_prompt_again_and_again_pays_for_it_once() {
    let engine = Golden::open("gpt2").engine();
    let cache = Arc::new(PrefixCache::default());
    assert_eq!(run(&engine, &edited(&engine, PROMPT, -1, 0.5), &cache), (8, 0));
    for value in [0.25, -1.0, 3.0] {
        assert_eq!(run(&engine, &edited(&engine, PROMPT, -1, value), &cache), (1, 7));
    }
    // An earlier column; a later one than is known without an edit; the prompt with another end, and longer.
    assert_eq!(run(&engine, &edited(&engine, PROMPT, 3, 0.5), &cache), (5, 3));
    assert_eq!(run(&engine, &edited(&engine, "[[7,3,9,1,5,5]]", -1, 0.5), &cache), (2, 4));
    assert_eq!(run(&engine, &edited(&engine, "[[7,3,9,1,4,4,2,8,6,6]]", -1, 0.5), &cache), (3, 7));
    assert_eq!(run(&engine, &edited(&engine, "[[7,3,9,1,4,4,2,8,6,6]]", -1, 0.5), &cache), (1, 9));
    // Another prompt; one that begins otherwise; one that is read as a whole.
    assert_eq!(run(&engine, &edited(&engine, "[[1,2,3]]", -1, 0.5), &cache), (3, 0));
    let whole =
        r#"{"op":"get","name":"w","hook":"layers.0.output"},{"op":"save","name":"whole","value":"w"}"#;
    assert_eq!(run(&engine, &checked(&engine, PROMPT, whole), &cache), (8, 0));
    let usage = cache.usage();
    assert_eq!((usage.hits, usage.tokens), (7, 3 * 7 + 3 + 4 + 7 + 9));
    assert!(usage.bytes > 0 && usage.bytes <= usage.most_bytes, "{usage:?}");
}

#[test]
fn what_a_skipped_module_leaves_undone_is_not_kept() {
    let engine = Golden::open("gpt2").engine();
    let zero = r#"{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.0]}"#;
    let read = |layer: u64| {
        let nodes = format!(
            r#"{{"op":"get","name":"w","hook":"layers.{layer}.output"}},{{"op":"save","name":"whole","value":"w"}}"#
        );
        checked(&engine, PROMPT, &nodes)
    };
    for module in ["layers.0", "layers.1", "layers.0.mlp", "layers.1.attention"] {
        let cache = Arc::new(PrefixCache::default());
        let skip = format!(r#"{zero},{{"op":"skip","module":"{module}","value":"z"}}"#);
        run(&engine, &checked(&engine, PROMPT, &skip), &cache);
        for layer in 0..2 {
            run(&engine, &read(layer), &cache);
        }
    }
}

#[test]
fn the_plan_tells_what_comes_from_the_cache() {
    let engine = Golden::open("gpt2").engine();
    let cache = Arc::new(PrefixCache::default());
    let program = edited(&engine, PROMPT, -1, 0.5);
    let cold = engine.explain_with(&program, &with(&cache)).unwrap();
    assert_eq!(cold, engine.explain(&program).unwrap());
    run(&engine, &program, &cache);
    let usage = cache.usage();
    let warm = engine.explain_with(&program, &with(&cache)).unwrap();
    let line = "1 tokens, the first 7 from the cache, all before this from the cache, until lm_head.output";
    assert!(warm.to_string().contains(line), "{warm}");
    assert!(
        warm.to_string().contains("pass 1: transformer.h.1.output → lm_head.output (1 tokens)"),
        "{warm}"
    );
    assert_eq!((warm.passes[0].tokens, warm.passes[0].passengers[0].cached), (1, 7));
    assert!(warm.flops() < cold.flops() && warm.naive_flops() == cold.naive_flops());
    assert_eq!(cache.usage(), usage, "to plan is not to take");
    let off = engine.share().with_rewrites(Rewrites { cache: false, ..Rewrites::ALL });
    assert_eq!(off.explain_with(&program, &with(&cache)).unwrap().passes, cold.passes);
    assert_eq!(run(&off, &program, &cache), (8, 0));
}

/// The last position's residual stream after a layer, carried from one prompt into another.
fn carried(engine: &Engine, clean: &str, corrupted: &str, layer: u64) -> CheckedProgram {
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"name":"clean","tokens":{clean}}},{{"name":"corrupted","tokens":{corrupted}}}],"body":[
        {{"op":"get","name":"c","invoke":"clean","hook":"layers.{layer}.output"}},{{"op":"getitem","name":"s","input":"c","index":[":",-1]}},
        {{"op":"get","name":"h","invoke":"corrupted","hook":"layers.{layer}.output"}},{{"op":"index_put","name":"e","input":"h","index":[":",-1],"values":"s"}},
        {{"op":"set","invoke":"corrupted","hook":"layers.{layer}.output","value":"e"}},
        {{"op":"get","name":"l","invoke":"corrupted","hook":"logits"}},{{"op":"getitem","name":"a","input":"l","index":[":",-1]}},{{"op":"save","name":"out","value":"a"}}]}}]}}"#
    );
    engine.check(Program::from_bytes(text.as_bytes()).unwrap()).unwrap()
}

#[test]
fn what_is_read_of_some_layers_only_is_kept_as_far_as_it_has_walked() {
    let engine = Golden::open("gpt2").engine();
    let cache = Arc::new(PrefixCache::default());
    let run = |clean: &str, layer: u64| run(&engine, &carried(&engine, clean, PROMPT, layer), &cache);
    let clean = "[[3,3,9,1,4,4,2,8]]";
    assert_eq!(run(clean, 0), (16, 0));
    // The clean prompt is known through the first layer, the corrupted one through all.
    assert_eq!(run(clean, 0), (2, 14));
    assert_eq!(run(clean, 1), (9, 7), "what has not walked so far is of no use there");
    assert_eq!(run(clean, 1), (2, 14));
    assert_eq!(run(clean, 0), (2, 14), "what has walked farther is of use before too");
    // Two invokes of one prompt, of which one goes farther than is known.
    assert_eq!(run(PROMPT, 1), (2, 7));
    let other = "[[6,3,9,1]]";
    assert_eq!(run(other, 0), (5, 7));
    let both = engine.run(&carried(&engine, other, other, 0), &with(&cache)).unwrap();
    let naive = engine.run_naive(&carried(&engine, other, other, 0)).unwrap();
    assert!(both.tensors["out"].is_same_bits(&naive.tensors["out"]));
    assert_eq!(self::run(&engine, &edited(&engine, other, -1, 0.5), &cache), (1, 3));
}

/// An edit of all columns after a layer.
fn steered(engine: &Engine, tokens: &str, layer: u64, value: f64) -> CheckedProgram {
    let hook = format!("layers.{layer}.output");
    let nodes = format!(
        r#"{{"op":"get","name":"h","hook":"{hook}"}},{{"op":"add","name":"e","input":"h","other":{value}}},{{"op":"set","hook":"{hook}","value":"e"}}"#
    );
    checked(engine, tokens, &nodes)
}

#[test]
fn a_lone_invoke_begins_where_it_is_edited_first() {
    let engine = Golden::open("gpt2").engine();
    let cache = Arc::new(PrefixCache::default());
    let begins = |program: &CheckedProgram| {
        let plan = engine.explain_with(program, &with(&cache)).unwrap();
        run(&engine, program, &cache);
        (plan.passes[0].from.clone(), plan.passes[0].passengers[0].resumed)
    };
    let after = |layer: u64| (format!("transformer.h.{layer}.output"), true);
    let start = ("the beginning".to_owned(), false);
    assert_eq!(begins(&steered(&engine, PROMPT, 0, 0.5)), start);
    for value in [1.0, -3.0] {
        assert_eq!(begins(&steered(&engine, PROMPT, 0, value)), after(0));
    }
    // Another layer: as far as it is known; from then on from there, and what is below is not forgotten.
    assert_eq!(begins(&steered(&engine, PROMPT, 1, 1.0)), after(0));
    assert_eq!(begins(&steered(&engine, PROMPT, 1, 1.0)), after(1));
    assert_eq!(begins(&steered(&engine, PROMPT, 0, 1.0)), after(0));
    // The rows of a shorter prompt are the first of the longer one's.
    assert_eq!(begins(&steered(&engine, "[[7,3,9,1]]", 1, 1.0)), after(1));
    assert_eq!(begins(&steered(&engine, "[[7,3,9,1,5]]", 1, 1.0)), start);
    // What is read before the edit is computed.
    let read =
        r#"{"op":"get","name":"w","hook":"layers.0.mlp.output"},{"op":"save","name":"whole","value":"w"}"#;
    assert_ne!(begins(&checked(&engine, PROMPT, read)), after(0));
    // Keys and values were of no use to these; one edited column leaves them, and then takes both.
    assert_eq!(begins(&edited(&engine, PROMPT, -1, 0.5)), start);
    assert_eq!(begins(&edited(&engine, PROMPT, -1, 0.5)), after(1));
    assert_eq!(run(&engine, &edited(&engine, PROMPT, -1, 0.25), &cache), (1, 7));
    // Several prompts of one invoke, of unequal lengths.
    let prompts = "[[6,3,9,1,4,4,2,8],[2,2,2]]";
    assert_eq!(begins(&steered(&engine, prompts, 1, 0.5)), start);
    assert_eq!(begins(&steered(&engine, prompts, 1, 0.25)), after(1));
    assert_eq!(begins(&edited(&engine, prompts, -1, 0.25)), start);
    assert_eq!(run(&engine, &edited(&engine, prompts, -1, 0.5), &cache), (2, 7 + 2));
}

#[test]
fn a_generation_takes_its_prompt_from_the_cache_and_leaves_it_there() {
    let engine = Golden::open("gpt2").engine();
    let cache = Arc::new(PrefixCache::default());
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"tokens":{PROMPT}}}],"generate":{{"max_new_tokens":4,"stop_tokens":[]}},"body":[
        {{"op":"generated","name":"g"}},{{"op":"save","name":"made","value":"g"}}]}}]}}"#
    );
    let generates = engine.check(Program::from_bytes(text.as_bytes()).unwrap()).unwrap();
    assert_eq!(run(&engine, &generates, &cache), (8 + 3, 0));
    assert_eq!(run(&engine, &generates, &cache), (1 + 3, 7));
    // Its own tokens are nobody's prompt, and left the prompt's keys as they were.
    assert_eq!(run(&engine, &edited(&engine, PROMPT, -1, 0.5), &cache), (1, 7));
    assert_eq!(run(&engine, &generates, &cache), (1 + 3, 7));
}

#[test]
fn a_way_back_begins_no_higher_than_it_goes() {
    let engine = Golden::open("gpt2").engine();
    let cache = Arc::new(PrefixCache::default());
    let goes_back = |hook: &str, value: f64| {
        let nodes = format!(
            r#"{{"op":"get","name":"h","hook":"layers.1.output"}},{{"op":"mul","name":"e","input":"h","other":{value}}},
            {{"op":"set","hook":"layers.1.output","value":"e"}},{{"op":"get","name":"m","hook":"logits"}},
            {{"op":"getitem","name":"loss","input":"m","index":[0,-1,3]}},{{"op":"backward","name":"b","of":"loss"}},
            {{"op":"grad","name":"g","backward":"b","hook":"{hook}"}},{{"op":"save","name":"gradient","value":"g"}}"#
        );
        checked(&engine, PROMPT, &nodes)
    };
    let resumes = |program: &CheckedProgram| {
        let plan = engine.explain_with(program, &with(&cache)).unwrap();
        run(&engine, program, &cache);
        plan.passes[0].passengers[0].resumed
    };
    assert!(!resumes(&goes_back("layers.1.output", 0.5)));
    assert!(resumes(&goes_back("layers.1.output", 0.25)));
    // What is gone back through below the edit is walked; its gradient is 0 here, for nothing comes through the edit.
    run(&engine, &goes_back("layers.0.output", 0.25), &cache);
    run(&engine, &goes_back("layers.0.attention.input", 0.75), &cache);
}

#[test]
fn nothing_of_one_cache_is_ever_anothers_also_in_the_same_pass() {
    let engine = Golden::open("gpt2").engine();
    let (ann, ben) = (Arc::new(PrefixCache::default()), Arc::new(PrefixCache::default()));
    let program = edited(&engine, PROMPT, -1, 0.5);
    run(&engine, &program, &ann);
    let before = ann.usage();
    assert_eq!(
        run(&engine, &program, &ben),
        (8, 0),
        "the first run of another owner is as if nobody had run"
    );
    assert_eq!(ann.usage(), before);
    // Side by side: one knows the prompt, one does not, one has no cache.
    let chris = Arc::new(PrefixCache::default());
    let options = [with(&ann), with(&chris), RunOptions::default()];
    let programs: Vec<_> = options.iter().map(|options| (&program, options)).collect();
    let naive = engine.run_naive(&program).unwrap();
    let reports = engine.run_together(&programs).into_iter().map(|results| {
        let results = results.unwrap();
        assert!(results.tensors["out"].is_same_bits(&naive.tensors["out"]));
        (results.report.passes, results.report.tokens, results.report.cached_tokens)
    });
    assert_eq!(reports.collect::<Vec<_>>(), [(1, 1, 7), (1, 8, 0), (1, 8, 0)]);
    assert_eq!(ann.usage().hits, 1);
}

#[test]
fn other_models_and_other_weights_find_nothing() {
    let (engine, again) = (Golden::open("gpt2").engine(), Golden::open("gpt2").engine());
    let cache = Arc::new(PrefixCache::default());
    let program = edited(&engine, PROMPT, -1, 0.5);
    run(&engine, &program, &cache);
    // The same files, loaded once more, are another model: who knows what they hold now.
    assert_eq!(run(&again, &edited(&again, PROMPT, -1, 0.5), &cache), (8, 0));
    let weights = r#"{"op":"weight","name":"w","parameter":"transformer.h.0.ln_1.weight"},{"op":"mul","name":"v","input":"w","other":0.5},
        {"op":"set_weight","parameter":"transformer.h.0.ln_1.weight","value":"v"}"#;
    let changed = checked(&engine, PROMPT, weights);
    assert_eq!(run(&engine, &changed, &cache), (8, 0));
    // Nor does it leave anything there.
    assert_eq!(run(&engine, &program, &cache), (1, 7));
    // A model that is gone holds no room.
    drop((engine, program, changed));
    let prompts = cache.usage().prompts;
    run(&again, &edited(&again, "[[5,5,5,5]]", -1, 0.5), &cache);
    assert_eq!(cache.usage().prompts, prompts);
}

#[test]
fn a_cache_never_holds_more_than_it_may_and_gives_up_what_was_used_longest_ago() {
    let engine = Golden::open("gpt2").engine();
    let probe = Arc::new(PrefixCache::default());
    let prompt = |first: u64| format!("[[{first},3,9,1,4,4,2,8]]");
    let program = |first: u64| edited(&engine, &prompt(first), -1, 0.5);
    run(&engine, &program(10), &probe);
    let one = probe.usage().bytes;
    let cache = Arc::new(PrefixCache::new(2 * one + one / 2));
    let takes = |first: u64| {
        let taken = run(&engine, &program(first), &cache).1;
        assert!(cache.usage().bytes <= cache.usage().most_bytes);
        taken
    };
    assert_eq!([takes(10), takes(11), takes(10), takes(12)], [0, 0, 7, 0]);
    // 11 made room.
    assert_eq!([takes(10), takes(12), takes(11)], [7, 7, 0]);
    assert_eq!(cache.usage().prompts, 2);
    cache.close();
    assert_eq!([takes(10), takes(10)], [0, 0]);
    assert_eq!((cache.usage().bytes, cache.usage().prompts), (0, 0));
    // One that holds less than a prompt.
    let small = Arc::new(PrefixCache::new(one / 2));
    assert_eq!(run(&engine, &program(10), &small), run(&engine, &program(10), &small));
    assert_eq!(small.usage().bytes, 0);
}

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// Programs for each model in the normal test run.
const PROGRAMS: u64 = 40;

/// The prompts of a program's first invoke, and nothing done to them.
fn unedited(engine: &Engine, program: &CheckedProgram) -> Option<CheckedProgram> {
    let (_, trace) = program.program.traces().next()?;
    let Prompts::Tokens(tokens) = &trace.invokes.first()?.prompts else { return None };
    Some(checked(engine, &format!("{tokens:?}"), r#"{"op":"lengths","name":"n"}"#))
}

#[test]
fn random_programs_give_the_same_bits_with_a_warm_cache() {
    let mut failures: Vec<String> = Vec::new();
    let (mut programs, mut hits, mut hits_alone) = (0, 0, 0);
    for (number, (model, engine)) in engines().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        let index = SpecIndex::new(&spec);
        let roomy = Arc::new(PrefixCache::default());
        // With no other rewrite beside it.
        let only = engine.share().with_rewrites(Rewrites { cache: true, ..Rewrites::NONE });
        let own = Arc::new(PrefixCache::default());
        // One in which something is always given up.
        let narrow = Arc::new(PrefixCache::new(20_000));
        let first = number_from("PELLUCID_SEED", 1) + number as u64 * 1_000_003;
        let mut crowd = Crowd::default();
        for seed in first..first + number_from("PELLUCID_PROGRAMS", PROGRAMS) {
            let wishes = Wishes { may_fail: seed % 7 == 0, generation: true, alike: true, smooth: false };
            let checked = Builder::generate(&index, seed, wishes).checked;
            let naive = engine.run_naive(&checked);
            let mut hold = |how: &str, outcome: &Result<Results, _>| {
                if let Some(difference) = difference_from_naive(&engine, &checked, outcome, &naive) {
                    failures.push(format!(
                        "{model}, seed {seed}, {how}: {difference}\n{}",
                        checked.program.to_json()
                    ));
                }
            };
            let cold = engine.run(&checked, &with(&roomy));
            let warm = engine.run(&checked, &with(&roomy));
            programs += 1;
            hits += u64::from(warm.as_ref().is_ok_and(|results| results.report.cached_tokens > 0));
            hold("as it comes", &cold);
            hold("again", &warm);
            hold("alone, as it comes", &only.run(&checked, &with(&own)));
            let alone = only.run(&checked, &with(&own));
            hits_alone += u64::from(alone.as_ref().is_ok_and(|results| results.report.cached_tokens > 0));
            hold("alone, again", &alone);
            hold("in little room", &engine.run(&checked, &with(&narrow)));
            // What it left there of its prompts is what they are without its edits.
            if let Some(plain) = unedited(&engine, &checked) {
                let (found, naive) = (engine.run(&plain, &with(&roomy)), engine.run_naive(&plain));
                if let Some(difference) = difference_from_naive(&engine, &plain, &found, &naive) {
                    failures.push(format!(
                        "{model}, after seed {seed}: {difference}\n{}",
                        plain.program.to_json()
                    ));
                }
            }
            assert!(narrow.usage().bytes <= 20_000);
            let beside = crowd.join(&engine, (checked, naive), &[&with(&roomy), &RunOptions::default()]);
            failures.extend(beside.map(|told| format!("{model}, near {seed}, beside others: {told}")));
        }
    }
    println!(
        "tried: {programs} programs against naive with a cache of prefixes, cold, warm and in little room; {hits} took something from it, \
         {hits_alone} where it was the only rewrite"
    );
    let shown: Vec<&str> = failures.iter().take(3).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} runs differ. The first:\n{}", failures.len(), shown.join("\n\n"));
    if std::env::var("PELLUCID_MODEL").is_err() && programs > 200 {
        for hits in [hits, hits_alone] {
            assert!(hits * 20 >= programs, "too little came from the cache: {hits} of {programs}");
        }
    }
}
