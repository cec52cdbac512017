//! Each rewrite of the planner by itself, and all together: bit for bit what the naive interpreter gives, in fewer tokens.
//!
//! `PELLUCID_PROGRAMS=N` tries N programs for each model, `PELLUCID_SESSIONS=N` N sessions, `PELLUCID_SEED` begins elsewhere,
//! `PELLUCID_MODEL` names one model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "support/random/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod random;
mod support;

use std::sync::Arc;

use pellucid_engine::{
    Engine, EngineError, ExplainedPassenger, Failure, PrefixCache, Results, Rewrites, RunOptions,
};
use pellucid_graph::check::{CheckedProgram, SpecIndex};

use random::crowd::Crowd;
use random::outcomes::{difference_from_naive, same_bits};
use random::sessions::in_sequence;
use random::{Builder, Wishes};
use support::engines;

/// Programs for each model in the normal test run.
const PROGRAMS: u64 = 60;

const DEPTH: Rewrites = Rewrites { depth: true, ..Rewrites::NONE };
const LENGTH: Rewrites = Rewrites { depth: true, length: true, ..Rewrites::NONE };
const PREFIXES: Rewrites = Rewrites { prefixes: true, ..Rewrites::NONE };
const UNEMBEDDING: Rewrites = Rewrites { unembedding: true, ..Rewrites::NONE };
const LAST_LAYER: Rewrites = Rewrites { last_layer: true, ..Rewrites::NONE };
const TRACES: Rewrites = Rewrites { traces: true, ..Rewrites::NONE };

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

fn tokens(outcome: &Result<Results, EngineError>) -> Option<u64> {
    outcome.as_ref().ok().map(|results| results.report.tokens)
}

/// Programs whose tokens a rewrite made fewer.
#[derive(Debug, Default)]
struct Saved {
    programs: usize,
    depth: usize,
    length: usize,
    prefixes: usize,
    more: usize,
    /// Of which an invoke computes only some columns of the vocabulary.
    columns: usize,
    /// Of which an invoke computes only some positions after the last attention.
    late: usize,
    /// Those of `depth` that generate, and those that go back.
    generating: usize,
    going_back: usize,
    /// Programs that have rows in common with themselves when they run twice for one owner.
    twice: usize,
}

/// Whether an invoke computes only some columns of the vocabulary, and only some positions after the last attention.
fn has_few_columns(engine: &Engine, checked: &CheckedProgram) -> (bool, bool) {
    let Ok(plan) = engine.explain(checked) else { return (false, false) };
    let any =
        |has: fn(&ExplainedPassenger) -> bool| plan.passes.iter().flat_map(|pass| &pass.passengers).any(has);
    (
        any(|passenger| passenger.vocabulary.is_some()),
        any(|passenger| passenger.late_from > passenger.rows_from),
    )
}

#[test]
fn every_rewrite_alone_and_all_together_keep_every_bit() {
    let mut failures: Vec<String> = Vec::new();
    let mut saved = Saved::default();
    let mut tried = 0;
    for (number, (model, engine)) in engines().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        let index = SpecIndex::new(&spec);
        let with = |rewrites: Rewrites| engine.share().with_rewrites(rewrites);
        let (none, depth, length) = (with(Rewrites::NONE), with(DEPTH), with(LENGTH));
        let (prefixes, unembedding, traces) = (with(PREFIXES), with(UNEMBEDDING), with(TRACES));
        let last_layer = with(LAST_LAYER);
        let mut crowd = Crowd::default();
        let first = number_from("PELLUCID_SEED", 1) + number as u64 * 1_000_003;
        for seed in first..first + number_from("PELLUCID_PROGRAMS", PROGRAMS) {
            let wishes = Wishes { may_fail: seed % 7 == 0, generation: true, alike: true, smooth: false };
            let checked = Builder::generate(&index, seed, wishes).checked;
            let naive = engine.run_naive(&checked);
            let run = |engine: &Engine| engine.run(&checked, &RunOptions::default());
            let planned =
                [&none, &depth, &length, &prefixes, &unembedding, &traces, &last_layer, &engine].map(run);
            let names = ["none", "depth", "length", "prefixes", "unembedding", "traces", "last layer", "all"];
            for (name, outcome) in names.iter().zip(&planned) {
                if let Some(difference) = difference_from_naive(&engine, &checked, outcome, &naive) {
                    failures.push(format!(
                        "{model}, seed {seed}: rewrites `{name}`: {difference}\n{}",
                        checked.program.to_json()
                    ));
                }
            }
            tried += 1;
            let counts: Vec<u64> = planned.iter().filter_map(tokens).collect();
            if let [none, depth, length, prefixes, _, _, _, all] = counts[..] {
                saved.programs += 1;
                saved.depth += usize::from(depth != none);
                let generates = checked.program.traces().any(|(_, trace)| trace.generation.is_some());
                saved.generating += usize::from(depth != none && generates);
                saved.going_back += usize::from(depth != none && !checked.gradients.is_empty());
                saved.length += usize::from(length != depth);
                saved.prefixes += usize::from(prefixes < none);
                saved.more += usize::from(all < length);
                let (columns, late) = has_few_columns(&engine, &checked);
                saved.columns += usize::from(columns);
                saved.late += usize::from(late);
            }
            // Twice for one owner: the two have all their rows in common.
            let cache = Some(Arc::new(PrefixCache::default()));
            let options = RunOptions { prefixes: cache, ..RunOptions::default() };
            let twice = engine.run_together(&[(&checked, &options), (&checked, &options)]);
            let of_both: Option<u64> = twice.iter().map(tokens).sum();
            saved.twice +=
                usize::from(of_both.zip(tokens(&planned[7])).is_some_and(|(both, one)| both < 2 * one));
            for outcome in &twice {
                if let Some(difference) = difference_from_naive(&engine, &checked, outcome, &naive) {
                    let program = checked.program.to_json();
                    failures
                        .push(format!("{model}, seed {seed}: twice for one owner: {difference}\n{program}"));
                }
            }
            let beside = crowd.join(&engine, (checked, naive), &[&RunOptions::default()]);
            failures.extend(beside.map(|told| format!("{model}, near seed {seed}, beside others: {told}")));
        }
    }
    println!(
        "tried: {tried} programs against naive with no rewrite, with each alone (depth, length, prefixes, unembedding, traces, last layer) and \
         with all; of the {} that do not fail {} take other tokens by depth, {} by length, {} by prefixes, {} fewer columns and {} fewer \
         last positions",
        saved.programs, saved.depth, saved.length, saved.prefixes, saved.columns, saved.late
    );
    let shown: Vec<&str> = failures.iter().take(3).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} runs differ. The first:\n{}", failures.len(), shown.join("\n\n"));
    if std::env::var("PELLUCID_MODEL").is_err() && saved.programs > 200 {
        for shared in
            [saved.depth, saved.length, saved.prefixes, saved.more, saved.columns, saved.late, saved.twice]
        {
            assert!(shared * 40 >= saved.programs, "too little was shared: {saved:?}");
        }
        for shared in [saved.generating, saved.going_back] {
            assert!(shared * 100 >= saved.programs, "too little was shared: {saved:?}");
        }
    }
}

