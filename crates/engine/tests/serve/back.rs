//! Ways back among others: what takes long on one makes way, and can be stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pellucid_engine::{EngineError, RunOptions, ServeOptions, Ticket};

use crate::script::{Script, logits, trace, when};
use crate::support::Golden;

#[test]
fn a_way_back_makes_way_for_others() {
    let engine = Golden::open("gpt2").engine();
    let back = trace(
        &engine,
        &[10],
        "",
        r#"{"op":"get","name":"l","invoke":"i0","hook":"logits"},{"op":"sum","name":"loss","input":"l"},{"op":"backward","name":"b","of":"loss"},
        {"op":"grad","name":"g","backward":"b","invoke":"i0","hook":"layers.0.input"},{"op":"save","name":"s0","value":"g"}"#,
    );
    let small = trace(
        &engine,
        &[4],
        r#","generate":{"max_new_tokens":60,"stop_tokens":[]}"#,
        r#"{"op":"generated","name":"g","invoke":"i0"},{"op":"save","name":"s0","value":"g"}"#,
    );
    let mut script = Script::default();
    script.join(0, 0, &small, RunOptions::default());
    script.join(3, 1, &back, RunOptions::default());
    let serve = ServeOptions { pass_ms: 0.0, ..ServeOptions::default() };
    let script = script.play(&engine, &serve);
    let alone = engine.run(&back, &RunOptions::default()).unwrap();
    assert!(alone.tensors["s0"].is_same_bits(&script.result(1).tensors["s0"]));
    let (joined, ended) = (script.joined[&Ticket(1)], &script.ended[&Ticket(1)]);
    let between =
        script.passes[joined..ended.passes].iter().filter(|pass| pass.tickets == [Ticket(0)]).count();
    assert!(between > 8, "only {between} passes of the other while it goes back");
}

/// A program's body that goes on with `b`, and back to `a`; it tells when it is there and when it is back.
fn there_and_back(there: &str) -> String {
    format!(
        r#"{there},{{"op":"sum","name":"c","input":"b"}},{{"op":"save","name":"there","value":"c"}},
        {{"op":"backward","name":"way","of":"c"}},{{"op":"grad","name":"g","backward":"way","of":"a"}},{{"op":"save","name":"back","value":"g"}}"#
    )
}

#[test]
fn a_long_rule_of_a_way_back_does_not_stop_the_others() {
    let engine = Golden::open("gpt2").engine();
    // Products of matrices, a module that is applied outside of the pass, what is but a view on the way there, and what goes on back
    // through the model.
    let [product, applied, viewed, through] = [
        r#"{"op":"randn","name":"a","size":[900,900]},{"op":"matmul","name":"b","input":"a","other":"a"}"#,
        r#"{"op":"randn","name":"a","size":[1,100000,32]},{"op":"apply","name":"b","module":"layers.0.mlp","input":"a"}"#,
        r#"{"op":"ones","name":"a","size":[1]},{"op":"expand","name":"e","input":"a","size":[8000000]},{"op":"add","name":"b","input":"e","other":"e"}"#,
        r#"{"op":"get","name":"a","invoke":"i0","hook":"layers.0.output"},{"op":"sum","name":"d","input":"a"},
            {"op":"randn","name":"e","size":[900,900]},{"op":"mul","name":"f","input":"e","other":"d"},{"op":"matmul","name":"b","input":"f","other":"e"}"#,
    ]
    .map(|there| trace(&engine, &[5], "", &there_and_back(there)));
    let small = trace(&engine, &[4], "", &logits(0));
    for heavy in [product, applied, viewed, through] {
        let alone = engine.run(&heavy, &RunOptions::default()).unwrap();
        for helper_threads in [0, 1, 2] {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let saves = heard.clone();
            let on_saved: pellucid_engine::job::OnSaved =
                Arc::new(move |saved| saves.lock().unwrap().push(saved.name.to_owned()));
            let mut script = Script::default();
            script.company = Some((small.clone(), Ticket(1)));
            script.heard = heard.clone();
            script.join(0, 1, &heavy, RunOptions { on_saved: Some(on_saved), ..RunOptions::default() });
            let serve = ServeOptions { pass_ms: 1.0, helper_threads, ..ServeOptions::default() };
            let script = script.play(&engine, &serve);
            for (name, tensor) in &alone.tensors {
                assert!(tensor.is_same_bits(&script.result(1).tensors[name]), "{name}, {helper_threads}");
            }
            let heard = heard.lock().unwrap();
            let (there, back) = (when(&heard, "there"), when(&heard, "back"));
            let passes = heard[there..back].iter().filter(|event| *event == "pass").count();
            println!("{passes} passes of others, with {helper_threads} threads");
            assert!(helper_threads == 0 || passes > 2, "{passes} passes of others while it goes back");
        }
    }
}

#[test]
fn a_long_rule_of_a_way_back_is_stopped_on_the_way() {
    let engine = Golden::open("gpt2").engine();
    let there =
        r#"{"op":"randn","name":"a","size":[1500,1500]},{"op":"matmul","name":"b","input":"a","other":"a"}"#;
    let heavy = trace(&engine, &[4], "", &there_and_back(there));
    let small = trace(&engine, &[4], "", &logits(0));
    for helper_threads in [0, 1] {
        let cancel = Arc::new(AtomicBool::new(false));
        let cancels = cancel.clone();
        // Where it is saved that the way there has ended, the way back has not begun, or has only just.
        let on_saved: pellucid_engine::job::OnSaved = Arc::new(move |saved| {
            let cancels = cancels.clone();
            assert_eq!(saved.name, "there");
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                cancels.store(true, Ordering::Relaxed);
            });
        });
        let mut script = Script::default();
        let options = RunOptions { cancel: Some(cancel), on_saved: Some(on_saved), ..RunOptions::default() };
        script.join(0, 0, &heavy, options);
        script.join(0, 1, &small, RunOptions::default());
        let serve = ServeOptions { pass_ms: 1.0, helper_threads, ..ServeOptions::default() };
        let script = script.play(&engine, &serve);
        assert_eq!(*script.error(0), EngineError::Cancelled);
        assert!(script.ended[&Ticket(1)].outcome.is_ok());
    }
}
