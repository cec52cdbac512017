//! `cargo xtask soak`: the service under mixed good and hostile load for long; its memory must stay flat, and it must go on
//! to do what it should.

mod crowd;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::load::service::Service;
use crate::records::Record;
use crate::shell::{Outcome, cargo, run as command};
use watch::Sample;

/// How long.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Minutes.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// People with good programs.
    #[arg(long, default_value_t = 6)]
    good: usize,
    /// People who try to do harm.
    #[arg(long, default_value_t = 4)]
    hostile: usize,
    /// Put what was seen into docs/records.md.
    #[arg(long)]
    record: bool,
}

/// What was done.
#[derive(Default)]
pub(crate) struct Counts {
    /// Good programs that gave their results.
    pub done: AtomicU64,
    /// Good programs that were told to come later, by a limit.
    pub later: AtomicU64,
    /// Hostile requests that were refused, or did no harm.
    pub hostile: AtomicU64,
}

/// The part of the run at its beginning in which caches fill: what memory is held to comes after it.
const FILLING: f64 = 0.25;
/// How much more the end may hold than the time after the caches are full: a part, and bytes.
const GROWTH: (f64, u64) = (0.05, 8 << 20);

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    command(&mut cargo(&["build", "--release", "--workspace", "--bins"]))?;
    let record = Record::begin("Soak", "cargo xtask soak")?;
    // What is over is forgotten while it runs, so that this is under load too.
    let settings = [
        "retention.result_hours=0.02",
        "retention.job_days=0.002",
        "server.idle_seconds=15",
        "server.header_seconds=15",
    ];
    let people = arguments.good + arguments.hostile;
    let service = Service::start_with("bundled", &settings, people)?;
    let time = Duration::from_secs_f64(arguments.minutes * 60.0);
    let (over, counts, started) = (AtomicBool::new(false), Counts::default(), Instant::now());
    let outcome: Outcome<Vec<Sample>> = std::thread::scope(|scope| {
        let (service, over, counts) = (&service, &over, &counts);
        let mut threads = Vec::new();
        for number in 0..arguments.good {
            threads.push(scope.spawn(move || crowd::good(service, number, over, counts)));
        }
        for number in 0..arguments.hostile {
            threads.push(scope.spawn(move || crowd::hostile(service, arguments.good + number, over, counts)));
        }
        let samples = watch::watch(
            service,
            started,
            time,
            || threads.iter().any(|thread| thread.is_finished()),
            counts,
        );
        over.store(true, Ordering::Relaxed);
        for thread in threads {
            match thread.join() {
                Ok(told) => told?,
                Err(_) => return Err("somebody of the crowd panicked".into()),
            }
        }
        samples
    });
    let samples = outcome?;
    // It is as it was: quick and right.
    service.person(0).result(&crowd::next_token(0))?;
    if service.person(0).get("/readyz")?["status"] != "ok" {
        return Err("it is not ready any more".into());
    }
    let (text, grew) = report(arguments, &samples, &counts, service.again(), started.elapsed());
    println!("\n{text}");
    if arguments.record {
        record.write(&text)?;
    }
    match grew {
        None => Ok(()),
        Some(more) => Err(format!("memory is not flat: {more}").into()),
    }
}

/// The record, and whether memory grew.
fn report(
    arguments: &Arguments,
    samples: &[Sample],
    counts: &Counts,
    again: u64,
    took: Duration,
) -> (String, Option<String>) {
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let filled: Vec<&Sample> =
        samples.iter().filter(|sample| sample.seconds >= FILLING * took.as_secs_f64()).collect();
    let half = filled.len() / 2;
    let mean = |part: &[&Sample], of: fn(&Sample) -> u64| {
        part.iter().map(|sample| of(sample)).sum::<u64>() / part.len().max(1) as u64
    };
    let halves = |of: fn(&Sample) -> u64| (mean(&filled[..half], of), mean(&filled[half..], of));
    let ((before, after), caches) = (halves(|sample| sample.resident), halves(|sample| sample.caches));
    let allowed = before + (before as f64 * GROWTH.0) as u64 + GROWTH.1;
    let mut text = format!(
        "{:.0} minutes, {} people with good programs (patching, generations, gradients; results, events, cancelled and erased jobs) and {}\n\
         who try to do harm (bombs, broken bodies, smuggled heads, connections that are cut or never end).\n\
         {} good programs gave their results, {} were told to come later, {} hostile requests did no harm.\n\
         {again} requests were made again, because their connection was closed without an answer.\n\
         Resident memory: {:.1} MB on the mean of the first half after the caches were full, {:.1} MB of the second half;\n\
         of it caches of prefixes, which have a bound of their own: {:.1} MB and {:.1} MB.\n\n\
         | minute | resident, MB | of it caches, MB | threads | open files | good programs done |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n",
        took.as_secs_f64() / 60.0,
        arguments.good,
        arguments.hostile,
        count(&counts.done),
        count(&counts.later),
        count(&counts.hostile),
        before as f64 / 1e6,
        after as f64 / 1e6,
        caches.0 as f64 / 1e6,
        caches.1 as f64 / 1e6,
    );
    let step = samples.len().div_ceil(16).max(1);
    for sample in samples.iter().step_by(step).chain(samples.last()) {
        text.push_str(&format!(
            "| {:.1} | {:.1} | {:.1} | {} | {} | {} |\n",
            sample.seconds / 60.0,
            sample.resident as f64 / 1e6,
            sample.caches as f64 / 1e6,
            sample.threads,
            sample.files,
            sample.done
        ));
    }
    let grew = (after > allowed)
        .then(|| format!("{:.1} MB, then {:.1} MB", before as f64 / 1e6, after as f64 / 1e6));
    (text, grew)
}
