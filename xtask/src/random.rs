//! `cargo xtask random`: a hundred thousand programs that nobody chose.

use std::path::PathBuf;

use crate::records::Record;
use crate::shell::{Outcome, cargo, root, run as command};

/// How many, and which.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where random programs begin: the same seed gives the same programs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Random programs for each model.
    #[arg(long, default_value_t = 6000)]
    programs: u64,
}

/// Runs the promises that hold for every program on many, in release, and records what they were made of.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let record = Record::begin("Random programs", "cargo xtask random")?;
    let printed: PathBuf = root().join("target/random-programs.txt");
    let _ = std::fs::remove_file(&printed);
    let mut tests = cargo(&["test", "--release", "--workspace", "--test", "random_programs"]);
    tests.env("PELLUCID_PROGRAMS", arguments.programs.to_string());
    tests.env("PELLUCID_SEED", arguments.seed.to_string()).env("PELLUCID_COVERAGE", &printed);
    command(&mut tests)?;
    let counts = std::fs::read_to_string(printed)?;
    record.write(&format!(
        "No promise was broken. From seed {}, {} for each model, and what they were made of:\n\n```text\n{}\n```\n",
        arguments.seed,
        arguments.programs,
        counts.trim(),
    ))
}
