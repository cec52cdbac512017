//! From the engine back: results written, the attempt's end recorded, whoever waits told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pellucid_client::api::{Fault, Problem, ProblemKind};
use pellucid_engine::{EngineError, Failure, Results, Tensor, Ticket, Usage};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, mpsc};

use super::brief;
use super::house::Report;
use super::queue::Waiting;
use crate::account::exceeded;
use crate::core::Core;
use crate::store::{Ending, Finished, Outcome, StoredJob, StoredResult};
use crate::{files, time};

/// Bytes of a result that may still be in memory when it is asked for by who waits for it.
const FEW_BYTES: usize = 64 << 10;
/// Bytes of a result from which on only one at a time is made ready to be written.
const MANY_BYTES: u64 = 16 << 20;
/// How long the store or the files are left alone when they fail; each time twice as long.
const PAUSES: [u64; 6] = [1, 2, 4, 8, 16, 30];
/// How often a result is tried to be written that alone cannot be, where other files can.
const TRIES: usize = 3;
/// For how long it is tried where no file can be written.
const OUTAGE: Duration = Duration::from_secs(15 * 60);
/// How soon one that waits for the files sees that its owner has cancelled it.
const GLANCE: Duration = Duration::from_millis(100);

/// Takes what engine threads report, for ever.
pub async fn reports(core: Arc<Core>, reports: Arc<Mutex<mpsc::UnboundedReceiver<Report>>>) {
    let mut reports = reports.lock().await;
    while let Some(report) = reports.recv().await {
        match report {
            Report::Left { ticket, outcome, usage } => {
                let bytes = outcome.as_ref().as_ref().map_or_else(|failure| held(&failure.kept), held);
                core.board().left(ticket, usage.measured_ms, bytes);
                core.ring();
                tokio::spawn(left(core.clone(), ticket, *outcome, usage));
            }
            Report::Passed { model, report } => {
                core.history.passed(report.rows as u64, report.tokens as u64, report.measured_ms);
                core.metrics.passed(&model, &report, accounts(&core, &report.tickets));
            }
            Report::Ended { model, tickets } => {
                tracing::error!(model, "the engine's thread has ended by a panic");
                core.registry.lost(&model);
                for ticket in tickets {
                    core.board().left(ticket, 0.0, 0);
                    let error = EngineError::Internal("the engine's thread ended".into());
                    let failure = Failure { error, trace: None, kept: Results::default() };
                    tokio::spawn(left(core.clone(), ticket, Err(Box::new(failure)), Usage::default()));
                }
                core.ring();
            }
        }
    }
}

/// Bytes that a result takes until it is written: as it is, and in one piece.
fn held(results: &Results) -> u64 {
    bytes_of(results).saturating_mul(2)
}

fn bytes_of(results: &Results) -> u64 {
    let saved = results.tensors.values().map(Tensor::bytes_len);
    saved.chain(results.logs.iter().map(|entry| entry.value.bytes_len())).fold(0, u64::saturating_add)
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
        let stop = Stop { cancel: running.cancel.clone(), put_back: running.put_back.clone() };
        (running.waiting.clone(), running.model().to_owned(), running.attempt, stop, overflows)
    });
    let Some((waiting, model, attempt, stop, overflows)) = known else { return };
    let entry = core.registry.get(&model).cloned();
    // What was taken from a cache says nothing of how long it takes to compute.
    if let (Ok(results), Some(entry)) = (&outcome, &entry)
        && results.report.cached_tokens == 0
    {
        entry.learn(&usage);
    }
    core.spans.is_recorded(&waiting.job, usage.passes, usage.tokens, usage.measured_ms);
    let ended = Ended { waiting: &waiting, model: &model, attempt, stop: &stop, overflows };
    let (ending, did, bytes) = ending_of(&core, &ended, outcome, usage).await;
    let again = matches!(ending, Ending::PutBack | Ending::Suspected);
    let suspect = matches!(ending, Ending::Suspected);
    let written = matches!(ending, Ending::Done(_) | Ending::Failed(_, Some(_)));
    let stored = record(&core, &waiting.job, attempt, ending, did, &stop).await;
    if stored.is_none() && written {
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
    match stored {
        // One that its owner has cancelled meanwhile does not run again.
        Some(stored) if !stored.state.is_final() => {
            core.spans.waits(&waiting.job, &model);
            core.board().push(&model, waiting, suspect);
        }
        stored => {
            core.history.ended();
            match stored {
                Some(stored) => core.ended(stored, bytes),
                None => core.tell_end(&waiting.account, &waiting.job).await,
            }
        }
    }
    core.ring();
}

