//! `cargo xtask fuzz`: any bytes at all give a program or an error, quickly.

use std::process::Command;

use crate::shell::{Outcome, root, run as command};

/// What to fuzz.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// One target only: `program`, `check` or `check_any`.
    #[arg(long)]
    target: Option<String>,
}

/// The targets, and the slowest that one input may be.
const TARGETS: [&str; 3] = ["program", "check", "check_any"];
/// Where fuzzing of bytes begins.
const SEEDS: [&str; 3] =
    ["crates/graph/tests/programs", "crates/graph/tests/attacks", "crates/graph/tests/attacks/checker"];
const SLOWEST_SECONDS: u32 = 5;

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let installed = Command::new("cargo")
        .args(["fuzz", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !installed {
        command(Command::new("cargo").args(["install", "--locked", "cargo-fuzz"]))?;
    }
    for target in
        TARGETS.iter().filter(|target| arguments.target.as_deref().is_none_or(|only| only == **target))
    {
        let (seconds, slowest) =
            (format!("-max_total_time={}", arguments.seconds), format!("-timeout={SLOWEST_SECONDS}"));
        // What is found goes into the first folder; the tests' own programs and attacks are where it begins.
        let corpus = format!("fuzz/corpus/{target}");
        std::fs::create_dir_all(root().join(&corpus))?;
        let bytes = *target != "check_any";
        let seeds: &[&str] = if bytes { &SEEDS } else { &[] };
        command(
            Command::new("cargo")
                .args(["+nightly", "fuzz", "run", target, &corpus])
                .args(seeds)
                .args([
                    "--",
                    "-dict=fuzz/program.dict",
                    "-max_len=20000",
                    &seconds,
                    &slowest,
                    "-rss_limit_mb=4096",
                    "-print_final_stats=1",
                ])
                .current_dir(root()),
        )?;
    }
    Ok(())
}
