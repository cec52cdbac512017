//! One account floods a thousand jobs, nineteen others send one each: how long these take, with and without the flood.

use std::time::Instant;

use super::service::Service;
use super::{patching, quantile};
use crate::shell::Outcome;

const FLOOD: usize = 1000;
const OTHERS: usize = 19;
/// How often the others come, without the flood and in its midst.
const ROUNDS: usize = 5;

pub(super) fn measure(source: &str, layers: usize) -> Outcome<String> {
    let service = Service::start(source, true, OTHERS + 1)?;
    let rounds = |rounds: usize, apart: bool| -> Outcome<Vec<f64>> {
        let mut all = Vec::new();
        for round in 0..rounds {
            all.extend(others(&service, round, layers, apart)?);
        }
        all.sort_by(f64::total_cmp);
        Ok(all)
    };
    // Each has sent all that it sends once, so that both times the same of it is in the caches of prefixes.
    rounds(ROUNDS, false)?;
    let (alone, one_alone) = (rounds(ROUNDS, false)?, rounds(1, true)?);
    let flood = service.person(0);
    for round in 0..FLOOD {
        flood.submit(&patching(0, round, layers))?;
    }
    let before = flood.queued()?;
    let (flooded, one_flooded) = (rounds(ROUNDS, false)?, rounds(1, true)?);
    let after = flood.queued()?;
    if after == 0 {
        return Err("the flood was over before the others were done: nothing is measured".into());
    }
    let row = |name: &str, times: &[f64]| {
        let of = |part| quantile(times, part);
        format!("| {name} | {:.1} | {:.1} | {:.1} |\n", of(0.5), of(0.95), of(1.0))
    };
    Ok(format!(
        "One account has {FLOOD} jobs of activation patching waiting; {OTHERS} others send one each. Milliseconds from request to result;\n\
         everybody has sent each of the requests once before anything is counted.\n\
         Of the flood {before} waited when the others came first, {after} when they were done.\n\n\
         | | median | p95 | longest |\n| --- | ---: | ---: | ---: |\n{}{}{}{}",
        row(&format!("{OTHERS} at once, nobody else"), &alone),
        row(&format!("{OTHERS} at once, behind the flood"), &flooded),
        row("one after the other, nobody else", &one_alone),
        row("one after the other, behind the flood", &one_flooded),
    ))
}

/// Everybody but the first sends one job: all at once, or one after the other.
fn others(service: &Service, round: usize, layers: usize, apart: bool) -> Outcome<Vec<f64>> {
    let one = move |number: usize| -> Result<f64, String> {
        let client = service.person(number);
        let sent = Instant::now();
        client.result(&patching(number, round, layers)).map_err(|error| error.to_string())?;
        Ok(sent.elapsed().as_secs_f64() * 1000.0)
    };
    let numbers = 1..=OTHERS;
    let times: Result<Vec<f64>, String> = if apart {
        numbers.map(one).collect()
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> = numbers.map(|number| scope.spawn(move || one(number))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a person panicked".into())))
                .collect()
        })
    };
    Ok(times?)
}
