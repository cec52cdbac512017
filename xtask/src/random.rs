//! `cargo xtask random`: a hundred thousand programs that nobody chose.

use std::path::PathBuf;

use crate::records::Record;
use crate::shell::{Outcome, cargo, output, root, run as command};

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

/// What is tried beside the programs themselves: the test's file and name, and what part of their number.
const ARMS: [(&str, &str, u64); 4] = [
    ("rewrites", "every_rewrite_alone_and_all_together_keep_every_bit", 5),
    ("rewrites", "traces_that_run_together_give_and_keep_what_they_give_one_after_another", 30),
    ("cache", "random_programs_give_the_same_bits_with_a_warm_cache", 8),
    ("serve", "programs_that_come_and_go_give_the_bits_that_they_give_alone", 8),
];

/// With what the line begins in which a test says how much it tried.
const TRIED: &str = "tried: ";

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
    let mut arms = String::new();
    for (file, name, part) in ARMS {
        let mut test = cargo(&["test", "--release", "--workspace", "--test", file]);
        test.args(["--", "--nocapture", name]);
        let many = arguments.programs.div_ceil(part).to_string();
        test.env("PELLUCID_PROGRAMS", &many).env("PELLUCID_SESSIONS", &many);
        let told = output(test.env("PELLUCID_SEED", arguments.seed.to_string()))?;
        // Without it the test was not there, and nothing was tried.
        let tried = told.lines().find_map(|line| Some(line.split_once(TRIED)?.1));
        let tried = tried.ok_or_else(|| format!("`{name}` does not say what it tried"))?;
        arms.push_str(&format!("- `{file}`: {tried}.\n"));
    }
    record.write(&format!(
        "No promise was broken, bit for bit. Beside the programs below, from the same seed:\n\n{arms}\n\
         Planned against naive, alone against beside others, written and read again, from seed {}, {} for each model, and what they were made of:\n\n\
         ```text\n{}\n```\n",
        arguments.seed,
        arguments.programs,
        counts.trim(),
    ))
}
