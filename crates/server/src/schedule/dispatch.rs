//! From the queue into the engine: chosen, recorded, handed over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pellucid_client::api::{Problem, ProblemKind};
use pellucid_engine::Admitted;
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;

use super::board::{Chosen, Running};
use super::clocks::Owner;
use super::house::House;
use super::listen::Listening;
use super::queue::Waiting;
use crate::core::Core;
use crate::models::{Entry, Haste, Held, Outline, UNOPENED};
use crate::{files, time};

/// How often overdue jobs are looked for, and whether there is something to do.
const TICK: Duration = Duration::from_millis(500);
/// How long the store is left alone when it fails.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a model is tried to be loaded before the jobs that wait for it fail.
const LOADS: u32 = 3;

/// Hands a model's jobs to its engine, for ever.
pub async fn dispatch(core: Arc<Core>, entry: Arc<Entry>) {
    let mut failures = 0;
    loop {
        let _ = tokio::time::timeout(TICK, entry.bell.notified()).await;
        while !core.is_draining() {
            let Some(haste) = core.board().turn(entry.id()) else { break };
            // Another has waited long for its room: what waits here goes when this one is loaded again. As long as a long job holds this
            // one all the same, short ones hold up nobody.
            let short_only = haste == Haste::None && entry.makes_way();
            if short_only && !core.board().runs_long(entry.id()) {
                break;
            }
            // From before it is loaded until what begins holds it: nobody gives it up between.
            let held = entry.hold();
            let house = match core.registry.load(&held, &|| core.board().turn(entry.id())).await {
                Ok(house) => house,
                // The registry has said why, in the log.
                Err(_) => {
                    drop(held);
                    failures += 1;
                    if failures >= LOADS {
                        failures = 0;
                        give_up(&core, &entry).await;
                    } else {
                        tokio::time::sleep(PAUSE * 2).await;
                    }
                    continue;
                }
            };
            failures = 0;
            let chosen = core.board().choose(entry.id(), &core.config.engine, short_only);
            if chosen.is_empty() {
                break;
            }
            let mut ready = Vec::with_capacity(chosen.len());
            let mut unread: HashMap<String, Vec<(Waiting, bool)>> = HashMap::new();
            for Chosen { waiting, alone, program } in chosen {
                match program {
                    Some(program) => ready.push((waiting, alone, program)),
                    None => unread.entry(waiting.account.clone()).or_default().push((waiting, alone)),
                }
            }
            for unread in unread.into_values() {
                tokio::spawn(read_again(core.clone(), entry.hold(), unread));
            }
            if !ready.is_empty() {
                begin(&core, &held, &house, ready).await;
            }
        }
    }
}

/// Fails every job that waits for a model that cannot be loaded.
async fn give_up(core: &Core, entry: &Entry) {
    let problem = Problem::new(
        ProblemKind::ModelUnavailable,
        format!("The model `{}` could not be loaded: {UNOPENED}", entry.id()),
    );
    let waiting = core.board().drain(entry.id());
    for waiting in waiting {
        core.refuse(&waiting.account, &waiting.job, &problem).await;
    }
}

/// Fails jobs whose time is over before their turn came, and those that could not be failed before, for ever.
pub async fn overdue(core: Arc<Core>) {
    loop {
        tokio::time::sleep(TICK).await;
        core.settle_again().await;
        let over = core.board().overdue(time::now_ms());
        for waiting in over {
            refuse_late(&core, &waiting).await;
        }
    }
}

async fn refuse_late(core: &Core, waiting: &Waiting) {
    let problem = Problem::new(ProblemKind::DeadlineExceeded, "Its time was over before its turn came.");
    core.refuse(&waiting.account, &waiting.job, &problem).await;
}

/// A chosen job, whether it runs alone, and its program.
type Ready = (Waiting, bool, Arc<CheckedProgram>);

/// Reads and checks the programs of an account's chosen jobs again, one after another, and lets each begin: whatever that takes, nobody
/// who is ready waits for it, nor does another account.
async fn read_again(core: Arc<Core>, held: Held, chosen: Vec<(Waiting, bool)>) {
    let entry = held.entry();
    for (waiting, alone) in chosen {
        match reload(&core, entry, &waiting, alone).await {
            // The engine may have ended meanwhile.
            Ok(program) => match core.registry.load(&held, &|| Some(Haste::None)).await {
                Ok(house) => begin(&core, &held, &house, vec![(waiting, alone, program)]).await,
                Err(_) => again(&core, entry, waiting, alone),
            },
            Err(Unread::ForNow(error)) => {
                tracing::error!(error, job = waiting.job, "its program cannot be read; it is tried again");
                core.metrics.store_failed();
                tokio::time::sleep(PAUSE).await;
                again(&core, entry, waiting, alone);
            }
            Err(Unread::ForEver(problem)) => {
                core.board().unchoose(entry.id(), &waiting, alone);
                core.refuse(&waiting.account, &waiting.job, &problem).await;
            }
        }
    }
    core.ring();
}

