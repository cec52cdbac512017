//! `cargo xtask test`: everything that must pass before a change lands.

use std::process::Command;

use crate::shell::{Outcome, cargo, root, run as command};
use crate::{generate, python};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also what needs PyTorch or hours: golden files made again and compared, long random-program runs.
    #[arg(long)]
    full: bool,
    /// Leave out what must be downloaded: the tests on SmolLM2-135M.
    #[arg(long)]
    offline: bool,
}

/// The instruction-set paths that kernel tests and golden tables are run under, beside the machine's own.
const PATHS: [&str; 2] = ["portable", "avx2"];

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    command(&mut cargo(&["fmt", "--all", "--check"]))?;
    command(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    command(
        cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    generate::check()?;
    let model = if arguments.offline { None } else { Some(python::smollm2()?) };
    let with_model = |tests: &mut Command| {
        if let Some(model) = &model {
            tests.env("PELLUCID_SMOLLM2", model);
        }
    };
    let mut tests = tests(&["--workspace"]);
    with_model(&mut tests);
    command(&mut tests)?;
    command(&mut cargo(&["test", "--workspace", "--doc", "--quiet"]))?;
    for path in PATHS {
        command(self::tests(&["--package", "pellucid-kernels"]).env("PELLUCID_ISA", path))?;
        command(
            self::tests(&["--package", "pellucid-engine", "--test", "golden_models"])
                .env("PELLUCID_ISA", path),
        )?;
    }
    let numpy = python::environment("numpy", "golden/requirements-numpy.txt")?;
    command(Command::new(numpy).arg("golden/philox.py").current_dir(root()))?;
    command(
        Command::new("git")
            .args(["diff", "--exit-code", "--stat", "golden/operations/noise.json"])
            .current_dir(root()),
    )?;
    if arguments.full {
        full()?;
    }
    println!("\nAll checks passed.");
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

/// Golden files made again from their independent sources, and the long runs.
fn full() -> Outcome {
    let environment = python::environment("golden", "golden/requirements.txt")?;
    for script in
        ["make_models.py", "make_operations.py", "make_experiments.py", "make_gguf.py", "make_chats.py"]
    {
        command(Command::new(&environment).arg(root().join("golden").join(script)).current_dir(root()))?;
    }
    command(Command::new("git").args(["diff", "--exit-code", "--stat", "golden"]).current_dir(root()))?;
    command(
        tests(&["--package", "pellucid-engine", "--test", "random_programs", "--release"])
            .env("PELLUCID_PROGRAMS", "20000"),
    )
}
