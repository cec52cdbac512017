//! From the engine back: results written, the attempt's end recorded, whoever waits told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use pellucid_client::api::{Fault, Problem, ProblemKind, Saved};
use pellucid_engine::{EngineError, Failure, Results, Tensor, Ticket, Usage};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::house::Report;
use super::listen;
use super::queue::Waiting;
use crate::account::exceeded;
use crate::core::Core;
use crate::store::{Ending, Finished, Outcome, StoredResult};
use crate::{files, time};

/// Values of a result's small tensors that are kept with its job, at most.
const SMALL_VALUES: usize = 256;
/// Saved values that are listed with a job, at most.
const LISTED: usize = 1_000;
/// How long the store or the files are left alone when they fail; each time twice as long.
const PAUSES: [u64; 6] = [1, 2, 4, 8, 16, 30];

/// Takes what engine threads report, for ever.
pub async fn reports(core: Arc<Core>, mut reports: mpsc::UnboundedReceiver<Report>) {
    while let Some(report) = reports.recv().await {
        match report {
            Report::Left { ticket, outcome, usage } => {
                core.board().left(ticket, usage.measured_ms);
                core.ring();
                tokio::spawn(left(core.clone(), ticket, *outcome, usage));
            }
            Report::Passed { model, report } => {
                core.history.passed(report.rows as u64, report.measured_ms);
                core.metrics.passed(&model, &report, accounts(&core, &report.tickets));
            }
            Report::Ended { model, tickets } => {
                tracing::error!(model, "the engine's thread has ended by a panic");
                core.registry.lost(&model);
                for ticket in tickets {
                    core.board().left(ticket, 0.0);
                    let error = EngineError::Internal("the engine's thread ended".into());
                    let failure = Failure { error, trace: None, kept: Results::default() };
                    tokio::spawn(left(core.clone(), ticket, Err(Box::new(failure)), Usage::default()));
                }
                core.ring();
            }
        }
    }
}

fn accounts(core: &Core, tickets: &[Ticket]) -> usize {
    let board = core.board();
    let mut accounts: Vec<&str> =
        tickets.iter().filter_map(|&ticket| Some(board.running(ticket)?.waiting.account.as_str())).collect();
    accounts.sort_unstable();
    accounts.dedup();
    accounts.len()
}

/// A job has left its engine.
async fn left(core: Arc<Core>, ticket: Ticket, outcome: Result<Results, Box<Failure>>, usage: Usage) {
    let known = core.board().running(ticket).map(|running| {
        let overflows = running.overflows.load(Ordering::Relaxed);
        (running.waiting.clone(), running.model.clone(), running.attempt, running.put_back, overflows)
    });
    let Some((waiting, model, attempt, put_back, overflows)) = known else { return };
    let entry = core.registry.get(&model).cloned();
    if let (Ok(_), Some(entry)) = (&outcome, &entry) {
        entry.learn(waiting.flops, usage.measured_ms);
    }
    core.spans.is_recorded(&waiting.job, usage.passes, usage.tokens, usage.measured_ms);
    let ended = Ended { waiting: &waiting, attempt, put_back, overflows };
    let (ending, did) = ending_of(&core, &ended, outcome, usage).await;
    let again = matches!(ending, Ending::PutBack | Ending::Suspected);
    let suspect = matches!(ending, Ending::Suspected);
    let written = matches!(ending, Ending::Done(_) | Ending::Failed(_, Some(_)));
    if !record(&core, &waiting.job, attempt, ending, did).await && written {
        // The job was erased meanwhile.
        let _ = core.files.delete(&files::result(&waiting.job, attempt)).await;
    }
    core.board().end(ticket);
    tracing::info!(
        job = waiting.job,
        model,
        attempt,
        milliseconds = usage.measured_ms,
        again,
        "has left the engine"
    );
    let stored =
        if again { core.store.job(&waiting.account, &waiting.job).await.ok().flatten() } else { None };
    match stored {
        // One that its owner has cancelled meanwhile does not run again.
        Some(stored) if !stored.state.is_final() => {
            core.spans.waits(&waiting.job, &model);
            core.board().push(&model, waiting, suspect);
        }
        _ => {
            core.history.ended();
            core.tell_end(&waiting.account, &waiting.job).await;
            if let Some(entry) = entry {
                entry.release();
            }
        }
    }
    core.ring();
}

struct Ended<'a> {
    waiting: &'a Waiting,
    attempt: u32,
    put_back: bool,
    overflows: bool,
}

