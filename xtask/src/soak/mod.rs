//! `cargo xtask soak`: the service under mixed good and hostile load for long; its memory must stay flat, and it must go on
//! to do what it should.

mod crowd;
mod flat;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::load::service::Service;
use crate::records::Record;
use crate::shell::{Outcome, cargo, run as command};
use flat::{Flatness, megabytes};
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
    let cores = std::thread::available_parallelism()?.get() as u64;
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
    let flatness = Flatness::of(&samples, cores);
    let text = report(arguments, &samples, &flatness, &counts, service.again(), started.elapsed());
    println!("\n{text}");
    if arguments.record {
        record.write(&text)?;
    }
    match flatness.fault() {
        None => Ok(()),
        Some(fault) => Err(fault.into()),
    }
}

fn report(
    arguments: &Arguments,
    samples: &[Sample],
    flatness: &Flatness,
    counts: &Counts,
    again: u64,
    took: Duration,
) -> String {
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let mut text = format!(
        "{:.0} minutes, {} people with good programs (patching, generations, gradients; results, events, cancelled and erased jobs) and {}\n\
         who try to do harm (bombs, broken bodies, smuggled heads, connections that are cut or never end).\n\
         {} good programs gave their results, {} were told to come later, {} hostile requests did no harm.\n\
         {again} requests were made again, because their connection was closed without an answer.\n\
         {}\n\
         | minute | resident, MB | of it caches, MB | threads | open files | good programs done |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n",
        took.as_secs_f64() / 60.0,
        arguments.good,
        arguments.hostile,
        count(&counts.done),
        count(&counts.later),
        count(&counts.hostile),
        flatness.text(),
    );
    let step = samples.len().div_ceil(16).max(1);
    for sample in samples.iter().step_by(step).chain(samples.last()) {
        text.push_str(&format!(
            "| {:.1} | {:.1} | {:.1} | {} | {} | {} |\n",
            sample.seconds / 60.0,
            megabytes(sample.resident),
            megabytes(sample.caches),
            sample.threads,
            sample.files,
            sample.done
        ));
    }
    text
}
