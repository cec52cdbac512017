//! `cargo xtask fuzz`: any bytes at all give a program or an error, quickly.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

use crate::records::Record;
use crate::shell::{Outcome, root, run as command};

/// What to fuzz.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only this target: `program`, `check`, `check_any` or `http_body`; can be given several times.
    #[arg(long)]
    target: Vec<String>,
    /// All targets at the same time, each on a core.
    #[arg(long)]
    together: bool,
    /// Put what was done into docs/records.md.
    #[arg(long)]
    record: bool,
}

/// The targets.
const TARGETS: [&str; 4] = ["program", "check", "check_any", SERVICE];
/// The one that needs the service, and what it is built with.
const SERVICE: &str = "http_body";
const WITH_SERVICE: [&str; 2] = ["--features", "service"];
/// Where fuzzing of bytes begins.
const SEEDS: [&str; 4] = [
    "crates/graph/tests/programs",
    "crates/graph/tests/attacks",
    "crates/graph/tests/attacks/checker",
    "examples",
];
/// An input that takes longer by the clock hangs. A target itself panics on one that takes the processor more than 5 s: see
/// `fuzz/src/lib.rs`.
const HANG_SECONDS: u32 = 60;

/// What one target did.
struct Done {
    target: String,
    seconds: f64,
    executions: u64,
    corpus: usize,
    peak_megabytes: u64,
    ended_well: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let installed = Command::new("cargo")
        .args(["fuzz", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !installed {
        command(Command::new("cargo").args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let targets: Vec<&str> = TARGETS
        .into_iter()
        .filter(|target| arguments.target.is_empty() || arguments.target.iter().any(|only| only == target))
        .collect();
    if targets.is_empty() {
        return Err(format!("there is no such target; there are {}", TARGETS.join(", ")).into());
    }
    for target in &targets {
        let features: &[&str] = if *target == SERVICE { &WITH_SERVICE } else { &[] };
        let mut build = Command::new("cargo");
        command(build.args(["+nightly", "fuzz", "build"]).args(features).arg(target).current_dir(root()))?;
    }
    let record = Record::begin("Fuzzing", "cargo xtask fuzz")?;
    let mut done = Vec::new();
    let mut running: Vec<Running> = Vec::new();
    for target in &targets {
        running.push(Running::start(target, arguments.seconds)?);
        if !arguments.together {
            for one in running.drain(..) {
                done.push(one.finish()?);
            }
        }
    }
    for one in running {
        done.push(one.finish()?);
    }
    let table = table(&done);
    println!("\n{table}");
    if arguments.record {
        record.write(&table)?;
    }
    match done.iter().find(|done| !done.ended_well) {
        None => Ok(()),
        Some(done) => Err(format!(
            "`{}` found an input that crashes or hangs: see the end of {}, and fuzz/artifacts/{}",
            done.target,
            log_of(&done.target).display(),
            done.target
        )
        .into()),
    }
}

struct Running {
    target: String,
    child: Child,
    started: Instant,
}

impl Running {
    fn start(target: &str, seconds: u64) -> Outcome<Running> {
        // What is found goes into the first folder; the tests' own programs and attacks are where it begins.
        let corpus = corpus_of(target);
        std::fs::create_dir_all(root().join(&corpus))?;
        let seeds: &[&str] = if target == "check_any" { &[] } else { &SEEDS };
        let log = log_of(target);
        std::fs::create_dir_all(root().join("target"))?;
        println!("==> fuzzing `{target}` for {seconds} s; what it says goes to {}", log.display());
        let output = File::create(log)?;
        let child = Command::new("cargo")
            .args(["+nightly", "fuzz", "run"])
            .args(if target == SERVICE { WITH_SERVICE.as_slice() } else { &[] })
            .args([target, &corpus])
            .args(seeds)
            .args([
                "--",
                "-dict=fuzz/program.dict",
                "-max_len=20000",
                "-rss_limit_mb=4096",
                "-print_final_stats=1",
            ])
            .args([format!("-max_total_time={seconds}"), format!("-timeout={HANG_SECONDS}")])
            .stdout(output.try_clone()?)
            .stderr(output)
            .current_dir(root())
            .spawn()?;
        Ok(Running { target: target.to_owned(), child, started: Instant::now() })
    }

    fn finish(mut self) -> Outcome<Done> {
        let status = self.child.wait()?;
        let log = std::fs::read_to_string(log_of(&self.target)).unwrap_or_default();
        let statistic = |name: &str| {
            let line = log.lines().rev().find_map(|line| line.trim().strip_prefix(name))?;
            line.trim().parse().ok()
        };
        Ok(Done {
            seconds: self.started.elapsed().as_secs_f64(),
            executions: statistic("stat::number_of_executed_units:").unwrap_or(0),
            peak_megabytes: statistic("stat::peak_rss_mb:").unwrap_or(0),
            corpus: std::fs::read_dir(root().join(corpus_of(&self.target)))?.count(),
            ended_well: status.success(),
            target: self.target,
        })
    }
}

fn corpus_of(target: &str) -> String {
    format!("fuzz/corpus/{target}")
}

fn log_of(target: &str) -> PathBuf {
    root().join(format!("target/fuzz-{target}.log"))
}

fn table(done: &[Done]) -> String {
    let mut text = String::from(
        "| target | seconds | inputs tried | of them kept | peak memory, MB | crashes and hangs |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for one in done {
        text.push_str(&format!(
            "| `{}` | {:.0} | {} | {} | {} | {} |\n",
            one.target,
            one.seconds,
            one.executions,
            one.corpus,
            one.peak_megabytes,
            if one.ended_well { "none" } else { "FOUND" }
        ));
    }
    let total = |of: fn(&Done) -> f64| done.iter().map(of).sum::<f64>();
    text.push_str(&format!(
        "\n{:.0} minutes and {:.0} inputs in all. An input counts as a finding that takes 5 s of the processor (of `{SERVICE}`: that has no answer in 30 s), {HANG_SECONDS} s by the clock, or 4 GB.\n",
        total(|done| done.seconds) / 60.0,
        total(|done| done.executions as f64)
    ));
    text
}
