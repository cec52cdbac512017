//! Random programs that arrive, ride, fail, panic and are cancelled at random, in passes of few tokens and of little time: each as it
//! is alone, and as the naive interpreter has it.
//!
//! `PELLUCID_PROGRAMS=N` tries N programs for each model, `PELLUCID_SEED` begins elsewhere, `PELLUCID_MODEL` names one model.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use pellucid_engine::{Admitted, Engine, EngineError, Results, RunOptions, ServeOptions, Ticket};
use pellucid_graph::NodeKind;
use pellucid_graph::check::{CheckedProgram, SpecIndex};

use crate::random::dice::Dice;
use crate::random::outcomes::{difference, difference_from_naive};
use crate::random::sessions::in_sequence;
use crate::random::{Builder, Wishes};
use crate::script::Script;
use crate::support::engines;

/// Programs for each model in the normal test run, and in one play at most.
const PROGRAMS: u64 = 40;

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

thread_local! {
    /// Whether panics on this thread are part of the play.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs something in which panics are part of the play: they are not printed.
pub fn quietly<R>(play: impl FnOnce() -> R) -> R {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let helper = std::thread::current().name().is_none();
            if !EXPECTED.get() && !helper {
                usual(info);
            }
        }));
    });
    EXPECTED.set(true);
    let played = catch_unwind(AssertUnwindSafe(play));
    EXPECTED.set(false);
    match played {
        Ok(played) => played,
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            panic!("{}", text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("panicked"))
        }
    }
}

/// What is done to a program beside its running.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Nothing,
    /// It is cancelled at some pass boundary.
    Cancelled,
    /// It is cancelled in the middle of a pass.
    CancelledInside,
    /// A listener of its panics, at its so-manieth call.
    Panics(usize),
    /// A node of its panics.
    Broken,
    /// It shares no pass.
    Alone,
}

/// A panic inside a node's own evaluation: a program that no checker would let pass.
pub fn broken(checked: &CheckedProgram) -> Option<CheckedProgram> {
    let mut broken = checked.clone();
    let place = broken.program.nodes.iter().position(|node| matches!(node.kind, NodeKind::Apply { .. }))?;
    broken.nodes[place].module = Some(usize::MAX);
    broken.nodes[place].needed.then_some(broken)
}

fn options(fate: Fate, cancel: &Arc<AtomicBool>) -> RunOptions {
    let mut options = RunOptions { cancel: Some(cancel.clone()), ..RunOptions::default() };
    let calls = AtomicUsize::new(0);
    let cancel = cancel.clone();
    match fate {
        Fate::CancelledInside => {
            options.on_progress = Some(Arc::new(move |_| {
                cancel.store(calls.fetch_add(1, Ordering::Relaxed) == 2, Ordering::Relaxed);
            }));
        }
        Fate::Panics(at) => {
            let calls = Arc::new(calls);
            let count = move || assert!(calls.fetch_add(1, Ordering::Relaxed) != at, "seeded");
            let (one, two, three, four) = (count.clone(), count.clone(), count.clone(), count);
            options.on_saved = Some(Arc::new(move |_| one()));
            options.on_log = Some(Arc::new(move |_| two()));
            options.on_token = Some(Arc::new(move |_| three()));
            options.on_progress = Some(Arc::new(move |_| four()));
        }
        _ => {}
    }
    options
}

/// Fates that were met, and how programs with them ended.
#[derive(Default)]
struct Tally(BTreeMap<String, usize>);

impl Tally {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn of(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or(0)
    }
}

type Alone = Vec<(u64, Arc<CheckedProgram>, Result<Results, EngineError>)>;

