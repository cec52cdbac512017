//! `cargo xtask load`: how the service does under many people, packed and one at a time, and whether one's flood holds up others.

mod model;
mod service;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::records::Record;
use crate::shell::{Outcome, cargo, run as command};
use service::Service;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for each number of people.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The numbers of people.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64, 100])]
    people: Vec<usize>,
    /// On the bundled model instead of one of GPT-2 small's shape: to see that it runs.
    #[arg(long)]
    quick: bool,
    /// Put the table into docs/records.md.
    #[arg(long)]
    record: bool,
}

/// Tokens of the model of GPT-2 small's shape; the bundled one has fewer.
const VOCABULARY: u64 = 2_000;

/// The paper's activation patching: a clean and a corrupted prompt of 10 to 20 tokens, one layer's residual stream carried over at
/// the last position, and the difference of two logits there.
fn patching(person: usize, round: usize, layers: usize) -> Value {
    let length = 10 + (person * 7 + round * 3) % 11;
    let tokens = |which: usize| -> Vec<u64> {
        (0..length)
            .map(|place| (person * 7919 + which * 104_729 + place * 13 + 17) as u64 % VOCABULARY)
            .collect()
    };
    let hook = format!("layers.{}.output", (person + round) % (layers - 1));
    json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [
        { "name": "clean", "tokens": [tokens(0)] }, { "name": "corrupted", "tokens": [tokens(1)] } ], "body": [
        { "op": "get", "name": "source", "invoke": "clean", "hook": hook },
        { "op": "get", "name": "target", "invoke": "corrupted", "hook": hook },
        { "op": "getitem", "name": "carried", "input": "source", "index": [":", -1] },
        { "op": "index_put", "name": "patched", "input": "target", "index": [":", -1], "values": "carried" },
        { "op": "set", "invoke": "corrupted", "hook": hook, "value": "patched" },
        { "op": "get", "name": "logits", "invoke": "corrupted", "hook": "logits" },
        { "op": "getitem", "name": "pair", "input": "logits", "index": [0, -1, "0:2"] },
        { "op": "save", "name": "pair_logits", "value": "pair" } ] }] })
}

/// What came of so many people.
#[derive(Default)]
struct Measured {
    /// Jobs a second.
    throughput: f64,
    /// Milliseconds, sorted.
    latencies: Vec<f64>,
}

impl Measured {
    fn quantile(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    command(&mut cargo(&["build", "--release", "--package", "pellucid-cli"]))?;
    let record = Record::begin("Load", "cargo xtask load")?;
    let (source, layers) = if arguments.quick { ("bundled".to_owned(), 4) } else { (model::folder()?, 12) };
    let most = arguments.people.iter().copied().max().unwrap_or(1).max(20);
    let packed = Service::start(&source, true, most)?;
    let single = Service::start(&source, false, most)?;
    let mut table = String::from(
        "One person is a closed loop of activation patching on prompts of 10 to 20 tokens; times are milliseconds from request to result.\n\n\
         | people | jobs/s packed | one at a time | ratio | p50 packed | p95 | p99 | p50 one at a time | p95 | p99 |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for service in [&packed, &single] {
        measure(service, 1, Duration::from_secs(2), layers)?;
    }
    for &people in &arguments.people {
        let time = Duration::from_secs(arguments.seconds);
        let (one, other) = (measure(&packed, people, time, layers)?, measure(&single, people, time, layers)?);
        let row = format!(
            "| {people} | {:.1} | {:.1} | {:.2} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |\n",
            one.throughput,
            other.throughput,
            one.throughput / other.throughput,
            one.quantile(0.5),
            one.quantile(0.95),
            one.quantile(0.99),
            other.quantile(0.5),
            other.quantile(0.95),
            other.quantile(0.99)
        );
        print!("{row}");
        table.push_str(&row);
    }
    drop(single);
    table.push_str(&fairness(&packed, layers)?);
    println!("\n{table}");
    if arguments.record { record.write(&table) } else { Ok(()) }
}

/// So many people, each sending the next as soon as it has the last.
fn measure(service: &Service, people: usize, time: Duration, layers: usize) -> Outcome<Measured> {
    let barrier = Barrier::new(people);
    let started = Instant::now();
    let all: Result<Vec<Vec<f64>>, String> = std::thread::scope(|scope| {
        let person = |number: usize| {
            let barrier = &barrier;
            scope.spawn(move || {
                let client = service.person(number);
                barrier.wait();
                let began = Instant::now();
                let mut latencies = Vec::new();
                while began.elapsed() < time {
                    let sent = Instant::now();
                    client
                        .result(&patching(number, latencies.len(), layers))
                        .map_err(|error| error.to_string())?;
                    latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
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
    Ok(Measured { throughput: latencies.len() as f64 / started.elapsed().as_secs_f64(), latencies })
}

/// Nineteen people send one job each, alone and behind a flood of a thousand.
fn fairness(service: &Service, layers: usize) -> Outcome<String> {
    let others = |when: &str| -> Outcome<String> {
        let times: Result<Vec<f64>, String> = std::thread::scope(|scope| {
            let one = |number: usize| {
                scope.spawn(move || {
                    let client = service.person(number);
                    let sent = Instant::now();
                    client.result(&patching(number, 0, layers)).map_err(|error| error.to_string())?;
                    Ok(sent.elapsed().as_secs_f64() * 1000.0)
                })
            };
            let threads: Vec<_> = (1..20).map(one).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a person panicked".into())))
                .collect()
        });
        let mut latencies = times?;
        latencies.sort_by(f64::total_cmp);
        let measured = Measured { latencies, ..Measured::default() };
        Ok(format!("| {when} | {:.1} | {:.1} |\n", measured.quantile(0.5), measured.quantile(1.0)))
    };
    let mut text = String::from(
        "\nFairness: nineteen people send one job each, at once; milliseconds from request to result.\n\n| | median | longest |\n| --- | ---: | ---: |\n",
    );
    others("warm up")?;
    text.push_str(&others("alone")?);
    let flood = service.person(0);
    for round in 0..1000 {
        flood.submit(&patching(0, round, layers))?;
    }
    let waiting = flood.queued()?;
    text.push_str(&others(&format!("behind a flood of 1000 of another's, of which {waiting} still wait"))?);
    Ok(text)
}
