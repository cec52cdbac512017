//! Programs that run at once: what those of one owner share, and that nothing is another's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pellucid_engine::{PrefixCache, Progress, Results, RunOptions};

use super::{STEERED, alike, checked, edit, engine, every_head, last_logit, run};

#[test]
fn programs_share_nothing_with_one_another() {
    let engine = engine();
    let (invokes, nodes) = every_head(2, 2);
    let program = checked(&engine, &invokes, &nodes);
    let alone = run(&engine, &program);
    let options = RunOptions::default();
    for results in engine.run_together(&[(&program, &options), (&program, &options)]) {
        let results = results.unwrap();
        assert_eq!(results.report.tokens, alone.report.tokens, "rows of one program are another's");
    }
}

#[test]
fn programs_of_one_owner_share_rows_in_a_pass() {
    let engine = engine();
    let (invokes, nodes) = every_head(2, 2);
    let heads = checked(&engine, &invokes, &nodes);
    // Another program of the same prompt, which is read as a whole, and one whose prompt begins like it.
    let whole = checked(
        &engine,
        &alike(&["whole"]),
        r#"{"op":"get","name":"h","hook":"layers.1.output"},{"op":"save","name":"s","value":"h"}"#,
    );
    let beginning = checked(&engine, r#"{"name":"p","tokens":[[8,3,9,5,4,4,9]]}"#, &last_logit("p"));
    let alone: Vec<Results> = [&heads, &whole, &beginning].map(|program| run(&engine, program)).into();
    let together = |options: [&RunOptions; 3]| {
        let programs = [&heads, &whole, &beginning];
        let outcomes = engine.run_together(&programs.into_iter().zip(options).collect::<Vec<_>>());
        let results: Vec<Results> = outcomes.into_iter().map(Result::unwrap).collect();
        for (one, alone) in results.iter().zip(&alone) {
            for (name, tensor) in &alone.tensors {
                assert!(tensor.is_same_bits(&one.tensors[name]), "`{name}` differs");
            }
        }
        results.iter().map(|results| results.report.tokens).sum::<u64>()
    };
    let owned = || RunOptions { prefixes: Some(Arc::new(PrefixCache::default())), ..RunOptions::default() };
    let (ann, ben) = (owned(), owned());
    let own: u64 = alone.iter().map(|results| results.report.tokens).sum();
    // The clean prompt, the corrupted one, a position of each cell, and the last of the prompt that begins alike.
    assert_eq!((own, together([&ann, &ann, &ann])), (7 + 7 + 4 + 7 + 7, 7 + 7 + 4 + 1));
    let (ann, carl) = (owned(), owned());
    assert_eq!(together([&ann, &ben, &carl]), own, "rows of one owner are another's");
}

#[test]
fn who_leaves_a_pass_takes_nothing_along_that_others_of_its_owner_need() {
    let engine = engine();
    // Each reads the prompt's logits; the first is called off in the middle of the pass.
    let program = checked(
        &engine,
        &alike(&["a", "b"]),
        &format!("{},{}", last_logit("a"), edit("b", "layers.1.output", STEERED) + "," + &last_logit("b")),
    );
    let alone = run(&engine, &program);
    for layer in 0..2 {
        let prefixes = Some(Arc::new(PrefixCache::default()));
        let cancel = Arc::new(AtomicBool::new(false));
        let flag = cancel.clone();
        let watch = move |progress: &Progress| {
            if progress.layer >= layer {
                flag.store(true, Ordering::Relaxed);
            }
        };
        let off = RunOptions {
            prefixes: prefixes.clone(),
            cancel: Some(cancel),
            on_progress: Some(Arc::new(watch)),
            ..RunOptions::default()
        };
        let stays = RunOptions { prefixes, ..RunOptions::default() };
        let mut outcomes = engine.run_together(&[(&program, &off), (&program, &stays)]).into_iter();
        assert!(outcomes.next().unwrap().is_err(), "it was called off in layer {layer}");
        let stayed = outcomes.next().unwrap().unwrap();
        for (name, tensor) in &alone.tensors {
            assert!(tensor.is_same_bits(&stayed.tensors[name]), "`{name}` differs");
        }
    }
}