/// One play of all programs; gives back what breaks the promise.
fn play(engine: &Engine, model: &str, alone: &Alone, seed: u64, tally: &mut Tally) -> Vec<String> {
    let mut dice = Dice::new(seed);
    let serve = ServeOptions {
        pass_ms: *dice.of(&[0.0, 0.02, 0.2, 5.0, 200.0]),
        pass_tokens: *dice.of(&[1, 16, 64, 2048]),
        helper_threads: dice.below(2) as usize,
    };
    let spread = dice.range(1, 40);
    let mut script = Script::default();
    if dice.chance(0.5) {
        script.shuffle = Some(Dice::new(seed + 1));
    }
    let mut fates = Vec::new();
    for (place, (_, program, _)) in alone.iter().enumerate() {
        let mut program = program.clone();
        let cancel = Arc::new(AtomicBool::new(false));
        let mut fate = match dice.below(14) {
            0 => Fate::Cancelled,
            1 => Fate::CancelledInside,
            2 | 3 => Fate::Panics(dice.below(6) as usize),
            4 | 5 => Fate::Broken,
            6 => Fate::Alone,
            _ => Fate::Nothing,
        };
        if fate == Fate::Broken {
            match broken(&program) {
                Some(broken) => program = Arc::new(broken),
                None => fate = Fate::Nothing,
            }
        }
        let arrival = dice.below(spread) as usize;
        if fate == Fate::Cancelled {
            script.cancel(arrival + dice.below(6) as usize, cancel.clone());
        }
        script.arrive(
            arrival,
            Admitted {
                alone: fate == Fate::Alone,
                ..Admitted::new(Ticket(place as u64), program, options(fate, &cancel))
            },
        );
        fates.push(fate);
    }
    let script = quietly(|| script.play(engine, &serve));
    let mut failures = Vec::new();
    for (place, (own, checked, expected)) in alone.iter().enumerate() {
        let outcome = &script.ended[&Ticket(place as u64)].outcome;
        let (fate, told) = (fates[place], format!("{:?}", fates[place]));
        let name = told.split('(').next().unwrap_or_default().to_owned();
        match (fate, outcome) {
            (Fate::Cancelled | Fate::CancelledInside, Err(EngineError::Cancelled)) => tally.count(name),
            (Fate::Panics(_), Err(EngineError::Internal(message))) if message.contains("seeded") => {
                tally.count(name);
            }
            (Fate::Broken, Err(EngineError::Internal(message))) if message.contains("panicked") => {
                tally.count(name);
            }
            // The node is behind a condition that does not hold, or a step that is not reached, or it fails before.
            _ => {
                if let Some(difference) = difference(expected, outcome) {
                    let text = checked.program.to_json();
                    failures.push(format!(
                        "{model}, play {seed} ({serve:?}), program {own}, {fate:?}: {difference}\n{text}"
                    ));
                }
                if let (Ok(one), Ok(other)) = (expected, outcome)
                    && other.report.passes > one.report.passes
                {
                    tally.count("in more passes than alone");
                }
                tally.count(if fate == Fate::Nothing && outcome.is_err() { "fails" } else { "as alone" });
            }
        }
    }
    for (place, fate) in fates.iter().enumerate().filter(|(_, fate)| **fate == Fate::Alone) {
        let shared = script
            .passes
            .iter()
            .any(|pass| pass.programs > 1 && pass.tickets.contains(&Ticket(place as u64)));
        if shared {
            failures.push(format!("{model}, play {seed}: {place} ({fate:?}) shares a pass"));
        }
    }
    for pass in &script.passes {
        if pass.programs > 1 {
            tally.count("shared passes");
        }
        if pass.from > 0 {
            tally.count("passes that begin inside the model");
        }
        if pass.tokens as u64 > serve.pass_tokens && pass.rows > 3 {
            failures.push(format!("{model}, play {seed}: {} tokens in a pass of {serve:?}", pass.tokens));
        }
    }
    failures
}

/// How often each is played, beside the same others in other passes.
const ROUNDS: u64 = 3;

/// A random program, and what it gives alone.
fn alone(
    engine: &Engine,
    index: &SpecIndex<'_>,
    seed: u64,
) -> (Arc<CheckedProgram>, Result<Results, EngineError>) {
    let wishes = Wishes {
        may_fail: seed.is_multiple_of(5),
        generation: true,
        alike: seed.is_multiple_of(2),
        smooth: false,
    };
    let mut checked = Builder::generate(index, seed, wishes).checked;
    if seed.is_multiple_of(3) {
        // A session, of which some traces run together.
        let other = Builder::generate(index, seed + 1_000, wishes).checked;
        let session = in_sequence(&[&checked.program, &other.program, &checked.program]);
        checked = engine.check(session).unwrap_or_else(|faults| panic!("{faults}"));
    }
    let checked = Arc::new(checked);
    let outcome = engine.run(&checked, &RunOptions::default());
    (checked, outcome)
}

#[test]
fn programs_that_come_and_go_give_the_bits_that_they_give_alone() {
    let mut failures = Vec::new();
    let mut tally = Tally::default();
    let mut programs = 0;
    for (number, (model, engine)) in engines().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        let index = SpecIndex::new(&spec);
        let first = number_from("PELLUCID_SEED", 500_001) + number as u64 * 1_000_003;
        let end = first + number_from("PELLUCID_PROGRAMS", PROGRAMS);
        for first in (first..end).step_by(PROGRAMS as usize) {
            let alone: Alone = (first..end.min(first + PROGRAMS))
                .map(|seed| {
                    let (checked, outcome) = alone(&engine, &index, seed);
                    if let Some(difference) =
                        difference_from_naive(&engine, &checked, &outcome, &engine.run_naive(&checked))
                    {
                        let text = checked.program.to_json();
                        failures.push(format!("{model}, program {seed}, alone: {difference}\n{text}"));
                    }
                    (seed, checked, outcome)
                })
                .collect();
            programs += alone.len();
            for round in 0..ROUNDS {
                failures.extend(play(&engine, &model, &alone, first + round, &mut tally));
            }
        }
    }
    println!(
        "tried: {programs} programs, each held to naive, {ROUNDS} times each beside others in passes of 1 to 2048 tokens and 0 to 200 ms; {} runs \
         as alone, of which {} in more passes, {} passes of several programs, {} passes that begin inside the model",
        tally.of("as alone"),
        tally.of("in more passes than alone"),
        tally.of("shared passes"),
        tally.of("passes that begin inside the model")
    );
    println!("{:#?}", tally.0);
    let shown: Vec<&str> = failures.iter().take(3).map(String::as_str).collect();
    assert!(
        failures.is_empty(),
        "{} programs break the promise. The first:\n{}",
        failures.len(),
        shown.join("\n\n")
    );
    if std::env::var("PELLUCID_MODEL").is_err() && number_from("PELLUCID_PROGRAMS", PROGRAMS) >= PROGRAMS {
        for what in [
            "Cancelled",
            "CancelledInside",
            "Panics",
            "Broken",
            "fails",
            "shared passes",
            "passes that begin inside the model",
            "in more passes than alone",
        ] {
            assert!(tally.of(what) >= 10, "too little of `{what}`: {}", tally.of(what));
        }
    }
}
