//! Each rewrite of the planner by itself, and all together: bit for bit what the naive interpreter gives, in fewer tokens.
//!
//! `PELLUCID_PROGRAMS=N` tries N programs for each model, `PELLUCID_SEED` begins elsewhere, `PELLUCID_MODEL` names one model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "support/random/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod random;
mod support;

use pellucid_engine::{Engine, EngineError, Failure, Results, Rewrites, RunOptions};
use pellucid_graph::check::{CheckedProgram, SpecIndex};

use random::outcomes::{difference_from_naive, difference_in_what_is_kept};
use random::sessions::in_sequence;
use random::{Builder, Wishes};
use support::engines;

/// Programs for each model in the normal test run.
const PROGRAMS: u64 = 60;

const DEPTH: Rewrites = Rewrites { depth: true, ..Rewrites::NONE };
const LENGTH: Rewrites = Rewrites { depth: true, length: true, ..Rewrites::NONE };
const PREFIXES: Rewrites = Rewrites { prefixes: true, ..Rewrites::NONE };
const TRACES: Rewrites = Rewrites { traces: true, ..Rewrites::NONE };

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

fn tokens(outcome: &Result<Results, EngineError>) -> Option<u64> {
    outcome.as_ref().ok().map(|results| results.report.tokens)
}

type Kept = Result<Results, Box<Failure>>;

/// Programs whose tokens a rewrite made fewer.
#[derive(Debug, Default)]
struct Saved {
    programs: usize,
    depth: usize,
    length: usize,
    prefixes: usize,
    more: usize,
    sessions: usize,
    /// Sessions whose traces went in fewer passes, and those in which rows of several traces were shared.
    together: usize,
    shared: usize,
    failed: usize,
}

#[test]
fn every_rewrite_alone_and_all_together_keep_every_bit() {
    let mut failures: Vec<String> = Vec::new();
    let mut saved = Saved::default();
    for (number, (model, engine)) in engines().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        let index = SpecIndex::new(&spec);
        let with = |rewrites: Rewrites| engine.share().with_rewrites(rewrites);
        let (none, depth, length, prefixes) =
            (with(Rewrites::NONE), with(DEPTH), with(LENGTH), with(PREFIXES));
        let (traces, apart) = (with(TRACES), with(Rewrites { traces: false, ..Rewrites::ALL }));
        let mut crowd: Vec<(CheckedProgram, Result<Results, EngineError>)> = Vec::new();
        let first = number_from("PELLUCID_SEED", 1) + number as u64 * 1_000_003;
        for seed in first..first + number_from("PELLUCID_PROGRAMS", PROGRAMS) {
            let wishes = Wishes { may_fail: seed % 7 == 0, generation: true, alike: true, smooth: false };
            let checked = Builder::generate(&index, seed, wishes).checked;
            let naive = engine.run_naive(&checked);
            let run = |engine: &Engine| engine.run(&checked, &RunOptions::default());
            let planned = [&none, &depth, &length, &prefixes, &engine].map(run);
            for (name, outcome) in ["none", "depth", "length", "prefixes", "all"].iter().zip(&planned) {
                if let Some(difference) = difference_from_naive(&engine, &checked, outcome, &naive) {
                    failures.push(format!(
                        "{model}, seed {seed}: rewrites `{name}`: {difference}\n{}",
                        checked.program.to_json()
                    ));
                }
            }
            let counts: Vec<u64> = planned.iter().filter_map(tokens).collect();
            if let [none, depth, length, prefixes, all] = counts[..] {
                saved.programs += 1;
                saved.depth += usize::from(depth != none);
                saved.length += usize::from(length != depth);
                saved.prefixes += usize::from(prefixes < none);
                saved.more += usize::from(all < length);
            }
            crowd.push((checked, naive));
            if crowd.len() == 4 {
                let options = RunOptions::default();
                let programs: Vec<_> = crowd.iter().map(|(checked, _)| (checked, &options)).collect();
                for ((checked, naive), outcome) in crowd.iter().zip(engine.run_together(&programs)) {
                    if let Some(difference) = difference_from_naive(&engine, checked, &outcome, naive) {
                        failures.push(format!(
                            "{model}, near seed {seed}, beside others: {difference}\n{}",
                            checked.program.to_json()
                        ));
                    }
                }
                // The same programs as one session.
                let session = in_sequence(&crowd.iter().map(|(checked, _)| &checked.program).collect::<Vec<_>>());
                let checked = engine.check(session).unwrap_or_else(|faults| panic!("{faults}"));
                let naive = engine.run_naive_keeping(&checked, &options);
                let runs = [&none, &traces, &apart, &engine].map(|engine| engine.run_keeping(&checked, &options));
                for (name, run) in ["none", "traces", "all but traces", "all"].iter().zip(&runs) {
                    let told = |outcome: &Kept| outcome.clone().map_err(|failure| failure.error);
                    let (run, naive) = (&run, &naive);
                    let difference = difference_from_naive(&engine, &checked, &told(run), &told(naive));
                    if let Some(difference) = difference.or_else(|| difference_in_what_is_kept(run, naive)) {
                        failures.push(format!(
                            "{model}, session near seed {seed}, `{name}`: {difference}\n{}",
                            checked.program.to_json()
                        ));
                    }
                }
                saved.sessions += 1;
                saved.failed += usize::from(naive.is_err());
                if let [Ok(none), Ok(traces), Ok(apart), Ok(all)] = &runs {
                    saved.together += usize::from(traces.report.passes < none.report.passes);
                    saved.shared += usize::from(all.report.tokens < apart.report.tokens);
                }
                crowd.clear();
            }
        }
    }
    println!("{saved:?}");
    let shown: Vec<&str> = failures.iter().take(3).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} runs differ. The first:\n{}", failures.len(), shown.join("\n\n"));
    if std::env::var("PELLUCID_MODEL").is_err() && saved.programs > 200 {
        for shared in [saved.depth, saved.length, saved.prefixes, saved.more] {
            assert!(shared * 40 >= saved.programs, "too little was shared: {saved:?}");
        }
        assert!(saved.together * 2 >= saved.sessions - saved.failed, "too few ran together: {saved:?}");
        assert!(saved.failed * 20 >= saved.sessions, "too few failed: {saved:?}");
    }
}
