//! What is left of a run that fails.

use pellucid_engine::{EngineError, Failure, RunOptions};

use super::{check, engine, trace};

const ONE: &str = r#"{"name":"p","tokens":[[3,1,4,1,5]]}"#;

fn named(name: &str, nodes: &str) -> String {
    trace(ONE, &format!(r#""name":"{name}","#), nodes)
}

/// Three traces, the second of which fails on its values after it has saved something.
fn failing() -> String {
    let first = named(
        "first",
        r#"{"op":"get","name":"a","hook":"layers.0.output"},{"op":"save","name":"early","value":"a"}"#,
    );
    let second = named(
        "second",
        r#"{"op":"get","name":"b","hook":"layers.0.output"},{"op":"save","name":"half","value":"b"},
        {"op":"literal","name":"far","dtype":"i64","shape":[1],"elements":[9999]},
        {"op":"getitem","name":"one","input":"b","index":[":",":",{"tensor":"far"}]},
        {"op":"save","name":"never","value":"one"}"#,
    );
    let third =
        named("third", r#"{"op":"get","name":"c","hook":"output"},{"op":"save","name":"late","value":"c"}"#);
    format!("{first},{second},{third}")
}

fn assert_kept(failure: &Failure) {
    assert_eq!(failure.trace.as_deref(), Some("second"));
    assert_eq!(failure.kept.tensors.keys().collect::<Vec<_>>(), ["early"]);
    assert_eq!(failure.kept.tensors["early"].shape()[..2], [1, 5]);
    assert!(failure.kept.absent.is_empty());
    assert!(matches!(&failure.error, EngineError::Node(fault) if fault.node.as_deref() == Some("one")));
    let told = failure.to_string();
    assert!(
        told.ends_with("\n  in trace `second`; what the traces before it saved is kept: `early`"),
        "{told}"
    );
}

#[test]
fn a_failed_trace_names_itself_and_what_earlier_traces_saved_is_kept() {
    let engine = engine("gpt2");
    let checked = check(&engine, &failing());
    let options = RunOptions::default();
    assert_kept(&engine.run_keeping(&checked, &options).unwrap_err());
    assert_kept(&engine.run_naive_keeping(&checked, &RunOptions::default()).unwrap_err());
    // Beside a neighbour that does not fail.
    let sound = check(&engine, &failing().replace("9999", "1"));
    let mut outcomes = engine.run_together_keeping(&[(&sound, &options), (&checked, &options)]);
    assert_kept(&outcomes.pop().unwrap().unwrap_err());
    assert_eq!(outcomes.pop().unwrap().unwrap().tensors.len(), 4);
}

#[test]
fn a_run_that_is_given_no_time_keeps_what_it_has() {
    let engine = engine("gpt2");
    let checked = check(&engine, &failing().replace("9999", "1"));
    let options = RunOptions { seconds: Some(0.0), ..RunOptions::default() };
    let failure = engine.run_keeping(&checked, &options).unwrap_err();
    assert!(matches!(failure.error, EngineError::DeadlineExceeded { .. }));
    assert_eq!(failure.trace.as_deref(), Some("first"));
    assert!(failure.kept.tensors.is_empty());
}
