//! Random programs on every family: the promises that hold for all programs, held to a few hundred that nobody chose.
//!
//! `PELLUCID_PROGRAMS=N` tries N programs for each model (a quarter of many where each is run many times), `PELLUCID_SEED`
//! begins elsewhere, `PELLUCID_MODEL` names one model.
//! A program that breaks a promise is printed as JSON with its seed. What the programs were made of is printed, and written
//! to the file that `PELLUCID_COVERAGE` names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../support/random/mod.rs"]
mod random;
#[path = "../support/mod.rs"]
mod support;

mod differences;
mod regions;
mod sessions;
mod written;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pellucid_engine::{Engine, EngineError, Results, RunOptions};
use pellucid_graph::Program;
use pellucid_graph::check::{CheckedProgram, SpecIndex};

use random::coverage::{Coverage, differentiable, operations};
use random::outcomes::{difference, difference_from_naive};
use random::{Builder, Wishes};
use support::engines;

/// Programs for each model in the normal test run.
const PROGRAMS: u64 = 96;

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// Seeds of one model's programs: so many in the normal test run, and as large a part of a long one.
fn seeds(model: usize, programs: u64) -> impl Iterator<Item = u64> {
    let first = number_from("PELLUCID_SEED", 1);
    let wanted = number_from("PELLUCID_PROGRAMS", PROGRAMS);
    let count = wanted.min(programs.max(wanted * programs / PROGRAMS));
    (0..count).map(move |number| first + model as u64 * 1_000_003 + number)
}

/// Whether so many programs were tried, of every model, that what they were made of can be held to what is wanted.
fn all_were_tried() -> bool {
    std::env::var("PELLUCID_MODEL").is_err() && number_from("PELLUCID_PROGRAMS", PROGRAMS) >= PROGRAMS
}

/// Whether a prompt of the program may stop before its last step.
fn may_stop(program: &Program, end_tokens: &[u32]) -> bool {
    program.traces().any(|(_, trace)| {
        trace.generation.as_ref().is_some_and(|generation| match &generation.stop_tokens {
            Some(tokens) => !tokens.is_empty(),
            None => !end_tokens.is_empty(),
        })
    })
}

/// Whether what runs depends on values: the plan takes every branch, and no stop.
fn depends_on_values(program: &Program) -> bool {
    program
        .nodes
        .iter()
        .any(|node| !node.guards.is_empty() || matches!(node.kind, pellucid_graph::NodeKind::Stop { .. }))
}

fn writes_gradients(program: &Program) -> bool {
    program.nodes.iter().any(|node| matches!(node.kind, pellucid_graph::NodeKind::SetGrad { .. }))
}

fn report(failures: &mut Vec<String>, model: &str, seed: u64, what: &str, program: &CheckedProgram) {
    failures.push(format!("{model}, seed {seed}: {what}\n{}", program.program.to_json()));
}

fn finish(failures: Vec<String>) {
    let (shown, others) = failures.split_at(failures.len().min(3));
    let others = others.iter().filter_map(|failure| failure.lines().next());
    assert!(
        failures.is_empty(),
        "{} programs break a promise. The first:\n{}\nand:\n{}",
        failures.len(),
        shown.join("\n\n"),
        others.collect::<Vec<_>>().join("\n"),
    );
}

/// Whether a program can be written: conditions are proposed as what they are expanded to, which does not travel.
fn travels(program: &Program) -> bool {
    program
        .nodes
        .iter()
        .all(|node| node.guards.is_empty() && !matches!(node.kind, pellucid_graph::NodeKind::Merge { .. }))
}

