//! A whole run: submitted, waited for, cancelled.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ureq::http::{Method, StatusCode};

use crate::api::{
    Event, IDEMPOTENCY_HEADER, JOB_HEADER, JSON, Job, JobState, QueuePlace, RunProgress, SAFETENSORS,
    Submission,
};
use crate::client::{Client, media_type};
use crate::download::Download;
use crate::error::{Error, Result};
use crate::retry::{Backoff, Watch, is_cancelled};
use crate::send::{Fate, Request};

/// Seconds that the service is asked to hold its answer back for, where nobody wants to know how far the run is: most runs
/// are done by then.
const WAIT_SECONDS: u64 = 1;
/// How often it is looked whether the run is to be cancelled.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a job that was cancelled is waited for: it ends at its next pass.
const CANCELLING: Duration = Duration::from_secs(10);
/// How long the last request of these is waited for at least.
const LAST: Duration = Duration::from_secs(2);

/// How far a run is.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update {
    /// The service has it: from now on it is not lost.
    Submitted(Box<Job>),
    /// Something happened to it.
    Happened(Event),
    /// Something failed, and is tried again after a pause.
    Retrying {
        /// What failed.
        error: String,
        /// The pause.
        pause: Duration,
    },
}

/// In words, for a person.
impl fmt::Display for Update {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Update::Submitted(job) => match &job.queue {
                Some(place) => queued(place, formatter),
                None => write!(formatter, "{}", job.state),
            },
            Update::Happened(Event::Queued(place)) => queued(place, formatter),
            Update::Happened(Event::Running(started)) if started.attempt > 1 => {
                write!(formatter, "running, attempt {}", started.attempt)
            }
            Update::Happened(Event::Running(_)) => formatter.write_str("running"),
            Update::Happened(Event::Progress(progress)) => running(progress, formatter),
            Update::Happened(event) => formatter.write_str(event.name()),
            Update::Retrying { error, pause } => {
                write!(formatter, "{error}; trying again in {:.0} s", pause.as_secs_f64().ceil())
            }
        }
    }
}

fn queued(place: &QueuePlace, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    match place.position {
        0 => formatter.write_str("queued: next"),
        1 => formatter.write_str("queued: 1 job ahead"),
        jobs => write!(formatter, "queued: {jobs} jobs ahead"),
    }?;
    let seconds = place.ahead_milliseconds / 1000.0;
    if seconds >= 1.0 { write!(formatter, ", about {seconds:.0} s") } else { Ok(()) }
}

fn running(progress: &RunProgress, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(formatter, "running: pass {}", progress.passes.max(1))?;
    match (progress.layer, progress.layers) {
        (Some(layer), Some(layers)) => write!(formatter, ", layer {layer} of {layers}"),
        _ => write!(formatter, ", {:.0} %", 100.0 * progress.part),
    }
}

/// A run that has ended, well or not.
#[derive(Debug)]
pub struct Ended {
    /// The job's id.
    pub id: String,
    /// The job, as it ended; none: it succeeded at once, and only its result came.
    pub job: Option<Box<Job>>,
    /// Its result: of a job that failed, what the traces before the failure saved, where that is anything.
    pub result: Option<Download>,
}

impl Ended {
    /// How it ended.
    pub fn state(&self) -> JobState {
        self.job.as_ref().map_or(JobState::Succeeded, |job| job.state)
    }
}

impl Client {
    /// Submits a program and gives the job, without waiting for it. Tried again it stays one job.
    ///
    /// # Errors
    /// [`Error::Refused`]: the program is wrong, or more than one may use; [`Error::Unreachable`].
    pub fn submit(&self, program: &[u8], submission: &Submission) -> Result<Job> {
        let request = submission_of(program, submission)?.header("accept", JSON);
        self.sender.json(&request, &mut Watch::new(None, &mut |_, _| {}))
    }

    /// Runs a program: submits it, waits until it has ended, and gives its result, whatever the network does meanwhile.
    /// Once `cancel` is set, the job is cancelled.
    ///
    /// # Errors
    /// [`Error::Refused`]: the program is wrong, or more than one may use; [`Error::Unreachable`]; [`Error::Cancelled`], where
    /// it was cancelled before it was a job, or did not end in time. A job that failed or was cancelled is no error here: see
    /// [`Ended::state`].
    pub fn run(
        &self,
        program: &[u8],
        submission: &Submission,
        updates: &mut dyn FnMut(Update),
        cancel: Option<&Arc<AtomicBool>>,
    ) -> Result<Ended> {
        let job = match self.begin(program, submission, 0, updates, cancel)? {
            Begun::Job(job) => job,
            Begun::Ended(ended) => return Ok(*ended),
        };
        self.follow(*job, updates, cancel)
    }

    /// [`Client::run`] for whom only the result matters: of a short run it comes with the answer to its submission.
    ///
    /// # Errors
    /// Those of [`Client::run`].
    pub fn run_quietly(
        &self,
        program: &[u8],
        submission: &Submission,
        cancel: Option<&Arc<AtomicBool>>,
    ) -> Result<Ended> {
        match self.begin(program, submission, WAIT_SECONDS, &mut |_| {}, cancel)? {
            Begun::Job(job) => self.follow(*job, &mut |_| {}, cancel),
            Begun::Ended(ended) => Ok(*ended),
        }
    }