struct Ended<'a> {
    waiting: &'a Waiting,
    model: &'a str,
    attempt: u32,
    stop: &'a Stop,
    overflows: bool,
}

/// Whether a job is to end before its time: its owner's word, or the service's, which ends.
struct Stop {
    cancel: Arc<AtomicBool>,
    put_back: Arc<AtomicBool>,
}

impl Stop {
    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// How it ends then.
    fn ending(&self) -> Ending {
        if self.is_put_back() { Ending::PutBack } else { Ending::Cancelled }
    }

    fn is_put_back(&self) -> bool {
        self.put_back.load(Ordering::Relaxed)
    }
}

/// What became of an attempt, with its result written; and the bytes of that, where they are few.
async fn ending_of(
    core: &Core,
    ended: &Ended<'_>,
    outcome: Result<Results, Box<Failure>>,
    usage: Usage,
) -> (Ending, Outcome, Option<Bytes>) {
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
                return (ended.stop.ending(), did, None);
            }
            let problem = match error {
                // Any of them may be the cause: each runs again, alone.
                EngineError::PassFailed { programs, .. } if programs > 1 => {
                    return (Ending::Suspected, did, None);
                }
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
        return (failed(problem, None), did, None);
    };
    did.saved = brief::saved(&results);
    did.absent = results.absent.iter().take(brief::listed(results.absent.iter())).cloned().collect();
    let began = Instant::now();
    let written = match in_bytes(core, results).await {
        Ok(written) => written,
        Err(problem) => return (failed(Some(*problem), None), did, None),
    };
    if written.bytes.len() > FEW_BYTES {
        // It kept a processor busy as the engine does.
        let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
        core.board().charge(ended.model, ended.waiting, milliseconds);
        core.meters.spend(&ended.waiting.account, milliseconds, time::now_ms());
    }
    let size = written.bytes.len();
    if let Some(bound) = bound
        && size as u64 > bound
    {
        did.saved.clear();
        let too_large =
            exceeded(ProblemKind::ResultTooLarge, "result_bytes", bound as f64, size as f64, "bytes");
        return (failed(Some(problem.unwrap_or(too_large)), None), did, None);
    }
    let few = (size <= FEW_BYTES).then(|| written.bytes.clone());
    match (write(core, ended, written).await, problem) {
        (Written::Stopped, _) => {
            (did.saved, did.absent) = (Vec::new(), Vec::new());
            (ended.stop.ending(), did, None)
        }
        (Written::Whole(result), None) => (Ending::Done(result), did, few),
        (Written::Whole(result), Some(problem)) => (failed(Some(problem), Some(result)), did, few),
        // Why it failed itself says more.
        (Written::Nothing(unwritten), problem) => {
            did.saved.iter_mut().for_each(|saved| saved.values = None);
            (failed(Some(problem.unwrap_or(*unwritten)), None), did, None)
        }
    }
}

/// A result as it is written down.
struct InBytes {
    bytes: Bytes,
    etag: String,
}

