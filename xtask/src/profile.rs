//! `cargo xtask profile`: where the time of the experiments goes, by `perf`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::records::Record;
use crate::shell::{Outcome, cargo, run as command, target};

/// How long, and of what.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for which each experiment is repeated while it is looked at.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only experiments with this in their name. Nothing is written.
    #[arg(long)]
    only: Option<String>,
}

/// The models, with random weights, by what `bench_server` calls them.
const MODELS: [(&str, &str); 2] =
    [("GPT-2 small's shape", "layers:12"), ("SmolLM2-135M's shape", "smollm2:30")];

/// What is looked at: its name, and what it is asked of `bench_server` as.
const EXPERIMENTS: [(&str, &str); 8] = [
    ("forward 1 × 128", "forward 1 128"),
    ("decoding, context 128", "decode 128 24"),
    ("patching a head, every cell", "patching 15"),
    ("patching the residual stream", "residual 15"),
    ("attribution patching", "attribution 32"),
    ("logit lens, 100 prompts", "lens 100 15"),
    ("everything kept, 1 × 32", "everything 32"),
    ("steering, 8 prompts", "steering 8 15 50"),
];

/// Into what the time is divided: the column, and what a function's name contains; the first that fits.
const PARTS: [(&str, &[&str]); 8] = [
    (
        "matrix products",
        &["kernels::tile", "kernels::matmul", "kernels::packed", "kernels::quantised", "kernels::operands"],
    ),
    ("attention", &["kernels::attention", "kernels::key_value", "compute::attention"]),
    (
        "element by element, norms, softmax",
        &[
            "kernels::activation",
            "kernels::norm",
            "kernels::elementwise",
            "kernels::reduce",
            "kernels::rotary",
            "kernels::math",
            "kernels::simd",
        ],
    ),
    (
        "waiting for the other thread",
        &["kernels::pool", "sched_yield", "__schedule", "futex", "finish_task_switch"],
    ),
    ("copying and clearing", &["memmove", "memcpy", "memset", "clear_page", "copy_rows", "copy_from_slice"]),
    ("reading, checking, planning", &["pellucid_graph", "serde", "engine::plan", "engine::explain"]),
    (
        "the engine, the program's own operations",
        &["pellucid_engine", "pellucid_models", "pellucid_linalg", "kernels::"],
    ),
    ("memory, the kernel and the rest", &[""]),
];

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if Command::new("perf").arg("--version").stdout(Stdio::null()).status().is_err() {
        return Err(
            "`perf` is needed, which counts where a process is (on Debian: apt-get install linux-perf)"
                .into(),
        );
    }
    let record = Record::begin("Where the time goes", "cargo xtask profile")?;
    command(&mut cargo(&["build", "--release", "--workspace", "--example", "bench_server"]))?;
    let wanted = |name: &str| arguments.only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    let mut text = format!(
        "What part of the samples is where, in percent, while an experiment is repeated for {} s: of both threads, whatever they do.\n\n\
         | experiment | ms, the least | {} |\n| --- | ---: |{}\n",
        arguments.seconds,
        names.join(" | "),
        " ---: |".repeat(names.len())
    );
    let mut largest = String::new();
    for (model, source) in MODELS {
        let mut server = Server::start(source)?;
        writeln!(text, "| **{model}** | |{}", " |".repeat(names.len()))?;
        for (name, request) in EXPERIMENTS.iter().filter(|(name, _)| wanted(name)) {
            let profile = server.profile(request, Duration::from_secs(arguments.seconds))?;
            let parts: Vec<String> = profile.parts.iter().map(|part| format!("{part:.1}")).collect();
            let row = format!("| {name} | {:.1} | {} |", profile.milliseconds, parts.join(" | "));
            println!("{row}");
            writeln!(text, "{row}")?;
            writeln!(largest, "| {model}: {name} | {} |", profile.largest.join(", "))?;
        }
    }
    write!(
        text,
        "\nThe five largest of what is no matrix product:\n\n| experiment | functions, percent |\n| --- | --- |\n{largest}"
    )?;
    match arguments.only {
        Some(_) => println!("\n{text}"),
        None => record.write(&text)?,
    }
    Ok(())
}

/// Where an experiment is.
struct Profile {
    /// The least that it took.
    milliseconds: f64,
    /// Percent of [`PARTS`].
    parts: Vec<f64>,
    largest: Vec<String>,
}

