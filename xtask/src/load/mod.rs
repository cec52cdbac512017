//! `cargo xtask load`: how the service does under many people, packed and one at a time; whether one's flood holds up others;
//! what a run at a service costs beyond one here.

mod fairness;
mod model;
mod overhead;
mod people;
mod plot;
pub(crate) mod service;

use std::time::Duration;

use serde_json::{Value, json};

use crate::records::Record;
use crate::shell::{Outcome, cargo, root, run as command};
use people::Row;
use service::Service;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds of one turn, for each number of people.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Turns: packed and one at a time take them one after the other.
    #[arg(long, default_value_t = 2)]
    turns: usize,
    /// The numbers of people.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64, 100])]
    people: Vec<usize>,
    /// Only whether one's flood holds up others.
    #[arg(long, conflicts_with = "overhead")]
    fairness: bool,
    /// Only what a run at a service costs beyond one here.
    #[arg(long)]
    overhead: bool,
    /// On the bundled model instead of one of GPT-2 small's shape: to see that it runs.
    #[arg(long)]
    quick: bool,
    /// Put what came out into docs/benchmarks.md.
    #[arg(long)]
    record: bool,
}

/// Where the table and the plot go.
const DOCUMENT: &str = "docs/benchmarks.md";

/// Room for all people's caches of prefixes.
const PREFIX_BYTES: u64 = 2 << 30;

/// The number of people for which there is an aim, and at which it is measured too what the caches are worth.
const MANY: usize = 32;

/// Tokens of the model of GPT-2 small's shape; the bundled one has fewer.
const VOCABULARY: u64 = 2_000;

/// The paper's activation patching: a clean and a corrupted prompt of 10 to 20 tokens, one layer's residual stream carried over at
/// the last position, and two logits there.
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

/// The value below which a part of sorted values lies.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    command(&mut cargo(&["build", "--release", "--workspace", "--bins"]))?;
    let (source, layers) = if arguments.quick { ("bundled".to_owned(), 4) } else { (model::folder()?, 12) };
    let before = machine()?;
    if arguments.fairness {
        let text = format!("{}\n{before}\n", fairness::measure(&source, layers)?);
        println!("\n{text}");
        return finish(
            arguments,
            Record::begin_in(DOCUMENT, "Fairness", "cargo xtask load --fairness")?,
            &text,
        );
    }
    if arguments.overhead {
        let text = format!("{}\n{before}\n", overhead::measure(&source, layers)?);
        println!("\n{text}");
        return finish(
            arguments,
            Record::begin_in(DOCUMENT, "Here and at a service", "cargo xtask load --overhead")?,
            &text,
        );
    }
    let record = Record::begin_in(DOCUMENT, "Many people", "cargo xtask load")?;
    let most = arguments.people.iter().copied().max().unwrap_or(1);
    let time = Duration::from_secs(arguments.seconds);
    // Without a number of bytes: as a service is that nobody has configured.
    let measured = |prefix_bytes: Option<u64>, numbers: &[usize]| -> Outcome<Vec<Row>> {
        let start = |packing: bool| {
            let bytes = prefix_bytes.map(|bytes| format!("engine.prefix_bytes={bytes}"));
            let settings: Vec<String> =
                std::iter::once(format!("engine.packing={packing}")).chain(bytes).collect();
            Service::start_with(&source, &settings.iter().map(String::as_str).collect::<Vec<_>>(), most)
        };
        let (packed, single) = (start(true)?, start(false)?);
        let mut rows: Vec<Row> = Vec::new();
        for &number in numbers {
            let row = Row::measure(&packed, &single, number, arguments.turns, time, layers)?;
            println!("{}", row.line());
            rows.push(row);
        }
        Ok(rows)
    };
    let rows = measured(Some(PREFIX_BYTES), &arguments.people)?;
    let some = |wanted: &[usize]| -> Vec<usize> {
        arguments.people.iter().copied().filter(|number| wanted.contains(number)).collect()
    };
    println!("with the caches of prefixes that a service has by default:");
    let by_default = measured(None, &some(&[MANY, most]))?;
    println!("without caches of prefixes:");
    let uncached = measured(Some(0), &some(&[MANY]))?;
    let text = format!(
        "One person is a closed loop of activation patching on prompts of 10 to 20 tokens, one layer after another: it sends the next as\n\
         soon as it has the last. Its two texts stay the same, so that most of each prompt is in its account's cache of prefixes (`engine.prefix_bytes` is\n\
         {} MiB); everybody has sent each of the different requests once before anything is counted. Times are milliseconds from request to result; the fair\n\
         share is that of the service's time, packed: people by jobs a second. Packed and one at a time took turns of {} s, of which the first quarter, in which\n\
         the queue fills, is not counted.\n\n{}{}{}{before}\n\n![Throughput and latency against people](load.svg)\n",
        PREFIX_BYTES >> 20,
        arguments.seconds,
        people::table(&rows) + &people::aims(&rows),
        if by_default.is_empty() {
            String::new()
        } else {
            "With the room for caches of prefixes that a service has by default:\n\n".to_owned()
                + &people::table(&by_default)
                + &people::aims(&by_default)
        },
        if uncached.is_empty() {
            String::new()
        } else {
            "Without caches of prefixes every request brings about thirty tokens, which keep two cores busy by themselves:\n\n".to_owned()
                + &people::table(&uncached)
        }
    );
    println!("\n{text}");
    if arguments.record {
        std::fs::write(root().join("docs/load.svg"), plot::of(&rows))?;
    }
    finish(arguments, record, &text)
}

fn finish(arguments: &Arguments, record: Record, text: &str) -> Outcome {
    if arguments.record { record.write(text) } else { Ok(()) }
}

/// What the machine is, and how much it does besides.
fn machine() -> Outcome<String> {
    let cores = std::thread::available_parallelism()?;
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": an unknown processor");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    Ok(format!(
        "{}, {cores} cores for the service and for everybody who asks it. Load of the machine in the minute before: {load}.",
        name.trim_start_matches(['\t', ' ', ':'])
    ))
}