/// What became of an attempt, with its result written.
async fn ending_of(
    core: &Core,
    ended: &Ended<'_>,
    outcome: Result<Results, Box<Failure>>,
    usage: Usage,
) -> (Ending, Outcome) {
    let mut did = Outcome {
        milliseconds: usage.measured_ms,
        passes: usage.passes,
        tokens: usage.tokens,
        ..Outcome::default()
    };
    let bound = ended.waiting.bounds.result_bytes;
    let (results, problem) = match outcome {
        Ok(results) => (Some(results), None),
        Err(failure) => {
            let Failure { error, trace, kept } = *failure;
            if error == EngineError::Cancelled && !ended.overflows {
                return (if ended.put_back { Ending::PutBack } else { Ending::Cancelled }, did);
            }
            let problem = match error {
                // Any of them may be the cause: each runs again, alone.
                EngineError::PassFailed { programs, .. } if programs > 1 => return (Ending::Suspected, did),
                EngineError::Cancelled => {
                    let bound = bound.unwrap_or(0) as f64;
                    exceeded(ProblemKind::ResultTooLarge, "result_bytes", bound, bound + 1.0, "bytes")
                }
                error => problem_of(&error, trace),
            };
            let empty = kept.tensors.is_empty() && kept.logs.is_empty();
            ((!empty && !ended.overflows).then_some(kept), Some(problem))
        }
    };
    let Some(results) = results else {
        return (failed(problem, None), did);
    };
    core.metrics.cached(results.report.cached_tokens);
    did.saved = saved(&results);
    did.absent = results.absent.iter().take(LISTED).cloned().collect();
    let written = match tokio::task::spawn_blocking(move || results.to_safetensors()).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return (failed(Some(internal(&error.to_string())), None), did),
        Err(_) => return (failed(Some(internal("the result could not be written")), None), did),
    };
    if let Some(bound) = bound
        && written.len() as u64 > bound
    {
        did.saved.clear();
        let too_large = exceeded(
            ProblemKind::ResultTooLarge,
            "result_bytes",
            bound as f64,
            written.len() as f64,
            "bytes",
        );
        return (failed(Some(problem.unwrap_or(too_large)), None), did);
    }
    let result = write(core, &ended.waiting.job, ended.attempt, written).await;
    match problem {
        None => (Ending::Done(result), did),
        Some(problem) => (failed(Some(problem), Some(result)), did),
    }
}

fn failed(problem: Option<Problem>, result: Option<StoredResult>) -> Ending {
    let problem = problem.unwrap_or_else(|| internal("nothing is known of it"));
    Ending::Failed(Box::new(problem), result)
}

fn internal(message: &str) -> Problem {
    Problem::new(ProblemKind::Internal, message)
}

/// The problem of a run that failed.
fn problem_of(error: &EngineError, trace: Option<String>) -> Problem {
    let mut problem = match error {
        EngineError::Node(fault) => {
            let mut problem = Problem::new(ProblemKind::RunFailed, fault.message.clone());
            problem.faults = vec![Fault::from(fault.as_ref())];
            problem
        }
        EngineError::DeadlineExceeded { .. } => {
            Problem::new(ProblemKind::DeadlineExceeded, error.to_string())
        }
        EngineError::MemoryExceeded { needed, allowed } => {
            let mut problem =
                exceeded(ProblemKind::MemoryExceeded, "peak_bytes", *allowed as f64, *needed as f64, "bytes");
            problem.detail = Some(error.to_string());
            problem
        }
        error => internal(&error.to_string()),
    };
    problem.trace = trace;
    problem
}

/// The saved values, in short; small ones whole, as long as they are not too many.
fn saved(results: &Results) -> Vec<Saved> {
    let mut left = SMALL_VALUES;
    let short = |(name, tensor): (&String, &Tensor)| {
        let mut saved = listen::saved(name, tensor);
        let count = saved.values.as_ref().map_or(0, Vec::len);
        if count > left {
            saved.values = None;
        } else {
            left -= count;
        }
        saved
    };
    results.tensors.iter().take(LISTED).map(short).collect()
}

/// Writes a result. Where the files fail, it waits and tries again: the result is not lost meanwhile.
async fn write(core: &Core, job: &str, attempt: u32, written: Vec<u8>) -> StoredResult {
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&written));
    let (key, bytes) = (files::result(job, attempt), Bytes::from(written));
    let mut failures = 0;
    while let Err(error) = core.files.put(&key, bytes.clone()).await {
        tracing::error!(%error, job, "the result cannot be written; it is tried again");
        core.metrics.store_failed();
        pause(&mut failures).await;
    }
    let kept = (core.config.retention.result_hours * 3_600_000.0) as u64;
    let expires_ms = time::now_ms().saturating_add(kept);
    StoredResult { key, bytes: bytes.len() as u64, etag: format!("\"{digest}\""), expires_ms }
}

async fn pause(failures: &mut usize) {
    let seconds = PAUSES[(*failures).min(PAUSES.len() - 1)];
    *failures += 1;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Records an attempt's end; whether the job was still there. Where the store fails, it waits and tries again.
async fn record(core: &Core, job: &str, attempt: u32, ending: Ending, outcome: Outcome) -> bool {
    let mut failures = 0;
    loop {
        let finished = Finished {
            job: job.to_owned(),
            attempt,
            ending: ending.clone(),
            outcome: outcome.clone(),
            at_ms: time::now_ms(),
        };
        match core.store.finish(finished).await {
            Ok(recorded) => return recorded,
            Err(error) => {
                tracing::error!(%error, job, "its end cannot be recorded; it is tried again");
                core.metrics.store_failed();
                pause(&mut failures).await;
            }
        }
    }
}
