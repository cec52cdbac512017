//! `cargo xtask crash`: the service is killed at random moments under load; nothing that it acknowledged may be lost or done twice.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use crate::records::Record;
use crate::shell::{Outcome, cargo};

/// How often, and when.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often it is killed.
    #[arg(long, default_value_t = 100)]
    kills: u64,
    /// Of the moments at which it is.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Put what was seen into docs/records.md.
    #[arg(long)]
    record: bool,
}

/// The test, and what its last line has in it.
const TEST: &str = "whatever_was_acknowledged_ends_once_however_often_the_process_dies";
const SUM: &str = " crashes; succeeded by attempts: ";

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let record = Record::begin("Crashes", "cargo xtask crash")?;
    let started = Instant::now();
    let mut test = cargo(&["test", "--workspace", "--test", "service", "--", "--nocapture", TEST]);
    test.env("PELLUCID_CRASHES", arguments.kills.to_string());
    test.env("PELLUCID_SEED", arguments.seed.to_string());
    let mut child = test.stdout(Stdio::piped()).spawn()?;
    let mut sum = None;
    for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
        let line = line?;
        println!("{line}");
        if line.contains(SUM) {
            sum = Some(line);
        }
    }
    if !child.wait()?.success() {
        return Err("a job was lost or done twice, or the test could not be built: see above".into());
    }
    // Without it the test was not there, and nothing was tested.
    let sum = sum.ok_or("the test did not run")?;
    if !arguments.record {
        return Ok(());
    }
    record.write(&format!(
        "`kill -9` at {} random moments (seed {}), half of them once all of before had ended, a quarter within 400 ms of the start, a quarter\n\
         within 200 ms of listening, while four clients of three accounts submit; {:.0} s in all. Every acknowledged job ended once: succeeded, with the\n\
         bytes that an undisturbed service gives, or failed as poisoned, and that only where two attempts had begun and the process had died during both.\n\
         Each is counted once; every job's retries were that job; there is one result of each that succeeded, and no file of nobody.\n\n\
         ```text\n{sum}\n```\n",
        arguments.kills,
        arguments.seed,
        started.elapsed().as_secs_f64()
    ))
}