    fn begin(
        &self,
        program: &[u8],
        submission: &Submission,
        wait_seconds: u64,
        updates: &mut dyn FnMut(Update),
        cancel: Option<&Arc<AtomicBool>>,
    ) -> Result<Begun> {
        let accept = if wait_seconds > 0 { format!("{SAFETENSORS}, {JSON}") } else { JSON.to_owned() };
        let request = submission_of(program, submission)?.header("accept", accept);
        let waiting = request.clone().waiting(wait_seconds);
        let mut retrying = |error: &Error, pause: Duration| {
            updates(Update::Retrying { error: error.to_string(), pause });
        };
        let mut watch = Watch::new(cancel.map(Arc::as_ref), &mut retrying);
        let begun = self.sender.send(&waiting, &mut watch, |answer| {
            let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
            if answer.status() != StatusCode::OK || header("content-type") != Some(SAFETENSORS) {
                return Ok(Begun::Job(self.sender.read_json(answer)?));
            }
            let id = header(JOB_HEADER).map(str::to_owned);
            let download = id.and_then(|id| Download::begun(self.sender.clone(), &id, answer));
            let Some(download) = download else {
                return Err(Fate::Final(
                    self.sender.protocol("a result without its job, length or etag".to_owned()),
                ));
            };
            let result = Some(download.cancelled_by(cancel.cloned()));
            let id = result.as_ref().map(|result| result.job().to_owned()).unwrap_or_default();
            Ok(Begun::Ended(Box::new(Ended { id, job: None, result })))
        });
        let arrived = watch.may_have_arrived;
        if matches!(begun, Err(Error::Cancelled)) && arrived {
            // There may be a job of whose id nothing is known here; the same key finds it.
            self.call_off(&request);
        }
        begun
    }

    /// Cancels the job of a submission that may have arrived, of whatever id; while the service cannot be reached it is tried again, as
    /// long as a job that was cancelled is waited for.
    fn call_off(&self, submission: &Request<'_>) {
        let mut backoff = Backoff::new();
        loop {
            // What is begun at the end of that time does not hold whoever cancels up for long either.
            let within = |request: Request<'_>| {
                let silence = CANCELLING.saturating_sub(backoff.elapsed()).max(LAST);
                self.sender.once(&Request { silence, ..request })
            };
            let job = within(submission.clone()).and_then(|answer| self.sender.read_json::<Job>(answer));
            let cancelled =
                job.and_then(|job| within(Request::new(Method::DELETE, crate::client::job_path(&job.id))));
            let Err(Fate::Again { after, .. }) = cancelled else { return };
            let Some(pause) = backoff.pause(CANCELLING, after) else { return };
            std::thread::sleep(pause);
        }
    }

    /// Waits until a job has ended.
    ///
    /// # Errors
    /// Those of [`Client::run`].
    pub fn follow(
        &self,
        job: Job,
        updates: &mut dyn FnMut(Update),
        cancel: Option<&Arc<AtomicBool>>,
    ) -> Result<Ended> {
        if job.state.is_final() {
            return Ok(self.ended(Box::new(job), cancel));
        }
        let mut events = self.events(&job.id);
        let id = job.id.clone();
        updates(Update::Submitted(Box::new(job)));
        let mut give_up: Option<Instant> = None;
        loop {
            if is_cancelled(cancel.map(Arc::as_ref)) && give_up.is_none() {
                give_up = Some(Instant::now() + CANCELLING);
                let job = self.cancel(&id)?;
                if job.state.is_final() {
                    return Ok(self.ended(Box::new(job), None));
                }
            }
            if give_up.is_some_and(|give_up| Instant::now() > give_up) {
                return Err(Error::Cancelled);
            }
            let event = events.next_within(GLANCE).map_err(|error| left_alone(error, &id))?;
            if let Some((error, pause)) = events.retrying() {
                updates(Update::Retrying { error: error.to_string(), pause });
            }
            match event {
                Some(Event::Done(job)) => {
                    // What was cancelled may all the same have a result, which is not to be cancelled again.
                    let cancel = if give_up.is_some() { None } else { cancel };
                    return Ok(self.ended(job, cancel));
                }
                Some(event) => updates(Update::Happened(event)),
                None => {}
            }
        }
    }

    fn ended(&self, job: Box<Job>, cancel: Option<&Arc<AtomicBool>>) -> Ended {
        let result = job
            .result
            .as_ref()
            .map(|result| Download::new(self.sender.clone(), &job.id, result).cancelled_by(cancel.cloned()));
        Ended { id: job.id.clone(), job: Some(job), result }
    }
}

/// Whoever loses the service while it runs a job is told which.
fn left_alone(error: Error, id: &str) -> Error {
    match error {
        Error::Unreachable { address, reason, patience, .. } => {
            Error::Unreachable { address, reason, patience, job: Some(id.to_owned()) }
        }
        error => error,
    }
}

/// What an answer to a submission is.
enum Begun {
    Job(Box<Job>),
    Ended(Box<Ended>),
}

/// A submission, with a key of its own by which the service knows it again.
fn submission_of<'a>(program: &'a [u8], submission: &Submission) -> Result<Request<'a>> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| Error::System(std::io::Error::other(error.to_string())))?;
    let key: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Request::new(Method::POST, "/v1/jobs")
        .query(submission)
        .header(IDEMPOTENCY_HEADER, key)
        .body(media_type(program), program))
}
