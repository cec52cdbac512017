//! A run that is analysed: the same results, the plan that is explained, and what each pass took.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use pellucid_engine::{Engine, EngineError, Explanation, RunOptions};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;

use support::Golden;

/// Two invokes that share rows, one that waits for a value, and a generation in a trace of its own.
const PROGRAM: &str = r#"{"pellucid":1,"body":[{"op":"trace","invokes":[{"name":"a","tokens":[[7,3,9,1]]},{"name":"b","tokens":[[7,3,9,1]]}],"body":[
    {"op":"get","name":"late","invoke":"a","hook":"layers.1.output"},{"op":"set","invoke":"b","hook":"layers.0.output","value":"late"},
    {"op":"get","name":"l","invoke":"b","hook":"logits"},{"op":"save","name":"out","value":"l"}]},
    {"op":"trace","invokes":[{"tokens":[[5,6]]}],"generate":{"max_new_tokens":3,"stop_tokens":[]},"body":[{"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}]}]}"#;

fn checked(engine: &Engine) -> CheckedProgram {
    let program = Program::from_bytes(PROGRAM.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"));
    engine.check(program).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A plan without what was measured.
fn untimed(mut plan: Explanation) -> Explanation {
    plan.measured = None;
    for pass in &mut plan.passes {
        (pass.estimated_ms, pass.measured_ms, pass.gigaflops) = (0.0, None, None);
    }
    plan
}

#[test]
fn a_run_is_analysed_as_it_was_explained_and_gives_the_same_bits() {
    let engine = Golden::open("gpt2").engine();
    let program = checked(&engine);
    let (plan, results) = engine.analyze(&program, &RunOptions::default()).unwrap();
    let plain = engine.run(&program, &RunOptions::default()).unwrap();
    assert_eq!(results.tensors.len(), 2);
    for (name, tensor) in &results.tensors {
        assert!(tensor.is_same_bits(&plain.tensors[name]), "{name}");
    }
    let before = engine.explain(&program).unwrap();
    assert_eq!(untimed(plan.clone()), untimed(before.clone()));
    // Until something was measured here both estimate alike.
    assert!(before.passes.iter().all(|pass| pass.estimated_ms > 0.0), "{before}");
    assert_eq!(plan.passes[0].estimated_ms, before.passes[0].estimated_ms);
    // `a`, what `b` waits for, and the steps of the generation.
    assert_eq!((plan.passes.len(), plan.passes[0].parked.len()), (2 + 3, 1));
    assert_eq!((results.report.passes, results.report.pass_ms.len()), (5, 5));
    let measured = plan.measured.as_ref().unwrap();
    let sum: f64 = plan.passes.iter().map(|pass| pass.measured_ms.unwrap()).sum();
    assert!(
        (sum - measured.passes_ms).abs() < 1e-6
            && measured.passes_ms <= measured.ms
            && measured.naive_ms > 0.0
    );
    for (pass, told) in plan.passes.iter().zip(&results.report.pass_ms) {
        let ms = pass.measured_ms.unwrap();
        assert!((ms - told).abs() < 1e-3 && ms > 0.0, "{ms} ms, reported as {told}");
        assert!((pass.gigaflops.unwrap() - pass.flops as f64 / ms / 1e6).abs() < 1e-9);
        assert!(pass.bytes > 0 && pass.flops > 0 && pass.estimated_ms > 0.0);
    }
    let sum: f64 = plan.passes.iter().map(|pass| pass.estimated_ms).sum();
    assert!((sum - plan.estimated_ms()).abs() < 1e-9);
    let text = plan.to_string();
    assert_eq!(text.matches(", estimated at ").count(), 1 + 5, "{text}");
    assert!(!before.to_string().contains("estimated at"));
    assert_eq!(text.matches("GFLOP/s").count(), 1 + 5, "{text}");
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), plan);
}

#[test]
fn weights_are_moved_once_for_a_pass_and_values_for_each_row() {
    let engine = Golden::open("gpt2").engine();
    let bytes = |tokens: &str| {
        let text = format!(
            r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"tokens":[{tokens}]}}],"body":[
            {{"op":"get","name":"l","hook":"logits"}},{{"op":"save","name":"out","value":"l"}}]}}]}}"#
        );
        let program = engine.check(Program::from_bytes(text.as_bytes()).unwrap()).unwrap();
        let plan = engine.explain(&program).unwrap();
        assert_eq!((plan.bytes(), plan.flops()), (plan.naive_bytes(), plan.naive_flops()));
        plan.bytes()
    };
    let list = engine.model().stages();
    let linear = list.stages.iter().filter_map(|stage| match stage.kernel {
        pellucid_models::stage::Kernel::Linear { weight, .. } => {
            Some(4 * list.weights[weight.0 as usize].shape.iter().product::<usize>() as u64)
        }
        _ => None,
    });
    let weights: u64 = linear.sum();
    let (one, two, four) = (bytes("[1]"), bytes("[1,2]"), bytes("[1,2],[1,2]"));
    assert!(weights < one && one - weights < weights, "{weights} of {one}");
    // Rows are alike, whosever they are.
    assert_eq!(two - one, one - weights);
    assert_eq!(four - weights, 2 * (two - weights));
}

#[test]
fn an_analysis_that_is_cancelled_fails_as_the_run_does() {
    let engine = Golden::open("gpt2").engine();
    let cancel = Some(std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true)));
    let outcome = engine.analyze(&checked(&engine), &RunOptions { cancel, ..RunOptions::default() });
    assert!(matches!(outcome.unwrap_err().error, EngineError::Cancelled));
}
