//! `cargo xtask test`: everything that must pass before a change lands.

use std::process::Command;
use std::time::Instant;

use crate::records::Record;
use crate::shell::{Outcome, cargo, root, run as command};
use crate::{generate, package, python};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also what needs PyTorch, a browser or hours: golden files made again and compared, then every long command of this
    /// list. Each writes its own record; about three hours on two cores.
    #[arg(long)]
    full: bool,
    /// Of `--full`, leave out these: they can be run by themselves.
    #[arg(long, value_delimiter = ',', requires = "full", value_parser = NAMES)]
    without: Vec<String>,
    /// Leave out what must be downloaded: the tests on SmolLM2-135M, and random numbers made again with numpy.
    #[arg(long, conflicts_with = "full")]
    offline: bool,
}

/// The commands of `--full`, by name.
const LONG: [(&str, &[&str]); 12] = [
    ("smollm2", &["smollm2"]),
    ("browser", &["browser"]),
    ("displays", &["python", "displays"]),
    ("types", &["python", "types"]),
    ("properties", &["python", "properties"]),
    ("differential", &["python", "differential"]),
    ("notebooks", &["python", "notebooks"]),
    ("crash", &["crash", "--record"]),
    ("random", &["random"]),
    ("faults", &["faults"]),
    ("fuzz", &["fuzz", "--seconds", "1800", "--together", "--record"]),
    ("soak", &["soak", "--record"]),
];
/// Their names.
const NAMES: [&str; LONG.len()] = {
    let mut names = [""; LONG.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = LONG[at].0;
        at += 1;
    }
    names
};

/// The instruction-set paths that kernel tests and golden tables are run under, beside the machine's own.
const PATHS: [&str; 2] = ["portable", "avx2"];
/// Those tests. The whole workspace is named, so that its dependencies have the features with which they were built already.
const BY_PATH: [&str; 11] = [
    "--workspace",
    "--test",
    "attention",
    "--test",
    "functions",
    "--test",
    "matmul",
    "--test",
    "rows",
    "--test",
    "golden_models",
];

/// The parts that have run, and how long each took.
#[derive(Default)]
struct Parts(Vec<(&'static str, f64)>);

impl Parts {
    fn part(&mut self, name: &'static str, work: impl FnOnce() -> Outcome) -> Outcome {
        let started = Instant::now();
        work()?;
        self.0.push((name, started.elapsed().as_secs_f64()));
        Ok(())
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for (name, seconds) in &self.0 {
            text.push_str(&format!("{seconds:>8.0} s  {name}\n"));
        }
        text
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let record = Record::begin("Full tests", "cargo xtask test --full")?;
    let mut parts = Parts::default();
    parts.part("format, generated files", || {
        command(&mut cargo(&["fmt", "--all", "--check"]))?;
        generate::check()
    })?;
    parts.part("clippy", || {
        command(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    })?;
    parts.part("documents", || {
        let mut documents =
            cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
        command(documents.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    let model = if arguments.offline { None } else { Some(python::smollm2()?) };
    let folder = if arguments.full { Some(python::smollm2_folder()?) } else { None };
    parts.part("building the tests", || command(tests(&["--workspace"]).arg("--no-run")))?;
    parts.part("tests", || {
        let mut tests = tests(&["--workspace"]);
        // What a test leaves out because the system does not allow it is a failure here.
        tests.env("PELLUCID_ALL_TESTS", "1");
        for (name, path) in [("PELLUCID_SMOLLM2", &model), ("PELLUCID_SMOLLM2_FOLDER", &folder)] {
            if let Some(path) = path {
                tests.env(name, path);
            }
        }
        command(&mut tests)
    })?;
    parts.part("examples in the documents", || {
        command(&mut cargo(&["test", "--workspace", "--doc", "--quiet"]))
    })?;
    parts.part("kernels and golden tables on the other instruction-set paths", || {
        for path in PATHS {
            command(tests(&BY_PATH).env("PELLUCID_ISA", path))?;
        }
        Ok(())
    })?;
    if !arguments.offline {
        parts.part("the Python package", || {
            package::build(false)?;
            package::test(false)
        })?;
        parts.part("random numbers made again with numpy", || {
            let numpy = python::environment("numpy", "golden/requirements-numpy.txt")?;
            command(Command::new(numpy).args(["golden/philox.py", "--check"]).current_dir(root()))
        })?;
    }
    if arguments.full {
        full(arguments, &mut parts, record)?;
    }
    println!("\nAll checks passed.\n\n{}", parts.table());
    Ok(())
}

/// The test runner: nextest where it is installed, else cargo's own.
fn tests(arguments: &[&str]) -> Command {
    let has_nextest = cargo(&["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut runner =
        if has_nextest { cargo(&["nextest", "run"]) } else { cargo(&["test", "--tests", "--bins", "--lib"]) };
    runner.args(arguments);
    runner
}

/// The scripts that make golden files.
const GOLDEN: [&str; 7] = [
    "make_models.py",
    "make_operations.py",
    "make_shapes.py",
    "make_experiments.py",
    "make_adapters.py",
    "make_gguf.py",
    "make_chats.py",
];

/// Golden files made again from their independent sources, and the long runs.
fn full(arguments: &Arguments, parts: &mut Parts, record: Record) -> Outcome {
    parts.part("golden files made again", || {
        let git = |arguments: &[&str]| command(Command::new("git").args(arguments).current_dir(root()));
        git(&["diff", "--quiet", "HEAD", "--", "golden"])
            .map_err(|_| "golden files have changes that are not committed: they would be lost")?;
        let environment = python::environment("golden", "golden/requirements.txt")?;
        let script = |name: &str| {
            command(Command::new(&environment).arg(root().join("golden").join(name)).current_dir(root()))
        };
        let compared = GOLDEN.iter().chain(&["compare.py"]).try_for_each(|name| script(name));
        // What was made here differs in rounding; the tests are held to what the repository has.
        git(&["checkout", "--quiet", "--", "golden"])?;
        compared
    })?;
    // Each as a process of its own, as somebody would run it.
    let own = std::env::current_exe()?;
    for (name, words) in LONG {
        if !arguments.without.iter().any(|without| without == name) {
            parts.part(name, || command(Command::new(&own).args(words).current_dir(root())))?;
        }
    }
    let left_out = match &arguments.without[..] {
        [] => String::new(),
        names => format!(" Left out were {}, whose own records say when they last ran.", names.join(", ")),
    };
    let parts = parts.table();
    record.write(&format!("All checks passed.{left_out} How long the parts took:\n\n```text\n{parts}```\n"))
}
