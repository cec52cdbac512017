//! So many people at once, packed and one at a time.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::service::Service;
use super::{patching, quantile};
use crate::shell::Outcome;

/// What came of so many people.
#[derive(Default)]
pub(super) struct Measured {
    seconds: f64,
    /// Milliseconds, sorted.
    latencies: Vec<f64>,
}

impl Measured {
    /// Jobs a second.
    pub(super) fn throughput(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    pub(super) fn quantile(&self, part: f64) -> f64 {
        quantile(&self.latencies, part)
    }

    fn add(&mut self, other: Measured) {
        self.seconds += other.seconds;
        self.latencies.extend(other.latencies);
        self.latencies.sort_by(f64::total_cmp);
    }
}

/// One number of people.
pub(super) struct Row {
    pub people: usize,
    pub packed: Measured,
    pub single: Measured,
}

impl Row {
    /// Both services in turn.
    pub(super) fn measure(
        packed: &Service,
        single: &Service,
        people: usize,
        turns: usize,
        time: Duration,
        layers: usize,
    ) -> Outcome<Row> {
        let mut row = Row { people, packed: Measured::default(), single: Measured::default() };
        for _ in 0..turns {
            row.packed.add(measure(packed, people, time, layers)?);
            row.single.add(measure(single, people, time, layers)?);
        }
        Ok(row)
    }

    /// The 95th percentile by the fair share: people by throughput.
    fn share(&self) -> f64 {
        self.packed.quantile(0.95) / (1000.0 * self.people as f64 / self.packed.throughput())
    }

    pub(super) fn line(&self) -> String {
        let (packed, single) = (&self.packed, &self.single);
        let times = |one: &Measured| {
            format!("{:.1} | {:.1} | {:.1}", one.quantile(0.5), one.quantile(0.95), one.quantile(0.99))
        };
        format!(
            "| {} | {:.1} | {:.1} | {:.2} | {} | {:.2} | {} |",
            self.people,
            packed.throughput(),
            single.throughput(),
            packed.throughput() / single.throughput(),
            times(packed),
            self.share(),
            times(single)
        )
    }
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| people | jobs/s packed | one at a time | ratio | p50 packed | p95 | p99 | p95 by fair share | p50 one at a time | p95 | p99 |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        text.push_str(&row.line());
        text.push('\n');
    }
    text + "\n"
}

/// What is aimed at, and what came out.
pub(super) fn aims(rows: &[Row]) -> String {
    const RATIO: f64 = 5.0;
    const SHARE: f64 = 1.3;
    let Some(row) = rows.iter().find(|row| row.people == super::MANY) else { return String::new() };
    let ratio = row.packed.throughput() / row.single.throughput();
    let beyond = rows.iter().filter(|row| row.share() > SHARE).map(|row| row.people.to_string());
    let beyond = beyond.collect::<Vec<_>>().join(", ");
    let share = match beyond.is_empty() {
        true => "met for every number of people".to_owned(),
        false => format!("missed for {beyond} people"),
    };
    format!(
        "At {} people packing gives {ratio:.2} times the throughput of one at a time (aim: {RATIO}, {}). That the p95 is at most {SHARE} of the\n\
         fair share is {share}.\n\n",
        row.people,
        if ratio >= RATIO { "met" } else { "missed" },
    )
}

/// The part of a turn at its beginning that is not counted: the queue is filling.
const FILLING: f64 = 0.25;

/// Requests that everybody sends before anything is counted: all that are different.
const WARMING: usize = 11;

/// So many people, each sending the next as soon as it has the last. Counted is what came back in the turn's time after the queue
/// has filled: everybody goes on to its end, so that the load is the same all the while.
pub(super) fn measure(service: &Service, people: usize, time: Duration, layers: usize) -> Outcome<Measured> {
    let barrier = Barrier::new(people);
    let filled = time.mul_f64(FILLING);
    let all: Result<Vec<Vec<f64>>, String> = std::thread::scope(|scope| {
        let person = |number: usize| {
            let barrier = &barrier;
            scope.spawn(move || {
                let client = service.person(number);
                let ask = |round: usize| {
                    client.result(&patching(number, round, layers)).map_err(|error| error.to_string())
                };
                // Who fails is waited for all the same.
                let warm = (0..WARMING).try_for_each(|round| ask(round).map(drop));
                barrier.wait();
                warm?;
                let began = Instant::now();
                let (mut latencies, mut round) = (Vec::new(), 0);
                while began.elapsed() < time {
                    let sent = Instant::now();
                    ask(round)?;
                    round += 1;
                    if (filled..time).contains(&began.elapsed()) {
                        latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
                    }
                }
                Ok(latencies)
            })
        };
        let threads: Vec<_> = (0..people).map(person).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a person panicked".into())))
            .collect()
    });
    let mut latencies: Vec<f64> = all?.into_iter().flatten().collect();
    latencies.sort_by(f64::total_cmp);
    Ok(Measured { seconds: (time - filled).as_secs_f64(), latencies })
}