#[test]
fn planned_naive_together_and_reread_give_the_same_bits() {
    let mut coverage = Coverage::default();
    let mut failures = Vec::new();
    let (mut taken, mut proposed, mut programs, mut failed) = (0, 0, 0, 0);
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    for (number, (model, engine)) in engines().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        let index = SpecIndex::new(&spec);
        let mut crowd = Crowd::default();
        for seed in seeds(number, PROGRAMS) {
            let wishes =
                Wishes { may_fail: seed % 5 == 0, generation: true, alike: seed % 4 == 1, smooth: false };
            let generated = Builder::generate(&index, seed, wishes);
            taken += generated.taken;
            proposed += generated.proposed;
            programs += 1;
            for (message, count) in generated.refusals {
                *refusals.entry(message).or_default() += count;
            }
            let checked = generated.checked;
            coverage.program(&checked, &index);

            let planned = engine.run(&checked, &RunOptions::default());
            let naive = engine.run_naive(&checked);
            if let Some(difference) = difference_from_naive(&engine, &checked, &planned, &naive) {
                report(
                    &mut failures,
                    &model,
                    seed,
                    &format!("planned against naive: {difference}"),
                    &checked,
                );
            }
            failed += usize::from(planned.is_err());
            if planned.as_ref().is_ok_and(|results| !results.absent.is_empty()) {
                coverage.add("construct", "steps lost to stopping");
            }
            if let Err(error) = &planned
                && !matches!(error, EngineError::Node(_))
            {
                report(&mut failures, &model, seed, &format!("the engine itself fails: {error}"), &checked);
            }

            if !checked.gradients.is_empty() {
                let nothing_kept = RunOptions { kept_bytes: Some(0), ..RunOptions::default() };
                let again = engine.run(&checked, &nothing_kept);
                if let Some(difference) = difference(&planned, &again) {
                    report(&mut failures, &model, seed, &format!("computed again: {difference}"), &checked);
                }
                if again.is_ok_and(|results| results.report.recomputed_layers > 0) {
                    coverage.add("construct", "layers computed again");
                }
            }

            let bytes = checked.program.to_bytes().unwrap();
            match Program::from_bytes(&bytes) {
                _ if !travels(&checked.program) => {}
                Ok(reread) if reread == checked.program => {
                    let again = engine.run(&engine.check(reread).unwrap(), &RunOptions::default());
                    if let Some(difference) = difference(&planned, &again) {
                        report(&mut failures, &model, seed, &format!("reread: {difference}"), &checked);
                    }
                }
                Ok(_) => report(&mut failures, &model, seed, "is another program when reread", &checked),
                Err(faults) => {
                    report(&mut failures, &model, seed, &format!("cannot be reread: {faults}"), &checked);
                }
            }

            match engine.explain(&checked) {
                Ok(explanation) => {
                    let told = explanation.to_string();
                    if explanation.passes.iter().any(|pass| !told.contains(&pass.to))
                        && explanation.passes.len() < 40
                    {
                        report(&mut failures, &model, seed, "the explanation hides a pass", &checked);
                    }
                    for pass in &explanation.passes {
                        if !pass.parked.is_empty() {
                            coverage.add("construct", "parked invokes");
                        }
                        if pass.passengers.iter().any(|passenger| passenger.columns.is_some()) {
                            coverage.add("construct", "narrowed logits");
                        }
                    }
                    if let Ok(planned) = &planned {
                        let (told, made) = (explanation.passes.len(), planned.report.passes);
                        // A generation that stops early takes fewer passes than its plan has.
                        let fits = if depends_on_values(&checked.program) {
                            true
                        } else if may_stop(&checked.program, &spec.end_tokens) {
                            made <= told
                        } else if writes_gradients(&checked.program) {
                            // A plan takes all gradients of a way back to come at once; one that is behind what is
                            // written to another waits for that, and its readers for a pass of their own.
                            made >= told
                        } else {
                            made == told
                        };
                        if !fits {
                            let what = format!("{told} passes are explained, {made} were made");
                            report(&mut failures, &model, seed, &what, &checked);
                        }
                    }
                }
                Err(error) => {
                    report(&mut failures, &model, seed, &format!("cannot be explained: {error}"), &checked);
                }
            }
            crowd.join(&engine, &model, (seed, checked, planned), &mut failures);
        }
        crowd.run(&engine, &model, &mut failures);
    }
    let rate = 1.0 - taken as f64 / proposed as f64;
    let summary = format!(
        "{programs} programs, of which {failed} fail on their values; {proposed} proposals, {:.0} % refused",
        100.0 * rate
    );
    println!("{summary}");
    let mut refusals: Vec<(String, usize)> = refusals.into_iter().collect();
    refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.1));
    for (message, count) in refusals.iter().take(12) {
        println!("  {count:>6} {message}");
    }
    println!("{}", coverage.table());
    if let Some(path) = std::env::var_os("PELLUCID_COVERAGE") {
        std::fs::write(path, format!("{summary}\n{}", coverage.table())).unwrap();
    }
    finish(failures);
    assert!(rate < 0.5, "the checker refuses {rate} of what is proposed: the generator wastes its time");
    if !all_were_tried() {
        return;
    }
    assert!(failed >= 5, "only {failed} programs fail on their values");
    let inner = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let hooks = inner(&[
        "input",
        "output",
        "logits",
        "token ids",
        "query",
        "key",
        "value",
        "query_pre",
        "key_pre",
        "scores",
        "pattern",
        "mixed",
        "pre",
        "up",
        "post",
        "scale",
    ]);
    let constructs = inner(&[
        "1 invokes",
        "2 invokes",
        "3 invokes",
        "1 prompts",
        "2 prompts",
        "3 prompts",
        "prompts of unequal length",
        "generation",
        "sampling with a temperature",
        "stop tokens",
        "several traces",
        "nodes inside `steps`",
        "setters inside `steps`",
        "values of an earlier trace",
        "values from outside `steps`",
        "applied modules",
        "several versions of a hook point",
        "tokens",
        "mask",
        "lengths",
        "generated",
        "literals",
        "constants",
        "logs",
        "parked invokes",
        "narrowed logits",
        "steps lost to stopping",
        "stops",
        "skips",
        "weights",
        "set weights",
        "merges",
        "nodes under a condition",
        "setters under a condition",
        "ways back",
        "ways back with a cotangent",
        "gradients of getters",
        "gradients of values",
        "gradients through setters",
        "written gradients of hook points",
        "written gradients of values",
    ]);
    let numbers = hooks.iter().filter(|hook| *hook != "token ids").cloned().collect();
    let missing = coverage.missing(&[
        ("getter", hooks.clone(), 20),
        ("setter", hooks, 10),
        ("gradient", numbers, 2),
        ("construct", inner(&["gradients through applied modules"]), 4),
        ("construct", constructs, 10),
        ("operation", operations(), 2),
        ("gradient of", differentiable(), 2),
    ]);
    assert!(missing.is_empty(), "too little was tried:\n{}", missing.join("\n"));
}