/// Records that jobs begin, then lets them; those whose time is over meanwhile fail.
async fn begin(core: &Arc<Core>, held: &Held, house: &House, ready: Vec<Ready>) {
    let entry = held.entry();
    let now = time::now_ms();
    let is_late = |(waiting, ..): &Ready| waiting.deadline_ms.is_some_and(|deadline| deadline <= now);
    let (late, ready): (Vec<Ready>, Vec<Ready>) = ready.into_iter().partition(is_late);
    for (waiting, alone, _) in late {
        core.board().unchoose(entry.id(), &waiting, alone);
        refuse_late(core, &waiting).await;
    }
    let outline = match entry.outline().await {
        Ok(outline) if !core.is_draining() => outline,
        _ => return ready.into_iter().for_each(|(waiting, alone, _)| again(core, entry, waiting, alone)),
    };
    let jobs: Vec<String> = ready.iter().map(|(waiting, ..)| waiting.job.clone()).collect();
    let begun = match core.store.begin(&jobs, time::now_ms()).await {
        Ok(begun) => begun,
        Err(error) => {
            tracing::error!(%error, "jobs cannot be begun");
            tokio::time::sleep(PAUSE).await;
            return ready.into_iter().for_each(|(waiting, alone, _)| again(core, entry, waiting, alone));
        }
    };
    let mut begun = begun.into_iter().peekable();
    let mut admitted = Vec::with_capacity(ready.len());
    for (waiting, alone, program) in ready {
        let Some((_, attempt)) = begun.next_if(|(job, _)| *job == waiting.job) else {
            // Its owner has cancelled it meanwhile.
            core.board().unchoose(entry.id(), &waiting, alone);
            continue;
        };
        let owner = Owner { account: waiting.account.clone(), weight: waiting.weight };
        admitted.push((admit(core, entry, &outline, waiting, alone, attempt, program), owner));
    }
    house.admit(admitted);
}

/// A chosen job waits again.
fn again(core: &Core, entry: &Entry, waiting: Waiting, alone: bool) {
    let mut board = core.board();
    board.unchoose(entry.id(), &waiting, alone);
    board.push(entry.id(), waiting, alone);
}

/// What the engine is given of a job whose attempt is recorded.
fn admit(
    core: &Arc<Core>,
    entry: &Arc<Entry>,
    outline: &Arc<Outline>,
    waiting: Waiting,
    alone: bool,
    attempt: u32,
    program: Arc<CheckedProgram>,
) -> Admitted {
    let job = waiting.job.clone();
    let event_bytes = core.config.admission.event_bytes;
    let channel = core.hub.get(&job).unwrap_or_else(|| core.hub.open(&job, attempt, event_bytes));
    channel.begin(attempt);
    let now = time::now_ms();
    core.metrics.waited(now.saturating_sub(waiting.since_ms) as f64 / 1000.0);
    let seconds = waiting.deadline_ms.map(|deadline| deadline.saturating_sub(now).max(1) as f64 / 1000.0);
    let most = core.config.engine.value_bytes;
    let memory_bytes = waiting.bounds.peak_bytes.map_or(most, |own| own.min(most));
    let (cancel, overflows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let listening = Listening {
        channel,
        outline: outline.clone(),
        cancel: cancel.clone(),
        overflows: overflows.clone(),
        log_bytes: waiting.bounds.result_bytes.unwrap_or(u64::MAX),
        prefixes: core.prefixes.of(&waiting.account),
    };
    let options = listening.options(memory_bytes, seconds);
    tracing::info!(job, model = entry.id(), attempt, alone, "begins");
    core.spans.runs(&job, attempt);
    let (put_back, held) = (Arc::default(), entry.hold());
    let running = Running { waiting, attempt, cancel, put_back, overflows, alone, leaving: 0, held };
    let ticket = core.board().begin(running);
    Admitted { ticket, program, options, alone }
}

/// Why a program could not be read again.
enum Unread {
    /// The store or the files fail: it is there all the same.
    ForNow(String),
    /// It cannot be run any more.
    ForEver(Box<Problem>),
}

/// A job's program, read and checked again: in its account's turn, unless it runs alone.
async fn reload(
    core: &Arc<Core>,
    entry: &Arc<Entry>,
    waiting: &Waiting,
    alone: bool,
) -> Result<Arc<CheckedProgram>, Unread> {
    let job = &waiting.job;
    let lost = |what: &str| {
        let message = format!("Its program cannot be read again: {what}");
        Unread::ForEver(Box::new(Problem::new(ProblemKind::Internal, message)))
    };
    let outline = entry.outline().await;
    let outline = outline.map_err(|_| Unread::ForNow(format!("the model {}: {UNOPENED}", entry.id())))?;
    // For one that runs alone all others wait: it does not wait for what its account has checked meanwhile.
    let turn = if alone { None } else { core.turns.turn(&waiting.account, usize::MAX).await.ok() };
    let inline = core.store.program(job).await.map_err(|error| Unread::ForNow(error.to_string()))?;
    let bytes = match inline {
        Some(bytes) => bytes.into(),
        None => {
            let file = core.files.get(&files::program(job)).await;
            let file = file.map_err(|error| Unread::ForNow(error.to_string()))?;
            file.ok_or_else(|| lost("it is not there"))?
        }
    };
    let checked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let program = Program::from_bytes(&bytes)?;
        outline.engine.check(program)
    });
    match checked.await {
        Ok(Ok(program)) => Ok(Arc::new(program)),
        // It was right when it came: the model is another one now.
        Ok(Err(faults)) => Err(Unread::ForEver(Box::new(Problem::of_faults(&faults)))),
        Err(_) => Err(lost("checking it failed")),
    }
}