/// `bench_server` with a model.
struct Server {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn start(source: &str) -> Outcome<Server> {
        let mut child = Command::new(target().join("release/examples/bench_server"))
            .arg(source)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(requests), Some(answers)) = (requests, answers) else {
            return Err("it has no pipes".into());
        };
        let mut server = Server { child, requests, answers: BufReader::new(answers) };
        server.answer()?;
        Ok(server)
    }

    fn answer(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)?;
        match answer.get("error") {
            Some(error) => Err(error.to_string().into()),
            None => Ok(answer),
        }
    }

    /// Seconds of one run.
    fn ask(&mut self, request: &str) -> Outcome<f64> {
        writeln!(self.requests, "{request}")?;
        Ok(self.answer()?["seconds"].as_f64().ok_or("an answer without seconds")?)
    }

    fn profile(&mut self, request: &str, time: Duration) -> Outcome<Profile> {
        // What comes only once: pages, buffers, the pool's threads.
        self.ask(request)?;
        let file = target().join("profile.perf");
        let mut perf = Command::new("perf")
            .args(["record", "--quiet", "--freq", "999", "--output"])
            .arg(&file)
            .args(["--pid", &self.child.id().to_string()])
            .spawn()?;
        let (began, mut least) = (Instant::now(), f64::INFINITY);
        while began.elapsed() < time {
            least = least.min(self.ask(request)?);
        }
        // It writes its file when it is interrupted.
        command(Command::new("kill").args(["-INT", &perf.id().to_string()]))?;
        perf.wait()?;
        let mut report = Command::new("perf");
        report.args([
            "report",
            "--no-children",
            "--stdio",
            "--sort",
            "symbol",
            "--field-separator",
            "\t",
            "--input",
        ]);
        let report = report.arg(&file).stderr(Stdio::null()).output()?;
        let _ = std::fs::remove_file(file);
        divided(&String::from_utf8_lossy(&report.stdout), 1000.0 * least)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `perf report` prints, percent and function a line, divided into [`PARTS`].
fn divided(report: &str, milliseconds: f64) -> Outcome<Profile> {
    let mut parts = vec![0.0; PARTS.len()];
    let mut others: BTreeMap<String, f64> = BTreeMap::new();
    for line in report.lines().filter(|line| !line.starts_with('#')) {
        let Some((percent, symbol)) = line.trim().split_once('\t') else { continue };
        let Ok(percent) = percent.trim().trim_end_matches('%').parse::<f64>() else { continue };
        let symbol = symbol.split('\t').next().unwrap_or(symbol).trim();
        let fits = |names: &[&str]| names.iter().any(|name| symbol.contains(name));
        let Some(part) = PARTS.iter().position(|(_, names)| fits(names)) else { continue };
        parts[part] += percent;
        if part > 0 {
            *others.entry(short(symbol)).or_default() += percent;
        }
    }
    let whole: f64 = parts.iter().sum();
    if !(90.0..=101.0).contains(&whole) {
        return Err(format!("`perf report` accounts for {whole:.1} % of the samples").into());
    }
    let mut others: Vec<(String, f64)> = others.into_iter().collect();
    others.sort_by(|a, b| b.1.total_cmp(&a.1));
    let largest = others.iter().take(5).map(|(name, percent)| format!("`{name}` {percent:.1}")).collect();
    Ok(Profile { milliseconds, parts, largest })
}

/// A function's name without what `perf` puts before it, and without the crates' common beginning.
fn short(symbol: &str) -> String {
    let name = symbol.split_once("] ").map_or(symbol, |(_, name)| name);
    name.replace("pellucid_", "").replace('|', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_divided_by_the_function_that_they_are_in() {
        let report = "# comment\n 60.00%\t[.] pellucid_kernels::tile::compiled::avx512\n 30.00%\t[.] pellucid_kernels::pool::Pool::worker\n\
                      6.50%\t[.] __memmove_avx512_unaligned_erms\n 3.50%\t[k] something_else\n";
        let profile = divided(report, 1.0).unwrap();
        assert_eq!(profile.parts, [60.0, 0.0, 0.0, 30.0, 6.5, 0.0, 0.0, 3.5]);
        assert_eq!(profile.largest[0], "`kernels::pool::Pool::worker` 30.0");
        assert!(divided("", 1.0).is_err());
    }
}