/// Programs that are run beside one another once there are enough: each must be as it was alone, whatever becomes of its
/// neighbours.
#[derive(Default)]
struct Crowd {
    round: usize,
    /// Seed, program, and what it gave alone.
    programs: Vec<(u64, CheckedProgram, Result<Results, EngineError>)>,
}

impl Crowd {
    const SIZE: usize = 6;

    fn join(
        &mut self,
        engine: &Engine,
        model: &str,
        program: (u64, CheckedProgram, Result<Results, EngineError>),
        failures: &mut Vec<String>,
    ) {
        self.programs.push(program);
        if self.programs.len() == Crowd::SIZE {
            self.run(engine, model, failures);
        }
    }

    fn run(&mut self, engine: &Engine, model: &str, failures: &mut Vec<String>) {
        let crowd = std::mem::take(&mut self.programs);
        if crowd.is_empty() {
            return;
        }
        // One of each crowd is cancelled at some point on its way.
        let victim = self.round % crowd.len();
        let countdown = Arc::new(AtomicUsize::new(3 + 7 * (self.round % 16)));
        self.round += 1;
        let cancel = Arc::new(AtomicBool::new(false));
        let options: Vec<RunOptions> = (0..crowd.len())
            .map(|place| {
                if place != victim {
                    return RunOptions::default();
                }
                let (countdown, cancel) = (countdown.clone(), cancel.clone());
                RunOptions {
                    cancel: Some(cancel.clone()),
                    on_progress: Some(Arc::new(move |_| {
                        let left = countdown.load(Ordering::Relaxed);
                        countdown.store(left.saturating_sub(1), Ordering::Relaxed);
                        cancel.store(left == 0, Ordering::Relaxed);
                    })),
                    ..RunOptions::default()
                }
            })
            .collect();
        let programs: Vec<(&CheckedProgram, &RunOptions)> =
            crowd.iter().zip(&options).map(|((_, checked, _), options)| (checked, options)).collect();
        let outcomes = engine.run_together(&programs);
        for (place, ((seed, checked, expected), outcome)) in crowd.iter().zip(&outcomes).enumerate() {
            if place == victim && matches!(outcome, Err(EngineError::Cancelled)) {
                continue;
            }
            if let Some(difference) = difference(expected, outcome) {
                let seeds: Vec<u64> = crowd.iter().map(|one| one.0).collect();
                let what = format!(
                    "alone against beside {seeds:?} (of which {} is cancelled): {difference}",
                    seeds[victim]
                );
                report(failures, model, *seed, &what, checked);
            }
        }
    }
}