/// What is little is written at once; much takes its time beside the threads that wait, very much one after the other.
async fn in_bytes(core: &Core, results: Results) -> Result<InBytes, Box<Problem>> {
    let size = bytes_of(&results);
    let count = results.tensors.len() + results.logs.len() + results.absent.len();
    let write = move || {
        let bytes = results.to_safetensors().map_err(|error| Box::new(internal(&error.to_string())))?;
        let etag = format!("\"{}\"", data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes)));
        Ok(InBytes { bytes: Bytes::from(bytes), etag })
    };
    if count <= brief::SMALL_VALUES && size <= FEW_BYTES as u64 {
        return write();
    }
    // It is never closed.
    let _turn = if size > MANY_BYTES { core.writing.acquire().await.ok() } else { None };
    let written = tokio::task::spawn_blocking(write).await;
    written.unwrap_or_else(|_| Err(Box::new(internal("the result could not be written"))))
}

fn failed(problem: Option<Problem>, result: Option<StoredResult>) -> Ending {
    let mut problem = problem.unwrap_or_else(|| internal("nothing is known of it"));
    brief::shorten(&mut problem);
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

/// What came of writing a result.
enum Written {
    Whole(StoredResult),
    /// It cannot be: why.
    Nothing(Box<Problem>),
    /// The job is to end meanwhile.
    Stopped,
}

/// Writes a result. Where the files fail, it waits and tries again: the result is not lost meanwhile. Where other files can be
/// written and this one cannot, it is too large for the room that is left: that does not go on for ever.
async fn write(core: &Core, ended: &Ended<'_>, written: InBytes) -> Written {
    let job = &ended.waiting.job;
    let InBytes { bytes, etag } = written;
    let key = files::result(job, ended.attempt);
    let (mut failures, mut alone, began) = (0, 0, tokio::time::Instant::now());
    while let Err(error) = core.files.put(&key, bytes.clone()).await {
        tracing::error!(%error, job, "the result cannot be written; it is tried again");
        core.metrics.store_failed();
        // Whoever else writes should not find the disk full again and again: first something small must fit.
        let works = core.files.check().await.is_ok();
        alone = if works { alone + 1 } else { 0 };
        loop {
            if alone >= TRIES || began.elapsed() >= OUTAGE {
                return Written::Nothing(Box::new(unwritten(bytes.len() as u64)));
            }
            if !pause(&mut failures, || ended.stop.is_cancelled()).await {
                return Written::Stopped;
            }
            if works || core.files.check().await.is_ok() {
                break;
            }
        }
    }
    let kept = (core.config.retention.result_hours * 3_600_000.0) as u64;
    let expires_ms = time::now_ms().saturating_add(kept);
    Written::Whole(StoredResult { key, bytes: bytes.len() as u64, etag, expires_ms })
}

fn unwritten(bytes: u64) -> Problem {
    let message = format!("The program has run, but there is no room for its result of {bytes} bytes.");
    let mut problem = Problem::new(ProblemKind::StoreUnavailable, message);
    problem.hint = Some("save less, or submit it again later; whoever runs the service can make room".into());
    problem
}

/// Waits before something is tried again, unless that is to end: whether it is still to be tried.
async fn pause(failures: &mut usize, is_over: impl Fn() -> bool) -> bool {
    let seconds = PAUSES[(*failures).min(PAUSES.len() - 1)];
    *failures += 1;
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    while tokio::time::Instant::now() < until {
        if is_over() {
            return false;
        }
        tokio::time::sleep(GLANCE).await;
    }
    !is_over()
}

/// Records an attempt's end; the job as it is then, if it was still there. Where the store fails, it waits and tries again, until
/// the service ends: the next start finds the attempt without an end then.
async fn record(
    core: &Core,
    job: &str,
    attempt: u32,
    ending: Ending,
    outcome: Outcome,
    stop: &Stop,
) -> Option<StoredJob> {
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
                // One that is cancelled meanwhile has its end all the same. While the service ends, it has little time left.
                if !pause(&mut failures, || stop.is_put_back()).await {
                    tokio::time::sleep(GLANCE).await;
                }
            }
        }
    }
}
