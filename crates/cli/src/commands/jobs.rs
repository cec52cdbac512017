//! `pellucid jobs` and `pellucid cancel`.

use std::io::Write;

use pellucid::client::api::{Job, JobQuery, JobState};
use pellucid::client::{Client, Ended};

use crate::arguments::{Cancel, Jobs, State};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::remote::{self, Bar};
use crate::text;

/// Shows one's own jobs at a service, or one of them.
pub(crate) fn jobs(jobs: &Jobs, out: &mut dyn Write) -> Result<(), Failure> {
    let client = remote::client(&jobs.remote)?;
    match &jobs.job {
        Some(id) => one(&client, id, jobs, out),
        None => list(&client, jobs, out),
    }
}

fn list(client: &Client, jobs: &Jobs, out: &mut dyn Write) -> Result<(), Failure> {
    let query = JobQuery { limit: Some(jobs.limit), after: jobs.after.clone(), state: jobs.state.map(state) };
    let list = client.jobs(&query)?;
    if jobs.json {
        return super::write_json(&list, out);
    }
    if list.jobs.is_empty() {
        writeln!(out, "no jobs")?;
        return Ok(());
    }
    let titles = ["job", "state", "model", "submitted", "ms", "label"].map(str::to_owned);
    let rows: Vec<[String; 6]> = list.jobs.iter().map(row).collect();
    text::write_table(&titles, &rows, out)?;
    if let Some(next) = list.next {
        writeln!(out, "\nthere are older ones: --after {next}")?;
    }
    Ok(())
}

fn row(job: &Job) -> [String; 6] {
    let state = match &job.queue {
        Some(place) => format!("{}, {} ahead", job.state, place.position),
        None => job.state.to_string(),
    };
    let milliseconds = job.milliseconds.map_or_else(|| "-".to_owned(), text::number);
    let label = job.label.as_deref().map(|label| text::fit(label, 40).trim_end().to_owned());
    [job.id.clone(), state, job.model.clone(), time(&job.created_at), milliseconds, label.unwrap_or_default()]
}

fn one(client: &Client, id: &str, jobs: &Jobs, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(path) = &jobs.output else {
        let job = client.job(id)?;
        return if jobs.json { super::write_json(&job, out) } else { draw(&job, out) };
    };
    // Ctrl-C ends the waiting, not the job: it was submitted by another command, to go on.
    let _interrupt = Interrupt::listen()?;
    let bar = Bar::new();
    let job = client.job(id)?;
    let Ended { job, result, .. } = client.follow(job, &mut |update| bar.show(&update), None)?;
    let saved = result.map(|result| {
        bar.say(&format!("downloading {}", text::bytes(result.length())));
        result.save(path)
    });
    bar.clear();
    let Some(job) = job else { return Ok(()) };
    match saved {
        Some(saved) => saved?,
        // Says why there is none.
        None if job.error.is_none() => drop(client.result(&job)?),
        None => {}
    }
    if jobs.json {
        super::write_json(&job, out)?;
        return has_succeeded(&job);
    }
    draw(&job, out)?;
    if job.result.is_some() {
        writeln!(out, "written to {}", path.display())?;
    }
    has_succeeded(&job)
}

/// Who waited for a job's result goes on as after a run of its own.
fn has_succeeded(job: &Job) -> Result<(), Failure> {
    match &job.error {
        Some(problem) => Err(Failure::Message(format!("{} has failed: {}", job.id, problem.title))),
        None => Ok(()),
    }
}

fn draw(job: &Job, out: &mut dyn Write) -> Result<(), Failure> {
    let label = job.label.as_ref().map_or(String::new(), |label| format!(" ({label})"));
    writeln!(out, "{}{label}: {} on {}", job.id, job.state, job.model)?;
    writeln!(out, "submitted {}", time(&job.created_at))?;
    if let Some(place) = &job.queue {
        let seconds = place.ahead_milliseconds / 1000.0;
        writeln!(out, "{} jobs ahead, about {}", place.position, text::duration(seconds))?;
    }
    if let Some(started) = &job.started_at {
        let attempt = if job.attempts > 1 { format!(", attempt {}", job.attempts) } else { String::new() };
        writeln!(out, "started   {}{attempt}", time(started))?;
    }
    if let Some(progress) = &job.progress {
        writeln!(out, "in pass {}, {:.0} % of it done", progress.passes.max(1), 100.0 * progress.part)?;
    }
    if let Some(finished) = &job.finished_at {
        writeln!(out, "ended     {}", time(finished))?;
    }
    if let (Some(milliseconds), passes, tokens) = (job.milliseconds, job.passes, job.tokens) {
        let passes = passes.map_or(String::new(), |passes| format!(", passes: {passes}"));
        let tokens = tokens.map_or(String::new(), |tokens| format!(", tokens: {tokens}"));
        writeln!(out, "took {} ms of the engine{passes}{tokens}", text::number(milliseconds))?;
    }
    for saved in &job.saved {
        writeln!(out, "  {}  {} {:?}, {}", saved.name, saved.dtype, saved.shape, text::bytes(saved.bytes))?;
    }
    for name in &job.absent {
        writeln!(out, "  {name}  absent: its step or its branch did not run")?;
    }
    if let Some(result) = &job.result {
        let until = time(&result.expires_at);
        let what = if result.partial { "what the traces before the failure saved" } else { "result" };
        writeln!(out, "{what}: {}, kept until {until}", text::bytes(result.bytes))?;
    }
    if let Some(problem) = &job.error {
        let inside = problem.trace.as_ref().map_or(String::new(), |trace| format!("\n  in trace `{trace}`"));
        writeln!(out, "{}: {problem}{inside}", problem.title)?;
    }
    Ok(())
}

/// Cancels jobs.
pub(crate) fn cancel(cancel: &Cancel, out: &mut dyn Write) -> Result<(), Failure> {
    let client = remote::client(&cancel.remote)?;
    for id in &cancel.jobs {
        if cancel.erase {
            client.erase(id)?;
            writeln!(out, "{id}: erased")?;
            continue;
        }
        let job = client.cancel(id)?;
        match job.state {
            JobState::Cancelled => writeln!(out, "{id}: cancelled")?,
            state if state.is_final() => writeln!(out, "{id}: had ended already ({state})")?,
            _ => writeln!(out, "{id}: will end at its next pass")?,
        }
    }
    Ok(())
}

fn state(state: State) -> JobState {
    match state {
        State::Queued => JobState::Queued,
        State::Running => JobState::Running,
        State::Succeeded => JobState::Succeeded,
        State::Failed => JobState::Failed,
        State::Cancelled => JobState::Cancelled,
    }
}

/// A time for people: `2026-01-31 12:00:00 UTC`.
pub(crate) fn time(time: &str) -> String {
    match time.get(..19) {
        Some(seconds) if time.ends_with('Z') => format!("{} UTC", seconds.replace('T', " ")),
        _ => time.to_owned(),
    }
}