/// Sessions for each model in the normal test run.
const SESSIONS: u64 = 12;

/// Sessions, those whose traces went in fewer passes, those in which traces shared rows, and those that failed.
#[derive(Debug, Default)]
struct Together {
    sessions: usize,
    passes: usize,
    tokens: usize,
    failed: usize,
}

/// What differs in what two failed runs keep: whichever of several nodes is reported, it is one of the first trace that fails, and
/// what the traces before it saved is kept.
fn difference_in_what_is_kept(
    run: &Result<Results, Box<Failure>>,
    naive: &Result<Results, Box<Failure>>,
) -> Option<String> {
    let (Err(run), Err(naive)) = (run, naive) else { return None };
    if run.trace != naive.trace {
        return Some(format!("fails in trace {:?} against {:?}", run.trace, naive.trace));
    }
    let (one, other) = (&run.kept.tensors, &naive.kept.tensors);
    let is_same = one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| one.0 == other.0 && same_bits(one.1, other.1));
    (!is_same).then(|| format!("keeps {:?} against {:?}", one.keys(), other.keys()))
}

#[test]
fn traces_that_run_together_give_and_keep_what_they_give_one_after_another() {
    let mut failures: Vec<String> = Vec::new();
    let mut seen = Together::default();
    for (number, (model, engine)) in engines().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        let index = SpecIndex::new(&spec);
        let with = |rewrites: Rewrites| engine.share().with_rewrites(rewrites);
        let engines =
            [with(Rewrites::NONE), with(TRACES), with(Rewrites { traces: false, ..Rewrites::ALL }), engine];
        let engine = &engines[3];
        let first = number_from("PELLUCID_SEED", 1) + number as u64 * 1_000_003;
        for seed in first..first + number_from("PELLUCID_SESSIONS", SESSIONS) {
            let program = |part: u64| {
                // Of some nothing can be told but that they go forward; with the others they are mixed.
                let smooth = !(seed + part).is_multiple_of(3);
                let wishes = Wishes { may_fail: seed % 2 == 0, generation: false, alike: true, smooth };
                Builder::generate(&index, seed * 8 + part, wishes).checked.program
            };
            let programs: Vec<_> = (0..2 + seed % 3).map(program).collect();
            // One comes twice: its rows are the same as far as its first edit.
            let session = in_sequence(&std::iter::once(&programs[0]).chain(&programs).collect::<Vec<_>>());
            let checked = engine.check(session).unwrap_or_else(|faults| panic!("{faults}"));
            let options = RunOptions::default();
            let naive = engine.run_naive_keeping(&checked, &options);
            let outcome = |run: &Result<Results, Box<Failure>>| match run {
                Ok(results) => Ok(results.clone()),
                Err(failure) => Err(failure.error.clone()),
            };
            let runs = engines.each_ref().map(|engine| engine.run_keeping(&checked, &options));
            for (name, run) in ["none", "traces", "all but traces", "all"].iter().zip(&runs) {
                let difference = difference_from_naive(engine, &checked, &outcome(run), &outcome(&naive))
                    .or_else(|| difference_in_what_is_kept(run, &naive));
                if let Some(difference) = difference {
                    failures.push(format!(
                        "{model}, seed {seed}, `{name}`: {difference}\n{}",
                        checked.program.to_json()
                    ));
                }
            }
            seen.sessions += 1;
            seen.failed += usize::from(naive.is_err());
            if let [Ok(none), Ok(traces), Ok(apart), Ok(all)] = &runs {
                seen.passes += usize::from(traces.report.passes < none.report.passes);
                seen.tokens += usize::from(all.report.tokens < apart.report.tokens);
            }
        }
    }
    println!(
        "tried: {} sessions of traces against naive with no rewrite, with traces together alone, with all but that and with all; {} go in \
         fewer passes, {} in fewer tokens, {} fail",
        seen.sessions, seen.passes, seen.tokens, seen.failed
    );
    let shown: Vec<&str> = failures.iter().take(3).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} runs differ. The first:\n{}", failures.len(), shown.join("\n\n"));
    if std::env::var("PELLUCID_MODEL").is_err() {
        for often in [seen.passes, seen.tokens, seen.failed] {
            assert!(often * 20 >= seen.sessions, "too little was seen: {seen:?}");
        }
    }
}
