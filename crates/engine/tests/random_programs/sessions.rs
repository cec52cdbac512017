//! Random sessions against their traces one by one.

use pellucid_engine::{EngineError, RunOptions};
use pellucid_graph::check::{CheckedProgram, SpecIndex};

use crate::random::outcomes::difference;
use crate::random::sessions::{in_sequence, one_by_one};
use crate::random::{Builder, Wishes};
use crate::support::engines;
use crate::{PROGRAMS, finish, report, seeds};

#[test]
fn a_session_gives_what_its_traces_give_one_by_one() {
    let mut failures = Vec::new();
    let (mut sessions, mut uncut) = (0, 0);
    for (number, (model, engine)) in engines().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        let index = SpecIndex::new(&spec);
        for seed in seeds(number, PROGRAMS) {
            let wishes = Wishes { may_fail: false, generation: true, alike: seed % 2 == 0, smooth: false };
            let mut checked = Builder::generate(&index, seed, wishes).checked;
            if seed % 4 < 2 {
                // Traces that do not depend on one another: some of them run together.
                let other = Builder::generate(&index, seed + 500_000, wishes).checked;
                let session = in_sequence(&[&checked.program, &other.program]);
                checked = engine.check(session).unwrap_or_else(|faults| panic!("{faults}"));
            }
            let whole = engine.run(&checked, &RunOptions::default());
            let program = &checked.program;
            let mut faults = None;
            let cut = one_by_one(program, &mut |piece| {
                let checked = engine.check(piece).map_err(|refused| {
                    faults = Some(refused.to_string());
                    EngineError::Internal("refused".into())
                })?;
                engine.run(&checked, &RunOptions::default())
            });
            if let Some(faults) = faults {
                // What comes out of a branch, or of a step that may not be reached, may never come, and then what was there before
                // is seen: the check allows for both. Handed over it is a constant, which surely comes.
                let branches = program.nodes.iter().any(|node| !node.guards.is_empty());
                let steps = program.traces().any(|(_, trace)| trace.generation.is_some());
                if (branches || steps) && faults.contains("so there is no gradient") {
                    uncut += 1;
                    continue;
                }
                report(&mut failures, &model, seed, &format!("a trace alone: {faults}"), &checked);
                continue;
            }
            let cut = cut.filter(|_| !applies_rectangles_of_earlier_traces(&checked));
            let Some(cut) = cut else {
                uncut += usize::from(program.traces().count() > 1);
                continue;
            };
            sessions += 1;
            // Places of nodes are others in a program of its own.
            if whole.is_err() && cut.is_err() {
                continue;
            }
            // What nothing needs is not computed, and so does not fail. Handed to a trace in which nothing needs it, it is.
            if whole.is_ok() && cut.as_ref().is_err_and(|error| is_of_no_use(&checked, error)) {
                sessions -= 1;
                uncut += 1;
                continue;
            }
            if let Some(difference) = difference(&whole, &cut) {
                report(&mut failures, &model, seed, &format!("one by one: {difference}"), &checked);
            }
        }
    }
    println!("{sessions} sessions of several traces, {uncut} more that cannot be cut");
    finish(failures);
    if std::env::var("PELLUCID_MODEL").is_err() {
        assert!(sessions >= 50, "only {sessions} sessions");
    }
}

/// Whether the error is one of a node that nothing needs in the whole program.
fn is_of_no_use(checked: &CheckedProgram, error: &EngineError) -> bool {
    let EngineError::Node(fault) = error else { return false };
    let named =
        checked.program.nodes.iter().position(|node| Some(node.name.as_str()) == fault.node.as_deref());
    named.is_some_and(|place| !checked.nodes[place].needed)
}

/// Whether a module that attends is applied to a rectangle of an earlier trace's unequal prompts: handed over as a constant it
/// is of no invoke, and all its cells are tokens.
fn applies_rectangles_of_earlier_traces(checked: &CheckedProgram) -> bool {
    let applied = checked.nodes.iter().enumerate().filter(|(_, known)| known.lengths.is_some());
    applied.into_iter().any(|(place, known)| {
        let mut open: Vec<usize> = vec![place];
        let mut seen = vec![false; checked.nodes.len()];
        while let Some(place) = open.pop() {
            if checked.nodes[place].trace != known.trace {
                return true;
            }
            if !std::mem::replace(&mut seen[place], true) {
                let values = checked.program.nodes[place].kind.values();
                open.extend(values.into_iter().map(|value| value.node.index()));
            }
        }
        false
    })
}
